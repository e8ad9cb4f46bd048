//! Rules as wishes for flows: lowered when they come, touched by member when a set changes, closed when they cannot be held.

use crate::action::{self, Place};
use crate::desired::{Body, Desired, FlowKey, Owner, Wish};
use crate::layout::{ADVERTISEMENT, RESULT, SCRATCH, stage, sub};
use crate::matching::{self, Known, Only, Part, Planned, Shape, Unsupported};
use crate::model::Cookies;
use crate::numbers::Numbers;
use crate::oxm::ones;
use oxbow_pipeline::ir::{
    Act, Alternatives, Consequence, DatapathKey, Dim, Field, LflowId, Masked, Problem, Program, Rule, RuleId, SetId,
    Stages, SubResult, SubRule, width,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

/// A rule of either kind.
#[derive(Clone, Debug)]
enum Source {
    Table(Arc<Rule>),
    Sub(Arc<SubRule>),
}

impl Source {
    fn id(&self) -> RuleId {
        match self {
            Source::Table(rule) => rule.id,
            Source::Sub(rule) => rule.id,
        }
    }

    fn datapath(&self) -> DatapathKey {
        match self {
            Source::Table(rule) => rule.table.datapath,
            Source::Sub(rule) => rule.datapath,
        }
    }

    fn dims(&self) -> &[Dim] {
        match self {
            Source::Table(rule) => &rule.dims,
            Source::Sub(rule) => &rule.dims,
        }
    }

    fn acts(&self) -> &[Act] {
        match self {
            Source::Table(rule) => &rule.acts,
            Source::Sub(_) => &[],
        }
    }

    fn lflow(&self) -> LflowId {
        match self {
            Source::Table(rule) => rule.lflow,
            Source::Sub(_) => LflowId(0),
        }
    }

    fn priority(&self) -> u16 {
        match self {
            Source::Table(rule) => rule.priority,
            Source::Sub(rule) => rule.priority,
        }
    }

    /// The OpenFlow table.
    fn table(&self) -> u8 {
        match self {
            Source::Table(rule) => stage(rule.table.pipeline, rule.table.stage),
            Source::Sub(rule) => sub(rule.sub),
        }
    }

    /// Whether leaving it out can only lose packets: it does nothing that a later table might drop by.
    fn only_passes(&self) -> bool {
        let decides = |field: Field| {
            matches!(
                field,
                Field::XxReg0
                    | Field::XxReg1
                    | Field::XReg4
                    | Field::Flags
                    | Field::CtMark
                    | Field::CtLabel
                    | Field::CtState
            )
        };
        match self {
            // What no rule of a sub-table matches passes, so a failure must not be missing; and one that passes has a failure below it.
            Source::Sub(rule) => rule.result != SubResult::Fail,
            Source::Table(rule) => {
                rule.acts.iter().any(|act| matches!(act, Act::Next { .. } | Act::Output | Act::NdNa { .. }))
                    && rule.acts.iter().all(|act| match act {
                        Act::Set { dst, .. } | Act::Move { dst, .. } => !decides(dst.field),
                        Act::Next { .. }
                        | Act::Output
                        | Act::PutFdb { .. }
                        | Act::GetFdb { .. }
                        | Act::DecTtl
                        | Act::NdNa { .. } => true,
                        Act::Exchange { .. }
                        | Act::Drop(_)
                        | Act::Clone(_)
                        | Act::CheckPortSecurity { .. }
                        | Act::LookupFdb { .. }
                        | Act::Punt(_) => false,
                    })
            }
        }
    }

    /// Whether it may be a conjunction, or has lists that stand elsewhere.
    fn needs_numbers(&self) -> bool {
        let several = |dim: &&Dim| match &dim.alternatives {
            Alternatives::Set(_) => true,
            // Bits of a field that has no mask become several values.
            Alternatives::List(list) => list.len() > 1 || list.iter().any(|one| one.mask != ones(width(dim.field))),
        };
        self.dims().iter().filter(several).count() > 1 || advertises(self.acts())
    }

    /// What tells it from other rules, now and in another process: everything but the numbers that came with the order of events.
    fn identity(&self, cookie: u64) -> impl Hash {
        let dims = self.dims().iter().map(|dim| match &dim.alternatives {
            Alternatives::Set(_) => (dim.field, None),
            Alternatives::List(list) => (dim.field, Some(list.to_vec())),
        });
        let result = match self {
            Source::Table(_) => None,
            Source::Sub(rule) => Some(rule.result),
        };
        let place = (self.datapath(), self.table(), self.priority());
        (place, cookie, dims.collect::<Vec<_>>(), self.acts().to_vec(), result)
    }

    /// What closes its table.
    fn closing(&self) -> String {
        match self {
            Source::Table(_) => "drop".to_owned(),
            Source::Sub(_) => answer(SubResult::Fail),
        }
    }
}

/// Whether a list makes neighbor advertisements.
fn advertises(acts: &[Act]) -> bool {
    acts.iter().any(|act| match act {
        Act::NdNa { .. } => true,
        Act::Clone(nested) => advertises(nested),
        _ => false,
    })
}

fn answer(result: SubResult) -> String {
    let bit = 1u32 << RESULT;
    match result {
        SubResult::Pass => "drop".to_owned(),
        SubResult::Fail => format!("set_field:{bit:#x}/{bit:#x}->{SCRATCH}"),
        SubResult::Goto(next) => format!("resubmit(,{})", sub(next)),
    }
}

struct Held {
    source: Source,
    cookie: u64,
    /// The first of its numbers for conjunctions and lists; 0 for a rule that needs none.
    first: u32,
    /// The actions, by what is known of the packets.
    texts: Vec<(Known, Arc<str>)>,
    asks: bool,
    /// It has flows of its own, not what stands for them because it cannot be held.
    whole: bool,
}

/// How often, and with which words, the switch has refused a rule.
type Refusals = FxHashMap<RuleId, (u8, String)>;

/// All rules.
#[derive(Default)]
pub(crate) struct Rules {
    held: FxHashMap<RuleId, Held>,
    users: FxHashMap<SetId, BTreeSet<RuleId>>,
    by_datapath: FxHashMap<DatapathKey, FxHashSet<RuleId>>,
    problems: BTreeMap<RuleId, Problem>,
    refused: Refusals,
    numbers: Numbers,
    /// Tables that are closed, and by which rules.
    closed: FxHashMap<(DatapathKey, u8), BTreeSet<RuleId>>,
    asking: usize,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("held", &self.held.len()).field("problems", &self.problems).finish()
    }
}

impl Rules {
    pub(crate) fn add(&mut self, desired: &mut Desired, program: &Program, rule: &Arc<Rule>, cookies: Cookies<'_>) {
        let cookie = cookies(rule.lflow);
        self.insert(desired, program, Source::Table(Arc::clone(rule)), cookie);
    }

    pub(crate) fn add_sub(&mut self, desired: &mut Desired, program: &Program, rule: &Arc<SubRule>) {
        self.insert(desired, program, Source::Sub(Arc::clone(rule)), 0);
    }

    pub(crate) fn remove(&mut self, desired: &mut Desired, program: &Program, id: RuleId) {
        self.refused.remove(&id);
        self.numbers.release(id);
        self.take(desired, program, id);
    }

    /// Whether some rule asks for the port of an address.
    pub(crate) fn ask_addresses(&self) -> bool {
        self.asking > 0
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values()
    }

    /// A logical flow's rules have these cookies.
    pub(crate) fn cookie(&self, lflow: LflowId) -> Option<u64> {
        self.held.values().find(|held| held.source.lflow() == lflow).map(|held| held.cookie)
    }

    fn insert(&mut self, desired: &mut Desired, program: &Program, source: Source, cookie: u64) {
        let (id, datapath) = (source.id(), source.datapath());
        for dim in source.dims() {
            if let Alternatives::Set(set) = &dim.alternatives {
                self.users.entry(*set).or_default().insert(id);
            }
        }
        self.by_datapath.entry(datapath).or_default().insert(id);
        let first = if source.needs_numbers() { self.numbers.first(id, &source.identity(cookie)) } else { 0 };
        let mut held = Held { source, cookie, first, texts: Vec::new(), asks: false, whole: true };
        self.lower(desired, program, &mut held);
        self.asking += usize::from(held.asks);
        self.held.insert(id, held);
    }

    fn take(&mut self, desired: &mut Desired, program: &Program, id: RuleId) -> Option<Held> {
        self.problems.remove(&id);
        let held = self.held.remove(&id)?;
        self.asking -= usize::from(held.asks);
        desired.withdraw(Owner::Rule(id));
        for dim in held.source.dims() {
            if let Alternatives::Set(set) = &dim.alternatives
                && let Some(users) = self.users.get_mut(set)
            {
                users.remove(&id);
                if users.is_empty() {
                    self.users.remove(set);
                }
            }
        }
        let datapath = held.source.datapath();
        if let Some(rules) = self.by_datapath.get_mut(&datapath) {
            rules.remove(&id);
            if rules.is_empty() {
                self.by_datapath.remove(&datapath);
            }
        }
        let place = (datapath, held.source.table());
        if let Some(by) = self.closed.get_mut(&place)
            && by.remove(&id)
            && by.is_empty()
        {
            self.closed.remove(&place);
            self.again(desired, program, &self.topmost(place, id));
        }
        Some(held)
    }

    /// Rules of a table that have the closing rule's priority.
    fn topmost(&self, (datapath, table): (DatapathKey, u8), but: RuleId) -> Vec<RuleId> {
        let rules = self.by_datapath.get(&datapath).into_iter().flatten().copied();
        rules
            .filter(|id| {
                let held = self.held.get(id).map(|held| &held.source);
                *id != but && held.is_some_and(|source| source.table() == table && source.priority() == u16::MAX)
            })
            .collect()
    }

    /// Lowers rules anew.
    fn again(&mut self, desired: &mut Desired, program: &Program, ids: &[RuleId]) {
        for id in ids {
            if let Some(held) = self.take(desired, program, *id) {
                self.insert(desired, program, held.source, held.cookie);
            }
        }
    }

    /// Stages of a datapath start elsewhere: rules whose way on changed are lowered anew.
    pub(crate) fn restage(&mut self, desired: &mut Desired, program: &Program, datapath: DatapathKey) {
        let Some(stages) = program.datapath(datapath).map(|found| &found.stages) else { return };
        let rules: Vec<RuleId> = self.by_datapath.get(&datapath).into_iter().flatten().copied().collect();
        let changed: Vec<RuleId> = rules
            .into_iter()
            .filter(|id| {
                self.held.get(id).is_some_and(|held| {
                    held.texts.iter().any(|(known, text)| {
                        let now = actions(held, stages, *known);
                        now.is_ok_and(|now| now.text != **text || !now.lists.is_empty())
                    })
                })
            })
            .collect();
        self.again(desired, program, &changed);
    }

    /// Members came to or went from a set: only their own flows are touched.
    pub(crate) fn change_set(
        &mut self,
        desired: &mut Desired,
        program: &Program,
        set: SetId,
        removed: &[Masked],
        added: &[Masked],
    ) {
        let users: Vec<RuleId> = self.users.get(&set).map(|ids| ids.iter().copied().collect()).unwrap_or_default();
        for id in users {
            let Some(held) = self.held.get(&id).filter(|held| held.whole) else { continue };
            let owner = Owner::Rule(id);
            let gone = plan(held, program, Some(Only { set, members: removed }));
            let come = plan(held, program, Some(Only { set, members: added }));
            let (Ok(gone), Ok(come)) = (gone, come) else {
                // A member that cannot be expressed: the rule as a whole decides what becomes of it.
                self.again(desired, program, &[id]);
                continue;
            };
            if come.iter().any(|planned| held.body(planned.part).is_none()) {
                // A rule whose sets were empty has no flows, and so no actions yet.
                self.again(desired, program, &[id]);
                continue;
            }
            let (table, priority) = (held.source.table(), held.source.priority());
            for planned in gone {
                if let Some(body) = held.body(planned.part) {
                    desired.unwish(owner, &FlowKey::new(table, priority, &planned.matches), &body);
                }
            }
            for planned in come {
                if let Some(body) = held.body(planned.part) {
                    let wish = Wish { owner, lflow: held.source.lflow(), cookie: held.cookie, body };
                    desired.wish(FlowKey::new(table, priority, &planned.matches), wish);
                }
            }
        }
    }

    /// The switch refuses a flow of a rule. Returns whether there is something that can still be done about it.
    pub(crate) fn refuse(&mut self, desired: &mut Desired, program: &Program, id: RuleId, why: &str) -> bool {
        let times = self.refused.entry(id).or_insert((0, why.to_owned()));
        times.0 += 1;
        if times.0 > 2 || !self.held.contains_key(&id) {
            return false;
        }
        self.again(desired, program, &[id]);
        true
    }

    fn lower(&mut self, desired: &mut Desired, program: &Program, held: &mut Held) {
        let id = held.source.id();
        let place = (held.source.datapath(), held.source.table());
        held.texts.clear();
        held.asks = false;
        held.whole = true;
        if held.source.priority() == u16::MAX && self.closed.get(&place).is_some_and(|by| !by.contains(&id)) {
            held.whole = false;
            return;
        }
        let (refused, why) = self.refused.get(&id).cloned().unwrap_or_default();
        let planned = match plan(held, program, None) {
            Ok(planned) if refused < 2 => planned,
            Ok(_) => return self.close(desired, program, held, why),
            Err(error) => return self.close(desired, program, held, error.to_string()),
        };
        let none = Stages::default();
        let stages = program.datapath(place.0).map_or(&none, |found| &found.stages);
        let mut failed = (refused == 1).then(|| why.clone());
        for planned in &planned {
            let Part::Acts(known) = planned.part else { continue };
            if held.texts.iter().any(|(other, _)| *other == known) {
                continue;
            }
            let lowered = match failed.is_none().then(|| actions(held, stages, known)) {
                Some(Ok(lowered)) => lowered,
                Some(Err(error)) => {
                    failed = Some(error.to_string());
                    action::Lowered { text: held.source.closing(), ..Default::default() }
                }
                None => action::Lowered { text: held.source.closing(), ..Default::default() },
            };
            held.asks |= lowered.asks;
            for (list, text) in lowered.lists {
                let wish = held.wish(Body::Acts(text.into()));
                desired.wish(FlowKey::new(ADVERTISEMENT, 100, &action::advertisement::matches(list)), wish);
            }
            held.texts.push((known, lowered.text.into()));
        }
        if let Some(what) = failed {
            self.report(held, what, Consequence::MatchDropped);
        }
        for Planned { matches, part } in planned {
            if let Some(body) = held.body(part) {
                let wish = held.wish(body);
                desired.wish(FlowKey::new(place.1, held.source.priority(), &matches), wish);
            }
        }
    }

    /// The rule's match cannot be held.
    fn close(&mut self, desired: &mut Desired, program: &Program, held: &mut Held, what: String) {
        held.whole = false;
        if held.source.only_passes() {
            return self.report(held, what, Consequence::LeftOut);
        }
        self.report(held, what, Consequence::TableClosed);
        let place = (held.source.datapath(), held.source.table());
        let wish = held.wish(Body::Acts(held.source.closing().into()));
        desired.wish(FlowKey::new(place.1, u16::MAX, &format!("metadata={:#x}", place.0.0)), wish);
        let id = held.source.id();
        if self.closed.entry(place).or_default().insert(id) {
            let rivals = self.topmost(place, id);
            self.again(desired, program, &rivals);
        }
    }

    fn report(&mut self, held: &Held, what: String, consequence: Consequence) {
        let (lflow, datapath) = (held.source.lflow(), held.source.datapath());
        self.problems.insert(held.source.id(), Problem { lflow, datapath, what, consequence });
    }
}

impl Held {
    fn wish(&self, body: Body) -> Wish {
        Wish { owner: Owner::Rule(self.source.id()), lflow: self.source.lflow(), cookie: self.cookie, body }
    }

    fn body(&self, part: Part) -> Option<Body> {
        match part {
            Part::Member { id, n, of } => Some(Body::Member { id, n, of }),
            Part::Acts(known) => {
                let text = self.texts.iter().find(|(other, _)| *other == known);
                text.map(|(_, text)| Body::Acts(Arc::clone(text)))
            }
        }
    }
}

fn plan(held: &Held, program: &Program, only: Option<Only<'_>>) -> Result<Vec<Planned>, Unsupported> {
    let Held { source, first, .. } = held;
    let touched = action::touched(source.acts());
    let shape = Shape { datapath: source.datapath(), first: *first, dims: source.dims(), touched: &touched };
    matching::plan(shape, program, only)
}

fn actions(held: &Held, stages: &Stages, known: Known) -> Result<action::Lowered, Unsupported> {
    match &held.source {
        Source::Table(rule) => {
            let place = Place { first: held.first, pipeline: rule.table.pipeline, stages };
            action::lower(&rule.acts, place, known)
        }
        Source::Sub(rule) => Ok(action::Lowered { text: answer(rule.result), ..Default::default() }),
    }
}
