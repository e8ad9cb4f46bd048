//! Packets and TCP through hypervisors, against bare `bpf_redirect`, the Linux bridge and OVS's userspace datapath.

use anyhow::{Result, bail};

use crate::session::Session;

/// Packets and TCP through hypervisors, against bare `bpf_redirect`, the Linux bridge and OVS's userspace datapath.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Measures.
///
/// # Errors
///
/// When something cannot be set up or measured.
pub fn run(_args: &Args, _session: &mut Session) -> Result<()> {
    bail!("bench datapath is being written")
}
