//! Which columns the rows of a table have in this session: the definition cut down to what the server has and what is
//! monitored, with the types as the server declares them.

use std::sync::Arc;

use crate::{AtomType, ColumnShape, DatabaseDef, Multiplicity, TableDef};

const ABSENT: u16 = u16::MAX;

/// The columns of a table's rows. A row's data has one datum per column here; the place is the column's *slot*.
#[derive(Debug)]
pub(crate) struct TableLayout {
    table: &'static TableDef,
    /// By column index of the definition: the slot, or `ABSENT`.
    slots: Box<[u16]>,
    columns: Box<[LayoutColumn]>,
}

/// A column as the server declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayoutColumn {
    /// The column's index in the definition.
    pub(crate) index: u16,
    /// Type of elements or keys.
    pub(crate) key: AtomType,
    /// Type of a map's values.
    pub(crate) value: Option<AtomType>,
    /// How many elements the server allows; decides how a "modify" is read.
    pub(crate) multiplicity: Multiplicity,
}

impl LayoutColumn {
    pub(crate) fn new(index: u16, shape: ColumnShape) -> Self {
        LayoutColumn { index, key: shape.key, value: shape.value, multiplicity: shape.multiplicity }
    }
}

impl TableLayout {
    pub(crate) fn new(table: &'static TableDef, columns: Vec<LayoutColumn>) -> Self {
        let mut slots = vec![ABSENT; table.columns.len()].into_boxed_slice();
        for (slot, column) in columns.iter().enumerate() {
            slots[usize::from(column.index)] = slot as u16;
        }
        TableLayout { table, slots, columns: columns.into() }
    }

    /// Every column of the definition, with its types.
    pub(crate) fn full(table: &'static TableDef) -> Self {
        let columns =
            table.columns.iter().enumerate().map(|(index, column)| LayoutColumn::new(index as u16, column.shape));
        Self::new(table, columns.collect())
    }

    pub(crate) fn table(&self) -> &'static TableDef {
        self.table
    }

    pub(crate) fn slot_count(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn slot(&self, index: u16) -> Option<usize> {
        self.slots.get(usize::from(index)).filter(|&&slot| slot != ABSENT).map(|&slot| usize::from(slot))
    }

    pub(crate) fn columns(&self) -> &[LayoutColumn] {
        &self.columns
    }

    pub(crate) fn name(&self, slot: usize) -> &'static str {
        self.table.columns[usize::from(self.columns[slot].index)].name
    }
}

/// The layouts of every table of a database, by table index; a table that is not monitored has no columns.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseLayout {
    pub(crate) database: &'static DatabaseDef,
    pub(crate) tables: Box<[Arc<TableLayout>]>,
}

impl DatabaseLayout {
    pub(crate) fn full(database: &'static DatabaseDef) -> Self {
        DatabaseLayout {
            database,
            tables: database.tables.iter().map(|table| Arc::new(TableLayout::full(table))).collect(),
        }
    }

    /// No column at all.
    pub(crate) fn empty(database: &'static DatabaseDef) -> Self {
        let tables = database.tables.iter().map(|table| Arc::new(TableLayout::new(table, Vec::new()))).collect();
        DatabaseLayout { database, tables }
    }

    /// Whether rows of the one are rows of the other.
    pub(crate) fn same_columns(&self, other: &DatabaseLayout) -> bool {
        self.database.name == other.database.name
            && self.tables.iter().zip(&other.tables).all(|(mine, theirs)| mine.columns == theirs.columns)
    }
}
