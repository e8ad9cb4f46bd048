//! Rows that controllers write and that outlive what they are about.

use std::collections::{BTreeMap, BTreeSet};

use oxbow_ovsdb::{RowChange, TableDef, Transaction, Uuid};
use oxbow_schema::sb;

use crate::source::Source;
use crate::store::{Desired, Key, RowKey};

/// Learnt rows, and which have to be looked at: a changed port costs the rows of its datapath, not all.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    /// FDB rows by datapath key.
    fdb: BTreeMap<i64, BTreeSet<Uuid>>,
    /// MAC_Binding and IGMP_Group rows. Few on a cloud of switches: all are looked at when a port binding goes.
    others: BTreeSet<Uuid>,
    /// Datapath keys whose rows may speak of ports that are gone.
    dirty: BTreeSet<i64>,
    all: bool,
}

impl Garbage {
    /// Takes note of a southbound change.
    pub(crate) fn notice(&mut self, change: &RowChange) {
        if [sb::mac_binding::TABLE, sb::igmp_group::TABLE].contains(&change.table) {
            if change.new.is_some() {
                self.others.insert(change.uuid);
            } else {
                self.others.remove(&change.uuid);
            }
        }
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

    /// Deletes what was learnt about ports and datapaths that do not exist.
    ///
    /// `ports_go`: this transaction deletes port bindings. Only then are neighbours' rows looked at, as stock does; they go in the same transaction,
    /// because a datapath cannot go while a MAC_Binding refers to it.
    pub(crate) fn collect(
        &mut self,
        source: &Source,
        desired: &Desired,
        ports_go: bool,
        transaction: &mut Transaction,
    ) {
        if ports_go {
            self.collect_others(source, desired, transaction);
        }
        self.collect_fdb(source, transaction);
    }

    /// MAC_Binding rows of ports that nobody wants a binding for, and IGMP_Group rows whose datapath is gone.
    fn collect_others(&self, source: &Source, desired: &Desired, transaction: &mut Transaction) {
        for &uuid in &self.others {
            if let Some(row) = source.row(sb::mac_binding::TABLE, uuid) {
                let port = Key::Text(row.get(sb::mac_binding::LOGICAL_PORT).clone());
                if desired.row(&RowKey::new(sb::port_binding::TABLE, port)).is_none() {
                    transaction.delete(sb::mac_binding::TABLE, uuid);
                }
            } else if let Some(row) = source.row(sb::igmp_group::TABLE, uuid)
                && row.get(sb::igmp_group::DATAPATH).is_none()
            {
                transaction.delete(sb::igmp_group::TABLE, uuid);
            }
        }
    }

    fn collect_fdb(&mut self, source: &Source, transaction: &mut Transaction) {
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
