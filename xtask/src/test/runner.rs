//! Running test runners, and reading their sums off what they print.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::cargo;
use crate::process;

/// What a runner counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// Its closing lines, as it printed them.
    pub(super) summaries: Vec<String>,
}

/// Runs the tests of the packages that `selection` selects, by cargo-nextest if it is installed.
pub(super) fn tests(selection: &[&str], filter: Option<&str>) -> Result<Counts> {
    let mut command = cargo();
    if process::find_program("cargo-nextest").is_some() {
        command.args(["nextest", "run", "--locked", "--no-fail-fast"]).args(selection).args(filter);
        if filter.is_some() {
            command.arg("--no-tests=pass");
        }
        return nextest(command);
    }
    command.args(["test", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests"]).args(selection).args(filter);
    cargo_test(command)
}

/// Runs cargo-nextest, whose last line is `Summary [ 1.2s] 7 tests run: 6 passed, 1 failed, 0 skipped`.
fn nextest(mut command: Command) -> Result<Counts> {
    let (lines, success) = tee(&mut command)?;
    let summaries: Vec<&String> = lines.iter().filter(|line| line.contains("Summary [")).collect();
    let Some(summary) = summaries.last() else {
        bail!("`{}` ended without a summary", process::line(&command));
    };
    let counts = Counts {
        passed: number_before(summary, " passed"),
        // A test that was ended for taking too long is a failed test.
        failed: number_before(summary, " failed") + number_before(summary, " timed out"),
        summaries: vec![summary.trim().to_owned()],
    };
    ensure!(success == (counts.failed == 0), "`{}` failed, although: {summary}", process::line(&command));
    Ok(counts)
}

/// Runs `cargo test`, which prints a line `test result: ok. 7 passed; 0 failed; …` for each of its parts.
pub(super) fn cargo_test(mut command: Command) -> Result<Counts> {
    let (lines, success) = tee(&mut command)?;
    let mut counts = Counts::default();
    let mut parts = 0;
    for line in lines.iter().filter(|line| line.starts_with("test result: ")) {
        counts.passed += number_before(line, " passed");
        counts.failed += number_before(line, " failed");
        parts += 1;
    }
    ensure!(success == (counts.failed == 0), "`{}` failed", process::line(&command));
    counts.summaries.push(format!("{} passed; {} failed in {parts} parts", counts.passed, counts.failed));
    Ok(counts)
}

/// Runs a command that is one test and that ends with a line which begins with `sign`.
pub(super) fn verdict(command: &mut Command, sign: &str) -> Result<Counts> {
    let (lines, success) = tee(command)?;
    let last = lines.iter().rev().find(|line| line.starts_with(sign));
    ensure!(success, "`{}` failed{}", process::line(command), last.map(|line| format!(": {line}")).unwrap_or_default());
    let last = last.with_context(|| format!("`{}` printed no line `{sign} …`", process::line(command)))?;
    Ok(Counts { passed: 1, failed: 0, summaries: vec![last.clone()] })
}

/// Runs `command`, prints what it prints as it comes, and returns its lines and whether it succeeded.
fn tee(command: &mut Command) -> Result<(Vec<String>, bool)> {
    let line = process::line(command);
    println!("running: {line}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let errors = thread::spawn(move || stderr.map(|stream| pass_on(stream, |line| eprintln!("{line}"))));
    let output = stdout.map(|stream| pass_on(stream, |line| println!("{line}")));
    let errors = errors.join().map_err(|_| anyhow!("the thread that reads `{line}` panicked"))?;
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    let mut lines = Vec::new();
    for part in [output, errors].into_iter().flatten() {
        lines.extend(part.with_context(|| format!("cannot read from `{line}`"))?);
    }
    Ok((lines, status.success()))
}

fn pass_on(stream: impl Read, print: impl Fn(&str)) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in BufReader::new(stream).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        print(&line);
        lines.push(line);
    }
    Ok(lines)
}

/// The number that stands directly before `word` in `line`, 0 if there is none.
fn number_before(line: &str, word: &str) -> u64 {
    let digits = |text: &str| text.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    line.match_indices(word).find_map(|(at, _)| digits(&line[..at])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_off_summaries() {
        let nextest = "     Summary [   3.1s] 120 tests run: 117 passed (2 slow), 2 failed, 1 timed out, 4 skipped";
        assert_eq!((number_before(nextest, " passed"), number_before(nextest, " failed")), (117, 2));
        assert_eq!(number_before(nextest, " timed out"), 1);
        let cargo = "test result: ok. 13 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.13s";
        assert_eq!((number_before(cargo, " passed"), number_before(cargo, " failed")), (13, 0));
        assert_eq!(number_before("nothing here", " passed"), 0);
    }

    #[test]
    fn a_verdict_is_the_last_line_with_the_sign() {
        let script = "echo 'parity: contents 1'; echo noise; echo 'parity: contents 2'";
        let counts = verdict(Command::new("sh").args(["-c", script]), "parity:").unwrap();
        assert_eq!(counts.summaries, ["parity: contents 2"]);
        assert!(verdict(Command::new("sh").args(["-c", "echo 'parity: x'; exit 1"]), "parity:").is_err());
        assert!(verdict(&mut Command::new("true"), "parity:").is_err());
    }
}
