//! `bench ovsdb`: the CPU time of our client for an initial dump, as a ratio to plain serde_json decoding of the same bytes.

use std::process::Command;

use anyhow::Result;

use crate::{process, workspace};

/// Compares our OVSDB client's CPU time for an initial dump with plain serde_json decoding into typed structs.
///
/// Both are measured in turn, each in a process of its own; the ratio is what counts, the spread tells how noisy the machine
/// was. Last line: `bench ovsdb: ours/plain MEDIAN (from MIN to MAX in N rounds), at most 1.50 wanted`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rows of Port_Binding.
    #[arg(long, default_value_t = 100_000)]
    ports: u32,
    /// Rows of Logical_Flow.
    #[arg(long, default_value_t = 600_000)]
    flows: u32,
    /// How often both are measured.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Builds the benchmark in release mode and runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = Command::new(process::cargo());
    command.current_dir(workspace::root()).args([
        "bench",
        "--quiet",
        "-p",
        "oxbow-ovsdb",
        "--bench",
        "initial_dump",
        "--",
    ]);
    for (name, value) in [("--ports", args.ports), ("--flows", args.flows), ("--rounds", args.rounds)] {
        command.args([name, &value.to_string()]);
    }
    process::run(&mut command)
}
