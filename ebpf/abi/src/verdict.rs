//! The verdict cache: what a whole walk came to, keyed by everything the walk may look at.
//!
//! A verdict is valid while every guard it names last changed in a version not after the one the walk ran under
//! (`OX_GUARDS[guard] <= version`), and while its FDB slots' generations are the ones it saw. So nothing has to be read before the walk, a
//! walk that raced with a commit is stale from birth, and a change invalidates only what names its guard.
//! The cache may vanish at any moment: it is a cache, not state.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of maps `OX_VERDICTS` and `OX_DENIED` (LRU hashes).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VerdictKey {
    /// Tunnel key of the datapath; bit 31 ([`KEY_TUNNEL`]) set for a frame that came by tunnel.
    pub datapath: u32,
    /// Tunnel keys: logical inport in the lower half; for a tunnel frame the outport in the upper.
    pub ports: u32,
    /// Ethernet destination and source, as on the wire.
    pub mac: [u8; 12],
    /// [`crate::field::ETH_TYPE`]'s word: TCI and type.
    pub eth_type: u32,
    /// [`crate::field::IP_META`]'s word without the TTL.
    pub ip_meta: u32,
    /// [`crate::field::L4`]'s word.
    pub l4: u32,
    /// Source address, as [`crate::field::IP_SRC`]'s words.
    pub src: [u32; 4],
    /// Destination address.
    pub dst: [u32; 4],
}

/// Bit of [`VerdictKey::datapath`]: the frame came by tunnel.
pub const KEY_TUNNEL: u32 = 1 << 31;

/// Guards a verdict may name: datapath, inport, outport, chassis, and what routers and conntrack will add.
pub const GUARDS: usize = 8;
/// FDB generations a verdict may name: one for the source, one for the destination address.
pub const FDB_SLOTS: usize = 2;
/// Logical flows of the path that a verdict records for counting.
pub const PATH: usize = 24;

/// [`Verdict::kind`]: deliver to a local device.
pub const DELIVER: u32 = 1;
/// [`Verdict::kind`]: encapsulate and send to a chassis.
pub const TUNNEL: u32 = 2;

/// [`Verdict::rewrite`]: the Ethernet addresses change.
pub const REWRITE_MAC: u32 = 1;
/// [`Verdict::rewrite`]: the VLAN tag changes to [`Verdict::vlan`] (0 = remove it).
pub const REWRITE_VLAN: u32 = 2;

/// Value of map `OX_VERDICTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Verdict {
    /// Version of the policy the walk ran under.
    pub version: u32,
    /// [`DELIVER`] or [`TUNNEL`].
    pub kind: u32,
    /// `REWRITE_*` bits.
    pub rewrite: u32,
    /// Interface to leave by (local delivery).
    pub ifindex: u32,
    /// New Ethernet destination and source.
    pub mac: [u8; 12],
    /// New TCI with the present bit, 0 = none.
    pub vlan: u32,
    /// Tunnel: index into `OX_CHASSIS`.
    pub chassis: u32,
    /// Tunnel: network identifier (datapath key).
    pub vni: u32,
    /// Tunnel: OVN's option, inport << 16 | outport.
    pub option: u32,
    /// Indexes into `OX_FDB_GENERATIONS` of the addresses that the walk asked for (source and destination); 0 = unused (slot 0 never changes).
    pub fdb: [u32; FDB_SLOTS],
    /// Generations seen there before the entries were read.
    pub fdb_generation: [u32; FDB_SLOTS],
    /// Indexes into `OX_GUARDS`; 0 = unused (guard 0 never changes).
    pub guard: [u32; GUARDS],
    /// Conntrack slots the verdict rests on and their generations, for the next phase: zero.
    pub ct: [u32; 4],
    /// Reserved, zero.
    pub reserved: u32,
    /// Packets that hit since the entry was made; user space attributes the growth to `path`, and takes it for use (of FDB entries too):
    /// reading a clock on every hit would cost as much as half of the hit.
    pub hits: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the entry was made, nanoseconds of the coarse monotonic clock: tells a new entry with the same key from the old one.
    pub created: u64,
    /// How many of `path` are used.
    pub path_len: u32,
    /// Logical flows that the walk took, in order: indexes into `OX_LFLOWS`; a longer path is cut (and the rest not counted on hits).
    pub path: [u32; PATH],
    /// Reserved, zero.
    pub reserved2: u32,
}

/// Value of map `OX_DENIED`: a flow whose walk ended in a drop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Denied {
    /// Version of the policy the walk ran under.
    pub version: u32,
    /// Why (`crate::reason::Reason`).
    pub reason: u32,
    /// Logical flow that dropped it, an index into `OX_LFLOWS`; 0 = none.
    pub lflow: u32,
    /// As [`Verdict::fdb`].
    pub fdb: [u32; FDB_SLOTS],
    /// As [`Verdict::fdb_generation`].
    pub fdb_generation: [u32; FDB_SLOTS],
    /// Indexes into `OX_GUARDS`.
    pub guard: [u32; GUARDS],
    /// Reserved, zero.
    pub reserved: u32,
    /// Packets that hit since the entry was made.
    pub hits: u64,
}

const _: () = assert!(size_of::<VerdictKey>() == 64);
const _: () = assert!(size_of::<Verdict>() == 240);
