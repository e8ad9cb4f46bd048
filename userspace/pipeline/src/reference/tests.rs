//! Headers read and written, and what becomes of packets at the edges of the logical network.

use super::{Arrival, Destination, Drop, Fields, Outcome, Reason, parse, run, write_back};
use crate::compile::{Compiler, DatapathInfo, FlowRow};
use crate::ir::{
    Chassis, ChassisId, DatapathKey, Field, FlowUuid, Group, GroupKey, Location, LogicalPort, Mac, Pipeline, PortKey,
    PortKind,
};
use proptest::prelude::*;

const DP: DatapathKey = DatapathKey(7);
const FLOOD: GroupKey = GroupKey(0x8000);

fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An Ethernet frame with an IPv4 or IPv6 packet and right checksums.
fn packet(v6: bool, proto: u8, tag: Option<u16>, src: [u8; 16], data: &[u8]) -> Vec<u8> {
    let dst = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let (src, dst) = if v6 { (&src[..], &dst[..]) } else { (&src[..4], &[10, 0, 0, 9][..]) };
    let (mut l4, at) = match proto {
        6 => (vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0], 16),
        17 => (vec![0x30, 0x39, 0, 53, 0, (8 + data.len()) as u8, 0, 0], 6),
        1 => (vec![8, 0, 0, 0, 0, 1, 0, 2], 2),
        _ => (vec![128, 0, 0, 0, 0, 1, 0, 2], 2),
    };
    l4.extend(data);
    let pseudo = [src, dst, &[0, proto], &(l4.len() as u16).to_be_bytes()].concat();
    let mut check = !sum(&[if proto == 1 { &[] } else { &pseudo }, &l4]);
    if proto == 17 && check == 0 {
        check = 0xffff;
    }
    l4[at..at + 2].copy_from_slice(&check.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1];
    if let Some(tag) = tag {
        frame.extend([0x81, 0]);
        frame.extend(tag.to_be_bytes());
    }
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((l4.len() as u16).to_be_bytes());
        frame.extend([proto, 64]);
    } else {
        let total = (20 + l4.len()) as u16;
        let mut header = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, proto, 0, 0];
        header[2..4].copy_from_slice(&total.to_be_bytes());
        let check = !sum(&[&header, src, dst]);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        frame.extend([8, 0]);
        frame.extend(header);
    }
    frame.extend(src);
    frame.extend(dst);
    frame.extend(l4);
    frame
}

/// Whether the checksums of a frame made by [`packet`], perhaps rewritten, are right.
fn checksums_hold(frame: &[u8]) -> bool {
    let (fields, layout) = parse(frame).unwrap();
    let (l3, l4) = (layout.l3.unwrap(), layout.l4.unwrap());
    let proto = fields.get(Field::IpProto) as u8;
    let v6 = fields.get(Field::EthType) == 0x86dd;
    let addresses = if v6 { &frame[l3 + 8..l3 + 40] } else { &frame[l3 + 12..l3 + 20] };
    let length = (frame.len() - l4) as u16;
    let pseudo = [addresses, &[0, proto], &length.to_be_bytes()].concat();
    let header = v6 || sum(&[&frame[l3..l3 + 20]]) == 0xffff;
    header && sum(&[if proto == 1 { &[] } else { &pseudo }, &frame[l4..]]) == 0xffff
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        v6: bool, kind in 0..3_usize, src: [u8; 16], data in prop::collection::vec(any::<u8>(), 0..40), tag in prop::option::of(0..0xfff_u16),
        edits in prop::collection::vec((0..Field::ALL.len(), any::<u128>()), 0..6),
    ) {
        let proto = [6, 17, if v6 { 58 } else { 1 }][kind];
        let frame = packet(v6, proto, tag, src, &data);
        prop_assert!(checksums_hold(&frame));
        let (was, layout) = parse(&frame).unwrap();
        prop_assert_eq!(&write_back(&frame, &layout, &was, &was), &frame, "nothing changed, nothing written");
        let mut writable = vec![Field::EthSrc, Field::EthDst, Field::VlanTci, Field::IpDscp, Field::IpEcn, Field::IpTtl];
        writable.extend(if v6 { [Field::Ip6Src, Field::Ip6Dst, Field::Ip6Label].as_slice() } else { &[Field::Ip4Src, Field::Ip4Dst] });
        writable.extend(match proto {
            6 => [Field::TcpSrc, Field::TcpDst],
            17 => [Field::UdpSrc, Field::UdpDst],
            1 => [Field::Icmp4Type, Field::Icmp4Code],
            _ => [Field::Icmp6Type, Field::Icmp6Code],
        });
        let mut now = was.clone();
        for (n, value) in edits {
            let field = writable[n % writable.len()];
            // A tag, or none at all; and no ICMP type that makes the rest mean something else.
            let value = match field {
                Field::VlanTci if value & 0x1000 == 0 => 0,
                Field::Icmp6Type => value & 0x7f,
                _ => value,
            };
            now.set(field, value);
        }
        let out = write_back(&frame, &layout, &was, &now);
        let read = parse(&out).unwrap().0;
        prop_assert_eq!(&read, &now);
        prop_assert!(checksums_hold(&out), "{out:02x?}");
    }

    #[test]
    fn any_bytes_are_read_without_panic(frame in prop::collection::vec(any::<u8>(), 0..120), eth_type in 0..5_usize, long: bool) {
        let mut frame = frame;
        if frame.len() >= 14 {
            let types: [[u8; 2]; 5] = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0, 60]];
            frame[12..14].copy_from_slice(&types[eth_type]);
            if long && frame.len() > 40 {
                frame[14] = if eth_type == 0 { 0x45 } else { 0x60 };
            }
        }
        match parse(&frame) {
            Ok((fields, layout)) => prop_assert_eq!(write_back(&frame, &layout, &fields, &fields), frame),
            Err(_) => prop_assert!(frame.len() < 14),
        }
    }
}

#[test]
fn fragments_have_ports_only_in_the_first() {
    let mut frame = packet(false, 6, None, [1; 16], &[]);
    let fields = |frame: &[u8]| -> Fields { parse(frame).unwrap().0 };
    frame[20..22].copy_from_slice(&[0x20, 0]);
    assert_eq!((fields(&frame).get(Field::IpFrag), fields(&frame).get(Field::TcpDst)), (1, 80));
    frame[20..22].copy_from_slice(&[0x20, 1]);
    assert_eq!((fields(&frame).get(Field::IpFrag), fields(&frame).get(Field::TcpDst)), (3, 0));
    let plain = packet(true, 17, None, [1; 16], &[0; 8]);
    let mut frame = plain[..54].to_vec();
    (frame[19], frame[20]) = (24, 44);
    frame.extend([17, 0, 0, 8, 0, 0, 0, 1]);
    frame.extend(&plain[54..]);
    let later = fields(&frame);
    assert_eq!((later.get(Field::IpFrag), later.get(Field::IpProto), later.get(Field::UdpDst)), (3, 44, 0));
    // Cut inside the extension header: only the addresses are known.
    let mut cut = frame[..58].to_vec();
    cut[19] = 4;
    assert_eq!((fields(&cut).get(Field::IpProto), fields(&cut).get(Field::Ip6Src)), (0, later.get(Field::Ip6Src)));
}

fn flow(n: u128, pipeline: Pipeline, stage: u8, priority: u16, matches: &str, actions: &str) -> FlowRow {
    FlowRow {
        uuid: FlowUuid(n),
        datapaths: vec![DP],
        pipeline,
        stage,
        priority,
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

/// A switch that floods, answers for fd00::9 and learns: local "a" (1) and "b" (2), "n" (3) nested in b's device, "r" (4) on chassis 2, localport
/// "l" (5), unbound "u" (6), localnet "x" (7).
fn switch(ingress: &[(&str, &str)]) -> Compiler {
    let mut compiler = Compiler::default();
    compiler.set_datapath(DP, Some(DatapathInfo::default()));
    compiler.set_port(port(1, "a", Location::Local { ifindex: 101, tag: None }));
    compiler.set_port(port(2, "b", Location::Local { ifindex: 102, tag: None }));
    compiler.set_port(port(3, "n", Location::Local { ifindex: 102, tag: Some(30) }));
    compiler.set_port(port(4, "r", Location::Remote { chassis: ChassisId(2) }));
    compiler.set_port(LogicalPort {
        kind: PortKind::Localport,
        ..port(5, "l", Location::Local { ifindex: 105, tag: None })
    });
    compiler.set_port(port(6, "u", Location::Unbound));
    compiler.set_port(LogicalPort { kind: PortKind::Localnet, ..port(7, "x", Location::Unbound) });
    let members = [1, 2, 3, 4, 5, 6].map(PortKey).to_vec();
    compiler.set_group(Group { datapath: DP, key: FLOOD, name: "flood".into(), members });
    compiler.set_chassis(Chassis { id: ChassisId(2), name: "hv2".into(), encap: None });
    for (n, (matches, actions)) in ingress.iter().enumerate() {
        compiler.set_flow(flow(n as u128 + 10, Pipeline::Ingress, 0, 100 - n as u16, matches, actions));
    }
    compiler.set_flow(flow(1, Pipeline::Egress, 0, 0, "1", "output;"));
    compiler.commit();
    compiler
}

fn from(compiler: &Compiler, port: u32, frame: &[u8]) -> Outcome {
    run(compiler.program(), Arrival::Port { datapath: DP, port: PortKey(port) }, frame)
}

/// Ports and chassis that got a copy, and reasons of drops.
fn told(outcome: &Outcome) -> (Vec<u32>, Vec<u32>, Vec<Reason>) {
    let mut ports = Vec::new();
    let mut chassis = Vec::new();
    for output in &outcome.outputs {
        match output.destination {
            Destination::Device { port, .. } => ports.push(port.0),
            Destination::Tunnel { chassis: to, .. } => chassis.push(to.0),
        }
    }
    (ports, chassis, outcome.drops.iter().map(|Drop { reason, .. }| *reason).collect())
}

#[test]
fn a_group_reaches_local_ports_and_each_chassis_once() {
    let compiler = switch(&[("1", "outport = \"flood\"; output;")]);
    let frame = packet(false, 17, None, [10; 16], &[]);
    let outcome = from(&compiler, 1, &frame);
    assert_eq!(told(&outcome), (vec![2, 3, 5], vec![2], vec![Reason::Loopback]));
    let tunnel =
        outcome.outputs.iter().find(|output| matches!(output.destination, Destination::Tunnel { .. })).unwrap();
    let Destination::Tunnel { inport, outport, .. } = tunnel.destination else { unreachable!() };
    assert_eq!((inport, outport), (PortKey(1), PortKey(FLOOD.0)));
    // The nested port's copy carries its tag.
    let nested = outcome.outputs.iter().find(|output| output.frame.len() == frame.len() + 4).unwrap();
    assert_eq!(&nested.frame[12..16], [0x81, 0, 0, 30]);
    // What comes by tunnel goes to local ports only, and not to localports: the sender has served its own.
    let arrival = Arrival::Tunnel { datapath: DP, inport: PortKey(4), outport: PortKey(FLOOD.0) };
    assert_eq!(told(&run(compiler.program(), arrival, &frame)), (vec![1, 2, 3], vec![], vec![]));
    // What a localport sends stays here.
    assert_eq!(told(&from(&compiler, 5, &frame)), (vec![1, 2, 3], vec![], vec![Reason::Loopback, Reason::LocalOnly]));
}

#[test]
fn what_a_localport_sends_to_a_group_is_kept_from_each_chassis() {
    let mut compiler = switch(&[("1", "outport = \"flood\"; output;")]);
    let there = |chassis| Location::Remote { chassis: ChassisId(chassis) };
    compiler.set_port(port(8, "s", there(3)));
    compiler.set_port(port(9, "t", there(2)));
    compiler.set_chassis(Chassis { id: ChassisId(3), name: "hv3".into(), encap: None });
    let members = [1, 4, 8, 9].map(PortKey).to_vec();
    compiler.set_group(Group { datapath: DP, key: FLOOD, name: "flood".into(), members });
    compiler.commit();
    let frame = packet(false, 17, None, [10; 16], &[]);
    assert_eq!(told(&from(&compiler, 1, &frame)), (vec![], vec![2, 3], vec![Reason::Loopback]));
    assert_eq!(told(&from(&compiler, 5, &frame)), (vec![1], vec![], vec![Reason::LocalOnly; 2]));
}

#[test]
fn unicast_goes_where_the_port_is() {
    let to = |name: &str| switch(&[("1", &format!("outport = \"{name}\"; output;"))]);
    let frame = packet(true, 6, None, [0x20; 16], &[]);
    assert_eq!(told(&from(&to("b"), 1, &frame)), (vec![2], vec![], vec![]));
    assert_eq!(told(&from(&to("a"), 1, &frame)), (vec![], vec![], vec![Reason::Loopback]));
    assert_eq!(told(&from(&to("r"), 1, &frame)), (vec![], vec![2], vec![]));
    assert_eq!(told(&from(&to("r"), 5, &frame)), (vec![], vec![], vec![Reason::LocalOnly]));
    assert_eq!(told(&from(&to("u"), 1, &frame)), (vec![], vec![], vec![Reason::PortNotBound]));
    assert_eq!(told(&from(&to("x"), 1, &frame)), (vec![], vec![], vec![Reason::PortNotServed]));
    assert_eq!(told(&from(&to(""), 1, &frame)), (vec![], vec![], vec![Reason::NoOutport]));
    let stray = Arrival::Tunnel { datapath: DP, inport: PortKey(1), outport: PortKey(4) };
    assert_eq!(told(&run(to("b").program(), stray, &frame)), (vec![], vec![], vec![Reason::PortNotBound]));
    let loopback = switch(&[("1", "outport = inport; flags.loopback = 1; output;")]);
    assert_eq!(told(&from(&loopback, 1, &frame)), (vec![1], vec![], vec![]));
    assert_eq!(told(&from(&loopback, 1, &frame[..13])), (vec![], vec![], vec![Reason::Truncated]));
}

#[test]
fn a_migrating_port_gets_its_packets_on_both_chassis() {
    let mut compiler = switch(&[("1", "outport = \"b\"; output;")]);
    let both =
        |location, additional: u32| LogicalPort { additional: vec![ChassisId(additional)], ..port(2, "b", location) };
    compiler.set_port(both(Location::Local { ifindex: 102, tag: None }, 2));
    compiler.commit();
    let frame = packet(true, 6, None, [0x20; 16], &[]);
    assert_eq!(told(&from(&compiler, 1, &frame)), (vec![2], vec![2], vec![]));
    compiler.set_port(both(Location::Remote { chassis: ChassisId(2) }, 3));
    compiler.commit();
    assert_eq!(told(&from(&compiler, 1, &frame)), (vec![], vec![2, 3], vec![]));
    // Copies are not passed on.
    compiler.set_port(both(Location::Local { ifindex: 102, tag: None }, 2));
    compiler.commit();
    let arrival = Arrival::Tunnel { datapath: DP, inport: PortKey(4), outport: PortKey(2) };
    assert_eq!(told(&run(compiler.program(), arrival, &frame)), (vec![2], vec![], vec![]));
}

#[test]
fn a_tag_names_the_nested_port() {
    let compiler =
        switch(&[("inport == \"n\" && !vlan.present", "outport = \"a\"; output;"), ("inport == \"b\"", "drop;")]);
    let arrival = Arrival::Device { ifindex: 102 };
    let inside = packet(false, 17, None, [10; 16], &[]);
    let outcome = run(compiler.program(), arrival, &packet(false, 17, Some(30), [10; 16], &[]));
    assert_eq!((told(&outcome).0, &outcome.outputs[0].frame), (vec![1], &inside));
    // Another tag is the device's own business.
    let other = run(compiler.program(), arrival, &packet(false, 17, Some(31), [10; 16], &[]));
    assert_eq!(told(&other).2, [Reason::LogicalFlow]);
    let nobody = run(compiler.program(), Arrival::Device { ifindex: 999 }, &inside);
    assert_eq!(told(&nobody).2, [Reason::NotProgrammed]);
}

fn solicitation(source: [u8; 16], tag: Option<u16>) -> Vec<u8> {
    let target = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let data = [&target[..], &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
    let mut frame = packet(true, 58, tag, source, &data);
    let l3 = if tag.is_some() { 18 } else { 14 };
    (frame[l3 + 7], frame[l3 + 40]) = (255, 135);
    frame
}

#[test]
fn a_neighbor_solicitation_is_answered() {
    let actions = "nd_na { eth.src = 0a:00:00:00:00:09; ip6.src = fd00::9; nd.target = fd00::9; nd.tll = 0a:00:00:00:00:09; \
                   outport = inport; flags.loopback = 1; output; };";
    let compiler = switch(&[("nd_ns && nd.target == fd00::9", actions), ("1", "drop;")]);
    let source = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for tag in [None, Some(0x2005)] {
        let outcome = from(&compiler, 1, &solicitation(source, tag));
        assert_eq!(told(&outcome), (vec![1], vec![], vec![]));
        let answer = &outcome.outputs[0].frame;
        assert_eq!(answer.len(), 86 + if tag.is_some() { 4 } else { 0 });
        assert_eq!(answer[..12], [2, 0, 0, 0, 0, 1, 10, 0, 0, 0, 0, 9]);
        assert!(checksums_hold(answer), "{answer:02x?}");
        let (fields, layout) = parse(answer).unwrap();
        let icmp = layout.l4.unwrap();
        assert_eq!(answer[icmp + 4..icmp + 8], [0x60, 0, 0, 0], "solicited and override");
        let address = u128::from_be_bytes(source);
        let expected = [
            (Field::VlanTci, u128::from(tag.map_or(0, |tag| tag | 0x1000))),
            (Field::Ip6Dst, address),
            (Field::Ip6Src, 0xfd00 << 112 | 9),
            (Field::IpTtl, 255),
            (Field::Icmp6Type, 136),
            (Field::NdTarget, 0xfd00 << 112 | 9),
            (Field::NdTll, 0x0a00_0000_0009),
            (Field::NdSll, 0),
        ];
        for (field, value) in expected {
            assert_eq!(fields.get(field), value, "{field}");
        }
    }
    // Somebody who has no address yet: to all nodes, not "solicited".
    let outcome = from(&compiler, 1, &solicitation([0; 16], None));
    let answer = &outcome.outputs[0].frame;
    let (fields, layout) = parse(answer).unwrap();
    assert_eq!(fields.get(Field::Ip6Dst), 0xff02 << 112 | 1);
    assert_eq!(answer[layout.l4.unwrap() + 4], 0x20);
    assert!(checksums_hold(answer));
}

#[test]
fn addresses_are_learned_looked_up_and_found() {
    let mut compiler = switch(&[(
        "inport == \"a\" && reg0[11] == 0",
        "reg0[11] = lookup_fdb(inport, eth.src); put_fdb(inport, eth.src); outport = get_fdb(eth.dst); next;",
    )]);
    compiler.set_flow(flow(
        50,
        Pipeline::Ingress,
        1,
        20,
        "outport == \"none\" && reg0[11] == 0",
        "outport = \"flood\"; output;",
    ));
    compiler.set_flow(flow(51, Pipeline::Ingress, 1, 10, "1", "output;"));
    compiler.commit();
    let frame = packet(false, 17, None, [10; 16], &[]);
    let (src, dst) = (Mac(0x0200_0000_0001), Mac(0x0200_0000_0009));
    let outcome = from(&compiler, 1, &frame);
    assert_eq!((told(&outcome).1, &outcome.learned[..]), (vec![2], &[(DP, src, PortKey(1))][..]));
    compiler.set_fdb(DP, dst, Some(PortKey(2)));
    compiler.set_fdb(DP, src, Some(PortKey(1)));
    assert_eq!(compiler.commit().fdb.len(), 2);
    let outcome = from(&compiler, 1, &frame);
    assert_eq!((told(&outcome), outcome.learned.len()), ((vec![2], vec![], vec![]), 0));
    compiler.set_fdb(DP, src, Some(PortKey(4)));
    compiler.commit();
    assert_eq!(from(&compiler, 1, &frame).learned, [(DP, src, PortKey(1))]);
}
