//! What each CPU keeps of the verdicts: filled, used, asked again, given up, and counted.

use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use oxbow_abi::exact::{HITS, WAYS};
use oxbow_abi::field::ETH_DST;
use oxbow_abi::reason::Reason;
use oxbow_abi::stats::{State, total};

use crate::forwarding::{forward, pair, pair_with};
use crate::operations::learning;
use crate::packets::{MAC1, MAC2, udp4, udp6};
use crate::rig::{REDIRECT, Rig, SHOT, output, set};

/// CPUs that this thread may run on.
fn cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()).collect()
}

/// Everything that this thread runs runs on one CPU from here on.
fn on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// Walks, hits, and those of the hits that the shared cache answered.
fn paths(rig: &Rig) -> [u64; 3] {
    [total::WALK, total::CACHE_HIT, total::SHARED_HIT].map(|index| rig.total(index))
}

/// The only verdict's hits and bytes, and those that CPUs still hold.
fn counted(rig: &mut Rig) -> [(u64, u64); 2] {
    let verdicts = rig.verdicts();
    let [(_, verdict)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
    let held = rig.kept().iter().fold((0, 0), |(hits, bytes), entry| {
        assert_eq!(entry.created, verdict.created);
        (hits + u64::from(entry.hits), bytes + u64::from(entry.bytes))
    });
    [(verdict.hits, verdict.bytes), held]
}

#[test]
fn a_cpu_keeps_a_verdict_from_the_second_packet_on_and_asks_again_in_time() {
    on(cpus()[0]);
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    let frame = udp4(1, 2, b"hello");
    let len = frame.len() as u64;
    rig.vif_run(a, &frame);
    assert_eq!((paths(&rig), rig.kept().len()), ([1, 0, 0], 0), "one packet is no reason to keep anything");
    rig.vif_run(a, &frame);
    assert_eq!(paths(&rig), [1, 1, 1]);
    let kept = rig.kept();
    let [entry] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!((entry.key, entry.hits, entry.epoch), (rig.verdicts()[0].0, 0, 1));
    let third = rig.vif_run(a, &frame);
    assert_eq!((third.action, &third.data, paths(&rig)), (REDIRECT, &frame, [1, 2, 1]));
    assert_eq!(counted(&mut rig), [(1, len), (1, len)]);
    // Up to the packet that asks the shared verdict again, which then has all of them.
    for _ in 3..=HITS {
        rig.vif_run(a, &frame);
    }
    let asked = u64::from(HITS);
    assert_eq!(paths(&rig), [1, asked, 1]);
    rig.vif_run(a, &frame);
    assert_eq!(paths(&rig), [1, asked + 1, 2]);
    assert_eq!(counted(&mut rig), [(asked + 1, (asked + 1) * len), (0, 0)]);
    // One that is gone from the shared cache by then is made anew.
    rig.forget_verdicts();
    for _ in 0..=HITS {
        assert_eq!(rig.vif_run(a, &frame).action, REDIRECT);
    }
    assert_eq!((rig.total(total::WALK), rig.verdicts().len()), (2, 1));
}

#[test]
fn what_is_kept_says_all_that_the_verdict_says() {
    on(cpus()[0]);
    // New addresses and a tag.
    let (mut rig, a, b) = pair();
    rig.local(2, b, 9);
    let ops = [set(ETH_DST, 0xffff, 0x0600), set(ETH_DST + 1, !0, 7), set(oxbow_abi::field::OUTPORT, !0, 2), output()];
    rig.rule((0, 0), 10, &[], &ops, 1);
    rig.rule((1, 0), 10, &[], &[output()], 2);
    for frame in [udp4(1, 2, b"x"), udp6(1, 2, b"x")] {
        let walked = rig.vif_run(a, &frame);
        assert_eq!(walked.action, REDIRECT, "{:?}", rig.all_drops());
        assert_ne!(walked.data, frame);
        for _ in 0..3 {
            let again = rig.vif_run(a, &frame);
            assert_eq!((again.action, again.data), (REDIRECT, walked.data.clone()));
        }
    }
    assert_eq!(paths(&rig), [2, 6, 2]);
    // Outer headers, and the frame behind them.
    let (mut rig, a, underlay) = crate::tunnels::sender();
    let frame = udp4(1, 2, b"x");
    for (program, device, frame) in
        [("oxbow_vif", a, frame.clone()), ("oxbow_underlay", underlay, crate::tunnels::tunnelled(&frame))]
    {
        let walked = rig.run(program, device, &frame, 1, 0);
        assert_eq!(walked.action, REDIRECT, "{:?}", rig.all_drops());
        for _ in 0..3 {
            let again = rig.run(program, device, &frame, 1, 0);
            assert_eq!((again.action, again.data.len()), (REDIRECT, walked.data.len()));
            // But for the identification and the checksum that follows from it.
            assert_eq!(again.data[..18], walked.data[..18]);
            assert_eq!(again.data[26..], walked.data[26..]);
        }
    }
    assert_eq!(paths(&rig), [2, 6, 2]);
}

#[test]
fn a_new_epoch_asks_the_shared_verdict_and_a_raised_guard_walks() {
    on(cpus()[0]);
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    let frame = udp4(1, 2, b"");
    let run = |rig: &mut Rig, times: u32| (0..times).for_each(|_| assert_eq!(rig.vif_run(a, &frame).action, REDIRECT));
    run(&mut rig, 4);
    assert_eq!(paths(&rig), [1, 3, 1]);
    // A version alone is nothing that a verdict rests on.
    rig.state(State { version: 2, ..State::default() });
    run(&mut rig, 1);
    assert_eq!(paths(&rig), [1, 4, 1]);
    // A guard of somebody else's.
    rig.guard(50, 2);
    run(&mut rig, 2);
    assert_eq!(paths(&rig), [1, 6, 2], "asked once, and kept again");
    // Its own.
    wait_for_another_tick(&mut rig);
    rig.guard(11, 2);
    run(&mut rig, 1);
    assert_eq!(paths(&rig), [2, 6, 2]);
    // The hit that the place still held was the old verdict's: the new one does not get it.
    run(&mut rig, 1);
    assert_eq!((paths(&rig), counted(&mut rig)[0].0), ([2, 7, 3], 1));
}

/// Until a verdict made now has another [`oxbow_abi::verdict::Verdict::created`] than those that there are.
fn wait_for_another_tick(rig: &mut Rig) {
    let made = rig.verdicts().iter().map(|(_, verdict)| verdict.created).max().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
        if now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64 > made {
            return;
        }
        assert!(Instant::now() < deadline, "the coarse clock stands still at {made}");
        std::thread::yield_now();
    }
}

#[test]
fn an_address_that_moves_ends_what_rests_on_it() {
    on(cpus()[0]);
    let (mut rig, a, b) = learning();
    let there = udp4(1, 2, b"");
    let mut back = there.clone();
    back[..12].copy_from_slice(&[MAC1, MAC2].concat());
    rig.vif_run(a, &there);
    for _ in 0..5 {
        assert_eq!(rig.vif_run(b, &back).action, REDIRECT, "{:?}", rig.all_drops());
        rig.vif_run(a, &there);
    }
    let [_, hits, shared] = paths(&rig);
    assert!(hits > shared && shared == 2, "{hits} hits, {shared} of them shared");
    // Guest 2 sends from behind port 1.
    let mut moved = there.clone();
    moved[..12].copy_from_slice(&[[9; 6], MAC2].concat());
    rig.vif_run(a, &moved);
    assert_eq!(rig.vif_run(a, &there).action, SHOT);
    assert_eq!(rig.drops(Reason::Loopback), 1, "{:?}", rig.all_drops());
}

#[test]
fn flows_of_one_set_give_way_to_each_other_and_lose_no_hit() {
    on(cpus()[0]);
    let (mut rig, a, _) = pair_with(&[("OX_EXACT_SETS", 1)]);
    forward(&mut rig);
    let flows: Vec<Vec<u8>> = (0..WAYS as u16 + 4).map(|n| udp4(1000 + n, 2, b"")).collect();
    for frame in &flows {
        rig.vif_run(a, frame);
    }
    // As many as there are places are kept, the others are answered by the shared cache.
    for frame in &flows {
        rig.vif_run(a, frame);
    }
    assert!(rig.kept().len() == WAYS as usize, "{:?}", rig.kept());
    let first: Vec<_> = rig.kept().iter().map(|entry| entry.key).collect();
    // In use or not, in the end everybody gets a place for a while.
    let mut seen: std::collections::HashSet<_> = first.iter().copied().collect();
    let (mut rounds, mut sent) = (0u64, 0u64);
    while seen.len() < flows.len() {
        for frame in &flows {
            assert_eq!(rig.vif_run(a, frame).action, REDIRECT);
            sent += 1;
        }
        seen.extend(rig.kept().iter().map(|entry| entry.key));
        rounds += 1;
        assert!(rounds < 500, "{} of {} flows had a place", seen.len(), flows.len());
    }
    assert_eq!(rig.total(total::WALK), flows.len() as u64);
    assert!(rig.total(total::SHARED_HIT) < rig.total(total::CACHE_HIT), "most are answered here");
    let keys: std::collections::HashSet<_> = rig.kept().iter().map(|entry| entry.key).collect();
    assert_eq!(keys.len(), WAYS as usize, "no key has two places");
    let shared: u64 = rig.verdicts().iter().map(|(_, verdict)| verdict.hits).sum();
    let held: u64 = rig.kept().iter().map(|entry| u64::from(entry.hits)).sum();
    assert_eq!(shared + held, rig.total(total::CACHE_HIT), "after {sent} packets");
}

#[test]
fn every_cpu_keeps_its_own() {
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    let frame = udp4(1, 2, b"");
    let cpus = cpus();
    on(cpus[0]);
    rig.vif_run(a, &frame);
    for (n, cpu) in (1..).zip(&cpus) {
        on(*cpu);
        for _ in 0..3 {
            assert_eq!(rig.vif_run(a, &frame).action, REDIRECT);
        }
        assert_eq!((paths(&rig), rig.kept().len()), ([1, 3 * n, n], n as usize));
    }
    let n = cpus.len() as u64;
    assert_eq!(counted(&mut rig).map(|(hits, _)| hits), [n, 2 * n]);
}

#[test]
fn switched_off_every_hit_is_shared() {
    on(cpus()[0]);
    let (mut rig, a, _) = pair_with(&[("OX_EXACT_SETS", 0)]);
    forward(&mut rig);
    for _ in 0..4 {
        assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, REDIRECT);
    }
    assert_eq!((paths(&rig), rig.kept().len()), ([1, 3, 3], 0));
    assert_eq!(rig.verdicts()[0].1.hits, 3);
}

#[test]
fn listeners_are_told_of_what_is_kept_too() {
    on(cpus()[0]);
    let (mut rig, a, _) = pair();
    forward(&mut rig);
    let frame = udp4(1, 2, b"");
    for _ in 0..3 {
        rig.vif_run(a, &frame);
    }
    assert_eq!(paths(&rig), [1, 2, 1]);
    rig.state(State { version: 1, flags: oxbow_abi::monitor::STATE_TELL_FORWARDED, ..State::default() });
    for _ in 0..3 {
        rig.vif_run(a, &frame);
    }
    // The shared verdict is asked: it is what is told of, and it gets the hits.
    assert_eq!(paths(&rig), [1, 5, 4]);
    assert_eq!(counted(&mut rig).map(|(hits, _)| hits), [5, 0]);
}
