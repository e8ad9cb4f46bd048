//! Decoding updates straight into datums, driven by the layout: no JSON tree is built.

mod value;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::layout::{DatabaseLayout, LayoutColumn, TableLayout};
use crate::update::{RowUpdate, UpdateKind};
use crate::{AnyColumn, Atom, Datum};
use value::{DatumSeed, RecentStrings, UuidText};

/// The three notations in which rows are sent or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    /// `<table-updates>` of RFC 7047 section 4.1.6: `{"old": …, "new": …}`.
    Update,
    /// `<table-updates2>` of ovsdb-server(7) section 4.1.14: `initial`, `insert`, `modify`, `delete`.
    Update2,
    /// A transaction record of ovsdb(5): the row's changed columns, or null.
    File,
}

/// Decodes updates for one layout, and remembers what speeds up the next: the order of columns and the last strings.
#[derive(Debug)]
pub(crate) struct Decoder {
    layout: DatabaseLayout,
    memory: Box<[TableMemory]>,
}

/// What a table's rows looked like so far. Servers write the columns of a table's rows in one order.
#[derive(Debug, Default)]
struct TableMemory {
    /// By place in the row: the slot of the column that was there last.
    order: Vec<usize>,
    /// By slot: the strings that the column had last.
    strings: Box<[RecentStrings]>,
    defaults: Box<[Datum]>,
}

impl Decoder {
    pub(crate) fn new(layout: DatabaseLayout) -> Self {
        let memory = layout
            .tables
            .iter()
            .map(|table| TableMemory {
                order: Vec::new(),
                strings: table.columns().iter().map(|_| RecentStrings::default()).collect(),
                defaults: table.columns().iter().map(LayoutColumn::default_datum).collect(),
            })
            .collect();
        Decoder { layout, memory }
    }

    pub(crate) fn layout(&self) -> &DatabaseLayout {
        &self.layout
    }

    /// A seed that decodes `<table-updates>` or its like and appends what it says to `rows`.
    pub(crate) fn tables<'a>(&'a mut self, notation: Notation, rows: &'a mut Vec<RowUpdate>) -> TablesSeed<'a> {
        TablesSeed { decoder: self, notation, rows }
    }

    /// Decodes a whole `<table-updates>`.
    pub(crate) fn decode(&mut self, notation: Notation, json: &[u8]) -> Result<Vec<RowUpdate>, serde_json::Error> {
        let mut rows = Vec::new();
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        self.tables(notation, &mut rows).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(rows)
    }
}

/// Reads a value that stands alone, by the types of the column's definition.
pub(crate) fn value_of(column: AnyColumn, value: &serde_json::Value) -> Result<Datum, serde_json::Error> {
    let layout = LayoutColumn::new(column.index(), column.definition().shape);
    DatumSeed { column: &layout, recent: &mut RecentStrings::default() }.deserialize(value)
}

impl LayoutColumn {
    /// What a row has in this column when the server does not say.
    pub(crate) fn default_datum(&self) -> Datum {
        match self.multiplicity {
            crate::Multiplicity::One => Datum::One(Atom::default_of(self.key)),
            _ => Datum::Empty,
        }
    }
}

/// Decodes the object that maps table names to rows.
pub(crate) struct TablesSeed<'a> {
    decoder: &'a mut Decoder,
    notation: Notation,
    rows: &'a mut Vec<RowUpdate>,
}

impl<'de> DeserializeSeed<'de> for TablesSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TablesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(table) = map.next_key_seed(TableKey { layout: &self.decoder.layout })? {
            let Some(table) = table else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let seed = RowsSeed {
                table,
                layout: &self.decoder.layout.tables[table],
                memory: &mut self.decoder.memory[table],
                notation: self.notation,
                rows: self.rows,
            };
            map.next_value_seed(seed)?;
        }
        Ok(())
    }
}

/// A table's name: its index, or `None` for a table that is not ours (or a file's `_date` and the like).
struct TableKey<'a> {
    layout: &'a DatabaseLayout,
}

impl<'de> DeserializeSeed<'de> for TableKey<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for TableKey<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        let found = self.layout.tables.iter().position(|table| table.table().name == name);
        Ok(found.filter(|&table| self.layout.tables[table].slot_count() > 0))
    }
}

/// Decodes the object that maps row identifiers to what became of the rows.
struct RowsSeed<'a> {
    table: usize,
    layout: &'a TableLayout,
    memory: &'a mut TableMemory,
    notation: Notation,
    rows: &'a mut Vec<RowUpdate>,
}

impl<'de> DeserializeSeed<'de> for RowsSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of {} rows", self.layout.table().name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(uuid) = map.next_key_seed(UuidText)? {
            let row = RowSeed { layout: self.layout, memory: self.memory };
            let kind = match self.notation {
                Notation::Update2 => map.next_value_seed(Update2Seed(row))?,
                Notation::Update => map.next_value_seed(UpdateSeed(row))?,
                Notation::File => {
                    map.next_value_seed(NullableRow(row))?.map_or(UpdateKind::Delete, UpdateKind::Difference)
                }
            };
            self.rows.push(RowUpdate { table: self.table as u16, uuid, kind });
        }
        Ok(())
    }
}

/// `{"initial": row}`, `{"insert": row}`, `{"modify": row}` or `{"delete": null}`.
struct Update2Seed<'a>(RowSeed<'a>);

impl<'de> DeserializeSeed<'de> for Update2Seed<'_> {
    type Value = UpdateKind;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<UpdateKind, D::Error> {
        deserializer.deserialize_map(self)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Update2Key {
    Initial,
    Insert,
    Modify,
    Delete,
}

impl<'de> Visitor<'de> for Update2Seed<'_> {
    type Value = UpdateKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row update")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UpdateKind, A::Error> {
        let key = map.next_key::<Update2Key>()?.ok_or_else(|| A::Error::custom("empty row update"))?;
        Ok(match key {
            Update2Key::Initial | Update2Key::Insert => UpdateKind::Whole(map.next_value_seed(WholeRow(self.0))?),
            Update2Key::Modify => UpdateKind::Difference(map.next_value_seed(self.0)?),
            Update2Key::Delete => {
                map.next_value::<IgnoredAny>()?;
                UpdateKind::Delete
            }
        })
    }
}

/// `{"old": row, "new": row}`, each optional.
struct UpdateSeed<'a>(RowSeed<'a>);

impl<'de> DeserializeSeed<'de> for UpdateSeed<'_> {
    type Value = UpdateKind;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<UpdateKind, D::Error> {
        deserializer.deserialize_map(self)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum UpdateKey {
    Old,
    New,
}

impl<'de> Visitor<'de> for UpdateSeed<'_> {
    type Value = UpdateKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row update")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UpdateKind, A::Error> {
        let UpdateSeed(RowSeed { layout, memory }) = self;
        let mut kind = UpdateKind::Delete;
        while let Some(key) = map.next_key::<UpdateKey>()? {
            match key {
                UpdateKey::New => kind = UpdateKind::Whole(map.next_value_seed(WholeRow(RowSeed { layout, memory }))?),
                UpdateKey::Old => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(kind)
    }
}

/// Decodes a row's columns as (slot, datum).
struct RowSeed<'a> {
    layout: &'a TableLayout,
    memory: &'a mut TableMemory,
}

impl RowSeed<'_> {
    fn columns<'de, A: MapAccess<'de>>(self, mut map: A, mut store: impl FnMut(usize, Datum)) -> Result<(), A::Error> {
        let mut place = 0;
        loop {
            let guess = self.memory.order.get(place).copied();
            let Some(slot) = map.next_key_seed(ColumnKey { layout: self.layout, guess })? else { return Ok(()) };
            let Some(slot) = slot else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if guess != Some(slot) {
                self.memory.order.truncate(place);
                self.memory.order.push(slot);
            }
            place += 1;
            let column = &self.layout.columns()[slot];
            store(slot, map.next_value_seed(DatumSeed { column, recent: &mut self.memory.strings[slot] })?);
        }
    }
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Vec<(u16, Datum)>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Vec<(u16, Datum)>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a row of {}", self.layout.table().name)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let mut columns = Vec::new();
        self.columns(map, |slot, datum| columns.push((slot as u16, datum)))?;
        Ok(columns)
    }
}

/// A whole row, columns that are not mentioned at their defaults.
struct WholeRow<'a>(RowSeed<'a>);

impl<'de> DeserializeSeed<'de> for WholeRow<'_> {
    type Value = Box<[Datum]>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WholeRow<'_> {
    type Value = Box<[Datum]>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let mut data = self.0.memory.defaults.clone();
        self.0.columns(map, |slot, datum| data[slot] = datum)?;
        Ok(data)
    }
}

/// A row's columns, or null.
struct NullableRow<'a>(RowSeed<'a>);

impl<'de> DeserializeSeed<'de> for NullableRow<'_> {
    type Value = Option<Vec<(u16, Datum)>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for NullableRow<'_> {
    type Value = Option<Vec<(u16, Datum)>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

struct ColumnKey<'a> {
    layout: &'a TableLayout,
    guess: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for ColumnKey<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ColumnKey<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        if let Some(guess) = self.guess
            && self.layout.name(guess) == name
        {
            return Ok(Some(guess));
        }
        Ok((0..self.layout.slot_count()).find(|&slot| self.layout.name(slot) == name))
    }
}

#[cfg(test)]
mod tests;
