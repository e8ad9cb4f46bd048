//! The fields a logical flow can look at: one per piece of packet or metadata that is matched independently.
//!
//! A *field* is storage (ovn-sb(5) calls it a field symbol that is not a subfield); the many names of the language
//! ([`crate::symbol`]) are views of it. `reg3`, `xreg1` and `xxreg0` are three names of bits of one field,
//! [`Field::XxReg0`]; `ct.new` is bit 0 of [`Field::CtState`]; `rarp.spa` is [`Field::ArpSpa`] under another prerequisite.
//! The normal form ([`crate::normal`]) has at most one dimension per field, so that no two dimensions overlap.

use std::fmt;

/// Level of measurement (ovn-sb(5), Logical_Flow:match): what may be asked of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Equality only, and only in a positive sense; no single bits.
    Nominal,
    /// Two values, 0 and 1: equality and inequality.
    Boolean,
    /// Every bit can be examined by itself: all relations, and subfields.
    Ordinal,
}

impl Level {
    /// OVN's word in error messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Nominal => "nominal",
            Level::Boolean => "Boolean",
            Level::Ordinal => "ordinal",
        }
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $width:literal, $level:ident, $writable:literal;)*) => {
        /// Storage that can be matched or set. Integer values are in host order, the most significant bit of the wire's
        /// representation being the most significant bit of the value; `ip4.src == 10.0.0.1` is `0x0a00_0001`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Field {
            $($(#[$doc])* $variant,)*
        }

        impl Field {
            /// All fields, in the order of their discriminants.
            pub const ALL: &'static [Field] = &[$(Field::$variant,)*];

            /// The name of the symbol that covers the whole field.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)* }
            }

            /// Width in bits, 1 to 128; 0 for the string fields.
            #[must_use]
            pub const fn width(self) -> u8 {
                match self { $(Field::$variant => $width,)* }
            }

            /// What may be asked of the field.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Field::$variant => Level::$level,)* }
            }

            /// Whether some action can assign to it. `ct_mark` and `ct_label` count as writable: inside `ct_commit { … }`.
            #[must_use]
            pub const fn is_writable(self) -> bool {
                match self { $(Field::$variant => $writable,)* }
            }
        }
    };
}

fields! {
    /// Name of the logical input port.
    InPort = "inport", 0, Nominal, true;
    /// Name of the logical output port or multicast group.
    OutPort = "outport", 0, Nominal, true;
    /// Name of the port on the remote side of an EVPN tunnel (26.03); not carried along the pipeline.
    RemoteOutPort = "remote_outport", 0, Nominal, true;
    /// The tunnel key in the register behind `inport` (26.03). Overlays [`Field::InPort`]: same storage, seen as a number.
    InPortKey = "__inport", 32, Ordinal, true;
    /// The tunnel key in the register behind `outport` (26.03). Overlays [`Field::OutPort`].
    OutPortKey = "__outport", 32, Ordinal, true;
    /// Registers 0 to 3; `reg0` in the most significant 32 bits.
    XxReg0 = "xxreg0", 128, Ordinal, true;
    /// Registers 4 to 7; `reg4` in the most significant 32 bits.
    XxReg1 = "xxreg1", 128, Ordinal, true;
    /// Registers 8 and 9; `reg8` in the most significant 32 bits.
    XReg4 = "xreg4", 64, Ordinal, true;
    /// Flags between the stages and towards the physical pipeline; the bits are the `flags.*` symbols.
    Flags = "flags", 32, Ordinal, true;
    /// Mark of the connection; writable in `ct_commit` only.
    CtMark = "ct_mark", 32, Ordinal, true;
    /// Label of the connection; writable in `ct_commit` only.
    CtLabel = "ct_label", 128, Ordinal, true;
    /// Connection tracking state, the bits are the `ct.*` symbols.
    CtState = "ct_state", 32, Ordinal, false;
    /// Protocol of the original direction of the connection (26.03, ACL table only).
    CtProto = "ct_proto", 8, Nominal, false;
    /// Source port of the original direction of the connection (26.03, behind `tcp.src` … of the ACL table).
    CtTpSrc = "ct_tp_src", 16, Ordinal, false;
    /// Destination port of the original direction of the connection (26.03, behind `tcp.dst` … of the ACL table).
    CtTpDst = "ct_tp_dst", 16, Ordinal, false;
    /// Ethernet source.
    EthSrc = "eth.src", 48, Ordinal, true;
    /// Ethernet destination.
    EthDst = "eth.dst", 48, Ordinal, true;
    /// Ethernet type, behind any VLAN tag.
    EthType = "eth.type", 16, Nominal, false;
    /// 802.1Q tag control information of the outer tag, bit 12 set when there is a tag (as OpenFlow has it); 0 without one.
    VlanTci = "vlan.tci", 16, Ordinal, true;
    /// IPv4 protocol or last IPv6 next header.
    IpProto = "ip.proto", 8, Nominal, false;
    /// The upper six bits of the traffic class.
    IpDscp = "ip.dscp", 6, Nominal, true;
    /// The lower two bits of the traffic class.
    IpEcn = "ip.ecn", 2, Nominal, true;
    /// IPv4 TTL or IPv6 hop limit.
    IpTtl = "ip.ttl", 8, Nominal, true;
    /// Bit 0: a fragment; bit 1: not the first fragment.
    IpFrag = "ip.frag", 2, Ordinal, false;
    /// IPv4 source.
    Ip4Src = "ip4.src", 32, Ordinal, true;
    /// IPv4 destination.
    Ip4Dst = "ip4.dst", 32, Ordinal, true;
    /// IPv6 source.
    Ip6Src = "ip6.src", 128, Ordinal, true;
    /// IPv6 destination.
    Ip6Dst = "ip6.dst", 128, Ordinal, true;
    /// IPv6 flow label.
    Ip6Label = "ip6.label", 20, Ordinal, true;
    /// ICMPv4 type.
    Icmp4Type = "icmp4.type", 8, Nominal, true;
    /// ICMPv4 code.
    Icmp4Code = "icmp4.code", 8, Nominal, true;
    /// ICMPv6 type.
    Icmp6Type = "icmp6.type", 8, Nominal, true;
    /// ICMPv6 code.
    Icmp6Code = "icmp6.code", 8, Nominal, true;
    /// ARP or RARP operation.
    ArpOp = "arp.op", 16, Nominal, true;
    /// ARP or RARP sender protocol address.
    ArpSpa = "arp.spa", 32, Ordinal, true;
    /// ARP or RARP sender hardware address.
    ArpSha = "arp.sha", 48, Ordinal, true;
    /// ARP or RARP target protocol address.
    ArpTpa = "arp.tpa", 32, Ordinal, true;
    /// ARP or RARP target hardware address.
    ArpTha = "arp.tha", 48, Ordinal, true;
    /// Target of an IPv6 neighbour solicitation or advertisement.
    NdTarget = "nd.target", 128, Ordinal, true;
    /// Source link-layer address option of a neighbour solicitation.
    NdSll = "nd.sll", 48, Ordinal, true;
    /// Target link-layer address option of a neighbour advertisement.
    NdTll = "nd.tll", 48, Ordinal, true;
    /// TCP source port.
    TcpSrc = "tcp.src", 16, Ordinal, true;
    /// TCP destination port.
    TcpDst = "tcp.dst", 16, Ordinal, true;
    /// TCP flags, the low twelve bits.
    TcpFlags = "tcp.flags", 12, Ordinal, false;
    /// UDP source port.
    UdpSrc = "udp.src", 16, Ordinal, true;
    /// UDP destination port.
    UdpDst = "udp.dst", 16, Ordinal, true;
    /// SCTP source port.
    SctpSrc = "sctp.src", 16, Ordinal, true;
    /// SCTP destination port.
    SctpDst = "sctp.dst", 16, Ordinal, true;
    /// The mark the packet carries inside the host (skb mark).
    PktMark = "pkt.mark", 32, Ordinal, true;
    /// RFC 1191 next-hop MTU of the ICMPv4 error being made. Can be set, never matched.
    Icmp4FragMtu = "icmp4.frag_mtu", 16, Nominal, true;
    /// RFC 4443 MTU of the ICMPv6 Packet Too Big being made. Can be set, never matched.
    Icmp6FragMtu = "icmp6.frag_mtu", 32, Nominal, true;
}

impl Field {
    /// Whether values are port names rather than integers.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.width() == 0
    }

    /// Whether the field exists only as something to assign to, inside an ICMP error action (ovn-sb(5), "ovn_field").
    #[must_use]
    pub const fn is_write_only(self) -> bool {
        matches!(self, Field::Icmp4FragMtu | Field::Icmp6FragMtu)
    }

    /// All ones over the field's width; 0 for string fields.
    #[must_use]
    pub const fn full_mask(self) -> u128 {
        ones(self.width())
    }
}

/// The lowest `width` bits set; `width` is at most 128.
#[must_use]
pub const fn ones(width: u8) -> u128 {
    match width {
        0 => 0,
        128.. => u128::MAX,
        _ => (1u128 << width) - 1,
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
