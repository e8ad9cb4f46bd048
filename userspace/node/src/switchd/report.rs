//! What is written back about devices, bridges and the switch itself.

use super::{BridgeStatus, DATAPATH_TYPES, IFACE_TYPES, SwitchStatus};
use crate::fdb::{format_mac, parse_mac};
use crate::link::{Link, Links};
use crate::rows::{Bridge, InterfaceReport, OpenVSwitch, StringMap};
use std::collections::BTreeSet;

/// The version of Open vSwitch whose database contract is kept: what `ovs-vsctl show` prints.
pub(crate) const OVS_VERSION: &str = "3.1.0";

fn up_or_down(is_up: bool) -> Option<String> {
    Some(if is_up { "up" } else { "down" }.to_owned())
}

/// What `Interface` says about a device. `before` keeps what cannot be read from the device alone.
pub(super) fn of_link(link: &Link, before: &InterfaceReport) -> InterfaceReport {
    let mut status = StringMap::new();
    status.insert("driver_name".into(), link.kind.clone().unwrap_or_default());
    status.retain(|_, value| !value.is_empty());
    InterfaceReport {
        error: None,
        admin_state: up_or_down(link.is_up),
        link_state: up_or_down(link.is_up && link.has_carrier),
        link_resets: Some(i64::from(link.carrier_changes)),
        link_speed: before.link_speed,
        duplex: before.duplex.clone(),
        mtu: Some(i64::from(link.mtu)),
        mac_in_use: link.mac.map(format_mac),
        ifindex: Some(i64::from(link.ifindex)),
        status,
        statistics: link.counters.to_map(),
    }
}

/// `datapath_id`: the configured one, else the bridge's hardware address in 16 digits.
pub(super) fn bridge(bridge: &Bridge, links: &Links) -> Option<BridgeStatus> {
    let configured = bridge.other_config.get("datapath-id").map(|text| text.trim_start_matches("0x").to_owned());
    let hwaddr = bridge.other_config.get("hwaddr").and_then(|text| parse_mac(text));
    let mac = hwaddr.or_else(|| links.named(&bridge.name).and_then(|link| link.mac));
    let from_mac = mac.map(|mac| format!("0000{}", format_mac(mac).replace(':', "")));
    let id = configured.filter(|id| id.len() == 16).or(from_mac)?;
    (bridge.datapath_id.as_deref() != Some(&id)).then(|| BridgeStatus {
        bridge: bridge.uuid,
        datapath_id: Some(id),
        datapath_version: Some("<built-in>".into()),
    })
}

/// `cur_cfg` follows `next_cfg` once everything that it asks for is done.
pub(super) fn switch(row: &OpenVSwitch, is_done: bool) -> SwitchStatus {
    let iface_types: BTreeSet<String> = IFACE_TYPES.iter().map(|kind| (*kind).to_owned()).collect();
    let datapath_types: BTreeSet<String> = DATAPATH_TYPES.iter().map(|kind| (*kind).to_owned()).collect();
    SwitchStatus {
        cur_cfg: (is_done && row.cur_cfg != row.next_cfg).then_some(row.next_cfg),
        ovs_version: row.ovs_version.is_none().then(|| OVS_VERSION.to_owned()),
        iface_types: (row.iface_types != iface_types).then_some(iface_types),
        datapath_types: (row.datapath_types != datapath_types).then_some(datapath_types),
    }
}
