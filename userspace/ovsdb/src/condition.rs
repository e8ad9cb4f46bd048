//! Monitor conditions: which rows of a table the server is to send.

use crate::{AnyColumn, Column, ColumnType, Datum, ToDatum, Uuid, json};

/// Which rows of a table are monitored.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Condition {
    /// Every row.
    #[default]
    True,
    /// No row.
    False,
    /// The rows for which at least one of the clauses holds.
    Any(Vec<Clause>),
}

/// The functions of RFC 7047 section 5.1 that monitor conditions use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `includes`: the column has every element of the value.
    Includes,
    /// `excludes`: the column has none of them.
    Excludes,
}

impl Function {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Function::Equal => "==",
            Function::NotEqual => "!=",
            Function::Less => "<",
            Function::LessOrEqual => "<=",
            Function::Greater => ">",
            Function::GreaterOrEqual => ">=",
            Function::Includes => "includes",
            Function::Excludes => "excludes",
        }
    }
}

/// One comparison of a column, or of the row's own identifier, with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// `None` stands for `_uuid`.
    column: Option<AnyColumn>,
    function: Function,
    value: Datum,
}

impl Clause {
    /// `column function value`.
    pub fn new<T: ColumnType>(column: Column<T>, function: Function, value: impl ToDatum<T>) -> Self {
        Clause { column: Some(column.any()), function, value: value.to_datum() }
    }

    /// `column == value`.
    pub fn equal<T: ColumnType>(column: Column<T>, value: impl ToDatum<T>) -> Self {
        Self::new(column, Function::Equal, value)
    }

    /// `_uuid == uuid`.
    pub fn is_row(uuid: Uuid) -> Self {
        Clause { column: None, function: Function::Equal, value: Datum::One(uuid.into()) }
    }

    /// The column compared; `None` for `_uuid`.
    pub fn column(&self) -> Option<AnyColumn> {
        self.column
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, names: &json::NamedUuids) {
        let (name, shape) = match self.column {
            Some(column) => (column.name(), Some(column.definition().shape)),
            None => ("_uuid", None),
        };
        out.push(b'[');
        json::write_string(out, name);
        out.push(b',');
        json::write_string(out, self.function.name());
        out.push(b',');
        json::write_datum(out, &self.value, shape, names);
        out.push(b']');
    }
}

impl Condition {
    /// Rows for which at least one clause holds; none when there is no clause.
    pub fn any(clauses: impl IntoIterator<Item = Clause>) -> Self {
        let clauses: Vec<Clause> = clauses.into_iter().collect();
        if clauses.is_empty() { Condition::False } else { Condition::Any(clauses) }
    }

    /// The condition for a server on which only some columns can be used in it: a clause that cannot be
    /// evaluated there might hold for any row, so the rows are not restricted at all.
    pub(crate) fn usable(&self, has_column: impl Fn(AnyColumn) -> bool) -> Condition {
        match self {
            Condition::Any(clauses) if !clauses.iter().all(|clause| clause.column.is_none_or(&has_column)) => {
                Condition::True
            }
            other => other.clone(),
        }
    }

    /// Writes the `where` of a monitor request.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let names = json::NamedUuids::default();
        out.push(b'[');
        match self {
            Condition::True => out.extend_from_slice(b"true"),
            Condition::False => out.extend_from_slice(b"false"),
            Condition::Any(clauses) => {
                for (index, clause) in clauses.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    clause.write(out, &names);
                }
            }
        }
        out.push(b']');
    }
}
