//! What happens on one connection.

use std::time::Duration;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::server_database::{self, Demands};
use super::{Action, Link, LockRequest, Session, SessionEvent, reply};
use crate::decode::{Decoder, Notation};
use crate::layout::{DatabaseLayout, TableLayout};
use crate::server_schema::ServerSchema;
use crate::transaction::Expected;
use crate::update::{RowUpdate, UpdateBatch};
use crate::{Condition, Frame, LockState, Outcome, Replica, TransactionId, Uuid, json};

const SERVER_MONITOR: &str = "oxbow-server";
const DATA_MONITOR: &str = "oxbow-data";

/// How long a probe may stay unanswered while the server puts the initial data together: it does nothing else meanwhile, which
/// for a large database takes longer than a probe interval, and who leaves then only makes it start over for the next.
const DUMP_PATIENCE: Duration = Duration::from_secs(60);

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Finding out whether the server will do.
    Checking,
    /// Asking for schema and data.
    Fetching,
    /// Kept up to date since then.
    Monitoring(Duration),
}

/// The method that a data monitor was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    CondSince,
    Cond,
    Plain,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::CondSince => "monitor_cond_since",
            Method::Cond => "monitor_cond",
            Method::Plain => "monitor",
        }
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) enum Pending {
    ServerSchema,
    ServerMonitor,
    ChangeAware,
    DataSchema,
    DataMonitor(Method),
    ConditionChange,
    Lock(LockRequest),
    Unlock,
    Transaction { id: TransactionId, expected: Vec<Expected>, skipped: usize },
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) remote: String,
    last_heard: Duration,
    probed: Option<Duration>,
    stage: Stage,
    pending: FxHashMap<u64, Pending>,
    server: Option<(Decoder, Replica)>,
    data: Option<Decoder>,
    method: Method,
}

impl Connection {
    pub(super) fn new(remote: String, now: Duration) -> Self {
        Connection {
            remote,
            last_heard: now,
            probed: None,
            stage: Stage::Checking,
            pending: FxHashMap::default(),
            server: None,
            data: None,
            method: Method::CondSince,
        }
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.last_heard = now;
        self.probed = None;
    }

    /// How long a probe may stay unanswered.
    pub(super) fn patience(&self, interval: Duration) -> Duration {
        let awaits_data = self.pending.values().any(|pending| matches!(pending, Pending::DataMonitor(_)));
        if awaits_data { interval.max(DUMP_PATIENCE) } else { interval }
    }

    /// When a probe is to be sent, or one that was sent has stayed unanswered for too long.
    pub(super) fn probe_deadline(&self, interval: Duration) -> Option<Duration> {
        (!interval.is_zero()).then(|| match self.probed {
            Some(probed) => probed + self.patience(interval),
            None => self.last_heard + interval,
        })
    }

    /// Notes that a probe is sent; false when the last one was not answered.
    pub(super) fn send_probe(&mut self, now: Duration) -> bool {
        let first = self.probed.is_none();
        self.probed = Some(now);
        first
    }

    pub(super) fn synchronized_since(&self) -> Option<Duration> {
        if let Stage::Monitoring(since) = self.stage { Some(since) } else { None }
    }

    /// The transactions that will not be answered any more, oldest first.
    pub(super) fn take_transactions(&mut self) -> Vec<TransactionId> {
        let pending = std::mem::take(&mut self.pending).into_values();
        let mut ids: Vec<_> =
            pending.filter_map(|p| if let Pending::Transaction { id, .. } = p { Some(id) } else { None }).collect();
        ids.sort_unstable();
        ids
    }
}

impl Session {
    fn connection(&mut self) -> Result<&mut Connection, String> {
        match &mut self.link {
            Link::Up(connection) => Ok(connection),
            _ => Err("not connected".to_owned()),
        }
    }

    /// Sends a request; `params` is JSON.
    pub(super) fn request(&mut self, method: &str, params: &[u8], pending: Pending) {
        let Link::Up(connection) = &mut self.link else { return };
        self.next_request += 1;
        let mut message = Vec::with_capacity(params.len() + 64);
        json::write_display(
            &mut message,
            format_args!("{{\"id\":{},\"method\":\"{method}\",\"params\":", self.next_request),
        );
        message.extend_from_slice(params);
        message.push(b'}');
        connection.pending.insert(self.next_request, pending);
        self.actions.push_back(Action::Send(message));
    }

    pub(super) fn start_connection(&mut self) {
        self.request("get_schema", b"[\"_Server\"]", Pending::ServerSchema);
    }

    /// Acts on a message. The error is the reason for which the connection is given up.
    pub(super) fn handle(&mut self, now: Duration, frame: &Frame) -> Result<(), String> {
        let bad = |what: &str, error: &dyn std::fmt::Display| format!("bad {what}: {error}");
        if let Some(method) = frame.member("method") {
            let method: String = serde_json::from_slice(method).map_err(|error| bad("method", &error))?;
            let params = frame.member("params").ok_or_else(|| format!("{method} without params"))?;
            return self.handle_call(&method, params, frame);
        }
        let id = frame.member("id").ok_or("message is neither request nor reply")?;
        let Ok(id) = serde_json::from_slice::<u64>(id) else {
            // The reply to a probe, whose id is a string: that it came is all that matters.
            return Ok(());
        };
        let pending = self.connection()?.pending.remove(&id).ok_or_else(|| format!("reply to unknown request {id}"))?;
        let error = frame.member("error").filter(|error| error.trim_ascii() != b"null").map(reply::error_text);
        let result = frame.member("result").unwrap_or(b"null");
        self.handle_reply(now, pending, result, error)
    }

    fn handle_call(&mut self, method: &str, params: &[u8], frame: &Frame) -> Result<(), String> {
        match method {
            "echo" => {
                let id = frame.member("id").unwrap_or(b"null");
                let answer = [b"{\"id\":", id, b",\"result\":", params, b",\"error\":null}"].concat();
                self.actions.push_back(Action::Send(answer));
                Ok(())
            }
            "update" => self.handle_update(Notation::Update, 1, params),
            "update2" => self.handle_update(Notation::Update2, 1, params),
            "update3" => self.handle_update(Notation::Update2, 2, params),
            "monitor_canceled" => match reply::first_element(params) {
                Some(Value::String(id)) if id == DATA_MONITOR => {
                    tracing::info!(target: "ovsdb_cs", "{}: database changed its schema; fetching it anew", self.connection()?.remote);
                    self.last_transaction = Uuid::ZERO;
                    self.fetch_schema()
                }
                _ => Err("server canceled our monitor".to_owned()),
            },
            "locked" | "stolen" => {
                let ours = self.config.lock.as_ref().map(|lock| Value::from(lock.name.as_str()));
                if ours.is_some() && reply::first_element(params) == ours {
                    self.set_lock_held(method == "locked");
                }
                Ok(())
            }
            other => {
                tracing::debug!(target: "ovsdb_cs", "ignoring call of unknown method {other}");
                Ok(())
            }
        }
    }

    fn handle_update(&mut self, notation: Notation, heads: usize, params: &[u8]) -> Result<(), String> {
        let bad = |error: serde_json::Error| format!("bad update: {error}");
        let connection = self.connection()?;
        if reply::first_element(params) == Some(Value::from(SERVER_MONITOR)) {
            let Some((decoder, replica)) = &mut connection.server else {
                return Err("update of no monitor".to_owned());
            };
            let (_, rows) = reply::decode_updates(decoder, notation, heads, params).map_err(bad)?;
            replica.apply(UpdateBatch { reset: None, rows }).map_err(|error| error.to_string())?;
            return self.check_server();
        }
        let synchronized = connection.synchronized_since().is_some();
        let Some(decoder) = connection.data.as_mut().filter(|_| synchronized) else {
            // Still under way when the monitor was canceled: everything is about to be fetched anew.
            return Ok(());
        };
        let (heads, rows) = reply::decode_updates(decoder, notation, heads, params).map_err(bad)?;
        if let Some(last) = heads.get(1) {
            self.last_transaction = transaction_id(last)?;
        }
        self.events.push_back(SessionEvent::Update(UpdateBatch { reset: None, rows }));
        Ok(())
    }

    fn handle_reply(
        &mut self,
        now: Duration,
        pending: Pending,
        result: &[u8],
        error: Option<String>,
    ) -> Result<(), String> {
        let bad = |what: &str, error: serde_json::Error| format!("bad reply to {what}: {error}");
        match (pending, error) {
            (Pending::ServerSchema, None) => {
                let schema = ServerSchema::parse(result).map_err(|error| bad("get_schema _Server", error))?;
                let layout = schema.layout(&server_database::DATABASE, |_| true, |_| ());
                let mut params = format!("[\"_Server\",\"{SERVER_MONITOR}\",").into_bytes();
                write_monitor_requests(&mut params, &layout, None);
                params.push(b']');
                let replica = Replica::with_layout(layout.clone());
                self.connection()?.server = Some((Decoder::new(layout), replica));
                self.request("monitor_cond", &params, Pending::ServerMonitor);
                Ok(())
            }
            // Servers before 2.9 have no _Server database: there is nothing to check.
            (Pending::ServerSchema, Some(_)) => self.fetch_schema(),
            (Pending::ServerMonitor, None) => {
                let Some((decoder, replica)) = &mut self.connection()?.server else {
                    return Err("no monitor".to_owned());
                };
                let rows = decoder.decode(Notation::Update2, result).map_err(|error| bad("monitor_cond", error))?;
                replica.apply(UpdateBatch { reset: None, rows }).map_err(|error| error.to_string())?;
                self.request("set_db_change_aware", b"[true]", Pending::ChangeAware);
                self.check_server()?;
                self.fetch_schema()
            }
            (Pending::DataSchema, None) => {
                let schema = ServerSchema::parse(result).map_err(|error| bad("get_schema", error))?;
                self.start_monitor(&schema)
            }
            (Pending::DataMonitor(method), None) => self.finish_monitor(now, method, result),
            (Pending::DataMonitor(Method::CondSince), Some(error)) if error == "unknown method" => {
                self.send_monitor(Method::Cond)
            }
            (Pending::DataMonitor(Method::Cond), Some(error)) if error == "unknown method" => {
                self.send_monitor(Method::Plain)
            }
            (Pending::ConditionChange, None) => {
                self.conditions.acknowledge();
                self.advance_conditions();
                Ok(())
            }
            (Pending::Lock(lock), None) => {
                #[derive(serde::Deserialize)]
                struct Locked {
                    locked: bool,
                }
                let Locked { locked } = serde_json::from_slice(result).map_err(|error| bad("lock", error))?;
                // Given up, and perhaps asked for again, before this answer came: what is said of that decides.
                let about_lock = |pending: &Pending| matches!(pending, Pending::Lock(_) | Pending::Unlock);
                let is_old = self.connection()?.pending.values().any(about_lock);
                if !is_old && self.config.lock.as_ref() == Some(&lock) {
                    self.set_lock_held(locked);
                    if !locked {
                        self.events.push_back(SessionEvent::Lock(LockState::Contended));
                    }
                }
                Ok(())
            }
            (Pending::Transaction { id, expected, skipped }, None) => {
                let outcome =
                    reply::transaction_outcome(result, &expected, skipped).map_err(|error| bad("transact", error))?;
                self.events.push_back(SessionEvent::TransactionDone { id, outcome });
                Ok(())
            }
            (Pending::Transaction { id, .. }, Some(error)) => {
                // A database that is being converted answers the transactions it was still holding so.
                let outcome = match error.as_str() {
                    "canceled" => Outcome::TryAgain,
                    _ => Outcome::Failed(crate::TransactionError { operation: None, error, details: String::new() }),
                };
                self.events.push_back(SessionEvent::TransactionDone { id, outcome });
                Ok(())
            }
            (Pending::ChangeAware | Pending::Unlock, _) => Ok(()),
            (pending, Some(error)) => {
                let what = match pending {
                    Pending::ServerMonitor => "monitor of _Server",
                    Pending::DataSchema => "schema",
                    Pending::DataMonitor(_) => "monitor",
                    Pending::ConditionChange => "condition change",
                    _ => "lock",
                };
                Err(format!("server refused {what} ({error}); trying another server"))
            }
        }
    }

    /// Whether the server will still do.
    pub(super) fn check_server(&mut self) -> Result<(), String> {
        let Link::Up(connection) = &self.link else { return Ok(()) };
        let Some((_, server)) = &connection.server else { return Ok(()) };
        let demands = Demands {
            database: self.config.database.name,
            leader_only: self.config.leader_only,
            cluster_id: self.config.cluster_id,
            min_index: self.min_index,
        };
        let accepted = server_database::check(server, demands).inspect_err(|_| {
            if self.config.leader_only && server_database::follows(server, self.config.database.name) {
                self.reconnect.met_a_follower();
            }
        })?;
        if let Some(index) = accepted.index {
            self.min_index = index;
        }
        Ok(())
    }

    fn fetch_schema(&mut self) -> Result<(), String> {
        let connection = self.connection()?;
        connection.stage = Stage::Fetching;
        let mut params = vec![b'['];
        json::write_string(&mut params, self.config.database.name);
        params.push(b']');
        self.request("get_schema", &params, Pending::DataSchema);
        Ok(())
    }

    fn start_monitor(&mut self, schema: &ServerSchema) -> Result<(), String> {
        let wanted = &self.wanted;
        let remote = self.remote().unwrap_or_default().to_owned();
        let mismatch = |column: crate::AnyColumn| {
            tracing::warn!(target: "ovsdb_cs", "{remote}: column {column:?} has another type in schema {}; it is not used", schema.version);
        };
        let is_wanted =
            |column: crate::AnyColumn| wanted[usize::from(column.table().index)] & (1 << column.index()) != 0;
        let mut layout = schema.layout(self.config.database, is_wanted, mismatch);
        match &self.last_layout {
            Some(last) if last.same_columns(&layout) => layout = last.clone(),
            // Rows that were received without a column cannot be completed by what changed since.
            _ => self.last_transaction = Uuid::ZERO,
        }
        let connection = self.connection()?;
        connection.data = Some(Decoder::new(layout));
        self.send_monitor(Method::CondSince)
    }

    fn send_monitor(&mut self, method: Method) -> Result<(), String> {
        if method != Method::CondSince {
            self.last_transaction = Uuid::ZERO;
        }
        self.conditions.start_monitor(self.last_transaction.is_zero());
        let Link::Up(connection) = &mut self.link else { return Err("not connected".to_owned()) };
        let Some(decoder) = &connection.data else { return Err("no schema".to_owned()) };
        let mut params = vec![b'['];
        json::write_string(&mut params, self.config.database.name);
        json::write_display(&mut params, format_args!(",\"{DATA_MONITOR}\","));
        let conditions = |table: &TableLayout| usable(self.conditions.in_force(table.table()), table);
        let conditions: Option<&dyn Fn(&TableLayout) -> Condition> =
            if method == Method::Plain { None } else { Some(&conditions) };
        write_monitor_requests(&mut params, decoder.layout(), conditions);
        if method == Method::CondSince {
            json::write_display(&mut params, format_args!(",\"{}\"", self.last_transaction));
        }
        params.push(b']');
        self.request(method.name(), &params, Pending::DataMonitor(method));
        Ok(())
    }

    fn finish_monitor(&mut self, now: Duration, method: Method, result: &[u8]) -> Result<(), String> {
        let bad = |error: serde_json::Error| format!("bad reply to {}: {error}", method.name());
        let Link::Up(connection) = &mut self.link else { return Err("not connected".to_owned()) };
        let Some(decoder) = &mut connection.data else { return Err("no schema".to_owned()) };
        let (rows, found): (Vec<RowUpdate>, bool) = match method {
            Method::CondSince => {
                let (heads, rows) = reply::decode_updates(decoder, Notation::Update2, 2, result).map_err(bad)?;
                let (Some(Value::Bool(found)), Some(last)) = (heads.first(), heads.get(1)) else {
                    return Err("bad reply to monitor_cond_since".to_owned());
                };
                let resumed = *found && !self.last_transaction.is_zero();
                self.last_transaction = transaction_id(last)?;
                (rows, resumed)
            }
            Method::Cond => (decoder.decode(Notation::Update2, result).map_err(bad)?, false),
            Method::Plain => (decoder.decode(Notation::Update, result).map_err(bad)?, false),
        };
        let layout = decoder.layout().clone();
        connection.method = method;
        connection.stage = Stage::Monitoring(now);
        let remote = connection.remote.clone();
        self.last_error = None;
        self.last_layout = Some(layout.clone());
        self.events.push_back(SessionEvent::Update(UpdateBatch { reset: (!found).then_some(layout), rows }));
        if !std::mem::replace(&mut self.reported_synchronized, true) {
            self.events.push_back(SessionEvent::Synchronized { remote });
        }
        if !self.lock_held {
            self.request_lock();
        }
        self.advance_conditions();
        Ok(())
    }

    /// Reports conditions that came into force and sends those that are new.
    pub(super) fn advance_conditions(&mut self) {
        if !self.is_synchronized() {
            return;
        }
        if let Some(number) = self.conditions.newly_acknowledged() {
            self.events.push_back(SessionEvent::ConditionAcknowledged(number));
        }
        let changes = self.conditions.start_change();
        if changes.is_empty() {
            return;
        }
        let Link::Up(connection) = &self.link else { return };
        let Some(decoder) = connection.data.as_ref().filter(|_| connection.method != Method::Plain) else {
            // RFC 7047's monitor sends every row, so every condition is met at once.
            self.conditions.acknowledge();
            return self.advance_conditions();
        };
        let mut params = format!("[\"{DATA_MONITOR}\",\"{DATA_MONITOR}\",{{").into_bytes();
        let mut first = true;
        for (index, condition) in changes {
            let table = &decoder.layout().tables[index];
            if table.slot_count() == 0 {
                continue;
            }
            if !std::mem::take(&mut first) {
                params.push(b',');
            }
            json::write_string(&mut params, table.table().name);
            params.extend_from_slice(b":[{\"where\":");
            usable(&condition, table).write(&mut params);
            params.extend_from_slice(b"}]");
        }
        params.extend_from_slice(b"}]");
        if first {
            // Only tables that the server does not have.
            self.conditions.acknowledge();
            return self.advance_conditions();
        }
        self.request("monitor_cond_change", &params, Pending::ConditionChange);
    }

    pub(super) fn request_lock(&mut self) {
        let Some(lock) = self.config.lock.clone().filter(|_| self.is_synchronized()) else { return };
        let mut params = vec![b'['];
        json::write_string(&mut params, &lock.name);
        params.push(b']');
        self.request(if lock.steal { "steal" } else { "lock" }, &params, Pending::Lock(lock));
    }

    pub(super) fn release_lock(&mut self) {
        let Some(lock) = self.config.lock.clone().filter(|_| self.is_synchronized()) else { return };
        let mut params = vec![b'['];
        json::write_string(&mut params, &lock.name);
        params.push(b']');
        self.request("unlock", &params, Pending::Unlock);
        if std::mem::take(&mut self.lock_held) {
            self.events.push_back(SessionEvent::Lock(LockState::Lost));
        }
    }

    fn set_lock_held(&mut self, held: bool) {
        if std::mem::replace(&mut self.lock_held, held) != held {
            let state = if held { LockState::Acquired } else { LockState::Lost };
            self.events.push_back(SessionEvent::Lock(state));
        }
    }
}

fn transaction_id(value: &Value) -> Result<Uuid, String> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("bad transaction id {value}"))
}

fn usable(condition: &Condition, table: &TableLayout) -> Condition {
    condition.usable(|column| table.slot(column.index()).is_some())
}

/// Writes `<monitor-requests>`: for each table that has columns, these and the condition unless it is true.
fn write_monitor_requests(
    out: &mut Vec<u8>,
    layout: &DatabaseLayout,
    conditions: Option<&dyn Fn(&TableLayout) -> Condition>,
) {
    out.push(b'{');
    let tables = layout.tables.iter().filter(|table| table.slot_count() > 0);
    for (index, table) in tables.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_string(out, table.table().name);
        out.extend_from_slice(b":[{\"columns\":[");
        for slot in 0..table.slot_count() {
            if slot > 0 {
                out.push(b',');
            }
            json::write_string(out, table.name(slot));
        }
        out.push(b']');
        if let Some(condition) =
            conditions.map(|conditions| conditions(table)).filter(|condition| *condition != Condition::True)
        {
            out.extend_from_slice(b",\"where\":");
            condition.write(out);
        }
        out.extend_from_slice(b"}]");
    }
    out.push(b'}');
}
