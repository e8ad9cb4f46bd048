//! What was decided, as transactions.

use crate::fdb::{FdbWrite, format_mac};
use crate::generation::Report;
use crate::registration::{EncapWrite, Plan};
use crate::rows::{Bridge, Uuid};
use crate::switchd::Work;
use crate::tunnel_ports::TunnelPortWrites;
use crate::vif::{InterfaceWrite, PortWrite};
use crate::zones::ZoneWrites;
use oxbow_ovsdb::{Datum, Transaction};
use oxbow_schema::{ovs, sb};
use std::collections::{BTreeMap, BTreeSet};

/// Port_Binding columns, each write guarded by the chassis that the decision rested on.
pub fn ports(transaction: &mut Transaction, writes: &[PortWrite]) {
    use sb::port_binding as t;
    for write in writes {
        transaction.wait(t::TABLE).row(write.port).value(t::CHASSIS, write.expected_chassis);
        if let Some(write_options) = &write.options {
            transaction.wait(t::TABLE).row(write.port).value(t::OPTIONS, &write_options.expected);
        }
        let mut row = transaction.update(t::TABLE, write.port);
        if let Some(chassis) = write.chassis {
            row = row.set(t::CHASSIS, chassis);
        }
        if let Some(all) = &write.additional_chassis {
            row = row.set(t::ADDITIONAL_CHASSIS, all);
        }
        if let Some(encap) = write.encap {
            row = row.set(t::ENCAP, encap);
        }
        if let Some(all) = &write.additional_encap {
            row = row.set(t::ADDITIONAL_ENCAP, all);
        }
        if let Some(write_options) = &write.options {
            row = row.set(t::OPTIONS, &write_options.options);
        }
        if let Some(up) = write.up {
            row = row.set(t::UP, Some(up));
        }
        if write.clear_virtual_parent {
            row.set_datum(t::VIRTUAL_PARENT.into(), Datum::Empty);
        }
    }
}

/// Interface.external_ids, key by key: clients write the same column.
pub fn interfaces(transaction: &mut Transaction, writes: &[InterfaceWrite]) {
    use ovs::interface as t;
    for write in writes {
        external_ids(transaction, write.interface, &write.set, &write.remove, t::TABLE, t::EXTERNAL_IDS);
    }
}

fn external_ids(
    transaction: &mut Transaction,
    row: Uuid,
    set: &BTreeMap<String, String>,
    remove: &BTreeSet<String>,
    table: &'static oxbow_ovsdb::TableDef,
    column: oxbow_ovsdb::Column<oxbow_ovsdb::Map<oxbow_ovsdb::Text, oxbow_ovsdb::Text>>,
) {
    if set.is_empty() && remove.is_empty() {
        return;
    }
    let mut mutation = transaction.mutate(table, row);
    if !remove.is_empty() {
        mutation = mutation.delete_keys(column, remove);
    }
    if !set.is_empty() {
        mutation.set_keys(column, set);
    }
}

/// Keys of the integration bridge.
pub fn bridge_keys(
    transaction: &mut Transaction,
    bridge: Uuid,
    set: &BTreeMap<String, String>,
    remove: &BTreeSet<String>,
) {
    external_ids(transaction, bridge, set, remove, ovs::bridge::TABLE, ovs::bridge::EXTERNAL_IDS);
}

/// Zones.
pub fn zones(transaction: &mut Transaction, bridge: Uuid, writes: &ZoneWrites) {
    bridge_keys(transaction, bridge, &writes.set, &writes.remove);
}

/// The keys by which a bridge tells the generation that is installed.
pub fn bridge_generation(report: &Report) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("ovn-nb-cfg".to_owned(), report.nb_cfg.to_string()),
        ("ovn-nb-cfg-ts".to_owned(), report.at_ms.to_string()),
    ])
}

/// Chassis_Private's generation.
pub fn private_generation(transaction: &mut Transaction, private: Uuid, report: &Report) {
    use sb::chassis_private as t;
    transaction
        .update(t::TABLE, private)
        .set(t::NB_CFG, report.nb_cfg)
        .set(t::NB_CFG_TIMESTAMP, i64::try_from(report.at_ms).unwrap_or(i64::MAX));
}

/// The integration bridge with its local port.
pub fn make_bridge(transaction: &mut Transaction, switch: Uuid, name: &str, datapath_type: &str, hwaddr: [u8; 6]) {
    let interface = transaction
        .insert(ovs::interface::TABLE)
        .set(ovs::interface::NAME, name)
        .set(ovs::interface::TYPE, "internal")
        .uuid();
    let port =
        transaction.insert(ovs::port::TABLE).set(ovs::port::NAME, name).set(ovs::port::INTERFACES, [interface]).uuid();
    let hwaddr = format_mac(hwaddr);
    let bridge = transaction
        .insert(ovs::bridge::TABLE)
        .set(ovs::bridge::NAME, name)
        .set(ovs::bridge::PORTS, [port])
        .set(ovs::bridge::FAIL_MODE, Some("secure"))
        .set(ovs::bridge::DATAPATH_TYPE, datapath_type)
        .set(ovs::bridge::OTHER_CONFIG, [("disable-in-band", "true"), ("hwaddr", hwaddr.as_str())])
        .uuid();
    transaction.mutate(ovs::open_vswitch::TABLE, switch).insert(ovs::open_vswitch::BRIDGES, [bridge]);
}

/// What an integration bridge that somebody else made lacks; `None` = leave alone.
pub fn adopt_bridge(transaction: &mut Transaction, bridge: Uuid, datapath_type: Option<&str>, fail_mode: Option<&str>) {
    if let Some(kind) = datapath_type {
        transaction.update(ovs::bridge::TABLE, bridge).set(ovs::bridge::DATAPATH_TYPE, kind);
    }
    if let Some(mode) = fail_mode {
        transaction.update(ovs::bridge::TABLE, bridge).set(ovs::bridge::FAIL_MODE, Some(mode));
    }
}

/// Rows of tunnels.
pub fn tunnel_ports(transaction: &mut Transaction, bridge: &Bridge, writes: &TunnelPortWrites) {
    if writes.is_empty() {
        return;
    }
    use ovs::{interface as i, port as p};
    for (interface, options) in &writes.options {
        transaction.update(i::TABLE, *interface).set(i::OPTIONS, options);
    }
    let mut added = Vec::new();
    for port in &writes.add {
        let interface = transaction
            .insert(i::TABLE)
            .set(i::NAME, &port.name)
            .set(i::TYPE, port.kind)
            .set(i::OPTIONS, &port.options)
            .uuid();
        let row = transaction
            .insert(p::TABLE)
            .set(p::NAME, &port.name)
            .set(p::INTERFACES, [interface])
            .set(p::EXTERNAL_IDS, [(crate::tunnel_ports::CHASSIS_KEY, port.id.as_str())]);
        added.push(row.uuid());
    }
    let mut mutation = transaction.mutate(ovs::bridge::TABLE, bridge.uuid);
    if !writes.remove.is_empty() {
        mutation = mutation.delete(ovs::bridge::PORTS, &writes.remove);
    }
    if !added.is_empty() {
        mutation.insert(ovs::bridge::PORTS, &added);
    }
}

/// What ovs-vswitchd would write.
pub fn switch(transaction: &mut Transaction, switch: Uuid, work: &Work) {
    use ovs::interface as t;
    for status in &work.interfaces {
        let mut row = transaction.update(t::TABLE, status.interface);
        if let Some(ofport) = status.ofport {
            row = row.set(t::OFPORT, Some(ofport));
        }
        if let Some(report) = &status.report {
            row = row
                .set(t::ERROR, report.error.as_deref())
                .set(t::ADMIN_STATE, report.admin_state.as_deref())
                .set(t::LINK_STATE, report.link_state.as_deref())
                .set(t::LINK_RESETS, report.link_resets)
                .set(t::LINK_SPEED, report.link_speed)
                .set(t::DUPLEX, report.duplex.as_deref())
                .set(t::MTU, report.mtu)
                .set(t::MAC_IN_USE, report.mac_in_use.as_deref())
                .set(t::IFINDEX, report.ifindex)
                .set(t::STATUS, &report.status)
                .set(t::STATISTICS, &report.statistics);
        }
        if let Some(statistics) = &status.statistics {
            row.set(t::STATISTICS, statistics);
        }
    }
    for status in &work.bridges {
        let mut row = transaction.update(ovs::bridge::TABLE, status.bridge);
        if let Some(id) = &status.datapath_id {
            row = row.set(ovs::bridge::DATAPATH_ID, Some(id));
        }
        if let Some(version) = &status.datapath_version {
            row.set(ovs::bridge::DATAPATH_VERSION, version);
        }
    }
    if work.switch == Default::default() {
        return;
    }
    use ovs::open_vswitch as s;
    let mut row = transaction.update(s::TABLE, switch);
    if let Some(generation) = work.switch.cur_cfg {
        row = row.set(s::CUR_CFG, generation);
    }
    if let Some(version) = &work.switch.ovs_version {
        row = row.set(s::OVS_VERSION, Some(version));
    }
    if let Some(kinds) = &work.switch.iface_types {
        row = row.set(s::IFACE_TYPES, kinds);
    }
    if let Some(kinds) = &work.switch.datapath_types {
        row.set(s::DATAPATH_TYPES, kinds);
    }
}

/// Chassis, Encap and Chassis_Private.
pub fn registration(transaction: &mut Transaction, name: &str, plan: &Plan) {
    use sb::chassis as t;
    for stale in &plan.delete {
        transaction.delete(t::TABLE, *stale);
    }
    for (row, options) in &plan.encap_options {
        transaction.update(sb::encap::TABLE, *row).set(sb::encap::OPTIONS, options);
    }
    let mut encaps = Vec::new();
    for write in plan.encaps.iter().flatten() {
        encaps.push(match write {
            EncapWrite::Keep(row) | EncapWrite::Options(row, _) => *row,
            EncapWrite::Insert(encap) => transaction
                .insert(sb::encap::TABLE)
                .set(sb::encap::TYPE, encap.kind.name())
                .set(sb::encap::IP, encap.ip.to_string())
                .set(sb::encap::CHASSIS_NAME, name)
                .set(sb::encap::OPTIONS, &encap.options)
                .uuid(),
        });
    }
    let chassis = match plan.chassis {
        Some(row) => {
            let mut update = transaction.update(t::TABLE, row);
            if let Some(hostname) = &plan.hostname {
                update = update.set(t::HOSTNAME, hostname);
            }
            if let Some(config) = &plan.other_config {
                update = update.set(t::OTHER_CONFIG, config);
            }
            if let Some(zones) = &plan.transport_zones {
                update = update.set(t::TRANSPORT_ZONES, zones);
            }
            if plan.encaps.is_some() {
                update.set(t::ENCAPS, &encaps);
            }
            row
        }
        None => transaction
            .insert(t::TABLE)
            .set(t::NAME, name)
            .set(t::HOSTNAME, plan.hostname.as_deref().unwrap_or_default())
            .set(t::OTHER_CONFIG, plan.other_config.iter().flatten())
            .set(t::TRANSPORT_ZONES, plan.transport_zones.iter().flatten())
            .set(t::ENCAPS, &encaps)
            .uuid(),
    };
    use sb::chassis_private as p;
    if plan.insert_private {
        transaction.insert(p::TABLE).set(p::NAME, name).set(p::CHASSIS, Some(chassis));
    }
    if let Some(private) = plan.point_private {
        transaction.update(p::TABLE, private).set(p::CHASSIS, Some(chassis));
    }
}

/// Learned addresses; `has_timestamp` says whether the schema has the column.
pub fn fdb(transaction: &mut Transaction, writes: &[FdbWrite], has_timestamp: bool) {
    use sb::fdb as t;
    for write in writes {
        match write {
            FdbWrite::Insert { address, port, at_ms } => {
                let row = transaction
                    .insert(t::TABLE)
                    .set(t::DP_KEY, i64::from(address.datapath))
                    .set(t::MAC, format_mac(address.mac))
                    .set(t::PORT_KEY, i64::from(*port));
                if has_timestamp {
                    row.set(t::TIMESTAMP, *at_ms);
                }
            }
            FdbWrite::Update { row, port, at_ms } => {
                let update = transaction.update(t::TABLE, *row).set(t::PORT_KEY, i64::from(*port));
                if has_timestamp {
                    update.set(t::TIMESTAMP, *at_ms);
                }
            }
            FdbWrite::Delete { row } => transaction.delete(t::TABLE, *row),
        }
    }
}

/// Keys of the integration bridge that are ours: what `exit` removes.
pub fn our_bridge_keys(bridge: &Bridge) -> BTreeSet<String> {
    let ours = |key: &&String| {
        key.starts_with(crate::zones::PREFIX)
            || matches!(key.as_str(), "ovn-startup-ts" | "ovn-nb-cfg" | "ovn-nb-cfg-ts" | "ovn-nb-cfg-sb-ts")
    };
    bridge.external_ids.keys().filter(ours).cloned().collect()
}
