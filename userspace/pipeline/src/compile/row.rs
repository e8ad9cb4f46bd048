//! What goes in, and what is to be told to people.

use crate::ir::{Consequence, DatapathKey, FlowUuid, LflowId, Pipeline};
use std::fmt;
use std::sync::Arc;

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
    pub stage_name: Arc<str>,
    /// `external_ids:source`, or "".
    pub source: Arc<str>,
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
