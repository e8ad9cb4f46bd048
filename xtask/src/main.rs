//! Oxbow's build, test and demonstration commands: `cargo xtask <command> --help`.
//!
//! One file (or directory) per subcommand. Each exposes `Args` and `run`; what two of them share has a module named for
//! what it does: [`setup`] (what must be installed), [`process`] (running other programs), [`workspace`] (where things are).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output is its product")]

mod agree;
mod bench;
mod build_ebpf;
mod demo;
mod fuzz;
mod gen_idl;
mod parity;
mod process;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, tests and demonstrates Oxbow.
///
/// Every command first installs what it needs and does not find (`cargo xtask setup` says what that is), so each is complete
/// on a bare Debian 12 with Rust 1.95 or newer.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Demo(demo::Args),
    Test(test::Args),
    Vm(vm::Args),
    Bench(bench::Args),
    GenIdl(gen_idl::Args),
    Parity(parity::Args),
    Agree(agree::Args),
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::GenIdl(args) => gen_idl::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Agree(args) => agree::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
    }
}
