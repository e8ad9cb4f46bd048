//! Rows: immutable versions, and drafts to make them by hand.

use std::fmt;
use std::sync::Arc;

use crate::layout::TableLayout;
use crate::{AnyColumn, Column, ColumnType, Datum, TableDef, ToDatum, Uuid};

/// One version of a row. It never changes: an update makes a new `Row` in the replica, and whoever holds the `Arc` of the
/// old one keeps seeing the old values, references to rows deleted since included.
#[derive(Clone)]
pub struct Row {
    layout: Arc<TableLayout>,
    uuid: Uuid,
    data: Box<[Datum]>,
}

impl Row {
    /// A row whose `data` holds a datum per slot of `layout`.
    pub(crate) fn new(layout: Arc<TableLayout>, uuid: Uuid, data: Box<[Datum]>) -> Self {
        debug_assert_eq!(layout.slot_count(), data.len());
        Row { layout, uuid, data }
    }

    /// The row's identifier.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The table it is in.
    pub fn table(&self) -> &'static TableDef {
        self.layout.table()
    }

    /// The value of a column: `i64`, `bool`, `f64`, `&Text` or `Uuid` for a scalar, `Option` of these, a
    /// [`SetView`](crate::SetView) or a [`MapView`](crate::MapView). A column that the server lacks, or that is not
    /// monitored, reads as its type's default. Asking a row of another table is a programmer's error (checked in debug
    /// builds) and reads as the default.
    pub fn get<T: ColumnType>(&self, column: Column<T>) -> T::View<'_> {
        T::view(self.datum(column.any()))
    }

    /// The value of a column as it is stored.
    pub fn datum(&self, column: AnyColumn) -> &Datum {
        static EMPTY: Datum = Datum::Empty;
        debug_assert!(column.table() == self.table(), "{column:?} asked of a row of {:?}", self.table());
        if column.table() != self.table() {
            return &EMPTY;
        }
        self.layout.slot(column.index()).map_or(&EMPTY, |slot| &self.data[slot])
    }

    /// Every column that this row has (the server has it and it is monitored), with its value.
    pub fn columns(&self) -> impl Iterator<Item = (AnyColumn, &Datum)> {
        let table = self.table();
        self.layout
            .columns()
            .iter()
            .zip(&self.data)
            .map(move |(column, datum)| (AnyColumn::new(table, column.index), datum))
    }

    /// Whether a column reads the same in both, which may have different layouts: a column that one of them lacks reads as
    /// the default.
    pub(crate) fn reads_as(&self, other: &Row, column: AnyColumn) -> bool {
        let (mine, theirs) = (self.datum(column), other.datum(column));
        mine == theirs
            || (mine.is_empty() && *theirs == column.default_datum())
            || (theirs.is_empty() && *mine == column.default_datum())
    }

    pub(crate) fn layout(&self) -> &Arc<TableLayout> {
        &self.layout
    }

    pub(crate) fn data(&self) -> &[Datum] {
        &self.data
    }
}

impl PartialEq for Row {
    /// Equal when identifier, table and every column's value are; a column that one of them lacks counts as its default.
    fn eq(&self, other: &Self) -> bool {
        if self.uuid != other.uuid || self.table() != other.table() {
            return false;
        }
        if Arc::ptr_eq(&self.layout, &other.layout) {
            return self.data == other.data;
        }
        self.table().all_columns().all(|column| self.reads_as(other, column))
    }
}

impl Eq for Row {}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] ", self.table().name, self.uuid)?;
        f.debug_map()
            .entries(
                self.columns().filter(|(_, datum)| !datum.is_empty()).map(|(column, datum)| (column.name(), datum)),
            )
            .finish()
    }
}

/// A row in the making, for replicas built by code: `RowDraft::new(TABLE).set(NAME, "sw0")`.
#[derive(Clone, Debug)]
pub struct RowDraft {
    pub(crate) table: &'static TableDef,
    pub(crate) uuid: Uuid,
    pub(crate) values: Vec<(u16, Datum)>,
}

impl RowDraft {
    /// A row of `table` with a random identifier and every column at its default.
    pub fn new(table: &'static TableDef) -> Self {
        Self::with_uuid(table, Uuid::random())
    }

    /// A row of `table` with a given identifier.
    pub fn with_uuid(table: &'static TableDef, uuid: Uuid) -> Self {
        RowDraft { table, uuid, values: Vec::new() }
    }

    /// The same values as an existing row, to be changed.
    pub fn from_row(row: &Row) -> Self {
        let values = row.columns().map(|(column, datum)| (column.index(), datum.clone())).collect();
        RowDraft { table: row.table(), uuid: row.uuid(), values }
    }

    /// Sets a column.
    #[must_use]
    pub fn set<T: ColumnType>(self, column: Column<T>, value: impl ToDatum<T>) -> Self {
        self.set_datum(column.any(), value.to_datum())
    }

    /// Sets a column to a datum of the right shape.
    #[must_use]
    pub fn set_datum(mut self, column: AnyColumn, datum: Datum) -> Self {
        assert!(column.table() == self.table, "{column:?} set in a row of {:?}", self.table);
        self.values.retain(|(index, _)| *index != column.index());
        self.values.push((column.index(), datum));
        self
    }

    /// The row's identifier.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }
}
