//! The columns whose values are made up by chance, and the checks that replace equality there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::database::{Contents, Row, map_get};

/// The list that is committed beside the scripts; northd's own checks read it too.
const LIST: &str = include_str!("../../../tests/parity/columns-of-chance.txt");

/// One line of the list.
#[derive(Clone, Debug)]
pub(super) struct Chance {
    database: String,
    table: String,
    /// The rows meant, by their column "name"; all if `None`.
    row: Option<String>,
    column: String,
    key: Option<String>,
    rule: Rule,
}

impl Chance {
    fn covers_row(&self, row: &Row) -> bool {
        self.row.as_deref().is_none_or(|name| row.get("name").and_then(Value::as_str) == Some(name))
    }
}

#[derive(Clone, Debug)]
enum Rule {
    Any,
    Range(i64, i64),
    Unique(Vec<String>),
    Stable,
    Mac(usize),
    Timestamp,
}

/// A column, and what a reader calls the row.
pub(super) type Place = (String, String);

/// The values of one side in the columns that must be stable, as JSON.
pub(super) type Values = HashMap<Place, String>;

/// What the other side did that lets a stable value move on this one (on request of the CMS).
pub(super) struct Excuse<'a> {
    /// What has moved there and not yet here.
    pub(super) moved: &'a HashSet<Place>,
    /// What it has there now: a value that was given at once there may come later here.
    pub(super) values: &'a Values,
}

impl Excuse<'_> {
    fn covers(&self, place: &Place, value: &str) -> bool {
        self.moved.contains(place) || self.values.get(place).is_some_and(|other| other == value)
    }
}

/// The whole list.
#[derive(Clone, Debug)]
pub(super) struct Chances(Vec<Chance>);

impl Chances {
    /// Reads the committed list.
    pub(super) fn load() -> Result<Chances> {
        LIST.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| parse(line).with_context(|| format!("columns-of-chance.txt: {line}")))
            .collect::<Result<_>>()
            .map(Chances)
    }

    /// Whether a column of a row, or one key of a map column, is left out of the comparison.
    pub(super) fn covers(&self, database: &str, table: &str, row: &Row, column: &str, key: Option<&str>) -> bool {
        self.0.iter().any(|chance| {
            chance.database == database
                && chance.table == table
                && chance.column == column
                && chance.key.as_deref() == key
                && chance.covers_row(row)
        })
    }

    /// Checks one database by the rules; `name` tells rows apart in messages. `memory` holds the values of the previous
    /// comparison points of the same side, by column and row, for the rule `stable`; what did change is `moved`, and is
    /// broken unless the other side excuses it. Of a side without an `Excuse` anything may move.
    pub(super) fn check(
        &self,
        database: &str,
        contents: &Contents,
        name: impl Fn(&Row) -> String,
        memory: &mut Values,
        excuse: Option<&Excuse<'_>>,
        moved: &mut HashSet<Place>,
    ) -> Vec<String> {
        let mut broken = Vec::new();
        for chance in self.0.iter().filter(|chance| chance.database == database) {
            let rows = contents.rows(&chance.table);
            let column = format!("{}.{}", chance.table, chance.column);
            let mut complain = |row: &Row, what: String| broken.push(format!("{column} of {}: {what}", name(row)));
            let mut seen: BTreeMap<String, ()> = BTreeMap::new();
            let mut now = HashMap::new();
            for row in rows.iter().filter(|row| chance.covers_row(row) && row.contains_key(&chance.column)) {
                let value = match &chance.key {
                    None => row.get(&chance.column).cloned(),
                    Some(key) => map_get(row, &chance.column, key).map(Value::from),
                };
                let Some(value) = value else {
                    if !matches!(chance.rule, Rule::Any) {
                        complain(row, format!("{} is missing", chance.key.as_deref().unwrap_or("the column")));
                    }
                    continue;
                };
                match &chance.rule {
                    Rule::Any => {}
                    Rule::Range(low, high) => {
                        if !value.as_i64().is_some_and(|value| (*low..=*high).contains(&value)) {
                            complain(row, format!("{value} is not within {low} and {high}"));
                        }
                    }
                    Rule::Unique(scope) => {
                        let scope: Vec<_> = scope.iter().map(|column| row.get(column)).collect();
                        if seen.insert(format!("{scope:?} {value}"), ()).is_some() {
                            complain(row, format!("{value} is taken already"));
                        }
                    }
                    Rule::Stable => {
                        let place = (column.clone(), name(row));
                        let text = value.to_string();
                        if let Some(before) = memory.get(&place)
                            && *before != text
                        {
                            if excuse.is_some_and(|excuse| !excuse.covers(&place, &text)) {
                                complain(row, format!("was {before} and is now {value}"));
                            }
                            moved.insert(place.clone());
                        }
                        now.insert(place, text);
                    }
                    Rule::Mac(octets) => {
                        if !value.as_str().is_some_and(|text| is_mac(text, *octets)) {
                            complain(row, format!("{value} is not {octets} octets of an Ethernet address"));
                        }
                    }
                    Rule::Timestamp => {
                        let latest = SystemTime::now()
                            .duration_since(UNIX_EPOCH)
                            .map_or(0, |since| since.as_millis() as i64 + 1000);
                        let earliest = latest - 24 * 3600 * 1000;
                        if !value.as_i64().is_some_and(|value| value == 0 || (earliest..=latest).contains(&value)) {
                            complain(row, format!("{value} is neither 0 nor a recent time"));
                        }
                    }
                }
            }
            if matches!(chance.rule, Rule::Stable) {
                // A row that went and came back may have another value.
                memory.retain(|place, _| place.0 != column);
                memory.extend(now);
            }
        }
        broken
    }
}

fn is_mac(text: &str, octets: usize) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == octets && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

fn parse(line: &str) -> Result<Chance> {
    let mut words = line.split_whitespace();
    let mut word = |what: &str| words.next().with_context(|| format!("{what} is missing"));
    let database = word("the database")?.to_owned();
    let place = word("the column")?;
    let (table, column) = place.split_once('.').context("a column is written TABLE.COLUMN")?;
    let (table, row) = match table.split_once('[') {
        Some((table, row)) => (table, Some(row.trim_end_matches(']').to_owned())),
        None => (table, None),
    };
    let (column, key) = match column.split_once(':') {
        Some((column, key)) => (column, Some(key.to_owned())),
        None => (column, None),
    };
    let rule = match word("the rule")? {
        "any" => Rule::Any,
        "range" => Rule::Range(word("the low end")?.parse()?, word("the high end")?.parse()?),
        // The scope ends where the reason begins, at two or more spaces.
        "unique" => {
            let after = line.split_once("unique").map_or("", |(_, after)| after);
            let scope = after.split("  ").next().unwrap_or_default();
            Rule::Unique(scope.split_whitespace().map(str::to_owned).collect())
        }
        "stable" => Rule::Stable,
        "mac" => Rule::Mac(6),
        "mac-prefix" => Rule::Mac(3),
        "timestamp" => Rule::Timestamp,
        other => bail!("unknown rule {other}"),
    };
    Ok(Chance { database, table: table.to_owned(), row, column: column.to_owned(), key, rule })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_committed_list_is_well_formed() {
        let chances = Chances::load().unwrap();
        let mut row = Row::new();
        assert!(chances.covers("SB", "Port_Binding", &row, "tunnel_key", None));
        assert!(chances.covers("SB", "Logical_Flow", &row, "external_ids", Some("source")));
        assert!(!chances.covers("SB", "Logical_Flow", &row, "external_ids", None));
        assert!(!chances.covers("SB", "Address_Set", &row, "addresses", None));
        row.insert("name".into(), json!("svc_monitor_mac"));
        assert!(chances.covers("SB", "Address_Set", &row, "addresses", None));
    }

    #[test]
    fn broken_rules_are_reported() {
        let chances = Chances::load().unwrap();
        let mut contents = Contents::default();
        let binding = |port: &str, key: i64, datapath: &str| {
            let row = json!({"logical_port": port, "tunnel_key": key, "datapath": ["uuid", datapath]});
            row.as_object().unwrap().clone()
        };
        let name = |row: &Row| row["logical_port"].to_string();
        let mut memory = HashMap::new();
        let excuse = Excuse { moved: &HashSet::new(), values: &HashMap::new() };
        contents.tables.insert("Port_Binding".into(), vec![binding("a", 1, "x"), binding("b", 1, "y")]);
        assert_eq!(
            chances.check("SB", &contents, name, &mut memory, Some(&excuse), &mut HashSet::new()),
            Vec::<String>::new()
        );
        contents
            .tables
            .insert("Port_Binding".into(), vec![binding("a", 2, "x"), binding("b", 2, "x"), binding("c", 0, "x")]);
        let broken = chances.check("SB", &contents, name, &mut memory, Some(&excuse), &mut HashSet::new());
        assert_eq!(broken.len(), 4, "{broken:#?}");
    }

    #[test]
    fn a_stable_value_may_move_to_what_the_other_side_has_or_after_it_moved_there() {
        let chances = Chances::load().unwrap();
        let name = |row: &Row| row["logical_port"].to_string();
        let place = ("Port_Binding.tunnel_key".to_owned(), "\"a\"".to_owned());
        let moves_to = |key: i64, excuse: &Excuse<'_>| {
            let mut memory = HashMap::from([(place.clone(), "3".to_owned())]);
            let row = json!({"logical_port": "a", "tunnel_key": key, "datapath": ["uuid", "x"]});
            let mut contents = Contents::default();
            contents.tables.insert("Port_Binding".into(), vec![row.as_object().unwrap().clone()]);
            let mut moved = HashSet::new();
            let broken = chances.check("SB", &contents, name, &mut memory, Some(excuse), &mut moved);
            (broken.len(), moved.contains(&place))
        };
        let (nowhere, there) = (HashSet::new(), HashSet::from([place.clone()]));
        let values = HashMap::from([(place.clone(), "55".to_owned())]);
        assert_eq!(moves_to(3, &Excuse { moved: &nowhere, values: &values }), (0, false));
        assert_eq!(moves_to(55, &Excuse { moved: &nowhere, values: &values }), (0, true));
        assert_eq!(moves_to(56, &Excuse { moved: &nowhere, values: &values }), (1, true));
        assert_eq!(moves_to(56, &Excuse { moved: &there, values: &values }), (0, true));
    }
}
