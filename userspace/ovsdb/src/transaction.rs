//! Transactions (RFC 7047 sections 4.1.3 and 5.2): built typed, sent as one "transact", answered by an [`Outcome`].

use std::fmt;

use crate::{
    AnyColumn, Clause, Column, ColumnType, DatabaseDef, Datum, Map, Replica, Row, RowChange, RowDraft, TableDef,
    ToDatum, Uuid, json,
};

/// A transaction in the making. All of it happens or nothing.
#[derive(Clone, Debug)]
pub struct Transaction {
    database: &'static DatabaseDef,
    operations: Vec<Operation>,
    /// The rows inserted under a name; see [`Transaction::insert`].
    named: json::NamedUuids,
}

#[derive(Clone, Debug)]
enum Operation {
    Insert { table: &'static TableDef, uuid: Uuid, given: bool, row: Vec<(AnyColumn, Datum)> },
    Update { table: &'static TableDef, uuid: Uuid, row: Vec<(AnyColumn, Datum)> },
    Mutate { table: &'static TableDef, uuid: Uuid, mutations: Vec<(AnyColumn, Mutator, Datum)> },
    Delete { table: &'static TableDef, uuid: Uuid },
    Select { uuid: Uuid, column: AnyColumn },
    Wait { table: &'static TableDef, clauses: Vec<Clause>, columns: Vec<(AnyColumn, Datum)>, until: Until },
    Comment(String),
    Abort,
}

/// What the result of an operation tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// How many rows it touched, if any.
    Count,
    /// The identifier of the row inserted under this stand-in.
    Identifier(Uuid),
    /// The value of this column of this row.
    Value(Uuid, AnyColumn),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutator {
    Add,
    Insert,
    Delete,
}

/// What a wait wants of the rows that its clauses select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// There is a row and its columns have the given values.
    Values,
    /// There is a row.
    Present,
    /// There is none.
    Absent,
}

impl Transaction {
    /// An empty transaction on `database`.
    pub fn new(database: &'static DatabaseDef) -> Self {
        Transaction { database, operations: Vec::new(), named: json::NamedUuids::default() }
    }

    /// The database it is on.
    pub fn database(&self) -> &'static DatabaseDef {
        self.database
    }

    /// True when nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Inserts a row that the server names. The builder's [`uuid`](InsertBuilder::uuid) is a stand-in: other operations
    /// of this transaction refer to the row by it, and [`Outcome::Committed`] tells the identifier it got.
    pub fn insert(&mut self, table: &'static TableDef) -> InsertBuilder<'_> {
        let uuid = Uuid::random();
        self.named.insert(uuid);
        self.insert_operation(table, uuid, false)
    }

    /// Inserts a row under a given identifier (ovsdb-server 2.13 and later).
    pub fn insert_with_uuid(&mut self, table: &'static TableDef, uuid: Uuid) -> InsertBuilder<'_> {
        self.insert_operation(table, uuid, true)
    }

    fn insert_operation(&mut self, table: &'static TableDef, uuid: Uuid, given: bool) -> InsertBuilder<'_> {
        self.check_table(table);
        self.operations.push(Operation::Insert { table, uuid, given, row: Vec::new() });
        match self.operations.last_mut() {
            Some(Operation::Insert { row, .. }) => InsertBuilder { table, uuid, row },
            _ => unreachable!("just pushed"),
        }
    }

    /// Writes columns of a row.
    pub fn update(&mut self, table: &'static TableDef, uuid: Uuid) -> UpdateBuilder<'_> {
        self.check_table(table);
        self.operations.push(Operation::Update { table, uuid, row: Vec::new() });
        match self.operations.last_mut() {
            Some(Operation::Update { row, .. }) => UpdateBuilder { table, row },
            _ => unreachable!("just pushed"),
        }
    }

    /// Adds and removes elements of a row's sets and maps without writing the whole of them.
    pub fn mutate(&mut self, table: &'static TableDef, uuid: Uuid) -> MutateBuilder<'_> {
        self.check_table(table);
        self.operations.push(Operation::Mutate { table, uuid, mutations: Vec::new() });
        match self.operations.last_mut() {
            Some(Operation::Mutate { mutations, .. }) => MutateBuilder { table, mutations },
            _ => unreachable!("just pushed"),
        }
    }

    /// Deletes a row.
    pub fn delete(&mut self, table: &'static TableDef, uuid: Uuid) {
        self.check_table(table);
        self.operations.push(Operation::Delete { table, uuid });
    }

    /// Reads a column of a row, for what is not worth monitoring; [`Outcome::Committed`] tells the value. A server finds a row by its
    /// identifier at once, however many there are.
    pub fn select(&mut self, uuid: Uuid, column: AnyColumn) {
        self.check_table(column.table());
        self.operations.push(Operation::Select { uuid, column });
    }

    /// A precondition on the rows of a table: when it does not hold, the transaction ends as [`Outcome::TryAgain`].
    pub fn wait(&mut self, table: &'static TableDef) -> WaitBuilder<'_> {
        self.check_table(table);
        self.operations.push(Operation::Wait { table, clauses: Vec::new(), columns: Vec::new(), until: Until::Values });
        match self.operations.last_mut() {
            Some(Operation::Wait { clauses, columns, until, .. }) => WaitBuilder { table, clauses, columns, until },
            _ => unreachable!("just pushed"),
        }
    }

    /// The precondition that a row still has the value it had when it was read: what a decision rested on.
    pub fn verify<T: ColumnType>(&mut self, row: &Row, column: Column<T>) {
        let value = row.datum(column.any()).clone();
        self.wait(row.table()).row(row.uuid()).value_datum(column.any(), value);
    }

    /// A comment for the server's log. Comments of one transaction are lines of one text.
    pub fn comment(&mut self, text: &str) {
        self.operations.push(Operation::Comment(text.to_owned()));
    }

    /// Makes the transaction fail with [`Outcome::Aborted`] after everything before was checked: a rehearsal.
    pub fn abort(&mut self) {
        self.operations.push(Operation::Abort);
    }

    fn check_table(&self, table: &'static TableDef) {
        assert_eq!(table.database, self.database.name, "table {} is not of this transaction's database", table.name);
    }

    /// What each operation's result is to be read for.
    pub(crate) fn expected(&self) -> Vec<Expected> {
        let expected = |operation: &Operation| match operation {
            Operation::Insert { uuid, .. } => Expected::Identifier(*uuid),
            Operation::Select { uuid, column } => Expected::Value(*uuid, *column),
            _ => Expected::Count,
        };
        self.operations.iter().map(expected).collect()
    }

    /// Writes the parameters of "transact"; with a lock, the transaction is refused unless we own it.
    pub(crate) fn write_params(&self, out: &mut Vec<u8>, lock: Option<&str>) {
        out.push(b'[');
        json::write_string(out, self.database.name);
        if let Some(lock) = lock {
            out.extend_from_slice(b",{\"op\":\"assert\",\"lock\":");
            json::write_string(out, lock);
            out.push(b'}');
        }
        for operation in &self.operations {
            out.push(b',');
            operation.write(out, &self.named);
        }
        out.push(b']');
    }

    /// The transaction as it is sent, for logs and tests.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write_params(&mut out, None);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Does to a replica what the server would do to the database, as far as this is a matter of rows: constraints are not
    /// checked, unreferenced rows not collected, and preconditions taken as given. Stand-in identifiers
    /// become the rows' own. For tests that need no server.
    pub fn apply_to(&self, replica: &mut Replica) -> Vec<RowChange> {
        let mut changes = Vec::new();
        for operation in &self.operations {
            let draft = match operation {
                Operation::Insert { table, uuid, row, .. } => {
                    Some(RowDraft { values: Vec::new(), ..RowDraft::with_uuid(table, *uuid) }.set_all(row))
                }
                Operation::Update { table, uuid, row } => {
                    replica.row(table, *uuid).map(|current| RowDraft::from_row(current).set_all(row))
                }
                Operation::Mutate { table, uuid, mutations } => replica.row(table, *uuid).map(|current| {
                    mutations.iter().fold(RowDraft::from_row(current), |draft, (column, mutator, operand)| {
                        let value = draft
                            .values
                            .iter()
                            .find(|(index, _)| *index == column.index())
                            .map(|(_, datum)| datum.clone());
                        draft.set_datum(*column, mutator.apply(&value.unwrap_or_default(), operand))
                    })
                }),
                Operation::Delete { table, uuid } => {
                    changes = RowChange::coalesce(changes, replica.remove(table, *uuid).into_iter().collect());
                    None
                }
                Operation::Select { .. } | Operation::Wait { .. } | Operation::Comment(_) | Operation::Abort => None,
            };
            if let Some(draft) = draft {
                changes = RowChange::coalesce(changes, replica.put(draft).into_iter().collect());
            }
        }
        changes
    }
}

impl RowDraft {
    fn set_all(self, row: &[(AnyColumn, Datum)]) -> Self {
        row.iter().fold(self, |draft, (column, datum)| draft.set_datum(*column, datum.clone()))
    }
}

impl Mutator {
    fn name(self) -> &'static str {
        match self {
            Mutator::Add => "+=",
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
        }
    }

    fn apply(self, value: &Datum, operand: &Datum) -> Datum {
        use crate::Atom::Integer;
        match (self, value, operand) {
            (Mutator::Add, Datum::One(Integer(value)), Datum::One(Integer(more))) => {
                Datum::One(Integer(value.saturating_add(*more)))
            }
            (Mutator::Add, value, _) => value.clone(),
            (Mutator::Insert, value, operand) => value.with_inserted(operand),
            (Mutator::Delete, value, operand) => value.with_deleted(operand),
        }
    }
}

impl Operation {
    fn write(&self, out: &mut Vec<u8>, named: &json::NamedUuids) {
        match self {
            Operation::Insert { table, uuid, given, row } => {
                start(out, "insert", table);
                if *given {
                    json::write_display(out, format_args!(",\"uuid\":\"{uuid}\""));
                } else {
                    out.extend_from_slice(b",\"uuid-name\":");
                    json::write_row_name(out, *uuid);
                }
                out.extend_from_slice(b",\"row\":");
                write_row(out, row, named);
            }
            Operation::Update { table, uuid, row } => {
                start(out, "update", table);
                write_where(out, &[Clause::is_row(*uuid)], named);
                out.extend_from_slice(b",\"row\":");
                write_row(out, row, named);
            }
            Operation::Mutate { table, uuid, mutations } => {
                start(out, "mutate", table);
                write_where(out, &[Clause::is_row(*uuid)], named);
                out.extend_from_slice(b",\"mutations\":[");
                for (index, (column, mutator, operand)) in mutations.iter().enumerate() {
                    out.extend_from_slice(if index > 0 { b",[" } else { b"[" });
                    json::write_string(out, column.name());
                    out.push(b',');
                    json::write_string(out, mutator.name());
                    out.push(b',');
                    json::write_datum(out, operand, None, named);
                    out.push(b']');
                }
                out.push(b']');
            }
            Operation::Delete { table, uuid } => {
                start(out, "delete", table);
                write_where(out, &[Clause::is_row(*uuid)], named);
            }
            Operation::Select { uuid, column } => {
                start(out, "select", column.table());
                write_where(out, &[Clause::is_row(*uuid)], named);
                out.extend_from_slice(b",\"columns\":[");
                json::write_string(out, column.name());
                out.push(b']');
            }
            Operation::Wait { table, clauses, columns, until } => {
                start(out, "wait", table);
                write_where(out, clauses, named);
                // Checked at once: a precondition that does not hold now is for the caller to think about.
                out.extend_from_slice(b",\"timeout\":0,\"columns\":[");
                let names = columns.iter().map(|(column, _)| column.name());
                let names: Vec<&str> = if columns.is_empty() { vec!["_uuid"] } else { names.collect() };
                for (index, name) in names.into_iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    json::write_string(out, name);
                }
                out.extend_from_slice(match until {
                    Until::Values | Until::Absent => b"],\"until\":\"==\",\"rows\":[",
                    Until::Present => b"],\"until\":\"!=\",\"rows\":[",
                });
                if *until == Until::Values {
                    write_row(out, columns, named);
                }
                out.push(b']');
            }
            Operation::Comment(text) => {
                out.extend_from_slice(b"{\"op\":\"comment\",\"comment\":");
                json::write_string(out, text);
            }
            Operation::Abort => out.extend_from_slice(b"{\"op\":\"abort\""),
        }
        out.push(b'}');
    }
}

fn start(out: &mut Vec<u8>, op: &str, table: &TableDef) {
    json::write_display(out, format_args!("{{\"op\":\"{op}\",\"table\":"));
    json::write_string(out, table.name);
}

fn write_where(out: &mut Vec<u8>, clauses: &[Clause], named: &json::NamedUuids) {
    out.extend_from_slice(b",\"where\":[");
    for (index, clause) in clauses.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        clause.write(out, named);
    }
    out.push(b']');
}

fn write_row(out: &mut Vec<u8>, row: &[(AnyColumn, Datum)], named: &json::NamedUuids) {
    out.push(b'{');
    for (index, (column, datum)) in row.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_string(out, column.name());
        out.push(b':');
        json::write_datum(out, datum, Some(column.definition().shape), named);
    }
    out.push(b'}');
}

fn put(table: &'static TableDef, row: &mut Vec<(AnyColumn, Datum)>, column: AnyColumn, datum: Datum) {
    assert!(column.table() == table, "{column:?} written in a row of {table:?}");
    row.retain(|(present, _)| *present != column);
    row.push((column, datum));
}

/// Sets the columns of a row to be inserted.
#[derive(Debug)]
pub struct InsertBuilder<'a> {
    table: &'static TableDef,
    uuid: Uuid,
    row: &'a mut Vec<(AnyColumn, Datum)>,
}

impl InsertBuilder<'_> {
    /// Sets a column.
    pub fn set<T: ColumnType>(self, column: Column<T>, value: impl ToDatum<T>) -> Self {
        self.set_datum(column.any(), value.to_datum())
    }

    /// Sets a column to a datum of the right shape.
    pub fn set_datum(self, column: AnyColumn, datum: Datum) -> Self {
        put(self.table, self.row, column, datum);
        self
    }

    /// By which this transaction refers to the row: its identifier, or the stand-in until the server gives it one.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }
}

/// Sets columns of an existing row.
#[derive(Debug)]
pub struct UpdateBuilder<'a> {
    table: &'static TableDef,
    row: &'a mut Vec<(AnyColumn, Datum)>,
}

impl UpdateBuilder<'_> {
    /// Sets a column.
    pub fn set<T: ColumnType>(self, column: Column<T>, value: impl ToDatum<T>) -> Self {
        self.set_datum(column.any(), value.to_datum())
    }

    /// Sets a column to a datum of the right shape.
    pub fn set_datum(self, column: AnyColumn, datum: Datum) -> Self {
        put(self.table, self.row, column, datum);
        self
    }
}

/// Changes elements of sets and maps of an existing row.
#[derive(Debug)]
pub struct MutateBuilder<'a> {
    table: &'static TableDef,
    mutations: &'a mut Vec<(AnyColumn, Mutator, Datum)>,
}

impl MutateBuilder<'_> {
    /// Adds elements to a set, or to a map the pairs whose key it does not have.
    pub fn insert<T: ColumnType>(self, column: Column<T>, elements: impl ToDatum<T>) -> Self {
        self.mutation(column.any(), Mutator::Insert, elements.to_datum())
    }

    /// Removes elements from a set, or from a map the pairs that are exactly these.
    pub fn delete<T: ColumnType>(self, column: Column<T>, elements: impl ToDatum<T>) -> Self {
        self.mutation(column.any(), Mutator::Delete, elements.to_datum())
    }

    /// Removes the pairs with these keys from a map.
    pub fn delete_keys<K, V>(self, column: Column<Map<K, V>>, keys: impl ToDatum<crate::Set<K>>) -> Self {
        self.mutation(column.any(), Mutator::Delete, keys.to_datum())
    }

    /// Sets the value of map keys, whether they are there or not, leaving the others alone.
    pub fn set_keys<K: crate::Element, V: crate::Element>(
        self,
        column: Column<Map<K, V>>,
        pairs: impl ToDatum<Map<K, V>>,
    ) -> Self {
        let pairs = pairs.to_datum();
        let keys = Datum::set(pairs.pairs().iter().map(|(key, _)| key.clone()).collect());
        self.mutation(column.any(), Mutator::Delete, keys).mutation(column.any(), Mutator::Insert, pairs)
    }

    /// Adds the elements of a datum of the right shape to a set.
    pub fn insert_datum(self, column: AnyColumn, elements: Datum) -> Self {
        self.mutation(column, Mutator::Insert, elements)
    }

    /// Removes the elements of a datum of the right shape from a set.
    pub fn delete_datum(self, column: AnyColumn, elements: Datum) -> Self {
        self.mutation(column, Mutator::Delete, elements)
    }

    /// Adds to an integer.
    pub fn add(self, column: Column<i64>, amount: i64) -> Self {
        self.mutation(column.any(), Mutator::Add, Datum::One(amount.into()))
    }

    fn mutation(self, column: AnyColumn, mutator: Mutator, operand: Datum) -> Self {
        assert!(column.table() == self.table, "{column:?} mutated in a row of {:?}", self.table);
        self.mutations.push((column, mutator, operand));
        self
    }
}

/// States a precondition.
#[derive(Debug)]
pub struct WaitBuilder<'a> {
    table: &'static TableDef,
    clauses: &'a mut Vec<Clause>,
    columns: &'a mut Vec<(AnyColumn, Datum)>,
    until: &'a mut Until,
}

impl WaitBuilder<'_> {
    /// Selects the row with an identifier.
    pub fn row(self, uuid: Uuid) -> Self {
        self.clause(Clause::is_row(uuid))
    }

    /// Selects the rows for which this clause holds, and every other clause.
    pub fn clause(self, clause: Clause) -> Self {
        assert!(
            clause.column().is_none_or(|column| column.table() == self.table),
            "{clause:?} is not about {:?}",
            self.table
        );
        self.clauses.push(clause);
        self
    }

    /// The selected row is there and has this value.
    pub fn value<T: ColumnType>(self, column: Column<T>, value: impl ToDatum<T>) -> Self {
        self.value_datum(column.any(), value.to_datum())
    }

    /// The selected row is there and has this value.
    pub fn value_datum(self, column: AnyColumn, datum: Datum) -> Self {
        put(self.table, self.columns, column, datum);
        *self.until = Until::Values;
        self
    }

    /// No row is selected.
    pub fn absent(self) {
        self.columns.clear();
        *self.until = Until::Absent;
    }

    /// At least one row is selected.
    pub fn present(self) {
        self.columns.clear();
        *self.until = Until::Present;
    }
}

/// Names a transaction that was handed to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub(crate) u64);

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is in the database, and the updates it caused were reported before this.
    Committed {
        /// For each insertion, in order: the identifier used while building and the one the row has.
        inserted: Vec<(Uuid, Uuid)>,
        /// Rows that updates, mutations and deletions touched, in all.
        affected: u64,
        /// For each [selection](Transaction::select), in order: the row and the column's value; `None` when there is no such row.
        selected: Vec<(Uuid, Option<Datum>)>,
    },
    /// A precondition did not hold, or the cluster could not commit it just now: decide anew from the replica.
    TryAgain,
    /// The lock that the client is configured with is not ours at the moment.
    NotOwner,
    /// It contained [`Transaction::abort`].
    Aborted,
    /// The server refused it.
    Failed(TransactionError),
    /// There was no synchronised connection, so it was not sent.
    NotConnected,
    /// The connection was lost before the answer came: it may or may not be in the database; the next synchronisation
    /// shows which.
    Disconnected,
}

impl Outcome {
    /// Whether it is known to be in the database.
    pub fn is_committed(&self) -> bool {
        matches!(self, Outcome::Committed { .. })
    }
}

/// Why a server refused a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionError {
    /// The operation it happened at, counted from 0; `None` when it happened at commit or to the transaction as a whole.
    pub operation: Option<usize>,
    /// The error's name (RFC 7047 section 3.1), such as "constraint violation" or "referential integrity violation".
    pub error: String,
    /// The server's explanation; may be empty.
    pub details: String,
}

impl std::error::Error for TransactionError {}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        match self.operation {
            Some(operation) => write!(f, " (operation {operation})"),
            None => Ok(()),
        }
    }
}
