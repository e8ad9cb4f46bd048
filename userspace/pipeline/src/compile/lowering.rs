//! One flow's rules.

use super::actions;
use super::compiler::{Compiler, Flow};
use super::matching::Names;
use super::references::Reference;
use super::row::FlowRow;
use super::sets::{SetKey, Sets, key_alternative};
use super::texts::{ActionText, AddressSets, MatchText};
use crate::ir::{
    Act, Cause, Consequence, DatapathKey, Dim, GroupKey, LflowId, Location, Masked, PortKey, Program, Rule, RuleId,
    SetId, TableId,
};
use oxbow_lflow::context::port_group_sb_name;
use oxbow_lflow::normal::SetRef;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A rule without a number.
struct Draft {
    priority: u16,
    dims: Arc<[Dim]>,
    acts: Arc<[Act]>,
}

impl Compiler {
    /// Makes a flow's rules anew; those that come out the same keep their numbers.
    pub(super) fn lower(&mut self, id: LflowId) {
        let Some(flow) = self.flows.get(&id) else { return };
        let row = Arc::clone(&flow.row);
        let action = self.texts.action(&row.actions, row.pipeline, row.stage);
        let matching = self.texts.matching(&row.matches, &action, &self.address_sets);
        let mut references: Vec<Reference> =
            matching.address_sets.iter().map(|name| Reference::SetShape(Arc::clone(name))).collect();
        let mut rules = BTreeMap::new();
        for datapath in &row.datapaths {
            // A datapath that is being forgotten has no entry in the program any more.
            if self.program.datapath(*datapath).is_some() {
                let drafts = self.drafts(&row, *datapath, &action, &matching, &mut references);
                rules.insert(*datapath, drafts);
            }
        }
        references.sort_unstable();
        references.dedup();
        let trouble = trouble(&action, &matching);
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let before = std::mem::take(&mut flow.rules);
        let references_before = std::mem::replace(&mut flow.references, references.clone());
        let retexted = flow.texts.is_some();
        flow.texts = Some((action, matching));
        flow.trouble = trouble;
        if retexted {
            self.sweep_later();
        }
        self.references.replace(id, &references_before, &references);
        let after = self.renumber(id, &row, before, rules);
        if let Some(Flow { rules, .. }) = self.flows.get_mut(&id) {
            *rules = after;
        }
    }

    /// What the flow comes to on a datapath.
    fn drafts(
        &mut self,
        row: &FlowRow,
        datapath: DatapathKey,
        action: &ActionText,
        matching: &MatchText,
        references: &mut Vec<Reference>,
    ) -> Vec<Draft> {
        let forms = match &matching.clauses {
            Ok(forms) => forms,
            Err(_) if action.only_passes => return Vec::new(),
            Err(_) => {
                let acts = Arc::from(vec![Act::Drop(Cause::TableClosed)]);
                return vec![Draft { priority: u16::MAX, dims: Arc::from(Vec::new()), acts }];
            }
        };
        let mut scope = Scope {
            datapath,
            program: &self.program,
            ports_by_name: &self.ports_by_name,
            groups_by_name: &self.groups_by_name,
            port_groups: &self.port_groups,
            address_sets: &self.address_sets,
            sets: &mut self.sets,
            references,
        };
        let acts = match (&action.shared, &action.parsed) {
            (Some(shared), _) => Arc::clone(shared),
            (None, Ok(parsed)) => actions::lower(&parsed.actions, &mut |name| scope.key(name).unwrap_or_default()).acts,
            (None, Err(_)) => Arc::from(vec![Act::Drop(Cause::Unsupported)]),
        };
        let dims: Vec<Arc<[Dim]>> = forms.iter().filter_map(|form| form.dims(&mut scope)).collect();
        dims.into_iter().map(|dims| Draft { priority: row.priority, dims, acts: Arc::clone(&acts) }).collect()
    }

    /// Replaces rules by drafts, keeping those that are equal.
    fn renumber(
        &mut self,
        lflow: LflowId,
        row: &FlowRow,
        mut before: BTreeMap<DatapathKey, Vec<Arc<Rule>>>,
        drafts: BTreeMap<DatapathKey, Vec<Draft>>,
    ) -> BTreeMap<DatapathKey, Vec<Arc<Rule>>> {
        let mut after = BTreeMap::new();
        for (datapath, drafts) in drafts {
            let table = TableId { datapath, pipeline: row.pipeline, stage: row.stage };
            let mut old = before.remove(&datapath).unwrap_or_default();
            let mut new = Vec::with_capacity(drafts.len());
            for Draft { priority, dims, acts } in drafts {
                let same = |rule: &Arc<Rule>| {
                    rule.table == table && rule.priority == priority && rule.dims == dims && rule.acts == acts
                };
                match old.iter().position(same) {
                    Some(at) => {
                        // The kept rule has its own hold on its sets.
                        self.release_sets(&dims);
                        new.push(old.swap_remove(at));
                    }
                    None => {
                        let id = RuleId(self.rule_numbers.take());
                        let rule = Arc::new(Rule { id, lflow, table, priority, dims, acts });
                        if let Some(rules) = self.rules.get_mut(&datapath) {
                            rules.add(Arc::clone(&rule));
                        }
                        new.push(rule);
                    }
                }
            }
            old.iter().for_each(|rule| self.discard(datapath, rule));
            after.insert(datapath, new);
        }
        for (datapath, rules) in before {
            rules.iter().for_each(|rule| self.discard(datapath, rule));
        }
        after
    }
}

fn trouble(action: &ActionText, matching: &MatchText) -> Option<(Arc<str>, Consequence)> {
    if let Err(text) = &matching.clauses {
        let consequence = if action.only_passes { Consequence::LeftOut } else { Consequence::TableClosed };
        return Some((Arc::clone(text), consequence));
    }
    if let Some(text) = &action.unsupported {
        return Some((Arc::clone(text), Consequence::MatchDropped));
    }
    action.ignored.as_ref().map(|text| (Arc::clone(text), Consequence::SideEffectIgnored))
}

/// Names as a flow sees them on one datapath; notes what was asked.
struct Scope<'a> {
    datapath: DatapathKey,
    program: &'a Program,
    ports_by_name: &'a FxHashMap<Arc<str>, (DatapathKey, PortKey)>,
    groups_by_name: &'a FxHashMap<(DatapathKey, Arc<str>), GroupKey>,
    port_groups: &'a FxHashMap<Arc<str>, BTreeSet<Arc<str>>>,
    address_sets: &'a AddressSets,
    sets: &'a mut Sets,
    references: &'a mut Vec<Reference>,
}

impl Scope<'_> {
    fn row(&self, group: &str) -> Arc<str> {
        port_group_sb_name(self.datapath.0, group).into()
    }

    fn ports_of(&self, row: &str) -> Vec<u32> {
        let names = self.port_groups.get(row).into_iter().flatten();
        names
            .filter_map(|name| self.ports_by_name.get(name))
            .filter(|(datapath, _)| *datapath == self.datapath)
            .map(|(_, key)| key.0)
            .collect()
    }
}

impl Names for Scope<'_> {
    fn key(&mut self, name: &str) -> Option<u32> {
        // No port: ovn-sb(5) writes "", northd "none" for what `get_fdb` does not find.
        if matches!(name, "" | "none") {
            return Some(0);
        }
        let name: Arc<str> = name.into();
        self.references.push(Reference::Key(self.datapath, Arc::clone(&name)));
        if let Some((_, key)) = self.ports_by_name.get(&name).filter(|(datapath, _)| *datapath == self.datapath) {
            return Some(key.0);
        }
        self.groups_by_name.get(&(self.datapath, name)).map(|key| key.0)
    }

    fn group(&mut self, name: &str) -> Vec<u32> {
        let row = self.row(name);
        let ports = self.ports_of(&row);
        self.references.push(Reference::GroupContents(row));
        ports
    }

    fn group_set(&mut self, name: &str) -> SetKey {
        SetKey::Ports { datapath: self.datapath, row: self.row(name) }
    }

    fn resident(&mut self, port: &str) -> bool {
        let name: Arc<str> = port.into();
        self.references.push(Reference::Resident(Arc::clone(&name)));
        let key = self.ports_by_name.get(&name);
        let port = key.and_then(|(datapath, key)| self.program.port(*datapath, *key));
        port.is_some_and(|port| matches!(port.location, Location::Local { .. }))
    }

    fn contents(&mut self, names: &[&str]) -> &dyn oxbow_lflow::AddressSets {
        self.references.extend(names.iter().map(|name| Reference::SetContents((*name).into())));
        self
    }

    fn acquire(&mut self, key: &SetKey) -> SetId {
        let members: Vec<Masked> = match (self.sets.find(key), key) {
            (Some(_), _) => Vec::new(),
            (None, SetKey::Addresses { name, offset, width }) => {
                let seen = SetRef { name: (&**name).into(), offset: *offset, width: *width };
                let set = self.address_sets.get(&**name);
                set.map(|set| set.members.iter().map(|member| seen.alternative(member)).collect()).unwrap_or_default()
            }
            (None, SetKey::Ports { row, .. }) => self.ports_of(row).into_iter().map(key_alternative).collect(),
        };
        self.sets.acquire(key, || members)
    }
}

impl oxbow_lflow::AddressSets for Scope<'_> {
    fn address_set(&self, name: &str) -> Option<&oxbow_lflow::AddressSet> {
        self.address_sets.get(name)
    }
}
