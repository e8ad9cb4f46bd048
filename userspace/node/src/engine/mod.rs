//! Everything together, still without sockets to databases: changes in, transactions and conditions out.
//!
//! One [`Engine::step`] looks at all that is known and decides; it is called after every batch of changes and when a time it asked for has
//! come. It writes to the kernel directly (devices, dataplane) and returns what to write to the databases. A write that failed or
//! was lost is simply decided again.

mod cleanup;
mod guests;
mod inspect;
mod nodes;
mod program;
mod report;
mod southbound;

pub use cleanup::Leaving;

pub use inspect::{Others, Surroundings, Traced, Wanted};

use crate::activation::listen::Listeners;
use crate::backend::{Backend, Beside};
use crate::config::{Config, Identity};
use crate::dataplane::{Dataplane, LocalVif, LogicalPort, Opener};
use crate::fdb::Fdb;
use crate::generation::Generations;
use crate::kernel::Kernel;
use crate::locality::{Interest, Watch};
use crate::registration::Takeovers;
use crate::switchd;
use crate::tunnels::{Mesh, Tunnels};
use crate::view::{OvsView, SbChange, SbView};
use crate::vif::{Outcome as VifOutcome, Vifs};
use crate::world::World;
use crate::writes;
use crate::zones::Zones;
use oxbow_daemon::coverage::Counter;
use oxbow_daemon::engine_stats::EngineStats;
use oxbow_ovsdb::{Condition, Outcome, Replica, RowChange, TableDef, Transaction};
use oxbow_schema::{ovs, sb};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

/// Full computations of the flows that are installed.
pub static LFLOW_RUN: Counter = Counter::new("lflow_run");
/// Transactions by how they ended, as ovn-controller counts them.
pub static TXN_SUCCESS: Counter = Counter::new("txn_success");
/// Likewise.
pub static TXN_ERROR: Counter = Counter::new("txn_error");
/// Likewise.
pub static TXN_TRY_AGAIN: Counter = Counter::new("txn_try_again");
/// The programs asked for the next hop towards a chassis.
pub static NEXT_HOP: Counter = Counter::new("next_hop");

/// Differences of policy put in force.
pub static POLICY_COMMIT: Counter = Counter::new("policy_commit");

/// Interval of statistics, retries and other things that happen by the clock.
pub const TICK_MS: u64 = 5000;
/// Pause after a refused transaction.
const RETRY_MS: u64 = 1000;

/// Going through all flows for problems is done this often at most.
const LIST_MS: u64 = 200;

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which dataplane forwards.
    pub backend: Backend,
    /// Nothing is written to any database and nothing is asked of the kernel: only what would be in force is of interest.
    pub is_read_only: bool,
    /// Sources of the chassis name other than the database.
    pub identity: Identity,
    /// The host's own name.
    pub host_name: String,
    /// What northd must call itself under `ovn-match-northd-version`.
    pub internal_version: String,
    /// When the process started, milliseconds since the epoch.
    pub started_ms: u64,
}

/// What to do outside.
#[derive(Debug, Default)]
pub struct Orders {
    /// Transaction on Open_vSwitch.
    pub ovs: Option<Transaction>,
    /// Transaction on OVN_Southbound.
    pub sb: Option<Transaction>,
    /// New monitor conditions; the number that the client gives them goes to [`Engine::conditions_sent`].
    pub conditions: Option<Vec<(&'static TableDef, Condition)>>,
    /// When to step again although nothing happened, monotonic milliseconds.
    pub wake_at_ms: Option<u64>,
    /// Step again at once, when the rest has been handed out: this was the first part of a step.
    pub again: bool,
}

/// A connection to a database, as far as decisions depend on it.
#[derive(Debug, Default)]
struct Line {
    /// The replica has been complete once.
    ever: bool,
    /// It is being kept up to date.
    synchronized: bool,
    /// A transaction is on its way.
    busy: bool,
    /// Not before this: the last transaction was refused.
    retry_at_ms: u64,
    /// Nothing is ever written.
    is_read_only: bool,
}

impl Line {
    fn can_write(&self, now_ms: u64) -> bool {
        self.synchronized && !self.busy && !self.is_read_only && now_ms >= self.retry_at_ms
    }
}

/// The hypervisor's state.
pub struct Engine {
    settings: Settings,
    open: Opener,
    /// The kernel's devices, addresses, routes.
    pub kernel: Kernel,
    ovs: OvsView,
    sb: SbView,
    ovs_line: Line,
    sb_line: Line,
    config: Option<Config>,
    world: World,
    rebuild: bool,
    vifs: Vifs,
    states: VifOutcome,
    watch: Watch,
    pending_interest: Option<Interest>,
    zones: Zones,
    zones_restored: bool,
    tunnels: Tunnels,
    mesh: Mesh,
    generations: Generations,
    fdb: Fdb,
    unsaved_fdb: Vec<(crate::dataplane::FdbAddress, u32)>,
    /// What the northd calls itself that wrote the flows.
    northd_version: Option<String>,
    dataplane: Option<Box<dyn Dataplane>>,
    dataplane_serial: u64,
    /// System-id, integration bridge and its remote that the dataplane was opened for.
    opened_for: Option<(String, String, Option<String>)>,
    open_error: Option<String>,
    taken_over: BTreeSet<u32>,
    attached: BTreeMap<u32, Result<(), String>>,
    /// Port numbers that we have given and that are not in the database yet, by interface.
    numbered: BTreeMap<oxbow_ovsdb::Uuid, i64>,
    underlays: BTreeSet<u32>,
    /// Devices whose guests are waited for.
    listeners: Listeners,
    committed: HashSet<LocalVif>,
    /// The dataplane cannot be opened because the switch does not answer.
    is_silent: bool,
    /// What is to be served by versions that were asked for and are not in force yet.
    under_way: VecDeque<(u64, HashSet<LocalVif>)>,
    /// The dataplane knows more by another commit.
    answered: bool,
    commit_error: Option<String>,
    /// What the last commit had no room for.
    shortages: Vec<(Option<LogicalPort>, String)>,
    retry_kernel_at_ms: u64,
    takeovers: Takeovers,
    registered_as: Option<String>,
    vswitchd: Option<i32>,
    beside: Beside,
    paused: bool,
    next_tick_ms: u64,
    tick: bool,
    /// The last step was cut in two, and this is its second part.
    cut: bool,
    problems: BTreeMap<&'static str, Vec<String>>,
    fdb_has_timestamp: bool,
    /// Something changed that problems depend on since they were last listed.
    world_changed: bool,
    list_at_ms: u64,
    installs: inspect::Installs,
    stats: EngineStats,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).field("states", &self.states.states).finish()
    }
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(settings: Settings, kernel: Kernel, open: Opener) -> Self {
        Engine {
            settings,
            open,
            kernel,
            ovs: OvsView::default(),
            sb: SbView::default(),
            ovs_line: Line::default(),
            sb_line: Line::default(),
            config: None,
            world: World::default(),
            rebuild: false,
            vifs: Vifs::default(),
            states: VifOutcome::default(),
            watch: Watch::default(),
            pending_interest: None,
            zones: Zones::default(),
            zones_restored: false,
            tunnels: Tunnels::default(),
            mesh: Mesh::default(),
            generations: Generations::default(),
            fdb: Fdb::default(),
            unsaved_fdb: Vec::new(),
            northd_version: None,
            dataplane: None,
            dataplane_serial: 0,
            opened_for: None,
            open_error: None,
            taken_over: BTreeSet::new(),
            attached: BTreeMap::new(),
            numbered: BTreeMap::new(),
            underlays: BTreeSet::new(),
            listeners: Listeners::default(),
            committed: HashSet::new(),
            is_silent: false,
            under_way: VecDeque::new(),
            answered: false,
            commit_error: None,
            shortages: Vec::new(),
            retry_kernel_at_ms: 0,
            takeovers: Takeovers::default(),
            registered_as: None,
            vswitchd: None,
            beside: Beside::Alone,
            paused: false,
            next_tick_ms: 0,
            tick: false,
            cut: false,
            problems: BTreeMap::new(),
            fdb_has_timestamp: false,
            world_changed: false,
            list_at_ms: 0,
            installs: inspect::Installs::default(),
            stats: EngineStats::new(&nodes::NODES),
        }
    }

    /// The configuration in force, once the database has been read.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// TLS files that the database names.
    pub fn ssl_files(&self) -> Option<&crate::view::SslRow> {
        self.ovs.ssl_files()
    }

    /// Says whether an ovs-vswitchd runs beside us, by its pid: its duties are then left to it.
    pub fn set_vswitchd(&mut self, pid: Option<i32>) {
        if self.vswitchd != pid {
            match (pid, self.settings.backend) {
                (Some(pid), _) => {
                    tracing::info!(target: "main", "ovs-vswitchd runs as pid {pid}: ports' numbers and states are left to it")
                }
                (None, Backend::OpenFlow) => tracing::info!(target: "main", "ovs-vswitchd has ended"),
                (None, _) => tracing::info!(target: "main", "no ovs-vswitchd runs: its database is served from here"),
            }
        }
        self.vswitchd = pid;
    }

    /// Judges whether the backend may forward on this host as it is now.
    fn judge_vswitchd(&mut self) {
        let Some(config) = &self.config else { return };
        let kind = match self.ovs.bridge(&config.bridge) {
            Some(bridge) => bridge.datapath_type.as_str(),
            None => bridge_type(config),
        };
        self.beside = self.settings.backend.beside(self.vswitchd, &config.bridge, kind);
        let refusal = match &self.beside {
            Beside::Refused(text) => vec![text.clone()],
            Beside::Alone | Beside::Vswitchd => Vec::new(),
        };
        self.tell("ovs-vswitchd", refusal);
    }

    /// A connection that has just been synchronised.
    fn line(&self) -> Line {
        Line { ever: true, synchronized: true, is_read_only: self.settings.is_read_only, ..Line::default() }
    }

    /// Changes of Open_vSwitch.
    pub fn ovs_changed(&mut self, changes: &[RowChange]) {
        self.count_changes("OVS", changes);
        for change in changes {
            self.ovs.apply(change);
        }
    }

    /// Open_vSwitch is synchronised.
    pub fn ovs_connected(&mut self) {
        if !self.ovs_line.ever {
            self.ovs.settle_ages();
        }
        self.ovs_line = self.line();
    }

    /// It is not any more.
    pub fn ovs_disconnected(&mut self) {
        self.ovs_line.synchronized = false;
        self.ovs_line.busy = false;
    }

    /// Changes of OVN_Southbound.
    pub fn sb_changed(&mut self, changes: &[RowChange]) {
        self.count_changes("SB", changes);
        for change in changes {
            if self.sb.apply(change) == SbChange::Rekeyed {
                self.rebuild = true;
            }
        }
        let northd = self.sb.global.as_ref().and_then(|row| row.options.get("northd_internal_version"));
        if northd != self.northd_version.as_ref() {
            self.northd_version = northd.cloned();
            self.world.ask_stage_names_anew();
        }
        self.world_changed = true;
        self.world.follow(&self.sb, changes);
    }

    /// OVN_Southbound is synchronised.
    pub fn sb_connected(&mut self, replica: &Replica) {
        self.sb_line = self.line();
        self.fdb_has_timestamp = replica.has_column(sb::fdb::TIMESTAMP);
    }

    /// It is not any more; what was received stays in force.
    pub fn sb_disconnected(&mut self) {
        self.sb_line.synchronized = false;
        self.sb_line.busy = false;
    }

    /// Whether the Southbound replica is kept up to date.
    pub fn sb_is_synchronized(&self) -> bool {
        self.sb_line.synchronized
    }

    /// The conditions of the last [`Orders`] were sent as request number `request`.
    pub fn conditions_sent(&mut self, request: u64) {
        if let Some(interest) = self.pending_interest.take() {
            self.watch.sent(interest, request);
        }
    }

    /// The server has answered request number `request`.
    pub fn conditions_acknowledged(&mut self, request: u64) {
        self.watch.acknowledged(request);
    }

    /// Something about the process itself that people should know; an empty list = nothing any more.
    pub fn set_process_problems(&mut self, problems: Vec<String>) {
        self.tell("process", problems);
    }

    /// A transaction on Open_vSwitch ended.
    pub fn ovs_done(&mut self, outcome: &Outcome, now_ms: u64) {
        self.ovs_line.busy = false;
        self.ovs_line.retry_at_ms = retry_at(outcome, "Open_vSwitch", now_ms);
    }

    /// A transaction on OVN_Southbound ended.
    pub fn sb_done(&mut self, outcome: &Outcome, now_ms: u64) {
        self.sb_line.busy = false;
        self.sb_line.retry_at_ms = retry_at(outcome, "OVN_Southbound", now_ms);
        if let Outcome::Committed { selected, .. } = outcome {
            self.world.stage_names_told(&self.sb, selected);
        }
        self.takeovers.end(outcome.is_committed());
        let unsaved = std::mem::take(&mut self.unsaved_fdb);
        if !outcome.is_committed() {
            for (address, port) in unsaved {
                self.fdb.learned(address, port);
            }
        }
    }

    /// Looks at everything and decides.
    pub fn step(&mut self, replica: Option<&Replica>, now_ms: u64, wall_ms: u64) -> Orders {
        let mut orders = Orders::default();
        if !self.ovs_line.ever {
            return orders;
        }
        // The second part of a step that was cut in two happens by the same tick.
        if !std::mem::take(&mut self.cut) {
            self.tick = now_ms >= self.next_tick_ms;
            if self.tick {
                self.next_tick_ms = now_ms + TICK_MS;
                if let Err(error) = self.kernel.read_links() {
                    tracing::error!(target: "netlink", "cannot read the devices: {error}");
                }
            }
        }
        self.read_config();
        self.judge_vswitchd();
        let mut local = Transaction::new(ovs::DATABASE);
        self.serve_switch(&mut local);
        if !local.is_empty() && self.ovs_line.can_write(now_ms) {
            // Whoever waits for `cur_cfg` or `ofport` must not wait for the kernel's grace periods.
            self.ovs_line.busy = true;
            orders.ovs = Some(local);
            self.cut_here(&mut orders);
            return orders;
        }
        self.open_dataplane(replica, now_ms);
        self.follow_events();
        self.tidy_dataplane();
        let may_process = self.may_process();
        if self.sb_line.ever && may_process {
            let mut south = Transaction::new(sb::DATABASE);
            self.serve_southbound(&mut local, &mut south, &mut orders, now_ms, wall_ms);
            if !south.is_empty() && self.sb_line.can_write(now_ms) {
                self.sb_line.busy = true;
                orders.sb = Some(south);
            }
        }
        if !local.is_empty() && self.ovs_line.can_write(now_ms) {
            self.ovs_line.busy = true;
            orders.ovs = Some(local);
        }
        let times = [
            Some(self.next_tick_ms),
            orders.wake_at_ms,
            self.fdb.wake_at_ms().filter(|_| self.sb_line.can_write(now_ms)),
            // A time that is over has not been used: nothing is listed now, and what ends that wakes us.
            Some(self.list_at_ms).filter(|at| *at > now_ms && self.world_changed && !self.awaits_stage_names()),
            Some(self.ovs_line.retry_at_ms).filter(|at| *at > now_ms),
            Some(self.sb_line.retry_at_ms).filter(|at| *at > now_ms),
            Some(self.retry_kernel_at_ms).filter(|at| *at > now_ms),
        ];
        orders.wake_at_ms = times.into_iter().flatten().min();
        orders
    }

    /// Whether people are to be told about flows only when the stages have their names, which does not take long.
    fn awaits_stage_names(&self) -> bool {
        self.sb_line.synchronized && !self.sb_line.is_read_only && self.world.lacks_stage_names()
    }

    /// Ends the step here, so that its orders go out, and has the rest done at once: what comes is slow, and others wait for what there is.
    fn cut_here(&mut self, orders: &mut Orders) {
        self.cut = true;
        orders.again = true;
    }

    fn read_config(&mut self) {
        let Some(row) = &self.ovs.switch else { return };
        let config = Config::read(row, &self.settings.identity, &self.settings.host_name);
        self.tell("configuration", config.problems.clone());
        if self.config.as_ref() != Some(&config) {
            if let (Some(old), Some(new)) =
                (self.config.as_ref().and_then(|config| config.system_id.as_ref()), config.system_id.as_ref())
                && old != new
            {
                tracing::warn!(target: "chassis", "system-id changed from {old} to {new}");
            }
            self.config = Some(config);
        }
    }

    /// `debug/pause`, and `ovn-match-northd-version`.
    fn may_process(&mut self) -> bool {
        let config = self.config.as_ref();
        let mut mismatch = Vec::new();
        if config.is_some_and(|config| config.match_northd_version)
            && let Some(global) = &self.sb.global
        {
            let theirs = global.options.get("northd_internal_version").map_or("", String::as_str);
            if theirs != self.settings.internal_version {
                mismatch.push(format!(
                    "controller version - {} mismatch with northd version - {theirs}",
                    self.settings.internal_version
                ));
            }
        }
        let fits = mismatch.is_empty();
        self.tell("northd version", mismatch);
        fits && !self.paused
    }

    /// The integration bridge, and what ovs-vswitchd would do.
    fn serve_switch(&mut self, local: &mut Transaction) {
        let (Some(config), Some(row)) = (&self.config, &self.ovs.switch) else { return };
        let bridge = self.ovs.bridge(&config.bridge);
        if bridge.is_none() {
            tracing::info!(target: "main", "Bridge '{}' not found, creating it", config.bridge);
            writes::make_bridge(local, row.uuid, &config.bridge, bridge_type(config), random_mac());
        }
        if let Some(bridge) = bridge {
            if self.settings.backend == Backend::OpenFlow {
                // A bridge that somebody else made may be of another type, or forward by itself what no flow matches.
                let kind = config.bridge_datapath_type.as_deref().filter(|kind| *kind != bridge.datapath_type);
                let fail_mode = bridge.fail_mode.is_none().then_some("secure");
                writes::adopt_bridge(local, bridge.uuid, kind, fail_mode);
            }
            let started = self.settings.started_ms.to_string();
            if bridge.external_ids.get("ovn-startup-ts") != Some(&started) {
                writes::bridge_keys(
                    local,
                    bridge.uuid,
                    &BTreeMap::from([("ovn-startup-ts".into(), started)]),
                    &BTreeSet::new(),
                );
            }
        }
        if self.beside != Beside::Alone {
            return;
        }
        let mut work;
        let mut rounds = 0;
        loop {
            work = switchd::work(&switchd::View {
                switch: row,
                bridges: &self.ovs.bridges,
                ports: &self.ovs.ports,
                interfaces: &self.ovs.interfaces,
                links: &self.kernel.links,
                failed: &self.kernel.failed,
                with_statistics: self.tick,
            });
            rounds += 1;
            if work.devices.is_empty() || rounds > 4 {
                break;
            }
            self.kernel.carry_out(&work.devices);
        }
        // A number that we give is one from now on; what else has to be done for the port need not wait until the row says it.
        let numbers = work.interfaces.iter().filter_map(|status| Some((status.interface, status.ofport?)));
        self.numbered = numbers.filter(|(_, number)| *number > 0).collect();
        if !work.is_written() {
            writes::switch(local, row.uuid, &work);
        }
    }

    /// Keeps the problems of a topic, and logs those that are new.
    fn tell(&mut self, topic: &'static str, problems: Vec<String>) {
        let old = self.problems.get(topic).map_or(&[][..], Vec::as_slice);
        for problem in problems.iter().filter(|problem| !old.contains(problem)) {
            tracing::warn!(target: "main", "{problem}");
        }
        if problems.is_empty() {
            self.problems.remove(topic);
        } else {
            self.problems.insert(topic, problems);
        }
    }
}

/// Bridge.datapath_type of an integration bridge that is made here.
fn bridge_type(config: &Config) -> &str {
    config.bridge_datapath_type.as_deref().unwrap_or("system")
}

fn retry_at(outcome: &Outcome, database: &str, now_ms: u64) -> u64 {
    match outcome {
        Outcome::Committed { .. } => {
            TXN_SUCCESS.hit();
            0
        }
        Outcome::TryAgain => {
            TXN_TRY_AGAIN.hit();
            0
        }
        Outcome::NotConnected | Outcome::Disconnected => 0,
        Outcome::Failed(error) => {
            TXN_ERROR.hit();
            tracing::warn!(target: "ovsdb_idl", "transaction error on {database}: {error}");
            now_ms + RETRY_MS
        }
        Outcome::NotOwner | Outcome::Aborted => now_ms + RETRY_MS,
    }
}

/// A random, locally administered unicast address.
fn random_mac() -> [u8; 6] {
    let number = oxbow_ovsdb::Uuid::random().as_u128().to_be_bytes();
    [number[10] & 0xfc | 0x02, number[11], number[12], number[13], number[14], number[15]]
}
