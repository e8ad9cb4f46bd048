//! Against the kernel's own Open vSwitch datapath: on a machine that has its module, which is a virtual one as a rule.

use std::time::Duration;

use anyhow::Result;
use oxbow_testkit::Node;

use super::OXBOW;
use super::load::{Route, flood, stream};
use super::rig::OvnRig;
use crate::contest::{Contest, Figure};
use crate::session::Session;

/// ovn-controller, and ovs-vswitchd with `datapath_type=system`.
const OVS_KERNEL: &str = "OVS kernel";

/// Rounds are long and few: where processors are translated, short slices are noise.
const ROUNDS: u32 = 7;

/// From VIF to VIF on one hypervisor, and by Geneve between two.
///
/// # Errors
///
/// When the kernel has no module openvswitch, or something cannot be set up or measured.
pub(super) fn run(session: &mut Session, slice: Duration) -> Result<()> {
    let places = [(1, "VIF to VIF on one hypervisor"), (2, "Geneve between hypervisors")];
    for (hypervisors, place) in places {
        let (udp, tcp) = (format!("{place}, 60-byte UDP"), format!("{place}, TCP with GSO"));
        if !session.wants(&udp) && !session.wants(&tcp) {
            continue;
        }
        let rigs = [OvnRig::start(Node::Oxbow, hypervisors)?, OvnRig::start(Node::StockKernel, hypervisors)?];
        let route = |rig: usize| -> Result<Route<'_>> {
            if hypervisors == 1 { rigs[rig].local() } else { rigs[rig].remote(false) }
        };
        let contest = |name: &str, of: Figure, cpu: Figure| {
            let (of, cpu) = (of.ratio(OXBOW, OVS_KERNEL), cpu.ratio(OXBOW, OVS_KERNEL));
            Contest::new(name, ROUNDS).contenders([OXBOW, OVS_KERNEL]).figure(of).figure(cpu)
        };
        if session.wants(&udp) {
            let contest = contest(&udp, Figure::new("", "packets/s"), Figure::new("CPU", "ns/packet"));
            contest.run(session, |rig| {
                let flood = flood(route(rig)?, 1, slice)?;
                Ok(vec![flood.rate, flood.cpu])
            })?;
        }
        if session.wants(&tcp) {
            let contest = contest(&tcp, Figure::new("", "Gbit/s"), Figure::new("CPU", "µs/MiB"));
            contest.run(session, |rig| {
                let stream = stream(route(rig)?, slice)?;
                Ok(vec![stream.rate, stream.cpu])
            })?;
        }
    }
    Ok(())
}
