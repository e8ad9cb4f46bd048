//! Monitor conditions in three states, as the protocol demands: set, sent, acknowledged.
//!
//! Fast resynchronisation after a reconnect is only right for the conditions under which the last transaction id was
//! received. A change that was sent but not acknowledged leaves open which those are, so the id is then forgotten.

use crate::{Condition, DatabaseDef, TableDef};

#[derive(Clone, Debug, Default)]
struct TableConditions {
    /// In force on the server.
    acknowledged: Condition,
    /// Sent, not answered yet.
    requested: Option<Condition>,
    /// Set, not sent yet.
    new: Option<Condition>,
}

/// The conditions of every table of a database.
#[derive(Debug)]
pub(super) struct Conditions {
    tables: Vec<TableConditions>,
    /// Number of the last set, as the caller counts.
    set_number: u64,
    /// Number of the last set that the change in flight covers.
    requested_number: u64,
    /// Number of the last set that is in force.
    acknowledged_number: u64,
}

impl Conditions {
    pub(super) fn new(database: &DatabaseDef) -> Self {
        let tables = vec![TableConditions::default(); database.tables.len()];
        Conditions { tables, set_number: 0, requested_number: 0, acknowledged_number: 0 }
    }

    /// Sets the conditions of some tables. Whether they equal what is in force is not asked: what the server has in the end
    /// is decided by what is sent last.
    pub(super) fn set(&mut self, number: u64, conditions: Vec<(&'static TableDef, Condition)>) {
        self.set_number = self.set_number.max(number);
        for (table, condition) in conditions {
            self.tables[usize::from(table.index)].new = Some(condition);
        }
    }

    pub(super) fn in_flight(&self) -> bool {
        self.tables.iter().any(|table| table.requested.is_some())
    }

    /// Before a monitor request. When everything will be sent anew anyway, the newest conditions go into the request;
    /// otherwise those acknowledged do, and newer ones follow as a change.
    pub(super) fn start_monitor(&mut self, from_scratch: bool) {
        if !from_scratch {
            debug_assert!(!self.in_flight(), "an unanswered change forbids resuming");
            return;
        }
        for table in &mut self.tables {
            if let Some(newest) = table.new.take().or(table.requested.take()) {
                table.acknowledged = newest;
            }
            table.requested = None;
        }
        self.requested_number = self.set_number;
    }

    /// The condition that a monitor request states for a table.
    pub(super) fn in_force(&self, table: &TableDef) -> &Condition {
        &self.tables[usize::from(table.index)].acknowledged
    }

    /// The conditions to send as a change now; empty while one is in flight or when nothing is new.
    pub(super) fn start_change(&mut self) -> Vec<(usize, Condition)> {
        if self.in_flight() {
            return Vec::new();
        }
        self.requested_number = self.set_number;
        let mut changes = Vec::new();
        for (index, table) in self.tables.iter_mut().enumerate() {
            if let Some(new) = table.new.take() {
                changes.push((index, new.clone()));
                table.requested = Some(new);
            }
        }
        changes
    }

    /// The server answered the change (or the monitor request): what was requested is in force.
    pub(super) fn acknowledge(&mut self) {
        for table in &mut self.tables {
            if let Some(requested) = table.requested.take() {
                table.acknowledged = requested;
            }
        }
    }

    /// The highest set whose data has arrived, once per advance.
    pub(super) fn newly_acknowledged(&mut self) -> Option<u64> {
        let pending = self.tables.iter().any(|table| table.new.is_some());
        let number = if pending || self.in_flight() { self.requested_number } else { self.set_number };
        if self.in_flight() || number <= self.acknowledged_number {
            return None;
        }
        self.acknowledged_number = number;
        Some(number)
    }
}
