//! The same network as another chassis compiles it: for people who ask what becomes of a packet there.

use super::{Compiler, DatapathInfo, FlowRow};
use crate::ir::{Chassis, ChassisId, DatapathKey, Group, Location, LogicalPort, Mac, PortKey, PortKind};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The number of this chassis in a program of [`Compiler::elsewhere`]; no real chassis has it.
pub const THIS_CHASSIS: ChassisId = ChassisId(u32::MAX);

/// What [`Compiler::elsewhere`] is made of, apart from the compiler it was taken from: it may be compiled on another thread while that one goes on. Rows
/// are shared; names and address sets are copied.
#[derive(Debug)]
pub struct Blueprint {
    options: super::Options,
    datapath: DatapathKey,
    info: Option<DatapathInfo>,
    /// Numbers of the chassis here.
    theirs: BTreeSet<ChassisId>,
    /// What ports there call this chassis.
    name: Arc<str>,
    chassis: Vec<Arc<Chassis>>,
    address_sets: super::texts::AddressSets,
    port_groups: Vec<(Arc<str>, BTreeSet<Arc<str>>)>,
    /// With the VLAN id of a nested port.
    ports: Vec<(Arc<LogicalPort>, Option<u16>)>,
    groups: Vec<Arc<Group>>,
    fdb: Vec<(Mac, PortKey)>,
    flows: Vec<Arc<FlowRow>>,
}

impl Compiler {
    /// The policy of one datapath as another chassis has it: a compiler fed with the same rows, but that chassis' ports are local and ours are remote, on
    /// [`THIS_CHASSIS`]. `name` is what ports there call us, `tag` tells the VLAN id of a nested port by its name.
    ///
    /// What only the other chassis knows is not in it: a local port's interface index is its key plus one; a localport has an instance there if it has
    /// one here. Rows are those that this chassis has, so a policy that only the other one has received yet is not seen. It costs what
    /// compiling the datapath for the first time costs: [`Compiler::blueprint`] and [`Blueprint::compile`] are the two halves for whoever cannot wait.
    #[must_use]
    pub fn elsewhere(
        &self,
        datapath: DatapathKey,
        chassis: ChassisId,
        name: &str,
        tag: &dyn Fn(&str) -> Option<u16>,
    ) -> Compiler {
        self.blueprint(datapath, chassis, name, tag).compile()
    }

    /// What [`Compiler::elsewhere`] compiles, with the same arguments. It costs a reference for each port and flow of the datapath.
    #[must_use]
    pub fn blueprint(
        &self,
        datapath: DatapathKey,
        chassis: ChassisId,
        name: &str,
        tag: &dyn Fn(&str) -> Option<u16>,
    ) -> Blueprint {
        let (vocabulary, stages) = self.texts.settings();
        let known = self.program.datapath(datapath);
        // One chassis may be reached in several ways, each with a number of its own.
        let theirs: BTreeSet<ChassisId> = match self.program.chassis(chassis) {
            Some(row) => self.program.all_chassis().filter(|other| other.name == row.name).map(|row| row.id).collect(),
            None => BTreeSet::from([chassis]),
        };
        let ports = self.program.ports.range((datapath, PortKey(0))..=(datapath, PortKey(u32::MAX)));
        Blueprint {
            options: super::Options { vocabulary, ingress_stages: stages.0, egress_stages: stages.1 },
            datapath,
            info: known.map(|known| DatapathInfo { name: Arc::clone(&known.name), router: known.router }),
            name: name.into(),
            chassis: self.program.all_chassis().filter(|other| !theirs.contains(&other.id)).cloned().collect(),
            theirs,
            address_sets: self.address_sets.clone(),
            port_groups: self.port_groups.iter().map(|(row, ports)| (Arc::clone(row), ports.clone())).collect(),
            ports: ports.map(|(_, port)| (Arc::clone(port), tag(&port.name))).collect(),
            groups: self.program.groups().filter(|group| group.datapath == datapath).cloned().collect(),
            fdb: self
                .program
                .fdb_entries()
                .filter(|(of, ..)| *of == datapath)
                .map(|(_, mac, port)| (mac, port))
                .collect(),
            flows: self
                .flows
                .values()
                .filter(|flow| flow.row.datapaths.contains(&datapath))
                .map(|flow| Arc::clone(&flow.row))
                .collect(),
        }
    }
}

impl Blueprint {
    /// See [`Compiler::elsewhere`].
    #[must_use]
    pub fn compile(self) -> Compiler {
        let datapath = self.datapath;
        let mut there = Compiler::new(self.options);
        if let Some(info) = self.info {
            there.set_datapath(datapath, Some(info));
        }
        for other in &self.chassis {
            there.set_chassis(Chassis::clone(other));
        }
        there.set_chassis(Chassis { id: THIS_CHASSIS, name: self.name, encap: None });
        there.address_sets = self.address_sets;
        for (row, ports) in &self.port_groups {
            there.set_port_group(row, Some(ports.iter().map(|port| &**port)));
        }
        for (port, tag) in &self.ports {
            there.set_port(seen_from(port, &self.theirs, *tag));
        }
        for group in &self.groups {
            there.set_group(Group::clone(group));
        }
        for (mac, port) in self.fdb {
            there.set_fdb(datapath, mac, Some(port));
        }
        for flow in &self.flows {
            there.set_flow(FlowRow { datapaths: vec![datapath], ..FlowRow::clone(flow) });
        }
        there.commit();
        there
    }
}

/// A port as another chassis sees it, which has these numbers here.
fn seen_from(port: &LogicalPort, theirs: &BTreeSet<ChassisId>, tag: Option<u16>) -> LogicalPort {
    let mut all: BTreeSet<ChassisId> = port.additional.iter().copied().collect();
    match port.location {
        Location::Local { .. } => {
            all.insert(THIS_CHASSIS);
        }
        Location::Remote { chassis } => {
            all.insert(chassis);
        }
        Location::Unbound => {}
    }
    let local = Location::Local { ifindex: port.key.0 + 1, tag };
    let is_theirs = all.iter().any(|chassis| theirs.contains(chassis));
    all.retain(|chassis| !theirs.contains(chassis));
    let location = match port.kind {
        // Every chassis has one of its own; ours is no other chassis' business.
        PortKind::Localport => {
            all.clear();
            if matches!(port.location, Location::Local { .. }) { local } else { Location::Unbound }
        }
        _ if is_theirs => local,
        _ => match port.location {
            Location::Local { .. } => Location::Remote { chassis: THIS_CHASSIS },
            remote => remote,
        },
    };
    if let Location::Remote { chassis } = location {
        all.remove(&chassis);
    }
    LogicalPort { location, additional: all.into_iter().collect(), ..port.clone() }
}
