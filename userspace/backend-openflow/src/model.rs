//! The bridge as it should be: follows the pipeline's program, knows no switch.

use crate::desired::{About, Body, Desired, FlowKey, Line, Owner, Wish};
use crate::physical::{self, Flow, Part};
use crate::rules::Rules;
use crate::wiring::Wiring;
use oxbow_pipeline::ir::{Changes, ChassisId, DatapathKey, GroupKey, LflowId, Location, PortKey, Problem, Program};
use rustc_hash::{FxHashSet, FxHasher};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

/// Cookie of a logical flow's OpenFlow flows. ovn-controller uses the first 32 bits of the Logical_Flow row's `_uuid`, which is what
/// `ovn-sbctl lflow-list` looks for; 0 is everything that belongs to no logical flow.
pub type Cookies<'a> = &'a dyn Fn(LflowId) -> u64;

/// A part of a multicast group: the chunk of it that is a group of the switch.
type Chunk = (DatapathKey, GroupKey, Part, u32);

/// Desired flows and groups.
#[derive(Debug, Default)]
pub struct Model {
    desired: Desired,
    rules: Rules,
    wiring: Wiring,
    started: bool,
    asked: bool,
    chunks: BTreeMap<Chunk, u32>,
    numbers: FxHashSet<u32>,
}

impl Model {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows a difference. `program` is the program after it; `wiring` the numbers now in force. After a restart the first difference
    /// is from nothing.
    pub fn apply(&mut self, program: &Program, changes: &Changes, wiring: &Wiring, cookies: Cookies<'_>) {
        if !self.started {
            self.started = true;
            self.replace(Owner::Fixed, physical::fixed());
        }
        for rule in &changes.rules_removed {
            self.rules.remove(&mut self.desired, program, rule.id);
        }
        for rule in &changes.sub_removed {
            self.rules.remove(&mut self.desired, program, rule.id);
        }
        for (set, removed, added) in &changes.sets {
            self.rules.change_set(&mut self.desired, program, *set, removed, added);
        }
        for rule in &changes.rules_added {
            self.rules.add(&mut self.desired, program, rule, cookies);
        }
        for rule in &changes.sub_added {
            self.rules.add_sub(&mut self.desired, program, rule);
        }
        for datapath in &changes.datapaths {
            self.rules.restage(&mut self.desired, program, *datapath);
            self.replace(Owner::Datapath(*datapath), physical::into_egress(program, *datapath).into_iter().collect());
            if program.datapath(*datapath).is_none() {
                self.desired.forget(physical::forget_all(*datapath));
            }
        }
        self.apply_world(program, changes, wiring);
    }

    fn apply_world(&mut self, program: &Program, changes: &Changes, wiring: &Wiring) {
        let mut ports: BTreeSet<(DatapathKey, PortKey)> = changes.ports.iter().copied().collect();
        let mut groups: BTreeSet<(DatapathKey, GroupKey)> = changes.groups.iter().copied().collect();
        let mut chassis: BTreeSet<ChassisId> = changes.chassis.iter().copied().collect();
        let devices = differing(&self.wiring.devices, &wiring.devices);
        chassis.extend(differing(&self.wiring.tunnels, &wiring.tunnels));
        self.wiring.clone_from(wiring);
        let asked = self.rules.ask_addresses();
        if asked != self.asked {
            self.asked = asked;
            ports.extend(program.ports().map(|port| (port.datapath, port.key)));
        }
        if !devices.is_empty() || !chassis.is_empty() || !changes.datapaths.is_empty() {
            // Ports whose device, chassis or first table is another one now, and groups with such ports.
            let mut moved = BTreeSet::new();
            for port in program.ports() {
                let device = match port.location {
                    Location::Local { ifindex, .. } => devices.contains(&ifindex),
                    Location::Remote { chassis: main } => chassis.contains(&main),
                    Location::Unbound => false,
                };
                if device || port.additional.iter().any(|other| chassis.contains(other)) {
                    moved.insert((port.datapath, port.key));
                } else if changes.datapaths.contains(&port.datapath) && matches!(port.location, Location::Local { .. })
                {
                    ports.insert((port.datapath, port.key));
                }
            }
            for group in program.groups() {
                if group.members.iter().any(|member| moved.contains(&(group.datapath, *member))) {
                    groups.insert((group.datapath, group.key));
                }
            }
            ports.extend(moved);
        }
        for id in chassis {
            let flows = wiring.tunnels.get(&id).map(|tunnel| physical::from_tunnel(*tunnel)).unwrap_or_default();
            self.replace(Owner::Chassis(id), flows);
        }
        for at in ports {
            if program.port(at.0, at.1).is_none() {
                self.desired.forget(physical::forget_all(at.0));
            }
            let flows = physical::port(program, wiring, at, asked);
            self.replace(Owner::Port(at.0, at.1), flows);
        }
        for at in groups {
            self.group(program, at);
        }
        for (datapath, mac) in &changes.fdb {
            let known = program.fdb(*datapath, *mac);
            let flows = known.map(|port| physical::address(*datapath, *mac, port)).into_iter().collect();
            self.replace(Owner::Address(*datapath, *mac), flows);
            self.desired.forget(physical::forget(*datapath, *mac));
        }
    }

    /// An owner's flows are these and no others.
    fn replace(&mut self, owner: Owner, flows: Vec<Flow>) {
        self.desired.withdraw(owner);
        for (key, text) in flows {
            let body = Body::Acts(text.into());
            self.desired.wish(key, Wish { owner, lflow: LflowId(0), cookie: 0, body });
        }
    }

    fn group(&mut self, program: &Program, at: (DatapathKey, GroupKey)) {
        let mut wanted = physical::chunks(program, &self.wiring, at);
        let first = (at.0, at.1, Part::Local, 0);
        let last = (at.0, at.1, Part::Remote, u32::MAX);
        let before: Vec<(Chunk, u32)> = self.chunks.range(first..=last).map(|(chunk, id)| (*chunk, *id)).collect();
        for (chunk, id) in before {
            if !wanted.contains_key(&(chunk.2, chunk.3)) {
                self.chunks.remove(&chunk);
                self.numbers.remove(&id);
                self.desired.set_group(id, None);
            }
        }
        let mut numbers = BTreeMap::new();
        while let Some(((part, number), buckets)) = wanted.pop_first() {
            let chunk = (at.0, at.1, part, number);
            let id = match self.chunks.get(&chunk) {
                Some(id) => *id,
                None => self.number(chunk),
            };
            numbers.insert((part, number), id);
            self.desired.set_group(id, Some(buckets));
        }
        self.replace(Owner::Group(at.0, at.1), physical::group(at, &numbers));
    }

    /// A number for a chunk: by its content where that is free, so that the next process finds the same.
    fn number(&mut self, chunk: Chunk) -> u32 {
        let mut hasher = FxHasher::default();
        chunk.hash(&mut hasher);
        let hash = hasher.finish();
        let mut id = (hash ^ hash >> 32) as u32 & 0x7fff_ffff;
        while id == 0 || !self.numbers.insert(id) {
            id = (id + 1) & 0x7fff_ffff;
        }
        self.chunks.insert(chunk, id);
        id
    }

    /// The switch is being told what differs.
    pub(crate) fn begin(&mut self) -> Vec<Line> {
        self.desired.begin()
    }

    /// The switch is being told everything.
    pub(crate) fn begin_anew(&mut self) {
        self.desired.begin_anew();
    }

    /// Lines that delete learned addresses, among what the switch is being told.
    pub(crate) fn forgets(&self) -> &BTreeSet<String> {
        self.desired.forgets()
    }

    /// The switch has taken what it was told, or has not.
    pub(crate) fn end(&mut self, is_taken: bool) {
        self.desired.end(is_taken);
    }

    /// The switch refuses a line. Returns whether there is something that can still be done about it: then the differences are others now.
    pub(crate) fn refuse(&mut self, program: &Program, about: &About, line: &str, why: &str) -> bool {
        let (About::Write(key) | About::Delete(key)) = about else { return false };
        // The program may have changed while the switch was asked: nobody wants any more what it refused.
        if matches!(about, About::Write(_)) && self.desired.text(key).is_none_or(|text| !line.ends_with(&text)) {
            return true;
        }
        self.desired.owners(key).into_iter().any(|owner| match owner {
            Owner::Rule(id) => self.rules.refuse(&mut self.desired, program, id, why),
            _ => false,
        })
    }

    /// All flows, sorted, as ovs-ofctl(8) reads them.
    pub(crate) fn flows(&self) -> Vec<(FlowKey, String)> {
        self.desired.flow_texts()
    }

    /// All groups by number.
    pub(crate) fn groups(&self) -> &BTreeMap<u32, Arc<str>> {
        self.desired.groups()
    }

    /// All flows and groups as lines of an `ovs-ofctl bundle` file, groups first, each kind sorted: by number; by table, falling priority, match. The same
    /// state gives the same text, whatever its history, but for what [`crate::numbers`] says.
    #[must_use]
    pub fn print(&self) -> String {
        let groups = self.groups().iter().map(|(id, buckets)| format!("group add group_id={id},{buckets}\n"));
        groups.chain(self.flows().into_iter().map(|(_, text)| format!("flow add {text}\n"))).collect()
    }

    /// How many flows and groups there should be.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.desired.sizes()
    }

    /// What could not be held as it is.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.rules.problems()
    }

    /// Cookie of a logical flow that has rules here.
    pub(crate) fn cookie(&self, lflow: LflowId) -> Option<u64> {
        self.rules.cookie(lflow)
    }
}

/// Keys whose values differ.
fn differing<K: Ord + Copy, V: PartialEq>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> BTreeSet<K> {
    a.keys().chain(b.keys()).filter(|key| a.get(key) != b.get(key)).copied().collect()
}
