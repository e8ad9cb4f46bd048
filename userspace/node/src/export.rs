//! `oxbow-node export`: the OpenFlow flows and groups that the databases give this chassis now, printed and not installed.
//!
//! It connects to the databases as the daemon does, computes until nothing is missing, prints and ends. Its transactions are never sent, it
//! needs no privilege but that of reading the databases, and it runs beside a running node of any backend. The ports it knows are those
//! that the Southbound database binds to this chassis.

use crate::backend::Backend;
use crate::config::Identity;
use crate::daemon::{host_name, override_file, southbound_client, tls_files, wall_ms};
use crate::dataplane::{Dataplane, openflow::OpenFlow};
use crate::engine::{Engine, Orders, Settings};
use crate::kernel::Kernel;
use crate::view::ovs_columns;
use anyhow::{Context as _, bail};
use oxbow_daemon::options::SslOptions;
use oxbow_daemon::{Dirs, identity};
use oxbow_ovsdb::{Client, ClientConfig, Event};
use oxbow_schema::ovs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Word on the command line that asks for it.
pub const WORD: &str = "export";

/// The command line after [`WORD`].
#[derive(clap::Parser, Clone, Debug)]
#[command(
    name = "oxbow-node export",
    about = "Prints the OpenFlow flows and groups of this chassis without installing them, in the format of `ovs-ofctl bundle`"
)]
pub struct Options {
    /// Open_vSwitch database of this host [default: unix:<OVS_RUNDIR>/db.sock]
    pub database: Option<String>,
    /// Name of this chassis, instead of external_ids:system-id
    #[arg(short = 'n', long = "chassis", value_name = "SYSTEM-ID")]
    pub chassis: Option<String>,
    /// How long to wait for the databases
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// TLS.
    #[command(flatten)]
    pub ssl: SslOptions,
}

/// Runs the command with the arguments after [`WORD`] to its end.
pub fn main(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let name = std::iter::once("oxbow-node export".into());
    let options = <Options as clap::Parser>::parse_from(name.chain(arguments));
    match run(&options, &Dirs::from_env()) {
        Ok(export) => {
            #[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command that prints")]
            {
                eprint!("{}", export.problems);
                print!("{}", export.text);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a command that prints")]
            {
                eprintln!("oxbow-node export: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What the databases give this chassis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Flows and groups, a line each.
    pub text: String,
    /// What is not as the databases ask for it, a line each.
    pub problems: String,
}

/// Connects, computes until settled, and disconnects.
///
/// # Errors
/// What is missing: a database that does not answer, a configuration without a name, a chassis that is not registered.
pub fn run(options: &Options, dirs: &Dirs) -> anyhow::Result<Export> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let export = runtime.block_on(Exporter::new(options, dirs)?.run(Duration::from_secs(options.timeout)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    export
}

struct Exporter {
    settings: Settings,
    ovs_remote: String,
    ssl: SslOptions,
}

impl Exporter {
    fn new(options: &Options, dirs: &Dirs) -> anyhow::Result<Self> {
        let remote = options.database.clone().unwrap_or_else(|| dirs.default_ovs_remote());
        Ok(Exporter {
            settings: Settings {
                backend: Backend::OpenFlow,
                is_read_only: true,
                identity: Identity { option: options.chassis.clone(), file: override_file(&dirs.ovn_sysconf) },
                host_name: host_name(),
                internal_version: identity::OVN_INTERNAL_VERSION.to_owned(),
                started_ms: wall_ms(),
            },
            ovs_remote: dirs.resolve_remotes(&remote),
            ssl: options.ssl.absolute(),
        })
    }

    async fn run(self, patience: Duration) -> anyhow::Result<Export> {
        let kernel = Kernel::open().context("cannot talk to the kernel")?;
        let open = Box::new(|_: &str, _: &_| Ok(Box::new(OpenFlow::without_bridge()) as Box<dyn Dataplane>));
        let mut engine = Engine::new(self.settings.clone(), kernel, open);
        let mut config = ClientConfig::new(ovs::DATABASE, self.ovs_remote.clone()).monitor_columns(ovs_columns());
        config.tls = tls_files(&self.ssl, None);
        let mut ovs = Client::start(config);
        let mut sb: Option<Client> = None;
        let start = Instant::now();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let now_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            let Orders { conditions, wake_at_ms, again, .. } =
                engine.step(sb.as_ref().map(Client::replica), now_ms, wall_ms());
            if let (Some(conditions), Some(client)) = (conditions, &mut sb) {
                let request = client.set_conditions(conditions);
                engine.conditions_sent(request);
                if again {
                    continue;
                }
            }
            if sb.is_none()
                && let Some(config) = engine.config()
                && let Some(remote) = &config.remote
            {
                let tls = tls_files(&self.ssl, engine.ssl_files());
                // Nothing is asked for later: the names of the stages come with the flows.
                let names = [crate::stage_names::column()];
                sb = Some(Client::start(southbound_client(config, remote, tls).monitor_columns(names)));
            }
            if let Some(text) = engine.flows_text().filter(|_| engine.is_ready()) {
                if let Some(name) = engine.unregistered() {
                    bail!("chassis {name} is not registered in the Southbound database: nothing is bound to it");
                }
                return Ok(Export { text, problems: engine.problems_text() });
            }
            let pause = wake_at_ms.map_or(patience, |at| Duration::from_millis(at.saturating_sub(now_ms)));
            let wake = (tokio::time::Instant::now() + pause).min(deadline);
            tokio::select! {
                event = ovs.next() => ovs_event(&mut engine, &event),
                event = async { match &mut sb { Some(sb) => sb.next().await, None => std::future::pending().await } } => {
                    if let Some(sb) = &sb {
                        sb_event(&mut engine, &event, sb);
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            if tokio::time::Instant::now() >= deadline {
                bail!("{}", missing(&engine, &self.ovs_remote, &ovs, sb.as_ref()));
            }
        }
    }
}

fn ovs_event(engine: &mut Engine, event: &Event) {
    match event {
        Event::Updates(changes) => engine.ovs_changed(changes),
        Event::Connected { .. } => engine.ovs_connected(),
        Event::Disconnected { .. } => engine.ovs_disconnected(),
        Event::TransactionDone { .. } | Event::Lock(_) | Event::ConditionAcknowledged(_) => {}
    }
}

fn sb_event(engine: &mut Engine, event: &Event, client: &Client) {
    match event {
        Event::Updates(changes) => engine.sb_changed(changes),
        Event::Connected { .. } => engine.sb_connected(client.replica()),
        Event::Disconnected { .. } => engine.sb_disconnected(),
        Event::ConditionAcknowledged(request) => engine.conditions_acknowledged(*request),
        Event::TransactionDone { .. } | Event::Lock(_) => {}
    }
}

/// Why nothing could be exported in time.
fn missing(engine: &Engine, ovs_remote: &str, ovs: &Client, sb: Option<&Client>) -> String {
    let why = |client: &Client| client.status().last_error.clone().unwrap_or_else(|| "no answer".to_owned());
    let Some(config) = engine.config() else {
        return format!("the Open_vSwitch database at {ovs_remote} cannot be read ({})", why(ovs));
    };
    if config.system_id.is_none() {
        return "external_ids:system-id is not set in the Open_vSwitch database: this chassis has no name".to_owned();
    }
    let (Some(remote), Some(sb)) = (&config.remote, sb) else {
        return "external_ids:ovn-remote is not set in the Open_vSwitch database".to_owned();
    };
    if !engine.sb_is_synchronized() {
        return format!("the Southbound database at {remote} cannot be read ({})", why(sb));
    }
    match engine.unregistered() {
        Some(name) => format!("chassis {name} is not registered in the Southbound database: nothing is bound to it"),
        None => format!("the Southbound database did not send everything in time; {}", engine.unsettled()),
    }
}
