//! Actions of a logical flow, as parsed: every one of ovn-sb(5), Logical_Flow:actions, of 23.03 to 26.03.
//!
//! Actions said to "continue in the next table" do so as if followed by `next;`, in the table after the flow's own.

use crate::constant::Constant;
use crate::context::Pipeline;
use crate::expr::{ConstantSet, Expr, FieldRef};
use std::net::{IpAddr, Ipv4Addr};

/// An action list with what it implies for the match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// In order. Empty: drop.
    pub actions: Vec<Action>,
    /// Prerequisites of the fields and actions used, to be and-ed to the flow's match; not yet annotated.
    pub prerequisites: Option<Expr>,
}

/// A table of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableRef {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Logical_Flow.table_id.
    pub table: u8,
}

/// The conntrack zone of a router that an action works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatZone {
    /// The zone for DNAT, or the port's on a switch; the default.
    Dnat,
    /// The zone for SNAT.
    Snat,
}

/// An address to translate to, with an optional range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatTarget {
    /// The new address.
    pub address: IpAddr,
    /// First and last port; the last is `None` for a single port.
    pub ports: Option<(u16, Option<u16>)>,
}

/// Which translation, in which zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// `ct_dnat`
    Dnat,
    /// `ct_snat`
    Snat,
    /// `ct_dnat_in_czone`: in the zone common to both.
    DnatInCzone,
    /// `ct_snat_in_czone`
    SnatInCzone,
}

/// Which of the load-balancing actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LbKind {
    /// `ct_lb`: flags in ct_label. Deprecated.
    Label,
    /// `ct_lb_mark`: flags in ct_mark.
    Mark,
    /// `ct_lb_mark_local` (26.03): of the backends, those whose port is on this chassis.
    MarkLocal,
}

/// A backend of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The backend's logical port; with [`LbKind::MarkLocal`] only.
    pub logical_port: Option<Box<str>>,
    /// Its address.
    pub address: IpAddr,
    /// Its port, or 0 to leave the port alone.
    pub port: u16,
}

/// What to remember with a load-balanced connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LbFlag {
    /// `skip_snat`
    SkipSnat,
    /// `force_snat`
    ForceSnat,
}

/// `ct_lb`, `ct_lb_mark` and `ct_lb_mark_local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoadBalance {
    /// Which one.
    pub kind: LbKind,
    /// None: un-NAT the connection's packets only.
    pub backends: Vec<Backend>,
    /// Fields to hash, comma-separated OpenFlow names; `None`: the datapath's own hash.
    pub hash_fields: Option<Box<str>>,
    /// What to remember.
    pub flag: Option<LbFlag>,
}

/// `R = select(…)`: chooses one of the members by a hash and stores its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Select {
    /// Where the id goes; at least 16 bits wide.
    pub dst: FieldRef,
    /// (id, weight); at least two, weights at least 1.
    pub members: Vec<(u16, u16)>,
    /// Fields to hash (24.03 and later: `select(values=(…); hash_fields="…")`); `None`: the five-tuple.
    pub hash_fields: Option<Box<str>>,
}

/// Actions that run a list of actions on something other than the packet as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NestKind {
    /// `clone`: on a copy.
    Clone,
    /// `arp`: on an ARP request for the packet's next hop.
    Arp,
    /// `nd_ns`: on a neighbour solicitation.
    NdNs,
    /// `nd_na`: on the neighbour advertisement that answers the packet.
    NdNa,
    /// `nd_na_router`: the same with the router flag.
    NdNaRouter,
    /// `icmp4`: on an ICMPv4 destination unreachable.
    Icmp4,
    /// `icmp4_error`: the same, quoting the original datagram.
    Icmp4Error,
    /// `icmp6`: on an ICMPv6 destination unreachable.
    Icmp6,
    /// `icmp6_error`: the same for an error in the original packet.
    Icmp6Error,
    /// `tcp_reset`: on a TCP RST.
    TcpReset,
    /// `sctp_abort`: on an SCTP ABORT.
    SctpAbort,
    /// `reject`: on whichever of RST and ICMP unreachable suits the packet.
    Reject,
}

impl NestKind {
    /// The action's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NestKind::Clone => "clone",
            NestKind::Arp => "arp",
            NestKind::NdNs => "nd_ns",
            NestKind::NdNa => "nd_na",
            NestKind::NdNaRouter => "nd_na_router",
            NestKind::Icmp4 => "icmp4",
            NestKind::Icmp4Error => "icmp4_error",
            NestKind::Icmp6 => "icmp6",
            NestKind::Icmp6Error => "icmp6_error",
            NestKind::TcpReset => "tcp_reset",
            NestKind::SctpAbort => "sctp_abort",
            NestKind::Reject => "reject",
        }
    }
}

/// Actions that take no argument and store a result in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResultKind {
    /// `dns_lookup`: answers a DNS query from the SB table DNS.
    DnsLookup,
    /// `chk_lb_hairpin`
    ChkLbHairpin,
    /// `chk_lb_hairpin_reply`
    ChkLbHairpinReply,
    /// `check_in_port_sec`
    CheckInPortSec,
    /// `check_out_port_sec`
    CheckOutPortSec,
    /// `chk_ecmp_nh_mac`
    ChkEcmpNhMac,
    /// `chk_ecmp_nh`
    ChkEcmpNh,
    /// `chk_lb_aff`
    ChkLbAff,
    /// `ct_nw_dst` (25.03): original IPv4 destination of the connection, 32 bits.
    CtNwDst,
    /// `ct_ip6_dst` (25.03): original IPv6 destination, 128 bits.
    CtIp6Dst,
    /// `ct_tp_dst` (25.03): original destination port, 16 bits.
    CtTpDst,
    /// `ct_proto` (26.03): original protocol, 8 bits.
    CtProto,
    /// `ct_state_save` (26.03): the low 8 bits of ct_state as they are now.
    CtStateSave,
}

impl ResultKind {
    /// All of them.
    pub const ALL: [ResultKind; 13] = [
        ResultKind::DnsLookup,
        ResultKind::ChkLbHairpin,
        ResultKind::ChkLbHairpinReply,
        ResultKind::CheckInPortSec,
        ResultKind::CheckOutPortSec,
        ResultKind::ChkEcmpNhMac,
        ResultKind::ChkEcmpNh,
        ResultKind::ChkLbAff,
        ResultKind::CtNwDst,
        ResultKind::CtIp6Dst,
        ResultKind::CtTpDst,
        ResultKind::CtProto,
        ResultKind::CtStateSave,
    ];

    /// The action's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ResultKind::DnsLookup => "dns_lookup",
            ResultKind::ChkLbHairpin => "chk_lb_hairpin",
            ResultKind::ChkLbHairpinReply => "chk_lb_hairpin_reply",
            ResultKind::CheckInPortSec => "check_in_port_sec",
            ResultKind::CheckOutPortSec => "check_out_port_sec",
            ResultKind::ChkEcmpNhMac => "chk_ecmp_nh_mac",
            ResultKind::ChkEcmpNh => "chk_ecmp_nh",
            ResultKind::ChkLbAff => "chk_lb_aff",
            ResultKind::CtNwDst => "ct_nw_dst",
            ResultKind::CtIp6Dst => "ct_ip6_dst",
            ResultKind::CtTpDst => "ct_tp_dst",
            ResultKind::CtProto => "ct_proto",
            ResultKind::CtStateSave => "ct_state_save",
        }
    }

    /// Width the destination must have.
    #[must_use]
    pub fn width(self) -> u8 {
        match self {
            ResultKind::CtNwDst => 32,
            ResultKind::CtIp6Dst => 128,
            ResultKind::CtTpDst => 16,
            ResultKind::CtProto | ResultKind::CtStateSave => 8,
            _ => 1,
        }
    }
}

/// An option with its value, as in `put_dhcp_opts(router = 10.0.0.1)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionValue {
    /// The option's name.
    pub name: Box<str>,
    /// Its code: of the DHCP option, or of the neighbour discovery option ([`crate::nd_ra_options`]).
    pub code: u16,
    /// Its type: the type column of DHCP_Options or DHCPv6_Options (`ipv4`, `str`, `uint16`, `host_id`, `static_routes`, …).
    pub kind: Box<str>,
    /// The value or values.
    pub value: ConstantSet,
}

/// Which options `R = put_…_opts(…)` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PutOptsKind {
    /// `put_dhcp_opts`
    Dhcpv4,
    /// `put_dhcpv6_opts`
    Dhcpv6,
    /// `put_nd_ra_opts`
    NdRa,
}

impl PutOptsKind {
    /// The action's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PutOptsKind::Dhcpv4 => "put_dhcp_opts",
            PutOptsKind::Dhcpv6 => "put_dhcpv6_opts",
            PutOptsKind::NdRa => "put_nd_ra_opts",
        }
    }
}

/// Severity of a logged packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogSeverity {
    /// `alert`
    Alert,
    /// `warning`
    Warning,
    /// `notice`
    Notice,
    /// `info`, the default
    Info,
    /// `debug`
    Debug,
}

/// Verdict told in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogVerdict {
    /// `allow`
    Allow,
    /// `drop`
    Drop,
    /// `reject`
    Reject,
    /// `pass` (24.03 and later)
    Pass,
}

/// `log(…)`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    /// Name of the ACL, shorter than 64 bytes.
    pub name: Option<Box<str>>,
    /// How serious.
    pub severity: LogSeverity,
    /// What happened.
    pub verdict: LogVerdict,
    /// Rate limit: a name of the SB table Meter.
    pub meter: Option<Box<str>>,
}

/// Where `sample` takes its observation point from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObsPoint {
    /// A number.
    Id(u32),
    /// `$cookie`: the first 32 bits of the flow's UUID.
    Cookie,
    /// A 32-bit field (25.03).
    Field(FieldRef),
}

/// `sample(…)`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Packets out of 65535; at least 1.
    pub probability: u16,
    /// Flow_Sample_Collector_Set.id.
    pub collector_set: u32,
    /// The most significant 8 bits of the observation domain.
    pub obs_domain: u8,
    /// The observation point.
    pub obs_point: ObsPoint,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4Proto {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

impl L4Proto {
    /// The name in the language.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            L4Proto::Tcp => "tcp",
            L4Proto::Udp => "udp",
            L4Proto::Sctp => "sctp",
        }
    }

    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            L4Proto::Tcp => 6,
            L4Proto::Udp => 17,
            L4Proto::Sctp => 132,
        }
    }
}

/// `commit_lb_aff(…)`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LbAffinity {
    /// The load balancer's address.
    pub vip: IpAddr,
    /// Its port, 0 for none.
    pub vip_port: u16,
    /// The chosen backend's address; same family.
    pub backend: IpAddr,
    /// Its port, 0 for none.
    pub backend_port: u16,
    /// The protocol; `None` exactly when `vip_port` is 0.
    pub proto: Option<L4Proto>,
    /// Seconds.
    pub timeout: u16,
}

/// Which event `trigger_event` raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `empty_lb_backends`: a packet for a VIP without backends. Options `vip`, `protocol`, `load_balancer`.
    EmptyLbBackends,
}

/// An action. Field arguments keep the name they were written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `output;` In ingress: runs the egress pipeline for `outport`, or for each member of the group it names. In egress: delivers.
    Output,
    /// `next;` `next(3);` `next(pipeline=egress, table=2);` Runs a table as a subroutine.
    Next {
        /// The flow's own table, by which the short forms are understood.
        from: TableRef,
        /// The table to run.
        to: TableRef,
    },
    /// `field = constant;` Under a mask only the bits of the mask are set.
    Load {
        /// What is set.
        dst: FieldRef,
        /// An integer no wider than the symbol, or a string.
        value: Constant,
    },
    /// `field1 = field2;`
    Move {
        /// What is set.
        dst: FieldRef,
        /// Same width.
        src: FieldRef,
    },
    /// `field1 <-> field2;`
    Exchange {
        /// One.
        left: FieldRef,
        /// The other, same width.
        right: FieldRef,
    },
    /// `push(field);`
    Push(FieldRef),
    /// `pop(field);`
    Pop(FieldRef),
    /// `ip.ttl--;` Drops the packet when the TTL is 0 or 1.
    DecTtl,
    /// `ct_next;` `ct_next(dnat);` Tracks the packet and continues in the next table.
    CtNext(NatZone),
    /// `ct_commit { … };` The nested actions may set ct_mark and ct_label.
    CtCommit(Vec<Action>),
    /// `ct_commit(ct_mark=…, ct_label=…);` (23.03, gone later). Value and mask of each.
    CtCommitV1 {
        /// ct_mark.
        mark: Option<(u32, u32)>,
        /// ct_label.
        label: Option<(u128, u128)>,
    },
    /// `ct_commit_to_zone(dnat);` (25.03) Commits and continues in the next table.
    CtCommitToZone(NatZone),
    /// `ct_commit_nat;` `ct_commit_nat(snat);` Commits, applies the NAT of the related connection, continues in the next table.
    CtCommitNat(NatZone),
    /// `ct_dnat;` `ct_snat(10.0.0.1,1-3000);` … With a target translates and commits, without undoes; continues in the next table.
    CtNat {
        /// Which one.
        kind: NatKind,
        /// What to translate to.
        target: Option<NatTarget>,
    },
    /// `ct_lb_mark(backends=…);` and its kin. Continues in the next table.
    CtLb(LoadBalance),
    /// `R = select(…);` Continues in the next table.
    Select(Select),
    /// `ct_clear;`
    CtClear,
    /// `ct_snat_to_vip;`
    CtSnatToVip,
    /// `clone { … };`, `arp { … };` and so on.
    Nested {
        /// Which one.
        kind: NestKind,
        /// What to do with the other packet.
        actions: Vec<Action>,
    },
    /// `get_arp(P, A);` Next hop A on port P: sets eth.dst.
    GetArp {
        /// P
        port: FieldRef,
        /// A
        ip: FieldRef,
    },
    /// `put_arp(P, A, E);`
    PutArp {
        /// P
        port: FieldRef,
        /// A
        ip: FieldRef,
        /// E
        mac: FieldRef,
    },
    /// `R = lookup_arp(P, A, M);`
    LookupArp {
        /// R
        dst: FieldRef,
        /// P
        port: FieldRef,
        /// A
        ip: FieldRef,
        /// M
        mac: FieldRef,
    },
    /// `R = lookup_arp_ip(P, A);`
    LookupArpIp {
        /// R
        dst: FieldRef,
        /// P
        port: FieldRef,
        /// A
        ip: FieldRef,
    },
    /// `get_nd(P, A);`
    GetNd {
        /// P
        port: FieldRef,
        /// A
        ip: FieldRef,
    },
    /// `put_nd(P, A, E);`
    PutNd {
        /// P
        port: FieldRef,
        /// A
        ip: FieldRef,
        /// E
        mac: FieldRef,
    },
    /// `R = lookup_nd(P, A, M);`
    LookupNd {
        /// R
        dst: FieldRef,
        /// P
        port: FieldRef,
        /// A
        ip: FieldRef,
        /// M
        mac: FieldRef,
    },
    /// `R = lookup_nd_ip(P, A);`
    LookupNdIp {
        /// R
        dst: FieldRef,
        /// P
        port: FieldRef,
        /// A
        ip: FieldRef,
    },
    /// `R = put_dhcp_opts(…);` and its kin.
    PutOpts {
        /// Which one.
        kind: PutOptsKind,
        /// R
        dst: FieldRef,
        /// The options in order.
        options: Vec<OptionValue>,
    },
    /// `R = dhcp_relay_req_chk(relay, server);` (25.03)
    DhcpRelayReqChk {
        /// R
        dst: FieldRef,
        /// Address of the relay.
        relay: Ipv4Addr,
        /// Address of the server.
        server: Ipv4Addr,
    },
    /// `R = dhcp_relay_resp_chk(relay, server);` (25.03)
    DhcpRelayRespChk {
        /// R
        dst: FieldRef,
        /// Address of the relay.
        relay: Ipv4Addr,
        /// Address of the server.
        server: Ipv4Addr,
    },
    /// `set_queue(n);` 0 to 61440.
    SetQueue(u16),
    /// `log(…);`
    Log(Log),
    /// `set_meter(rate, burst);` in kbit/s and kbit; burst 0 for none.
    SetMeter {
        /// Rate, not 0.
        rate: u64,
        /// Burst.
        burst: u64,
    },
    /// `R = check_pkt_larger(n);`
    CheckPktLarger {
        /// R
        dst: FieldRef,
        /// Bytes.
        length: u16,
    },
    /// `trigger_event(event = "…", …);`
    TriggerEvent {
        /// Which event.
        event: Event,
        /// What is told with it.
        options: Vec<OptionValue>,
    },
    /// `bind_vport("V", P);`
    BindVport {
        /// Name of the virtual port.
        vport: Box<str>,
        /// The port that claims it.
        parent: FieldRef,
    },
    /// `handle_svc_check(P);`
    HandleSvcCheck(FieldRef),
    /// `fwd_group(liveness="true", childports="p1", "p2");` Continues in the next table.
    FwdGroup {
        /// Whether BFD decides which ports count.
        liveness: bool,
        /// The ports.
        child_ports: Vec<Box<str>>,
    },
    /// `handle_dhcpv6_reply;`
    HandleDhcpv6Reply,
    /// `handle_bfd_msg();`
    HandleBfdMsg,
    /// `igmp;`
    Igmp,
    /// `R = chk_lb_hairpin();` and its kin.
    Result {
        /// Which one.
        kind: ResultKind,
        /// R
        dst: FieldRef,
    },
    /// `put_fdb(P, A);`
    PutFdb {
        /// P
        port: FieldRef,
        /// A
        mac: FieldRef,
    },
    /// `P = get_fdb(A);`
    GetFdb {
        /// P, a string or 32 bits.
        dst: FieldRef,
        /// A
        mac: FieldRef,
    },
    /// `P = get_remote_fdb(A);` (26.03)
    GetRemoteFdb {
        /// P, a string or 32 bits.
        dst: FieldRef,
        /// A
        mac: FieldRef,
    },
    /// `R = lookup_fdb(P, A);`
    LookupFdb {
        /// R
        dst: FieldRef,
        /// P
        port: FieldRef,
        /// A
        mac: FieldRef,
    },
    /// `commit_ecmp_nh(ipv6 = true, proto = tcp);`
    CommitEcmpNh {
        /// Family of the traffic.
        ipv6: bool,
        /// Its protocol.
        proto: L4Proto,
    },
    /// `commit_lb_aff(…);`
    CommitLbAff(LbAffinity),
    /// `sample(…);`
    Sample(Sample),
    /// `mac_cache_use;` (24.03)
    MacCacheUse,
    /// `flood_remote;` (25.03)
    FloodRemote,
    /// `mirror("port");` (26.03)
    Mirror(Box<str>),
}
