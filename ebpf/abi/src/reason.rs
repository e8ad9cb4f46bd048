//! Why a packet was dropped: one enum for the kernel's verdict, the counters, the events and the text that people read.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $n:literal, $text:literal;)+) => {
        /// Why a packet was dropped. The number indexes `OX_DROPS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name = $n,)+ }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Short name for counters, events and the command line.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The reason with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($n => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// A logical flow without actions (`drop;`) matched.
    LogicalFlow = 1, "logical-flow-drop";
    /// No logical flow of the table matched.
    NoMatch = 2, "no-matching-flow";
    /// The action list ended without `next` or `output`.
    ActionsEnd = 3, "actions-end";
    /// The last stage of a pipeline was passed without output.
    PipelineEnd = 4, "pipeline-end";
    /// The action of the matched flow is not supported; the flow is reported by name.
    UnsupportedAction = 5, "unsupported-action";
    /// The table is closed because a dropping flow's match could not be compiled; the flow is reported by name.
    TableClosed = 6, "table-closed";
    /// The device has no programmed logical port.
    NotProgrammed = 7, "not-programmed";
    /// No policy version is in force yet.
    NoPolicy = 8, "no-policy";
    /// The logical datapath is not known here.
    NoDatapath = 9, "no-datapath";
    /// `output` with an empty outport.
    NoOutport = 10, "no-outport";
    /// The logical output port does not exist here.
    PortUnknown = 11, "port-unknown";
    /// The logical output port is bound to no chassis.
    PortNotBound = 12, "port-not-bound";
    /// A kind of port that is not served (reported).
    PortNotServed = 13, "port-not-served";
    /// The packet would leave by the port it came in by, without `flags.loopback`.
    Loopback = 14, "same-port";
    /// From a localport: must not leave the chassis.
    LocalOnly = 15, "local-only";
    /// The multicast group has no members here.
    GroupEmpty = 16, "group-empty";
    /// More copies than one packet's budget.
    FanOutBudget = 17, "fan-out-budget";
    /// The port's rate of broadcast, unknown and multicast packets is exceeded.
    BumRate = 18, "bum-rate";
    /// The frame is shorter than its headers say.
    Truncated = 19, "truncated";
    /// A header contradicts itself (IP version, header length).
    Malformed = 20, "malformed";
    /// The packet needs more steps than a walk may take.
    WalkLimit = 21, "walk-limit";
    /// The packet could not be rewritten or resized.
    Rewrite = 22, "rewrite-failed";
    /// The next hop towards the chassis has no hardware address yet.
    NextHopUnresolved = 23, "next-hop-unresolved";
    /// The encapsulated packet is larger than the underlay takes.
    TooBig = 24, "too-big-for-underlay";
    /// A tunnel frame from an address that is no chassis of ours.
    UnknownPeer = 25, "unknown-peer";
    /// A tunnel frame whose headers or options are wrong.
    BadTunnelHeader = 26, "bad-tunnel-header";
    /// TTL or hop limit exceeded.
    TtlExceeded = 27, "ttl-exceeded";
    /// `nd_na` on a packet that is no neighbor solicitation.
    NotNeighborSolicit = 28, "not-neighbor-solicit";
    /// A map that must have the entry has not; the programs and user space disagree.
    Inconsistent = 29, "inconsistent-maps";
    /// The device to leave by is gone.
    OutputFailed = 30, "output-failed";
    /// Nested copies deeper than supported.
    CloneDepth = 31, "clone-depth";
}

/// Size of `OX_DROPS`.
pub const REASONS: u32 = 48;
