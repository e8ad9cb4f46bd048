//! The ways to other chassis, and from whom tunnel frames are taken.

use oxbow_abi::topology::{Address, Chassis, PeerKey};
use oxbow_pipeline::ir::ChassisId;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// What the kernel was told of other chassis. Several may be at one address: one that comes in another's place, or that offers another
/// encapsulation there. What lets their frames in is there as long as one of them is.
#[derive(Default)]
pub(super) struct Reaches {
    ways: BTreeMap<ChassisId, Chassis>,
    users: FxHashMap<PeerKey, BTreeSet<ChassisId>>,
    /// What the map refused.
    unplaced: Vec<PeerKey>,
}

impl Reaches {
    /// The way to a chassis.
    pub(super) fn get(&self, id: ChassisId) -> Option<Chassis> {
        self.ways.get(&id).copied()
    }

    /// How many chassis there are ways to.
    pub(super) fn len(&self) -> usize {
        self.ways.len()
    }

    /// The map has refused what [`Reaches::set`] said of these addresses: it is said again with the next way.
    pub(super) fn unplaced(&mut self, key: PeerKey) {
        self.unplaced.push(key);
    }

    /// Whether there is something to be said again.
    pub(super) fn is_unplaced(&self) -> bool {
        !self.unplaced.is_empty()
    }

    /// Takes a way, and returns what has to be in map `OX_PEERS` at the addresses that are concerned, `None` = nothing.
    pub(super) fn set(&mut self, id: ChassisId, way: Option<Chassis>) -> Vec<(PeerKey, Option<u32>)> {
        let old = match way {
            Some(way) => self.ways.insert(id, way),
            None => self.ways.remove(&id),
        };
        for key in old.iter().flat_map(keys) {
            self.users.entry(key).or_default().remove(&id);
        }
        for key in way.iter().flat_map(keys) {
            self.users.entry(key).or_default().insert(id);
        }
        let mut entries = Vec::new();
        let again = std::mem::take(&mut self.unplaced);
        for key in old.iter().chain(&way).flat_map(keys).chain(again) {
            let first = self.users.get(&key).and_then(|users| users.first());
            // The entry without a remote address names nobody.
            let value = first.map(|first| if key.remote == Address::default() { 0 } else { first.0 });
            if first.is_none() {
                self.users.remove(&key);
            }
            entries.push((key, value));
        }
        entries
    }
}

/// The entry that lets a chassis' frames in, and the one that says that the local address is ours: what comes to it from anybody else is
/// dropped, not the host's.
fn keys(chassis: &Chassis) -> [PeerKey; 2] {
    let local = chassis.local;
    [PeerKey { local, remote: chassis.remote }, PeerKey { local, remote: Address::default() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(octet: u8) -> Address {
        let mut bytes = [0; 16];
        bytes[0] = octet;
        Address { bytes, family: 4 }
    }

    fn way(remote: u8) -> Option<Chassis> {
        Some(Chassis { local: at(1), remote: at(remote), ..Chassis::default() })
    }

    /// What a map has after all that was returned.
    #[derive(Default)]
    struct Map(BTreeMap<[u8; 16], u32>);

    impl Map {
        fn take(&mut self, entries: Vec<(PeerKey, Option<u32>)>) -> Vec<(u8, u32)> {
            for (key, value) in entries {
                match value {
                    Some(value) => self.0.insert(key.remote.bytes, value),
                    None => self.0.remove(&key.remote.bytes),
                };
            }
            self.0.iter().map(|(key, value)| (key[0], *value)).collect()
        }
    }

    #[test]
    fn an_address_is_let_in_as_long_as_somebody_is_there() {
        let (mut reaches, mut map) = (Reaches::default(), Map::default());
        assert_eq!(map.take(reaches.set(ChassisId(2), way(7))), [(0, 0), (7, 2)]);
        // The one that comes in its place is told of first; then another encapsulation of the same.
        assert_eq!(map.take(reaches.set(ChassisId(3), way(7))), [(0, 0), (7, 2)]);
        assert_eq!(map.take(reaches.set(ChassisId(2), None)), [(0, 0), (7, 3)]);
        assert_eq!(map.take(reaches.set(ChassisId(1), way(7))), [(0, 0), (7, 1)]);
        // One moves to another's old address before that has moved away.
        assert_eq!(map.take(reaches.set(ChassisId(4), way(8))), [(0, 0), (7, 1), (8, 4)]);
        assert_eq!(map.take(reaches.set(ChassisId(1), way(8))), [(0, 0), (7, 3), (8, 1)]);
        assert_eq!(map.take(reaches.set(ChassisId(4), way(9))), [(0, 0), (7, 3), (8, 1), (9, 4)]);
        // What was refused is said again, with whatever comes next.
        reaches.unplaced(PeerKey { local: at(1), remote: at(9) });
        assert!(reaches.is_unplaced());
        map.0.remove(&at(9).bytes);
        assert_eq!(map.take(reaches.set(ChassisId(1), None)), [(0, 0), (7, 3), (9, 4)]);
        assert!(!reaches.is_unplaced());
        map.take(reaches.set(ChassisId(3), None));
        assert_eq!(map.take(reaches.set(ChassisId(4), None)), []);
        assert!(reaches.ways.is_empty() && reaches.users.is_empty());
    }
}
