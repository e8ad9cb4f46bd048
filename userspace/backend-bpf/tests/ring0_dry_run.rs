//! A dry run of the programs in force: it tells every step, and nothing that anybody else could notice happens.
#![cfg(feature = "ring0")]
#![expect(clippy::unwrap_used, reason = "a test: a failed step is a failed test")]

mod cloud;

use cloud::{SWITCH, Switch, config, next, outport, small};
use oxbow_abi::learning::{FDB_GENERATIONS, Fdb, FdbKey};
use oxbow_abi::monitor::{Listen, SEEN_DELIVER, SEEN_DROP, SEEN_FLOW, STATE_TELL_DROPS, STATE_TELL_FORWARDED};
use oxbow_abi::reason::Reason;
use oxbow_abi::stats::{Counter, total};
use oxbow_abi::topology::{Address, CHASSIS_RESOLVED, Chassis};
use oxbow_abi::verdict::{Denied, Verdict, VerdictKey};
use oxbow_backend_bpf::kernel::{Events, Monitor, Role};
use oxbow_backend_bpf::{Backend, Limits};
use oxbow_pipeline::ir::{
    Act, ChassisId, Field, Group, GroupKey, Location, LogicalPort, Pipeline, PortKey, PortKind, Slice,
};
use oxbow_testkit::frames::Frames;
use oxbow_testkit::netns::Netns;
use oxbow_testkit::wait::{Look, PATIENCE, wait_until};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const FLOOD: u32 = 0x8001;
/// What `lookup_fdb` found.
const KNOWN: Slice = Slice { field: Field::XxReg0, offset: 0 };
/// Sent to this address a frame is dropped, to that one delivered, to the third tunnelled; any other is flooded.
const DENIED: u128 = 0x0200_0000_00dd;
const SECOND: u128 = 0x0200_0000_0002;
const FAR: u128 = 0x0200_0000_0009;

fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

fn frame(to: u128, from: u8) -> Vec<u8> {
    let mut frame = to.to_be_bytes()[10..].to_vec();
    frame.extend([2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    frame.extend([from; 46]);
    frame
}

/// A learning switch of ports 1 and 2 on devices `v0` and `w0`, port 9 on another chassis, a flood group.
fn learning(switch: &mut Switch, changes: &mut oxbow_pipeline::ir::Changes) {
    for (port, device) in [(1, "v0"), (2, "w0")] {
        switch.local_port(port, ifindex(device), changes);
    }
    let far = LogicalPort {
        datapath: SWITCH,
        key: PortKey(9),
        name: "far".into(),
        kind: PortKind::Vif,
        location: Location::Remote { chassis: ChassisId(1) },
        additional: Vec::new(),
        port_security: Vec::new(),
    };
    switch.program.put_port((SWITCH, PortKey(9)), Some(Arc::new(far)));
    changes.ports.push((SWITCH, PortKey(9)));
    let group = Group {
        datapath: SWITCH,
        key: GroupKey(FLOOD),
        name: "flood".into(),
        members: [1, 2, 9].map(PortKey).to_vec(),
    };
    switch.program.put_group((SWITCH, GroupKey(FLOOD)), Some(Arc::new(group)));
    changes.groups.push((SWITCH, GroupKey(FLOOD)));
    let lookup = Act::LookupFdb { dst: KNOWN, port: Field::InPort, mac: Field::EthSrc };
    let learn = Act::PutFdb { port: Field::InPort, mac: Field::EthSrc };
    let to = |port| vec![outport(port), Act::Output];
    for (stage, priority, dims, acts) in [
        (0, 0, vec![], vec![lookup, next(Pipeline::Ingress, 1)]),
        (1, 10, vec![(Field::XxReg0, 0)], vec![learn, next(Pipeline::Ingress, 2)]),
        (1, 0, vec![], vec![next(Pipeline::Ingress, 2)]),
        (2, 10, vec![(Field::EthDst, DENIED)], vec![Act::Drop(oxbow_pipeline::ir::Cause::LogicalFlow)]),
        (2, 10, vec![(Field::EthDst, SECOND)], to(2)),
        (2, 10, vec![(Field::EthDst, FAR)], to(9)),
        (2, 0, vec![], to(FLOOD)),
    ] {
        let rule = switch.rule(Pipeline::Ingress, stage, priority, &dims, acts);
        changes.rules_added.push(rule);
    }
    let last = switch.rule(Pipeline::Egress, 0, 0, &[], vec![Act::Output]);
    changes.rules_added.push(last);
    switch.program.apply(changes);
}

/// All that the programs in force change.
#[derive(Debug, PartialEq)]
struct State {
    verdicts: Vec<(VerdictKey, Verdict)>,
    denied: Vec<(VerdictKey, Denied)>,
    fdb: Vec<(FdbKey, Fdb)>,
    generations: Vec<u32>,
    drops: Vec<(u32, Counter)>,
    totals: Vec<Counter>,
    flows: Vec<Counter>,
    untold: u64,
}

impl State {
    fn of(backend: &mut Backend, monitor: &Monitor) -> State {
        let instance = backend.instance();
        let maps = &instance.maps;
        let mut fdb = maps.fdb.snapshot().unwrap();
        fdb.sort_by_key(|(key, _)| (key.datapath, key.mac_hi, key.mac_lo));
        State {
            verdicts: maps.verdicts.snapshot().unwrap(),
            denied: maps.denied.snapshot().unwrap(),
            fdb,
            generations: (0..FDB_GENERATIONS).map(|slot| maps.fdb_generations.get(slot)).collect(),
            drops: instance.counters.drops().unwrap().iter().map(|drop| (drop.reason as u32, drop.count)).collect(),
            totals: (0..total::COUNT).map(|index| instance.counters.total(index).unwrap()).collect(),
            flows: (0..64).map(|index| instance.counters.lflow(index).unwrap()).collect(),
            untold: monitor.lost().unwrap(),
        }
    }
}

/// Everything that could show an effect.
struct Observer {
    monitor: Monitor,
    events: Events,
    wires: Vec<Frames>,
}

impl Observer {
    /// What was told or left since the last call: records, events, frames of ours.
    fn noticed(&mut self) -> (usize, usize, usize) {
        let told = std::iter::from_fn(|| self.monitor.next()).count();
        let events = std::iter::from_fn(|| self.events.next()).count();
        let mut frames = 0;
        for wire in &self.wires {
            while let Some(got) = wire.receive(Duration::from_millis(50)).unwrap() {
                // Geneve has our frame inside.
                frames += usize::from(got.frame.windows(2).any(|pair| pair == [0x88, 0xb5]));
            }
        }
        (told, events, frames)
    }
}

fn address(last: u8) -> Address {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&[192, 0, 2, last]);
    Address { bytes, family: 4 }
}

fn chassis(underlay: u32) -> Chassis {
    let (local, remote, mac) = (address(1), address(2), [2, 0xaa, 0, 0, 0, 2, 2, 0xaa, 0, 0, 0, 1]);
    let flags = CHASSIS_RESOLVED;
    Chassis { flags, ifindex: underlay, local, remote, mac, mtu: 1500, ttl: 64, tos: 0, guard: 0 }
}

/// The frame as chassis 1 sends it to this one, for port `outport`.
fn from_far(inner: &[u8], outport: u32) -> Vec<u8> {
    let datagram = (8 + 16 + inner.len()) as u16;
    let mut frame = vec![2, 0xaa, 0, 0, 0, 1, 2, 0xaa, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((20 + datagram).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1, 0xc0, 0, 0x17, 0xc1]);
    frame.extend(datagram.to_be_bytes());
    frame.extend([0, 0, 2, 0x40, 0x65, 0x58, 0, 0, SWITCH.0 as u8, 0, 1, 2, 0x80, 1]);
    frame.extend((9 << 16 | outport).to_be_bytes());
    frame.extend(inner);
    frame
}

#[test]
fn a_dry_run_tells_every_step_and_changes_nothing() {
    let ns = Netns::with_own_sys("dry").unwrap();
    // Devices that say nothing by themselves: no address, no neighbor discovery.
    for scope in ["all", "default"] {
        ns.run("sysctl", &["-qw", &format!("net.ipv6.conf.{scope}.disable_ipv6=1")]).unwrap();
    }
    for name in ["v", "w", "u"] {
        ns.ip(&format!("link add {name}0 type veth peer name {name}1")).unwrap();
        ns.ip(&format!("link set {name}0 up")).unwrap();
        ns.ip(&format!("link set {name}1 up")).unwrap();
        // Until the kernel has noticed the carrier it drops what is sent to a device.
        wait_until(&format!("{name}0 is up"), PATIENCE, || {
            let state = ns.run("cat", &[&format!("/sys/class/net/{name}0/operstate")])?;
            Ok(Look::when(state.trim() == "up", || state))
        })
        .unwrap();
    }
    let wires: Vec<Frames> = ["v1", "w1", "u1"].iter().map(|device| Frames::open(&ns, device).unwrap()).collect();
    let sender = Frames::open(&ns, "v1").unwrap();
    ns.enter(|| {
        let mut backend = Backend::open(&config(Path::new("/sys/fs/bpf"), small()), Limits::default()).unwrap();
        let (mut switch, mut changes) = Switch::new(3);
        learning(&mut switch, &mut changes);
        let (v0, u0) = (ifindex("v0"), ifindex("u0"));
        backend.set_chassis(ChassisId(1), Some(&chassis(u0))).unwrap();
        backend.instance().attach("v0", v0, Role::Vif).unwrap();
        backend.commit(&switch.program, &changes).unwrap();
        backend.activate().unwrap();
        let mut observer = Observer {
            monitor: backend.instance().take_monitor().unwrap(),
            events: backend.instance().take_events().unwrap(),
            wires,
        };
        // Somebody listens to everything.
        let all = Listen { reasons: u64::MAX, pace: u32::MAX, ..Listen::default() };
        observer.monitor.set(&all).unwrap();
        backend.tell(STATE_TELL_DROPS | STATE_TELL_FORWARDED).unwrap();
        let mut dry = backend.instance().dry_run().unwrap();
        observer.noticed();
        let before = State::of(&mut backend, &observer.monitor);

        // What each frame comes to: flows walked, ends (kind, what), cached or not.
        let run = |dry: &mut oxbow_backend_bpf::kernel::DryRun, role, device, frame: &[u8]| {
            let ran = dry.run(role, device, frame).unwrap();
            assert_eq!(ran.lost, 0);
            let flows = ran.steps.iter().filter(|seen| seen.kind & 0xff == SEEN_FLOW).count();
            let ends: Vec<(u32, u32, u32)> = ran
                .steps
                .iter()
                .filter(|seen| seen.kind & 0xff != SEEN_FLOW)
                .map(|seen| (seen.kind, seen.what, seen.outport))
                .collect();
            (flows, ends, ran.verdict.is_some(), ran.denied.is_some())
        };
        // An address that would be learned; every run is the first one.
        for _ in 0..2 {
            let (flows, ends, verdict, denied) = run(&mut dry, Role::Vif, v0, &frame(0xffff_ffff_ffff, 7));
            assert_eq!((flows, verdict, denied), (4, false, false), "{ends:?}");
            let kinds: Vec<(u32, u32)> = ends.iter().map(|(kind, _, outport)| (*kind, *outport)).collect();
            assert!(kinds.contains(&(SEEN_DROP, 1)) && kinds.contains(&(SEEN_DELIVER, 2)), "{ends:?}");
            assert!(ends.contains(&(oxbow_abi::monitor::SEEN_TUNNEL, 1, FLOOD)), "{ends:?}");
        }
        let (_, ends, _, denied) = run(&mut dry, Role::Vif, v0, &frame(DENIED, 7));
        assert_eq!((ends.as_slice(), denied), ([(SEEN_DROP, Reason::LogicalFlow as u32, 0)].as_slice(), false));
        let (_, ends, ..) = run(&mut dry, Role::Vif, v0, &frame(SECOND, 7));
        assert_eq!(ends, [(SEEN_DELIVER, ifindex("w0"), 2)]);
        // From the other chassis.
        let (flows, ends, verdict, _) = run(&mut dry, Role::Underlay, u0, &from_far(&frame(SECOND, 9), 2));
        assert_eq!((flows, ends.as_slice(), verdict), (1, [(SEEN_DELIVER, ifindex("w0"), 2)].as_slice(), true));
        // Not ours, not programmed.
        let (_, ends, ..) = run(&mut dry, Role::Vif, ifindex("w1"), &frame(SECOND, 7));
        assert_eq!(ends, [(SEEN_DROP, Reason::NotProgrammed as u32, 0)]);
        assert_eq!(observer.noticed(), (0, 0, 0), "nothing was told, learned or sent");
        let after = State::of(&mut backend, &observer.monitor);
        assert_eq!(before, after);

        // The same by real frames is noticed in every one of these ways, so the silence above means something.
        sender.send(&frame(0xffff_ffff_ffff, 7)).unwrap();
        sender.send(&frame(DENIED, 7)).unwrap();
        sender.send(&frame(DENIED, 7)).unwrap();
        sender.send(&frame(SECOND, 7)).unwrap();
        let (told, events, frames) = observer.noticed();
        assert!(told >= 6 && events >= 1 && frames >= 3, "{told} told, {events} events, {frames} frames");
        let real = State::of(&mut backend, &observer.monitor);
        assert!(real.fdb.len() == before.fdb.len() + 1 && real.generations != before.generations, "learned");
        assert!(real.drops != before.drops && real.totals != before.totals && real.flows != before.flows, "counted");
        assert!(real.denied.len() == 1 && real.verdicts.len() == 1, "cached: {:?} {:?}", real.denied, real.verdicts);
        // Dry runs of what is cached for real: still walked, and hits are not counted.
        let (flows, ends, verdict, _) = run(&mut dry, Role::Vif, v0, &frame(SECOND, 7));
        assert_eq!((flows, ends.as_slice(), verdict), (4, [(SEEN_DELIVER, ifindex("w0"), 2)].as_slice(), true));
        let (_, ends, _, denied) = run(&mut dry, Role::Vif, v0, &frame(DENIED, 7));
        assert_eq!((ends.as_slice(), denied), ([(SEEN_DROP, Reason::LogicalFlow as u32, 0)].as_slice(), true));
        // The address has moved: it would be learned anew.
        assert_eq!(State::of(&mut backend, &observer.monitor), real);
        assert_eq!(observer.noticed(), (0, 0, 0));
        backend.remove_everything().unwrap();
    })
    .unwrap();
}
