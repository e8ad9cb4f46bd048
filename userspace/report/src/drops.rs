//! `oxbow drops`: dropped packets, by reason and by logical flow.

use crate::flows::LogicalFlow;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What was dropped since the programs were loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drops {
    /// By reason; reasons that never occurred are left out.
    pub reasons: Vec<ReasonCount>,
    /// By dropping logical flow, the most packets first.
    pub flows: Vec<FlowCount>,
}

/// Packets dropped for a reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasonCount {
    /// The reason's name.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// What it means and where to look.
    pub explanation: String,
}

/// Packets that a logical flow dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowCount {
    /// The flow.
    #[serde(flatten)]
    pub flow: LogicalFlow,
    /// Names of the local datapaths it is in force on.
    pub datapaths: Vec<String>,
    /// Packets.
    pub packets: u64,
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return writeln!(f, "nothing was dropped");
        }
        for ReasonCount { reason, packets, bytes, explanation } in &self.reasons {
            writeln!(f, "{packets} packets, {bytes} bytes: {reason} ({explanation})")?;
        }
        for FlowCount { flow, datapaths, packets } in &self.flows {
            writeln!(f, "{packets} packets: logical flow {} on {} {}", flow.uuid, datapaths.join(", "), flow.pipeline)?;
            writeln!(f, "    {flow}")?;
        }
        Ok(())
    }
}

/// What a reason of the datapath means, and what to do; the names are those of the programs (`oxbow_abi::reason`).
#[must_use]
pub fn explain(reason: &str) -> &'static str {
    match reason {
        "logical-flow-drop" => "a logical flow says drop: an ACL, port security or OVN itself; named below",
        "no-matching-flow" => "no logical flow of a stage matched, as where northd makes no default",
        "actions-end" => "a logical flow's actions end without next or output",
        "pipeline-end" => "the last stage was passed without output",
        "unsupported-action" => "the flow's actions are not supported; named by `oxbow status`",
        "table-closed" => "a dropping flow's match cannot be held, so its stage drops all; named by `oxbow status`",
        "not-programmed" => "the device has no logical port in force: `oxbow ports`",
        "no-policy" => "no policy is in force yet: `oxbow status`",
        "no-datapath" => "the logical datapath has no port here",
        "no-outport" => "output with an empty outport: an unknown destination, and nobody takes unknown ones",
        "port-unknown" => "the logical output port does not exist here",
        "port-not-bound" => "the logical output port is bound to no chassis",
        "port-not-served" => "a kind of port that is not served; named by `oxbow status`",
        "same-port" => "it would leave by the port it came in by: usual for floods and own echoes",
        "local-only" => "from a localport, whose packets stay on their chassis",
        "group-empty" => "the multicast group has no members here",
        "fan-out-budget" => "more copies than one packet may become",
        "bum-rate" => "the port sends too many broadcast, unknown and multicast packets",
        "truncated" => "shorter than its headers say",
        "malformed" => "a header contradicts itself",
        "walk-limit" => "more steps than a walk may take: a loop of logical flows",
        "rewrite-failed" => "the kernel could not change or resize it",
        "next-hop-unresolved" => "no neighbour entry towards the other hypervisor yet: `oxbow status`, `ip neigh`",
        "too-big-for-underlay" => "larger than the underlay's MTU with its tunnel headers: lower the guests' MTU",
        "unknown-peer" => "a tunnel frame from an address that is no known chassis",
        "bad-tunnel-header" => "a tunnel frame with wrong headers or options",
        "ttl-exceeded" => "its TTL or hop limit ran out",
        "not-neighbor-solicit" => "nd_na of something that is no neighbor solicitation",
        "inconsistent-maps" => "programs and daemon disagree: a bug, report it",
        "output-failed" => "the device to leave by is gone or down",
        "clone-depth" => "copies within copies deeper than supported",
        _ => "see `oxbow status`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropping_flow_is_shown_with_its_stage_and_match() {
        let flow = LogicalFlow {
            uuid: "u".into(),
            pipeline: "ingress".into(),
            stage: 8,
            stage_name: "ls_in_acl".into(),
            priority: 2000,
            r#match: "ip4".into(),
            actions: "drop;".into(),
        };
        let drops = Drops {
            reasons: vec![ReasonCount {
                reason: "logical-flow-drop".into(),
                packets: 3,
                bytes: 294,
                explanation: explain("logical-flow-drop").into(),
            }],
            flows: vec![FlowCount { flow, datapaths: vec!["sw0".into()], packets: 3 }],
        };
        let text = drops.to_string();
        assert!(text.contains("3 packets, 294 bytes: logical-flow-drop (a logical flow says drop"), "{text}");
        assert!(
            text.contains("on sw0 ingress\n    table=8 (ls_in_acl), priority=2000, match=(ip4), action=(drop;)"),
            "{text}"
        );
        assert_eq!(crate::read::<Drops>(&crate::json(&drops)), Ok(drops));
    }
}
