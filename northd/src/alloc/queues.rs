//! Queue numbers of ports with bandwidth limits (`qos_max_rate`, `qos_min_rate`, `qos_burst`), unique on each chassis.

use std::collections::{BTreeMap, BTreeSet};

use oxbow_ovsdb::Uuid;
use oxbow_schema::{nb::logical_switch_port as lsp, sb::port_binding as pb};
use rustc_hash::FxHashMap;

use crate::source::{IndexKey, Source};

/// The queues in use, by chassis.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// Per port: where it is bound, and its queue. A port keeps its queue while it is unbound, and where it moves to unless another has it there.
    of_port: FxHashMap<Uuid, (Option<Uuid>, i64)>,
    used: FxHashMap<Uuid, BTreeMap<i64, u32>>,
}

impl Queues {
    pub(crate) fn queue(&self, port: Uuid) -> Option<i64> {
        self.of_port.get(&port).map(|(_, queue)| *queue)
    }

    /// Looks at ports again; returns those whose queue is another now. Nothing is given out before everything that ports have is known.
    pub(crate) fn update(&mut self, source: &Source, ports: &BTreeSet<Uuid>) -> Vec<Uuid> {
        let mut before: BTreeMap<Uuid, Option<i64>> = BTreeMap::new();
        let mut wanting: BTreeMap<Uuid, Uuid> = BTreeMap::new();
        for &port in ports {
            let old = self.take(port);
            before.insert(port, old);
            let limited = source.row(lsp::TABLE, port).filter(|row| {
                let options = row.get(lsp::OPTIONS);
                ["qos_max_rate", "qos_min_rate", "qos_burst"].iter().any(|key| options.contains_key(*key))
            });
            let Some(row) = limited else { continue };
            let key = IndexKey::BindingByPort(row.get(lsp::NAME).clone());
            let binding = source.members(&key).first().and_then(|binding| source.row(pb::TABLE, *binding));
            // A localnet port is nowhere bound and everywhere: its queues are its own.
            let own = (row.get(lsp::TYPE) == "localnet").then_some(port);
            let chassis = own.or_else(|| binding.and_then(|b| b.get(pb::CHASSIS)));
            let known = binding.and_then(|b| b.get(pb::OPTIONS).get("qdisc_queue_id")).and_then(|q| q.parse().ok());
            let used = chassis.and_then(|chassis| self.used.get(&chassis));
            let keeps = old.or(known).filter(|queue: &i64| *queue > 0 && !used.is_some_and(|u| u.contains_key(queue)));
            match (keeps, chassis) {
                (Some(queue), _) => self.put(port, chassis, queue),
                (None, Some(chassis)) => {
                    wanting.insert(port, chassis);
                }
                // Where it is not bound there is nothing to tell apart.
                (None, None) => {}
            }
        }
        for (port, chassis) in wanting {
            let used = self.used.get(&chassis);
            // More limited ports on a hypervisor than there are queues have none; nobody has seen that.
            if let Some(queue) = (1..=i64::from(u16::MAX)).find(|q| !used.is_some_and(|u| u.contains_key(q))) {
                self.put(port, Some(chassis), queue);
            }
        }
        before.into_iter().filter(|(port, old)| self.queue(*port) != *old).map(|(port, _)| port).collect()
    }

    fn take(&mut self, port: Uuid) -> Option<i64> {
        let (chassis, queue) = self.of_port.remove(&port)?;
        if let Some(chassis) = chassis {
            self.count(chassis, queue, false);
        }
        Some(queue)
    }

    fn put(&mut self, port: Uuid, chassis: Option<Uuid>, queue: i64) {
        if let Some(chassis) = chassis {
            self.count(chassis, queue, true);
        }
        self.of_port.insert(port, (chassis, queue));
    }

    fn count(&mut self, chassis: Uuid, queue: i64, add: bool) {
        let used = self.used.entry(chassis).or_default();
        let count = used.entry(queue).or_insert(0);
        *count = if add { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            used.remove(&queue);
        }
        if used.is_empty() {
            self.used.remove(&chassis);
        }
    }
}
