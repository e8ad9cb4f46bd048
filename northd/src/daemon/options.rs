//! The command line of ovn-northd(8).

use oxbow_daemon::Dirs;
use oxbow_daemon::options::DaemonOptions;

/// Most threads that `--n-threads` and `parallel-build/set-n-threads` take.
pub(super) const MAX_THREADS: usize = 256;

/// OVN northbound management daemon: translates the logical network configuration in the OVN Northbound database into
/// logical flows and bindings in the OVN Southbound database.
///
/// Several may run on the same databases; the one that holds the lock "ovn_northd" of the Southbound database is active,
/// the others stand by and take over when it goes.
#[derive(clap::Parser, Debug)]
pub(crate) struct Options {
    /// Connect to the OVN Northbound database at DATABASE [default: OVN_NB_DB, or ovnnb_db.sock in OVN_RUNDIR]
    #[arg(short = 'D', long, value_name = "DATABASE")]
    pub(super) ovnnb_db: Option<String>,
    /// Connect to the OVN Southbound database at DATABASE [default: OVN_SB_DB, or ovnsb_db.sock in OVN_RUNDIR]
    #[arg(short = 'd', long, value_name = "DATABASE")]
    pub(super) ovnsb_db: Option<String>,
    /// Start paused: follow the databases but change nothing, until ovn-appctl's "resume"
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Number of threads, 1 to 256 (accepted for compatibility: a change costs too little to be divided)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    n_threads: Option<String>,
    /// Options of every daemon.
    #[command(flatten)]
    pub(crate) daemon: DaemonOptions,
}

impl Options {
    /// The Northbound remotes.
    pub(super) fn nb_remotes(&self, dirs: &Dirs) -> String {
        dirs.resolve_remotes(&self.ovnnb_db.clone().unwrap_or_else(|| dirs.default_nb_remote()))
    }

    /// The Southbound remotes.
    pub(super) fn sb_remotes(&self, dirs: &Dirs) -> String {
        dirs.resolve_remotes(&self.ovnsb_db.clone().unwrap_or_else(|| dirs.default_sb_remote()))
    }

    /// The threads asked for, brought into range with a warning as ovn-northd(8) says.
    pub(super) fn threads(&self) -> usize {
        let Some(text) = &self.n_threads else { return 1 };
        // What is no number counts as zero, as with stock.
        let asked: i64 = text.parse().unwrap_or(0);
        let threads = asked.clamp(1, MAX_THREADS as i64) as usize;
        if asked != threads as i64 {
            tracing::warn!(
                target: "ovn_northd",
                "Setting n_threads to {threads} as --n-threads option was set to : [{text}]"
            );
        }
        if threads > 1 {
            tracing::info!(target: "ovn_northd", "Using {threads} threads");
        }
        threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn options(arguments: &[&str]) -> Options {
        Options::parse_from(std::iter::once("oxbow-northd").chain(arguments.iter().copied()))
    }

    #[test]
    fn remotes_come_from_the_command_line_then_the_environment() {
        let dirs = Dirs::from_lookup(|name| match name {
            "OVN_SB_DB" => Some("tcp:127.0.0.1:6642".into()),
            "OVN_RUNDIR" => Some("/r".into()),
            _ => None,
        });
        let given = options(&["--ovnnb-db=ssl:[::1]:6641,ssl:[::2]:6641"]);
        assert_eq!(given.nb_remotes(&dirs), "ssl:[::1]:6641,ssl:[::2]:6641");
        assert_eq!(given.sb_remotes(&dirs), "tcp:127.0.0.1:6642");
        assert_eq!(options(&[]).nb_remotes(&dirs), "unix:/r/ovnnb_db.sock");
    }

    #[test]
    fn threads_are_brought_into_range() {
        for (given, used) in [("4", 4), ("0", 1), ("-3", 1), ("300", 256), ("abc", 1)] {
            assert_eq!(options(&["--n-threads", given, "--dry-run"]).threads(), used, "{given}");
        }
        assert_eq!(options(&[]).threads(), 1);
    }
}
