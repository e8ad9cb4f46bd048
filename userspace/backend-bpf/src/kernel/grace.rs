//! Waiting until no packet can still be using what a commit has replaced.
//!
//! A classifier runs inside an RCU read-side section. The kernel waits for all of them (`synchronize_rcu`) before an update of a
//! map-in-map returns to user space, so that nobody frees an inner map under a running program; a map of our own with one slot turns
//! that promise into a call. `membarrier(2)` would do the same only on machines with more than one CPU.
//!
//! The call takes about ten milliseconds of doing nothing, so a thread makes it: whoever replaced something says so at once
//! ([`GracePeriod::begin`]) and asks for the end ([`GracePeriod::finish`]) when it wants to go on, by which time it is usually over.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// The part of `union bpf_attr` that BPF_MAP_CREATE needs (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// The part of `union bpf_attr` that BPF_MAP_UPDATE_ELEM needs.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A way to wait for a grace period.
pub struct GracePeriod {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// Grace periods by number: asked for, over, and whether waiting for one failed since the last [`GracePeriod::finish`].
#[derive(Default)]
struct Progress {
    asked: u64,
    over: u64,
    failed: Option<io::Error>,
    end: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Numbers are whole whatever panicked.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'l>(&self, progress: MutexGuard<'l, Progress>) -> MutexGuard<'l, Progress> {
        self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: waits for one grace period after the other while any is asked for.
    fn serve(&self, maps: &GraceMaps) {
        let mut progress = self.lock();
        while !progress.end {
            if progress.asked == progress.over {
                progress = self.wait(progress);
                continue;
            }
            // All that were asked for until now end with the one that begins now.
            let asked = progress.asked;
            drop(progress);
            let result = maps.wait();
            progress = self.lock();
            progress.over = asked;
            progress.failed = result.err().or(progress.failed.take());
            self.changed.notify_all();
        }
    }
}

impl GracePeriod {
    /// Makes the two small maps that it takes, and starts the thread.
    pub fn new() -> io::Result<Self> {
        let maps = GraceMaps::new()?;
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new().name("grace periods".to_owned()).spawn(move || served.serve(&maps))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Starts to wait, without blocking, until every program run that is under way at the call has ended. Returns its number.
    pub fn begin(&self) -> u64 {
        let mut progress = self.shared.lock();
        progress.asked += 1;
        self.shared.changed.notify_all();
        progress.asked
    }

    /// Number of the last one that is over, without blocking; 0 = none is known to be, as when waiting for one failed: [`GracePeriod::finish`]
    /// tells that.
    pub fn over(&self) -> u64 {
        let progress = self.shared.lock();
        if progress.failed.is_none() { progress.over } else { 0 }
    }

    /// Returns once what was begun is over.
    ///
    /// # Errors
    /// What the kernel said to any that was begun since the last call: nobody knows then what has ended.
    pub fn finish(&self) -> io::Result<()> {
        let mut progress = self.shared.lock();
        while progress.over < progress.asked {
            progress = self.shared.wait(progress);
        }
        progress.failed.take().map_or(Ok(()), Err)
    }
}

impl Drop for GracePeriod {
    fn drop(&mut self) {
        self.shared.lock().end = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // There is nothing in it that panics.
            let _ = thread.join();
        }
    }
}

/// The maps whose update waits.
struct GraceMaps {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl GraceMaps {
    fn new() -> io::Result<Self> {
        let inner = create(CreateAttr {
            map_type: MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            ..CreateAttr::default()
        })?;
        let outer = create(CreateAttr {
            map_type: MAP_TYPE_ARRAY_OF_MAPS,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            map_flags: 0,
            inner_map_fd: inner.as_raw_fd() as u32,
        })?;
        Ok(Self { outer, inner })
    }

    /// Returns once every program run that was under way at the call has ended. Blocks for some milliseconds.
    fn wait(&self) -> io::Result<()> {
        let key = 0u32;
        let value = self.inner.as_raw_fd() as u32;
        let attr = ElementAttr {
            map_fd: self.outer.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const key) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        // SAFETY: key and value are live and of the map's sizes; the kernel only reads them.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const attr, size_of::<ElementAttr>()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn create(attr: CreateAttr) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is a live structure of the size given; the kernel only reads it.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const attr, size_of::<CreateAttr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
