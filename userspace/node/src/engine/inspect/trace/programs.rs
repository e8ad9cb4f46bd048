//! The same packet by the loaded programs, in a dry run, and whether both came to the same.

use super::hex;
use crate::dataplane::inspect::Role;
use crate::engine::Engine;
use oxbow_abi::monitor::{SEEN_DELIVER, SEEN_DROP, SEEN_FLOW, SEEN_TUNNEL, Seen};
use oxbow_abi::reason::Reason as AbiReason;
use oxbow_pipeline::ir::LflowId;
use oxbow_pipeline::reference::{Destination, Outcome, Output, Reason};
use oxbow_report::trace::{Fate, Programs};
use oxbow_report::verdicts::Verdict;

/// What leaves or is dropped, in a form that both sides have: sorted and compared.
type Essence = Vec<String>;

/// Where a frame is given to the programs.
#[derive(Clone, Copy)]
pub(super) struct Entrance {
    /// Which program.
    pub(super) role: Role,
    /// By which device it comes.
    pub(super) ifindex: u32,
    /// The datapath that it is on, for names.
    pub(super) datapath: u32,
}

/// What the programs made of it.
#[derive(Default)]
pub(super) struct Run {
    pub(super) programs: Programs,
    /// The verdict that real packets of this kind follow now.
    pub(super) cached: Option<Verdict>,
    /// Numbers of outputs to other chassis that the underlay keeps from leaving.
    pub(super) held_up: Vec<usize>,
}

impl Run {
    /// They were not run.
    pub(super) fn not(why: impl Into<String>) -> Run {
        Run { programs: Programs { why_not: Some(why.into()), ..Programs::default() }, ..Run::default() }
    }
}

impl Engine {
    /// Gives a frame to the programs, and compares with what the reference made of it.
    pub(super) fn by_programs(&mut self, at: Entrance, frame: &[u8], outcome: &Outcome) -> Run {
        let run = self
            .inside()
            .and_then(|inside| inside.dry_run(at.role, at.ifindex, frame).map_err(|error| error.to_string()));
        let run = match run {
            Ok(run) if run.lost != 0 => {
                return Run::not(format!("the packet takes {} steps more than can be told", run.lost));
            }
            Ok(run) => run,
            Err(why) if ends_in_ip_header(at.role, frame) => {
                return Run::not(format!(
                    "the kernel makes no test runs of frames that end within their IP header ({why})"
                ));
            }
            Err(why) => return Run::not(why),
        };
        let flows = |wanted: &mut dyn Iterator<Item = u32>| {
            let mut flows: Vec<u32> = wanted.collect();
            flows.sort_unstable();
            flows
        };
        let theirs: Vec<u32> = run.steps.iter().filter(|s| s.kind & 0xff == SEEN_FLOW).map(|s| s.lflow).collect();
        let mut differences = Vec::new();
        if flows(&mut theirs.iter().copied()) != flows(&mut outcome.path.iter().map(|step| step.lflow.0)) {
            let names =
                |flows: &[u32]| flows.iter().map(|flow| self.short_flow_of(*flow)).collect::<Vec<_>>().join(" > ");
            let ours: Vec<u32> = outcome.path.iter().map(|step| step.lflow.0).collect();
            differences.push(format!(
                "logical flows: the reference took {}; the programs took {}",
                names(&ours),
                names(&theirs)
            ));
        }
        let (held_up, obstacles) = held_up(outcome, &run.steps);
        let (expected, found) = (reference_essence(outcome, &held_up), programs_essence(&run.steps, &obstacles));
        for one in expected.iter().filter(|one| !found.contains(one)) {
            differences.push(format!("only the reference: {one}"));
        }
        for one in found.iter().filter(|one| !expected.contains(one)) {
            differences.push(format!("only the programs: {one}"));
        }
        if differences.is_empty() && expected != found {
            differences.push("the same, but another number of times".to_owned());
        }
        let fates = run.steps.iter().filter_map(|seen| self.seen_fate(at.datapath, seen)).collect();
        let told = |n: &usize| run.steps.get(*n).and_then(|seen| self.seen_fate(at.datapath, seen));
        let held_up_fates = obstacles.iter().filter_map(told).collect();
        let key = run.verdict.map(|(key, _)| key).or_else(|| run.denied.map(|(key, _)| key));
        let cached = key.and_then(|key| self.cached_verdict(&key));
        let programs = Programs {
            ran: true,
            why_not: None,
            agree: differences.is_empty(),
            differences,
            path: theirs.iter().map(|flow| self.short_flow_of(*flow)).collect(),
            fates,
            cacheable: key.is_some(),
            held_up: held_up_fates,
        };
        Run { programs, cached, held_up }
    }

    fn seen_fate(&self, datapath: u32, seen: &Seen) -> Option<Fate> {
        let outport = (seen.outport != 0).then(|| self.port_or_group(datapath, seen.outport));
        Some(match seen.kind & 0xff {
            SEEN_DELIVER => Fate {
                fate: "deliver".to_owned(),
                outport,
                device: Some(self.device_name(seen.what)),
                ..Fate::default()
            },
            SEEN_TUNNEL => Fate {
                fate: "tunnel".to_owned(),
                outport,
                chassis: Some(self.chassis_name(seen.what)),
                ..Fate::default()
            },
            SEEN_DROP => Fate {
                fate: "drop".to_owned(),
                outport,
                reason: Some(AbiReason::from_number(seen.what).map_or("unknown", AbiReason::text).to_owned()),
                flow: (seen.lflow != 0).then(|| self.short_flow_of(seen.lflow)),
                ..Fate::default()
            },
            _ => return None,
        })
    }
}

/// Whether a VIF's frame is shorter than the IP header that its EtherType announces: the kernel refuses to run programs on such (EINVAL), though devices deliver them.
fn ends_in_ip_header(role: Role, frame: &[u8]) -> bool {
    let needed = match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 0,
    };
    matches!(role, Role::Vif) && frame.len() < needed
}

/// Outputs to other chassis that the programs could not send because of the underlay, which is no matter of policy, and the steps that say so.
/// Nothing when the two do not match up.
fn held_up(outcome: &Outcome, steps: &[Seen]) -> (Vec<usize>, Vec<usize>) {
    let is_obstacle = |seen: &Seen| {
        let reason = AbiReason::from_number(seen.what);
        seen.kind & 0xff == SEEN_DROP && matches!(reason, Some(AbiReason::NextHopUnresolved | AbiReason::TooBig))
    };
    let obstacles: Vec<usize> =
        steps.iter().enumerate().filter(|(_, seen)| is_obstacle(seen)).map(|(n, _)| n).collect();
    let was_sent = |output: &Output| match output.destination {
        Destination::Device { .. } => true,
        Destination::Tunnel { chassis, outport, .. } => steps
            .iter()
            .any(|seen| seen.kind & 0xff == SEEN_TUNNEL && (seen.what, seen.outport) == (chassis.0, outport.0)),
    };
    let missing: Vec<usize> =
        outcome.outputs.iter().enumerate().filter(|(_, output)| !was_sent(output)).map(|(n, _)| n).collect();
    if missing.len() == obstacles.len() { (missing, obstacles) } else { (Vec::new(), Vec::new()) }
}

/// The name that the programs have for a reason of the reference.
pub(super) fn name_of(reason: Reason) -> &'static str {
    let reason = match reason {
        Reason::LogicalFlow => AbiReason::LogicalFlow,
        Reason::NoMatch => AbiReason::NoMatch,
        Reason::ActionsEnd => AbiReason::ActionsEnd,
        Reason::PipelineEnd => AbiReason::PipelineEnd,
        // What would be for the controller is dropped by a backend without one.
        Reason::UnsupportedAction | Reason::Punted => AbiReason::UnsupportedAction,
        Reason::TableClosed => AbiReason::TableClosed,
        Reason::NotProgrammed => AbiReason::NotProgrammed,
        Reason::NoDatapath => AbiReason::NoDatapath,
        Reason::NoOutport => AbiReason::NoOutport,
        Reason::PortUnknown => AbiReason::PortUnknown,
        Reason::PortNotBound => AbiReason::PortNotBound,
        Reason::PortNotServed => AbiReason::PortNotServed,
        Reason::Loopback => AbiReason::Loopback,
        Reason::LocalOnly => AbiReason::LocalOnly,
        Reason::GroupEmpty => AbiReason::GroupEmpty,
        Reason::Truncated => AbiReason::Truncated,
        Reason::WalkLimit => AbiReason::WalkLimit,
        Reason::TtlExceeded => AbiReason::TtlExceeded,
        Reason::NotNeighborSolicit => AbiReason::NotNeighborSolicit,
    };
    reason.text()
}

/// Who dropped it counts only where a logical flow says drop: elsewhere both name it as it suits them.
fn drop_essence(reason: &str, flow: Option<LflowId>) -> String {
    match flow {
        Some(flow) if reason == AbiReason::LogicalFlow.text() => format!("drop {reason} by flow {}", flow.0),
        _ => format!("drop {reason}"),
    }
}

fn frame_essence(head: &[u8], len: usize) -> String {
    // A tag is beside the buffer for the programs; that it is there shows in what it was pushed for.
    let tagged = head.len() >= 18 && matches!(head[12..14], [0x81, 0x00] | [0x88, 0xa8]);
    let (mut head, mut len) = (head.to_vec(), len);
    if tagged {
        head.drain(12..16);
        len -= 4;
    }
    // Records hold this much of a frame, with the tag or without.
    head.truncate(oxbow_abi::monitor::SEEN_HEAD - 4);
    format!("{len} bytes {}", hex(&head))
}

/// Without the outputs of these numbers.
fn reference_essence(outcome: &Outcome, without: &[usize]) -> Essence {
    let outputs = outcome.outputs.iter().enumerate().filter(|(n, _)| !without.contains(n)).map(|(_, output)| {
        let frame = frame_essence(&output.frame, output.frame.len());
        match output.destination {
            Destination::Device { ifindex, .. } => format!("deliver to device {ifindex} {frame}"),
            Destination::Tunnel { chassis, outport, .. } => {
                format!("tunnel to chassis {} port {} {frame}", chassis.0, outport.0)
            }
        }
    });
    let drops = outcome.drops.iter().map(|drop| drop_essence(name_of(drop.reason), drop.lflow));
    let mut all: Essence = outputs.chain(drops).collect();
    all.sort();
    all
}

/// Without the steps of these numbers.
fn programs_essence(steps: &[Seen], without: &[usize]) -> Essence {
    let mut all: Essence = steps
        .iter()
        .enumerate()
        .filter(|(n, _)| !without.contains(n))
        .filter_map(|(_, seen)| {
            let frame = || frame_essence(&seen.head[..seen.head_len as usize], seen.len as usize);
            Some(match seen.kind & 0xff {
                SEEN_DELIVER => format!("deliver to device {} {}", seen.what, frame()),
                SEEN_TUNNEL => format!("tunnel to chassis {} port {} {}", seen.what, seen.outport, frame()),
                SEEN_DROP => {
                    let reason = AbiReason::from_number(seen.what).map_or("unknown", AbiReason::text);
                    drop_essence(reason, (seen.lflow != 0).then_some(LflowId(seen.lflow)))
                }
                _ => return None,
            })
        })
        .collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_pipeline::ir::{ChassisId, DatapathKey, PortKey};

    #[test]
    fn a_tag_in_the_buffer_or_beside_it_is_the_same_frame() {
        let plain: Vec<u8> = (0..200).map(|n| n as u8).collect();
        let mut tagged = plain.clone();
        tagged.splice(12..12, [0x81, 0, 0x10, 7]);
        assert_eq!(frame_essence(&plain, 200), frame_essence(&tagged, 204));
        assert_eq!(frame_essence(&plain[..128], 200), frame_essence(&plain, 200));
    }

    fn seen(kind: u32, what: u32, outport: u32) -> Seen {
        let head = [0; oxbow_abi::monitor::SEEN_HEAD];
        Seen { kind, what, lflow: 0, datapath: 1, inport: 1, outport, len: 60, head_len: 60, at: 0, head }
    }

    #[test]
    fn a_next_hop_without_address_is_no_disagreement_and_any_other_drop_is() {
        let tunnel = |chassis| Output {
            destination: Destination::Tunnel {
                chassis: ChassisId(chassis),
                datapath: DatapathKey(1),
                inport: PortKey(1),
                outport: PortKey(9),
            },
            frame: vec![0; 60],
        };
        let outcome = Outcome { outputs: vec![tunnel(2), tunnel(3)], ..Outcome::default() };
        let unresolved = seen(SEEN_DROP, AbiReason::NextHopUnresolved as u32, 9);
        let steps = [seen(SEEN_TUNNEL, 2, 9), unresolved];
        let (missing, obstacles) = held_up(&outcome, &steps);
        assert_eq!((missing.as_slice(), obstacles.as_slice()), ([1].as_slice(), [1].as_slice()));
        assert_eq!(reference_essence(&outcome, &missing).len(), programs_essence(&steps, &obstacles).len());
        let steps = [seen(SEEN_TUNNEL, 2, 9), seen(SEEN_DROP, AbiReason::PortUnknown as u32, 9)];
        assert_eq!(held_up(&outcome, &steps), (Vec::new(), Vec::new()));
        // More obstacles than there are copies: nothing is excused.
        assert_eq!(held_up(&outcome, &[unresolved, unresolved, unresolved]), (Vec::new(), Vec::new()));
    }
}
