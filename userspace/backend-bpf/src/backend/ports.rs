//! Logical ports and the devices they are on.

use crate::image::{Guards, Scope};
use crate::kernel::MapFailure;
use oxbow_abi::topology::{
    PORT_LOCAL, PORT_REMOTE, PORT_UNBOUND, PORT_UNSERVED, Port, PortKey as AbiPortKey, VIF_HAS_NESTED, VIF_LOCALPORT,
    VIF_NESTED, Vif, VifKey,
};
use oxbow_pipeline::ir::{DatapathKey, Location, LogicalPort, PortKey, PortKind, Program};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Writes of a commit: removals before the version is raised, the rest after.
#[derive(Default)]
pub(super) struct PortWrites {
    pub(super) vifs_removed: Vec<VifKey>,
    pub(super) ports_removed: Vec<AbiPortKey>,
    pub(super) ports: Vec<(AbiPortKey, Port)>,
    pub(super) vifs: Vec<(VifKey, Vif)>,
    /// Ports that there is no room for, and why. They stay marked: the next commit tries again.
    pub(super) refused: Vec<(DatapathKey, PortKey, String)>,
}

impl PortWrites {
    /// Leaves a port out for which there is no room. What the kernel may have of it already is for the next commit.
    fn refuse(&mut self, datapath: u32, port: u32, why: String) {
        self.refused.push((DatapathKey(datapath), PortKey(port), why));
    }

    /// Hands each port, then each VIF, to `insert_port` and `insert_vif`. One that there is no room for is refused and must not keep
    /// the others from being served; a VIF whose port was refused is not tried.
    pub(super) fn insert(
        &mut self,
        mut insert_port: impl FnMut(&AbiPortKey, &Port) -> Result<(), MapFailure>,
        mut insert_vif: impl FnMut(&VifKey, &Vif) -> Result<(), MapFailure>,
    ) {
        let mut ports = std::mem::take(&mut self.ports);
        ports.retain(|(key, port)| match insert_port(key, port) {
            Ok(()) => true,
            Err(error) => {
                self.refuse(key.datapath, key.port, error.to_string());
                false
            }
        });
        self.ports = ports;
        let mut vifs = std::mem::take(&mut self.vifs);
        vifs.retain(|(key, vif)| {
            let without_port =
                |(datapath, port, _): &(DatapathKey, PortKey, String)| datapath.0 == vif.datapath && port.0 == vif.port;
            if self.refused.iter().any(without_port) {
                return false;
            }
            match insert_vif(key, vif) {
                Ok(()) => true,
                Err(error) => {
                    self.refuse(vif.datapath, vif.port, error.to_string());
                    false
                }
            }
        });
        self.vifs = vifs;
    }

    pub(super) fn len(&self) -> usize {
        self.vifs_removed.len() + self.ports_removed.len() + self.ports.len() + self.vifs.len()
    }
}

#[derive(Default)]
pub(super) struct Ports {
    dirty: BTreeSet<(DatapathKey, PortKey)>,
    kernel: FxHashMap<AbiPortKey, Port>,
    vifs: FxHashMap<VifKey, Vif>,
}

impl Ports {
    /// Ports and VIFs that the kernel has.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.kernel.len(), self.vifs.len())
    }

    /// Whether the port is on a device of this chassis.
    pub(super) fn is_local(&self, datapath: u32, port: u32) -> bool {
        self.kernel.get(&AbiPortKey { datapath, port }).is_some_and(|port| port.kind == PORT_LOCAL)
    }

    pub(super) fn mark(&mut self, datapath: DatapathKey, port: PortKey) {
        self.dirty.insert((datapath, port));
    }

    /// What changes for the ports marked since the last commit.
    pub(super) fn writes(&mut self, program: &Program, guards: &mut Guards) -> PortWrites {
        let mut writes = PortWrites::default();
        if self.dirty.is_empty() {
            return writes;
        }
        let mut vifs = self.vifs.clone();
        vifs.retain(|_, vif| !self.dirty.contains(&(DatapathKey(vif.datapath), PortKey(vif.port))));
        for &(datapath, key) in &self.dirty {
            let abi = AbiPortKey { datapath: datapath.0, port: key.0 };
            let scope = Scope::Port(datapath.0, key.0);
            let Some(port) = program.port(datapath, key) else {
                if self.kernel.contains_key(&abi) {
                    writes.ports_removed.push(abi);
                }
                continue;
            };
            let guard = match guards.index(scope) {
                Ok(guard) => guard,
                Err(full) => {
                    writes.refuse(abi.datapath, abi.port, full.to_string());
                    continue;
                }
            };
            let value = encode(port, guard);
            if self.kernel.get(&abi) != Some(&value) {
                writes.ports.push((abi, value));
                guards.raise(scope);
            }
            if value.kind == PORT_LOCAL {
                let nested = if value.vlan == 0 { 0 } else { VIF_NESTED };
                let vif = Vif {
                    datapath: abi.datapath,
                    port: abi.port,
                    guard,
                    flags: value.flags | nested,
                    zone: value.zone,
                    reserved: 0,
                };
                vifs.insert(VifKey { ifindex: value.ifindex, vlan: value.vlan }, vif);
            }
        }
        // A device's own port must know whether tags are to be looked up.
        let nested: BTreeSet<u32> = vifs.keys().filter(|key| key.vlan != 0).map(|key| key.ifindex).collect();
        for (key, vif) in vifs.iter_mut().filter(|(key, _)| key.vlan == 0) {
            vif.flags =
                if nested.contains(&key.ifindex) { vif.flags | VIF_HAS_NESTED } else { vif.flags & !VIF_HAS_NESTED };
        }
        // One that passes to another port goes before the rules of its old port do, like one that goes for good.
        let stays = |key: &VifKey, old: &Vif| {
            vifs.get(key).is_some_and(|new| (new.datapath, new.port) == (old.datapath, old.port))
        };
        writes.vifs_removed = self.vifs.iter().filter(|(key, old)| !stays(key, old)).map(|(key, _)| *key).collect();
        writes.vifs = vifs.into_iter().filter(|(key, vif)| self.vifs.get(key) != Some(vif)).collect();
        writes
    }

    /// The kernel has them.
    pub(super) fn committed(&mut self, writes: PortWrites, guards: &mut Guards) {
        for key in writes.vifs_removed {
            self.vifs.remove(&key);
        }
        for key in writes.ports_removed {
            self.kernel.remove(&key);
            guards.forget(Scope::Port(key.datapath, key.port));
        }
        self.kernel.extend(writes.ports);
        self.vifs.extend(writes.vifs);
        self.dirty = writes.refused.into_iter().map(|(datapath, port, _)| (datapath, port)).collect();
    }
}

/// At how many chassis a port gets what is for it alone, while it migrates: [`Port`] has room for so many.
pub const MOST_PLACES: usize = 2;

/// The kernel's view of a port.
fn encode(port: &LogicalPort, guard: u32) -> Port {
    let mut value = Port { guard, kind: PORT_UNBOUND, ..Port::default() };
    if port.kind == PortKind::Localport {
        value.flags |= VIF_LOCALPORT;
    }
    if !port.kind.is_served() {
        value.kind = PORT_UNSERVED;
        return value;
    }
    match port.location {
        // One that has no main chassis for the moment is reached at those that it migrates to.
        Location::Unbound => {
            if let [first, others @ ..] = &port.additional[..] {
                value.kind = PORT_REMOTE;
                value.chassis = first.0;
                value.additional = others.first().map_or(0, |chassis| chassis.0);
            }
        }
        Location::Local { ifindex, tag } => {
            value.kind = PORT_LOCAL;
            value.ifindex = ifindex;
            value.vlan = u32::from(tag.unwrap_or(0));
            value.additional = port.additional.first().map_or(0, |chassis| chassis.0);
        }
        Location::Remote { chassis } => {
            value.kind = PORT_REMOTE;
            value.chassis = chassis.0;
            value.additional = port.additional.iter().find(|c| **c != chassis).map_or(0, |c| c.0);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn on_device(program: &mut Program, port: u32, device: Option<u32>) {
        let at = (DatapathKey(7), PortKey(port));
        let location = device.map_or(Location::Unbound, |ifindex| Location::Local { ifindex, tag: None });
        let port = LogicalPort {
            datapath: at.0,
            key: at.1,
            name: format!("p{port}").into(),
            kind: PortKind::Vif,
            location,
            additional: Vec::new(),
            port_security: Vec::new(),
        };
        program.put_port(at, Some(Arc::new(port)));
    }

    #[test]
    fn a_device_that_passes_to_another_port_is_nobody_s_before_the_rules_of_the_old_one_go() {
        let (mut ports, mut guards, mut program) = (Ports::default(), Guards::new(16), Program::default());
        let mut commit = |program: &Program, marked: &[u32]| {
            for port in marked {
                ports.mark(DatapathKey(7), PortKey(*port));
            }
            let writes = ports.writes(program, &mut guards);
            let removed = writes.vifs_removed.clone();
            let inserted: Vec<(u32, u32)> = writes.vifs.iter().map(|(key, vif)| (key.ifindex, vif.port)).collect();
            ports.committed(writes, &mut guards);
            (removed, inserted)
        };
        on_device(&mut program, 1, Some(10));
        assert_eq!(commit(&program, &[1]), (vec![], vec![(10, 1)]));
        on_device(&mut program, 1, None);
        on_device(&mut program, 2, Some(10));
        assert_eq!(commit(&program, &[1, 2]), (vec![VifKey { ifindex: 10, vlan: 0 }], vec![(10, 2)]));
        // What stays the port's is not interrupted.
        on_device(&mut program, 2, Some(10));
        assert_eq!(commit(&program, &[2]), (vec![], vec![]));
        on_device(&mut program, 2, None);
        assert_eq!(commit(&program, &[2]).0.len(), 1);
    }
}
