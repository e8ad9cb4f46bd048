//! What the demonstration prints.

use std::time::Instant;

use anyhow::{Context as _, Result};

/// The steps that the life cycle has.
const STEPS: usize = 15;

/// Prints steps and counts those that were confirmed.
pub(super) struct Report {
    start: Instant,
    confirmed: usize,
}

/// What a step can print while it is being confirmed.
pub(super) struct Evidence {
    lines: Vec<String>,
}

impl Evidence {
    /// Says what was done: a command line, or what happened by itself.
    pub(super) fn did(&mut self, what: &str) {
        self.lines.push(what.to_owned());
    }

    /// Shows what was read back: the command, and of its answer the lines that matter.
    pub(super) fn read(&mut self, command: &str, answer: &str) {
        self.lines.push(format!("$ {command}"));
        self.lines
            .extend(answer.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("    {}", clip(line))));
    }
}

impl Report {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), confirmed: 0 }
    }

    /// Takes one step: `act` does it, waits for its effect and collects the evidence; an error means that it was not confirmed.
    pub(super) fn step(&mut self, title: &str, act: impl FnOnce(&mut Evidence) -> Result<()>) -> Result<()> {
        let number = self.confirmed + 1;
        let start = Instant::now();
        let mut evidence = Evidence { lines: Vec::new() };
        let outcome = act(&mut evidence);
        let took = format!("{} ms", start.elapsed().as_millis());
        println!("\n[{number:>2}/{STEPS}] {title:<88} {took:>8}");
        for line in &evidence.lines {
            println!("        {line}");
        }
        outcome.with_context(|| format!("step {number} ({title}) is not confirmed"))?;
        self.confirmed = number;
        Ok(())
    }

    /// The demonstration's last line.
    pub(super) fn verdict(&self) -> String {
        let took = self.start.elapsed().as_millis();
        format!("\nlife cycle: {} of {STEPS} steps confirmed in {took} ms", self.confirmed)
    }
}

/// A line that fits a screen; what is cut off is shown to be.
fn clip(line: &str) -> String {
    const WIDTH: usize = 200;
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let kept: String = line.chars().take(WIDTH).collect();
    format!("{kept} …")
}
