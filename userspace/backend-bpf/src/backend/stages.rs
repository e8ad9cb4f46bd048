//! Datapaths: which table a stage of the language starts at.

use crate::image::{Exhausted, Guards, Scope, Tables};
use oxbow_abi::rule::NEVER;
use oxbow_abi::topology::{DATAPATH_ROUTER, Datapath, STAGES, Stages};
use oxbow_pipeline::ir::{DatapathKey, Pipeline, Program};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use zerocopy::FromZeros;

/// Where in a datapath a table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    /// A stage.
    Stage(Pipeline, u8),
    /// A sub-table, by its number.
    Sub(usize),
}

/// A datapath to write.
pub(super) struct StageWrite {
    pub(super) datapath: u32,
    pub(super) value: Datapath,
    /// Only failed commits wrote it, and nobody wants it any more: no version in force knows it, and it is removed instead.
    pub(super) stale: bool,
    gone: bool,
}

#[derive(Default)]
pub(super) struct StageMaps {
    tables: FxHashMap<(DatapathKey, Place), u32>,
    kernel: FxHashMap<u32, Datapath>,
    dirty: BTreeSet<DatapathKey>,
    gone: Vec<u32>,
    /// Datapaths that a commit which has not succeeded yet may have written.
    attempted: BTreeSet<DatapathKey>,
}

impl StageMaps {
    /// Datapaths that the kernel has.
    pub(super) fn held(&self) -> usize {
        self.kernel.len()
    }

    pub(super) fn mark(&mut self, datapath: DatapathKey) {
        self.dirty.insert(datapath);
    }

    /// Index of the table at a place, made when new.
    pub(super) fn table(&mut self, tables: &mut Tables, datapath: DatapathKey, place: Place) -> Result<u32, Exhausted> {
        if let Some(index) = self.tables.get(&(datapath, place)) {
            return Ok(*index);
        }
        let index = tables.add_table()?;
        self.tables.insert((datapath, place), index);
        self.dirty.insert(datapath);
        Ok(index)
    }

    /// Whether the next writes would take something away that packets of versions from `oldest` on may be using.
    pub(super) fn overtakes(&self, oldest: u32) -> bool {
        self.dirty.iter().any(|key| {
            let froms = self.kernel.get(&key.0).map(|datapath| datapath.stages.each_ref().map(|stages| stages.from));
            // One that is gone is written whole when it comes back.
            self.gone.contains(&key.0) || froms.is_some_and(|[a, b]| a != NEVER && b != NEVER && a.max(b) > oldest)
        })
    }

    /// Datapaths to write for a version.
    pub(super) fn writes(
        &mut self,
        program: &Program,
        version: u32,
        tables: &mut Tables,
        guards: &mut Guards,
    ) -> Result<Vec<StageWrite>, Exhausted> {
        let mut writes = Vec::new();
        for key in self.dirty.clone() {
            let known = self.kernel.get(&key.0).copied();
            let stale = known.is_none() && program.datapath(key).is_none();
            if stale && !self.attempted.contains(&key) {
                continue;
            }
            self.attempted.insert(key);
            let mut now = Stages { from: version, ..Stages::new_zeroed() };
            let found = program.datapath(key);
            if let Some(datapath) = found {
                for stage in 0..STAGES {
                    for (pipeline, map) in [(Pipeline::Ingress, 0), (Pipeline::Egress, 1)] {
                        let Some(entry) = datapath.stages.entry(pipeline, stage as u8) else { continue };
                        let index = self.table(tables, key, Place::Stage(pipeline, entry))?;
                        if map == 0 { now.ingress[stage] = index } else { now.egress[stage] = index }
                    }
                }
                for (n, sub) in now.sub.iter_mut().enumerate() {
                    *sub = self.tables.get(&(key, Place::Sub(n))).copied().unwrap_or(0);
                }
            }
            let guard = guards.index(Scope::Datapath(key.0))?;
            let flags = if found.is_some_and(|d| d.router) { DATAPATH_ROUTER } else { 0 };
            let never = Stages { from: NEVER, ..Stages::new_zeroed() };
            let before = known.and_then(|d| d.stages.into_iter().filter(|s| s.from < version).max_by_key(|s| s.from));
            let value = Datapath { guard, flags, stages: [before.unwrap_or(never), now] };
            writes.push(StageWrite { datapath: key.0, value, stale, gone: found.is_none() });
        }
        // Tables of datapaths that are gone; their rules were removed by the same difference.
        for write in writes.iter().filter(|write| write.gone) {
            let key = DatapathKey(write.datapath);
            let places: Vec<(DatapathKey, Place)> =
                self.tables.keys().filter(|(datapath, _)| *datapath == key).copied().collect();
            for place in places {
                if let Some(index) = self.tables.remove(&place) {
                    tables.remove_table(index);
                }
            }
        }
        Ok(writes)
    }

    /// The version that has them is in force.
    pub(super) fn committed(&mut self, writes: Vec<StageWrite>) {
        for write in writes {
            if write.gone {
                self.kernel.remove(&write.datapath);
                self.gone.push(write.datapath);
            } else {
                self.kernel.insert(write.datapath, write.value);
            }
        }
        self.dirty.clear();
        self.attempted.clear();
    }

    /// After a grace period: datapaths to remove from the kernel.
    pub(super) fn settle(&mut self) -> Vec<u32> {
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|datapath| !self.kernel.contains_key(datapath));
        gone
    }
}
