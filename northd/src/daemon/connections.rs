//! The two databases as the daemon sees them: configuration, the transaction under way, what failed.

use std::time::Duration;

use oxbow_daemon::coverage::Counter;
use oxbow_daemon::options::SslOptions;
use oxbow_northd::Northd;
use oxbow_ovsdb::{Client, ClientConfig, DatabaseDef, Outcome, TableDef, TlsFiles, Transaction, TransactionId};
use oxbow_schema::{nb, sb};
use tokio::time::Instant;

/// The lock that makes one northd of several the active one.
pub(super) const LOCK: &str = "ovn_northd";

/// The wait after a transaction that was overtaken by another change or by the loss of the lock or the connection.
const SHORT_RETRY: Duration = Duration::from_millis(100);
/// Bounds of the wait after a transaction that the server refused: it would most likely refuse the same again, until
/// something changes.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

static TXN_SUCCESS: Counter = Counter::new("txn_success");
static TXN_ERROR: Counter = Counter::new("txn_error");
static TXN_TRY_AGAIN: Counter = Counter::new("txn_try_again");
static TXN_ABORTED: Counter = Counter::new("txn_aborted");
static TXN_NOT_LOCKED: Counter = Counter::new("txn_not_locked");
static TXN_INCOMPLETE: Counter = Counter::new("txn_incomplete");

/// The counters of this file, for registration.
pub(super) const COUNTERS: [&Counter; 6] =
    [&TXN_SUCCESS, &TXN_ERROR, &TXN_TRY_AGAIN, &TXN_ABORTED, &TXN_NOT_LOCKED, &TXN_INCOMPLETE];

/// One database.
pub(super) struct Connection {
    pub(super) client: Client,
    /// As stock's messages call it.
    name: &'static str,
    pending: Option<TransactionId>,
    /// Nothing is sent before this time.
    not_before: Option<Instant>,
    retry: Duration,
}

fn tls(ssl: &SslOptions) -> TlsFiles {
    let ssl = ssl.absolute();
    TlsFiles {
        private_key: ssl.private_key,
        certificate: ssl.certificate,
        bootstrap_ca: ssl.bootstrap_ca_cert.is_some(),
        ca_certificate: ssl.bootstrap_ca_cert.or(ssl.ca_cert),
        protocols: ssl.ssl_protocols,
        server_name: ssl.ssl_server_name,
    }
}

fn config(
    database: &'static DatabaseDef,
    tables: impl IntoIterator<Item = &'static TableDef>,
    remotes: String,
    ssl: &SslOptions,
) -> ClientConfig {
    let mut config = ClientConfig::new(database, remotes);
    // Followers of a cluster lag behind and forward writes; the one writer talks to the leader.
    config.leader_only = true;
    config.tls = tls(ssl);
    config.probe_interval = Connection::PROBE_INTERVAL;
    tables.into_iter().fold(config, ClientConfig::monitor)
}

impl Connection {
    /// How long a connection may be silent if the Northbound database does not say otherwise (ovn-nb(5)).
    pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(5);

    /// Starts connecting to the Northbound database.
    pub(super) fn northbound(remotes: String, ssl: &SslOptions) -> Connection {
        Connection::new("OVNNB", config(nb::DATABASE, Northd::nb_tables(), remotes, ssl))
    }

    /// Starts connecting to the Southbound database, aspiring to the lock unless `paused`.
    pub(super) fn southbound(remotes: String, ssl: &SslOptions, paused: bool) -> Connection {
        let mut config = config(sb::DATABASE, Northd::sb_tables(), remotes, ssl);
        config.lock = (!paused).then(|| LOCK.to_owned());
        Connection::new("OVNSB", config)
    }

    fn new(name: &'static str, config: ClientConfig) -> Connection {
        Connection { client: Client::start(config), name, pending: None, not_before: None, retry: FIRST_RETRY }
    }

    /// Whether the rows are up to date and a transaction may be sent now. The first is false until all of the initial
    /// contents have arrived.
    pub(super) fn is_ready(&self) -> bool {
        self.client.status().synchronized && self.not_before.is_none_or(|time| time <= Instant::now())
    }

    /// Whether no transaction is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_none()
    }

    /// When to try again after a transaction that came to nothing.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.not_before
    }

    /// Whether the rows are up to date.
    pub(super) fn is_synchronized(&self) -> bool {
        self.client.status().synchronized
    }

    /// It is being tried again: there may be nothing left to send.
    pub(super) fn retrying(&mut self) {
        self.not_before = None;
    }

    /// Sends a transaction.
    pub(super) fn send(&mut self, transaction: Transaction) {
        tracing::debug!(
            target: "jsonrpc",
            "{}: send request, method=\"transact\", params={}",
            self.client.status().remote.unwrap_or_default(),
            transaction.to_json()
        );
        self.not_before = None;
        self.pending = Some(self.client.transact(transaction));
    }

    /// Takes note of how a transaction ended; false if it was not the one under way.
    pub(super) fn finished(&mut self, id: TransactionId, outcome: &Outcome) -> bool {
        if self.pending != Some(id) {
            return false;
        }
        self.pending = None;
        match outcome {
            Outcome::Committed { .. } => {
                TXN_SUCCESS.hit();
                self.retry = FIRST_RETRY;
            }
            Outcome::TryAgain => self.postpone(&TXN_TRY_AGAIN),
            Outcome::Aborted => self.postpone(&TXN_ABORTED),
            Outcome::NotOwner => self.postpone(&TXN_NOT_LOCKED),
            Outcome::NotConnected | Outcome::Disconnected => self.postpone(&TXN_INCOMPLETE),
            Outcome::Failed(error) => {
                TXN_ERROR.hit();
                tracing::warn!(target: "ovsdb_idl", rate_limit = 20, "{} transaction error: {error}", self.name);
                tracing::info!(
                    target: "ovn_northd",
                    "{} commit failed, trying again in {} seconds",
                    self.name,
                    self.retry.as_secs()
                );
                self.not_before = Some(Instant::now() + self.retry);
                self.retry = (self.retry * 2).min(LAST_RETRY);
            }
        }
        true
    }

    /// Counts a transaction that came to nothing without being wrong, and waits for what made it so to pass.
    fn postpone(&mut self, counter: &Counter) {
        counter.hit();
        self.not_before = Some(Instant::now() + SHORT_RETRY);
    }

    /// What `memory/show` calls cells: values of columns in the replica.
    pub(super) fn cells(&self) -> u64 {
        let replica = self.client.replica();
        let cells = replica.database().tables.iter().map(|table| replica.len(table) * table.columns.len());
        cells.sum::<usize>() as u64
    }
}
