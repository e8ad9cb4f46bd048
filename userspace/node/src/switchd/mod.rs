//! What ovs-vswitchd does for its database, where there is none (R-46, R-47; ovs-vswitchd.conf.db(5)): port numbers, states, errors, the
//! devices of bridges and internal ports, and `cur_cfg`, for which every `ovs-vsctl` without `--no-wait` waits.
//!
//! An internal device is one end of a veth pair: the end with the interface's name belongs to the host (it may be moved to another
//! network namespace), the other is where the dataplane attaches.

mod ofport;
mod report;

pub use ofport::{LOCAL_OFPORT, Ofports};

use crate::fdb::parse_mac;
use crate::link::{Link, Links};
use crate::rows::{Bridge, Interface, InterfaceReport, OpenVSwitch, Port, Uuid};
use std::collections::{BTreeMap, BTreeSet};

/// Note on devices made for bridges and internal ports: only what carries it is ever removed.
pub const ALIAS: &str = "oxbow internal port";

/// What the switch database offers and we publish.
pub const IFACE_TYPES: &[&str] = &["internal", "patch", "system", "tap"];
/// Likewise.
pub const DATAPATH_TYPES: &[&str] = &["system"];

/// Something to do with a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceOrder {
    /// Make a pair: `name` for the host, `inner` for the dataplane.
    Create {
        /// Host's end.
        name: String,
        /// Dataplane's end.
        inner: String,
        /// Hardware address of the host's end.
        mac: Option<[u8; 6]>,
    },
    /// Remove a pair by its inner end.
    Delete {
        /// Index of the inner end.
        ifindex: u32,
        /// Its name, for messages.
        name: String,
    },
    /// Bring a device up.
    Raise {
        /// Index.
        ifindex: u32,
    },
    /// Set the MTU.
    Mtu {
        /// Index.
        ifindex: u32,
        /// Bytes.
        mtu: u32,
    },
    /// Set the hardware address.
    Mac {
        /// Index.
        ifindex: u32,
        /// Address.
        mac: [u8; 6],
    },
}

/// New values for an Interface row; `None` = leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Row.
    pub interface: Uuid,
    /// `ofport`.
    pub ofport: Option<i64>,
    /// Everything else that differs is written from here.
    pub report: Option<InterfaceReport>,
    /// Statistics are written on their own clock.
    pub statistics: Option<BTreeMap<String, i64>>,
}

/// New values for a Bridge row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeStatus {
    /// Row.
    pub bridge: Uuid,
    /// `datapath_id`.
    pub datapath_id: Option<String>,
    /// `datapath_version`.
    pub datapath_version: Option<String>,
}

/// New values for the Open_vSwitch row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchStatus {
    /// `cur_cfg`.
    pub cur_cfg: Option<i64>,
    /// `ovs_version`.
    pub ovs_version: Option<String>,
    /// `iface_types`.
    pub iface_types: Option<BTreeSet<String>>,
    /// `datapath_types`.
    pub datapath_types: Option<BTreeSet<String>>,
}

/// What the switch does next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Device orders, to be carried out before the rest is written.
    pub devices: Vec<DeviceOrder>,
    /// Interface rows.
    pub interfaces: Vec<InterfaceStatus>,
    /// Bridge rows.
    pub bridges: Vec<BridgeStatus>,
    /// The Open_vSwitch row.
    pub switch: SwitchStatus,
}

impl Work {
    /// True when nothing is to be written.
    pub fn is_written(&self) -> bool {
        self.interfaces.is_empty() && self.bridges.is_empty() && self.switch == SwitchStatus::default()
    }
}

/// What the switch looks at.
pub struct View<'a> {
    /// The one row.
    pub switch: &'a OpenVSwitch,
    /// Bridges.
    pub bridges: &'a BTreeMap<Uuid, Bridge>,
    /// Ports.
    pub ports: &'a BTreeMap<Uuid, Port>,
    /// Interfaces.
    pub interfaces: &'a BTreeMap<Uuid, Interface>,
    /// Devices.
    pub links: &'a Links,
    /// Device orders that failed, by device name, and the kernel's reason.
    pub failed: &'a BTreeMap<String, String>,
    /// Also write counters.
    pub with_statistics: bool,
}

/// Name of the dataplane's end of an internal device: short, and the same in every run.
pub fn inner_name(name: &str) -> String {
    // FNV-1a: any hash that never changes would do.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("ox{:012x}", hash & 0xffff_ffff_ffff)
}

/// What kind of device an interface needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backing {
    /// One that others make.
    Device,
    /// One that we make.
    Internal,
    /// None: a port number is all there is to it.
    None,
    /// One that nobody here can make.
    Unsupported,
}

fn backing(interface: &Interface, bridge: &Bridge) -> Backing {
    match interface.kind.as_str() {
        _ if interface.name == bridge.name => Backing::Internal,
        "" | "system" | "tap" => Backing::Device,
        "internal" => Backing::Internal,
        "patch" | "geneve" | "vxlan" | "stt" | "gre" => Backing::None,
        _ => Backing::Unsupported,
    }
}

/// The device on which the dataplane serves an interface.
pub fn serving_device<'a>(interface: &Interface, links: &'a Links) -> Option<&'a Link> {
    match interface.kind.as_str() {
        "internal" => links.named(&inner_name(&interface.name)).filter(|link| is_ours(link)),
        "patch" | "geneve" | "vxlan" | "stt" | "gre" => None,
        _ => links.named(&interface.name),
    }
}

fn is_ours(link: &Link) -> bool {
    link.alias.as_deref() == Some(ALIAS)
}

/// Looks at everything and says what to do.
pub fn work(view: &View<'_>) -> Work {
    let mut work = Work::default();
    let mut inner_wanted = BTreeSet::new();
    for bridge in view.switch.bridges.iter().filter_map(|uuid| view.bridges.get(uuid)) {
        let mut interfaces: Vec<&Interface> = bridge
            .ports
            .iter()
            .filter_map(|uuid| view.ports.get(uuid))
            .flat_map(|port| port.interfaces.iter())
            .filter_map(|uuid| view.interfaces.get(uuid))
            .collect();
        interfaces.sort_by(|a, b| (a.ofport, &a.name).cmp(&(b.ofport, &b.name)));
        let mut ofports = Ofports::of(&interfaces, &bridge.name);
        for interface in interfaces {
            let status = interface_status(view, bridge, interface, &mut ofports, &mut inner_wanted, &mut work.devices);
            work.interfaces.extend(status);
        }
        work.bridges.extend(report::bridge(bridge, view.links));
    }
    for link in view.links.iter().filter(|link| is_ours(link) && !inner_wanted.contains(&link.name)) {
        work.devices.push(DeviceOrder::Delete { ifindex: link.ifindex, name: link.name.clone() });
    }
    work.devices.sort();
    // What is made now is seen through the kernel's own message; until then the generation is not done.
    let is_done = work.devices.iter().all(|order| !matches!(order, DeviceOrder::Create { .. }));
    work.switch = report::switch(view.switch, is_done);
    work
}

fn interface_status(
    view: &View<'_>,
    bridge: &Bridge,
    interface: &Interface,
    ofports: &mut Ofports,
    inner_wanted: &mut BTreeSet<String>,
    orders: &mut Vec<DeviceOrder>,
) -> Option<InterfaceStatus> {
    let name = &interface.name;
    let failed = |reason: &str| InterfaceReport {
        error: Some(format!("could not open network device {name} ({reason})")),
        ..Default::default()
    };
    let mut held = false;
    let report = match backing(interface, bridge) {
        Backing::Unsupported => failed("Address family not supported by protocol"),
        Backing::None => InterfaceReport {
            admin_state: Some("up".into()),
            link_state: Some("up".into()),
            ifindex: Some(0),
            ..Default::default()
        },
        Backing::Device => match view.links.named(name) {
            None => failed("No such device"),
            Some(link) => {
                order_mtu(interface, link, orders);
                report::of_link(link, &interface.report)
            }
        },
        Backing::Internal => {
            let inner = inner_name(name);
            inner_wanted.insert(inner.clone());
            let outer = view.links.named(name);
            match view.links.named(&inner).filter(|link| is_ours(link)) {
                None if outer.is_some() => failed("File exists"),
                None => match view.failed.get(name) {
                    Some(reason) => failed(reason),
                    None => {
                        let mac = interface.mac.as_deref().and_then(parse_mac).or_else(|| {
                            let local = *name == bridge.name;
                            bridge.other_config.get("hwaddr").filter(|_| local).and_then(|text| parse_mac(text))
                        });
                        orders.push(DeviceOrder::Create { name: name.clone(), inner, mac });
                        held = true;
                        interface.report.clone()
                    }
                },
                Some(inner) => {
                    if !inner.is_up {
                        orders.push(DeviceOrder::Raise { ifindex: inner.ifindex });
                    }
                    match outer {
                        Some(outer) => {
                            order_mtu(interface, outer, orders);
                            if let Some(mac) = interface.mac.as_deref().and_then(parse_mac)
                                && outer.mac != Some(mac)
                            {
                                orders.push(DeviceOrder::Mac { ifindex: outer.ifindex, mac });
                            }
                            report::of_link(outer, &interface.report)
                        }
                        // The host's end lives in another namespace now: what is seen from here is the inner end.
                        None => InterfaceReport {
                            mac_in_use: interface.report.mac_in_use.clone(),
                            ifindex: interface.report.ifindex,
                            error: None,
                            ..report::of_link(inner, &interface.report)
                        },
                    }
                }
            }
        }
    };
    let ofport = if held {
        interface.ofport
    } else if report.error.is_some() {
        ofports.release(interface);
        Some(-1)
    } else {
        Some(ofports.number(interface, &bridge.name))
    };
    let counters =
        view.with_statistics.then(|| report.statistics.clone()).filter(|new| *new != interface.report.statistics);
    let mut comparable = report.clone();
    comparable.statistics = interface.report.statistics.clone();
    let status = InterfaceStatus {
        interface: interface.uuid,
        ofport: ofport.filter(|_| ofport != interface.ofport),
        report: (comparable != interface.report).then_some(report),
        statistics: counters,
    };
    (status != InterfaceStatus { interface: interface.uuid, ..Default::default() }).then_some(status)
}

fn order_mtu(interface: &Interface, link: &Link, orders: &mut Vec<DeviceOrder>) {
    if let Some(mtu) = interface.mtu_request.and_then(|mtu| u32::try_from(mtu).ok())
        && mtu != link.mtu
    {
        orders.push(DeviceOrder::Mtu { ifindex: link.ifindex, mtu });
    }
}

#[cfg(test)]
mod tests;
