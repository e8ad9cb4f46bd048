//! Running a script of `ovn-nbctl` commands with stops in it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context as _, Result, bail};

use super::sandbox::Sandbox;

/// The line of a script at which the databases are compared.
const STEP: &str = "# step";
/// What the running script prints at a stop.
const STOPPED: &str = "@@stopped@@";

/// A script running in one sandbox. It runs as one shell from the first line to the last, so that variables last.
pub(super) struct RunningScript {
    shell: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    side: &'static str,
}

/// Where a script has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// At a `# step` line.
    Step,
    /// At its end.
    End,
}

impl RunningScript {
    /// Starts `text` in `sandbox`, up to its first stop.
    pub(super) fn start(sandbox: &Sandbox, text: &str) -> Result<RunningScript> {
        let runnable = with_stops(text);
        let mut shell = sandbox
            .command("sh")
            .arg("-c")
            .arg(runnable)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start sh")?;
        let stdin = shell.stdin.take().context("the shell has an input")?;
        let stdout = BufReader::new(shell.stdout.take().context("the shell has an output")?);
        Ok(RunningScript { shell, stdin, stdout, side: sandbox.side })
    }

    /// Waits for the next stop or the end.
    pub(super) fn wait(&mut self) -> Result<Progress> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line)? > 0 {
            if line.trim_end() == STOPPED {
                return Ok(Progress::Step);
            }
            line.clear();
        }
        let status = self.shell.wait()?;
        if !status.success() {
            let mut said = String::new();
            if let Some(stderr) = &mut self.shell.stderr {
                stderr.read_to_string(&mut said)?;
            }
            bail!("the script failed on the {} side ({status}): {}", self.side, said.trim_end());
        }
        Ok(Progress::End)
    }

    /// Lets it run on after a [`Progress::Step`].
    pub(super) fn resume(&mut self) -> Result<()> {
        writeln!(self.stdin).context("the script ended before its time")
    }
}

/// The script that is run: it stops at each `# step`, or after each command line if it has no such line.
fn with_stops(text: &str) -> String {
    let stop = format!("echo {STOPPED}; read parity_continue\n");
    let explicit = text.lines().any(|line| line.trim() == STEP);
    let mut runnable = String::from("set -e\n");
    for line in text.lines() {
        let line = line.trim_end();
        if line.trim_start() == STEP {
            runnable.push_str(&stop);
            continue;
        }
        runnable.push_str(line);
        runnable.push('\n');
        let command = !line.is_empty() && !line.trim_start().starts_with('#') && !line.ends_with('\\');
        if command && !explicit {
            runnable.push_str(&stop);
        }
    }
    runnable
}

impl Drop for RunningScript {
    fn drop(&mut self) {
        // Only a script that is left at a stop is still running.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_where_they_are_asked_for_or_after_each_command() {
        let stop = "echo @@stopped@@; read parity_continue\n";
        assert_eq!(with_stops("a\nb\n# step\nc"), format!("set -e\na\nb\n{stop}c\n"));
        assert_eq!(with_stops("# note\na \\\n  b\n\nc"), format!("set -e\n# note\na \\\n  b\n{stop}\nc\n{stop}"));
    }
}
