//! One version of policy per packet: a policy is swapped a thousand times under traffic and no packet sees a mix.
//!
//! Policy 1 and policy 2 each write their number into the source address in ingress and demand it in egress, where they write it into the
//! destination address as well. A packet that met the ingress of one and the egress of the other would match nothing and be dropped, or come
//! out with two different numbers. Half of the packets are of one flow (verdict cache), half of ever new ones (walk).
#![cfg(feature = "ring0")]
#![expect(clippy::unwrap_used, reason = "a test: a failed step is a failed test")]

mod cloud;

use cloud::{Switch, config, next, outport, small};
use oxbow_backend_bpf::kernel::Role;
use oxbow_backend_bpf::{Backend, Limits};
use oxbow_pipeline::ir::{Act, Changes, Field, Pipeline, Rule, Slice};
use oxbow_testkit::frames::Frames;
use oxbow_testkit::link::veth;
use oxbow_testkit::netns::Netns;
use oxbow_testkit::wait::stretched;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const SWAPS: u32 = 1000;

/// Packets that may be on their way: far fewer than the reader's socket holds, so that a slow reader loses none.
const WINDOW: u64 = 10_000;
/// Upper bytes of the addresses that carry the policy's number in their last byte.
const SOURCE: u128 = 0x02_00_00_00_0a_00;
const DESTINATION: u128 = 0x02_00_00_00_0b_00;

fn write(field: Field, value: u128) -> Act {
    Act::Set { dst: Slice { field, offset: 0 }, width: 48, value }
}

/// The rules of policy `n`.
fn policy(switch: &mut Switch, n: u128) -> Vec<Arc<Rule>> {
    vec![
        switch.rule(Pipeline::Ingress, 0, 10, &[], vec![write(Field::EthSrc, SOURCE + n), next(Pipeline::Ingress, 1)]),
        switch.rule(Pipeline::Ingress, 1, 10, &[(Field::EthSrc, SOURCE + n)], vec![outport(2), Act::Output]),
        switch.rule(
            Pipeline::Egress,
            0,
            10,
            &[(Field::EthSrc, SOURCE + n)],
            vec![write(Field::EthDst, DESTINATION + n), Act::Output],
        ),
    ]
}

/// A UDP datagram of the given source port.
fn frame(port: u16) -> Vec<u8> {
    let mut frame = vec![0u8; 64];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0]);
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 50, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[36..42].copy_from_slice(&[0x12, 0xb7, 0, 30, 0, 0]);
    frame
}

#[test]
fn a_thousand_swaps_under_traffic_and_no_packet_sees_a_mix() {
    let hv = Netns::with_own_sys("hv").unwrap();
    let (guest1, guest2) = (Netns::new("g1").unwrap(), Netns::new("g2").unwrap());
    veth(&hv, "v1", &guest1, "e1").unwrap();
    veth(&hv, "v2", &guest2, "e2").unwrap();
    let (sender, receiver) = (Frames::open(&guest1, "e1").unwrap(), Frames::open(&guest2, "e2").unwrap());

    let (mut backend, mut switch, mut current) = hv
        .enter(|| {
            let index = |name| nix::net::if_::if_nametoindex(name).unwrap();
            let mut backend = Backend::open(&config(Path::new("/sys/fs/bpf"), small()), Limits::default()).unwrap();
            let (mut switch, mut changes) = Switch::new(2);
            let rules = policy(&mut switch, 1);
            changes.rules_added = rules.clone();
            switch.local_port(1, index("v1"), &mut changes);
            switch.local_port(2, index("v2"), &mut changes);
            switch.program.apply(&changes);
            backend.instance().attach("v1", index("v1"), Role::Vif).unwrap();
            backend.instance().attach("v2", index("v2"), Role::Vif).unwrap();
            backend.commit(&switch.program, &changes).unwrap();
            backend.activate().unwrap();
            (backend, switch, rules)
        })
        .unwrap();

    let stop = AtomicBool::new(false);
    let (sent, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
    let (mut received, mut of_policy) = (0u64, [0u64; 2]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut port = 1024u16;
            while !stop.load(Ordering::Relaxed) {
                if sent.load(Ordering::Relaxed).saturating_sub(arrived.load(Ordering::Acquire)) > WINDOW {
                    std::thread::yield_now();
                    continue;
                }
                sender.send(&frame(1000)).unwrap();
                port = if port == u16::MAX { 1024 } else { port + 1 };
                sender.send(&frame(port)).unwrap();
                sent.fetch_add(2, Ordering::Release);
            }
        });
        let reader = scope.spawn(|| {
            let (mut received, mut of_policy) = (0u64, [0u64; 2]);
            loop {
                match receiver.receive(stretched(Duration::from_millis(500))).unwrap().map(|received| received.frame) {
                    Some(frame) if frame.len() == 64 && frame[12..14] == [8, 0] => {
                        let (dst, src) = (frame[5], frame[11]);
                        assert_eq!((dst, frame[4], frame[10]), (src, 0x0b, 0x0a), "a packet saw a mix: {frame:02x?}");
                        of_policy[usize::from(src - 1)] += 1;
                        received += 1;
                        arrived.store(received, Ordering::Release);
                    }
                    Some(_) => {}
                    None if stop.load(Ordering::Acquire) => return (received, of_policy),
                    None => {}
                }
            }
        });
        for n in 0..SWAPS {
            let rules = policy(&mut switch, u128::from(n % 2 == 0) + 1);
            let changes = Changes {
                rules_removed: std::mem::replace(&mut current, rules.clone()),
                rules_added: rules,
                ..Changes::default()
            };
            switch.program.apply(&changes);
            backend.commit(&switch.program, &changes).unwrap();
        }
        stop.store(true, Ordering::Release);
        (received, of_policy) = reader.join().unwrap();
    });
    let drops = backend.instance().counters.drops().unwrap();
    let dropped: u64 = drops.iter().map(|d| d.count.packets).sum();
    let sent = sent.load(Ordering::Acquire);
    println!("{SWAPS} swaps, {sent} packets sent, {received} received, by policy {of_policy:?}, drops {drops:?}");
    // Other traffic of the two guests (their kernels announce themselves over IPv6) is dropped too: only our packets may not be.
    assert_eq!(received, sent, "every packet arrives: {drops:?} ({dropped} dropped in all)");
    assert!(of_policy.iter().all(|&n| n > 0), "both policies were met: {of_policy:?}");
    // The first commit had a version for the policy and one for the ports.
    assert_eq!(backend.version(), SWAPS + 2);
    hv.enter(|| backend.remove_everything().unwrap()).unwrap();
}
