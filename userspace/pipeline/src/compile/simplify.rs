//! One datapath's rules, and what of them is worth walking.
//!
//! Rules that look the same to the analysis of [`super::reach`] are kept together as a *shape* (a few dozen for a switch of any size). Adding or
//! removing a rule of a known shape costs only itself; only when a shape appears or vanishes is the datapath analysed again, over its
//! shapes. The result is always that of analysing from scratch.

use super::reach::{Guarded, Reached, certain, is_tracked, live, reached, reduce};
use crate::ir::{Act, Cause, Dim, MAX_STAGES, Pipeline, Rule, RuleId, Stages};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the analysis can tell of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ShapeKey {
    pipeline: Pipeline,
    stage: u8,
    /// Conditions on tracked fields.
    guards: Vec<Dim>,
    effect: Vec<Act>,
    /// Whether these are all conditions.
    bare: bool,
    /// Set when `next` is the only action: where to.
    only_next: Option<(Pipeline, u8)>,
    closes: bool,
}

impl Guarded for ShapeKey {
    fn guards(&self) -> &[Dim] {
        &self.guards
    }

    fn effect(&self) -> &[Act] {
        &self.effect
    }

    fn stage(&self) -> (Pipeline, u8) {
        (self.pipeline, self.stage)
    }

    fn closes(&self) -> bool {
        self.closes
    }
}

impl ShapeKey {
    fn of(rule: &Rule) -> ShapeKey {
        let guards: Vec<Dim> = rule.dims.iter().filter(|dim| is_tracked(dim.field)).cloned().collect();
        ShapeKey {
            pipeline: rule.table.pipeline,
            stage: rule.table.stage,
            bare: guards.len() == rule.dims.len(),
            guards,
            effect: reduce(&rule.acts),
            only_next: match rule.acts[..] {
                [Act::Next { pipeline, stage }] => Some((pipeline, stage)),
                _ => None,
            },
            closes: matches!(rule.acts[..], [Act::Drop(Cause::TableClosed)]),
        }
    }
}

/// What becomes of the rules of a shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Fate {
    /// No packet gets there.
    #[default]
    Dead,
    /// A packet may get there, but the table only passes packets on, so none is sent to it.
    PassedBy,
    /// It is walked; conditions on these fields always hold.
    Walked { implied: Vec<crate::ir::Field> },
}

#[derive(Debug)]
struct Shape {
    fate: Fate,
    rules: FxHashSet<RuleId>,
}

/// The rules of one datapath.
#[derive(Debug, Default)]
pub(crate) struct DatapathRules {
    rules: FxHashMap<RuleId, (Arc<Rule>, Arc<ShapeKey>)>,
    shapes: FxHashMap<Arc<ShapeKey>, Shape>,
    emitted: FxHashMap<RuleId, Arc<Rule>>,
    stages: Stages,
    reached: Reached,
    /// Number of sub-table rules, in and out.
    secure: [usize; 2],
    /// Rules to look at again at the next [`DatapathRules::settle`].
    touched: FxHashSet<RuleId>,
    reshaped: bool,
}

/// What [`DatapathRules::settle`] found.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) removed: Vec<Arc<Rule>>,
    pub(crate) added: Vec<Arc<Rule>>,
    /// Whether the stages are others than before.
    pub(crate) restaged: bool,
}

impl DatapathRules {
    pub(crate) fn add(&mut self, rule: Arc<Rule>) {
        let key = Arc::new(ShapeKey::of(&rule));
        let key = match self.shapes.get_key_value(&key) {
            Some((known, _)) => Arc::clone(known),
            None => {
                self.reshaped = true;
                self.shapes.insert(Arc::clone(&key), Shape { fate: Fate::Dead, rules: FxHashSet::default() });
                key
            }
        };
        if let Some(shape) = self.shapes.get_mut(&key) {
            shape.rules.insert(rule.id);
        }
        self.touched.insert(rule.id);
        self.rules.insert(rule.id, (rule, key));
    }

    pub(crate) fn remove(&mut self, id: RuleId) {
        let Some((_, key)) = self.rules.remove(&id) else { return };
        if let Some(shape) = self.shapes.get_mut(&key) {
            shape.rules.remove(&id);
            if shape.rules.is_empty() {
                self.shapes.remove(&key);
                self.reshaped = true;
            }
        }
        self.touched.insert(id);
    }

    /// How many sub-table rules there are, in and out.
    pub(crate) fn set_secure(&mut self, secure: [usize; 2]) {
        self.reshaped |= self.secure.map(|n| n > 0) != secure.map(|n| n > 0);
        self.secure = secure;
    }

    /// Number of sub-table rules, in and out.
    pub(crate) fn secure(&self) -> [usize; 2] {
        self.secure
    }

    /// The stages of the datapath as of the last [`DatapathRules::settle`].
    pub(crate) fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Whether packets can get to a table, as of the last [`DatapathRules::settle`].
    pub(crate) fn is_reached(&self, pipeline: Pipeline, stage: u8) -> bool {
        self.reached.contains_key(&(pipeline, stage))
    }

    /// Whether a rule can be reached, walked or not.
    pub(crate) fn is_live(&self, id: RuleId) -> bool {
        let shape = self.rules.get(&id).and_then(|(_, key)| self.shapes.get(key));
        shape.is_some_and(|shape| shape.fate != Fate::Dead)
    }

    /// Every rule as it was lowered, but for tables that are closed: of these only the rule that closes them.
    pub(crate) fn raw(&self) -> Vec<Arc<Rule>> {
        let stage = |rule: &Rule| (rule.table.pipeline, rule.table.stage);
        let closed: FxHashSet<(Pipeline, u8)> =
            self.rules.values().filter(|(_, key)| key.closes).map(|(rule, _)| stage(rule)).collect();
        self.rules
            .values()
            .filter(|(rule, key)| key.closes || !closed.contains(&stage(rule)))
            .map(|(rule, _)| Arc::clone(rule))
            .collect()
    }

    /// The stages without any simplification: every stage up to the last one with rules starts at itself.
    pub(crate) fn raw_stages(&self) -> Stages {
        let last = |pipeline| {
            self.rules
                .values()
                .filter(|(rule, _)| rule.table.pipeline == pipeline)
                .map(|(rule, _)| rule.table.stage)
                .max()
        };
        let mut stages = Stages::default();
        for (pipeline, of) in [(Pipeline::Ingress, &mut stages.ingress), (Pipeline::Egress, &mut stages.egress)] {
            if let Some(last) = last(pipeline) {
                for stage in 0..=last.min(MAX_STAGES - 1) {
                    of[usize::from(stage)] = Some(stage);
                }
            }
        }
        stages
    }

    /// Brings what is walked up to date with the rules.
    pub(crate) fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        if std::mem::take(&mut self.reshaped) {
            settled.restaged = self.analyse();
        }
        let mut touched: Vec<RuleId> = self.touched.drain().collect();
        touched.sort_unstable();
        for id in touched {
            let wanted = self.wanted(id);
            let there = self.emitted.get(&id);
            if wanted.as_ref() == there {
                continue;
            }
            if let Some(rule) = self.emitted.remove(&id) {
                settled.removed.push(rule);
            }
            if let Some(rule) = wanted {
                settled.added.push(Arc::clone(&rule));
                self.emitted.insert(id, rule);
            }
        }
        settled
    }

    /// The rule as it is walked, if it is.
    fn wanted(&self, id: RuleId) -> Option<Arc<Rule>> {
        let (rule, key) = self.rules.get(&id)?;
        let Fate::Walked { implied } = &self.shapes.get(key)?.fate else { return None };
        if implied.is_empty() {
            return Some(Arc::clone(rule));
        }
        let dims = rule.dims.iter().filter(|dim| !implied.contains(&dim.field)).cloned().collect();
        Some(Arc::new(Rule { dims, ..Rule::clone(rule) }))
    }

    /// Follows packets through the shapes; whether the stages changed.
    fn analyse(&mut self) -> bool {
        let keys: Vec<Arc<ShapeKey>> = self.shapes.keys().map(Arc::clone).collect();
        let mut by_stage: BTreeMap<(Pipeline, u8), Vec<&ShapeKey>> = BTreeMap::new();
        for key in &keys {
            by_stage.entry(key.stage()).or_default().push(key);
        }
        let reached = reached(&by_stage, self.secure.map(|n| n > 0));
        let mut fates: FxHashMap<&ShapeKey, Fate> = FxHashMap::default();
        let mut passing: BTreeMap<(Pipeline, u8), u8> = BTreeMap::new();
        for (stage, shapes) in &by_stage {
            let Some(state) = reached.get(stage) else { continue };
            let alive = live(shapes, state);
            let implied = |shape: &ShapeKey| -> Vec<crate::ir::Field> {
                shape.guards.iter().filter(|dim| certain(state, dim)).map(|dim| dim.field).collect()
            };
            if let Some(next) = passes_on(*stage, &alive, &implied) {
                passing.insert(*stage, next);
                fates.extend(alive.iter().map(|shape| (*shape, Fate::PassedBy)));
            } else {
                fates.extend(alive.iter().map(|shape| (*shape, Fate::Walked { implied: implied(shape) })));
            }
        }
        let stages = self.start_of_stages(&passing);
        for (key, shape) in &mut self.shapes {
            let fate = fates.remove(&**key).unwrap_or_default();
            if fate != shape.fate {
                shape.fate = fate;
                self.touched.extend(&shape.rules);
            }
        }
        self.reached = reached;
        let restaged = stages != self.stages;
        self.stages = stages;
        restaged
    }

    /// Where packets sent to each stage start, given the tables that only pass them on.
    fn start_of_stages(&self, passing: &BTreeMap<(Pipeline, u8), u8>) -> Stages {
        let mut stages = self.raw_stages();
        for (pipeline, of) in [(Pipeline::Ingress, &mut stages.ingress), (Pipeline::Egress, &mut stages.egress)] {
            for stage in (0..MAX_STAGES).rev() {
                if let Some(next) = passing.get(&(pipeline, stage)) {
                    // Always further on, so already known.
                    of[usize::from(stage)] = of.get(usize::from(*next)).copied().flatten();
                }
            }
        }
        stages
    }
}

/// Where a table passes every packet on to, if it does nothing else.
fn passes_on(
    stage: (Pipeline, u8),
    alive: &[&ShapeKey],
    implied: &dyn Fn(&ShapeKey) -> Vec<crate::ir::Field>,
) -> Option<u8> {
    let (pipeline, next) = alive.first()?.only_next?;
    let forward = pipeline == stage.0 && next > stage.1;
    let same = alive.iter().all(|shape| shape.only_next == Some((pipeline, next)));
    let always = alive.iter().any(|shape| shape.bare && implied(shape).len() == shape.guards.len());
    (forward && same && always).then_some(next)
}
