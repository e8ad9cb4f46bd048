//! Reading an OVSDB database file (ovsdb(5), "Standalone Format") into a replica.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::decode::{Decoder, Notation};
use crate::server_schema::ServerSchema;
use crate::update::{RowUpdate, UpdateBatch, UpdateKind};
use crate::{DatabaseDef, Datum, Replica, ReplicaError};

/// A database file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseFileError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is the log of a clustered database, which holds no rows in the clear.
    #[error("clustered database file: convert it with `ovsdb-tool cluster-to-standalone` first")]
    Clustered,
    /// It holds another database.
    #[error("file holds database {found}, not {expected}")]
    OtherDatabase {
        /// The name in the file.
        found: String,
        /// The name asked for.
        expected: &'static str,
    },
    /// A record's header is not `OVSDB JSON LENGTH SHA1`, or its data is cut off.
    #[error("byte {offset}: not an OVSDB record")]
    Record {
        /// Where it starts.
        offset: usize,
    },
    /// A record's JSON is not what belongs there.
    #[error("record at byte {offset}: {source}")]
    Json {
        /// Where the record starts.
        offset: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A record deletes a row that no earlier record made.
    #[error("record at byte {offset}: {source}")]
    Row {
        /// Where the record starts.
        offset: usize,
        /// Which row.
        source: ReplicaError,
    },
}

/// Reads a standalone database file, every column of the definition that it has.
pub fn load_database_file(path: &Path, database: &'static DatabaseDef) -> Result<Replica, DatabaseFileError> {
    let bytes = std::fs::read(path).map_err(|source| DatabaseFileError::Io { path: path.to_owned(), source })?;
    parse_database_file(&bytes, database)
}

/// Reads the content of a standalone database file. Checksums are not verified: this is for reading what ovsdb-server or
/// ovsdb-tool wrote, not for repair.
pub fn parse_database_file(bytes: &[u8], database: &'static DatabaseDef) -> Result<Replica, DatabaseFileError> {
    if bytes.starts_with(b"OVSDB CLUSTER ") {
        return Err(DatabaseFileError::Clustered);
    }
    let mut records = Records { bytes, offset: 0 };
    let (offset, schema) = records.next().unwrap_or(Err(DatabaseFileError::Record { offset: 0 }))?;
    let schema = ServerSchema::parse(schema).map_err(|source| DatabaseFileError::Json { offset, source })?;
    if schema.name != database.name {
        return Err(DatabaseFileError::OtherDatabase { found: schema.name, expected: database.name });
    }
    let mut decoder = Decoder::new(schema.layout(database, |_| true, |_| ()));
    let mut replica = Replica::with_layout(decoder.layout().clone());
    for record in records {
        let (offset, json) = record?;
        let flags: RecordFlags =
            serde_json::from_slice(json).map_err(|source| DatabaseFileError::Json { offset, source })?;
        let rows = decoder.decode(Notation::File, json).map_err(|source| DatabaseFileError::Json { offset, source })?;
        let rows = rows.into_iter().map(|row| whole_row(&replica, decoder.layout(), row, flags.is_diff)).collect();
        replica.apply(UpdateBatch { reset: None, rows }).map_err(|source| DatabaseFileError::Row { offset, source })?;
    }
    Ok(replica)
}

/// Members of a transaction record that are not tables.
#[derive(Deserialize)]
struct RecordFlags {
    /// The columns of existing rows are differences, not values.
    #[serde(rename = "_is_diff", default)]
    is_diff: bool,
}

/// Turns the changed columns of a record into the whole row.
fn whole_row(replica: &Replica, layout: &crate::layout::DatabaseLayout, row: RowUpdate, is_diff: bool) -> RowUpdate {
    let UpdateKind::Difference(columns) = row.kind else { return row };
    let table = &layout.tables[usize::from(row.table)];
    let current = replica.row(table.table(), row.uuid);
    let mut data: Box<[Datum]> = match current {
        Some(current) => current.data().into(),
        None => table.columns().iter().map(|column| column.default_datum()).collect(),
    };
    for (slot, datum) in columns {
        let slot = usize::from(slot);
        data[slot] = match current {
            Some(_) if is_diff => table.columns()[slot].apply_difference(&data[slot], datum),
            _ => datum,
        };
    }
    RowUpdate { kind: UpdateKind::Whole(data), ..row }
}

/// The records of a file: offset and JSON of each.
struct Records<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, &'a [u8]), DatabaseFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = &self.bytes[offset..];
        if rest.is_empty() {
            return None;
        }
        let Some((start, end)) = record_bounds(rest) else {
            self.offset = self.bytes.len();
            return Some(Err(DatabaseFileError::Record { offset }));
        };
        self.offset += end;
        Some(Ok((offset, &rest[start..end])))
    }
}

/// Where the data of the record at the start of `bytes` starts and ends.
fn record_bounds(bytes: &[u8]) -> Option<(usize, usize)> {
    let line_end = memchr::memchr(b'\n', bytes)?;
    let header = std::str::from_utf8(&bytes[..line_end]).ok()?;
    let length: usize = header.strip_prefix("OVSDB JSON ")?.split(' ').next()?.parse().ok()?;
    let start = line_end + 1;
    let end = start.checked_add(length).filter(|&end| end <= bytes.len())?;
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AtomType, Column, ColumnDef, ColumnShape, Multiplicity, TableDef, Text, Uuid};

    static TABLE: TableDef = TableDef {
        database: "Db",
        name: "T",
        index: 0,
        is_root: true,
        columns: &[ColumnDef {
            name: "names",
            shape: ColumnShape {
                key: AtomType::String,
                value: None,
                multiplicity: Multiplicity::Many,
                key_reference: None,
                value_reference: None,
            },
        }],
    };
    static TABLES: [&TableDef; 1] = [&TABLE];
    static DATABASE: DatabaseDef = DatabaseDef { name: "Db", tables: &TABLES };
    const NAMES: Column<crate::Set<Text>> = Column::new(&TABLE, 0);

    fn file(records: &[&str]) -> Vec<u8> {
        let schema = r#"{"name":"Db","version":"1.0.0","tables":{"T":{"columns":{"names":
            {"type":{"key":"string","min":0,"max":"unlimited"}}}}}}"#;
        let record = |json: &&str| format!("OVSDB JSON {} {:040x}\n{json}", json.len(), 0);
        std::iter::once(&schema).chain(records).map(record).collect::<String>().into_bytes()
    }

    fn names(file: &[u8]) -> String {
        match parse_database_file(file, &DATABASE) {
            Ok(replica) => {
                let row = replica.row(&TABLE, Uuid::from_u128(1));
                row.map_or("none".to_owned(), |row| {
                    row.get(NAMES).iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
                })
            }
            Err(error) => error.to_string(),
        }
    }

    const INSERT: &str = r#"{"_date":1,"T":{"00000000-0000-0000-0000-000000000001":{"names":["set",["a","b"]]}}}"#;

    #[test]
    fn records_add_up_as_values_or_as_differences() {
        let write = r#"{"T":{"00000000-0000-0000-0000-000000000001":{"names":["set",["b","c"]]}},"_comment":"x"}"#;
        let diff = r#"{"_is_diff":true,"T":{"00000000-0000-0000-0000-000000000001":{"names":["set",["b","c"]]}}}"#;
        let delete = r#"{"T":{"00000000-0000-0000-0000-000000000001":null}}"#;
        assert_eq!(names(&file(&[])), "none");
        assert_eq!(names(&file(&[INSERT])), "a b");
        assert_eq!(names(&file(&[INSERT, write])), "b c");
        assert_eq!(names(&file(&[INSERT, diff])), "a c");
        assert_eq!(names(&file(&[INSERT, delete])), "none");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_place() {
        let whole = file(&[INSERT]);
        let second = file(&[]).len();
        assert_eq!(names(&whole[..whole.len() - 1]), format!("byte {second}: not an OVSDB record"));
        assert_eq!(names(b""), "byte 0: not an OVSDB record");
        assert_eq!(names(b"SQLite format 3\0"), "byte 0: not an OVSDB record");
        assert!(names(b"OVSDB CLUSTER 100 00\n{}").contains("cluster-to-standalone"));
        let bad = names(&file(&[r#"{"T":{"x":null}}"#]));
        assert!(bad.starts_with(&format!("record at byte {second}: \"x\" is not a valid UUID")), "{bad}");
        let missing = names(&file(&[r#"{"T":{"00000000-0000-0000-0000-000000000001":null}}"#]));
        assert!(missing.contains("row that is not in the replica: T 00000000"), "{missing}");
    }
}
