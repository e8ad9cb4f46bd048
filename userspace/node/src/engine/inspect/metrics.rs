//! `/metrics` and `oxbow/metrics`: the names of ovn-kubernetes' exporter where the meaning is the same, `oxbow_` for the rest.

use super::super::{Engine, LFLOW_RUN, NEXT_HOP, POLICY_COMMIT};
use super::Surroundings;
use oxbow_abi::stats::total;
use oxbow_daemon::exposition::{Exposition, Kind};
use oxbow_daemon::identity::{OVN_VERSION, OVS_VERSION};
use std::collections::BTreeMap;

/// Names of what `oxbow_abi::stats::total` counts.
const TOTALS: [(u32, &str); 12] = [
    (total::VIF_RX, "vif_rx"),
    (total::VIF_TX, "vif_tx"),
    (total::TUNNEL_RX, "tunnel_rx"),
    (total::TUNNEL_TX, "tunnel_tx"),
    (total::CACHE_HIT, "cache_hit"),
    (total::SHARED_HIT, "shared_hit"),
    (total::WALK, "walk"),
    (total::DENIED_HIT, "denied_hit"),
    (total::UNCACHEABLE, "uncacheable"),
    (total::FAN_OUT, "fan_out"),
    (total::EVENT_LOST, "event_lost"),
    (total::UNDERLAY_PASS, "underlay_pass"),
];

impl Engine {
    /// Every metric, in Prometheus' text format.
    pub fn metrics_text(&mut self, around: &Surroundings) -> String {
        let mut metrics = Exposition::default();
        let ready = self.not_ready().is_empty();
        metrics.family("oxbow_build_info", Kind::Gauge, "Always 1; the version is in the label.");
        metrics.sample("oxbow_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        metrics.single(
            "oxbow_ready",
            Kind::Gauge,
            "Everything that should be is in force (as /readyz).",
            u8::from(ready),
        );
        self.ovn_controller_metrics(&mut metrics, around);
        metrics.process("ovn_controller");
        self.life_metrics(&mut metrics);
        self.policy_metrics(&mut metrics);
        self.kernel_metrics(&mut metrics);
        self.bridge_metrics(&mut metrics);
        metrics.finish()
    }

    fn ovn_controller_metrics(&self, metrics: &mut Exposition, around: &Surroundings) {
        let gauge = Kind::Gauge;
        metrics.family(
            "ovn_controller_build_info",
            gauge,
            "Always 1; the versions of OVN and Open vSwitch that this daemon stands for.",
        );
        let versions = [("version", OVN_VERSION), ("ovs_lib_version", OVS_VERSION)];
        metrics.sample("ovn_controller_build_info", &versions, 1);
        let connected = u8::from(self.sb_line.synchronized);
        metrics.single(
            "ovn_controller_southbound_database_connected",
            gauge,
            "The Southbound database is connected and its replica complete.",
            connected,
        );
        let tunnels = self.mesh.peers.iter().filter(|peer| !peer.vxlan).count();
        metrics.single(
            "ovn_controller_integration_bridge_geneve_ports",
            gauge,
            "Hypervisors reached by Geneve.",
            tunnels,
        );
        let Some(config) = &self.config else { return };
        let ports = self.ovs.bridge(&config.bridge).into_iter().flat_map(|bridge| &bridge.ports);
        let interfaces = ports.filter_map(|port| self.ovs.ports.get(port)).flat_map(|port| &port.interfaces);
        let kinds = interfaces.filter_map(|interface| self.ovs.interfaces.get(interface));
        metrics.single(
            "ovn_controller_integration_bridge_patch_ports",
            gauge,
            "Interfaces of type patch on the integration bridge.",
            kinds.filter(|interface| interface.kind == "patch").count(),
        );
        metrics.family(
            "ovn_controller_bridge_mappings",
            gauge,
            "Always 1; a pair of external_ids:ovn-bridge-mappings, physical network and bridge.",
        );
        for (network, bridge) in &config.bridge_mappings {
            metrics.sample("ovn_controller_bridge_mappings", &[("mapping", &format!("{network}:{bridge}"))], 1);
        }
        metrics.single(
            "ovn_controller_monitor_all",
            gauge,
            "external_ids:ovn-monitor-all.",
            u8::from(config.monitor_all),
        );
        if let Some(interval) = config.probe_interval_ms {
            let seconds = interval as f64 / 1000.0;
            metrics.single(
                "ovn_controller_remote_probe_interval_seconds",
                gauge,
                "external_ids:ovn-remote-probe-interval.",
                seconds,
            );
        }
        if let Some((method, _)) = around.sb.0.as_deref().and_then(|remote| remote.split_once(':')) {
            metrics.family(
                "ovn_controller_sb_connection_method",
                gauge,
                "Always 1; how the Southbound database is reached.",
            );
            metrics.sample("ovn_controller_sb_connection_method", &[("connection_method", method)], 1);
        }
        metrics.family("ovn_controller_encap_ip", gauge, "Always 1; an encapsulation address of this chassis.");
        for ip in &config.encap_ips {
            metrics.sample("ovn_controller_encap_ip", &[("ipaddress", &ip.to_string())], 1);
        }
        metrics.family("ovn_controller_encap_type", gauge, "Always 1; an encapsulation of this chassis.");
        for kind in &config.encap_kinds {
            metrics.sample("ovn_controller_encap_type", &[("type", kind.name())], 1);
        }
    }

    fn life_metrics(&self, metrics: &mut Exposition) {
        let mut states: BTreeMap<String, u64> = BTreeMap::new();
        for port in self.ports_report().ports {
            *states.entry(port.state).or_default() += 1;
        }
        metrics.family("oxbow_ports", Kind::Gauge, "VIFs by how far they are (oxbow ports).");
        for (state, count) in &states {
            metrics.sample("oxbow_ports", &[("state", state)], count);
        }
        metrics.histogram(
            "oxbow_install_latency_seconds",
            "Time of a VIF from its claim until it is installed and reported up.",
            &self.installs.latency,
        );
        let resolved = self.mesh.peers.iter().filter(|peer| peer.hop.is_some()).count();
        metrics.family("oxbow_peers", Kind::Gauge, "Other hypervisors, by whether the next hop towards them is known.");
        metrics.sample("oxbow_peers", &[("state", "resolved")], resolved);
        metrics.sample("oxbow_peers", &[("state", "unresolved")], self.mesh.peers.len() - resolved);
        metrics.family("oxbow_problems", Kind::Gauge, "Problems in force, by topic (oxbow status).");
        for (topic, problems) in &self.problems {
            metrics.sample("oxbow_problems", &[("topic", topic)], problems.len());
        }
    }

    fn policy_metrics(&self, metrics: &mut Exposition) {
        let chassis = self.config.as_ref().and_then(|config| config.system_id.as_deref());
        let wanted = self.sb.global.as_ref().map_or(0, |row| row.nb_cfg);
        let reported = chassis.and_then(|name| self.sb.our_private(name)).map_or(0, |row| row.nb_cfg);
        metrics.single("oxbow_nb_cfg_wanted", Kind::Gauge, "SB_Global.nb_cfg.", wanted);
        metrics.single("oxbow_nb_cfg_reported", Kind::Gauge, "Chassis_Private.nb_cfg of this chassis.", reported);
        metrics.family(
            "oxbow_policy_computations_total",
            Kind::Counter,
            "Policies put in force: computed whole, or by what changed.",
        );
        metrics.sample("oxbow_policy_computations_total", &[("kind", "full")], LFLOW_RUN.total());
        metrics.sample("oxbow_policy_computations_total", &[("kind", "incremental")], POLICY_COMMIT.total());
        let version = self.dataplane.as_ref().map_or(0, |dataplane| dataplane.summary().version);
        metrics.single("oxbow_policy_version", Kind::Gauge, "Version of the policy in force; 0 = none.", version);
        let (flows, ..) = self.world.compiler().sizes();
        metrics.single("oxbow_logical_flows", Kind::Gauge, "Logical flows known here.", flows);
        metrics.single(
            "oxbow_local_datapaths",
            Kind::Gauge,
            "Logical datapaths with a port here.",
            self.world.local().len(),
        );
    }

    /// What the programs count; nothing with another backend, or when a map cannot be read, which the log says.
    fn kernel_metrics(&mut self, metrics: &mut Exposition) {
        let maps = self.maps_report();
        let Ok(inside) = self.inside() else { return };
        let (drops, totals) = match (inside.drop_counts(), inside.totals()) {
            (Ok(drops), Ok(totals)) => (drops, totals),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(target: "dataplane", rate_limit = 5, "cannot read the counters: {error}");
                return;
            }
        };
        metrics.family("oxbow_drops_total", Kind::Counter, "Dropped packets, by reason (oxbow drops).");
        for (reason, count) in &drops {
            metrics.sample("oxbow_drops_total", &[("reason", reason.text())], count.packets);
        }
        metrics.family("oxbow_drop_bytes_total", Kind::Counter, "Dropped bytes, by reason.");
        for (reason, count) in &drops {
            metrics.sample("oxbow_drop_bytes_total", &[("reason", reason.text())], count.bytes);
        }
        let of = |index: u32| totals.get(index as usize).copied().unwrap_or_default();
        metrics.family("oxbow_packets_total", Kind::Counter, "Packets the programs saw, by what became of them.");
        for (index, name) in TOTALS {
            metrics.sample("oxbow_packets_total", &[("kind", name)], of(index).packets);
        }
        metrics.family("oxbow_bytes_total", Kind::Counter, "The same in bytes, Ethernet header included.");
        for (index, name) in TOTALS {
            metrics.sample("oxbow_bytes_total", &[("kind", name)], of(index).bytes);
        }
        metrics.family("oxbow_punts_total", Kind::Counter, "What the programs left to the daemon, by kind.");
        metrics.sample("oxbow_punts_total", &[("kind", "mac_learned")], of(total::FDB_LEARNED).packets);
        metrics.sample("oxbow_punts_total", &[("kind", "next_hop")], NEXT_HOP.total());
        let untold = inside.untold();
        metrics.single(
            "oxbow_monitor_lost_total",
            Kind::Counter,
            "Packets that listeners asked for and were not told: faster than they allowed, or the ring was full.",
            untold,
        );
        metrics.family("oxbow_map_entries", Kind::Gauge, "Entries in use, by map (oxbow status --maps).");
        for map in &maps {
            metrics.sample("oxbow_map_entries", &[("map", &map.map)], map.entries);
        }
        metrics.family("oxbow_map_capacity", Kind::Gauge, "Entries that a map takes.");
        for map in &maps {
            metrics.sample("oxbow_map_capacity", &[("map", &map.map)], map.capacity);
        }
        let times = inside.run_time();
        metrics.family(
            "oxbow_program_run_ns_total",
            Kind::Counter,
            "Nanoseconds that the programs ran; counted while sysctl kernel.bpf_stats_enabled is 1.",
        );
        for (program, nanoseconds, _) in &times {
            metrics.sample("oxbow_program_run_ns_total", &[("program", program)], nanoseconds);
        }
        metrics.family("oxbow_program_runs_total", Kind::Counter, "How often they ran in that time.");
        for (program, _, runs) in &times {
            metrics.sample("oxbow_program_runs_total", &[("program", program)], runs);
        }
    }
}
