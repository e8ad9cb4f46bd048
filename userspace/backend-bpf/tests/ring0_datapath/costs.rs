//! What a packet costs: nanoseconds under BPF_PROG_TEST_RUN, against the empty program in the same minute. `cargo test … costs -- --nocapture` prints them.
//! What is asserted is that the packets measured take the path they are measured for; never a time.

use oxbow_abi::field::{ETH_SRC, ETH_TYPE, INPORT, OUTPORT};
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
fn what_a_cached_packet_costs() {
    let empty = Empty::load();
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    let (v4, v6) = (udp4(1, 2, &[0; 22]), udp6(1, 2, &[0; 22]));
    for frame in [&v4, &v6] {
        assert_eq!(rig.vif_run(a, frame).action, REDIRECT);
    }
    let (mut base, mut hit4, mut hit6) = (f64::MAX, f64::MAX, f64::MAX);
    // Interleaved; the least of each is what it costs without the rest of the machine.
    for _ in 0..ROUNDS {
        base = base.min(empty.ns(&v4, REPEAT));
        hit4 = hit4.min(rig.run("oxbow_vif", a, &v4, REPEAT, 0).ns);
        hit6 = hit6.min(rig.run("oxbow_vif", a, &v6, REPEAT, 0).ns);
    }
    println!(
        "empty {base} ns, cached IPv4 {hit4} ns ({:.2}x), cached IPv6 {hit6} ns ({:.2}x)",
        hit4 / base,
        hit6 / base
    );
    assert_eq!(rig.total(total::WALK), 2, "everything else hit");
}

/// A switch as ovn-northd makes it, when the tables that only say `next` are skipped: so many masks are looked at in each table, and the last one
/// matches. Ingress: port security twice, responders, destination look-up, unknown destinations; egress: port security twice.
const INGRESS: [u8; 5] = [3, 2, 4, 4, 2];
const EGRESS: [u8; 2] = [2, 2];

fn switch(rig: &mut Rig) {
    for (pipeline, tables) in [(0, INGRESS.as_slice()), (1, EGRESS.as_slice())] {
        for (stage, &masks) in (0u8..).zip(tables) {
            for mask in 1..masks {
                let never = [(ETH_SRC, 0xffff, 0x3fff), (ETH_SRC + 1, !0 << mask, 0)];
                rig.rule((pipeline, stage), 100 - u16::from(mask), &never, &[], 0);
            }
            let last = usize::from(stage) + 1 == tables.len();
            let ops = match (pipeline, last) {
                (0, true) => vec![set(OUTPORT, !0, 2), output()],
                (_, true) => vec![output()],
                _ => vec![set(0, !0, stage.into()), next(pipeline, u32::from(stage) + 1)],
            };
            let matches = [(INPORT, !0, 1), (ETH_TYPE, 0xffff, 0x0800)];
            rig.rule((pipeline, stage), 10, &matches, &ops, 10 + u32::from(pipeline) * 10 + u32::from(stage));
        }
    }
}

#[test]
fn what_a_first_packet_costs() {
    let (mut rig, a, _) = pair();
    switch(&mut rig);
    let frame = udp4(1, 2, &[0; 22]);
    assert_eq!(rig.vif_run(a, &frame).action, REDIRECT, "{:?}", rig.all_drops());
    let hit = least(|| rig.run("oxbow_vif", a, &frame, REPEAT, 0).ns);
    // A guard that is ahead of the version makes every packet a first one: it walks, and its verdict replaces the stale one.
    rig.guard(1, 1000);
    let mut first = f64::MAX;
    for _ in 0..ROUNDS {
        first = first.min(rig.run("oxbow_vif", a, &frame, REPEAT / 20, 0).ns);
    }
    println!(
        "cached {hit} ns, first packet through tables of {INGRESS:?} and {EGRESS:?} masks {first} ns ({:.1}x)",
        first / hit
    );
    assert!(rig.total(total::WALK) > u64::from(REPEAT / 20));
}

#[test]
fn what_tunnels_and_groups_cost() {
    let empty = Empty::load();
    let frame = udp4(1, 2, &[0; 22]);
    let base = least(|| empty.ns(&frame, REPEAT));
    let (mut rig, a, underlay) = crate::tunnels::sender();
    assert_eq!(rig.vif_run(a, &frame).action, REDIRECT, "{:?}", rig.all_drops());
    // BPF_PROG_TEST_RUN repeats on one buffer, which is encapsulated or stripped after the first run: each run is a system call of its own, and
    // the kernel's figure for it includes the first touch of everything.
    let each = |rig: &mut Rig, program: &str, device: u32, frame: &[u8]| {
        (0..2000).map(|_| rig.run(program, device, frame, 1, 0).ns).fold(f64::MAX, f64::min)
    };
    let encapsulated = each(&mut rig, "oxbow_vif", a, &frame);
    let stripped = each(&mut rig, "oxbow_underlay", underlay, &crate::tunnels::tunnelled(&frame));
    let passed = least(|| rig.run("oxbow_underlay", underlay, &frame, REPEAT, 0).ns);
    let plain = each(&mut rig, "oxbow_underlay", underlay, &frame);
    println!("single runs: the host's frame {plain} ns, Geneve sent {encapsulated} ns, received {stripped} ns");
    println!("empty {base} ns, the host's frame on the underlay {passed} ns");
    assert_eq!(rig.total(total::WALK), 2, "{:?}", rig.all_drops());
}
