//! `cargo xtask bench`: Oxbow against the best there is for the same job.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{build_ebpf, process, workspace};

/// Measures one thing against another in the same run and prints the ratio with its spread.
///
/// Installs and builds (in release mode) what the benchmark needs and passes all arguments on; `cargo xtask bench datapath --help` is the
/// benchmark's own help, with `--rounds`, `--quick`, `--json FILE` and `--markdown FILE`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Which benchmark
    #[arg(value_enum)]
    bench: Option<Bench>,
    /// Arguments of the benchmark
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bench {
    /// Packets and TCP through hypervisors
    Datapath,
    /// From `add-port` to the first answered ping
    Lifecycle,
    /// An initial dump
    Ovsdb,
    /// A packet in BPF_PROG_TEST_RUN
    Walk,
}

impl Bench {
    fn name(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Lifecycle => "lifecycle",
            Self::Ovsdb => "ovsdb",
            Self::Walk => "walk",
        }
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Datapath | Self::Lifecycle | Self::Walk => &[Need::Ebpf, Need::Ovn, Need::Network],
            Self::Ovsdb => &[],
        }
    }

    /// Packages whose executables it runs.
    fn daemons(self) -> &'static [&'static str] {
        match self {
            Self::Datapath => &["oxbow-node"],
            Self::Lifecycle => &["oxbow-node", "oxbow-northd"],
            Self::Ovsdb | Self::Walk => &[],
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let only_help = args.bench.is_none() || args.args.iter().any(|arg| arg == "--help" || arg == "-h");
    if let Some(bench) = args.bench
        && !only_help
    {
        prepare(bench)?;
    }
    let mut command = cargo("run");
    command.args(["--package", "oxbow-bench", "--bin", "oxbow-bench", "--"]);
    command.args(args.bench.map(Bench::name)).args(&args.args);
    if args.bench.is_none() {
        command.arg("--help");
    }
    // The benchmark has printed what is wrong; its status is ours.
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1));
}

fn prepare(bench: Bench) -> Result<()> {
    setup::ensure(bench.needs())?;
    if bench.needs().contains(&Need::Ebpf) {
        build_ebpf::build(&build_ebpf::Args { quiet: true, ..Default::default() })?;
    }
    for package in bench.daemons() {
        process::run(cargo("build").args(["--package", package]))?;
    }
    Ok(())
}

/// What runs and what is run must lie in the same profile's directory.
fn cargo(verb: &str) -> Command {
    let mut command = process::cargo();
    command.current_dir(workspace::root()).args([verb, "--quiet", "--locked", "--release"]);
    command
}
