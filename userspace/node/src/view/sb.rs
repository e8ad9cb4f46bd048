//! The Southbound database, with the indexes that decisions need.

use super::{map, optional, text, texts, uuids};
use crate::dataplane::FdbAddress;
use crate::fdb::parse_mac;
use crate::locality::Patches;
use crate::rows::{Chassis, ChassisPrivate, Datapath, Encap, FdbRow, PortBinding, SbGlobal, Uuid};
use crate::vif::Ports;
use oxbow_ovsdb::{AnyColumn, Row, RowChange, TableDef};
use oxbow_schema::sb;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The tables that are watched, every column of each.
pub fn sb_tables() -> [&'static TableDef; 14] {
    [
        sb::sb_global::TABLE,
        sb::chassis::TABLE,
        sb::chassis_private::TABLE,
        sb::encap::TABLE,
        sb::datapath_binding::TABLE,
        sb::port_binding::TABLE,
        sb::logical_flow::TABLE,
        sb::logical_dp_group::TABLE,
        sb::multicast_group::TABLE,
        sb::address_set::TABLE,
        sb::port_group::TABLE,
        sb::fdb::TABLE,
        sb::ha_chassis_group::TABLE,
        sb::ha_chassis::TABLE,
    ]
}

/// What is monitored of them: everything but what nothing here reads, and what is read of single rows ([`crate::stage_names`]). A hypervisor's
/// first port on a switch waits until all rows of the switch have been composed, sent and read: these columns are a quarter of that work, and in a
/// cloud whose CMS writes external_ids of its own into every port more.
pub fn sb_columns() -> impl Iterator<Item = AnyColumn> {
    use sb::{logical_flow as flow, port_binding as port};
    let unread = [
        flow::EXTERNAL_IDS.any(),
        flow::TAGS.any(),
        flow::CONTROLLER_METER.any(),
        flow::FLOW_DESC.any(),
        port::EXTERNAL_IDS.any(),
        port::GATEWAY_CHASSIS.any(),
        port::MIRROR_PORT.any(),
        port::MIRROR_RULES.any(),
        port::NAT_ADDRESSES.any(),
    ];
    sb_tables().into_iter().flat_map(TableDef::all_columns).filter(move |column| !unread.contains(column))
}

/// What a change was about, for those who follow some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SbChange {
    /// A port came, went or changed.
    Port(Uuid),
    /// A datapath's key changed: everything that was derived from the old one is void.
    Rekeyed,
    /// An FDB row.
    Fdb,
    /// Anything else that is kept here.
    Other,
    /// Nothing that is kept here.
    Elsewhere,
}

/// The database.
#[derive(Debug, Default)]
pub struct SbView {
    /// The one row.
    pub global: Option<SbGlobal>,
    /// Chassis.
    pub chassis: BTreeMap<Uuid, Chassis>,
    /// Their private rows.
    pub private: BTreeMap<Uuid, ChassisPrivate>,
    /// Encapsulations.
    pub encaps: BTreeMap<Uuid, Encap>,
    /// Datapaths.
    pub datapaths: HashMap<Uuid, Datapath>,
    /// Ports.
    pub ports: HashMap<Uuid, PortBinding>,
    /// Port security of the ports that have some.
    pub port_security: HashMap<Uuid, BTreeSet<String>>,
    /// FDB rows.
    pub fdb: HashMap<Uuid, FdbRow>,
    by_name: HashMap<String, Uuid>,
    by_parent: HashMap<String, BTreeSet<Uuid>>,
    by_chassis: HashMap<Uuid, BTreeSet<Uuid>>,
    by_datapath: HashMap<Uuid, BTreeSet<Uuid>>,
    gateways: BTreeSet<Uuid>,
    patches: HashMap<Uuid, BTreeSet<Uuid>>,
    fdb_by_address: HashMap<FdbAddress, BTreeSet<Uuid>>,
}

impl SbView {
    /// Follows a change.
    pub fn apply(&mut self, change: &RowChange) -> SbChange {
        let (table, uuid) = (change.table, change.uuid);
        let new = change.new.as_deref();
        if table == sb::port_binding::TABLE {
            self.forget_port(uuid);
            if let Some(row) = new {
                self.put_port(row);
            }
            SbChange::Port(uuid)
        } else if table == sb::datapath_binding::TABLE {
            let key = |row: &Row| row.get(sb::datapath_binding::TUNNEL_KEY);
            match new {
                Some(row) => self.datapaths.insert(uuid, datapath(row)),
                None => self.datapaths.remove(&uuid),
            };
            match (change.old.as_deref(), new) {
                (Some(old), Some(new)) if key(old) != key(new) => SbChange::Rekeyed,
                _ => SbChange::Other,
            }
        } else if table == sb::chassis::TABLE {
            put(&mut self.chassis, uuid, new.map(chassis));
            SbChange::Other
        } else if table == sb::encap::TABLE {
            put(&mut self.encaps, uuid, new.map(encap));
            SbChange::Other
        } else if table == sb::chassis_private::TABLE {
            put(&mut self.private, uuid, new.map(private));
            SbChange::Other
        } else if table == sb::sb_global::TABLE {
            match new {
                Some(row) => self.global = Some(global(row)),
                None if self.global.as_ref().is_some_and(|row| row.uuid == uuid) => self.global = None,
                None => {}
            }
            SbChange::Other
        } else if table == sb::fdb::TABLE {
            if let Some(old) = self.fdb.remove(&uuid)
                && let Some(address) = fdb_address(&old)
                && let Some(rows) = self.fdb_by_address.get_mut(&address)
            {
                rows.remove(&uuid);
                if rows.is_empty() {
                    self.fdb_by_address.remove(&address);
                }
            }
            if let Some(row) = new {
                let row = fdb(row);
                if let Some(address) = fdb_address(&row) {
                    self.fdb_by_address.entry(address).or_default().insert(uuid);
                }
                self.fdb.insert(uuid, row);
            }
            SbChange::Fdb
        } else {
            SbChange::Elsewhere
        }
    }

    fn put_port(&mut self, row: &Row) {
        let port = port(row);
        let uuid = port.uuid;
        self.by_name.insert(port.logical_port.clone(), uuid);
        if let Some(parent) = &port.parent_port {
            self.by_parent.entry(parent.clone()).or_default().insert(uuid);
        }
        for chassis in port.chassis.iter().chain(&port.additional_chassis) {
            self.by_chassis.entry(*chassis).or_default().insert(uuid);
        }
        self.by_datapath.entry(port.datapath).or_default().insert(uuid);
        if matches!(port.kind.as_str(), "l2gateway" | "l3gateway") {
            self.gateways.insert(uuid);
        }
        if matches!(port.kind.as_str(), "patch" | "l3gateway") {
            self.patches.entry(port.datapath).or_default().insert(uuid);
        }
        let security = texts(row, sb::port_binding::PORT_SECURITY);
        if !security.is_empty() {
            self.port_security.insert(uuid, security);
        }
        self.ports.insert(uuid, port);
    }

    fn forget_port(&mut self, uuid: Uuid) {
        let Some(port) = self.ports.remove(&uuid) else { return };
        if self.by_name.get(&port.logical_port) == Some(&uuid) {
            self.by_name.remove(&port.logical_port);
        }
        if let Some(parent) = &port.parent_port {
            unlist(&mut self.by_parent, parent, uuid);
        }
        for chassis in port.chassis.iter().chain(&port.additional_chassis) {
            unlist(&mut self.by_chassis, chassis, uuid);
        }
        unlist(&mut self.by_datapath, &port.datapath, uuid);
        unlist(&mut self.patches, &port.datapath, uuid);
        self.gateways.remove(&uuid);
        self.port_security.remove(&uuid);
    }

    /// Our Chassis row.
    pub fn our_chassis(&self, system_id: &str) -> Option<&Chassis> {
        self.chassis.values().find(|row| row.name == system_id)
    }

    /// Our Chassis_Private row.
    pub fn our_private(&self, system_id: &str) -> Option<&ChassisPrivate> {
        self.private.values().find(|row| row.name == system_id)
    }

    /// Encap rows of a chassis by address.
    pub fn encaps_of(&self, chassis: &Chassis) -> BTreeMap<String, Uuid> {
        let mut rows: Vec<&Encap> = chassis.encaps.iter().filter_map(|uuid| self.encaps.get(uuid)).collect();
        // Of two kinds with one address the preferred one comes last and stays.
        rows.sort_by_key(|row| crate::config::EncapKind::from_name(&row.kind).map(|kind| kind.preference()));
        rows.into_iter().map(|row| (row.ip.clone(), row.uuid)).collect()
    }

    /// Ports of a datapath.
    pub fn ports_of(&self, datapath: Uuid) -> impl Iterator<Item = &PortBinding> {
        self.by_datapath.get(&datapath).into_iter().flatten().filter_map(|uuid| self.ports.get(uuid))
    }

    /// FDB rows of an address.
    pub fn fdb_of(&self, address: &FdbAddress) -> Vec<FdbRow> {
        self.fdb_by_address.get(address).into_iter().flatten().filter_map(|uuid| self.fdb.get(uuid).cloned()).collect()
    }

    /// Every address that the database knows, and the port where it is.
    pub fn fdb_table(&self) -> BTreeMap<FdbAddress, u32> {
        self.fdb.values().filter_map(|row| Some((fdb_address(row)?, row.port_key))).collect()
    }
}

impl Ports for SbView {
    fn by_name(&self, name: &str) -> Option<&PortBinding> {
        self.by_name.get(name).and_then(|uuid| self.ports.get(uuid))
    }

    fn children(&self, parent: &str) -> Vec<&PortBinding> {
        self.by_parent.get(parent).into_iter().flatten().filter_map(|uuid| self.ports.get(uuid)).collect()
    }

    fn bound_to(&self, chassis: Uuid) -> Vec<&PortBinding> {
        self.by_chassis.get(&chassis).into_iter().flatten().filter_map(|uuid| self.ports.get(uuid)).collect()
    }

    fn gateways(&self) -> Vec<&PortBinding> {
        self.gateways.iter().filter_map(|uuid| self.ports.get(uuid)).collect()
    }

    fn datapath_key(&self, datapath: Uuid) -> Option<u32> {
        self.datapaths.get(&datapath).map(|row| row.tunnel_key)
    }
}

impl Patches for SbView {
    fn neighbours(&self, datapath: Uuid) -> Vec<Uuid> {
        self.patches
            .get(&datapath)
            .into_iter()
            .flatten()
            .filter_map(|uuid| self.ports.get(uuid)?.options.get("peer"))
            .filter_map(|peer| self.by_name(peer))
            .map(|peer| peer.datapath)
            .collect()
    }
}

fn put<T>(table: &mut BTreeMap<Uuid, T>, uuid: Uuid, row: Option<T>) {
    match row {
        Some(row) => {
            table.insert(uuid, row);
        }
        None => {
            table.remove(&uuid);
        }
    }
}

fn unlist<K: std::hash::Hash + Eq + Clone>(index: &mut HashMap<K, BTreeSet<Uuid>>, key: &K, uuid: Uuid) {
    if let Some(set) = index.get_mut(key) {
        set.remove(&uuid);
        if set.is_empty() {
            index.remove(key);
        }
    }
}

fn fdb_address(row: &FdbRow) -> Option<FdbAddress> {
    Some(FdbAddress { datapath: row.dp_key, mac: parse_mac(&row.mac)? })
}

/// Keys are 24 bits at most; what is not is no key.
fn key(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn datapath(row: &Row) -> Datapath {
    use sb::datapath_binding as t;
    Datapath { uuid: row.uuid(), tunnel_key: key(row.get(t::TUNNEL_KEY)), external_ids: map(row, t::EXTERNAL_IDS) }
}

fn port(row: &Row) -> PortBinding {
    use sb::port_binding as t;
    PortBinding {
        uuid: row.uuid(),
        logical_port: text(row, t::LOGICAL_PORT),
        kind: text(row, t::TYPE),
        datapath: row.get(t::DATAPATH),
        tunnel_key: key(row.get(t::TUNNEL_KEY)),
        parent_port: optional(row, t::PARENT_PORT).filter(|parent| !parent.is_empty()),
        tag: row.get(t::TAG).and_then(|tag| u16::try_from(tag).ok()),
        virtual_parent: optional(row, t::VIRTUAL_PARENT).filter(|parent| !parent.is_empty()),
        chassis: row.get(t::CHASSIS),
        additional_chassis: uuids(row, t::ADDITIONAL_CHASSIS),
        encap: row.get(t::ENCAP),
        additional_encap: uuids(row, t::ADDITIONAL_ENCAP),
        up: row.get(t::UP),
        options: map(row, t::OPTIONS),
        requested_chassis: row.get(t::REQUESTED_CHASSIS),
        mac: texts(row, t::MAC).into_iter().collect(),
        ha_chassis_group: row.get(t::HA_CHASSIS_GROUP),
    }
}

fn chassis(row: &Row) -> Chassis {
    use sb::chassis as t;
    Chassis {
        uuid: row.uuid(),
        name: text(row, t::NAME),
        hostname: text(row, t::HOSTNAME),
        encaps: uuids(row, t::ENCAPS),
        external_ids: map(row, t::EXTERNAL_IDS),
        other_config: map(row, t::OTHER_CONFIG),
        transport_zones: texts(row, t::TRANSPORT_ZONES),
    }
}

fn encap(row: &Row) -> Encap {
    use sb::encap as t;
    Encap {
        uuid: row.uuid(),
        chassis_name: text(row, t::CHASSIS_NAME),
        kind: text(row, t::TYPE),
        ip: text(row, t::IP),
        options: map(row, t::OPTIONS),
    }
}

fn private(row: &Row) -> ChassisPrivate {
    use sb::chassis_private as t;
    ChassisPrivate {
        uuid: row.uuid(),
        name: text(row, t::NAME),
        chassis: row.get(t::CHASSIS),
        nb_cfg: row.get(t::NB_CFG),
        nb_cfg_timestamp: row.get(t::NB_CFG_TIMESTAMP),
    }
}

fn global(row: &Row) -> SbGlobal {
    use sb::sb_global as t;
    SbGlobal { uuid: row.uuid(), nb_cfg: row.get(t::NB_CFG), options: map(row, t::OPTIONS) }
}

fn fdb(row: &Row) -> FdbRow {
    use sb::fdb as t;
    let has_timestamp = row.columns().any(|(column, _)| column == t::TIMESTAMP.into());
    FdbRow {
        uuid: row.uuid(),
        mac: text(row, t::MAC),
        dp_key: key(row.get(t::DP_KEY)),
        port_key: key(row.get(t::PORT_KEY)),
        timestamp: has_timestamp.then(|| row.get(t::TIMESTAMP)),
    }
}
