//! The life of a frame from VIF to VIF: walk, cache, guards, versions, drops.

use oxbow_abi::field::{self, ETH_DST, ETH_TYPE, INPORT, IP_DST, L4, OUTPORT, flag};
use oxbow_abi::op::{self, Op};
use oxbow_abi::reason::Reason;
use oxbow_abi::rule::{Answer, NEVER, RuleSlot, TUPLE_OUTSIDE_KEY};
use oxbow_abi::stats::{State, total};
use oxbow_abi::topology::{PORT_UNBOUND, PORT_UNSERVED, Port, VIF_LOCALPORT};

use crate::monitor;
use crate::packets::{ping4, tcp4, udp4, udp6};
use crate::rig::{REDIRECT, Rig, SHOT, SWITCH, next, output, set};

/// Two ports on two devices; whatever comes by port 1 goes to port 2 and the other way round.
pub(crate) fn pair() -> (Rig, u32, u32) {
    pair_with(&[])
}

/// The same with globals of the programs overridden.
pub(crate) fn pair_with(globals: &[(&str, u32)]) -> (Rig, u32, u32) {
    let mut rig = Rig::with(globals);
    let (a, b) = (rig.device("a0", "a1"), rig.device("b0", "b1"));
    rig.vif(a, 0, 1, 0);
    rig.vif(b, 0, 2, 0);
    rig.local(1, a, 0);
    rig.local(2, b, 0);
    (rig, a, b)
}

/// The shortest policy: from 1 to 2.
pub(crate) fn forward(rig: &mut Rig) {
    rig.rule((0, 0), 10, &[(INPORT, !0, 1)], &[set(OUTPORT, !0, 2), output()], 11);
    rig.rule((1, 0), 10, &[(OUTPORT, !0, 2)], &[output()], 12);
}

#[test]
fn a_flow_walks_once_and_then_hits() {
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    let frame = udp4(1, 2, b"hello");
    let first = rig.vif_run(a, &frame);
    assert_eq!((first.action, &first.data), (REDIRECT, &frame), "{:?}", rig.all_drops());
    assert_eq!((rig.total(total::WALK), rig.total(total::CACHE_HIT)), (1, 0));
    assert_eq!((rig.lflow(11), rig.lflow(12)), (1, 1));
    let second = rig.vif_run(a, &frame);
    assert_eq!((second.action, &second.data), (REDIRECT, &frame));
    assert_eq!((rig.total(total::WALK), rig.total(total::CACHE_HIT)), (1, 1));
    assert_eq!((rig.total(total::VIF_RX), rig.total(total::VIF_TX)), (2, 2));
    // Hits are counted in the verdict, with the path they stand for.
    let verdicts = rig.verdicts();
    let [(_, verdict)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
    assert_eq!((verdict.hits, verdict.bytes), (1, frame.len() as u64));
    assert_eq!(verdict.path[..verdict.path_len as usize], [11, 12]);
    assert_eq!(rig.lflow(11), 1);
}

#[test]
fn a_device_whose_port_is_taken_away_passes_nothing_any_more() {
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    for _ in 0..2 {
        assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, REDIRECT);
    }
    rig.forget_vif(a);
    assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, SHOT);
    assert_eq!(rig.all_drops(), [(Reason::NotProgrammed.text(), 1)]);
    // Another port on the same device: the old port's verdicts are not its own.
    rig.vif(a, 0, 5, 0);
    assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, SHOT);
    assert_eq!(rig.drops(Reason::NoMatch), 1);
}

#[test]
fn another_flow_has_its_own_verdict() {
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    for frame in [udp4(1, 2, b""), udp4(1, 3, b""), tcp4(1, 2, b""), ping4(), udp6(1, 2, b"")] {
        for _ in 0..2 {
            assert_eq!(rig.vif_run(a, &frame).action, REDIRECT, "{:?}", rig.all_drops());
        }
    }
    assert_eq!((rig.total(total::WALK), rig.total(total::CACHE_HIT)), (5, 5));
}

#[test]
fn a_raised_guard_makes_the_verdict_stale() {
    // Guard 1 is the datapath's, 11 and 12 the ports'.
    for guard in [1, 11, 12] {
        let (mut rig, a, _) = pair();
        forward(&mut rig);
        let frame = udp4(1, 2, b"");
        rig.vif_run(a, &frame);
        rig.vif_run(a, &frame);
        assert_eq!(rig.total(total::CACHE_HIT), 1);
        rig.state(State { version: 2, fan_out_budget: 10, ..State::default() });
        rig.vif_run(a, &frame);
        assert_eq!(rig.total(total::CACHE_HIT), 2, "a new version alone changes nothing for this flow");
        rig.guard(guard, 2);
        rig.vif_run(a, &frame);
        assert_eq!((rig.total(total::WALK), rig.total(total::CACHE_HIT)), (2, 2), "guard {guard}");
        rig.vif_run(a, &frame);
        assert_eq!((rig.total(total::WALK), rig.total(total::CACHE_HIT)), (2, 3), "made anew under version 2");
    }
}

#[test]
fn a_walk_under_an_old_version_is_stale_from_birth() {
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    rig.guard(1, 5);
    for _ in 0..3 {
        assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, REDIRECT);
    }
    assert_eq!((rig.total(total::WALK), rig.total(total::CACHE_HIT)), (3, 0));
}

#[test]
fn a_tuple_outside_the_key_forbids_caching() {
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    let slot = RuleSlot { from: 1, until: NEVER, priority: 5, answer: Answer::default() };
    // A lower priority is not consulted once a better rule is found; a higher one is.
    rig.slots((0, 0), 5, &[(field::TCP_FLAGS, 0xfff, 0xfff)], TUPLE_OUTSIDE_KEY, [slot, RuleSlot::EMPTY]);
    rig.vif_run(a, &tcp4(1, 2, b""));
    rig.vif_run(a, &tcp4(1, 2, b""));
    assert_eq!(rig.total(total::CACHE_HIT), 1);
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    rig.slots((0, 0), 50, &[(field::TCP_FLAGS, 0xfff, 0xfff)], TUPLE_OUTSIDE_KEY, [slot, RuleSlot::EMPTY]);
    rig.vif_run(a, &tcp4(1, 2, b""));
    rig.vif_run(a, &tcp4(1, 2, b""));
    assert_eq!((rig.total(total::CACHE_HIT), rig.total(total::UNCACHEABLE)), (0, 2));
}

#[test]
fn priorities_decide_between_tuples_and_slots_between_versions() {
    let (mut rig, a, b) = pair();
    rig.rule((1, 0), 1, &[], &[output()], 20);
    rig.rule((0, 0), 1, &[], &[Op { code: op::DROP, a: Reason::LogicalFlow as u32, ..Op::default() }], 1);
    rig.rule((0, 0), 100, &[(IP_DST, 0xffff_ff00, 0x0a00_0000)], &[set(OUTPORT, !0, 2), output()], 2);
    rig.rule((0, 0), 200, &[(IP_DST, !0, 0x0a00_0009)], &[set(OUTPORT, !0, 1), output()], 3);
    let frame = udp4(1, 2, b"");
    assert_eq!(rig.vif_run(a, &frame).action, REDIRECT, "{:?}", rig.all_drops());
    assert_eq!((rig.lflow(1), rig.lflow(2), rig.lflow(3)), (0, 1, 0));
    // From version 3 on another rule with the same key holds, until version 5.
    let to = |rig: &mut Rig, port| rig.block(&[set(OUTPORT, !0, port), output()]);
    let (old, new) = (to(&mut rig, 2), to(&mut rig, 1));
    let slot = |from, until, block, lflow| RuleSlot {
        from,
        until,
        priority: 300,
        answer: Answer { block, lflow, operand: [0; 6] },
    };
    let both = [slot(1, 3, old, 30), slot(3, 5, new, 31)];
    rig.slots((0, 0), 300, &[(IP_DST, !0, 0x0a00_0002)], 0, both);
    rig.guard(1, 2);
    for (version, device, lflow) in [(2, b, 30), (3, a, 31), (4, a, 31), (5, b, 2)] {
        rig.state(State { version, ..State::default() });
        rig.guard(1, version);
        let before = rig.lflow(lflow);
        rig.vif_run(if device == a { b } else { a }, &frame);
        assert_eq!(rig.lflow(lflow), before + 1, "version {version}");
    }
}

#[test]
fn wide_keys_match_all_their_words() {
    let (mut rig, a, _) = pair();
    rig.rule((1, 0), 1, &[], &[output()], 20);
    let all: Vec<(u8, u32, u32)> = [
        (field::IP_SRC, 0xfd00_0000),
        (field::IP_SRC + 1, 0),
        (field::IP_SRC + 2, 0),
        (field::IP_SRC + 3, 1),
        (IP_DST, 0xfd00_0000),
        (IP_DST + 1, 0),
        (IP_DST + 2, 0),
        (IP_DST + 3, 2),
        (L4, 0x0001_0002),
    ]
    .map(|(word, value)| (word, !0, value))
    .to_vec();
    rig.rule((0, 0), 1, &all, &[set(OUTPORT, !0, 2), output()], 21);
    assert_eq!(rig.vif_run(a, &udp6(1, 2, b"")).action, REDIRECT, "{:?}", rig.all_drops());
    assert_eq!(rig.vif_run(a, &udp6(1, 3, b"")).action, SHOT);
    assert_eq!(rig.drops(Reason::NoMatch), 1);
}

/// Makes a policy in which a frame of port 1, on the device given, is dropped.
type Build = fn(&mut Rig, u32);

/// Every reason that a frame of a VIF can meet before the tunnels, but for those that a rule names.
const WAYS_TO_BE_DROPPED: &[(Reason, Build)] = &[
    (Reason::NoPolicy, |rig, _| rig.state(State::default())),
    (Reason::NoMatch, |rig, _| {
        rig.rule((0, 0), 1, &[(INPORT, !0, 99)], &[], 1);
    }),
    (Reason::ActionsEnd, |rig, _| {
        rig.rule((0, 0), 1, &[], &[set(0, !0, 1)], 1);
    }),
    (Reason::PipelineEnd, |rig, _| {
        rig.rule((0, 0), 1, &[], &[next(0, 9)], 1);
    }),
    (Reason::NoOutport, |rig, _| {
        rig.rule((0, 0), 1, &[], &[output()], 1);
    }),
    (Reason::PortUnknown, |rig, _| {
        rig.rule((0, 0), 1, &[], &[set(OUTPORT, !0, 77), output()], 1);
    }),
    (Reason::PortNotBound, |rig, _| {
        rig.rule((0, 0), 1, &[], &[set(OUTPORT, !0, 77), output()], 1);
        rig.port(77, Port { kind: PORT_UNBOUND, ..Port::default() });
    }),
    (Reason::PortNotServed, |rig, _| {
        rig.rule((0, 0), 1, &[], &[set(OUTPORT, !0, 77), output()], 1);
        rig.port(77, Port { kind: PORT_UNSERVED, ..Port::default() });
    }),
    (Reason::Loopback, |rig, _| {
        rig.rule((0, 0), 1, &[], &[set(OUTPORT, !0, 1), output()], 1);
    }),
    (Reason::LocalOnly, |rig, a| {
        rig.vif(a, 0, 1, VIF_LOCALPORT);
        rig.rule((0, 0), 1, &[], &[set(OUTPORT, !0, 77), output()], 1);
        rig.remote(77, 1);
    }),
    (Reason::GroupEmpty, |rig, _| {
        rig.rule((0, 0), 1, &[], &[set(OUTPORT, !0, 0x8000), output()], 1);
    }),
    (Reason::NextHopUnresolved, |rig, _| {
        rig.rule((0, 0), 1, &[], &[set(OUTPORT, !0, 77), output()], 1);
        rig.remote(77, 1);
    }),
    (Reason::WalkLimit, |rig, _| {
        rig.rule((0, 0), 1, &[], &[next(0, 0)], 1);
    }),
    (Reason::TtlExceeded, |rig, _| {
        let dec = Op { code: op::DEC_TTL, ..Op::default() };
        rig.rule((0, 0), 1, &[], &[set(field::IP_META, 0xff00, 0x100), dec, output()], 1);
    }),
    (Reason::NotNeighborSolicit, |rig, _| {
        rig.rule((0, 0), 1, &[], &[Op { code: op::ND_NA, ..Op::default() }, output()], 1);
    }),
    (Reason::UnsupportedAction, |rig, _| {
        rig.rule((0, 0), 1, &[], &[Op { code: op::PUNT, ..Op::default() }], 1);
    }),
    (Reason::CloneDepth, |rig, _| {
        let save = Op { code: op::SAVE, ..Op::default() };
        rig.rule((0, 0), 1, &[], &[save, save], 1);
    }),
];

#[test]
fn every_way_to_be_dropped_is_counted_by_its_reason() {
    let drop = |reason: Reason| Op { code: op::DROP, a: reason as u32, ..Op::default() };
    for (reason, build) in WAYS_TO_BE_DROPPED {
        let (mut rig, a, _) = pair();
        build(&mut rig, a);
        monitor::listen_for_drops(&mut rig, *reason);
        let frame = udp4(1, 2, b"");
        let ran = rig.vif_run(a, &frame);
        assert_eq!(ran.action, SHOT, "{reason:?}: {:?}", rig.all_drops());
        assert_eq!(rig.all_drops(), [(reason.text(), 1)], "{reason:?}");
        monitor::was_told(&mut rig, *reason, &frame);
        // Again: from the cache of denied flows or by another walk, counted and told as the same.
        rig.vif_run(a, &frame);
        monitor::was_told(&mut rig, *reason, &frame);
        assert_eq!(rig.all_drops(), [(reason.text(), 2)], "{reason:?}, second packet");
    }
    for reason in [Reason::LogicalFlow, Reason::UnsupportedAction, Reason::TableClosed] {
        let (mut rig, a, _) = pair();
        rig.rule((0, 0), 1, &[], &[drop(reason)], 9);
        for n in 1..=3 {
            assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, SHOT);
            assert_eq!((rig.drops(reason), rig.lflow(9)), (n, n), "counted against its logical flow");
        }
        assert_eq!(rig.total(total::DENIED_HIT), 2, "{reason:?} is remembered");
        let [(_, denied)] = rig.denied()[..] else { panic!("one flow, one entry") };
        assert_eq!((denied.reason, denied.lflow, denied.hits), (reason as u32, 9, 2));
        rig.state(State { version: 2, ..State::default() });
        rig.guard(1, 2);
        rig.vif_run(a, &udp4(1, 2, b""));
        assert_eq!((rig.total(total::DENIED_HIT), rig.total(total::WALK)), (2, 2), "a raised guard ends it");
    }
    let (mut rig, ..) = pair();
    let stranger = rig.device("c0", "c1");
    assert_eq!(rig.vif_run(stranger, &udp4(1, 2, b"")).action, SHOT);
    assert_eq!(rig.all_drops(), [(Reason::NotProgrammed.text(), 1)]);
}

#[test]
fn an_unknown_datapath_drops() {
    let (mut rig, a, _) = pair();
    rig.remove_datapath(SWITCH);
    rig.vif_run(a, &udp4(1, 2, b""));
    assert_eq!(rig.all_drops(), [(Reason::NoDatapath.text(), 1)]);
}

#[test]
fn changed_addresses_are_written_by_walk_and_by_hit() {
    let (mut rig, a, _) = pair();
    let mac = [set(ETH_DST, !0, 0x0a0b), set(ETH_DST + 1, !0, 0x0c0d_0e0f)];
    rig.rule((0, 0), 10, &[], &[mac[0], mac[1], set(OUTPORT, !0, 2), output()], 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    let frame = udp4(1, 2, b"payload");
    let mut wanted = frame.clone();
    wanted[..6].copy_from_slice(&[0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f]);
    for n in 0..2 {
        let ran = rig.vif_run(a, &frame);
        assert_eq!((ran.action, &ran.data), (REDIRECT, &wanted), "run {n}");
    }
    assert_eq!(rig.total(total::CACHE_HIT), 1);
}

#[test]
fn a_packet_may_leave_by_its_own_port_when_the_flag_says_so() {
    let (mut rig, a, _) = pair();
    let loopback = set(field::FLAGS, 1 << flag::LOOPBACK, !0);
    rig.rule((0, 0), 10, &[], &[loopback, set(OUTPORT, !0, 1), output()], 1);
    rig.rule((1, 0), 10, &[(OUTPORT, !0, 1)], &[output()], 2);
    for _ in 0..2 {
        assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, REDIRECT, "{:?}", rig.all_drops());
    }
    assert_eq!(rig.total(total::CACHE_HIT), 1);
}

#[test]
fn registers_are_cleared_between_the_pipelines_and_kept_between_tables() {
    let (mut rig, a, _) = pair();
    rig.rule((0, 0), 10, &[], &[set(field::REG + 3, !0, 7), next(0, 5)], 1);
    rig.rule((0, 5), 10, &[(field::REG + 3, !0, 7)], &[set(OUTPORT, !0, 2), output()], 2);
    rig.rule((1, 0), 10, &[(field::REG + 3, !0, 0), (ETH_TYPE, 0xffff, 0x800)], &[output()], 3);
    assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, REDIRECT, "{:?}", rig.all_drops());
    assert_eq!((rig.lflow(1), rig.lflow(2), rig.lflow(3)), (1, 1, 1));
}
