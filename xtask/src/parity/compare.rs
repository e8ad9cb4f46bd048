//! Comparing what two northds wrote.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::chance::{Chances, Excuse, Place, Values};
use super::database::{Contents, Row, as_uuid, elements, pairs};
use super::naming::Names;

/// Both databases of one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    pub(super) nb: Contents,
    pub(super) sb: Contents,
}

/// What earlier comparison points leave to later ones, for columns that must be stable.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The values of stock's side and of ours.
    values: [Values; 2],
    /// How often a value moved on stock's side and has not yet on ours. Of two ports that ask for one key stock prefers now the one and now the other,
    /// as chance arranges them, where ours stays with the first until that gives the key up: what moves then has moved at stock before.
    ahead: HashMap<Place, usize>,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Logical flows that stock wrote, counted per datapath.
    pub(super) flows: usize,
    /// Flows that only stock wrote.
    pub(super) missing: usize,
    /// Flows that only ours wrote.
    pub(super) extra: usize,
    /// Rows of other tables that differ, and broken rules of the columns of chance.
    pub(super) other: usize,
    /// One entry a difference, several lines each.
    pub(super) report: Vec<String>,
}

impl Difference {
    /// Whether both sides agree.
    pub(super) fn is_none(&self) -> bool {
        self.missing + self.extra + self.other == 0
    }
}

/// A row in comparable form: what identifies it to a reader, and its columns as text.
type Columns = BTreeMap<String, String>;

#[derive(Default)]
struct Table {
    rows: BTreeMap<String, Vec<Columns>>,
}

const FLOWS: &str = "SB Logical_Flow";

/// Compares stock's databases with ours, every table of both.
pub(super) fn compare(stock: &Side, ours: &Side, chances: &Chances, history: &mut History) -> Difference {
    let mut difference = Difference::default();
    let mut tables: BTreeMap<String, [Table; 2]> = BTreeMap::new();
    let History { values, ahead } = history;
    for (index, side) in [stock, ours].into_iter().enumerate() {
        let mut moved = HashSet::new();
        let by_stock: HashSet<_> = ahead.keys().cloned().collect();
        let [stocks, own] = &mut *values;
        let (memory, others) = if index == 0 { (stocks, None) } else { (own, Some(&*stocks)) };
        let excuse = others.map(|values| Excuse { moved: &by_stock, values });
        let names = Names::new(&side.nb, &side.sb, chances);
        for (database, contents) in [("NB", &side.nb), ("SB", &side.sb)] {
            for (table, rows) in &contents.tables {
                // Groups are expanded where they are used, and the server collects those that nobody uses.
                if table == "Logical_DP_Group" {
                    continue;
                }
                let comparable = &mut tables.entry(format!("{database} {table}")).or_default()[index];
                for row in rows {
                    add(comparable, database, table, row, contents, &names, chances);
                }
            }
            let broken = chances.check(database, contents, |row| names.of(row), memory, excuse.as_ref(), &mut moved);
            if index == 1 {
                difference.other += broken.len();
                difference.report.extend(broken.into_iter().map(|text| format!("{database} {text}\n")));
            } else if let Some(text) = broken.first() {
                // Stock breaking a rule means that the list is wrong.
                difference.other += 1;
                difference.report.push(format!("the list of columns of chance is wrong about stock: {text}\n"));
            }
        }
        for place in moved {
            let times = ahead.entry(place).or_default();
            *times = if index == 0 { *times + 1 } else { times.saturating_sub(1) };
        }
        ahead.retain(|_, times| *times > 0);
    }
    for (table, [stock, ours]) in &tables {
        let flows = table == FLOWS;
        if flows {
            difference.flows = stock.rows.values().map(Vec::len).sum();
        }
        let keys: std::collections::BTreeSet<&String> = stock.rows.keys().chain(ours.rows.keys()).collect();
        for key in keys {
            let (missing, extra) = unmatched(stock.rows.get(key), ours.rows.get(key));
            if flows {
                difference.missing += missing.len();
                difference.extra += extra.len();
            } else {
                difference.other += missing.len().max(extra.len());
            }
            for index in 0..missing.len().max(extra.len()) {
                difference.report.push(describe(table, key, missing.get(index), extra.get(index)));
            }
        }
    }
    difference
}

/// The rows of each side that have no equal on the other.
fn unmatched(stock: Option<&Vec<Columns>>, ours: Option<&Vec<Columns>>) -> (Vec<Columns>, Vec<Columns>) {
    let mut extra = ours.cloned().unwrap_or_default();
    let mut missing = Vec::new();
    for row in stock.into_iter().flatten() {
        match extra.iter().position(|candidate| candidate == row) {
            Some(place) => {
                extra.swap_remove(place);
            }
            None => missing.push(row.clone()),
        }
    }
    (missing, extra)
}

fn describe(table: &str, key: &str, stock: Option<&Columns>, ours: Option<&Columns>) -> String {
    let mut text = String::new();
    let show = |columns: &Columns, text: &mut String| {
        for (column, value) in columns.iter().filter(|(_, value)| !["[]", "{}", "\"\""].contains(&value.as_str())) {
            let _ = writeln!(text, "      {column}: {value}");
        }
    };
    let result = match (stock, ours) {
        (Some(stock), Some(ours)) => {
            let result = writeln!(text, "{table} {key}");
            for (column, value) in stock {
                let other = ours.get(column).map_or("(no such column)", String::as_str);
                if value != other {
                    let _ = writeln!(text, "      {column}:\n        stock {value}\n        ours  {other}");
                }
            }
            for (column, value) in ours.iter().filter(|(column, _)| !stock.contains_key(*column)) {
                let _ = writeln!(text, "      {column}:\n        ours  {value}");
            }
            result
        }
        (Some(stock), None) => {
            let result = writeln!(text, "{table} {key}: only stock has it");
            show(stock, &mut text);
            result
        }
        (None, Some(ours)) => {
            let result = writeln!(text, "{table} {key}: only ours has it");
            show(ours, &mut text);
            result
        }
        (None, None) => Ok(()),
    };
    // Writing to a String cannot fail.
    debug_assert!(result.is_ok());
    text
}

/// Adds a row in comparable form, a flow once for each of its datapaths.
fn add(to: &mut Table, database: &str, table: &str, row: &Row, contents: &Contents, names: &Names, chances: &Chances) {
    let mut columns = Columns::new();
    for (column, value) in row {
        if column.starts_with('_') || chances.covers(database, table, row, column, None) {
            continue;
        }
        let text = if matches!(value, Value::Array(tagged) if tagged.first().is_some_and(|tag| tag == "map")) {
            let mut texts: Vec<String> = pairs(value)
                .into_iter()
                .filter(|(key, _)| !chances.covers(database, table, row, column, Some(key)))
                .map(|(key, value)| names.pair(key, value))
                .collect();
            texts.sort_unstable();
            format!("{{{}}}", texts.join(", "))
        } else {
            names.text(value)
        };
        columns.insert(column.clone(), text);
    }
    if (database, table) == ("SB", "Port_Group")
        && let Some(name) = row.get("name").and_then(Value::as_str)
    {
        columns.insert("name".to_owned(), names.port_group(name));
    }
    if (database, table) != ("SB", "Logical_Flow") {
        to.rows.entry(names.of(row)).or_default().push(columns);
        return;
    }
    let text = |column: &str| columns.get(column).cloned().unwrap_or_default();
    let number = |column: &str| row.get(column).and_then(Value::as_i64).unwrap_or_default();
    let rest = format!(
        "{} table={:02} priority={:05} match=({})",
        text("pipeline"),
        number("table_id"),
        number("priority"),
        text("match")
    );
    let datapaths = datapaths(row, contents);
    for column in ["pipeline", "table_id", "priority", "match", "logical_datapath", "logical_dp_group"] {
        columns.remove(column);
    }
    // The server empties the group of a datapath that is gone: the flow that stays is nobody's, and is to be seen.
    if datapaths.is_empty() {
        to.rows.entry(format!("(no datapath) {rest}")).or_default().push(columns.clone());
    }
    for datapath in datapaths {
        let name = names.uuid(datapath);
        let name = name.trim_start_matches("Datapath_Binding/");
        to.rows.entry(format!("{name} {rest}")).or_default().push(columns.clone());
    }
}

/// The datapaths of a flow: its own, or those of its group.
fn datapaths<'a>(flow: &'a Row, contents: &'a Contents) -> Vec<&'a str> {
    let uuids = |value: &'a Value| elements(value).into_iter().filter_map(as_uuid).collect::<Vec<_>>();
    let own = flow.get("logical_datapath").map(uuids).unwrap_or_default();
    let groups = flow.get("logical_dp_group").map(uuids).unwrap_or_default();
    let members = contents
        .rows("Logical_DP_Group")
        .iter()
        .filter(|group| groups.contains(&super::database::row_uuid(group)))
        .filter_map(|group| group.get("datapaths"))
        .flat_map(uuids);
    own.into_iter().chain(members).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn side(prefix: &str, action: &str, grouped: bool) -> Side {
        let id = |n: u32| json!(["uuid", format!("{prefix}0000000-0000-4000-8000-00000000000{n}")]);
        let row = |value: Value| value.as_object().unwrap().clone();
        let text = |n: u32| id(n)[1].as_str().unwrap().to_owned();
        let mut side = Side::default();
        side.nb.tables.insert(
            "Logical_Switch".into(),
            vec![row(json!({"_uuid": id(1), "name": "sw0"})), row(json!({"_uuid": id(2), "name": "sw1"}))],
        );
        let datapath = |n: u32, of: u32, key: u32| {
            row(json!({"_uuid": id(n), "tunnel_key": key, "external_ids": ["map", [["logical-switch", text(of)]]]}))
        };
        side.sb.tables.insert("Datapath_Binding".into(), vec![datapath(3, 1, 1), datapath(4, 2, 2)]);
        let flow = |n: u32, datapath: Value, group: Value| {
            row(json!({"_uuid": id(n), "pipeline": "ingress", "table_id": 0, "priority": 100, "match": "1",
                       "actions": action, "logical_datapath": datapath, "logical_dp_group": group}))
        };
        let none = json!(["set", []]);
        let flows = if grouped {
            side.sb.tables.insert(
                "Logical_DP_Group".into(),
                vec![row(json!({"_uuid": id(7), "datapaths": ["set", [id(3), id(4)]]}))],
            );
            vec![flow(5, none, id(7))]
        } else {
            vec![flow(5, id(3), none.clone()), flow(6, id(4), none)]
        };
        side.sb.tables.insert("Logical_Flow".into(), flows);
        side
    }

    fn difference(stock: &Side, ours: &Side) -> Difference {
        compare(stock, ours, &Chances::load().unwrap(), &mut Default::default())
    }

    #[test]
    fn grouped_and_single_flows_are_equal() {
        let found = difference(&side("a", "drop;", true), &side("b", "drop;", false));
        assert!(found.is_none(), "{found:#?}");
        assert_eq!(found.flows, 2);
    }

    #[test]
    fn another_action_is_shown_on_both_datapaths() {
        let found = difference(&side("a", "drop;", true), &side("b", "next;", true));
        assert_eq!((found.missing, found.extra, found.other), (2, 2, 0));
        assert_eq!(
            found.report[0],
            "SB Logical_Flow Logical_Switch/sw0 ingress table=00 priority=00100 match=(1)\n      actions:\n        \
             stock drop;\n        ours  next;\n"
        );
    }

    #[test]
    fn a_row_of_another_table_counts_as_other() {
        let stock = side("a", "drop;", true);
        let mut ours = stock.clone();
        ours.sb.tables.get_mut("Datapath_Binding").unwrap()[0].insert("load_balancers".into(), json!("x"));
        let found = difference(&stock, &ours);
        assert_eq!((found.missing, found.extra, found.other), (0, 0, 1), "{found:#?}");
        ours.sb.tables.get_mut("Logical_Flow").unwrap().clear();
        assert_eq!(difference(&stock, &ours).missing, 2);
        assert_eq!(difference(&ours, &stock).extra, 2);
    }
}
