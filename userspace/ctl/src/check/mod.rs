//! `oxbow check`: can this host run oxbow-node? Looks only; needs neither the daemon nor root, though root sees more.

mod database;
mod host;

use crate::command_line::{CheckArguments, Format};
use anyhow::Result;
use oxbow_daemon::Dirs;
use oxbow_report::Table;
use serde::Serialize;
use std::fmt;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or only if something else holds.
    Warn,
    /// oxbow-node will not work.
    Fail,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    /// What was looked at.
    pub(crate) check: &'static str,
    /// How it ended.
    pub(crate) result: Mark,
    /// What was found.
    pub(crate) found: String,
    /// What to do.
    pub(crate) advice: Option<String>,
}

impl Line {
    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Line {
        Line { check, result: Mark::Ok, found: found.into(), advice: None }
    }

    pub(crate) fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Line {
        Line { check, result: Mark::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    pub(crate) fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Line {
        Line { check, result: Mark::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// All lines.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// Nothing failed.
    passed: bool,
    /// The lines.
    checks: Vec<Line>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["CHECK", "RESULT", "FOUND"]);
        for line in &self.checks {
            let mark = match line.result {
                Mark::Ok => "ok",
                Mark::Warn => "warn",
                Mark::Fail => "FAIL",
            };
            table.row([line.check.to_owned(), mark.to_owned(), line.found.clone()]);
            if let Some(advice) = &line.advice {
                table.row([String::new(), String::new(), format!("-> {advice}")]);
            }
        }
        write!(f, "{table}")?;
        let count = |mark| self.checks.iter().filter(|line| line.result == mark).count();
        let (fails, warns) = (count(Mark::Fail), count(Mark::Warn));
        match (fails, warns) {
            (0, 0) => writeln!(f, "this host is ready for oxbow-node"),
            (0, warns) => writeln!(f, "this host can run oxbow-node ({warns} warnings)"),
            (fails, warns) => writeln!(f, "this host cannot run oxbow-node: {fails} failures, {warns} warnings"),
        }
    }
}

/// Looks at everything; false = something failed.
pub(crate) fn run(arguments: &CheckArguments, format: Format) -> Result<bool> {
    let dirs = Dirs::from_env();
    let mut checks = host::look(arguments, &dirs);
    checks.extend(database::look(arguments, &dirs));
    let passed = checks.iter().all(|line| line.result != Mark::Fail);
    let report = Report { passed, checks };
    crate::say(&match format {
        Format::Table => report.to_string(),
        Format::Json => oxbow_report::json(&report),
    })?;
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_under_what_was_found() {
        let checks = vec![Line::ok("kernel", "6.12"), Line::fail("bpffs", "/x is not mounted", "mount it")];
        let text = Report { passed: false, checks }.to_string();
        assert!(text.contains("bpffs   FAIL    /x is not mounted\n                -> mount it\n"), "{text}");
        assert!(text.contains("1 failures, 0 warnings"), "{text}");
    }
}
