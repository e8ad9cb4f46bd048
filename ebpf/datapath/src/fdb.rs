//! OVN's FDB: MAC addresses learned behind ports with unknown addresses.
//!
//! The kernel writes a hint at once, so that the next packet finds it, and tells user space, which makes it permanent in the Southbound
//! database. A generation (one of 65536, by hash) changes with every move; whoever reads an entry reads its generation first.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use oxbow_abi::{
    learning::{Fdb, FdbEvent, FdbKey, fdb_slot},
    reason::Reason,
    stats::{EVENT_FDB, total},
};

use crate::{
    count, limit,
    maps::{OX_EVENTS, OX_FDB, OX_FDB_GENERATIONS, OX_STATE},
    scratch::Scratch,
    seen,
    walk::encode,
};

/// How old [`Fdb::seen`] may get before it is refreshed: 1 s.
const REFRESH: u64 = 1_000_000_000;

/// Reads the generation of an address and records that the verdict rests on it.
#[inline(always)]
fn rest_on(s: &Scratch, key: &FdbKey) {
    let slot = fdb_slot(key);
    // SAFETY: an aligned word, changed by atomic additions; read once, before the entry.
    let generation = OX_FDB_GENERATIONS.get_ptr(slot).map_or(0, |now| unsafe { now.read_volatile() });
    s.rest_on_fdb(slot, generation);
}

/// The port an address was learned at, 0 = unknown.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_get_fdb(mac_hi: u32, mac_lo: u32) -> u32 {
    let Some(s) = Scratch::get() else { return 0 };
    let key = FdbKey { datapath: s.datapath.get(), mac_hi: mac_hi & 0xffff, mac_lo };
    rest_on(s, &key);
    // SAFETY: map memory stays mapped while this runs and any bytes are a value; that it may become another key's is in DESIGN.md, Races.
    unsafe { OX_FDB.get(&key) }.map_or(0, |entry| entry.port)
}

/// Learns an address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_put_fdb(port: u32, mac_hi: u32, mac_lo: u32) -> i32 {
    encode(put(port, mac_hi & 0xffff, mac_lo))
}

#[inline(always)]
fn put(port: u32, mac_hi: u32, mac_lo: u32) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let key = FdbKey { datapath: s.datapath.get(), mac_hi, mac_lo };
    rest_on(s, &key);
    // SAFETY: no memory is passed.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let mut previous = 0;
    if let Some(entry) = OX_FDB.get_ptr_mut(&key) {
        // SAFETY: as in `ox_get_fdb`; `seen` is written without a lock: whichever CPU is last leaves its time, all are within a tick, and if the entry was
        // replaced meanwhile the write is lost with it.
        unsafe {
            if (*entry).port == port {
                if now.wrapping_sub((*entry).seen) > REFRESH && !seen::dry() {
                    (*entry).seen = now;
                }
                return Ok(0);
            }
            previous = (*entry).port;
        }
    }
    // What is learned now is not what the next packet does.
    s.cacheable.set(0);
    if seen::dry() {
        return Ok(0);
    }
    let rate = OX_STATE.get(0).map_or(0, |state| state.fdb_rate);
    if rate != 0 && !limit::take(limit::FDB, s.datapath.get(), port, rate, rate) {
        return Ok(0);
    }
    // Two CPUs may learn the same address at two ports at once: the last one wins, both raise the generation and both tell user space, which reads
    // the entry that is there. A full table keeps the address unknown (it is flooded on), and user space hears of it all the same.
    let _ = OX_FDB.insert(&key, &Fdb { port, flags: 0, seen: now }, 0);
    if let Some(generation) = OX_FDB_GENERATIONS.get_ptr_mut(fdb_slot(&key)) {
        // SAFETY: an aligned word in a map; the sum is not used, so the relaxed form is sound on every compiler.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(generation, 1) };
    }
    count::totals(total::FDB_LEARNED, 0);
    match OX_EVENTS.reserve::<FdbEvent>(0) {
        Some(mut event) => {
            event.write(FdbEvent { kind: EVENT_FDB, port, key, previous });
            event.submit(0);
        }
        None => count::totals(total::EVENT_LOST, 0),
    }
    Ok(0)
}
