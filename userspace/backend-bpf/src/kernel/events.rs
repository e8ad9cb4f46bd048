//! The ring buffer of events: addresses learned, next hops missing, drops.

use super::map::MapFailure;
use aya::maps::{MapData, RingBuf};
use oxbow_abi::learning::FdbEvent;
use oxbow_abi::stats::{DropEvent, EVENT_DROP, EVENT_FDB, EVENT_NEXT_HOP, NextHopEvent};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use zerocopy::FromBytes;

/// Something a program told user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address was learned or moved.
    Fdb(FdbEvent),
    /// A packet waits for a next hop.
    NextHop(NextHopEvent),
    /// A packet was dropped.
    Drop(DropEvent),
    /// A record of a kind that this version does not know, with that kind.
    Unknown(u32),
}

/// Reader of the ring; readable (`AsFd`) when there is something.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapFailure> {
        const NAME: &str = "OX_EVENTS";
        let map = ebpf.take_map(NAME).ok_or(MapFailure::Missing { map: NAME })?;
        let ring = RingBuf::try_from(map).map_err(|source| MapFailure::Map { map: NAME, source })?;
        Ok(Self { ring })
    }

    /// The next event, if there is one.
    #[expect(clippy::should_implement_trait, reason = "a poll of the ring: `None` now does not mean the end")]
    pub fn next(&mut self) -> Option<Event> {
        let record = self.ring.next()?;
        let kind = record.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let event = match kind {
            EVENT_FDB => FdbEvent::read_from_prefix(&record).ok().map(|(e, _)| Event::Fdb(e)),
            EVENT_NEXT_HOP => NextHopEvent::read_from_prefix(&record).ok().map(|(e, _)| Event::NextHop(e)),
            EVENT_DROP => DropEvent::read_from_prefix(&record).ok().map(|(e, _)| Event::Drop(e)),
            _ => None,
        };
        Some(event.unwrap_or(Event::Unknown(kind)))
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
