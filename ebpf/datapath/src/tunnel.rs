//! Tunnels, made and removed in the buffer.
//!
//! An IP frame gets its room by `bpf_skb_adjust_room`, which keeps segmentation offload right; it grows the space between the Ethernet header and what
//! follows, so the inner Ethernet header is written anew. Anything else gets it in front by `bpf_skb_change_head`.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{
        bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail,
        bpf_skb_store_bytes,
    },
};
use oxbow_abi::{
    reason::Reason,
    stats::{EVENT_NEXT_HOP, NextHopEvent, total},
    topology::{CHASSIS_CSUM, CHASSIS_DF, CHASSIS_RESOLVED, CHASSIS_TOS_INHERIT, CHASSIS_VXLAN, Chassis},
};
use oxbow_wire::{
    frame::{Frame, be16},
    parse::{ETH_IPV4, ETH_IPV6},
    tunnel::{Inner, OUTER, outer_len, put_bytes, put16, put32, write},
};

use crate::{
    count, csum, limit,
    maps::{OX_CHASSIS, OX_EVENTS},
    scratch::{Scratch, masked},
    skb::{self, Buffer, Context},
    walk::{decode, encode},
    writeback,
};

/// Does `bpf_skb_adjust_room` know the DECAP_L3 flags (6.3)? Without them a super-packet whose outer and inner families differ loses its segmentation. Set by
/// the loader (`EbpfLoader::override_global`), which probes the kernel.
#[unsafe(no_mangle)]
pub static OX_DECAP_L3: u32 = 0;

/// Keeps the segment size when room is made or removed.
pub const FIXED_GSO: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
/// Bit of a limiter's key: events about a chassis' next hop.
const NEXT_HOP: u64 = 1 << 62;

/// Encapsulates and sends the frame that the fast path has a verdict for.
#[inline(always)]
pub fn send(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let (chassis, vni, option) = (s.send_chassis.get(), s.datapath.get(), s.send_option.get());
    s.encapsulated.set(0);
    s.stripped.set(0);
    let ifindex = decode(ox_encapsulate(skb, chassis, vni, option))?;
    count::totals(total::TUNNEL_TX, skb::len(skb));
    Ok(skb::redirect(ifindex as u32))
}

/// Puts the outer headers in front of the frame, or replaces those that a copy left there; the result is the device to leave by.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_encapsulate(skb: Context, chassis: u32, vni: u32, option: u32) -> i32 {
    encode(encapsulate(skb, chassis, vni, option))
}

#[inline(always)]
fn encapsulate(skb: Context, index: u32, vni: u32, option: u32) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    // User space rewrites an entry in place, word by word: a frame that is encapsulated meanwhile may carry the old next hop with the new address,
    // and is lost on the underlay. The entry's guard does not help; the window is one update.
    let chassis = OX_CHASSIS.get(index).ok_or(Reason::Inconsistent)?;
    if chassis.flags & CHASSIS_RESOLVED == 0 {
        ask(index);
        return Err(Reason::NextHopUnresolved);
    }
    let outer = outer_len(chassis);
    let there = s.encapsulated.get();
    if there == outer {
        return again(skb, s, chassis, index, vni, option);
    }
    if there != 0 && there < outer {
        // Longer headers in place of shorter ones: the rest is only more room in front.
        // SAFETY: valid context.
        if unsafe { bpf_skb_change_head(skb, outer - there, 0) } != 0 {
            return Err(Reason::Rewrite);
        }
        s.encapsulated.set(outer);
        return again(skb, s, chassis, index, vni, option);
    }
    if there != 0 {
        restore(skb, s)?;
    }
    let tags = take_tags(skb, s)?;
    let extra = tags * 4;
    let len = skb::len(skb) + extra;
    fits(skb, chassis, len + outer)?;
    s.enc_tags.set(tags);
    let at = decode(ox_build(skb, index, vni, option))?;
    decode(ox_build_inner(skb, at as u32))?;
    let room = outer + extra;
    let protocol = skb::protocol(skb);
    // The kernel marks a frame as encapsulated once and for all; a second time it gets its room in front, as what is not IP does.
    let marked = s.stripped.get() != 0;
    let made = if !marked && (protocol == ETH_IPV4 || protocol == ETH_IPV6) {
        let l3 = if chassis.remote.family == 6 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 };
        let flags = FIXED_GSO
            | u64::from(l3 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
            | u64::from(14 + extra) << 56;
        // SAFETY: valid context.
        unsafe { bpf_skb_adjust_room(skb, room as i32, BPF_ADJ_ROOM_MAC, flags) }
    } else {
        // SAFETY: valid context.
        unsafe { bpf_skb_change_head(skb, room, 0) }
    };
    if made != 0 {
        return Err(Reason::Rewrite);
    }
    store_outer(skb, s, outer + 14 + extra)?;
    s.encapsulated.set(outer);
    finish(skb, chassis)
}

/// Builds the outer headers in the slot; the result is their length.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_build(skb: Context, chassis: u32, vni: u32, option: u32) -> i32 {
    encode(build(skb, chassis, vni, option))
}

#[inline(always)]
fn build(skb: Context, index: u32, vni: u32, option: u32) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let chassis = OX_CHASSIS.get(index).ok_or(Reason::Inconsistent)?;
    let tags = s.enc_tags.get();
    let port = source_port(skb);
    s.enc_port.set(u32::from(port));
    let inner =
        Inner { len: skb::len(skb) + tags * 4, vni, option, port, tos: tos(skb, chassis), id: identification(chassis) };
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive.
    Ok(write(unsafe { &mut *s.outer.as_ptr() }, chassis, &inner) as i32)
}

/// Builds the inner Ethernet header with its tags behind the outer headers in the slot, at offset `at`. Apart from [`ox_build`] for the stack's sake:
/// the deepest chain of calls ends there, and 6.1 counts every frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_build_inner(skb: Context, at: u32) -> i32 {
    encode(build_inner(skb, at))
}

#[inline(always)]
fn build_inner(skb: Context, at: u32) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let tags = s.enc_tags.get();
    let mac = Buffer(skb).load::<12>(0).ok_or(Reason::Truncated)?;
    let [t0, t1] = Buffer(skb).load::<2>(12).ok_or(Reason::Truncated)?;
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive.
    let out = unsafe { &mut *s.outer.as_ptr() };
    let at = masked::<127>(at);
    put_bytes(out, at, &mac);
    let eth_type = be16(t0, t1);
    // A tag: its type, then its TCI, then the type of what was tagged.
    let tag = |n: usize| s.enc_tag[n].get();
    match tags {
        0 => put16(out, at + 12, eth_type),
        1 => {
            put32(out, at + 12, tag(0));
            put16(out, at + 16, eth_type);
        }
        _ => {
            put32(out, at + 12, tag(0));
            put32(out, at + 16, tag(1));
            put16(out, at + 20, eth_type);
        }
    }
    Ok(0)
}

/// Another copy of an encapsulated frame: only the outer headers change.
#[inline(always)]
fn again(skb: Context, s: &Scratch, chassis: &Chassis, index: u32, vni: u32, option: u32) -> Result<i32, Reason> {
    fits(skb, chassis, skb::len(skb))?;
    decode(ox_rebuild(skb, index, vni, option))?;
    store_outer(skb, s, outer_len(chassis))?;
    finish(skb, chassis)
}

/// Builds the outer headers of another copy in the slot.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_rebuild(skb: Context, chassis: u32, vni: u32, option: u32) -> i32 {
    encode(rebuild(skb, chassis, vni, option))
}

#[inline(always)]
fn rebuild(skb: Context, index: u32, vni: u32, option: u32) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let chassis = OX_CHASSIS.get(index).ok_or(Reason::Inconsistent)?;
    let outer = outer_len(chassis);
    let [t0, t1] = Buffer(skb).load::<2>(outer + 12).ok_or(Reason::Rewrite)?;
    let tos = if chassis.flags & CHASSIS_TOS_INHERIT == 0 { None } else { inner_tos(skb, outer, be16(t0, t1)) };
    let inner = Inner {
        len: skb::len(skb) - outer,
        vni,
        option,
        port: s.enc_port.get() as u16,
        tos: tos.unwrap_or(chassis.tos as u8),
        id: identification(chassis),
    };
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive.
    write(unsafe { &mut *s.outer.as_ptr() }, chassis, &inner);
    Ok(0)
}

#[inline(always)]
fn finish(skb: Context, chassis: &Chassis) -> Result<i32, Reason> {
    if chassis.flags & CHASSIS_CSUM != 0 && skb::gso_size(skb) == 0 {
        decode(csum::ox_outer_checksum(skb, chassis.remote.family))?;
    }
    Ok((chassis.ifindex & 0x7fff_ffff) as i32)
}

/// Stores the first `len` bytes of the built headers.
#[inline(always)]
fn store_outer(skb: Context, s: &Scratch, len: u32) -> Result<(), Reason> {
    // At least one byte, at most the buffer: provable for every kernel.
    let len = masked::<{ OUTER as i32 - 1 }>(len - 1) + 1;
    // SAFETY: `len` bytes are inside the buffer; the helper checks them against the packet.
    if unsafe { bpf_skb_store_bytes(skb.cast(), 0, s.outer.as_ptr().cast(), len as u32, 0) } == 0 {
        Ok(())
    } else {
        Err(Reason::Rewrite)
    }
}

/// Moves tags that are outside the payload into the slot; they go into the inner header. How many there were.
#[inline(always)]
fn take_tags(skb: Context, s: &Scratch) -> Result<u32, Reason> {
    let outer = skb::whole_tag(skb);
    s.enc_tag[0].set(outer);
    s.enc_tag[1].set(0);
    if outer == 0 {
        return Ok(0);
    }
    if let Err(reason) = skb::pop_vlan(skb) {
        // The first tag is off all the same; what follows it is cut short.
        skb::push_whole_tag(skb, outer)?;
        return Err(reason);
    }
    // The stack moved a second tag to where the first one was.
    let inner = skb::whole_tag(skb);
    s.enc_tag[1].set(inner);
    if inner == 0 {
        return Ok(1);
    }
    let taken = skb::pop_vlan(skb);
    if taken.is_ok() && skb::tag(skb) == 0 {
        return Ok(2);
    }
    // A third one, or what only looks like one. The copies to come find the frame as this one did.
    skb::push_whole_tag(skb, inner)?;
    skb::push_whole_tag(skb, outer)?;
    Err(Reason::Rewrite)
}

/// Does the encapsulated frame of this length fit the underlay? Of a super-packet, does a segment?
#[inline(always)]
fn fits(skb: Context, chassis: &Chassis, len: u32) -> Result<(), Reason> {
    if len - 14 <= chassis.mtu {
        return Ok(());
    }
    let segment = skb::gso_size(skb);
    if segment == 0 {
        return Err(Reason::TooBig);
    }
    // Headers of a segment: outer, Ethernet, IP and TCP at its shortest with timestamps (32) or UDP.
    let headers = outer_len(chassis) + if skb::protocol(skb) == ETH_IPV6 { 40 } else { 20 } + 32;
    if segment + headers <= chassis.mtu { Ok(()) } else { Err(Reason::TooBig) }
}

/// Entropy of the flow for the underlay's load balancing, in the range for ephemeral ports.
#[inline(always)]
fn source_port(skb: Context) -> u16 {
    // SAFETY: valid context.
    let hash = unsafe { bpf_get_hash_recalc(skb) };
    ((hash ^ hash >> 16) & 0x7fff | 0x8000) as u16
}

/// Identification: needed only where the underlay may fragment.
#[inline(always)]
fn identification(chassis: &Chassis) -> u16 {
    if chassis.flags & CHASSIS_DF != 0 || chassis.remote.family == 6 {
        return 0;
    }
    // SAFETY: no memory is passed.
    unsafe { bpf_get_prandom_u32() as u16 }
}

#[inline(always)]
fn tos(skb: Context, chassis: &Chassis) -> u8 {
    if chassis.flags & CHASSIS_TOS_INHERIT == 0 {
        return chassis.tos as u8;
    }
    inner_tos(skb, 0, skb::protocol(skb)).unwrap_or(chassis.tos as u8)
}

/// TOS or traffic class of the IP header behind the Ethernet header at `base`.
#[inline(always)]
fn inner_tos(skb: Context, base: u32, eth_type: u32) -> Option<u8> {
    let [a, b] = Buffer(skb).load::<2>(base + 14)?;
    match eth_type {
        ETH_IPV4 => Some(b),
        ETH_IPV6 => Some(a << 4 | b >> 4),
        _ => None,
    }
}

/// Asks user space to resolve the next hop towards a chassis, once a second.
#[inline(always)]
fn ask(chassis: u32) {
    if !limit::take(NEXT_HOP, 0, chassis, 1, 1) {
        return;
    }
    match OX_EVENTS.reserve::<NextHopEvent>(0) {
        Some(mut event) => {
            event.write(NextHopEvent { kind: EVENT_NEXT_HOP, chassis });
            event.submit(0);
        }
        None => count::totals(total::EVENT_LOST, 0),
    }
}

/// Takes `bytes` of outer headers off: the frame at that offset becomes the frame.
#[inline(always)]
pub fn strip(skb: Context, bytes: u32) -> Result<(), Reason> {
    decode(ox_strip(skb, bytes)).map(|_| ())
}

/// See [`strip`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_strip(skb: Context, bytes: u32) -> i32 {
    encode(strip_outer(skb, bytes))
}

#[inline(always)]
fn strip_outer(skb: Context, bytes: u32) -> Result<i32, Reason> {
    let ether = Buffer(skb).load::<14>(bytes).ok_or(Reason::Truncated)?;
    let mut flags = FIXED_GSO;
    let mut least = if skb::protocol(skb) == ETH_IPV6 { 40 } else { 20 };
    // SAFETY: a read-only word that the loader set.
    if unsafe { (&raw const OX_DECAP_L3).read_volatile() } != 0 {
        match be16(ether[12], ether[13]) {
            ETH_IPV4 => {
                flags |= u64::from(BPF_F_ADJ_ROOM_DECAP_L3_IPV4);
                least = 20;
            }
            ETH_IPV6 => {
                flags |= u64::from(BPF_F_ADJ_ROOM_DECAP_L3_IPV6);
                least = 40;
            }
            _ => {}
        }
    }
    // The kernel wants an IP header's worth of bytes to remain behind the Ethernet header; a frame that is shorter is padded to Ethernet's minimum.
    if skb::len(skb).wrapping_sub(bytes + 14) < least {
        // SAFETY: valid context; the helper checks the length.
        if unsafe { bpf_skb_change_tail(skb, bytes + 60, 0) } != 0 {
            return Err(Reason::Rewrite);
        }
    }
    // SAFETY: valid context; the helper checks the length.
    if unsafe { bpf_skb_adjust_room(skb, -(bytes as i32), BPF_ADJ_ROOM_MAC, flags) } != 0 {
        return Err(Reason::Rewrite);
    }
    skb::store(skb, 0, &ether)?;
    Ok(0)
}

/// Rank of a chassis by the length of its outer headers, from 1: copies of one frame are made in this order, so that headers only grow.
#[inline(always)]
pub fn rank(chassis: &Chassis) -> u32 {
    let geneve = u32::from(chassis.flags & CHASSIS_VXLAN == 0);
    if chassis.remote.family == 6 { 3 + geneve } else { 1 + geneve }
}

/// Makes the buffer hold the bare frame again after copies of it were tunnelled.
#[inline(always)]
pub fn restore(skb: Context, s: &Scratch) -> Result<(), Reason> {
    decode(ox_restore(skb)).map(|_| s.encapsulated.set(0))
}

/// See [`restore`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_restore(skb: Context) -> i32 {
    encode(restore_frame(skb))
}

#[inline(always)]
fn restore_frame(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let protocol = skb::protocol(skb);
    if s.stripped.get() != 0 || protocol != ETH_IPV4 && protocol != ETH_IPV6 {
        // What got its room in front keeps its network header where it was, and the kernel would cut there. Groups are walked so that this does
        // not happen; operations behind an `output` to another chassis may meet it.
        return Err(Reason::Rewrite);
    }
    s.stripped.set(1);
    strip(skb, s.encapsulated.get())?;
    // Tags go back to where they were: outside the payload.
    for n in 0..2 {
        if s.enc_tag[n].get() != 0 {
            writeback::pop_payload(skb)?;
        }
    }
    for n in [1, 0] {
        if s.enc_tag[n].get() != 0 {
            skb::push_whole_tag(skb, s.enc_tag[n].get())?;
        }
    }
    Ok(0)
}
