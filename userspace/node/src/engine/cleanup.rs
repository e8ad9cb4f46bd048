//! Graceful exit: what is ours goes.

use super::Engine;
use crate::vif::REASON_KEY;
use crate::writes;
use oxbow_ovsdb::Transaction;
use oxbow_schema::{ovs, sb};
use std::collections::{BTreeMap, BTreeSet};

impl Engine {
    /// The transactions that remove our rows and keys: Open_vSwitch first, then OVN_Southbound.
    pub fn cleanup(&self) -> (Option<Transaction>, Option<Transaction>) {
        let mut local = Transaction::new(ovs::DATABASE);
        let mut south = Transaction::new(sb::DATABASE);
        let Some(config) = &self.config else { return (None, None) };
        if let Some(bridge) = self.ovs.bridge(&config.bridge) {
            writes::bridge_keys(&mut local, bridge.uuid, &BTreeMap::new(), &writes::our_bridge_keys(bridge));
            let ports: Vec<_> = bridge.ports.iter().filter_map(|uuid| self.ovs.ports.get(uuid)).collect();
            writes::tunnel_ports(&mut local, bridge, &crate::tunnel_ports::plan(&[], &ports, &self.ovs.interfaces));
        }
        for row in self.ovs.interfaces.values() {
            let ours = ["ovn-installed", "ovn-installed-ts", REASON_KEY];
            let keys: BTreeSet<String> =
                ours.iter().filter(|key| row.external_ids.contains_key(**key)).map(|key| (*key).to_owned()).collect();
            let write = crate::vif::InterfaceWrite { interface: row.uuid, remove: keys, ..Default::default() };
            writes::interfaces(&mut local, &[write]);
        }
        if let Some(chassis) =
            config.system_id.as_deref().and_then(|name| self.sb.our_chassis(name)).filter(|_| config.cleanup_on_exit)
        {
            use sb::port_binding as t;
            for port in crate::vif::Ports::bound_to(&self.sb, chassis.uuid) {
                let mut row = south.update(t::TABLE, port.uuid);
                if port.chassis == Some(chassis.uuid) {
                    row = row.set(t::CHASSIS, None::<oxbow_ovsdb::Uuid>);
                    if port.up == Some(true) {
                        row = row.set(t::UP, Some(false));
                    }
                }
                if port.additional_chassis.contains(&chassis.uuid) {
                    let others = port.additional_chassis.iter().filter(|other| **other != chassis.uuid);
                    row.set(t::ADDITIONAL_CHASSIS, others);
                }
            }
            south.delete(sb::chassis::TABLE, chassis.uuid);
            for private in self.sb.private.values().filter(|row| row.name == chassis.name) {
                south.delete(sb::chassis_private::TABLE, private.uuid);
            }
        }
        (Some(local).filter(|t| !t.is_empty()), Some(south).filter(|t| !t.is_empty()))
    }

    /// Removes everything of ours from the kernel.
    pub fn leave_kernel(&mut self) {
        if let Some(dataplane) = self.dataplane.take()
            && let Err(error) = dataplane.remove_everything()
        {
            tracing::warn!(target: "dataplane", "cannot remove everything: {error}");
        }
        if self.vswitchd.is_none() {
            self.kernel.remove_own_devices();
        }
    }
}
