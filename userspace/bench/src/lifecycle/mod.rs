//! From `ovs-vsctl add-port` to the first answered ping, and from unplugging to forgotten, against stock OVN.
//!
//! Every contender has a cloud of its own, two hypervisors each, and all of them run at the same time; in every round each is measured once. What
//! happens in the databases is seen by OVSDB clients that monitor them ([`observer`]), what happens to packets by a guest of the other
//! hypervisor that sends an echo request each millisecond ([`echo`]) and by a packet socket on the network between the hypervisors ([`tunnel`]).

mod echo;
mod large;
mod network;
mod observer;
mod plug;
mod tunnel;
mod usage;

use anyhow::{Result, ensure};

use crate::session::Session;

/// From `ovs-vsctl add-port` to the first answered ping, and from unplugging to forgotten, against stock OVN.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ports of the switch beside those that are plugged [default: 1000, quick: 50].
    #[arg(long)]
    others: Option<usize>,
    /// Ports of the large switch [default: 10000, quick: 200].
    #[arg(long)]
    ports: Option<usize>,
    /// How many of them are plugged on each hypervisor [default: 50, quick: 5].
    #[arg(long)]
    local: Option<usize>,
    /// An argument for every oxbow-node, e.g. --attach=clsact; repeatable.
    #[arg(long = "node-argument", value_name = "ARGUMENT", allow_hyphen_values = true)]
    node_arguments: Vec<String>,
}

/// Measures.
///
/// # Errors
///
/// When something cannot be set up or measured.
pub fn run(args: &Args, session: &mut Session) -> Result<()> {
    let others = args.others.unwrap_or(if session.quick() { 50 } else { 1000 });
    for others in [0, others] {
        plug::run(session, others, &args.node_arguments)?;
    }
    let (ports, local) = if session.quick() { (200, 5) } else { (10_000, 50) };
    let size = large::Size { ports: args.ports.unwrap_or(ports), local: args.local.unwrap_or(local) };
    ensure!(
        size.ports > 2 * size.local,
        "{} ports are not enough for {} on each of 2 hypervisors",
        size.ports,
        size.local
    );
    if session.wants(&large::northd_title(size)) {
        large::northds(session, size)?;
    }
    if session.wants(&large::node_title(size)) {
        large::nodes(session, size, &args.node_arguments)?;
    }
    Ok(())
}
