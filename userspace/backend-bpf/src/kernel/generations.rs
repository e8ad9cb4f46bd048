//! `OX_FDB_GENERATIONS`, mapped into this process: the programs add to it atomically, and so must we, which the map's own update call
//! (a plain store) cannot do.

use super::map::MapFailure;
use aya::maps::{Map, MapData};
use oxbow_abi::learning::{FDB_GENERATIONS, FdbKey, fdb_slot};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The kernel rounds each element of an array up to eight bytes.
const STRIDE: usize = 8;
const BYTES: usize = FDB_GENERATIONS as usize * STRIDE;

/// The mapping.
pub struct Generations {
    base: NonNull<u8>,
    _map: MapData,
}

// SAFETY: the mapping is only used through atomics.
unsafe impl Send for Generations {}

impl Generations {
    pub(super) fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapFailure> {
        const NAME: &str = "OX_FDB_GENERATIONS";
        let Some(Map::Array(map)) = ebpf.take_map(NAME) else { return Err(MapFailure::Missing { map: NAME }) };
        // SAFETY: a new shared mapping at an address that the kernel chooses; the length is that of the map, page-aligned (512 KiB).
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        let failed = || MapFailure::Batch { map: NAME, count: 0, source: std::io::Error::last_os_error() };
        if base == libc::MAP_FAILED {
            return Err(failed());
        }
        Ok(Self { base: NonNull::new(base.cast()).ok_or_else(failed)?, _map: map })
    }

    /// Generation of a slot; slots beyond the map have none and read 0.
    pub fn get(&self, slot: u32) -> u32 {
        if slot >= FDB_GENERATIONS {
            return 0;
        }
        // SAFETY: the slot is below FDB_GENERATIONS; otherwise as in `raise`.
        let word = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(slot as usize * STRIDE).cast()) };
        word.load(Ordering::Relaxed)
    }

    /// Invalidates every verdict that rests on where this address is.
    pub fn raise(&self, key: &FdbKey) {
        let offset = fdb_slot(key) as usize * STRIDE;
        // SAFETY: `fdb_slot` is below FDB_GENERATIONS, so the word lies inside the mapping; it is aligned to eight bytes, and everybody who
        // writes it, kernel programs included, does so atomically.
        let word = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) };
        word.fetch_add(1, Ordering::SeqCst);
    }

    /// Invalidates every verdict that rests on where an address is.
    pub fn raise_all(&self) {
        for slot in 0..FDB_GENERATIONS as usize {
            // SAFETY: as in `raise`.
            let word = unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(slot * STRIDE).cast()) };
            word.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `take` with this length and nothing refers to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), BYTES) };
    }
}
