//! What became of every ring on every kernel.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use oxbow_vm_tests::Choice;
use serde::{Deserialize, Serialize};

/// How a ring ended on a kernel.
#[derive(Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) kernel: String,
    pub(super) ring: String,
    pub(super) took: Duration,
    /// What it found, in a few words, or why it failed.
    pub(super) outcome: Result<String, String>,
}

impl Ended {
    /// Of a kernel on which rings were run, nobody knows how they ended.
    pub(super) fn without_report(kernel: &str, error: &anyhow::Error) -> Self {
        let (kernel, ring) = (kernel.to_owned(), "?".to_owned());
        Self { kernel, ring, took: Duration::ZERO, outcome: Err(format!("{error:#}")) }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22} {:<8} {:>7.1} s  ", self.kernel, self.ring, self.took.as_secs_f32())?;
        match &self.outcome {
            Ok(found) => write!(f, "ok: {found}"),
            Err(error) => write!(f, "FAILED: {}", error.lines().next().unwrap_or_default()),
        }
    }
}

/// The table of results.
pub(super) struct Report {
    begun: Instant,
    ended: Vec<Ended>,
    left_out: Vec<String>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), ended: Vec::new(), left_out: Vec::new() }
    }

    pub(super) fn add(&mut self, ended: impl IntoIterator<Item = Ended>) {
        self.ended.extend(ended);
    }

    /// Writes what was added as a JSON array of objects `kernel`, `ring`, `took`, `outcome`.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.ended)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Notes a kernel that cannot be had and need not.
    pub(super) fn left_out(&mut self, choice: &Choice, why: &anyhow::Error) {
        println!("left out: {why:#}");
        self.left_out.push(choice.to_string());
    }

    /// Prints the table and the verdict, a line that begins with `vm:`.
    ///
    /// # Errors
    ///
    /// When a ring failed, or nothing was run.
    pub(super) fn conclude(&self) -> Result<()> {
        println!("\n=== kernels and rings");
        for ended in &self.ended {
            println!("{ended}");
        }
        let failed = self.ended.iter().filter(|ended| ended.outcome.is_err()).count();
        let mut kernels: Vec<&str> = self.ended.iter().map(|ended| ended.kernel.as_str()).collect();
        kernels.dedup();
        let left_out = if self.left_out.is_empty() {
            String::new()
        } else {
            format!("; cannot be had: {}", self.left_out.join(", "))
        };
        println!(
            "vm: {} of {} ok on Linux {}{left_out}; {:.0} s",
            self.ended.len() - failed,
            self.ended.len(),
            kernels.join(", "),
            self.begun.elapsed().as_secs_f32()
        );
        if failed > 0 || self.ended.is_empty() {
            bail!("{failed} failed");
        }
        Ok(())
    }
}
