//! What happens to packets when oxbow-node is killed, upgraded or told to go: nothing, nothing, and everything of its own is removed.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use oxbow_testkit::probe::PingStream;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, Northd, wait_until};
use oxbow_tests::traffic::spared_pings;
use oxbow_tests::{bridge, layer2};

oxbow_tests::on_every_backend! {
    a_killed_node_loses_no_packet_nor_does_the_next_one,
    exit_restart_is_an_upgrade_without_a_loss,
    recompute_builds_everything_anew_without_a_loss,
}

/// Pings from the first guest to its neighbour and across, going on while `story` is told; every one must be answered.
fn without_a_loss(
    cloud: &mut Cloud,
    story: impl FnOnce(&mut Cloud, &dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<()> {
    let log = |name: &str| cloud.dir().join(name);
    let guest = cloud.vif("lp11")?.guest();
    // The first packet to a hypervisor may wait for its neighbour's address and be lost.
    oxbow_testkit::probe::ping(guest, "10.0.0.21")?;
    let near = PingStream::start(guest, "10.0.0.12", &log("near.log"))?;
    let far = PingStream::start(guest, "10.0.0.21", &log("far.log"))?;
    let both = || near.wait_for(100).and_then(|()| far.wait_for(100));
    both()?;
    story(cloud, &both)?;
    both()?;
    let (near, far) = (near.finish_sparing(spared_pings(cloud))?, far.finish_sparing(spared_pings(cloud))?);
    ensure!(near >= 500 && far >= 500, "{near} and {far} answers are too few to say anything");
    Ok(())
}

/// Waits until a hypervisor's node has taken over: its own policy is in force.
fn until_in_force(hypervisor: &Hypervisor) -> Result<()> {
    wait_until(&format!("the dataplane of {} in force", hypervisor.name()), PATIENCE, || {
        let text = hypervisor.appctl("debug/dataplane")?;
        Ok(Look::when(text.contains(", active,"), || text))
    })
}

fn kill_and_start(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    without_a_loss(cloud, |cloud, pings_go_on| {
        for hypervisor in [0, 1] {
            let host = cloud.hypervisor(hypervisor);
            host.kill_controller()?;
            pings_go_on()?;
            host.start_controller()?;
            until_in_force(host)?;
            pings_go_on()?;
        }
        Ok(())
    })?;
    // It is a whole node again: what is changed now is carried out.
    cloud.nbctl("--wait=hv lsp-set-enabled lp12 disabled")?;
    oxbow_testkit::probe::no_ping(cloud.vif("lp11")?.guest(), "10.0.0.12")?;
    cloud.nbctl("--wait=hv lsp-set-enabled lp12 enabled")?;
    layer2::everybody_reaches_everybody(cloud)
}

fn a_killed_node_loses_no_packet_nor_does_the_next_one(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(kill_and_start)
}

#[test]
fn the_same_on_a_kernel_without_tcx() -> Result<()> {
    Cloud::builder()
        .northd(Northd::Oxbow)
        .hypervisors(2, Node::Oxbow)
        .node_arguments(&["--attach=clsact"])
        .run(kill_and_start)
}

fn exit_restart_is_an_upgrade_without_a_loss(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        without_a_loss(cloud, |cloud, pings_go_on| {
            let host = cloud.hypervisor(0);
            host.exit_controller(true)?;
            ensure!(!left(host)?.is_empty());
            pings_go_on()?;
            host.start_controller()?;
            until_in_force(host)
        })
    })
}

fn recompute_builds_everything_anew_without_a_loss(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        without_a_loss(cloud, |cloud, pings_go_on| {
            let host = &cloud.hypervisors()[0];
            let in_force = || host.controller_log().matches("the dataplane is in force").count();
            let (before, times) = (left(host)?, in_force());
            host.appctl("recompute")?;
            wait_until("it is in force again", PATIENCE, || {
                Ok(Look::when(in_force() == times + 1, || format!("{} times", in_force())))
            })?;
            if node == Node::OpenFlow {
                // The same policy is the same flows, numbers and all.
                let now = left(host)?;
                ensure!(now == before, "{:#?}", now.symmetric_difference(&before).collect::<Vec<_>>());
                return pings_go_on();
            }
            wait_until("one other instance", PATIENCE, || {
                let now = left(host)?;
                let instances = now.iter().filter(|path| path.contains("/instance-") && path.ends_with("/OX_RULES"));
                let (count, is_new) = (instances.count(), now != before);
                Ok(Look::when(count == 1 && is_new, || format!("{now:?}")))
            })?;
            pings_go_on()
        })?;
        layer2::everybody_reaches_everybody(cloud)
    })
}

/// What forwards while there is no node: pins, or flows and groups.
fn left(host: &Hypervisor) -> Result<BTreeSet<String>> {
    match host.node() {
        Node::OpenFlow => Ok(bridge::flows(host)?.into_iter().chain(bridge::groups(host)?).collect()),
        _ => pinned(host),
    }
}

/// Everything that Oxbow has in the bpf file system of a hypervisor.
fn pinned(host: &Hypervisor) -> Result<BTreeSet<String>> {
    let text = host.ns().run("find", &["/sys/fs/bpf", "-mindepth", "1", "-path", "*oxbow*"])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Everything that is attached to any device of a hypervisor by either hook: the kernel's own view.
fn filters(host: &Hypervisor) -> Result<String> {
    host.ns().run("sh", &["-c", "for d in $(ls /sys/class/net); do tc filter show dev $d ingress; done"])
}

fn exit_removes(cloud: &mut Cloud, attach: &str) -> Result<()> {
    layer2::build(cloud)?;
    let host = cloud.hypervisor(0);
    ensure!(pinned(host)?.iter().any(|path| path.ends_with("/links")));
    // Where there is tcx a filter serves a new device only until it has its link.
    wait_until("devices attached as asked for", PATIENCE, || {
        let filters = filters(host)?;
        Ok(Look::when(filters.contains("oxbow_vif") == (attach == "clsact"), || filters))
    })?;
    host.exit_controller(false)?;
    ensure!(pinned(host)?.is_empty(), "{:?} is left", pinned(host)?);
    ensure!(!filters(host)?.contains("oxbow"), "{}", filters(host)?);
    let keys = host.ovsdb().vsctl_no_wait("get Bridge br-int external_ids")?;
    ensure!(keys.trim() == "{}", "{keys}");
    let interface = host.ovsdb().vsctl_no_wait("--columns=external_ids list Interface")?;
    ensure!(!interface.contains("ovn-installed"), "{interface}");
    for table in ["Chassis", "Chassis_Private"] {
        let rows = cloud.sbctl(&format!("--bare --columns=name find {table} name=hv1"))?;
        ensure!(rows.trim().is_empty(), "{table}: {rows}");
    }
    ensure!(cloud.sbctl("--bare --columns=ip find Encap chassis_name=hv1")?.trim().is_empty());
    ensure!(cloud.nbctl("lsp-get-up lp11")?.trim() == "down");
    // The kernel forwards nothing any more, on either side of the fabric.
    oxbow_testkit::probe::no_ping(cloud.vif("lp11")?.guest(), "10.0.0.12")?;
    oxbow_testkit::probe::no_ping(cloud.vif("lp11")?.guest(), "10.0.0.21")?;
    // Starting again makes everything as it was.
    cloud.hypervisor(0).start_controller()?;
    for port in ["lp11", "lp12"] {
        cloud.wait_up(port)?;
    }
    layer2::everybody_reaches_everybody(cloud)
}

#[test]
fn exit_removes_every_trace() -> Result<()> {
    Cloud::builder().hypervisors(2, Node::Oxbow).run(|cloud| exit_removes(cloud, "tcx"))
}

#[test]
fn exit_removes_every_filter_of_clsact() -> Result<()> {
    Cloud::builder()
        .hypervisors(2, Node::Oxbow)
        .node_arguments(&["--attach=clsact"])
        .run(|cloud| exit_removes(cloud, "clsact"))
}
