//! Counters, events and the policy version.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Map `OX_STATE`, array of one: what every packet reads first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct State {
    /// Version of the policy in force; 0 = none yet: everything is dropped.
    pub version: u32,
    /// `STATE_*` flags.
    pub flags: u32,
    /// Copies that one packet may be replicated to before the rest is dropped and counted ([`crate::reason::Reason::FanOutBudget`]).
    pub fan_out_budget: u32,
    /// Broadcast, unknown and multicast packets per second that one port may send, 0 = no limit.
    pub bum_rate: u32,
    /// Burst of the same.
    pub bum_burst: u32,
    /// New addresses per second that one port may have learned, 0 = no limit.
    pub fdb_rate: u32,
    /// Generation of `OX_VIFS`: another number whenever one of its entries was written or removed, and written after that. The programs keep
    /// entries per CPU while it stays the same.
    pub vifs: u32,
    /// Epoch of the guards: another number whenever one of them was raised, and written after that. See [`crate::exact`].
    pub epoch: u32,
}

/// [`State::flags`]: emit a [`DropEvent`] for drops (rate-limited by the reader's ring).
pub const STATE_DROP_EVENTS: u32 = 1;

/// Packets and bytes; value of the per-CPU arrays `OX_DROPS` (index: reason), `OX_LFLOWS` (index: logical flow).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// Indexes of the per-CPU array `OX_TOTALS` (value [`Counter`]).
pub mod total {
    /// Frames seen at a VIF.
    pub const VIF_RX: u32 = 0;
    /// Frames delivered to a VIF.
    pub const VIF_TX: u32 = 1;
    /// Frames decapsulated.
    pub const TUNNEL_RX: u32 = 2;
    /// Frames encapsulated.
    pub const TUNNEL_TX: u32 = 3;
    /// Verdicts that hit.
    pub const CACHE_HIT: u32 = 4;
    /// Walks.
    pub const WALK: u32 = 5;
    /// Denied flows that hit.
    pub const DENIED_HIT: u32 = 6;
    /// Walks that may not be cached.
    pub const UNCACHEABLE: u32 = 7;
    /// Copies made by fan-out.
    pub const FAN_OUT: u32 = 8;
    /// Addresses learned or moved.
    pub const FDB_LEARNED: u32 = 9;
    /// Events lost because the ring was full.
    pub const EVENT_LOST: u32 = 10;
    /// Frames on the underlay that are not ours and went on to the host.
    pub const UNDERLAY_PASS: u32 = 11;
    /// Those of [`CACHE_HIT`] for which the shared verdict was asked, because this CPU had not kept it ([`crate::exact`]) or was to ask again.
    pub const SHARED_HIT: u32 = 12;
    /// How many there are.
    pub const COUNT: u32 = 16;
}

/// Token bucket of a port, map `OX_BUCKETS` (LRU hash; key: datapath << 32 | port, top bit set for the FDB bucket).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Bucket {
    /// Tokens left, in thousandths.
    pub tokens: u64,
    /// When they were counted, nanoseconds of the monotonic clock.
    pub at: u64,
}

/// Ring-buffer record kind: [`crate::learning::FdbEvent`].
pub const EVENT_FDB: u32 = 1;
/// Ring-buffer record kind: [`NextHopEvent`].
pub const EVENT_NEXT_HOP: u32 = 2;
/// Ring-buffer record kind: [`DropEvent`].
pub const EVENT_DROP: u32 = 3;

/// A packet could not be sent because the next hop towards a chassis is unresolved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NextHopEvent {
    /// [`EVENT_NEXT_HOP`].
    pub kind: u32,
    /// Index into `OX_CHASSIS`.
    pub chassis: u32,
}

/// A packet was dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DropEvent {
    /// [`EVENT_DROP`].
    pub kind: u32,
    /// Why (`crate::reason::Reason`).
    pub reason: u32,
    /// Logical flow that dropped it, 0 = none.
    pub lflow: u32,
    /// Tunnel key of the datapath.
    pub datapath: u32,
    /// Tunnel key of the logical inport.
    pub inport: u32,
    /// Length of the frame.
    pub len: u32,
    /// Its first bytes.
    pub head: [u8; 64],
}
