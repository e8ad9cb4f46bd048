//! Who sees when what happened: one OVSDB client per database, monitoring, for all contenders alike.
//!
//! Times are those of the update's arrival here. Nothing is polled.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use oxbow_ovsdb::{AnyColumn, Client, ClientConfig, DatabaseDef, Event, Outcome, RowChange, Transaction, Uuid};
use oxbow_schema::{nb, ovs, sb};
use oxbow_testkit::wait;
use tokio::runtime::Runtime;
use tokio::sync::mpsc as tokio_mpsc;

/// Something that a database said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fact {
    /// An Interface row of a hypervisor.
    Interface { host: usize, name: String, ofport: Option<i64>, installed: bool },
    /// It is gone.
    InterfaceGone { host: usize, name: String },
    /// A Port_Binding row.
    Binding { port: String, chassis: Option<Uuid>, up: Option<bool> },
    /// A Logical_Switch_Port row.
    Port { name: String, up: Option<bool> },
    /// The NB_Global row.
    Northbound { sb_cfg: i64 },
    /// The SB_Global row.
    Southbound { nb_cfg: i64 },
    /// A Chassis_Private row.
    Chassis { name: String, nb_cfg: i64 },
}

#[derive(Debug, Default)]
struct Log {
    seen: Mutex<Vec<(Instant, Fact)>>,
    more: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Fact)>> {
        // A panic elsewhere leaves the list as it was: whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in what was seen: only what came later counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(usize);

/// The eyes on the databases of one cloud.
#[derive(Debug)]
pub(super) struct Observer {
    runtime: Runtime,
    log: Arc<Log>,
}

/// A watched database that can be written, too.
#[derive(Debug)]
pub(super) struct Door {
    requests: tokio_mpsc::UnboundedSender<Request>,
}

struct Request {
    transaction: Transaction,
    done: mpsc::Sender<Outcome>,
}

impl Door {
    /// Commits, and returns the time at which it was handed over.
    pub(super) fn transact(&self, transaction: Transaction) -> Result<Instant> {
        let (done, outcome) = mpsc::channel();
        let start = Instant::now();
        self.requests.send(Request { transaction, done }).ok().context("the observer has ended")?;
        match outcome.recv().context("the observer has ended")? {
            Outcome::Committed { .. } => Ok(start),
            other => bail!("a transaction of the benchmark ended as {other:?}"),
        }
    }
}

impl Observer {
    /// One that watches nothing yet.
    pub(super) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the observer")?;
        Ok(Self { runtime, log: Arc::default() })
    }

    /// Watches an OVN_Northbound.
    pub(super) fn northbound(&self, remote: &str) -> Result<Door> {
        use nb::{logical_switch_port as lsp, nb_global};
        let columns = vec![lsp::NAME.any(), lsp::UP.any(), nb_global::SB_CFG.any()];
        self.watch(nb::DATABASE, remote, columns, |change| {
            let row = change.new.as_deref()?;
            if change.table == lsp::TABLE {
                Some(Fact::Port { name: row.get(lsp::NAME).as_str().to_owned(), up: row.get(lsp::UP) })
            } else {
                Some(Fact::Northbound { sb_cfg: row.get(nb_global::SB_CFG) })
            }
        })
    }

    /// Watches an OVN_Southbound.
    pub(super) fn southbound(&self, remote: &str) -> Result<Door> {
        use sb::{chassis_private as private, port_binding as binding, sb_global};
        let columns = vec![
            binding::LOGICAL_PORT.any(),
            binding::CHASSIS.any(),
            binding::UP.any(),
            sb_global::NB_CFG.any(),
            private::NAME.any(),
            private::NB_CFG.any(),
        ];
        self.watch(sb::DATABASE, remote, columns, |change| {
            let row = change.new.as_deref()?;
            if change.table == binding::TABLE {
                let port = row.get(binding::LOGICAL_PORT).as_str().to_owned();
                Some(Fact::Binding { port, chassis: row.get(binding::CHASSIS), up: row.get(binding::UP) })
            } else if change.table == private::TABLE {
                let name = row.get(private::NAME).as_str().to_owned();
                Some(Fact::Chassis { name, nb_cfg: row.get(private::NB_CFG) })
            } else {
                Some(Fact::Southbound { nb_cfg: row.get(sb_global::NB_CFG) })
            }
        })
    }

    /// Watches the Open_vSwitch database of the hypervisor with this index.
    pub(super) fn switch(&self, host: usize, remote: &str) -> Result<Door> {
        use ovs::interface as t;
        let columns = vec![t::NAME.any(), t::OFPORT.any(), t::EXTERNAL_IDS.any()];
        self.watch(ovs::DATABASE, remote, columns, move |change| {
            if let Some(row) = change.new.as_deref() {
                let installed =
                    row.get(t::EXTERNAL_IDS).get("ovn-installed").is_some_and(|text| text.as_str() == "true");
                let name = row.get(t::NAME).as_str().to_owned();
                return Some(Fact::Interface { host, name, ofport: row.get(t::OFPORT), installed });
            }
            let name = change.old.as_deref()?.get(t::NAME).as_str().to_owned();
            Some(Fact::InterfaceGone { host, name })
        })
    }

    fn watch(
        &self,
        database: &'static DatabaseDef,
        remote: &str,
        columns: Vec<AnyColumn>,
        fact: impl Fn(&RowChange) -> Option<Fact> + Send + 'static,
    ) -> Result<Door> {
        let mut config = ClientConfig::new(database, remote).monitor_columns(columns);
        // A server that is busy with ten thousand rows for a while is not gone.
        config.probe_interval = Duration::ZERO;
        let (requests, mut incoming) = tokio_mpsc::unbounded_channel::<Request>();
        let (ready, connected) = mpsc::channel();
        let log = Arc::clone(&self.log);
        self.runtime.spawn(async move {
            let mut client = Client::start(config);
            let mut waiting = std::collections::HashMap::new();
            loop {
                let event = tokio::select! {
                    event = client.next() => event,
                    request = incoming.recv() => match request {
                        Some(Request { transaction, done }) => {
                            waiting.insert(client.transact(transaction), done);
                            continue;
                        }
                        // The door is closed, but what happens behind it is still of interest.
                        None => client.next().await,
                    },
                };
                match event {
                    Event::Updates(changes) => {
                        let now = Instant::now();
                        log.lock().extend(changes.iter().filter_map(|change| Some((now, fact(change)?))));
                        log.more.notify_all();
                    }
                    // Whoever asked may have given up waiting.
                    Event::Connected { .. } => drop(ready.send(())),
                    Event::TransactionDone { id, outcome } => {
                        waiting.remove(&id).map(|done: mpsc::Sender<Outcome>| done.send(outcome));
                    }
                    _ => {}
                }
            }
        });
        connected.recv_timeout(wait::PATIENCE).with_context(|| format!("cannot watch {remote}"))?;
        Ok(Door { requests })
    }

    /// Now.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.log.lock().len())
    }

    /// When the first fact since `mark` came of which `holds` is true.
    ///
    /// # Errors
    ///
    /// When none comes within `patience`: says what was waited for and what was seen instead.
    pub(super) fn wait(
        &self,
        mark: Mark,
        patience: Duration,
        what: &str,
        holds: impl FnMut(&Fact) -> bool,
    ) -> Result<Instant> {
        if let Some(at) = self.await_until(mark, Instant::now() + patience, what, holds)? {
            return Ok(at);
        }
        let seen = self.log.lock();
        let last: Vec<&Fact> = seen[mark.0..].iter().rev().take(20).map(|(_, fact)| fact).collect();
        bail!("{what}: not within {} s. Last facts, the newest first:\n{last:#?}", patience.as_secs());
    }

    /// As [`Observer::wait`]; `None` when none comes before the deadline.
    pub(super) fn await_until(
        &self,
        mark: Mark,
        deadline: Instant,
        what: &str,
        mut holds: impl FnMut(&Fact) -> bool,
    ) -> Result<Option<Instant>> {
        let mut next = mark.0;
        let mut seen = self.log.lock();
        loop {
            if let Some((at, _)) = seen[next..].iter().find(|(_, fact)| holds(fact)) {
                return Ok(Some(*at));
            }
            next = seen.len();
            if wait::interrupted() {
                bail!("interrupted while waiting for {what}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // An interrupt notifies nobody.
            let short = left.min(Duration::from_millis(200));
            seen = self.log.more.wait_timeout(seen, short).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
