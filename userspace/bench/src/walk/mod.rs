//! Cached and first packets in BPF_PROG_TEST_RUN, against the empty program.

use anyhow::{Result, bail};

use crate::session::Session;

/// Cached and first packets in BPF_PROG_TEST_RUN, against the empty program.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Measures.
///
/// # Errors
///
/// When something cannot be set up or measured.
pub fn run(_args: &Args, _session: &mut Session) -> Result<()> {
    bail!("bench walk is being written")
}
