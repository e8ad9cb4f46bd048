//! What a learning switch knows, over the lives of daemons: the table of addresses is older than each of them.
#![cfg(feature = "ring0")]
#![expect(clippy::unwrap_used, reason = "a test: a failed step is a failed test")]

mod cloud;

use cloud::{SWITCH, Switch, config, next, outport, small};
use oxbow_abi::learning::{FDB_CONFIRMED, Fdb, FdbKey, fdb_slot};
use oxbow_backend_bpf::{Backend, Limits};
use oxbow_pipeline::ir::{Act, Changes, Mac, Pipeline, PortKey};
use oxbow_testkit::netns::Netns;
use std::path::Path;

const CONFIRMED: Mac = Mac(0x02_00_00_00_00_01);
const DELETED: Mac = Mac(0x02_00_00_00_00_02);
const LEARNED: Mac = Mac(0x02_00_00_00_00_03);

fn key(mac: Mac) -> FdbKey {
    FdbKey { datapath: SWITCH.0, mac_hi: (mac.0 >> 32) as u32, mac_lo: mac.0 as u32 }
}

fn open() -> Backend {
    Backend::open(&config(Path::new("/sys/fs/bpf"), small()), Limits::default()).unwrap()
}

/// A switch with two ports here, and rows for these addresses.
fn switch(rows: &[(Mac, u32)]) -> (Switch, Changes) {
    let (mut switch, mut changes) = Switch::new(2);
    changes.rules_added.push(switch.rule(Pipeline::Ingress, 0, 0, &[], vec![next(Pipeline::Ingress, 1)]));
    changes.rules_added.push(switch.rule(Pipeline::Ingress, 1, 0, &[], vec![outport(2), Act::Output]));
    for port in [1, 2] {
        switch.local_port(port, 100 + port, &mut changes);
    }
    row(&mut switch, &mut changes, rows);
    switch.program.apply(&changes);
    (switch, changes)
}

fn row(switch: &mut Switch, changes: &mut Changes, rows: &[(Mac, u32)]) {
    for &(mac, port) in rows {
        switch.program.put_fdb((SWITCH, mac), Some(PortKey(port)));
        changes.fdb.push((SWITCH, mac));
    }
}

/// Where the kernel has an address, and whether by a row.
fn at(backend: &mut Backend, mac: Mac) -> Option<(u32, bool)> {
    let entry = backend.instance().maps.fdb.get(&key(mac)).unwrap();
    entry.map(|entry| (entry.port, entry.flags & FDB_CONFIRMED != 0))
}

/// As the programs do it.
fn learn(backend: &mut Backend, mac: Mac, port: u32) {
    backend.instance().maps.fdb.insert(&key(mac), &Fdb { port, flags: 0, seen: 1 }).unwrap();
}

#[test]
fn rows_that_went_while_no_daemon_listened_are_forgotten_and_what_was_learned_then_is_told() {
    let ns = Netns::with_own_sys("addresses").unwrap();
    ns.enter(|| {
        let (before, changes) = switch(&[(CONFIRMED, 1), (DELETED, 1)]);
        let mut first = open();
        first.commit(&before.program, &changes).unwrap();
        first.activate().unwrap();
        assert_eq!((at(&mut first, CONFIRMED), at(&mut first, DELETED)), (Some((1, true)), Some((1, true))));
        learn(&mut first, LEARNED, 2);
        drop(first);

        let (after, changes) = switch(&[(CONFIRMED, 2)]);
        let mut second = open();
        second.commit(&after.program, &changes).unwrap();
        assert_eq!(at(&mut second, DELETED), Some((1, true)), "until it forwards the first one's knowledge counts");
        second.activate().unwrap();
        let slot = fdb_slot(&key(LEARNED));
        let generation = second.instance().maps.fdb_generations.get(slot);
        second.forget_unconfirmed().unwrap();
        assert_eq!(at(&mut second, CONFIRMED), Some((2, true)));
        assert_eq!(at(&mut second, DELETED), None);
        assert_eq!(second.hints().unwrap(), [(key(LEARNED), 2)]);
        assert_eq!(second.instance().maps.fdb_generations.get(slot), generation + 1);
        second.remove_everything().unwrap();
    })
    .unwrap();
}

#[test]
fn a_row_outlives_what_was_learned_in_its_place() {
    let ns = Netns::with_own_sys("addresses").unwrap();
    ns.enter(|| {
        let (switch, changes) = switch(&[(CONFIRMED, 1)]);
        let mut backend = open();
        backend.commit(&switch.program, &changes).unwrap();
        backend.activate().unwrap();
        // The address was seen elsewhere once, and nobody was told.
        learn(&mut backend, CONFIRMED, 2);
        learn(&mut backend, LEARNED, 2);
        let slot = fdb_slot(&key(CONFIRMED));
        let generation = backend.instance().maps.fdb_generations.get(slot);
        assert_eq!(backend.age_fdb(0).unwrap(), 2);
        assert_eq!((at(&mut backend, CONFIRMED), at(&mut backend, LEARNED)), (Some((1, true)), None));
        assert!(backend.instance().maps.fdb_generations.get(slot) > generation);
        backend.remove_everything().unwrap();
    })
    .unwrap();
}
