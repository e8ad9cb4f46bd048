//! The client: what its owner sees of a session.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::driver::{self, Command};
use crate::layout::DatabaseLayout;
use crate::remote;
use crate::session::{LockRequest, Session, SessionConfig, SessionEvent};
use crate::{
    AnyColumn, Condition, DatabaseDef, Outcome, Replica, RowChange, TableDef, TlsFiles, Transaction, TransactionId,
    Uuid,
};

/// What to connect to and what to monitor.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The database.
    pub database: &'static DatabaseDef,
    /// Where it is served, comma-separated: `unix:PATH`, `tcp:HOST:PORT`, `ssl:HOST:PORT`.
    pub remotes: String,
    /// Whether only a cluster's leader will do.
    pub leader_only: bool,
    /// The monitored columns.
    pub columns: Vec<AnyColumn>,
    /// The initial conditions; a table without one is monitored whole.
    pub conditions: Vec<(&'static TableDef, Condition)>,
    /// A lock to hold (RFC 7047 section 4.1.8); transactions are then refused unless it is ours.
    pub lock: Option<String>,
    /// Take the lock from whoever has it, instead of waiting for it.
    pub steal_lock: bool,
    /// The cluster that the server has to be in, when that is known.
    pub cluster_id: Option<Uuid>,
    /// How long the connection may be silent before it is probed; zero turns probes off.
    pub probe_interval: Duration,
    /// Key, certificate and CA for `ssl:` remotes.
    pub tls: TlsFiles,
}

impl ClientConfig {
    /// A configuration that monitors nothing yet, leader-only off, probes every 5 s.
    pub fn new(database: &'static DatabaseDef, remotes: impl Into<String>) -> Self {
        ClientConfig {
            database,
            remotes: remotes.into(),
            leader_only: false,
            columns: Vec::new(),
            conditions: Vec::new(),
            lock: None,
            steal_lock: false,
            cluster_id: None,
            probe_interval: Duration::from_secs(5),
            tls: TlsFiles::default(),
        }
    }

    /// Monitors every column of a table.
    #[must_use]
    pub fn monitor(mut self, table: &'static TableDef) -> Self {
        self.columns.extend(table.all_columns());
        self
    }

    /// Monitors some columns.
    #[must_use]
    pub fn monitor_columns(mut self, columns: impl IntoIterator<Item = AnyColumn>) -> Self {
        self.columns.extend(columns);
        self
    }
}

/// Whether the configured lock is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// It is ours.
    Acquired,
    /// Another client has it.
    Contended,
    /// It was ours and no longer is.
    Lost,
}

/// What a client reports, in the order it happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection is synchronised; its [`Event::Updates`] with the initial content came just before.
    Connected {
        /// The remote.
        remote: String,
    },
    /// The connection is gone; the replica keeps its last state.
    Disconnected {
        /// The remote.
        remote: String,
        /// Why.
        reason: String,
    },
    /// The replica changed.
    Updates(Vec<RowChange>),
    /// The lock changed hands.
    Lock(LockState),
    /// A transaction ended.
    TransactionDone {
        /// Which.
        id: TransactionId,
        /// How.
        outcome: Outcome,
    },
    /// The data of the conditions numbered so has arrived.
    ConditionAcknowledged(u64),
}

/// Where a client stands, for `connection-status` and `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Whether the replica is being kept up to date.
    pub synchronized: bool,
    /// The remote connected to or tried.
    pub remote: Option<String>,
    /// Why the last connection ended or was refused.
    pub last_error: Option<String>,
}

impl ConnectionStatus {
    /// The text of ovn-appctl's `connection-status`: "connected" or "not connected".
    pub fn text(&self) -> &'static str {
        if self.synchronized { "connected" } else { "not connected" }
    }
}

/// A connection to a database that is kept up, and the replica it feeds.
///
/// Network and protocol run in a task of their own, which answers probes and decodes while the owner is busy. The replica
/// changes only inside [`next`](Client::next) and [`try_next`](Client::try_next), so between two calls its owner sees one
/// state. Dropping the client closes the connection.
#[derive(Debug)]
pub struct Client {
    replica: Replica,
    commands: mpsc::UnboundedSender<Command>,
    events: mpsc::UnboundedReceiver<SessionEvent>,
    status: watch::Receiver<ConnectionStatus>,
    last_transaction: u64,
    last_condition: u64,
    /// The replica and the server have diverged: updates are of no use until everything comes anew.
    diverged: bool,
    /// Whether the owner was told last that a connection is synchronised.
    synchronized: bool,
    ended: bool,
}

impl Client {
    /// Starts connecting. Must be called within a tokio runtime, whose I/O and time are enabled.
    pub fn start(config: ClientConfig) -> Client {
        let (command_sender, command_receiver) = mpsc::unbounded_channel();
        let (event_sender, event_receiver) = mpsc::unbounded_channel();
        let status = ConnectionStatus { synchronized: false, remote: None, last_error: None };
        let (status_sender, status_receiver) = watch::channel(status);
        let session = Session::new(SessionConfig {
            database: config.database,
            remotes: remote::split_list(&config.remotes),
            leader_only: config.leader_only,
            columns: config.columns,
            conditions: config.conditions,
            lock: config.lock.map(|name| LockRequest { name, steal: config.steal_lock }),
            probe_interval: config.probe_interval,
            cluster_id: config.cluster_id,
            seed: Uuid::random().as_u128() as u64,
        });
        tokio::spawn(driver::run(session, config.tls, command_receiver, event_sender, status_sender));
        Client {
            replica: Replica::with_layout(DatabaseLayout::empty(config.database)),
            commands: command_sender,
            events: event_receiver,
            status: status_receiver,
            last_transaction: 0,
            last_condition: 0,
            diverged: false,
            synchronized: false,
            ended: false,
        }
    }

    /// The next event, with the replica brought to the state it tells of. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            if self.ended {
                return std::future::pending().await;
            }
            let event = self.events.recv().await;
            if let Some(event) = self.digest(event) {
                return event;
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            let event = self.events.try_recv().ok()?;
            if let Some(event) = self.digest(Some(event)) {
                return Some(event);
            }
        }
    }

    /// Turns what the session reports into what the owner is told; `None` when there is nothing to tell.
    fn digest(&mut self, event: Option<SessionEvent>) -> Option<Event> {
        Some(match event {
            Some(SessionEvent::Synchronized { remote }) => {
                self.synchronized = true;
                Event::Connected { remote }
            }
            Some(SessionEvent::Lost { remote, reason }) => {
                self.synchronized = false;
                Event::Disconnected { remote, reason }
            }
            Some(SessionEvent::Lock(state)) => Event::Lock(state),
            Some(SessionEvent::TransactionDone { id, outcome }) => Event::TransactionDone { id, outcome },
            Some(SessionEvent::ConditionAcknowledged(number)) => Event::ConditionAcknowledged(number),
            Some(SessionEvent::Update(batch)) => {
                if self.diverged && batch.reset.is_none() {
                    return None;
                }
                match self.replica.apply(batch) {
                    Ok(changes) => {
                        self.diverged = false;
                        if changes.is_empty() {
                            return None;
                        }
                        Event::Updates(changes)
                    }
                    Err(error) => {
                        tracing::error!(target: "ovsdb_cs", "{error}; fetching the whole database");
                        self.diverged = true;
                        self.command(Command::Resynchronize(error.to_string()));
                        return None;
                    }
                }
            }
            None => {
                self.ended = true;
                self.synchronized = false;
                let reason = "the connection's task ended".to_owned();
                Event::Disconnected { remote: self.status().remote.unwrap_or_default(), reason }
            }
        })
    }

    /// The copy of the database as of the last event.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    fn command(&self, command: Command) {
        // Fails only when the task is gone, which `next` reports.
        let _ = self.commands.send(command);
    }

    /// Hands a transaction over; [`Event::TransactionDone`] tells how it ended. One that is handed over while there
    /// is no synchronised connection ends as [`Outcome::NotConnected`].
    pub fn transact(&mut self, transaction: Transaction) -> TransactionId {
        assert_eq!(transaction.database().name, self.replica.database().name, "transaction on another database");
        self.last_transaction += 1;
        let id = TransactionId(self.last_transaction);
        self.command(Command::Transact(id, transaction));
        id
    }

    /// Replaces the conditions of some tables. [`Event::ConditionAcknowledged`] with the returned number or a higher one
    /// tells that the replica has the data they select.
    pub fn set_conditions(&mut self, conditions: impl IntoIterator<Item = (&'static TableDef, Condition)>) -> u64 {
        self.last_condition += 1;
        self.command(Command::SetConditions(self.last_condition, conditions.into_iter().collect()));
        self.last_condition
    }

    /// Connects elsewhere from now on; a connection to a remote that is still listed stays.
    pub fn set_remotes(&mut self, remotes: &str) {
        self.command(Command::SetRemotes(remote::split_list(remotes)));
    }

    /// Changes the probe interval; zero turns probes off.
    pub fn set_probe_interval(&mut self, interval: Duration) {
        self.command(Command::SetProbeInterval(interval));
    }

    /// Whether only a cluster's leader will do, from now on.
    pub fn set_leader_only(&mut self, leader_only: bool) {
        self.command(Command::SetLeaderOnly(leader_only));
    }

    /// Asks for a lock, or with `None` gives it back.
    pub fn set_lock(&mut self, lock: Option<&str>) {
        self.command(Command::SetLock(lock.map(|name| LockRequest { name: name.to_owned(), steal: false })));
    }

    /// Asks for a lock, taking it from whoever has it.
    pub fn steal_lock(&mut self, name: &str) {
        self.command(Command::SetLock(Some(LockRequest { name: name.to_owned(), steal: true })));
    }

    /// Changes the files of the TLS identity, from the next connection on.
    pub fn set_tls(&mut self, files: TlsFiles) {
        self.command(Command::SetTls(files));
    }

    /// Drops the connection and connects anew.
    pub fn force_reconnect(&mut self) {
        self.command(Command::ForceReconnect);
    }

    /// Forgets how new the data seen was, so that a cluster restored from a backup is not refused as stale
    /// (`sb-cluster-state-reset`).
    pub fn reset_cluster_state(&mut self) {
        self.command(Command::ResetClusterState);
    }

    /// Where the client stands now. `synchronized` only after [`Event::Connected`] was taken, so the replica then holds all of
    /// the initial data.
    pub fn status(&self) -> ConnectionStatus {
        let mut status = self.status.borrow().clone();
        status.synchronized &= self.synchronized;
        status
    }

    /// For others than the owner (appctl, metrics): where the connection stands, kept up to date. It may be ahead of
    /// the events that the owner has taken.
    pub fn watch_status(&self) -> watch::Receiver<ConnectionStatus> {
        self.status.clone()
    }
}
