//! What becomes of a packet.

use super::Fields;
use crate::ir::{ChassisId, DatapathKey, LflowId, Mac, Pipeline, PortKey};
use std::fmt;

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// From a device of this chassis; which port it is depends on the VLAN tag.
    Device {
        /// Interface index.
        ifindex: u32,
    },
    /// From a port of this chassis, tag of a nested port already removed.
    Port {
        /// Its datapath.
        datapath: DatapathKey,
        /// Its key.
        port: PortKey,
    },
    /// From another chassis; the frame is the inner one.
    Tunnel {
        /// The network identifier.
        datapath: DatapathKey,
        /// Logical input port.
        inport: PortKey,
        /// Logical output port, or the number of a group.
        outport: PortKey,
    },
}

/// Where a packet goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A device of this chassis.
    Device {
        /// Interface index.
        ifindex: u32,
        /// The port's datapath.
        datapath: DatapathKey,
        /// The port.
        port: PortKey,
    },
    /// Another chassis.
    Tunnel {
        /// Which.
        chassis: ChassisId,
        /// The network identifier.
        datapath: DatapathKey,
        /// Logical input port.
        inport: PortKey,
        /// Logical output port, or the number of a group.
        outport: PortKey,
    },
}

/// A packet that goes out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    /// Where to.
    pub destination: Destination,
    /// The frame from its Ethernet header on.
    pub frame: Vec<u8>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.destination)?;
        self.frame.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a packet, or a copy of it, was dropped. The same names as the kernel's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A logical flow says so.
    LogicalFlow,
    /// No logical flow of the table matched.
    NoMatch,
    /// The actions end without `next` or `output`.
    ActionsEnd,
    /// The last stage was passed without output.
    PipelineEnd,
    /// The flow's actions are not supported.
    UnsupportedAction,
    /// The table is closed.
    TableClosed,
    /// The device has no logical port.
    NotProgrammed,
    /// The datapath is not known here.
    NoDatapath,
    /// `output` with an empty outport.
    NoOutport,
    /// There is no such port.
    PortUnknown,
    /// The port is bound to no chassis.
    PortNotBound,
    /// The port's kind is not served.
    PortNotServed,
    /// It would leave by the port it came in by.
    Loopback,
    /// From a localport, and would leave the chassis: once for each chassis it would go to.
    LocalOnly,
    /// The group has no members here, or is not known.
    GroupEmpty,
    /// Shorter than an Ethernet header.
    Truncated,
    /// More steps than a walk may take.
    WalkLimit,
    /// TTL or hop limit exceeded.
    TtlExceeded,
    /// `nd_na` of something else than a neighbor solicitation.
    NotNeighborSolicit,
    /// Left to the controller.
    Punted,
}

/// A packet, or a copy, that went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Why.
    pub reason: Reason,
    /// The logical flow whose action it was, where it was one.
    pub lflow: Option<LflowId>,
    /// The logical output port, where there was one.
    pub outport: PortKey,
}

/// A rule that a packet took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The logical flow.
    pub lflow: LflowId,
    /// Its datapath.
    pub datapath: DatapathKey,
    /// Its pipeline.
    pub pipeline: Pipeline,
    /// Its table.
    pub stage: u8,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Packets that go out, in the order in which they do.
    pub outputs: Vec<Output>,
    /// Packets and copies that do not.
    pub drops: Vec<Drop>,
    /// The rules taken, in order; copies one after the other.
    pub path: Vec<Step>,
    /// Addresses learned: new, or behind another port than before.
    pub learned: Vec<(DatapathKey, Mac, PortKey)>,
}

/// A place on the way of a packet, for people: see [`super::explain`]. The fields are those of the packet when it came there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A rule matched.
    Rule(Step, Fields),
    /// It was handed to its output port or group, in ingress or from a tunnel.
    Sent(Fields),
    /// It, or a copy, entered the egress pipeline of a local port.
    Egress(Fields),
    /// It, or a copy, leaves: a number in [`Outcome::outputs`].
    Leaves(usize, Fields),
    /// It, or a copy, was dropped: a number in [`Outcome::drops`].
    Dropped(usize),
    /// An address was learned: a number in [`Outcome::learned`].
    Learned(usize),
}
