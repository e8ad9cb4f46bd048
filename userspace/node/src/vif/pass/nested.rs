//! Ports nested in others, and who is where when two ask for one place.

use super::{Pass, is_bound};
use crate::claim::{self, Role};
use crate::rows::{PortBinding, Uuid};
use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

impl Pass<'_, '_> {
    /// Notes whose frames come from a device with a tag. A frame from there can only be one port's: of two nested ports with one tag
    /// (nothing in the Northbound database forbids them) the second is told so, and is neither claimed nor served until the first is gone.
    pub(super) fn take_place(&mut self, port: &PortBinding, ifindex: u32, vlan: u16) -> Result<(), String> {
        let name = &port.logical_port;
        match self.places.entry((ifindex, vlan)) {
            Entry::Vacant(place) => {
                place.insert(name.clone());
                Ok(())
            }
            Entry::Occupied(place) if place.get() == name => Ok(()),
            Entry::Occupied(place) => {
                let first = place.get();
                Err(match (vlan, &port.parent_port) {
                    (1.., Some(parent)) => {
                        format!("lport {name}: tag {vlan} of its parent {parent} is that of lport {first}")
                    }
                    _ => format!("lport {name}: its device is that of lport {first}"),
                })
            }
        }
    }

    /// The nested ports of `parent`: the oldest first, as far as tunnel keys tell, whatever has happened here before.
    fn oldest_first(&self, parent: &str) -> Vec<PortBinding> {
        let mut children: Vec<PortBinding> = self.inputs.ports.children(parent).into_iter().cloned().collect();
        children.sort_by(|a, b| (a.tunnel_key, &a.logical_port).cmp(&(b.tunnel_key, &b.logical_port)));
        children
    }

    /// Nested ports follow their parent. Returns those that are served, to be raised with it.
    pub(super) fn children(
        &mut self,
        parent: &str,
        parent_port: &PortBinding,
        ifindex: u32,
        role: Role,
        chassis: Uuid,
    ) -> Vec<PortBinding> {
        let children = self.oldest_first(parent);
        let mut ready = Vec::new();
        for child in children {
            if child.uuid == parent_port.uuid || !child.kind.is_empty() {
                continue;
            }
            let Some(tag) = child.tag else {
                self.note(
                    true,
                    format!("lport {} has parent {parent} and no tag; it cannot be served", child.logical_port),
                );
                continue;
            };
            if claim::role(&child, self.inputs.me).is_err() {
                continue;
            }
            if let Err(taken) = self.take_place(&child, ifindex, tag) {
                self.out.problems.push(taken);
                continue;
            }
            self.out.datapaths.insert(child.datapath);
            self.kept.insert(child.logical_port.clone());
            let confirmed = is_bound(&child, role, chassis);
            if self.claim(&child.logical_port, &child, &BTreeMap::new(), role, chassis).is_some() {
                continue;
            }
            let awaits = self.awaits(&child, role, chassis);
            match awaits {
                Some(strategies) => {
                    self.hold(&child, ifindex, tag, strategies, confirmed);
                }
                // A guest that does not run here yet has no nested ones that do.
                None if self.vifs.waiting.contains(parent) => {}
                None => {
                    // One that is served goes on while the claim is on its way again.
                    let serves = self.vifs.nested.contains(&child.logical_port);
                    let phase = (confirmed || serves).then(|| self.program(&child, ifindex, tag, true));
                    if confirmed && phase == Some(None) {
                        self.vifs.nested.insert(child.logical_port.clone());
                        ready.push(child);
                    }
                }
            }
        }
        ready
    }

    /// Nested ports that are served stay so while our own row is missing, as their parent does.
    pub(super) fn keep_children(&mut self, parent: &str, ifindex: u32) {
        for child in self.oldest_first(parent) {
            if let Some(tag) = child.tag
                && self.vifs.nested.contains(&child.logical_port)
                && claim::role(&child, self.inputs.me).is_ok()
                && self.take_place(&child, ifindex, tag).is_ok()
            {
                self.out.datapaths.insert(child.datapath);
                self.kept.insert(child.logical_port.clone());
                self.program(&child, ifindex, tag, true);
            }
        }
    }

    pub(super) fn raise_children(&mut self, children: &[PortBinding]) {
        for child in children {
            if child.up == Some(false) {
                self.note(false, format!("Setting lport {} up in Southbound", child.logical_port));
                self.write(child).up = Some(true);
            }
        }
    }
}
