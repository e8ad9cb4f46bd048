//! A frame into the field vector.
//!
//! The rules are those of OVS (and so of `ovn-trace`): a header that is short or contradicts itself leaves its fields and those of everything
//! inside it zero, and the frame walks on with what was parsed; only a frame without a whole Ethernet header is an error. Trailing bytes after
//! the IP length do not count. A later fragment has no transport fields; the first one has.

use oxbow_abi::{
    field::{
        ARP_OP, ETH_DST, ETH_SRC, ETH_TYPE, FRAG_ANY, FRAG_LATER, HW_DST, HW_SRC, IP_DST, IP_META, IP_SRC, IP6_LABEL,
        L4, ND_TARGET, TCP_FLAGS, VLAN_PRESENT,
    },
    reason::Reason,
};

use crate::frame::{Frame, Step, be16, be32, is_vlan};

/// Words of a vector in memory: [`oxbow_abi::field::WORDS`] rounded up to a power of two, so that a masked index is always inside.
pub const VECTOR: usize = 64;

/// Ethernet type of IPv4.
pub const ETH_IPV4: u32 = 0x0800;
/// Ethernet type of ARP.
pub const ETH_ARP: u32 = 0x0806;
/// Ethernet type of reverse ARP, whose body is ARP's.
pub const ETH_RARP: u32 = 0x8035;
/// Ethernet type of IPv6.
pub const ETH_IPV6: u32 = 0x86dd;
/// What OVS calls the type of a frame that has a length and no SNAP header.
pub const ETH_NONE: u32 = 0x05ff;

/// IP protocol number of ICMP.
pub const ICMP: u32 = 1;
/// IP protocol number of TCP.
pub const TCP: u32 = 6;
/// IP protocol number of UDP.
pub const UDP: u32 = 17;
/// IP protocol number of ICMPv6.
pub const ICMP6: u32 = 58;
/// IP protocol number of SCTP.
pub const SCTP: u32 = 132;

/// ICMPv6 type of a neighbor solicitation (RFC 4861).
pub const NEIGHBOR_SOLICIT: u32 = 135;
/// ICMPv6 type of a neighbor advertisement.
pub const NEIGHBOR_ADVERT: u32 = 136;

/// Extension headers that are skipped before the parser gives up (as on a malformed one).
pub const EXTENSIONS: u32 = 8;
/// Neighbor discovery options that are looked at.
pub const ND_OPTIONS: u32 = 8;

/// Where things are in the frame. Offsets count from the start of the buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Network header.
    pub l3: u32,
    /// Transport header; 0 = none was parsed.
    pub l4: u32,
    /// VLAN tags in the payload (a tag that the device took out is not among them).
    pub tags: u32,
    /// Data of the source (or sender's, for ARP) link-layer address; 0 = none.
    pub hw_src: u32,
    /// Data of the target link-layer address; 0 = none.
    pub hw_dst: u32,
}

/// Reads the frame that starts at `base` into `v`; words that are no header fields are left alone, header words without a header become zero.
///
/// `tag` is the TCI that the device took out of the frame, with [`VLAN_PRESENT`]; 0 = none.
///
/// # Errors
/// [`Reason::Truncated`] without a whole Ethernet header.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F, base: u32, tag: u32, v: &mut [u32; VECTOR]) -> Result<Layout, Reason> {
    clear(v);
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = frame.load::<14>(base).ok_or(Reason::Truncated)?;
    set48(v, ETH_DST, [d0, d1, d2, d3, d4, d5]);
    set48(v, ETH_SRC, [s0, s1, s2, s3, s4, s5]);
    let mut layout = Layout::default();
    let mut eth_type = be16(t0, t1);
    let mut tci = tag;
    let mut at = base + 14;
    // One tag is looked at, as by Open vSwitch (other_config:vlan-limit, default 1): behind it another one is an Ethernet type like any other.
    if tag == 0
        && is_vlan(eth_type)
        && let Some([c0, c1, e0, e1]) = frame.load::<4>(at)
    {
        tci = be16(c0, c1) | VLAN_PRESENT;
        layout.tags = 1;
        eth_type = be16(e0, e1);
        at += 4;
    }
    if eth_type < 0x600 {
        (eth_type, at) = match frame.load::<8>(at) {
            Some([0xaa, 0xaa, 3, 0, 0, 0, p0, p1]) if be16(p0, p1) >= 0x600 => (be16(p0, p1), at + 8),
            _ => (ETH_NONE, at),
        };
    }
    v[usize::from(ETH_TYPE)] = tci << 16 | eth_type;
    layout.l3 = at;
    match eth_type {
        ETH_IPV4 => ipv4(frame, &mut layout, v),
        ETH_IPV6 => ipv6(frame, &mut layout, v),
        ETH_ARP | ETH_RARP => arp(frame, &mut layout, v),
        _ => {}
    }
    Ok(layout)
}

/// Zeroes the words of headers.
#[inline(always)]
fn clear(v: &mut [u32; VECTOR]) {
    let mut word = ETH_DST as usize;
    while word <= IP6_LABEL as usize {
        v[word & (VECTOR - 1)] = 0;
        word += 1;
    }
}

#[inline(always)]
fn set48(v: &mut [u32; VECTOR], word: u8, [a, b, c, d, e, f]: [u8; 6]) {
    v[word as usize & (VECTOR - 1)] = be16(a, b);
    v[(word as usize + 1) & (VECTOR - 1)] = be32(c, d, e, f);
}

#[inline(always)]
fn set128(v: &mut [u32; VECTOR], word: u8, b: [u8; 16]) {
    let word = word as usize;
    v[word & (VECTOR - 1)] = be32(b[0], b[1], b[2], b[3]);
    v[(word + 1) & (VECTOR - 1)] = be32(b[4], b[5], b[6], b[7]);
    v[(word + 2) & (VECTOR - 1)] = be32(b[8], b[9], b[10], b[11]);
    v[(word + 3) & (VECTOR - 1)] = be32(b[12], b[13], b[14], b[15]);
}

#[inline(always)]
fn arp<F: Frame>(frame: &F, layout: &mut Layout, v: &mut [u32; VECTOR]) {
    let Some(
        [
            0,
            1,
            8,
            0,
            6,
            4,
            op0,
            op1,
            sha0,
            sha1,
            sha2,
            sha3,
            sha4,
            sha5,
            spa0,
            spa1,
            spa2,
            spa3,
            tha0,
            tha1,
            tha2,
            tha3,
            tha4,
            tha5,
            tpa0,
            tpa1,
            tpa2,
            tpa3,
        ],
    ) = frame.load::<28>(layout.l3)
    else {
        return;
    };
    // OVS keeps the operation in eight bits; a larger one reads as zero.
    v[usize::from(ARP_OP)] = if op0 == 0 { u32::from(op1) } else { 0 };
    v[usize::from(IP_SRC)] = be32(spa0, spa1, spa2, spa3);
    v[usize::from(IP_DST)] = be32(tpa0, tpa1, tpa2, tpa3);
    set48(v, HW_SRC, [sha0, sha1, sha2, sha3, sha4, sha5]);
    set48(v, HW_DST, [tha0, tha1, tha2, tha3, tha4, tha5]);
    layout.hw_src = layout.l3 + 8;
    layout.hw_dst = layout.l3 + 18;
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, layout: &mut Layout, v: &mut [u32; VECTOR]) {
    let Some(ip) = frame.load::<20>(layout.l3) else { return };
    let size = frame.len() - layout.l3;
    let header = u32::from(ip[0] & 15) * 4;
    let total = be16(ip[2], ip[3]);
    if header < 20 || header > total || total > size {
        return;
    }
    let offset = be16(ip[6], ip[7]);
    let mut fragment = 0;
    if offset & 0x3fff != 0 {
        fragment = FRAG_ANY;
        if offset & 0x1fff != 0 {
            fragment |= FRAG_LATER;
        }
    }
    let protocol = u32::from(ip[9]);
    v[usize::from(IP_META)] = protocol << 24 | u32::from(ip[1]) << 16 | u32::from(ip[8]) << 8 | fragment;
    v[usize::from(IP_SRC)] = be32(ip[12], ip[13], ip[14], ip[15]);
    v[usize::from(IP_DST)] = be32(ip[16], ip[17], ip[18], ip[19]);
    if fragment & FRAG_LATER == 0 {
        transport(frame, protocol, layout.l3 + header, total - header, ETH_IPV4, layout, v);
    }
}

/// IPv6 extension headers that are skipped (RFC 8200; 51 = AH).
#[inline(always)]
pub(crate) const fn is_extension(next: u32) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60)
}

/// The way along the extension headers.
#[repr(C)]
struct Chain {
    next: u32,
    at: u32,
    left: u32,
    fragment: u32,
    valid: u32,
}

impl<F: Frame> Step<F> for Chain {
    #[inline(always)]
    fn step(&mut self, frame: &F) -> bool {
        if !is_extension(self.next) {
            return false;
        }
        self.valid = 0;
        if self.left < 8 {
            return false;
        }
        let Some([following, length, o0, o1]) = frame.load::<4>(self.at) else { return false };
        let bytes = match self.next {
            44 => {
                let offset = be16(o0, o1);
                // An atomic fragment (RFC 6946) is no fragment. A later one has no protocol but "fragment": what follows is payload.
                if offset != 0 {
                    self.fragment = FRAG_ANY;
                    if offset & 0xfff8 != 0 {
                        self.fragment |= FRAG_LATER;
                        self.valid = 1;
                        return false;
                    }
                }
                8
            }
            51 => (u32::from(length) + 2) * 4,
            _ => (u32::from(length) + 1) * 8,
        };
        if bytes > self.left {
            return false;
        }
        self.valid = 1;
        self.next = u32::from(following);
        self.left -= bytes;
        self.at += bytes;
        true
    }
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, layout: &mut Layout, v: &mut [u32; VECTOR]) {
    let Some(head) = frame.load::<8>(layout.l3) else { return };
    let size = frame.len() - layout.l3;
    let left = be16(head[4], head[5]);
    if left + 40 > size {
        return;
    }
    let (Some(source), Some(destination)) = (frame.load::<16>(layout.l3 + 8), frame.load::<16>(layout.l3 + 24)) else {
        return;
    };
    set128(v, IP_SRC, source);
    set128(v, IP_DST, destination);
    let mut chain = Chain { next: u32::from(head[6]), at: layout.l3 + 40, left, fragment: 0, valid: 1 };
    frame.repeat(EXTENSIONS + 1, &mut chain);
    let Chain { next, at, left, fragment, valid } = chain;
    if valid == 0 || fragment & FRAG_LATER == 0 && is_extension(next) {
        return;
    }
    let traffic_class = u32::from(head[0] & 15) << 4 | u32::from(head[1] >> 4);
    v[usize::from(IP_META)] = next << 24 | traffic_class << 16 | u32::from(head[7]) << 8 | fragment;
    v[usize::from(IP6_LABEL)] = be32(0, head[1] & 15, head[2], head[3]);
    if fragment & FRAG_LATER == 0 {
        transport(frame, next, at, left, ETH_IPV6, layout, v);
    }
}

/// Least bytes of a transport header; `None` for a protocol without fields.
#[inline(always)]
pub(crate) const fn transport_size(protocol: u32, eth_type: u32) -> Option<u32> {
    match (protocol, eth_type) {
        (TCP, _) => Some(20),
        (UDP, _) | (ICMP, ETH_IPV4) | (ICMP6, ETH_IPV6) => Some(8),
        (SCTP, _) => Some(12),
        _ => None,
    }
}

#[inline(always)]
fn transport<F: Frame>(
    frame: &F,
    protocol: u32,
    at: u32,
    left: u32,
    eth_type: u32,
    layout: &mut Layout,
    v: &mut [u32; VECTOR],
) {
    let Some(size) = transport_size(protocol, eth_type) else { return };
    if left < size {
        return;
    }
    let Some([a, b, c, d]) = frame.load::<4>(at) else { return };
    layout.l4 = at;
    match protocol {
        ICMP | ICMP6 => {
            v[usize::from(L4)] = u32::from(a) << 16 | u32::from(b);
            let kind = u32::from(a);
            if protocol == ICMP6 && b == 0 && (kind == NEIGHBOR_SOLICIT || kind == NEIGHBOR_ADVERT) {
                neighbor(frame, at, left, layout, v);
            }
        }
        _ => {
            v[usize::from(L4)] = be32(a, b, c, d);
            if protocol == TCP
                && let Some([f0, f1]) = frame.load::<2>(at + 12)
            {
                v[usize::from(TCP_FLAGS)] = be16(f0 & 15, f1);
            }
        }
    }
}

/// Neighbor discovery body (RFC 4861 section 4), as Open vSwitch reads it: an address given twice clears every neighbor discovery field, an option of
/// a wrong length ends the list.
#[inline(always)]
fn neighbor<F: Frame>(frame: &F, at: u32, left: u32, layout: &mut Layout, v: &mut [u32; VECTOR]) {
    if left < 24 {
        return;
    }
    let Some(target) = frame.load::<16>(at + 8) else { return };
    let mut options = Options { at: at + 24, left: left - 24, source: 0, destination: 0, valid: 1 };
    frame.repeat(ND_OPTIONS, &mut options);
    let Options { source, destination, valid, .. } = options;
    if valid == 0 {
        return;
    }
    set128(v, ND_TARGET, target);
    if source != 0
        && let Some(mac) = frame.load::<6>(source)
    {
        set48(v, HW_SRC, mac);
        layout.hw_src = source;
    }
    if destination != 0
        && let Some(mac) = frame.load::<6>(destination)
    {
        set48(v, HW_DST, mac);
        layout.hw_dst = destination;
    }
}

/// The way along the options.
#[repr(C)]
struct Options {
    at: u32,
    left: u32,
    source: u32,
    destination: u32,
    valid: u32,
}

impl<F: Frame> Step<F> for Options {
    #[inline(always)]
    fn step(&mut self, frame: &F) -> bool {
        if self.left < 8 {
            return false;
        }
        let head = frame.load::<2>(self.at);
        let [kind, units] = head.unwrap_or([0; 2]);
        let bytes = u32::from(units) * 8;
        if bytes == 0 || bytes > self.left {
            return false;
        }
        // A link-layer address of Ethernet makes one unit; the same option twice makes the list wrong, unless the first one was all zeros.
        let place = match kind {
            1 => &mut self.source,
            2 => &mut self.destination,
            _ => &mut 0,
        };
        if bytes == 8 {
            if *place != 0 && frame.load::<6>(*place) != Some([0; 6]) {
                self.valid = 0;
            }
            *place = self.at + 2;
        }
        self.at += bytes;
        self.left -= bytes;
        true
    }
}
