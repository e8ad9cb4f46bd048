//! The eBPF backend as something to look into.

use super::{Ebpf, chain};
use crate::dataplane::DataplaneError;
use crate::dataplane::inspect::{Attributed, Cached, DryOutcome, Fill, Inspect};
use oxbow_abi::monitor::{Listen, Seen};
use oxbow_abi::reason::Reason;
use oxbow_abi::stats::{Counter, total};
use oxbow_abi::verdict::{PATH, VerdictKey};
use oxbow_backend_bpf::kernel::Role;
use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

/// What was given to the logical flows so far, and what each cached verdict had then.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Hits by entry: its key and when it was made, which tells it from a later one with the same key.
    seen: HashMap<(VerdictKey, u64), u64>,
    flows: HashMap<u32, u64>,
    /// All hits that were given to flows.
    given: u64,
}

impl Ledger {
    /// Takes a look at the verdict cache: entries as (key, made, hits, path). What is not in the cache any more is forgotten.
    fn look<'a>(&mut self, entries: impl Iterator<Item = (VerdictKey, u64, u64, &'a [u32])>) {
        let before = std::mem::take(&mut self.seen);
        for (key, made, hits, path) in entries {
            let grown = hits.saturating_sub(before.get(&(key, made)).copied().unwrap_or(0));
            self.seen.insert((key, made), hits);
            self.given += grown;
            if grown != 0 {
                for flow in path {
                    *self.flows.entry(*flow).or_default() += grown;
                }
            }
        }
    }
}

fn failed(error: &dyn std::error::Error) -> DataplaneError {
    DataplaneError::Other(chain(error))
}

impl Inspect for Ebpf {
    fn drop_counts(&mut self) -> Result<Vec<(Reason, Counter)>, DataplaneError> {
        let drops = self.backend.instance().counters.drops().map_err(|error| failed(&error))?;
        Ok(drops.into_iter().map(|drop| (drop.reason, drop.count)).collect())
    }

    fn totals(&mut self) -> Result<Vec<Counter>, DataplaneError> {
        let counters = &self.backend.instance().counters;
        (0..total::COUNT).map(|index| counters.total(index).map_err(|error| failed(&error))).collect()
    }

    fn fill(&mut self) -> Result<Vec<Fill>, DataplaneError> {
        let fill = self.backend.fill().map_err(|error| failed(&error))?;
        Ok(fill
            .into_iter()
            .map(|one| Fill { map: one.map, entries: one.entries, capacity: one.capacity, cache: one.cache })
            .collect())
    }

    fn cached(&mut self) -> Result<Cached, DataplaneError> {
        let (verdicts, denied) = self.backend.verdicts().map_err(|error| failed(&error))?;
        let mut cached = Cached { verdicts, denied, ..Cached::default() };
        let named = cached
            .verdicts
            .iter()
            .map(|(_, verdict)| (&verdict.guard, &verdict.fdb))
            .chain(cached.denied.iter().map(|(_, denied)| (&denied.guard, &denied.fdb)));
        for (guards, slots) in named {
            for guard in guards.iter().filter(|guard| **guard != 0) {
                if let std::collections::hash_map::Entry::Vacant(place) = cached.guards.entry(*guard) {
                    place.insert(self.backend.guard(*guard).map_err(|error| failed(&error))?);
                }
            }
            for slot in slots.iter().filter(|slot| **slot != 0) {
                cached.generations.entry(*slot).or_insert_with(|| self.backend.fdb_generation(*slot));
            }
        }
        cached.now = coarse_nanoseconds();
        Ok(cached)
    }

    fn attribute(&mut self) -> Result<Attributed, DataplaneError> {
        let (verdicts, _) = self.backend.verdicts().map_err(|error| failed(&error))?;
        self.ledger.look(verdicts.iter().map(|(key, verdict)| {
            let path = &verdict.path[..(verdict.path_len as usize).min(PATH)];
            (*key, verdict.created, verdict.hits, path)
        }));
        let hits = self.backend.instance().counters.total(total::CACHE_HIT).map_err(|error| failed(&error))?;
        Ok(Attributed {
            flows: self.ledger.flows.clone(),
            unattributed: hits.packets.saturating_sub(self.ledger.given),
        })
    }

    fn dry_run(&mut self, role: Role, ifindex: u32, frame: &[u8]) -> Result<DryOutcome, DataplaneError> {
        if self.dry_run.is_none() {
            self.dry_run = Some(self.backend.instance().dry_run().map_err(|error| failed(&error))?);
        }
        match &mut self.dry_run {
            Some(dry_run) => dry_run.run(role, ifindex, frame).map_err(|error| failed(&error)),
            None => Err(DataplaneError::Other("there is no dry run".to_owned())),
        }
    }

    fn tell(&mut self, flags: u32, listen: &Listen) -> Result<(), DataplaneError> {
        if let Some(monitor) = &mut self.monitor {
            monitor.set(listen).map_err(|error| failed(&error))?;
        }
        self.backend.tell(flags).map_err(|error| failed(&error))
    }

    fn told(&mut self, most: usize) -> Vec<Seen> {
        let Some(monitor) = &mut self.monitor else { return Vec::new() };
        std::iter::from_fn(|| monitor.next()).take(most).collect()
    }

    fn untold(&mut self) -> u64 {
        self.monitor.as_ref().and_then(|monitor| monitor.lost().ok()).unwrap_or(0)
    }

    fn told_descriptor(&self) -> Option<OwnedFd> {
        self.monitor.as_ref().and_then(|monitor| monitor.as_fd().try_clone_to_owned().ok())
    }

    fn run_time(&mut self) -> Vec<(&'static str, u64, u64)> {
        let mut all = Vec::new();
        for role in [Role::Vif, Role::Underlay] {
            let info = self.backend.instance().program(role).and_then(|program| program.info().ok());
            if let Some(info) = info {
                let nanoseconds = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
                all.push((role.program(), nanoseconds, info.run_count()));
            }
        }
        all
    }
}

/// The clock that the programs stamp verdicts with.
fn coarse_nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_given_to_the_flows_of_the_path_once() {
        let mut ledger = Ledger::default();
        let key = VerdictKey { ports: 1, ..VerdictKey::default() };
        let other = VerdictKey { ports: 2, ..VerdictKey::default() };
        ledger.look([(key, 10, 5, &[7, 8][..]), (other, 10, 1, &[8][..])].into_iter());
        ledger.look([(key, 10, 9, &[7, 8][..])].into_iter());
        assert_eq!((ledger.flows[&7], ledger.flows[&8], ledger.given), (9, 10, 10));
        // A new entry under the same key begins at zero.
        ledger.look([(key, 20, 2, &[9][..])].into_iter());
        assert_eq!((ledger.flows[&7], ledger.flows[&9]), (9, 2));
    }
}
