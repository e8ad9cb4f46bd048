//! From bytes to fields, as strictly and as leniently as Open vSwitch: a header that is short or contradicts itself leaves the fields from
//! there on zero, and the packet walks on with what it has.

use super::fields::Fields;
use crate::ir::Field;

/// Where the headers of a frame are, in bytes from its start. `None`: the frame has no such header, or not a usable one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The 802.1Q header (TPID) of the outer tag.
    pub vlan: Option<usize>,
    /// The Ethernet type that [`Field::EthType`] shows.
    pub eth_type: usize,
    /// IPv4, IPv6 or ARP header.
    pub l3: Option<usize>,
    /// Transport header, in packets that are no later fragments.
    pub l4: Option<usize>,
    /// The first source and the first target link-layer address option of neighbor discovery: the address in it.
    pub nd_sll: Option<usize>,
    /// See `nd_sll`.
    pub nd_tll: Option<usize>,
    /// Whether the ND target was there.
    pub nd_target: Option<usize>,
}

/// Ethernet types.
pub(crate) mod eth {
    pub(crate) const IP4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const RARP: u16 = 0x8035;
    pub(crate) const IP6: u16 = 0x86dd;
    pub(crate) const VLAN: u16 = 0x8100;
    pub(crate) const QINQ: u16 = 0x88a8;
    /// What OpenFlow says of a frame that has a length instead of a type.
    pub(crate) const NONE: u16 = 0x05ff;
}

/// Bit 12 of the TCI: a tag is present.
pub(crate) const VLAN_PRESENT: u16 = 0x1000;

/// The frame is shorter than an Ethernet header (14 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {0} bytes is shorter than an Ethernet header")]
pub struct TooShort(pub usize);

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// `length` bytes from `at`, as a number.
pub(crate) fn number(bytes: &[u8], at: usize, length: usize) -> u128 {
    bytes[at..at + length].iter().fold(0, |n, byte| n << 8 | u128::from(*byte))
}

/// Reads a frame.
///
/// # Errors
/// [`TooShort`]: there is no Ethernet header.
pub fn parse(frame: &[u8]) -> Result<(Fields, Layout), TooShort> {
    if frame.len() < 14 {
        return Err(TooShort(frame.len()));
    }
    let mut parser = Parser { frame, end: frame.len(), fields: Fields::default(), layout: Layout::default() };
    parser.ethernet();
    Ok((parser.fields, parser.layout))
}

struct Parser<'a> {
    frame: &'a [u8],
    /// Where the packet ends according to the headers read so far.
    end: usize,
    fields: Fields,
    layout: Layout,
}

impl Parser<'_> {
    fn set(&mut self, field: Field, at: usize, length: usize) {
        self.fields.set(field, number(self.frame, at, length));
    }

    fn left(&self, at: usize) -> usize {
        self.end.saturating_sub(at)
    }

    fn ethernet(&mut self) {
        self.set(Field::EthDst, 0, 6);
        self.set(Field::EthSrc, 6, 6);
        let mut at = 12;
        // One tag is looked at (Open_vSwitch other_config:vlan-limit, default 1); what it holds is the Ethernet type, another tag or not.
        if matches!(be16(self.frame, at), eth::VLAN | eth::QINQ) && self.left(at) >= 6 {
            self.layout.vlan = Some(at);
            self.fields.set(Field::VlanTci, u128::from(be16(self.frame, at + 2) | VLAN_PRESENT));
            at += 4;
        }
        self.layout.eth_type = at;
        let mut eth_type = be16(self.frame, at);
        at += 2;
        if eth_type < 0x0600 {
            let snap = self.left(at) >= 8 && self.frame[at..at + 6] == [0xaa, 0xaa, 0x03, 0, 0, 0];
            eth_type = if snap { be16(self.frame, at + 6) } else { eth::NONE };
            if eth_type < 0x0600 {
                eth_type = eth::NONE;
            } else {
                self.layout.eth_type = at + 6;
                at += 8;
            }
        }
        self.fields.set(Field::EthType, u128::from(eth_type));
        match eth_type {
            eth::IP4 => self.ip4(at),
            eth::IP6 => self.ip6(at),
            eth::ARP | eth::RARP => self.arp(at),
            _ => {}
        }
    }

    fn arp(&mut self, at: usize) {
        // Ethernet (1) and IPv4 (0x800), lengths 6 and 4.
        if self.left(at) < 28 || self.frame[at..at + 6] != [0, 1, 8, 0, 6, 4] {
            return;
        }
        self.layout.l3 = Some(at);
        let op = be16(self.frame, at + 6);
        // OpenFlow keeps eight bits of the operation.
        self.fields.set(Field::ArpOp, u128::from(if op <= 0xff { op } else { 0 }));
        self.set(Field::ArpSha, at + 8, 6);
        self.set(Field::ArpSpa, at + 14, 4);
        self.set(Field::ArpTha, at + 18, 6);
        self.set(Field::ArpTpa, at + 24, 4);
    }

    fn ip4(&mut self, at: usize) {
        if self.left(at) < 20 {
            return;
        }
        let header = usize::from(self.frame[at] & 0xf) * 4;
        let total = usize::from(be16(self.frame, at + 2));
        if header < 20 || header > self.left(at) || total < header || total > self.left(at) {
            return;
        }
        self.end = at + total;
        self.layout.l3 = Some(at);
        self.set(Field::Ip4Src, at + 12, 4);
        self.set(Field::Ip4Dst, at + 16, 4);
        self.tos(self.frame[at + 1]);
        self.set(Field::IpTtl, at + 8, 1);
        let proto = self.frame[at + 9];
        self.fields.set(Field::IpProto, u128::from(proto));
        let fragment = be16(self.frame, at + 6);
        let later = fragment & 0x1fff != 0;
        if fragment & 0x3fff != 0 {
            self.fields.set(Field::IpFrag, if later { 3 } else { 1 });
        }
        if !later {
            self.transport(at + header, proto, false);
        }
    }

    fn tos(&mut self, tos: u8) {
        self.fields.set(Field::IpDscp, u128::from(tos >> 2));
        self.fields.set(Field::IpEcn, u128::from(tos & 3));
    }

    fn ip6(&mut self, at: usize) {
        if self.left(at) < 40 {
            return;
        }
        let payload = usize::from(be16(self.frame, at + 4));
        if payload + 40 > self.left(at) {
            return;
        }
        self.end = at + 40 + payload;
        self.layout.l3 = Some(at);
        self.set(Field::Ip6Src, at + 8, 16);
        self.set(Field::Ip6Dst, at + 24, 16);
        let Some((l4, proto, fragment)) = self.extension_headers(at + 40, self.frame[at + 6]) else {
            // A chain of extension headers that is cut short: addresses are all that is known.
            return;
        };
        let first_word = number(self.frame, at, 4);
        self.fields.set(Field::Ip6Label, first_word & 0xf_ffff);
        self.tos((first_word >> 20) as u8);
        self.set(Field::IpTtl, at + 7, 1);
        self.fields.set(Field::IpProto, u128::from(proto));
        self.fields.set(Field::IpFrag, u128::from(fragment));
        if fragment & 2 == 0 {
            self.transport(l4, proto, true);
        }
    }

    /// Transport header, its protocol, fragment bits. A later fragment has protocol 44, as in Open vSwitch.
    fn extension_headers(&self, mut at: usize, mut proto: u8) -> Option<(usize, u8, u8)> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION: u8 = 60;
        let mut fragment = 0;
        while matches!(proto, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            if self.left(at) < 8 {
                return None;
            }
            let length = usize::from(self.frame[at + 1]);
            let header = match proto {
                AUTHENTICATION => (length + 2) * 4,
                FRAGMENT => 8,
                _ => (length + 1) * 8,
            };
            if self.left(at) < header {
                return None;
            }
            if proto == FRAGMENT {
                let offset = be16(self.frame, at + 2);
                if offset != 0 {
                    fragment = 1;
                }
                if offset & 0xfff8 != 0 {
                    return Some((at + header, FRAGMENT, 3));
                }
            }
            proto = self.frame[at];
            at += header;
        }
        Some((at, proto, fragment))
    }

    fn transport(&mut self, at: usize, proto: u8, v6: bool) {
        let left = self.left(at);
        let ports = match (proto, v6) {
            (6, _) if left >= 20 => {
                self.fields.set(Field::TcpFlags, u128::from(be16(self.frame, at + 12) & 0xfff));
                Some((Field::TcpSrc, Field::TcpDst))
            }
            (17, _) if left >= 8 => Some((Field::UdpSrc, Field::UdpDst)),
            (132, _) if left >= 12 => Some((Field::SctpSrc, Field::SctpDst)),
            (1, false) if left >= 8 => {
                self.set(Field::Icmp4Type, at, 1);
                self.set(Field::Icmp4Code, at + 1, 1);
                self.layout.l4 = Some(at);
                None
            }
            (58, true) if left >= 8 => {
                self.set(Field::Icmp6Type, at, 1);
                self.set(Field::Icmp6Code, at + 1, 1);
                self.layout.l4 = Some(at);
                if matches!(self.frame[at], 135 | 136) && self.frame[at + 1] == 0 {
                    self.neighbor_discovery(at + 8);
                }
                None
            }
            _ => None,
        };
        if let Some((src, dst)) = ports {
            self.layout.l4 = Some(at);
            self.set(src, at, 2);
            self.set(dst, at + 2, 2);
        }
    }

    /// Target and link-layer addresses. An option given twice makes all of them unknown.
    fn neighbor_discovery(&mut self, target: usize) {
        if self.left(target) < 16 {
            return;
        }
        let mut at = target + 16;
        let (mut sll, mut tll) = (None, None);
        while self.left(at) >= 8 {
            let length = usize::from(self.frame[at + 1]) * 8;
            if length == 0 || length > self.left(at) {
                break;
            }
            let slot = match (self.frame[at], length) {
                (1, 8) => Some(&mut sll),
                (2, 8) => Some(&mut tll),
                _ => None,
            };
            if let Some(slot) = slot {
                // An address of zeros counts as not given yet.
                if slot.is_some_and(|before| number(self.frame, before, 6) != 0) {
                    return;
                }
                *slot = Some(at + 2);
            }
            at += length;
        }
        self.layout.nd_target = Some(target);
        self.set(Field::NdTarget, target, 16);
        if let Some(at) = sll {
            self.set(Field::NdSll, at, 6);
        }
        if let Some(at) = tll {
            self.set(Field::NdTll, at, 6);
        }
        self.layout.nd_sll = sll;
        self.layout.nd_tll = tll;
    }
}
