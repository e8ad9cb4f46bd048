//! Dirty marks, strata, waves.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::graph::{CellId, Graph, UnitId};
use crate::stats::{KindStats, Stats};
use crate::{Aspects, Cx, Program};

/// A unit whose output changed in a wave.
#[derive(Debug)]
pub struct Change<P: Program> {
    /// The unit.
    pub unit: P::Unit,
    /// Its output before the wave; empty if the unit is new.
    pub old: Arc<P::Output>,
    /// Its output now; empty if its subject or its last reader is gone.
    pub new: Arc<P::Output>,
}

/// What one call of [`Engine::run`] did.
#[derive(Debug)]
pub struct Wave<P: Program> {
    /// Every unit whose output changed, in the order of strata and keys; then the units that left, in the
    /// order of keys. A unit appears twice only if it was computed and left in the same wave.
    pub changes: Vec<Change<P>>,
    /// How many units were computed.
    pub run: u64,
}

#[derive(Debug)]
struct Slot<P: Program> {
    unit: P::Unit,
    output: Arc<P::Output>,
    cell: CellId,
    kind: u8,
    /// Held by [`Engine::activate`], whether or not somebody reads it.
    pinned: bool,
    dirty: bool,
    computed: bool,
}

/// The state of a program: units, their outputs, and who read what.
#[derive(Debug)]
pub struct Engine<P: Program> {
    slots: Vec<Option<Slot<P>>>,
    free: Vec<UnitId>,
    by_unit: FxHashMap<P::Unit, UnitId>,
    facts: FxHashMap<P::Fact, CellId>,
    cells: Vec<CellOwner<P>>,
    graph: Graph,
    /// Dirty units by stratum.
    dirty: Vec<Vec<UnitId>>,
    /// Cells that lost their last reader since the last sweep.
    orphans: Vec<CellId>,
    /// Units that may be without holder although their cell lost no reader: retired ones.
    retired: Vec<UnitId>,
    wave: Vec<Change<P>>,
    wave_run: u64,
    stats: Stats,
    sample_at: UnitId,
}

#[derive(Debug)]
enum CellOwner<P: Program> {
    Nobody,
    Unit(UnitId),
    Fact(P::Fact),
}

impl<P: Program> Default for Engine<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Program> Engine<P> {
    /// An engine without units.
    #[must_use]
    pub fn new() -> Self {
        let strata = P::KINDS.iter().map(|k| k.stratum as usize + 1).max().unwrap_or(0);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_unit: FxHashMap::default(),
            facts: FxHashMap::default(),
            cells: Vec::new(),
            graph: Graph::default(),
            dirty: vec![Vec::new(); strata],
            orphans: Vec::new(),
            retired: Vec::new(),
            wave: Vec::new(),
            wave_run: 0,
            stats: Stats {
                kinds: P::KINDS.iter().map(|k| (k.name, KindStats::default())).collect(),
                ..Stats::default()
            },
            sample_at: 0,
        }
    }

    /// Makes the unit exist until it is retired; it is computed in the next wave if it was not already.
    pub fn activate(&mut self, unit: P::Unit) {
        let id = self.intern(&unit);
        let slot = self.slot_mut(id);
        slot.pinned = true;
        if !slot.computed {
            self.mark(id);
        }
    }

    /// Takes [`Engine::activate`] back: after the next wave the unit is gone unless somebody reads it.
    pub fn retire(&mut self, unit: &P::Unit) {
        if let Some(&id) = self.by_unit.get(unit) {
            self.slot_mut(id).pinned = false;
            self.retired.push(id);
        }
    }

    /// Says that `aspects` of `fact` may answer differently now. Call it for the key a row had and for
    /// the one it has.
    pub fn touch(&mut self, fact: &P::Fact, aspects: Aspects) {
        if let Some(&cell) = self.facts.get(fact) {
            self.mark_readers(cell, aspects);
        }
    }

    /// Marks every unit dirty: the next wave is a full recompute that keeps equal outputs.
    pub fn touch_all(&mut self) {
        for id in 0..self.slots.len() as UnitId {
            if self.slots[id as usize].is_some() {
                self.mark(id);
            }
        }
    }

    /// True if a wave would compute something.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty.iter().any(|d| !d.is_empty()) || !self.retired.is_empty()
    }

    /// Runs one wave to its end.
    pub fn run(&mut self, program: &P, source: &P::Source) -> Wave<P> {
        self.stats.waves += 1;
        for stratum in 0..self.dirty.len() {
            let mut ids = std::mem::take(&mut self.dirty[stratum]);
            ids.sort_unstable_by(|&a, &b| self.slot(a).unit.cmp(&self.slot(b).unit));
            for &id in &ids {
                // A unit may have been computed since, for a reader that needed it in this wave.
                if self.slot(id).dirty {
                    self.compute(program, source, id);
                }
            }
            ids.clear();
            debug_assert!(self.dirty[stratum].is_empty(), "a wave never marks its own stratum");
            self.dirty[stratum] = ids;
        }
        self.sweep();
        Wave { changes: std::mem::take(&mut self.wave), run: std::mem::take(&mut self.wave_run) }
    }

    /// The output of a unit, if the unit exists.
    #[must_use]
    pub fn output(&self, unit: &P::Unit) -> Option<&Arc<P::Output>> {
        self.by_unit.get(unit).map(|&id| &self.slot(id).output)
    }

    /// Every unit with its output, in no particular order.
    pub fn outputs(&self) -> impl Iterator<Item = (&P::Unit, &Arc<P::Output>)> {
        self.slots.iter().flatten().map(|s| (&s.unit, &s.output))
    }

    /// The units that read `aspects` of `fact`, in key order: what a change of it would run first.
    #[must_use]
    pub fn readers_of(&self, fact: &P::Fact, aspects: Aspects) -> Vec<&P::Unit> {
        let Some(&cell) = self.facts.get(fact) else { return Vec::new() };
        let mut units: Vec<&P::Unit> = self
            .graph
            .readers(cell)
            .iter()
            .filter(|r| r.aspects.overlaps(aspects))
            .map(|r| &self.slot(r.unit).unit)
            .collect();
        units.sort_unstable();
        units
    }

    /// Counters per kind.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Sets the counters to zero, except those that describe what exists.
    pub fn reset_stats(&mut self) {
        self.stats.reset();
    }

    pub(crate) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    pub(crate) fn pinned(&self) -> impl Iterator<Item = &P::Unit> {
        self.slots.iter().flatten().filter(|s| s.pinned).map(|s| &s.unit)
    }

    /// The next `count` computed units after the last sampled one, going round.
    pub(crate) fn next_sample(&mut self, count: usize) -> Vec<P::Unit> {
        let mut units = Vec::new();
        for _ in 0..self.slots.len() {
            if units.len() == count {
                break;
            }
            self.sample_at = (self.sample_at + 1) % self.slots.len() as UnitId;
            if let Some(slot) = &self.slots[self.sample_at as usize]
                && slot.computed
                && !slot.dirty
            {
                units.push(slot.unit.clone());
            }
        }
        units
    }

    pub(crate) fn fact_cell(&mut self, fact: P::Fact) -> CellId {
        if let Some(&cell) = self.facts.get(&fact) {
            return cell;
        }
        let cell = self.graph.new_cell();
        self.own(cell, CellOwner::Fact(fact.clone()));
        self.facts.insert(fact, cell);
        cell
    }

    pub(crate) fn output_for_reader(
        &mut self,
        program: &P,
        source: &P::Source,
        unit: &P::Unit,
    ) -> (CellId, Arc<P::Output>) {
        let id = self.intern(unit);
        if !self.slot(id).computed || self.slot(id).dirty {
            self.compute(program, source, id);
        }
        let slot = self.slot(id);
        (slot.cell, Arc::clone(&slot.output))
    }

    /// Computes a unit and reads nothing into the graph but cells: for audits.
    pub(crate) fn compute_apart(&mut self, program: &P, source: &P::Source, unit: &P::Unit) -> P::Output {
        let stratum = P::KINDS[P::kind(unit)].stratum;
        let mut cx = Cx { engine: self, program, source, stratum, reads: Vec::new() };
        let output = program.compute(&mut cx, unit);
        let cells: Vec<CellId> = cx.reads.iter().map(|r| r.0).collect();
        self.orphans.extend(cells);
        self.sweep();
        output
    }

    fn compute(&mut self, program: &P, source: &P::Source, id: UnitId) {
        let slot = self.slot_mut(id);
        slot.dirty = false;
        slot.computed = true;
        let unit = slot.unit.clone();
        let kind = slot.kind as usize;
        let stratum = P::KINDS[kind].stratum;
        let mut cx = Cx { engine: self, program, source, stratum, reads: Vec::new() };
        let output = program.compute(&mut cx, &unit);
        let mut reads = std::mem::take(&mut cx.reads);
        reads.sort_unstable();
        reads.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = kept.1.with(later.1);
            }
            same
        });
        let before = self.graph.reads(id).len() as u64;
        let mut orphans = std::mem::take(&mut self.orphans);
        self.graph.set_reads(id, &reads, &mut orphans);
        self.orphans = orphans;
        self.wave_run += 1;
        let stats = &mut self.stats.kinds[kind].1;
        stats.run += 1;
        stats.reads = stats.reads + reads.len() as u64 - before;
        if *self.slot(id).output == output {
            return;
        }
        self.stats.kinds[kind].1.changed += 1;
        let new = Arc::new(output);
        let slot = self.slot_mut(id);
        let old = std::mem::replace(&mut slot.output, Arc::clone(&new));
        let cell = slot.cell;
        self.wave.push(Change { unit, old, new });
        self.mark_readers(cell, Aspects::ALL);
    }

    fn mark_readers(&mut self, cell: CellId, aspects: Aspects) {
        for i in 0..self.graph.readers(cell).len() {
            let reader = self.graph.readers(cell)[i];
            if reader.aspects.overlaps(aspects) {
                self.mark(reader.unit);
            }
        }
    }

    fn mark(&mut self, id: UnitId) {
        let slot = self.slot_mut(id);
        if slot.dirty {
            return;
        }
        slot.dirty = true;
        let kind = slot.kind as usize;
        self.stats.kinds[kind].1.dirty += 1;
        self.dirty[P::KINDS[kind].stratum as usize].push(id);
    }

    fn intern(&mut self, unit: &P::Unit) -> UnitId {
        if let Some(&id) = self.by_unit.get(unit) {
            return id;
        }
        let cell = self.graph.new_cell();
        let kind = P::kind(unit) as u8;
        let slot = Slot {
            unit: unit.clone(),
            output: Arc::new(P::Output::default()),
            cell,
            kind,
            pinned: false,
            dirty: false,
            computed: false,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = Some(slot);
                id
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as UnitId
            }
        };
        self.own(cell, CellOwner::Unit(id));
        self.by_unit.insert(unit.clone(), id);
        self.stats.kinds[kind as usize].1.live += 1;
        id
    }

    /// Drops facts without readers and units that nobody holds, which may leave others unheld.
    fn sweep(&mut self) {
        let first_gone = self.wave.len();
        loop {
            while let Some(cell) = self.orphans.pop() {
                if !self.graph.readers(cell).is_empty() {
                    continue;
                }
                match &self.cells[cell as usize] {
                    CellOwner::Nobody => {}
                    CellOwner::Unit(id) => self.retired.push(*id),
                    CellOwner::Fact(fact) => {
                        self.facts.remove(fact);
                        self.cells[cell as usize] = CellOwner::Nobody;
                        self.graph.free_cell(cell);
                    }
                }
            }
            let Some(id) = self.retired.pop() else { break };
            let Some(slot) = &self.slots[id as usize] else { continue };
            if slot.pinned || !self.graph.readers(slot.cell).is_empty() {
                continue;
            }
            self.drop_unit(id);
        }
        self.wave[first_gone..].sort_unstable_by(|a, b| a.unit.cmp(&b.unit));
    }

    fn drop_unit(&mut self, id: UnitId) {
        let reads = self.graph.reads(id).len() as u64;
        let mut orphans = std::mem::take(&mut self.orphans);
        self.graph.set_reads(id, &[], &mut orphans);
        self.orphans = orphans;
        let Some(slot) = self.slots[id as usize].take() else { return };
        if slot.dirty {
            self.dirty[P::KINDS[slot.kind as usize].stratum as usize].retain(|&d| d != id);
        }
        self.by_unit.remove(&slot.unit);
        self.cells[slot.cell as usize] = CellOwner::Nobody;
        self.graph.free_cell(slot.cell);
        self.free.push(id);
        let stats = &mut self.stats.kinds[slot.kind as usize].1;
        stats.live -= 1;
        stats.reads -= reads;
        let empty = P::Output::default();
        if *slot.output != empty {
            self.wave.push(Change { unit: slot.unit, old: slot.output, new: Arc::new(empty) });
        }
    }

    fn own(&mut self, cell: CellId, owner: CellOwner<P>) {
        if self.cells.len() <= cell as usize {
            self.cells.resize_with(cell as usize + 1, || CellOwner::Nobody);
        }
        self.cells[cell as usize] = owner;
    }

    fn slot(&self, id: UnitId) -> &Slot<P> {
        self.slots[id as usize].as_ref().expect("unit ids in lists are live")
    }

    fn slot_mut(&mut self, id: UnitId) -> &mut Slot<P> {
        self.slots[id as usize].as_mut().expect("unit ids in lists are live")
    }
}
