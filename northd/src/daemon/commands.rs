//! The appctl commands of ovn-northd(8), "Runtime Management Commands", and those that OVN's tests and tools use.

use oxbow_daemon::engine_stats::{self, Wanted};
use oxbow_daemon::unixctl::Commands;

use super::options::MAX_THREADS;

/// One of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Northbound,
    Southbound,
}

/// A command for the event loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Exit,
    Pause,
    Resume,
    IsPaused,
    Status,
    ConnectionStatus(Which),
    ResetClusterState(Which),
    SetThreads(usize),
    GetThreads,
    ChassisFeatures,
    ShowStats(Wanted),
    ClearStats,
    Recompute,
    SetComputeLogTimeout,
    /// Ours: counters of the unit engine, by kind of unit.
    UnitStats,
    /// Ours: what has no effect because this version does not compile it.
    NotCompiled,
    /// Ours: compute everything again and compare.
    Audit,
}

/// Everything `oxbow-northd` answers.
pub(super) fn commands() -> Commands<Command> {
    let mut commands = Commands::new();
    commands
        .add("exit", "", 0..=1, |arguments| match arguments {
            [] => Ok(Command::Exit),
            [restart] if restart == "--restart" => Ok(Command::Exit),
            _ => Err(format!("unknown argument {}", arguments[0])),
        })
        .add_plain("pause", Command::Pause)
        .add_plain("resume", Command::Resume)
        .add_plain("is-paused", Command::IsPaused)
        .add_plain("status", Command::Status)
        .add_plain("nb-connection-status", Command::ConnectionStatus(Which::Northbound))
        .add_plain("sb-connection-status", Command::ConnectionStatus(Which::Southbound))
        .add_plain("nb-cluster-state-reset", Command::ResetClusterState(Which::Northbound))
        .add_plain("sb-cluster-state-reset", Command::ResetClusterState(Which::Southbound))
        .add("parallel-build/set-n-threads", "N_THREADS", 1..=1, |arguments| {
            // What is no number counts as zero, as with stock.
            let threads: i64 = arguments[0].parse().unwrap_or(0);
            match usize::try_from(threads) {
                Ok(threads @ 1..=MAX_THREADS) => Ok(Command::SetThreads(threads)),
                _ => Err(format!("invalid n_threads: {threads}")),
            }
        })
        .add_plain("parallel-build/get-n-threads", Command::GetThreads)
        .add_plain("debug/chassis-features-list", Command::ChassisFeatures)
        .add_plain("inc-engine/recompute", Command::Recompute)
        .add("inc-engine/compute-log-timeout", "", 1..=1, |arguments| match arguments[0].parse::<u64>() {
            Ok(_) => Ok(Command::SetComputeLogTimeout),
            Err(_) => Err("unsigned integer required".to_owned()),
        });
    engine_stats::register(&mut commands, Command::ShowStats, Command::ClearStats);
    commands.add_plain("oxbow/unit-stats", Command::UnitStats).add_plain("oxbow/audit", Command::Audit);
    commands.add_plain("oxbow/not-compiled", Command::NotCompiled);
    commands
}
