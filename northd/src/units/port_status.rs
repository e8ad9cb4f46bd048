//! What northd writes back about a port: whether it is up, its tag, its dynamic addresses.

use oxbow_incr::Cx;
use oxbow_ovsdb::{Datum, ToDatum, Uuid};
use oxbow_schema::{nb::logical_switch_port as lsp, sb};

use crate::program::{Compiler, NbColumn, Output};
use crate::source::{AllocatedAddresses, AllocatedNumber, Allocation, Cell, IndexKey, Members};
use crate::units::port::PortType;

/// Whether a port is up: bound to a chassis, and reported up by it if the chassis reports such things. Router ports
/// always are.
pub(crate) fn is_up(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> bool {
    if cx.read(&Cell(lsp::TYPE, key)).is_some_and(|t| PortType::of(t) == PortType::Router) {
        return true;
    }
    let Some(name) = cx.read(&Cell(lsp::NAME, key)) else { return false };
    let Some(&binding) = cx.read(&Members(IndexKey::BindingByPort(name.clone()))).first() else { return false };
    let Some(chassis) = cx.read(&Cell(sb::port_binding::CHASSIS, binding)).flatten() else { return false };
    let notifies = cx
        .read(&Cell(sb::chassis::OTHER_CONFIG, chassis))
        .is_some_and(|config| config.get_bool("port-up-notif", false));
    !notifies || cx.read(&Cell(sb::port_binding::UP, binding)).flatten() == Some(true)
}

/// Unit `port-status`.
pub(crate) fn compute(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    if cx.read(&Members(IndexKey::SwitchOfPort(key))).is_empty() || cx.read(&Cell(lsp::NAME, key)).is_none() {
        return Output::Empty;
    }
    let column = |column, value: Datum| NbColumn { table: lsp::TABLE, row: key, column, value };
    let mut columns = vec![column(lsp::UP.any(), is_up(cx, key).to_datum())];
    if let Some(tag) = cx.read(&AllocatedNumber(Allocation::Tag, key)) {
        columns.push(column(lsp::TAG.any(), tag.to_datum()));
    }
    let addresses = cx.read(&AllocatedAddresses(key)).cloned();
    columns.push(column(lsp::DYNAMIC_ADDRESSES.any(), addresses.map_or(Datum::Empty, |a| Datum::One(a.into()))));
    Output::NbColumns(columns)
}
