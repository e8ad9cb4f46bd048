//! `oxbow-bench`: what `cargo xtask bench` runs.
#![expect(clippy::print_stderr, reason = "a command's output is its product")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use oxbow_bench::{Options, Session, datapath, lifecycle, ovsdb, walk};

/// Measures Oxbow against the best there is for the same job, in interleaved rounds of one run.
///
/// What counts is the ratio within a round; its median and its spread over the rounds are printed, and whether it is as wanted.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

/// A benchmark with its own options and those that all have.
#[derive(Debug, clap::Args)]
struct With<T: clap::Args> {
    #[command(flatten)]
    own: T,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Datapath(With<datapath::Args>),
    Lifecycle(With<lifecycle::Args>),
    Ovsdb(With<ovsdb::Args>),
    Walk(With<walk::Args>),
    /// The client that `ovsdb` measures, in a process of its own.
    #[command(hide = true)]
    OvsdbClient(ovsdb::ClientArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Datapath(args) => measured("datapath", args.options, |session| datapath::run(&args.own, session)),
        Bench::Lifecycle(args) => measured("lifecycle", args.options, |session| lifecycle::run(&args.own, session)),
        Bench::Ovsdb(args) => measured("ovsdb", args.options, |session| ovsdb::run(&args.own, session)),
        Bench::Walk(args) => measured("walk", args.options, |session| walk::run(&args.own, session)),
        Bench::OvsdbClient(args) => ovsdb::client(&args),
    }
}

/// Runs a benchmark and finishes its report.
fn measured(name: &str, options: Options, bench: impl FnOnce(&mut Session) -> Result<()>) -> Result<()> {
    let mut session = Session::new(name, options);
    bench(&mut session)?;
    session.finish().map(|_| ())
}
