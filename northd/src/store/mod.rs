//! What the southbound database is to hold: kept, counted, and compared by the reconciler in `emit`.

mod desired;
mod flows;

pub(crate) use desired::{Desired, DesiredRow, Key, RowKey, Value};
pub(crate) use flows::{FlowContent, FlowId, FlowInterner, FlowStore, datapath_hash, flow_hash};
