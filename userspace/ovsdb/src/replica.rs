//! The in-memory copy of the monitored part of a database.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::layout::{DatabaseLayout, TableLayout};
use crate::update::{RowUpdate, UpdateBatch, UpdateKind};
use crate::{AnyColumn, Column, DatabaseDef, Datum, Row, RowDraft, TableDef, Uuid};

/// A set of columns of one table, by their index in the definition.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ColumnSet(u64);

impl ColumnSet {
    /// No column.
    pub const EMPTY: ColumnSet = ColumnSet(0);

    /// Whether `column` is in the set. Which table the set belongs to is known to who holds it.
    pub fn contains(self, column: impl Into<AnyColumn>) -> bool {
        self.0 & (1 << column.into().index()) != 0
    }

    /// Adds a column by its index in the definition.
    pub fn insert(&mut self, index: u16) {
        self.0 |= 1 << index;
    }

    /// True when there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The columns' indexes, ascending.
    pub fn indexes(self) -> impl Iterator<Item = u16> {
        (0..64).filter(move |index| self.0 & (1 << index) != 0)
    }
}

impl FromIterator<u16> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = u16>>(indexes: I) -> Self {
        let mut set = ColumnSet::EMPTY;
        indexes.into_iter().for_each(|index| set.insert(index));
        set
    }
}

impl fmt::Debug for ColumnSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.indexes()).finish()
    }
}

/// What became of a row: inserted (`old` is `None`), deleted (`new` is `None`) or modified.
#[derive(Clone, PartialEq)]
pub struct RowChange {
    /// The row's table.
    pub table: &'static TableDef,
    /// The row's identifier.
    pub uuid: Uuid,
    /// The row before. It keeps every value it had, references to rows deleted with it included.
    pub old: Option<Arc<Row>>,
    /// The row as it is now.
    pub new: Option<Arc<Row>>,
    /// The columns whose value changed; every column the row has for an insertion or a deletion.
    pub changed: ColumnSet,
}

impl RowChange {
    /// Whether this column's value changed.
    pub fn has_changed<T>(&self, column: Column<T>) -> bool {
        column.table() == self.table && self.changed.contains(column)
    }

    /// The newest version there is: the new row, or for a deletion the old one.
    pub fn row(&self) -> Option<&Arc<Row>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    fn between(old: Option<Arc<Row>>, new: Option<Arc<Row>>) -> Option<RowChange> {
        let some = new.as_ref().or(old.as_ref())?;
        let (table, uuid) = (some.table(), some.uuid());
        let changed = match (&old, &new) {
            (Some(old), Some(new)) if Arc::ptr_eq(old.layout(), new.layout()) => {
                let columns = old.layout().columns().iter().zip(old.data().iter().zip(new.data()));
                columns.filter(|(_, (old, new))| old != new).map(|(column, _)| column.index).collect()
            }
            (Some(old), Some(new)) => {
                table.all_columns().filter(|&column| !old.reads_as(new, column)).map(AnyColumn::index).collect()
            }
            _ => some.columns().map(|(column, _)| column.index()).collect(),
        };
        (old.is_none() || new.is_none() || !ColumnSet::is_empty(changed)).then_some(RowChange {
            table,
            uuid,
            old,
            new,
            changed,
        })
    }

    /// Folds a later list of changes into an earlier one, so that there is one change a row, from the oldest version to the
    /// newest; rows that end as they began (or came and went) drop out.
    pub fn coalesce(earlier: Vec<RowChange>, later: Vec<RowChange>) -> Vec<RowChange> {
        let mut places: FxHashMap<(u16, Uuid), usize> = FxHashMap::default();
        let mut folded: Vec<Option<RowChange>> = Vec::with_capacity(earlier.len() + later.len());
        for change in earlier.into_iter().chain(later) {
            match places.entry((change.table.index, change.uuid)) {
                Entry::Vacant(place) => {
                    place.insert(folded.len());
                    folded.push(Some(change));
                }
                Entry::Occupied(place) => {
                    let slot = &mut folded[*place.get()];
                    let old = match slot.take() {
                        Some(first) => first.old,
                        None => change.old,
                    };
                    *slot = RowChange::between(old, change.new);
                }
            }
        }
        folded.into_iter().flatten().collect()
    }
}

impl fmt::Debug for RowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (None, Some(new)) => write!(f, "insert {new:?}"),
            (Some(old), None) => write!(f, "delete {old:?}"),
            (Some(old), Some(new)) => {
                write!(f, "modify {}[{}] ", self.table.name, self.uuid)?;
                let columns = self.changed.indexes().map(|index| AnyColumn::new(self.table, index));
                f.debug_map()
                    .entries(columns.map(|column| (column.name(), (old.datum(column), new.datum(column)))))
                    .finish()
            }
            (None, None) => write!(f, "nothing {}[{}]", self.table.name, self.uuid),
        }
    }
}

/// An update that does not fit the replica: the two have diverged and the data must be fetched anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// A modification or deletion of a row that is not there.
    #[error("update of a row that is not in the replica: {table} {uuid}")]
    NoSuchRow {
        /// The table.
        table: &'static str,
        /// The row.
        uuid: Uuid,
    },
}

#[derive(Clone)]
struct Table {
    layout: Arc<TableLayout>,
    rows: FxHashMap<Uuid, Arc<Row>>,
}

/// The in-memory copy of the monitored part of a database.
///
/// References between rows are plain UUIDs: a row may name rows that are not here (not monitored, outside the
/// monitor conditions, or weak references that outlive their row for one update). [`row`](Replica::row) then says
/// `None`, and a consumer that recorded the miss sees the row's insertion when it comes.
#[derive(Clone)]
pub struct Replica {
    database: &'static DatabaseDef,
    tables: Box<[Table]>,
}

impl Replica {
    /// An empty replica with every column of the definition, to be filled by code.
    pub fn new(database: &'static DatabaseDef) -> Self {
        Self::with_layout(DatabaseLayout::full(database))
    }

    pub(crate) fn with_layout(layout: DatabaseLayout) -> Self {
        let tables = layout.tables.into_iter().map(|layout| Table { layout, rows: FxHashMap::default() }).collect();
        Replica { database: layout.database, tables }
    }

    /// The database this is a copy of.
    pub fn database(&self) -> &'static DatabaseDef {
        self.database
    }

    fn table(&self, table: &'static TableDef) -> &Table {
        assert_eq!(table.database, self.database.name, "table {} is not of this replica's database", table.name);
        &self.tables[usize::from(table.index)]
    }

    /// The rows of a table in no particular order.
    pub fn rows(&self, table: &'static TableDef) -> impl ExactSizeIterator<Item = &Arc<Row>> + Clone {
        self.table(table).rows.values()
    }

    /// The row of a table with an identifier.
    pub fn row(&self, table: &'static TableDef, uuid: Uuid) -> Option<&Arc<Row>> {
        self.table(table).rows.get(&uuid)
    }

    /// Number of rows of a table.
    pub fn len(&self, table: &'static TableDef) -> usize {
        self.table(table).rows.len()
    }

    /// True when no table has a row.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.rows.is_empty())
    }

    /// Whether the server has this column and it is monitored; other columns read as defaults.
    pub fn has_column(&self, column: impl Into<AnyColumn>) -> bool {
        let column = column.into();
        self.table(column.table()).layout.slot(column.index()).is_some()
    }

    /// Whether at least one column of this table is monitored.
    pub fn has_table(&self, table: &'static TableDef) -> bool {
        self.table(table).layout.slot_count() > 0
    }

    /// Puts a row in, in place of any with the same identifier; `None` when it changes nothing.
    pub fn put(&mut self, draft: RowDraft) -> Option<RowChange> {
        let layout = self.table(draft.table).layout.clone();
        let mut data: Box<[Datum]> =
            layout.columns().iter().map(|column| AnyColumn::new(draft.table, column.index).default_datum()).collect();
        for (index, datum) in draft.values {
            if let Some(slot) = layout.slot(index) {
                data[slot] = datum;
            }
        }
        let row = Arc::new(Row::new(layout, draft.uuid, data));
        let old = self.tables[usize::from(draft.table.index)].rows.insert(draft.uuid, row.clone());
        RowChange::between(old, Some(row))
    }

    /// Takes a row out; `None` when it was not there.
    pub fn remove(&mut self, table: &'static TableDef, uuid: Uuid) -> Option<RowChange> {
        self.table(table);
        let old = self.tables[usize::from(table.index)].rows.remove(&uuid)?;
        RowChange::between(Some(old), None)
    }

    /// Every difference between this replica and `newer`, as changes that lead from the one to the other.
    pub fn changes_to(&self, newer: &Replica) -> Vec<RowChange> {
        let mut changes = Vec::new();
        for (old, new) in self.tables.iter().zip(&newer.tables) {
            diff_tables(&old.rows, &new.rows, &mut changes);
        }
        changes
    }

    /// Applies what the server sent, or, if some of it does not fit, nothing. On a reset the rows are replaced as a whole, and only what really differs between
    /// the old content and the new is reported.
    pub(crate) fn apply(&mut self, batch: UpdateBatch) -> Result<Vec<RowChange>, ReplicaError> {
        let Some(layout) = batch.reset else {
            let mut changes = Vec::with_capacity(batch.rows.len());
            for update in batch.rows {
                match self.apply_row(update) {
                    Ok(change) => changes.extend(change),
                    Err(error) => {
                        // All of it or nothing: what nobody is told must not stay.
                        changes.into_iter().rev().for_each(|change| self.undo(change));
                        return Err(error);
                    }
                }
            }
            return Ok(changes);
        };
        let mut fresh = Replica::with_layout(layout);
        for update in batch.rows {
            let table = &mut fresh.tables[usize::from(update.table)];
            let UpdateKind::Whole(data) = update.kind else {
                return Err(ReplicaError::NoSuchRow { table: table.layout.table().name, uuid: update.uuid });
            };
            table.rows.insert(update.uuid, Arc::new(Row::new(table.layout.clone(), update.uuid, data)));
        }
        let mut changes = Vec::new();
        for (old, new) in self.tables.iter().zip(&fresh.tables) {
            diff_tables(&old.rows, &new.rows, &mut changes);
        }
        self.tables = fresh.tables;
        Ok(changes)
    }

    fn undo(&mut self, change: RowChange) {
        let rows = &mut self.tables[usize::from(change.table.index)].rows;
        match change.old {
            Some(old) => rows.insert(change.uuid, old),
            None => rows.remove(&change.uuid),
        };
    }

    fn apply_row(&mut self, update: RowUpdate) -> Result<Option<RowChange>, ReplicaError> {
        let table = &mut self.tables[usize::from(update.table)];
        let uuid = update.uuid;
        let missing = ReplicaError::NoSuchRow { table: table.layout.table().name, uuid };
        match update.kind {
            UpdateKind::Whole(data) => {
                let row = Arc::new(Row::new(table.layout.clone(), uuid, data));
                let old = table.rows.insert(uuid, row.clone());
                Ok(RowChange::between(old, Some(row)))
            }
            UpdateKind::Difference(differences) => {
                let current = table.rows.get_mut(&uuid).ok_or(missing)?;
                let mut data: Box<[Datum]> = current.data().into();
                for (slot, diff) in differences {
                    let slot = usize::from(slot);
                    data[slot] = table.layout.columns()[slot].apply_difference(&data[slot], diff);
                }
                let row = Arc::new(Row::new(table.layout.clone(), uuid, data));
                let old = std::mem::replace(current, row.clone());
                Ok(RowChange::between(Some(old), Some(row)))
            }
            UpdateKind::Delete => {
                let old = table.rows.remove(&uuid).ok_or(missing)?;
                Ok(RowChange::between(Some(old), None))
            }
        }
    }
}

fn diff_tables(old: &FxHashMap<Uuid, Arc<Row>>, new: &FxHashMap<Uuid, Arc<Row>>, changes: &mut Vec<RowChange>) {
    let gone = old.iter().filter(|(uuid, _)| !new.contains_key(uuid));
    changes.extend(gone.filter_map(|(_, row)| RowChange::between(Some(row.clone()), None)));
    changes.extend(new.iter().filter_map(|(uuid, row)| RowChange::between(old.get(uuid).cloned(), Some(row.clone()))));
}

impl PartialEq for Replica {
    /// Equal when both hold equal rows.
    fn eq(&self, other: &Self) -> bool {
        self.database.name == other.database.name
            && self.tables.iter().zip(&other.tables).all(|(a, b)| a.rows == b.rows)
    }
}

impl fmt::Debug for Replica {
    /// Every row, sorted by table and identifier.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            let mut rows: Vec<_> = table.rows.values().collect();
            rows.sort_by_key(|row| row.uuid());
            for row in rows {
                writeln!(f, "{row:?}")?;
            }
        }
        Ok(())
    }
}

/// For each row, who refers to it through one column: the reverse of a reference column, kept up by feeding it every
/// change of the referring table.
///
/// The server takes a weak reference out of its column when the row it names is deleted, and tells so by a
/// modification of the referring row; but when that row is outside the monitor condition, or the referring column is not
/// monitored in that session, nobody tells. Whoever keeps something per reference asks here who refers to a row that comes
/// or goes.
#[derive(Clone, Debug)]
pub struct Referrers {
    column: AnyColumn,
    by_target: FxHashMap<Uuid, FxHashSet<Uuid>>,
}

impl Referrers {
    /// The referrers through `column` (a uuid column, or a map with uuid values) in `replica`.
    pub fn new(column: impl Into<AnyColumn>, replica: &Replica) -> Self {
        let mut referrers = Referrers { column: column.into(), by_target: FxHashMap::default() };
        for row in replica.rows(referrers.column.table()) {
            referrers.add(row);
        }
        referrers
    }

    /// Takes a change in; changes of other tables are ignored.
    pub fn apply(&mut self, change: &RowChange) {
        if change.table != self.column.table() {
            return;
        }
        if let Some(old) = &change.old {
            for target in targets(old.datum(self.column)) {
                if let Entry::Occupied(mut sources) = self.by_target.entry(target) {
                    sources.get_mut().remove(&change.uuid);
                    if sources.get().is_empty() {
                        sources.remove();
                    }
                }
            }
        }
        if let Some(new) = &change.new {
            self.add(new);
        }
    }

    fn add(&mut self, row: &Row) {
        for target in targets(row.datum(self.column)) {
            self.by_target.entry(target).or_default().insert(row.uuid());
        }
    }

    /// The rows whose column names `target`, in no particular order.
    pub fn of(&self, target: Uuid) -> impl Iterator<Item = Uuid> {
        self.by_target.get(&target).into_iter().flatten().copied()
    }
}

fn targets(datum: &Datum) -> impl Iterator<Item = Uuid> {
    use crate::Atom::Uuid as Reference;
    let plain = datum.atoms().iter();
    let paired = datum.pairs().iter().flat_map(|(key, value)| [key, value]);
    plain.chain(paired).filter_map(|atom| if let Reference(uuid) = atom { Some(*uuid) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fake_server::{DATABASE, I, REFS, S, TABLE};
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, i64, &'static str, Vec<u8>),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let text = prop_oneof![Just("a"), Just("b")];
        prop_oneof![
            3 => (0u8..5, 0i64..3, text, prop::collection::vec(0u8..5, 0..3)).prop_map(|(row, i, s, refs)| Step::Put(row, i, s, refs)),
            1 => (0u8..5).prop_map(Step::Remove),
        ]
    }

    fn uuid(row: u8) -> Uuid {
        Uuid::from_u128(u128::from(row) + 1)
    }

    fn take(replica: &mut Replica, step: &Step) -> Option<RowChange> {
        match step {
            Step::Put(row, i, s, refs) => {
                let draft = RowDraft::with_uuid(&TABLE, uuid(*row)).set(I, *i).set(S, *s);
                replica.put(draft.set(REFS, refs.iter().map(|&row| uuid(row))))
            }
            Step::Remove(row) => replica.remove(&TABLE, uuid(*row)),
        }
    }

    fn replay(replica: &mut Replica, changes: &[RowChange]) {
        for change in changes {
            assert_eq!(replica.row(&TABLE, change.uuid), change.old.as_ref(), "{change:?}");
            match &change.new {
                Some(new) => drop(replica.put(RowDraft::from_row(new))),
                None => drop(replica.remove(&TABLE, change.uuid)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn changes_differences_and_referrers_tell_the_same_story(first in prop::collection::vec(step(), 0..12),
                                                                 second in prop::collection::vec(step(), 0..12)) {
            let mut replica = Replica::new(&DATABASE);
            let mut referrers = Referrers::new(REFS, &replica);
            let mut halves = [Vec::new(), Vec::new()];
            let mut middle = replica.clone();
            for (half, steps) in halves.iter_mut().zip([&first, &second]) {
                middle = replica.clone();
                for step in steps {
                    if let Some(change) = take(&mut replica, step) {
                        referrers.apply(&change);
                        half.push(change);
                    }
                }
            }
            let [earlier, later] = halves;
            // The later changes folded, and the difference of the two states, are the same changes.
            let mut folded = RowChange::coalesce(Vec::new(), later.clone());
            let mut difference = middle.changes_to(&replica);
            folded.sort_by_key(|change| change.uuid);
            difference.sort_by_key(|change| change.uuid);
            prop_assert_eq!(&folded, &difference);
            replay(&mut middle, &folded);
            prop_assert_eq!(&middle, &replica);
            let mut fresh = Replica::new(&DATABASE);
            let all = RowChange::coalesce(earlier, later);
            prop_assert!(all.iter().all(|change| change.old.is_none() && change.new.is_some()), "{:?}", all);
            replay(&mut fresh, &all);
            prop_assert_eq!(&fresh, &replica);
            for row in 0..5 {
                let mut found: Vec<Uuid> = referrers.of(uuid(row)).collect();
                found.sort();
                let mut expected: Vec<Uuid> =
                    replica.rows(&TABLE).filter(|source| source.get(REFS).contains(&uuid(row))).map(|row| row.uuid()).collect();
                expected.sort();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
