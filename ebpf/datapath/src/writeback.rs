//! Write-back: makes the packet in the buffer what the vector says, once, when it leaves. Only what differs is touched.
//!
//! Checksums are changed by differences, never recomputed: a packet of a local sender carries only the sum of its pseudo-header (CHECKSUM_PARTIAL), and the
//! helpers know that; address changes are marked as pseudo-header ones, others are not.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room},
};
use oxbow_abi::{
    field::{
        ARP_OP, ETH_DST, ETH_SRC, ETH_TYPE, HW_DST, HW_SRC, IP_DST, IP_META, IP_SRC, IP6_LABEL, L4, ND_TARGET,
        VLAN_PRESENT,
    },
    reason::Reason,
};
use oxbow_wire::{
    frame::{Frame, is_vlan},
    parse::{ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_RARP, ICMP, ICMP6, Layout, SCTP, TCP, UDP},
};

use crate::{
    advert,
    scratch::{Scratch, copy_headers},
    skb::{self, Buffer, Context},
    tunnel,
    walk::encode,
};

/// Does anything of the packet differ from the vector?
#[inline(always)]
pub fn pending() -> bool {
    ox_pending() != 0
}

/// See [`pending`]. (The compiler unrolls it with every difference in a register or on the stack: so it has its own.)
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_pending() -> i32 {
    let Some(s) = Scratch::get() else { return 0 };
    let mut word = usize::from(ETH_DST);
    let mut different = s.advert.get();
    while word <= usize::from(IP6_LABEL) {
        different |= s.word[word].get() ^ s.packet[word].get();
        word += 1;
    }
    i32::from(different != 0)
}

/// See the module.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_write_back(skb: Context) -> i32 {
    encode(write_back(skb))
}

#[inline(always)]
fn write_back(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let base = s.base.get();
    if base != 0 {
        tunnel::strip(skb, base)?;
        s.base.set(0);
        s.layout.set(shifted(s.layout.get(), base));
    }
    if s.encapsulated.get() != 0 {
        tunnel::restore(skb, s)?;
    }
    if !pending() {
        return Ok(0);
    }
    if changed(s, ETH_DST, 4) {
        let [_, _, a, b] = now(s, ETH_DST).to_be_bytes();
        let [c, d, e, f] = now(s, ETH_DST + 1).to_be_bytes();
        let [_, _, g, h] = now(s, ETH_SRC).to_be_bytes();
        let [i, j, k, l] = now(s, ETH_SRC + 1).to_be_bytes();
        skb::store(skb, 0, &[a, b, c, d, e, f, g, h, i, j, k, l])?;
    }
    if s.advert.get() != 0 {
        crate::walk::decode(advert::ox_advert(skb))?;
        s.advert.set(0);
    } else {
        crate::walk::decode(ox_write_headers(skb))?;
    }
    crate::walk::decode(ox_retag(skb))?;
    copy_headers(&s.packet, &s.word);
    Ok(0)
}

/// Network and transport headers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_write_headers(skb: Context) -> i32 {
    encode(headers(skb))
}

#[inline(always)]
fn headers(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let layout = s.layout.get();
    match now(s, ETH_TYPE) & 0xffff {
        ETH_IPV4 => ipv4(skb, s, &layout)?,
        ETH_IPV6 => ipv6(skb, s, &layout)?,
        ETH_ARP | ETH_RARP => arp(skb, s, &layout)?,
        _ => {}
    }
    Ok(0)
}

#[inline(always)]
fn now(s: &Scratch, word: u8) -> u32 {
    s.word[usize::from(word)].get()
}

#[inline(always)]
fn before(s: &Scratch, word: u8) -> u32 {
    s.packet[usize::from(word)].get()
}

#[inline(always)]
fn changed(s: &Scratch, word: u8, count: u8) -> bool {
    let mut n = 0;
    let mut different = 0;
    while n < count {
        different |= now(s, word + n) ^ before(s, word + n);
        n += 1;
    }
    different != 0
}

/// Offsets after `bytes` in front of the frame are gone.
#[inline(always)]
fn shifted(l: Layout, bytes: u32) -> Layout {
    let less = |offset: u32| offset.saturating_sub(bytes);
    Layout { l3: less(l.l3), l4: less(l.l4), tags: l.tags, hw_src: less(l.hw_src), hw_dst: less(l.hw_dst) }
}

#[inline(always)]
fn arp(skb: Context, s: &Scratch, layout: &Layout) -> Result<(), Reason> {
    if layout.hw_src == 0 {
        return Ok(());
    }
    let [_, _, o0, o1] = now(s, ARP_OP).to_be_bytes();
    let [_, _, a, b] = now(s, HW_SRC).to_be_bytes();
    let [c, d, e, f] = now(s, HW_SRC + 1).to_be_bytes();
    let [s0, s1, s2, s3] = now(s, IP_SRC).to_be_bytes();
    let [_, _, g, h] = now(s, HW_DST).to_be_bytes();
    let [i, j, k, l] = now(s, HW_DST + 1).to_be_bytes();
    let [t0, t1, t2, t3] = now(s, IP_DST).to_be_bytes();
    // An operation beyond eight bits reads as zero and is left as it is.
    if changed(s, ARP_OP, 1) {
        skb::store(skb, layout.l3 + 6, &[o0, o1])?;
    }
    skb::store(skb, layout.l3 + 8, &[a, b, c, d, e, f, s0, s1, s2, s3, g, h, i, j, k, l, t0, t1, t2, t3])
}

/// Where the checksum of the transport header is; `None` = there is none that we can keep right.
#[inline(always)]
fn checksum_at(s: &Scratch, layout: &Layout) -> Option<u32> {
    if layout.l4 == 0 {
        return None;
    }
    match before(s, IP_META) >> 24 {
        TCP => Some(layout.l4 + 16),
        UDP => Some(layout.l4 + 6),
        ICMP | ICMP6 => Some(layout.l4 + 2),
        _ => None,
    }
}

/// Changes a transport checksum by a difference.
#[inline(always)]
fn fix(skb: Context, s: &Scratch, at: u32, from: u64, to: u64, flags: u64) -> Result<(), Reason> {
    // A UDP datagram without a checksum stays without.
    let udp = if before(s, IP_META) >> 24 == UDP { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
    // SAFETY: valid context; the helper checks the offset.
    if unsafe { bpf_l4_csum_replace(skb.cast(), at, from, to, flags | udp) } == 0 {
        Ok(())
    } else {
        Err(Reason::Rewrite)
    }
}

#[inline(always)]
fn ipv4(skb: Context, s: &Scratch, layout: &Layout) -> Result<(), Reason> {
    let l3 = layout.l3;
    let l4 = checksum_at(s, layout);
    // ICMP has no pseudo-header.
    let covers_addresses = before(s, IP_META) >> 24 != ICMP;
    for (word, at) in [(IP_SRC, 12), (IP_DST, 16)] {
        if changed(s, word, 1) {
            let (from, to) = (before(s, word).to_be(), now(s, word).to_be());
            if let Some(l4) = l4
                && covers_addresses
            {
                fix(skb, s, l4, u64::from(from), u64::from(to), u64::from(BPF_F_PSEUDO_HDR) | 4)?;
            }
            ip_checksum(skb, l3, u64::from(from), u64::from(to), 4)?;
            skb::store(skb, l3 + at, &to.to_ne_bytes())?;
        }
    }
    let (old, new) = (before(s, IP_META), now(s, IP_META));
    if (old ^ new) & 0x00ff_ff00 != 0 {
        let [_, tos0, ttl0, _] = old.to_be_bytes();
        let [_, tos, ttl, _] = new.to_be_bytes();
        let [first] = Buffer(skb).load::<1>(l3).ok_or(Reason::Rewrite)?;
        let [protocol] = Buffer(skb).load::<1>(l3 + 9).ok_or(Reason::Rewrite)?;
        let half = |a: u8, b: u8| u64::from(u16::from_ne_bytes([a, b]));
        ip_checksum(skb, l3, half(first, tos0), half(first, tos), 2)?;
        ip_checksum(skb, l3, half(ttl0, protocol), half(ttl, protocol), 2)?;
        skb::store(skb, l3 + 1, &[tos])?;
        skb::store(skb, l3 + 8, &[ttl])?;
    }
    ports(skb, s, layout)
}

/// Changes the IPv4 header checksum by a difference.
#[inline(always)]
fn ip_checksum(skb: Context, l3: u32, from: u64, to: u64, size: u64) -> Result<(), Reason> {
    // SAFETY: valid context; the helper checks the offset.
    if unsafe { bpf_l3_csum_replace(skb.cast(), l3 + 10, from, to, size) } == 0 { Ok(()) } else { Err(Reason::Rewrite) }
}

#[inline(always)]
fn ipv6(skb: Context, s: &Scratch, layout: &Layout) -> Result<(), Reason> {
    let l3 = layout.l3;
    let l4 = checksum_at(s, layout);
    for (word, at) in [(IP_SRC, 8), (IP_DST, 24)] {
        if changed(s, word, 4) {
            let (from, to) = (quad(before, s, word), quad(now, s, word));
            if let Some(l4) = l4 {
                fix(skb, s, l4, 0, difference(&from, &to), u64::from(BPF_F_PSEUDO_HDR))?;
            }
            skb::store(skb, l3 + at, &bytes(&to))?;
        }
    }
    let (old, new) = (before(s, IP_META), now(s, IP_META));
    if (old ^ new) & 0x00ff_ff00 != 0 || changed(s, IP6_LABEL, 1) {
        let [_, tos, hops, _] = new.to_be_bytes();
        let head = 6 << 28 | u32::from(tos) << 20 | now(s, IP6_LABEL) & 0xf_ffff;
        skb::store(skb, l3, &head.to_be_bytes())?;
        skb::store(skb, l3 + 7, &[hops])?;
    }
    neighbor(skb, s, layout)?;
    ports(skb, s, layout)
}

/// Neighbor discovery fields; all under the ICMPv6 checksum, none in the pseudo-header.
#[inline(always)]
fn neighbor(skb: Context, s: &Scratch, layout: &Layout) -> Result<(), Reason> {
    if before(s, IP_META) >> 24 != ICMP6 || layout.l4 == 0 {
        return Ok(());
    }
    let at = layout.l4 + 2;
    if changed(s, ND_TARGET, 4) {
        let (from, to) = (quad(before, s, ND_TARGET), quad(now, s, ND_TARGET));
        fix(skb, s, at, 0, difference(&from, &to), 0)?;
        skb::store(skb, layout.l4 + 8, &bytes(&to))?;
    }
    for (word, place) in [(HW_SRC, layout.hw_src), (HW_DST, layout.hw_dst)] {
        if place != 0 && changed(s, word, 2) {
            // Options begin at even offsets, so the upper half is one 16-bit word of the sum.
            let from = [(before(s, word) & 0xffff).to_be(), before(s, word + 1).to_be(), 0, 0];
            let to = [(now(s, word) & 0xffff).to_be(), now(s, word + 1).to_be(), 0, 0];
            fix(skb, s, at, 0, difference(&from, &to), 0)?;
            let [_, _, a, b] = now(s, word).to_be_bytes();
            let [c, d, e, f] = now(s, word + 1).to_be_bytes();
            skb::store(skb, place, &[a, b, c, d, e, f])?;
        }
    }
    Ok(())
}

/// Ports of TCP and UDP, type and code of ICMP. SCTP's checksum is no sum: its ports cannot be changed.
#[inline(always)]
fn ports(skb: Context, s: &Scratch, layout: &Layout) -> Result<(), Reason> {
    if !changed(s, L4, 1) || layout.l4 == 0 {
        return Ok(());
    }
    let (old, new) = (before(s, L4), now(s, L4));
    let protocol = before(s, IP_META) >> 24;
    let at = checksum_at(s, layout);
    if protocol == SCTP {
        return Err(Reason::Rewrite);
    }
    let Some(at) = at else { return Ok(()) };
    if protocol == ICMP || protocol == ICMP6 {
        let half = |n: u32| (n >> 8 & 0xff00 | n & 0xff) as u16;
        fix(skb, s, at, u64::from(half(old).to_be()), u64::from(half(new).to_be()), 2)?;
        return skb::store(skb, layout.l4, &half(new).to_be_bytes());
    }
    fix(skb, s, at, u64::from(old.to_be()), u64::from(new.to_be()), 4)?;
    skb::store(skb, layout.l4, &new.to_be_bytes())
}

/// Four words in network order.
#[inline(always)]
fn quad(of: impl Fn(&Scratch, u8) -> u32, s: &Scratch, word: u8) -> [u32; 4] {
    [of(s, word).to_be(), of(s, word + 1).to_be(), of(s, word + 2).to_be(), of(s, word + 3).to_be()]
}

#[inline(always)]
fn bytes(words: &[u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = *words;
    (u128::from(d) << 96 | u128::from(c) << 64 | u128::from(b) << 32 | u128::from(a)).to_le_bytes()
}

/// The checksum difference of two quads.
#[inline(always)]
fn difference(from: &[u32; 4], to: &[u32; 4]) -> u64 {
    let (mut from, mut to) = (*from, *to);
    // SAFETY: sixteen bytes each, as told.
    unsafe { bpf_csum_diff((&raw mut from).cast(), 16, (&raw mut to).cast(), 16, 0) as u64 }
}

/// Takes off, puts on or replaces the outermost tag.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_retag(skb: Context) -> i32 {
    encode(retag(skb))
}

#[inline(always)]
fn retag(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let (old, new) = (before(s, ETH_TYPE) >> 16, now(s, ETH_TYPE) >> 16);
    if old == new {
        return Ok(0);
    }
    if old & VLAN_PRESENT != 0 {
        if skb::tag(skb) != 0 || is_vlan(skb::protocol(skb)) {
            // With two tags the inner one takes the outer one's place outside the payload.
            let inside = skb::tag(skb) == 0;
            skb::pop_vlan(skb)?;
            let mut layout = s.layout.get();
            if inside || layout.tags != 0 {
                layout = shifted(layout, 4);
                layout.tags = layout.tags.saturating_sub(1);
                s.layout.set(layout);
            }
        } else {
            pop_payload(skb)?;
            let mut layout = shifted(s.layout.get(), 4);
            layout.tags = layout.tags.saturating_sub(1);
            s.layout.set(layout);
        }
    }
    if new & VLAN_PRESENT != 0 {
        let inside = skb::tag(skb) != 0;
        skb::push_vlan(skb, new)?;
        if inside {
            let l = s.layout.get();
            let more = |offset: u32| if offset == 0 { 0 } else { offset + 4 };
            s.layout.set(Layout {
                l3: l.l3 + 4,
                l4: more(l.l4),
                tags: l.tags + 1,
                hw_src: more(l.hw_src),
                hw_dst: more(l.hw_dst),
            });
        }
    }
    Ok(0)
}

/// Takes a tag out of the payload of a frame that the stack does not know to be tagged (it came by tunnel).
#[inline(always)]
pub fn pop_payload(skb: Context) -> Result<(), Reason> {
    let eth_type = Buffer(skb).load::<2>(16).ok_or(Reason::Rewrite)?;
    // SAFETY: valid context; the helper checks the length.
    if unsafe { bpf_skb_adjust_room(skb, -4, BPF_ADJ_ROOM_MAC, tunnel::FIXED_GSO) } != 0 {
        return Err(Reason::Rewrite);
    }
    skb::store(skb, 12, &eth_type)
}
