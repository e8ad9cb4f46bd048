//! Beside and against the kernel's own Open vSwitch datapath, which few machines that build have: run in virtual machines.
#![cfg(feature = "ovs-kernel")]

use anyhow::{Result, ensure};
use oxbow_testkit::{Cloud, Node, Northd};
use oxbow_tests::layer2;

fn everybody_reaches_everybody(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    layer2::everybody_reaches_everybody(cloud)?;
    layer2::spoofed_packets_are_not_heard(cloud)
}

/// What `ovs-vsctl` says about an interface's `ofport` is the number in the kernel's datapath, given by ovs-vswitchd and by nobody else.
fn vswitchd_numbers_the_ports(cloud: &Cloud) -> Result<()> {
    for guest in layer2::GUESTS {
        let (host, device) = (cloud.hypervisor_of(guest.port)?, cloud.vif(guest.port)?.device().to_owned());
        let ofport: i32 = host.vsctl(&format!("get Interface {device} ofport"))?.trim().parse()?;
        let numbered = host.vswitchd_appctl("dpif/show")?;
        let line = numbered.lines().find(|line| line.split_whitespace().next() == Some(&device));
        ensure!(
            line.is_some_and(|line| line.contains(&format!(" {ofport}/"))),
            "{device} has ofport {ofport}, and ovs-vswitchd says:\n{numbered}"
        );
    }
    Ok(())
}

/// The peer by itself: a failure here is no failure of ours.
#[test]
fn stock_controllers_with_the_kernel_datapath() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::StockKernel).run(everybody_reaches_everybody)
}

#[test]
fn our_nodes_beside_vswitchd() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::BesideKernel).run(|cloud| {
        everybody_reaches_everybody(cloud)?;
        vswitchd_numbers_the_ports(cloud)
    })
}

#[test]
fn our_node_talks_to_the_kernel_datapath_on_the_wire() -> Result<()> {
    Cloud::builder()
        .northd(Northd::Oxbow)
        .hypervisors(1, Node::Oxbow)
        .hypervisors(1, Node::StockKernel)
        .run(everybody_reaches_everybody)
}
