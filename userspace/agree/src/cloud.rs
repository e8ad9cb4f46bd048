//! A cloud of hypervisors, each running the reference interpreter on its own program; tunnels carry packets between them.

use crate::southbound::Southbound;
use anyhow::{Context as _, Result};
use oxbow_pipeline::compile::{Compiler, Options, Vocabulary};
use oxbow_pipeline::ir::{Changes, Chassis, ChassisId, DatapathKey, Location, LogicalPort, PortKey, PortKind, Program};
use oxbow_pipeline::reference::{Arrival, Destination, Outcome, run};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A frame that came out at a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    /// The logical port.
    pub port: Arc<str>,
    /// The hypervisor (from 0) on which it came out.
    pub hypervisor: usize,
    /// The frame, as the device gets it.
    pub frame: Vec<u8>,
}

/// A hypervisor.
#[derive(Debug)]
pub struct Hypervisor {
    /// What it compiled.
    pub compiler: Compiler,
    /// The same without simplification.
    pub raw: Program,
    /// Everything that the program holds, as a difference from nothing: what a backend starts from.
    pub changes: Changes,
}

/// All hypervisors of a cloud.
#[derive(Debug)]
pub struct Cloud {
    hypervisors: Vec<Hypervisor>,
    /// Where each port is: hypervisor and interface index.
    places: BTreeMap<String, (usize, u32)>,
}

impl Cloud {
    /// Binds every VIF to one of `hypervisors` in turn (a nested port to its parent's), gives each hypervisor its instance of every localport, and
    /// compiles everything on each.
    #[must_use]
    pub fn new(south: &Southbound, hypervisors: usize) -> Cloud {
        let mut places: BTreeMap<String, (usize, u32)> = BTreeMap::new();
        let vifs = south.ports.iter().filter(|(_, row)| row.port.kind == PortKind::Vif && row.parent.is_none());
        for (n, (name, _)) in vifs.enumerate() {
            places.insert(name.clone(), (n % hypervisors, 100 + n as u32));
        }
        for (name, row) in &south.ports {
            if let Some(place) = row.parent.as_ref().and_then(|(parent, _)| places.get(parent).copied()) {
                places.insert(name.clone(), place);
            }
        }
        let made = (0..hypervisors).map(|here| Self::hypervisor_of(south, &places, here, hypervisors)).collect();
        Cloud { hypervisors: made, places }
    }

    fn hypervisor_of(
        south: &Southbound,
        places: &BTreeMap<String, (usize, u32)>,
        here: usize,
        hypervisors: usize,
    ) -> Hypervisor {
        // What the oracle of Debian 12 understands by a name: some were given a narrower meaning later.
        let mut compiler = Compiler::new(Options { vocabulary: Vocabulary::V23_03, ..Options::default() });
        south.feed(&mut compiler);
        for other in (0..hypervisors).filter(|other| *other != here) {
            let name = format!("hv{other}").into();
            compiler.set_chassis(Chassis { id: chassis_id(other), name, encap: None });
        }
        for (n, (name, row)) in south.ports.iter().enumerate() {
            let location = match (places.get(name), row.port.kind) {
                (Some((there, ifindex)), _) if *there == here => {
                    Location::Local { ifindex: *ifindex, tag: row.parent.as_ref().map(|(_, tag)| *tag) }
                }
                (Some((there, _)), _) => Location::Remote { chassis: chassis_id(*there) },
                (None, PortKind::Localport) => Location::Local { ifindex: 10_000 + n as u32, tag: None },
                (None, _) => Location::Unbound,
            };
            compiler.set_port(LogicalPort { location, ..row.port.clone() });
        }
        let changes = compiler.commit();
        let raw = compiler.raw_program();
        Hypervisor { compiler, raw, changes }
    }

    /// One of the hypervisors.
    #[must_use]
    pub fn hypervisor(&self, n: usize) -> Option<&Hypervisor> {
        self.hypervisors.get(n)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hypervisors.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hypervisors.is_empty()
    }

    /// The hypervisor that a VIF is on; localports are on all.
    #[must_use]
    pub fn place(&self, port: &str) -> Option<usize> {
        self.places.get(port).map(|(hypervisor, _)| *hypervisor)
    }

    /// A frame sent by a port of a hypervisor: where it comes out, and what each program said on the way.
    ///
    /// # Errors
    /// When a hypervisor tunnels to one that does not exist.
    pub fn send(
        &self,
        hypervisor: usize,
        from: (DatapathKey, PortKey),
        frame: &[u8],
        raw: bool,
    ) -> Result<(Vec<Delivery>, Vec<Outcome>)> {
        let (datapath, port) = from;
        let mut open = vec![(hypervisor, Arrival::Port { datapath, port }, frame.to_vec())];
        let (mut deliveries, mut outcomes) = (Vec::new(), Vec::new());
        while let Some((here, arrival, frame)) = open.pop() {
            let there = self.hypervisors.get(here).context("a tunnel to nowhere")?;
            let program = if raw { &there.raw } else { there.compiler.program() };
            let outcome = run(program, arrival, &frame);
            for output in &outcome.outputs {
                match output.destination {
                    Destination::Device { datapath, port, .. } => {
                        let port = program.port(datapath, port).context("delivered to no port")?;
                        deliveries.push(Delivery {
                            port: Arc::clone(&port.name),
                            hypervisor: here,
                            frame: output.frame.clone(),
                        });
                    }
                    Destination::Tunnel { chassis, datapath, inport, outport } => {
                        let arrival = Arrival::Tunnel { datapath, inport, outport };
                        open.push((chassis.0 as usize - 1, arrival, output.frame.clone()));
                    }
                }
            }
            outcomes.push(outcome);
        }
        deliveries.sort();
        Ok((deliveries, outcomes))
    }
}

/// Hypervisors count from 0, chassis from 1.
fn chassis_id(hypervisor: usize) -> ChassisId {
    ChassisId(hypervisor as u32 + 1)
}
