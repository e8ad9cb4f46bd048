//! The units: one file a kind, each a pure function of what it reads.

pub(crate) mod acl;
mod arp_proxy;
pub(crate) mod binding;
pub(crate) mod copied;
pub(crate) mod datapath;
pub(crate) mod definitions;
pub(crate) mod dhcp;
mod flow_list;
pub(crate) mod global;
pub(crate) mod membership;
pub(crate) mod port;
pub(crate) mod port_flows;
pub(crate) mod port_group;
pub(crate) mod port_status;
pub(crate) mod qos;
pub(crate) mod switch;
pub(crate) mod switch_flows;

use oxbow_incr::Cx;
use oxbow_ovsdb::Uuid;

use crate::program::{Compiler, Output, Unit, UnitKind};

/// The configuration of the whole deployment.
fn read_global(cx: &mut Cx<'_, '_, Compiler>) -> global::Global {
    match &*cx.unit(&Unit::single(UnitKind::Global)) {
        Output::Global(global) => global.clone(),
        _ => global::Global::default(),
    }
}

/// What all chassis can do.
fn read_features(cx: &mut Cx<'_, '_, Compiler>) -> global::Features {
    match &*cx.unit(&Unit::single(UnitKind::Features)) {
        Output::Features(features) => features.clone(),
        _ => global::Features::default(),
    }
}

/// The configuration of a switch; none if there is no such switch.
fn read_switch(cx: &mut Cx<'_, '_, Compiler>, switch: Uuid) -> Option<switch::Switch> {
    match &*cx.unit(&Unit::new(UnitKind::Switch, switch)) {
        Output::Switch(switch) => Some(switch.clone()),
        _ => None,
    }
}

/// The configuration of a port; none if there is no such port in a switch.
fn read_port(cx: &mut Cx<'_, '_, Compiler>, port: Uuid) -> Option<port::Port> {
    match &*cx.unit(&Unit::new(UnitKind::Port, port)) {
        Output::Port(port) => Some((**port).clone()),
        _ => None,
    }
}

/// The first 32 bits of a row's identifier, as stage hints give it; 0 stands for none.
fn hint_of(row: Uuid) -> u32 {
    (row.as_u128() >> 96) as u32
}
