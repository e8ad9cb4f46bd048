//! The verdict key: of a frame directly (the fast path), or of a parsed vector (where a walk ends). Both give the same key, or the first gives none.

use oxbow_abi::{
    field::{ETH_DST, ETH_SRC, ETH_TYPE, IP_DST, IP_META, IP_SRC, L4, VLAN_PRESENT},
    verdict::VerdictKey,
};

use crate::{
    frame::{Frame, be16, be32, is_vlan},
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
    let ether = frame.load::<14>(base)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = ether;
    key.mac = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5];
    let mut eth_type = be16(t0, t1);
    let mut l3 = base + 14;
    let mut tci = tag;
    if is_vlan(eth_type) {
        if tag != 0 {
            return None;
        }
        let [c0, c1, e0, e1] = frame.load::<4>(l3)?;
        tci = be16(c0, c1) | VLAN_PRESENT;
        eth_type = be16(e0, e1);
        l3 += 4;
    }
    key.eth_type = tci << 16 | eth_type;
    match eth_type {
        ETH_IPV4 => {
            let ip = frame.load::<20>(l3)?;
            let total = be16(ip[2], ip[3]);
            // No options, no fragment (offset and "more" zero).
            if ip[0] != 0x45 || be16(ip[6], ip[7]) & 0x3fff != 0 || total > frame.len() - l3 || total < 20 {
                return None;
            }
            key.src[0] = be32(ip[12], ip[13], ip[14], ip[15]);
            key.dst[0] = be32(ip[16], ip[17], ip[18], ip[19]);
            transport(frame, u32::from(ip[9]), l3 + 20, total - 20, ETH_IPV4, u32::from(ip[1]), key)?;
        }
        ETH_IPV6 => {
            let ip = frame.load::<40>(l3)?;
            let left = be16(ip[4], ip[5]);
            let next = u32::from(ip[6]);
            if left + 40 > frame.len() - l3 || is_extension(next) {
                return None;
            }
            key.src = quad(&ip, 8);
            key.dst = quad(&ip, 24);
            let traffic_class = u32::from(ip[0] & 15) << 4 | u32::from(ip[1] >> 4);
            transport(frame, next, l3 + 40, left, ETH_IPV6, traffic_class, key)?;
        }
        // LLC, a second tag, ARP: never cached.
        _ if eth_type < 0x600 || is_vlan(eth_type) || eth_type == ETH_ARP || eth_type == ETH_RARP => return None,
        _ => {}
    }
    Some(l3)
}

#[inline(always)]
fn quad(ip: &[u8; 40], at: usize) -> [u32; 4] {
    let word = |n: usize| match ip.get(n..n + 4) {
        Some(&[a, b, c, d]) => be32(a, b, c, d),
        _ => 0,
    };
    [word(at), word(at + 4), word(at + 8), word(at + 12)]
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
        let [a, b, c, d] = frame.load::<4>(at)?;
        key.l4 =
            if protocol == ICMP || protocol == ICMP6 { u32::from(a) << 16 | u32::from(b) } else { be32(a, b, c, d) };
    }
    Some(())
}

/// Fills the header fields of `key` from a parsed vector.
#[inline(always)]
pub fn of_vector(v: &[u32; VECTOR], key: &mut VerdictKey) {
    let [_, _, d0, d1] = v[usize::from(ETH_DST)].to_be_bytes();
    let [d2, d3, d4, d5] = v[usize::from(ETH_DST) + 1].to_be_bytes();
    let [_, _, s0, s1] = v[usize::from(ETH_SRC)].to_be_bytes();
    let [s2, s3, s4, s5] = v[usize::from(ETH_SRC) + 1].to_be_bytes();
    key.mac = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5];
    key.eth_type = v[usize::from(ETH_TYPE)];
    key.ip_meta = v[usize::from(IP_META)] & META_MASK;
    key.l4 = v[usize::from(L4)];
    let (s, d) = (usize::from(IP_SRC), usize::from(IP_DST));
    key.src = [v[s], v[s + 1], v[s + 2], v[s + 3]];
    key.dst = [v[d], v[d + 1], v[d + 2], v[d + 3]];
}
