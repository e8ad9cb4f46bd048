//! The event loop: two databases, the kernel, the control socket, the clock.

mod answers;
mod farewell;
mod privileges;
mod traces;

use crate::audience::Audience;
use crate::backend::Backend;
use crate::commands::{Command, commands};
use crate::config::{Config, Identity};
use crate::dataplane::ebpf::{Ebpf, Location, private_bpffs};
use crate::dataplane::openflow;
use crate::dataplane::{Dataplane, DataplaneError, Opener, fake::Fake};
use crate::engine::POLICY_COMMIT;
use crate::engine::{Engine, LFLOW_RUN, NEXT_HOP, Orders, Settings, TXN_ERROR, TXN_SUCCESS, TXN_TRY_AGAIN};
use crate::kernel::Kernel;
use crate::view::{SslRow, ovs_columns, sb_columns, sb_tables};
use anyhow::Context as _;
use oxbow_abi::monitor::Listen as KernelListen;
use oxbow_backend_bpf::kernel::{HookChoice, Sizes};
use oxbow_daemon::http::Probe;
use oxbow_daemon::options::{DaemonOptions, SslOptions};
use oxbow_daemon::unixctl::{Reply, Request};
use oxbow_daemon::{Daemon, Dirs, Termination, coverage, identity, memory, pidfile};
use oxbow_ovsdb::{Client, ClientConfig, Event, TlsFiles};
use oxbow_schema::{ovs, sb};
use privileges::missing_capabilities;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Receiver;
use traces::{Compiled, Traces};

/// Log modules of this daemon.
pub const MODULES: &[&str] = &[
    "main",
    "binding",
    "bridge",
    "chassis",
    "dataplane",
    "drops",
    "netlink",
    "ofctrl",
    "ovsdb_idl",
    "reconnect",
    "tunnel",
];

/// Log modules that only ovn-controller has: levels for them are accepted.
pub const FOREIGN_MODULES: &[&str] = &[
    "acl_log",
    "bfd",
    "encaps",
    "if_status",
    "inc_proc_eng",
    "jsonrpc",
    "lflow",
    "patch",
    "physical",
    "pinctrl",
    "rconn",
    "stream_ssl",
    "vconn",
    "vif_plug",
];

/// Milliseconds that a probe of an idle Southbound session waits unless `ovn-remote-probe-interval` says otherwise.
const PROBE: Duration = Duration::from_secs(5);

/// Records of packets that are heard at once.
const HEAR: usize = 1024;

/// The command line.
#[derive(clap::Parser, Clone, Debug)]
#[command(about = "OVN controller whose hypervisor forwards in eBPF")]
pub struct Options {
    /// Open_vSwitch database of this host [default: unix:<OVS_RUNDIR>/db.sock]
    pub database: Option<String>,
    /// Name of this chassis, instead of external_ids:system-id
    #[arg(short = 'n', long = "chassis", value_name = "SYSTEM-ID")]
    pub chassis: Option<String>,
    /// Mount point of the bpf file system that pins live in
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// The eBPF object [default: oxbow-datapath.o beside the executable, then in /usr/lib/oxbow]
    #[arg(long, value_name = "FILE", env = "OXBOW_BPF_OBJECT")]
    pub bpf_object: Option<PathBuf>,
    /// How programs are attached to devices; auto is tcx where the kernel has it (Linux 6.6), else clsact
    #[arg(long, value_name = "HOOK", default_value = "auto", value_parser = parse_hook)]
    pub attach: HookChoice,
    /// Room in a map, in entries, e.g. OX_RULES=2000000; repeatable. Maps: OX_RULES, OX_RULES_WIDE, OX_BLOCKS, OX_TUPLES,
    /// OX_TABLES, OX_LFLOWS, OX_VIFS, OX_PORTS, OX_GUARDS, OX_DATAPATHS, OX_GROUPS, OX_CHASSIS, OX_PEERS, OX_FDB, OX_VERDICTS,
    /// OX_EXACT (for each CPU; 0 = none), OX_DENIED
    #[arg(long, value_name = "MAP=N", value_parser = parse_map_size)]
    pub map_size: Vec<(String, u32)>,
    /// Who forwards: eBPF programs, or the ovs-vswitchd of this host by OpenFlow flows in the integration bridge
    #[arg(long, value_enum, value_name = "BACKEND", default_value_t = Backend::Ebpf)]
    pub backend: Backend,
    /// Do everything but program the kernel: no packet is forwarded
    #[arg(long)]
    pub no_dataplane: bool,
    /// Accepted for compatibility, without effect
    #[arg(long, hide = true)]
    pub enable_dummy_vif_plug: bool,
    /// Accepted for compatibility, without effect
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    pub dump_inc_proc_graph: Option<Option<String>>,
    /// Process, logging and TLS.
    #[command(flatten)]
    pub daemon: DaemonOptions,
}

fn parse_hook(text: &str) -> Result<HookChoice, String> {
    match text {
        "auto" => Ok(HookChoice::Auto),
        "tcx" => Ok(HookChoice::Tcx),
        "clsact" => Ok(HookChoice::Clsact),
        _ => Err("it is auto, tcx or clsact".to_owned()),
    }
}

fn parse_map_size(text: &str) -> Result<(String, u32), String> {
    let (map, entries) = text.split_once('=').ok_or("it is MAP=N")?;
    let entries = entries.parse().map_err(|_| format!("\"{entries}\" is not a number of entries"))?;
    Sizes::default().choose(map, entries).map_err(|error| error.to_string())?;
    Ok((map.to_owned(), entries))
}

/// Runs the daemon to its end. To be called before any thread was started.
///
/// # Errors
/// What keeps the process from running at all: no runtime, no netlink, no control socket.
pub fn run(mut daemon: Daemon, options: &Options) -> anyhow::Result<(Daemon, Termination)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // As a task, not on the thread that waits for it: tasks that wake each other follow each other on one thread, and what goes from a socket
    // to a decision and back to a socket does not wait for the scheduler of a busy machine twice.
    let options = options.clone();
    let serving = runtime.spawn(async move {
        let why = serve(&mut daemon, &options).await?;
        anyhow::Ok((daemon, why))
    });
    let ended = runtime.block_on(serving).context("the event loop panicked")??;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ended)
}

async fn serve(daemon: &mut Daemon, options: &Options) -> anyhow::Result<Termination> {
    coverage::register(&[&LFLOW_RUN, &POLICY_COMMIT, &TXN_SUCCESS, &TXN_ERROR, &TXN_TRY_AGAIN, &NEXT_HOP]);
    let requests = daemon.serve(commands()).context("cannot serve the control socket")?;
    let probes = daemon.serve_metrics().await.context("cannot listen where --metrics says")?;
    let backend = if options.no_dataplane { Backend::None } else { options.backend };
    let missing = missing_capabilities();
    if !missing.is_empty() && backend == Backend::Ebpf {
        anyhow::bail!("{}: run oxbow-node as root, or give it these capabilities", missing.join("; "));
    }
    let kernel = Kernel::open().context("cannot talk to the kernel")?;
    let settings = Settings {
        backend,
        is_read_only: false,
        identity: Identity { option: options.chassis.clone(), file: override_file(&daemon.dirs.ovn_sysconf) },
        host_name: host_name(),
        internal_version: identity::OVN_INTERNAL_VERSION.to_owned(),
        started_ms: wall_ms(),
    };
    let mut engine = Engine::new(settings, kernel, opener(options, &daemon.dirs));
    let private = (backend == Backend::Ebpf).then(|| private_bpffs(&options.bpffs)).flatten();
    // The other backends need none of them.
    let missing = missing.into_iter().filter(|_| backend != Backend::OpenFlow);
    engine.set_process_problems(missing.chain(private).collect());
    let remote = options.database.clone().unwrap_or_else(|| daemon.dirs.default_ovs_remote());
    let remote = daemon.dirs.resolve_remotes(&remote);
    let mut config = ClientConfig::new(ovs::DATABASE, remote.clone()).monitor_columns(ovs_columns());
    config.tls = tls_files(&options.daemon.ssl.absolute(), None);
    tracing::info!(target: "main", "Open_vSwitch database at {remote}");
    let ovs_client = Client::start(config);
    daemon.ready().context("cannot detach")?;
    let node = Node {
        engine,
        ovs: ovs_client,
        ovs_remote: remote,
        sb: None,
        ssl: options.daemon.ssl.absolute(),
        vswitchd_pidfile: daemon.dirs.ovs_run.join("ovs-vswitchd.pid"),
        epoch: Instant::now(),
        wake: Instant::now(),
        events: None,
        events_serial: 0,
        events_after: Instant::now(),
        told_status: [None, None],
        audience: Audience::default(),
        told: Default::default(),
        untold: 0,
        tales: None,
        hear_again: false,
        told_after: Instant::now(),
        traces: Traces::default(),
    };
    Ok(node.run(daemon, requests, probes).await)
}

fn opener(options: &Options, dirs: &Dirs) -> Opener {
    if options.no_dataplane {
        tracing::warn!(target: "main", "--no-dataplane: no packet will be forwarded");
        return Box::new(|_, _| Ok(Box::<Fake>::default() as Box<dyn Dataplane>));
    }
    if options.backend == Backend::OpenFlow {
        let directory = dirs.ovs_run.clone();
        let mut opening = openflow::Opening::default();
        return Box::new(move |_, config| {
            let Config { bridge, bridge_remote, .. } = config;
            let remote = bridge_remote.clone();
            let remote =
                remote.unwrap_or_else(|| format!("unix:{}", directory.join(format!("{bridge}.mgmt")).display()));
            let location = openflow::Location { program: "ovs-ofctl".into(), bridge: bridge.clone(), remote };
            Ok(Box::new(opening.open(location)?) as Box<dyn Dataplane>)
        });
    }
    let mut sizes = Sizes::default();
    for (map, entries) in &options.map_size {
        if let Err(error) = sizes.choose(map, *entries) {
            // The command line was read with the same check.
            tracing::error!(target: "main", "--map-size: {error}");
        }
    }
    let location = Location {
        // Opened after the change to / of a detached daemon.
        object: options.bpf_object.as_deref().map(absolute),
        bpffs: absolute(&options.bpffs),
        hook: options.attach,
        sizes,
    };
    Box::new(move |system_id, _| -> Result<Box<dyn Dataplane>, DataplaneError> {
        Ok(Box::new(Ebpf::open(&location, system_id)?) as Box<dyn Dataplane>)
    })
}

/// The path seen from the root; a working directory that cannot be told leaves it as it is.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The first line of `system-id-override`.
pub(crate) fn override_file(directory: &Path) -> Option<String> {
    let path = directory.join("system-id-override");
    match std::fs::read_to_string(&path) {
        Ok(text) => text.lines().next().map(str::to_owned),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(target: "main", "cannot read {}: {error}", path.display());
            None
        }
    }
}

pub(crate) fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A descriptor that the runtime watches.
fn watched(descriptor: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and the same descriptor as long as it lives.
    match unsafe { AsyncFd::register(descriptor) } {
        Ok(events) => Some(events),
        Err(error) => {
            tracing::warn!(target: "dataplane", "cannot watch for events: {error}");
            None
        }
    }
}

/// The clock that records of packets are stamped with.
fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// The TLS files: those that the database names, else those of the command line.
pub(crate) fn tls_files(options: &SslOptions, row: Option<&SslRow>) -> TlsFiles {
    match row {
        Some(row) => TlsFiles {
            private_key: Some(PathBuf::from(&row.private_key)),
            certificate: Some(PathBuf::from(&row.certificate)),
            ca_certificate: Some(PathBuf::from(&row.ca_cert)),
            bootstrap_ca: row.bootstrap,
            protocols: options.ssl_protocols.clone(),
            server_name: options.ssl_server_name.clone(),
        },
        None => TlsFiles {
            private_key: options.private_key.clone(),
            certificate: options.certificate.clone(),
            ca_certificate: options.ca_cert.clone().or_else(|| options.bootstrap_ca_cert.clone()),
            bootstrap_ca: options.bootstrap_ca_cert.is_some(),
            protocols: options.ssl_protocols.clone(),
            server_name: options.ssl_server_name.clone(),
        },
    }
}

fn probe_interval(config: &Config) -> Duration {
    config.probe_interval_ms.map_or(PROBE, Duration::from_millis)
}

/// The client of the Southbound database, with nothing of the big tables until it is known what matters here.
pub(crate) fn southbound_client(config: &Config, remote: &str, tls: TlsFiles) -> ClientConfig {
    let mut client = ClientConfig::new(sb::DATABASE, remote.to_owned()).monitor_columns(sb_columns());
    let interest = crate::locality::Interest {
        system_id: config.system_id.clone(),
        everything: config.monitor_all,
        ..Default::default()
    };
    client.conditions = crate::conditions::conditions(&interest);
    client.probe_interval = probe_interval(config);
    client.tls = tls;
    client
}

/// The Southbound session and what it was opened with.
struct Southbound {
    client: Client,
    remote: String,
    tls: TlsFiles,
    probe: Duration,
}

/// What the loop owns.
struct Node {
    engine: Engine,
    ovs: Client,
    ovs_remote: String,
    sb: Option<Southbound>,
    ssl: SslOptions,
    vswitchd_pidfile: PathBuf,
    epoch: Instant,
    wake: Instant,
    events: Option<AsyncFd<OwnedFd>>,
    events_serial: u64,
    events_after: Instant,
    told_status: [Option<String>; 2],
    /// Who listens to packets.
    audience: Audience<Reply>,
    /// What the programs were asked to tell.
    told: (u32, KernelListen),
    /// What they could not tell so far.
    untold: u64,
    /// Readable when they told something.
    tales: Option<AsyncFd<OwnedFd>>,
    hear_again: bool,
    told_after: Instant,
    traces: Traces,
}

/// What an event is, for the log.
fn summary(event: &Event) -> String {
    match event {
        Event::Updates(changes) => format!("{} rows", changes.len()),
        Event::Connected { .. } => "connected".to_owned(),
        Event::Disconnected { .. } => "disconnected".to_owned(),
        Event::TransactionDone { .. } => "a transaction's end".to_owned(),
        Event::ConditionAcknowledged(request) => format!("request {request} answered"),
        Event::Lock(_) => "a lock".to_owned(),
    }
}

/// Why the loop woke up.
enum Wake {
    Ovs(Event),
    Sb(Event),
    Kernel(Result<(), crate::netlink::NetlinkError>),
    Dataplane,
    Guest,
    Told,
    Traced(Compiled),
    Probe(Probe),
    Request(Request<Command>),
    Clock,
    End(Termination),
}

impl Node {
    async fn run(
        mut self,
        daemon: &mut Daemon,
        mut requests: Receiver<Request<Command>>,
        mut probes: Receiver<Probe>,
    ) -> Termination {
        self.look_for_vswitchd();
        let mut vswitchd_at = Instant::now();
        loop {
            let wake = self.wait(daemon, &mut requests, &mut probes).await;
            match wake {
                Wake::Ovs(event) => {
                    self.ovs_event(event);
                    while let Some(event) = self.ovs.try_next() {
                        self.ovs_event(event);
                    }
                }
                Wake::Sb(event) => {
                    self.sb_event(event);
                    while let Some(event) = self.sb.as_mut().and_then(|sb| sb.client.try_next()) {
                        self.sb_event(event);
                    }
                }
                Wake::Kernel(result) => {
                    if let Err(error) = result.and_then(|()| self.engine.kernel.follow().map(|_| ())) {
                        tracing::error!(target: "netlink", "{error}");
                    }
                }
                Wake::Dataplane => {
                    self.events_after = Instant::now() + self.engine.event_pause();
                    // A storm of events that change nothing must not become a storm of decisions.
                    if !self.engine.follow_events() {
                        continue;
                    }
                }
                Wake::Guest => {
                    if !self.engine.follow_guests() {
                        continue;
                    }
                }
                Wake::Told => {
                    self.serve_audience();
                    continue;
                }
                Wake::Traced(compiled) => {
                    self.traced(compiled);
                    continue;
                }
                Wake::Probe(probe) => {
                    self.probe(probe);
                    continue;
                }
                Wake::Clock => {}
                Wake::Request(Request { command: Command::Exit { restart }, reply }) => {
                    if !restart {
                        self.farewell().await;
                    }
                    reply.send_and_wait(Ok(String::new())).await;
                    return Termination::Exit;
                }
                Wake::Request(request) => self.answer(request),
                Wake::End(why) => return why,
            }
            if vswitchd_at.elapsed() >= PROBE {
                vswitchd_at = Instant::now();
                self.look_for_vswitchd();
            }
            self.step().await;
        }
    }

    async fn wait(
        &mut self,
        daemon: &mut Daemon,
        requests: &mut Receiver<Request<Command>>,
        probes: &mut Receiver<Probe>,
    ) -> Wake {
        let sb = self.sb.as_mut();
        let (tales, hear_again, told_after) = (self.tales.as_ref(), self.hear_again, self.told_after);
        let listeners_at = self.audience.wake_at_ms().map(|at| self.epoch + Duration::from_millis(at));
        let (events, events_after) = (self.events.as_ref(), self.events_after);
        tokio::select! {
            event = self.ovs.next() => Wake::Ovs(event),
            event = async { match sb { Some(sb) => sb.client.next().await, None => std::future::pending().await } } => Wake::Sb(event),
            result = self.engine.kernel.ready() => Wake::Kernel(result),
            () = async {
                tokio::time::sleep_until(events_after.into()).await;
                readable(events).await;
            } => Wake::Dataplane,
            () = self.engine.guest_speaks() => Wake::Guest,
            () = async {
                // A storm is heard in bunches.
                tokio::time::sleep_until(told_after.into()).await;
                if !hear_again {
                    readable(tales).await;
                }
            } => Wake::Told,
            () = async {
                match listeners_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            } => Wake::Told,
            compiled = self.traces.done() => Wake::Traced(compiled),
            Some(request) = requests.recv() => Wake::Request(request),
            Some(probe) = probes.recv() => Wake::Probe(probe),
            () = tokio::time::sleep_until(self.wake.into()) => Wake::Clock,
            why = daemon.terminated() => Wake::End(why),
        }
    }

    fn look_for_vswitchd(&mut self) {
        match pidfile::owner(&self.vswitchd_pidfile) {
            Ok(pid) => self.engine.set_vswitchd(pid),
            Err(error) => tracing::warn!(target: "main", "{error}"),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn ovs_event(&mut self, event: Event) {
        tracing::debug!(target: "ovsdb_idl", "from Open_vSwitch: {}", summary(&event));
        match event {
            Event::Updates(changes) => self.engine.ovs_changed(&changes),
            Event::Connected { .. } => self.engine.ovs_connected(),
            Event::Disconnected { remote, reason } => {
                tracing::warn!(target: "reconnect", "{remote}: connection dropped ({reason})");
                self.engine.ovs_disconnected();
            }
            Event::TransactionDone { outcome, .. } => self.engine.ovs_done(&outcome, self.now_ms()),
            Event::Lock(_) | Event::ConditionAcknowledged(_) => {}
        }
    }

    fn sb_event(&mut self, event: Event) {
        let now_ms = self.now_ms();
        tracing::debug!(target: "ovsdb_idl", "from OVN_Southbound: {}", summary(&event));
        let Some(sb) = &self.sb else { return };
        match event {
            Event::Updates(changes) => self.engine.sb_changed(&changes),
            Event::Connected { .. } => self.engine.sb_connected(sb.client.replica()),
            Event::Disconnected { remote, reason } => {
                tracing::warn!(target: "reconnect", "{remote}: connection dropped ({reason})");
                self.engine.sb_disconnected();
            }
            Event::TransactionDone { outcome, .. } => self.engine.sb_done(&outcome, now_ms),
            Event::ConditionAcknowledged(request) => self.engine.conditions_acknowledged(request),
            Event::Lock(_) => {}
        }
    }

    /// Decides, and hands the decisions out.
    async fn step(&mut self) {
        // Not by a timer: those of the runtime are as coarse as what is worth cutting a step in two for.
        while self.step_once() {
            // The task that sends what was decided may be the next one on this very thread.
            tokio::task::yield_now().await;
        }
    }

    /// A step, or the first part of one. True when the rest is to follow.
    fn step_once(&mut self) -> bool {
        let (now_ms, wall) = (self.now_ms(), wall_ms());
        let replica = self.sb.as_ref().map(|sb| sb.client.replica());
        let Orders { ovs, sb, conditions, wake_at_ms, again } = self.engine.step(replica, now_ms, wall);
        if let Some(transaction) = ovs {
            tracing::debug!(target: "ovsdb_idl", "to Open_vSwitch: {}", transaction.to_json());
            self.ovs.transact(transaction);
        }
        if let Some(southbound) = &mut self.sb {
            // The server answers in order: a claim does not wait until all rows of its datapath have been sent.
            if let Some(transaction) = sb {
                tracing::debug!(target: "ovsdb_idl", "to OVN_Southbound: {}", transaction.to_json());
                southbound.client.transact(transaction);
            }
            if let Some(conditions) = conditions {
                let request = southbound.client.set_conditions(conditions);
                tracing::debug!(target: "ovsdb_idl", "to OVN_Southbound: conditions, request {request}");
                self.engine.conditions_sent(request);
            }
        }
        if again {
            return true;
        }
        self.follow_remote();
        self.watch_events();
        self.tell_status();
        let wait = wake_at_ms.map_or(PROBE, |at| Duration::from_millis(at.saturating_sub(now_ms)));
        self.wake = Instant::now() + wait;
        false
    }

    /// Connects where `ovn-remote` says, with the files that are in force, from now on.
    fn follow_remote(&mut self) {
        let Some(config) = self.engine.config() else { return };
        let probe = probe_interval(config);
        let tls = tls_files(&self.ssl, self.engine.ssl_files());
        match (config.remote.clone(), &mut self.sb) {
            (None, None) => {}
            (None, Some(sb)) if sb.remote.is_empty() => {}
            (None, Some(sb)) => {
                tracing::info!(target: "main", "OVN Southbound database is no longer at {}, and nowhere else", sb.remote);
                sb.client.set_remotes("");
                sb.remote.clear();
            }
            (Some(remote), None) => {
                tracing::info!(target: "main", "OVN Southbound database at {remote}");
                let client = Client::start(southbound_client(config, &remote, tls.clone()));
                self.sb = Some(Southbound { client, remote, tls, probe });
            }
            (Some(remote), Some(sb)) => {
                if sb.tls != tls {
                    sb.client.set_tls(tls.clone());
                    sb.tls = tls;
                }
                if sb.remote != remote {
                    if sb.remote.is_empty() {
                        tracing::info!(target: "main", "OVN Southbound database at {remote}");
                    } else {
                        tracing::info!(target: "main", "OVN Southbound database moves from {} to {remote}", sb.remote);
                    }
                    sb.client.set_remotes(&remote);
                    sb.remote = remote;
                }
                if sb.probe != probe {
                    sb.client.set_probe_interval(probe);
                    sb.probe = probe;
                }
            }
        }
    }

    /// Watches the rings of the dataplane that is open now.
    fn watch_events(&mut self) {
        if self.engine.dataplane_serial() == self.events_serial {
            return;
        }
        self.events_serial = self.engine.dataplane_serial();
        self.events = self.engine.event_descriptor().and_then(watched);
        self.tales = self.engine.told_descriptor().and_then(watched);
        // New programs have told nothing yet, and know of no listener.
        (self.untold, self.told) = (0, Default::default());
    }

    /// Says once why a database cannot be reached.
    fn tell_status(&mut self) {
        let southbound = self.sb.as_ref().map(|sb| (sb.client.status(), sb.remote.as_str()));
        let statuses = [Some((self.ovs.status(), self.ovs_remote.as_str())), southbound];
        for (told, status) in self.told_status.iter_mut().zip(statuses) {
            let Some((status, remote)) = status.filter(|(_, remote)| !remote.is_empty()) else { continue };
            let text = match (status.synchronized, &status.last_error) {
                (false, Some(error)) => Some(format!("{remote}: cannot connect ({error})")),
                _ => None,
            };
            if let Some(text) = text.as_ref().filter(|text| told.as_ref() != Some(*text)) {
                tracing::warn!(target: "reconnect", "{text}");
            }
            *told = text;
        }
        if let Some(sb) = &self.sb {
            let replica = sb.client.replica();
            let cells = sb_tables().iter().map(|table| replica.len(table) as u64).sum();
            memory::set("idl-cells-OVN_Southbound", cells);
        }
    }
}

/// Ends when there is something to read; never where there is nothing to read from.
async fn readable(ring: Option<&AsyncFd<OwnedFd>>) {
    let ready = match ring {
        Some(ring) => ring.readable().await,
        None => std::future::pending().await,
    };
    match ready {
        // What is readable is read whole by whoever this wakes.
        Ok(mut guard) => guard.clear_ready(),
        // Only the end of the runtime: nobody waits for this any more.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_sizes_are_read_and_the_help_names_every_map() {
        assert_eq!(parse_map_size("OX_RULES=64"), Ok(("OX_RULES".to_owned(), 64)));
        for (text, complaint) in [("OX_RULES", "MAP=N"), ("OX_RULES=x", "\"x\""), ("OX_R=64", "no map OX_R ")] {
            let error = parse_map_size(text).expect_err(text);
            assert!(error.contains(complaint), "{error}");
        }
        let help = <Options as clap::CommandFactory>::command().render_long_help().to_string();
        for map in oxbow_backend_bpf::kernel::MAPS {
            assert!(help.contains(map), "{map} in {help}");
        }
    }

    #[test]
    fn the_database_s_tls_files_win() {
        let options = SslOptions { private_key: Some("/a".into()), ca_cert: Some("/ca".into()), ..Default::default() };
        assert_eq!(tls_files(&options, None).private_key, Some("/a".into()));
        let row = SslRow { private_key: "/b".into(), certificate: "/c".into(), ca_cert: "/d".into(), bootstrap: true };
        let files = tls_files(&options, Some(&row));
        assert_eq!((files.private_key, files.bootstrap_ca), (Some("/b".into()), true));
    }
}
