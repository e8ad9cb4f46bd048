//! Port_Binding rows.

use oxbow_incr::Cx;
use oxbow_ovsdb::{Atom, Datum, Text, ToDatum, Uuid};
use oxbow_schema::nb::logical_switch_port as lsp;
use oxbow_schema::sb::port_binding as pb;
use oxbow_schema::{nb, sb};

use crate::program::{Compiler, Output};
use crate::source::{AllocatedNumber, Allocation, Cell, IndexKey, Members, RawCell, references};
use crate::store::{DesiredRow, Key, RowKey, Value};
use crate::units::datapath::datapath_key;
use crate::units::port::PortType;
use crate::units::read_switch;

/// The row of a port's binding.
pub(crate) fn binding_key(name: &Text) -> RowKey {
    RowKey::new(pb::TABLE, Key::Text(name.clone()))
}

/// Unit `binding`.
pub(crate) fn compute(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(&switch) = cx.read(&Members(IndexKey::SwitchOfPort(key))).first() else { return Output::Empty };
    let Some(name) = cx.read(&Cell(lsp::NAME, key)) else { return Output::Empty };
    let Some(tunnel_key) = cx.read(&AllocatedNumber(Allocation::PortKey, key)) else { return Output::Empty };
    let Some(config) = read_switch(cx, switch) else { return Output::Empty };
    let kind_text = cx.read(&Cell(lsp::TYPE, key)).map_or("", |t| t.as_str());
    let kind = PortType::of(kind_text);
    let mut options: Vec<(Atom, Atom)> =
        cx.read(&Cell(lsp::OPTIONS, key)).map(|o| o.pairs().to_vec()).unwrap_or_default();
    let raw = |cx: &mut Cx<'_, '_, Compiler>, column| cx.read(&RawCell(column, key)).cloned().unwrap_or_default();

    let mut row = DesiredRow { key: binding_key(name), columns: Vec::new() }
        .set(pb::LOGICAL_PORT, name)
        .refs(pb::DATAPATH, vec![datapath_key(switch)])
        .set(pb::TUNNEL_KEY, tunnel_key)
        .value(pb::UP.any(), Value::Initial(false.to_datum()))
        .value(pb::EXTERNAL_IDS.any(), Value::Datum(external_ids(raw(cx, lsp::EXTERNAL_IDS.any()))));

    if kind == PortType::Router {
        let peer = options.iter().find(|(k, _)| *k == Atom::from("router-port")).map(|(_, v)| v.clone());
        options = peer.map(|p| (Atom::from("peer"), p)).into_iter().collect();
        row = row.set(pb::TYPE, "patch").value(pb::OPTIONS.any(), Value::Datum(Datum::map(options)));
        return Output::Rows(vec![row.value(pb::MAC.any(), Value::Datum(raw(cx, lsp::ADDRESSES.any())))]);
    }
    if config.vlan_passthru {
        options.push(("vlan-passthru".into(), "true".into()));
    }
    if let Some(queue) = cx.read(&AllocatedNumber(Allocation::Queue, key)) {
        options.push(("qdisc_queue_id".into(), queue.to_string().as_str().into()));
    }
    let (main, additional) = requested_chassis(cx, key);
    let tag = match cx.read(&AllocatedNumber(Allocation::Tag, key)) {
        Some(tag) => tag.to_datum(),
        None => raw(cx, lsp::TAG.any()),
    };
    let mirrors = references(cx.read(&Cell(lsp::MIRROR_RULES, key)));
    let mut mirror_names = Vec::new();
    for mirror in mirrors {
        if let Some(name) = cx.read(&Cell(nb::mirror::NAME, mirror)) {
            mirror_names.push(RowKey::new(sb::mirror::TABLE, Key::Text(name.clone())));
        }
    }
    // During a migration the controllers note here where the port is active already.
    let options = if kind == PortType::Vif && !additional.is_empty() {
        Value::MapKeeping(Datum::map(options), &["additional-chassis-activated"])
    } else {
        Value::Datum(Datum::map(options))
    };
    row = row
        .set(pb::TYPE, if kind == PortType::Other { "" } else { kind_text })
        .value(pb::OPTIONS.any(), options)
        .value(pb::MAC.any(), Value::Datum(raw(cx, lsp::ADDRESSES.any())))
        .value(pb::PORT_SECURITY.any(), Value::Datum(raw(cx, lsp::PORT_SECURITY.any())))
        .value(pb::PARENT_PORT.any(), Value::Datum(raw(cx, lsp::PARENT_NAME.any())))
        .value(pb::TAG.any(), Value::Datum(tag))
        .value(pb::REQUESTED_CHASSIS.any(), Value::Datum(main.map_or(Datum::Empty, |c| Datum::One(c.into()))))
        .value(
            pb::REQUESTED_ADDITIONAL_CHASSIS.any(),
            Value::Datum(Datum::set(additional.into_iter().map(Atom::from).collect())),
        )
        .refs(pb::MIRROR_RULES, mirror_names);
    Output::Rows(vec![row])
}

/// The port's external_ids, with a `name` taken from Neutron's unless it has one of its own.
fn external_ids(ids: Datum) -> Datum {
    let neutron = ids.pairs().iter().find(|(k, _)| *k == Atom::from("neutron:port_name")).map(|(_, v)| v.clone());
    match neutron {
        Some(Atom::String(name)) if !name.is_empty() && !ids.pairs().iter().any(|(k, _)| *k == Atom::from("name")) => {
            let mut pairs = ids.pairs().to_vec();
            pairs.push(("name".into(), name.into()));
            Datum::map(pairs)
        }
        _ => ids,
    }
}

/// The chassis of `options:requested-chassis` that exist: the first is the main one, the rest are additional.
fn requested_chassis(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> (Option<Uuid>, Vec<Uuid>) {
    let Some(wanted) = cx.read(&Cell(lsp::OPTIONS, key)).and_then(|o| o.get("requested-chassis")) else {
        return (None, Vec::new());
    };
    let mut found: Vec<Uuid> = Vec::new();
    for name in wanted.split(',').filter(|n| !n.is_empty()) {
        let name: Text = name.into();
        let by_name = cx.read(&Members(IndexKey::ChassisByName(name.clone()))).first().copied();
        let chassis = match by_name {
            Some(chassis) => Some(chassis),
            None => cx.read(&Members(IndexKey::ChassisByHostname(name))).first().copied(),
        };
        found.extend(chassis);
    }
    let mut found = found.into_iter();
    (found.next(), found.collect())
}
