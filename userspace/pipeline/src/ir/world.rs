//! The physical world: what logical ports and groups are on this chassis and elsewhere.

use super::{ChassisId, DatapathKey, GroupKey, PortKey};
use std::net::IpAddr;
use std::sync::Arc;

/// Port_Binding.type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// "": a VM's or container's interface; nested when it has a parent.
    #[default]
    Vif,
    /// "localport": there is an instance on every chassis and its packets never leave it.
    Localport,
    /// "localnet": a physical network. Not served yet.
    Localnet,
    /// "l2gateway": a physical network behind one chassis. Not served yet.
    L2Gateway,
    /// "patch" or "l3gateway": the other end is a port of another datapath.
    Patch,
    /// Any other type: not served.
    Other,
}

impl PortKind {
    /// The kind that Port_Binding.type names.
    #[must_use]
    pub fn from_type(text: &str) -> Self {
        match text {
            "" | "virtual" | "external" | "remote" => PortKind::Vif,
            "localport" => PortKind::Localport,
            "localnet" => PortKind::Localnet,
            "l2gateway" => PortKind::L2Gateway,
            "patch" | "l3gateway" => PortKind::Patch,
            _ => PortKind::Other,
        }
    }

    /// Whether packets can be sent to such a port at all.
    #[must_use]
    pub const fn is_served(self) -> bool {
        matches!(self, PortKind::Vif | PortKind::Localport)
    }
}

/// Where a port is, seen from this chassis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Location {
    /// Nowhere that we know.
    #[default]
    Unbound,
    /// On a device of this chassis.
    Local {
        /// Interface index, not 0.
        ifindex: u32,
        /// VLAN id of a nested port, pushed on delivery and popped on entry; else `None`.
        tag: Option<u16>,
    },
    /// On another chassis.
    Remote {
        /// Which.
        chassis: ChassisId,
    },
}

/// A row of Port_Binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalPort {
    /// Its datapath.
    pub datapath: DatapathKey,
    /// Its key there.
    pub key: PortKey,
    /// Port_Binding.logical_port, unique in the database.
    pub name: Arc<str>,
    /// Its type.
    pub kind: PortKind,
    /// Where it is.
    pub location: Location,
    /// Other chassis that it is bound to as well while it migrates (Port_Binding.additional_chassis, and the main one when this
    /// chassis is an additional one), without this chassis; sorted, unique.
    pub additional: Vec<ChassisId>,
    /// Port_Binding.port_security: elements as written.
    pub port_security: Vec<Arc<str>>,
}

/// A row of Multicast_Group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its datapath.
    pub datapath: DatapathKey,
    /// Its key there.
    pub key: GroupKey,
    /// Its name, unique in the datapath.
    pub name: Arc<str>,
    /// Ports; sorted, unique.
    pub members: Vec<PortKey>,
}

/// Encap.type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncapKind {
    /// Geneve with OVN's option.
    Geneve,
    /// VXLAN.
    Vxlan,
}

/// A way to reach a chassis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encap {
    /// Its type.
    pub kind: EncapKind,
    /// Encap.ip.
    pub address: IpAddr,
    /// Encap.options:csum.
    pub checksum: bool,
}

/// Another chassis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chassis {
    /// Its number.
    pub id: ChassisId,
    /// Chassis.name.
    pub name: Arc<str>,
    /// The encapsulation to use towards it, `None` when it offers none that we share.
    pub encap: Option<Encap>,
}
