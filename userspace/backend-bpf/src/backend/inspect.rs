//! Looking into the maps: how full they are, what the caches hold. Nothing here changes what packets meet.

use super::Backend;
use crate::kernel::MapFailure;
use oxbow_abi::monitor::{STATE_TELL_DROPS, STATE_TELL_FORWARDED};
use oxbow_abi::verdict::{Denied, Verdict, VerdictKey};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Name.
    pub map: &'static str,
    /// Entries in use. Of arrays that are allotted in user space what is allotted, old versions included.
    pub entries: u64,
    /// Entries that it takes.
    pub capacity: u64,
    /// A cache: full is no fault.
    pub cache: bool,
}

impl Backend {
    /// How programs are attached on this kernel.
    pub const fn hook(&self) -> crate::kernel::Hook {
        self.instance.hook()
    }

    /// Lets the programs tell what `STATE_TELL_*` flags name, from now on; 0 = nothing.
    ///
    /// # Errors
    /// The map refuses.
    pub fn tell(&mut self, flags: u32) -> Result<(), MapFailure> {
        let mut state = self.instance.maps.state.get(0)?;
        state.flags = state.flags & !(STATE_TELL_DROPS | STATE_TELL_FORWARDED) | flags;
        self.instance.maps.state.set(0, &state)?;
        self.told = flags;
        Ok(())
    }

    /// How full the maps are, in the order of [`crate::kernel::MAPS`].
    ///
    /// # Errors
    /// A map that only the kernel knows the fill of cannot be read.
    pub fn fill(&self) -> Result<Vec<MapFill>, MapFailure> {
        let maps = &self.instance.maps;
        let keys = self.tables.keys();
        let (ports, vifs) = self.ports.sizes();
        let state = |map, entries: usize, capacity: u32| MapFill {
            map,
            entries: entries as u64,
            capacity: u64::from(capacity),
            cache: false,
        };
        let cache = |map, entries: usize, capacity: u32| MapFill { cache: true, ..state(map, entries, capacity) };
        Ok(vec![
            state("OX_RULES", keys.narrow, maps.rules.max()),
            state("OX_RULES_WIDE", keys.wide, maps.wide_rules.max()),
            state("OX_BLOCKS", self.blocks.used(), maps.blocks.max()),
            state("OX_TUPLES", keys.tuples, maps.tuples.max()),
            state("OX_TABLES", keys.tables, maps.tables.max()),
            state("OX_VIFS", vifs, maps.vifs.max()),
            state("OX_PORTS", ports, maps.ports.max()),
            state("OX_GUARDS", self.guards.used(), maps.guards.max()),
            state("OX_DATAPATHS", self.stages.held(), maps.datapaths.max()),
            state("OX_GROUPS", self.groups.held(), maps.groups.max()),
            state("OX_CHASSIS", self.reaches.len(), maps.chassis.max()),
            state("OX_FDB", maps.fdb.count()?, maps.fdb.max()),
            cache("OX_VERDICTS", maps.verdicts.count()?, maps.verdicts.max()),
            cache("OX_EXACT", maps.exact.held()?, maps.exact.max()),
            cache("OX_DENIED", maps.denied.count()?, maps.denied.max()),
        ])
    }

    /// The verdict cache, its hits with those that CPUs have counted for themselves, and the cache of denied flows. Entries come and go while they are
    /// read.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn verdicts(&self) -> Result<Caches, MapFailure> {
        let maps = &self.instance.maps;
        let mut verdicts = maps.verdicts.snapshot()?;
        // In this order: what a CPU hands over in between is missing until the next look, not there twice.
        let kept = maps.exact.hits()?;
        for (key, verdict) in &mut verdicts {
            if let Some(counted) = kept.get(&(*key, verdict.created)) {
                verdict.hits += counted.packets;
                verdict.bytes += counted.bytes;
            }
        }
        Ok((verdicts, maps.denied.snapshot()?))
    }

    /// Version in which a guard last changed.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn guard(&self, index: u32) -> Result<u32, MapFailure> {
        self.instance.maps.guards.get(index)
    }

    /// Generation of a slot of the MAC table.
    pub fn fdb_generation(&self, slot: u32) -> u32 {
        self.instance.maps.fdb_generations.get(slot)
    }
}

/// Verdicts, denied flows.
pub type Caches = (Vec<(VerdictKey, Verdict)>, Vec<(VerdictKey, Denied)>);
