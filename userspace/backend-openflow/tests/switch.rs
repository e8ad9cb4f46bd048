//! A real ovs-vswitchd takes what the backend writes, holds it as it was meant, and forwards by it.

use anyhow::{Result, ensure};
use oxbow_backend_openflow::layout::LEARNED_COOKIE;
use oxbow_backend_openflow::{Backend, Committed, Learned, OfPort, OvsOfctl, Switch as _, Tunnel, Wiring};
use oxbow_pipeline::compile::{Compiler, DatapathInfo, FlowRow, SetChange};
use oxbow_pipeline::ir::{
    Changes, Chassis, ChassisId, DatapathKey, EncapKind, FlowUuid, Group, GroupKey, LflowId, Location, LogicalPort,
    Mac, Pipeline, PortKey, PortKind,
};
use oxbow_testkit::{DummyPort, DummySwitch};
use std::net::Ipv4Addr;

const DP: DatapathKey = DatapathKey(5);
const HERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

fn row(n: u128, at: (Pipeline, u8, u16), matches: &str, actions: &str) -> FlowRow {
    FlowRow {
        uuid: FlowUuid(n << 96),
        datapaths: vec![DP],
        pipeline: at.0,
        stage: at.1,
        priority: at.2,
        matches: matches.into(),
        actions: actions.into(),
        stage_name: "".into(),
    }
}

fn port(key: u32, name: &str, location: Location) -> LogicalPort {
    LogicalPort {
        datapath: DP,
        key: PortKey(key),
        name: name.into(),
        kind: PortKind::Vif,
        location,
        additional: Vec::new(),
        port_security: Vec::new(),
    }
}

/// A bridge with devices 101 to 103 and a tunnel to chassis 1; a switch with ports "a" and "b" on devices, nested "n" on a's, "r" behind the
/// tunnel, all in the group "_MC_flood".
struct Bench {
    compiler: Compiler,
    backend: Backend,
    switch: DummySwitch,
    changes: Changes,
}

impl Bench {
    fn new() -> Result<Bench> {
        let mut switch = DummySwitch::start(HERE)?;
        let device = |number: u16| DummyPort { name: format!("p{number}"), number, remote: None };
        let tunnel = DummyPort { name: "ovn-hv2-0".to_owned(), number: 200, remote: Some(THERE) };
        switch.add_ports(&[device(101), device(102), device(103), tunnel])?;
        let mut backend = Backend::new(Box::new(OvsOfctl::new(&switch.bridge())));
        let mut wiring = Wiring::default();
        for number in 101..=103u16 {
            wiring.devices.insert(number.into(), OfPort(number));
        }
        wiring.tunnels.insert(ChassisId(1), Tunnel { port: OfPort(200), kind: EncapKind::Geneve });
        backend.set_wiring(wiring);
        let mut compiler = Compiler::default();
        compiler.set_datapath(DP, Some(DatapathInfo { name: "sw".into(), router: false }));
        compiler.set_chassis(Chassis { id: ChassisId(1), name: "hv2".into(), encap: None });
        compiler.set_port(port(1, "a", Location::Local { ifindex: 101, tag: None }));
        compiler.set_port(port(2, "b", Location::Local { ifindex: 102, tag: None }));
        compiler.set_port(port(3, "n", Location::Local { ifindex: 101, tag: Some(42) }));
        compiler.set_port(port(4, "r", Location::Remote { chassis: ChassisId(1) }));
        let members = (1..=4).map(PortKey).collect();
        compiler.set_group(Group { datapath: DP, key: GroupKey(0x8000), name: "_MC_flood".into(), members });
        Ok(Bench { compiler, backend, switch, changes: Changes::default() })
    }

    /// Flows of ingress stage 0 and up, one for each pair; and an egress pipeline that puts out.
    fn flows(&mut self, flows: &[(u8, u16, &str, &str)]) {
        for (n, (stage, priority, matches, actions)) in flows.iter().enumerate() {
            self.compiler.set_flow(row(n as u128 + 1, (Pipeline::Ingress, *stage, *priority), matches, actions));
        }
        self.compiler.set_flow(row(1000, (Pipeline::Egress, 0, 0), "1", "output;"));
    }

    fn commit(&mut self) -> Result<Committed> {
        self.changes = self.compiler.commit();
        let compiler = &self.compiler;
        let cookie = |flow: LflowId| compiler.flow(flow).map_or(0, |row| (row.uuid.0 >> 96) as u64);
        Ok(self.backend.commit(compiler.program(), &self.changes, &cookie)?)
    }

    /// Nothing was left out, and the bridge holds exactly what was meant.
    fn check(&mut self) -> Result<()> {
        let problems: Vec<_> = self.backend.problems().collect();
        ensure!(problems.is_empty(), "{problems:#?}\n{:#?}", self.compiler.problems());
        let print = self.backend.print();
        let flows: Vec<String> =
            print.lines().filter_map(|line| line.strip_prefix("flow add ")).map(str::to_owned).collect();
        let differences = OvsOfctl::new(&self.switch.bridge()).compare(&flows)?;
        let differences: Vec<_> = differences.iter().filter(|d| d.missing || d.cookie != LEARNED_COOKIE).collect();
        ensure!(differences.is_empty(), "{differences:#?}");
        self.backend.distrust();
        let again = self.commit()?;
        ensure!(again == Committed::default(), "the bridge holds something else: {again:?}\n{}", self.backend.print());
        Ok(())
    }

    fn sent(&mut self, port: &str) -> Result<Vec<Vec<u8>>> {
        self.switch.sent(port)
    }
}

fn udp(src: u8, dst: u8, port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0];
    frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
    let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0x30, 0x39]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

/// Matches of every kind of field, mask, negation and combination: each is accepted, and none is widened.
#[test]
fn every_match_is_accepted_and_held_as_it_was_meant() -> Result<()> {
    const MATCHES: &[&str] = &[
        "1",
        "eth.src == 00:00:00:00:00:01",
        "eth.dst == 01:00:00:00:00:00/01:00:00:00:00:00",
        "eth.src[40]",
        "eth.type == 0x88cc",
        "vlan.present && vlan.vid == 5",
        "vlan.present && vlan.pcp == {1, 2}",
        "!vlan.present",
        "ip",
        "ip4 && ip.ttl == {0, 1}",
        "ip6 && ip.ttl == 255",
        "ip.dscp == 10 && ip.ecn == 1",
        "ip.is_frag",
        "ip.later_frag",
        "ip4 && ip.first_frag",
        "ip4 && !ip.is_frag",
        "ip4.src == 10.0.0.0/8",
        "ip4.src == 10.0.0.1/255.0.0.255",
        "ip4.dst != 10.0.0.1",
        "ip4.src == {10.0.0.1, 10.0.0.2} && ip4.dst == {10.0.1.0/24, 10.0.2.0/24}",
        "ip6.src == {::1, fd00::/64} && ip6.dst == ff02::/16",
        "ip6.label == 0x12345",
        "ip.proto == 50",
        "tcp.dst == 80",
        "tcp.dst == {80, 443} && inport == {\"a\", \"b\"}",
        "tcp.src != 1024 && tcp.flags == 2/18",
        "ip4 && tcp && tcp.dst >= 1024",
        "udp.dst == 53 || tcp.dst == 53",
        "udp.src == {67, 68}",
        "sctp.dst == 36412",
        "icmp4.type == 8 && icmp4.code == 0",
        "icmp4.type == {3, 11, 12}",
        "icmp6.type == 128",
        "nd",
        "nd_ns && nd.target == fe80::1",
        "nd_na && nd.tll == 00:00:00:00:00:01",
        "nd_ns && nd.sll == {00:00:00:00:00:01, 00:00:00:00:00:02}",
        "nd.target == {fe80::1, fe80::2} && eth.src == {00:00:00:00:00:01, 00:00:00:00:00:02}",
        "arp",
        "arp.op == 1 && arp.tpa == 10.0.0.1",
        "arp.op == {1, 2} && arp.sha == {00:00:00:00:00:01, 00:00:00:00:00:02} && arp.spa == {10.0.0.1, 10.0.0.2}",
        "rarp.op == 3",
        "arp.tha == 00:00:00:00:00:01",
        "pkt.mark == 7",
        "reg0 == 5",
        "xxreg1 == ::1",
        "xreg4[3..9] == 12",
        "reg9[0] == 1 && reg0[31] == 0",
        "flags.loopback == 1",
        "flags[16] == 1",
        "inport == \"a\"",
        "inport == {\"a\", \"n\"} && ip4.src == {10.0.0.1, 10.0.0.2} && udp.dst == {1, 2, 3}",
        "ip4.mcast || ip6.mcast",
        "eth.bcast",
        "ip4.src == $hosts && ip4.dst == $hosts",
        "ip4.src == $hosts && tcp.dst == {1, 2}",
        "ip4.src == $hosts",
        "ip4.src != $hosts && ip4",
        "ip6.src == $six && (udp.dst == 1 || tcp.dst == 2)",
    ];
    let mut bench = Bench::new()?;
    bench.compiler.set_address_set("hosts", Some(["10.0.0.1", "10.0.0.2", "10.1.0.0/16"]));
    bench.compiler.set_address_set("six", Some(["fd00::1", "fd00::2"]));
    // Something that may set every register, so that none of the conditions is known beforehand.
    let mut flows: Vec<(u8, u16, &str, &str)> = vec![(
        0,
        0,
        "1",
        "xxreg0 = ip6.src; xxreg1 = ip6.dst; xreg4[0..47] = eth.src; xreg4[48..63] = eth.dst[0..15]; flags[0..31] = ip4.src; next;",
    )];
    flows[0].2 = "ip6";
    flows[0].3 = "xxreg0 = ip6.src; xxreg1 = ip6.dst; reg8 = ip6.src[0..31]; reg9 = ip6.src[32..63]; next;";
    flows.push((0, 0, "ip4", "reg0 = ip4.src; flags[0..15] = ip4.src[0..15]; flags[16..31] = ip4.src[16..31]; next;"));
    for matches in MATCHES {
        flows.push((1, 100, matches, "next;"));
        flows.push((2, 100, matches, "outport = \"b\"; output;"));
    }
    bench.flows(&flows);
    bench.commit()?;
    bench.check()?;
    let print = bench.backend.print();
    for words in
        ["conjunction(", "conj_id=", "nw_frag=later", "arp_sha=", "tcp_flags=", "ipv6_label=", "pkt_mark=", "xreg4="]
    {
        assert!(print.contains(words), "no {words} in\n{print}");
    }
    Ok(())
}

/// Actions of every kind.
#[test]
fn every_action_is_accepted() -> Result<()> {
    const FLOWS: &[(&str, &str)] = &[
        ("ip", "ip.ttl--; next;"),
        ("ip4", "ip4.src = 10.0.0.1; ip4.dst = 10.0.0.2; ip.ttl = 64; ip.dscp = 10; ip.ecn = 2; next;"),
        ("ip6", "ip6.src = fd00::1; ip6.dst[0..63] = 5; ip6.label = 7; next;"),
        ("tcp", "tcp.src = 1; tcp.dst = 2; next;"),
        ("udp", "udp.src = 1; udp.dst <-> udp.src; next;"),
        ("sctp", "sctp.src = 1; next;"),
        (
            "arp.op == 1",
            "eth.dst = eth.src; eth.src = 00:00:00:00:00:01; arp.op = 2; arp.tha = arp.sha; arp.sha = 00:00:00:00:00:01; \
          arp.tpa = arp.spa; arp.spa = 10.0.0.1; outport = inport; flags.loopback = 1; output;",
        ),
        (
            "nd_ns && nd.target == fd00::1",
            "nd_na { eth.src = 00:00:00:00:00:01; ip6.src = fd00::1; nd.target = fd00::1; \
          nd.tll = 00:00:00:00:00:01; outport = inport; flags.loopback = 1; output; };",
        ),
        (
            "nd_ns && nd.target == fd00::2",
            "nd_na_router { eth.src = 00:00:00:00:00:01; outport = inport; flags.loopback = 1; output; };",
        ),
        ("vlan.present", "vlan.vid = 7; vlan.pcp = 3; next;"),
        ("1", "pkt.mark = 5; eth.src <-> eth.dst; xxreg0 = 0x1234567890; reg5 = reg6; reg0[3..6] = 5; next;"),
        ("eth.bcast", "outport = \"_MC_flood\"; output;"),
        ("eth.mcast", "clone { outport = \"a\"; output; }; outport = \"_MC_flood\"; output;"),
        ("inport == \"a\"", "outport = \"b\"; output; eth.src = 00:00:00:00:00:01; next;"),
        ("inport == \"b\"", "reg0[11] = lookup_fdb(inport, eth.src); next;"),
        ("inport == \"n\"", "put_fdb(inport, eth.src); outport = get_fdb(eth.dst); next;"),
        ("ip4.src == 10.0.0.9", "reg0[15] = check_in_port_sec(); next;"),
        ("ip4.src == 10.0.0.8", "ct_clear; drop;"),
    ];
    let mut bench = Bench::new()?;
    let mut flows: Vec<(u8, u16, &str, &str)> = Vec::new();
    for (n, (matches, actions)) in FLOWS.iter().enumerate() {
        flows.push((0, 100 + n as u16, matches, actions));
    }
    flows.push((1, 0, "reg0[11] == 1 || reg0[15] == 1", "drop;"));
    flows.push((1, 0, "1", "outport = \"b\"; output;"));
    bench.flows(&flows);
    bench.commit()?;
    bench.check()
}

#[test]
fn a_set_member_more_is_a_flow_more() -> Result<()> {
    let mut bench = Bench::new()?;
    let hosts: Vec<String> = (1..=50).map(|n| format!("10.0.0.{n}")).collect();
    bench.compiler.set_address_set("hosts", Some(hosts.iter().map(String::as_str)));
    bench.flows(&[
        (0, 10, "ip4.src == $hosts && ip4.dst == $hosts", "outport = \"b\"; output;"),
        (0, 9, "ip4.src == $hosts && inport == \"a\"", "drop;"),
    ]);
    let first = bench.commit()?;
    assert!(first.flows_written < 200, "50 × 50 are no flows: {first:?}");
    bench.compiler.change_address_set("hosts", SetChange { added: &["10.0.0.99"], removed: &[] });
    let more = bench.commit()?;
    assert_eq!(
        more,
        Committed { flows_written: 3, flows_deleted: 0, groups: 0 },
        "one for each place where it is named"
    );
    bench.compiler.change_address_set("hosts", SetChange { added: &[], removed: &["10.0.0.1"] });
    assert_eq!(bench.commit()?, Committed { flows_written: 0, flows_deleted: 3, groups: 0 });
    bench.check()?;
    // And what it means: only pairs within the set pass.
    let frame = |src, dst| {
        let mut frame = udp(1, 2, 53);
        frame[29] = src;
        frame[33] = dst;
        frame
    };
    for (src, dst, passes) in [(2, 99, true), (99, 50, true), (1, 2, false), (2, 1, false), (60, 2, false)] {
        bench.switch.receive("p101", &frame(src, dst))?;
        assert_eq!(
            bench.sent("p102")?.len(),
            usize::from(passes),
            "10.0.0.{src} to 10.0.0.{dst}\n{}",
            bench.backend.print()
        );
    }
    Ok(())
}

#[test]
fn a_restarted_vswitchd_gets_everything_back() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.flows(&[(0, 10, "eth.bcast", "outport = \"_MC_flood\"; output;"), (0, 0, "1", "outport = \"b\"; output;")]);
    let first = bench.commit()?;
    assert!(first.groups > 0 && first.flows_written > 0, "{first:?}");
    bench.switch.kill_vswitchd()?;
    bench.compiler.set_port(port(6, "c", Location::Local { ifindex: 103, tag: None }));
    let error = bench.commit().expect_err("nobody is there");
    assert!(error.to_string().contains("does not answer"), "{error:#}");
    bench.switch.start_vswitchd()?;
    oxbow_testkit::wait_until("the bridge", oxbow_testkit::wait::PATIENCE, || {
        Ok(match bench.commit() {
            Ok(committed) => oxbow_testkit::wait::Look::Held(committed),
            Err(error) => oxbow_testkit::wait::Look::NotYet(error.to_string()),
        })
    })?;
    bench.check()?;
    bench.switch.receive("p101", &udp(1, 2, 53))?;
    assert_eq!(bench.sent("p102")?, [udp(1, 2, 53)]);
    Ok(())
}

#[test]
fn foreign_flows_are_taken_out_and_missing_ones_put_back() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.flows(&[(0, 10, "eth.bcast", "outport = \"_MC_flood\"; output;"), (0, 0, "1", "outport = \"b\"; output;")]);
    bench.commit()?;
    let bridge = bench.switch.bridge();
    let ofctl = |words: &[&str]| -> Result<()> {
        let mut command = std::process::Command::new("ovs-ofctl");
        let (verb, rest) = words.split_first().expect("a command");
        command.args(["-O", "OpenFlow15", verb, &bridge]).args(rest);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    ofctl(&["add-flow", "table=0,priority=7,ip,actions=drop"])?;
    ofctl(&["add-group", "group_id=7,type=all,bucket=actions=drop"])?;
    ofctl(&["del-flows", "table=61"])?;
    bench.backend.distrust();
    let repaired = bench.commit()?;
    assert_eq!((repaired.flows_deleted, repaired.groups), (1, 1), "{repaired:?}");
    assert!(repaired.flows_written >= 4, "{repaired:?}");
    bench.check()
}

#[test]
fn what_is_learned_is_used_and_told_and_survives_a_comparison() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.flows(&[
        (0, 10, "inport == \"a\"", "reg0[11] = lookup_fdb(inport, eth.src); next;"),
        (0, 0, "1", "next;"),
        (1, 10, "inport == \"a\" && reg0[11] == 0", "put_fdb(inport, eth.src); next;"),
        (1, 0, "1", "next;"),
        (2, 0, "1", "outport = get_fdb(eth.dst); next;"),
        (3, 10, "outport == \"none\"", "outport = \"_MC_flood\"; output;"),
        (3, 0, "1", "output;"),
    ]);
    bench.commit()?;
    bench.switch.receive("p102", &udp(2, 1, 53))?;
    assert_eq!(bench.sent("p101")?.len(), 2, "flooded, to the nested port too\n{}", bench.backend.print());
    assert_eq!(bench.sent(oxbow_testkit::dummy_switch::UPLINK)?.len(), 1);
    bench.switch.receive("p101", &udp(1, 2, 53))?;
    let learned = Learned { datapath: DP, mac: Mac(0x0200_0000_0001), port: PortKey(1) };
    assert_eq!(bench.backend.learned()?, [learned]);
    bench.sent("p101")?;
    bench.sent("p102")?;
    bench.switch.control("revalidator/wait", &[])?;
    bench.switch.receive("p102", &udp(2, 1, 53))?;
    assert_eq!((bench.sent("p101")?.len(), bench.sent("p102")?.len()), (1, 0), "known now");
    bench.check()?;
    assert_eq!(bench.backend.learned()?, [learned], "a comparison leaves it");
    // The row that confirms it takes its place.
    bench.compiler.set_fdb(DP, Mac(0x0200_0000_0001), Some(PortKey(1)));
    bench.commit()?;
    assert_eq!(bench.backend.learned()?, []);
    bench.switch.control("revalidator/wait", &[])?;
    bench.switch.receive("p102", &udp(2, 1, 53))?;
    assert_eq!((bench.sent("p101")?.len(), bench.sent("p102")?.len()), (1, 0), "known still");
    // So does one that says otherwise, also where it is not known what the bridge holds.
    bench.compiler.set_fdb(DP, Mac(0x0200_0000_0001), None);
    bench.commit()?;
    bench.switch.control("revalidator/wait", &[])?;
    bench.switch.receive("p101", &udp(1, 2, 53))?;
    assert_eq!(bench.backend.learned()?, [learned]);
    bench.backend.distrust();
    bench.compiler.set_fdb(DP, Mac(0x0200_0000_0001), Some(PortKey(2)));
    bench.commit()?;
    assert_eq!(bench.backend.learned()?, []);
    Ok(())
}
