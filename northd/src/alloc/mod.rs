//! Allocators: the only place where history lives.
//!
//! What they assign is input to units as facts, and stays as it is until its owner leaves or asks for something else. At
//! start they take over what both databases already hold.

mod ipam;
mod key_space;
mod queues;
mod tags;

use std::collections::BTreeSet;

use oxbow_incr::{Aspects, Engine};
use oxbow_ovsdb::{Text, Uuid};
use oxbow_schema::{nb, sb};
use rustc_hash::FxHashMap;

use crate::address::Mac;
use crate::profile::Profile;
use crate::program::Compiler;
use crate::source::{Allocation, Fact, IndexKey, Source, TableId, symmetric_difference};

use ipam::Ipam;
use key_space::KeySpace;
use queues::Queues;
use tags::Tags;

/// Values made up once for the whole deployment and kept in NB_Global's options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// `mac_prefix`: the first three octets of generated Ethernet addresses, as text.
    pub mac_prefix: String,
    /// `svc_monitor_mac`.
    pub service_monitor_mac: String,
    /// `max_tunid`.
    pub max_datapath_key: i64,
    /// Largest key of a port.
    pub max_port_key: i64,
}

/// Everything that was assigned.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    pub(crate) globals: Globals,
    datapaths: KeySpace,
    ports: FxHashMap<Uuid, KeySpace>,
    /// Per port: the switch whose key space it has a key of.
    switch_of: FxHashMap<Uuid, Uuid>,
    tags: Tags,
    queues: Queues,
    ipam: Ipam,
    dirty: Dirty,
    /// Requests that could not be met, for the log.
    pub(crate) refusals: Vec<String>,
    /// Datapath keys that got another owner since they were last taken; none for any of them.
    pub(crate) moved: Vec<Option<i64>>,
}

/// What the allocators have to look at in the next run.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) switches: BTreeSet<Uuid>,
    pub(crate) ports: BTreeSet<Uuid>,
    /// Names of ports that were bound to another chassis.
    pub(crate) bound: BTreeSet<Text>,
    pub(crate) globals: bool,
}

impl Allocations {
    pub(crate) fn number(&self, what: Allocation, row: Uuid) -> Option<i64> {
        match what {
            Allocation::DatapathKey => self.datapaths.key(row),
            Allocation::PortKey => self.ports.get(self.switch_of.get(&row)?)?.key(row),
            Allocation::Tag => self.tags.tag(row),
            Allocation::Queue => self.queues.queue(row),
            Allocation::Addresses | Allocation::Globals => None,
        }
    }

    pub(crate) fn addresses(&self, port: Uuid) -> Option<&Text> {
        self.ipam.addresses(port)
    }

    /// The key of a switch, or of the switch of a port.
    pub(crate) fn datapath_key_of(&self, row: Uuid) -> Option<i64> {
        self.datapaths.key(*self.switch_of.get(&row).unwrap_or(&row))
    }

    /// The port that has a key in the key space of the datapath that has a key: what an FDB row speaks of.
    pub(crate) fn holds(&self, datapath_key: i64, port_key: i64) -> bool {
        self.datapaths
            .owner(datapath_key)
            .and_then(|switch| self.ports.get(&switch))
            .is_some_and(|ports| ports.owner(port_key).is_some())
    }

    pub(crate) fn dirty(&mut self) -> &mut Dirty {
        &mut self.dirty
    }

    /// Brings the assignments in line with the rows, and marks the units that read those that changed.
    pub(crate) fn update(source: &mut Source, profile: &Profile, engine: &mut Engine<Compiler>) {
        let mut own = std::mem::take(&mut source.allocations);
        own.run(source, profile, engine);
        source.allocations = own;
    }

    fn run(&mut self, source: &Source, profile: &Profile, engine: &mut Engine<Compiler>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        if dirty.globals {
            self.update_globals(source, profile, engine, &mut dirty);
        }
        let mut changed: BTreeSet<(Allocation, Uuid)> = BTreeSet::new();
        for &switch in &dirty.switches {
            self.update_datapath(source, switch, &mut changed);
        }
        for &port in &dirty.ports {
            self.update_port_key(source, port, &mut changed);
            changed.extend(self.tags.update(source, port).then_some((Allocation::Tag, port)));
            changed.extend(self.queues.update(source, port).then_some((Allocation::Queue, port)));
        }
        for name in std::mem::take(&mut dirty.bound) {
            if let Some(&port) = source.members(&IndexKey::PortByName(name)).first() {
                changed.extend(self.queues.update(source, port).then_some((Allocation::Queue, port)));
            }
        }
        let prefix = &self.globals.mac_prefix;
        for port in self.ipam.update(source, &dirty, prefix, &mut self.refusals) {
            changed.insert((Allocation::Addresses, port));
        }
        for (what, row) in changed {
            if what == Allocation::DatapathKey {
                self.moved.extend(self.datapaths.key(row).map(Some));
            }
            engine.touch(&Fact::Allocated(what, row), Aspects::ALL);
        }
    }

    fn update_globals(&mut self, source: &Source, profile: &Profile, engine: &mut Engine<Compiler>, dirty: &mut Dirty) {
        let old = self.globals.clone();
        let options = source.table(nb::nb_global::TABLE).next().map(|row| row.get(nb::nb_global::OPTIONS));
        let option = |key: &str| options.and_then(|o| o.get(key)).map(ToString::to_string);
        let made_up = |bytes: u64| {
            // Locally administered, not multicast: as ovn-northd makes its own up.
            Mac::from_u64(Uuid::random().as_u128() as u64 & ((1 << (bytes * 8)) - 1))
        };
        let local = |mut mac: Mac| {
            mac.0[0] = (mac.0[0] & 0xfe) | 2;
            mac.to_string()
        };
        let valid_prefix = |text: &String| Mac::parse(&format!("{text}:00:00:00")).is_some();
        self.globals.mac_prefix = match option("mac_prefix").filter(valid_prefix) {
            Some(prefix) => prefix,
            None if !old.mac_prefix.is_empty() => old.mac_prefix.clone(),
            None => local(made_up(6))[..8].to_owned(),
        };
        self.globals.service_monitor_mac = match option("svc_monitor_mac").filter(|m| Mac::parse(m).is_some()) {
            Some(mac) => mac,
            None if !old.service_monitor_mac.is_empty() => old.service_monitor_mac.clone(),
            None => local(made_up(6)),
        };
        let vxlan = source.table(sb::encap::TABLE).any(|encap| encap.get(sb::encap::TYPE) == "vxlan");
        (self.globals.max_datapath_key, self.globals.max_port_key) = if vxlan {
            (profile.max_datapath_key_vxlan, profile.max_port_key_vxlan)
        } else {
            (profile.max_datapath_key, profile.max_port_key)
        };
        if self.globals == old {
            return;
        }
        engine.touch(&Fact::Allocated(Allocation::Globals, Uuid::ZERO), Aspects::ALL);
        if self.globals.max_datapath_key < old.max_datapath_key {
            self.moved.push(None);
            dirty.switches.extend(self.datapaths.above(self.globals.max_datapath_key));
            for space in self.ports.values() {
                dirty.ports.extend(space.above(self.globals.max_port_key));
            }
        }
        if self.globals.mac_prefix != old.mac_prefix {
            self.ipam.prefix_changed();
        }
    }

    fn update_datapath(&mut self, source: &Source, switch: Uuid, changed: &mut BTreeSet<(Allocation, Uuid)>) {
        let Some(row) = source.row(nb::logical_switch::TABLE, switch) else {
            if self.datapaths.release(switch) {
                changed.insert((Allocation::DatapathKey, switch));
            }
            self.ports.remove(&switch);
            return;
        };
        let max = self.globals.max_datapath_key;
        let requested = row.get(nb::logical_switch::OTHER_CONFIG).get("requested-tnl-key");
        let requested = requested.and_then(|k| k.parse().ok()).filter(|k| (1..=max).contains(k));
        let known = source
            .members(&IndexKey::DatapathOfSwitch(switch))
            .first()
            .and_then(|datapath| source.row(sb::datapath_binding::TABLE, *datapath))
            .map(|datapath| datapath.get(sb::datapath_binding::TUNNEL_KEY));
        let assigned = self.datapaths.assign(switch, requested, known, max);
        if assigned.refused {
            let name = row.get(nb::logical_switch::NAME);
            self.refusals.push(format!(
                "Logical switch {name} requests same tunnel key {} as another logical switch or router",
                requested.unwrap_or_default()
            ));
        }
        changed.extend(assigned.changed.into_iter().map(|s| (Allocation::DatapathKey, s)));
    }

    fn update_port_key(&mut self, source: &Source, port: Uuid, changed: &mut BTreeSet<(Allocation, Uuid)>) {
        use nb::logical_switch_port as lsp;
        let switch = source.members(&IndexKey::SwitchOfPort(port)).first().copied();
        let row = source.row(lsp::TABLE, port);
        if let Some(&old) = self.switch_of.get(&port)
            && (switch != Some(old) || row.is_none())
        {
            self.switch_of.remove(&port);
            if let Some(space) = self.ports.get_mut(&old) {
                space.release(port);
            }
            changed.insert((Allocation::PortKey, port));
        }
        let (Some(switch), Some(row)) = (switch, row) else { return };
        let max = self.globals.max_port_key;
        let requested = row.get(lsp::OPTIONS).get("requested-tnl-key");
        let requested = requested.and_then(|k| k.parse().ok()).filter(|k| (1..=max).contains(k));
        let known = source
            .members(&IndexKey::BindingByPort(row.get(lsp::NAME).clone()))
            .first()
            .and_then(|binding| source.row(sb::port_binding::TABLE, *binding))
            .filter(|binding| {
                let datapath = binding.get(sb::port_binding::DATAPATH);
                source.members(&IndexKey::DatapathOfSwitch(switch)).contains(&datapath)
            })
            .map(|binding| binding.get(sb::port_binding::TUNNEL_KEY));
        self.switch_of.insert(port, switch);
        let assigned = self.ports.entry(switch).or_default().assign(port, requested, known, max);
        if assigned.refused {
            self.refusals.push(format!(
                "Logical switch port {} requests same tunnel key {} as another LSP or LRP",
                row.get(lsp::NAME),
                requested.unwrap_or_default()
            ));
        }
        changed.extend(assigned.changed.into_iter().map(|p| (Allocation::PortKey, p)));
    }

    /// Takes note of a changed row that allocators look at.
    pub(crate) fn notice(&mut self, change: &oxbow_ovsdb::RowChange) {
        let table = TableId::of(change.table);
        if table == TableId::of(nb::logical_switch::TABLE) {
            self.dirty.switches.insert(change.uuid);
            let ports = |row: &Option<std::sync::Arc<oxbow_ovsdb::Row>>| -> Vec<Uuid> {
                row.as_ref().map(|r| r.get(nb::logical_switch::PORTS).iter().collect()).unwrap_or_default()
            };
            let moved = symmetric_difference(&ports(&change.old), &ports(&change.new));
            self.dirty.ports.extend(moved.into_iter().map(|(_, port)| port));
        } else if table == TableId::of(nb::logical_switch_port::TABLE) {
            self.dirty.ports.insert(change.uuid);
        } else if table == TableId::of(nb::nb_global::TABLE) || table == TableId::of(sb::encap::TABLE) {
            self.dirty.globals = true;
        } else if table == TableId::of(sb::port_binding::TABLE) && change.has_changed(sb::port_binding::CHASSIS) {
            self.dirty.bound.extend(change.row().map(|row| row.get(sb::port_binding::LOGICAL_PORT).clone()));
        }
    }
}
