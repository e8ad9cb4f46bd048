//! The verdict cache: look-up on the fast path, first in what this CPU keeps (`exact.rs`), and insertion at the end of a walk.
//!
//! An entry is used while every guard it names is not newer than the version it was made under and its FDB generations are the ones it saw. The
//! version is read before anything else and stamped on the entry, generations are read before the entries they cover: a walk that
//! raced with a change leaves an entry that is stale already.

use core::{cell::Cell, ptr};

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use oxbow_abi::{
    exact::Exact,
    reason::Reason,
    stats::total,
    verdict::{DELIVER, FDB_SLOTS, GUARDS, PATH, REWRITE_MAC, REWRITE_VLAN, TUNNEL},
};
use oxbow_wire::parse::VECTOR;

use crate::{
    count, exact,
    maps::{OX_DENIED, OX_FDB_GENERATIONS, OX_GUARDS, OX_VERDICTS},
    scratch::{Scratch, at},
    seen,
    skb::{self, Context, Direct},
    tunnel,
};

/// What the fast path returns when the frame is to be encapsulated; no action of the kernel's has this number.
pub const SEND: i32 = 258;

/// Is an entry still what a walk would come to?
#[inline(always)]
fn valid(version: u32, guard: &[u32; GUARDS], fdb: &[u32; FDB_SLOTS], generation: &[u32; FDB_SLOTS]) -> bool {
    for &index in guard {
        if index == 0 {
            break;
        }
        match OX_GUARDS.get_ptr(index) {
            // SAFETY: an aligned word that user space writes whole; read once.
            Some(changed) if unsafe { changed.read_volatile() } <= version => {}
            _ => return false,
        }
    }
    learned(fdb, generation)
}

/// Are the addresses that were asked for still where they were?
#[inline(always)]
pub fn learned(fdb: &[u32; FDB_SLOTS], generation: &[u32; FDB_SLOTS]) -> bool {
    let mut n = 0;
    while n < FDB_SLOTS {
        if fdb[n] == 0 {
            break;
        }
        match OX_FDB_GENERATIONS.get_ptr(fdb[n]) {
            // SAFETY: an aligned word that is changed by atomic additions; read once.
            Some(now) if unsafe { now.read_volatile() } == generation[n] => {}
            _ => return false,
        }
        n += 1;
    }
    true
}

/// Forwards the frame by its cached verdict. `None` = there is none, or it is stale: walk. `epoch` is that of the guards; `told`: somebody listens to what is
/// forwarded.
#[inline(always)]
pub fn forward(
    skb: Context,
    s: &Scratch,
    frame: &Direct,
    inner: u32,
    epoch: u32,
    told: bool,
) -> Option<Result<i32, Reason>> {
    let len = skb::len(skb);
    let places = exact::places(s);
    let mut ready = exact::find(places, s);
    if told || ready.is_null() || !exact::hit(ready, epoch, len) {
        ready = ask(skb, s, inner, epoch, told, places, ready);
        if ready.is_null() {
            return None;
        }
    }
    count::totals(total::CACHE_HIT, len);
    // SAFETY: a place of this CPU, or the one in the slot.
    Some(apply(skb, unsafe { &*ready }, frame, inner))
}

/// Asks the shared verdict, and keeps it for the next packet, in `mine` if that is not null. Null = there is none, or it is stale.
#[inline(always)]
fn ask(
    skb: Context,
    s: &Scratch,
    inner: u32,
    epoch: u32,
    told: bool,
    places: exact::Places,
    mine: *mut Exact,
) -> *mut Exact {
    let Some(verdict) = OX_VERDICTS.get_ptr_mut(s.key()) else { return ptr::null_mut() };
    // SAFETY: an entry of an LRU map stays readable memory; if it is evicted and reused while we look, we may read another flow's verdict
    // with that flow's guards: one packet goes where the other flow's go. The kernel reuses elements only under memory pressure of the map and after
    // an RCU-delayed free list, so this takes an eviction between these two instructions on another CPU.
    let v = unsafe { &mut *verdict };
    if !valid(v.version, &v.guard, &v.fdb, &v.fdb_generation) {
        return ptr::null_mut();
    }
    let len = skb::len(skb);
    // Two CPUs that forward one flow may lose each other's addition: the flow counts a few packets too few, nothing else depends on it.
    v.hits += 1;
    v.bytes += u64::from(len);
    if !mine.is_null() {
        exact::hand_over(mine, v);
    }
    count::totals(total::SHARED_HIT, len);
    if told {
        seen::hit(skb, s, v, inner);
    }
    let place = if mine.is_null() { exact::vacate(places, s, epoch) } else { mine };
    exact::fill(place, s, v, epoch);
    place
}

#[inline(always)]
fn apply(skb: Context, v: &Exact, frame: &Direct, inner: u32) -> Result<i32, Reason> {
    let (kind, rewrite, to) = (v.kind & 0xffff, v.kind >> 16, v.to);
    if kind == TUNNEL {
        if rewrite & REWRITE_MAC != 0 {
            frame.set_mac(&v.mac).ok_or(Reason::Rewrite)?;
        }
        if rewrite & REWRITE_VLAN != 0 {
            retag(skb, v.vlan)?;
        }
        let s = Scratch::get().ok_or(Reason::Inconsistent)?;
        s.send_chassis.set(to);
        s.send_option.set(v.option);
        return Ok(SEND);
    }
    if inner != 0 {
        tunnel::strip(skb, inner)?;
        if rewrite & REWRITE_MAC != 0 {
            skb::store(skb, 0, &v.mac)?;
        }
    } else if rewrite & REWRITE_MAC != 0 {
        frame.set_mac(&v.mac).ok_or(Reason::Rewrite)?;
    }
    if rewrite & REWRITE_VLAN != 0 {
        retag(skb, v.vlan)?;
    }
    count::totals(total::VIF_TX, skb::len(skb));
    Ok(skb::redirect(to))
}

/// Replaces the outermost tag, if there is one, by `tci` (0 = none).
#[inline(always)]
fn retag(skb: Context, tci: u32) -> Result<(), Reason> {
    if skb::tag(skb) != 0 || oxbow_wire::frame::is_vlan(skb::protocol(skb)) {
        skb::pop_vlan(skb)?;
    }
    if tci != 0 { skb::push_vlan(skb, tci) } else { Ok(()) }
}

/// Drops the frame if its flow is known to be denied. `None` = it is not.
#[inline(always)]
pub fn deny(skb: Context, s: &Scratch) -> Option<Denial> {
    let entry = OX_DENIED.get_ptr_mut(s.key())?;
    // SAFETY: as in `forward`.
    let d = unsafe { &mut *entry };
    if !valid(d.version, &d.guard, &d.fdb, &d.fdb_generation) {
        return None;
    }
    // As in `forward`: a hit may be lost between CPUs.
    d.hits += 1;
    let reason = Reason::from_number(d.reason)?;
    let len = skb::len(skb);
    count::totals(total::DENIED_HIT, len);
    count::lflow(d.lflow, len);
    Some(Denial { reason, lflow: d.lflow })
}

/// Why a denied flow is dropped.
pub struct Denial {
    /// The reason of its walk.
    pub reason: Reason,
    /// The logical flow of its walk.
    pub lflow: u32,
}

/// What the last copy of a walk did.
pub struct Outcome {
    /// [`DELIVER`] or [`TUNNEL`].
    pub kind: u32,
    /// Device, for local delivery.
    pub ifindex: u32,
    /// Chassis, for a tunnel.
    pub chassis: u32,
    /// OVN's option.
    pub option: u32,
}

/// Words of headers that a verdict cannot rewrite: if one differs between the frame as it came and as it leaves, the walk is not cached.
const UNCACHED: core::ops::Range<u32> = (oxbow_abi::field::IP_META as u32)..(oxbow_abi::field::IP6_LABEL as u32 + 1);

/// Caches a walk that came to one unicast output. Called before write-back, while [`Scratch::packet`] is still the frame as it came.
#[inline(always)]
pub fn remember(outcome: &Outcome, out_vlan: u32) {
    // What a function returns is not used; the verifier wants it to return something.
    let _ = if outcome.kind == DELIVER {
        ox_remember(DELIVER, outcome.ifindex, 0, out_vlan)
    } else {
        ox_remember(TUNNEL, outcome.chassis, outcome.option, out_vlan)
    };
}

/// See [`remember`]: kind, then device or chassis, OVN's option, tag.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_remember(kind: u32, to: u32, option: u32, out_vlan: u32) -> i32 {
    let Some(s) = Scratch::get() else { return 0 };
    let (ifindex, chassis) = if kind == DELIVER { (to, 0) } else { (0, to) };
    insert(s, &Outcome { kind, ifindex, chassis, option }, out_vlan);
    0
}

#[inline(always)]
fn insert(s: &Scratch, outcome: &Outcome, out_vlan: u32) {
    use oxbow_abi::field::{ETH_DST, ETH_SRC, ETH_TYPE};
    let mut word = UNCACHED.start;
    let mut changed = 0;
    while word < UNCACHED.end {
        changed |= at_const(&s.word, word).get() ^ at_const(&s.packet, word).get();
        word += 1;
    }
    if changed != 0 || s.advert.get() != 0 {
        return;
    }
    let mut mac = 0;
    for word in [ETH_DST, ETH_DST + 1, ETH_SRC, ETH_SRC + 1] {
        mac |= s.word[usize::from(word)].get() ^ s.packet[usize::from(word)].get();
    }
    let now = s.word[usize::from(ETH_TYPE)].get() >> 16;
    // A nested port's tag was taken off before the walk; the next frame has it again.
    let nested = s.nested.get();
    let before = if nested != 0 { nested } else { s.packet[usize::from(ETH_TYPE)].get() >> 16 };
    let tci = if out_vlan != 0 { out_vlan } else { now };
    // A nested port's tag outside the packet's own one makes two tags, which take the slow path.
    if (out_vlan != 0 || nested != 0) && now != 0 {
        return;
    }
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive.
    let v = unsafe { &mut *s.verdict.as_ptr() };
    v.version = s.version.get();
    v.kind = outcome.kind;
    v.rewrite = if mac != 0 { REWRITE_MAC } else { 0 } | if tci != before { REWRITE_VLAN } else { 0 };
    v.ifindex = outcome.ifindex;
    let [_, _, d0, d1] = s.word[usize::from(ETH_DST)].get().to_be_bytes();
    let [d2, d3, d4, d5] = s.word[usize::from(ETH_DST) + 1].get().to_be_bytes();
    let [_, _, s0, s1] = s.word[usize::from(ETH_SRC)].get().to_be_bytes();
    let [s2, s3, s4, s5] = s.word[usize::from(ETH_SRC) + 1].get().to_be_bytes();
    v.mac = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5];
    v.vlan = tci;
    v.chassis = outcome.chassis;
    v.vni = s.datapath.get();
    v.option = outcome.option;
    v.fdb = [s.fdb[0].get(), s.fdb[1].get()];
    v.fdb_generation = [s.fdb_generation[0].get(), s.fdb_generation[1].get()];
    guards(s, &mut v.guard);
    v.ct = [0; 4];
    v.reserved = 0;
    v.hits = 0;
    v.bytes = 0;
    // SAFETY: no memory is passed.
    v.created = unsafe { bpf_ktime_get_coarse_ns() };
    v.path_len = s.path_len.get();
    let mut n = 0;
    while n < PATH {
        v.path[n] = s.path[n].get();
        n += 1;
    }
    v.reserved2 = 0;
    // A full map evicts; a failure leaves the flow uncached, and the next packet walks.
    let _ = OX_VERDICTS.insert(s.key(), &*v, 0);
}

/// Caches a walk that came to nothing but a drop.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_remember_denied(reason: u32) -> i32 {
    if let (Some(s), Some(reason)) = (Scratch::get(), Reason::from_number(reason)) {
        insert_denied(s, reason);
    }
    0
}

#[inline(always)]
fn insert_denied(s: &Scratch, reason: Reason) {
    // Reasons that the key and the guards decide. The others depend on the moment, or on fields outside the key.
    if !matches!(
        reason,
        Reason::LogicalFlow
            | Reason::NoMatch
            | Reason::ActionsEnd
            | Reason::PipelineEnd
            | Reason::UnsupportedAction
            | Reason::TableClosed
            | Reason::NoOutport
            | Reason::PortNotBound
            | Reason::PortNotServed
            | Reason::Loopback
            | Reason::LocalOnly
    ) {
        return;
    }
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive.
    let d = unsafe { &mut *s.denied.as_ptr() };
    d.version = s.version.get();
    d.reason = reason as u32;
    d.lflow = s.reason_lflow.get();
    d.fdb = [s.fdb[0].get(), s.fdb[1].get()];
    d.fdb_generation = [s.fdb_generation[0].get(), s.fdb_generation[1].get()];
    guards(s, &mut d.guard);
    d.reserved = 0;
    d.hits = 0;
    // As in `remember`.
    let _ = OX_DENIED.insert(s.key(), &*d, 0);
}

#[inline(always)]
fn guards(s: &Scratch, out: &mut [u32; GUARDS]) {
    let mut n = 0;
    while n < GUARDS {
        out[n] = if (n as u32) < s.guards.get() { s.guard[n].get() } else { 0 };
        n += 1;
    }
}

/// A word at an index that the compiler knows.
#[inline(always)]
fn at_const(vector: &[Cell<u32>; VECTOR], index: u32) -> &Cell<u32> {
    vector.get(index as usize & (VECTOR - 1)).unwrap_or(at(vector, 0))
}

const _: () = assert!(DELIVER != TUNNEL);
