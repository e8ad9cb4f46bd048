//! Metrics of the integration bridge, where packets are forwarded by its OpenFlow flows.

use super::super::Engine;
use oxbow_daemon::exposition::{Exposition, Kind};

impl Engine {
    /// What the bridge holds and was told; nothing with another backend.
    pub(super) fn bridge_metrics(&self, metrics: &mut Exposition) {
        let Some(told) = self.dataplane.as_ref().and_then(|dataplane| dataplane.bundles()) else { return };
        // Known exporters take this from the bridge itself, as a gauge in spite of its name.
        metrics.single(
            "ovn_controller_integration_bridge_openflow_total",
            Kind::Gauge,
            "OpenFlow flows of the policy in the integration bridge; learned addresses are not among them.",
            told.flows,
        );
        metrics.single(
            "oxbow_openflow_groups",
            Kind::Gauge,
            "OpenFlow groups of the policy in the integration bridge.",
            told.groups,
        );
        metrics.single(
            "oxbow_openflow_connected",
            Kind::Gauge,
            "A session with the integration bridge is open.",
            u8::from(told.is_connected),
        );
        metrics.family(
            "oxbow_openflow_bundles_total",
            Kind::Counter,
            "Bundles by what became of them: committed, refused by the bridge (one flow of them), or failed otherwise.",
        );
        for (result, count) in [("committed", told.committed), ("refused", told.refused), ("failed", told.failed)] {
            metrics.sample("oxbow_openflow_bundles_total", &[("result", result)], count);
        }
        metrics.family(
            "oxbow_openflow_changes_total",
            Kind::Counter,
            "Changes that committed bundles made to the integration bridge.",
        );
        let kinds = [
            ("flow_written", told.flows_written),
            ("flow_deleted", told.flows_deleted),
            ("group_changed", told.groups_changed),
        ];
        for (kind, count) in kinds {
            metrics.sample("oxbow_openflow_changes_total", &[("kind", kind)], count);
        }
        let Some((changes, took)) = told.last else { return };
        metrics.single(
            "oxbow_openflow_last_bundle_changes",
            Kind::Gauge,
            "Changes in the bundle that was committed last.",
            changes,
        );
        metrics.single(
            "oxbow_openflow_last_bundle_seconds",
            Kind::Gauge,
            "How long the integration bridge took for it.",
            took.as_secs_f64(),
        );
    }
}
