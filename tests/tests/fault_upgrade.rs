//! Upgrades: to a changed object, to a changed map layout, and back. No packet is lost, and nothing of the former stays.
//!
//! Long form: `OXBOW_FAULT_SECONDS=60 cargo test -p oxbow-tests --test fault_upgrade -- --nocapture` goes to and fro for so long.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::artifacts::NodeBuild;
use oxbow_testkit::frames::Frames;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, Northd, VifSpec, wait_until};
use oxbow_tests::layer2;
use oxbow_tests::traffic::{Traffic, fault_time, until_in_force};

/// How the former daemon ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    Told,
}

/// Puts another build in the place of the one that runs, and waits until it is in force.
fn replace(host: &mut Hypervisor, build: &NodeBuild, end: End) -> Result<()> {
    match end {
        End::Killed => host.kill_controller()?,
        End::Told => host.exit_controller(true)?,
    }
    host.set_node_build(build.clone());
    host.start_controller()?;
    until_in_force(host)
}

/// Names of the layouts that something is pinned under, links that are pinned, and instances, on a hypervisor.
fn pinned(host: &Hypervisor) -> Result<(BTreeSet<String>, usize, usize)> {
    let text = host.ns().run("find", &["/sys/fs/bpf/oxbow", "-mindepth", "1"])?;
    let parts = text.lines().filter_map(|path| path.strip_prefix("/sys/fs/bpf/oxbow/")).map(|path| path.split('/'));
    let (mut layouts, mut links, mut instances) = (BTreeSet::new(), 0, BTreeSet::new());
    for mut part in parts {
        let (_system, layout, kind, name) = (part.next(), part.next(), part.next(), part.next());
        layouts.extend(layout.map(str::to_owned));
        match (kind, name) {
            (Some("links" | "filters"), Some(_)) => links += 1,
            (Some(kind), _) if kind.starts_with("instance-") => instances.extend(Some(kind.to_owned())),
            _ => {}
        }
    }
    Ok((layouts, links, instances.len()))
}

/// Exactly one layout, one instance, and a link for each device.
fn only(host: &Hypervisor, layout: &str, devices: usize) -> Result<()> {
    wait_until(&format!("{} has pins of layout {layout} alone", host.name()), PATIENCE, || {
        let (layouts, links, instances) = pinned(host)?;
        let right = layouts.iter().eq([layout]) && links == devices && instances == 1;
        Ok(Look::when(right, || format!("layouts {layouts:?}, {links} links, {instances} instances")))
    })
}

/// Layouts of the usual build, which a hypervisor runs now, and of the other one (see oxbow-abi).
fn layouts(host: &Hypervisor) -> Result<[String; 2]> {
    let (layouts, ..) = pinned(host)?;
    let usual: u32 = layouts.first().context("nothing is pinned")?.parse()?;
    Ok([usual, usual + 1_000_000].map(|layout| layout.to_string()))
}

fn to_a_changed_object_and_back(cloud: &mut Cloud) -> Result<()> {
    let (usual, other) = (NodeBuild::usual()?, NodeBuild::other_object()?);
    ensure!(std::fs::read(&usual.object)? != std::fs::read(&other.object)?, "the objects are the same");
    layer2::build(cloud)?;
    let [layout, _] = layouts(&cloud.hypervisors()[0])?;
    let before = installed_since(cloud)?;
    let traffic = Traffic::near_and_far(cloud)?;
    let until = Instant::now() + fault_time(Duration::ZERO)?;
    loop {
        for (build, end) in [(&other, End::Told), (&usual, End::Killed)] {
            for hypervisor in 0..2 {
                let host = cloud.hypervisor(hypervisor);
                traffic.mark(&format!("{} gets {}", host.name(), build.object.display()));
                replace(host, build, end)?;
                // Underlay and VIFs: two here, one there.
                only(host, &layout, 3 - hypervisor)?;
                traffic.goes_on()?;
                let now = installed_since(cloud)?;
                ensure!(now == before, "ports went down and came up again:\n{before:#?}\n{now:#?}");
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    traffic.nothing_was_lost()?;
    layer2::everybody_reaches_everybody(cloud)
}

#[test]
fn an_upgrade_to_a_changed_object_loses_no_packet() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(to_a_changed_object_and_back)
}

/// Guests whose addresses only the switch has learned: a port with address `unknown` on either hypervisor.
const LEARNED: [(&str, usize, &str); 2] = [("un1", 0, "00:00:00:00:05:01"), ("un2", 1, "00:00:00:00:05:02")];

fn learned_addresses(cloud: &mut Cloud) -> Result<()> {
    for (port, hypervisor, mac) in LEARNED {
        cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} unknown"))?;
        cloud.add_vif(hypervisor, VifSpec::new(port, mac, &[]))?;
    }
    let cards: Vec<Frames> =
        LEARNED.iter().map(|(port, ..)| Frames::open(cloud.vif(port)?.guest(), "eth0")).collect::<Result<_>>()?;
    wait_until("both addresses are in the FDB", PATIENCE, || {
        cards[0].send(&frame(LEARNED[1].2, LEARNED[0].2, 0))?;
        cards[1].send(&frame(LEARNED[0].2, LEARNED[1].2, 0))?;
        let rows = cloud.sbctl("--bare --columns=mac list FDB")?;
        Ok(Look::when(LEARNED.iter().all(|(.., mac)| rows.contains(mac)), || rows.clone()))
    })?;
    cloud.sync()
}

/// A frame of the type for local experiments (IEEE 802).
fn frame(to: &str, from: &str, marker: u8) -> Vec<u8> {
    let mac = |text: &str| text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap_or(0)).collect::<Vec<_>>();
    let mut frame = [mac(to), mac(from), vec![0x88, 0xb5]].concat();
    frame.resize(60, marker);
    frame
}

/// A frame to a learned address reaches its port, and is not flooded to the other unknown one.
fn still_known(cloud: &Cloud, marker: u8) -> Result<()> {
    let (first, second) = (&LEARNED[0], &LEARNED[1]);
    let asker = Frames::open(cloud.vif("lp12")?.guest(), "eth0")?;
    let here = Frames::open(cloud.vif(first.0)?.guest(), "eth0")?;
    let there = Frames::open(cloud.vif(second.0)?.guest(), "eth0")?;
    let from = "00:00:00:00:01:02";
    asker.send(&frame(second.2, from, marker))?;
    // What follows it to the other port says that a copy would have come there before.
    asker.send(&frame(first.2, from, marker + 1))?;
    for (card, expected) in [(&there, marker), (&here, marker + 1)] {
        let mut seen = Vec::new();
        while seen.last() != Some(&expected) {
            let got = card.receive(PATIENCE)?;
            let Some(got) = got else { anyhow::bail!("frame {expected} did not come, only {seen:?}") };
            seen.extend((got.frame[12..14] == [0x88, 0xb5]).then(|| got.frame[14]));
        }
        ensure!(seen == [expected], "{seen:?}: flooded, although the address was learned");
    }
    Ok(())
}

fn to_a_changed_layout_and_back(cloud: &mut Cloud) -> Result<()> {
    let (usual, swapped) = (NodeBuild::usual()?, NodeBuild::swapped_layout()?);
    layer2::build(cloud)?;
    let [at_first, other] = layouts(&cloud.hypervisors()[0])?;
    learned_addresses(cloud)?;
    still_known(cloud, 1)?;
    let before = installed_since(cloud)?;
    let traffic = Traffic::near_and_far(cloud)?;
    let until = Instant::now() + fault_time(Duration::ZERO)?;
    let mut marker = 10;
    loop {
        for (build, layout, end) in [(&swapped, &other, End::Killed), (&usual, &at_first, End::Told)] {
            for hypervisor in 0..2 {
                let host = cloud.hypervisor(hypervisor);
                traffic.mark(&format!("{} goes to layout {layout}", host.name()));
                replace(host, build, end)?;
                only(host, layout, 4 - hypervisor)?;
                traffic.goes_on()?;
                // Also while the two hypervisors are of different layouts: the wire has none.
                cloud.sync()?;
                still_known(cloud, marker)?;
                marker = (marker + 2) % 200 + 2;
                let now = installed_since(cloud)?;
                ensure!(now == before, "ports went down and came up again:\n{before:#?}\n{now:#?}");
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    traffic.nothing_was_lost()?;
    // A change reaches the datapath.
    cloud.nbctl("--wait=hv lsp-set-enabled lp12 disabled")?;
    oxbow_testkit::probe::no_ping(cloud.vif("lp11")?.guest(), "10.0.0.12")?;
    cloud.nbctl("--wait=hv lsp-set-enabled lp12 enabled")?;
    layer2::everybody_reaches_everybody(cloud)?;
    // And `exit` leaves nothing of any layout.
    cloud.hypervisor(0).exit_controller(false)?;
    let left = cloud.hypervisors()[0].ns().run("find", &["/sys/fs/bpf", "-path", "*oxbow*"])?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

/// Every port that is up, and every interface's moment of being installed: a port that went down and came up again shows another.
fn installed_since(cloud: &Cloud) -> Result<BTreeSet<String>> {
    let up = cloud.sbctl("--bare --columns=logical_port find Port_Binding up=true")?;
    let mut all: BTreeSet<String> = up.split_whitespace().map(str::to_owned).collect();
    for host in cloud.hypervisors() {
        let installed = host.vsctl("--columns=external_ids list Interface")?;
        all.extend(installed.lines().filter(|line| line.contains("ovn-installed-ts")).map(str::to_owned));
    }
    Ok(all)
}

#[test]
fn an_upgrade_to_a_changed_layout_and_a_downgrade_lose_no_packet() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(to_a_changed_layout_and_back)
}

#[test]
fn nor_on_a_kernel_without_tcx() -> Result<()> {
    Cloud::builder()
        .northd(Northd::Stock)
        .hypervisors(2, Node::Oxbow)
        .node_arguments(&["--attach=clsact"])
        .run(to_a_changed_layout_and_back)
}

#[test]
fn a_kernel_that_has_tcx_now_loses_no_packet() -> Result<()> {
    // The way back is the kernel's: a device that gets its first clsact qdisc is out of service for some milliseconds.
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).node_arguments(&["--attach=clsact"]).run(
        |cloud| {
            layer2::build(cloud)?;
            let traffic = Traffic::near_and_far(cloud)?;
            for hypervisor in 0..2 {
                let host = cloud.hypervisor(hypervisor);
                ensure!(filters(host)?.contains("oxbow_vif"), "{}", filters(host)?);
                traffic.mark(&format!("{} goes to tcx", host.name()));
                host.exit_controller(true)?;
                host.set_node_arguments(&["--attach=tcx"]);
                host.start_controller()?;
                until_in_force(host)?;
                let [layout, _] = layouts(host)?;
                only(host, &layout, 3 - hypervisor)?;
                ensure!(!filters(host)?.contains("oxbow_vif"), "{}", filters(host)?);
                traffic.goes_on()?;
            }
            traffic.nothing_was_lost()
        },
    )
}

/// What clsact has on any device of a hypervisor.
fn filters(host: &Hypervisor) -> Result<String> {
    host.ns().run("sh", &["-c", "for d in $(ls /sys/class/net); do tc filter show dev $d ingress; done"])
}

#[test]
fn an_object_of_another_layout_is_refused_by_name_and_what_is_in_force_goes_on() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(|cloud| {
        let (usual, swapped) = (NodeBuild::usual()?, NodeBuild::swapped_layout()?);
        layer2::build(cloud)?;
        let traffic = Traffic::near_and_far(cloud)?;
        let host = cloud.hypervisor(0);
        let [ours, other] = layouts(host)?;
        host.kill_controller()?;
        host.set_node_build(NodeBuild { object: swapped.object, ..usual.clone() });
        host.start_controller()?;
        wait_until("the object is refused", PATIENCE, || {
            let problems = host.appctl("debug/problems")?;
            let named = problems
                .contains(&format!("the eBPF object is of layout {other}, and this program writes layout {ours}"));
            Ok(Look::when(named, || problems))
        })?;
        traffic.goes_on()?;
        host.exit_controller(true)?;
        host.set_node_build(usual);
        host.start_controller()?;
        until_in_force(host)?;
        traffic.goes_on()?;
        traffic.nothing_was_lost()
    })
}
