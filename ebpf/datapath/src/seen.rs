//! Telling listeners, and dry runs.
//!
//! The cost without a listener is one test of a word that every packet reads anyway; in a dry run every step is told, and nothing that others could
//! notice is done: the loader sets [`OX_DRY`] for that load, and the verifier leaves the code of the other kind out.

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_skb_load_bytes};
use oxbow_abi::{
    field::{INPORT, OUTPORT},
    monitor::{
        SEEN_CACHED, SEEN_DELIVER, SEEN_DROP, SEEN_FLOW, SEEN_HEAD, SEEN_TUNNEL, STATE_TELL_DROPS,
        STATE_TELL_FORWARDED, Seen,
    },
    verdict::{DELIVER, Verdict},
};

use crate::{
    maps::{OX_LISTEN, OX_MONITOR, OX_PACE, OX_STATE},
    scratch::{Scratch, masked},
    skb::{self, Context},
};

/// Is this load a dry run? Set by the loader (`EbpfLoader::override_global`).
#[unsafe(no_mangle)]
pub static OX_DRY: u32 = 0;

/// A tenth of a second.
const TENTH: u64 = 100_000_000;

/// Is this a dry run? A constant to the verifier.
#[inline(always)]
pub fn dry() -> bool {
    // SAFETY: a constant of the object; volatile, because the compiler does not know the loader's value.
    unsafe { (&raw const OX_DRY).read_volatile() != 0 }
}

/// Does somebody want to be told of what `flag` stands for?
#[inline(always)]
fn wanted(flag: u32) -> bool {
    dry() || OX_STATE.get(0).is_some_and(|state| state.flags & flag != 0)
}

/// A logical flow matched.
#[inline(always)]
pub fn flow(skb: Context, lflow: u32) {
    if dry() {
        ox_seen(skb, SEEN_FLOW, 0, lflow, 0);
    }
}

/// The frame at `at` is dropped.
#[inline(always)]
pub fn dropped(skb: Context, reason: u32, lflow: u32, at: u32, cached: bool) {
    if wanted(STATE_TELL_DROPS) {
        ox_seen(skb, SEEN_DROP | if cached { SEEN_CACHED } else { 0 }, reason, lflow, at);
    }
}

/// The frame leaves by a local device.
#[inline(always)]
pub fn delivered(skb: Context, ifindex: u32) {
    if wanted(STATE_TELL_FORWARDED) {
        ox_seen(skb, SEEN_DELIVER, ifindex, 0, 0);
    }
}

/// The frame behind `at` bytes of outer headers leaves for another chassis.
#[inline(always)]
pub fn tunnelled(skb: Context, chassis: u32, at: u32) {
    if wanted(STATE_TELL_FORWARDED) {
        ox_seen(skb, SEEN_TUNNEL, chassis, 0, at);
    }
}

/// The frame at `at` is forwarded by a cached verdict; told before it is rewritten.
#[inline(always)]
pub fn hit(skb: Context, s: &Scratch, verdict: &Verdict, at: u32) {
    let (kind, to) = if verdict.kind == DELIVER {
        (SEEN_DELIVER, verdict.ifindex)
    } else {
        (SEEN_TUNNEL, verdict.chassis)
    };
    // The fast path keeps the ports in the key only.
    let ports = s.key().ports;
    s.word[usize::from(INPORT)].set(ports & 0xffff);
    s.word[usize::from(OUTPORT)].set(if verdict.kind == DELIVER { ports >> 16 } else { verdict.option & 0xffff });
    ox_seen(skb, kind | SEEN_CACHED, to, 0, at);
}

/// Tells, if filter and pace let it: kind, then reason, device or chassis, then logical flow, then where the frame is in the buffer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_seen(skb: Context, kind: u32, what: u32, lflow: u32, at: u32) -> i32 {
    let Some(s) = Scratch::get() else { return 0 };
    let datapath = s.datapath.get();
    let (inport, outport) = (s.word[usize::from(INPORT)].get(), s.word[usize::from(OUTPORT)].get());
    // SAFETY: no memory is passed.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let Some(pace) = OX_PACE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a per-CPU value: nobody else writes it.
    let pace = unsafe { &mut *pace };
    if !dry() {
        let Some(listen) = OX_LISTEN.get(0) else { return 0 };
        if kind & 0xff == SEEN_DROP && listen.reasons >> (what & 63) & 1 == 0 {
            return 0;
        }
        let leaves = kind & 0xff == SEEN_DELIVER && what == listen.device;
        let is_port = listen.port == 0 || listen.port == inport || listen.port == outport || leaves;
        if listen.datapath != 0 && (listen.datapath != datapath || !is_port) {
            return 0;
        }
        if now.wrapping_sub(pace.start) >= TENTH {
            pace.start = now;
            pace.told = 0;
        }
        if pace.told >= u64::from(listen.pace) {
            pace.lost += 1;
            return 0;
        }
        pace.told += 1;
    }
    let Some(mut entry) = OX_MONITOR.reserve::<Seen>(0) else {
        pace.lost += 1;
        return 0;
    };
    let whole = skb::len(skb);
    let len = if whole > at { whole - at } else { 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record has the type's size; every field is written before it is submitted. What is read into `head` is at least one
    // byte and at most all of it.
    unsafe {
        (*record).kind = kind;
        (*record).what = what;
        (*record).lflow = lflow;
        (*record).datapath = datapath;
        (*record).inport = inport;
        (*record).outport = outport;
        (*record).len = len;
        (*record).at = now;
        let want = if len > SEEN_HEAD as u32 { SEEN_HEAD as u32 } else { len };
        let size = masked::<{ SEEN_HEAD as i32 - 1 }>(want.wrapping_sub(1)) as u32 + 1;
        let read = bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*record).head).cast(), size);
        (*record).head_len = if read == 0 && want != 0 { want } else { 0 };
    }
    entry.submit(0);
    0
}
