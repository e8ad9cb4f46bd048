//! The verdict key: of a frame directly (the fast path), or of a parsed vector (where a walk ends). Both give the same key, or the first gives none.

use oxbow_abi::{
    field::{ETH_DST, ETH_SRC, ETH_TYPE, IP_DST, IP_META, IP_SRC, L4, VLAN_PRESENT},
    verdict::VerdictKey,
};

use crate::{
    frame::{Frame, View, is_vlan},
    parse::{ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_RARP, ICMP, ICMP6, VECTOR, is_extension, transport_size},
};

/// A [`VerdictKey`] as the words it is in memory. It is written in whole words because it is hashed in whole words at once: a processor cannot forward
/// bytes just stored to a wider load, and waits.
pub type Words = [u32; 16];

const MAC: usize = 2;
const TYPE: usize = 5;
const META: usize = 6;
const PORTS: usize = 7;
const SRC: usize = 8;
const DST: usize = 12;

const _: () = {
    assert!(size_of::<VerdictKey>() == size_of::<Words>());
    assert!(core::mem::offset_of!(VerdictKey, mac) == MAC * 4);
    assert!(core::mem::offset_of!(VerdictKey, eth_type) == TYPE * 4);
    assert!(core::mem::offset_of!(VerdictKey, ip_meta) == META * 4);
    assert!(core::mem::offset_of!(VerdictKey, l4) == PORTS * 4);
    assert!(core::mem::offset_of!(VerdictKey, src) == SRC * 4);
    assert!(core::mem::offset_of!(VerdictKey, dst) == DST * 4);
};

/// Of [`oxbow_abi::field::IP_META`] what is in the key: all but the TTL.
pub const META_MASK: u32 = 0xffff_00ff;

/// Fills the header fields of `key` from the frame at `base`, and says where the network header is; `key` is zero before.
///
/// `None` for everything that takes the slow path and is never cached: ARP, fragments, IPv4 options, IPv6 extension headers, LLC, two tags,
/// headers that are short or contradict themselves.
#[inline(always)]
pub fn of_frame<F: Frame>(frame: &F, base: u32, tag: u32, key: &mut Words) -> Option<u32> {
    let ether = frame.view::<14>(base)?;
    key[MAC] = ether.word::<0>().to_be();
    key[MAC + 1] = ether.word::<4>().to_be();
    key[MAC + 2] = ether.word::<8>().to_be();
    let mut eth_type = ether.half::<12>();
    let mut l3 = base + 14;
    let mut tci = tag;
    if is_vlan(eth_type) {
        if tag != 0 {
            return None;
        }
        let tagged = frame.view::<4>(l3)?;
        tci = tagged.half::<0>() | VLAN_PRESENT;
        eth_type = tagged.half::<2>();
        l3 += 4;
    }
    key[TYPE] = tci << 16 | eth_type;
    match eth_type {
        ETH_IPV4 => {
            let ip = frame.view::<20>(l3)?;
            let total = ip.half::<2>();
            // No options, no fragment (offset and "more" zero).
            if ip.byte::<0>() != 0x45 || ip.half::<6>() & 0x3fff != 0 || total > frame.len() - l3 || total < 20 {
                return None;
            }
            key[SRC] = ip.word::<12>();
            key[DST] = ip.word::<16>();
            transport(frame, ip.byte::<9>(), l3 + 20, total - 20, ETH_IPV4, ip.byte::<1>(), key)?;
        }
        ETH_IPV6 => {
            let ip = frame.view::<40>(l3)?;
            let left = ip.half::<4>();
            let next = ip.byte::<6>();
            if left + 40 > frame.len() - l3 || is_extension(next) {
                return None;
            }
            key[SRC] = ip.word::<8>();
            key[SRC + 1] = ip.word::<12>();
            key[SRC + 2] = ip.word::<16>();
            key[SRC + 3] = ip.word::<20>();
            key[DST] = ip.word::<24>();
            key[DST + 1] = ip.word::<28>();
            key[DST + 2] = ip.word::<32>();
            key[DST + 3] = ip.word::<36>();
            transport(frame, next, l3 + 40, left, ETH_IPV6, ip.half::<0>() >> 4 & 0xff, key)?;
        }
        // LLC, a second tag, ARP: never cached.
        _ if eth_type < 0x600 || is_vlan(eth_type) || eth_type == ETH_ARP || eth_type == ETH_RARP => return None,
        _ => {}
    }
    Some(l3)
}

#[inline(always)]
fn transport<F: Frame>(
    frame: &F,
    protocol: u32,
    at: u32,
    left: u32,
    eth_type: u32,
    tos: u32,
    key: &mut Words,
) -> Option<()> {
    key[META] = protocol << 24 | tos << 16;
    if let Some(size) = transport_size(protocol, eth_type) {
        if left < size {
            return None;
        }
        let ports = frame.view::<4>(at)?;
        let word = ports.word::<0>();
        // ICMP: type and code, each in half a word.
        key[PORTS] =
            if protocol == ICMP || protocol == ICMP6 { word >> 8 & 0xff_0000 | word >> 16 & 0xff } else { word };
    }
    Some(())
}

/// Fills the header fields of `key` from a parsed vector.
#[inline(always)]
pub fn of_vector(v: &[u32; VECTOR], key: &mut Words) {
    let (d, s) = (usize::from(ETH_DST), usize::from(ETH_SRC));
    key[MAC] = (v[d] << 16 | v[d + 1] >> 16).to_be();
    key[MAC + 1] = (v[d + 1] << 16 | v[s] & 0xffff).to_be();
    key[MAC + 2] = v[s + 1].to_be();
    key[TYPE] = v[usize::from(ETH_TYPE)];
    key[META] = v[usize::from(IP_META)] & META_MASK;
    key[PORTS] = v[usize::from(L4)];
    for n in 0..4 {
        key[SRC + n] = v[usize::from(IP_SRC) + n];
        key[DST + n] = v[usize::from(IP_DST) + n];
    }
}
