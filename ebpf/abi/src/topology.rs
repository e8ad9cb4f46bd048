//! The physical world as the kernel sees it: where packets enter, what a logical port is on this chassis, who is on the other side.

use crate::op::SUBS;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Stages per pipeline that a datapath may have (OVN 26.03 uses 34).
pub const STAGES: usize = 48;

/// One version of a datapath's stage map.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stages {
    /// First version this holds for; [`crate::rule::NEVER`] = empty slot.
    pub from: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// For each ingress stage the index in `OX_TABLES` of the first table at or after it that can do anything but `next`;
    /// 0 = none: the packet fell off the end of the pipeline.
    pub ingress: [u32; STAGES],
    /// The same for egress.
    pub egress: [u32; STAGES],
    /// Sub-tables (`crate::op::SUB_*`); 0 = none: every check passes.
    pub sub: [u32; SUBS],
    /// Reserved, zero.
    pub reserved2: [u32; 2],
}

/// Map `OX_DATAPATHS`, hash without preallocation. Key: tunnel key of the datapath (`u32`, 24 bits used).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Datapath {
    /// Index into `OX_GUARDS`: version in which anything that is not tied to one port last changed here.
    pub guard: u32,
    /// `DATAPATH_*` flags.
    pub flags: u32,
    /// The two versions.
    pub stages: [Stages; 2],
}

/// [`Datapath::flags`]: a logical router; else a logical switch.
pub const DATAPATH_ROUTER: u32 = 1;

/// Key of map `OX_VIFS`, hash without preallocation: where a frame enters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VifKey {
    /// Interface index of the tap or veth.
    pub ifindex: u32,
    /// VLAN id of a nested port's tag, 0 for the device's own port. A frame whose tag belongs to no nested port is the device's own, tag and all.
    pub vlan: u32,
}

/// Value of map `OX_VIFS`. A device that is attached and has no entry passes nothing ([`crate::reason::Reason::NotProgrammed`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Vif {
    /// Tunnel key of the datapath.
    #[cfg(not(feature = "swapped-layout"))]
    pub datapath: u32,
    /// Tunnel key of the logical port.
    pub port: u32,
    /// Tunnel key of the datapath.
    #[cfg(feature = "swapped-layout")]
    pub datapath: u32,
    /// Index into `OX_GUARDS` of the port.
    pub guard: u32,
    /// `VIF_*` flags.
    pub flags: u32,
    /// Conntrack zone of the port.
    pub zone: u32,
    /// Reserved, zero.
    pub reserved: u32,
}

/// [`Vif::flags`]: the port is a localport: its packets never leave the chassis.
pub const VIF_LOCALPORT: u32 = 1;
/// [`Vif::flags`]: the port is nested: `VifKey::vlan` is popped before the walk and pushed on delivery.
pub const VIF_NESTED: u32 = 2;
/// [`Vif::flags`]: the device has nested ports; look the tag up.
pub const VIF_HAS_NESTED: u32 = 4;

/// Key of map `OX_PORTS`: a logical port (or, in `OX_GROUPS`, a multicast group) of a datapath.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PortKey {
    /// Tunnel key of the datapath.
    pub datapath: u32,
    /// Tunnel key of the port (below [`GROUP_MIN`]) or group.
    pub port: u32,
}

/// Tunnel keys from here on name multicast groups (ovn-sb(5), Multicast_Group).
pub const GROUP_MIN: u32 = 0x8000;

/// [`Port::kind`]: bound to no chassis that we know; packets to it are dropped ([`crate::reason::Reason::PortNotBound`]).
pub const PORT_UNBOUND: u32 = 0;
/// [`Port::kind`]: a VIF of this chassis.
pub const PORT_LOCAL: u32 = 1;
/// [`Port::kind`]: a VIF of another chassis.
pub const PORT_REMOTE: u32 = 2;
/// [`Port::kind`]: a kind of port that this chassis does not serve (localnet in this phase).
pub const PORT_UNSERVED: u32 = 3;

/// Value of map `OX_PORTS`, hash without preallocation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Port {
    /// `PORT_*` kind.
    pub kind: u32,
    /// Local: interface index.
    pub ifindex: u32,
    /// Local: VLAN id to push (nested port), 0 = none.
    pub vlan: u32,
    /// Remote: index into `OX_CHASSIS`.
    pub chassis: u32,
    /// Index into `OX_GUARDS` of the port: raised when its binding or anything tied to it changes.
    pub guard: u32,
    /// `VIF_*` flags.
    pub flags: u32,
    /// Second chassis while the port migrates, 0 = none (index into `OX_CHASSIS`; index 0 is never used).
    pub additional: u32,
    /// Conntrack zone of a local port.
    pub zone: u32,
}

/// Members in one chunk of a group.
pub const CHUNK: usize = 30;
/// Bit of a member that says it is a chassis (index into `OX_CHASSIS`); else it is the tunnel key of a local port.
pub const MEMBER_CHASSIS: u32 = 1 << 31;

/// Key of map `OX_GROUPS`, hash without preallocation.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct ChunkKey {
    /// Tunnel key of the datapath.
    pub datapath: u32,
    /// Tunnel key of the group.
    pub group: u32,
    /// Number of the chunk, from 0, without gaps.
    pub chunk: u32,
}

/// One version of a chunk.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Members {
    /// First version this holds for; [`crate::rule::NEVER`] = empty slot.
    pub from: u32,
    /// How many members are used; a chunk that is not full is the group's last.
    pub count: u32,
    /// Members: local ports and ([`MEMBER_CHASSIS`]) chassis that have members.
    pub member: [u32; CHUNK],
}

/// Value of map `OX_GROUPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Chunk {
    /// The two versions.
    pub members: [Members; 2],
}

/// An IPv4 or IPv6 address in network byte order; IPv4 in the first four bytes, the rest zero; `family` tells.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Address {
    /// The bytes as on the wire.
    pub bytes: [u8; 16],
    /// 4 or 6; 0 = no address.
    pub family: u32,
}

/// [`Chassis::flags`]: fill the outer UDP checksum (`ovn-encap-csum`).
pub const CHASSIS_CSUM: u32 = 1;
/// [`Chassis::flags`]: the next hop's hardware address is known; else packets to it are dropped ([`crate::reason::Reason::NextHopUnresolved`]) and an event asks for it.
pub const CHASSIS_RESOLVED: u32 = 2;
/// [`Chassis::flags`]: VXLAN towards this chassis, else Geneve.
pub const CHASSIS_VXLAN: u32 = 4;
/// [`Chassis::flags`]: copy the inner TOS to the outer header (`ovn-encap-tos=inherit`).
pub const CHASSIS_TOS_INHERIT: u32 = 8;
/// [`Chassis::flags`]: set Don't Fragment on the outer IPv4 header.
pub const CHASSIS_DF: u32 = 16;

/// Map `OX_CHASSIS`, array. Index 0 is never used. Written by user space from the host's routes and neighbours.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Chassis {
    /// `CHASSIS_*` flags.
    #[cfg(not(feature = "swapped-layout"))]
    pub flags: u32,
    /// Underlay device to leave by.
    pub ifindex: u32,
    /// `CHASSIS_*` flags.
    #[cfg(feature = "swapped-layout")]
    pub flags: u32,
    /// Our encapsulation address.
    pub local: Address,
    /// Theirs.
    pub remote: Address,
    /// Hardware address of the next hop, then ours.
    pub mac: [u8; 12],
    /// Largest IP packet the underlay takes, outer headers included.
    pub mtu: u32,
    /// Outer TTL or hop limit.
    pub ttl: u32,
    /// Outer TOS or traffic class, unless inherited.
    pub tos: u32,
    /// Index into `OX_GUARDS`.
    pub guard: u32,
}

/// Key of map `OX_PEERS`, hash: only tunnel frames between these two addresses are decapsulated (value `u32`: index into `OX_CHASSIS`).
/// An entry with an all-zero `remote` (value 0) says that the local address is ours.
///
/// One more entry for each of our encapsulation addresses, with a zero `remote` (family 0) and any value, says that the address is ours: tunnel
/// frames to it from somebody else are dropped ([`crate::reason::Reason::UnknownPeer`]); frames to any other address go on to the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PeerKey {
    /// Our encapsulation address.
    pub local: Address,
    /// The sender's.
    pub remote: Address,
}

/// Geneve destination port.
pub const GENEVE_PORT: u16 = 6081;
/// VXLAN destination port.
pub const VXLAN_PORT: u16 = 4789;
/// Class of OVN's Geneve option.
pub const GENEVE_OVN_CLASS: u16 = 0x0102;
/// Type of OVN's Geneve option, critical bit included.
pub const GENEVE_OVN_TYPE: u8 = 0x80;

const _: () = assert!(size_of::<Members>() == 128);
const _: () = assert!(size_of::<Chassis>() == 76);
