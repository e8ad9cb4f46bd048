//! The way of a packet at one chassis in words: this one, or another as this one would compile it.

use super::super::{logical_flow, short_flow};
use super::{hex, name_of};
use crate::link::Links;
use crate::packet::{describe, mac_text};
use oxbow_pipeline::compile::{Compiler, THIS_CHASSIS};
use oxbow_pipeline::ir::{ChassisId, DatapathKey, Field, GroupKey, LflowId, PortKey};
use oxbow_pipeline::reference::{Destination, Fields, Outcome, Place, parse};
use oxbow_report::trace::{Fate, Step};

/// Names for what a packet meets.
pub(super) struct Scene<'a> {
    /// The policy that is walked.
    pub(super) compiler: &'a Compiler,
    /// Devices, where they are this chassis'.
    pub(super) links: Option<&'a Links>,
    /// Name of this chassis.
    pub(super) us: &'a str,
}

/// Fates by the numbers of [`Outcome::outputs`] and [`Outcome::drops`].
struct Fates {
    outputs: Vec<Fate>,
    drops: Vec<Fate>,
}

impl Scene<'_> {
    pub(super) fn datapath(&self, key: u32) -> String {
        let datapath = self.compiler.program().datapath(DatapathKey(key));
        match datapath {
            Some(datapath) if !datapath.name.is_empty() => datapath.name.to_string(),
            _ => key.to_string(),
        }
    }

    pub(super) fn port_or_group(&self, datapath: u32, key: u32) -> String {
        let program = self.compiler.program();
        let port = program.port(DatapathKey(datapath), PortKey(key)).map(|port| port.name.to_string());
        let group = || program.group(DatapathKey(datapath), GroupKey(key)).map(|group| group.name.to_string());
        port.or_else(group).unwrap_or_else(|| key.to_string())
    }

    pub(super) fn chassis(&self, id: ChassisId) -> String {
        if id == THIS_CHASSIS {
            return self.us.to_owned();
        }
        self.compiler.program().chassis(id).map_or_else(|| id.0.to_string(), |chassis| chassis.name.to_string())
    }

    fn device(&self, ifindex: u32) -> Option<String> {
        let links = self.links?;
        Some(links.get(ifindex).map_or_else(|| ifindex.to_string(), |link| link.name.clone()))
    }

    pub(super) fn flow(&self, number: u32) -> String {
        match self.compiler.flow(LflowId(number)) {
            Some(row) => short_flow(row),
            None => format!("#{number}"),
        }
    }

    /// The way, and all fates in the order in which they came.
    pub(super) fn tell(&self, outcome: &Outcome, places: &[Place], sent: &[u8]) -> (Vec<Step>, Vec<Fate>) {
        let fates = self.fates(outcome, places, sent);
        (self.steps(outcome, places, &fates), in_order(outcome, places, fates))
    }

    /// What becomes of each output, then of each drop.
    fn fates(&self, outcome: &Outcome, places: &[Place], sent: &[u8]) -> Fates {
        let outputs = outcome.outputs.iter().map(|output| {
            let packet = (output.frame != sent)
                .then(|| parse(&output.frame).map(|(fields, _)| describe(&fields)).unwrap_or_default());
            let (datapath, outport) = match output.destination {
                Destination::Device { datapath, port, .. } => (datapath, port),
                Destination::Tunnel { datapath, outport, .. } => (datapath, outport),
            };
            let outport = Some(self.port_or_group(datapath.0, outport.0));
            let frame = Some(hex(&output.frame));
            match output.destination {
                Destination::Device { ifindex, .. } => Fate {
                    fate: "deliver".to_owned(),
                    outport,
                    device: self.device(ifindex),
                    packet,
                    frame,
                    ..Fate::default()
                },
                Destination::Tunnel { chassis, .. } => Fate {
                    fate: "tunnel".to_owned(),
                    outport,
                    chassis: Some(self.chassis(chassis)),
                    packet,
                    frame,
                    ..Fate::default()
                },
            }
        });
        let datapath = datapath_near(places, 0);
        let drops = outcome.drops.iter().map(|drop| Fate {
            fate: "drop".to_owned(),
            outport: (drop.outport.0 != 0).then(|| self.port_or_group(datapath, drop.outport.0)),
            reason: Some(name_of(drop.reason).to_owned()),
            flow: drop.lflow.map(|flow| self.flow(flow.0)),
            ..Fate::default()
        });
        Fates { outputs: outputs.collect(), drops: drops.collect() }
    }

    fn steps(&self, outcome: &Outcome, places: &[Place], fates: &Fates) -> Vec<Step> {
        let mut steps = Vec::new();
        for (n, place) in places.iter().enumerate() {
            steps.push(match place {
                Place::Rule(step, before) => {
                    let Some(row) = self.compiler.flow(step.lflow) else { continue };
                    // What it was when it came to the next place is what the actions made of it.
                    let after = places[n + 1..].iter().find_map(fields_at);
                    let crossed = matches!(places.get(n + 1), Some(Place::Egress(_)));
                    let changes = match after {
                        Some(after) if !crossed => self.changes(step.datapath.0, before, after),
                        _ => Vec::new(),
                    };
                    Step::Flow { flow: logical_flow(row), datapath: self.datapath(step.datapath.0), changes }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_told_bit_by_bit_or_whole() {
        let mut changes = Vec::new();
        registers(&mut changes, 0, 4, 0, 1 << 111 | 7);
        assert_eq!(changes, ["reg0[15] = 1", "reg3 = 0x7"]);
    }
}
