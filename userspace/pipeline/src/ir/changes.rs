//! What a commit changed, so that a backend can follow without looking at anything else.

use super::{ChassisId, DatapathKey, GroupKey, LflowId, Mac, Masked, PortKey, Rule, SetId, SubRule};
use std::sync::Arc;

/// The difference between a program before and after a commit. An id occurs at most once among the added and once among the removed ones;
/// in both: the rule was replaced. References of added rules to sets hold after the whole difference is applied.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Rules that are gone.
    pub rules_removed: Vec<Arc<Rule>>,
    /// Rules that are new.
    pub rules_added: Vec<Arc<Rule>>,
    /// Sub-table rules that are gone.
    pub sub_removed: Vec<Arc<SubRule>>,
    /// Sub-table rules that are new.
    pub sub_added: Vec<Arc<SubRule>>,
    /// Sets whose members changed: members gone, members new. For a set that is new with this commit all its members are new.
    pub sets: Vec<(SetId, Vec<Masked>, Vec<Masked>)>,
    /// Sets that no rule refers to any more; their ids may be reused by a later commit.
    pub sets_gone: Vec<SetId>,
    /// Datapaths whose [`super::Stages`] changed, or that are new or gone.
    pub datapaths: Vec<DatapathKey>,
    /// Ports that changed, are new or gone.
    pub ports: Vec<(DatapathKey, PortKey)>,
    /// Groups that changed, are new or gone. A group also counts as changed when a member's location did.
    pub groups: Vec<(DatapathKey, GroupKey)>,
    /// Chassis that changed, are new or gone.
    pub chassis: Vec<ChassisId>,
    /// FDB entries that changed, are new or gone.
    pub fdb: Vec<(DatapathKey, Mac)>,
    /// Logical flows that are gone; other flows may have their numbers from the next commit on.
    pub flows_gone: Vec<LflowId>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Changes {
            rules_removed,
            rules_added,
            sub_removed,
            sub_added,
            sets,
            sets_gone,
            datapaths,
            ports,
            groups,
            chassis,
            fdb,
            flows_gone,
        } = self;
        rules_removed.is_empty()
            && rules_added.is_empty()
            && sub_removed.is_empty()
            && sub_added.is_empty()
            && sets.is_empty()
            && sets_gone.is_empty()
            && datapaths.is_empty()
            && ports.is_empty()
            && groups.is_empty()
            && chassis.is_empty()
            && fdb.is_empty()
            && flows_gone.is_empty()
    }
}
