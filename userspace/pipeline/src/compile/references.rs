//! Who named what, found or not.

use crate::ir::{DatapathKey, LflowId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::hash::Hash;
use std::sync::Arc;

/// Something that a flow's rules depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reference {
    /// The key of a port or group on a datapath.
    Key(DatapathKey, Arc<str>),
    /// Whether a port is on this chassis.
    Resident(Arc<str>),
    /// Whether and how an address set exists.
    SetShape(Arc<str>),
    /// What is in an address set.
    SetContents(Arc<str>),
    /// What is in a Port_Group row.
    GroupContents(Arc<str>),
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct References {
    users: FxHashMap<Reference, FxHashSet<LflowId>>,
}

impl References {
    /// Replaces what a flow depends on.
    pub(crate) fn replace(&mut self, flow: LflowId, before: &[Reference], after: &[Reference]) {
        for reference in before {
            if let Some(users) = self.users.get_mut(reference) {
                users.remove(&flow);
                if users.is_empty() {
                    self.users.remove(reference);
                }
            }
        }
        for reference in after {
            self.users.entry(reference.clone()).or_default().insert(flow);
        }
    }

    /// The flows that depend on something.
    pub(crate) fn users(&self, reference: &Reference) -> impl Iterator<Item = LflowId> + '_ {
        self.users.get(reference).into_iter().flatten().copied()
    }
}
