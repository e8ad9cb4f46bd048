//! `OX_EXACT`: what CPUs keep of the verdicts, and have counted but not handed over. Only the programs write it; it is mapped while it is read, since it
//! may be large and most of it is of no interest in between.

use super::map::MapFailure;
use aya::maps::{Map, MapData};
use oxbow_abi::exact::{Exact, WAYS};
use oxbow_abi::stats::Counter;
use oxbow_abi::verdict::VerdictKey;
use rustc_hash::FxHashMap;
use std::os::fd::{AsFd, AsRawFd};

const NAME: &str = "OX_EXACT";

/// Sets of each CPU (0 = the cache is off) and of all CPUs, for so many entries on each of `cpus`.
pub(super) fn sets(entries: u32, cpus: usize) -> (u32, u32) {
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let each = entries.div_ceil(WAYS);
    match each.checked_mul(cpus).filter(|all| all.checked_mul(WAYS).is_some()) {
        // A map has one element at least.
        Some(all) => (each, all.max(1)),
        None => (0, 1),
    }
}

/// The exact-match caches of all CPUs.
pub struct ExactCaches {
    map: MapData,
    entries: u32,
}

impl ExactCaches {
    pub(super) fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapFailure> {
        let Some(Map::Array(map)) = ebpf.take_map(NAME) else { return Err(MapFailure::Missing { map: NAME }) };
        let entries = map.info().map_err(|source| MapFailure::Map { map: NAME, source })?.max_entries();
        Ok(Self { map, entries })
    }

    /// Entries that all CPUs together have room for.
    pub const fn max(&self) -> u32 {
        self.entries
    }

    /// Entries in use, or left behind by flows that are no more.
    ///
    /// # Errors
    /// The map cannot be mapped.
    pub fn held(&self) -> Result<usize, MapFailure> {
        let mut held = 0;
        self.each(|_| held += 1)?;
        Ok(held)
    }

    /// Packets that hit and that the verdict, named by its key and when it was made, has not counted yet.
    ///
    /// # Errors
    /// The map cannot be mapped.
    pub fn hits(&self) -> Result<FxHashMap<(VerdictKey, u64), Counter>, MapFailure> {
        let mut hits = FxHashMap::<_, Counter>::default();
        self.each(|entry| {
            if entry.hits != 0 {
                let sum = hits.entry((entry.key, entry.created)).or_default();
                sum.packets += u64::from(entry.hits);
                sum.bytes += u64::from(entry.bytes);
            }
        })?;
        Ok(hits)
    }

    fn each(&self, mut look: impl FnMut(&Exact)) -> Result<(), MapFailure> {
        let entries = self.entries as usize;
        let bytes = entries * size_of::<Exact>();
        // SAFETY: a new shared mapping at an address that the kernel chooses, of not more than the map has.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED,
                self.map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(MapFailure::Batch { map: NAME, count: 0, source: std::io::Error::last_os_error() });
        }
        let first = base.cast::<Exact>();
        for n in 0..entries {
            // SAFETY: inside the mapping, which is aligned to pages; read as volatile, since packets write meanwhile: an entry that is being written
            // may come out mixed, and then belongs to no verdict or is counted a little wrong until the next look.
            let kind = unsafe { (&raw const (*first.add(n)).kind).read_volatile() };
            if kind != 0 {
                // SAFETY: as above.
                let entry = unsafe { first.add(n).read_volatile() };
                look(&entry);
            }
        }
        // SAFETY: the mapping that was made above, to which nothing refers any more.
        unsafe { libc::munmap(base, bytes) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::sets;

    #[test]
    fn a_set_is_whole_and_a_map_is_never_empty() {
        assert_eq!(sets(16_384, 2), (2048, 4096));
        assert_eq!(sets(1, 3), (1, 3));
        assert_eq!(sets(0, 8), (0, 1));
        assert_eq!(sets(u32::MAX, 128), (0, 1));
    }
}
