//! `oxbow verdicts`: what the caches of verdicts hold.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The caches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdicts {
    /// Verdicts, those with the most hits first.
    pub verdicts: Vec<Verdict>,
    /// How many there are in all, whatever was asked for.
    pub total: u64,
    /// Denied flows among them.
    pub denied: u64,
}

/// What a whole walk came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// The packets it is for.
    pub key: Key,
    /// What becomes of them, for people: `deliver to vm2 (tap2)`, `tunnel to hv2`, `drop: logical-flow-drop`.
    pub result: String,
    /// `deliver`, `tunnel` or `drop`.
    pub kind: String,
    /// Why, of a denied flow.
    pub reason: Option<String>,
    /// What it still rests on; a verdict with a guard that is newer, or an FDB generation that differs, is walked again.
    pub guards: Vec<Guard>,
    /// Every guard holds: the next packet is forwarded by it.
    pub valid: bool,
    /// Version of the policy it was made under.
    pub version: u32,
    /// Packets that it forwarded or dropped.
    pub hits: u64,
    /// Their bytes (not counted for denied flows).
    pub bytes: u64,
    /// Seconds since it was made (not known for denied flows).
    pub age_s: Option<f64>,
    /// What is written into the packet.
    pub rewrites: Vec<String>,
    /// Logical flows of its walk, `STAGE_NAME/PRIORITY` each; of a denied flow the one that dropped.
    pub path: Vec<String>,
    /// The same by Logical_Flow._uuid.
    pub path_uuids: Vec<String>,
}

/// The packets that a verdict is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Key {
    /// Name of the datapath.
    pub datapath: String,
    /// Logical input port.
    pub inport: String,
    /// Logical output port, of frames that came by tunnel.
    pub outport: Option<String>,
    /// Came by tunnel.
    pub tunnel: bool,
    /// The headers, as a microflow (ovn-trace(8)).
    pub microflow: String,
}

/// Something that a verdict rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guard {
    /// Index in `OX_GUARDS`, or slot in `OX_FDB_GENERATIONS`.
    pub index: u32,
    /// `guard`, whose value is the version in which it last changed, or `fdb`, whose value is a generation.
    pub kind: String,
    /// What the verdict was made with.
    pub seen: u32,
    /// What it is now.
    pub now: u32,
    /// Whether the verdict may be used as far as this is concerned.
    pub holds: bool,
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.verdicts.len() as u64;
        writeln!(f, "{} cached verdicts, {} of them denials; {shown} shown", self.total, self.denied)?;
        self.verdicts.iter().try_for_each(|verdict| write!(f, "{verdict}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { datapath, inport, outport, tunnel, microflow } = &self.key;
        let way = match (tunnel, outport) {
            (true, Some(outport)) => format!("{inport} (by tunnel) -> {outport}"),
            _ => inport.clone(),
        };
        writeln!(f, "{datapath}: {way}: {microflow}")?;
        let state = if self.valid { "" } else { " (STALE: the next packet walks)" };
        writeln!(f, "    => {}{state}", self.result)?;
        let age = self.age_s.map(|age| format!(", {age:.1} s old")).unwrap_or_default();
        writeln!(f, "    hits {}, {} bytes{age}, policy version {}", self.hits, self.bytes, self.version)?;
        if !self.rewrites.is_empty() {
            writeln!(f, "    writes {}", self.rewrites.join(", "))?;
        }
        if !self.path.is_empty() {
            writeln!(f, "    path {}", self.path.join(" > "))?;
        }
        let stale: Vec<String> = self
            .guards
            .iter()
            .filter(|guard| !guard.holds)
            .map(|Guard { index, kind, seen, now, .. }| format!("{kind} {index} is {now}, was {seen}"))
            .collect();
        if !stale.is_empty() {
            writeln!(f, "    guards that changed: {}", stale.join(", "))?;
        }
        Ok(())
    }
}

/// Which verdicts; the argument of `oxbow/verdicts`, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Only those of packets from, or by tunnel to, this logical port.
    pub port: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
}
