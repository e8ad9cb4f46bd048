//! What the program knows of a database at compile time: its tables, their columns and the types of these.
//!
//! A definition is the union of the schema versions the program works with. What a server has is found out at run time;
//! the intersection is a [`TableLayout`](crate::layout::TableLayout).

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::AtomType;

/// A database and its tables.
#[derive(Debug)]
pub struct DatabaseDef {
    /// The name servers know it by, such as `OVN_Southbound`.
    pub name: &'static str,
    /// Its tables; a table's [`index`](TableDef::index) is its place here.
    pub tables: &'static [&'static TableDef],
}

impl DatabaseDef {
    /// The table called `name`.
    pub fn table(&self, name: &str) -> Option<&'static TableDef> {
        self.tables.iter().copied().find(|table| table.name == name)
    }
}

/// A table of a database. Two are equal when they are the same table of the same database.
pub struct TableDef {
    /// The name of its database.
    pub database: &'static str,
    /// Its name, such as `Port_Binding`.
    pub name: &'static str,
    /// Its place in [`DatabaseDef::tables`].
    pub index: u16,
    /// Whether its rows live without being referred to (RFC 7047 section 3.2, `isRoot`).
    pub is_root: bool,
    /// Its columns, at most 64; `_uuid` and `_version` are not among them.
    pub columns: &'static [ColumnDef],
}

impl TableDef {
    /// The column called `name`.
    pub fn column(&'static self, name: &str) -> Option<crate::AnyColumn> {
        let index = self.columns.iter().position(|column| column.name == name)?;
        Some(crate::AnyColumn::new(self, index as u16))
    }

    /// Every column, in the order of [`columns`](TableDef::columns).
    pub fn all_columns(&'static self) -> impl Iterator<Item = crate::AnyColumn> {
        (0..self.columns.len() as u16).map(move |index| crate::AnyColumn::new(self, index))
    }
}

impl PartialEq for TableDef {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.index == other.index && self.name == other.name && self.database == other.database)
    }
}

impl Eq for TableDef {}

impl Hash for TableDef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

impl fmt::Debug for TableDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A column of a table.
#[derive(Debug)]
pub struct ColumnDef {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub shape: ColumnShape,
}

/// The type of a column (RFC 7047 section 3.2, `<type>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnShape {
    /// Type of the elements, or of a map's keys.
    pub key: AtomType,
    /// Type of a map's values; `None` for a scalar or set.
    pub value: Option<AtomType>,
    /// How many elements there may be.
    pub multiplicity: Multiplicity,
    /// The table that elements or keys refer to, when they are references.
    pub key_reference: Option<Reference>,
    /// The table that a map's values refer to, when they are references.
    pub value_reference: Option<Reference>,
}

/// How many elements a column holds; exact limits above one are the server's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplicity {
    /// Exactly one.
    One,
    /// None or one.
    Optional,
    /// Any number.
    Many,
}

/// What a uuid refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name of the table whose rows it names.
    pub table: &'static str,
    /// A strong reference keeps its row alive; a weak one goes away with it.
    pub strong: bool,
}
