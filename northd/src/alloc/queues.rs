//! Queue numbers of ports with bandwidth limits (`qos_max_rate`, `qos_min_rate`, `qos_burst`), unique on each chassis.

use std::collections::BTreeMap;

use oxbow_ovsdb::Uuid;
use oxbow_schema::{nb::logical_switch_port as lsp, sb::port_binding as pb};
use rustc_hash::FxHashMap;

use crate::source::{IndexKey, Source};

/// The queues in use, by chassis.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    of_port: FxHashMap<Uuid, (Uuid, i64)>,
    used: FxHashMap<Uuid, BTreeMap<i64, Uuid>>,
}

impl Queues {
    pub(crate) fn queue(&self, port: Uuid) -> Option<i64> {
        self.of_port.get(&port).map(|(_, queue)| *queue)
    }

    /// Looks at a port again; true if its queue is another now.
    pub(crate) fn update(&mut self, source: &Source, port: Uuid) -> bool {
        let limited = source.row(lsp::TABLE, port).filter(|row| {
            let options = row.get(lsp::OPTIONS);
            ["qos_max_rate", "qos_min_rate", "qos_burst"].iter().any(|key| options.contains_key(*key))
        });
        let binding = limited.and_then(|row| {
            let key = IndexKey::BindingByPort(row.get(lsp::NAME).clone());
            source.row(pb::TABLE, *source.members(&key).first()?)
        });
        let chassis = binding.and_then(|b| b.get(pb::CHASSIS));
        let before = self.of_port.get(&port).copied();
        if before.map(|(chassis, _)| chassis) == chassis {
            return false;
        }
        if let Some((chassis, queue)) = self.of_port.remove(&port)
            && let Some(used) = self.used.get_mut(&chassis)
        {
            used.remove(&queue);
            if used.is_empty() {
                self.used.remove(&chassis);
            }
        }
        if let Some(chassis) = chassis {
            let used = self.used.entry(chassis).or_default();
            let known = binding.and_then(|b| b.get(pb::OPTIONS).get("qdisc_queue_id")).and_then(|q| q.parse().ok());
            let queue = known
                .filter(|q| *q > 0 && !used.contains_key(q))
                .or_else(|| (1..=i64::from(u16::MAX)).find(|q| !used.contains_key(q)));
            if let Some(queue) = queue {
                used.insert(queue, port);
                self.of_port.insert(port, (chassis, queue));
            }
        }
        before.map(|(_, queue)| queue) != self.queue(port)
    }
}
