//! Which multicast groups a port is in.

use oxbow_incr::Cx;
use oxbow_ovsdb::Uuid;
use oxbow_schema::nb::logical_switch_port as lsp;

use crate::program::{Compiler, Memberships, Output};
use crate::source::Cell;
use crate::units::datapath::group_key;
use crate::units::port::PortType;
use crate::units::read_port;

/// Unit `membership`.
pub(crate) fn compute(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(port) = read_port(cx, key) else { return Output::Empty };
    let Some(options) = cx.read(&Cell(lsp::OPTIONS, key)) else { return Output::Empty };
    let mut names = Vec::new();
    if port.enabled {
        names.push("_MC_flood");
        if port.kind != PortType::Router {
            names.push("_MC_flood_l2");
        }
        if port.unknown {
            names.push("_MC_unknown");
        }
        if options.get_bool("mcast_flood_reports", false) {
            names.push("_MC_mrouter_flood");
        }
        if options.get_bool("mcast_flood", false) {
            names.push("_MC_static");
        }
    }
    if names.is_empty() {
        return Output::Empty;
    }
    let groups = names.into_iter().map(|name| group_key(port.switch, name)).collect();
    Output::Memberships(Memberships { port: port.name, groups })
}
