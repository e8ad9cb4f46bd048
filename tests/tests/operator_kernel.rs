//! Kernels without tcx, maps that are full, devices that are not there: each is named, and the rest goes on.

use anyhow::{Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, Northd, VifSpec, probe, wait_until};
use oxbow_tests::layer2;

/// Waits until a command's answer on a hypervisor holds a text.
fn until_says(host: &Hypervisor, command: &str, texts: &[&str]) -> Result<String> {
    wait_until(&format!("{command} of {} with {texts:?}", host.name()), PATIENCE, || {
        let answer = host.appctl(command)?;
        Ok(if texts.iter().all(|text| answer.contains(text)) { Look::Held(answer) } else { Look::NotYet(answer) })
    })
}

#[test]
fn a_cloud_works_without_tcx_and_says_so() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).node_arguments(&["--attach=clsact"]).run(
        |cloud| {
            layer2::build(cloud)?;
            layer2::everybody_reaches_everybody(cloud)?;
            layer2::spoofed_packets_are_not_heard(cloud)?;
            for host in cloud.hypervisors() {
                let log = host.controller_log();
                ensure!(log.contains("are attached by clsact (--attach=clsact)"), "{log}");
                ensure!(host.appctl("debug/dataplane")?.contains("hook clsact"));
                let filters = host.ns().run("tc", &["filter", "show", "dev", "eth0", "ingress"])?;
                ensure!(filters.contains("oxbow_underlay"), "{filters}");
            }
            Ok(())
        },
    )
}

#[test]
fn the_hook_is_chosen_by_the_kernel_and_named() -> Result<()> {
    Cloud::builder().hypervisors(1, Node::Oxbow).run(|cloud| {
        let host = &cloud.hypervisors()[0];
        let text = until_says(host, "debug/dataplane", &["hook "])?;
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        ensure!(text.contains(release.trim()), "{text}");
        Ok(())
    })
}

/// Guests whose rules overflow a map of this size, found by adding them one after the other.
fn overflow(cloud: &mut Cloud, map: &str) -> Result<()> {
    layer2::build(cloud)?;
    let host = 0;
    let full = format!("map {map} is full");
    // Addresses without neighbours, so that no prefix covers two.
    let addresses = (0..4000u32).map(|n| format!("10.1.{}.{}", n / 100, 1 + n % 100 * 2));
    let list: Vec<String> = addresses.collect();
    cloud.nbctl(&format!("create Address_Set name=many addresses={}", list.join(",")))?;
    cloud.nbctl("acl-add sw0 to-lport 1001 'ip4.src == $many' drop")?;
    let problems = until_says(&cloud.hypervisors()[host], "debug/problems", &[&full, &format!("--map-size {map}=N")])?;
    ensure!(problems.contains("commit: "), "{problems}");
    // What is up goes on.
    for (from, to) in [("lp11", "10.0.0.12"), ("lp11", "10.0.0.21"), ("lp21", "10.0.0.11")] {
        probe::ping(cloud.vif(from)?.guest(), to)?;
    }
    // A new port does not come up, and its interface says why.
    cloud.nbctl("lsp-add sw0 lp13 -- lsp-set-addresses lp13 '00:00:00:00:01:03 10.0.0.13'")?;
    cloud.create_vif(host, VifSpec::new("lp13", "00:00:00:00:01:03", &["10.0.0.13/24"]))?;
    cloud.plug("lp13")?;
    until_says(&cloud.hypervisors()[host], "debug/ports", &["lp13 failed", &full])?;
    let device = cloud.vif("lp13")?.device().to_owned();
    wait_until("the reason at the interface", PATIENCE, || {
        let text = cloud.hypervisors()[host].ovsdb().vsctl_no_wait(&format!("get Interface {device} external_ids"))?;
        Ok(Look::when(text.contains(&full) && !text.contains("ovn-installed="), || text))
    })?;
    ensure!(cloud.nbctl("lsp-get-up lp13")?.trim() == "down");
    probe::no_ping(cloud.vif("lp13")?.guest(), "10.0.0.11")?;
    let log = cloud.hypervisors()[host].controller_log();
    ensure!(log.contains(&full), "{log}");
    // Less load: everything is put in force.
    cloud.nbctl("acl-del sw0")?;
    cloud.wait_up("lp13")?;
    probe::ping(cloud.vif("lp13")?.guest(), "10.0.0.21")?;
    layer2::everybody_reaches_everybody(cloud)?;
    let problems = cloud.hypervisors()[host].appctl("debug/problems")?;
    ensure!(!problems.contains("is full"), "{problems}");
    Ok(())
}

#[test]
fn a_full_map_is_named_and_what_is_up_stays_up() -> Result<()> {
    Cloud::builder()
        .northd(Northd::Stock)
        .hypervisors(2, Node::Oxbow)
        .node_arguments(&["--map-size=OX_RULES=2000"])
        .run(|cloud| overflow(cloud, "OX_RULES"))
}

#[test]
fn a_map_without_room_for_another_chassis_keeps_the_known_ones() -> Result<()> {
    // Element 0 is nobody: two entries hold one peer.
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).node_arguments(&["--map-size=OX_CHASSIS=2"]).run(
        |cloud| {
            layer2::build(cloud)?;
            layer2::everybody_reaches_everybody(cloud)?;
            cloud.add_hypervisor(Node::Oxbow)?;
            for host in &cloud.hypervisors()[..2] {
                until_says(
                    host,
                    "debug/problems",
                    &["chassis hv3: map OX_CHASSIS is full (2 entries)", "--map-size OX_CHASSIS=N"],
                )?;
            }
            probe::ping(cloud.vif("lp11")?.guest(), "10.0.0.21")?;
            // The policy goes on being followed.
            cloud.nbctl("lsp-set-enabled lp12 disabled")?;
            wait_until("lp12 is cut off", PATIENCE, || {
                let answered = probe::ping_count(cloud.vif("lp11")?.guest(), "10.0.0.12", 1)?;
                Ok(Look::when(answered == 0, || format!("{answered} answered")))
            })?;
            Ok(())
        },
    )
}

#[test]
fn devices_that_are_missing_vanish_or_are_named_twice() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        // A device that does not exist.
        cloud.nbctl("lsp-add sw0 lp14 -- lsp-set-addresses lp14 '00:00:00:00:01:04 10.0.0.14'")?;
        let host = &cloud.hypervisors()[0];
        host.ovsdb()
            .vsctl_no_wait("add-port br-int nosuchdev -- set Interface nosuchdev external_ids:iface-id=lp14")?;
        wait_until("the interface's error", PATIENCE, || {
            let error = host.ovsdb().vsctl_no_wait("get Interface nosuchdev error")?;
            Ok(Look::when(error.contains("nosuchdev"), || error))
        })?;
        ensure!(cloud.nbctl("lsp-get-up lp14")?.trim() == "down");
        // Two interfaces with one iface-id.
        host.ns().ip("link add twin0 type veth peer name twin1")?;
        host.vsctl("add-port br-int twin0 -- set Interface twin0 external_ids:iface-id=lp12")?;
        until_says(host, "debug/ports", &["twin0 lp12", "has the same iface-id"])?;
        host.vsctl("del-port br-int twin0")?;
        // A device that goes while it is attached, without a word to the database.
        let device = cloud.vif("lp12")?.device().to_owned();
        host.ns().ip(&format!("link del {device}"))?;
        cloud.wait_down("lp12")?;
        let ports = until_says(host, "debug/ports", &["lp12"])?;
        ensure!(!ports.contains("lp12 installed"), "{ports}");
        probe::ping(cloud.vif("lp11")?.guest(), "10.0.0.21")?;
        Ok(())
    })
}
