//! The two databases as the deciding modules see them, kept up to date row by row.

mod ovs;
mod sb;

pub use ovs::{OvsView, SslRow, ovs_columns};
pub use sb::{SbChange, SbView, sb_columns, sb_tables};

use crate::rows::StringMap;
use oxbow_ovsdb::{Column, Map, Row, Set, Text, Uuid};
use std::collections::BTreeSet;

fn map(row: &Row, column: Column<Map<Text, Text>>) -> StringMap {
    row.get(column).iter().map(|(key, value)| (key.as_str().to_owned(), value.as_str().to_owned())).collect()
}

fn text(row: &Row, column: Column<Text>) -> String {
    row.get(column).as_str().to_owned()
}

fn optional(row: &Row, column: Column<Option<Text>>) -> Option<String> {
    row.get(column).map(|text| text.as_str().to_owned())
}

fn texts(row: &Row, column: Column<Set<Text>>) -> BTreeSet<String> {
    row.get(column).iter().map(|text| text.as_str().to_owned()).collect()
}

fn uuids(row: &Row, column: Column<Set<Uuid>>) -> BTreeSet<Uuid> {
    row.get(column).iter().collect()
}
