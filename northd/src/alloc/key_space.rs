//! Numbers that must be unique: tunnel keys of datapaths, and of the ports of one datapath.

use std::collections::{BTreeMap, BTreeSet};

use oxbow_ovsdb::Uuid;
use rustc_hash::FxHashMap;

/// Keys 1 to some maximum, each with at most one owner.
#[derive(Debug, Default)]
pub(crate) struct KeySpace {
    keys: FxHashMap<Uuid, i64>,
    owners: BTreeMap<i64, Uuid>,
    /// Owners that asked for the key they have: they are not moved for others.
    insisting: BTreeSet<Uuid>,
    /// The last key given out, so that a freed key is not used again at once: peers may still believe in it.
    last: i64,
}

/// What an assignment did.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    /// Whose key is another now.
    pub(crate) changed: Vec<Uuid>,
    /// The requested key belongs to someone who asked for it too.
    pub(crate) refused: bool,
}

impl KeySpace {
    pub(crate) fn key(&self, owner: Uuid) -> Option<i64> {
        self.keys.get(&owner).copied()
    }

    pub(crate) fn owner(&self, key: i64) -> Option<Uuid> {
        self.owners.get(&key).copied()
    }

    /// The owners of keys above `max`.
    pub(crate) fn above(&self, max: i64) -> impl Iterator<Item = Uuid> {
        self.owners.range(max + 1..).map(|(_, owner)| *owner)
    }

    /// Takes the owner's key back; true if it had one.
    pub(crate) fn release(&mut self, owner: Uuid) -> bool {
        self.insisting.remove(&owner);
        match self.keys.remove(&owner) {
            Some(key) => {
                self.owners.remove(&key);
                true
            }
            None => false,
        }
    }

    /// Gives `owner` the key it requests, or lets it keep the one it has, or gives it the one it is known by, or the next
    /// free one. Without a free key up to `max` it has none.
    pub(crate) fn assign(&mut self, owner: Uuid, requested: Option<i64>, known: Option<i64>, max: i64) -> Assigned {
        let before = self.key(owner);
        let mut assigned = Assigned::default();
        self.insisting.remove(&owner);
        let mut moved = None;
        let key = match requested {
            Some(key) if before == Some(key) || self.owner(key).is_none_or(|o| !self.insisting.contains(&o)) => {
                self.insisting.insert(owner);
                moved = self.owner(key).filter(|o| *o != owner);
                Some(key)
            }
            other => {
                assigned.refused = other.is_some();
                before
                    .or(known.filter(|k| *k > 0 && !self.owners.contains_key(k)))
                    .filter(|k| *k <= max)
                    .or_else(|| self.next_free(max))
            }
        };
        if key == before {
            return assigned;
        }
        if let Some(before) = before {
            self.owners.remove(&before);
        }
        if let Some(moved) = moved {
            self.keys.remove(&moved);
        }
        match key {
            Some(key) => {
                self.keys.insert(owner, key);
                self.owners.insert(key, owner);
            }
            None => {
                self.keys.remove(&owner);
            }
        }
        assigned.changed.push(owner);
        if let Some(moved) = moved {
            if let Some(key) = self.next_free(max) {
                self.keys.insert(moved, key);
                self.owners.insert(key, moved);
            }
            assigned.changed.push(moved);
        }
        assigned
    }

    fn next_free(&mut self, max: i64) -> Option<i64> {
        let free_from = |from: i64, to: i64| {
            let mut candidate = from;
            for (&taken, _) in self.owners.range(from..) {
                if taken != candidate {
                    break;
                }
                candidate += 1;
            }
            (candidate <= to).then_some(candidate)
        };
        let key = free_from(self.last + 1, max).or_else(|| free_from(1, max.min(self.last)))?;
        self.last = key;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn keys_are_kept_requested_evicted_and_not_reused_at_once() {
        let mut space = KeySpace::default();
        assert_eq!(space.assign(id(1), None, None, 10).changed, [id(1)]);
        assert_eq!(space.assign(id(2), None, Some(7), 10).changed, [id(2)]);
        assert_eq!((space.key(id(1)), space.key(id(2))), (Some(1), Some(7)));
        assert!(space.assign(id(1), None, Some(3), 10).changed.is_empty(), "an assignment is kept");
        assert_eq!(space.assign(id(3), Some(7), None, 10).changed, [id(3), id(2)], "who insists moves who does not");
        assert_eq!(space.key(id(2)), Some(2));
        let refused = space.assign(id(4), Some(7), None, 10);
        assert!(refused.refused);
        assert_eq!(space.key(id(4)), Some(3));
        space.release(id(4));
        space.assign(id(5), None, None, 10);
        assert_eq!(space.key(id(5)), Some(4), "3 is left alone for a while");
        for n in 6..=12 {
            space.assign(id(n), None, None, 10);
        }
        assert_eq!(space.key(id(12)), None, "ten keys are ten keys");
        assert!(space.owner(3).is_some());
        space.release(id(1));
        assert_eq!(space.assign(id(12), None, None, 10).changed, [id(12)]);
        assert_eq!(space.key(id(12)), Some(1));
    }
}
