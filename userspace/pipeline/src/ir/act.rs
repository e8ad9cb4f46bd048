//! What a rule does.

use super::{Field, Pipeline};
use std::sync::Arc;

/// The bits of a field from `offset` upwards; how many is with the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The field.
    pub field: Field,
    /// Lowest bit, counted from the field's least significant one.
    pub offset: u8,
}

/// One bit of a field.
pub type Bit = Slice;

/// Which of the two port security checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `check_in_port_sec()`: what the port sends, by `inport`.
    In,
    /// `check_out_port_sec()`: what the port is sent, by `outport`.
    Out,
}

/// Why a rule drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The logical flow says so (`drop;` or no actions).
    LogicalFlow,
    /// The flow's actions could not be compiled, or need what this phase has not; the flow is in the list of problems.
    Unsupported,
    /// A dropping flow of this table has a match that could not be compiled, so the whole table drops.
    TableClosed,
}

/// Packets that only the controller handles. The packet is consumed; what comes of it is up to user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Punt {
    /// `handle_svc_check(P)`: a reply to a health check probe; dropped by a chassis that has sent none.
    ServiceCheck,
}

/// One action. A list is executed in order; it ends at the first [`Act::Next`], [`Act::Drop`], [`Act::Punt`] or with the list, which drops the
/// packet unless [`Act::Output`] was its last action.
///
/// Assignments change the packet in hand; copies are only made by [`Act::Clone`], [`Act::NdNa`] and by an [`Act::Output`] with actions
/// after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// `field[offset .. offset + width] = value`.
    Set {
        /// Where to.
        dst: Slice,
        /// Number of bits.
        width: u8,
        /// The bits, right-aligned.
        value: u128,
    },
    /// `dst[0 .. width] = src[0 .. width]`.
    Move {
        /// Where to.
        dst: Slice,
        /// Where from.
        src: Slice,
        /// Number of bits.
        width: u8,
    },
    /// `a[0 .. width] <-> b[0 .. width]`.
    Exchange {
        /// One side.
        a: Slice,
        /// The other.
        b: Slice,
        /// Number of bits.
        width: u8,
    },
    /// `ip.ttl--`: drops a packet whose TTL or hop limit is 0 or 1.
    DecTtl,
    /// Go on in another table of the same datapath. Terminal.
    Next {
        /// Its pipeline.
        pipeline: Pipeline,
        /// Its number (Logical_Flow.table_id).
        stage: u8,
    },
    /// In ingress: hand the packet to the port or group in `outport`, each copy through its egress pipeline. In egress: deliver it.
    Output,
    /// Drop. Terminal.
    Drop(Cause),
    /// `clone { … }`: the list is executed on a copy, registers and all.
    Clone(Arc<[Act]>),
    /// `dst = check_in_port_sec()` or `check_out_port_sec()`: 1 when the packet violates the port's security.
    CheckPortSecurity {
        /// Which check.
        direction: Direction,
        /// One bit, the result.
        dst: Bit,
    },
    /// `put_fdb(port, mac)`: learn that the address is behind the port.
    PutFdb {
        /// [`Field::InPort`], as a rule.
        port: Field,
        /// A 48-bit field.
        mac: Field,
    },
    /// `dst = lookup_fdb(port, mac)`: 1 when the address is known to be behind that port.
    LookupFdb {
        /// One bit, the result.
        dst: Bit,
        /// A port field.
        port: Field,
        /// A 48-bit field.
        mac: Field,
    },
    /// `dst = get_fdb(mac)`: the key of the port behind which the address is, 0 ("none") when unknown.
    GetFdb {
        /// A port field.
        dst: Field,
        /// A 48-bit field.
        mac: Field,
    },
    /// `nd_na { … }`, `nd_na_router { … }`: a copy of the packet becomes the neighbor advertisement that answers it (fields preset as
    /// ovn-sb(5) says), and the list is executed on that. The packet itself goes on after it.
    NdNa {
        /// Whether the advertisement has the router flag.
        router: bool,
        /// The nested list.
        acts: Arc<[Act]>,
    },
    /// The controller's business. Terminal.
    Punt(Punt),
}
