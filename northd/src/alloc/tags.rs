//! VLAN tags of nested ports (ovn-nb(5), `tag_request`).

use std::collections::BTreeMap;

use oxbow_ovsdb::{Text, Uuid};
use oxbow_schema::nb::logical_switch_port as lsp;
use rustc_hash::FxHashMap;

use crate::source::Source;

/// The tags in use, by parent port.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    tags: FxHashMap<Uuid, (Option<Text>, i64)>,
    used: FxHashMap<Text, BTreeMap<i64, u32>>,
}

impl Tags {
    pub(crate) fn tag(&self, port: Uuid) -> Option<i64> {
        self.tags.get(&port).map(|(_, tag)| *tag)
    }

    /// Looks at a port again; true if its tag is another now.
    pub(crate) fn update(&mut self, source: &Source, port: Uuid) -> bool {
        let before = self.tags.remove(&port);
        if let Some((Some(parent), tag)) = &before {
            self.count(parent.clone(), *tag, false);
        }
        let now = source.row(lsp::TABLE, port).and_then(|row| {
            let parent = row.get(lsp::PARENT_NAME).filter(|p| !p.is_empty()).cloned();
            let tag = match (row.get(lsp::TAG_REQUEST), &parent) {
                (Some(requested), _) if requested != 0 => Some(requested),
                (Some(_), Some(parent)) => {
                    let own = row.get(lsp::TAG).or(before.as_ref().map(|(_, tag)| *tag));
                    own.or_else(|| self.lowest_free(parent))
                }
                _ => row.get(lsp::TAG),
            }?;
            Some((parent, tag))
        });
        let changed = before.as_ref().map(|(_, tag)| *tag) != now.as_ref().map(|(_, tag)| *tag);
        if let Some((parent, tag)) = now {
            if let Some(parent) = &parent {
                self.count(parent.clone(), tag, true);
            }
            self.tags.insert(port, (parent, tag));
        }
        changed
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
