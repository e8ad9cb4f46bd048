//! `oxbow`: what a hypervisor of Oxbow does, and why. See README.md, "How to debug a packet".

mod capture;
mod check;
mod client;
mod command_line;
mod listening;
mod monitor;
mod pcapng;
mod target;

use anyhow::Result;
use clap::Parser as _;
use client::Client;
use command_line::{Cli, Command, Format};
use oxbow_report::{
    drops::Drops, flows::Flows, ports::Ports, status, status::Status, trace::Trace, verdicts::Verdicts,
};
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

/// Something is not as it should be: not ready, a failed check, programs that disagree.
const NOT_WELL: u8 = 1;
/// The question could not be asked or answered.
const NO_ANSWER: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(well) => ExitCode::from(if well { 0 } else { NOT_WELL }),
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "oxbow: {error:#}");
            ExitCode::from(NO_ANSWER)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Carries a command out; false = the answer is that something is wrong.
fn run(cli: &Cli) -> Result<bool> {
    let client = || target::find(cli.target.as_deref()).and_then(|path| Client::connect(&path));
    let format = cli.format;
    match &cli.command {
        Command::Status { maps } => {
            let json = client()?.ask("oxbow/status", &[])?;
            let report: Status = print(format, &json)?;
            if *maps && format == Format::Table {
                say(&format!("\n{}", status::maps_table(&report.maps)))?;
            }
            Ok(report.ready)
        }
        Command::Ports => {
            let report: Ports = print(format, &client()?.ask("oxbow/ports", &[])?)?;
            Ok(report.ports.iter().all(oxbow_report::ports::Port::is_installed))
        }
        Command::Flows(filter) => {
            let _: Flows = print(format, &client()?.ask("oxbow/flows", &[&oxbow_report::json(&filter.wanted())])?)?;
            Ok(true)
        }
        Command::Verdicts { port, limit } => {
            let wanted = oxbow_report::verdicts::Wanted { port: port.clone(), limit: Some(*limit) };
            let _: Verdicts = print(format, &client()?.ask("oxbow/verdicts", &[&oxbow_report::json(&wanted)])?)?;
            Ok(true)
        }
        Command::Drops => {
            let _: Drops = print(format, &client()?.ask("oxbow/drops", &[])?)?;
            Ok(true)
        }
        Command::Trace { port, packet } => {
            let report: Trace = print(format, &client()?.ask("oxbow/trace", &[port, &packet.join(" ")])?)?;
            Ok(report.agrees())
        }
        Command::Monitor(arguments) => monitor::run(&mut client()?, arguments, format),
        Command::Capture(arguments) => capture::run(&mut client()?, arguments, format),
        Command::Check(arguments) => check::run(arguments, format),
        Command::Metrics => {
            say(&client()?.ask("oxbow/metrics", &[])?)?;
            Ok(true)
        }
        Command::LogLevel { levels } => {
            let mut client = client()?;
            if levels.is_empty() {
                say(&client.ask("vlog/list", &[])?)?;
            } else {
                let levels: Vec<&str> = levels.iter().map(String::as_str).collect();
                say(&client.ask("vlog/set", &levels)?)?;
            }
            Ok(true)
        }
        Command::Completion { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "oxbow", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(true)
        }
    }
}

/// Prints a report as asked for, and reads it.
fn print<T: DeserializeOwned + Display>(format: Format, json: &str) -> Result<T> {
    let report: T = oxbow_report::read(json).map_err(|error| {
        anyhow::anyhow!(
            "{error}; `oxbow` and `oxbow-node` should be of one version: compare `oxbow --version` and `oxbow status`"
        )
    })?;
    match format {
        Format::Json => say(json)?,
        Format::Table => say(&report.to_string())?,
    }
    Ok(report)
}

/// Writes to standard output, with an end of line.
fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}
