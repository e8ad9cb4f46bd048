//! `kill -9 oxbow-node`, again and again, also in the middle of taking over: no packet is lost.
//!
//! Long form: `OXBOW_FAULT_SECONDS=60 cargo test -p oxbow-tests --test fault_kill -- --nocapture` kills for so long.

use std::time::{Duration, Instant};

use anyhow::Result;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, probe, wait_until};
use oxbow_tests::cards::{BROADCAST, Card, mac_text};
use oxbow_tests::layer2;
use oxbow_tests::traffic::{Traffic, fault_time, until_in_force};

oxbow_tests::on_every_backend! {
    a_node_that_is_killed_at_any_moment_loses_no_packet,
    an_address_that_is_learned_while_the_node_is_dead_is_published_by_the_next_one,
}

/// Moments of a start at which the next `kill -9` falls: before the programs are loaded, while the Southbound database is being read,
/// while maps are filled, while devices are taken over, afterwards.
const MOMENTS_MS: [u64; 8] = [0, 30, 60, 100, 150, 220, 350, 500];

fn killed_again_and_again(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    let traffic = Traffic::near_and_far(cloud)?;
    let until = Instant::now() + fault_time(Duration::from_secs(4))?;
    let mut moments = MOMENTS_MS.iter().cycle();
    while Instant::now() < until {
        for hypervisor in 0..2 {
            let moment = *moments.next().unwrap_or(&0);
            let host = cloud.hypervisor(hypervisor);
            host.kill_controller()?;
            host.start_controller()?;
            traffic.mark(&format!("{} started, to be killed {moment} ms later", host.name()));
            traffic.goes_on_for(Duration::from_millis(moment))?;
        }
    }
    for hypervisor in 0..2 {
        let host = cloud.hypervisor(hypervisor);
        host.kill_controller()?;
        traffic.mark(&format!("{} killed", host.name()));
        traffic.goes_on()?;
        host.start_controller()?;
        until_in_force(host)?;
        traffic.goes_on()?;
    }
    traffic.nothing_was_lost_by(cloud)?;
    // It is a whole node again: what is changed now is carried out.
    cloud.nbctl("--wait=hv lsp-set-enabled lp12 disabled")?;
    probe::no_ping(cloud.vif("lp11")?.guest(), "10.0.0.12")?;
    cloud.nbctl("--wait=hv lsp-set-enabled lp12 enabled")?;
    layer2::everybody_reaches_everybody(cloud)
}

fn a_node_that_is_killed_at_any_moment_loses_no_packet(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(killed_again_and_again)
}

#[test]
fn nor_does_one_on_a_kernel_without_tcx() -> Result<()> {
    Cloud::builder()
        .northd(Northd::Stock)
        .hypervisors(2, Node::Oxbow)
        .node_arguments(&["--attach=clsact"])
        .run(killed_again_and_again)
}

fn an_address_that_is_learned_while_the_node_is_dead_is_published_by_the_next_one(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        cloud.nbctl("lsp-add sw0 any -- lsp-set-addresses any unknown")?;
        Card::plug(cloud, "any", 0, [0, 0, 0, 0, 0xa, 1])?;
        cloud.sync()?;
        // An address that the guest has not used before.
        let any = Card::of(cloud, "any", 0, [0, 0, 0, 0, 0xa, 2])?;
        cloud.hypervisor(0).kill_controller()?;
        let bystander = Card::of(cloud, "lp12", 0, [0, 0, 0, 0, 1, 2])?;
        // The programs forward and learn by themselves.
        let frame = any.numbered(BROADCAST, 1, 60);
        any.send(&frame)?;
        bystander.receive_exactly(&frame)?;
        cloud.hypervisor(0).start_controller()?;
        wait_until("the address is in the FDB", PATIENCE, || {
            let rows = cloud.sbctl("--bare --columns=mac list FDB")?;
            Ok(Look::when(rows.contains(&mac_text(any.mac)), || rows))
        })
    })
}
