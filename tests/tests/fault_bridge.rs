//! `--backend=openflow`: ports that go in every state, and an ovs-vswitchd that answers nobody: stopped, or without its database (it neither talks nor, by the userspace datapath,
//! forwards then). The node says so, does everything else, and brings what came meanwhile when it goes on.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, Northd, VifSpec, probe, wait_until};
use oxbow_tests::bridge;
use oxbow_tests::layer2::{self, GUESTS};

/// The node of the first hypervisor reaches the Southbound database by a socket, not through its own switch, which will be silent.
fn southbound_at_hand(cloud: &mut Cloud) -> Result<()> {
    let remote = format!("unix:{}", cloud.central().sb().socket().display());
    let host = &cloud.hypervisors()[0];
    host.vsctl(&format!("set Open_vSwitch . external_ids:ovn-remote=\"{remote}\""))?;
    wait_until("connected there", PATIENCE, || {
        let status = host.appctl("status")?;
        Ok(Look::when(status.contains(&format!("Southbound: connected ({remote})")), || status))
    })
}

/// The node of a hypervisor whose switch is silent: it says so, answers commands, and claims nothing that is not so.
fn is_awake(cloud: &Cloud, host: &Hypervisor) -> Result<()> {
    let done = || cloud.sbctl("--bare --columns=nb_cfg find Chassis_Private name=hv1");
    let before = done()?;
    cloud.nbctl("acl-add sw0 to-lport 1001 'outport == \"lp12\" && ip4.src == 10.0.0.21' drop")?;
    wait_until("the silence of ovs-vswitchd is told", PATIENCE, || {
        let problems = host.appctl("debug/problems")?;
        Ok(Look::when(problems.contains("bridge br-int does not answer at"), || problems))
    })?;
    // Counters are the bridge's: asked for, and not waited for.
    let told = host.appctl("drops").err().context("drops without counters")?.to_string();
    ensure!(told.contains("does not answer"), "{told}");
    let ports = host.appctl("debug/ports")?;
    ensure!(ports.contains("lp11") && ports.contains("lp12"), "{ports}");
    cloud.nbctl("--wait=sb sync")?;
    let wanted = cloud.sbctl("--bare --columns=nb_cfg list SB_Global")?;
    wait_until("the new nb_cfg is seen", PATIENCE, || {
        let status = host.appctl("status")?;
        let seen = format!(" of {}", wanted.trim());
        Ok(Look::when(status.lines().any(|line| line.starts_with("nb_cfg: ") && line.ends_with(&seen)), || status))
    })?;
    // What it writes to Southbound later comes after what it wrote on seeing that: its own host name is put back.
    let hostname = || cloud.sbctl("--bare --columns=hostname find Chassis name=hv1");
    let own = hostname()?;
    cloud.sbctl("set Chassis hv1 hostname=another")?;
    wait_until("the host name is put back", PATIENCE, || {
        let seen = hostname()?;
        Ok(Look::when(seen == own, || seen))
    })?;
    ensure!(done()? == before, "nb_cfg {before} became {}", done()?);
    Ok(())
}

/// It goes on: what came meanwhile is in force.
fn is_caught_up(cloud: &Cloud) -> Result<()> {
    cloud.sync()?;
    probe::no_ping(cloud.vif("lp21")?.guest(), "10.0.0.12")?;
    let host = &cloud.hypervisors()[0];
    wait_until("no word of silence", PATIENCE, || {
        let problems = host.appctl("debug/problems")?;
        Ok(Look::when(!problems.contains("does not answer"), || problems))
    })?;
    cloud.nbctl("--wait=hv acl-del sw0")?;
    layer2::everybody_reaches_everybody(cloud)
}

#[test]
fn an_ovs_vswitchd_that_is_stopped_holds_nothing_up() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::OpenFlow).run(|cloud| {
        layer2::build(cloud)?;
        southbound_at_hand(cloud)?;
        let host = &cloud.hypervisors()[0];
        host.signal_vswitchd(Signal::SIGSTOP)?;
        is_awake(cloud, host)?;
        // Its database is followed.
        host.ovsdb().vsctl_no_wait("add-port br-int ghost -- set Interface ghost external_ids:iface-id=nobody")?;
        wait_until("the new interface is seen", PATIENCE, || {
            let ports = host.appctl("debug/ports")?;
            Ok(Look::when(ports.contains("nobody"), || ports))
        })?;
        cloud.hypervisors()[0].signal_vswitchd(Signal::SIGCONT)?;
        is_caught_up(cloud)
    })
}

#[test]
fn nor_does_one_without_its_database() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::OpenFlow).run(|cloud| {
        layer2::build(cloud)?;
        southbound_at_hand(cloud)?;
        cloud.hypervisor(0).stop_ovsdb()?;
        is_awake(cloud, &cloud.hypervisors()[0])?;
        cloud.hypervisor(0).start_ovsdb()?;
        is_caught_up(cloud)
    })
}

#[test]
fn a_node_that_starts_beside_a_stopped_one_takes_over_when_it_goes_on() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::OpenFlow).run(|cloud| {
        layer2::build(cloud)?;
        cloud.hypervisor(0).kill_controller()?;
        cloud.hypervisors()[0].signal_vswitchd(Signal::SIGSTOP)?;
        cloud.hypervisor(0).start_controller()?;
        let host = &cloud.hypervisors()[0];
        wait_until("the silence of ovs-vswitchd is told", PATIENCE, || {
            let problems = host.appctl("debug/problems")?;
            Ok(Look::when(problems.contains("bridge br-int does not answer at"), || problems))
        })?;
        // What a former process installed is not taken back because nobody can say whether it works.
        let up = cloud.sbctl("--bare --columns=up find Port_Binding logical_port=lp11")?;
        ensure!(up.trim() == "true", "{up}");
        host.signal_vswitchd(Signal::SIGCONT)?;
        cloud.sync()?;
        let log = cloud.hypervisors()[0].controller_log();
        ensure!(log.matches("lp11 up in Southbound").count() == 1, "it flapped\n{log}");
        layer2::everybody_reaches_everybody(cloud)
    })
}

/// The guest whose port comes and goes, on the first hypervisor.
const VICTIM: &str = "lp13";

/// Ports of the bridge that are served without the victim: two guests' and the tunnel's.
const STAYING: usize = 3;

fn until_served(host: &Hypervisor, count: usize) -> Result<()> {
    wait_until(&format!("{count} ports are served"), PATIENCE, || {
        let served = bridge::served(host)?;
        Ok(Look::when(served.len() == count, || format!("{served:?}")))
    })
}

fn works(cloud: &Cloud) -> Result<()> {
    cloud.wait_up(VICTIM)?;
    for from in [GUESTS[1], GUESTS[2]] {
        probe::ping(cloud.vif(from.port)?.guest(), "10.0.0.13")?;
    }
    Ok(())
}

#[test]
fn a_port_goes_in_every_state_of_its_vif() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::OpenFlow).run(|cloud| {
        layer2::build(cloud)?;
        cloud.create_vif(0, VifSpec::new(VICTIM, "00:00:00:00:01:03", &["10.0.0.13/24"]))?;
        cloud.nbctl(&format!("lsp-add sw0 {VICTIM} -- lsp-set-addresses {VICTIM} '00:00:00:00:01:03 10.0.0.13'"))?;
        cloud.sync()?;
        let device = cloud.vif(VICTIM)?.device().to_owned();
        let goes = |cloud: &Cloud, with_device: bool| -> Result<()> {
            let host = &cloud.hypervisors()[0];
            if with_device {
                host.ns().ip(&format!("link del {device}"))?;
            }
            host.ovsdb().vsctl_no_wait(&format!("del-port br-int {device}"))?;
            if with_device { cloud.vif(VICTIM)?.connect(host.ns()) } else { Ok(()) }
        };
        // Numbered, claimed, waiting for data, on its way into the bridge, marked up: wherever it is so long after it was plugged in.
        for (round, moment) in [0, 4, 8, 12, 16, 24, 32, 48, 64, 96].into_iter().enumerate() {
            let add = format!("add-port br-int {device} -- set Interface {device} external_ids:iface-id={VICTIM}");
            cloud.hypervisors()[0].ovsdb().vsctl_no_wait(&add)?;
            let until = Instant::now() + Duration::from_millis(moment);
            while Instant::now() < until {
                std::thread::yield_now();
            }
            goes(cloud, round % 2 == 0)?;
            cloud.wait_down(VICTIM)?;
            until_served(&cloud.hypervisors()[0], STAYING)?;
        }
        cloud.plug(VICTIM)?;
        works(cloud)?;
        goes(cloud, true)?;
        cloud.wait_down(VICTIM)?;
        // And while nobody looks.
        cloud.plug(VICTIM)?;
        works(cloud)?;
        cloud.hypervisor(0).kill_controller()?;
        goes(cloud, true)?;
        cloud.hypervisor(0).start_controller()?;
        cloud.wait_down(VICTIM)?;
        until_served(&cloud.hypervisors()[0], STAYING)?;
        cloud.plug(VICTIM)?;
        works(cloud)?;
        until_served(&cloud.hypervisors()[0], STAYING + 1)?;
        layer2::everybody_reaches_everybody(cloud)
    })
}
