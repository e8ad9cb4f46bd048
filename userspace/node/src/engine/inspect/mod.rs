//! Reports: what a hypervisor tells about itself ([`oxbow_report`]).

mod bridge_metrics;
mod drops;
mod events;
mod flows;
mod installs;
mod metrics;
mod status;
mod trace;
mod verdicts;

pub(super) use installs::Installs;
pub use trace::{Others, Traced, Wanted};

use super::Engine;
use crate::dataplane::inspect::Inspect;
use oxbow_pipeline::compile::FlowRow;
use oxbow_pipeline::ir::{ChassisId, DatapathKey, GroupKey, LflowId, PortKey};
use oxbow_report::flows::LogicalFlow;

/// What the daemon knows of the process and of its connections, and the engine does not.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Where the Open_vSwitch database is, and why it cannot be reached.
    pub ovs: (String, Option<String>),
    /// The same of the Southbound database.
    pub sb: (Option<String>, Option<String>),
    /// Milliseconds since the epoch.
    pub wall_ms: u64,
}

/// A row as reports show it.
fn logical_flow(row: &FlowRow) -> LogicalFlow {
    LogicalFlow {
        uuid: row.uuid.to_string(),
        pipeline: row.pipeline.as_str().to_owned(),
        stage: row.stage,
        stage_name: row.stage_name.to_string(),
        priority: row.priority,
        r#match: row.matches.to_string(),
        actions: row.actions.to_string(),
    }
}

/// A row in two words.
fn short_flow(row: &FlowRow) -> String {
    format!("{}/{}", row.stage_name, row.priority)
}

impl Engine {
    /// Name of a datapath, or its key when it is not known here.
    fn datapath_name(&self, key: u32) -> String {
        let datapath = self.world.compiler().program().datapath(DatapathKey(key));
        match datapath {
            Some(datapath) if !datapath.name.is_empty() => datapath.name.to_string(),
            _ => key.to_string(),
        }
    }

    /// Name of a port or multicast group, or its key when it is not known here.
    fn port_or_group(&self, datapath: u32, key: u32) -> String {
        let program = self.world.compiler().program();
        let port = program.port(DatapathKey(datapath), PortKey(key)).map(|port| port.name.to_string());
        let group = || program.group(DatapathKey(datapath), GroupKey(key)).map(|group| group.name.to_string());
        port.or_else(group).unwrap_or_else(|| key.to_string())
    }

    /// Name of a chassis by its number.
    fn chassis_name(&self, id: u32) -> String {
        let chassis = self.world.compiler().program().chassis(ChassisId(id));
        chassis.map_or_else(|| id.to_string(), |chassis| chassis.name.to_string())
    }

    /// Name of a device, or its index when it is gone.
    fn device_name(&self, ifindex: u32) -> String {
        self.kernel.links.get(ifindex).map_or_else(|| ifindex.to_string(), |link| link.name.clone())
    }

    /// Names of the local datapaths that a flow is in force on.
    fn flow_datapaths(&self, row: &FlowRow) -> Vec<String> {
        let program = self.world.compiler().program();
        let known = row.datapaths.iter().filter(|key| program.datapath(**key).is_some());
        known.map(|key| self.datapath_name(key.0)).collect()
    }

    /// A flow by the number that the programs know it by.
    fn short_flow_of(&self, number: u32) -> String {
        match self.world.compiler().flow(LflowId(number)) {
            Some(row) => short_flow(row),
            None => format!("#{number}"),
        }
    }

    /// The look inside, or why there is none.
    fn inside(&mut self) -> Result<&mut dyn Inspect, String> {
        let Some(dataplane) = &mut self.dataplane else {
            let why = self.open_error.clone();
            return Err(why.unwrap_or_else(|| {
                "there is no dataplane yet: external_ids:system-id is not set (`ovs-vsctl set Open_vSwitch . \
                 external_ids:system-id=NAME`)"
                    .to_owned()
            }));
        };
        let backend = dataplane.summary().backend;
        dataplane.inspect().ok_or_else(|| {
            format!("the {backend} backend has no programs to look into: packets are forwarded elsewhere (`ovs-ofctl dump-flows br-int`)")
        })
    }
}
