//! What goes in, and what is to be told to people.

use crate::ir::{Consequence, DatapathKey, FlowUuid, LflowId, Pipeline};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// What a stage is called (`external_ids:stage-name`), or "": for people only. Rows that share a name show it as soon as it is set.
#[derive(Clone, Default)]
pub struct StageName(Arc<RwLock<Arc<str>>>);

impl StageName {
    /// The name as it is now.
    #[must_use]
    pub fn get(&self) -> Arc<str> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names it, in every row that shares it.
    pub fn set(&self, name: &str) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = name.into();
    }
}

impl<T: Into<Arc<str>>> From<T> for StageName {
    fn from(name: T) -> Self {
        StageName(Arc::new(RwLock::new(name.into())))
    }
}

impl PartialEq for StageName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.get() == other.get()
    }
}

impl Eq for StageName {}

impl fmt::Debug for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.get(), f)
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.get())
    }
}

/// What a row of Address_Set or Port_Group gained and lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetChange<'a> {
    /// Members that it did not have before.
    pub added: &'a [&'a str],
    /// Members that it has no more.
    pub removed: &'a [&'a str],
}

/// A row of Logical_Flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// `_uuid`.
    pub uuid: FlowUuid,
    /// `logical_datapath`, or the members of `logical_dp_group`; those that the compiler does not know are kept in mind. Sorted, unique.
    pub datapaths: Vec<DatapathKey>,
    /// `pipeline`.
    pub pipeline: Pipeline,
    /// `table_id`.
    pub stage: u8,
    /// `priority`.
    pub priority: u16,
    /// `match`.
    pub matches: Arc<str>,
    /// `actions`.
    pub actions: Arc<str>,
    /// `external_ids:stage-name`, or "".
    pub stage_name: StageName,
}

/// A flow that is not executed as written, on some path that a packet can take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The flow.
    pub lflow: LflowId,
    /// Its row.
    pub row: Arc<FlowRow>,
    /// What is wrong, in OVN's words where it has any.
    pub text: Arc<str>,
    /// What was done about it.
    pub consequence: Consequence,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FlowRow { uuid, pipeline, stage, priority, matches, actions, stage_name, .. } = &*self.row;
        write!(
            f,
            "logical flow {uuid} ({} table {stage} {stage_name}, priority {priority}, match \"{matches}\", actions \"{actions}\"): {}: {}",
            pipeline.as_str(),
            self.text,
            self.consequence
        )
    }
}
