//! Sets of alternatives that rules share, changed element by element.

use crate::ir::{DatapathKey, Field, Masked, SetId};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a set is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SetKey {
    /// An address set compared with bits of a field (the field itself does not matter: the alternatives are the same).
    Addresses {
        /// Address_Set.name.
        name: Arc<str>,
        /// Lowest bit compared.
        offset: u8,
        /// Bits compared.
        width: u8,
    },
    /// Those ports of a Port_Group row that are on a datapath.
    Ports {
        /// The datapath.
        datapath: DatapathKey,
        /// Port_Group.name.
        row: Arc<str>,
    },
}

#[derive(Debug)]
struct Set {
    key: SetKey,
    /// Members and how often each is given ("10.0.0.1" and "10.0.0.1/32" are one alternative).
    members: BTreeMap<Masked, u32>,
    /// Rules that refer to it.
    users: usize,
    /// Members as of the last [`Sets::take_changes`], where they differ: whether the member was there.
    before: BTreeMap<Masked, bool>,
}

/// All sets in use.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    sets: BTreeMap<SetId, Set>,
    by_key: FxHashMap<SetKey, SetId>,
    free: Vec<SetId>,
    last: u32,
    changed: BTreeSet<SetId>,
    unused: BTreeSet<SetId>,
}

/// What happened to sets: members removed and added by set, and sets that are gone.
pub(crate) type SetChanges = (Vec<(SetId, Vec<Masked>, Vec<Masked>)>, Vec<SetId>);

impl Sets {
    /// One more user of a set; `members` is asked when there is none yet.
    pub(crate) fn acquire(&mut self, key: &SetKey, members: impl FnOnce() -> Vec<Masked>) -> SetId {
        let id = match self.by_key.get(key) {
            Some(id) => *id,
            None => {
                let id = self.free.pop().unwrap_or_else(|| {
                    self.last += 1;
                    SetId(self.last)
                });
                let set = Set { key: key.clone(), members: BTreeMap::new(), users: 0, before: BTreeMap::new() };
                self.sets.insert(id, set);
                self.by_key.insert(key.clone(), id);
                self.changed.insert(id);
                for member in members() {
                    self.add(id, member);
                }
                id
            }
        };
        if let Some(set) = self.sets.get_mut(&id) {
            set.users += 1;
        }
        self.unused.remove(&id);
        id
    }

    /// One user less.
    pub(crate) fn release(&mut self, id: SetId) {
        if let Some(set) = self.sets.get_mut(&id) {
            set.users -= 1;
            if set.users == 0 {
                self.unused.insert(id);
            }
        }
    }

    /// The set of that key, if any rule refers to it.
    pub(crate) fn find(&self, key: &SetKey) -> Option<SetId> {
        self.by_key.get(key).copied()
    }

    /// Sets that show an address set.
    pub(crate) fn of_addresses(&self, name: &str) -> Vec<(SetId, u8, u8)> {
        self.sets
            .iter()
            .filter_map(|(id, set)| match &set.key {
                SetKey::Addresses { name: there, offset, width } if &**there == name => Some((*id, *offset, *width)),
                _ => None,
            })
            .collect()
    }

    /// One more of a member.
    pub(crate) fn add(&mut self, id: SetId, member: Masked) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let count = set.members.entry(member).or_default();
        *count += 1;
        if *count == 1 {
            set.before.entry(member).or_insert(false);
            self.changed.insert(id);
        }
    }

    /// One less of a member.
    pub(crate) fn remove(&mut self, id: SetId, member: Masked) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let Some(count) = set.members.get_mut(&member) else { return };
        *count -= 1;
        if *count == 0 {
            set.members.remove(&member);
            set.before.entry(member).or_insert(true);
            self.changed.insert(id);
        }
    }

    /// What changed since the last call; sets without users go.
    pub(crate) fn take_changes(&mut self) -> SetChanges {
        let mut changes = Vec::new();
        let mut gone = Vec::new();
        for id in std::mem::take(&mut self.unused) {
            if let Some(set) = self.sets.remove(&id) {
                self.by_key.remove(&set.key);
                self.changed.remove(&id);
                self.free.push(id);
                gone.push(id);
            }
        }
        for id in std::mem::take(&mut self.changed) {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            let (mut removed, mut added) = (Vec::new(), Vec::new());
            for (member, was) in std::mem::take(&mut set.before) {
                match (was, set.members.contains_key(&member)) {
                    (true, false) => removed.push(member),
                    (false, true) => added.push(member),
                    _ => {}
                }
            }
            changes.push((id, removed, added));
        }
        (changes, gone)
    }
}

/// The alternative that says a port field holds a key.
pub(crate) fn key_alternative(key: u32) -> Masked {
    Masked { value: u128::from(key), mask: u128::from(u32::MAX) }
}

/// The port field behind the numeric names of later versions.
pub(crate) fn port_field(field: Field) -> Field {
    match field {
        Field::InPortKey => Field::InPort,
        Field::OutPortKey => Field::OutPort,
        other => other,
    }
}
