//! What listeners are told (`OX_MONITOR`): of which packets, with what in the record, by which filter, how fast, and what is counted when it is not told.

use oxbow_abi::field::{INPORT, L4, OUTPORT};
use oxbow_abi::monitor::{
    Listen, SEEN_CACHED, SEEN_DELIVER, SEEN_DROP, SEEN_HEAD, SEEN_TUNNEL, STATE_TELL_DROPS, STATE_TELL_FORWARDED, Seen,
};
use oxbow_abi::op::{self, Op};
use oxbow_abi::reason::Reason;
use oxbow_abi::stats::State;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::wait_until;

use crate::forwarding::{forward, pair};
use crate::packets::{MAC1, MAC2, tagged, udp4, udp6};
use crate::rig::{REDIRECT, Rig, SHOT, SWITCH, output, set};
use crate::tunnels::{chassis, geneve, remote, v4};

/// Everything, as fast as it comes.
const ALL: Listen = Listen { reasons: u64::MAX, datapath: 0, port: 0, device: 0, pace: u32::MAX };

/// Lets the programs tell.
fn tell(rig: &mut Rig, flags: u32, listen: Listen) {
    rig.listen(listen);
    rig.state(State { version: 1, flags, fan_out_budget: 1000, ..State::default() });
}

fn both(rig: &mut Rig) {
    tell(rig, STATE_TELL_DROPS | STATE_TELL_FORWARDED, ALL);
}

/// Kind, reason or device or chassis, logical flow, inport, outport.
fn core(seen: &Seen) -> (u32, u32, u32, u32, u32) {
    (seen.kind, seen.what, seen.lflow, seen.inport, seen.outport)
}

/// The record's datapath, length and bytes are those of this frame.
fn is_of(seen: &Seen, frame: &[u8]) {
    let head = &frame[..frame.len().min(SEEN_HEAD)];
    assert_eq!((seen.datapath, seen.len as usize), (SWITCH, frame.len()));
    assert_eq!(&seen.head[..seen.head_len as usize], head);
    assert_ne!(seen.at, 0);
}

#[test]
fn a_delivered_frame_is_told_by_the_walk_and_by_the_cache() {
    // As long as a record's head, longer, and shorter than any IP packet.
    for frame in [
        udp4(1, 2, b"hello"),
        udp4(1, 2, &[7; 400]),
        udp6(1, 2, &[9; 66]),
        [&MAC2[..], &MAC1, &[0x88, 0xb5, 1]].concat(),
    ] {
        let (mut rig, a, b) = pair();
        forward(&mut rig);
        assert_eq!(rig.vif_run(a, &frame).action, REDIRECT, "{:?}", rig.all_drops());
        assert_eq!(rig.seen(), [], "nobody listens");
        both(&mut rig);
        rig.guard(1, 2);
        rig.state(State { version: 2, flags: STATE_TELL_FORWARDED, fan_out_budget: 1000, ..State::default() });
        for kind in [SEEN_DELIVER, SEEN_DELIVER | SEEN_CACHED] {
            rig.vif_run(a, &frame);
            let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
            // The fast path knows the device, and the port no more.
            let outport = if kind & SEEN_CACHED == 0 { 2 } else { 0 };
            assert_eq!(core(&seen), (kind, b, 0, 1, outport));
            is_of(&seen, &frame);
        }
        assert_eq!(rig.untold(), 0);
    }
}

#[test]
fn a_frame_is_told_as_it_leaves_when_it_walks() {
    let (mut rig, a, _) = pair();
    both(&mut rig);
    let mac = set(oxbow_abi::field::ETH_DST + 1, !0, 0x0c0d_0e0f);
    rig.rule((0, 0), 10, &[], &[mac, set(OUTPORT, !0, 2), output()], 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    let frame = udp4(1, 2, b"changed");
    let ran = rig.vif_run(a, &frame);
    assert_ne!(ran.data, frame);
    let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
    is_of(&seen, &ran.data);
}

#[test]
fn tunnels_are_told_with_the_inner_frame_both_ways() {
    let (here, there) = (v4(1), v4(2));
    let (mut rig, a, underlay) = remote(here, there, 0);
    both(&mut rig);
    let frame = udp4(1, 2, b"to another chassis");
    for kind in [SEEN_TUNNEL, SEEN_TUNNEL | SEEN_CACHED] {
        rig.vif_run(a, &frame);
        let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
        assert_eq!(core(&seen), (kind, 1, 0, 1, 9));
        is_of(&seen, &frame);
    }
    // And back: the outer headers are the other side's.
    let outer = chassis(underlay, there, here, 0);
    let inner = tagged(&udp6(1, 2, b"from another chassis"), 0x2005);
    let arrives = geneve(&outer, 9 << 16 | 1, &inner, [0xc0, 0], [0; 2], [0; 2], 0);
    for kind in [SEEN_DELIVER, SEEN_DELIVER | SEEN_CACHED] {
        assert_eq!(rig.underlay_run(underlay, &arrives).action, REDIRECT, "{:?}", rig.all_drops());
        let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
        // A verdict of a tunnel has both ports in its key.
        assert_eq!(core(&seen), (kind, a, 0, 9, 1));
        is_of(&seen, &inner);
    }
}

/// Listens to drops; what a test has changed of the state besides stays.
pub(crate) fn listen_for_drops(rig: &mut Rig, reason: Reason) {
    rig.listen(ALL);
    let version = u32::from(reason != Reason::NoPolicy);
    rig.state(State { version, flags: STATE_TELL_DROPS, fan_out_budget: 1000, ..State::default() });
}

/// One drop of this frame of port 1 was told, for this reason, and nothing else.
pub(crate) fn was_told(rig: &mut Rig, reason: Reason, frame: &[u8]) {
    let [seen] = rig.seen()[..] else { panic!("{reason:?}: one frame, one record") };
    assert_eq!((seen.kind & !SEEN_CACHED, seen.what), (SEEN_DROP, reason as u32), "{reason:?}");
    // Before there is a policy nobody knows whose frame it is.
    let (datapath, inport) = if reason == Reason::NoPolicy { (0, 0) } else { (SWITCH, 1) };
    assert_eq!((seen.datapath, seen.inport, seen.len as usize), (datapath, inport, frame.len()), "{reason:?}");
    assert_eq!(&seen.head[..seen.head_len as usize], frame, "{reason:?}");
}

/// The other reasons are in `forwarding`.
#[test]
fn drops_by_logical_flows_are_told_by_the_walk_and_by_the_memory_of_denied_flows() {
    let frame = udp4(1, 2, b"dropped");
    for reason in [Reason::LogicalFlow, Reason::TableClosed] {
        let (mut rig, a, _) = pair();
        both(&mut rig);
        rig.rule((0, 0), 1, &[], &[Op { code: op::DROP, a: reason as u32, ..Op::default() }], 9);
        for cached in [0, SEEN_CACHED, SEEN_CACHED] {
            rig.vif_run(a, &frame);
            let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
            assert_eq!(core(&seen), (SEEN_DROP | cached, reason as u32, 9, 1, 0));
            is_of(&seen, &frame);
        }
    }
    // The frame before went somewhere: nothing of that is told of this one, which a denial of the cache or no port at all stops.
    let (mut rig, a, _) = pair();
    both(&mut rig);
    rig.rule((0, 0), 5, &[], &[Op { code: op::DROP, a: Reason::LogicalFlow as u32, ..Op::default() }], 9);
    rig.rule((0, 0), 10, &[(L4, !0, 1 << 16 | 2)], &[set(OUTPORT, !0, 2), output()], 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    rig.vif_run(a, &udp4(3, 4, b"denied"));
    rig.vif_run(a, &udp4(1, 2, b"forwarded"));
    rig.seen();
    rig.vif_run(a, &udp4(3, 4, b"denied"));
    let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
    assert_eq!(core(&seen), (SEEN_DROP | SEEN_CACHED, Reason::LogicalFlow as u32, 9, 1, 0));
    let stranger = rig.device("c0", "c1");
    rig.vif_run(a, &udp4(1, 2, b"forwarded"));
    rig.seen();
    rig.vif_run(stranger, &frame);
    let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
    assert_eq!((core(&seen), seen.datapath), ((SEEN_DROP, Reason::NotProgrammed as u32, 0, 0, 0), 0));
}

#[test]
fn drops_of_tunnel_frames_are_told_with_the_inner_frame() {
    let (here, there) = (v4(1), v4(2));
    let (mut rig, _, underlay) = remote(here, there, 0);
    both(&mut rig);
    let inner = udp4(1, 2, b"for nobody");
    let arrives = geneve(&chassis(underlay, there, here, 0), 9 << 16 | 55, &inner, [0xc0, 0], [0; 2], [0; 2], 0);
    assert_eq!(rig.underlay_run(underlay, &arrives).action, SHOT);
    let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
    assert_eq!(core(&seen), (SEEN_DROP, Reason::PortUnknown as u32, 0, 9, 55));
    is_of(&seen, &inner);
    // Somebody who is no chassis: there is no inner frame that we would believe.
    let arrives = geneve(&chassis(underlay, v4(3), here, 0), 9 << 16 | 1, &inner, [0xc0, 0], [0; 2], [0; 2], 0);
    rig.underlay_run(underlay, &arrives);
    let [seen] = rig.seen()[..] else { panic!("one frame, one record") };
    assert_eq!((seen.kind, seen.what, seen.datapath), (SEEN_DROP, Reason::UnknownPeer as u32, 0));
    assert_eq!(seen.len as usize, arrives.len());
}

#[test]
fn every_copy_is_told() {
    let (mut rig, a, b) = pair();
    let c = rig.device("c0", "c1");
    rig.vif(c, 0, 3, 0);
    rig.local(3, c, 0);
    both(&mut rig);
    rig.group(0x8001, &[1, 2, 3]);
    rig.rule((0, 0), 10, &[], &[set(OUTPORT, !0, 0x8001), output()], 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    rig.vif_run(a, &udp4(1, 2, b"to all"));
    let mut told: Vec<_> = rig.seen().iter().map(core).collect();
    told.sort_unstable();
    let same_port = (SEEN_DROP, Reason::Loopback as u32, 0, 1, 1);
    let drop = *told.first().unwrap();
    assert_eq!((drop.0, drop.1, drop.3, drop.4), (same_port.0, same_port.1, same_port.3, same_port.4));
    assert_eq!(told[1..], [(SEEN_DELIVER, b, 0, 1, 2), (SEEN_DELIVER, c, 0, 1, 3)]);
}

#[test]
fn only_what_is_asked_for_is_told() {
    let frame = udp4(1, 2, b"filtered");
    let (forwarded, drops) = (STATE_TELL_FORWARDED, STATE_TELL_DROPS);
    let bit = |reason: Reason| 1u64 << reason as u32;
    // Flags, filter; is the delivery told, is the drop (of port 2, by a logical flow)?
    let cases = [
        (0, ALL, false, false),
        (forwarded, ALL, true, false),
        (drops, ALL, false, true),
        (forwarded | drops, ALL, true, true),
        (forwarded | drops, Listen { reasons: bit(Reason::LogicalFlow), ..ALL }, true, true),
        (forwarded | drops, Listen { reasons: !bit(Reason::LogicalFlow), ..ALL }, true, false),
        (forwarded | drops, Listen { datapath: SWITCH, ..ALL }, true, true),
        (forwarded | drops, Listen { datapath: SWITCH + 1, ..ALL }, false, false),
        (forwarded | drops, Listen { datapath: SWITCH, port: 1, ..ALL }, true, false),
        (forwarded | drops, Listen { datapath: SWITCH, port: 9, ..ALL }, false, false),
        (forwarded | drops, Listen { pace: 0, ..ALL }, false, false),
    ];
    let (mut rig, a, b) = pair();
    forward(&mut rig);
    let denied = Op { code: op::DROP, a: Reason::LogicalFlow as u32, ..Op::default() };
    rig.rule((0, 0), 20, &[(INPORT, !0, 2)], &[denied], 9);
    for ((flags, listen, delivery, drop), version) in cases.into_iter().zip(2..) {
        // Another version, so that each case walks first and is then answered by the caches.
        rig.listen(listen);
        rig.state(State { version, flags, fan_out_budget: 1000, ..State::default() });
        rig.guard(1, version);
        let before = rig.untold();
        for cached in [0, SEEN_CACHED] {
            rig.vif_run(a, &frame);
            rig.vif_run(b, &frame);
            let told: Vec<u32> = rig.seen().iter().map(|seen| seen.kind).collect();
            let both = [(delivery, SEEN_DELIVER), (drop, SEEN_DROP)];
            let wanted: Vec<u32> = both.iter().filter(|one| one.0).map(|one| one.1 | cached).collect();
            assert_eq!(told, wanted, "flags {flags}, {listen:?}");
        }
        // What a filter leaves out is not lost; what the pace leaves out is.
        assert_eq!(rig.untold() - before, if listen.pace == 0 { 4 } else { 0 }, "flags {flags}, {listen:?}");
    }
    // The receiver's port: known to the walk; to the cache only by its device.
    for (device, version) in [(0, 100), (b, 101)] {
        rig.listen(Listen { datapath: SWITCH, port: 2, device, ..ALL });
        rig.state(State { version, flags: forwarded, fan_out_budget: 1000, ..State::default() });
        rig.guard(1, version);
        rig.vif_run(a, &frame);
        assert_eq!(rig.seen().len(), 1);
        rig.vif_run(a, &frame);
        assert_eq!(rig.seen().len(), usize::from(device == b));
    }
}

#[test]
fn more_than_the_pace_is_counted_as_lost() {
    const PACE: u32 = 5;
    const FRAMES: u32 = 200;
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    tell(&mut rig, STATE_TELL_FORWARDED, Listen { pace: PACE, ..ALL });
    let start = std::time::Instant::now();
    rig.run("oxbow_vif", a, &udp4(1, 2, b"many"), FRAMES, 0);
    // Each CPU that it ran on may tell so many in each tenth of a second that it touched.
    let tenths = start.elapsed().as_millis() as u64 / 100 + 2;
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let told = rig.seen().len() as u64;
    assert!(told >= u64::from(PACE) && told <= u64::from(PACE) * tenths * cpus, "{told} told in {tenths} tenths");
    assert_eq!(told + rig.untold(), u64::from(FRAMES), "every frame is told or counted");
    // With a tenth of a second to come it goes on; until then each frame is counted.
    let before = rig.untold();
    let mut untold = 0;
    wait_until("a frame is told again", PATIENCE, || {
        rig.vif_run(a, &udp4(1, 2, b"later"));
        let told = rig.seen().len() as u64;
        untold += 1 - told;
        assert_eq!(rig.untold(), before + untold, "a frame is told or counted");
        Ok(Look::when(told == 1, || format!("{untold} frames untold")))
    })
    .unwrap();
}

#[test]
fn a_full_ring_loses_records_and_counts_them() {
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    both(&mut rig);
    let frame = udp4(1, 2, b"nobody reads");
    const FRAMES: u32 = 2000;
    assert_eq!(rig.run("oxbow_vif", a, &frame, FRAMES, 0).action, REDIRECT);
    let told = rig.seen();
    // A record has a header of eight bytes in the ring, which is 65,536 bytes large here.
    assert_eq!(told.len(), 65_536 / (size_of::<Seen>() + 8));
    assert_eq!(told.len() as u64 + rig.untold(), u64::from(FRAMES), "every frame is told or counted");
    told.iter().for_each(|seen| is_of(seen, &frame));
    // Read: there is room again, and nothing of what was forwarded was lost.
    rig.vif_run(a, &frame);
    assert_eq!(rig.seen().len(), 1);
    assert_eq!(rig.total(oxbow_abi::stats::total::VIF_TX), u64::from(FRAMES) + 1);
}
