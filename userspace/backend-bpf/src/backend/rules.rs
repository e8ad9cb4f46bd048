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

struct Held {
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
    lflow_capacity: u32,
    /// Blocks of rules that went since the last commit, and since the last grace period.
    going: Vec<u32>,
    gone: Vec<u32>,
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

    /// A rule cannot be held: a passing one is left out, a dropping one closes its table.
    fn fail(&mut self, places: &mut Places<'_>, id: RuleId, lflow: LflowId, held: &mut Held, what: String) {
        let consequence = if held.drops {
            held.clear(places.tables, id);
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

    /// Follows a difference.
    pub(super) fn apply(&mut self, places: &mut Places<'_>, program: &Program, changes: &Changes) {
        for rule in &changes.rules_removed {
            self.remove(places, program, rule.id);
        }
        for rule in &changes.sub_removed {
            self.remove(places, program, rule.id);
        }
        for (set, removed, added) in &changes.sets {
            self.change_set(places, program, *set, removed, added);
        }
        for rule in &changes.rules_added {
            self.add_rule(places, program, rule);
        }
        for rule in &changes.sub_added {
            self.add_sub_rule(places, program, rule);
        }
    }

    fn add_rule(&mut self, places: &mut Places<'_>, program: &Program, rule: &Rule) {
        let place = Place::Stage(rule.table.pipeline, rule.table.stage);
        let egress = rule.table.pipeline == Pipeline::Egress;
        self.add(
            places,
            program,
            rule.id,
            rule.table.datapath,
            place,
            egress,
            rule.priority,
            rule.lflow,
            &rule.dims,
            Content::Acts(&rule.acts),
        );
    }

    fn add_sub_rule(&mut self, places: &mut Places<'_>, program: &Program, rule: &SubRule) {
        let place = Place::Sub(sub_number(rule.sub));
        let egress = rule.sub == Sub::Out;
        self.add(
            places,
            program,
            rule.id,
            rule.datapath,
            place,
            egress,
            rule.priority,
            LflowId(0),
            &rule.dims,
            Content::Answer(rule.result),
        );
    }

    #[expect(clippy::too_many_arguments, reason = "the two kinds of rules meet here; a structure would be used once")]
    fn add(
        &mut self,
        places: &mut Places<'_>,
        program: &Program,
        id: RuleId,
        datapath: DatapathKey,
        place: Place,
        egress: bool,
        priority: u16,
        lflow: LflowId,
        dims: &Arc<[Dim]>,
        content: Content<'_>,
    ) {
        let drops = match &content {
            Content::Answer(answer) => *answer == SubResult::Fail,
            Content::Acts(acts) => only_drops(acts),
        };
        let table = match places.stages.table(places.tables, datapath, place) {
            Ok(table) => table,
            Err(full) => return self.no_room(id, lflow, datapath, drops, &full),
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
                        Err(full) => return self.no_room(id, lflow, datapath, drops, &full),
                    }
                }
            }
        }
        let placement = Placement { rule: id.0, priority, answer };
        let (dims_held, entries) = (Arc::clone(dims), Vec::new());
        let mut held = Held { datapath, egress, table, placement, sub, has_block, dims: dims_held, entries, drops };
        let alternatives: Vec<Vec<Masked>> = dims.iter().map(|dim| program.alternatives(dim).collect()).collect();
        if let Err(what) = held.insert(places.tables, &alternatives) {
            held.clear(places.tables, id);
            self.fail(places, id, lflow, &mut held, what);
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
    fn no_room(&mut self, id: RuleId, lflow: LflowId, datapath: DatapathKey, drops: bool, full: &Exhausted) {
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

    /// Members came to or went from a set: only their own keys are touched.
    fn change_set(
        &mut self,
        places: &mut Places<'_>,
        program: &Program,
        set: SetId,
        removed: &[Masked],
        added: &[Masked],
    ) {
        let users: Vec<RuleId> = self.users.get(&set).map(|ids| ids.iter().copied().collect()).unwrap_or_default();
        for id in users {
            // Taken out while it changes, so that what fails can be reported.
            let Some(mut held) = self.held.remove(&id) else { continue };
            raise(places.guards, program, &held, Some((set, removed, added)));
            for (n, dim) in held.dims.clone().iter().enumerate() {
                if dim.alternatives != Alternatives::Set(set) {
                    continue;
                }
                let mut alternatives: Vec<Vec<Masked>> =
                    held.dims.iter().map(|dim| program.alternatives(dim).collect()).collect();
                alternatives[n] = removed.to_vec();
                held.withdraw(places.tables, id, &alternatives);
                alternatives[n] = added.to_vec();
                if let Err(what) = held.insert(places.tables, &alternatives) {
                    let lflow = LflowId(held.placement.answer.lflow);
                    self.fail(places, id, lflow, &mut held, what);
                }
            }
            self.held.insert(id, held);
        }
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

impl Held {
    /// Adds a key for every combination.
    fn insert(&mut self, tables: &mut Tables, alternatives: &[Vec<Masked>]) -> Result<(), String> {
        let columns = self.dims.iter().zip(alternatives).map(|(dim, list)| (dim.field, &list[..]));
        for (shape, key) in compile::keys(columns).map_err(|e| e.to_string())? {
            let number =
                tables.insert(self.table, &shape, key.clone(), self.placement).map_err(|e: Exhausted| e.to_string())?;
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
fn raise(guards: &mut Guards, program: &Program, held: &Held, change: Option<(SetId, &[Masked], &[Masked])>) {
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
            Some((set, removed, added)) if dim.alternatives == Alternatives::Set(set) => {
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
