//! The event loop: rows come in from both databases, transactions go out to them, and appctl is answered in between.
//!
//! One turn is: take in everything that has arrived; if this instance may write, let the library compute; send what it wants
//! written. While a transaction is under way to a database nothing more is sent to it, so the rows a turn sees always
//! contain what the turn before has written.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use oxbow_daemon::coverage::Counter;
use oxbow_daemon::engine_stats::EngineStats;
use oxbow_daemon::exposition::{Exposition, Kind};
use oxbow_daemon::http::{Probe, Question};
use oxbow_daemon::unixctl::{Reply, Request};
use oxbow_daemon::{Daemon, Termination, coverage, memory, stopwatch};
use oxbow_incr::Stats;
use oxbow_northd::{Northd, Report, profile};
use oxbow_ovsdb::{Event, LockState, Transaction};
use oxbow_schema::nb;
use tokio::time::Instant;

use super::commands::{Command, Which, commands};
use super::connections::{COUNTERS, Connection, LOCK};
use super::engine_nodes::{DERIVED, NODES};
use super::features;
use super::options::Options;

/// What OVN's tools look for in `stopwatch/show` (host contract R-8).
const STOPWATCHES: [&str; 11] = [
    "ovnnb_db_run",
    "ovnsb_db_run",
    "build_flows_ctx",
    "ovn-northd-loop",
    "build_lflows",
    "lflows_lbs",
    "clear_lflows_ctx",
    "lflows_ports",
    "lflows_dp_groups",
    "lflows_datapaths",
    "lflows_igmp",
];

static NORTHD_RUN: Counter = Counter::new("northd_run");

/// Runs the daemon until `exit` or a signal.
pub(crate) async fn run(shell: &mut Daemon, options: &Options) -> Result<Termination> {
    coverage::register(&[&NORTHD_RUN]);
    coverage::register(&COUNTERS);
    stopwatch::register(&STOPWATCHES);
    let mut requests = shell.serve(commands()).context("could not serve the control socket")?;
    let mut probes = shell.serve_metrics().await.context("could not listen where --metrics says")?;
    let mut northd = Instance::start(shell, options);
    shell.ready().context("could not detach")?;
    loop {
        let retry = northd.retry_at();
        tokio::select! {
            event = northd.nb.client.next() => northd.take(Which::Northbound, event),
            event = northd.sb.client.next() => northd.take(Which::Southbound, event),
            Some(Request { command, reply }) = requests.recv() => {
                if command == Command::Exit {
                    reply.send_and_wait(Ok(String::new())).await;
                    return Ok(Termination::Exit);
                }
                northd.answer(command, reply);
            }
            Some(probe) = probes.recv() => northd.probe(probe),
            signal = shell.terminated() => return Ok(signal),
            () = sleep_until(retry) => {}
        }
        northd.take_all();
        northd.turn();
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn milliseconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn log(report: &Report) {
    match report {
        Report::Warning(text) => tracing::warn!(target: "northd", rate_limit = 60, "{text}"),
        Report::NotCompiled { what, name } => tracing::warn!(
            target: "northd",
            "{what} \"{name}\" is not compiled by this version of {}: it has no effect, everything else does",
            env!("CARGO_PKG_NAME")
        ),
        Report::Discrepancy(text) => tracing::error!(target: "northd", "unit computed to another result: {text}"),
    }
}

/// The counters of the unit engine as a table.
fn unit_stats(stats: &Stats) -> String {
    let mut text =
        format!("{:<16} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "kind", "dirty", "run", "changed", "live", "reads");
    for (kind, stats) in stats.kinds.iter().map(|(kind, stats)| (*kind, *stats)).chain([("total", stats.total())]) {
        let _ = writeln!(
            text,
            "{kind:<16} {:>10} {:>10} {:>10} {:>10} {:>10}",
            stats.dirty, stats.run, stats.changed, stats.live, stats.reads
        );
    }
    let _ = writeln!(text, "waves {}, audited {}, discrepancies {}", stats.waves, stats.audited, stats.discrepancies);
    text
}

/// One northd.
struct Instance {
    nb: Connection,
    sb: Connection,
    northd: Northd,
    stats: EngineStats,
    threads: usize,
    paused: bool,
    has_lock: bool,
    /// Rows have changed since the last turn.
    changed: bool,
    /// Everything is computed in the next turn, not only what changed.
    full: bool,
    probe_interval: Option<Duration>,
}

impl Instance {
    fn start(shell: &Daemon, options: &Options) -> Instance {
        let ssl = &options.daemon.ssl;
        Instance {
            nb: Connection::northbound(options.nb_remotes(&shell.dirs), ssl),
            sb: Connection::southbound(options.sb_remotes(&shell.dirs), ssl, options.dry_run),
            northd: Northd::new(&profile::V23_03),
            stats: EngineStats::new(&NODES),
            threads: options.threads(),
            paused: options.dry_run,
            has_lock: false,
            changed: false,
            full: true,
            probe_interval: None,
        }
    }

    fn connection(&mut self, which: Which) -> &mut Connection {
        match which {
            Which::Northbound => &mut self.nb,
            Which::Southbound => &mut self.sb,
        }
    }

    /// Takes in what has arrived beside the event that ended the wait: one turn for all of it.
    fn take_all(&mut self) {
        for which in [Which::Northbound, Which::Southbound] {
            while let Some(event) = self.connection(which).client.try_next() {
                self.take(which, event);
            }
        }
    }

    fn take(&mut self, which: Which, event: Event) {
        match event {
            Event::Updates(changes) => {
                let tables: BTreeSet<&str> = changes.iter().map(|change| change.table.name).collect();
                self.stats.compute_tables(if which == Which::Northbound { "NB" } else { "SB" }, tables);
                match which {
                    Which::Northbound => self.northd.nb_changed(&changes),
                    Which::Southbound => self.northd.sb_changed(&changes),
                }
                self.changed = true;
            }
            Event::Connected { .. } => self.changed = true,
            // The rows stay as they were; the client reconnects and reports what differs then.
            Event::Disconnected { .. } | Event::ConditionAcknowledged(_) => {}
            Event::Lock(LockState::Acquired) => {
                self.has_lock = true;
                self.changed = true;
                tracing::info!(
                    target: "ovn_northd",
                    "ovn-northd lock acquired. This ovn-northd instance is now active."
                );
            }
            Event::Lock(state) => {
                if self.has_lock && state == LockState::Lost && !self.paused {
                    tracing::info!(
                        target: "ovn_northd",
                        "ovn-northd lock lost. This ovn-northd instance is now on standby."
                    );
                }
                self.has_lock = false;
            }
            Event::TransactionDone { id, outcome } => {
                if self.connection(which).finished(id, &outcome) {
                    match which {
                        Which::Northbound => self.northd.nb_done(&outcome),
                        Which::Southbound => self.northd.sb_done(&outcome, milliseconds_now()),
                    }
                    self.changed = true;
                }
            }
        }
    }

    /// Whether this instance is the one that writes.
    fn is_active(&self) -> bool {
        self.has_lock && !self.paused
    }

    fn retry_at(&self) -> Option<Instant> {
        // A database that comes back wakes us, and then both have to be ready.
        if !self.is_active() || !self.nb.is_synchronized() || !self.sb.is_synchronized() {
            return None;
        }
        [self.nb.retry_at(), self.sb.retry_at()].into_iter().flatten().max()
    }

    /// Computes and sends, if this instance is active and both databases are known: translating a Northbound database that
    /// was not seen yet would empty the Southbound one.
    fn turn(&mut self) {
        let due = self.changed || self.retry_at().is_some_and(|time| time <= Instant::now());
        if !due || !self.is_active() || !self.nb.is_ready() || !self.sb.is_ready() {
            return;
        }
        self.changed = false;
        self.nb.retrying();
        self.sb.retrying();
        let started = Instant::now();
        self.apply_probe_interval();
        NORTHD_RUN.hit();
        if self.create_global() {
            return;
        }
        let outcome = self.northd.run(milliseconds_now());
        stopwatch::record("ovnnb_db_run", started.elapsed());
        if std::mem::take(&mut self.full) {
            self.stats.full();
        } else if outcome.computed > 0 {
            DERIVED.iter().for_each(|node| self.stats.compute(node));
        }
        outcome.reports.iter().for_each(log);
        if let Some(transaction) = outcome.sb {
            self.sb.send(transaction);
        }
        if let Some(transaction) = outcome.nb {
            self.nb.send(transaction);
        }
        memory::set("idl-cells-OVN_Northbound", self.nb.cells());
        memory::set("idl-cells-OVN_Southbound", self.sb.cells());
        stopwatch::record("ovn-northd-loop", started.elapsed());
    }

    /// Creates the one row of NB_Global if the database is so new that it has none, as stock does: everything global
    /// hangs on it. True if that is under way.
    fn create_global(&mut self) -> bool {
        let missing = self.nb.client.replica().len(nb::nb_global::TABLE) == 0;
        if missing && self.nb.is_idle() {
            let mut transaction = Transaction::new(nb::DATABASE);
            let _ = transaction.insert(nb::nb_global::TABLE);
            self.nb.send(transaction);
        }
        missing
    }

    /// NB_Global options:northd_probe_interval (ovn-nb(5)), for both connections; 0 turns probes off.
    fn apply_probe_interval(&mut self) {
        let globals = self.nb.client.replica().rows(nb::nb_global::TABLE).next().cloned();
        let interval = globals
            .and_then(|row| row.get(nb::nb_global::OPTIONS).get("northd_probe_interval")?.as_str().parse().ok())
            .map(Duration::from_millis);
        if interval != self.probe_interval {
            self.probe_interval = interval;
            for connection in [&mut self.nb, &mut self.sb] {
                connection.client.set_probe_interval(interval.unwrap_or(Connection::PROBE_INTERVAL));
            }
        }
    }

    /// A question over HTTP.
    fn probe(&mut self, probe: Probe) {
        match probe.question {
            Question::Live => probe.answer(true, "ok\n"),
            Question::Ready => probe.answer_ready(&self.not_ready()),
            Question::Metrics => {
                let text = self.metrics();
                probe.answer(true, text);
            }
        }
    }

    /// Why this instance could not do its work if it were asked to, a sentence each. One in standby is ready.
    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (connection, name) in [(&self.nb, "Northbound"), (&self.sb, "Southbound")] {
            if !connection.client.status().synchronized {
                reasons.push(format!("the {name} database is not connected"));
            }
        }
        if self.paused {
            reasons.push("paused by command".to_owned());
        }
        reasons
    }

    /// Every metric, in Prometheus' text format.
    fn metrics(&self) -> String {
        let mut metrics = Exposition::default();
        let status = match (self.paused, self.has_lock) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        };
        metrics.single("ovn_northd_status", Kind::Gauge, "0 = standby, 1 = active, 2 = paused.", status);
        for (connection, name) in [(&self.nb, "nb"), (&self.sb, "sb")] {
            let connected = u8::from(connection.client.status().synchronized);
            let name = format!("ovn_northd_{name}_connection_status");
            metrics.single(&name, Kind::Gauge, "The database is connected and its replica complete.", connected);
        }
        metrics.family("oxbow_build_info", Kind::Gauge, "Always 1; the version is in the label.");
        metrics.sample("oxbow_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        metrics.process("ovn_northd");
        let stats = self.northd.stats();
        metrics.family("oxbow_northd_unit_runs_total", Kind::Counter, "Units of computation run, by kind.");
        for (kind, unit) in &stats.kinds {
            metrics.sample("oxbow_northd_unit_runs_total", &[("kind", kind)], unit.run);
        }
        metrics.family("oxbow_northd_units", Kind::Gauge, "Units of computation there are, by kind.");
        for (kind, unit) in &stats.kinds {
            metrics.sample("oxbow_northd_units", &[("kind", kind)], unit.live);
        }
        metrics.finish()
    }

    fn answer(&mut self, command: Command, reply: Reply) {
        match command {
            Command::Exit => reply.ok(""),
            Command::Pause => {
                if !self.paused {
                    self.paused = true;
                    self.has_lock = false;
                    self.sb.client.set_lock(None);
                    tracing::info!(target: "ovn_northd", "This ovn-northd instance is now paused.");
                }
                reply.ok("");
            }
            Command::Resume => {
                if self.paused {
                    self.paused = false;
                    self.sb.client.set_lock(Some(LOCK));
                }
                reply.ok("");
            }
            Command::IsPaused => reply.ok(self.paused.to_string()),
            Command::Status => reply.ok(format!(
                "Status: {}\n",
                match (self.paused, self.has_lock) {
                    (true, _) => "paused",
                    (false, true) => "active",
                    (false, false) => "standby",
                }
            )),
            Command::ConnectionStatus(which) => reply.ok(self.connection(which).client.status().text()),
            Command::ResetClusterState(which) => {
                tracing::info!(target: "ovn_northd", "Resetting {which:?} database cluster state");
                self.connection(which).client.reset_cluster_state();
                reply.ok("");
            }
            Command::SetThreads(threads) => {
                self.threads = threads;
                reply.ok("");
            }
            Command::GetThreads => reply.ok(self.threads.to_string()),
            Command::ChassisFeatures => reply.ok(features::list(self.sb.client.replica())),
            Command::ShowStats(wanted) => reply.ok(self.stats.show(&wanted)),
            Command::ClearStats => {
                self.stats.clear();
                self.northd.reset_stats();
                reply.ok("");
            }
            Command::Recompute => {
                tracing::info!(target: "ovn_northd", "User triggered force recompute.");
                self.northd.full_recompute();
                self.full = true;
                self.changed = true;
                reply.ok("");
            }
            Command::SetComputeLogTimeout => reply.ok(""),
            Command::UnitStats => reply.ok(unit_stats(self.northd.stats())),
            Command::NotCompiled => {
                reply.ok(self.northd.not_compiled().into_iter().map(|line| line + "\n").collect::<String>());
            }
            Command::Audit => match self.northd.audit() {
                found if found.is_empty() => reply.ok("no discrepancy\n"),
                found => reply.error(found.join("\n")),
            },
        }
    }
}
