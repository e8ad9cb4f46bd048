//! The physical layout: what each OpenFlow table is for and what travels in which register.
//!
//! ```text
//!   0       input: a VIF's or tunnel's number → datapath, inport (a tunnel: outport too)
//!   8..=55  ingress pipeline, stage n at 8 + n
//!  60       output decision, other chassis: a copy to each tunnel, then 61
//!  61       output decision, this chassis: a local port, the local members of a group
//!  62       loopback check; registers are cleared
//!  64..=111 egress pipeline, stage n at 64 + n
//! 112       delivery: the VLAN tag of a nested port, and out
//! 113, 114  learned and confirmed addresses; whether two ports are the same
//! 115..=117 port security: in, in (ARP and neighbor discovery), out
//! 118, 119  neighbor advertisements: made of a solicitation, and what is done with them
//! ```
//!
//! This is the order of ovn-architecture(7), "Architectural Physical Life Cycle of a Packet", with room for the 48 stages of
//! [`oxbow_pipeline::ir::MAX_STAGES`] in each pipeline: ovn-controller's own numbers end at 29 and 24. Registers are as documented there.

use oxbow_pipeline::ir::{MAX_STAGES, Pipeline, Sub};

/// Where packets enter.
pub const INPUT: u8 = 0;
/// Ingress stage 0.
pub const INGRESS: u8 = 8;
/// Copies to other chassis.
pub const REMOTE_OUTPUT: u8 = 60;
/// Copies to ports of this chassis.
pub const LOCAL_OUTPUT: u8 = 61;
/// Not back to where it came from.
pub const LOOPBACK: u8 = 62;
/// Egress stage 0.
pub const EGRESS: u8 = 64;
/// Out of a device.
pub const DELIVERY: u8 = 112;
/// Ethernet addresses by datapath: sets `reg15`.
pub const ADDRESSES: u8 = 113;
/// Sets [`RESULT`] when `reg14` and `reg15` are the same port.
pub const SAME_PORT: u8 = 114;
/// Port security, what a port sends.
pub const PORT_SEC_IN: u8 = 115;
/// Port security, ARP and neighbor discovery that a port sends.
pub const PORT_SEC_IN_ND: u8 = 116;
/// Port security, what a port is sent.
pub const PORT_SEC_OUT: u8 = 117;
/// Makes a neighbor advertisement of a solicitation.
pub const ADVERTISE: u8 = 118;
/// What is done with the advertisement, by `reg11`.
pub const ADVERTISEMENT: u8 = 119;

const _: () = assert!(INGRESS + MAX_STAGES <= REMOTE_OUTPUT && EGRESS + MAX_STAGES <= DELIVERY);

/// The register of the datapath's own flags towards the physical pipeline; its lower half is a conntrack zone.
pub const SCRATCH: &str = "reg12";
/// Bit of [`SCRATCH`]: the packet came by a tunnel, so it does not leave by one.
pub const FROM_TUNNEL: u8 = 31;
/// Bit of [`SCRATCH`]: what a table that was asked says.
pub const RESULT: u8 = 30;
/// Bit of [`SCRATCH`]: the advertisement is a router's.
pub const ROUTER: u8 = 29;
/// The register that says which list [`ADVERTISEMENT`] executes.
pub const LIST: &str = "reg11";

/// `flags.loopback` in `reg10`.
pub const FLAG_LOOPBACK: u8 = 0;
/// `flags.tunnel_rx` in `reg10` (24.03).
pub const FLAG_TUNNEL_RX: u8 = 16;

/// Priority of what is learned, above what the Southbound database confirms.
pub const LEARNED_PRIORITY: u16 = 200;
/// Cookie of learned addresses.
pub const LEARNED_COOKIE: u64 = 0x6f78_6662_6400_0001;
/// Seconds after which a learned address that no packet used is forgotten, as in the eBPF backend.
pub const LEARNED_IDLE: u16 = 300;
/// Learned addresses that a bridge holds at most.
pub const LEARNED_LIMIT: u32 = 16_384;

/// Geneve's option: class, type, length (ovn-architecture(7), "Tunnel Encapsulations").
pub const OPTION: (u16, u8, u8) = (0x102, 0x80, 4);

/// The table of a stage.
#[must_use]
pub const fn stage(pipeline: Pipeline, stage: u8) -> u8 {
    match pipeline {
        Pipeline::Ingress => INGRESS + stage,
        Pipeline::Egress => EGRESS + stage,
    }
}

/// The table of a port security sub-table.
#[must_use]
pub const fn sub(sub: Sub) -> u8 {
    match sub {
        Sub::In => PORT_SEC_IN,
        Sub::InNd => PORT_SEC_IN_ND,
        Sub::Out => PORT_SEC_OUT,
    }
}
