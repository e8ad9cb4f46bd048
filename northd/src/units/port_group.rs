//! Port groups: a southbound group per switch, and the two address sets of the addresses of their ports.

use std::collections::{BTreeMap, BTreeSet};

use oxbow_incr::Cx;
use oxbow_ovsdb::Uuid;
use oxbow_schema::{nb::port_group as pg, sb};

use crate::address::Printed6;
use crate::program::{Compiler, Output};
use crate::source::{AllocatedNumber, Allocation, Cell, references};
use crate::store::{DesiredRow, Key};
use crate::units::read_port;

/// Unit `port-group`.
pub(crate) fn compute(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(name) = cx.read(&Cell(pg::NAME, key)) else { return Output::Empty };
    let mut by_switch: BTreeMap<Uuid, Vec<_>> = BTreeMap::new();
    let (mut ipv4, mut ipv6) = (BTreeSet::new(), BTreeSet::new());
    for port in references(cx.read(&Cell(pg::PORTS, key))) {
        let Some(port) = read_port(cx, port) else { continue };
        by_switch.entry(port.switch).or_default().push(port.name.clone());
        for addresses in &port.addresses {
            ipv4.extend(addresses.ipv4.iter().map(ToString::to_string));
            ipv6.extend(addresses.ipv6.iter().map(|a| Printed6(*a).to_string()));
        }
    }
    let mut rows = Vec::new();
    for (switch, ports) in by_switch {
        let Some(tunnel_key) = cx.read(&AllocatedNumber(Allocation::DatapathKey, switch)) else { continue };
        let own = format!("{tunnel_key}_{name}");
        rows.push(
            DesiredRow::new(sb::port_group::TABLE, Key::Text(own.as_str().into()))
                .set(sb::port_group::NAME, own)
                .set(sb::port_group::PORTS, ports),
        );
    }
    for (suffix, addresses) in [("ip4", ipv4), ("ip6", ipv6)] {
        let own = format!("{name}_{suffix}");
        rows.push(
            DesiredRow::new(sb::address_set::TABLE, Key::Text(own.as_str().into()))
                .set(sb::address_set::NAME, own)
                .set(sb::address_set::ADDRESSES, addresses),
        );
    }
    Output::Rows(rows)
}
