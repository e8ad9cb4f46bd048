//! What became of every ring on every kernel.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use oxbow_vm_tests::Choice;

/// How a ring ended on a kernel.
pub(super) struct Ended {
    pub(super) kernel: String,
    pub(super) ring: String,
    pub(super) took: Duration,
    /// What it found, in a few words.
    pub(super) outcome: Result<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22} {:<8} {:>7.1} s  ", self.kernel, self.ring, self.took.as_secs_f32())?;
        match &self.outcome {
            Ok(found) => write!(f, "ok: {found}"),
            Err(error) => write!(f, "FAILED: {}", format!("{error:#}").lines().next().unwrap_or_default()),
        }
    }
}

/// The table of results.
#[derive(Default)]
pub(super) struct Report {
    ended: Vec<Ended>,
    left_out: Vec<String>,
}

impl Report {
    pub(super) fn add(&mut self, ended: Ended) {
        self.ended.push(ended);
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
            "vm: {} of {} ok on Linux {}{left_out}",
            self.ended.len() - failed,
            self.ended.len(),
            kernels.join(", ")
        );
        if failed > 0 || self.ended.is_empty() {
            bail!("{failed} failed");
        }
        Ok(())
    }
}
