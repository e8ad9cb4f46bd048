//! Rows that controllers write and that outlive what they are about.

use std::collections::BTreeSet;

use oxbow_ovsdb::{RowChange, TableDef, Transaction, Uuid};
use oxbow_schema::sb;

use crate::source::Source;

/// Learnt rows, and whether they have to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    fdb: BTreeSet<Uuid>,
    dirty: bool,
}

impl Garbage {
    pub(crate) fn notice(&mut self, change: &RowChange) {
        if change.table != sb::fdb::TABLE {
            return;
        }
        self.dirty = true;
        match change.new {
            Some(_) => self.fdb.insert(change.uuid),
            None => self.fdb.remove(&change.uuid),
        };
    }

    /// Ports or datapaths may be gone.
    pub(crate) fn everything(&mut self) {
        self.dirty = true;
    }

    /// Deletes FDB rows of ports that do not exist.
    pub(crate) fn collect(&mut self, source: &Source, transaction: &mut Transaction) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        const TABLE: &TableDef = sb::fdb::TABLE;
        for &uuid in &self.fdb {
            let Some(row) = source.row(TABLE, uuid) else { continue };
            if !source.allocations.holds(row.get(sb::fdb::DP_KEY), row.get(sb::fdb::PORT_KEY)) {
                transaction.delete(TABLE, uuid);
            }
        }
    }
}
