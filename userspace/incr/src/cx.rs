//! What a unit sees of the world while it is computed.

use std::sync::Arc;

use crate::graph::CellId;
use crate::{Aspects, Engine, Program, Query};

/// The reads of one computation: the only way from a unit to facts and to other units.
pub struct Cx<'e, 's, P: Program> {
    pub(crate) engine: &'e mut Engine<P>,
    pub(crate) program: &'e P,
    pub(crate) source: &'s P::Source,
    pub(crate) stratum: u16,
    pub(crate) reads: Vec<(CellId, Aspects)>,
}

impl<'s, P: Program> Cx<'_, 's, P> {
    /// Asks the source, and records the question: the unit runs again when the answer may have changed.
    pub fn read<Q: Query<P>>(&mut self, query: &Q) -> Q::Answer<'s> {
        let cell = self.engine.fact_cell(query.fact());
        self.reads.push((cell, query.aspects()));
        query.answer(self.source)
    }

    /// The output of another unit, computed now if nobody needed it before.
    ///
    /// # Panics
    /// If `unit` is not of a lower stratum: the program's table of kinds would allow a cycle.
    pub fn unit(&mut self, unit: &P::Unit) -> Arc<P::Output> {
        let kind = &P::KINDS[P::kind(unit)];
        assert!(
            kind.stratum < self.stratum,
            "unit {unit:?} of stratum {} read from stratum {}: strata must ascend",
            kind.stratum,
            self.stratum
        );
        let (cell, output) = self.engine.output_for_reader(self.program, self.source, unit);
        self.reads.push((cell, Aspects::ALL));
        output
    }
}
