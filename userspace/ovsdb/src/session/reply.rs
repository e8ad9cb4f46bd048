//! Reading the small messages of the protocol.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;

use crate::decode::{Decoder, Notation, TablesSeed, value_of};
use crate::transaction::Expected;
use crate::update::RowUpdate;
use crate::{Outcome, TransactionError};

/// Decodes `[head, …, <table-updates>]`: the values before the updates, and the updates.
pub(super) fn decode_updates(
    decoder: &mut Decoder,
    notation: Notation,
    heads: usize,
    json: &[u8],
) -> Result<(Vec<Value>, Vec<RowUpdate>), serde_json::Error> {
    let mut rows = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let seed = HeadsThenTables { heads, tables: decoder.tables(notation, &mut rows) };
    let heads = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((heads, rows))
}

struct HeadsThenTables<'a> {
    heads: usize,
    tables: TablesSeed<'a>,
}

impl<'de> DeserializeSeed<'de> for HeadsThenTables<'_> {
    type Value = Vec<Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Value>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for HeadsThenTables<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {} values and table updates", self.heads)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Value>, A::Error> {
        let missing = || A::Error::custom("table updates are missing");
        let mut heads = Vec::with_capacity(self.heads);
        while heads.len() < self.heads {
            heads.push(seq.next_element()?.ok_or_else(missing)?);
        }
        seq.next_element_seed(self.tables)?.ok_or_else(missing)?;
        Ok(heads)
    }
}

/// The first element of an array; `None` when there is none.
pub(super) fn first_element(json: &[u8]) -> Option<Value> {
    let inside = json.trim_ascii_start().strip_prefix(b"[")?;
    serde_json::Deserializer::from_slice(inside).into_iter().next()?.ok()
}

/// The text of a JSON-RPC error: the string it is, or the name and details of a database error (RFC 7047 section 3.1).
pub(super) fn error_text(json: &[u8]) -> String {
    match serde_json::from_slice(json) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(error)) => {
            let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
            let (name, details) = (text("error"), text("details"));
            if details.is_empty() { name.to_owned() } else { format!("{name}: {details}") }
        }
        _ => String::from_utf8_lossy(json).into_owned(),
    }
}

#[derive(Debug, Deserialize)]
struct OperationResult {
    error: Option<String>,
    details: Option<String>,
    uuid: Option<(String, String)>,
    count: Option<u64>,
    rows: Option<Vec<serde_json::Map<String, Value>>>,
}

/// What the result of "transact" means. `expected` has an element for each operation sent; `skipped` operations come before those of the
/// caller.
pub(super) fn transaction_outcome(
    json: &[u8],
    expected: &[Expected],
    skipped: usize,
) -> Result<Outcome, serde_json::Error> {
    let results: Vec<Option<OperationResult>> = serde_json::from_slice(json)?;
    let (mut try_again, mut not_owner, mut aborted) = (false, false, false);
    for (index, result) in results.iter().enumerate() {
        let Some(OperationResult { error: Some(error), details, .. }) = result else { continue };
        match error.as_str() {
            "timed out" | "cluster error" | "not leader" | "try again" => try_again = true,
            "not owner" => not_owner = true,
            "aborted" => aborted = true,
            _ => {
                let operation = index.checked_sub(skipped).filter(|&operation| operation < expected.len());
                let details = details.clone().unwrap_or_default();
                return Ok(Outcome::Failed(TransactionError { operation, error: error.clone(), details }));
            }
        }
    }
    if not_owner {
        return Ok(Outcome::NotOwner);
    }
    if aborted {
        return Ok(Outcome::Aborted);
    }
    if try_again {
        return Ok(Outcome::TryAgain);
    }
    let results = results.get(skipped..).unwrap_or_default();
    let (mut inserted, mut selected) = (Vec::new(), Vec::new());
    for (expected, result) in expected.iter().zip(results) {
        match (expected, result) {
            (Expected::Identifier(stand_in), Some(OperationResult { uuid: Some((_, uuid)), .. })) => {
                inserted.push((*stand_in, uuid.parse().map_err(serde_json::Error::custom)?));
            }
            (Expected::Value(row, column), Some(OperationResult { rows: Some(rows), .. })) => {
                let value = rows.first().and_then(|row| row.get(column.name()));
                selected.push((*row, value.map(|value| value_of(*column, value)).transpose()?));
            }
            _ => {}
        }
    }
    let affected = results.iter().flatten().filter_map(|result| result.count).sum();
    Ok(Outcome::Committed { inserted, affected, selected })
}
