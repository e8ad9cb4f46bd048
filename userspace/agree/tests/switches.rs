//! Switches as Debian's ovn-northd writes them: the reference interpreter and `ovn-trace` must agree about every packet.

use anyhow::{Context as _, Result};
use oxbow_agree::generator::Identity;
use oxbow_agree::{Cloud, Generator, Random, Southbound, Trace, Verdict, judge, topology};
use oxbow_testkit::{Central, Netns, Northd};
use std::collections::BTreeMap;

/// A Southbound database with its oracle.
struct Bench {
    south: Southbound,
    trace: Trace,
    // Below what uses them.
    _central: Central,
    _ns: Netns,
    _dir: tempfile::TempDir,
}

/// Runs a script of ovn-nbctl and ovn-sbctl commands (one a line, the latter marked with "sb") and reads what northd made of it.
fn bench(script: &str) -> Result<Bench> {
    let ns = Netns::new("agree")?;
    let dir = tempfile::tempdir()?;
    let central = Central::start(&ns, dir.path(), "punix:unused.sock", Northd::Stock)?;
    let commands = |sb: bool| -> Vec<&str> {
        let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.filter(|line| line.starts_with("sb ") == sb).map(|line| line.trim_start_matches("sb ")).collect()
    };
    central.nb().nbctl(&format!("--wait=sb {}", commands(false).join(" -- ")))?;
    for line in commands(true) {
        central.sb().sbctl(line)?;
    }
    let south = Southbound::read(central.sb())?;
    let trace = Trace::start(central.sb())?;
    Ok(Bench { south, trace, _central: central, _ns: ns, _dir: dir })
}

/// Throws packets at every port. `varied`: both deliveries and drops must occur, and few packets that cannot be judged.
fn agree(script: &str, hypervisors: usize, packets: usize, seed: u64, varied: bool) -> Result<()> {
    let mut bench = bench(script)?;
    let cloud = Cloud::new(&bench.south, hypervisors);
    for n in 0..hypervisors {
        let problems = cloud.hypervisor(n).context("no such hypervisor")?.compiler.problems();
        assert!(problems.is_empty(), "{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>());
    }
    let senders: Vec<_> = bench.south.ports.values().filter(|row| row.port.kind.is_served()).cloned().collect();
    let mut generator = Generator::new(&bench.south, seed);
    let mut random = Random::new(!seed);
    let (mut delivered, mut dropped) = (0, 0);
    let mut abstained: BTreeMap<&str, usize> = BTreeMap::new();
    let mut disagreements = Vec::new();
    for _ in 0..packets {
        let sender = random.pick(&senders).clone();
        let texts = sender.port.port_security.iter().map(|text| &**text);
        let identity = Identity::of(texts.chain(sender.addresses.iter().map(String::as_str)));
        let frame = generator.frame(&identity);
        let here = cloud.place(&sender.port.name).unwrap_or_else(|| random.below(hypervisors));
        match judge(&bench.south, &cloud, &mut bench.trace, &sender, here, &frame.bytes)? {
            Verdict::Agreed(0) => dropped += 1,
            Verdict::Agreed(_) => delivered += 1,
            Verdict::Abstained(why) => *abstained.entry(why).or_default() += 1,
            Verdict::Disagreed(found) => disagreements.push(found),
        }
    }
    let told: String = disagreements.iter().take(3).map(|found| format!("{found}\n\n")).collect();
    let (n, abstentions) = (disagreements.len(), abstained.values().sum::<usize>());
    assert!(
        n == 0,
        "seed {seed}: {n} disagreements of {packets} packets ({delivered} delivered, {dropped} dropped)\n{told}"
    );
    if !varied {
        assert!(abstentions * 2 < packets, "not judged: {abstained:?}");
        return Ok(());
    }
    // The test would be worth nothing if everything were dropped, delivered or left undecided.
    assert!(delivered * 10 > packets && dropped * 10 > packets, "{delivered} delivered, {dropped} dropped");
    assert!(abstentions * 4 < packets, "not judged: {abstained:?}");
    Ok(())
}

#[test]
fn plain_switches() {
    let script = "
        ls-add sw0
        lsp-add sw0 p1
        lsp-set-addresses p1 '00:00:00:00:00:01 10.0.0.1 fd00::1'
        lsp-add sw0 p2
        lsp-set-addresses p2 '00:00:00:00:00:02 10.0.0.2' unknown
        lsp-add sw0 p3
        lsp-set-addresses p3 unknown
        lsp-add sw0 p4
        lsp-set-addresses p4 '00:00:00:00:00:04 10.0.0.4 fd00::4'
        ls-add sw1
        lsp-add sw1 q1
        lsp-set-addresses q1 '00:00:00:00:00:01 10.0.0.1'
        lsp-add sw1 q2
        lsp-set-addresses q2 '00:00:00:00:00:02 10.0.0.2 fd00::2'
        set Logical_Switch sw0 other_config:requested-tnl-key=1
        set Logical_Switch_Port p3 options:requested-tnl-key=3
        sb create FDB 'mac=\"02:00:00:00:00:99\"' dp_key=1 port_key=3
    ";
    agree(script, 3, 2500, 1, true).unwrap();
}

#[test]
fn secured_switches() {
    let script = "
        ls-add sw0
        lsp-add sw0 p1
        lsp-set-addresses p1 '00:00:00:00:00:01 10.0.0.1 fd00::1'
        lsp-set-port-security p1 '00:00:00:00:00:01 10.0.0.1 fd00::1'
        lsp-add sw0 p2
        lsp-set-addresses p2 '00:00:00:00:00:02 10.0.0.2'
        lsp-set-port-security p2 '00:00:00:00:00:02 10.0.0.2'
        lsp-add sw0 p3
        lsp-set-addresses p3 '00:00:00:00:00:03' unknown
        lsp-set-port-security p3 00:00:00:00:00:03
        lsp-add sw0 p4
        lsp-set-addresses p4 '00:00:00:00:00:04 fd00::4' unknown
        lsp-set-port-security p4 '00:00:00:00:00:04 fd00::4'
        lsp-add sw0 p5
        lsp-set-addresses p5 '00:00:00:00:00:05 10.0.1.5 fd01::5'
        lsp-set-port-security p5 '00:00:00:00:00:05 10.0.1.5 fd01::5' '00:00:00:00:00:06 10.0.0.6'
        lsp-add sw0 p6
        lsp-set-addresses p6 unknown
    ";
    agree(script, 2, 4000, 2, true).unwrap();
}

#[test]
fn special_ports() {
    let script = "
        ls-add sw0
        lsp-add sw0 p1
        lsp-set-addresses p1 '00:00:00:00:00:01 10.0.0.1 fd00::1'
        lsp-add sw0 p2
        lsp-set-addresses p2 '00:00:00:00:00:02 10.0.0.2'
        lsp-add sw0 c1 p1 5
        lsp-set-addresses c1 '00:00:00:00:00:c1 10.0.0.31'
        lsp-add sw0 c2 p1 6
        lsp-set-addresses c2 '00:00:00:00:00:c2 10.0.0.32'
        lsp-add sw0 lp
        lsp-set-type lp localport
        lsp-set-addresses lp '00:00:00:00:00:0a 10.0.0.10'
        lsp-add sw0 off
        lsp-set-addresses off '00:00:00:00:00:0f 10.0.0.15'
        lsp-set-enabled off disabled
        ls-add sw1
        set Logical_Switch sw1 other_config:vlan-passthru=true
        lsp-add sw1 q1
        lsp-set-addresses q1 '00:00:00:00:00:01 10.0.0.1'
        lsp-add sw1 q2
        lsp-set-addresses q2 '00:00:00:00:00:02 10.0.0.2 fd00::2' unknown
        ls-add sw2
        lsp-add sw2 r1
        lsp-set-addresses r1 '00:00:00:00:00:01 10.0.0.1'
        lsp-add sw2 r2
        lsp-set-addresses r2 '00:00:00:00:00:02 10.0.0.2'
        acl-add sw2 from-lport 1000 'ip4.src == 10.0.0.1 && tcp' drop
        acl-add sw2 to-lport 1000 'udp.dst == {53, 67}' allow-stateless
        acl-add sw2 to-lport 900 'ip' drop
    ";
    agree(script, 2, 3000, 3, true).unwrap();
}

#[test]
fn random_networks() {
    for seed in 0..8 {
        agree(&topology::random(seed), 1 + seed as usize % 3, 500, seed, false).unwrap();
    }
}
