//! Rows that controllers write and that outlive what they are about.

use std::collections::{BTreeMap, BTreeSet};

use oxbow_ovsdb::{RowChange, TableDef, Transaction, Uuid};
use oxbow_schema::sb;

use crate::source::Source;

/// Learnt rows, and which have to be looked at: a changed port costs the rows of its datapath, not all.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    /// FDB rows by datapath key.
    fdb: BTreeMap<i64, BTreeSet<Uuid>>,
    /// Datapath keys whose rows may speak of ports that are gone.
    dirty: BTreeSet<i64>,
    all: bool,
}

impl Garbage {
    /// Takes note of a southbound change.
    pub(crate) fn notice(&mut self, change: &RowChange) {
        if change.table != sb::fdb::TABLE {
            return;
        }
        if let Some(old) = &change.old {
            let key = old.get(sb::fdb::DP_KEY);
            if let Some(rows) = self.fdb.get_mut(&key) {
                rows.remove(&change.uuid);
                if rows.is_empty() {
                    self.fdb.remove(&key);
                }
            }
        }
        if let Some(new) = &change.new {
            let key = new.get(sb::fdb::DP_KEY);
            self.fdb.entry(key).or_default().insert(change.uuid);
            self.dirty.insert(key);
        }
    }

    /// The ports of the datapath that has this key, or the datapath itself, may be gone.
    pub(crate) fn datapath(&mut self, key: i64) {
        self.dirty.insert(key);
    }

    /// Any port or datapath may be gone.
    pub(crate) fn everything(&mut self) {
        self.all = true;
    }

    /// Deletes FDB rows of ports that do not exist.
    pub(crate) fn collect(&mut self, source: &Source, transaction: &mut Transaction) {
        const TABLE: &TableDef = sb::fdb::TABLE;
        let dirty = std::mem::take(&mut self.dirty);
        let keys: Vec<i64> = if std::mem::take(&mut self.all) {
            self.fdb.keys().copied().collect()
        } else {
            dirty.into_iter().collect()
        };
        for &uuid in keys.iter().filter_map(|key| self.fdb.get(key)).flatten() {
            let Some(row) = source.row(TABLE, uuid) else { continue };
            if !source.allocations.holds(row.get(sb::fdb::DP_KEY), row.get(sb::fdb::PORT_KEY)) {
                transaction.delete(TABLE, uuid);
            }
        }
    }
}
