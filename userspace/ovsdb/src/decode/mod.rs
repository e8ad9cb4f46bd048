//! Decoding updates straight into datums, driven by the layout: no JSON tree is built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::layout::{DatabaseLayout, LayoutColumn, TableLayout};
use crate::update::{RowUpdate, UpdateKind};
use crate::{Atom, AtomType, Datum, Text, Uuid};

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

/// The last strings of a column: neighbouring rows repeat them often, and then nothing needs interning.
#[derive(Debug, Default)]
struct RecentStrings {
    value: Option<Text>,
    /// By place in the map.
    keys: Vec<Text>,
}

impl RecentStrings {
    fn text(&mut self, text: &str) -> Text {
        match &self.value {
            Some(last) if **last == *text => last.clone(),
            _ => self.value.insert(Text::new(text)).clone(),
        }
    }

    fn key(&mut self, place: usize, text: &str) -> Text {
        // Long maps (addresses, options) do not repeat by place; remembering them would only hold on to strings.
        const REMEMBERED: usize = 8;
        match self.keys.get_mut(place) {
            Some(last) if **last == *text => last.clone(),
            Some(last) => {
                *last = Text::new(text);
                last.clone()
            }
            None => {
                let text = Text::new(text);
                if place == self.keys.len() && place < REMEMBERED {
                    self.keys.push(text.clone());
                }
                text
            }
        }
    }
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

struct UuidText;

impl<'de> DeserializeSeed<'de> for UuidText {
    type Value = Uuid;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Uuid, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for UuidText {
    type Value = Uuid;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Uuid, E> {
        text.parse().map_err(E::custom)
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

/// Decodes a value (RFC 7047 section 5.1) of a column.
struct DatumSeed<'a> {
    column: &'a LayoutColumn,
    recent: &'a mut RecentStrings,
}

impl<'de> DeserializeSeed<'de> for DatumSeed<'_> {
    type Value = Datum;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum, D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[derive(serde::Deserialize)]
enum Tag {
    #[serde(rename = "uuid")]
    Uuid,
    #[serde(rename = "set")]
    Set,
    #[serde(rename = "map")]
    Map,
}

impl<'de> Visitor<'de> for DatumSeed<'_> {
    type Value = Datum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {}", self.column.key.name())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Datum, E> {
        boolean(self.column.key, value).map(Datum::One)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Datum, E> {
        integer(self.column.key, value).map(Datum::One)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Datum, E> {
        unsigned(self.column.key, value).map(Datum::One)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Datum, E> {
        real(self.column.key, value).map(Datum::One)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Datum, E> {
        string(self.column.key, value, |text| self.recent.text(text)).map(Datum::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Datum, A::Error> {
        let missing = || A::Error::custom("value array without content");
        match seq.next_element::<Tag>()?.ok_or_else(missing)? {
            Tag::Uuid => uuid(self.column.key, seq.next_element_seed(UuidText)?.ok_or_else(missing)?).map(Datum::One),
            Tag::Set => seq.next_element_seed(SetSeed { element: self.column.key })?.ok_or_else(missing),
            Tag::Map => {
                let Some(value) = self.column.value else {
                    return Err(A::Error::custom("map in a column that is none"));
                };
                seq.next_element_seed(MapSeed { key: self.column.key, value, recent: self.recent })?.ok_or_else(missing)
            }
        }
    }
}

struct SetSeed {
    element: AtomType,
}

impl<'de> DeserializeSeed<'de> for SetSeed {
    type Value = Datum;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for SetSeed {
    type Value = Datum;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of type {}", self.element.name())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Datum, A::Error> {
        let Some(first) = seq.next_element_seed(AtomSeed::plain(self.element))? else { return Ok(Datum::Empty) };
        let Some(second) = seq.next_element_seed(AtomSeed::plain(self.element))? else { return Ok(Datum::One(first)) };
        let mut atoms = vec![first, second];
        while let Some(atom) = seq.next_element_seed(AtomSeed::plain(self.element))? {
            atoms.push(atom);
        }
        Ok(Datum::set(atoms))
    }
}

struct MapSeed<'a> {
    key: AtomType,
    value: AtomType,
    recent: &'a mut RecentStrings,
}

impl<'de> DeserializeSeed<'de> for MapSeed<'_> {
    type Value = Datum;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MapSeed<'_> {
    type Value = Datum;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of pairs")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Datum, A::Error> {
        let mut pairs = Vec::new();
        loop {
            let pair = PairSeed { key: self.key, value: self.value, place: pairs.len(), recent: self.recent };
            match seq.next_element_seed(pair)? {
                Some(pair) => pairs.push(pair),
                None => return Ok(Datum::map(pairs)),
            }
        }
    }
}

struct PairSeed<'a> {
    key: AtomType,
    value: AtomType,
    place: usize,
    recent: &'a mut RecentStrings,
}

impl<'de> DeserializeSeed<'de> for PairSeed<'_> {
    type Value = (Atom, Atom);
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PairSeed<'_> {
    type Value = (Atom, Atom);
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key and a value")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let missing = || A::Error::custom("incomplete pair");
        let key = AtomSeed { kind: self.key, recent: Some((self.recent, self.place)) };
        let key = seq.next_element_seed(key)?.ok_or_else(missing)?;
        let value = seq.next_element_seed(AtomSeed::plain(self.value))?.ok_or_else(missing)?;
        Ok((key, value))
    }
}

/// Decodes an `<atom>`.
struct AtomSeed<'a> {
    kind: AtomType,
    /// For a map's key: what was at its place before.
    recent: Option<(&'a mut RecentStrings, usize)>,
}

impl AtomSeed<'_> {
    fn plain(kind: AtomType) -> Self {
        AtomSeed { kind, recent: None }
    }
}

impl<'de> DeserializeSeed<'de> for AtomSeed<'_> {
    type Value = Atom;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Atom, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtomSeed<'_> {
    type Value = Atom;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an atom of type {}", self.kind.name())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Atom, E> {
        boolean(self.kind, value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Atom, E> {
        integer(self.kind, value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Atom, E> {
        unsigned(self.kind, value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Atom, E> {
        real(self.kind, value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Atom, E> {
        string(self.kind, value, |text| match self.recent {
            Some((recent, place)) => recent.key(place, text),
            None => Text::new(text),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Atom, A::Error> {
        match (seq.next_element::<Tag>()?, seq.next_element_seed(UuidText)?) {
            (Some(Tag::Uuid), Some(value)) => uuid(self.kind, value),
            _ => Err(A::Error::custom("array that is not a UUID where an atom belongs")),
        }
    }
}

fn mismatch<E: Error>(expected: AtomType, found: &str) -> E {
    E::custom(format_args!("{found} where type {} belongs", expected.name()))
}

fn boolean<E: Error>(kind: AtomType, value: bool) -> Result<Atom, E> {
    if kind == AtomType::Boolean { Ok(Atom::Boolean(value)) } else { Err(mismatch(kind, "boolean")) }
}

fn integer<E: Error>(kind: AtomType, value: i64) -> Result<Atom, E> {
    match kind {
        AtomType::Integer => Ok(Atom::Integer(value)),
        AtomType::Real => Ok(Atom::Real(value as f64)),
        _ => Err(mismatch(kind, "integer")),
    }
}

fn unsigned<E: Error>(kind: AtomType, value: u64) -> Result<Atom, E> {
    match i64::try_from(value) {
        Ok(value) => integer(kind, value),
        Err(_) if kind == AtomType::Real => Ok(Atom::Real(value as f64)),
        Err(_) => Err(mismatch(kind, "integer beyond 64 bits")),
    }
}

fn real<E: Error>(kind: AtomType, value: f64) -> Result<Atom, E> {
    if kind == AtomType::Real { Ok(Atom::Real(value)) } else { Err(mismatch(kind, "real")) }
}

fn string<E: Error>(kind: AtomType, value: &str, intern: impl FnOnce(&str) -> Text) -> Result<Atom, E> {
    if kind == AtomType::String { Ok(Atom::String(intern(value))) } else { Err(mismatch(kind, "string")) }
}

fn uuid<E: Error>(kind: AtomType, value: Uuid) -> Result<Atom, E> {
    if kind == AtomType::Uuid { Ok(Atom::Uuid(value)) } else { Err(mismatch(kind, "UUID")) }
}

#[cfg(test)]
mod tests;
