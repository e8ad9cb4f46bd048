//! The tokio client (skeleton: signatures are final, the connection follows).

use std::path::PathBuf;
use std::time::Duration;

use crate::{AnyColumn, Condition, DatabaseDef, Outcome, Replica, RowChange, TableDef, Transaction, TransactionId};

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

/// The files of a TLS identity, as the options `-p`, `-c`, `-C` and `--bootstrap-ca-cert` name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM private key.
    pub private_key: Option<PathBuf>,
    /// PEM certificate.
    pub certificate: Option<PathBuf>,
    /// PEM certificate authority.
    pub ca_certificate: Option<PathBuf>,
    /// Take the authority from the first server connected to when the file does not exist.
    pub bootstrap_ca: bool,
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
/// Network and protocol run in a task of their own, which answers probes while the owner is busy. The replica changes only
/// inside [`next`](Client::next), so between two calls its owner sees one state.
#[derive(Debug)]
pub struct Client {
    replica: Replica,
}

impl Client {
    /// Starts connecting. Must be called within a tokio runtime.
    pub fn start(config: ClientConfig) -> Client {
        Client { replica: Replica::new(config.database) }
    }

    /// The next event, with the replica brought to the state it tells of. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        std::future::pending().await
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        None
    }

    /// The copy of the database as of the last event.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Hands a transaction over; [`Event::TransactionDone`] tells how it ended.
    pub fn transact(&mut self, _transaction: Transaction) -> TransactionId {
        TransactionId(0)
    }

    /// Replaces the conditions of some tables. [`Event::ConditionAcknowledged`] with the returned number or a higher one
    /// tells that the replica has the data they select.
    pub fn set_conditions(&mut self, _conditions: impl IntoIterator<Item = (&'static TableDef, Condition)>) -> u64 {
        0
    }

    /// Connects elsewhere from now on; a connection to a remote that is still listed stays.
    pub fn set_remotes(&mut self, _remotes: &str) {}

    /// Changes the probe interval; zero turns probes off.
    pub fn set_probe_interval(&mut self, _interval: Duration) {}

    /// Whether only a cluster's leader will do, from now on.
    pub fn set_leader_only(&mut self, _leader_only: bool) {}

    /// Asks for a lock, or with `None` gives it back.
    pub fn set_lock(&mut self, _lock: Option<&str>) {}

    /// Drops the connection and connects anew.
    pub fn force_reconnect(&mut self) {}

    /// Forgets how new the data seen was, so that a cluster restored from a backup is not refused as stale
    /// (`sb-cluster-state-reset`).
    pub fn reset_cluster_state(&mut self) {}

    /// Where the client stands now.
    pub fn status(&self) -> ConnectionStatus {
        ConnectionStatus { synchronized: false, remote: None, last_error: None }
    }
}
