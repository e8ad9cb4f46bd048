//! Desired rows of every table but Logical_Flow and Logical_DP_Group, under keys that exist before the rows do.

use std::collections::BTreeMap;

use oxbow_ovsdb::{AnyColumn, Column, ColumnType, Datum, TableDef, Text, ToDatum, Uuid};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::program::{Memberships, Unit};

/// What identifies a row to northd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// The one row of its table.
    Single,
    /// By a northbound row.
    Uuid(Uuid),
    /// By its name.
    Text(Text),
    /// By a northbound row and a name within it.
    Within(Uuid, Text),
    /// By code and name.
    Numbered(i64, Text),
}

/// A row of a southbound table, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowKey {
    pub(crate) table: &'static TableDef,
    pub(crate) key: Key,
}

impl RowKey {
    pub(crate) fn new(table: &'static TableDef, key: Key) -> Self {
        Self { table, key }
    }
}

impl std::hash::Hash for RowKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.table.index.hash(state);
        self.key.hash(state);
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.table.index.cmp(&other.table.index).then_with(|| self.key.cmp(&other.key))
    }
}

/// The value of a column, with references to rows that may not exist yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Written as it is.
    Datum(Datum),
    /// The set of these rows.
    Refs(Vec<RowKey>),
    /// A map to these rows.
    MapRefs(Vec<(Text, RowKey)>),
    /// A map of strings, except for these keys, which belong to others and stay.
    MapKeeping(Datum, &'static [&'static str]),
    /// Written when the row is inserted or the column is empty, otherwise left to others.
    Initial(Datum),
    /// The ports of a multicast group, kept apart because they come one at a time.
    Members,
}

/// A row as it should be. Columns that are not listed belong to others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredRow {
    pub(crate) key: RowKey,
    pub(crate) columns: Vec<(AnyColumn, Value)>,
}

impl DesiredRow {
    pub(crate) fn new(table: &'static TableDef, key: Key) -> Self {
        Self { key: RowKey::new(table, key), columns: Vec::new() }
    }

    pub(crate) fn set<T: ColumnType>(self, column: Column<T>, value: impl ToDatum<T>) -> Self {
        self.value(column.any(), Value::Datum(value.to_datum()))
    }

    pub(crate) fn value(mut self, column: AnyColumn, value: Value) -> Self {
        self.columns.push((column, value));
        self
    }

    pub(crate) fn refs<T>(self, column: Column<T>, rows: Vec<RowKey>) -> Self {
        debug_assert!(column.any().definition().shape.key_reference.is_some(), "{column:?} holds no references");
        self.value(column.any(), Value::Refs(rows))
    }
}

/// All desired rows, and the keys the reconciler has to look at.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    /// Several units may want one key (two rows that would generate one name): the least unit wins.
    rows: FxHashMap<RowKey, Vec<(Unit, DesiredRow)>>,
    /// Names of ports, and how many units say so: a port may be deleted and come back under its name in one turn, in either order.
    members: FxHashMap<RowKey, BTreeMap<Text, usize>>,
    dirty: FxHashSet<RowKey>,
}

impl Desired {
    /// Replaces what a unit wants.
    pub(crate) fn replace(&mut self, unit: Unit, old: &[DesiredRow], new: &[DesiredRow]) {
        for row in old.iter().filter(|o| !new.contains(o)) {
            if let Some(wanted) = self.rows.get_mut(&row.key) {
                wanted.retain(|(u, _)| *u != unit);
                if wanted.is_empty() {
                    self.rows.remove(&row.key);
                }
            }
            self.dirty.insert(row.key.clone());
        }
        for row in new.iter().filter(|n| !old.contains(n)) {
            let wanted = self.rows.entry(row.key.clone()).or_default();
            wanted.push((unit, row.clone()));
            wanted.sort_unstable_by_key(|(u, _)| *u);
            self.dirty.insert(row.key.clone());
        }
    }

    /// Replaces the groups that a port is in.
    pub(crate) fn replace_memberships(&mut self, old: Option<&Memberships>, new: Option<&Memberships>) {
        for (memberships, add) in [(old, false), (new, true)] {
            let Some(memberships) = memberships else { continue };
            for group in &memberships.groups {
                let members = self.members.entry(group.clone()).or_default();
                let count = members.entry(memberships.port.clone()).or_default();
                *count = if add { *count + 1 } else { count.saturating_sub(1) };
                if *count == 0 {
                    members.remove(&memberships.port);
                }
                if members.is_empty() {
                    self.members.remove(group);
                }
                self.dirty.insert(group.clone());
            }
        }
    }

    /// The row wanted under a key. A multicast group is wanted only while it has members.
    pub(crate) fn row(&self, key: &RowKey) -> Option<&DesiredRow> {
        let row = &self.rows.get(key)?.first()?.1;
        let empty = row.columns.iter().any(|(_, v)| *v == Value::Members) && !self.members.contains_key(key);
        (!empty).then_some(row)
    }

    /// Whether a row of that table that may be in the database is not wanted any more.
    pub(crate) fn gives_up_any(&self, table: &TableDef) -> bool {
        self.dirty.iter().any(|key| key.table.index == table.index && self.row(key).is_none())
    }

    /// The names of the ports in a multicast group.
    pub(crate) fn members(&self, key: &RowKey) -> impl Iterator<Item = &Text> {
        self.members.get(key).into_iter().flat_map(BTreeMap::keys)
    }

    /// Says that a key has to be compared again.
    pub(crate) fn mark(&mut self, key: RowKey) {
        self.dirty.insert(key);
    }

    /// Marks every key.
    pub(crate) fn mark_all(&mut self) {
        self.dirty.extend(self.rows.keys().cloned());
    }

    /// The marked keys in order; none stays marked.
    pub(crate) fn take_dirty(&mut self) -> Vec<RowKey> {
        let mut keys: Vec<RowKey> = self.dirty.drain().collect();
        keys.sort_unstable();
        keys
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
}
