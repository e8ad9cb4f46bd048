//! Groups, copies, nested ports: what leaves by several ways is seen on the wire.

use std::time::{Duration, Instant};

use oxbow_abi::field::{ETH_DST, ETH_TYPE, INPORT, OUTPORT};
use oxbow_abi::op::{self, Op};
use oxbow_abi::reason::Reason;
use oxbow_abi::stats::{State, total};
use oxbow_abi::topology::{
    Address, CHASSIS_RESOLVED, Chassis, MEMBER_CHASSIS, PORT_LOCAL, PeerKey, Port, VIF_HAS_NESTED, VIF_NESTED,
};
use oxbow_testkit::frames::Frames;
use oxbow_testkit::wait::stretched;

use crate::forwarding::pair;
use crate::packets::{arp, tagged, udp4, udp6};
use crate::rig::{REDIRECT, Rig, SHOT, output, set};

const FLOOD: u32 = 0x8001;

fn address(family: u32, last: u8) -> Address {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&[192, 0, 2, if family == 4 { last } else { 9 }]);
    if family == 6 {
        bytes[15] = last;
    }
    Address { bytes, family }
}

fn chassis(rig: &mut Rig, index: u32, ifindex: u32, family: u32) {
    let (local, remote) = (address(family, 1), address(family, 100 + index as u8));
    let mac = [2, 0xaa, 0, 0, 0, index as u8, 2, 0xaa, 0, 0, 0, 0xff];
    rig.chassis(
        index,
        Chassis { flags: CHASSIS_RESOLVED, ifindex, local, remote, mac, mtu: 1500, ttl: 64, tos: 0, guard: 0 },
    );
    rig.peer(PeerKey { local, remote }, index);
}

/// Ports 1 to 4 on devices p1 … p4 whose other ends are q1 … q4, and an underlay device u0.
fn switch() -> (Rig, Vec<u32>, u32) {
    let mut rig = Rig::new();
    let devices: Vec<u32> = (1..=4).map(|n| rig.device(&format!("p{n}"), &format!("q{n}"))).collect();
    for (port, &device) in (1..).zip(&devices) {
        rig.vif(device, 0, port, 0);
        rig.local(port, device, 0);
    }
    let underlay = rig.device("u0", "u1");
    rig.rule((0, 0), 10, &[], &[set(OUTPORT, !0, FLOOD), output()], 1);
    // Each copy has an egress pipeline of its own: port 3's writes into it.
    rig.rule((1, 0), 20, &[(OUTPORT, !0, 3)], &[set(ETH_DST + 1, !0, 0x0303_0303), output()], 3);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    (rig, devices, underlay)
}

fn listen(rig: &Rig, device: &str) -> Frames {
    Frames::open(&rig.hv, device).unwrap()
}

/// The frames that have arrived and are ours (the kernel's own announcements are not).
fn arrived(frames: &Frames) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(received) = frames.receive(stretched(Duration::from_millis(60))).unwrap() {
        let frame = received.frame;
        let own = frame.get(6..8) == Some(&[2, 0]) || frame.get(6..8) == Some(&[2, 0xaa]);
        if own {
            all.push(frame);
        }
    }
    all
}

#[test]
fn a_flooded_frame_reaches_every_other_member_once() {
    for frame in [udp4(1, 2, b"to all"), udp6(1, 2, b"to all"), arp()] {
        let (mut rig, devices, underlay) = switch();
        chassis(&mut rig, 1, underlay, 4);
        chassis(&mut rig, 2, underlay, 4);
        chassis(&mut rig, 3, underlay, 6);
        // In no order: chassis between ports, families mixed.
        let members = [1, MEMBER_CHASSIS | 1, 2, MEMBER_CHASSIS | 3, 3, MEMBER_CHASSIS | 2, 4];
        rig.group(FLOOD, &members);
        let ends: Vec<Frames> = ["q1", "q2", "q3", "q4", "u1"].map(|name| listen(&rig, name)).into();
        let ran = rig.vif_run(devices[0], &frame);
        assert_eq!((ran.action, rig.all_drops()), (SHOT, vec![(Reason::Loopback.text(), 1)]));
        let got: Vec<Vec<Vec<u8>>> = ends.iter().map(arrived).collect();
        let mut third = frame.clone();
        third[2..6].fill(3);
        assert_eq!(got[0], Vec::<Vec<u8>>::new(), "not back to the sender");
        for (n, wanted) in [(1, &frame), (2, &third), (3, &frame)] {
            let [one] = got[n].as_slice() else { panic!("q{}: {:02x?}", n + 1, got[n]) };
            assert_eq!(one[..wanted.len()], **wanted, "q{}", n + 1);
        }
        let outer: Vec<(u8, &[u8], &[u8])> = got[4]
            .iter()
            .map(|f| {
                let inner = if f[12..14] == [8, 0] { 58 } else { 78 };
                (f[5], &f[inner - 4..inner], &f[inner..inner + frame.len()])
            })
            .collect();
        // The group is the outport: the receiver fans out to its own members.
        let option = [0, 1, 0x80, 1];
        assert_eq!(outer, [1, 2, 3].map(|chassis| (chassis, &option[..], &frame[..])));
        assert_eq!((rig.lflow(2), rig.lflow(3)), (2, 1));
        assert_eq!((rig.total(total::TUNNEL_TX), rig.total(total::VIF_TX)), (3, 3));
    }
}

#[test]
fn a_group_from_a_tunnel_reaches_local_members_only() {
    let (mut rig, devices, underlay) = switch();
    chassis(&mut rig, 1, underlay, 4);
    rig.group(FLOOD, &[1, MEMBER_CHASSIS | 1, 2]);
    rig.remote(9, 1);
    // What we would send to chassis 1, turned round.
    rig.vif(devices[3], 0, 9, 0);
    let listener = listen(&rig, "u1");
    rig.vif_run(devices[3], &arp());
    let mut outer = arrived(&listener).remove(0);
    let (source, destination) = (outer[26..30].to_vec(), outer[30..34].to_vec());
    outer[26..30].copy_from_slice(&destination);
    outer[30..34].copy_from_slice(&source);
    let ends: Vec<Frames> = ["q1", "q2", "u1"].map(|name| listen(&rig, name)).into();
    let ran = rig.underlay_run(underlay, &outer);
    assert_eq!(ran.action, SHOT);
    let got: Vec<Vec<Vec<u8>>> = ends.iter().map(arrived).collect();
    assert_eq!(got[0], [arp()], "{:?}", rig.all_drops());
    assert_eq!(got[1], [arp()]);
    assert_eq!(got[2], Vec::<Vec<u8>>::new());
}

#[test]
fn large_groups_go_on_in_chunks_and_end_with_the_budget() {
    for (members, budget, copies) in [(30, 1000, 30), (31, 1000, 31), (60, 1000, 60), (75, 1000, 75), (75, 40, 40)] {
        let (mut rig, devices, _) = switch();
        rig.state(State { version: 1, fan_out_budget: budget, ..State::default() });
        let list: Vec<u32> = (100..100 + members).collect();
        for &port in &list {
            rig.local(port, devices[1], 0);
        }
        rig.group(FLOOD, &list);
        let listener = listen(&rig, "q2");
        rig.vif_run(devices[0], &udp4(1, 2, b""));
        let exceeded = u64::from(budget < members);
        assert_eq!(rig.total(total::FAN_OUT), copies, "{:?}", rig.all_drops());
        assert_eq!(rig.drops(Reason::FanOutBudget), exceeded);
        assert_eq!(arrived(&listener).len() as u64, copies);
    }
}

#[test]
fn a_port_floods_no_faster_than_its_rate() {
    let (mut rig, devices, _) = switch();
    rig.state(State { version: 1, fan_out_budget: 100, bum_rate: 5, bum_burst: 10, ..State::default() });
    rig.group(FLOOD, &[1, 2]);
    let start = Instant::now();
    for _ in 0..100 {
        rig.vif_run(devices[0], &arp());
    }
    let passed = rig.total(total::FAN_OUT) / 2;
    // The time that it took has added some.
    let took = start.elapsed();
    let most = 11 + (5.0 * took.as_secs_f64()) as u64;
    assert!((10..=most).contains(&passed), "{passed} passed in {took:?}");
    assert_eq!(rig.drops(Reason::BumRate), 100 - passed);
    // Another port has its own.
    rig.vif_run(devices[1], &arp());
    assert_eq!(rig.total(total::FAN_OUT) / 2, passed + 1);
}

#[test]
fn operations_behind_an_output_see_the_packet_as_it_was() {
    let (mut rig, a, b) = pair();
    let c = rig.device("c0", "c1");
    rig.local(3, c, 0);
    let copy = Op { code: op::OUTPUT_COPY, ..Op::default() };
    let ops = [set(OUTPORT, !0, 2), copy, set(OUTPORT, !0, 3), output()];
    rig.rule((0, 0), 10, &[], &ops, 1);
    rig.rule((1, 0), 20, &[(OUTPORT, !0, 2)], &[set(ETH_DST, !0, 0x0909), output()], 2);
    rig.rule((1, 0), 10, &[(ETH_DST, !0, 0x0200)], &[output()], 3);
    let frame = udp4(1, 2, b"twice");
    let ends: Vec<Frames> = ["b1", "c1"].map(|name| listen(&rig, name)).into();
    let ran = rig.vif_run(a, &frame);
    assert_eq!(
        (ran.action, &ran.data),
        (REDIRECT, &frame),
        "the last copy leaves when the program returns: {:?}",
        rig.all_drops()
    );
    let mut first = frame.clone();
    first[..2].fill(9);
    assert_eq!((arrived(&ends[0]), arrived(&ends[1])), (vec![first], vec![]));
    assert_eq!((rig.verdicts().len(), rig.lflow(2), rig.lflow(3)), (0, 1, 1));
    let _ = b;
}

#[test]
fn a_migrating_port_gets_a_copy_at_its_second_chassis() {
    let (mut rig, a, b) = pair();
    let underlay = rig.device("u0", "u1");
    chassis(&mut rig, 1, underlay, 4);
    rig.port(2, Port { kind: PORT_LOCAL, ifindex: b, additional: 1, ..Port::default() });
    rig.rule((0, 0), 10, &[], &[set(OUTPORT, !0, 2), output()], 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    let listener = listen(&rig, "b1");
    for frame in [udp4(1, 2, b"a"), arp(), tagged(&udp4(1, 2, b"b"), 5)] {
        // The local copy leaves first, the other is what the program returns.
        let ran = rig.vif_run(a, &frame);
        assert_eq!((ran.action, &ran.data[58..]), (REDIRECT, &frame[..]), "{:?}", rig.all_drops());
        assert_eq!(arrived(&listener), [frame]);
    }
    assert!(rig.verdicts().is_empty());
}

/// A device with its own port 1 and the nested ports 21 (VLAN 5) and 22 (VLAN 6), and port 2 elsewhere.
fn nested() -> (Rig, u32) {
    let (mut rig, a, _) = pair();
    rig.vif(a, 0, 1, VIF_HAS_NESTED);
    for (port, vlan) in [(21, 5), (22, 6)] {
        rig.vif(a, vlan, port, VIF_NESTED);
        rig.local(port, a, vlan);
    }
    (rig, a)
}

#[test]
fn nested_ports_have_their_tag_taken_off_and_put_on() {
    let (mut rig, a) = nested();
    let plain = udp4(1, 2, b"nested");
    // From 21 to 2: seen without a tag. From 2 to 21: with tag 5. From 21 to 22: another tag on the same device.
    rig.rule((0, 0), 10, &[(INPORT, !0, 21), (ETH_TYPE, !0, 0x0800)], &[set(OUTPORT, !0, 2), output()], 1);
    rig.rule((0, 0), 10, &[(INPORT, !0, 2), (ETH_TYPE, !0, 0x0800)], &[set(OUTPORT, !0, 21), output()], 2);
    rig.rule((0, 0), 10, &[(INPORT, !0, 22), (ETH_TYPE, !0, 0x0800)], &[set(OUTPORT, !0, 21), output()], 3);
    rig.rule((0, 0), 10, &[(INPORT, !0, 1)], &[set(OUTPORT, !0, 2), output()], 4);
    rig.rule((1, 0), 10, &[], &[output()], 5);
    let b = rig.index("b0");
    let ran = rig.vif_run(a, &tagged(&plain, 5));
    assert_eq!((ran.action, &ran.data), (REDIRECT, &plain), "{:?}", rig.all_drops());
    for run in 0..2 {
        // The tag is beside the frame, where BPF_PROG_TEST_RUN does not show it; the next test does.
        let ran = rig.vif_run(b, &plain);
        assert_eq!((ran.action, &ran.data), (REDIRECT, &plain), "run {run}");
    }
    assert_eq!(rig.total(total::CACHE_HIT), 1);
    let ran = rig.vif_run(a, &tagged(&plain, 6));
    assert_eq!((ran.action, &ran.data), (REDIRECT, &plain), "{:?}", rig.all_drops());
    assert_eq!((rig.lflow(1), rig.lflow(2), rig.lflow(3)), (1, 1, 1));
    // A tag that is no nested port's is the device's own frame, tag and all.
    let own = tagged(&plain, 77);
    let ran = rig.vif_run(a, &own);
    assert_eq!((ran.action, &ran.data, rig.lflow(4)), (REDIRECT, &own, 1));
}

#[test]
fn real_tags_are_handled_as_the_stack_hands_them_over() {
    let (mut rig, _) = nested();
    rig.rule((0, 0), 10, &[(INPORT, !0, 21), (ETH_TYPE, !0, 0x0800)], &[set(OUTPORT, !0, 2), output()], 1);
    rig.rule((0, 0), 10, &[(INPORT, !0, 2), (ETH_TYPE, !0, 0x0800)], &[set(OUTPORT, !0, 22), output()], 2);
    rig.rule((1, 0), 10, &[], &[output()], 5);
    rig.attach("a0", "oxbow_vif");
    rig.attach("b0", "oxbow_vif");
    let (near, far) = (listen(&rig, "a1"), listen(&rig, "b1"));
    let plain = udp4(1, 2, &[0x55; 40]);
    for _ in 0..3 {
        near.send(&tagged(&plain, 5)).unwrap();
        assert_eq!(arrived(&far), std::slice::from_ref(&plain), "{:?}", rig.all_drops());
        far.send(&plain).unwrap();
        assert_eq!(arrived(&near), [tagged(&plain, 6)], "{:?}", rig.all_drops());
    }
    // (The kernel's own announcements from a1 and b1 walk too.)
    assert_eq!((rig.total(total::CACHE_HIT), rig.lflow(1), rig.lflow(2)), (4, 1, 1), "{:?}", rig.all_drops());
}
