//! Allocators: the only place where history lives.
//!
//! What they assign is input to units as facts, and stays as it is until its owner leaves or asks for something else. At
//! start they take over what both databases already hold.

mod ipam;
mod key_space;
mod queues;
mod tags;

use std::collections::{BTreeMap, BTreeSet};

use oxbow_incr::{Aspects, Engine};
use oxbow_ovsdb::{Text, Uuid};
use oxbow_schema::{nb, sb};
use rustc_hash::FxHashMap;

use crate::address::Mac;
use crate::profile::Profile;
use crate::program::Compiler;
use crate::source::{Allocation, Fact, IndexKey, Source, TableId, symmetric_difference};

use ipam::Ipam;
use key_space::{KeySpace, Wish};
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

/// What a switch wants of the keys of datapaths; `None` when there is no such switch.
fn datapath_wish(source: &Source, switch: Uuid, max: i64) -> Option<Wish> {
    let row = source.row(nb::logical_switch::TABLE, switch)?;
    let requested = row.get(nb::logical_switch::OTHER_CONFIG).get("requested-tnl-key");
    let known = source
        .members(&IndexKey::DatapathOfSwitch(switch))
        .first()
        .and_then(|datapath| source.row(sb::datapath_binding::TABLE, *datapath))
        .map(|datapath| datapath.get(sb::datapath_binding::TUNNEL_KEY));
    Some(Wish { owner: switch, requested: parse_request(requested, max), known })
}

/// What a port wants of the keys of its switch; `None` when there is no such port.
fn port_wish(source: &Source, switch: Uuid, port: Uuid, max: i64) -> Option<Wish> {
    use nb::logical_switch_port as lsp;
    let row = source.row(lsp::TABLE, port)?;
    let known = source
        .members(&IndexKey::BindingByPort(row.get(lsp::NAME).clone()))
        .first()
        .and_then(|binding| source.row(sb::port_binding::TABLE, *binding))
        .filter(|binding| {
            let datapath = binding.get(sb::port_binding::DATAPATH);
            source.members(&IndexKey::DatapathOfSwitch(switch)).contains(&datapath)
        })
        .map(|binding| binding.get(sb::port_binding::TUNNEL_KEY));
    Some(Wish { owner: port, requested: parse_request(row.get(lsp::OPTIONS).get("requested-tnl-key"), max), known })
}

/// `requested-tnl-key`, if it is a key.
fn parse_request(text: Option<&Text>, max: i64) -> Option<i64> {
    text?.parse().ok().filter(|key| (1..=max).contains(key))
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
        self.update_datapath_keys(source, &dirty.switches, &mut changed);
        self.update_port_keys(source, &dirty.ports, &mut changed);
        changed.extend(self.tags.update(source, &dirty.ports).into_iter().map(|port| (Allocation::Tag, port)));
        let bound = std::mem::take(&mut dirty.bound);
        let bound = bound.into_iter().filter_map(|name| source.members(&IndexKey::PortByName(name)).first().copied());
        let shaped: BTreeSet<Uuid> = dirty.ports.iter().copied().chain(bound).collect();
        changed.extend(self.queues.update(source, &shaped).into_iter().map(|port| (Allocation::Queue, port)));
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
        if self.globals.max_datapath_key > old.max_datapath_key {
            dirty.switches.extend(self.datapaths.waiting());
            dirty.ports.extend(self.ports.values().flat_map(KeySpace::waiting));
        }
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

    fn update_datapath_keys(
        &mut self,
        source: &Source,
        switches: &BTreeSet<Uuid>,
        changed: &mut BTreeSet<(Allocation, Uuid)>,
    ) {
        let max = self.globals.max_datapath_key;
        let mut owners = switches.clone();
        for &switch in switches {
            if source.row(nb::logical_switch::TABLE, switch).is_none() {
                changed.extend(self.datapaths.release(switch).then_some((Allocation::DatapathKey, switch)));
                self.ports.remove(&switch);
                owners.remove(&switch);
            }
        }
        owners.extend(self.datapaths.hopeful());
        while !owners.is_empty() {
            let wishes: Vec<Wish> = owners.iter().filter_map(|switch| datapath_wish(source, *switch, max)).collect();
            let assigned = self.datapaths.assign(&wishes, max);
            let name =
                |switch: Uuid| source.row(nb::logical_switch::TABLE, switch).map(|r| r.get(nb::logical_switch::NAME));
            for wish in wishes.iter().filter(|wish| assigned.refused.contains(&wish.owner)) {
                self.refusals.push(format!(
                    "Logical switch {} requests same tunnel key {} as another logical switch or router",
                    name(wish.owner).map(Text::as_str).unwrap_or_default(),
                    wish.requested.unwrap_or_default()
                ));
            }
            for &switch in &assigned.without {
                let name = name(switch).map(Text::as_str).unwrap_or_default();
                self.refusals.push(format!("all datapath tunnel ids exhausted: logical switch {name} has none"));
            }
            changed.extend(assigned.changed.into_iter().map(|s| (Allocation::DatapathKey, s)));
            owners = self.datapaths.hopeful();
        }
    }

    fn update_port_keys(
        &mut self,
        source: &Source,
        ports: &BTreeSet<Uuid>,
        changed: &mut BTreeSet<(Allocation, Uuid)>,
    ) {
        use nb::logical_switch_port as lsp;
        let max = self.globals.max_port_key;
        let mut spaces: BTreeMap<Uuid, BTreeSet<Uuid>> = BTreeMap::new();
        for &port in ports {
            let switch = source.members(&IndexKey::SwitchOfPort(port)).first().copied();
            let now = switch.filter(|_| source.row(lsp::TABLE, port).is_some());
            if let Some(&old) = self.switch_of.get(&port)
                && now != Some(old)
            {
                self.switch_of.remove(&port);
                if let Some(space) = self.ports.get_mut(&old) {
                    space.release(port);
                    // Others may have waited for it.
                    spaces.entry(old).or_default();
                }
                changed.insert((Allocation::PortKey, port));
            }
            if let Some(switch) = now {
                self.switch_of.insert(port, switch);
                spaces.entry(switch).or_default().insert(port);
            }
        }
        for (switch, mut owners) in spaces {
            let space = self.ports.entry(switch).or_default();
            owners.extend(space.hopeful());
            while !owners.is_empty() {
                let wishes: Vec<Wish> =
                    owners.iter().filter_map(|port| port_wish(source, switch, *port, max)).collect();
                let assigned = space.assign(&wishes, max);
                let name = |port: Uuid| source.row(lsp::TABLE, port).map(|row| row.get(lsp::NAME));
                for wish in wishes.iter().filter(|wish| assigned.refused.contains(&wish.owner)) {
                    self.refusals.push(format!(
                        "Logical switch port {} requests same tunnel key {} as another LSP or LRP",
                        name(wish.owner).map(Text::as_str).unwrap_or_default(),
                        wish.requested.unwrap_or_default()
                    ));
                }
                for &port in &assigned.without {
                    let name = name(port).map(Text::as_str).unwrap_or_default();
                    self.refusals.push(format!("all port tunnel ids exhausted: logical switch port {name} has none"));
                }
                changed.extend(assigned.changed.into_iter().map(|p| (Allocation::PortKey, p)));
                owners = space.hopeful();
            }
        }
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
