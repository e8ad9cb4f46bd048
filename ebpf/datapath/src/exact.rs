//! The exact-match cache: places of this CPU for the verdicts that it used last.
//!
//! A place belongs to one CPU, and is written by packets only. Like the scratch slot it is in no danger of a second packet on the same CPU; were that ever
//! broken, a place that is being filled counts as empty, since its epoch is written last.

use core::ptr;

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use oxbow_abi::{
    exact::{Exact, HITS, WAYS},
    verdict::{DELIVER, Verdict, VerdictKey},
};
use oxbow_wire::key::Words;

use crate::{
    cache,
    maps::{OX_EXACT, OX_EXACT_TAGS, OX_VERDICTS},
    scratch::Scratch,
};

/// Sets of each CPU in `OX_EXACT`; 0 = there are none, every packet asks the shared cache. Set by the loader (`EbpfLoader::override_global`).
#[unsafe(no_mangle)]
pub static OX_EXACT_SETS: u32 = 0;

/// Bits of a number by chance that are to be zero before a flow that found all places taken looks whether one of them is stale: one packet in four.
const LOOK: u32 = 3;
/// The same, before it takes the place even of a flow in use: one packet in sixteen.
const TAKE: u32 = 15;

/// A one in every byte, and the highest bit of every byte.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHEST: u64 = ONES << 7;

/// The places that a key may have. Null pointers stand for what is not there, here and below: of an `Option` that lives across a join the compiler
/// copies the payload whether there is one or not, which the verifier refuses.
#[derive(Clone, Copy)]
pub struct Places {
    /// Tags of the set, one byte for each way; null = the cache is off.
    tags: *mut u64,
    /// The key's tag.
    tag: u64,
    /// Where the set begins in `OX_EXACT`.
    first: u32,
}

/// The ways (highest bit of their byte) whose tag is zero; above the lowest of them others may be named as well.
#[inline(always)]
fn zero(tags: u64) -> u64 {
    tags.wrapping_sub(ONES) & !tags & HIGHEST
}

/// Number of the lowest way named.
#[inline(always)]
fn lowest(ways: u64) -> u32 {
    // One bit, moved to the bottom of its byte, as a factor shifts the byte of its number to the top.
    (((ways & ways.wrapping_neg()) >> 7).wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32
}

#[inline(always)]
fn place(places: Places, way: u32) -> *mut Exact {
    OX_EXACT.get_ptr_mut(places.first + way).unwrap_or(ptr::null_mut())
}

/// Numbers without meaning, one for each word of a key.
const SALT: [u64; 16] = [
    0x1f83_d9ab,
    0x5be0_cd19,
    0x3c6e_f372,
    0x254f_f53a,
    0x510e_527f,
    0x1b05_688c,
    0x6a09_e667,
    0x3b67_ae85,
    0x428a_2f98,
    0x7137_4491,
    0x35c0_fbcf,
    0x69b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x123f_82a4,
    0x2b1c_5ed5,
];

/// Products of pairs of words, which do not wait for each other (NH, the first stage of UMAC, RFC 4418), then mixed. No secret is in it: whoever makes
/// flows that share a set makes them slower for himself, and others' no slower than with as many flows that do not.
#[inline(always)]
fn hash(key: &Words) -> u64 {
    let mut sum = 0u64;
    let mut n = 0;
    while n < 16 {
        let (a, b) = (u64::from(key[n]) + SALT[n], u64::from(key[n + 1]) + SALT[n + 1]);
        sum = sum.wrapping_add(a.wrapping_mul(b));
        n += 2;
    }
    (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline(always)]
fn words(key: &VerdictKey) -> &Words {
    // SAFETY: a `VerdictKey` is these words (asserted in `wire`).
    unsafe { &*ptr::from_ref(key).cast::<Words>() }
}

/// The places of this packet's key on this CPU.
#[inline(always)]
pub fn places(s: &Scratch) -> Places {
    // SAFETY: a constant of the object; volatile, because the compiler does not know the loader's value.
    let sets = unsafe { (&raw const OX_EXACT_SETS).read_volatile() };
    if sets == 0 {
        return Places { tags: ptr::null_mut(), tag: 0, first: 0 };
    }
    let hash = hash(words(s.key()));
    // SAFETY: no memory is passed.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let set = cpu * sets + ((hash >> 32) * u64::from(sets) >> 32) as u32;
    let tags = OX_EXACT_TAGS.get_ptr_mut(set).unwrap_or(ptr::null_mut());
    // 1 to 255, from bits that have no part in the set's number.
    Places { tags, tag: 1 + ((hash >> 8 & 0xff_ffff) * 255 >> 24), first: set * WAYS }
}

/// The place that has this packet's key, whatever else is in it; null = none.
#[inline(always)]
pub fn find(places: Places, s: &Scratch) -> *mut Exact {
    if places.tags.is_null() {
        return ptr::null_mut();
    }
    let key = words(s.key());
    // SAFETY: a word of this CPU.
    let mut ways = zero(unsafe { *places.tags } ^ places.tag * ONES);
    let mut n = 0;
    while n < WAYS && ways != 0 {
        let entry = place(places, lowest(ways));
        // SAFETY: a place of this CPU.
        if !entry.is_null() && same(words(unsafe { &(*entry).key }), key) {
            return entry;
        }
        ways &= ways - 1;
        n += 1;
    }
    ptr::null_mut()
}

#[inline(always)]
fn same(a: &Words, b: &Words) -> bool {
    let mut difference = 0;
    let mut n = 0;
    while n < 16 {
        difference |= a[n] ^ b[n];
        n += 1;
    }
    difference == 0
}

/// Is the place's entry good for this packet? Then it is counted.
#[inline(always)]
pub fn hit(place: *mut Exact, epoch: u32, len: u32) -> bool {
    // SAFETY: a place of this CPU.
    let entry = unsafe { &mut *place };
    if entry.epoch != epoch || entry.hits >= HITS - 1 || !cache::learned(&entry.fdb, &entry.fdb_generation) {
        return false;
    }
    entry.hits += 1;
    entry.bytes += len;
    true
}

/// Gives the verdict what the place counted for it. What it counted for another verdict with the same key is lost: user space finds it in the totals
/// only.
#[inline(always)]
pub fn hand_over(place: *mut Exact, verdict: &mut Verdict) {
    // SAFETY: a place of this CPU.
    let entry = unsafe { &mut *place };
    if entry.created == verdict.created {
        verdict.hits += u64::from(entry.hits);
        verdict.bytes += u64::from(entry.bytes);
    }
    entry.hits = 0;
    entry.bytes = 0;
}

/// A place for a key that has none: an empty one; or, where there is none, now and then one of the others. Otherwise the one in the slot, which lasts for
/// this packet.
#[inline(always)]
pub fn vacate(places: Places, s: &Scratch, epoch: u32) -> *mut Exact {
    let none = s.exact.as_ptr();
    if places.tags.is_null() {
        return none;
    }
    // SAFETY: a word of this CPU.
    let tags = unsafe { *places.tags };
    let empty = zero(tags);
    let mut way = lowest(empty);
    if empty == 0 {
        let turn = s.exact_turn.get().wrapping_add(1);
        s.exact_turn.set(turn);
        let mixed = turn.wrapping_mul(0x9e37_79b1);
        if mixed >> 16 & LOOK != 0 {
            return none;
        }
        way = mixed >> 29;
        let entry = place(places, way);
        // SAFETY: a place of this CPU.
        if entry.is_null() || unsafe { (*entry).epoch } == epoch && mixed >> 16 & TAKE != 0 {
            return none;
        }
        // SAFETY: as above.
        if unsafe { (*entry).hits } != 0
            && let Some(verdict) = OX_VERDICTS.get_ptr_mut(unsafe { &(*entry).key })
        {
            // SAFETY: as in `cache::ask`.
            hand_over(entry, unsafe { &mut *verdict });
        }
    }
    let entry = place(places, way);
    if entry.is_null() {
        return none;
    }
    let shift = way * 8;
    // SAFETY: as above.
    unsafe { *places.tags = tags & !(0xff << shift) | places.tag << shift };
    entry
}

/// Puts a verdict that is valid in `epoch` into a place.
#[inline(always)]
pub fn fill(place: *mut Exact, s: &Scratch, v: &Verdict, epoch: u32) {
    // SAFETY: a place of this CPU, or the slot's own. Volatile, so that the epoch is written first and last.
    unsafe {
        (&raw mut (*place).epoch).write_volatile(!epoch);
        let (to, from) = ((&raw mut (*place).key).cast::<u32>(), words(s.key()));
        let mut n = 0;
        while n < 16 {
            to.add(n).write_volatile(from[n]);
            n += 1;
        }
        (&raw mut (*place).kind).write_volatile(v.kind | v.rewrite << 16);
        (&raw mut (*place).to).write_volatile(if v.kind == DELIVER { v.ifindex } else { v.chassis });
        (&raw mut (*place).vlan).write_volatile(v.vlan);
        let (to, from) = ((&raw mut (*place).mac).cast::<u32>(), (&raw const v.mac).cast::<u32>());
        let mut n = 0;
        while n < 3 {
            to.add(n).write_volatile(from.add(n).read());
            n += 1;
        }
        (&raw mut (*place).option).write_volatile(v.option);
        let mut n = 0;
        while n < v.fdb.len() {
            (&raw mut (*place).fdb[n]).write_volatile(v.fdb[n]);
            (&raw mut (*place).fdb_generation[n]).write_volatile(v.fdb_generation[n]);
            n += 1;
        }
        (&raw mut (*place).hits).write_volatile(0);
        (&raw mut (*place).bytes).write_volatile(0);
        (&raw mut (*place).created).write_volatile(v.created);
        (&raw mut (*place).epoch).write_volatile(epoch);
    }
}

const _: () = assert!(core::mem::offset_of!(Exact, mac) % 4 == 0 && core::mem::offset_of!(Verdict, mac) % 4 == 0);
