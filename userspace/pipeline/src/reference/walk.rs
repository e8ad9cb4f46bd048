//! The walk of a packet through a program. Section numbers: the life of a frame as the datapath contract tells it, which follows
//! ovn-architecture(7), "Architectural Physical Life Cycle of a Packet".

use super::fields::Fields;
use super::frame::{Layout, VLAN_PRESENT, parse};
use super::neighbor::advertisement;
use super::outcome::{Arrival, Destination, Drop, Outcome, Output, Place, Reason, Step};
use super::rewrite::{set_tag, write_back};
use crate::ir::{
    Act, Cause, ChassisId, DatapathKey, Direction, Field, GroupKey, LflowId, Location, LogicalPort, Mac, Pipeline,
    PortKey, PortKind, Program, Rule, Sub, SubResult, SubRule, TableId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `flags.loopback`: the packet may leave by the port it came in by.
const FLAG_LOOPBACK: u32 = 0;
/// `flags.tunnel_rx` (24.03): the packet came from another chassis.
const FLAG_TUNNEL_RX: u32 = 16;
/// Tables that one packet and its copies may go through.
const STEPS: usize = 100_000;
/// Lists within lists, and pipelines within those.
const DEPTH: usize = 64;

/// Executes a packet.
#[must_use]
pub fn run(program: &Program, arrival: Arrival, frame: &[u8]) -> Outcome {
    let mut walk = Walk::new(program);
    walk.arrive(arrival, frame);
    walk.out
}

/// Executes a packet, and tells its way: every place it came to, in order, copies one after the other.
#[must_use]
pub fn explain(program: &Program, arrival: Arrival, frame: &[u8]) -> (Outcome, Vec<Place>) {
    let mut walk = Walk { trail: Some(Vec::new()), ..Walk::new(program) };
    walk.arrive(arrival, frame);
    (walk.out, walk.trail.unwrap_or_default())
}

/// A packet on its way: the frame as it was read, what was read, and what became of that.
#[derive(Clone)]
struct Packet {
    frame: Arc<[u8]>,
    layout: Layout,
    was: Fields,
    now: Fields,
}

impl Packet {
    fn read(frame: &[u8]) -> Option<Packet> {
        let (fields, layout) = parse(frame).ok()?;
        Some(Packet { frame: frame.into(), layout, was: fields.clone(), now: fields })
    }

    fn write(&self) -> Vec<u8> {
        write_back(&self.frame, &self.layout, &self.was, &self.now)
    }

    fn port(&self, field: Field) -> PortKey {
        PortKey(self.now.get(field) as u32)
    }
}

struct Walk<'a> {
    program: &'a Program,
    out: Outcome,
    learned: BTreeMap<(DatapathKey, Mac), PortKey>,
    from_tunnel: bool,
    steps: usize,
    /// The places, where somebody wants to know.
    trail: Option<Vec<Place>>,
}

/// How an action list went on.
enum Went {
    /// It came to its end; whether it sent anything on its way.
    Through { sent: bool },
    /// A terminal action ended it.
    Ended,
}

impl<'a> Walk<'a> {
    fn new(program: &'a Program) -> Self {
        let (out, learned) = (Outcome::default(), BTreeMap::new());
        Walk { program, out, learned, from_tunnel: false, steps: 0, trail: None }
    }

    fn note(&mut self, place: impl FnOnce(&Outcome) -> Place) {
        if let Some(trail) = &mut self.trail {
            trail.push(place(&self.out));
        }
    }

    fn drop_packet(&mut self, reason: Reason, lflow: Option<LflowId>, outport: PortKey) {
        self.out.drops.push(Drop { reason, lflow, outport });
        self.note(|out| Place::Dropped(out.drops.len() - 1));
    }

    fn arrive(&mut self, arrival: Arrival, frame: &[u8]) {
        let none = PortKey(0);
        let Some(mut packet) = Packet::read(frame) else { return self.drop_packet(Reason::Truncated, None, none) };
        match arrival {
            Arrival::Device { ifindex } => {
                let Some(port) = self.port_of_device(ifindex, &packet) else {
                    return self.drop_packet(Reason::NotProgrammed, None, none);
                };
                if let Location::Local { tag: Some(_), .. } = port.location {
                    // A nested port's own tag is not part of its packets.
                    let mut inner = frame.to_vec();
                    set_tag(&mut inner, true, 0);
                    match Packet::read(&inner) {
                        Some(read) => packet = read,
                        None => return self.drop_packet(Reason::Truncated, None, none),
                    }
                }
                self.sent_by(port.datapath, port.key, packet);
            }
            Arrival::Port { datapath, port } => self.sent_by(datapath, port, packet),
            Arrival::Tunnel { datapath, inport, outport } => {
                if self.program.datapath(datapath).is_none() {
                    return self.drop_packet(Reason::NoDatapath, None, outport);
                }
                self.from_tunnel = true;
                packet.now.set(Field::InPort, u128::from(inport.0));
                packet.now.set(Field::OutPort, u128::from(outport.0));
                packet.now.set(Field::Flags, 1 << FLAG_TUNNEL_RX);
                self.send(datapath, &packet, None, 0);
            }
        }
    }

    /// The nested port that the packet's tag names, or else the device's own port.
    fn port_of_device(&self, ifindex: u32, packet: &Packet) -> Option<Arc<LogicalPort>> {
        let tci = packet.now.get(Field::VlanTci) as u16;
        let vid = (tci & VLAN_PRESENT != 0).then_some(tci & 0xfff);
        let on = |wanted: Option<u16>| {
            self.program.ports().find(|port| match port.location {
                Location::Local { ifindex: there, tag } => there == ifindex && tag == wanted,
                _ => false,
            })
        };
        vid.and_then(|vid| on(Some(vid))).or_else(|| on(None)).cloned()
    }

    fn sent_by(&mut self, datapath: DatapathKey, port: PortKey, mut packet: Packet) {
        if self.program.datapath(datapath).is_none() {
            return self.drop_packet(Reason::NoDatapath, None, PortKey(0));
        }
        packet.now.set(Field::InPort, u128::from(port.0));
        self.table(datapath, Pipeline::Ingress, 0, packet, None, 0);
    }

    /// Enters a stage: finds the rule and executes it.
    fn table(
        &mut self,
        datapath: DatapathKey,
        pipeline: Pipeline,
        stage: u8,
        mut packet: Packet,
        by: Option<LflowId>,
        depth: usize,
    ) {
        let outport = packet.port(Field::OutPort);
        self.steps += 1;
        if self.steps > STEPS || depth > DEPTH * 8 {
            return self.drop_packet(Reason::WalkLimit, by, outport);
        }
        let Some(stage) = self.program.datapath(datapath).and_then(|d| d.stages.entry(pipeline, stage)) else {
            return self.drop_packet(Reason::PipelineEnd, by, outport);
        };
        let Some(rule) = self.lookup(TableId { datapath, pipeline, stage }, &packet.now) else {
            return self.drop_packet(Reason::NoMatch, None, outport);
        };
        let step = Step { lflow: rule.lflow, datapath, pipeline, stage };
        self.out.path.push(step);
        self.note(|_| Place::Rule(step, packet.now.clone()));
        let acts = Arc::clone(&rule.acts);
        if let Went::Through { sent: false } = self.execute(&rule, &acts, &mut packet, depth + 1) {
            self.drop_packet(Reason::ActionsEnd, Some(rule.lflow), outport);
        }
    }

    /// Linear search: the matching rule of highest priority, of these the one of the smallest logical flow.
    fn lookup(&self, table: TableId, fields: &Fields) -> Option<Arc<Rule>> {
        self.program
            .rules(table)
            .filter(|rule| fields.satisfy(&rule.dims, self.program))
            .min_by_key(|rule| (u16::MAX - rule.priority, rule.lflow, rule.id))
            .cloned()
    }

    fn execute(&mut self, rule: &Rule, acts: &[Act], packet: &mut Packet, depth: usize) -> Went {
        let datapath = rule.table.datapath;
        let lflow = Some(rule.lflow);
        let outport = packet.port(Field::OutPort);
        if depth > DEPTH * 8 {
            self.drop_packet(Reason::WalkLimit, lflow, outport);
            return Went::Ended;
        }
        let mut sent = false;
        for act in acts {
            match act {
                Act::Set { dst, width, value } => packet.now.set_bits(*dst, *width, *value),
                Act::Move { dst, src, width } => {
                    let value = packet.now.bits(*src, *width);
                    packet.now.set_bits(*dst, *width, value);
                }
                Act::Exchange { a, b, width } => {
                    let (va, vb) = (packet.now.bits(*a, *width), packet.now.bits(*b, *width));
                    packet.now.set_bits(*a, *width, vb);
                    packet.now.set_bits(*b, *width, va);
                }
                Act::DecTtl => {
                    let ttl = packet.now.get(Field::IpTtl);
                    if ttl <= 1 {
                        self.drop_packet(Reason::TtlExceeded, lflow, outport);
                        return Went::Ended;
                    }
                    packet.now.set(Field::IpTtl, ttl - 1);
                }
                Act::Next { pipeline, stage } => {
                    self.table(datapath, *pipeline, *stage, packet.clone(), lflow, depth + 1);
                    return Went::Ended;
                }
                Act::Output => {
                    sent = true;
                    match rule.table.pipeline {
                        Pipeline::Ingress => self.send(datapath, packet, lflow, depth + 1),
                        Pipeline::Egress => self.deliver(datapath, packet, lflow),
                    }
                }
                Act::Drop(cause) => {
                    let reason = match cause {
                        Cause::LogicalFlow => Reason::LogicalFlow,
                        Cause::Unsupported => Reason::UnsupportedAction,
                        Cause::TableClosed => Reason::TableClosed,
                    };
                    self.drop_packet(reason, lflow, packet.port(Field::OutPort));
                    return Went::Ended;
                }
                Act::Punt(_) => {
                    self.drop_packet(Reason::Punted, lflow, packet.port(Field::OutPort));
                    return Went::Ended;
                }
                Act::Clone(nested) => {
                    sent = true;
                    self.execute(rule, nested, &mut packet.clone(), depth + 1);
                }
                Act::CheckPortSecurity { direction, dst } => {
                    let violated = self.violates(datapath, *direction, &packet.now);
                    packet.now.set_bits(*dst, 1, u128::from(violated));
                }
                Act::PutFdb { port, mac } => {
                    let key = (datapath, Mac(packet.now.get(*mac) as u64));
                    let port = packet.port(*port);
                    if self.fdb(key) != Some(port) {
                        self.learned.insert(key, port);
                        self.out.learned.push((key.0, key.1, port));
                        self.note(|out| Place::Learned(out.learned.len() - 1));
                    }
                }
                Act::LookupFdb { dst, port, mac } => {
                    let known = self.fdb((datapath, Mac(packet.now.get(*mac) as u64)));
                    let value = known == Some(packet.port(*port));
                    packet.now.set_bits(*dst, 1, u128::from(value));
                }
                Act::GetFdb { dst, mac } => {
                    let known = self.fdb((datapath, Mac(packet.now.get(*mac) as u64)));
                    packet.now.set(*dst, u128::from(known.unwrap_or_default().0));
                }
                Act::NdNa { router, acts } => {
                    sent = true;
                    match advertisement(&packet.frame, &packet.layout, &packet.now, *router) {
                        Some((frame, fields, layout)) => {
                            let mut answer = Packet { frame: frame.into(), layout, was: fields.clone(), now: fields };
                            self.execute(rule, acts, &mut answer, depth + 1);
                        }
                        None => self.drop_packet(Reason::NotNeighborSolicit, lflow, outport),
                    }
                }
            }
        }
        Went::Through { sent }
    }

    fn fdb(&self, key: (DatapathKey, Mac)) -> Option<PortKey> {
        self.learned.get(&key).copied().or_else(|| self.program.fdb(key.0, key.1))
    }

    fn violates(&self, datapath: DatapathKey, direction: Direction, fields: &Fields) -> bool {
        let mut sub = match direction {
            Direction::In => Sub::In,
            Direction::Out => Sub::Out,
        };
        // One step to another sub-table at most.
        for _ in 0..2 {
            let rule: Option<&Arc<SubRule>> = self
                .program
                .sub_rules(datapath, sub)
                .filter(|rule| fields.satisfy(&rule.dims, self.program))
                .min_by_key(|rule| (u16::MAX - rule.priority, rule.id));
            match rule.map(|rule| rule.result) {
                None | Some(SubResult::Pass) => return false,
                Some(SubResult::Fail) => return true,
                Some(SubResult::Goto(next)) => sub = next,
            }
        }
        false
    }

    /// `output` in ingress, and a packet from a tunnel: to the port or group in `outport`.
    fn send(&mut self, datapath: DatapathKey, packet: &Packet, by: Option<LflowId>, depth: usize) {
        let outport = packet.port(Field::OutPort);
        self.note(|_| Place::Sent(packet.now.clone()));
        if outport == PortKey(0) {
            return self.drop_packet(Reason::NoOutport, by, outport);
        }
        if let Some(group) = outport.as_group() {
            return self.fan_out(datapath, group, packet, by, depth);
        }
        let Some(port) = self.program.port(datapath, outport).cloned() else {
            return self.drop_packet(Reason::PortUnknown, by, outport);
        };
        if !port.kind.is_served() {
            return self.drop_packet(Reason::PortNotServed, by, outport);
        }
        let mut chassis: BTreeSet<ChassisId> = port.additional.iter().copied().collect();
        match port.location {
            Location::Local { .. } => self.egress(datapath, packet.clone(), outport, by, depth),
            Location::Remote { chassis: main } => {
                chassis.insert(main);
            }
            Location::Unbound => {
                if chassis.is_empty() {
                    self.drop_packet(Reason::PortNotBound, by, outport);
                }
            }
        }
        self.tunnel(datapath, packet, outport, chassis, by);
    }

    /// A copy to each member: local ports here, one frame for each chassis that has any, with the group as its outport.
    fn fan_out(&mut self, datapath: DatapathKey, key: GroupKey, packet: &Packet, by: Option<LflowId>, depth: usize) {
        let outport = PortKey(key.0);
        let Some(group) = self.program.group(datapath, key).cloned() else {
            // A group that is not known has no members here.
            return self.drop_packet(Reason::GroupEmpty, by, outport);
        };
        let mut chassis = BTreeSet::new();
        let mut reached = false;
        for member in &group.members {
            let Some(port) = self.program.port(datapath, *member).cloned() else { continue };
            if !port.kind.is_served() {
                reached = true;
                self.drop_packet(Reason::PortNotServed, by, *member);
                continue;
            }
            chassis.extend(port.additional.iter().copied());
            match port.location {
                // The sender's chassis has given its own localport a copy; every other chassis has one of its own.
                Location::Local { .. } if self.from_tunnel && port.kind == PortKind::Localport => {}
                Location::Local { .. } => {
                    reached = true;
                    self.egress(datapath, packet.clone(), *member, by, depth);
                }
                Location::Remote { chassis: main } => {
                    chassis.insert(main);
                }
                Location::Unbound => {}
            }
        }
        if !reached && (chassis.is_empty() || self.from_tunnel) {
            self.drop_packet(Reason::GroupEmpty, by, outport);
        }
        self.tunnel(datapath, packet, outport, chassis, by);
    }

    /// To other chassis, unless the packet came from one or may not leave this one.
    fn tunnel(
        &mut self,
        datapath: DatapathKey,
        packet: &Packet,
        outport: PortKey,
        chassis: BTreeSet<ChassisId>,
        by: Option<LflowId>,
    ) {
        if chassis.is_empty() {
            return;
        }
        if self.from_tunnel {
            // A port that has moved on since the sender chose this chassis.
            if outport.as_group().is_none() && !self.is_local(datapath, outport) {
                self.drop_packet(Reason::PortNotBound, by, outport);
            }
            return;
        }
        let inport = packet.port(Field::InPort);
        if self.program.port(datapath, inport).is_some_and(|port| port.kind == PortKind::Localport) {
            return chassis.iter().for_each(|_| self.drop_packet(Reason::LocalOnly, by, outport));
        }
        for chassis in chassis {
            let destination = Destination::Tunnel { chassis, datapath, inport, outport };
            self.out.outputs.push(Output { destination, frame: packet.write() });
            self.note(|out| Place::Leaves(out.outputs.len() - 1, packet.now.clone()));
        }
    }

    fn is_local(&self, datapath: DatapathKey, port: PortKey) -> bool {
        let port = self.program.port(datapath, port);
        port.is_some_and(|port| matches!(port.location, Location::Local { .. }))
    }

    /// Into the egress pipeline, for one local port.
    fn egress(
        &mut self,
        datapath: DatapathKey,
        mut packet: Packet,
        outport: PortKey,
        by: Option<LflowId>,
        depth: usize,
    ) {
        packet.now.set(Field::OutPort, u128::from(outport.0));
        let loopback = packet.now.get(Field::Flags) >> FLAG_LOOPBACK & 1 == 1;
        if packet.port(Field::InPort) == outport && !loopback {
            return self.drop_packet(Reason::Loopback, by, outport);
        }
        packet.now.enter_egress();
        self.note(|_| Place::Egress(packet.now.clone()));
        self.table(datapath, Pipeline::Egress, 0, packet, by, depth + 1);
    }

    /// `output` in egress.
    fn deliver(&mut self, datapath: DatapathKey, packet: &Packet, by: Option<LflowId>) {
        let outport = packet.port(Field::OutPort);
        let Some(port) = self.program.port(datapath, outport) else {
            return self.drop_packet(Reason::PortUnknown, by, outport);
        };
        let Location::Local { ifindex, tag } = port.location else {
            return self.drop_packet(Reason::PortNotBound, by, outport);
        };
        let mut frame = packet.write();
        if let Some(tag) = tag {
            // Outside of a tag that the packet may have: on the way in one tag is taken off, so on the way out one is put on. (ovn-controller 23.03
            // overwrites the VLAN id of such a packet and so loses it.)
            set_tag(&mut frame, false, VLAN_PRESENT | tag);
        }
        let destination = Destination::Device { ifindex, datapath, port: outport };
        self.out.outputs.push(Output { destination, frame });
        self.note(|out| Place::Leaves(out.outputs.len() - 1, packet.now.clone()));
    }
}
