//! The ring of packets that listeners are told of, and what they want told.

use super::map::{MapFailure, Slots};
use crate::Plain;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use oxbow_abi::monitor::{Listen, Pace, Seen};
use std::os::fd::{AsFd, BorrowedFd};
use zerocopy::FromBytes as _;

/// Reader of the ring; readable (`AsFd`) when there is something. There is one: whoever has it passes on to all who listen.
pub struct Monitor {
    ring: RingBuf<MapData>,
    listen: Slots<Listen>,
    pace: PerCpuArray<MapData, Plain<Pace>>,
}

impl Monitor {
    pub(super) fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapFailure> {
        const RING: &str = "OX_MONITOR";
        const PACE: &str = "OX_PACE";
        let map = ebpf.take_map(RING).ok_or(MapFailure::Missing { map: RING })?;
        let ring = RingBuf::try_from(map).map_err(|source| MapFailure::Map { map: RING, source })?;
        let map = ebpf.take_map(PACE).ok_or(MapFailure::Missing { map: PACE })?;
        let pace = PerCpuArray::try_from(map).map_err(|source| MapFailure::Map { map: PACE, source })?;
        Ok(Self { ring, listen: Slots::take(ebpf, "OX_LISTEN")?, pace })
    }

    /// The next record, if there is one.
    #[expect(clippy::should_implement_trait, reason = "a poll of the ring: `None` now does not mean the end")]
    pub fn next(&mut self) -> Option<Seen> {
        let record = self.ring.next()?;
        Seen::read_from_prefix(&record).ok().map(|(seen, _)| seen)
    }

    /// Says what is to be told.
    ///
    /// # Errors
    /// The map refuses.
    pub fn set(&mut self, listen: &Listen) -> Result<(), MapFailure> {
        self.listen.set(0, listen)
    }

    /// Records that were not told since the load, over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn lost(&self) -> Result<u64, MapFailure> {
        let values = self.pace.get(&0, 0).map_err(|source| MapFailure::Map { map: "OX_PACE", source })?;
        Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(value.0.lost)))
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
