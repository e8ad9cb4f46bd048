//! The exact-match cache: what each CPU keeps of the verdicts that it used last, in front of the verdict cache that all CPUs share.
//!
//! An entry is two cache lines: the key, and what a hit needs. It has no guards. It is used while [`crate::stats::State::epoch`] is what it was when the
//! shared verdict was last found valid; user space gives that another number after every raising of guards, so that each flow asks the shared cache once
//! more. FDB generations, which the programs change themselves, stand in the entry.
//!
//! Only packets that the shared cache answered fill it: a flow's first packet leaves it alone.

use crate::verdict::{FDB_SLOTS, VerdictKey};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Places that a key may have: those of its set.
///
/// Map `OX_EXACT_TAGS` (array of `u64`) has a word for each set, with a byte from its key's hash for each way, the first in the lowest byte; 0 = empty. Map
/// `OX_EXACT` (array of [`Exact`], which user space may map) has the entries, set after set. Each possible CPU has as many sets as the programs' constant
/// `OX_EXACT_SETS` says.
pub const WAYS: u32 = 8;
/// Packets that an entry counts before the shared verdict is asked again: it gets the count, is used (its LRU order), and has to be still there.
pub const HITS: u32 = 64;

/// Value of map `OX_EXACT`: one flow on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exact {
    /// The key of the verdict.
    pub key: VerdictKey,
    /// [`crate::stats::State::epoch`] that it was filled under.
    pub epoch: u32,
    /// [`crate::verdict::DELIVER`] or [`crate::verdict::TUNNEL`] in the lower half, `REWRITE_*` bits in the upper; 0 = empty.
    pub kind: u32,
    /// Local delivery: interface; tunnel: index into `OX_CHASSIS`.
    pub to: u32,
    /// As [`crate::verdict::Verdict::vlan`].
    pub vlan: u32,
    /// As [`crate::verdict::Verdict::mac`].
    pub mac: [u8; 12],
    /// As [`crate::verdict::Verdict::option`].
    pub option: u32,
    /// As [`crate::verdict::Verdict::fdb`].
    pub fdb: [u32; FDB_SLOTS],
    /// As [`crate::verdict::Verdict::fdb_generation`].
    pub fdb_generation: [u32; FDB_SLOTS],
    /// Packets that hit and are not in [`crate::verdict::Verdict::hits`] yet: below [`HITS`].
    pub hits: u32,
    /// Their bytes.
    pub bytes: u32,
    /// As [`crate::verdict::Verdict::created`]: which verdict of that key this one is of.
    pub created: u64,
}

const _: () = assert!(size_of::<Exact>() == 128 && core::mem::offset_of!(Exact, epoch) == 64);
