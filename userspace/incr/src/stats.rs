//! Counters per kind, always on.

/// Counters of one kind since the start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStats {
    /// Units that were marked dirty, each counted once a wave.
    pub dirty: u64,
    /// Units that were computed.
    pub run: u64,
    /// Computations whose output differed from the one before.
    pub changed: u64,
    /// Units that exist now; not affected by a reset.
    pub live: u64,
    /// Reads recorded by the units that exist now; not affected by a reset. `reads / live` that grows
    /// with the network shows a unit that is too coarse.
    pub reads: u64,
}

/// Counters of all kinds, in the order of the program's table of kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// One entry a kind.
    pub kinds: Vec<(&'static str, KindStats)>,
    /// Waves run.
    pub waves: u64,
    /// Units compared by sampling or audit.
    pub audited: u64,
    /// Units found to differ by sampling or audit.
    pub discrepancies: u64,
}

impl Stats {
    /// The counters of the kind called `name`.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<KindStats> {
        self.kinds.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
    }

    /// The sum over all kinds.
    #[must_use]
    pub fn total(&self) -> KindStats {
        let mut sum = KindStats::default();
        for (_, s) in &self.kinds {
            sum.dirty += s.dirty;
            sum.run += s.run;
            sum.changed += s.changed;
            sum.live += s.live;
            sum.reads += s.reads;
        }
        sum
    }

    pub(crate) fn reset(&mut self) {
        for (_, s) in &mut self.kinds {
            *s = KindStats { live: s.live, reads: s.reads, ..KindStats::default() };
        }
        self.waves = 0;
        self.audited = 0;
        self.discrepancies = 0;
    }
}
