//! From `ovs-vsctl add-port` to the first answered ping, and from unplugging to forgotten, against stock OVN.

use anyhow::{Result, bail};

use crate::session::Session;

/// From `ovs-vsctl add-port` to the first answered ping, and from unplugging to forgotten, against stock OVN.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Measures.
///
/// # Errors
///
/// When something cannot be set up or measured.
pub fn run(_args: &Args, _session: &mut Session) -> Result<()> {
    bail!("bench lifecycle is being written")
}
