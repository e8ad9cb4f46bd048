//! `oxbow/trace`: one packet, from the port that sends it to all its ends: by the reference interpreter on every chassis that it meets, and by the loaded
//! programs on this one.
//!
//! ```text
//! a port here:      programs (oxbow_vif) and reference ── tunnel ──▶ another chassis: reference
//! a port elsewhere: reference ── tunnel ──▶ this chassis: programs (oxbow_underlay, outer headers and all) and reference
//!                             └─ tunnel ──▶ a third one: reference
//! ```
//!
//! What another chassis does is what this one would do in its place: [`Compiler::elsewhere`]. To compile that takes seconds where switches are large, so
//! it is not done here: a trace without it ends with what is to be compiled ([`Traced::Wanting`]) and is asked again when it has been.

mod programs;
mod question;
mod scene;

use super::super::Engine;
use crate::dataplane::inspect::Role;
use crate::packet::{Tunnel as Outer, describe, geneve};
use crate::vif::Ports;
use oxbow_pipeline::compile::{Blueprint, Compiler, THIS_CHASSIS};
use oxbow_pipeline::ir::{ChassisId, DatapathKey, Location, LogicalPort, PortKey};
use oxbow_pipeline::reference::{Arrival as Arriving, Destination, Outcome, Output, explain, parse};
use oxbow_report::trace::{Arrival, End, Fate, Step, Trace, Tunnel};
use programs::{Entrance, Run, name_of};
use scene::Scene;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Other chassis that one packet is followed to; each has its policy compiled for the occasion.
const MOST_CHASSIS: usize = 8;
/// Interface index of the loopback device, which every network namespace has.
const LOOPBACK_DEVICE: u32 = 1;

/// Where the packet begins.
#[derive(Clone, Copy)]
enum Start {
    Here { ifindex: u32, tag: Option<u16> },
    There(ChassisId),
}

/// A datapath on another chassis, which is known by its name.
type Place = (DatapathKey, String);

/// Policies of other chassis.
#[derive(Debug, Default)]
pub struct Others {
    compiled: BTreeMap<Place, Compiler>,
}

impl Others {
    /// Takes those of a worker.
    pub fn extend(&mut self, more: Others) {
        self.compiled.extend(more.compiled);
    }
}

/// Policies of other chassis that have to be compiled before a trace can go on.
#[derive(Debug, Default)]
pub struct Wanted {
    blueprints: BTreeMap<Place, Blueprint>,
}

impl Wanted {
    /// Compiles them: up to some seconds each, on any thread.
    #[must_use]
    pub fn compile(self) -> Others {
        Others {
            compiled: self.blueprints.into_iter().map(|(place, blueprint)| (place, blueprint.compile())).collect(),
        }
    }
}

/// How far a trace came.
#[derive(Debug)]
pub enum Traced {
    /// To all ends.
    Told(Box<Trace>),
    /// To a chassis whose policy is wanted: to be asked anew with it.
    Wanting(Wanted),
}

/// What became of a packet at one chassis.
struct Leg {
    outcome: Outcome,
    steps: Vec<Step>,
    fates: Vec<Fate>,
    run: Run,
}

impl Engine {
    /// Tells the way and fate of a packet that a port would send: `text` is a microflow, or `frame:` and the frame in hexadecimal; `others` are the policies
    /// of other chassis that were compiled for this trace, none at first. Rows may have changed since they were: each chassis is told as of one moment.
    ///
    /// # Errors
    /// A port that is nowhere; a packet that is not described well enough; each with what to do.
    pub fn trace_report(&mut self, name: &str, text: &str, others: &Others) -> Result<Traced, String> {
        let port = self.sender(name)?;
        let start = match (port.location, port.additional.first()) {
            (Location::Local { ifindex, tag }, _) => Start::Here { ifindex, tag },
            (Location::Remote { chassis }, _) => Start::There(chassis),
            (Location::Unbound, Some(chassis)) => Start::There(*chassis),
            (Location::Unbound, None) => return Err(self.nowhere(&port)),
        };
        let mut frame = question::frame(text, &port)?;
        let (fields, _) = parse(&frame).map_err(|error| error.to_string())?;
        let datapath = port.datapath.0;
        let mut wanted = Wanted::default();
        let (chassis, mut first) = match start {
            Start::Here { ifindex, tag } => {
                let packet = frame.clone();
                if let Some(tag) = tag {
                    // On its device a nested port's packets are tagged.
                    let tci = 0x1000 | tag;
                    frame.splice(12..12, [0x81, 0x00].into_iter().chain(tci.to_be_bytes()));
                }
                let mut leg = self.leg_here(Arriving::Device { ifindex }, &frame, &packet);
                let at = Entrance { role: Role::Vif, ifindex, datapath };
                leg.run = self.by_programs(at, &frame, &leg.outcome);
                (self.own_name(), leg)
            }
            Start::There(chassis) => {
                let arrival = Arriving::Port { datapath: port.datapath, port: port.key };
                let there = self.chassis_name(chassis.0);
                let why =
                    format!("{name} is on chassis {there}; the programs of this one meet the packet where it arrives");
                let Some(leg) = self.leg_there(others, &mut wanted, (port.datapath, chassis), arrival, &frame) else {
                    return Ok(Traced::Wanting(wanted));
                };
                (there, Leg { run: Run::not(why), ..leg })
            }
        };
        let (arrivals, followed) = self.follow(others, &mut wanted, start, &chassis, &first);
        if !wanted.blueprints.is_empty() {
            return Ok(Traced::Wanting(wanted));
        }
        let mut ends = ends_of(&first, &chassis, &followed);
        for arrival in &arrivals {
            let verified = arrival.programs.ran && arrival.programs.agree;
            let of = arrival.fates.iter().cloned();
            ends.extend(of.map(|fate| End { at: arrival.chassis.clone(), verified, fate }));
        }
        Ok(Traced::Told(Box::new(Trace {
            inport: name.to_owned(),
            datapath: self.datapath_name(datapath),
            microflow: format!("inport == \"{name}\" && {}", describe(&fields)),
            frame: hex(&frame),
            chassis,
            steps: std::mem::take(&mut first.steps),
            fates: std::mem::take(&mut first.fates),
            programs: first.run.programs,
            cached: first.run.cached,
            arrivals,
            ends,
        })))
    }

    fn sender(&self, name: &str) -> Result<Arc<LogicalPort>, String> {
        let (datapath, port) = self.keys_of(name)?;
        let found = self.world.compiler().program().port(DatapathKey(datapath), PortKey(port)).cloned();
        found.ok_or_else(|| format!("logical port \"{name}\" is not known here"))
    }

    fn nowhere(&self, port: &LogicalPort) -> String {
        match self.states.states.values().find(|state| *state.iface_id == *port.name) {
            Some(state) => {
                let reason = state.phase.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
                format!(
                    "logical port \"{}\" is not installed here: {}{reason} (see `oxbow ports`)",
                    port.name,
                    state.phase.name()
                )
            }
            None => format!(
                "logical port \"{}\" is bound to no chassis, so nothing can send by it: plug it in somewhere \
                 (`ovs-vsctl set Interface DEVICE external_ids:iface-id={}`)",
                port.name, port.name
            ),
        }
    }

    fn own_name(&self) -> String {
        let name = self.config.as_ref().and_then(|config| config.system_id.clone());
        name.unwrap_or_else(|| "this chassis".to_owned())
    }

    /// A packet on this chassis, by the reference: the frame that arrives, and the packet in it.
    fn leg_here(&self, arrival: Arriving, frame: &[u8], packet: &[u8]) -> Leg {
        let us = self.own_name();
        let compiler = self.world.compiler();
        let (outcome, places) = explain(compiler.program(), arrival, frame);
        let scene = Scene { compiler, links: Some(&self.kernel.links), us: &us };
        let (steps, fates) = scene.tell(&outcome, &places, packet);
        Leg { outcome, steps, fates, run: Run::default() }
    }

    /// A packet on another chassis, by the reference; nothing where its policy is yet to be compiled.
    fn leg_there(
        &self,
        others: &Others,
        wanted: &mut Wanted,
        (datapath, chassis): (DatapathKey, ChassisId),
        arrival: Arriving,
        frame: &[u8],
    ) -> Option<Leg> {
        let us = self.own_name();
        let place = (datapath, self.chassis_name(chassis.0));
        let Some(compiler) = others.compiled.get(&place) else {
            let tag = |port: &str| Ports::by_name(&self.sb, port).and_then(|port| port.tag);
            let blueprint = || self.world.compiler().blueprint(datapath, chassis, &us, &tag);
            wanted.blueprints.entry(place).or_insert_with(blueprint);
            return None;
        };
        let (outcome, places) = explain(compiler.program(), arrival, frame);
        let (steps, fates) = Scene { compiler, links: None, us: &us }.tell(&outcome, &places, frame);
        Some(Leg { outcome, steps, fates, run: Run::default() })
    }

    /// Goes on where the packet, or a copy, arrives through a tunnel. The second result says which outputs were followed.
    fn follow(
        &mut self,
        others: &Others,
        wanted: &mut Wanted,
        start: Start,
        from: &str,
        first: &Leg,
    ) -> (Vec<Arrival>, Vec<usize>) {
        let (mut arrivals, mut followed) = (Vec::new(), Vec::new());
        for (number, output) in first.outcome.outputs.iter().enumerate() {
            let Destination::Tunnel { chassis, datapath, inport, outport } = output.destination else { continue };
            // The end of the tunnel that is not this chassis says how the two speak.
            let end = match start {
                Start::There(sender) if chassis == THIS_CHASSIS => Some(sender),
                Start::Here { .. } => Some(chassis),
                Start::There(_) => None,
            };
            let peer = end.and_then(|end| self.mesh.peers.iter().find(|peer| peer.index == end.0)).cloned();
            // VXLAN carries no input port: what the receiver makes of it is another matter.
            let is_vxlan = peer.as_ref().is_some_and(|peer| peer.vxlan);
            let place = (datapath, self.chassis_name(chassis.0));
            let is_new = !others.compiled.contains_key(&place) && !wanted.blueprints.contains_key(&place);
            let met = others.compiled.len() + wanted.blueprints.len();
            let is_too_far = chassis != THIS_CHASSIS && is_new && met >= MOST_CHASSIS;
            if first.run.held_up.contains(&number) || is_vxlan || is_too_far {
                continue;
            }
            followed.push(number);
            let arrival = Arriving::Tunnel { datapath, inport, outport };
            let (name, mut leg, addresses);
            if chassis == THIS_CHASSIS {
                name = self.own_name();
                leg = self.leg_here(arrival, &output.frame, &output.frame);
                addresses = peer.as_ref().map(|peer| (peer.remote, peer.local));
                leg.run = match addresses {
                    Some((from, to)) => {
                        let (datapath, inport, outport) = (datapath.0, inport.0, outport.0);
                        let outer = geneve(&Outer { from, to, datapath, inport, outport }, &output.frame);
                        let ifindex = self.underlays.first().copied().unwrap_or(LOOPBACK_DEVICE);
                        let at = Entrance { role: Role::Underlay, ifindex, datapath };
                        self.by_programs(at, &outer, &leg.outcome)
                    }
                    None => Run::not(format!("there is no tunnel with chassis {from}")),
                };
            } else {
                name = place.1;
                let there = self.leg_there(others, wanted, (datapath, chassis), arrival, &output.frame);
                let Some(there) = there else { continue };
                leg = there;
                addresses = peer.as_ref().map(|peer| (peer.local, peer.remote));
                leg.run = Run::not(format!("those of chassis {name} are there: ask `oxbow trace` on it"));
            }
            let tunnel = Tunnel {
                kind: "geneve".to_owned(),
                source: addresses.map(|(source, _)| source.to_string()),
                destination: addresses.map(|(_, destination)| destination.to_string()),
                key: datapath.0,
                inport_key: inport.0,
                inport: self.port_or_group(datapath.0, inport.0),
                outport_key: outport.0,
                outport: self.port_or_group(datapath.0, outport.0),
            };
            arrivals.push(Arrival {
                chassis: name,
                from: from.to_owned(),
                tunnel,
                steps: leg.steps,
                fates: leg.fates,
                programs: leg.run.programs,
                cached: leg.run.cached,
            });
        }
        (arrivals, followed)
    }
}

/// Where copies end at the first chassis: those that went on are left out, and those that the underlay does not take end here.
fn ends_of(leg: &Leg, chassis: &str, followed: &[usize]) -> Vec<End> {
    let programs = &leg.run.programs;
    let verified = programs.ran && programs.agree;
    let is_tunnel = |output: &Output| matches!(output.destination, Destination::Tunnel { .. });
    // Fates of outputs come in the order of the outputs.
    let outputs = leg.outcome.outputs.iter().enumerate();
    let mut tunnels = outputs.filter(|(_, output)| is_tunnel(output)).map(|(number, _)| number);
    let mut obstacles = programs.held_up.iter().cloned();
    let mut ends = Vec::new();
    for fate in &leg.fates {
        let mut fate = fate.clone();
        if fate.fate == "tunnel" {
            match tunnels.next() {
                Some(number) if followed.contains(&number) => continue,
                Some(number) if leg.run.held_up.contains(&number) => fate = obstacles.next().unwrap_or(fate),
                _ => {}
            }
        }
        ends.push(End { at: chassis.to_owned(), verified, fate });
    }
    ends
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
