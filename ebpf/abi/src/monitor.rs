//! What the programs tell those who listen, and what a dry run of them tells.
//!
//! Nothing is told unless [`crate::stats::State::flags`] asks for it. A dry run is a second load of the same object whose constant `OX_DRY` is not
//! zero: it shares the maps of the policy and has its own caches, counters and rings; it sends, learns and counts nothing for the loaded one and tells
//! every step.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`crate::stats::State::flags`]: tell of drops in `OX_MONITOR`.
pub const STATE_TELL_DROPS: u32 = 2;
/// [`crate::stats::State::flags`]: tell of packets that are forwarded, walked or by a cached verdict.
pub const STATE_TELL_FORWARDED: u32 = 4;

/// Map `OX_LISTEN`, array of one: what listeners want told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Listen {
    /// Reasons of drops, bit n = reason n.
    pub reasons: u64,
    /// Only packets of this datapath, 0 = any.
    pub datapath: u32,
    /// Only packets from or to this port of it, 0 = any.
    pub port: u32,
    /// The device of that port, 0 = none: a cached verdict knows the device that a packet leaves by, and not the port.
    pub device: u32,
    /// Records per tenth of a second and CPU; more are counted as lost.
    pub pace: u32,
}

/// Value of the per-CPU array `OX_PACE` (one element): how fast this CPU tells.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Pace {
    /// Begin of the current tenth of a second, nanoseconds of the monotonic clock.
    pub start: u64,
    /// Records told in it.
    pub told: u64,
    /// Records not told since the load: too fast, or the ring was full.
    pub lost: u64,
}

/// [`Seen::kind`]: the packet, or a copy, was dropped.
pub const SEEN_DROP: u32 = 1;
/// [`Seen::kind`]: it leaves by a local device.
pub const SEEN_DELIVER: u32 = 2;
/// [`Seen::kind`]: it leaves for another chassis.
pub const SEEN_TUNNEL: u32 = 3;
/// [`Seen::kind`]: a logical flow matched (dry runs only).
pub const SEEN_FLOW: u32 = 4;
/// Bit of [`Seen::kind`]: by a cached verdict or denial, not by a walk.
pub const SEEN_CACHED: u32 = 1 << 8;

/// Bytes of the frame in a record.
pub const SEEN_HEAD: usize = 128;

/// Record of the ring `OX_MONITOR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Seen {
    /// `SEEN_*`.
    pub kind: u32,
    /// Reason of a drop, device of a delivery, index of the chassis of a tunnel frame.
    pub what: u32,
    /// Logical flow that dropped it or matched, 0 = none.
    pub lflow: u32,
    /// Tunnel key of the datapath.
    pub datapath: u32,
    /// Tunnel key of the logical inport.
    pub inport: u32,
    /// Tunnel key of the logical outport or group, 0 = not known (yet).
    pub outport: u32,
    /// Length of the frame, without outer headers.
    pub len: u32,
    /// Bytes of `head` that are used.
    pub head_len: u32,
    /// Nanoseconds of the monotonic clock, coarse.
    pub at: u64,
    /// Its first bytes: of a packet that leaves, as it leaves; outer headers left out.
    pub head: [u8; SEEN_HEAD],
}

const _: () = assert!(size_of::<Seen>() == 168);
