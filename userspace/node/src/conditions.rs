//! Monitor conditions: the part of the Southbound database that this chassis asks for (R-58, R-37; as ovn-controller does it).

use crate::locality::Interest;
use oxbow_ovsdb::{Clause, Condition, Function, TableDef};
use oxbow_schema::sb;

/// The conditions for an interest. Tables that are not named are watched whole.
pub fn conditions(interest: &Interest) -> Vec<(&'static TableDef, Condition)> {
    use sb::{chassis_private, fdb, logical_dp_group, logical_flow, multicast_group, port_binding as pb};
    let tables = [
        pb::TABLE,
        logical_flow::TABLE,
        logical_dp_group::TABLE,
        multicast_group::TABLE,
        fdb::TABLE,
        chassis_private::TABLE,
    ];
    if interest.everything {
        let mut all: Vec<_> = tables.into_iter().map(|table| (table, Condition::True)).collect();
        all.retain(|(table, _)| *table != chassis_private::TABLE);
        all.push((chassis_private::TABLE, own_private(interest)));
        return all;
    }
    let datapaths = || interest.datapaths.keys();
    // Gateways are found by what they are, since the datapath behind one is not known before it is.
    let mut ports = vec![
        Clause::equal(pb::TYPE, "patch"),
        Clause::equal(pb::TYPE, "chassisredirect"),
        Clause::equal(pb::TYPE, "external"),
        // Sub-ports of trunks: their parents may be plugged in at any moment.
        Clause::new(pb::PARENT_PORT, Function::NotEqual, None::<&str>),
    ];
    if let Some(chassis) = interest.chassis {
        ports.push(Clause::equal(pb::CHASSIS, Some(chassis)));
        ports.push(Clause::new(pb::ADDITIONAL_CHASSIS, Function::Includes, [chassis]));
        ports.push(Clause::equal(pb::REQUESTED_CHASSIS, Some(chassis)));
        ports.push(Clause::new(pb::REQUESTED_ADDITIONAL_CHASSIS, Function::Includes, [chassis]));
    }
    if let Some(name) = &interest.system_id {
        for option in ["l2gateway-chassis", "l3gateway-chassis"] {
            ports.push(Clause::new(pb::OPTIONS, Function::Includes, [(option, name.as_str())]));
        }
    }
    ports.extend(interest.iface_ids.iter().map(|name| Clause::equal(pb::LOGICAL_PORT, name)));
    ports.extend(datapaths().map(|datapath| Clause::equal(pb::DATAPATH, *datapath)));
    let mut flows: Vec<Clause> =
        datapaths().map(|datapath| Clause::equal(logical_flow::LOGICAL_DATAPATH, Some(datapath))).collect();
    // Flows of datapath groups cannot be chosen by member: everybody gets them.
    flows.push(Clause::new(logical_flow::LOGICAL_DP_GROUP, Function::NotEqual, None::<oxbow_ovsdb::Uuid>));
    let groups = datapaths().map(|datapath| Clause::new(logical_dp_group::DATAPATHS, Function::Includes, [*datapath]));
    let multicast = datapaths().map(|datapath| Clause::equal(multicast_group::DATAPATH, *datapath));
    let learned = interest.datapaths.values().map(|key| Clause::equal(fdb::DP_KEY, i64::from(*key)));
    vec![
        (pb::TABLE, Condition::any(ports)),
        (logical_flow::TABLE, Condition::any(flows)),
        (logical_dp_group::TABLE, Condition::any(groups)),
        (multicast_group::TABLE, Condition::any(multicast)),
        (fdb::TABLE, Condition::any(learned)),
        (chassis_private::TABLE, own_private(interest)),
    ]
}

fn own_private(interest: &Interest) -> Condition {
    use sb::chassis_private as t;
    Condition::any(interest.system_id.iter().map(|name| Clause::equal(t::NAME, name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_ovsdb::Uuid;

    fn clauses(all: &[(&'static TableDef, Condition)], table: &'static TableDef) -> usize {
        match all.iter().find(|(candidate, _)| *candidate == table) {
            Some((_, Condition::Any(clauses))) => clauses.len(),
            Some((_, Condition::False)) => 0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_local_datapaths_are_asked_for_and_trunk_sub_ports_always() {
        let mut interest = Interest { system_id: Some("hv1".into()), ..Default::default() };
        let none = conditions(&interest);
        assert_eq!(clauses(&none, sb::multicast_group::TABLE), 0);
        assert_eq!(clauses(&none, sb::logical_flow::TABLE), 1);
        let base = clauses(&none, sb::port_binding::TABLE);
        interest.datapaths.insert(Uuid::from_u128(1), 5);
        interest.iface_ids.insert("lp".into());
        let some = conditions(&interest);
        assert_eq!(clauses(&some, sb::port_binding::TABLE), base + 2);
        assert_eq!(clauses(&some, sb::fdb::TABLE), 1);
        assert_eq!(clauses(&some, sb::chassis_private::TABLE), 1);
        assert!(format!("{some:?}").contains("Port_Binding.parent_port"));
    }

    #[test]
    fn monitor_all_restricts_nothing_but_what_is_private() {
        let interest = Interest { everything: true, system_id: Some("hv1".into()), ..Default::default() };
        for (table, condition) in conditions(&interest) {
            let whole = condition == Condition::True;
            assert_eq!(whole, table != sb::chassis_private::TABLE, "{}", table.name);
        }
    }
}
