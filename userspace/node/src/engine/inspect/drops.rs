//! `oxbow/drops`.

use super::super::Engine;
use super::logical_flow;
use oxbow_pipeline::ir::{Act, LflowId};
use oxbow_report::drops::{Drops, FlowCount, ReasonCount, explain};
use std::collections::BTreeSet;

impl Engine {
    /// Packets by the reason why they were dropped, and by the logical flows that dropped them.
    ///
    /// # Errors
    /// What the dataplane says, or that there is none.
    pub fn drops_report(&mut self) -> Result<Drops, String> {
        let counts = self.inside()?.drop_counts().map_err(|error| error.to_string())?;
        let reasons = counts
            .into_iter()
            .map(|(reason, count)| ReasonCount {
                reason: reason.text().to_owned(),
                packets: count.packets,
                bytes: count.bytes,
                explanation: explain(reason.text()).to_owned(),
            })
            .collect();
        let mut flows = Vec::new();
        for number in self.dropping_flows() {
            let packets = self.walked(number)?;
            if let Some(row) = self.world.compiler().flow(number).filter(|_| packets != 0) {
                flows.push(FlowCount { flow: logical_flow(row), datapaths: self.flow_datapaths(row), packets });
            }
        }
        flows.sort_by(|a, b| (b.packets, &a.flow.uuid).cmp(&(a.packets, &b.flow.uuid)));
        Ok(Drops { reasons, flows })
    }

    /// Logical flows that drop what they match, as written or because they cannot be done.
    fn dropping_flows(&self) -> BTreeSet<LflowId> {
        let program = self.world.compiler().program();
        program
            .tables()
            .flat_map(|table| program.rules(table))
            .filter(|rule| matches!(rule.acts.first(), Some(Act::Drop(_))))
            .map(|rule| rule.lflow)
            .collect()
    }

    /// Packets that walked a flow.
    pub(super) fn walked(&mut self, flow: LflowId) -> Result<u64, String> {
        match &mut self.dataplane {
            Some(dataplane) => dataplane.flow_packets(flow.0).map_err(|error| error.to_string()),
            None => Ok(0),
        }
    }
}
