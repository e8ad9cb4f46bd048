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
    /// Owners that have not got what they want: the key they ask for, or any.
    waiting: BTreeSet<Uuid>,
    /// Somebody let go of a key since those who wait were last asked.
    eased: bool,
    /// The last key given out, so that a freed key is not used again at once: peers may still believe in it.
    last: i64,
}

/// What an owner of a key wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) owner: Uuid,
    /// The key it asks for.
    pub(crate) requested: Option<i64>,
    /// The key that the world knows it by, from before this process.
    pub(crate) known: Option<i64>,
}

/// What an assignment did.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    /// Whose key is another now.
    pub(crate) changed: BTreeSet<Uuid>,
    /// The requested key belongs to someone who asked for it too.
    pub(crate) refused: Vec<Uuid>,
    /// No key is left for these.
    pub(crate) without: Vec<Uuid>,
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

    /// Those who have not got what they want.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Uuid> {
        self.waiting.iter().copied()
    }

    /// Those who have not got what they want and may get it now.
    pub(crate) fn hopeful(&mut self) -> BTreeSet<Uuid> {
        if std::mem::take(&mut self.eased) { self.waiting.clone() } else { BTreeSet::new() }
    }

    /// Takes the owner's key back; true if it had one.
    pub(crate) fn release(&mut self, owner: Uuid) -> bool {
        self.insisting.remove(&owner);
        self.waiting.remove(&owner);
        self.vacate(owner).is_some()
    }

    fn vacate(&mut self, owner: Uuid) -> Option<i64> {
        let key = self.keys.remove(&owner)?;
        self.owners.remove(&key);
        self.eased = true;
        Some(key)
    }

    fn occupy(&mut self, owner: Uuid, key: i64) {
        self.keys.insert(owner, key);
        self.owners.insert(key, owner);
    }

    /// Gives the owners the keys they request, or lets them keep those they have, or gives them those they are known by, or else the
    /// next free ones: in this order for all of them, so that nobody new takes what somebody else is known by. Without a free key up
    /// to `max` an owner has none.
    pub(crate) fn assign(&mut self, wishes: &[Wish], max: i64) -> Assigned {
        let mut before: BTreeMap<Uuid, Option<i64>> = wishes.iter().map(|w| (w.owner, self.key(w.owner))).collect();
        let mut assigned = Assigned::default();
        let mut insisted: Vec<Uuid> = Vec::new();
        for wish in wishes {
            self.waiting.remove(&wish.owner);
            insisted.extend(self.insisting.remove(&wish.owner).then_some(wish.owner));
        }
        // Of several who ask for one key it is the one that has it, or is known by it.
        let asks = |wish: &&Wish| wish.requested.is_some();
        let (have, others): (Vec<&Wish>, Vec<&Wish>) =
            wishes.iter().filter(asks).partition(|wish| wish.requested == self.key(wish.owner).or(wish.known));
        for wish in have.into_iter().chain(others) {
            let Some(key) = wish.requested else { continue };
            let holder = self.owner(key).filter(|holder| *holder != wish.owner);
            if holder.is_some_and(|holder| self.insisting.contains(&holder)) {
                assigned.refused.push(wish.owner);
                self.waiting.insert(wish.owner);
                continue;
            }
            self.insisting.insert(wish.owner);
            if self.owner(key) == Some(wish.owner) {
                continue;
            }
            if let Some(holder) = holder {
                before.entry(holder).or_insert(Some(key));
                self.vacate(holder);
            }
            self.vacate(wish.owner);
            self.occupy(wish.owner, key);
        }
        self.eased |= insisted.iter().any(|owner| !self.insisting.contains(owner));
        for wish in wishes {
            if self.key(wish.owner).is_some_and(|key| key > max) {
                self.vacate(wish.owner);
            }
            if let Some(known) = wish.known.filter(|key| (1..=max).contains(key))
                && self.key(wish.owner).is_none()
                && before.get(&wish.owner) == Some(&None)
                && self.owner(known).is_none()
            {
                self.occupy(wish.owner, known);
            }
        }
        for (&owner, &old) in &before {
            if self.key(owner).is_none() {
                match self.next_free(max) {
                    Some(key) => self.occupy(owner, key),
                    None => {
                        self.waiting.insert(owner);
                        assigned.without.push(owner);
                    }
                }
            }
            if self.key(owner) != old {
                assigned.changed.insert(owner);
            }
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

    fn wish(n: u128, requested: Option<i64>, known: Option<i64>) -> Wish {
        Wish { owner: id(n), requested, known }
    }

    fn one(space: &mut KeySpace, n: u128, requested: Option<i64>, known: Option<i64>) -> Vec<Uuid> {
        space.assign(&[wish(n, requested, known)], 10).changed.into_iter().collect()
    }

    #[test]
    fn keys_are_kept_requested_evicted_and_not_reused_at_once() {
        let mut space = KeySpace::default();
        assert_eq!(one(&mut space, 1, None, None), [id(1)]);
        assert_eq!(one(&mut space, 2, None, Some(7)), [id(2)]);
        assert_eq!((space.key(id(1)), space.key(id(2))), (Some(1), Some(7)));
        assert!(one(&mut space, 1, None, Some(3)).is_empty(), "an assignment is kept");
        assert_eq!(one(&mut space, 3, Some(7), None), [id(2), id(3)], "who insists moves who does not");
        assert_eq!(space.key(id(2)), Some(2));
        let refused = space.assign(&[wish(4, Some(7), None)], 10);
        assert_eq!(refused.refused, [id(4)]);
        assert_eq!(space.key(id(4)), Some(3));
        space.release(id(4));
        one(&mut space, 5, None, None);
        assert_eq!(space.key(id(5)), Some(4), "3 is left alone for a while");
        for n in 6..=11 {
            one(&mut space, n, None, None);
        }
        assert_eq!(space.assign(&[wish(12, None, None)], 10).without, [id(12)]);
        assert_eq!(space.key(id(12)), None, "ten keys are ten keys");
        assert!(space.owner(3).is_some());
        space.hopeful();
        assert!(space.hopeful().is_empty());
        space.release(id(1));
        assert_eq!(space.hopeful().into_iter().collect::<Vec<_>>(), [id(12)]);
        assert_eq!(one(&mut space, 12, None, None), [id(12)]);
        assert_eq!(space.key(id(12)), Some(1));
    }

    #[test]
    fn what_all_are_known_by_is_taken_over_before_anything_is_given_out() {
        let mut space = KeySpace::default();
        let wishes = [
            wish(1, None, None),
            wish(2, Some(3), None),
            wish(3, None, Some(1)),
            wish(4, Some(3), Some(2)),
            wish(5, Some(3), Some(3)),
            wish(6, None, Some(3)),
        ];
        let assigned = space.assign(&wishes, 10);
        let keys: Vec<_> = (1..=6).map(|n| space.key(id(n))).collect();
        // 5 is known by the key that 2, 4 and 5 ask for; 6 was known by it when nobody asked.
        assert_eq!(keys, [Some(4), Some(5), Some(1), Some(2), Some(3), Some(6)]);
        assert_eq!(assigned.refused, [id(2), id(4)]);
        // What they did not get they get when nobody insists on it any more.
        space.hopeful();
        assert!(one(&mut space, 5, None, None).is_empty(), "it keeps its key");
        assert_eq!(space.hopeful().into_iter().collect::<Vec<_>>(), [id(2), id(4)]);
        let again = space.assign(&[wish(2, Some(3), None), wish(4, Some(3), Some(2))], 10);
        assert_eq!((space.key(id(2)), space.key(id(4))), (Some(3), Some(2)));
        assert_eq!(again.refused, [id(4)]);
        assert!(again.changed.contains(&id(5)), "{again:?}");
    }

    #[test]
    fn two_that_exchange_keys_in_one_turn_get_them() {
        let mut space = KeySpace::default();
        space.assign(&[wish(1, Some(5), None), wish(2, Some(7), None)], 10);
        let swapped = space.assign(&[wish(1, Some(7), None), wish(2, Some(5), None)], 10);
        assert_eq!((space.key(id(1)), space.key(id(2))), (Some(7), Some(5)));
        assert_eq!(swapped.changed.len(), 2);
        assert!(swapped.refused.is_empty());
    }
}
