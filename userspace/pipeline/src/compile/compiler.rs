//! The compiler's rows, and how a change of one finds what depends on it.

use super::port_security::{self, BadElement, Element};
use super::references::{Reference, References};
use super::row::{FlowRow, Problem, SetChange};
use super::sets::{SetKey, Sets, key_alternative};
use super::simplify::DatapathRules;
use super::texts::{ActionText, AddressSets, MatchText, Texts, address_set, address_set_member};
use crate::ir::{
    Changes, Chassis, ChassisId, Consequence, Datapath, DatapathKey, FlowUuid, Group, GroupKey, LflowId, Location,
    LogicalPort, MAX_STAGES, Mac, PortKey, Program, Rule, RuleId, Sub, SubRule,
};
use oxbow_lflow::Vocabulary;
use oxbow_lflow::normal::SetRef;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the compiler is told once.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The names that flows may use.
    pub vocabulary: Vocabulary,
    /// Stages of an ingress pipeline, at most [`MAX_STAGES`].
    pub ingress_stages: u8,
    /// Stages of an egress pipeline, at most [`MAX_STAGES`].
    pub egress_stages: u8,
}

impl Default for Options {
    fn default() -> Self {
        Options { vocabulary: Vocabulary::Accepting, ingress_stages: MAX_STAGES, egress_stages: MAX_STAGES }
    }
}

/// What is known of a datapath.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatapathInfo {
    /// Name for people.
    pub name: Arc<str>,
    /// A logical router; else a logical switch.
    pub router: bool,
}

/// A flow and what was made of it.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) row: Arc<FlowRow>,
    pub(super) rules: BTreeMap<DatapathKey, Vec<Arc<Rule>>>,
    pub(super) references: Vec<Reference>,
    /// Keeps the parsed texts alive.
    pub(super) texts: Option<(Arc<ActionText>, Arc<MatchText>)>,
    pub(super) trouble: Option<(Arc<str>, Consequence)>,
}

/// Dense numbers, reused only after the commit in which they were given back.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    last: u32,
    free: Vec<u32>,
    returned: Vec<u32>,
}

impl Numbers {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.last += 1;
            self.last
        })
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.returned.push(number);
    }

    /// Numbers given back are free from now on; returns them.
    fn commit(&mut self) -> Vec<u32> {
        self.free.extend_from_slice(&self.returned);
        std::mem::take(&mut self.returned)
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Compiler {
    pub(super) program: Program,
    pub(super) flows: BTreeMap<LflowId, Flow>,
    by_uuid: FxHashMap<FlowUuid, LflowId>,
    by_datapath: FxHashMap<DatapathKey, FxHashSet<LflowId>>,
    pub(super) rules: BTreeMap<DatapathKey, DatapathRules>,
    pub(super) texts: Texts,
    pub(super) sets: Sets,
    pub(super) references: References,
    pub(super) address_sets: AddressSets,
    pub(super) port_groups: FxHashMap<Arc<str>, BTreeSet<Arc<str>>>,
    groups_of_port: FxHashMap<Arc<str>, BTreeSet<Arc<str>>>,
    pub(super) ports_by_name: FxHashMap<Arc<str>, (DatapathKey, PortKey)>,
    pub(super) groups_by_name: FxHashMap<(DatapathKey, Arc<str>), GroupKey>,
    sub_rules: FxHashMap<(DatapathKey, PortKey), Vec<Arc<SubRule>>>,
    pub(super) rule_numbers: Numbers,
    lflow_numbers: Numbers,
    // What the next commit has to do.
    dirty: BTreeSet<LflowId>,
    insecure: BTreeSet<(DatapathKey, PortKey)>,
    swept: bool,
    changed: Touched,
}

/// Parts of the world that changed since the last commit.
#[derive(Debug, Default)]
struct Touched {
    datapaths: BTreeSet<DatapathKey>,
    ports: BTreeSet<(DatapathKey, PortKey)>,
    groups: BTreeSet<(DatapathKey, GroupKey)>,
    chassis: BTreeSet<ChassisId>,
    fdb: BTreeSet<(DatapathKey, Mac)>,
}

impl Default for Compiler {
    fn default() -> Self {
        Compiler::new(Options::default())
    }
}

impl Compiler {
    /// A compiler that knows nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let stages = (options.ingress_stages.min(MAX_STAGES), options.egress_stages.min(MAX_STAGES));
        Compiler {
            program: Program::default(),
            flows: BTreeMap::new(),
            by_uuid: FxHashMap::default(),
            by_datapath: FxHashMap::default(),
            rules: BTreeMap::new(),
            texts: Texts::new(options.vocabulary, stages),
            sets: Sets::default(),
            references: References::default(),
            address_sets: AddressSets::default(),
            port_groups: FxHashMap::default(),
            groups_of_port: FxHashMap::default(),
            ports_by_name: FxHashMap::default(),
            groups_by_name: FxHashMap::default(),
            sub_rules: FxHashMap::default(),
            rule_numbers: Numbers::default(),
            lflow_numbers: Numbers::default(),
            dirty: BTreeSet::new(),
            insecure: BTreeSet::new(),
            swept: false,
            changed: Touched::default(),
        }
    }

    /// The program as of the last commit.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The row of a logical flow.
    #[must_use]
    pub fn flow(&self, id: LflowId) -> Option<&Arc<FlowRow>> {
        self.flows.get(&id).map(|flow| &flow.row)
    }

    /// Every logical flow with its number, in no particular order.
    pub fn flows(&self) -> impl Iterator<Item = (LflowId, &Arc<FlowRow>)> {
        self.flows.iter().map(|(id, flow)| (*id, &flow.row))
    }

    /// The number of a logical flow.
    #[must_use]
    pub fn lflow(&self, uuid: FlowUuid) -> Option<LflowId> {
        self.by_uuid.get(&uuid).copied()
    }

    /// Number of flows, and of the distinct matches and action lists among them.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        let (matches, actions) = self.texts.len();
        (self.flows.len(), matches, actions)
    }

    /// Makes a datapath known, renames it, or forgets it. Only flows of known datapaths are compiled.
    pub fn set_datapath(&mut self, key: DatapathKey, info: Option<DatapathInfo>) {
        let known = self.rules.contains_key(&key);
        match info {
            Some(DatapathInfo { name, router }) => {
                let rules = self.rules.entry(key).or_default();
                let stages = rules.stages().clone();
                self.program.put_datapath(key, Some(Datapath { name, router, stages }));
                if !known {
                    self.dirty_datapath(key);
                }
            }
            None => {
                if known {
                    self.dirty_datapath(key);
                }
                // The rules go with the commit, when the flows are lowered without it.
                self.program.put_datapath(key, None);
            }
        }
        self.changed.datapaths.insert(key);
    }

    fn dirty_datapath(&mut self, key: DatapathKey) {
        self.dirty.extend(self.by_datapath.get(&key).into_iter().flatten().copied());
        self.insecure.extend(self.program.ports.range((key, PortKey(0))..=(key, PortKey(u32::MAX))).map(|(k, _)| *k));
    }

    /// Adds or changes a flow.
    pub fn set_flow(&mut self, row: FlowRow) -> LflowId {
        let id = match self.by_uuid.get(&row.uuid) {
            Some(id) => *id,
            None => {
                let id = LflowId(self.lflow_numbers.take());
                self.by_uuid.insert(row.uuid, id);
                id
            }
        };
        let row = Arc::new(row);
        match self.flows.get_mut(&id) {
            Some(flow) if flow.row == row => return id,
            Some(flow) => {
                let before = std::mem::replace(&mut flow.row, Arc::clone(&row));
                self.unlist(id, &before);
            }
            None => {
                let flow = Flow {
                    row: Arc::clone(&row),
                    rules: BTreeMap::new(),
                    references: Vec::new(),
                    texts: None,
                    trouble: None,
                };
                self.flows.insert(id, flow);
            }
        }
        for datapath in &row.datapaths {
            self.by_datapath.entry(*datapath).or_default().insert(id);
        }
        self.dirty.insert(id);
        id
    }

    /// Removes a flow.
    pub fn remove_flow(&mut self, uuid: FlowUuid) {
        let Some(id) = self.by_uuid.remove(&uuid) else { return };
        let Some(flow) = self.flows.remove(&id) else { return };
        self.unlist(id, &flow.row);
        self.references.replace(id, &flow.references, &[]);
        for (datapath, rules) in &flow.rules {
            for rule in rules {
                self.discard(*datapath, rule);
            }
        }
        self.dirty.remove(&id);
        self.swept = true;
        self.lflow_numbers.give_back(id.0);
    }

    fn unlist(&mut self, id: LflowId, row: &FlowRow) {
        for datapath in &row.datapaths {
            if let Some(flows) = self.by_datapath.get_mut(datapath) {
                flows.remove(&id);
                if flows.is_empty() {
                    self.by_datapath.remove(datapath);
                }
            }
        }
    }

    /// A lowered rule is not needed any more.
    pub(super) fn discard(&mut self, datapath: DatapathKey, rule: &Rule) {
        self.release_sets(&rule.dims);
        if let Some(rules) = self.rules.get_mut(&datapath) {
            rules.remove(rule.id);
        }
        self.rule_numbers.give_back(rule.id.0);
    }

    pub(super) fn release_sets(&mut self, dims: &[crate::ir::Dim]) {
        for dim in dims {
            if let crate::ir::Alternatives::Set(id) = dim.alternatives {
                self.sets.release(id);
            }
        }
    }

    /// Adds or changes a port.
    pub fn set_port(&mut self, port: LogicalPort) {
        if let Some(elsewhere) = self.ports_by_name.get(&port.name).copied()
            && elsewhere != (port.datapath, port.key)
        {
            self.remove_port(elsewhere.0, elsewhere.1);
        }
        self.replace_port((port.datapath, port.key), Some(Arc::new(port)));
    }

    /// Removes a port.
    pub fn remove_port(&mut self, datapath: DatapathKey, key: PortKey) {
        self.replace_port((datapath, key), None);
    }

    fn replace_port(&mut self, key: (DatapathKey, PortKey), after: Option<Arc<LogicalPort>>) {
        let before = self.program.port(key.0, key.1).cloned();
        if before == after {
            return;
        }
        let name = |port: &Option<Arc<LogicalPort>>| port.as_ref().map(|port| Arc::clone(&port.name));
        let (name_before, name_after) = (name(&before), name(&after));
        let resident = |port: &Option<Arc<LogicalPort>>| {
            port.as_ref().is_some_and(|port| matches!(port.location, Location::Local { .. }))
        };
        let renamed = name_before != name_after;
        if renamed || resident(&before) != resident(&after) {
            for name in [&name_before, &name_after].into_iter().flatten() {
                self.touch(&Reference::Resident(Arc::clone(name)));
            }
        }
        if renamed {
            if let Some(name) = name_before {
                self.ports_by_name.remove(&name);
                self.name_changed(key.0, &name);
                self.in_groups(key, &name, false);
            }
            if let Some(name) = name_after {
                self.ports_by_name.insert(Arc::clone(&name), key);
                self.name_changed(key.0, &name);
                self.in_groups(key, &name, true);
            }
        }
        let security = |port: &Option<Arc<LogicalPort>>| {
            port.as_ref().filter(|port| is_here(port)).map(|port| port.port_security.clone())
        };
        if security(&before).unwrap_or_default() != security(&after).unwrap_or_default() {
            self.insecure.insert(key);
        }
        let groups = self.program.groups.range((key.0, GroupKey(0))..=(key.0, GroupKey(u32::MAX)));
        self.changed
            .groups
            .extend(groups.filter(|(_, group)| group.members.binary_search(&key.1).is_ok()).map(|(group, _)| *group));
        self.changed.ports.insert(key);
        self.program.put_port(key, after);
    }

    fn name_changed(&mut self, datapath: DatapathKey, name: &Arc<str>) {
        self.touch(&Reference::Key(datapath, Arc::clone(name)));
    }

    /// A port that came or went, in every port group that has its name.
    fn in_groups(&mut self, key: (DatapathKey, PortKey), name: &Arc<str>, present: bool) {
        for row in self.groups_of_port.get(name).cloned().unwrap_or_default() {
            self.member_of(&row, key, present);
            self.touch(&Reference::GroupContents(row));
        }
    }

    fn member_of(&mut self, row: &Arc<str>, (datapath, key): (DatapathKey, PortKey), present: bool) {
        if let Some(set) = self.sets.find(&SetKey::Ports { datapath, row: Arc::clone(row) }) {
            if present {
                self.sets.add(set, key_alternative(key.0));
            } else {
                self.sets.remove(set, key_alternative(key.0));
            }
        }
    }

    fn touch(&mut self, reference: &Reference) {
        self.dirty.extend(self.references.users(reference));
    }

    /// Adds or changes a multicast group; its members are sorted here.
    pub fn set_group(&mut self, mut group: Group) {
        group.members.sort_unstable();
        group.members.dedup();
        self.replace_group((group.datapath, group.key), Some(Arc::new(group)));
    }

    /// Removes a multicast group.
    pub fn remove_group(&mut self, datapath: DatapathKey, key: GroupKey) {
        self.replace_group((datapath, key), None);
    }

    fn replace_group(&mut self, key: (DatapathKey, GroupKey), after: Option<Arc<Group>>) {
        let before = self.program.group(key.0, key.1).cloned();
        if before == after {
            return;
        }
        let name = |group: &Option<Arc<Group>>| group.as_ref().map(|group| Arc::clone(&group.name));
        let (name_before, name_after) = (name(&before), name(&after));
        if name_before != name_after {
            if let Some(name) = name_before {
                // Another group may have taken it already.
                let place = (key.0, Arc::clone(&name));
                if self.groups_by_name.get(&place) == Some(&key.1) {
                    self.groups_by_name.remove(&place);
                }
                self.name_changed(key.0, &name);
            }
            if let Some(name) = name_after {
                self.groups_by_name.insert((key.0, Arc::clone(&name)), key.1);
                self.name_changed(key.0, &name);
            }
        }
        self.changed.groups.insert(key);
        self.program.put_group(key, after);
    }

    /// Adds or changes a chassis.
    pub fn set_chassis(&mut self, chassis: Chassis) {
        self.changed.chassis.insert(chassis.id);
        self.program.put_chassis(chassis.id, Some(Arc::new(chassis)));
    }

    /// Removes a chassis.
    pub fn remove_chassis(&mut self, id: ChassisId) {
        self.changed.chassis.insert(id);
        self.program.put_chassis(id, None);
    }

    /// Says behind which port an address is, or that nobody knows.
    pub fn set_fdb(&mut self, datapath: DatapathKey, mac: Mac, port: Option<PortKey>) {
        if self.program.fdb(datapath, mac) != port {
            self.changed.fdb.insert((datapath, mac));
            self.program.put_fdb((datapath, mac), port);
        }
    }

    /// Adds, replaces or removes an address set. Members that cannot be read are left out, as in OVN.
    pub fn set_address_set<'a>(&mut self, name: &str, addresses: Option<impl IntoIterator<Item = &'a str>>) {
        let before = self.address_sets.get(name).cloned();
        let after = addresses.map(address_set);
        if before == after {
            return;
        }
        let members =
            |set: &Option<oxbow_lflow::AddressSet>| set.as_ref().map(|s| s.members.clone()).unwrap_or_default();
        let (gone, come) = (members(&before), members(&after));
        let shape = |set: &Option<oxbow_lflow::AddressSet>| set.as_ref().map(|set| set.max_width);
        let reshaped = shape(&before) != shape(&after);
        match after {
            Some(set) => self.address_sets.insert(name.into(), set),
            None => self.address_sets.remove(name),
        };
        self.address_set_changed(name, &gone, &come, reshaped);
    }

    /// Changes an address set by elements; an unknown set counts as empty before.
    pub fn change_address_set(&mut self, name: &str, SetChange { removed, added }: SetChange<'_>) {
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        let known = self.address_sets.contains_key(name);
        let set = self.address_sets.entry(name.into()).or_default();
        let width = set.max_width;
        for member in removed.iter().filter_map(|text| address_set_member(text)) {
            if let Some(at) = set.members.iter().position(|there| *there == member) {
                set.members.swap_remove(at);
                gone.push(member);
            }
        }
        for member in added.iter().filter_map(|text| address_set_member(text)) {
            set.members.push(member);
            set.max_width = set.max_width.max(member.width());
            come.push(member);
        }
        if !gone.is_empty() {
            set.max_width = set.members.iter().map(|member| member.width()).max().unwrap_or_default();
        }
        let reshaped = !known || set.max_width != width;
        self.address_set_changed(name, &gone, &come, reshaped);
    }

    fn address_set_changed(
        &mut self,
        name: &str,
        gone: &[oxbow_lflow::constant::Integer],
        come: &[oxbow_lflow::constant::Integer],
        reshaped: bool,
    ) {
        for (id, offset, width) in self.sets.of_addresses(name) {
            let seen = SetRef { name: name.into(), offset, width };
            // First what comes, so that what stays is never away.
            come.iter().for_each(|member| self.sets.add(id, seen.alternative(member)));
            gone.iter().for_each(|member| self.sets.remove(id, seen.alternative(member)));
        }
        self.touch(&Reference::SetContents(name.into()));
        if reshaped {
            self.texts.forget_set(name);
            self.touch(&Reference::SetShape(name.into()));
        }
    }

    /// Adds, replaces or removes a Port_Group row; `row` is its name, with the datapath's key in front.
    pub fn set_port_group<'a>(&mut self, row: &str, ports: Option<impl IntoIterator<Item = &'a str>>) {
        let before = self.port_groups.get(row).cloned().unwrap_or_default();
        let known = ports.is_some();
        let after: BTreeSet<Arc<str>> = ports.into_iter().flatten().map(Arc::from).collect();
        let removed: Vec<&str> = before.difference(&after).map(|name| &**name).collect();
        let added: Vec<&str> = after.difference(&before).map(|name| &**name).collect();
        self.change_port_group(row, SetChange { removed: &removed, added: &added });
        if !known {
            self.port_groups.remove(row);
        }
    }

    /// Changes a Port_Group row by elements.
    pub fn change_port_group(&mut self, row: &str, SetChange { removed, added }: SetChange<'_>) {
        let row: Arc<str> = row.into();
        let mut changes: Vec<(Arc<str>, bool)> = Vec::new();
        let ports = self.port_groups.entry(Arc::clone(&row)).or_default();
        changes.extend(removed.iter().filter(|name| ports.remove(**name)).map(|name| (Arc::from(*name), false)));
        changes.extend(
            added
                .iter()
                .map(|name| Arc::<str>::from(*name))
                .filter(|name| ports.insert(Arc::clone(name)))
                .map(|name| (name, true)),
        );
        for (name, present) in &changes {
            let rows = self.groups_of_port.entry(Arc::clone(name)).or_default();
            if *present {
                rows.insert(Arc::clone(&row));
            } else {
                rows.remove(&row);
                if rows.is_empty() {
                    self.groups_of_port.remove(name);
                }
            }
            if let Some(key) = self.ports_by_name.get(name).copied() {
                self.member_of(&row, key, *present);
            }
        }
        if !changes.is_empty() {
            self.touch(&Reference::GroupContents(row));
        }
    }

    /// Brings the program up to date; what changed in it.
    pub fn commit(&mut self) -> Changes {
        let mut changes = Changes::default();
        let dirty = std::mem::take(&mut self.dirty);
        let rows: Vec<Arc<FlowRow>> = dirty.iter().filter_map(|id| self.flow(*id).cloned()).collect();
        self.texts.prepare(&rows, &self.address_sets);
        for id in dirty {
            self.lower(id);
        }
        for key in std::mem::take(&mut self.insecure) {
            self.secure(key, &mut changes);
        }
        let mut forgotten = Vec::new();
        for (key, rules) in &mut self.rules {
            let settled = rules.settle();
            changes.rules_removed.extend(settled.removed);
            changes.rules_added.extend(settled.added);
            match self.program.datapaths.get_mut(key) {
                Some(datapath) if settled.restaged => {
                    datapath.stages = rules.stages().clone();
                    self.changed.datapaths.insert(*key);
                }
                Some(_) => {}
                None => forgotten.push(*key),
            }
        }
        for key in forgotten {
            self.rules.remove(&key);
        }
        (changes.sets, changes.sets_gone) = self.sets.take_changes();
        let Touched { datapaths, ports, groups, chassis, fdb } = std::mem::take(&mut self.changed);
        changes.datapaths = datapaths.into_iter().collect();
        changes.ports = ports.into_iter().collect();
        changes.groups = groups.into_iter().collect();
        changes.chassis = chassis.into_iter().collect();
        changes.fdb = fdb.into_iter().collect();
        self.program.apply(&changes);
        if std::mem::take(&mut self.swept) {
            self.texts.sweep();
        }
        self.rule_numbers.commit();
        changes.flows_gone = self.lflow_numbers.commit().into_iter().map(LflowId).collect();
        changes
    }

    /// The flow's texts are not what they were: unused ones can go.
    pub(super) fn sweep_later(&mut self) {
        self.swept = true;
    }

    /// Brings a port's sub-table rules up to date.
    fn secure(&mut self, key: (DatapathKey, PortKey), changes: &mut Changes) {
        let known = self.program.datapath(key.0).is_some();
        // What a port sends is checked where it sends it, and what it is sent where it is delivered: both on its own chassis.
        let port = self.program.port(key.0, key.1).filter(|port| known && is_here(port));
        let drafts = port.map(|port| port_security::rules(port)).unwrap_or_default();
        let before = self.sub_rules.remove(&key).unwrap_or_default();
        let mut after = Vec::with_capacity(drafts.len());
        for (sub, priority, dims, result) in drafts {
            let same = |rule: &&Arc<SubRule>| {
                rule.sub == sub && rule.priority == priority && rule.dims == dims && rule.result == result
            };
            after.push(match before.iter().find(same) {
                Some(rule) => Arc::clone(rule),
                None => {
                    let id = RuleId(self.rule_numbers.take());
                    let rule = Arc::new(SubRule { id, datapath: key.0, sub, priority, dims, result });
                    changes.sub_added.push(Arc::clone(&rule));
                    rule
                }
            });
        }
        if let Some(rules) = self.rules.get_mut(&key.0) {
            let count = |list: &[Arc<SubRule>], out: bool| list.iter().filter(|r| (r.sub == Sub::Out) == out).count();
            let mut secure = rules.secure();
            for (i, out) in [false, true].into_iter().enumerate() {
                secure[i] = secure[i] + count(&after, out) - count(&before, out);
            }
            rules.set_secure(secure);
        }
        for rule in before {
            if !after.iter().any(|kept| kept.id == rule.id) {
                self.rule_numbers.give_back(rule.id.0);
                changes.sub_removed.push(rule);
            }
        }
        if !after.is_empty() {
            self.sub_rules.insert(key, after);
        }
    }

    /// Flows that packets can reach and that are not executed as written.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (id, flow) in &self.flows {
            let Some((text, consequence)) = &flow.trouble else { continue };
            let row = &flow.row;
            let reached = row.datapaths.iter().filter_map(|datapath| Some((datapath, self.rules.get(datapath)?))).any(
                |(datapath, rules)| match consequence {
                    // The last is a backend's alone.
                    Consequence::LeftOut | Consequence::TableClosed | Consequence::CommitRefused => {
                        rules.is_reached(row.pipeline, row.stage)
                    }
                    Consequence::MatchDropped | Consequence::SideEffectIgnored => {
                        flow.rules.get(datapath).is_some_and(|list| list.iter().any(|rule| rules.is_live(rule.id)))
                    }
                },
            );
            if reached {
                let (row, text) = (Arc::clone(row), Arc::clone(text));
                problems.push(Problem { lflow: *id, row, text, consequence: *consequence });
            }
        }
        problems
    }

    /// Elements of port security that cannot be read.
    #[must_use]
    pub fn bad_port_security(&self) -> Vec<(Arc<LogicalPort>, BadElement)> {
        let elements = self.program.ports().flat_map(|port| port.port_security.iter().map(move |text| (port, text)));
        elements.filter_map(|(port, text)| Some((Arc::clone(port), text.parse::<Element>().err()?))).collect()
    }

    /// The program as lowered, without any simplification: what [`Compiler::program`] must be equivalent to.
    #[must_use]
    pub fn raw_program(&self) -> Program {
        let mut raw = self.program.clone();
        raw.tables.clear();
        let mut changes = Changes::default();
        for (key, rules) in &self.rules {
            changes.rules_added.extend(rules.raw());
            if let Some(datapath) = raw.datapaths.get_mut(key) {
                datapath.stages = rules.raw_stages();
            }
        }
        raw.apply(&changes);
        raw
    }
}

/// Whether a port is on a device of this chassis.
fn is_here(port: &LogicalPort) -> bool {
    matches!(port.location, Location::Local { .. })
}
