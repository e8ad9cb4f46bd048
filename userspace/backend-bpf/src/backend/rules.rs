//! Rules of the program as entries of tables.

use super::stages::{Place, StageMaps};
use crate::compile::{self, Key, Shape, compile};
use crate::image::{Blocks, Exhausted, Guards, Placement, Scope, Tables};
use oxbow_abi::op::{DROP, Op, SUB_FAIL, SUB_GOTO, SUB_IN_PORT_SEC, SUB_IN_PORT_SEC_ND, SUB_OUT_PORT_SEC, SUB_PASS};
use oxbow_abi::reason::Reason;
use oxbow_abi::rule::Answer;
use oxbow_pipeline::ir::{
    Act, Alternatives, Changes, Consequence, DatapathKey, Dim, Field, LflowId, Masked, Pipeline, Problem, Program,
    Rule, RuleId, SetId, Sub, SubResult, SubRule,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ports that a change may be tied to one by one; beyond, the whole datapath is invalidated.
const MAX_PORT_SCOPES: usize = 64;

/// What rules are put into.
pub(super) struct Places<'a> {
    pub(super) tables: &'a mut Tables,
    pub(super) blocks: &'a mut Blocks,
    pub(super) guards: &'a mut Guards,
    pub(super) stages: &'a mut StageMaps,
}

/// Where a rule comes from: what could not be held is made anew from it.
#[derive(Clone)]
enum Source {
    Stage(Arc<Rule>),
    Sub(Arc<SubRule>),
}

/// Members that a set lost, and gained.
type Delta<'a> = (&'a [Masked], &'a [Masked]);

/// What sets lost and gained in a difference.
type SetChanges<'a> = FxHashMap<SetId, Delta<'a>>;

struct Held {
    source: Source,
    datapath: DatapathKey,
    egress: bool,
    table: u32,
    placement: Placement,
    /// Whether the rule is in a sub-table, where a block is an answer.
    sub: bool,
    /// Whether the answer's block is a block of ours.
    has_block: bool,
    dims: Arc<[Dim]>,
    entries: Vec<(u32, Key)>,
    /// Nothing that it matches may pass.
    drops: bool,
}

pub(super) struct Rules {
    held: FxHashMap<RuleId, Held>,
    users: FxHashMap<SetId, FxHashSet<RuleId>>,
    problems: BTreeMap<RuleId, Problem>,
    /// Dropping rules that could neither be placed nor have their table closed. While there is one, no version with it may come into force.
    unclosed: BTreeMap<RuleId, String>,
    /// Rules for which not even a place was to be had.
    refused: BTreeMap<RuleId, Source>,
    /// Rules whose keys found no room in their tables when [`Tables::room`] was that.
    outgrown: BTreeMap<RuleId, Source>,
    room: u64,
    lflow_capacity: u32,
    /// Blocks of rules that went since the last commit, and since the last grace period.
    going: Vec<u32>,
    gone: Vec<u32>,
}

/// Why a rule is not in its table.
enum Unfit {
    /// Its match cannot be compiled.
    Match(String),
    /// Its keys have no room.
    Room(Exhausted),
}

/// What a rule puts into its table.
enum Content<'a> {
    Acts(&'a [Act]),
    Answer(SubResult),
}

impl Rules {
    pub(super) fn new(lflow_capacity: u32) -> Self {
        Self {
            held: FxHashMap::default(),
            users: FxHashMap::default(),
            problems: BTreeMap::new(),
            unclosed: BTreeMap::new(),
            refused: BTreeMap::new(),
            outgrown: BTreeMap::new(),
            room: 0,
            lflow_capacity,
            going: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = (RuleId, &Problem)> {
        self.problems.iter().map(|(id, problem)| (*id, problem))
    }

    /// Why the difference that was taken over cannot be put in force, if it cannot.
    pub(super) fn unclosed(&self) -> Option<&str> {
        self.unclosed.values().next().map(String::as_str)
    }

    /// Whether there are rules that room which has become free may help.
    pub(super) fn has_refused(&self, tables: &Tables) -> bool {
        !self.refused.is_empty() || (!self.outgrown.is_empty() && self.room != tables.room())
    }

    /// Tries again with rules for which there was no place.
    pub(super) fn retry(&mut self, places: &mut Places<'_>, program: &Program) {
        for (id, source) in std::mem::take(&mut self.refused) {
            self.problems.remove(&id);
            self.unclosed.remove(&id);
            self.add(places, program, source);
        }
        if self.room != places.tables.room() {
            for (id, source) in std::mem::take(&mut self.outgrown) {
                self.remove(places, program, id);
                self.add(places, program, source);
            }
            // What these attempts themselves gave back is no room.
            self.room = places.tables.room();
        }
    }

    /// A rule cannot be held: a passing one is left out, a dropping one closes its table.
    fn fail(&mut self, places: &mut Places<'_>, id: RuleId, lflow: LflowId, held: &mut Held, why: Unfit) {
        let what = match why {
            Unfit::Match(what) => what,
            Unfit::Room(full) => {
                self.outgrown.insert(id, held.source.clone());
                full.to_string()
            }
        };
        held.clear(places.tables, id);
        let consequence = if held.drops {
            let before = held.has_block.then_some(held.placement.answer.block);
            match held.close(places) {
                Ok(()) => {
                    self.going.extend(before);
                    Consequence::TableClosed
                }
                Err(full) => {
                    self.unclosed.insert(id, format!("{what}; {full}"));
                    Consequence::CommitRefused
                }
            }
        } else {
            Consequence::LeftOut
        };
        self.problems.insert(id, Problem { lflow, datapath: held.datapath, what, consequence });
    }

    /// Follows a difference; `program` has it already.
    pub(super) fn apply(&mut self, places: &mut Places<'_>, program: &Program, changes: &Changes) {
        let sets: SetChanges<'_> =
            changes.sets.iter().map(|(set, removed, added)| (*set, (&removed[..], &added[..]))).collect();
        // Of the rules that go, too: what they said of a member that goes with them is over.
        for held in self.users_of(&sets).iter().filter_map(|id| self.held.get(id)) {
            for set in held.changed(&sets) {
                raise(places.guards, program, held, Some((set, sets[&set])));
            }
        }
        for rule in &changes.rules_removed {
            self.remove(places, program, rule.id);
        }
        for rule in &changes.sub_removed {
            self.remove(places, program, rule.id);
        }
        for id in self.users_of(&sets) {
            self.change_sets(places, program, id, &sets);
        }
        for rule in &changes.rules_added {
            self.add(places, program, Source::Stage(Arc::clone(rule)));
        }
        for rule in &changes.sub_added {
            self.add(places, program, Source::Sub(Arc::clone(rule)));
        }
    }

    /// Rules with a condition on one of these sets.
    fn users_of(&self, sets: &SetChanges<'_>) -> FxHashSet<RuleId> {
        sets.keys().filter_map(|set| self.users.get(set)).flatten().copied().collect()
    }

    fn add(&mut self, places: &mut Places<'_>, program: &Program, source: Source) {
        let (id, datapath, place, egress, priority, lflow, dims, content) = match &source {
            Source::Stage(rule) => (
                rule.id,
                rule.table.datapath,
                Place::Stage(rule.table.pipeline, rule.table.stage),
                rule.table.pipeline == Pipeline::Egress,
                rule.priority,
                rule.lflow,
                &rule.dims,
                Content::Acts(&rule.acts),
            ),
            Source::Sub(rule) => (
                rule.id,
                rule.datapath,
                Place::Sub(sub_number(rule.sub)),
                rule.sub == Sub::Out,
                rule.priority,
                LflowId(0),
                &rule.dims,
                Content::Answer(rule.result),
            ),
        };
        let drops = match &content {
            Content::Answer(answer) => *answer == SubResult::Fail,
            Content::Acts(acts) => only_drops(acts),
        };
        let table = match places.stages.table(places.tables, datapath, place) {
            Ok(table) => table,
            Err(full) => return self.no_room(id, lflow, datapath, drops, &full, &source),
        };
        let counter = if lflow.0 < self.lflow_capacity { lflow.0 } else { 0 };
        let mut answer = Answer { lflow: counter, ..Answer::default() };
        let sub = matches!(content, Content::Answer(_));
        let mut has_block = false;
        match content {
            Content::Answer(result) => {
                answer.block = match result {
                    SubResult::Pass => SUB_PASS,
                    SubResult::Fail => SUB_FAIL,
                    SubResult::Goto(_) => SUB_GOTO,
                };
                if let SubResult::Goto(sub) = result {
                    answer.operand[0] = sub_number(sub) as u32;
                }
            }
            Content::Acts(acts) => {
                let compiled = compile(acts).unwrap_or_else(|error| {
                    let what = error.to_string();
                    self.problems.insert(id, Problem { lflow, datapath, what, consequence: Consequence::MatchDropped });
                    compile::Compiled::only(drop_op(Reason::UnsupportedAction))
                });
                if let Some(short) = compile::short(&compiled) {
                    answer.block = short;
                } else {
                    match places.blocks.intern(&compiled.ops) {
                        Ok(block) => {
                            answer.block = block;
                            answer.operand = compiled.operand;
                            has_block = true;
                        }
                        Err(full) => return self.no_room(id, lflow, datapath, drops, &full, &source),
                    }
                }
            }
        }
        let placement = Placement { rule: id.0, priority, answer };
        let (dims, entries) = (Arc::clone(dims), Vec::new());
        let mut held = Held {
            source,
            datapath,
            egress,
            table,
            placement,
            sub,
            has_block,
            dims: Arc::clone(&dims),
            entries,
            drops,
        };
        let alternatives: Vec<Vec<Masked>> = dims.iter().map(|dim| program.alternatives(dim).collect()).collect();
        if let Err(why) = held.insert(places.tables, &alternatives) {
            self.fail(places, id, lflow, &mut held, why);
        }
        raise(places.guards, program, &held, None);
        for dim in dims.iter() {
            if let Alternatives::Set(set) = &dim.alternatives {
                self.users.entry(*set).or_default().insert(id);
            }
        }
        self.held.insert(id, held);
    }

    /// Not even a place for the rule can be had.
    fn no_room(
        &mut self,
        id: RuleId,
        lflow: LflowId,
        datapath: DatapathKey,
        drops: bool,
        full: &Exhausted,
        source: &Source,
    ) {
        self.refused.insert(id, source.clone());
        let what = full.to_string();
        let consequence = if drops { Consequence::CommitRefused } else { Consequence::LeftOut };
        if drops {
            self.unclosed.insert(id, what.clone());
        }
        self.problems.insert(id, Problem { lflow, datapath, what, consequence });
    }

    fn remove(&mut self, places: &mut Places<'_>, program: &Program, id: RuleId) {
        self.problems.remove(&id);
        self.unclosed.remove(&id);
        self.refused.remove(&id);
        self.outgrown.remove(&id);
        let Some(mut held) = self.held.remove(&id) else { return };
        raise(places.guards, program, &held, None);
        held.clear(places.tables, id);
        for dim in held.dims.iter() {
            if let Alternatives::Set(set) = &dim.alternatives
                && let Some(users) = self.users.get_mut(set)
            {
                users.remove(&id);
                if users.is_empty() {
                    self.users.remove(set);
                }
            }
        }
        if held.has_block {
            self.going.push(held.placement.answer.block);
        }
    }

    /// Members came to or went from sets of a rule: only their own keys are touched.
    fn change_sets(&mut self, places: &mut Places<'_>, program: &Program, id: RuleId, sets: &SetChanges<'_>) {
        // Taken out while it changes, so that what fails can be reported.
        let Some(mut held) = self.held.remove(&id) else { return };
        let is_held = self.problems.get(&id).is_none_or(|problem| problem.consequence == Consequence::MatchDropped);
        let after: Vec<Vec<Masked>> = held.dims.iter().map(|dim| program.alternatives(dim).collect()).collect();
        let keys = after.iter().fold(1usize, |keys, list| keys.saturating_mul(list.len()));
        if !is_held || keys > compile::MAX_KEYS {
            // It may fit now, or does no longer.
            let source = held.source.clone();
            self.held.insert(id, held);
            self.remove(places, program, id);
            return self.add(places, program, source);
        }
        // One condition after the other goes from its members before to those of now, while those before it have gone already: every key that was
        // there goes once, and every one that is to be there comes once, also when several conditions change.
        let mut alternatives: Vec<Vec<Masked>> =
            held.dims.iter().zip(&after).map(|(dim, now)| before(dim, now, sets)).collect();
        for (n, dim) in held.dims.clone().iter().enumerate() {
            if let Some((removed, added)) = delta(dim, sets) {
                alternatives[n] = removed.to_vec();
                held.withdraw(places.tables, id, &alternatives);
                alternatives[n] = added.to_vec();
                if let Err(why) = held.insert(places.tables, &alternatives) {
                    let lflow = LflowId(held.placement.answer.lflow);
                    self.fail(places, id, lflow, &mut held, why);
                    break;
                }
            }
            alternatives[n].clone_from(&after[n]);
        }
        self.held.insert(id, held);
    }

    /// The version that no longer has them is in force.
    pub(super) fn committed(&mut self) {
        self.gone.append(&mut self.going);
    }

    /// After a grace period: blocks that one rule less uses.
    pub(super) fn settle(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.gone)
    }
}

/// What the set of a condition lost and gained.
fn delta<'a>(dim: &Dim, sets: &SetChanges<'a>) -> Option<Delta<'a>> {
    match &dim.alternatives {
        Alternatives::Set(set) => sets.get(set).copied(),
        Alternatives::List(_) => None,
    }
}

/// The members that a condition had before the difference.
fn before(dim: &Dim, now: &[Masked], sets: &SetChanges<'_>) -> Vec<Masked> {
    let Some((removed, added)) = delta(dim, sets) else { return now.to_vec() };
    let added: FxHashSet<Masked> = added.iter().copied().collect();
    now.iter().filter(|member| !added.contains(member)).chain(removed).copied().collect()
}

impl Held {
    /// The sets of its conditions that changed.
    fn changed(&self, sets: &SetChanges<'_>) -> FxHashSet<SetId> {
        let of = |dim: &Dim| match &dim.alternatives {
            Alternatives::Set(set) => sets.contains_key(set).then_some(*set),
            Alternatives::List(_) => None,
        };
        self.dims.iter().filter_map(of).collect()
    }

    /// Adds a key for every combination.
    fn insert(&mut self, tables: &mut Tables, alternatives: &[Vec<Masked>]) -> Result<(), Unfit> {
        let columns = self.dims.iter().zip(alternatives).map(|(dim, list)| (dim.field, &list[..]));
        for (shape, key) in compile::keys(columns).map_err(|error| Unfit::Match(error.to_string()))? {
            let number = tables.insert(self.table, &shape, key.clone(), self.placement).map_err(Unfit::Room)?;
            self.entries.push((number, key));
        }
        Ok(())
    }

    /// Takes the keys of these combinations away.
    fn withdraw(&mut self, tables: &mut Tables, id: RuleId, alternatives: &[Vec<Masked>]) {
        let columns = self.dims.iter().zip(alternatives).map(|(dim, list)| (dim.field, &list[..]));
        // What could not be compiled on the way in has no keys to take away.
        for (shape, key) in compile::keys(columns).unwrap_or_default() {
            let Some(number) = tables.tuple(self.table, &shape) else { continue };
            if let Some(at) = self.entries.iter().position(|(n, k)| *n == number && *k == key) {
                self.entries.swap_remove(at);
                tables.remove(self.table, number, &key, id.0);
            }
        }
    }

    fn clear(&mut self, tables: &mut Tables, id: RuleId) {
        for (number, key) in self.entries.drain(..) {
            tables.remove(self.table, number, &key, id.0);
        }
    }

    /// Drops everything that reaches the table.
    fn close(&mut self, places: &mut Places<'_>) -> Result<(), Exhausted> {
        let (shape, key) = (Shape::default(), Key::new());
        let block = if self.sub { SUB_FAIL } else { places.blocks.intern(&[drop_op(Reason::TableClosed)])? };
        let answer = Answer { block, lflow: self.placement.answer.lflow, ..Answer::default() };
        let placement = Placement { priority: u16::MAX, answer, ..self.placement };
        match places.tables.insert(self.table, &shape, key.clone(), placement) {
            Ok(number) => self.entries.push((number, key)),
            Err(full) => {
                if !self.sub {
                    places.blocks.release(block);
                }
                return Err(full);
            }
        }
        self.placement = placement;
        self.has_block = !self.sub;
        Ok(())
    }
}

/// Raises the guards of what a rule can concern: single ports when it names them, else the datapath. In ingress an outport is still
/// subject to change, so only the inport counts there.
fn raise(guards: &mut Guards, program: &Program, held: &Held, change: Option<(SetId, Delta<'_>)>) {
    let datapath = held.datapath.0;
    let router = program.datapath(held.datapath).is_some_and(|d| d.router);
    let port_dim = held.dims.iter().find(|dim| match dim.field {
        Field::InPort => !held.egress && !router,
        Field::OutPort => held.egress && !router,
        _ => false,
    });
    let mut ports: Vec<u32> = Vec::new();
    if let Some(dim) = port_dim {
        let exact = |m: Masked| (m.mask == u128::from(u32::MAX)).then_some(m.value as u32);
        let named: Option<Vec<u32>> = match change {
            Some((set, (removed, added))) if dim.alternatives == Alternatives::Set(set) => {
                removed.iter().chain(added).map(|m| exact(*m)).collect()
            }
            _ => program.alternatives(dim).take(MAX_PORT_SCOPES + 1).map(exact).collect(),
        };
        ports = named.unwrap_or_default();
    }
    if ports.is_empty() || ports.len() > MAX_PORT_SCOPES {
        guards.raise(Scope::Datapath(datapath));
    } else {
        ports.into_iter().for_each(|port| guards.raise(Scope::Port(datapath, port)));
    }
}

fn only_drops(acts: &[Act]) -> bool {
    !acts.iter().any(|act| matches!(act, Act::Next { .. } | Act::Output | Act::Clone(_) | Act::NdNa { .. }))
}

fn drop_op(reason: Reason) -> Op {
    Op { code: DROP, a: reason as u32, ..Op::default() }
}

fn sub_number(sub: Sub) -> usize {
    match sub {
        Sub::In => SUB_IN_PORT_SEC,
        Sub::InNd => SUB_IN_PORT_SEC_ND,
        Sub::Out => SUB_OUT_PORT_SEC,
    }
}

#[cfg(test)]
mod tests;
