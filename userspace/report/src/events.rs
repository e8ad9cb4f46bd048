//! `oxbow monitor`: packets as they pass or are dropped.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What to listen for; the argument of `oxbow/events`, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listen {
    /// Number of the first event wanted: [`Events::next`] of the answer before; none = from now on.
    pub cursor: Option<u64>,
    /// Drops.
    pub drops: bool,
    /// Packets that are forwarded, walked or by a cached verdict.
    pub verdicts: bool,
    /// Only packets from, or (where it is known) to, this logical port.
    pub port: Option<String>,
    /// Only drops for this reason.
    pub reason: Option<String>,
    /// Only packets that an expression of OVN's match language holds for (ovn-sb(5), Logical_Flow:match).
    pub r#match: Option<String>,
    /// Fill [`Event::frame`] in.
    pub frames: bool,
    /// Events per second and CPU that the programs may tell; more are counted as lost. None = 1,000.
    pub rate: Option<u32>,
    /// Longest wait for an event, milliseconds.
    pub wait_ms: u64,
}

/// What happened since.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// The events.
    pub events: Vec<Event>,
    /// Cursor to go on with.
    pub next: u64,
    /// Events of this listener that were lost since its last question: told too fast, or asked for too late.
    pub lost: u64,
}

/// A packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Seconds since the epoch.
    pub time: f64,
    /// `drop`, `deliver` or `tunnel`.
    pub event: String,
    /// How it was decided: `walk` or `cache`.
    pub by: String,
    /// Name of the datapath.
    pub datapath: String,
    /// Logical input port.
    pub inport: String,
    /// Logical output port, where it is known.
    pub outport: Option<String>,
    /// Why it was dropped.
    pub reason: Option<String>,
    /// Logical flow that dropped it, as `STAGE_NAME/PRIORITY`.
    pub flow: Option<String>,
    /// The same by Logical_Flow._uuid.
    pub flow_uuid: Option<String>,
    /// Device it leaves by.
    pub device: Option<String>,
    /// Chassis it is sent to.
    pub chassis: Option<String>,
    /// Came by tunnel.
    pub tunnel: bool,
    /// Its length.
    pub len: u32,
    /// Its headers, as a microflow.
    pub microflow: String,
    /// Its first bytes in hexadecimal, at most [`FRAME_HEAD`], if they were asked for.
    pub frame: Option<String>,
}

/// Bytes of a frame that an event has at most.
pub const FRAME_HEAD: usize = 128;

impl Event {
    /// What became of it, in a line: `drop walk sw0 vm1 reason logical-flow-drop flow ls_in_acl/2001`.
    pub fn fate(&self) -> String {
        let Event { event, by, datapath, inport, outport, reason, flow, device, chassis, tunnel, .. } = self;
        let source = if inport.is_empty() { "?" } else { inport.as_str() };
        let way = if *tunnel { " (tunnel)" } else { "" };
        let mut text = format!("{event:<7} {by:<5} {datapath} {source}{way}");
        if let Some(outport) = outport {
            text.push_str(" -> ");
            text.push_str(outport);
        }
        for (name, value) in [("dev", device), ("chassis", chassis), ("reason", reason), ("flow", flow)] {
            if let Some(value) = value {
                text.push_str(&format!(" {name} {value}"));
            }
        }
        text
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time as u64 % 86_400;
        let thousandths = (self.time.fract() * 1000.0) as u32;
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let Event { len, microflow, .. } = self;
        let fate = self.fate();
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}.{thousandths:03} {fate}, {len} bytes: {microflow}")
    }
}

impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        if self.lost != 0 {
            writeln!(f, "{} events lost: filter more (--port, --reason), or allow more (--rate)", self.lost)?;
        }
        Ok(())
    }
}
