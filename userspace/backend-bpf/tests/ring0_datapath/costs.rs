//! What a packet costs: nanoseconds under BPF_PROG_TEST_RUN, against the empty program in the same minute. `cargo test … costs -- --nocapture` prints them.

use oxbow_abi::field::{ETH_DST, ETH_SRC, ETH_TYPE, INPORT, IP_DST, OUTPORT};
use oxbow_abi::stats::total;

use crate::empty::Empty;
use crate::forwarding::{forward, pair};
use crate::packets::{udp4, udp6};
use crate::rig::{REDIRECT, Rig, next, output, set};

/// Runs in a measurement, and measurements of which the least counts (the machine has other things to do).
const REPEAT: u32 = 200_000;
const ROUNDS: u32 = 7;

fn least(mut measure: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| measure()).fold(f64::MAX, f64::min)
}

#[test]
fn a_cached_packet_costs_at_most_four_times_the_empty_program() {
    let empty = Empty::load();
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    let (v4, v6) = (udp4(1, 2, &[0; 22]), udp6(1, 2, &[0; 22]));
    for frame in [&v4, &v6] {
        assert_eq!(rig.vif_run(a, frame).action, REDIRECT);
    }
    let (mut base, mut hit4, mut hit6) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        base = base.min(empty.ns(&v4, REPEAT));
        hit4 = hit4.min(rig.run("oxbow_vif", a, &v4, REPEAT, 0).ns);
        hit6 = hit6.min(rig.run("oxbow_vif", a, &v6, REPEAT, 0).ns);
    }
    println!("empty {base} ns, cached IPv4 {hit4} ns ({:.2}x), cached IPv6 {hit6} ns ({:.2}x)", hit4 / base, hit6 / base);
    assert_eq!(rig.total(total::WALK), 2, "everything else hit");
    assert!(hit4 <= 4.0 * base, "a cached packet costs {hit4} ns, the empty program {base} ns");
}

/// A switch as ovn-northd makes it: the tables that are left when those that only say `next` are skipped.
fn switch(rig: &mut Rig, ingress: u32, egress: u32, masks: u16) {
    for stage in 0..ingress {
        for mask in 0..masks {
            // All masks are looked at: the rule that matches has the lowest priority.
            let never = [(ETH_SRC, 0xffff, 0x3fff), (ETH_SRC + 1, !0 << mask, 0)];
            rig.rule((0, stage as u8), 100 - mask, &never, &[next(0, stage + 1)], 0);
        }
        let last = stage + 1 == ingress;
        let ops = if last { vec![set(OUTPORT, !0, 2), output()] } else { vec![set(0, !0, stage), next(0, stage + 1)] };
        rig.rule((0, stage as u8), 10, &[(INPORT, !0, 1), (ETH_TYPE, 0xffff, 0x0800)], &ops, 10 + stage);
    }
    for stage in 0..egress {
        for mask in 0..masks {
            rig.rule((1, stage as u8), 100 - mask, &[(ETH_DST + 1, !0 << mask, 0xffff_0000), (IP_DST, !0, 1)], &[], 0);
        }
        let ops = if stage + 1 == egress { vec![output()] } else { vec![next(1, stage + 1)] };
        rig.rule((1, stage as u8), 10, &[(OUTPORT, !0, 2)], &ops, 30 + stage);
    }
}

#[test]
fn a_first_packet_costs_at_most_twenty_times_a_cached_one() {
    let (mut rig, a, _) = pair();
    // Port security, FDB, ARP responder, hints, destination look-up; egress: port security, and what is left.
    switch(&mut rig, 8, 4, 2);
    let frame = udp4(1, 2, &[0; 22]);
    assert_eq!(rig.vif_run(a, &frame).action, REDIRECT, "{:?}", rig.all_drops());
    let hit = least(|| rig.run("oxbow_vif", a, &frame, REPEAT, 0).ns);
    // A guard that is ahead of the version makes every packet a first one: it walks, and its verdict replaces the stale one.
    rig.guard(1, 1000);
    let first = least(|| rig.run("oxbow_vif", a, &frame, REPEAT / 20, 0).ns);
    println!("cached {hit} ns, first packet through 8 + 4 tables of 3 masks {first} ns ({:.1}x)", first / hit);
    assert!(rig.total(total::WALK) > u64::from(REPEAT / 20));
    assert!(first <= 20.0 * hit, "a first packet costs {first} ns, a cached one {hit} ns");
}
