//! `oxbow flows`: logical flows in force, and how many packets took them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A logical flow as the Southbound database has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogicalFlow {
    /// Logical_Flow._uuid.
    pub uuid: String,
    /// `ingress` or `egress`.
    pub pipeline: String,
    /// Logical_Flow.table_id.
    pub stage: u8,
    /// external_ids:stage-name, or "".
    pub stage_name: String,
    /// Priority.
    pub priority: u16,
    /// Match.
    pub r#match: String,
    /// Actions.
    pub actions: String,
}

impl fmt::Display for LogicalFlow {
    /// As `ovn-sbctl lflow-list` writes a flow.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogicalFlow { stage, stage_name, priority, r#match, actions, .. } = self;
        write!(f, "table={stage:<2}({stage_name}), priority={priority}, match=({}), action=({actions})", r#match)
    }
}

/// A logical flow on one datapath with its packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CountedFlow {
    /// The flow.
    #[serde(flatten)]
    pub flow: LogicalFlow,
    /// Names of the local datapaths it is in force on.
    pub datapaths: Vec<String>,
    /// Packets, walked or cached.
    pub packets: u64,
    /// Of these, those that walked it (and those of denied flows).
    pub walked: u64,
    /// Of these, those that a cached verdict took past it.
    pub cached: u64,
    /// Rules that it became, over all datapaths; 0 = nothing here can reach it, or it cannot match.
    pub rules: u64,
}

/// The flows asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flows {
    /// In order of datapath, pipeline, stage and falling priority.
    pub flows: Vec<CountedFlow>,
    /// Packets that hit cached verdicts which were gone before they were looked at: no flow has them.
    pub unattributed: u64,
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.flows.is_empty() {
            return writeln!(f, "no logical flow is in force here: see `oxbow status` and `oxbow ports`");
        }
        let mut heading = None;
        for CountedFlow { flow, datapaths, packets, cached, rules, .. } in &self.flows {
            let here = (datapaths, &flow.pipeline);
            if heading != Some(here) {
                writeln!(f, "Datapath: {}  Pipeline: {}", datapaths.join(", "), flow.pipeline)?;
                heading = Some(here);
            }
            let mut notes = String::new();
            if *cached != 0 {
                notes = format!(" ({cached} cached)");
            }
            if *rules == 0 {
                notes.push_str(" (not programmed: cannot match or cannot be reached)");
            }
            writeln!(f, "  {packets:>10} packets{notes}  {flow}")?;
        }
        if self.unattributed != 0 {
            writeln!(
                f,
                "{} packets hit verdicts that were replaced before their flows were looked at",
                self.unattributed
            )?;
        }
        Ok(())
    }
}

/// Which flows; the argument of `oxbow/flows`, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Only those whose match or actions name this logical port, or that its cached verdicts took.
    pub port: Option<String>,
    /// Only those in force on this datapath.
    pub datapath: Option<String>,
    /// Only those that a packet has taken.
    pub hit: bool,
}
