//! Queue numbers of ports with bandwidth limits (`qos_max_rate`, `qos_min_rate`, `qos_burst`), unique on each chassis.

use std::collections::BTreeMap;

use oxbow_ovsdb::Uuid;
use oxbow_schema::{nb::logical_switch_port as lsp, sb::port_binding as pb};
use rustc_hash::FxHashMap;

use crate::source::{IndexKey, Source};

/// The queues in use, by chassis.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// Per port: where it is bound, and its queue. A port keeps its queue while it is unbound or moves.
    of_port: FxHashMap<Uuid, (Option<Uuid>, i64)>,
    used: FxHashMap<Uuid, BTreeMap<i64, u32>>,
}

impl Queues {
    pub(crate) fn queue(&self, port: Uuid) -> Option<i64> {
        self.of_port.get(&port).map(|(_, queue)| *queue)
    }

    /// Looks at a port again; true if its queue is another now.
    pub(crate) fn update(&mut self, source: &Source, port: Uuid) -> bool {
        let before = self.of_port.remove(&port);
        if let Some((Some(chassis), queue)) = before {
            self.count(chassis, queue, false);
        }
        let limited = source.row(lsp::TABLE, port).filter(|row| {
            let options = row.get(lsp::OPTIONS);
            ["qos_max_rate", "qos_min_rate", "qos_burst"].iter().any(|key| options.contains_key(*key))
        });
        if let Some(row) = limited {
            let key = IndexKey::BindingByPort(row.get(lsp::NAME).clone());
            let binding = source.members(&key).first().and_then(|binding| source.row(pb::TABLE, *binding));
            let chassis = binding.and_then(|b| b.get(pb::CHASSIS));
            let known = binding.and_then(|b| b.get(pb::OPTIONS).get("qdisc_queue_id")).and_then(|q| q.parse().ok());
            let queue = before.map(|(_, queue)| queue).or(known.filter(|q: &i64| *q > 0)).or_else(|| {
                let used = self.used.get(&chassis?);
                (1..=i64::from(u16::MAX)).find(|q| !used.is_some_and(|u| u.contains_key(q)))
            });
            if let Some(queue) = queue {
                if let Some(chassis) = chassis {
                    self.count(chassis, queue, true);
                }
                self.of_port.insert(port, (chassis, queue));
            }
        }
        before.map(|(_, queue)| queue) != self.queue(port)
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
