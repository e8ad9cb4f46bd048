//! What the control socket is asked (ovn-controller(8), RUNTIME MANAGEMENT COMMANDS).

use oxbow_daemon::engine_stats::{self, Wanted};
use oxbow_daemon::unixctl::Commands;

/// A command for the event loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// End; `restart` leaves everything running.
    Exit {
        /// `--restart`
        restart: bool,
    },
    /// Is the Southbound database usable?
    ConnectionStatus,
    /// One screen.
    Status,
    /// Compute everything anew.
    Recompute,
    /// Conntrack zones.
    ZoneList,
    /// Interfaces, ports, devices.
    LocalBindings,
    /// Local datapaths.
    LocalDatapaths,
    /// Every VIF and how far it is.
    Ports,
    /// What is not as it should be.
    Problems,
    /// Programs, maps, peers.
    Dataplane,
    /// What is in force, for comparing.
    Content,
    /// Dropped packets, by reason and by logical flow.
    Drops,
    /// A report, as JSON ([`oxbow_report`]).
    Report(Report),
    /// `oxbow/trace`
    Trace {
        /// The logical port that sends.
        port: String,
        /// What: a microflow.
        packet: String,
    },
    /// `oxbow/events`: packets since a listener's last question.
    Events(oxbow_report::events::Listen),
    /// Stop following the Southbound database.
    Pause,
    /// Go on.
    Resume,
    /// Which of the two.
    PauseStatus,
    /// Hold reports of `nb_cfg` back.
    DelayReport(u64),
    /// Forget how new the Southbound data was.
    ClusterStateReset,
    /// What was computed.
    ShowStats(Wanted),
    /// Begin to count anew.
    ClearStats,
    /// A cache of parsed flows: its size.
    CacheStats,
    /// Nothing to do: what it flushes is not kept here.
    Nothing,
}

/// A report that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// `oxbow/status`
    Status,
    /// `oxbow/ports`
    Ports,
    /// `oxbow/drops`
    Drops,
    /// `oxbow/metrics`: Prometheus' text, the one that is no JSON.
    Metrics,
    /// `oxbow/flows`
    Flows(oxbow_report::flows::Wanted),
    /// `oxbow/verdicts`
    Verdicts(oxbow_report::verdicts::Wanted),
}

/// Commands of ovn-controller that have no meaning here (yet), each answered with an error that says so.
const UNSUPPORTED: &[(&str, usize)] = &[
    ("group-table-list", 0),
    ("meter-table-list", 0),
    ("inject-pkt", 1),
    ("inc-engine/compute-log-timeout", 1),
    ("inc-engine/list-stopwatches", 0),
    ("inc-engine/enable-stopwatch", 1),
    ("inc-engine/disable-stopwatch", 1),
    ("debug/dump-related-ports", 0),
    ("debug/dump-peer-ports", 0),
    ("debug/dump-lflow-conj-ids", 0),
    ("debug/dump-local-template-vars", 0),
    ("debug/dump-mac-bindings", 0),
    ("evpn/remote-vtep-list", 0),
    ("evpn/vtep-binding-list", 0),
    ("evpn/vtep-multicast-group-list", 0),
    ("evpn/vtep-fdb-list", 0),
    ("evpn/vtep-arp-list", 0),
];

/// The commands.
pub fn commands() -> Commands<Command> {
    let mut all = Commands::new();
    all.add("exit", "[--restart]", 0..=1, |arguments| match arguments {
        [] => Ok(Command::Exit { restart: false }),
        [flag] if flag == "--restart" => Ok(Command::Exit { restart: true }),
        [other, ..] => Err(format!("\"exit\" takes no argument but --restart, not \"{other}\"")),
    });
    for (name, command) in [
        ("connection-status", Command::ConnectionStatus),
        ("status", Command::Status),
        ("recompute", Command::Recompute),
        ("inc-engine/recompute", Command::Recompute),
        ("ct-zone-list", Command::ZoneList),
        ("debug/dump-local-bindings", Command::LocalBindings),
        ("debug/dump-local-datapaths", Command::LocalDatapaths),
        ("debug/ports", Command::Ports),
        ("debug/problems", Command::Problems),
        ("debug/dataplane", Command::Dataplane),
        ("debug/dump-dataplane", Command::Content),
        ("drops", Command::Drops),
        ("debug/pause", Command::Pause),
        ("debug/resume", Command::Resume),
        ("debug/status", Command::PauseStatus),
        ("sb-cluster-state-reset", Command::ClusterStateReset),
        ("lflow-cache/flush", Command::Nothing),
        ("flush-lflow-cache", Command::Nothing),
        ("lflow-cache/show-stats", Command::CacheStats),
    ] {
        all.add_plain(name, command);
    }
    for (name, report) in [
        ("oxbow/status", Report::Status),
        ("oxbow/ports", Report::Ports),
        ("oxbow/drops", Report::Drops),
        ("oxbow/metrics", Report::Metrics),
    ] {
        all.add_plain(name, Command::Report(report));
    }
    engine_stats::register(&mut all, Command::ShowStats, Command::ClearStats);
    all.add("oxbow/flows", "[JSON]", 0..=1, |arguments| Ok(Command::Report(Report::Flows(wanted(arguments)?))));
    all.add("oxbow/verdicts", "[JSON]", 0..=1, |arguments| Ok(Command::Report(Report::Verdicts(wanted(arguments)?))));
    all.add("oxbow/events", "[JSON]", 0..=1, |arguments| Ok(Command::Events(wanted(arguments)?)));
    all.add("oxbow/trace", "PORT MICROFLOW", 2..=2, |arguments| {
        Ok(Command::Trace { port: arguments[0].clone(), packet: arguments[1].clone() })
    });
    all.add("debug/delay-nb-cfg-report", "SECONDS", 1..=1, |arguments| match arguments[0].parse() {
        Ok(seconds) => Ok(Command::DelayReport(seconds)),
        Err(_) => Err(format!("\"{}\" is not a number of seconds", arguments[0])),
    });
    for (name, arguments) in UNSUPPORTED {
        all.add(name, "", 0..=(*arguments).max(1), move |_| Err(format!("\"{name}\" is not supported by oxbow-node")));
    }
    all
}

/// Reads what is asked for, as JSON; nothing = everything.
fn wanted<T: serde::de::DeserializeOwned + Default>(arguments: &[String]) -> Result<T, String> {
    match arguments {
        [] => Ok(T::default()),
        [json, ..] => {
            serde_json::from_str(json).map_err(|error| format!("what is asked for is no JSON of ours: {error}"))
        }
    }
}
