//! Both seams: our northd under their controllers, their northd over our node, and clouds that mix the two on the wire.

use anyhow::Result;
use oxbow_testkit::{Cloud, Node, Northd};
use oxbow_tests::layer2;

oxbow_tests::on_every_backend! {
    stock_northd_with_our_node,
    our_northd_with_our_node,
    our_node_talks_to_a_stock_controller_on_the_wire,
    our_nodes_talk_over_ipv6,
}

/// Builds the layer-2 network and has every guest reach every other, inside a hypervisor and across.
fn everybody_reaches_everybody(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    layer2::everybody_reaches_everybody(cloud)?;
    layer2::spoofed_packets_are_not_heard(cloud)
}

#[test]
fn our_northd_with_stock_controllers() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Stock).run(everybody_reaches_everybody)
}

fn stock_northd_with_our_node(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(everybody_reaches_everybody)
}

fn our_northd_with_our_node(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(everybody_reaches_everybody)
}

fn our_node_talks_to_a_stock_controller_on_the_wire(node: Node) -> Result<()> {
    Cloud::builder()
        .northd(Northd::Stock)
        .hypervisors(1, node)
        .hypervisors(1, Node::Stock)
        .run(everybody_reaches_everybody)
}

#[test]
fn our_backends_talk_to_each_other_on_the_wire() -> Result<()> {
    Cloud::builder()
        .northd(Northd::Oxbow)
        .hypervisors(1, Node::OpenFlow)
        .hypervisors(1, Node::Oxbow)
        .run(everybody_reaches_everybody)
}

fn our_nodes_talk_over_ipv6(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).ipv6_underlay().hypervisors(2, node).run(everybody_reaches_everybody)
}
