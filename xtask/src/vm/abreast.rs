//! Several kernels at the same time: each in a process of this program's own, whose lines carry the kernel's release.
//!
//! A translated machine keeps one processor busy, so rings of one kernel leave the others idle.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use oxbow_testkit::wait;
use oxbow_vm_tests::{Choice, Kernel};
use tempfile::TempDir;

use super::report::Ended;
use crate::process;

/// What one kernel's machines take at most, in KiB: those of ring `wire`, and what QEMU adds to each for its translations.
const MEMORY: u64 = 7 << 20;

/// How every process is started.
pub(super) struct Abreast<'a> {
    /// This program.
    pub(super) program: PathBuf,
    /// The names of the rings.
    pub(super) rings: &'a [String],
    /// What the names of tests must contain one of.
    pub(super) filter: &'a [String],
}

impl Abreast<'_> {
    /// Runs the rings on every kernel, as many kernels at a time as there is memory and processors for, and returns what became of them
    /// in the order of the kernels.
    pub(super) fn run(&self, kernels: &[(Choice, Kernel)]) -> Result<Vec<Ended>> {
        let dir = TempDir::with_prefix("oxbow-vm-reports-").context("cannot make a temporary directory")?;
        let waiting: Mutex<VecDeque<usize>> = Mutex::new((0..kernels.len()).collect());
        let reports: Mutex<Vec<Vec<Ended>>> = Mutex::new(kernels.iter().map(|_| Vec::new()).collect());
        let abreast = at_once()?.min(kernels.len());
        println!("{} kernels, {abreast} at a time", kernels.len());
        thread::scope(|scope| {
            for _ in 0..abreast {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(index) = next.filter(|_| !wait::interrupted()) else { return };
                        let (choice, kernel) = &kernels[index];
                        let ended =
                            self.on(choice, kernel, dir.path().join(index.to_string())).unwrap_or_else(|error| {
                                println!("{} │ {error:#}", kernel.release);
                                vec![Ended::without_report(&kernel.release, &error)]
                            });
                        reports.lock().unwrap_or_else(PoisonError::into_inner)[index] = ended;
                    }
                });
            }
        });
        Ok(reports.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect())
    }

    /// Runs the rings on one kernel to their end.
    fn on(&self, choice: &Choice, kernel: &Kernel, report: PathBuf) -> Result<Vec<Ended>> {
        let mut command = Command::new(&self.program);
        command.args(["vm", "--kernel", &choice.to_string(), "--ring", &self.rings.join(",")]);
        command.arg("--json").arg(&report).args(self.filter);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = process::line(&command);
        let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            let errors = scope.spawn(|| stderr.map(|stream| pass_on(stream, &kernel.release)).transpose());
            let output = stdout.map(|stream| pass_on(stream, &kernel.release)).transpose();
            let errors = errors.join().map_err(|_| anyhow!("the thread that reads `{line}` panicked"))?;
            output.and(errors).with_context(|| format!("cannot read from `{line}`"))
        })?;
        let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
        // A failed ring is in the report; its status says no more.
        let text =
            std::fs::read_to_string(&report).with_context(|| format!("`{line}` ended without a report: {status}"))?;
        serde_json::from_str(&text).with_context(|| format!("the report of `{line}` cannot be read"))
    }
}

fn pass_on(stream: impl Read, release: &str) -> std::io::Result<()> {
    for line in BufReader::new(stream).split(b'\n') {
        println!("{release} │ {}", String::from_utf8_lossy(&line?));
    }
    Ok(())
}

/// How many kernels' machines this machine can hold, at least one.
fn at_once() -> Result<usize> {
    let processors = thread::available_parallelism().context("cannot count the processors")?.get();
    let file = "/proc/meminfo";
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let free = available(&text).with_context(|| format!("{file} does not say what is available"))?;
    Ok(usize::try_from(free / MEMORY)?.min(processors).max(1))
}

/// KiB in the line `MemAvailable:   123 kB` (proc(5)).
fn available(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available("MemTotal:  9 kB\nMemAvailable:    7340032 kB\n"), Some(MEMORY));
        assert_eq!(available("MemTotal:  9 kB\n"), None);
    }
}
