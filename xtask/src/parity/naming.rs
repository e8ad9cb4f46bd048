//! Names for rows, so that two databases with different uuids can be compared.
//!
//! A row is named by what a person would call it: `Logical_Switch/sw0`. One without a name of its own is named by a digest
//! of its contents, and if two are alike by those that refer to it too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

use super::chance::Chances;
use super::database::{Contents, Row, as_uuid, elements, map_get, pairs, row_uuid};

/// Length of a uuid's text.
const UUID_LEN: usize = 36;
/// Hexadecimal digits of a uuid that a stage hint carries (ovn-sb(5), Logical_Flow external_ids:stage-hint).
const HINT_LEN: usize = 8;

/// Names of the rows of a Northbound database and of the Southbound one made from it.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_uuid: HashMap<String, String>,
    by_hint: HashMap<String, String>,
    datapath_by_key: HashMap<i64, String>,
}

impl Names {
    /// Names every row of both databases.
    pub(super) fn new(nb: &Contents, sb: &Contents, chances: &Chances) -> Names {
        let mut names = Names::default();
        names.add("NB", nb, chances, |_, _| None);
        for (uuid, name) in &names.by_uuid {
            names.by_hint.insert(uuid[..HINT_LEN].to_owned(), name.clone());
        }
        let datapath = |names: &Names, row: &Row| {
            let uuid = map_get(row, "external_ids", "logical-switch")
                .or_else(|| map_get(row, "external_ids", "logical-router"))?;
            names.by_uuid.get(uuid).map(|name| format!("Datapath_Binding/{name}"))
        };
        // Datapaths first: other rows are named after theirs.
        for row in sb.rows("Datapath_Binding") {
            if let Some(name) = datapath(&names, row) {
                if let Some(key) = row.get("tunnel_key").and_then(Value::as_i64) {
                    names.datapath_by_key.insert(key, name.clone());
                }
                names.by_uuid.insert(row_uuid(row).to_owned(), name);
            }
        }
        names.add("SB", sb, chances, |names, (table, row)| match table {
            "Datapath_Binding" => names.by_uuid.get(row_uuid(row)).cloned(),
            "Port_Binding" => Some(format!("Port_Binding/{}", row.get("logical_port")?.as_str()?)),
            "Port_Group" => Some(format!("Port_Group/{}", names.port_group(row.get("name")?.as_str()?))),
            "Multicast_Group" => {
                let datapath = names.by_uuid.get(row.get("datapath").and_then(as_uuid)?)?;
                Some(format!("Multicast_Group/{}/{datapath}", row.get("name")?.as_str()?))
            }
            _ => None,
        });
        names
    }

    /// Names the rows of one database: by `special`, else by a unique name column, else by contents.
    fn add(
        &mut self,
        database: &str,
        contents: &Contents,
        chances: &Chances,
        special: impl Fn(&Names, (&str, &Row)) -> Option<String>,
    ) {
        let mut referrers: HashMap<&str, Vec<&str>> = HashMap::new();
        for row in contents.tables.values().flatten() {
            for value in row.iter().filter(|(column, _)| *column != "_uuid").map(|(_, value)| value) {
                for target in references(value) {
                    referrers.entry(target).or_default().push(row_uuid(row));
                }
            }
        }
        let mut anonymous: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (table, rows) in &contents.tables {
            let mut counts: HashMap<&str, usize> = HashMap::new();
            let own = |row: &'_ Row| -> Option<String> {
                row.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
            };
            for row in rows {
                if let Some(name) = row.get("name").and_then(Value::as_str) {
                    *counts.entry(name).or_default() += 1;
                }
            }
            for row in rows {
                let only = || (rows.len() == 1 && table.ends_with("_Global")).then(|| table.clone());
                let name = special(self, (table, row)).or_else(only).or_else(|| {
                    own(row).filter(|name| counts[name.as_str()] == 1).map(|name| format!("{table}/{name}"))
                });
                match name {
                    Some(name) => {
                        self.by_uuid.insert(row_uuid(row).to_owned(), name);
                    }
                    None => {
                        let digest = self.digest(database, table, row, chances);
                        anonymous.entry(format!("{table}#{digest:08x}")).or_default().push(row_uuid(row));
                    }
                }
            }
        }
        for (name, rows) in anonymous {
            let alike = rows.len() > 1;
            for uuid in rows {
                let mut full = name.clone();
                if alike {
                    let mut by: Vec<&str> = referrers
                        .get(uuid)
                        .into_iter()
                        .flatten()
                        .filter_map(|referrer| self.by_uuid.get(*referrer))
                        .map(String::as_str)
                        .collect();
                    by.sort_unstable();
                    full = format!("{name}@{}", by.join("+"));
                }
                self.by_uuid.insert(uuid.to_owned(), full);
            }
        }
    }

    /// A digest of what a row says itself: no references, nothing of chance.
    fn digest(&self, database: &str, table: &str, row: &Row, chances: &Chances) -> u32 {
        let mut hasher = DefaultHasher::new();
        for (column, value) in row {
            if column.starts_with('_')
                || !references(value).is_empty()
                || chances.covers(database, table, row, column, None)
            {
                continue;
            }
            column.hash(&mut hasher);
            match value.as_array().and_then(|tagged| tagged.first()).is_some_and(|tag| tag == "map") {
                true => {
                    for (key, value) in
                        pairs(value).iter().filter(|(key, _)| !chances.covers(database, table, row, column, Some(key)))
                    {
                        self.pair(key, value).hash(&mut hasher);
                    }
                }
                false => self.text(value).hash(&mut hasher),
            }
        }
        hasher.finish() as u32
    }

    /// The name of a row.
    pub(super) fn of(&self, row: &Row) -> String {
        self.uuid(row_uuid(row))
    }

    /// The name of the row with this uuid; a uuid that no row has is called dangling.
    pub(super) fn uuid(&self, uuid: &str) -> String {
        self.by_uuid.get(uuid).cloned().unwrap_or_else(|| "<dangling>".to_owned())
    }

    /// The name of a Southbound port group, its leading tunnel key replaced by the datapath.
    pub(super) fn port_group(&self, name: &str) -> String {
        let named = name.split_once('_').and_then(|(key, rest)| {
            let datapath = self.datapath_by_key.get(&key.parse().ok()?)?;
            Some(format!("<{datapath}>_{rest}"))
        });
        named.unwrap_or_else(|| name.to_owned())
    }

    /// A value as text without uuids: sets and maps in order of their texts.
    pub(super) fn text(&self, value: &Value) -> String {
        if let Some(uuid) = as_uuid(value) {
            return self.uuid(uuid);
        }
        match value {
            Value::String(text) => self.replace_uuids(text),
            Value::Array(tagged) if tagged.first().is_some_and(|tag| tag == "map") => {
                let mut texts: Vec<String> =
                    pairs(value).into_iter().map(|(key, value)| self.pair(key, value)).collect();
                texts.sort_unstable();
                format!("{{{}}}", texts.join(", "))
            }
            Value::Array(_) => {
                let mut texts: Vec<String> = elements(value).into_iter().map(|value| self.text(value)).collect();
                texts.sort_unstable();
                format!("[{}]", texts.join(", "))
            }
            other => other.to_string(),
        }
    }

    /// A pair of a map as text.
    pub(super) fn pair(&self, key: &str, value: &Value) -> String {
        let value = match value.as_str() {
            Some(hint) if key == "stage-hint" => {
                self.by_hint.get(hint).cloned().unwrap_or_else(|| "<dangling>".to_owned())
            }
            _ => self.text(value),
        };
        format!("{}={value}", self.replace_uuids(key))
    }

    /// Replaces every uuid that occurs in a text and belongs to a row.
    fn replace_uuids(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dash) = rest.find('-') {
            let start = dash.checked_sub(HINT_LEN);
            let candidate = start.and_then(|start| rest.get(start..start + UUID_LEN));
            match (start, candidate.and_then(|uuid| self.by_uuid.get(uuid))) {
                (Some(start), Some(name)) => {
                    out.push_str(&rest[..start]);
                    out.push('<');
                    out.push_str(name);
                    out.push('>');
                    rest = &rest[start + UUID_LEN..];
                }
                _ => {
                    out.push_str(&rest[..=dash]);
                    rest = &rest[dash + 1..];
                }
            }
        }
        out.push_str(rest);
        out
    }
}

fn references(value: &Value) -> HashSet<&str> {
    match value {
        Value::Array(items) => match as_uuid(value) {
            Some(uuid) => HashSet::from([uuid]),
            None => items.iter().flat_map(references).collect(),
        },
        _ => HashSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    const SWITCH: &str = "11111111-0000-4000-8000-000000000001";
    const ACL_A: &str = "22222222-0000-4000-8000-000000000001";
    const ACL_B: &str = "22222222-0000-4000-8000-000000000002";
    const DATAPATH: &str = "33333333-0000-4000-8000-000000000001";

    fn names() -> Names {
        let mut nb = Contents::default();
        nb.tables.insert(
            "Logical_Switch".into(),
            vec![
                row(json!({"_uuid": ["uuid", SWITCH], "name": "sw0", "acls": ["uuid", ACL_A]})),
                row(json!({"_uuid": ["uuid", "1111111f-0000-4000-8000-000000000002"], "name": "sw1",
                           "acls": ["set", [["uuid", ACL_B]]]})),
            ],
        );
        nb.tables.insert(
            "ACL".into(),
            vec![
                row(json!({"_uuid": ["uuid", ACL_A], "name": ["set", []], "match": "ip"})),
                row(json!({"_uuid": ["uuid", ACL_B], "name": ["set", []], "match": "ip"})),
            ],
        );
        let mut sb = Contents::default();
        sb.tables.insert(
            "Datapath_Binding".into(),
            vec![row(json!({"_uuid": ["uuid", DATAPATH], "tunnel_key": 7,
                            "external_ids": ["map", [["logical-switch", SWITCH], ["name", "sw0"]]]}))],
        );
        Names::new(&nb, &sb, &Chances::load().unwrap())
    }

    #[test]
    fn rows_are_named_by_name_or_by_contents_and_referrer() {
        let names = names();
        assert_eq!(names.uuid(SWITCH), "Logical_Switch/sw0");
        assert_eq!(names.uuid(DATAPATH), "Datapath_Binding/Logical_Switch/sw0");
        assert!(names.uuid(ACL_A).ends_with("@Logical_Switch/sw0"), "{}", names.uuid(ACL_A));
        assert!(names.uuid(ACL_B).ends_with("@Logical_Switch/sw1"), "{}", names.uuid(ACL_B));
        assert_eq!(names.uuid("44444444-0000-4000-8000-000000000001"), "<dangling>");
    }

    #[test]
    fn uuids_in_texts_hints_and_port_group_names_are_replaced() {
        let names = names();
        assert_eq!(names.text(&json!(format!("a-b {SWITCH}_x-"))), "a-b <Logical_Switch/sw0>_x-");
        assert_eq!(names.pair("stage-hint", &json!("11111111")), "stage-hint=Logical_Switch/sw0");
        assert_eq!(names.port_group("7_pg1"), "<Datapath_Binding/Logical_Switch/sw0>_pg1");
        assert_eq!(names.port_group("pg_1"), "pg_1");
        assert_eq!(
            names.text(&json!(["set", [["uuid", SWITCH], ["uuid", DATAPATH]]])),
            "[Datapath_Binding/Logical_Switch/sw0, Logical_Switch/sw0]"
        );
    }
}
