//! The protocol as a state machine: messages and time go in, messages and events come out.
//!
//! The session owns no socket and reads no clock. Its driver carries out [`Action`]s, hands in the [`Frame`]s it receives
//! with the time (any monotonic clock, as the time since some origin), and calls [`Session::tick`] at
//! [`Session::deadline`]. A session outlives its connections: what it remembers from one to the next (the last transaction id,
//! the newest log index, the conditions) is what makes a reconnect cheap and safe.
//!
//! A connection goes through these stages:
//!
//! ```text
//! get_schema _Server ─▶ monitor_cond _Server ─▶ (acceptable?) ─▶ get_schema ─▶ monitor_cond_since ─▶ monitoring
//!         │ no such database                                        ▲             │ unknown method
//!         └─────────────────────────────────────────────────────────┘             ▼
//!                                                                          monitor_cond, then monitor
//! ```

mod conditions;
mod connection;
pub mod hearsay;
mod reconnect;
mod reply;
mod server_database;

use std::collections::VecDeque;
use std::time::Duration;

use crate::layout::DatabaseLayout;
use crate::update::UpdateBatch;
use crate::{AnyColumn, Condition, DatabaseDef, Frame, LockState, Outcome, TableDef, Transaction, TransactionId, Uuid};
use conditions::Conditions;
use connection::Connection;
use reconnect::Reconnect;

/// What a session is to do.
#[derive(Clone, Debug)]
pub(crate) struct SessionConfig {
    pub(crate) database: &'static DatabaseDef,
    pub(crate) remotes: Vec<String>,
    pub(crate) leader_only: bool,
    pub(crate) columns: Vec<AnyColumn>,
    pub(crate) conditions: Vec<(&'static TableDef, Condition)>,
    pub(crate) lock: Option<LockRequest>,
    /// Zero: no probes.
    pub(crate) probe_interval: Duration,
    pub(crate) cluster_id: Option<Uuid>,
    /// Decides the order of the remotes.
    pub(crate) seed: u64,
}

/// A lock to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockRequest {
    pub(crate) name: String,
    /// Take it from whoever has it, instead of waiting.
    pub(crate) steal: bool,
}

/// What the driver is to do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Open a connection, then call [`Session::connected`] or [`Session::connection_lost`].
    Connect(String),
    /// Send these bytes on the open connection.
    Send(Vec<u8>),
    /// Close the connection or give up opening it; the session has already dealt with it.
    Close,
}

/// What happened, in the order it did.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    Synchronized { remote: String },
    Lost { remote: String, reason: String },
    Update(UpdateBatch),
    Lock(LockState),
    TransactionDone { id: TransactionId, outcome: Outcome },
    ConditionAcknowledged(u64),
}

#[derive(Debug)]
enum Link {
    /// Until when, and whether the wait was announced; `None` waits for remotes.
    Waiting(Option<Duration>),
    Connecting {
        remote: String,
        deadline: Duration,
    },
    Up(Box<Connection>),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Session {
    config: SessionConfig,
    wanted: Vec<u64>,
    reconnect: Reconnect,
    link: Link,
    next_request: u64,
    actions: VecDeque<Action>,
    events: VecDeque<SessionEvent>,
    conditions: Conditions,
    /// From which to resume monitoring; zero when only everything will do.
    last_transaction: Uuid,
    /// The layout of the data received so far.
    last_layout: Option<DatabaseLayout>,
    min_index: i64,
    lock_held: bool,
    /// The owner was told that the data is up to date and not yet that it no longer is.
    reported_synchronized: bool,
    last_error: Option<String>,
}

impl Session {
    /// A session that connects at its first [`tick`](Session::tick).
    pub(crate) fn new(mut config: SessionConfig) -> Self {
        let mut wanted = vec![0u64; config.database.tables.len()];
        for column in &config.columns {
            wanted[usize::from(column.table().index)] |= 1 << column.index();
        }
        let mut conditions = Conditions::new(config.database);
        conditions.set(0, std::mem::take(&mut config.conditions));
        let reconnect = Reconnect::new(std::mem::take(&mut config.remotes), config.seed);
        Session {
            config,
            wanted,
            reconnect,
            link: Link::Waiting(Some(Duration::ZERO)),
            next_request: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            conditions,
            last_transaction: Uuid::ZERO,
            last_layout: None,
            min_index: 0,
            lock_held: false,
            reported_synchronized: false,
            last_error: None,
        }
    }

    /// The next thing to do.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub(crate) fn next_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// When to call [`tick`](Session::tick) even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.link {
            Link::Waiting(until) => *until,
            Link::Connecting { deadline, .. } => Some(*deadline),
            Link::Up(connection) => connection.probe_deadline(self.config.probe_interval),
        }
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &mut self.link {
            Link::Waiting(_) => self.start_connecting(now),
            Link::Connecting { .. } => self.fail(now, "connection attempt timed out"),
            Link::Up(connection) => {
                if connection.send_probe(now) {
                    let probe = br#"{"id":"echo","method":"echo","params":[]}"#;
                    self.actions.push_back(Action::Send(probe.to_vec()));
                } else {
                    let seconds = connection.patience(self.config.probe_interval).as_secs_f64();
                    self.fail(now, &format!("no response to inactivity probe after {seconds} seconds"));
                }
            }
        }
    }

    fn start_connecting(&mut self, now: Duration) {
        let Some(remote) = self.reconnect.next_remote() else {
            self.link = Link::Waiting(None);
            return;
        };
        tracing::info!(target: "reconnect", "{remote}: connecting...");
        self.actions.push_back(Action::Connect(remote.clone()));
        self.link = Link::Connecting { remote, deadline: now + self.reconnect.attempt_limit() };
    }

    /// The connection that was asked for is open.
    pub(crate) fn connected(&mut self, now: Duration) {
        let Link::Connecting { remote, .. } = &self.link else { return };
        tracing::info!(target: "reconnect", "{remote}: connected");
        self.link = Link::Up(Box::new(Connection::new(remote.clone(), now)));
        self.start_connection();
    }

    /// Bytes arrived, whether or not they make a message yet.
    pub(crate) fn heard(&mut self, now: Duration) {
        if let Link::Up(connection) = &mut self.link {
            connection.heard(now);
        }
    }

    /// A message arrived.
    pub(crate) fn received(&mut self, now: Duration, frame: &Frame) {
        self.heard(now);
        if !matches!(self.link, Link::Up(_)) {
            return;
        }
        if let Err(reason) = self.handle(now, frame) {
            self.fail(now, &reason);
        }
    }

    /// The connection could not be opened, or is closed.
    pub(crate) fn connection_lost(&mut self, now: Duration, reason: &str) {
        match &self.link {
            Link::Waiting(_) => {}
            Link::Connecting { remote, .. } => {
                tracing::info!(target: "reconnect", "{remote}: connection attempt failed ({reason})");
                self.unlink(now, reason);
            }
            Link::Up(connection) => {
                tracing::info!(target: "reconnect", "{}: connection dropped ({reason})", connection.remote);
                self.unlink(now, reason);
            }
        }
    }

    /// Gives a connection up from this side.
    fn fail(&mut self, now: Duration, reason: &str) {
        let remote = match &self.link {
            Link::Waiting(_) => return,
            Link::Connecting { remote, .. } => remote,
            Link::Up(connection) => &connection.remote,
        };
        tracing::info!(target: "ovsdb_cs", "{remote}: {reason}");
        self.actions.push_back(Action::Close);
        self.unlink(now, reason);
    }

    /// Leaves the connection behind: nothing that was under way on it will be answered.
    fn unlink(&mut self, now: Duration, reason: &str) {
        self.last_error = Some(reason.to_owned());
        let link = std::mem::replace(&mut self.link, Link::Waiting(None));
        if let Link::Up(mut connection) = link {
            for id in connection.take_transactions() {
                self.events.push_back(SessionEvent::TransactionDone { id, outcome: Outcome::Disconnected });
            }
            if std::mem::take(&mut self.lock_held) {
                self.events.push_back(SessionEvent::Lock(LockState::Lost));
            }
            if let Some(since) = connection.synchronized_since() {
                self.reconnect.was_useful(now.saturating_sub(since));
            }
            if std::mem::take(&mut self.reported_synchronized) {
                let (remote, reason) = (connection.remote.clone(), reason.to_owned());
                self.events.push_back(SessionEvent::Lost { remote, reason });
            }
            if self.conditions.in_flight() {
                // The rows that the change selects may have been under way, below the last transaction id that we know.
                self.last_transaction = Uuid::ZERO;
            }
        }
        let wait = self.reconnect.next_wait();
        if !wait.is_zero() {
            tracing::info!(target: "reconnect", "waiting {} seconds before reconnect", wait.as_secs());
        }
        self.link = Link::Waiting(Some(now + wait));
    }

    /// The connected or tried remote.
    pub(crate) fn remote(&self) -> Option<&str> {
        match &self.link {
            Link::Waiting(_) => None,
            Link::Connecting { remote, .. } => Some(remote),
            Link::Up(connection) => Some(&connection.remote),
        }
    }

    /// Whether a connection is open.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Whether the data is being kept up to date.
    pub(crate) fn is_synchronized(&self) -> bool {
        matches!(&self.link, Link::Up(connection) if connection.synchronized_since().is_some())
    }

    /// Why the last connection ended or was refused.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Replaces the remotes; the connection stays if its remote is still among them.
    pub(crate) fn set_remotes(&mut self, now: Duration, remotes: Vec<String>) {
        let same = {
            let (mut old, mut new) = (self.reconnect.remotes().to_vec(), remotes.clone());
            old.sort();
            new.sort();
            old == new
        };
        if same {
            return;
        }
        let stays = self.remote().is_some_and(|remote| remotes.iter().any(|new| new == remote));
        self.reconnect.set_remotes(remotes);
        match self.link {
            Link::Waiting(_) => self.link = Link::Waiting(Some(now)),
            _ if stays => {}
            _ => self.fail(now, "remote is no longer configured"),
        }
    }

    /// Drops the connection and starts over without waiting.
    pub(crate) fn force_reconnect(&mut self, now: Duration) {
        self.reconnect.reset();
        match self.link {
            Link::Waiting(_) => self.link = Link::Waiting(Some(now)),
            _ => self.fail(now, "forced reconnect"),
        }
    }

    /// Gives up data that turned out not to fit: everything is fetched anew.
    pub(crate) fn resynchronize(&mut self, now: Duration, reason: &str) {
        self.last_transaction = Uuid::ZERO;
        self.fail(now, reason);
    }

    pub(crate) fn set_probe_interval(&mut self, interval: Duration) {
        self.config.probe_interval = interval;
    }

    pub(crate) fn set_leader_only(&mut self, now: Duration, leader_only: bool) {
        self.config.leader_only = leader_only;
        if let Err(reason) = self.check_server() {
            self.fail(now, &reason);
        }
    }

    /// Forgets how new the data seen was.
    pub(crate) fn reset_cluster_state(&mut self) {
        self.min_index = 0;
    }

    /// Numbers must ascend.
    pub(crate) fn set_conditions(&mut self, number: u64, conditions: Vec<(&'static TableDef, Condition)>) {
        self.conditions.set(number, conditions);
        self.advance_conditions();
    }

    pub(crate) fn set_lock(&mut self, lock: Option<LockRequest>) {
        if self.config.lock == lock {
            return;
        }
        self.release_lock();
        self.config.lock = lock;
        self.request_lock();
    }

    /// Sends a transaction, or answers at once when there is no synchronised connection.
    pub(crate) fn transact(&mut self, id: TransactionId, transaction: &Transaction) {
        if !self.is_synchronized() {
            self.events.push_back(SessionEvent::TransactionDone { id, outcome: Outcome::NotConnected });
            return;
        }
        let lock = self.config.lock.as_ref().map(|lock| lock.name.clone());
        let mut params = Vec::new();
        transaction.write_params(&mut params, lock.as_deref());
        let pending = connection::Pending::Transaction {
            id,
            expected: transaction.expected(),
            skipped: usize::from(lock.is_some()),
        };
        self.request("transact", &params, pending);
    }
}

#[cfg(test)]
pub(crate) mod fake_server;
#[cfg(test)]
mod tests;
