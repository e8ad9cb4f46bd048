//! TC ingress of an underlay device: Geneve to one of our addresses from a known chassis is ours, everything else is the host's.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use oxbow_abi::{
    monitor::STATE_TELL_FORWARDED,
    field::{FLAGS, INPORT, OUTPORT, flag},
    reason::Reason,
    stats::total,
    verdict::KEY_TUNNEL,
};
use oxbow_wire::{key, tunnel as outer};

use crate::{
    cache, count,
    maps::{OX_PEERS, OX_STATE},
    scratch::Scratch,
    skb::{self, Buffer, Context, Direct},
    tunnel,
    vif::{WALK, clear},
    walk::{self, decode, encode},
};

/// Bytes of outer headers wanted in linear memory: Ethernet, IPv4 and UDP.
const OUTER_IPV4: u32 = 14 + 20 + 8;
/// The same of anything else: Ethernet, IPv6 and UDP.
const OUTER: u32 = 14 + 40 + 8;
/// From where Geneve begins: it with its option, inner Ethernet, IPv4 and ports.
const INNER_IPV4: u32 = 16 + 14 + 20 + 4;
/// The same of anything else: Geneve with its option, inner Ethernet with a tag, IPv6 and ports.
const INNER: u32 = 16 + 14 + 4 + 40 + 4;

/// What the fast path returns for a frame that is the host's; no action of the kernel's has this number.
const PASS: i32 = 257;

/// Handles one frame.
#[inline(always)]
pub fn receive(skb: Context) -> i32 {
    let mut result = ox_underlay_fast(skb);
    if result == PASS {
        // Other programs on the device, and then the host.
        return TC_ACT_UNSPEC;
    }
    if result == WALK {
        result = walk::ox_walk(skb);
    }
    let outcome = if result == cache::SEND { tunnel::send(skb) } else { decode(result) };
    match outcome {
        Ok(action) => action,
        Err(reason) => count::rejected(skb, reason, Scratch::get().map_or(0, |s| s.base.get())),
    }
}

/// The fast path: a function of its own, so that its stack is free again when the frame walks.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_underlay_fast(skb: Context) -> i32 {
    encode(try_receive(skb))
}

/// Reads a Geneve header that has more than OVN's option.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_geneve(skb: Context, at: u32) -> i32 {
    let Some(s) = Scratch::get() else { return -(Reason::Inconsistent as i32) };
    match outer::geneve(&Buffer(skb), at) {
        Ok(header) => {
            s.datapath.set(header.vni);
            s.send_option.set(header.option);
            s.base.set(header.inner);
            0
        }
        Err(reason) => -(reason as i32),
    }
}

#[inline(always)]
fn try_receive(skb: Context) -> Result<i32, Reason> {
    let frame = Direct::for_ip(skb, 12, OUTER_IPV4, OUTER);
    let pass = || {
        count::totals(total::UNDERLAY_PASS, skb::len(skb));
        Ok(PASS)
    };
    if skb::tag(skb) != 0 {
        return pass();
    }
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive; a `PeerKey` is ten words (asserted in `wire`).
    let peer = unsafe { &mut *s.peer.as_ptr().cast::<outer::Peer>() };
    let Some(header) = outer::path(&frame, peer) else { return pass() };
    s.datapath.set(0);
    s.word[usize::from(INPORT)].set(0);
    s.word[usize::from(OUTPORT)].set(0);
    s.reason_lflow.set(0);
    if OX_PEERS.get_ptr(s.peer_key()).is_none() {
        outer::anybody(peer);
        s.base.set(0);
        return if OX_PEERS.get_ptr(s.peer_key()).is_some() { Err(Reason::UnknownPeer) } else { pass() };
    }
    let state = OX_STATE.get_ptr(0).ok_or(Reason::NoPolicy)?;
    // SAFETY: an aligned word that user space writes whole; the one read decides for the whole packet.
    let version = unsafe { (&raw const (*state).version).read_volatile() };
    if version == 0 {
        s.base.set(0);
        return Err(Reason::NoPolicy);
    }
    // SAFETY: as above; read before the guards, which are raised before it.
    let epoch = unsafe { (&raw const (*state).epoch).read_volatile() };
    // SAFETY: as above; whoever begins to listen is told from some packet on.
    let told = unsafe { (&raw const (*state).flags).read_volatile() } & STATE_TELL_FORWARDED != 0;
    let frame = Direct::for_ip(skb, header + 16 + 12, header + INNER_IPV4, header + INNER);
    let geneve = match outer::plain(&frame, header) {
        Some(geneve) => geneve,
        None => {
            s.base.set(0);
            decode(ox_geneve(skb, header))?;
            outer::Geneve { vni: s.datapath.get(), option: s.send_option.get(), inner: s.base.get() }
        }
    };
    count::totals(total::TUNNEL_RX, skb::len(skb));
    let (inport, outport) = (geneve.option >> 16, geneve.option & 0xffff);
    s.datapath.set(geneve.vni);
    let key = s.new_key(geneve.vni | KEY_TUNNEL, inport | outport << 16);
    let quick = key::of_frame(&frame, geneve.inner, 0, key);
    if quick.is_some() {
        if let Some(result) = cache::forward(skb, s, &frame, geneve.inner, epoch, told) {
            return result;
        }
        if let Some(denial) = cache::deny(skb, s) {
            s.reason_lflow.set(denial.lflow);
            s.denied_hit.set(1);
            s.base.set(geneve.inner);
            s.word[usize::from(INPORT)].set(inport);
            s.word[usize::from(OUTPORT)].set(outport);
            return Err(denial.reason);
        }
    }
    clear(s);
    s.word[usize::from(INPORT)].set(inport);
    s.word[usize::from(OUTPORT)].set(outport);
    s.word[usize::from(FLAGS)].set(1 << flag::TUNNEL_RX);
    s.version.set(version);
    s.base.set(geneve.inner);
    s.tunnelled.set(1);
    s.nested.set(0);
    s.cacheable.set(u32::from(quick.is_some()));
    Ok(WALK)
}
