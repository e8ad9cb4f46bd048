//! The MAC table: OVN's FDB, learned in the kernel at once, made permanent by user space in the Southbound database.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of map `OX_FDB` (hash).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FdbKey {
    /// Tunnel key of the datapath.
    pub datapath: u32,
    /// Upper 16 bits of the address.
    pub mac_hi: u32,
    /// Lower 32 bits.
    pub mac_lo: u32,
}

/// [`Fdb::flags`]: the entry is in the Southbound database (ours or another chassis'); else it is a hint that the kernel made.
pub const FDB_CONFIRMED: u32 = 1;

/// Value of map `OX_FDB`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fdb {
    /// Tunnel key of the port.
    #[cfg(not(feature = "swapped-layout"))]
    pub port: u32,
    /// `FDB_*` flags.
    pub flags: u32,
    /// Tunnel key of the port.
    #[cfg(feature = "swapped-layout")]
    pub port: u32,
    /// When the address was last seen there, nanoseconds of the monotonic clock.
    pub seen: u64,
}

/// Entries of `OX_FDB_GENERATIONS` (array of `u32`, memory-mappable so that user space adds to it atomically too; one entry every 8 bytes in the mapping): an address hashes to one of them, and whoever changes where an address is adds one to it.
/// Two addresses that share one invalidate each other's verdicts, nothing worse. Slot 0 is never used.
pub const FDB_GENERATIONS: u32 = 65536;

/// Slot of an address in `OX_FDB_GENERATIONS`: the same in the kernel and in user space.
pub const fn fdb_slot(key: &FdbKey) -> u32 {
    let mut h = key.mac_lo ^ key.mac_hi.rotate_left(16) ^ key.datapath.wrapping_mul(0x9e37_79b1);
    h ^= h >> 15;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    let slot = h % FDB_GENERATIONS;
    if slot == 0 { 1 } else { slot }
}

/// Ring-buffer record (`OX_EVENTS`): an address was learned or moved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FdbEvent {
    /// [`crate::stats::EVENT_FDB`].
    pub kind: u32,
    /// Tunnel key of the port.
    pub port: u32,
    /// Datapath and address.
    pub key: FdbKey,
    /// Port before, 0 = new.
    pub previous: u32,
}
