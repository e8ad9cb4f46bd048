//! Decoding values (RFC 7047 section 5.1): atoms, sets and maps of a column's types.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use crate::layout::LayoutColumn;
use crate::{Atom, AtomType, Datum, Text, Uuid};

/// The last strings of a column: neighbouring rows repeat them often, and then nothing needs interning.
#[derive(Debug, Default)]
pub(super) struct RecentStrings {
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

/// A UUID as bare text.
pub(super) struct UuidText;

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

/// Decodes a value (RFC 7047 section 5.1) of a column.
pub(super) struct DatumSeed<'a> {
    pub(super) column: &'a LayoutColumn,
    pub(super) recent: &'a mut RecentStrings,
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
