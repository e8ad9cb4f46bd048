//! From fields back to bytes: what changed is written, checksums are updated incrementally (RFC 1624), everything else stays as it came.

use super::fields::Fields;
use super::frame::{Layout, VLAN_PRESENT, be16, eth};
use crate::ir::Field;

/// The frame with the fields of `now` where they differ from `was`. `layout` and `was` are what [`super::frame::parse`] said of `frame`.
#[must_use]
pub fn write_back(frame: &[u8], layout: &Layout, was: &Fields, now: &Fields) -> Vec<u8> {
    let mut writer = Writer { frame: frame.to_vec(), layout, was, now };
    writer.plain(Field::EthDst, 0, 6);
    writer.plain(Field::EthSrc, 6, 6);
    if let Some(l3) = layout.l3 {
        match was.get(Field::EthType) as u16 {
            eth::IP4 => writer.ip4(l3),
            eth::IP6 => writer.ip6(l3),
            eth::ARP | eth::RARP => writer.arp(l3),
            _ => {}
        }
    }
    writer.vlan();
    writer.frame
}

struct Writer<'a> {
    frame: Vec<u8>,
    layout: &'a Layout,
    was: &'a Fields,
    now: &'a Fields,
}

impl Writer<'_> {
    /// New bytes of a field, if it changed.
    fn changed(&self, field: Field, length: usize) -> Option<Vec<u8>> {
        let value = self.now.get(field);
        (value != self.was.get(field)).then(|| value.to_be_bytes()[16 - length..].to_vec())
    }

    fn plain(&mut self, field: Field, at: usize, length: usize) {
        if let Some(bytes) = self.changed(field, length) {
            self.frame[at..at + length].copy_from_slice(&bytes);
        }
    }

    /// Writes bytes and updates the checksums at `sums`. The bytes start and end at even distances from what is summed up.
    fn summed(&mut self, at: usize, bytes: &[u8], sums: &[Sum]) {
        for sum in sums {
            let old = be16(&self.frame, sum.at);
            if sum.zero_is_none && old == 0 {
                continue;
            }
            let mut acc = u32::from(!old);
            for i in (0..bytes.len()).step_by(2) {
                acc += u32::from(!be16(&self.frame, at + i)) + u32::from(be16(bytes, i));
            }
            while acc > 0xffff {
                acc = (acc & 0xffff) + (acc >> 16);
            }
            let mut new = !(acc as u16);
            if sum.zero_is_none && new == 0 {
                new = 0xffff;
            }
            self.frame[sum.at..sum.at + 2].copy_from_slice(&new.to_be_bytes());
        }
        self.frame[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn field(&mut self, field: Field, at: usize, length: usize, sums: &[Sum]) {
        if let Some(bytes) = self.changed(field, length) {
            self.summed(at, &bytes, sums);
        }
    }

    fn tos(&self) -> (u8, bool) {
        let of = |fields: &Fields| (fields.get(Field::IpDscp) << 2 | fields.get(Field::IpEcn)) as u8;
        (of(self.now), of(self.now) != of(self.was))
    }

    fn ip4(&mut self, l3: usize) {
        let header = Sum { at: l3 + 10, zero_is_none: false };
        let (tos, changed) = self.tos();
        if changed {
            let bytes = [self.frame[l3], tos];
            self.summed(l3, &bytes, &[header]);
        }
        if self.now.get(Field::IpTtl) != self.was.get(Field::IpTtl) {
            let bytes = [self.now.get(Field::IpTtl) as u8, self.frame[l3 + 9]];
            self.summed(l3 + 8, &bytes, &[header]);
        }
        let transport = self.transport_sum();
        // ICMP over IPv4 has no pseudo header.
        let pseudo = transport.filter(|_| self.was.get(Field::IpProto) != 1);
        let sums: Vec<Sum> = [Some(header), pseudo].into_iter().flatten().collect();
        self.field(Field::Ip4Src, l3 + 12, 4, &sums);
        self.field(Field::Ip4Dst, l3 + 16, 4, &sums);
        self.transport(transport);
    }

    fn ip6(&mut self, l3: usize) {
        let (tos, changed) = self.tos();
        let label = self.now.get(Field::Ip6Label);
        if changed || label != self.was.get(Field::Ip6Label) {
            let word = 6 << 28 | u32::from(tos) << 20 | label as u32;
            self.frame[l3..l3 + 4].copy_from_slice(&word.to_be_bytes());
        }
        self.plain(Field::IpTtl, l3 + 7, 1);
        let transport = self.transport_sum();
        let sums: Vec<Sum> = transport.into_iter().collect();
        self.field(Field::Ip6Src, l3 + 8, 16, &sums);
        self.field(Field::Ip6Dst, l3 + 24, 16, &sums);
        self.transport(transport);
    }

    fn transport_sum(&self) -> Option<Sum> {
        let l4 = self.layout.l4?;
        let (offset, zero_is_none) = match self.was.get(Field::IpProto) {
            6 => (16, false),
            17 => (6, true),
            1 | 58 => (2, false),
            // SCTP's checksum does not cover addresses and is no sum; nothing changes SCTP ports yet.
            _ => return None,
        };
        Some(Sum { at: l4 + offset, zero_is_none })
    }

    fn transport(&mut self, sum: Option<Sum>) {
        let Some(l4) = self.layout.l4 else { return };
        let sums: Vec<Sum> = sum.into_iter().collect();
        let pair = match self.was.get(Field::IpProto) {
            6 => Some((Field::TcpSrc, Field::TcpDst, 2)),
            17 => Some((Field::UdpSrc, Field::UdpDst, 2)),
            132 => Some((Field::SctpSrc, Field::SctpDst, 2)),
            1 => Some((Field::Icmp4Type, Field::Icmp4Code, 1)),
            58 => Some((Field::Icmp6Type, Field::Icmp6Code, 1)),
            _ => None,
        };
        if let Some((first, second, length)) = pair {
            let changed = [first, second].into_iter().any(|f| self.now.get(f) != self.was.get(f));
            if changed {
                let bytes: Vec<u8> = [first, second]
                    .into_iter()
                    .flat_map(|f| self.now.get(f).to_be_bytes()[16 - length..].to_vec())
                    .collect();
                self.summed(l4, &bytes, &sums);
            }
        }
        for (field, at, length) in [
            (Field::NdTarget, self.layout.nd_target, 16),
            (Field::NdSll, self.layout.nd_sll, 6),
            (Field::NdTll, self.layout.nd_tll, 6),
        ] {
            if let Some(at) = at {
                self.field(field, at, length, &sums);
            }
        }
    }

    fn arp(&mut self, l3: usize) {
        self.plain(Field::ArpOp, l3 + 6, 2);
        self.plain(Field::ArpSha, l3 + 8, 6);
        self.plain(Field::ArpSpa, l3 + 14, 4);
        self.plain(Field::ArpTha, l3 + 18, 6);
        self.plain(Field::ArpTpa, l3 + 24, 4);
    }

    fn vlan(&mut self) {
        let (was, now) = (self.was.get(Field::VlanTci) as u16, self.now.get(Field::VlanTci) as u16);
        if was != now {
            set_tag(&mut self.frame, self.layout.vlan.is_some(), now);
        }
    }
}

/// Makes the outer tag be `tci`: replaced, pushed (as 802.1Q) or, without [`VLAN_PRESENT`], removed. The present bit is not written.
pub(crate) fn set_tag(frame: &mut Vec<u8>, tagged: bool, tci: u16) {
    let bytes = (tci & !VLAN_PRESENT).to_be_bytes();
    match (tagged, tci & VLAN_PRESENT != 0) {
        (true, true) => frame[14..16].copy_from_slice(&bytes),
        (true, false) => drop(frame.drain(12..16)),
        (false, true) => drop(frame.splice(12..12, [0x81, 0x00, bytes[0], bytes[1]])),
        (false, false) => {}
    }
}

/// A checksum field.
#[derive(Clone, Copy)]
struct Sum {
    at: usize,
    /// UDP: 0 means there is none, and is never the sum itself.
    zero_is_none: bool,
}
