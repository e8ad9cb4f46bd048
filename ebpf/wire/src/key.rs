//! The verdict key: of a frame directly (the fast path), or of a parsed vector (where a walk ends). Both give the same key, or the first gives none.

use oxbow_abi::{
    field::{ETH_DST, ETH_SRC, ETH_TYPE, IP_DST, IP_META, IP_SRC, L4, VLAN_PRESENT},
    verdict::VerdictKey,
};

use crate::{
    frame::{Frame, View, is_vlan},
    parse::{ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_RARP, ICMP, ICMP6, VECTOR, is_extension, transport_size},
};

/// Of [`oxbow_abi::field::IP_META`] what is in the key: all but the TTL.
pub const META_MASK: u32 = 0xffff_00ff;

/// Fills the header fields of `key` from the frame at `base`, and says where the network header is; `key` is zero before.
///
/// `None` for everything that takes the slow path and is never cached: ARP, fragments, IPv4 options, IPv6 extension headers, LLC, two tags,
/// headers that are short or contradict themselves.
#[inline(always)]
pub fn of_frame<F: Frame>(frame: &F, base: u32, tag: u32, key: &mut VerdictKey) -> Option<u32> {
    let ether = frame.view::<14>(base)?;
    key.mac = mac(ether.word::<0>(), ether.word::<4>(), ether.word::<8>());
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
    key.eth_type = tci << 16 | eth_type;
    match eth_type {
        ETH_IPV4 => {
            let ip = frame.view::<20>(l3)?;
            let total = ip.half::<2>();
            // No options, no fragment (offset and "more" zero).
            if ip.byte::<0>() != 0x45 || ip.half::<6>() & 0x3fff != 0 || total > frame.len() - l3 || total < 20 {
                return None;
            }
            key.src[0] = ip.word::<12>();
            key.dst[0] = ip.word::<16>();
            transport(frame, ip.byte::<9>(), l3 + 20, total - 20, ETH_IPV4, ip.byte::<1>(), key)?;
        }
        ETH_IPV6 => {
            let ip = frame.view::<40>(l3)?;
            let left = ip.half::<4>();
            let next = ip.byte::<6>();
            if left + 40 > frame.len() - l3 || is_extension(next) {
                return None;
            }
            key.src = [ip.word::<8>(), ip.word::<12>(), ip.word::<16>(), ip.word::<20>()];
            key.dst = [ip.word::<24>(), ip.word::<28>(), ip.word::<32>(), ip.word::<36>()];
            transport(frame, next, l3 + 40, left, ETH_IPV6, ip.half::<0>() >> 4 & 0xff, key)?;
        }
        // LLC, a second tag, ARP: never cached.
        _ if eth_type < 0x600 || is_vlan(eth_type) || eth_type == ETH_ARP || eth_type == ETH_RARP => return None,
        _ => {}
    }
    Some(l3)
}

/// Three words of both addresses as the bytes they are on the wire.
#[inline(always)]
fn mac(a: u32, b: u32, c: u32) -> [u8; 12] {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3]) = (a.to_be_bytes(), b.to_be_bytes(), c.to_be_bytes());
    [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3]
}

#[inline(always)]
fn transport<F: Frame>(
    frame: &F,
    protocol: u32,
    at: u32,
    left: u32,
    eth_type: u32,
    tos: u32,
    key: &mut VerdictKey,
) -> Option<()> {
    key.ip_meta = protocol << 24 | tos << 16;
    if let Some(size) = transport_size(protocol, eth_type) {
        if left < size {
            return None;
        }
        let ports = frame.view::<4>(at)?;
        let word = ports.word::<0>();
        // ICMP: type and code, each in half a word.
        key.l4 = if protocol == ICMP || protocol == ICMP6 { word >> 8 & 0xff_0000 | word >> 16 & 0xff } else { word };
    }
    Some(())
}

/// Fills the header fields of `key` from a parsed vector.
#[inline(always)]
pub fn of_vector(v: &[u32; VECTOR], key: &mut VerdictKey) {
    let (d, s) = (usize::from(ETH_DST), usize::from(ETH_SRC));
    key.mac = mac(v[d] << 16 | v[d + 1] >> 16, v[d + 1] << 16 | v[s] & 0xffff, v[s + 1]);
    key.eth_type = v[usize::from(ETH_TYPE)];
    key.ip_meta = v[usize::from(IP_META)] & META_MASK;
    key.l4 = v[usize::from(L4)];
    let (s, d) = (usize::from(IP_SRC), usize::from(IP_DST));
    key.src = [v[s], v[s + 1], v[s + 2], v[s + 3]];
    key.dst = [v[d], v[d + 1], v[d + 2], v[d + 3]];
}
