//! The schema as a server has it (RFC 7047 section 3.2), as far as it decides how rows are decoded.

use std::collections::HashMap;

use serde::Deserialize;

use crate::layout::{DatabaseLayout, LayoutColumn, TableLayout};
use crate::{AnyColumn, AtomType, DatabaseDef, Multiplicity};

/// A `<database-schema>`.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerSchema {
    pub(crate) name: String,
    pub(crate) version: String,
    tables: HashMap<String, Table>,
}

#[derive(Debug, Deserialize)]
struct Table {
    columns: HashMap<String, Column>,
}

#[derive(Debug, Deserialize)]
struct Column {
    #[serde(rename = "type")]
    kind: Type,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Type {
    Scalar(String),
    Compound { key: Base, value: Option<Base>, min: Option<u64>, max: Option<Limit> },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Base {
    Plain(String),
    Constrained {
        #[serde(rename = "type")]
        kind: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Limit {
    Count(u64),
    /// "unlimited"
    #[expect(dead_code, reason = "untagged: the text is matched by its type alone")]
    Text(String),
}

impl Base {
    fn atom_type(&self) -> Option<AtomType> {
        match self {
            Base::Plain(name) | Base::Constrained { kind: name } => AtomType::from_name(name),
        }
    }
}

impl Column {
    /// Key type, value type and multiplicity; `None` for a type that RFC 7047 does not know.
    fn shape(&self) -> Option<(AtomType, Option<AtomType>, Multiplicity)> {
        match &self.kind {
            Type::Scalar(name) => Some((AtomType::from_name(name)?, None, Multiplicity::One)),
            Type::Compound { key, value, min, max } => {
                let value = match value {
                    Some(base) => Some(base.atom_type()?),
                    None => None,
                };
                let multiplicity = match (min.unwrap_or(1), max) {
                    (0, None | Some(Limit::Count(1))) => Multiplicity::Optional,
                    (_, None | Some(Limit::Count(1))) => Multiplicity::One,
                    _ => Multiplicity::Many,
                };
                Some((key.atom_type()?, value, multiplicity))
            }
        }
    }
}

impl ServerSchema {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The layout of the wanted columns that this server has. A column whose atoms have another type here than in the
    /// definition is left out, and named to `mismatch`.
    pub(crate) fn layout(
        &self,
        database: &'static DatabaseDef,
        wanted: impl Fn(AnyColumn) -> bool,
        mut mismatch: impl FnMut(AnyColumn),
    ) -> DatabaseLayout {
        let tables = database.tables.iter().map(|&table| {
            let server = self.tables.get(table.name);
            let columns = table.all_columns().filter(|&column| wanted(column)).filter_map(|column| {
                let (key, value, multiplicity) = server?.columns.get(column.name())?.shape()?;
                let shape = column.definition().shape;
                if (key, value) != (shape.key, shape.value) {
                    mismatch(column);
                    return None;
                }
                Some(LayoutColumn { index: column.index(), key, value, multiplicity })
            });
            TableLayout::new(table, columns.collect()).into()
        });
        DatabaseLayout { database, tables: tables.collect() }
    }
}
