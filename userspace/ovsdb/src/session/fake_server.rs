//! A scripted database server: does what ovsdb-server does, one message at a time, with connections that break on request.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Action, Session, SessionConfig, SessionEvent};
use crate::{Column, Framer, Replica, RowChange, RowDraft, Set, Text, Uuid};

pub(crate) use super::hearsay::{DATABASE, TABLE};

pub(crate) const I: Column<i64> = Column::new(&TABLE, 0);
pub(crate) const REFS: Column<Set<Uuid>> = Column::new(&TABLE, 1);
pub(crate) const S: Column<Text> = Column::new(&TABLE, 2);

/// A row of the server.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Stored {
    pub(super) i: i64,
    pub(super) s: String,
    pub(super) refs: Vec<Uuid>,
}

impl Stored {
    pub(super) fn new(i: i64, s: &str) -> Self {
        Stored { i, s: s.to_owned(), refs: Vec::new() }
    }

    fn column(&self, name: &str) -> Value {
        match name {
            "i" => json!(self.i),
            "s" => json!(self.s),
            _ => uuid_set(&self.refs),
        }
    }

    /// The columns asked for that are not at their defaults.
    fn whole(&self, columns: &[String]) -> Value {
        let default = Stored::default();
        let said = columns.iter().filter(|name| self.column(name) != default.column(name));
        said.map(|name| (name.clone(), self.column(name))).collect()
    }

    fn difference(&self, newer: &Stored, columns: &[String]) -> Value {
        let changed = columns.iter().filter(|name| self.column(name) != newer.column(name));
        changed
            .map(|name| {
                let value = if name == "refs" {
                    let once = |uuid: &&Uuid| self.refs.contains(uuid) != newer.refs.contains(uuid);
                    let all: std::collections::BTreeSet<Uuid> =
                        self.refs.iter().chain(&newer.refs).filter(once).copied().collect();
                    uuid_set(&all.into_iter().collect::<Vec<_>>())
                } else {
                    newer.column(name)
                };
                (name.clone(), value)
            })
            .collect()
    }
}

fn uuid_set(uuids: &[Uuid]) -> Value {
    json!(["set", uuids.iter().map(|uuid| json!(["uuid", uuid.to_string()])).collect::<Vec<_>>()])
}

type Change = (Uuid, Option<Stored>, Option<Stored>);

/// How capable the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Knows its history: can resume.
    Clustered,
    /// monitor_cond_since without history.
    Standalone,
    /// No monitor_cond_since.
    CondOnly,
    /// RFC 7047 only: no `_Server`, no conditions.
    Plain,
}

#[derive(Debug)]
struct Monitor {
    id: Value,
    columns: Vec<String>,
    condition: Value,
    method: String,
}

/// The server and the wire to one client.
#[derive(Debug)]
pub(super) struct FakeServer {
    pub(super) kind: Kind,
    pub(super) rows: BTreeMap<Uuid, Stored>,
    history: Vec<(Uuid, Vec<Change>)>,
    pub(super) columns: Vec<&'static str>,
    pub(super) leader: bool,
    pub(super) index: i64,
    pub(super) lock_owned_elsewhere: bool,
    server_row: Uuid,
    server_monitor: Option<Value>,
    monitor: Option<Monitor>,
    pub(super) to_client: VecDeque<Value>,
    /// Every monitor_cond_since and monitor_cond_change received.
    pub(super) monitor_log: Vec<Value>,
}

impl FakeServer {
    pub(super) fn new(kind: Kind) -> Self {
        FakeServer {
            kind,
            rows: BTreeMap::new(),
            history: vec![(Uuid::random(), Vec::new())],
            columns: vec!["i", "refs", "s"],
            leader: true,
            index: 10,
            lock_owned_elsewhere: false,
            server_row: Uuid::random(),
            server_monitor: None,
            monitor: None,
            to_client: VecDeque::new(),
            monitor_log: Vec::new(),
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.server_monitor = None;
        self.monitor = None;
        self.to_client.clear();
    }

    /// Forgets its history, as a restart may.
    pub(super) fn forget_history(&mut self) {
        self.history = vec![(Uuid::random(), Vec::new())];
    }

    fn last_transaction(&self) -> Uuid {
        self.history.last().map_or(Uuid::ZERO, |(id, _)| *id)
    }

    /// Commits a change of rows; `None` deletes. Weak references to deleted rows go with them.
    pub(super) fn commit(&mut self, writes: Vec<(Uuid, Option<Stored>)>) {
        let before = self.rows.clone();
        for (uuid, row) in writes {
            match row {
                Some(row) => self.rows.insert(uuid, row),
                None => self.rows.remove(&uuid),
            };
        }
        let present: Vec<Uuid> = self.rows.keys().copied().collect();
        for row in self.rows.values_mut() {
            row.refs.retain(|target| present.contains(target));
        }
        let uuids: std::collections::BTreeSet<Uuid> = before.keys().chain(self.rows.keys()).copied().collect();
        let changes: Vec<Change> = uuids
            .into_iter()
            .map(|uuid| (uuid, before.get(&uuid).cloned(), self.rows.get(&uuid).cloned()))
            .filter(|(_, old, new)| old != new)
            .collect();
        self.history.push((Uuid::random(), changes.clone()));
        self.index += 1;
        if let Some(monitor) = &self.monitor {
            let updates = updates(&changes, &monitor.condition, &monitor.condition, monitor);
            if let Some(updates) = updates {
                self.notify(updates);
            }
        }
    }

    fn notify(&mut self, updates: Value) {
        let Some(monitor) = &self.monitor else { return };
        let last = self.last_transaction().to_string();
        let message = match monitor.method.as_str() {
            "monitor_cond_since" => json!({"method": "update3", "params": [monitor.id, last, updates], "id": null}),
            "monitor_cond" => json!({"method": "update2", "params": [monitor.id, updates], "id": null}),
            _ => json!({"method": "update", "params": [monitor.id, updates], "id": null}),
        };
        self.to_client.push_back(message);
    }

    fn server_row_json(&self) -> Value {
        json!({"name": "Test", "model": if self.kind == Kind::Clustered { "clustered" } else { "standalone" },
               "connected": true, "leader": self.leader, "index": self.index})
    }

    /// Announces in `_Server` what `leader` and `index` are now.
    pub(super) fn announce(&mut self) {
        let Some(id) = &self.server_monitor else { return };
        let update = json!({"Database": {self.server_row.to_string(): {"modify": {"leader": self.leader, "index": self.index}}}});
        self.to_client.push_back(json!({"method": "update2", "params": [id, update], "id": null}));
    }

    /// Cancels the data monitor, as a schema conversion does.
    pub(super) fn cancel_monitor(&mut self) {
        if let Some(monitor) = self.monitor.take() {
            self.to_client.push_back(json!({"method": "monitor_canceled", "params": [monitor.id], "id": null}));
        }
    }

    pub(super) fn receive(&mut self, message: &Value) {
        let (id, params) = (&message["id"], &message["params"]);
        let reply = |result: Value| json!({"id": id, "result": result, "error": null});
        let error = |error: Value| json!({"id": id, "result": null, "error": error});
        let Some(method) = message["method"].as_str() else { return };
        let old = self.kind == Kind::Plain;
        let answer = match method {
            "echo" => reply(params.clone()),
            "get_schema" if params[0] == "_Server" && old => error(json!({"error": "unknown database", "details": ""})),
            "get_schema" if params[0] == "_Server" => {
                let optional_integer = json!({"key": "integer", "min": 0, "max": 1});
                let columns = json!({"name": {"type": "string"}, "model": {"type": "string"}, "connected": {"type": "boolean"},
                    "leader": {"type": "boolean"}, "index": {"type": optional_integer}});
                reply(json!({"name": "_Server", "version": "1.2.0", "tables": {"Database": {"columns": columns}}}))
            }
            "get_schema" => {
                let kind = |name: &str| match name {
                    "i" => json!("integer"),
                    "s" => json!("string"),
                    _ => {
                        json!({"key": {"type": "uuid", "refTable": "T", "refType": "weak"}, "min": 0, "max": "unlimited"})
                    }
                };
                let columns: Value =
                    self.columns.iter().map(|name| ((*name).to_owned(), json!({"type": kind(name)}))).collect();
                reply(
                    json!({"name": "Test", "version": "1.0.0", "tables": {"T": {"columns": columns}, "Other": {"columns": {}}}}),
                )
            }
            "monitor_cond" if params[0] == "_Server" => {
                self.server_monitor = Some(params[1].clone());
                reply(json!({"Database": {self.server_row.to_string(): {"initial": self.server_row_json()}}}))
            }
            "set_db_change_aware" => reply(json!({})),
            "monitor_cond_since" if matches!(self.kind, Kind::Clustered | Kind::Standalone) => {
                self.monitor_log.push(message.clone());
                reply(self.start_monitor(method, params))
            }
            "monitor_cond" if !old => reply(self.start_monitor(method, params)),
            "monitor" => reply(self.start_monitor(method, params)),
            "monitor_cond_change" => {
                self.monitor_log.push(message.clone());
                let condition = params[2]["T"][0]["where"].clone();
                if let Some(monitor) = &mut self.monitor {
                    let before = std::mem::replace(&mut monitor.condition, condition);
                    let same: Vec<Change> =
                        self.rows.iter().map(|(uuid, row)| (*uuid, Some(row.clone()), Some(row.clone()))).collect();
                    if let Some(updates) = updates(&same, &before, &monitor.condition, monitor) {
                        self.notify(updates);
                    }
                }
                reply(json!({}))
            }
            "lock" => reply(json!({"locked": !self.lock_owned_elsewhere})),
            "steal" => reply(json!({"locked": true})),
            "unlock" => reply(json!({})),
            "transact" => {
                // Understands insertions of T with a column s.
                let mut results = Vec::new();
                let mut writes = Vec::new();
                for operation in params.as_array().unwrap().iter().skip(1) {
                    results.push(match operation["op"].as_str() {
                        Some("insert") => {
                            let uuid = Uuid::random();
                            writes.push((uuid, Some(Stored::new(1, operation["row"]["s"].as_str().unwrap_or("")))));
                            json!({"uuid": ["uuid", uuid.to_string()]})
                        }
                        Some("assert") if self.lock_owned_elsewhere => json!({"error": "not owner", "details": ""}),
                        _ => json!({}),
                    });
                }
                self.commit(writes);
                reply(Value::from(results))
            }
            _ => error(json!("unknown method")),
        };
        self.to_client.push_back(answer);
    }

    fn start_monitor(&mut self, method: &str, params: &Value) -> Value {
        let request = &params[2]["T"][0];
        let columns =
            request["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        let condition = if request["where"].is_null() { json!([true]) } else { request["where"].clone() };
        let monitor = Monitor { id: params[1].clone(), columns, condition, method: method.to_owned() };
        let resume = (self.kind == Kind::Clustered && method == "monitor_cond_since")
            .then(|| self.history.iter().position(|(id, _)| params[3] == id.to_string()))
            .flatten();
        let changes: Vec<Change> = match resume {
            Some(position) => {
                // The net effect of the transactions since: rows that none of them touched are not looked at.
                let mut net: BTreeMap<Uuid, (Option<Stored>, Option<Stored>)> = BTreeMap::new();
                for (uuid, old, new) in self.history[position + 1..].iter().flat_map(|(_, changes)| changes.clone()) {
                    net.entry(uuid).or_insert((old, None)).1 = new;
                }
                net.into_iter().map(|(uuid, (old, new))| (uuid, old, new)).filter(|(_, old, new)| old != new).collect()
            }
            None => self.rows.iter().map(|(uuid, row)| (*uuid, None, Some(row.clone()))).collect(),
        };
        let content = updates(&changes, &monitor.condition, &monitor.condition, &monitor).unwrap_or(json!({}));
        self.monitor = Some(monitor);
        match method {
            "monitor_cond_since" => {
                let last = if self.kind == Kind::Clustered { self.last_transaction() } else { Uuid::ZERO };
                json!([resume.is_some(), last.to_string(), content])
            }
            _ => content,
        }
    }

    /// What a client with this condition is to hold.
    pub(super) fn visible(&self, condition: &Value) -> BTreeMap<Uuid, Stored> {
        self.rows.iter().filter(|(_, row)| matches(condition, row)).map(|(uuid, row)| (*uuid, row.clone())).collect()
    }
}

/// Whether a row is selected by a `where`.
fn matches(condition: &Value, row: &Stored) -> bool {
    let clauses = condition.as_array().unwrap();
    clauses.is_empty() || clauses.iter().any(|clause| clause.as_bool().unwrap_or_else(|| clause[2] == json!(row.i)))
}

/// Changes as a client sees them that had one condition before and has another now; `None` when it sees none.
fn updates(changes: &[Change], before: &Value, after: &Value, monitor: &Monitor) -> Option<Value> {
    let columns = &monitor.columns;
    let mut rows = serde_json::Map::new();
    for (uuid, old, new) in changes {
        let old = old.as_ref().filter(|row| matches(before, row));
        let new = new.as_ref().filter(|row| matches(after, row));
        let update = match (old, new) {
            (Some(old), Some(new)) if old == new => continue,
            (None, None) => continue,
            (_, Some(new)) if monitor.method == "monitor" => {
                let all: Value = columns.iter().map(|name| (name.clone(), new.column(name))).collect();
                json!({ "new": all })
            }
            (Some(old), None) if monitor.method == "monitor" => json!({"old": old.whole(columns)}),
            (None, Some(new)) => json!({"insert": new.whole(columns)}),
            (Some(old), Some(new)) => json!({"modify": old.difference(new, columns)}),
            (Some(_), None) => json!({"delete": null}),
        };
        rows.insert(uuid.to_string(), update);
    }
    (!rows.is_empty()).then(|| json!({ "T": rows }))
}

/// A session, the replica that it feeds, and the wire between it and a [`FakeServer`].
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) session: Session,
    pub(super) server: FakeServer,
    pub(super) replica: Replica,
    pub(super) now: Duration,
    pub(super) to_server: VecDeque<Value>,
    /// Events other than updates, as text, in order; updates as `update`.
    pub(super) events: Vec<String>,
    pub(super) changes: Vec<RowChange>,
    connected: bool,
    shadow: Replica,
}

impl Rig {
    pub(super) fn new(kind: Kind, change: impl FnOnce(&mut SessionConfig)) -> Self {
        let mut config = SessionConfig {
            database: &DATABASE,
            remotes: vec!["fake:0".to_owned()],
            leader_only: false,
            columns: TABLE.all_columns().collect(),
            conditions: Vec::new(),
            lock: None,
            probe_interval: Duration::from_secs(5),
            cluster_id: None,
            seed: 1,
        };
        change(&mut config);
        Rig {
            session: Session::new(config),
            server: FakeServer::new(kind),
            replica: Replica::with_layout(crate::layout::DatabaseLayout::empty(&DATABASE)),
            now: Duration::ZERO,
            to_server: VecDeque::new(),
            events: Vec::new(),
            changes: Vec::new(),
            connected: false,
            shadow: Replica::new(&DATABASE),
        }
    }

    /// Carries out the session's actions and takes its events.
    pub(super) fn settle(&mut self) {
        while let Some(action) = self.session.next_action() {
            match action {
                Action::Connect(_) => {
                    self.connected = true;
                    self.session.connected(self.now);
                }
                Action::Send(bytes) => {
                    let message = serde_json::from_slice(&bytes).unwrap();
                    assert!(self.connected, "sent while not connected: {message}");
                    self.to_server.push_back(message);
                }
                Action::Close => self.drop_wire(),
            }
        }
        while let Some(event) = self.session.next_event() {
            match event {
                SessionEvent::Update(batch) => {
                    self.events.push("update".to_owned());
                    let changes = self.replica.apply(batch).unwrap_or_else(|error| panic!("{error}\n{self:#?}"));
                    for change in &changes {
                        self.check(change);
                    }
                    self.changes.extend(changes);
                }
                other => self.events.push(format!("{other:?}")),
            }
        }
    }

    /// A change has to start from what its consumer last saw.
    fn check(&mut self, change: &RowChange) {
        let seen = self.shadow.row(change.table, change.uuid);
        assert_eq!(seen, change.old.as_ref(), "{change:?}");
        match &change.new {
            Some(new) => drop(self.shadow.put(RowDraft::from_row(new))),
            None => drop(self.shadow.remove(change.table, change.uuid)),
        }
    }

    fn drop_wire(&mut self) {
        self.connected = false;
        self.to_server.clear();
        self.server.disconnect();
    }

    /// Breaks the connection: what is under way in either direction is lost.
    pub(super) fn cut(&mut self) {
        self.drop_wire();
        self.session.connection_lost(self.now, "cut");
        self.settle();
    }

    /// Delivers one message to the server.
    pub(super) fn step_to_server(&mut self) -> bool {
        let Some(message) = self.to_server.pop_front() else { return false };
        self.server.receive(&message);
        true
    }

    /// Delivers one message to the client.
    pub(super) fn step_to_client(&mut self) -> bool {
        let Some(message) = self.server.to_client.pop_front() else { return false };
        let mut framer = Framer::default();
        framer.buffer().extend_from_slice(message.to_string().as_bytes());
        let frame = framer.next_frame().unwrap().unwrap();
        self.session.received(self.now, &frame);
        self.settle();
        true
    }

    /// Lets time pass to the session's next deadline.
    pub(super) fn step_time(&mut self) {
        if let Some(deadline) = self.session.deadline() {
            self.now = self.now.max(deadline);
            self.session.tick(self.now);
            self.settle();
        }
    }

    /// Connects if need be and delivers until nothing is under way.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            self.settle();
            if !self.connected {
                self.step_time();
            } else if !self.step_to_server() && !self.step_to_client() {
                return;
            }
        }
        panic!("never quiet: {self:#?}");
    }

    /// Whether there is a wire.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// The replica's rows as the server keeps them.
    pub(super) fn content(&self) -> BTreeMap<Uuid, Stored> {
        let rows = self.replica.rows(&TABLE);
        rows.map(|row| {
            (row.uuid(), Stored { i: row.get(I), s: row.get(S).to_string(), refs: row.get(REFS).iter().collect() })
        })
        .collect()
    }
}
