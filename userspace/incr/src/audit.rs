//! The oracle: derive again, from nothing, and compare.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::{Engine, Program};

/// A unit whose kept output is not what computing it yields.
#[derive(Debug)]
pub struct Discrepancy<P: Program> {
    /// The unit.
    pub unit: P::Unit,
    /// The output the engine kept; none if the engine has no such unit.
    pub kept: Option<Arc<P::Output>>,
    /// The output computed from nothing; none if a fresh engine has no such unit.
    pub fresh: Option<Arc<P::Output>>,
}

impl<P: Program> Engine<P> {
    /// Computes every active unit in a fresh engine and returns what differs, in key order. Call it
    /// between waves: dirty units would be reported as stale.
    pub fn audit(&mut self, program: &P, source: &P::Source) -> Vec<Discrepancy<P>> {
        let mut fresh = Self::new();
        for unit in self.pinned() {
            fresh.activate(unit.clone());
        }
        fresh.run(program, source);
        let kept: FxHashMap<P::Unit, Arc<P::Output>> =
            self.outputs().map(|(u, o)| (u.clone(), Arc::clone(o))).collect();
        let mut found: Vec<Discrepancy<P>> = Vec::new();
        for (unit, output) in fresh.outputs() {
            let kept = kept.get(unit);
            if kept.is_none_or(|k| **k != **output) {
                found.push(Discrepancy { unit: unit.clone(), kept: kept.cloned(), fresh: Some(Arc::clone(output)) });
            }
        }
        for (unit, output) in &kept {
            if fresh.output(unit).is_none() {
                found.push(Discrepancy { unit: unit.clone(), kept: Some(Arc::clone(output)), fresh: None });
            }
        }
        found.sort_unstable_by(|a, b| a.unit.cmp(&b.unit));
        let audited = kept.len() as u64;
        let stats = self.stats_mut();
        stats.audited += audited;
        stats.discrepancies += found.len() as u64;
        found
    }

    /// Computes the next `count` units again from the kept outputs of the units they read, going round
    /// over all units from call to call, and returns those that differ. Cheap enough for production.
    pub fn sample(&mut self, program: &P, source: &P::Source, count: usize) -> Vec<Discrepancy<P>> {
        let mut found = Vec::new();
        for unit in self.next_sample(count) {
            let fresh = self.compute_apart(program, source, &unit);
            let kept = self.output(&unit).cloned();
            self.stats_mut().audited += 1;
            if kept.as_deref() != Some(&fresh) {
                self.stats_mut().discrepancies += 1;
                found.push(Discrepancy { unit, kept, fresh: Some(Arc::new(fresh)) });
            }
        }
        found
    }
}
