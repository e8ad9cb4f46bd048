//! Every operation, by what it does to the frame.

use std::time::Instant;

use oxbow_abi::field::{
    ARP_OP, ETH_DST, ETH_SRC, ETH_TYPE, FLAGS, HW_DST, HW_SRC, INPORT, IP_DST, IP_META, IP_SRC, IP6_LABEL, L4,
    ND_TARGET, OUTPORT, REG, TCP_FLAGS, flag,
};
use oxbow_abi::learning::FdbKey;
use oxbow_abi::op::{self, ARG_OUTSIDE_KEY, Op};
use oxbow_abi::reason::Reason;
use oxbow_abi::rule::{Answer, NEVER, RuleSlot};
use oxbow_abi::stats::{EVENT_FDB, State, total};

use crate::forwarding::{forward, pair};
use crate::packets::{
    IP62, MAC1, MAC2, arp, assert_checksums, ping4, ping6, solicitation, tagged, tcp4, tcp6, udp4, udp6,
};
use crate::rig::{REDIRECT, Rig, SHOT, SWITCH, next, output, set};

fn mov(dst: u8, src: u8, mask: u32, from: u32, to: u32) -> Op {
    Op { code: op::MOVE, dst, src, a: mask, b: from, c: to, ..Op::default() }
}

fn exchange(dst: u8, src: u8, mask: u32) -> Op {
    Op { code: op::EXCHANGE, dst, src, a: mask, ..Op::default() }
}

/// Runs one frame through `ops` and then to port 2.
#[track_caller]
fn through(ops: &[Op], frame: &[u8]) -> Vec<u8> {
    let (mut rig, a, _) = pair();
    rig.rule((0, 0), 10, &[], &[ops, &[set(OUTPORT, !0, 2), output()]].concat(), 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    let ran = rig.vif_run(a, frame);
    assert_eq!(ran.action, REDIRECT, "{:?}", rig.all_drops());
    ran.data
}

#[test]
fn fields_of_ipv4_are_written_with_their_checksums() {
    for frame in [udp4(1, 2, b"odd"), tcp4(1, 2, b"even"), ping4()] {
        let ops = [
            set(IP_SRC, !0, 0xc000_0201),
            set(IP_DST, !0, 0xc633_6402),
            set(IP_META, 0x00ff_ff00, 0x00b8_0700),
            set(ETH_SRC, !0, 0x0203),
        ];
        let data = through(&ops, &frame);
        assert_checksums(&data);
        assert_eq!((&data[26..30], &data[30..34]), (&[192, 0, 2, 1][..], &[198, 51, 100, 2][..]));
        assert_eq!((data[15], data[22], &data[6..8], &data[34..36]), (0xb8, 7, &[2, 3][..], &frame[34..36]));
    }
    for frame in [udp4(1, 2, b"odd"), tcp4(1, 2, b"even")] {
        let data = through(&[set(L4, 0xffff, 0x1234)], &frame);
        assert_checksums(&data);
        assert_eq!(data[36..38], [0x12, 0x34]);
    }
    // A datagram without checksum stays without.
    let mut frame = udp4(1, 2, b"x");
    frame[40..42].copy_from_slice(&[0, 0]);
    assert_eq!(through(&[set(IP_SRC, !0, 1)], &frame)[40..42], [0, 0]);
}

#[test]
fn fields_of_ipv6_are_written_with_their_checksums() {
    for frame in [udp6(1, 2, b"odd"), tcp6(1, 2, b"even"), ping6()] {
        let ops = [
            set(IP_SRC + 3, !0, 0x1234_5678),
            set(IP_DST, !0, 0x2001_0db8),
            set(IP_META, 0x00ff_ff00, 0x00b8_0700),
            set(IP6_LABEL, !0, 0xabcde),
        ];
        let data = through(&ops, &frame);
        assert_checksums(&data);
        assert_eq!((&data[34..38], &data[38..42]), (&[0x12, 0x34, 0x56, 0x78][..], &[0x20, 1, 0x0d, 0xb8][..]));
        assert_eq!((&data[14..18], data[21]), (&[0x6b, 0x8a, 0xbc, 0xde][..], 7));
    }
}

#[test]
fn ttl_falls_by_one() {
    let dec = Op { code: op::DEC_TTL, ..Op::default() };
    let data = through(&[dec], &udp4(1, 2, b""));
    assert_checksums(&data);
    assert_eq!(data[22], 63);
    assert_eq!(through(&[dec], &udp6(1, 2, b""))[21], 63);
}

#[test]
fn bits_are_moved_exchanged_and_taken_from_operands() {
    // reg0[8..16] = tcp.src[0..8], then out through the destination address.
    let ops = [mov(REG, L4, 0xff00, 16, 8), mov(ETH_DST + 1, REG, !0, 0, 0)];
    assert_eq!(through(&ops, &udp4(0x1234, 2, b""))[2..6], [0, 0, 0x34, 0]);
    let ops = [exchange(ETH_DST, ETH_SRC, 0xffff), exchange(ETH_DST + 1, ETH_SRC + 1, !0)];
    assert_eq!(through(&ops, &udp4(1, 2, b""))[..12], [MAC1, MAC2].concat());
    // Halves of one word.
    let halves = Op { code: op::EXCHANGE, dst: L4, src: L4, a: 0xffff, b: 16, c: 0, ..Op::default() };
    assert_eq!(through(&[halves], &udp4(0x1111, 0x2222, b""))[34..38], [0x22, 0x22, 0x11, 0x11]);
    let (mut rig, a, _) = pair();
    let operand = Op { code: op::SET_OPERAND, dst: ETH_DST + 1, arg: 3, a: !0, c: 8, ..Op::default() };
    let block = rig.block(&[operand, set(OUTPORT, !0, 2), output()]);
    let slot = RuleSlot {
        from: 1,
        until: NEVER,
        priority: 1,
        answer: Answer { block, lflow: 0, operand: [0, 0, 0, 0x00ab_cdef, 0, 0] },
    };
    rig.slots((0, 0), 1, &[], 0, [slot, RuleSlot::EMPTY]);
    rig.rule((1, 0), 1, &[], &[output()], 2);
    assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).data[2..6], [0xab, 0xcd, 0xef, 0]);
    // A move that reads outside the key is not cached.
    let (mut rig, a, _) = pair();
    let outside = Op { arg: ARG_OUTSIDE_KEY, ..mov(REG, TCP_FLAGS, !0, 0, 0) };
    rig.rule((0, 0), 1, &[], &[outside, set(OUTPORT, !0, 2), output()], 1);
    rig.rule((1, 0), 1, &[], &[output()], 2);
    rig.vif_run(a, &tcp4(1, 2, b""));
    rig.vif_run(a, &tcp4(1, 2, b""));
    assert_eq!((rig.total(total::WALK), rig.verdicts().len()), (2, 0));
}

#[test]
fn a_long_list_goes_on_in_the_next_block() {
    let many: Vec<Op> = (0..40).map(|n| set(REG + 1, !0, n)).chain([mov(ETH_DST + 1, REG + 1, !0, 0, 0)]).collect();
    assert_eq!(through(&many, &udp4(1, 2, b""))[2..6], [0, 0, 0, 39]);
    // Up to the limit.
    let (mut rig, a, _) = pair();
    rig.rule((0, 0), 10, &[], &vec![set(REG, !0, 1); 130], 1);
    rig.vif_run(a, &udp4(1, 2, b""));
    assert_eq!(rig.all_drops(), [(Reason::ActionsEnd.text(), 1)]);
}

#[test]
fn a_saved_section_leaves_no_trace() {
    let (save, restore) = (Op { code: op::SAVE, ..Op::default() }, Op { code: op::RESTORE, ..Op::default() });
    let frame = udp4(1, 2, b"");
    assert_eq!(through(&[save, set(ETH_DST, !0, 9), set(REG, !0, 9), restore], &frame), frame);
}

#[test]
fn an_arp_request_becomes_the_reply() {
    let reply = [
        mov(ETH_DST, ETH_SRC, !0, 0, 0),
        mov(ETH_DST + 1, ETH_SRC + 1, !0, 0, 0),
        set(ETH_SRC, !0, 0x0200),
        set(ETH_SRC + 1, !0, 2),
        set(ARP_OP, !0, 2),
        mov(HW_DST, HW_SRC, !0, 0, 0),
        mov(HW_DST + 1, HW_SRC + 1, !0, 0, 0),
        set(HW_SRC, !0, 0x0200),
        set(HW_SRC + 1, !0, 2),
        exchange(IP_SRC, IP_DST, !0),
        set(FLAGS, 1 << flag::LOOPBACK, !0),
        mov(OUTPORT, INPORT, !0, 0, 0),
        output(),
    ];
    let (mut rig, a, _) = pair();
    rig.rule((0, 0), 10, &[(ETH_TYPE, 0xffff, 0x806), (IP_DST, !0, 0x0a00_0002)], &reply, 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    let request = arp();
    let ran = rig.vif_run(a, &request);
    assert_eq!(ran.action, REDIRECT, "{:?}", rig.all_drops());
    let mut wanted = [MAC1, MAC2].concat();
    wanted.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    wanted.extend(MAC2);
    wanted.extend([10, 0, 0, 2]);
    wanted.extend(MAC1);
    wanted.extend([10, 0, 0, 1]);
    assert_eq!(ran.data, wanted);
}

/// `nd_na { eth.src = MAC2; nd.tll = MAC2; outport = inport; flags.loopback = 1; output; }`
fn advertise(router: u32) -> Vec<Op> {
    vec![
        Op { code: op::ND_NA, a: router, ..Op::default() },
        set(ETH_SRC, !0, 0x0200),
        set(ETH_SRC + 1, !0, 2),
        set(HW_DST, !0, 0x0200),
        set(HW_DST + 1, !0, 2),
        set(FLAGS, 1 << flag::LOOPBACK, !0),
        mov(OUTPORT, INPORT, !0, 0, 0),
        output(),
    ]
}

#[test]
fn a_neighbor_solicitation_becomes_the_advertisement() {
    for (router, bits) in [(0, 0x60), (1, 0xe0)] {
        for tag in [None, Some(0x2005)] {
            let (mut rig, a, _) = pair();
            rig.rule((0, 0), 10, &[(L4, !0, 135 << 16), (ND_TARGET, !0, 0xfd00_0000)], &advertise(router), 1);
            rig.rule((1, 0), 10, &[], &[output()], 2);
            let plain = solicitation();
            let request = tag.map_or(plain.clone(), |tci| tagged(&plain, tci));
            let ran = rig.vif_run(a, &request);
            assert_eq!(ran.action, REDIRECT, "{:?}", rig.all_drops());
            let mut reply = ran.data;
            if tag.is_some() {
                assert_eq!(reply.drain(12..16).collect::<Vec<u8>>(), [0x81, 0, 0x20, 5]);
            }
            assert_checksums(&reply);
            assert_eq!(reply.len(), 14 + 40 + 32);
            assert_eq!(reply[..12], [MAC1, MAC2].concat());
            assert_eq!(reply[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
            assert_eq!((&reply[22..38], &reply[38..54]), (&IP62[..], &plain[22..38]));
            assert_eq!((reply[54], reply[55], reply[58], &reply[59..62]), (136, 0, bits, &[0; 3][..]));
            assert_eq!(reply[62..78], IP62);
            assert_eq!(reply[78..86], [2, 1, 2, 0, 0, 0, 0, 2]);
        }
    }
}

#[test]
fn a_duplicate_address_probe_is_answered_to_all_nodes() {
    let mut probe = solicitation();
    probe[22..38].fill(0);
    let (mut rig, a, _) = pair();
    rig.rule((0, 0), 10, &[], &advertise(0), 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    let reply = rig.vif_run(a, &probe).data;
    assert_checksums(&reply);
    assert_eq!(reply[38..54], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(reply[58], 0x20, "not solicited");
}

fn fdb_ops() -> (Op, Op, Op) {
    (
        Op { code: op::LOOKUP_FDB, dst: REG, src: ETH_SRC, b: INPORT.into(), c: 11, ..Op::default() },
        Op { code: op::PUT_FDB, dst: INPORT, src: ETH_SRC, ..Op::default() },
        Op { code: op::GET_FDB, src: ETH_DST, b: 0, ..Op::default() },
    )
}

/// A learning switch: `lookup_fdb`, `put_fdb` when not known there, `get_fdb`.
pub(crate) fn learning() -> (Rig, u32, u32) {
    let (mut rig, a, b) = pair();
    let (lookup, put, get) = fdb_ops();
    rig.rule((0, 0), 10, &[], &[lookup, next(0, 1)], 1);
    rig.rule((0, 1), 100, &[(REG, 1 << 11, 0)], &[put, next(0, 2)], 2);
    rig.rule((0, 1), 0, &[], &[next(0, 2)], 3);
    rig.rule((0, 2), 0, &[], &[get, output()], 4);
    rig.rule((1, 0), 0, &[], &[output()], 5);
    (rig, a, b)
}

#[test]
fn addresses_are_learned_at_once_told_and_moved() {
    let (mut rig, a, b) = learning();
    let there = udp4(1, 2, b"");
    let mut back = there.clone();
    back[..12].copy_from_slice(&[MAC1, MAC2].concat());
    assert_eq!(rig.vif_run(a, &there).action, SHOT);
    assert_eq!(rig.all_drops(), [(Reason::NoOutport.text(), 1)], "nobody knows guest 2 yet");
    assert_eq!(rig.vif_run(b, &back).action, REDIRECT, "but guest 1 is known: {:?}", rig.all_drops());
    assert_eq!(rig.vif_run(a, &there).action, REDIRECT);
    assert_eq!((rig.total(total::FDB_LEARNED), rig.lflow(2)), (2, 2));
    let key = |mac: [u8; 6]| FdbKey {
        datapath: SWITCH,
        mac_hi: u32::from(mac[0]) << 8 | u32::from(mac[1]),
        mac_lo: u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]),
    };
    assert_eq!((rig.fdb(key(MAC1)).unwrap().port, rig.fdb(key(MAC2)).unwrap().port), (1, 2));
    let words =
        |event: &Vec<u8>| -> Vec<u32> { event.chunks(4).map(|w| u32::from_ne_bytes(w.try_into().unwrap())).collect() };
    let events: Vec<_> = rig.events().iter().map(words).collect();
    assert_eq!(events, [vec![EVENT_FDB, 1, SWITCH, 0x0200, 1, 0], vec![EVENT_FDB, 2, SWITCH, 0x0200, 2, 0]]);
    // Now both directions are cached.
    for _ in 0..2 {
        rig.vif_run(a, &there);
        rig.vif_run(b, &back);
    }
    let hits = rig.total(total::CACHE_HIT);
    assert!(hits >= 2, "{hits}");
    // Guest 2 moves behind port 1: what went to port 2 walks again, and has nowhere to go but back.
    let mut moved = there.clone();
    moved[6..12].copy_from_slice(&MAC2);
    moved[..6].copy_from_slice(&[9; 6]);
    rig.vif_run(a, &moved);
    assert_eq!(rig.fdb(key(MAC2)).unwrap().port, 1);
    assert_eq!(words(&rig.events()[0]), [EVENT_FDB, 1, SWITCH, 0x0200, 2, 2]);
    assert_eq!(rig.vif_run(a, &there).action, SHOT);
    assert_eq!(rig.drops(Reason::Loopback), 1, "{:?}", rig.all_drops());
}

#[test]
fn a_port_learns_no_faster_than_its_rate() {
    let (mut rig, a, _) = learning();
    rig.state(State { version: 1, fdb_rate: 5, ..State::default() });
    let start = Instant::now();
    for n in 0..100u8 {
        let mut frame = udp4(1, 2, b"");
        frame[11] = n;
        rig.vif_run(a, &frame);
    }
    let learned = rig.total(total::FDB_LEARNED);
    // The time that it took has added some.
    let took = start.elapsed();
    let most = 6 + (5.0 * took.as_secs_f64()) as u64;
    assert!((5..=most).contains(&learned), "{learned} learned in {took:?}");
}

#[test]
fn port_security_looks_into_sub_tables() {
    let (mut rig, a, _) = pair();
    let check = Op { code: op::CHECK_IN_PORT_SEC, dst: REG, c: 15, ..Op::default() };
    rig.rule((0, 0), 10, &[], &[check, next(0, 1)], 1);
    rig.rule((0, 1), 10, &[(REG, 1 << 15, 1 << 15)], &[Op { code: op::DROP, a: 1, ..Op::default() }], 2);
    rig.rule((0, 1), 0, &[], &[set(OUTPORT, !0, 2), output()], 3);
    rig.rule((1, 0), 0, &[], &[output()], 4);
    let sub = |block, operand| {
        [
            RuleSlot {
                from: 1,
                until: NEVER,
                priority: 0,
                answer: Answer { block, lflow: 0, operand: [operand, 0, 0, 0, 0, 0] },
            },
            RuleSlot::EMPTY,
        ]
    };
    let with = |slots: [RuleSlot; 2], priority| slots.map(|s| RuleSlot { priority, ..s });
    let mac = [(INPORT, !0, 1), (ETH_SRC, !0, 0x0200), (ETH_SRC + 1, !0, 1)];
    let address = [mac[0], mac[1], mac[2], (ETH_TYPE, 0xffff, 0x800), (IP_SRC, !0, 0x0a00_0001)];
    let arp_there = [mac[0], mac[1], mac[2], (ETH_TYPE, 0xffff, 0x806)];
    rig.slots((2, 0), 90, &address, 0, with(sub(op::SUB_PASS, 0), 90));
    rig.slots((2, 0), 90, &arp_there, 0, with(sub(op::SUB_GOTO, op::SUB_IN_PORT_SEC_ND as u32), 90));
    rig.slots((2, 0), 80, &[(INPORT, !0, 1)], 0, with(sub(op::SUB_FAIL, 0), 80));
    rig.slots(
        (2, 1),
        90,
        &[(INPORT, !0, 1), (HW_SRC, !0, 0x0200), (HW_SRC + 1, !0, 1)],
        0,
        with(sub(op::SUB_PASS, 0), 90),
    );
    rig.slots((2, 1), 80, &[(INPORT, !0, 1)], 0, with(sub(op::SUB_FAIL, 0), 80));
    let good = udp4(1, 2, b"");
    let mut spoofed = good.clone();
    spoofed[29] = 77;
    let mut spoofed_arp = arp();
    spoofed_arp[27] = 77;
    for (frame, action) in
        [(good, REDIRECT), (spoofed, SHOT), (arp(), REDIRECT), (spoofed_arp, SHOT), (udp6(1, 2, b""), SHOT)]
    {
        for _ in 0..2 {
            assert_eq!(rig.vif_run(a, &frame).action, action, "{frame:02x?} {:?}", rig.all_drops());
        }
    }
    // A port without entries passes.
    rig.vif(a, 0, 3, 0);
    let mut other = udp4(1, 2, b"");
    other[29] = 99;
    assert_eq!(rig.vif_run(a, &other).action, REDIRECT);
}

#[test]
fn a_drop_event_shows_the_frame() {
    let (mut rig, a, _) = pair();
    rig.rule((0, 0), 10, &[], &[Op { code: op::DROP, a: 1, ..Op::default() }], 5);
    rig.state(State { version: 1, flags: oxbow_abi::stats::STATE_DROP_EVENTS, ..State::default() });
    let frame = udp4(1, 2, &[0xee; 100]);
    rig.vif_run(a, &frame);
    let events = rig.events();
    let [event] = events.as_slice() else { panic!("{events:?}") };
    let words: Vec<u32> = event[..24].chunks(4).map(|w| u32::from_ne_bytes(w.try_into().unwrap())).collect();
    assert_eq!(words, [oxbow_abi::stats::EVENT_DROP, 1, 5, SWITCH, 1, frame.len() as u32]);
    assert_eq!(event[24..88], frame[..64]);
    // The program forwards all the same.
    forward(&mut rig);
}
