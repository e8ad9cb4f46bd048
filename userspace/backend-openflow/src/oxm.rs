//! Fields of the IR as fields of OpenFlow (ovs-fields(7)): names, what they need, how their values are written.

use oxbow_pipeline::ir::{Field, width};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What a packet must be for OpenFlow to have the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// One of these Ethernet types.
    Type(&'static [u16]),
    /// One of these Ethernet types, and the protocol.
    Protocol(&'static [u16], u8),
    /// ICMPv6 with one of these types and code 0.
    Discovery(&'static [u8]),
}

pub(crate) const IP4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const RARP: u16 = 0x8035;
pub(crate) const IP6: u16 = 0x86dd;
pub(crate) const ICMP6: u8 = 58;

const IP: &[u16] = &[IP4, IP6];
const ARPS: &[u16] = &[ARP, RARP];

impl Needs {
    /// Ethernet types that have the field.
    pub(crate) fn types(self) -> Option<&'static [u16]> {
        match self {
            Needs::Nothing => None,
            Needs::Type(types) | Needs::Protocol(types, _) => Some(types),
            Needs::Discovery(_) => Some(&[IP6]),
        }
    }

    /// The protocol that has the field.
    pub(crate) fn protocol(self) -> Option<u8> {
        match self {
            Needs::Nothing | Needs::Type(_) => None,
            Needs::Protocol(_, protocol) => Some(protocol),
            Needs::Discovery(_) => Some(ICMP6),
        }
    }

    /// ICMPv6 types that have the field.
    pub(crate) fn icmp6_types(self) -> Option<&'static [u8]> {
        match self {
            Needs::Discovery(types) => Some(types),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Hex,
    Decimal,
    Mac,
    Ip4,
    Ip6,
}

/// A field of OpenFlow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oxm {
    /// Its name in matches and actions.
    pub(crate) name: &'static str,
    /// Whether single bits can be matched and set.
    pub(crate) maskable: bool,
    /// What it needs.
    pub(crate) needs: Needs,
    format: Format,
}

const fn oxm(name: &'static str, maskable: bool, needs: Needs, format: Format) -> Option<Oxm> {
    Some(Oxm { name, maskable, needs, format })
}

/// The field of OpenFlow that holds it; `None` when there is none that a packet of this phase could have.
pub(crate) fn of(field: Field) -> Option<Oxm> {
    use Format::{Decimal, Hex, Ip4, Ip6, Mac};
    use Needs::{Discovery, Nothing, Protocol, Type};
    match field {
        Field::InPort | Field::InPortKey => oxm("reg14", true, Nothing, Hex),
        Field::OutPort | Field::OutPortKey => oxm("reg15", true, Nothing, Hex),
        Field::XxReg0 => oxm("xxreg0", true, Nothing, Hex),
        Field::XxReg1 => oxm("xxreg1", true, Nothing, Hex),
        Field::XReg4 => oxm("xreg4", true, Nothing, Hex),
        Field::Flags => oxm("reg10", true, Nothing, Hex),
        Field::CtMark => oxm("ct_mark", true, Nothing, Hex),
        Field::CtLabel => oxm("ct_label", true, Nothing, Hex),
        Field::CtState => oxm("ct_state", true, Nothing, Hex),
        Field::EthSrc => oxm("eth_src", true, Nothing, Mac),
        Field::EthDst => oxm("eth_dst", true, Nothing, Mac),
        Field::EthType => oxm("eth_type", false, Nothing, Hex),
        Field::VlanTci => oxm("vlan_tci", true, Nothing, Hex),
        Field::IpProto => oxm("nw_proto", false, Type(IP), Decimal),
        Field::IpDscp => oxm("ip_dscp", false, Type(IP), Decimal),
        Field::IpEcn => oxm("nw_ecn", false, Type(IP), Decimal),
        Field::IpTtl => oxm("nw_ttl", false, Type(IP), Decimal),
        Field::IpFrag => oxm("nw_frag", true, Type(IP), Decimal),
        Field::Ip4Src => oxm("ip_src", true, Type(&[IP4]), Ip4),
        Field::Ip4Dst => oxm("ip_dst", true, Type(&[IP4]), Ip4),
        Field::Ip6Src => oxm("ipv6_src", true, Type(&[IP6]), Ip6),
        Field::Ip6Dst => oxm("ipv6_dst", true, Type(&[IP6]), Ip6),
        Field::Ip6Label => oxm("ipv6_label", true, Type(&[IP6]), Hex),
        Field::Icmp4Type => oxm("icmp_type", false, Protocol(&[IP4], 1), Decimal),
        Field::Icmp4Code => oxm("icmp_code", false, Protocol(&[IP4], 1), Decimal),
        Field::Icmp6Type => oxm("icmpv6_type", false, Protocol(&[IP6], ICMP6), Decimal),
        Field::Icmp6Code => oxm("icmpv6_code", false, Protocol(&[IP6], ICMP6), Decimal),
        Field::ArpOp => oxm("arp_op", false, Type(ARPS), Decimal),
        Field::ArpSpa => oxm("arp_spa", true, Type(ARPS), Ip4),
        Field::ArpSha => oxm("arp_sha", true, Type(ARPS), Mac),
        Field::ArpTpa => oxm("arp_tpa", true, Type(ARPS), Ip4),
        Field::ArpTha => oxm("arp_tha", true, Type(ARPS), Mac),
        Field::NdTarget => oxm("nd_target", true, Discovery(&[135, 136]), Ip6),
        Field::NdSll => oxm("nd_sll", true, Discovery(&[135]), Mac),
        Field::NdTll => oxm("nd_tll", true, Discovery(&[136]), Mac),
        Field::TcpSrc => oxm("tcp_src", true, Protocol(IP, 6), Hex),
        Field::TcpDst => oxm("tcp_dst", true, Protocol(IP, 6), Hex),
        Field::TcpFlags => oxm("tcp_flags", true, Protocol(IP, 6), Hex),
        Field::UdpSrc => oxm("udp_src", true, Protocol(IP, 17), Hex),
        Field::UdpDst => oxm("udp_dst", true, Protocol(IP, 17), Hex),
        Field::SctpSrc => oxm("sctp_src", true, Protocol(IP, 132), Hex),
        Field::SctpDst => oxm("sctp_dst", true, Protocol(IP, 132), Hex),
        Field::PktMark => oxm("pkt_mark", true, Nothing, Hex),
        Field::RemoteOutPort
        | Field::CtProto
        | Field::CtTpSrc
        | Field::CtTpDst
        | Field::Icmp4FragMtu
        | Field::Icmp6FragMtu => None,
    }
}

impl Oxm {
    fn number(self, out: &mut String, value: u128) {
        let written = match self.format {
            Format::Hex => write!(out, "{value:#x}"),
            Format::Decimal => write!(out, "{value}"),
            Format::Mac => write!(out, "{}", oxbow_pipeline::ir::Mac(value as u64)),
            Format::Ip4 => write!(out, "{}", Ipv4Addr::from(value as u32)),
            Format::Ip6 => write!(out, "{}", Ipv6Addr::from(value)),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }

    /// `VALUE` or `VALUE/MASK`.
    pub(crate) fn value(self, out: &mut String, field: Field, value: u128, mask: u128) {
        self.number(out, value & mask);
        if mask != ones(width(field)) {
            out.push('/');
            self.number(out, mask);
        }
    }

    /// `NAME[]`, `NAME[a]` or `NAME[a..b]`.
    pub(crate) fn bits(self, out: &mut String, field: Field, offset: u8, bits: u8) {
        out.push_str(self.name);
        let written = match bits {
            all if all == width(field) => write!(out, "[]"),
            1 => write!(out, "[{offset}]"),
            _ => write!(out, "[{offset}..{}]", offset + bits - 1),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
}

/// The lowest bits set.
pub(crate) const fn ones(width: u8) -> u128 {
    if width >= 128 { u128::MAX } else { (1 << width) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_the_fields_own_notation() {
        let text = |field, value, mask| {
            let mut out = String::new();
            of(field).expect("a field of OpenFlow").value(&mut out, field, value, mask);
            out
        };
        assert_eq!(text(Field::EthDst, 1 << 40, 1 << 40), "01:00:00:00:00:00/01:00:00:00:00:00");
        assert_eq!(text(Field::Ip4Src, 0x0a00_0001, u128::from(u32::MAX)), "10.0.0.1");
        assert_eq!(text(Field::Ip4Src, 0x0a00_0000, 0xff00_0000), "10.0.0.0/255.0.0.0");
        assert_eq!(text(Field::Ip6Dst, 0xff02 << 112, 0xffff << 112), "ff02::/ffff::");
        assert_eq!(text(Field::Flags, 1, 1), "0x1/0x1");
        assert_eq!(text(Field::IpTtl, 255, 255), "255");
    }
}
