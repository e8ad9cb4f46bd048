//! The vocabularies: which names each OVN version knows, as data.
//!
//! Sources: ovn-sb(5), Logical_Flow, of 23.03.1, and the vocabulary measured on 26.03.1. What a 24.03 or 25.03 northd writes is
//! a subset of what [`Vocabulary::Accepting`] knows.

use crate::field::Field;
use crate::symbol::SymbolTable;
use std::sync::LazyLock;

/// A set of symbols with their definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vocabulary {
    /// That of OVN 23.03: what the oracle of Debian 12 knows, for comparisons with it.
    V23_03,
    /// That of OVN 26.03.
    V26_03,
    /// Every name of 23.03 to 26.03; where definitions differ, that of 26.03, as its controller would take it. For the node.
    Accepting,
    /// [`Vocabulary::Accepting`] with the ports of TCP, UDP and SCTP taken from the connection instead of the packet, so that ACLs
    /// match later fragments too: for flows whose tag `acl_ct_translation` is `true` (26.03).
    AcceptingAclCt,
}

impl Vocabulary {
    /// All vocabularies.
    pub const ALL: [Vocabulary; 4] =
        [Vocabulary::V23_03, Vocabulary::V26_03, Vocabulary::Accepting, Vocabulary::AcceptingAclCt];

    /// The table of symbols; built at the first call.
    #[must_use]
    pub fn table(self) -> &'static SymbolTable {
        static V23_03: LazyLock<SymbolTable> = LazyLock::new(|| build(Vocabulary::V23_03));
        static V26_03: LazyLock<SymbolTable> = LazyLock::new(|| build(Vocabulary::V26_03));
        static ACCEPTING: LazyLock<SymbolTable> = LazyLock::new(|| build(Vocabulary::Accepting));
        static ACL_CT: LazyLock<SymbolTable> = LazyLock::new(|| build(Vocabulary::AcceptingAclCt));
        match self {
            Vocabulary::V23_03 => &V23_03,
            Vocabulary::V26_03 => &V26_03,
            Vocabulary::Accepting => &ACCEPTING,
            Vocabulary::AcceptingAclCt => &ACL_CT,
        }
    }
}

fn build(vocabulary: Vocabulary) -> SymbolTable {
    let wanted = match vocabulary {
        Vocabulary::V23_03 => IN_23,
        Vocabulary::V26_03 => IN_26,
        Vocabulary::Accepting => IN_UNION,
        Vocabulary::AcceptingAclCt => IN_ACL,
    };
    let entries: Vec<Entry> = ENTRIES.iter().copied().filter(|entry| entry.versions & wanted != 0).collect();
    SymbolTable::build(vocabulary, &entries)
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Definition {
    /// A whole field.
    Field(Field),
    /// Bits of a symbol defined earlier.
    Bits { of: &'static str, low: u8, high: u8 },
    /// An expression.
    Predicate(&'static str),
}

/// A name of a vocabulary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) definition: Definition,
    /// Name of the predicate implied; empty for none.
    pub(crate) prerequisite: &'static str,
    /// Union of the `IN_` constants.
    pub(crate) versions: u8,
}

/// In [`Vocabulary::V23_03`].
const IN_23: u8 = 1;
/// In [`Vocabulary::V26_03`].
const IN_26: u8 = 2;
/// In [`Vocabulary::Accepting`].
const IN_UNION: u8 = 4;
/// In [`Vocabulary::AcceptingAclCt`].
const IN_ACL: u8 = 8;

const ALWAYS: u8 = IN_23 | IN_26 | IN_UNION | IN_ACL;
/// Came after 23.03.
const LATER: u8 = IN_26 | IN_UNION | IN_ACL;
/// Gone by 26.03, still accepted.
const GONE: u8 = IN_23 | IN_UNION | IN_ACL;
/// Redefined after 23.03; the old meaning.
const OLD: u8 = IN_23;
/// Everywhere but in the ACL vocabulary, which has its own definition.
const PACKET: u8 = IN_23 | IN_26 | IN_UNION;

const fn field(versions: u8, name: &'static str, field: Field, prerequisite: &'static str) -> Entry {
    Entry { name, definition: Definition::Field(field), prerequisite, versions }
}

const fn bits(versions: u8, name: &'static str, of: &'static str, low: u8, high: u8) -> Entry {
    Entry { name, definition: Definition::Bits { of, low, high }, prerequisite: "", versions }
}

const fn needing(prerequisite: &'static str, entry: Entry) -> Entry {
    Entry { prerequisite, ..entry }
}

const fn is(versions: u8, name: &'static str, text: &'static str) -> Entry {
    Entry { name, definition: Definition::Predicate(text), prerequisite: "", versions }
}

const ENTRIES: &[Entry] = &[
    field(ALWAYS, "inport", Field::InPort, ""),
    field(ALWAYS, "outport", Field::OutPort, ""),
    field(LATER, "__inport", Field::InPortKey, ""),
    field(LATER, "__outport", Field::OutPortKey, ""),
    is(LATER, "from_evpn_vtep", "__inport[31]"),
    is(LATER, "to_evpn_vtep", "__outport[31]"),
    field(LATER, "remote_outport", Field::RemoteOutPort, ""),
    // Registers: the first of a group is the most significant part of the wider one.
    field(ALWAYS, "xxreg0", Field::XxReg0, ""),
    field(ALWAYS, "xxreg1", Field::XxReg1, ""),
    bits(ALWAYS, "xreg0", "xxreg0", 64, 127),
    bits(ALWAYS, "xreg1", "xxreg0", 0, 63),
    bits(ALWAYS, "xreg2", "xxreg1", 64, 127),
    bits(ALWAYS, "xreg3", "xxreg1", 0, 63),
    field(ALWAYS, "xreg4", Field::XReg4, ""),
    bits(ALWAYS, "reg0", "xxreg0", 96, 127),
    bits(ALWAYS, "reg1", "xxreg0", 64, 95),
    bits(ALWAYS, "reg2", "xxreg0", 32, 63),
    bits(ALWAYS, "reg3", "xxreg0", 0, 31),
    bits(ALWAYS, "reg4", "xxreg1", 96, 127),
    bits(ALWAYS, "reg5", "xxreg1", 64, 95),
    bits(ALWAYS, "reg6", "xxreg1", 32, 63),
    bits(ALWAYS, "reg7", "xxreg1", 0, 31),
    bits(ALWAYS, "reg8", "xreg4", 32, 63),
    bits(ALWAYS, "reg9", "xreg4", 0, 31),
    field(ALWAYS, "flags", Field::Flags, ""),
    bits(ALWAYS, "flags.loopback", "flags", 0, 0),
    bits(ALWAYS, "flags.force_snat_for_dnat", "flags", 2, 2),
    bits(ALWAYS, "flags.force_snat_for_lb", "flags", 3, 3),
    bits(ALWAYS, "flags.skip_snat_for_lb", "flags", 9, 9),
    bits(ALWAYS, "flags.use_snat_zone", "flags", 11, 11),
    bits(LATER, "flags.localnet", "flags", 15, 15),
    bits(LATER, "flags.tunnel_rx", "flags", 16, 16),
    bits(LATER, "flags.icmp_snat", "flags", 17, 17),
    bits(LATER, "flags.from_ctrl", "flags", 19, 19),
    bits(LATER, "flags.unsnat_new", "flags", 20, 20),
    bits(LATER, "flags.unsnat_not_tracked", "flags", 21, 21),
    bits(LATER, "flags.igmp_loopback", "flags", 22, 22),
    bits(LATER, "flags.pkt_sampled", "flags", 23, 23),
    bits(LATER, "flags.network_id", "flags", 28, 31),
    // Connection tracking.
    field(ALWAYS, "ct_mark", Field::CtMark, ""),
    bits(ALWAYS, "ct_mark.blocked", "ct_mark", 0, 0),
    bits(ALWAYS, "ct_mark.natted", "ct_mark", 1, 1),
    bits(ALWAYS, "ct_mark.skip_snat", "ct_mark", 2, 2),
    bits(ALWAYS, "ct_mark.force_snat", "ct_mark", 3, 3),
    bits(LATER, "ct_mark.obs_stage", "ct_mark", 4, 5),
    bits(LATER, "ct_mark.allow_established", "ct_mark", 6, 6),
    bits(ALWAYS, "ct_mark.ecmp_reply_port", "ct_mark", 16, 31),
    bits(LATER, "ct_mark.obs_collector_id", "ct_mark", 16, 23),
    field(ALWAYS, "ct_label", Field::CtLabel, ""),
    bits(GONE, "ct_label.blocked", "ct_label", 0, 0),
    bits(GONE, "ct_label.natted", "ct_label", 1, 1),
    bits(GONE, "ct_label.skip_snat", "ct_label", 2, 2),
    bits(GONE, "ct_label.force_snat", "ct_label", 3, 3),
    bits(LATER, "ct_label.nf", "ct_label", 7, 7),
    bits(LATER, "ct_label.tun_if", "ct_label", 8, 8),
    bits(LATER, "ct_label.nf_id", "ct_label", 17, 24),
    bits(ALWAYS, "ct_label.ecmp_reply_eth", "ct_label", 32, 79),
    bits(GONE, "ct_label.ecmp_reply_port", "ct_label", 80, 95),
    bits(LATER, "ct_label.acl_id", "ct_label", 80, 95),
    bits(LATER, "ct_label.tun_if_id", "ct_label", 80, 95),
    bits(LATER, "ct_label.obs_unused", "ct_label", 0, 95),
    bits(ALWAYS, "ct_label.label", "ct_label", 96, 127),
    bits(LATER, "ct_label.obs_point_id", "ct_label", 96, 127),
    field(ALWAYS, "ct_state", Field::CtState, ""),
    bits(ALWAYS, "ct.trk", "ct_state", 5, 5),
    needing("ct.trk", bits(ALWAYS, "ct.new", "ct_state", 0, 0)),
    needing("ct.trk", bits(ALWAYS, "ct.est", "ct_state", 1, 1)),
    needing("ct.trk", bits(ALWAYS, "ct.rel", "ct_state", 2, 2)),
    needing("ct.trk", bits(ALWAYS, "ct.rpl", "ct_state", 3, 3)),
    needing("ct.trk", bits(ALWAYS, "ct.inv", "ct_state", 4, 4)),
    needing("ct.trk", bits(ALWAYS, "ct.snat", "ct_state", 6, 6)),
    needing("ct.trk", bits(ALWAYS, "ct.dnat", "ct_state", 7, 7)),
    field(IN_ACL, "ct_proto", Field::CtProto, "ct.trk"),
    // Ethernet and VLAN.
    field(ALWAYS, "eth.src", Field::EthSrc, ""),
    field(ALWAYS, "eth.dst", Field::EthDst, ""),
    field(ALWAYS, "eth.type", Field::EthType, ""),
    is(ALWAYS, "eth.bcast", "eth.dst == ff:ff:ff:ff:ff:ff"),
    bits(ALWAYS, "eth.mcast", "eth.dst", 40, 40),
    is(ALWAYS, "eth.mcastv6", "eth.dst[32..47] == 0x3333"),
    field(ALWAYS, "vlan.tci", Field::VlanTci, ""),
    is(ALWAYS, "vlan.present", "vlan.tci[12]"),
    needing("vlan.present", bits(ALWAYS, "vlan.pcp", "vlan.tci", 13, 15)),
    needing("vlan.present", bits(ALWAYS, "vlan.vid", "vlan.tci", 0, 11)),
    // IP.
    is(ALWAYS, "ip4", "eth.type == 0x800"),
    is(ALWAYS, "ip6", "eth.type == 0x86dd"),
    is(ALWAYS, "ip", "ip4 || ip6"),
    field(ALWAYS, "ip.proto", Field::IpProto, "ip"),
    field(ALWAYS, "ip.dscp", Field::IpDscp, "ip"),
    field(ALWAYS, "ip.ecn", Field::IpEcn, "ip"),
    field(ALWAYS, "ip.ttl", Field::IpTtl, "ip"),
    field(ALWAYS, "ip.frag", Field::IpFrag, "ip"),
    is(ALWAYS, "ip.is_frag", "ip.frag[0]"),
    is(ALWAYS, "ip.later_frag", "ip.frag[1]"),
    is(ALWAYS, "ip.first_frag", "ip.is_frag && !ip.later_frag"),
    field(ALWAYS, "ip4.src", Field::Ip4Src, "ip4"),
    field(ALWAYS, "ip4.dst", Field::Ip4Dst, "ip4"),
    is(ALWAYS, "ip4.src_mcast", "ip4.src[28..31] == 0xe"),
    is(ALWAYS, "ip4.mcast", "eth.mcast && ip4.dst[28..31] == 0xe"),
    field(ALWAYS, "ip6.src", Field::Ip6Src, "ip6"),
    field(ALWAYS, "ip6.dst", Field::Ip6Dst, "ip6"),
    field(ALWAYS, "ip6.label", Field::Ip6Label, "ip6"),
    // RFC 4291 section 2.7.1: the reserved multicast addresses ff0X::0.
    is(ALWAYS, "ip6.mcast_rsvd", "ip6.dst[116..127] == 0xff0 && ip6.dst[0..111] == 0"),
    is(ALWAYS, "ip6.mcast_all_nodes", "ip6.dst == ff01::1 || ip6.dst == ff02::1"),
    is(ALWAYS, "ip6.mcast_all_rtrs", "ip6.dst == ff01::2 || ip6.dst == ff02::2 || ip6.dst == ff05::2"),
    is(ALWAYS, "ip6.mcast_sol_node", "ip6.dst == ff02::1:ff00:0/104"),
    is(
        ALWAYS,
        "ip6.mcast_flood",
        "eth.mcastv6 && (ip6.mcast_rsvd || ip6.mcast_all_nodes || ip6.mcast_all_rtrs || ip6.mcast_sol_node)",
    ),
    is(ALWAYS, "ip6.mcast", "eth.mcastv6 && ip6.dst[120..127] == 0xff"),
    // ICMP, IGMP and neighbour discovery.
    is(ALWAYS, "icmp4", "ip4 && ip.proto == 1"),
    field(ALWAYS, "icmp4.type", Field::Icmp4Type, "icmp4"),
    field(ALWAYS, "icmp4.code", Field::Icmp4Code, "icmp4"),
    is(OLD, "igmp", "ip4 && ip.proto == 2"),
    is(LATER, "igmp", "ip4.mcast && ip.proto == 2"),
    is(ALWAYS, "icmp6", "ip6 && ip.proto == 58"),
    field(ALWAYS, "icmp6.type", Field::Icmp6Type, "icmp6"),
    field(ALWAYS, "icmp6.code", Field::Icmp6Code, "icmp6"),
    is(ALWAYS, "icmp", "icmp4 || icmp6"),
    is(ALWAYS, "nd", "icmp6.type == {135, 136} && icmp6.code == 0 && ip.ttl == 255"),
    is(ALWAYS, "nd_ns", "icmp6.type == 135 && icmp6.code == 0 && ip.ttl == 255"),
    is(LATER, "nd_ns_mcast", "ip6.mcast && icmp6.type == 135 && icmp6.code == 0 && ip.ttl == 255"),
    is(ALWAYS, "nd_na", "icmp6.type == 136 && icmp6.code == 0 && ip.ttl == 255"),
    is(ALWAYS, "nd_rs", "icmp6.type == 133 && icmp6.code == 0 && ip.ttl == 255"),
    is(ALWAYS, "nd_ra", "icmp6.type == 134 && icmp6.code == 0 && ip.ttl == 255"),
    field(ALWAYS, "nd.target", Field::NdTarget, "nd"),
    field(ALWAYS, "nd.sll", Field::NdSll, "nd_ns"),
    field(ALWAYS, "nd.tll", Field::NdTll, "nd_na"),
    is(OLD, "mldv1", "ip6.src == fe80::/10 && icmp6.type == {130, 131, 132}"),
    is(LATER, "mldv1", "eth.mcastv6 && ip6.src == fe80::/10 && icmp6.type == {130, 131, 132}"),
    is(OLD, "mldv2", "ip6.dst == ff02::16 && icmp6.type == 143"),
    is(LATER, "mldv2", "eth.mcastv6 && ip6.dst == ff02::16 && icmp6.type == 143"),
    // ARP; RARP has the same layout and so the same fields.
    is(ALWAYS, "arp", "eth.type == 0x806"),
    field(ALWAYS, "arp.op", Field::ArpOp, "arp"),
    field(ALWAYS, "arp.spa", Field::ArpSpa, "arp"),
    field(ALWAYS, "arp.sha", Field::ArpSha, "arp"),
    field(ALWAYS, "arp.tpa", Field::ArpTpa, "arp"),
    field(ALWAYS, "arp.tha", Field::ArpTha, "arp"),
    is(ALWAYS, "rarp", "eth.type == 0x8035"),
    field(ALWAYS, "rarp.op", Field::ArpOp, "rarp"),
    field(ALWAYS, "rarp.spa", Field::ArpSpa, "rarp"),
    field(ALWAYS, "rarp.sha", Field::ArpSha, "rarp"),
    field(ALWAYS, "rarp.tpa", Field::ArpTpa, "rarp"),
    field(ALWAYS, "rarp.tha", Field::ArpTha, "rarp"),
    // Transport.
    is(PACKET, "tcp", "ip.proto == 6"),
    is(IN_ACL, "tcp", "ct.trk && !ct.inv && ct_proto == 6"),
    field(PACKET, "tcp.src", Field::TcpSrc, "tcp"),
    field(IN_ACL, "tcp.src", Field::CtTpSrc, "tcp"),
    field(PACKET, "tcp.dst", Field::TcpDst, "tcp"),
    field(IN_ACL, "tcp.dst", Field::CtTpDst, "tcp"),
    field(ALWAYS, "tcp.flags", Field::TcpFlags, "tcp"),
    is(PACKET, "udp", "ip.proto == 17"),
    is(IN_ACL, "udp", "ct.trk && !ct.inv && ct_proto == 17"),
    field(PACKET, "udp.src", Field::UdpSrc, "udp"),
    field(IN_ACL, "udp.src", Field::CtTpSrc, "udp"),
    field(PACKET, "udp.dst", Field::UdpDst, "udp"),
    field(IN_ACL, "udp.dst", Field::CtTpDst, "udp"),
    is(PACKET, "sctp", "ip.proto == 132"),
    is(IN_ACL, "sctp", "ct.trk && !ct.inv && ct_proto == 132"),
    field(PACKET, "sctp.src", Field::SctpSrc, "sctp"),
    field(IN_ACL, "sctp.src", Field::CtTpSrc, "sctp"),
    field(PACKET, "sctp.dst", Field::SctpDst, "sctp"),
    field(IN_ACL, "sctp.dst", Field::CtTpDst, "sctp"),
    field(ALWAYS, "pkt.mark", Field::PktMark, ""),
    field(ALWAYS, "icmp4.frag_mtu", Field::Icmp4FragMtu, ""),
    field(ALWAYS, "icmp6.frag_mtu", Field::Icmp6FragMtu, ""),
];
