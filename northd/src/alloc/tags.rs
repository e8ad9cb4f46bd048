//! VLAN tags of nested ports (ovn-nb(5), `tag_request`).

use std::collections::{BTreeMap, BTreeSet};

use oxbow_ovsdb::{Text, Uuid};
use oxbow_schema::nb::logical_switch_port as lsp;
use rustc_hash::FxHashMap;

use crate::source::Source;

/// The tags in use, by parent port.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    tags: FxHashMap<Uuid, (Option<Text>, i64)>,
    used: FxHashMap<Text, BTreeMap<i64, u32>>,
    /// Ports that want a tag beside their siblings and have none, with their parents.
    waiting: BTreeMap<Uuid, Text>,
}

impl Tags {
    pub(crate) fn tag(&self, port: Uuid) -> Option<i64> {
        self.tags.get(&port).map(|(_, tag)| *tag)
    }

    /// Looks at ports again; returns those whose tag is another now. Nothing is given out before everything that ports have is known.
    pub(crate) fn update(&mut self, source: &Source, ports: &BTreeSet<Uuid>) -> Vec<Uuid> {
        let mut before: BTreeMap<Uuid, Option<i64>> = BTreeMap::new();
        for &port in ports {
            let old = self.take(port);
            before.insert(port, old);
            self.waiting.remove(&port);
            let Some(row) = source.row(lsp::TABLE, port) else { continue };
            let parent = row.get(lsp::PARENT_NAME).filter(|p| !p.is_empty()).cloned();
            let tag = match (row.get(lsp::TAG_REQUEST), &parent) {
                (Some(requested), _) if requested != 0 => Some(requested),
                (Some(_), Some(parent)) => {
                    let own = row.get(lsp::TAG).or(old);
                    if own.is_none() {
                        self.waiting.insert(port, parent.clone());
                    }
                    own
                }
                _ => row.get(lsp::TAG),
            };
            if let Some(tag) = tag {
                self.put(port, parent, tag);
            }
        }
        for (port, parent) in std::mem::take(&mut self.waiting) {
            before.entry(port).or_default();
            match self.lowest_free(&parent) {
                Some(tag) => self.put(port, Some(parent), tag),
                None => {
                    self.waiting.insert(port, parent);
                }
            }
        }
        before.into_iter().filter(|(port, old)| self.tag(*port) != *old).map(|(port, _)| port).collect()
    }

    fn take(&mut self, port: Uuid) -> Option<i64> {
        let (parent, tag) = self.tags.remove(&port)?;
        if let Some(parent) = parent {
            self.count(parent, tag, false);
        }
        Some(tag)
    }

    fn put(&mut self, port: Uuid, parent: Option<Text>, tag: i64) {
        if let Some(parent) = &parent {
            self.count(parent.clone(), tag, true);
        }
        self.tags.insert(port, (parent, tag));
    }

    fn lowest_free(&self, parent: &Text) -> Option<i64> {
        let used = self.used.get(parent);
        (1..=4095).find(|tag| !used.is_some_and(|u| u.contains_key(tag)))
    }

    fn count(&mut self, parent: Text, tag: i64, add: bool) {
        let used = self.used.entry(parent).or_default();
        let count = used.entry(tag).or_insert(0);
        *count = if add { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            used.remove(&tag);
        }
    }
}
