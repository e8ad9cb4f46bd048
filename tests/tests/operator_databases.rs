//! Databases that cannot be reached: named, and everything that is in force stays in force.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use oxbow_testkit::probe::{self, PingStream};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Netns, Node, Northd, OvsdbServer, Process, artifacts, wait_until};
use oxbow_tests::layer2;
use oxbow_tests::traffic::spared_pings;

oxbow_tests::on_every_backend! {
    without_the_southbound_database_vifs_go_on_and_changes_are_caught_up_with,
    a_southbound_database_that_comes_late_is_waited_for_by_name,
}

fn until_status(host: &Hypervisor, expected: &str) -> Result<()> {
    wait_until(&format!("{} is {expected}", host.name()), PATIENCE, || {
        let (text, status) = (host.appctl("connection-status")?, host.appctl("status")?);
        Ok(Look::when(text.trim() == expected, || format!("{text}{status}")))
    })
}

fn until_logged(host: &Hypervisor, text: &str) -> Result<()> {
    wait_until(&format!("{text:?} in the log of {}", host.name()), PATIENCE, || {
        let log = host.controller_log();
        Ok(Look::when(log.contains(text), || log))
    })
}

fn without_the_southbound_database_vifs_go_on_and_changes_are_caught_up_with(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        let remote = cloud.hypervisors()[0].site().sb_remote.clone();
        let near = PingStream::start(cloud.vif("lp11")?.guest(), "10.0.0.12", &cloud.dir().join("near.log"))?;
        // Open vSwitch's userspace datapath drops the frame that asks for a neighbour on the underlay.
        probe::ping(cloud.vif("lp11")?.guest(), "10.0.0.21")?;
        let far = PingStream::start(cloud.vif("lp11")?.guest(), "10.0.0.21", &cloud.dir().join("far.log"))?;
        cloud.stop_southbound()?;
        for host in cloud.hypervisors() {
            until_status(host, "not connected")?;
            until_logged(host, &format!("{remote}: connection dropped"))?;
            until_logged(host, &format!("{remote}: cannot connect"))?;
            let status = host.appctl("status")?;
            ensure!(status.contains(&format!("not connected ({remote})")), "{status}");
        }
        near.wait_for(300)?;
        far.wait_for(300)?;
        // A node that is killed meanwhile and comes back without the database leaves what is in force alone.
        cloud.hypervisor(0).kill_controller()?;
        cloud.hypervisor(0).start_controller()?;
        until_status(cloud.hypervisor(0), "not connected")?;
        near.wait_for(100)?;
        far.wait_for(100)?;
        // Decided while SB is away, carried out when it is back.
        cloud.nbctl("acl-add sw0 to-lport 1001 'outport == \"lp12\" && ip4.src == 10.0.0.21' drop")?;
        cloud.start_southbound()?;
        for host in cloud.hypervisors() {
            until_status(host, "connected")?;
        }
        cloud.sync()?;
        probe::no_ping(cloud.vif("lp21")?.guest(), "10.0.0.12")?;
        near.wait_for(100)?;
        far.wait_for(100)?;
        near.finish_sparing(spared_pings(cloud))?;
        far.finish_sparing(spared_pings(cloud)).map(|_| ())
    })
}

fn a_southbound_database_that_comes_late_is_waited_for_by_name(node: Node) -> Result<()> {
    Cloud::builder().hypervisors(1, node).run(|cloud| {
        let right = cloud.hypervisors()[0].site().sb_remote.clone();
        let wrong = right.replace(":6642", ":6643");
        let host = &cloud.hypervisors()[0];
        host.vsctl(&format!("set Open_vSwitch . external_ids:ovn-remote={wrong}"))?;
        until_status(host, "not connected")?;
        until_logged(host, &format!("{wrong}: cannot connect"))?;
        // Its switch is served all the same.
        host.vsctl("add-br br-other")?;
        let address = wrong.trim_start_matches("tcp:").replace(":6643", "");
        cloud.southbound().add_remote(&format!("ptcp:6643:{address}"))?;
        until_status(&cloud.hypervisors()[0], "connected")?;
        cloud.nbctl("ls-add sw9")?;
        cloud.sync()
    })
}

#[test]
fn without_the_open_vswitch_database_vifs_go_on() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        let far = PingStream::start(cloud.vif("lp11")?.guest(), "10.0.0.21", &cloud.dir().join("far.log"))?;
        let host = cloud.hypervisor(0);
        let remote = host.ovsdb().remote();
        host.stop_ovsdb()?;
        until_logged(host, &format!("{remote}: cannot connect"))?;
        let status = host.appctl("status")?;
        ensure!(status.contains(&format!("Open_vSwitch: not connected ({remote})")), "{status}");
        // Policy is followed: it needs no more than the Southbound database.
        cloud.nbctl("lsp-set-enabled lp12 disabled")?;
        wait_until("lp12 is cut off", PATIENCE, || {
            let answered = probe::ping_count(cloud.vif("lp11")?.guest(), "10.0.0.12", 1)?;
            Ok(Look::when(answered == 0, || format!("{answered} answered")))
        })?;
        far.wait_for(100)?;
        cloud.hypervisor(0).start_ovsdb()?;
        let host = &cloud.hypervisors()[0];
        wait_until("the database is back", PATIENCE, || {
            let status = host.appctl("status")?;
            Ok(Look::when(status.contains("Open_vSwitch: connected"), || status))
        })?;
        host.vsctl("add-br br-other")?;
        cloud.nbctl("--wait=hv lsp-set-enabled lp12 enabled")?;
        far.finish_sparing(spared_pings(cloud))?;
        layer2::everybody_reaches_everybody(cloud)
    })
}

#[test]
fn a_node_that_starts_without_the_open_vswitch_database_waits_for_it() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        let far = PingStream::start(cloud.vif("lp11")?.guest(), "10.0.0.21", &cloud.dir().join("far.log"))?;
        let host = cloud.hypervisor(0);
        let remote = host.ovsdb().remote();
        host.kill_controller()?;
        host.stop_ovsdb()?;
        let log = host.dir().join("waiting.log");
        let node = host.ns().spawn("the waiting node", host.node_command()?, &log)?;
        let status = |expected: &str| {
            wait_until(&format!("the status says {expected}"), PATIENCE, || {
                let output =
                    Command::new("ovn-appctl").arg("-t").arg(host.dir().join("node.ctl")).arg("status").output()?;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                Ok(Look::when(text.contains(expected), || format!("{text}\n{}", node.log_tail(3000))))
            })
        };
        status(&format!("Open_vSwitch: not connected ({remote})"))?;
        wait_until("the log names the database", PATIENCE, || {
            let said = node.log_tail(100_000);
            Ok(Look::when(said.contains(&format!("{remote}: connection attempt failed")), || said))
        })?;
        far.wait_for(100)?;
        cloud.hypervisor(0).start_ovsdb()?;
        cloud.sync()?;
        far.wait_for(100)?;
        far.finish_sparing(spared_pings(cloud))?;
        layer2::everybody_reaches_everybody(cloud)
    })
}

/// oxbow-northd by itself.
struct Translator {
    process: Process,
    control: std::path::PathBuf,
}

impl Translator {
    fn start(ns: &Netns, dir: &Path, nb: &str, sb: &str) -> Result<Self> {
        let control = dir.join("lone-northd.ctl");
        let mut command = Command::new(artifacts::binary("oxbow-northd")?);
        command.arg(format!("--ovnnb-db={nb}")).arg(format!("--ovnsb-db={sb}")).arg("--no-chdir");
        command.arg(format!("--unixctl={}", control.display())).env("OVN_RUNDIR", dir);
        Ok(Self { process: ns.spawn("northd", command, &dir.join("lone-northd.log"))?, control })
    }

    fn until(&self, command: &str, expected: &str) -> Result<()> {
        wait_until(&format!("{command}: {expected}"), PATIENCE, || {
            let output = Command::new("ovn-appctl").arg("-t").arg(&self.control).arg(command).output()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Ok(Look::when(text == expected, || format!("{text}\n{}", self.process.log_tail(3000))))
        })
    }

    fn until_logged(&self, text: &str) -> Result<()> {
        wait_until(&format!("{text:?} in northd's log"), PATIENCE, || {
            let log = self.process.log_tail(100_000);
            Ok(Look::when(log.contains(text), || log))
        })
    }
}

#[test]
fn northd_names_the_database_that_it_cannot_reach_and_goes_on_when_it_can() -> Result<()> {
    let ns = Netns::new("central")?;
    let dir = tempfile::tempdir()?;
    let server =
        |name: &str, schema: &str| OvsdbServer::builder(name).schema(schema).directory(dir.path()).namespace(&ns);
    let remote = |name: &str| format!("unix:{}/{name}.sock", dir.path().display());
    let northd = Translator::start(&ns, dir.path(), &remote("nb"), &remote("sb"))?;
    for (name, command) in [("nb", "nb-connection-status"), ("sb", "sb-connection-status")] {
        northd.until(command, "not connected")?;
        northd.until_logged(&format!("{}: connection attempt failed", remote(name)))?;
    }
    let mut nb = server("nb", oxbow_testkit::ovsdb::NB_SCHEMA).start()?;
    nb.nbctl("init -- ls-add sw0")?;
    northd.until("nb-connection-status", "connected")?;
    northd.until("sb-connection-status", "not connected")?;
    let mut sb = server("sb", oxbow_testkit::ovsdb::SB_SCHEMA).start()?;
    sb.sbctl("init")?;
    northd.until("sb-connection-status", "connected")?;
    nb.nbctl("--wait=sb sync")?;
    ensure!(sb.sbctl("--bare --columns=external_ids list Datapath_Binding")?.contains("sw0"));
    // It goes and comes back: what was decided meanwhile is written then.
    sb.stop()?;
    northd.until("sb-connection-status", "not connected")?;
    nb.nbctl("ls-add sw1")?;
    sb.start_again(Some(&ns))?;
    nb.nbctl("--wait=sb sync")?;
    ensure!(sb.sbctl("--bare --columns=external_ids list Datapath_Binding")?.contains("sw1"));
    // Without NB nothing is taken away from SB.
    nb.stop()?;
    northd.until("nb-connection-status", "not connected")?;
    ensure!(sb.sbctl("--bare --columns=external_ids list Datapath_Binding")?.contains("sw1"));
    nb.start_again(Some(&ns))?;
    nb.nbctl("--wait=sb ls-del sw1")?;
    ensure!(!sb.sbctl("--bare --columns=external_ids list Datapath_Binding")?.contains("sw1"));
    Ok(())
}
