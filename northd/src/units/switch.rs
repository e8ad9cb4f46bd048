//! A logical switch's configuration, and what its ports have in common.

use oxbow_incr::Cx;
use oxbow_ovsdb::Uuid;
use oxbow_schema::nb::logical_switch;

use crate::program::{Compiler, Output};
use crate::source::{AllocatedNumber, Allocation, Cell, IndexKey, Members, PortTrait};

/// The options of a switch that flows depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) vlan_passthru: bool,
    pub(crate) multicast_snooping: bool,
    pub(crate) flood_unregistered: bool,
}

/// Whether some port of a switch has a property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) unknown: bool,
    pub(crate) vtep: bool,
    pub(crate) static_flood: bool,
}

/// Unit `switch`: none while no tunnel key is left for its datapath, for nothing can refer to it then.
pub(crate) fn switch(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(config) = cx.read(&Cell(logical_switch::OTHER_CONFIG, key)) else { return Output::Empty };
    if cx.read(&AllocatedNumber(Allocation::DatapathKey, key)).is_none() {
        return Output::Empty;
    }
    let snooping = config.get_bool("mcast_snoop", false);
    Output::Switch(Switch {
        vlan_passthru: config.get_bool("vlan-passthru", false),
        multicast_snooping: snooping,
        flood_unregistered: snooping && config.get_bool("mcast_flood_unregistered", false),
    })
}

/// Unit `switch-traits`.
pub(crate) fn traits(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let mut some = |t| !cx.read(&Members(IndexKey::PortTrait(key, t))).is_empty();
    Output::Traits(Traits {
        unknown: some(PortTrait::Unknown),
        vtep: some(PortTrait::Vtep),
        static_flood: some(PortTrait::Static),
    })
}
