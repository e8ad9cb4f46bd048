//! Devices that go in every state of a VIF's life, an uplink that goes, pins that somebody removes: what is left goes on without a loss, and
//! what comes back is taken up.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use oxbow_testkit::hypervisor::{UNDERLAY_MTU, UPLINK};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, Northd, VifSpec, link, probe, wait_until};
use oxbow_tests::layer2::{self, GUESTS};
use oxbow_tests::traffic::{Traffic, fault_time, until_in_force};

/// The guest whose device comes and goes, on the first hypervisor.
const VICTIM: &str = "lp13";
const ADDRESS: &str = "10.0.0.13";

/// The victim's guest and device, plugged into nothing.
fn victim(cloud: &mut Cloud) -> Result<()> {
    cloud.create_vif(0, VifSpec::new(VICTIM, "00:00:00:00:01:03", &["10.0.0.13/24"])).map(|_| ())
}

fn add_port(cloud: &Cloud) -> Result<()> {
    let addresses = format!("00:00:00:00:01:03 {ADDRESS}");
    cloud.nbctl(&format!("lsp-add sw0 {VICTIM} -- lsp-set-addresses {VICTIM} '{addresses}'")).map(|_| ())
}

fn delete_device(cloud: &Cloud) -> Result<()> {
    let device = cloud.vif(VICTIM)?.device();
    cloud.hypervisors()[0].ns().ip(&format!("link del {device}")).map(|_| ())
}

fn make_device(cloud: &Cloud) -> Result<()> {
    cloud.vif(VICTIM)?.connect(cloud.hypervisors()[0].ns())
}

/// What `debug/ports` says of the victim.
fn until_says(cloud: &Cloud, what: &str) -> Result<()> {
    wait_until(&format!("{VICTIM} is {what}"), PATIENCE, || {
        let ports = cloud.hypervisors()[0].appctl("debug/ports")?;
        let found = ports.lines().any(|line| line.contains(&format!(" {VICTIM} {what}")));
        Ok(Look::when(found, || ports))
    })
}

fn works(cloud: &Cloud) -> Result<()> {
    cloud.wait_up(VICTIM)?;
    until_says(cloud, "installed")?;
    for from in [GUESTS[1], GUESTS[2]] {
        probe::ping(cloud.vif(from.port)?.guest(), ADDRESS)?;
    }
    Ok(())
}

/// Links (or marks of filters) that are pinned on a hypervisor.
fn pinned(host: &Hypervisor) -> Result<Vec<String>> {
    let text = host
        .ns()
        .run("find", &["/sys/fs/bpf/oxbow", "-mindepth", "4", "-path", "*/links/*", "-o", "-path", "*/filters/*"])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The devices with programs are the uplink, the guests that stay, and `more`; no pin speaks of another.
fn until_pinned(host: &Hypervisor, count: usize) -> Result<()> {
    wait_until(&format!("{count} devices of {} have pins", host.name()), PATIENCE, || {
        let pins = pinned(host)?;
        Ok(Look::when(pins.len() == count, || format!("{pins:?}")))
    })
}

/// On the first hypervisor: the uplink and two guests.
const STAYING: usize = 3;

fn in_every_state(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    victim(cloud)?;
    let traffic = Traffic::near_and_far(cloud)?;

    traffic.mark("before there is a logical port");
    cloud.plug(VICTIM)?;
    until_says(cloud, "no-port-binding")?;
    delete_device(cloud)?;
    until_says(cloud, "no-device")?;
    add_port(cloud)?;
    cloud.sync()?;
    until_says(cloud, "no-device")?;
    make_device(cloud)?;
    works(cloud)?;
    cloud.unplug(VICTIM)?;
    cloud.wait_down(VICTIM)?;

    // Claimed, waiting for data, being programmed, being marked up: wherever it is so long after it was plugged in.
    for moment in [0, 4, 8, 12, 16, 24, 32, 48, 64, 96] {
        traffic.mark(&format!("{moment} ms after it was plugged in"));
        cloud.plug(VICTIM)?;
        let until = Instant::now() + Duration::from_millis(moment);
        while Instant::now() < until {
            std::thread::yield_now();
        }
        delete_device(cloud)?;
        until_says(cloud, "no-device")?;
        cloud.wait_down(VICTIM)?;
        until_pinned(&cloud.hypervisors()[0], STAYING)?;
        make_device(cloud)?;
        if moment % 3 == 0 {
            works(cloud)?;
        }
        cloud.unplug(VICTIM)?;
        cloud.wait_down(VICTIM)?;
    }

    traffic.mark("installed");
    cloud.plug(VICTIM)?;
    works(cloud)?;
    delete_device(cloud)?;
    cloud.wait_down(VICTIM)?;
    until_says(cloud, "no-device")?;
    traffic.mark("made anew under its name");
    make_device(cloud)?;
    works(cloud)?;
    delete_device(cloud)?;
    make_device(cloud)?;
    traffic.mark("made anew at once");
    works(cloud)?;

    traffic.mark("gone while the node is dead");
    cloud.hypervisor(0).kill_controller()?;
    delete_device(cloud)?;
    cloud.hypervisor(0).start_controller()?;
    until_in_force(&cloud.hypervisors()[0])?;
    until_says(cloud, "no-device")?;
    cloud.wait_down(VICTIM)?;
    until_pinned(&cloud.hypervisors()[0], STAYING)?;
    make_device(cloud)?;
    works(cloud)?;
    traffic.mark("made anew while the node is dead");
    cloud.hypervisor(0).kill_controller()?;
    delete_device(cloud)?;
    make_device(cloud)?;
    cloud.hypervisor(0).start_controller()?;
    until_in_force(&cloud.hypervisors()[0])?;
    works(cloud)?;
    until_pinned(&cloud.hypervisors()[0], STAYING + 1)?;

    traffic.mark("moved to another namespace");
    let device = cloud.vif(VICTIM)?.device().to_owned();
    let elsewhere = cloud.central_ns().path();
    cloud.hypervisors()[0].ns().ip(&format!("link set {device} netns {}", elsewhere.display()))?;
    until_says(cloud, "no-device")?;
    cloud.wait_down(VICTIM)?;
    until_pinned(&cloud.hypervisors()[0], STAYING)?;
    let back = cloud.hypervisors()[0].ns().path();
    cloud.central_ns().ip(&format!("link set {device} netns {}", back.display()))?;
    cloud.hypervisors()[0].ns().ip(&format!("link set {device} up"))?;
    traffic.mark("moved back");
    works(cloud)?;

    cloud.unplug(VICTIM)?;
    cloud.wait_down(VICTIM)?;
    until_pinned(&cloud.hypervisors()[0], STAYING)?;
    let host = cloud.hypervisor(0);
    host.check_alive()?;
    traffic.nothing_was_lost()?;
    layer2::everybody_reaches_everybody(cloud)
}

#[test]
fn a_device_goes_in_every_state_of_its_vif() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(in_every_state)
}

#[test]
fn the_same_without_tcx() -> Result<()> {
    Cloud::builder()
        .northd(Northd::Stock)
        .hypervisors(2, Node::Oxbow)
        .node_arguments(&["--attach=clsact"])
        .run(in_every_state)
}

#[test]
fn an_uplink_goes_and_comes_back() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        let near = Traffic::between(cloud, &[(GUESTS[0], GUESTS[1])])?;
        near.mark("the uplink of hv1 is removed");
        cloud.hypervisors()[0].ns().ip(&format!("link del {UPLINK}"))?;
        probe::no_ping(cloud.vif("lp11")?.guest(), GUESTS[2].ipv4)?;
        near.goes_on_for(fault_time(Duration::from_secs(1))?)?;
        near.mark("and added again");
        let (address, prefix) = (cloud.hypervisors()[0].site().address, cloud.hypervisors()[0].site().prefix);
        let (central, host) = (cloud.central_ns(), cloud.hypervisors()[0].ns());
        link::veth(central, "to-hv1", host, UPLINK)?;
        central.ip(&format!("link set to-hv1 master fab mtu {UNDERLAY_MTU}"))?;
        host.ip(&format!("link set {UPLINK} mtu {UNDERLAY_MTU}"))?;
        link::address(host, UPLINK, &format!("{address}/{prefix}"))?;
        let far = Traffic::between(cloud, &[(GUESTS[0], GUESTS[2])])?;
        far.goes_on()?;
        until_pinned(&cloud.hypervisors()[0], STAYING)?;
        // Down and up again keeps device and programs.
        let both_lost_nothing =
            |near: Traffic, far: Traffic| near.nothing_was_lost().and_then(|()| far.nothing_was_lost());
        both_lost_nothing(near, far)?;
        let near = Traffic::between(cloud, &[(GUESTS[0], GUESTS[1])])?;
        let host = cloud.hypervisors()[0].ns();
        host.ip(&format!("link set {UPLINK} down"))?;
        near.goes_on()?;
        host.ip(&format!("link set {UPLINK} up"))?;
        let far = Traffic::between(cloud, &[(GUESTS[0], GUESTS[2])])?;
        cloud.sync()?;
        far.goes_on()?;
        both_lost_nothing(near, far)?;
        layer2::everybody_reaches_everybody(cloud)
    })
}

fn pins_are_removed(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    until_pinned(&cloud.hypervisors()[0], STAYING)?;
    let traffic = Traffic::near_and_far(cloud)?;
    let before = pinned(&cloud.hypervisors()[0])?;
    traffic.mark("somebody removes one pin");
    let host = &cloud.hypervisors()[0];
    // A link is a file, the mark of a filter an empty directory.
    host.ns().run("rm", &["-rf", &before[0]])?;
    until_pinned(host, STAYING)?;
    traffic.mark("somebody removes all pins");
    host.ns().run("rm", &["-rf", "/sys/fs/bpf/oxbow"])?;
    until_pinned(host, STAYING)?;
    let log = host.controller_log();
    ensure!(log.contains(&format!("pinned {} again", before[0])), "{log}");
    traffic.goes_on()?;
    traffic.mark("and the node is killed");
    let host = cloud.hypervisor(0);
    host.kill_controller()?;
    traffic.goes_on()?;
    host.start_controller()?;
    until_in_force(host)?;
    cloud.sync()?;
    traffic.goes_on()?;
    traffic.nothing_was_lost()?;
    // Without a node nobody holds what is removed. The next one makes all of it again.
    let host = cloud.hypervisor(0);
    host.kill_controller()?;
    host.ns().run("rm", &["-rf", "/sys/fs/bpf/oxbow"])?;
    host.start_controller()?;
    until_in_force(host)?;
    until_pinned(host, STAYING)?;
    cloud.sync()?;
    layer2::everybody_reaches_everybody(cloud)
}

#[test]
fn pins_are_removed_by_hand() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(pins_are_removed)
}

#[test]
fn marks_of_filters_are_removed_by_hand() -> Result<()> {
    Cloud::builder()
        .northd(Northd::Stock)
        .hypervisors(2, Node::Oxbow)
        .node_arguments(&["--attach=clsact"])
        .run(pins_are_removed)
}
