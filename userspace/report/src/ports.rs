//! `oxbow ports`: each VIF and how far it is.

use crate::Table;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Every interface that names a logical port, nested ports with their parents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// In order of the interfaces' names.
    pub ports: Vec<Port>,
}

/// A VIF.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// Logical port (iface-id).
    pub port: String,
    /// Interface in Open_vSwitch.
    pub interface: String,
    /// How far it is: `installed`, or the phase it is in.
    pub state: String,
    /// Why it is there, where it does not pass by itself.
    pub reason: Option<String>,
    /// Interface index of the device.
    pub ifindex: Option<u32>,
    /// VLAN tag of a nested port.
    pub vlan: Option<u16>,
    /// Name of the logical datapath.
    pub datapath: Option<String>,
    /// Tunnel keys of datapath and port.
    pub keys: Option<(u32, u32)>,
    /// What forwards its packets: `ebpf`, `openflow`; nothing = nobody yet.
    pub mode: Option<String>,
    /// Conntrack zone.
    pub zone: Option<u16>,
}

impl Port {
    /// Whether packets pass.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.state == "installed"
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ports.is_empty() {
            return writeln!(
                f,
                "no interface names a logical port: `ovs-vsctl set Interface DEVICE external_ids:iface-id=PORT`"
            );
        }
        let mut table =
            Table::new(&["PORT", "INTERFACE", "STATE", ">IFINDEX", ">VLAN", "DATAPATH", ">KEYS", "MODE", "REASON"]);
        let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
        for port in &self.ports {
            table.row([
                port.port.clone(),
                port.interface.clone(),
                port.state.clone(),
                number(port.ifindex),
                number(port.vlan.map(u32::from)),
                port.datapath.clone().unwrap_or_default(),
                port.keys.map(|(datapath, port)| format!("{datapath}/{port}")).unwrap_or_default(),
                port.mode.clone().unwrap_or_default(),
                port.reason.clone().unwrap_or_default(),
            ]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_installed_says_why() {
        let failed = Port {
            port: "vm1".into(),
            interface: "tap0".into(),
            state: "no-device".into(),
            reason: Some("could not open network device tap0".into()),
            ..Default::default()
        };
        let ports = Ports { ports: vec![failed] };
        assert!(ports.to_string().contains("could not open network device tap0"), "{ports}");
        assert!(Ports::default().to_string().contains("iface-id=PORT"));
    }
}
