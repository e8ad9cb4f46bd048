//! Graceful exit: what is ours goes.

use super::Engine;
use crate::backend::Beside;
use crate::conditions::conditions;
use crate::locality::Interest;
use crate::vif::InterfaceWrite;
use crate::writes;
use oxbow_ovsdb::{Condition, TableDef, Transaction};
use oxbow_schema::{ovs, sb};
use std::collections::BTreeMap;

/// How far a process that is told to leave is.
#[derive(Debug)]
pub enum Leaving {
    /// Everything that [`Engine::cleanup`] takes back is known.
    Ready,
    /// Ask for the rows of this chassis; the number of the request goes to [`Engine::conditions_sent`].
    Ask(Vec<(&'static TableDef, Condition)>),
    /// Something is on its way.
    Wait,
}

impl Engine {
    /// Whether it is known what to take back. What was read before the process was told to leave may lack the very rows that name this
    /// chassis, and a transaction under way may add to them.
    pub fn leaving(&mut self) -> Leaving {
        if !self.ovs_line.ever || self.ovs_line.busy {
            return Leaving::Wait;
        }
        self.read_config();
        let Some(config) = self.config.as_ref().filter(|config| config.cleanup_on_exit && config.remote.is_some())
        else {
            return Leaving::Ready;
        };
        let Some(system_id) = config.system_id.clone() else { return Leaving::Ready };
        if !self.sb_line.synchronized || self.sb_line.busy || self.pending_interest.is_some() {
            return Leaving::Wait;
        }
        let Some(ours) = self.sb.our_chassis(&system_id).map(|row| row.uuid) else { return Leaving::Ready };
        if self.watch.covers_chassis(ours) {
            return if self.watch.is_complete() { Leaving::Ready } else { Leaving::Wait };
        }
        let interest = Interest {
            everything: config.monitor_all,
            system_id: Some(system_id),
            chassis: Some(ours),
            ..Interest::default()
        };
        let ask = conditions(&interest);
        self.pending_interest = Some(interest);
        Leaving::Ask(ask)
    }

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
            writes::interfaces(&mut local, &[InterfaceWrite::forget(row)]);
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
        if self.beside == Beside::Alone {
            self.kernel.remove_own_devices();
        }
    }
}
