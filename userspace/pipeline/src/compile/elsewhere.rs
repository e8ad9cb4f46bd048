//! The same network as another chassis compiles it: for people who ask what becomes of a packet there.

use super::{Compiler, DatapathInfo, FlowRow};
use crate::ir::{Chassis, ChassisId, DatapathKey, Location, LogicalPort, PortKey, PortKind};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The number of this chassis in a program of [`Compiler::elsewhere`]; no real chassis has it.
pub const THIS_CHASSIS: ChassisId = ChassisId(u32::MAX);

impl Compiler {
    /// The policy of one datapath as another chassis has it: a compiler fed with the same rows, but that chassis' ports are local and ours are remote, on
    /// [`THIS_CHASSIS`]. `name` is what ports there call us, `tag` tells the VLAN id of a nested port by its name.
    ///
    /// What only the other chassis knows is not in it: a local port's interface index is its key plus one; a localport has an instance there if it has
    /// one here. Rows are those that this chassis has, so a policy that only the other one has received yet is not seen. It costs what
    /// compiling the datapath for the first time costs.
    #[must_use]
    pub fn elsewhere(
        &self,
        datapath: DatapathKey,
        chassis: ChassisId,
        name: &str,
        tag: &dyn Fn(&str) -> Option<u16>,
    ) -> Compiler {
        let (vocabulary, stages) = self.texts.settings();
        let mut there = Compiler::new(super::Options { vocabulary, ingress_stages: stages.0, egress_stages: stages.1 });
        if let Some(known) = self.program.datapath(datapath) {
            let info = DatapathInfo { name: Arc::clone(&known.name), router: known.router };
            there.set_datapath(datapath, Some(info));
        }
        // One chassis may be reached in several ways, each with a number of its own.
        let theirs: BTreeSet<ChassisId> = match self.program.chassis(chassis) {
            Some(row) => self.program.all_chassis().filter(|other| other.name == row.name).map(|row| row.id).collect(),
            None => BTreeSet::from([chassis]),
        };
        for other in self.program.all_chassis().filter(|other| !theirs.contains(&other.id)) {
            there.set_chassis(Chassis::clone(other));
        }
        there.set_chassis(Chassis { id: THIS_CHASSIS, name: name.into(), encap: None });
        there.address_sets.clone_from(&self.address_sets);
        for (row, ports) in &self.port_groups {
            there.set_port_group(row, Some(ports.iter().map(|port| &**port)));
        }
        for port in self.program.ports.range((datapath, PortKey(0))..=(datapath, PortKey(u32::MAX))) {
            there.set_port(seen_from(port.1, &theirs, tag(&port.1.name)));
        }
        for group in self.program.groups().filter(|group| group.datapath == datapath) {
            there.set_group(crate::ir::Group::clone(group));
        }
        for (_, mac, port) in self.program.fdb_entries().filter(|(of, ..)| *of == datapath) {
            there.set_fdb(datapath, mac, Some(port));
        }
        for flow in self.flows.values().filter(|flow| flow.row.datapaths.contains(&datapath)) {
            there.set_flow(FlowRow { datapaths: vec![datapath], ..FlowRow::clone(&flow.row) });
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
