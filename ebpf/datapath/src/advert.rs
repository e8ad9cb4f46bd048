//! `nd_na`: a neighbor solicitation becomes an advertisement (RFC 4861 section 4.4), first in the vector, on write-back in the packet.

use oxbow_abi::{
    field::{ETH_DST, ETH_SRC, ETH_TYPE, HW_DST, HW_SRC, IP_DST, IP_META, IP_SRC, IP6_LABEL, L4, ND_TARGET},
    reason::Reason,
};
use oxbow_wire::{
    checksum,
    parse::{ETH_IPV6, ICMP6, NEIGHBOR_ADVERT, NEIGHBOR_SOLICIT},
};

use aya_ebpf::helpers::bpf_skb_change_tail;

use crate::{
    scratch::{Scratch, Vector},
    skb::{self, Context},
    walk::encode,
};

/// [`Scratch::advert`]: an advertisement is to be written.
const WANTED: u32 = 1;
/// It answers a solicitation with a source address.
const SOLICITED: u32 = 2;
/// The sender is a router.
const ROUTER: u32 = 4;

/// Presets the fields as ovn-sb(5) has them; operations that follow edit them.
#[inline(always)]
pub fn begin(s: &Scratch, router: u32) -> Result<(), Reason> {
    let w = |word: u8| &s.word[usize::from(word)];
    let solicitation = w(ETH_TYPE).get() & 0xffff == ETH_IPV6
        && w(IP_META).get() >> 24 == ICMP6
        && w(L4).get() == NEIGHBOR_SOLICIT << 16
        && s.layout.get().l4 != 0;
    if !solicitation || s.advert.get() != 0 {
        return Err(Reason::NotNeighborSolicit);
    }
    s.cacheable.set(0);
    for n in 0..2 {
        let (destination, source) = (w(ETH_DST + n).get(), w(ETH_SRC + n).get());
        w(ETH_DST + n).set(source);
        w(ETH_SRC + n).set(destination);
        w(HW_SRC + n).set(0);
        w(HW_DST + n).set(destination);
    }
    let probe = w(IP_SRC).get() | w(IP_SRC + 1).get() | w(IP_SRC + 2).get() | w(IP_SRC + 3).get() == 0;
    for n in 0..4 {
        // A duplicate address probe has no source to answer to: all nodes hear it (RFC 4861 section 7.2.4).
        let all_nodes = [0xff02_0000, 0, 0, 1];
        w(IP_DST + n).set(if probe { all_nodes[usize::from(n)] } else { w(IP_SRC + n).get() });
        w(IP_SRC + n).set(w(ND_TARGET + n).get());
    }
    w(IP_META).set(ICMP6 << 24 | 255 << 8);
    w(IP6_LABEL).set(0);
    w(L4).set(NEIGHBOR_ADVERT << 16);
    s.advert.set(WANTED | if probe { 0 } else { SOLICITED } | if router & 1 != 0 { ROUTER } else { 0 });
    Ok(())
}

#[inline(always)]
fn put<const N: usize>(out: &mut [u8; 72], at: usize, bytes: [u8; N]) {
    if let Some(place) = out.get_mut(at..at + N) {
        place.copy_from_slice(&bytes);
    }
}

#[inline(always)]
fn put_words(out: &mut [u8; 72], at: usize, words: &Vector, word: u8) {
    let mut n = 0;
    while n < 4 {
        put(out, at + n * 4, words[usize::from(word) + n].get().to_be_bytes());
        n += 1;
    }
}

/// Replaces everything from the network header on by the advertisement.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_advert(skb: Context) -> i32 {
    encode(write(skb))
}

#[inline(always)]
fn write(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let w = &s.word;
    let flags = s.advert.get();
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive; 72 bytes are its beginning.
    let out = unsafe { &mut *s.outer.as_ptr().cast::<[u8; 72]>() };
    *out = [0; 72];
    let [protocol, traffic_class, hops, _] = w[usize::from(IP_META)].get().to_be_bytes();
    put(out, 0, [0x60 | traffic_class >> 4, traffic_class << 4, 0, 0, 0, 32, protocol, hops]);
    put_words(out, 8, w, IP_SRC);
    put_words(out, 24, w, IP_DST);
    let bits = if flags & ROUTER != 0 { 0x80 } else { 0 } | if flags & SOLICITED != 0 { 0x40 } else { 0 } | 0x20;
    put(out, 40, [NEIGHBOR_ADVERT as u8, 0, 0, 0, bits, 0, 0, 0]);
    put_words(out, 48, w, ND_TARGET);
    let [_, _, a, b] = w[usize::from(HW_DST)].get().to_be_bytes();
    let [c, d, e, f] = w[usize::from(HW_DST) + 1].get().to_be_bytes();
    put(out, 64, [2, 1, a, b, c, d, e, f]);
    // Pseudo-header: the addresses (inside `out`), the length and the protocol.
    let mut sum = 32 + u64::from(ICMP6 as u8);
    if let Some(Ok(covered)) = out.get(8..72).map(<&[u8; 64]>::try_from) {
        sum += checksum::sum(covered);
    }
    put(out, 42, (!checksum::fold(sum)).to_be_bytes());
    let l3 = s.layout.get().l3;
    // SAFETY: valid context; the helper checks the length.
    if unsafe { bpf_skb_change_tail(skb, l3 + 72, 0) } != 0 {
        return Err(Reason::Rewrite);
    }
    skb::store(skb, l3, out)?;
    Ok(0)
}
