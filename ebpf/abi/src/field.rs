//! The field vector: what a packet is while it walks the logical pipeline.
//!
//! Every match reads and every action writes `u32` words of one array of [`WORDS`] words. A field wider than 32 bits takes
//! consecutive words, the most significant first; a 48-bit address takes two words, the upper 16 bits in the first
//! one's low half. Fields that exclude each other by their prerequisites share words (ARP and IPv4 addresses, ARP and ND hardware
//! addresses), as they do in OVS; the compiler therefore always keeps the prerequisite in the key.

/// Number of words in the vector.
pub const WORDS: usize = 48;

/// Logical registers reg0 … reg9, one word each. xxreg0 is reg0‥reg3 with reg0 the most significant, xreg0 is reg0‥reg1.
pub const REG: u8 = 0;
/// Number of logical registers.
pub const REG_COUNT: u8 = 10;
/// Logical flags (`flags.*` of ovn-sb(5)); bit numbers in [`flag`].
pub const FLAGS: u8 = 10;
/// Tunnel key of the logical input port; 0 = none.
pub const INPORT: u8 = 11;
/// Tunnel key of the logical output port or multicast group; 0 = none (`outport == ""`).
pub const OUTPORT: u8 = 12;
/// Connection state bits as ovn-sb(5) names them; bit numbers in [`ct`].
pub const CT_STATE: u8 = 13;
/// Connection mark.
pub const CT_MARK: u8 = 14;
/// Connection label, 128 bits.
pub const CT_LABEL: u8 = 15;
/// Ethernet destination: upper 16 bits, lower 32 bits.
pub const ETH_DST: u8 = 19;
/// Ethernet source: upper 16 bits, lower 32 bits.
pub const ETH_SRC: u8 = 21;
/// VLAN TCI in the upper half (bit 28 = CFI, set means "a tag is present", as in `vlan.present`), `eth.type` in the lower.
pub const ETH_TYPE: u8 = 23;
/// IP protocol << 24 | TOS byte << 16 | TTL or hop limit << 8 | fragment bits ([`FRAG_ANY`], [`FRAG_LATER`]).
pub const IP_META: u8 = 24;
/// IPv6 source (4 words), or in the first word alone the IPv4 source or `arp.spa`.
pub const IP_SRC: u8 = 25;
/// IPv6 destination (4 words), or in the first word alone the IPv4 destination or `arp.tpa`.
pub const IP_DST: u8 = 29;
/// TCP, UDP or SCTP source port << 16 | destination port; ICMP type << 16 | code.
pub const L4: u8 = 33;
/// TCP flags (12 bits).
pub const TCP_FLAGS: u8 = 34;
/// Neighbor discovery target, 4 words.
pub const ND_TARGET: u8 = 35;
/// `arp.sha` or `nd.sll`: upper 16 bits, lower 32 bits.
pub const HW_SRC: u8 = 39;
/// `arp.tha` or `nd.tll`: upper 16 bits, lower 32 bits.
pub const HW_DST: u8 = 41;
/// `arp.op`.
pub const ARP_OP: u8 = 43;
/// IPv6 flow label.
pub const IP6_LABEL: u8 = 44;
/// `pkt.mark`.
pub const PKT_MARK: u8 = 45;
/// Working bits of the program: results of sub-table look-ups; never matched by a logical flow.
pub const RESULT: u8 = 46;
/// Spare; always zero.
pub const SPARE: u8 = 47;

/// Fragment bit: `ip.is_frag`.
pub const FRAG_ANY: u32 = 1;
/// Fragment bit: `ip.later_frag`.
pub const FRAG_LATER: u32 = 2;
/// Bit of the TCI that says a VLAN tag is present (the CFI position, as in OVS and OVN).
pub const VLAN_PRESENT: u32 = 0x1000;

/// Bit numbers of [`FLAGS`]: OVN's logical flags.
pub mod flag {
    /// `flags.loopback`: the packet may leave by the port it came in by.
    pub const LOOPBACK: u32 = 0;
    /// The packet came by a tunnel that carries no logical ports (VXLAN).
    pub const RCV_FROM_RAMP: u32 = 1;
    /// `flags.force_snat_for_dnat`.
    pub const FORCE_SNAT_FOR_DNAT: u32 = 2;
    /// `flags.force_snat_for_lb`.
    pub const FORCE_SNAT_FOR_LB: u32 = 3;
    /// The packet must not leave the chassis (it came from a localport).
    pub const LOCAL_ONLY: u32 = 4;
    /// A nested port's packet goes back to its own device.
    pub const NESTED_CONTAINER: u32 = 5;
    /// `flags.skip_snat_for_lb`.
    pub const SKIP_SNAT_FOR_LB: u32 = 9;
    /// `flags.localport`: the packet came from a localport.
    pub const LOCALPORT: u32 = 10;
    /// `flags.use_snat_zone`.
    pub const USE_SNAT_ZONE: u32 = 11;
    /// The packet came over a tunnel (`flags.tunnel_rx` of later profiles).
    pub const TUNNEL_RX: u32 = 16;
}

/// Bit numbers of [`CT_STATE`] (ovn-sb(5), `ct_state`).
pub mod ct {
    /// `ct.new`
    pub const NEW: u32 = 0;
    /// `ct.est`
    pub const EST: u32 = 1;
    /// `ct.rel`
    pub const REL: u32 = 2;
    /// `ct.rpl`
    pub const RPL: u32 = 3;
    /// `ct.inv`
    pub const INV: u32 = 4;
    /// `ct.trk`
    pub const TRK: u32 = 5;
    /// `ct.snat`
    pub const SNAT: u32 = 6;
    /// `ct.dnat`
    pub const DNAT: u32 = 7;
}
