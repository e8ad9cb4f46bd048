//! VIFs that wait for a frame of their guest before they are programmed.

use super::Pass;
use crate::activation::{self, STRATEGY_KEY, Strategies};
use crate::claim::Role;
use crate::rows::{PortBinding, Uuid};
use crate::vif::{Awaiting, OptionsWrite, Phase, Served, Vifs};

impl Pass<'_, '_> {
    /// The strategies that a port waits for on this chassis, `None` = it is active here: no additional place of it, none that has a
    /// strategy, or one that was activated. An activation that the database does not show yet is written.
    pub(super) fn awaits(&mut self, port: &PortBinding, role: Role, chassis: Uuid) -> Option<Strategies> {
        let name = &port.logical_port;
        let is_listed = port.additional_chassis.contains(&chassis);
        // Until the database says that this is the main chassis now, the place is still the additional one.
        if port.chassis == Some(chassis) || (role == Role::Main && !is_listed) {
            self.vifs.activated.remove(name);
            return None;
        }
        let option = port.options.get(STRATEGY_KEY).map_or("", String::as_str);
        let (strategies, unknown) = Strategies::parse(option);
        for word in unknown {
            self.out.problems.push(format!("lport {name}: unknown activation strategy \"{word}\""));
        }
        let me = self.inputs.me.system_id;
        if strategies.is_empty() || activation::is_activated(&port.options, me) {
            return None;
        }
        if self.vifs.activated.contains(name) {
            if is_listed && role == Role::Additional {
                self.write(port).options = Some(options(port, me, true));
            }
            return None;
        }
        Some(strategies)
    }

    /// Keeps a device attached and unprogrammed, and listens for its guest. `None` = so it is.
    pub(super) fn hold(
        &mut self,
        port: &PortBinding,
        ifindex: u32,
        vlan: u16,
        strategies: Strategies,
        confirmed: bool,
    ) -> Option<Phase> {
        if !confirmed {
            return Some(Phase::Claimed);
        }
        self.out.awaiting.push(Awaiting { port: port.logical_port.clone(), ifindex, vlan, strategies });
        // The datapath's rows are here before the frame is: what remains then is the port itself.
        if self.inputs.ports.datapath_key(port.datapath).is_none() || !(self.inputs.has_data)(port.datapath) {
            return Some(Phase::WaitingData);
        }
        match (self.inputs.held)(ifindex) {
            None => Some(Phase::Programming),
            Some(Served::No(reason)) => Some(Phase::Failed(reason)),
            Some(Served::Yes) => None,
        }
    }
}

/// The port's options with this chassis listed as active, or not.
pub(super) fn options(port: &PortBinding, me: &str, is_active: bool) -> OptionsWrite {
    OptionsWrite { expected: port.options.clone(), options: activation::with_activated(&port.options, me, is_active) }
}

impl Vifs {
    /// A frame that activates the port has come from its guest.
    pub fn activate(&mut self, port: &str) {
        self.activated.insert(port.to_owned());
    }
}
