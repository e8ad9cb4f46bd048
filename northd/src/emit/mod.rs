//! The reconciler: compares what the store wants with what the southbound database holds, and writes the difference.
//!
//! It looks only at keys that were marked, by a wave or by a change of a southbound row, whoever made it. A transaction that
//! failed marks everything again; nothing is computed anew.

mod flow_rows;
mod observed;
mod rows;

pub(crate) use observed::Observed;

use oxbow_ovsdb::{Transaction, Uuid};
use oxbow_schema::sb;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::source::Source;
use crate::store::{Desired, FlowInterner, FlowStore, RowKey};

/// One pass of the reconciler.
pub(crate) struct Pass<'a> {
    pub(crate) transaction: Transaction,
    pub(crate) source: &'a Source,
    pub(crate) observed: &'a mut Observed,
    pub(crate) desired: &'a mut Desired,
    pub(crate) flows: &'a mut FlowStore,
    pub(crate) interner: &'a FlowInterner,
    /// Rows that this transaction inserts.
    inserted: FxHashMap<RowKey, Uuid>,
    /// Rows to delete once everything else is said.
    doomed: Vec<(&'static oxbow_ovsdb::TableDef, Uuid)>,
    /// Datapath groups by the hash of their set: the row this transaction uses for it.
    groups: FxHashMap<u128, Uuid>,
    /// Group rows that this transaction gives another set.
    retargeted: FxHashSet<Uuid>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(
        source: &'a Source,
        observed: &'a mut Observed,
        desired: &'a mut Desired,
        flows: &'a mut FlowStore,
        interner: &'a FlowInterner,
    ) -> Self {
        Self {
            transaction: Transaction::new(sb::DATABASE),
            source,
            observed,
            desired,
            flows,
            interner,
            inserted: FxHashMap::default(),
            doomed: Vec::new(),
            groups: FxHashMap::default(),
            retargeted: FxHashSet::default(),
        }
    }

    /// Builds the transaction: rows in the order of what they refer to, then flows, then deletions in the opposite order.
    pub(crate) fn run(mut self) -> Transaction {
        self.rows();
        self.flow_rows();
        for (table, uuid) in std::mem::take(&mut self.doomed).into_iter().rev() {
            self.transaction.delete(table, uuid);
        }
        self.transaction
    }

    /// The identifier of a wanted row; none if nobody wants it.
    fn resolve(&self, key: &RowKey) -> Option<Uuid> {
        self.inserted.get(key).copied().or_else(|| self.observed.row(key))
    }
}
