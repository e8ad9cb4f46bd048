//! TC ingress of a VIF: the fast path, and the way into the walk.

use oxbow_abi::{
    monitor::STATE_TELL_FORWARDED,
    field::{ETH_DST, INPORT, IP6_LABEL, OUTPORT, WORDS, flag},
    reason::Reason,
    stats::total,
    topology::{VIF_HAS_NESTED, VIF_LOCALPORT, Vif, VifKey},
};
use oxbow_wire::key;

use crate::{
    cache, count,
    maps::{OX_STATE, OX_VIF_CACHE, OX_VIFS},
    scratch::Scratch,
    skb::{self, Context, Direct},
    tunnel,
    walk::{self, decode, encode},
};

/// Bytes of headers that the fast path wants in linear memory: Ethernet, IPv4, ports.
const HEADERS_IPV4: u32 = 14 + 20 + 4;
/// The same for anything else: Ethernet, a tag, IPv6, ports.
const HEADERS: u32 = 14 + 4 + 40 + 4;

/// Entries of `OX_VIF_CACHE`.
pub const KNOWN_VIFS: u32 = 1024;

/// A device's own port, as this CPU found it.
#[repr(C)]
pub struct KnownVif {
    /// Interface index; 0 = nothing yet.
    ifindex: u32,
    /// [`oxbow_abi::stats::State::vifs`] when it was looked up, read before the entry.
    generation: u32,
    /// The entry.
    vif: Vif,
}

/// What a fast path returns when the frame has to walk; no action of the kernel's has this number.
pub const WALK: i32 = 256;

/// Handles one frame.
#[inline(always)]
pub fn receive(skb: Context) -> i32 {
    let mut result = ox_vif_fast(skb);
    if result == WALK {
        result = walk::ox_walk(skb);
    }
    let outcome = if result == cache::SEND { tunnel::send(skb) } else { decode(result) };
    match outcome {
        Ok(action) => action,
        Err(reason) => count::rejected(skb, reason, 0),
    }
}

/// The fast path: a function of its own, so that its stack is free again when the frame walks.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_vif_fast(skb: Context) -> i32 {
    encode(try_receive(skb))
}

#[inline(always)]
fn try_receive(skb: Context) -> Result<i32, Reason> {
    count::totals(total::VIF_RX, skb::len(skb));
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    s.datapath.set(0);
    s.word[usize::from(INPORT)].set(0);
    s.word[usize::from(OUTPORT)].set(0);
    s.reason_lflow.set(0);
    let state = OX_STATE.get_ptr(0).ok_or(Reason::NoPolicy)?;
    // SAFETY: an aligned word that user space writes whole; the one read decides for the whole packet.
    let version = unsafe { (&raw const (*state).version).read_volatile() };
    if version == 0 {
        return Err(Reason::NoPolicy);
    }
    // SAFETY: as above; read before the guards, which are raised before it.
    let epoch = unsafe { (&raw const (*state).epoch).read_volatile() };
    // SAFETY: as above; whoever begins to listen is told from some packet on.
    let told = unsafe { (&raw const (*state).flags).read_volatile() } & STATE_TELL_FORWARDED != 0;
    let frame = Direct::for_ip(skb, 12, HEADERS_IPV4, HEADERS);
    let mut tag = skb::tag(skb);
    let ifindex = skb::ifindex(skb);
    // SAFETY: an aligned word that user space writes whole, after what it stands for.
    let generation = unsafe { (&raw const (*state).vifs).read_volatile() };
    let mut vif = device(ifindex, generation).ok_or(Reason::NotProgrammed)?;
    let mut nested = 0;
    if vif.flags & VIF_HAS_NESTED != 0 {
        let outermost = if tag != 0 { tag } else { payload_tag(&frame) };
        if outermost != 0
            && let Some(inner) = lookup(ifindex, outermost & 0xfff)
        {
            vif = inner;
            nested = outermost;
            tag = 0;
        }
    }
    s.datapath.set(vif.datapath);
    s.word[usize::from(INPORT)].set(vif.port);
    let key = s.new_key(vif.datapath, vif.port);
    // A nested frame whose tag is still in the payload has its headers elsewhere: it walks. (The stack takes it out on real devices.)
    let quick = if nested != 0 && skb::tag(skb) == 0 { None } else { key::of_frame(&frame, 0, tag, key) };
    if quick.is_some() {
        if let Some(result) = cache::forward(skb, s, &frame, 0, epoch, told) {
            return result;
        }
        if let Some(denial) = cache::deny(skb, s) {
            s.reason_lflow.set(denial.lflow);
            s.denied_hit.set(1);
            return Err(denial.reason);
        }
    }
    let flags = if vif.flags & VIF_LOCALPORT != 0 { 1 << flag::LOCAL_ONLY | 1 << flag::LOCALPORT } else { 0 };
    clear(s);
    s.word[usize::from(INPORT)].set(vif.port);
    s.word[usize::from(oxbow_abi::field::FLAGS)].set(flags);
    s.version.set(version);
    s.base.set(0);
    s.tunnelled.set(0);
    s.nested.set(nested);
    s.cacheable.set(u32::from(quick.is_some()));
    s.rest_on(vif.guard);
    Ok(WALK)
}

/// Makes the slot ready for a walk, but for the header fields, which the parser sets.
#[inline(always)]
pub fn clear(s: &Scratch) {
    let mut word = 0;
    while word < WORDS {
        if word < usize::from(ETH_DST) || word > usize::from(IP6_LABEL) {
            s.word[word].set(0);
        }
        word += 1;
    }
    s.guards.set(0);
    s.fdb[0].set(0);
    s.fdb[1].set(0);
    s.path_len.set(0);
}

/// The programmed port of a device: from this CPU's cache if nothing has changed since.
#[inline(always)]
fn device(ifindex: u32, generation: u32) -> Option<Vif> {
    let known = OX_VIF_CACHE.get_ptr_mut(ifindex & (KNOWN_VIFS - 1))?;
    // SAFETY: a per-CPU value: nobody else touches it.
    let known = unsafe { &mut *known };
    if known.ifindex == ifindex && known.generation == generation {
        return Some(known.vif);
    }
    let vif = lookup(ifindex, 0)?;
    *known = KnownVif { ifindex, generation, vif };
    Some(vif)
}

/// The programmed port of a device and VLAN. A copy: the entry may be replaced while the packet is on its way.
#[inline(always)]
fn lookup(ifindex: u32, vlan: u32) -> Option<Vif> {
    let key = VifKey { ifindex, vlan };
    // SAFETY: map memory stays mapped while this runs and any bytes are a value; that it may become another key's is in DESIGN.md, Races.
    unsafe { OX_VIFS.get(&key) }.copied()
}

/// The tag in the payload, with the present bit; only frames that did not come through a device (BPF_PROG_TEST_RUN) have their first one there.
#[inline(always)]
fn payload_tag(frame: &Direct) -> u32 {
    use oxbow_wire::frame::{Frame, be16, is_vlan};
    match frame.load::<4>(12) {
        Some([t0, t1, c0, c1]) if is_vlan(be16(t0, t1)) => be16(c0, c1) | oxbow_abi::field::VLAN_PRESENT,
        _ => 0,
    }
}
