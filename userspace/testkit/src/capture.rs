//! What a device carried, as tcpdump reads it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::artifacts::require_program;
use crate::netns::Netns;
use crate::process::{Process, tail};
use crate::wait::{Look, PATIENCE, wait_until};

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    _dir: TempDir,
}

impl Capture {
    /// Starts to capture on `device` what passes `filter` (empty: all), and returns when it captures.
    ///
    /// Lines are as `tcpdump -nevvl` prints them: link-level headers, no names, Geneve and its options decoded.
    pub fn start(ns: &Netns, device: &str, filter: &str) -> Result<Self> {
        let dir = TempDir::with_prefix("oxbow-capture-").context("cannot make a temporary directory")?;
        let mut command = Command::new(require_program("tcpdump")?);
        command.args(["-nevvl", "--immediate-mode", "-i", device]).args(filter.split_whitespace());
        let mut process = ns.spawn("tcpdump", command, &dir.path().join("capture"))?;
        wait_until(&format!("tcpdump on {device} of {}", ns.name()), PATIENCE, || {
            process.check_alive()?;
            let text = process.log_tail(4000);
            Ok(Look::when(text.contains("listening on"), || text))
        })?;
        Ok(Self { process, _dir: dir })
    }

    /// What was captured until now.
    pub fn text(&self) -> String {
        tail(self.process.log(), 1 << 20)
    }

    /// Waits until the capture contains `needle` and returns all of it.
    pub fn wait_for(&self, needle: &str, deadline: Duration) -> Result<String> {
        wait_until(&format!("{needle:?} in a capture"), deadline, || {
            let text = self.text();
            Ok(if text.contains(needle) { Look::Held(text) } else { Look::NotYet(text) })
        })
    }

    /// Ends it and returns what was captured.
    pub fn stop(mut self) -> Result<String> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait_end(PATIENCE)?;
        Ok(self.text())
    }
}
