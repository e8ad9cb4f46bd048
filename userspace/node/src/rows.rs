//! Rows as the deciding modules read them: the columns they need, owned, independent of the database client.
//!
//! Column meanings: ovn-sb(5) and ovs-vswitchd.conf.db(5). An optional column is an `Option`, a set keeps its database order out
//! of sight (sorted), a missing column reads as its default.

use std::collections::{BTreeMap, BTreeSet};

pub use oxbow_ovsdb::Uuid;

/// A string-to-string map column.
pub type StringMap = BTreeMap<String, String>;

/// True for the texts that OVN reads as a true boolean in a map column: `true`, in any case (smap_get_bool's rule with default false).
pub fn is_true(text: Option<&String>) -> bool {
    text.is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// False only for the text `false`, in any case: a boolean in a map column whose default is true.
pub fn is_not_false(text: Option<&String>) -> bool {
    !text.is_some_and(|text| text.eq_ignore_ascii_case("false"))
}

/// `Open_vSwitch.Open_vSwitch`, the one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenVSwitch {
    /// Row.
    pub uuid: Uuid,
    /// Configuration of the controller, see [`crate::config`].
    pub external_ids: StringMap,
    /// Configuration of the switch.
    pub other_config: StringMap,
    /// Bridges.
    pub bridges: BTreeSet<Uuid>,
    /// Generation that clients asked for.
    pub next_cfg: i64,
    /// Generation that has been applied.
    pub cur_cfg: i64,
    /// What we publish about ourselves.
    pub ovs_version: Option<String>,
    /// Kinds of interfaces that can be made.
    pub iface_types: BTreeSet<String>,
    /// Kinds of datapaths that can be made.
    pub datapath_types: BTreeSet<String>,
    /// Row of table SSL.
    pub ssl: Option<Uuid>,
}

/// `Open_vSwitch.Bridge`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bridge {
    /// Row.
    pub uuid: Uuid,
    /// Name of the bridge and of its local device.
    pub name: String,
    /// Ports.
    pub ports: BTreeSet<Uuid>,
    /// Kind of datapath; clients rewrite it freely.
    pub datapath_type: String,
    /// 16 hexadecimal digits.
    pub datapath_id: Option<String>,
    /// Notes: `ct-zone-*`, `ovn-nb-cfg` and others.
    pub external_ids: StringMap,
    /// Configuration.
    pub other_config: StringMap,
    /// `secure` or `standalone`.
    pub fail_mode: Option<String>,
}

/// `Open_vSwitch.Port`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    /// Row.
    pub uuid: Uuid,
    /// Name.
    pub name: String,
    /// Interfaces: one, unless it is a bond.
    pub interfaces: BTreeSet<Uuid>,
    /// Notes.
    pub external_ids: StringMap,
}

/// `Open_vSwitch.Interface`: what clients configured and what was last written back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// Row.
    pub uuid: Uuid,
    /// Name, also of the device.
    pub name: String,
    /// Kind: empty or `system`, `internal`, `tap`, `patch`, …
    pub kind: String,
    /// Configuration by kind.
    pub options: StringMap,
    /// `iface-id`, `ovn-installed` and others.
    pub external_ids: StringMap,
    /// OpenFlow port number; −1 = could not be made; none = not processed yet.
    pub ofport: Option<i64>,
    /// Number asked for.
    pub ofport_request: Option<i64>,
    /// Hardware address asked for.
    pub mac: Option<String>,
    /// MTU asked for.
    pub mtu_request: Option<i64>,
    /// What is written back.
    pub report: InterfaceReport,
}

impl Interface {
    /// The logical port that this interface claims to be.
    pub fn iface_id(&self) -> Option<&str> {
        self.external_ids.get("iface-id").map(String::as_str).filter(|id| !id.is_empty())
    }
}

/// The columns of `Interface` that the switch writes back (ovs-vswitchd.conf.db(5), Interface Status).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceReport {
    /// Why `ofport` is −1.
    pub error: Option<String>,
    /// `up` or `down`: administrative.
    pub admin_state: Option<String>,
    /// `up` or `down`: carrier.
    pub link_state: Option<String>,
    /// How often the carrier changed.
    pub link_resets: Option<i64>,
    /// Bits per second.
    pub link_speed: Option<i64>,
    /// `full` or `half`.
    pub duplex: Option<String>,
    /// Bytes.
    pub mtu: Option<i64>,
    /// Hardware address of the device.
    pub mac_in_use: Option<String>,
    /// Interface index; 0 for what has no device.
    pub ifindex: Option<i64>,
    /// `driver_name`, `driver_version`, `firmware_version`.
    pub status: StringMap,
    /// `rx_packets`, `tx_bytes`, …
    pub statistics: BTreeMap<String, i64>,
}

/// `OVN_Southbound.Chassis`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chassis {
    /// Row.
    pub uuid: Uuid,
    /// The chassis' system-id.
    pub name: String,
    /// Host name.
    pub hostname: String,
    /// Encap rows.
    pub encaps: BTreeSet<Uuid>,
    /// Notes.
    pub external_ids: StringMap,
    /// What the chassis tells about itself.
    pub other_config: StringMap,
    /// Transport zones; empty = the default one.
    pub transport_zones: BTreeSet<String>,
}

/// `OVN_Southbound.Encap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encap {
    /// Row.
    pub uuid: Uuid,
    /// Owner.
    pub chassis_name: String,
    /// `geneve`, `vxlan` or `stt`.
    pub kind: String,
    /// Address.
    pub ip: String,
    /// `csum`, `is_default`, and what others write (`dst_port`).
    pub options: StringMap,
}

/// `OVN_Southbound.Chassis_Private`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChassisPrivate {
    /// Row.
    pub uuid: Uuid,
    /// The chassis' system-id.
    pub name: String,
    /// Chassis row.
    pub chassis: Option<Uuid>,
    /// Generation that is installed.
    pub nb_cfg: i64,
    /// When it was, milliseconds since the epoch.
    pub nb_cfg_timestamp: i64,
}

/// `OVN_Southbound.SB_Global`, the one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SbGlobal {
    /// Row.
    pub uuid: Uuid,
    /// Generation of what northd has written.
    pub nb_cfg: i64,
    /// Options of the whole deployment.
    pub options: StringMap,
}

/// `OVN_Southbound.Datapath_Binding`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datapath {
    /// Row.
    pub uuid: Uuid,
    /// Tunnel key, 24 bits.
    pub tunnel_key: u32,
    /// `logical-switch`, `logical-router`, `name`, …
    pub external_ids: StringMap,
}

/// `OVN_Southbound.Port_Binding`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortBinding {
    /// Row.
    pub uuid: Uuid,
    /// Name.
    pub logical_port: String,
    /// Kind as the database has it: empty = VIF.
    pub kind: String,
    /// Datapath row.
    pub datapath: Uuid,
    /// Tunnel key, 15 bits.
    pub tunnel_key: u32,
    /// Parent of a nested port.
    pub parent_port: Option<String>,
    /// Its VLAN tag.
    pub tag: Option<u16>,
    /// Parent that a virtual port is at.
    pub virtual_parent: Option<String>,
    /// Chassis row that has bound it.
    pub chassis: Option<Uuid>,
    /// Further chassis rows that have.
    pub additional_chassis: BTreeSet<Uuid>,
    /// Encap row that leads to it, when not the chassis' default.
    pub encap: Option<Uuid>,
    /// The same for the further chassis.
    pub additional_encap: BTreeSet<Uuid>,
    /// Whether it is ready; none = the column does not exist or was never set.
    pub up: Option<bool>,
    /// Options.
    pub options: StringMap,
    /// Chassis row that northd resolved `options:requested-chassis` to.
    pub requested_chassis: Option<Uuid>,
    /// Addresses.
    pub mac: Vec<String>,
    /// HA group of a gateway.
    pub ha_chassis_group: Option<Uuid>,
}

/// `OVN_Southbound.FDB`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdbRow {
    /// Row.
    pub uuid: Uuid,
    /// Address, `xx:xx:xx:xx:xx:xx`.
    pub mac: String,
    /// Tunnel key of the datapath.
    pub dp_key: u32,
    /// Tunnel key of the port.
    pub port_key: u32,
    /// Milliseconds since the epoch of the last use, where the schema has the column.
    pub timestamp: Option<i64>,
}
