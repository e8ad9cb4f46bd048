//! `oxbow/status`, `oxbow/ports`, and the rule of readiness.

use super::super::{Engine, LFLOW_RUN, POLICY_COMMIT};
use super::Surroundings;
use crate::vif::Phase;
use oxbow_report::ports::{Port, Ports};
use oxbow_report::status::{
    Computations, Daemon, Database, Dataplane, MapFill, NbCfg, Peer, Ports as PortCounts, Problem, Status,
};

impl Engine {
    /// Why this hypervisor is not ready, a sentence each; nothing = it is. `/readyz`, `oxbow status` and its exit status go by this.
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.ovs_line.synchronized {
            reasons.push("Open_vSwitch is not connected: new VIFs wait".to_owned());
        }
        let has_name = self.config.as_ref().is_some_and(|config| config.system_id.is_some());
        if self.ovs_line.ever && !has_name {
            reasons.push("external_ids:system-id is not set".to_owned());
        }
        if !self.sb_line.synchronized {
            reasons.push("OVN_Southbound is not connected: changes of policy wait".to_owned());
        }
        if let Some(mismatch) = self.problems.get("northd version") {
            reasons.extend(mismatch.iter().map(|text| format!("changes of policy wait: {text}")));
        }
        if self.paused {
            reasons.push("paused by command: `ovn-appctl -t oxbow-node debug/resume`".to_owned());
        }
        match &self.dataplane {
            None if has_name => {
                reasons.push(self.open_error.clone().unwrap_or_else(|| "the dataplane is not open yet".to_owned()));
            }
            None => {}
            Some(dataplane) if !dataplane.is_active() => {
                reasons.push("no policy is in force yet: the first one is being computed".to_owned());
            }
            Some(_) => {}
        }
        if let Some(error) = &self.commit_error {
            reasons.push(format!("the newest policy is not in force: {error}"));
        }
        reasons
    }

    /// Every VIF.
    pub fn ports_report(&self) -> Ports {
        let mut ports = Vec::new();
        let backend = self.dataplane.as_ref().map(|dataplane| dataplane.summary().backend.to_owned());
        for (interface, state) in &self.states.states {
            // An interface's own port, and those nested in it.
            let mut served: Vec<_> =
                self.states.serve.iter().filter(|vif| state.ifindex == Some(vif.ifindex)).collect();
            served.sort_by_key(|vif| (vif.name != state.iface_id, vif.name.clone()));
            let own = served.iter().find(|vif| vif.name == state.iface_id).copied();
            let installed = matches!(state.phase, Phase::Installed);
            let mut port = Port {
                port: state.iface_id.clone(),
                interface: interface.clone(),
                state: state.phase.name().to_owned(),
                reason: state.phase.reason(),
                ifindex: state.ifindex,
                mode: backend.clone().filter(|_| installed),
                ..Port::default()
            };
            if let Some(vif) = own {
                port.datapath = Some(self.datapath_name(vif.at.datapath));
                port.keys = Some((vif.at.datapath, vif.at.port));
                port.zone = Some(vif.zone);
            }
            ports.push(port);
            for vif in served.into_iter().filter(|vif| vif.name != state.iface_id) {
                let is_in_force = self.committed.contains(vif) && installed;
                ports.push(Port {
                    port: vif.name.clone(),
                    interface: interface.clone(),
                    state: if is_in_force { "installed" } else { "programming" }.to_owned(),
                    reason: None,
                    ifindex: Some(vif.ifindex),
                    vlan: Some(vif.vlan).filter(|vlan| *vlan != 0),
                    datapath: Some(self.datapath_name(vif.at.datapath)),
                    keys: Some((vif.at.datapath, vif.at.port)),
                    mode: backend.clone().filter(|_| is_in_force),
                    zone: Some(vif.zone),
                });
            }
        }
        Ports { ports }
    }

    /// One screen.
    pub fn status_report(&mut self, around: &Surroundings) -> Status {
        let not_ready = self.not_ready();
        let chassis = self.config.as_ref().and_then(|config| config.system_id.clone());
        let private = chassis.as_deref().and_then(|name| self.sb.our_private(name));
        let nb_cfg = NbCfg {
            wanted: self.sb.global.as_ref().map_or(0, |row| row.nb_cfg),
            reported: private.map_or(0, |row| row.nb_cfg),
        };
        let (logical_flows, ..) = self.world.compiler().sizes();
        Status {
            ready: not_ready.is_empty(),
            not_ready,
            daemon: Daemon {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime_s: around.wall_ms.saturating_sub(self.settings.started_ms) / 1000,
                paused: self.paused,
            },
            chassis,
            databases: vec![
                Database {
                    name: "Open_vSwitch".to_owned(),
                    remote: Some(around.ovs.0.clone()),
                    connected: self.ovs_line.synchronized,
                    error: around.ovs.1.clone(),
                },
                Database {
                    name: "OVN_Southbound".to_owned(),
                    remote: around.sb.0.clone(),
                    connected: self.sb_line.synchronized,
                    error: around.sb.1.clone(),
                },
            ],
            nb_cfg,
            ports: self.port_counts(),
            datapaths: self.world.local().len() as u64,
            logical_flows: logical_flows as u64,
            peers: self.peers_report(),
            computations: Computations { full: LFLOW_RUN.total(), incremental: POLICY_COMMIT.total() },
            ovs_vswitchd: self.vswitchd,
            maps: self.maps_report(),
            dataplane: self.dataplane_report(),
            problems: self.problems_report(),
        }
    }

    fn dataplane_report(&self) -> Dataplane {
        let error = self.open_error.clone().or_else(|| self.commit_error.clone());
        match &self.dataplane {
            Some(dataplane) => {
                let summary = dataplane.summary();
                Dataplane {
                    backend: summary.backend.to_owned(),
                    active: dataplane.is_active(),
                    version: summary.version,
                    hook: summary.hook,
                    error,
                }
            }
            None => Dataplane { backend: "none".to_owned(), error, ..Dataplane::default() },
        }
    }

    fn port_counts(&self) -> PortCounts {
        let ports = self.ports_report().ports;
        let under_way = self.states.states.values().filter(|state| state.phase.is_under_way()).count() as u64;
        let total = ports.len() as u64;
        let not_installed: Vec<Port> = ports.into_iter().filter(|port| !port.is_installed()).collect();
        PortCounts { total, installed: total - not_installed.len() as u64, under_way, not_installed }
    }

    fn peers_report(&self) -> Vec<Peer> {
        self.mesh
            .peers
            .iter()
            .map(|peer| Peer {
                chassis: peer.chassis.clone(),
                encap: if peer.vxlan { "vxlan" } else { "geneve" }.to_owned(),
                local: peer.local.to_string(),
                remote: peer.remote.to_string(),
                resolved: peer.hop.is_some(),
                device: peer.hop.map(|hop| self.device_name(hop.ifindex)),
                mtu: peer.hop.map(|hop| hop.mtu),
            })
            .collect()
    }

    /// How full the maps are; nothing where there are none or they cannot be read, which is a problem of its own.
    pub(super) fn maps_report(&mut self) -> Vec<MapFill> {
        let Ok(inside) = self.inside() else { return Vec::new() };
        match inside.fill() {
            Ok(fill) => fill
                .into_iter()
                .map(|one| MapFill {
                    map: one.map.to_owned(),
                    entries: one.entries,
                    capacity: one.capacity,
                    cache: one.cache,
                })
                .collect(),
            Err(error) => {
                tracing::warn!(target: "dataplane", rate_limit = 5, "cannot tell how full the maps are: {error}");
                Vec::new()
            }
        }
    }

    fn problems_report(&self) -> Vec<Problem> {
        let of = |(topic, texts): (&&'static str, &Vec<String>)| {
            let topic = (*topic).to_owned();
            texts.iter().map(move |text| Problem { topic: topic.clone(), text: text.clone() }).collect::<Vec<_>>()
        };
        self.problems.iter().flat_map(of).collect()
    }
}
