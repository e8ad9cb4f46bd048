//! The Open_vSwitch database.

use super::{map, optional, text, texts, uuids};
use crate::backend::Numbering;
use crate::link::Links;
use crate::rows::{Bridge, Interface, InterfaceReport, OpenVSwitch, Port, Uuid};
use crate::switchd;
use crate::vif::VifInterface;
use oxbow_ovsdb::{AnyColumn, Row, RowChange};
use oxbow_schema::ovs;
use std::collections::{BTreeMap, HashMap};

/// The columns that are watched.
pub fn ovs_columns() -> Vec<AnyColumn> {
    use ovs::{bridge, interface, open_vswitch, port, ssl};
    let mut columns: Vec<AnyColumn> = vec![
        open_vswitch::BRIDGES.into(),
        open_vswitch::EXTERNAL_IDS.into(),
        open_vswitch::OTHER_CONFIG.into(),
        open_vswitch::NEXT_CFG.into(),
        open_vswitch::CUR_CFG.into(),
        open_vswitch::OVS_VERSION.into(),
        open_vswitch::IFACE_TYPES.into(),
        open_vswitch::DATAPATH_TYPES.into(),
        open_vswitch::SSL.into(),
        bridge::NAME.into(),
        bridge::PORTS.into(),
        bridge::DATAPATH_TYPE.into(),
        bridge::DATAPATH_ID.into(),
        bridge::EXTERNAL_IDS.into(),
        bridge::OTHER_CONFIG.into(),
        bridge::FAIL_MODE.into(),
        port::NAME.into(),
        port::INTERFACES.into(),
        port::EXTERNAL_IDS.into(),
    ];
    columns.extend(ssl::TABLE.all_columns());
    let more: [AnyColumn; 19] = [
        interface::NAME.into(),
        interface::TYPE.into(),
        interface::OPTIONS.into(),
        interface::EXTERNAL_IDS.into(),
        interface::OFPORT.into(),
        interface::OFPORT_REQUEST.into(),
        interface::MAC.into(),
        interface::MTU_REQUEST.into(),
        interface::ERROR.into(),
        interface::ADMIN_STATE.into(),
        interface::LINK_STATE.into(),
        interface::LINK_RESETS.into(),
        interface::LINK_SPEED.into(),
        interface::DUPLEX.into(),
        interface::MTU.into(),
        interface::MAC_IN_USE.into(),
        interface::IFINDEX.into(),
        interface::STATUS.into(),
        interface::STATISTICS.into(),
    ];
    columns.extend(more);
    columns
}

/// Files of the `SSL` table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SslRow {
    /// `private_key`.
    pub private_key: String,
    /// `certificate`.
    pub certificate: String,
    /// `ca_cert`.
    pub ca_cert: String,
    /// `bootstrap_ca_cert`.
    pub bootstrap: bool,
}

/// The database.
#[derive(Debug, Default)]
pub struct OvsView {
    /// The one row.
    pub switch: Option<OpenVSwitch>,
    /// Bridges.
    pub bridges: BTreeMap<Uuid, Bridge>,
    /// Ports.
    pub ports: BTreeMap<Uuid, Port>,
    /// Interfaces.
    pub interfaces: BTreeMap<Uuid, Interface>,
    /// TLS files.
    pub ssl: BTreeMap<Uuid, SslRow>,
    ages: HashMap<Uuid, u64>,
    next_age: u64,
}

impl OvsView {
    /// Follows a change.
    pub fn apply(&mut self, change: &RowChange) {
        let (table, uuid) = (change.table, change.uuid);
        let new = change.new.as_deref();
        if table == ovs::open_vswitch::TABLE {
            match new {
                Some(row) => self.switch = Some(switch(row)),
                None if self.switch.as_ref().is_some_and(|row| row.uuid == uuid) => self.switch = None,
                None => {}
            }
        } else if table == ovs::bridge::TABLE {
            put(&mut self.bridges, uuid, new.map(bridge));
        } else if table == ovs::port::TABLE {
            put(&mut self.ports, uuid, new.map(port));
        } else if table == ovs::interface::TABLE {
            match new {
                Some(_) => {
                    // The order of the first time it named a logical port: that is what "newest" is about.
                    let row = new.map(interface);
                    let had_id = self.interfaces.get(&uuid).and_then(Interface::iface_id).map(str::to_owned);
                    let has_id = row.as_ref().and_then(Interface::iface_id).map(str::to_owned);
                    if has_id != had_id || !self.ages.contains_key(&uuid) {
                        self.next_age += 1;
                        self.ages.insert(uuid, self.next_age);
                    }
                    put(&mut self.interfaces, uuid, row);
                }
                None => {
                    self.ages.remove(&uuid);
                    self.interfaces.remove(&uuid);
                }
            }
        } else if table == ovs::ssl::TABLE {
            put(&mut self.ssl, uuid, new.map(ssl));
        }
    }

    /// Gives the interfaces of a first dump, which come in no order, the ages that their port numbers suggest.
    pub fn settle_ages(&mut self) {
        let mut all: Vec<(Option<i64>, Uuid)> = self.interfaces.values().map(|row| (row.ofport, row.uuid)).collect();
        all.sort();
        for (_, uuid) in all {
            self.next_age += 1;
            self.ages.insert(uuid, self.next_age);
        }
    }

    /// The bridge with this name.
    pub fn bridge(&self, name: &str) -> Option<&Bridge> {
        let switch = self.switch.as_ref()?;
        switch.bridges.iter().filter_map(|uuid| self.bridges.get(uuid)).find(|bridge| bridge.name == name)
    }

    /// TLS files that the database names.
    pub fn ssl_files(&self) -> Option<&SslRow> {
        self.switch.as_ref()?.ssl.and_then(|uuid| self.ssl.get(&uuid))
    }

    /// The interfaces of a bridge.
    pub fn interfaces_of(&self, bridge: &str) -> impl Iterator<Item = &Interface> {
        let ports = self.bridge(bridge).into_iter().flat_map(|bridge| &bridge.ports);
        let ports = ports.filter_map(|uuid| self.ports.get(uuid));
        ports.flat_map(|port| &port.interfaces).filter_map(|uuid| self.interfaces.get(uuid))
    }

    /// The interfaces of a bridge that name a logical port, with the numbers that the dataplane knows them by.
    pub fn vif_interfaces(&self, bridge: &str, links: &Links, numbering: Numbering) -> Vec<VifInterface> {
        let number = |row: &Interface| match numbering {
            Numbering::Ifindex => switchd::serving_device(row, links).map(|link| link.ifindex),
            Numbering::Ofport => row.ofport.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0),
        };
        self.interfaces_of(bridge)
            .filter(|row| row.iface_id().is_some())
            .map(|row| VifInterface {
                ifindex: number(row),
                age: self.ages.get(&row.uuid).copied().unwrap_or(0),
                row: row.clone(),
            })
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

fn switch(row: &Row) -> OpenVSwitch {
    use ovs::open_vswitch as t;
    OpenVSwitch {
        uuid: row.uuid(),
        external_ids: map(row, t::EXTERNAL_IDS),
        other_config: map(row, t::OTHER_CONFIG),
        bridges: uuids(row, t::BRIDGES),
        next_cfg: row.get(t::NEXT_CFG),
        cur_cfg: row.get(t::CUR_CFG),
        ovs_version: optional(row, t::OVS_VERSION),
        iface_types: texts(row, t::IFACE_TYPES),
        datapath_types: texts(row, t::DATAPATH_TYPES),
        ssl: row.get(t::SSL),
    }
}

fn bridge(row: &Row) -> Bridge {
    use ovs::bridge as t;
    Bridge {
        uuid: row.uuid(),
        name: text(row, t::NAME),
        ports: uuids(row, t::PORTS),
        datapath_type: text(row, t::DATAPATH_TYPE),
        datapath_id: optional(row, t::DATAPATH_ID),
        external_ids: map(row, t::EXTERNAL_IDS),
        other_config: map(row, t::OTHER_CONFIG),
        fail_mode: optional(row, t::FAIL_MODE),
    }
}

fn port(row: &Row) -> Port {
    use ovs::port as t;
    Port {
        uuid: row.uuid(),
        name: text(row, t::NAME),
        interfaces: uuids(row, t::INTERFACES),
        external_ids: map(row, t::EXTERNAL_IDS),
    }
}

fn interface(row: &Row) -> Interface {
    use ovs::interface as t;
    Interface {
        uuid: row.uuid(),
        name: text(row, t::NAME),
        kind: text(row, t::TYPE),
        options: map(row, t::OPTIONS),
        external_ids: map(row, t::EXTERNAL_IDS),
        ofport: row.get(t::OFPORT),
        ofport_request: row.get(t::OFPORT_REQUEST),
        mac: optional(row, t::MAC),
        mtu_request: row.get(t::MTU_REQUEST),
        report: InterfaceReport {
            error: optional(row, t::ERROR),
            admin_state: optional(row, t::ADMIN_STATE),
            link_state: optional(row, t::LINK_STATE),
            link_resets: row.get(t::LINK_RESETS),
            link_speed: row.get(t::LINK_SPEED),
            duplex: optional(row, t::DUPLEX),
            mtu: row.get(t::MTU),
            mac_in_use: optional(row, t::MAC_IN_USE),
            ifindex: row.get(t::IFINDEX),
            status: map(row, t::STATUS),
            statistics: row.get(t::STATISTICS).iter().map(|(key, value)| (key.as_str().to_owned(), value)).collect(),
        },
    }
}

fn ssl(row: &Row) -> SslRow {
    use ovs::ssl as t;
    SslRow {
        private_key: text(row, t::PRIVATE_KEY),
        certificate: text(row, t::CERTIFICATE),
        ca_cert: text(row, t::CA_CERT),
        bootstrap: row.get(t::BOOTSTRAP_CA_CERT),
    }
}
