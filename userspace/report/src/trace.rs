//! `oxbow trace`: the way of one packet, by the reference interpreter and by the loaded programs.

use crate::flows::LogicalFlow;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What would become of a packet. Nothing is sent, learned, counted or cached for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trace {
    /// The port that sends it.
    pub inport: String,
    /// Its datapath.
    pub datapath: String,
    /// The packet as it was read, as a microflow.
    pub microflow: String,
    /// The frame, in hexadecimal.
    pub frame: String,
    /// The way, in order: flows walked, copies made, their ends.
    pub steps: Vec<Step>,
    /// What becomes of it, in order: what leaves, and what is dropped.
    pub fates: Vec<Fate>,
    /// What the loaded programs say of the same packet.
    pub programs: Programs,
    /// A verdict for such packets that is cached, and that real packets follow now.
    pub cached: Option<crate::verdicts::Verdict>,
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A logical flow matched.
    Flow {
        /// The flow.
        #[serde(flatten)]
        flow: LogicalFlow,
        /// Name of the datapath.
        datapath: String,
        /// What its actions changed: `reg0[0] = 1`, `outport = "vm2"`.
        changes: Vec<String>,
    },
    /// The packet, or a copy, goes on towards a local port.
    Egress {
        /// The port.
        outport: String,
    },
    /// An address would be learned.
    Learn {
        /// The address.
        mac: String,
        /// The port.
        port: String,
    },
    /// It, or a copy, came to its end.
    End(Fate),
}

/// The end of a packet or copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Fate {
    /// `deliver`, `tunnel` or `drop`.
    pub fate: String,
    /// Logical port it is delivered to, or would be.
    pub outport: Option<String>,
    /// Device it leaves by (`deliver`).
    pub device: Option<String>,
    /// Chassis it is sent to (`tunnel`).
    pub chassis: Option<String>,
    /// Why (`drop`): the names of `oxbow drops`.
    pub reason: Option<String>,
    /// Logical flow that dropped it.
    pub flow: Option<String>,
    /// How it leaves, as a microflow, where that differs from how it came.
    pub packet: Option<String>,
}

/// The same packet given to the programs that are loaded, without sending anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Programs {
    /// They were run.
    pub ran: bool,
    /// Why they were not.
    pub why_not: Option<String>,
    /// Whether they came to the same fates by the same logical flows.
    pub agree: bool,
    /// What differs.
    pub differences: Vec<String>,
    /// Logical flows they took, `STAGE_NAME/PRIORITY` each.
    pub path: Vec<String>,
    /// Their fates.
    pub fates: Vec<Fate>,
    /// The walk would be cached: the next packet of the flow takes the fast path.
    pub cacheable: bool,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        match self.fate.as_str() {
            "deliver" => write!(f, "delivered to {} ({})", name(&self.outport), name(&self.device))?,
            "tunnel" => write!(f, "tunnelled to {} for {}", name(&self.chassis), name(&self.outport))?,
            _ => {
                write!(f, "dropped: {}", name(&self.reason))?;
                if let Some(outport) = &self.outport {
                    write!(f, " on the way to {outport}")?;
                }
                if let Some(flow) = &self.flow {
                    write!(f, " by logical flow {flow}")?;
                }
            }
        }
        match &self.packet {
            Some(packet) => write!(f, " as {packet}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.microflow)?;
        writeln!(f, "# from {} on {}", self.inport, self.datapath)?;
        let mut heading = None;
        for step in &self.steps {
            match step {
                Step::Flow { flow, datapath, changes } => {
                    if heading != Some((datapath, &flow.pipeline)) {
                        writeln!(f, "\n{}(dp=\"{datapath}\")", flow.pipeline)?;
                        heading = Some((datapath, &flow.pipeline));
                    }
                    let LogicalFlow { stage, stage_name, priority, r#match, actions, uuid, .. } = flow;
                    let short = uuid.get(..8).unwrap_or(uuid);
                    writeln!(f, "{stage:>2}. {stage_name}: {}, priority {priority}, uuid {short}", r#match)?;
                    writeln!(f, "    {actions}")?;
                    for change in changes {
                        writeln!(f, "      {change}")?;
                    }
                }
                Step::Egress { outport } => {
                    heading = None;
                    writeln!(f, "    -> towards {outport}")?;
                }
                Step::Learn { mac, port } => writeln!(f, "      would learn {mac} at {port}")?,
                Step::End(fate) => writeln!(f, "    => {fate}")?,
            }
        }
        writeln!(f, "\nFate:")?;
        for fate in &self.fates {
            writeln!(f, "  {fate}")?;
        }
        if self.fates.is_empty() {
            writeln!(f, "  nothing leaves")?;
        }
        let Programs { ran, why_not, agree, differences, path, fates, cacheable } = &self.programs;
        match (ran, agree) {
            (false, _) => writeln!(f, "Programs: not run: {}", why_not.as_deref().unwrap_or("no reason given"))?,
            (true, true) => {
                let cached = if *cacheable { "cached after the first packet" } else { "walked by every packet" };
                writeln!(f, "Programs: agree ({cached})")?;
            }
            (true, false) => {
                writeln!(f, "Programs: DISAGREE, which is a bug: please report it with this output")?;
                for difference in differences {
                    writeln!(f, "  {difference}")?;
                }
                for fate in fates {
                    writeln!(f, "  programs: {fate}")?;
                }
                writeln!(f, "  programs: {}", path.join(" > "))?;
            }
        }
        match &self.cached {
            Some(verdict) => write!(f, "Cached verdict that packets follow now:\n{verdict}"),
            None => Ok(()),
        }
    }
}
