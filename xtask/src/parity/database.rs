//! Reading a whole database through its server: RFC 7047 `get_schema` and `transact` with `select`, one connection each.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

/// The longest a local server may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A row as the server writes it: column to value, `_uuid` and `_version` included.
pub(super) type Row = Map<String, Value>;

/// Every row of every table.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) tables: BTreeMap<String, Vec<Row>>,
}

impl Contents {
    /// The rows of `table`, none if the schema does not have it.
    pub(super) fn rows(&self, table: &str) -> &[Row] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
    }
}

/// The `["uuid", X]` of a value that is one.
pub(super) fn as_uuid(value: &Value) -> Option<&str> {
    match value.as_array()?.as_slice() {
        [tag, uuid] if tag == "uuid" => uuid.as_str(),
        _ => None,
    }
}

/// The identifier of a row.
pub(super) fn row_uuid(row: &Row) -> &str {
    row.get("_uuid").and_then(as_uuid).unwrap_or_default()
}

/// The elements of a set, or the one value that stands for a set of one.
pub(super) fn elements(value: &Value) -> Vec<&Value> {
    match value.as_array().map(Vec::as_slice) {
        Some([tag, Value::Array(members)]) if tag == "set" => members.iter().collect(),
        _ => vec![value],
    }
}

/// The pairs of a map whose keys are strings.
pub(super) fn pairs(value: &Value) -> Vec<(&str, &Value)> {
    match value.as_array().map(Vec::as_slice) {
        Some([tag, Value::Array(members)]) if tag == "map" => members
            .iter()
            .filter_map(|pair| match pair.as_array()?.as_slice() {
                [key, value] => Some((key.as_str()?, value)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The value of a string key of a map column.
pub(super) fn map_get<'a>(row: &'a Row, column: &str, key: &str) -> Option<&'a str> {
    pairs(row.get(column)?).into_iter().find(|(candidate, _)| *candidate == key)?.1.as_str()
}

fn call(stream: &mut UnixStream, method: &str, params: &Value) -> Result<Value> {
    stream.write_all(json!({"id": 0, "method": method, "params": params}).to_string().as_bytes())?;
    let mut buffer = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        let got = stream.read(&mut chunk)?;
        if got == 0 {
            bail!("the server closed the connection");
        }
        buffer.extend_from_slice(&chunk[..got]);
        // An answer ends with its last brace; trying to parse at each read that ends so is enough for one answer.
        if buffer.last() != Some(&b'}') {
            continue;
        }
        match serde_json::from_slice::<Value>(&buffer) {
            Ok(mut answer) => {
                if !answer["error"].is_null() {
                    bail!("{method}: {}", answer["error"]);
                }
                return Ok(answer["result"].take());
            }
            Err(error) if error.is_eof() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads all of `database` from the server that listens on `socket`.
pub(super) fn read(socket: &Path, database: &str) -> Result<Contents> {
    let context = || format!("reading {database} at {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(context)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    let schema = call(&mut stream, "get_schema", &json!([database])).with_context(context)?;
    let tables: Vec<String> = schema["tables"].as_object().context("a schema has tables")?.keys().cloned().collect();
    let mut params = vec![json!(database)];
    // One transaction, so that all tables are of one moment.
    params.extend(tables.iter().map(|table| json!({"op": "select", "table": table, "where": []})));
    let results = call(&mut stream, "transact", &Value::Array(params)).with_context(context)?;
    let mut contents = Contents::default();
    for (table, result) in tables.into_iter().zip(results.as_array().context("a transaction has results")?) {
        let rows = result["rows"].as_array().with_context(|| format!("{table}: {result}"))?;
        contents.tables.insert(table, rows.iter().filter_map(|row| row.as_object().cloned()).collect());
    }
    Ok(contents)
}
