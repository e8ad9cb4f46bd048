//! NB, SB and Open_vSwitch databases that are gone for a while, and a Southbound cluster whose leader moves: no packet is lost, and what was
//! changed meanwhile is applied when they are back.
//!
//! Long form: `OXBOW_FAULT_SECONDS=30 cargo test -p oxbow-tests --test fault_databases -- --nocapture` keeps them away for so long.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, VifSpec, probe, wait_until};
use oxbow_tests::layer2;
use oxbow_tests::traffic::{Traffic, fault_time};

oxbow_tests::on_every_backend! {
    southbound_is_away_under_our_northd,
    northbound_is_away,
    the_southbound_leader_moves_under_our_northd,
}

/// How long a database is away in the short form: longer than the clients' first attempts to reconnect.
const AWAY: Duration = Duration::from_secs(3);

const LATE: &str = "lp22";
const LATE_MAC: &str = "00:00:00:00:02:02";

/// A guest for the second hypervisor whose port does not exist yet.
fn late_guest(cloud: &mut Cloud) -> Result<()> {
    let device = cloud.create_vif(1, VifSpec::new(LATE, LATE_MAC, &["10.0.0.22/24"]))?.device().to_owned();
    // Open vSwitch's userspace datapath loses some milliseconds of frames when a port is added to it: there it is one before, and nobody's.
    let host = &cloud.hypervisors()[1];
    if host.node().has_userspace_datapath() {
        host.vsctl(&format!("add-port br-int {device}"))?;
    }
    Ok(())
}

fn add_late_port(cloud: &Cloud) -> Result<()> {
    cloud.nbctl(&format!("lsp-add sw0 {LATE} -- lsp-set-addresses {LATE} '{LATE_MAC} 10.0.0.22'")).map(|_| ())
}

/// Its guest goes. Where a device that leaves the bridge costs frames (see [`late_guest`]) it stays, and is nobody's again.
fn unplug_late_guest(cloud: &Cloud) -> Result<()> {
    let host = &cloud.hypervisors()[1];
    if host.node().has_userspace_datapath() {
        let device = cloud.vif(LATE)?.device();
        host.vsctl(&format!("remove Interface {device} external_ids iface-id"))?;
        Ok(())
    } else {
        cloud.unplug(LATE)
    }
}

/// The late guest is reached from the first hypervisor and from its own.
fn late_guest_is_reached(cloud: &Cloud) -> Result<()> {
    cloud.wait_up(LATE)?;
    for from in ["lp11", "lp21"] {
        probe::ping(cloud.vif(from)?.guest(), "10.0.0.22")?;
    }
    Ok(())
}

/// `lp12` hears nobody: the change that is made in NB while something is away.
fn cut_off(cloud: &Cloud) -> Result<()> {
    cloud.nbctl("acl-add sw0 to-lport 1001 'outport == \"lp12\" && ip4.src == 10.0.0.21' drop").map(|_| ())
}

fn is_cut_off(cloud: &Cloud) -> Result<()> {
    wait_until("lp21 does not reach lp12", PATIENCE, || {
        let answered = probe::ping_count(cloud.vif("lp21")?.guest(), "10.0.0.12", 1)?;
        Ok(Look::when(answered == 0, || format!("{answered} answered")))
    })
}

fn southbound_away(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    late_guest(cloud)?;
    let traffic = Traffic::near_and_far(cloud)?;
    traffic.mark("SB goes");
    cloud.stop_southbound()?;
    // What is asked for meanwhile: a policy, a port, its guest.
    cut_off(cloud)?;
    add_late_port(cloud)?;
    cloud.plug(LATE)?;
    traffic.goes_on_for(fault_time(AWAY)?)?;
    ensure!(probe::ping_count(cloud.vif("lp21")?.guest(), "10.0.0.12", 1)? == 1, "the change took effect without SB");
    traffic.mark("SB comes back");
    cloud.start_southbound()?;
    late_guest_is_reached(cloud)?;
    is_cut_off(cloud)?;
    cloud.sync()?;
    traffic.goes_on()?;
    traffic.nothing_was_lost_by(cloud)
}

fn southbound_is_away_under_our_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(southbound_away)
}

#[test]
fn southbound_is_away_under_stock_northd() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).run(southbound_away)
}

fn northbound_is_away(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        late_guest(cloud)?;
        add_late_port(cloud)?;
        cloud.sync()?;
        let traffic = Traffic::near_and_far(cloud)?;
        traffic.mark("NB goes");
        cloud.stop_northbound()?;
        // SB is enough to plug a guest whose port exists.
        cloud.plug(LATE)?;
        wait_until("the late port is up in SB", PATIENCE, || {
            let up = cloud.sbctl(&format!("--bare --columns=up find Port_Binding logical_port={LATE}"))?;
            Ok(Look::when(up.trim() == "true", || up))
        })?;
        for from in ["lp11", "lp21"] {
            probe::ping(cloud.vif(from)?.guest(), "10.0.0.22")?;
        }
        traffic.goes_on_for(fault_time(AWAY)?)?;
        traffic.mark("NB comes back");
        cloud.start_northbound()?;
        late_guest_is_reached(cloud)?;
        cut_off(cloud)?;
        is_cut_off(cloud)?;
        traffic.goes_on()?;
        traffic.nothing_was_lost_by(cloud)
    })
}

#[test]
fn the_open_vswitch_databases_are_away() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        late_guest(cloud)?;
        add_late_port(cloud)?;
        let traffic = Traffic::near_and_far(cloud)?;
        traffic.mark("the Open_vSwitch databases go");
        for hypervisor in 0..2 {
            cloud.hypervisor(hypervisor).stop_ovsdb()?;
        }
        // Policy needs no more than SB.
        cut_off(cloud)?;
        is_cut_off(cloud)?;
        traffic.goes_on_for(fault_time(AWAY)?)?;
        traffic.mark("they come back");
        for hypervisor in 0..2 {
            cloud.hypervisor(hypervisor).start_ovsdb()?;
        }
        cloud.plug(LATE)?;
        late_guest_is_reached(cloud)?;
        cloud.sync()?;
        traffic.goes_on()?;
        traffic.nothing_was_lost_by(cloud)
    })
}

#[test]
fn all_of_them_are_away_and_a_node_starts_meanwhile() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        late_guest(cloud)?;
        let traffic = Traffic::near_and_far(cloud)?;
        traffic.mark("NB and SB go");
        cloud.stop_northbound()?;
        cloud.stop_southbound()?;
        // With its own database it comes up and waits for the other.
        let host = cloud.hypervisor(0);
        host.kill_controller()?;
        traffic.mark("hv1 is killed and starts");
        host.start_controller()?;
        traffic.goes_on()?;
        host.stop_ovsdb()?;
        cloud.hypervisor(1).stop_ovsdb()?;
        traffic.mark("the Open_vSwitch databases go");
        traffic.goes_on_for(fault_time(AWAY)?)?;
        traffic.mark("all come back");
        for hypervisor in 0..2 {
            cloud.hypervisor(hypervisor).start_ovsdb()?;
        }
        cloud.start_southbound()?;
        cloud.start_northbound()?;
        add_late_port(cloud)?;
        cut_off(cloud)?;
        cloud.plug(LATE)?;
        late_guest_is_reached(cloud)?;
        is_cut_off(cloud)?;
        cloud.sync()?;
        traffic.goes_on()?;
        traffic.nothing_was_lost_by(cloud)
    })
}

/// The leader hands over, then dies, again and again, while ports are plugged and policies change.
fn leader_moves(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    late_guest(cloud)?;
    let traffic = Traffic::near_and_far(cloud)?;
    let until = Instant::now() + fault_time(Duration::ZERO)?;
    let mut round = 0;
    loop {
        traffic.mark("the leader hands over");
        cloud.central().sb_cluster()?.move_leader()?;
        add_late_port(cloud)?;
        cloud.plug(LATE)?;
        late_guest_is_reached(cloud)?;
        let cluster = cloud.central().sb_cluster()?;
        let leader = cluster.leader(None)?;
        traffic.mark(format!("the leader, member {leader}, is killed").as_str());
        cluster.member(leader).stop()?;
        // Changed while nobody leads.
        cut_off(cloud)?;
        is_cut_off(cloud)?;
        cloud.central().sb_cluster()?.leader(Some(leader))?;
        unplug_late_guest(cloud)?;
        cloud.wait_down(LATE)?;
        traffic.mark("it comes back");
        cloud.start_southbound_member(leader)?;
        cloud.nbctl(&format!("acl-del sw0 -- lsp-del {LATE}"))?;
        cloud.sync()?;
        probe::ping(cloud.vif("lp21")?.guest(), "10.0.0.12")?;
        traffic.goes_on()?;
        round += 1;
        if Instant::now() >= until {
            break;
        }
    }
    ensure!(round > 0);
    traffic.nothing_was_lost_by(cloud)
}

fn the_southbound_leader_moves_under_our_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).clustered_southbound().hypervisors(2, node).run(leader_moves)
}

#[test]
fn the_southbound_leader_moves_under_stock_northd() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).clustered_southbound().hypervisors(2, Node::Oxbow).run(leader_moves)
}
