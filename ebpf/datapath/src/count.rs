//! Counting: every exit is counted, per reason; drops and walked packets also per logical flow.

use aya_ebpf::{bindings::TC_ACT_SHOT, helpers::bpf_skb_load_bytes};
use oxbow_abi::{
    field::INPORT,
    reason::Reason,
    stats::{Counter, DropEvent, EVENT_DROP, STATE_DROP_EVENTS, total},
};

use crate::{
    maps::{OX_DROPS, OX_EVENTS, OX_LFLOWS, OX_STATE, OX_TOTALS},
    scratch::Scratch,
    seen,
    skb::{self, Context},
};

/// Adds one packet to a counter of this CPU.
#[inline(always)]
fn add(counter: Option<*mut Counter>, bytes: u32) {
    if let Some(counter) = counter {
        // SAFETY: a per-CPU value: nobody else writes it. User space may read the two words apart; it sees one packet without its bytes at worst.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// Counts a packet in `OX_TOTALS`.
#[inline(always)]
pub fn totals(index: u32, bytes: u32) {
    add(OX_TOTALS.get_ptr_mut(index), bytes);
}

/// Counts a packet for a logical flow; 0 = none.
#[inline(always)]
pub fn lflow(index: u32, bytes: u32) {
    if index != 0 {
        add(OX_LFLOWS.get_ptr_mut(index), bytes);
    }
}

/// Counts a drop of the frame at `at` in the buffer.
#[inline(always)]
pub fn dropped(skb: Context, reason: Reason, lflow: u32, at: u32) -> i32 {
    ox_dropped(skb, reason as u32, lflow, at)
}

/// See [`dropped`]: the one place where a reason becomes an action. A function of its own, because what it needs of the stack would be missing at the end of
/// the longest chain of calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_dropped(skb: Context, reason: u32, lflow: u32, at: u32) -> i32 {
    add(OX_DROPS.get_ptr_mut(reason), skb::len(skb));
    let Some(s) = Scratch::get() else { return TC_ACT_SHOT as i32 };
    let (datapath, inport) = (s.datapath.get(), s.word[usize::from(INPORT)].get());
    #[cfg(feature = "debug-log")]
    ox_log(reason, datapath, inport, lflow);
    if let Some(state) = OX_STATE.get(0)
        && state.flags & STATE_DROP_EVENTS != 0
    {
        ox_event(skb, reason, lflow, datapath, inport);
    }
    let cached = s.denied_hit.get() != 0;
    s.denied_hit.set(0);
    seen::dropped(skb, reason, lflow, at, cached);
    TC_ACT_SHOT as i32
}

/// Says why a packet was dropped. A function of its own: the verifier would follow the formatting at every place that drops.
#[cfg(feature = "debug-log")]
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_log(reason: u32, datapath: u32, inport: u32, lflow: u32) -> i32 {
    aya_log_ebpf::info!(
        &aya_ebpf::programs::TcContext::new(core::ptr::null_mut()),
        "drop for reason {}: datapath {}, inport {}, logical flow {}",
        reason,
        datapath,
        inport,
        lflow
    );
    0
}

/// Counts the drop of a frame before, or instead of, its walk; the slot says where it came from. The frame is at `at` in the buffer.
#[inline(always)]
pub fn rejected(skb: Context, reason: Reason, at: u32) -> i32 {
    dropped(skb, reason, Scratch::get().map_or(0, |s| s.reason_lflow.get()), at)
}

/// Tells user space about a drop. A full ring loses the event and counts that. A function of its own: its stack would be that of everything that
/// drops.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_event(skb: Context, reason: u32, lflow: u32, datapath: u32, inport: u32) -> i32 {
    let len = skb::len(skb);
    let Some(mut entry) = OX_EVENTS.reserve::<DropEvent>(0) else {
        totals(total::EVENT_LOST, len);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record has the type's size; every field is written before it is submitted.
    unsafe {
        (*record).kind = EVENT_DROP;
        (*record).reason = reason;
        (*record).lflow = lflow;
        (*record).datapath = datapath;
        (*record).inport = inport;
        (*record).len = len;
        (*record).head = [0; 64];
        let head = (&raw mut (*record).head).cast();
        if len >= 64 {
            bpf_skb_load_bytes(skb.cast(), 0, head, 64);
        } else if len >= 14 {
            bpf_skb_load_bytes(skb.cast(), 0, head, 14);
        }
    }
    entry.submit(0);
    0
}
