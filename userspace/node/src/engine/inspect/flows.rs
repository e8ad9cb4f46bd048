//! `oxbow/flows`.

use super::super::Engine;
use super::logical_flow;
use oxbow_pipeline::compile::FlowRow;
use oxbow_pipeline::ir::LflowId;
use oxbow_report::flows::{CountedFlow, Flows, Wanted};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Engine {
    /// Logical flows in force here, with their packets.
    ///
    /// # Errors
    /// A port or datapath that is not known here; what the dataplane says.
    pub fn flows_report(&mut self, wanted: &Wanted) -> Result<Flows, String> {
        let program = self.world.compiler().program();
        if let Some(name) = &wanted.datapath
            && !program.datapaths().any(|(key, datapath)| *datapath.name == **name || key.0.to_string() == *name)
        {
            let known: Vec<String> = program.datapaths().map(|(_, datapath)| datapath.name.to_string()).collect();
            return Err(format!(
                "no local datapath is named \"{name}\"; those with a port on this hypervisor: {}",
                known.join(", ")
            ));
        }
        let taken = match &wanted.port {
            Some(port) => self.flows_taken_by(port)?,
            None => HashSet::new(),
        };
        let program = self.world.compiler().program();
        let mut rules: HashMap<LflowId, u64> = HashMap::new();
        for rule in program.tables().flat_map(|table| program.rules(table)) {
            *rules.entry(rule.lflow).or_default() += 1;
        }
        let attributed = self.inside()?.attribute().map_err(|error| error.to_string())?;
        let rows: Vec<(LflowId, Arc<FlowRow>)> =
            self.world.compiler().flows().map(|(id, row)| (id, Arc::clone(row))).collect();
        let mut flows = Vec::new();
        for (id, row) in rows {
            let datapaths = self.flow_datapaths(&row);
            let key_is = |name: &String| row.datapaths.iter().any(|key| key.0.to_string() == *name);
            let here = wanted.datapath.as_ref().is_none_or(|name| datapaths.contains(name) || key_is(name));
            let named = wanted.port.as_ref().is_none_or(|port| {
                let quoted = format!("\"{port}\"");
                taken.contains(&id.0) || row.matches.contains(&quoted) || row.actions.contains(&quoted)
            });
            if datapaths.is_empty() || !here || !named {
                continue;
            }
            let walked = self.walked(id)?;
            let cached = attributed.flows.get(&id.0).copied().unwrap_or(0);
            if wanted.hit && walked + cached == 0 {
                continue;
            }
            flows.push(CountedFlow {
                flow: logical_flow(&row),
                datapaths,
                packets: walked + cached,
                walked,
                cached,
                rules: rules.get(&id).copied().unwrap_or(0),
            });
        }
        flows.sort_by(|a, b| {
            let place = |flow: &CountedFlow| {
                let egress = flow.flow.pipeline != "ingress";
                (egress, flow.flow.stage, u16::MAX - flow.flow.priority, flow.flow.uuid.clone())
            };
            (&a.datapaths, place(a)).cmp(&(&b.datapaths, place(b)))
        });
        Ok(Flows { flows, unattributed: attributed.unattributed })
    }

    /// Flows on the paths of cached verdicts for packets from a port.
    fn flows_taken_by(&mut self, port: &str) -> Result<HashSet<u32>, String> {
        let key = self.keys_of(port)?;
        let cached = self.inside()?.cached().map_err(|error| error.to_string())?;
        let of_port = cached.verdicts.iter().filter(|(verdict, _)| super::verdicts::is_of(verdict, key));
        Ok(of_port
            .flat_map(|(_, verdict)| verdict.path[..(verdict.path_len as usize).min(verdict.path.len())].to_vec())
            .collect())
    }

    /// Tunnel keys of a logical port by its name.
    ///
    /// # Errors
    /// It is not known here: what is.
    pub(super) fn keys_of(&self, name: &str) -> Result<(u32, u32), String> {
        let program = self.world.compiler().program();
        if let Some(port) = program.ports().find(|port| *port.name == *name) {
            return Ok((port.datapath.0, port.key.0));
        }
        let here: Vec<&str> = self.states.serve.iter().map(|vif| vif.name.as_str()).collect();
        Err(format!(
            "logical port \"{name}\" is on no datapath of this hypervisor; ports here: {}",
            if here.is_empty() { "none".to_owned() } else { here.join(", ") }
        ))
    }
}
