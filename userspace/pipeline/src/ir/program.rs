//! The program in force: what backends hold a compiled form of and the reference interpreter executes.

use super::{
    Alternatives, Changes, Chassis, ChassisId, DatapathKey, Dim, Group, GroupKey, LogicalPort, MAX_STAGES, Mac, Masked,
    Pipeline, PortKey, Rule, RuleId, SetId, Sub, SubRule, TableId,
};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// For each stage of both pipelines the table at which a packet sent there really starts: the first at or after it that can do anything
/// but go on to the next one. `None`: the packet falls off the end of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stages {
    /// By ingress stage.
    pub ingress: [Option<u8>; MAX_STAGES as usize],
    /// By egress stage.
    pub egress: [Option<u8>; MAX_STAGES as usize],
}

impl Default for Stages {
    fn default() -> Self {
        Stages { ingress: [None; MAX_STAGES as usize], egress: [None; MAX_STAGES as usize] }
    }
}

impl Stages {
    /// Where a packet sent to `stage` starts.
    #[must_use]
    pub fn entry(&self, pipeline: Pipeline, stage: u8) -> Option<u8> {
        let stages = match pipeline {
            Pipeline::Ingress => &self.ingress,
            Pipeline::Egress => &self.egress,
        };
        stages.get(usize::from(stage)).copied().flatten()
    }
}

/// A logical datapath.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datapath {
    /// Name for people (Datapath_Binding.external_ids:name).
    pub name: Arc<str>,
    /// A logical router; else a logical switch.
    pub router: bool,
    /// Its stages.
    pub stages: Stages,
}

/// Rules and world. Read it through the methods; [`Program::apply`] is for whoever produced the [`Changes`].
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub(crate) datapaths: BTreeMap<DatapathKey, Datapath>,
    pub(crate) tables: FxHashMap<TableId, BTreeMap<RuleId, Arc<Rule>>>,
    pub(crate) subs: FxHashMap<(DatapathKey, Sub), BTreeMap<RuleId, Arc<SubRule>>>,
    pub(crate) sets: FxHashMap<SetId, BTreeSet<Masked>>,
    pub(crate) ports: BTreeMap<(DatapathKey, PortKey), Arc<LogicalPort>>,
    pub(crate) groups: BTreeMap<(DatapathKey, GroupKey), Arc<Group>>,
    pub(crate) chassis: BTreeMap<ChassisId, Arc<Chassis>>,
    pub(crate) fdb: BTreeMap<(DatapathKey, Mac), PortKey>,
}

impl Program {
    /// All datapaths.
    pub fn datapaths(&self) -> impl Iterator<Item = (DatapathKey, &Datapath)> {
        self.datapaths.iter().map(|(key, datapath)| (*key, datapath))
    }

    /// A datapath.
    #[must_use]
    pub fn datapath(&self, key: DatapathKey) -> Option<&Datapath> {
        self.datapaths.get(&key)
    }

    /// Rules of a table, in no order of meaning.
    pub fn rules(&self, table: TableId) -> impl Iterator<Item = &Arc<Rule>> {
        self.tables.get(&table).into_iter().flat_map(BTreeMap::values)
    }

    /// All tables that have rules.
    pub fn tables(&self) -> impl Iterator<Item = TableId> {
        self.tables.keys().copied()
    }

    /// Rules of a sub-table, in no order of meaning.
    pub fn sub_rules(&self, datapath: DatapathKey, sub: Sub) -> impl Iterator<Item = &Arc<SubRule>> {
        self.subs.get(&(datapath, sub)).into_iter().flat_map(BTreeMap::values)
    }

    /// Members of a set, in ascending order; `None` when there is no such set.
    #[must_use]
    pub fn set(&self, id: SetId) -> Option<&BTreeSet<Masked>> {
        self.sets.get(&id)
    }

    /// The alternatives of a condition, sets resolved.
    pub fn alternatives<'a>(&'a self, dim: &'a Dim) -> impl Iterator<Item = Masked> + 'a {
        let (list, set) = match &dim.alternatives {
            Alternatives::List(list) => (Some(list), None),
            Alternatives::Set(id) => (None, self.sets.get(id)),
        };
        list.into_iter().flat_map(|list| list.iter().copied()).chain(set.into_iter().flatten().copied())
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<LogicalPort>> {
        self.ports.values()
    }

    /// A port.
    #[must_use]
    pub fn port(&self, datapath: DatapathKey, key: PortKey) -> Option<&Arc<LogicalPort>> {
        self.ports.get(&(datapath, key))
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// A group.
    #[must_use]
    pub fn group(&self, datapath: DatapathKey, key: GroupKey) -> Option<&Arc<Group>> {
        self.groups.get(&(datapath, key))
    }

    /// All other chassis.
    pub fn all_chassis(&self) -> impl Iterator<Item = &Arc<Chassis>> {
        self.chassis.values()
    }

    /// A chassis.
    #[must_use]
    pub fn chassis(&self, id: ChassisId) -> Option<&Arc<Chassis>> {
        self.chassis.get(&id)
    }

    /// All known addresses (table FDB).
    pub fn fdb_entries(&self) -> impl Iterator<Item = (DatapathKey, Mac, PortKey)> {
        self.fdb.iter().map(|((datapath, mac), port)| (*datapath, *mac, *port))
    }

    /// The port behind which an address is known to be.
    #[must_use]
    pub fn fdb(&self, datapath: DatapathKey, mac: Mac) -> Option<PortKey> {
        self.fdb.get(&(datapath, mac)).copied()
    }

    /// Puts a datapath in place of what was under its key, or takes it away.
    pub fn put_datapath(&mut self, key: DatapathKey, datapath: Option<Datapath>) {
        put(&mut self.datapaths, key, datapath);
    }

    /// Puts a port in place of what was under its key, or takes it away.
    pub fn put_port(&mut self, key: (DatapathKey, PortKey), port: Option<Arc<LogicalPort>>) {
        put(&mut self.ports, key, port);
    }

    /// Puts a group in place of what was under its key, or takes it away.
    pub fn put_group(&mut self, key: (DatapathKey, GroupKey), group: Option<Arc<Group>>) {
        put(&mut self.groups, key, group);
    }

    /// Puts a chassis in place of what was under its key, or takes it away.
    pub fn put_chassis(&mut self, key: ChassisId, chassis: Option<Arc<Chassis>>) {
        put(&mut self.chassis, key, chassis);
    }

    /// Puts an address behind a port, or forgets it.
    pub fn put_fdb(&mut self, key: (DatapathKey, Mac), port: Option<PortKey>) {
        put(&mut self.fdb, key, port);
    }

    /// Takes over the rules and sets of a difference; datapaths, ports, groups and the rest are put in place by the `put_…` methods.
    pub fn apply(&mut self, changes: &Changes) {
        for rule in &changes.rules_removed {
            if let Some(table) = self.tables.get_mut(&rule.table) {
                table.remove(&rule.id);
                if table.is_empty() {
                    self.tables.remove(&rule.table);
                }
            }
        }
        for rule in &changes.rules_added {
            self.tables.entry(rule.table).or_default().insert(rule.id, Arc::clone(rule));
        }
        for rule in &changes.sub_removed {
            if let Some(table) = self.subs.get_mut(&(rule.datapath, rule.sub)) {
                table.remove(&rule.id);
                if table.is_empty() {
                    self.subs.remove(&(rule.datapath, rule.sub));
                }
            }
        }
        for rule in &changes.sub_added {
            self.subs.entry((rule.datapath, rule.sub)).or_default().insert(rule.id, Arc::clone(rule));
        }
        for (id, removed, added) in &changes.sets {
            let set = self.sets.entry(*id).or_default();
            for member in removed {
                set.remove(member);
            }
            set.extend(added.iter().copied());
        }
        for id in &changes.sets_gone {
            self.sets.remove(id);
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}
