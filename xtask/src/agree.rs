//! `cargo xtask agree`: the independent judge of the datapath.

use std::ffi::OsString;

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{build_ebpf, process, workspace};

/// Judges the datapath: ovn-trace, the reference interpreter and the loaded programs on the same packets.
///
/// Builds the programs and the judge (package oxbow-agree) and passes all arguments on; `cargo xtask agree --help` is the
/// judge's own help.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Arguments of the judge
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let only_help = args.args.iter().any(|arg| arg == "--help" || arg == "-h");
    if !only_help {
        setup::ensure(&[Need::Ebpf, Need::Ovn, Need::Network])?;
        build_ebpf::build(&build_ebpf::Args { quiet: true, ..Default::default() })?;
    }
    let mut judge = process::cargo();
    judge.current_dir(workspace::root()).args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "oxbow-agree",
        "--bin",
        "oxbow-agree",
        "--",
    ]);
    // The judge has printed what is wrong; its status is ours.
    let status = judge.args(&args.args).status()?;
    std::process::exit(status.code().unwrap_or(1));
}
