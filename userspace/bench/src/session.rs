//! A run of a benchmark: its options and the report that it fills.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::machine::Machine;
use crate::markdown;
use crate::report::{Report, Row};

/// Options that every benchmark has.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// How often every contender is measured.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Seconds instead of minutes: every row is there, with figures that are worth little.
    #[arg(long)]
    pub quick: bool,
    /// Only what has this in its name.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Only the contenders that have this in their name, and no ratios: for a look with a profiler.
    #[arg(long, value_name = "TEXT")]
    pub alone: Option<String>,
    /// Write everything that was measured, each round's values too, into this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a table for README into this file.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// A benchmark at work.
#[derive(Debug)]
pub struct Session {
    options: Options,
    report: Report,
}

impl Session {
    /// A run of the benchmark called `bench` (the word behind `cargo xtask bench`).
    pub fn new(bench: &str, options: Options) -> Self {
        let machine = Machine::here();
        say(&format!("bench {bench}: {machine}"));
        let report = Report {
            bench: bench.to_owned(),
            command: format!("cargo xtask bench {bench}"),
            machine,
            rows: Vec::new(),
        };
        Self { options, report }
    }

    /// Whether seconds are all there is.
    pub fn quick(&self) -> bool {
        self.options.quick
    }

    /// How many rounds: what was asked for, else 1 in a quick run, else `usual`.
    pub fn rounds(&self, usual: u32) -> u32 {
        self.options.rounds.unwrap_or(if self.options.quick { 1 } else { usual })
    }

    /// Whether something of this name was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.options.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Whether this contender takes part.
    pub fn competes(&self, contender: &str) -> bool {
        self.options.alone.as_ref().is_none_or(|alone| contender.contains(alone))
    }

    /// A line of progress on standard output.
    pub fn say(&self, text: &str) {
        say(text);
    }

    /// Adds a finished row and prints it.
    pub fn add(&mut self, row: Row) {
        say(&row.to_string());
        self.report.rows.push(row);
    }

    /// What was found so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Prints what was missed, writes the files that were asked for, and hands the report out.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn finish(self) -> Result<Report> {
        let Self { options, report } = self;
        for (row, ratio) in report.missed() {
            let wanted = ratio.wanted.map(|wanted| wanted.to_string()).unwrap_or_default();
            say(&format!(
                "MISSED: {}: {} ÷ {} is {:.3}, wanted {wanted}",
                row.name, ratio.of, ratio.to, ratio.spread.median
            ));
        }
        if let Some(file) = &options.json {
            let text = serde_json::to_string_pretty(&report).context("cannot make JSON of the report")?;
            std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        }
        if let Some(file) = &options.markdown {
            std::fs::write(file, markdown::table(&report))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(report)
    }
}

fn say(text: &str) {
    #[expect(clippy::print_stdout, reason = "a benchmark's output is its product")]
    {
        println!("{text}");
    }
}
