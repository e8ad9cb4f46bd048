//! Table definitions: read from an `.ovsschema` file or from our own list, merged, and written as our own list.
//!
//! The list has a line per column: `name type [since VERSION]`. A type is an atom type (`integer`, `real`, `boolean`,
//! `string`, `uuid`), `uuid>Table` for a strong and `uuid~Table` for a weak reference; `?` behind it means none or one,
//! `*` any number; a map is `{key: value}`.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// A database: its tables by name.
pub(super) struct Database {
    pub(super) name: String,
    pub(super) versions: Vec<String>,
    pub(super) tables: BTreeMap<String, Table>,
}

/// A table: its columns by name.
#[derive(Default)]
pub(super) struct Table {
    pub(super) is_root: bool,
    pub(super) since: Option<String>,
    pub(super) columns: BTreeMap<String, Column>,
}

/// A column. `since` is the first of the merged versions that has it, unless all have it.
pub(super) struct Column {
    pub(super) kind: Type,
    pub(super) since: Option<String>,
}

/// A column's type.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Type {
    Elements { base: Base, multiplicity: Multiplicity },
    Map { key: Base, value: Base },
}

/// An atom type with what it refers to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) atom: String,
    /// Table name and whether the reference is strong.
    pub(super) reference: Option<(String, bool)>,
}

/// How many elements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Multiplicity {
    One,
    Optional,
    Many,
}

impl Database {
    pub(super) fn empty(name: &str) -> Self {
        Database { name: name.to_owned(), versions: Vec::new(), tables: BTreeMap::new() }
    }

    /// Reads a database schema (RFC 7047 section 3.2).
    pub(super) fn from_ovsschema(text: &str) -> Result<Self> {
        let schema: Value = serde_json::from_str(text)?;
        let text_of = |key: &str| schema[key].as_str().map(str::to_owned).ok_or_else(|| anyhow!("no {key}"));
        let mut database =
            Database { name: text_of("name")?, versions: vec![text_of("version")?], tables: BTreeMap::new() };
        for (name, table) in schema["tables"].as_object().context("no tables")? {
            // Schemas that never say isRoot have every table in the root set.
            let mut parsed = Table { is_root: table["isRoot"].as_bool().unwrap_or(false), ..Table::default() };
            for (column, definition) in table["columns"].as_object().with_context(|| format!("{name}: no columns"))? {
                let kind = Type::from_schema(&definition["type"]).with_context(|| format!("{name}.{column}"))?;
                parsed.columns.insert(column.clone(), Column { kind, since: None });
            }
            database.tables.insert(name.clone(), parsed);
        }
        Ok(database)
    }

    /// Adds what a newer version has; where a column's type differs the wider stays.
    pub(super) fn merge(&mut self, newer: Database) {
        let version = newer.versions.first().cloned().unwrap_or_default();
        let since = (!self.versions.is_empty()).then(|| version.clone());
        if !self.versions.contains(&version) {
            self.versions.push(version);
        }
        for (name, table) in newer.tables {
            let known = self.tables.contains_key(&name);
            let present = self.tables.entry(name).or_default();
            if !known {
                present.since.clone_from(&since);
                present.is_root = table.is_root;
            }
            for (column, definition) in table.columns {
                // A column of a new table is as old as its table.
                let since = if known { since.clone() } else { None };
                let entry = present.columns.entry(column).or_insert(Column { kind: definition.kind.clone(), since });
                entry.kind.widen(definition.kind);
            }
        }
    }

    /// Writes the list.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("database {}\nversions {}\n", self.name, self.versions.join(" "));
        for (name, table) in &self.tables {
            text += &format!("\ntable {name}{}", if table.is_root { " root" } else { "" });
            text += &since_suffix(&table.since);
            text.push('\n');
            for (name, column) in &table.columns {
                text += &format!("  {name} {}{}\n", column.kind, since_suffix(&column.since));
            }
        }
        text
    }

    /// Reads the list.
    pub(super) fn from_text(text: &str) -> Result<Self> {
        let mut database = Database::empty("");
        let mut current: Option<String> = None;
        for (number, line) in text.lines().enumerate() {
            let place = || format!("line {}: {line:?}", number + 1);
            let (line, since) = match line.split_once(" since ") {
                Some((line, since)) => (line, Some(since.to_owned())),
                None => (line, None),
            };
            if let Some(column) = line.strip_prefix("  ") {
                let (name, kind) = column.split_once(' ').with_context(place)?;
                let kind = Type::from_text(kind).with_context(place)?;
                let table = current.as_ref().and_then(|name| database.tables.get_mut(name)).with_context(place)?;
                table.columns.insert(name.to_owned(), Column { kind, since });
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                [""] => {}
                ["database", name] => database.name = (*name).to_owned(),
                ["versions", versions @ ..] => {
                    database.versions = versions.iter().map(|&version| version.to_owned()).collect()
                }
                ["table", name, root @ ..] if matches!(root, [] | ["root"]) => {
                    let table = Table { is_root: !root.is_empty(), since, ..Table::default() };
                    database.tables.insert((*name).to_owned(), table);
                    current = Some((*name).to_owned());
                }
                _ => bail!(place()),
            }
        }
        Ok(database)
    }
}

fn since_suffix(since: &Option<String>) -> String {
    since.as_ref().map(|version| format!(" since {version}")).unwrap_or_default()
}

impl Type {
    fn from_schema(value: &Value) -> Result<Self> {
        let Some(object) = value.as_object() else {
            return Ok(Type::Elements { base: Base::from_schema(value)?, multiplicity: Multiplicity::One });
        };
        let key = Base::from_schema(object.get("key").context("no key")?)?;
        if let Some(value) = object.get("value") {
            return Ok(Type::Map { key, value: Base::from_schema(value)? });
        }
        let limit = |name: &str| object.get(name).map_or(Some(1), Value::as_u64);
        let multiplicity = match (limit("min"), limit("max")) {
            (Some(1), Some(1)) => Multiplicity::One,
            (_, Some(1)) => Multiplicity::Optional,
            _ => Multiplicity::Many,
        };
        Ok(Type::Elements { base: key, multiplicity })
    }

    fn from_text(text: &str) -> Result<Self> {
        if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let (key, value) = inner.split_once(": ").context("a map is {key: value}")?;
            return Ok(Type::Map { key: Base::from_text(key)?, value: Base::from_text(value)? });
        }
        let (base, multiplicity) = match (text.strip_suffix('?'), text.strip_suffix('*')) {
            (Some(base), _) => (base, Multiplicity::Optional),
            (_, Some(base)) => (base, Multiplicity::Many),
            _ => (text, Multiplicity::One),
        };
        Ok(Type::Elements { base: Base::from_text(base)?, multiplicity })
    }

    fn widen(&mut self, other: Type) {
        if let (Type::Elements { multiplicity, .. }, Type::Elements { multiplicity: newer, .. }) = (self, other) {
            *multiplicity = (*multiplicity).max(newer);
        }
    }
}

const ATOMS: [&str; 5] = ["integer", "real", "boolean", "string", "uuid"];

impl Base {
    fn from_schema(value: &Value) -> Result<Self> {
        let (atom, reference) = match value {
            Value::String(atom) => (atom.as_str(), None),
            _ => {
                let table = value["refTable"].as_str();
                let strong = value["refType"].as_str() != Some("weak");
                (value["type"].as_str().context("no type")?, table.map(|table| (table.to_owned(), strong)))
            }
        };
        if !ATOMS.contains(&atom) {
            bail!("unknown type {atom}");
        }
        Ok(Base { atom: atom.to_owned(), reference })
    }

    fn from_text(text: &str) -> Result<Self> {
        let (atom, reference) = match (text.split_once('>'), text.split_once('~')) {
            (Some((atom, table)), _) => (atom, Some((table.to_owned(), true))),
            (_, Some((atom, table))) => (atom, Some((table.to_owned(), false))),
            _ => (text, None),
        };
        if !ATOMS.contains(&atom) {
            bail!("unknown type {atom}");
        }
        Ok(Base { atom: atom.to_owned(), reference })
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.atom)?;
        match &self.reference {
            Some((table, true)) => write!(f, ">{table}"),
            Some((table, false)) => write!(f, "~{table}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Elements { base, multiplicity: Multiplicity::One } => write!(f, "{base}"),
            Type::Elements { base, multiplicity: Multiplicity::Optional } => write!(f, "{base}?"),
            Type::Elements { base, multiplicity: Multiplicity::Many } => write!(f, "{base}*"),
            Type::Map { key, value } => write!(f, "{{{key}: {value}}}"),
        }
    }
}
