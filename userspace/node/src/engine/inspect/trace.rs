//! `oxbow/trace`: one packet, by the reference interpreter and by the loaded programs.

use super::super::Engine;
use super::logical_flow;
use crate::packet::{compose, describe, mac_text};
use oxbow_abi::monitor::{SEEN_DELIVER, SEEN_DROP, SEEN_FLOW, SEEN_TUNNEL, Seen};
use oxbow_abi::reason::Reason as AbiReason;
use oxbow_lflow::context::{MatchContext, Nothing};
use oxbow_lflow::microflow::{Microflow, parse_microflow};
use oxbow_lflow::vocabulary::Vocabulary;
use oxbow_pipeline::compile::Element;
use oxbow_pipeline::ir::{DatapathKey, Field, LflowId, Location, LogicalPort, PortKey};
use oxbow_pipeline::reference::{Arrival, Destination, Fields, Outcome, Place, Reason, explain, parse};
use oxbow_report::trace::{Fate, Programs, Step, Trace};
use std::sync::Arc;

/// What leaves or is dropped, in a form that both sides have: sorted and compared.
type Essence = Vec<String>;

impl Engine {
    /// Tells the way and fate of a packet that a port would send.
    ///
    /// # Errors
    /// A port that is not here; a packet that is not described well enough; each with what to do.
    pub fn trace_report(&mut self, name: &str, text: &str) -> Result<Trace, String> {
        let port = self.sender(name)?;
        let Location::Local { ifindex, tag } = port.location else { return Err(self.elsewhere(&port)) };
        let packet = read_packet(text, &port)?;
        let mut frame = compose(&packet).map_err(|error| error.to_string())?;
        let (fields, _) = parse(&frame).map_err(|error| error.to_string())?;
        if let Some(tag) = tag {
            // On its device a nested port's packets are tagged.
            let tci = 0x1000 | tag;
            frame.splice(12..12, [0x81, 0x00].into_iter().chain(tci.to_be_bytes()));
        }
        let program = self.world.compiler().program();
        let (outcome, places) = explain(program, Arrival::Device { ifindex }, &frame);
        let datapath = port.datapath.0;
        let fates = self.fates(&outcome, &frame);
        let steps = self.steps(&outcome, &places, &fates);
        let fates = in_order(&outcome, &places, fates);
        let (programs, cached) = self.by_programs(ifindex, &frame, datapath, &outcome);
        Ok(Trace {
            inport: name.to_owned(),
            datapath: self.datapath_name(datapath),
            microflow: format!("inport == \"{name}\" && {}", describe(&fields)),
            frame: hex(&frame),
            steps,
            fates,
            programs,
            cached,
        })
    }

    fn sender(&self, name: &str) -> Result<Arc<LogicalPort>, String> {
        let (datapath, port) = self.keys_of(name)?;
        let found = self.world.compiler().program().port(DatapathKey(datapath), PortKey(port)).cloned();
        found.ok_or_else(|| format!("logical port \"{name}\" is not known here"))
    }

    fn elsewhere(&self, port: &LogicalPort) -> String {
        let state = self.states.states.values().find(|state| *state.iface_id == *port.name);
        match (port.location, state) {
            (Location::Remote { chassis }, _) => {
                let chassis = self.chassis_name(chassis.0);
                format!("logical port \"{}\" is on chassis {chassis}: trace its packets there", port.name)
            }
            (_, Some(state)) => {
                let reason = state.phase.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
                format!("logical port \"{}\" is not installed here: {}{reason}", port.name, state.phase.name())
            }
            _ => format!("logical port \"{}\" is bound to no chassis: nothing can send by it", port.name),
        }
    }

    /// What becomes of each output, then of each drop.
    fn fates(&self, outcome: &Outcome, sent: &[u8]) -> Fates {
        let outputs = outcome.outputs.iter().map(|output| {
            let packet = (output.frame != sent)
                .then(|| parse(&output.frame).map(|(fields, _)| describe(&fields)).unwrap_or_default());
            match output.destination {
                Destination::Device { ifindex, datapath, port } => Fate {
                    fate: "deliver".to_owned(),
                    outport: Some(self.port_or_group(datapath.0, port.0)),
                    device: Some(self.device_name(ifindex)),
                    packet,
                    ..Fate::default()
                },
                Destination::Tunnel { chassis, datapath, outport, .. } => Fate {
                    fate: "tunnel".to_owned(),
                    outport: Some(self.port_or_group(datapath.0, outport.0)),
                    chassis: Some(self.chassis_name(chassis.0)),
                    packet,
                    ..Fate::default()
                },
            }
        });
        let datapath = outcome.path.first().map_or(0, |step| step.datapath.0);
        let drops = outcome.drops.iter().map(|drop| Fate {
            fate: "drop".to_owned(),
            outport: (drop.outport.0 != 0).then(|| self.port_or_group(datapath, drop.outport.0)),
            reason: Some(name_of(drop.reason).to_owned()),
            flow: drop.lflow.map(|flow| self.short_flow_of(flow.0)),
            ..Fate::default()
        });
        Fates { outputs: outputs.collect(), drops: drops.collect() }
    }

    fn steps(&self, outcome: &Outcome, places: &[Place], fates: &Fates) -> Vec<Step> {
        let mut steps = Vec::new();
        for (n, place) in places.iter().enumerate() {
            steps.push(match place {
                Place::Rule(step, before) => {
                    let Some(row) = self.world.compiler().flow(step.lflow) else { continue };
                    // What it was when it came to the next place is what the actions made of it.
                    let after = places[n + 1..].iter().find_map(fields_at);
                    let crossed = matches!(places.get(n + 1), Some(Place::Egress(_)));
                    let changes = match after {
                        Some(after) if !crossed => self.changes(step.datapath.0, before, after),
                        _ => Vec::new(),
                    };
                    Step::Flow { flow: logical_flow(row), datapath: self.datapath_name(step.datapath.0), changes }
                }
                Place::Egress(fields) => {
                    let datapath = datapath_near(places, n);
                    Step::Egress { outport: self.port_or_group(datapath, fields.get(Field::OutPort) as u32) }
                }
                Place::Leaves(number, _) => Step::End(fates.outputs.get(*number).cloned().unwrap_or_default()),
                Place::Dropped(number) => Step::End(fates.drops.get(*number).cloned().unwrap_or_default()),
                Place::Learned(number) => {
                    let Some((datapath, mac, port)) = outcome.learned.get(*number) else { continue };
                    Step::Learn { mac: mac_text(u128::from(mac.0)), port: self.port_or_group(datapath.0, port.0) }
                }
                Place::Sent(_) => continue,
            });
        }
        steps
    }

    /// What differs, as assignments.
    fn changes(&self, datapath: u32, before: &Fields, after: &Fields) -> Vec<String> {
        let mut changes = Vec::new();
        for field in Field::ALL {
            let (was, is) = (before.get(*field), after.get(*field));
            if was == is {
                continue;
            }
            match field {
                Field::XxReg0 => registers(&mut changes, 0, 4, was, is),
                Field::XxReg1 => registers(&mut changes, 4, 4, was, is),
                Field::XReg4 => registers(&mut changes, 8, 2, was, is),
                Field::InPort | Field::OutPort => {
                    let name = if is == 0 { String::new() } else { self.port_or_group(datapath, is as u32) };
                    changes.push(format!("{} = \"{name}\"", field.name()));
                }
                // The same storage under another name.
                Field::InPortKey | Field::OutPortKey => {}
                Field::Flags if was ^ is == 1 => changes.push(format!("flags.loopback = {}", is & 1)),
                Field::EthSrc | Field::EthDst | Field::ArpSha | Field::ArpTha | Field::NdSll | Field::NdTll => {
                    changes.push(format!("{} = {}", field.name(), mac_text(is)));
                }
                Field::Ip4Src | Field::Ip4Dst | Field::ArpSpa | Field::ArpTpa => {
                    changes.push(format!("{} = {}", field.name(), std::net::Ipv4Addr::from(is as u32)));
                }
                Field::Ip6Src | Field::Ip6Dst | Field::NdTarget => {
                    changes.push(format!("{} = {}", field.name(), std::net::Ipv6Addr::from(is)));
                }
                _ => changes.push(format!("{} = {is:#x}", field.name())),
            }
        }
        changes
    }

    /// The same by the loaded programs, and the verdict that real packets of this kind follow now.
    fn by_programs(
        &mut self,
        ifindex: u32,
        frame: &[u8],
        datapath: u32,
        outcome: &Outcome,
    ) -> (Programs, Option<oxbow_report::verdicts::Verdict>) {
        let not_run = |why: String| (Programs { why_not: Some(why), ..Programs::default() }, None);
        let run = self.inside().and_then(|inside| inside.dry_run(ifindex, frame).map_err(|error| error.to_string()));
        let run = match run {
            Ok(run) if run.lost != 0 => {
                return not_run(format!("the packet takes {} steps more than can be told", run.lost));
            }
            Ok(run) => run,
            Err(why) => return not_run(why),
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
        let (expected, found) = (reference_essence(outcome), programs_essence(&run.steps));
        for one in expected.iter().filter(|one| !found.contains(one)) {
            differences.push(format!("only the reference: {one}"));
        }
        for one in found.iter().filter(|one| !expected.contains(one)) {
            differences.push(format!("only the programs: {one}"));
        }
        if differences.is_empty() && expected != found {
            differences.push("the same, but another number of times".to_owned());
        }
        let fates = run.steps.iter().filter_map(|seen| self.seen_fate(datapath, seen)).collect();
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
        };
        (programs, cached)
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

/// Fates by the numbers of [`Outcome::outputs`] and [`Outcome::drops`].
struct Fates {
    outputs: Vec<Fate>,
    drops: Vec<Fate>,
}

/// All fates in the order in which they came.
fn in_order(outcome: &Outcome, places: &[Place], fates: Fates) -> Vec<Fate> {
    let ends = places.iter().filter_map(|place| match place {
        Place::Leaves(number, _) => fates.outputs.get(*number),
        Place::Dropped(number) => fates.drops.get(*number),
        _ => None,
    });
    debug_assert_eq!(ends.clone().count(), outcome.outputs.len() + outcome.drops.len(), "each end is a place");
    ends.cloned().collect()
}

fn fields_at(place: &Place) -> Option<&Fields> {
    match place {
        Place::Rule(_, fields) | Place::Sent(fields) | Place::Egress(fields) | Place::Leaves(_, fields) => Some(fields),
        Place::Dropped(_) | Place::Learned(_) => None,
    }
}

/// The datapath that the walk is on at a place: that of the last rule before it, or of the first one after it.
fn datapath_near(places: &[Place], at: usize) -> u32 {
    let of = |place: &Place| match place {
        Place::Rule(step, _) => Some(step.datapath.0),
        _ => None,
    };
    places[..at].iter().rev().find_map(of).or_else(|| places[at..].iter().find_map(of)).unwrap_or(0)
}

/// Reads the microflow; what the port alone decides is filled in.
fn read_packet(text: &str, port: &LogicalPort) -> Result<Microflow, String> {
    let context = MatchContext {
        symbols: Vocabulary::Accepting.table(),
        address_sets: &Nothing,
        port_groups: &Nothing,
        templates: &Nothing,
    };
    let read = |text: &str| parse_microflow(text, &context);
    let packet = read(text).map_err(|error| {
        format!(
            "{text}: {}: describe one packet, as for ovn-trace(8): `ip4.src == 10.0.0.1 && icmp4.type == 8`",
            error.message
        )
    })?;
    let inport = packet.inport();
    if !inport.is_empty() && *inport != *port.name {
        return Err(format!(
            "the packet says inport == \"{inport}\", and it is to come from \"{}\": say one of them",
            port.name
        ));
    }
    if packet.integers().any(|(field, _)| field == Field::EthSrc) {
        return Ok(packet);
    }
    // A port with port security may send from its own address only, so that is what is meant.
    let own = port.port_security.iter().find_map(|text| text.parse::<Element>().ok());
    match own {
        Some(own) => {
            read(&format!("({text}) && eth.src == {}", mac_text(u128::from(own.mac.0)))).map_err(|error| error.message)
        }
        None => Ok(packet),
    }
}

fn registers(changes: &mut Vec<String>, first: usize, count: usize, was: u128, is: u128) {
    for n in 0..count {
        let shift = 32 * (count - 1 - n);
        let (was, is) = ((was >> shift) as u32, (is >> shift) as u32);
        let changed = was ^ is;
        if changed.count_ones() == 1 {
            let bit = changed.trailing_zeros();
            changes.push(format!("reg{}[{bit}] = {}", first + n, is >> bit & 1));
        } else if changed != 0 {
            changes.push(format!("reg{} = {is:#x}", first + n));
        }
    }
}

/// The name that the programs have for a reason of the reference.
fn name_of(reason: Reason) -> &'static str {
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

fn reference_essence(outcome: &Outcome) -> Essence {
    let outputs = outcome.outputs.iter().map(|output| {
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

fn programs_essence(steps: &[Seen]) -> Essence {
    let mut all: Essence = steps
        .iter()
        .filter_map(|seen| {
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_told_bit_by_bit_or_whole() {
        let mut changes = Vec::new();
        registers(&mut changes, 0, 4, 0, 1 << 111 | 7);
        assert_eq!(changes, ["reg0[15] = 1", "reg3 = 0x7"]);
    }

    #[test]
    fn a_tag_in_the_buffer_or_beside_it_is_the_same_frame() {
        let plain: Vec<u8> = (0..200).map(|n| n as u8).collect();
        let mut tagged = plain.clone();
        tagged.splice(12..12, [0x81, 0, 0x10, 7]);
        assert_eq!(frame_essence(&plain, 200), frame_essence(&tagged, 204));
        assert_eq!(frame_essence(&plain[..128], 200), frame_essence(&plain, 200));
    }
}
