//! The control plane can die: what is programmed goes on, and whoever comes back takes it over.

use anyhow::{Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE, wait_until};
use oxbow_testkit::{Cloud, Node, Northd, probe};
use oxbow_tests::layer2;

oxbow_tests::on_every_backend! {
    packets_flow_while_the_nodes_are_dead_and_when_they_are_back,
    exit_for_a_restart_removes_nothing,
}

fn packets_flow_while_the_nodes_are_dead_and_when_they_are_back(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        let far = layer2::GUESTS[2].ipv4;
        probe::ping(cloud.vif("lp11")?.guest(), far)?;
        for hypervisor in 0..2 {
            cloud.hypervisor(hypervisor).kill_controller()?;
        }
        let guest = cloud.vif("lp11")?.guest();
        ensure!(probe::ping_count(guest, far, 100)? == 100, "packets were lost while the nodes were dead");
        layer2::everybody_reaches_everybody(cloud)?;
        for hypervisor in 0..2 {
            cloud.hypervisor(hypervisor).start_controller()?;
        }
        cloud.sync()?;
        layer2::everybody_reaches_everybody(cloud)?;
        // They do not merely leave alone what they found: a change reaches the datapath.
        layer2::remove_port(cloud, "lp21")?;
        probe::no_ping(cloud.vif("lp11")?.guest(), far)
    })
}

#[test]
fn exit_removes_the_chassis_and_what_it_attached() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        ensure!(!cloud.hypervisors()[1].ns().enter(pins)??.is_empty(), "nothing was pinned while it ran");
        cloud.hypervisor(1).exit_controller(false)?;
        wait_until("chassis hv2 to leave SB", PATIENCE, || {
            let names = cloud.sbctl("--bare --columns=name list Chassis")?;
            Ok(Look::when(!names.contains("hv2"), || names))
        })?;
        let pins = cloud.hypervisors()[1].ns().enter(pins)??;
        ensure!(pins.is_empty(), "left in bpffs: {pins:?}");
        Ok(())
    })
}

fn exit_for_a_restart_removes_nothing(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        cloud.hypervisor(1).exit_controller(true)?;
        layer2::everybody_reaches_everybody(cloud)?;
        ensure!(cloud.sbctl("--bare --columns=name list Chassis")?.contains("hv2"), "the chassis is gone");
        cloud.hypervisor(1).start_controller()?;
        cloud.sync()?;
        layer2::everybody_reaches_everybody(cloud)
    })
}

/// What is in the bpffs of the namespace that this is called in, but for what the kernel puts there itself.
fn pins() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("/sys/fs/bpf")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !["maps.debug", "progs.debug"].contains(&name.as_str()) {
            names.push(name);
        }
    }
    Ok(names)
}
