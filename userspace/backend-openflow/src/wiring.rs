//! How the bridge is wired: the numbers that ovs-vswitchd gave to its ports.

use oxbow_pipeline::ir::{ChassisId, EncapKind};
use std::collections::BTreeMap;

/// Interface.ofport: 1 to 65279 (ovs-vswitchd.conf.db(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfPort(pub u16);

/// A tunnel port of the bridge, with `options:key=flow` and `options:remote_ip` a chassis' encap address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its number.
    pub port: OfPort,
    /// What it carries.
    pub kind: EncapKind,
}

/// All that a bridge's port numbers mean. A port or chassis that is not listed is not reached, and nothing is taken from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// By interface index ([`oxbow_pipeline::ir::Location::Local`]): the bridge's port.
    pub devices: BTreeMap<u32, OfPort>,
    /// By chassis ([`oxbow_pipeline::ir::Location::Remote`]): the bridge's tunnel port towards it.
    pub tunnels: BTreeMap<ChassisId, Tunnel>,
}
