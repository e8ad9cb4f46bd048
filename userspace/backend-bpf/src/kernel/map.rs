//! Typed maps: what the commit writes through. Single elements go through aya, bulk goes through the kernel's batch calls, which aya
//! does not have (they halve the cost per element).

use crate::Plain;
use aya::maps::{Array, HashMap, IterableMap as _, MapData, MapError};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A map refused a write.
#[derive(Debug, thiserror::Error)]
pub enum MapFailure {
    /// No room: the map's size is a setting, the message names it.
    #[error("map {map} is full ({max} entries): start oxbow-node with a larger --map-size {map}=N")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Its size.
        max: u32,
    },
    /// Anything else.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What aya says.
        #[source]
        source: MapError,
    },
    /// A batch call failed.
    #[error("map {map}: batch of {count}: {source}")]
    Batch {
        /// Name of the map.
        map: &'static str,
        /// Elements in the batch.
        count: usize,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// The object has no such map, or it is of another type.
    #[error(
        "the eBPF object has no usable map {map}: it was built from another version of Oxbow; run `cargo xtask build-ebpf`"
    )]
    Missing {
        /// Name of the map.
        map: &'static str,
    },
}

/// Why a map of the object is not the one that this code writes.
fn unusable(map: &'static str, source: MapError) -> MapFailure {
    match source {
        MapError::InvalidMapType { .. } | MapError::InvalidKeySize { .. } | MapError::InvalidValueSize { .. } => {
            MapFailure::Missing { map }
        }
        source => MapFailure::Map { map, source },
    }
}

fn failure(map: &'static str, max: u32, source: MapError) -> MapFailure {
    let full = match &source {
        MapError::SyscallError(error) => {
            matches!(error.io_error.raw_os_error(), Some(libc::E2BIG) | Some(libc::ENOMEM) | Some(libc::ENOSPC))
        }
        MapError::OutOfBounds { .. } => true,
        _ => false,
    };
    if full { MapFailure::Full { map, max } } else { MapFailure::Map { map, source } }
}

/// A key or value: see [`Plain`].
pub trait Value: Copy + FromBytes + IntoBytes + Immutable + 'static {}
impl<T: Copy + FromBytes + IntoBytes + Immutable + 'static> Value for T {}

/// A hash map of the kernel.
pub struct HashTable<K: Value, V: Value> {
    name: &'static str,
    max: u32,
    map: HashMap<MapData, Plain<K>, Plain<V>>,
}

impl<K: Value, V: Value> HashTable<K, V> {
    /// Takes the map of that name out of a loaded object.
    pub fn take(ebpf: &mut aya::Ebpf, name: &'static str) -> Result<Self, MapFailure> {
        let map = ebpf.take_map(name).ok_or(MapFailure::Missing { map: name })?;
        let map = HashMap::<MapData, Plain<K>, Plain<V>>::try_from(map).map_err(|source| unusable(name, source))?;
        let max = max_entries(map_data_fd(&map));
        Ok(Self { name, max, map })
    }

    /// Inserts or replaces.
    pub fn insert(&mut self, key: &K, value: &V) -> Result<(), MapFailure> {
        self.map.insert(Plain(*key), Plain(*value), 0).map_err(|source| failure(self.name, self.max, source))
    }

    /// Inserts or replaces many, in one call per 4096.
    pub fn insert_many(&mut self, keys: &[K], values: &[V]) -> Result<(), MapFailure> {
        for (keys, values) in keys.chunks(4096).zip(values.chunks(4096)) {
            match update_batch(map_data_fd(&self.map), keys.as_bytes_of(), values.as_bytes_of(), keys.len()) {
                Ok(()) => {}
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::E2BIG) | Some(libc::ENOSPC) | Some(libc::ENOMEM)) =>
                {
                    return Err(MapFailure::Full { map: self.name, max: self.max });
                }
                Err(source) => return Err(MapFailure::Batch { map: self.name, count: keys.len(), source }),
            }
        }
        Ok(())
    }

    /// Removes; a key that is not there is not an error.
    pub fn remove(&mut self, key: &K) -> Result<(), MapFailure> {
        match self.map.remove(&Plain(*key)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(source) => Err(failure(self.name, self.max, source)),
        }
    }

    /// Removes many, in one call; keys that are not there are not errors.
    pub fn remove_many(&mut self, keys: &[K]) -> Result<(), MapFailure> {
        let mut left = keys;
        while !left.is_empty() {
            match delete_batch(map_data_fd(&self.map), left.as_bytes_of(), left.len()) {
                Ok(()) => return Ok(()),
                // The one that it stopped at is not there.
                Err((done, error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                    left = left.get(done + 1..).unwrap_or_default();
                }
                Err((_, source)) => return Err(MapFailure::Batch { map: self.name, count: left.len(), source }),
            }
        }
        Ok(())
    }

    /// Looks a key up.
    pub fn get(&self, key: &K) -> Result<Option<V>, MapFailure> {
        match self.map.get(&Plain(*key), 0) {
            Ok(value) => Ok(Some(value.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(failure(self.name, self.max, source)),
        }
    }

    /// All entries. An entry that the kernel adds or removes meanwhile may be missed, as with any walk over a kernel map.
    pub fn entries(&self) -> impl Iterator<Item = Result<(K, V), MapFailure>> + '_ {
        self.map
            .iter()
            .map(|entry| entry.map(|(k, v)| (k.0, v.0)).map_err(|source| failure(self.name, self.max, source)))
    }

    /// All entries, read 4096 at a time: several times faster than one by one. An entry that the kernel adds or removes meanwhile may be missed.
    pub fn snapshot(&self) -> Result<Vec<(K, V)>, MapFailure> {
        let mut all = Vec::new();
        self.batches(|keys, values| all.extend(keys.iter().copied().zip(values.iter().copied())))?;
        Ok(all)
    }

    /// How many entries there are; the kernel keeps no count of its own.
    pub fn count(&self) -> Result<usize, MapFailure> {
        let mut count = 0;
        self.batches(|keys, _| count += keys.len())?;
        Ok(count)
    }

    fn batches(&self, mut each: impl FnMut(&[K], &[V])) -> Result<(), MapFailure> {
        // A bucket that does not fit into one call is refused whole, so there is room for more than any bucket has.
        const BATCH: usize = 4096;
        let mut keys: Vec<K> = std::iter::repeat_with(K::new_zeroed).take(BATCH).collect();
        let mut values: Vec<V> = std::iter::repeat_with(V::new_zeroed).take(BATCH).collect();
        // The kernel's place in the map: four bytes for hashes, as long as a key for others.
        let mut place = vec![0u8; size_of::<K>().max(4)];
        let mut started = false;
        loop {
            let found = lookup_batch(
                map_data_fd(&self.map),
                &mut place,
                started,
                keys.as_mut_bytes(),
                values.as_mut_bytes(),
                BATCH,
            );
            let (count, more) = found.map_err(|source| MapFailure::Batch { map: self.name, count: BATCH, source })?;
            each(&keys[..count], &values[..count]);
            if !more {
                return Ok(());
            }
            started = true;
        }
    }

    /// Name of the map.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its size in entries.
    pub const fn max(&self) -> u32 {
        self.max
    }
}

/// An array map of the kernel.
pub struct Slots<V: Value> {
    name: &'static str,
    max: u32,
    map: Array<MapData, Plain<V>>,
}

impl<V: Value> Slots<V> {
    /// Takes the map of that name out of a loaded object.
    pub fn take(ebpf: &mut aya::Ebpf, name: &'static str) -> Result<Self, MapFailure> {
        let map = ebpf.take_map(name).ok_or(MapFailure::Missing { map: name })?;
        let map = Array::<MapData, Plain<V>>::try_from(map).map_err(|source| unusable(name, source))?;
        let max = map.len();
        Ok(Self { name, max, map })
    }

    /// Writes one element.
    pub fn set(&mut self, index: u32, value: &V) -> Result<(), MapFailure> {
        self.map.set(index, Plain(*value), 0).map_err(|source| failure(self.name, self.max, source))
    }

    /// Writes many elements, in one call.
    pub fn set_many(&mut self, indexes: &[u32], values: &[V]) -> Result<(), MapFailure> {
        update_batch(self.map.map().fd().as_fd(), indexes.as_bytes_of(), values.as_bytes_of(), indexes.len())
            .map_err(|source| MapFailure::Batch { map: self.name, count: indexes.len(), source })
    }

    /// Reads one element.
    pub fn get(&self, index: u32) -> Result<V, MapFailure> {
        self.map.get(&index, 0).map(|v| v.0).map_err(|source| failure(self.name, self.max, source))
    }

    /// Size in elements.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Name of the map.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

trait SliceBytes {
    fn as_bytes_of(&self) -> &[u8];
}

impl<T: Value> SliceBytes for [T] {
    fn as_bytes_of(&self) -> &[u8] {
        IntoBytes::as_bytes(self)
    }
}

fn map_data_fd<K: Value, V: Value>(map: &HashMap<MapData, Plain<K>, Plain<V>>) -> BorrowedFd<'_> {
    map.map().fd().as_fd()
}

fn max_entries(fd: BorrowedFd<'_>) -> u32 {
    fd.try_clone_to_owned()
        .ok()
        .and_then(|fd| MapData::from_fd(fd).ok())
        .and_then(|data| data.info().ok())
        .map_or(0, |info| info.max_entries())
}

/// `union bpf_attr` of BPF_MAP_UPDATE_BATCH (linux/bpf.h).
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// Reads the next entries from `place` on, which is where the call before stopped; how many, and whether there are more.
fn lookup_batch(
    fd: BorrowedFd<'_>,
    place: &mut [u8],
    started: bool,
    keys: &mut [u8],
    values: &mut [u8],
    room: usize,
) -> std::io::Result<(usize, bool)> {
    let place = place.as_mut_ptr() as u64;
    let mut attr = BatchAttr {
        in_batch: if started { place } else { 0 },
        out_batch: place,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: room as u32,
        map_fd: fd.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attribute names live, writable memory for `room` keys and values of the map's own sizes and for the place; the kernel writes
    // no more than that, and `count`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &mut attr, size_of::<BatchAttr>()) };
    if result == 0 {
        return Ok((attr.count as usize, true));
    }
    let error = std::io::Error::last_os_error();
    // What is found last comes with ENOENT.
    if error.raw_os_error() == Some(libc::ENOENT) { Ok((attr.count as usize, false)) } else { Err(error) }
}

/// Removes keys in order; on failure how many were removed before the one that failed.
fn delete_batch(fd: BorrowedFd<'_>, keys: &[u8], count: usize) -> Result<(), (usize, std::io::Error)> {
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: 0,
        count: count as u32,
        map_fd: fd.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attribute names a live slice of `count` keys of the map's own size; the kernel reads it and writes only `count` inside the
    // attribute.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_DELETE_BATCH, &mut attr, size_of::<BatchAttr>()) };
    if result == 0 { Ok(()) } else { Err((attr.count as usize, std::io::Error::last_os_error())) }
}

fn update_batch(fd: BorrowedFd<'_>, keys: &[u8], values: &[u8], count: usize) -> std::io::Result<()> {
    let mut done = 0;
    while done < count {
        let key_size = keys.len() / count;
        let value_size = values.len() / count;
        let attr = BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys: keys[done * key_size..].as_ptr() as u64,
            values: values[done * value_size..].as_ptr() as u64,
            count: (count - done) as u32,
            map_fd: fd.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let mut attr = attr;
        // SAFETY: the attribute names live slices of `count` keys and values of the map's own sizes; the kernel reads them and
        // writes only `count` inside the attribute.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &mut attr, size_of::<BatchAttr>()) };
        if result == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EAGAIN) {
            return Err(error);
        }
        done += attr.count as usize;
    }
    Ok(())
}
