//! Texts for appctl.

use super::Engine;
use crate::backend::Backend;
use crate::vif::Phase;
use oxbow_pipeline::ir::DatapathKey;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;

impl Engine {
    /// `ct-zone-list`: a name and its zone a line.
    pub fn zone_list(&self) -> String {
        self.zones.iter().fold(String::new(), |mut text, (name, zone)| {
            let _ = writeln!(text, "{name} {zone}");
            text
        })
    }

    /// `debug/ports`: every interface that names a logical port, and how far it is.
    pub fn ports_text(&self) -> String {
        let mut text = String::new();
        for (interface, state) in &self.states.states {
            let _ = write!(text, "{interface} {} {}", state.iface_id, state.phase.name());
            if let Some(ifindex) = state.ifindex {
                let _ = write!(text, " ifindex={ifindex}");
            }
            if let Some(reason) = state.phase.reason() {
                let _ = write!(text, " reason=\"{reason}\"");
            }
            text.push('\n');
        }
        text
    }

    /// `debug/problems`.
    pub fn problems_text(&self) -> String {
        self.problems.iter().fold(String::new(), |mut text, (topic, problems)| {
            for problem in problems {
                let _ = writeln!(text, "{topic}: {problem}");
            }
            text
        })
    }

    /// `debug/dump-local-bindings`.
    pub fn bindings_text(&self) -> String {
        let mut text = String::from("Local bindings:\n");
        for (interface, state) in &self.states.states {
            let serve: Vec<_> = self.states.serve.iter().filter(|vif| Some(vif.ifindex) == state.ifindex).collect();
            let _ = writeln!(
                text,
                "name: [{}], OVS interface name : [{interface}], num binding lports : [{}]",
                state.iface_id,
                serve.len()
            );
            for vif in serve {
                let kind = match (vif.localport, vif.vlan) {
                    (true, _) => "localport",
                    (_, 0) => "primary",
                    _ => "container",
                };
                let _ = writeln!(text, "{kind} lport : [{}]", vif.name);
            }
            text.push_str("----------------------------------------\n");
        }
        text
    }

    /// `debug/dump-local-datapaths`.
    pub fn datapaths_text(&self) -> String {
        let mut text = String::from("Local datapaths:\n");
        for (uuid, DatapathKey(key)) in self.world.local() {
            let ids = self.sb.datapaths.get(uuid).map(|row| &row.external_ids);
            let name = ids.and_then(|ids| ids.get("name")).map_or("", String::as_str);
            let kind = if ids.is_some_and(|ids| ids.contains_key("logical-router")) { "router" } else { "switch" };
            let _ = writeln!(text, "Datapath: {name}, tunnel_key {key}, type: {kind}");
        }
        text
    }

    /// `status`: one screen.
    pub fn status_text(
        &self,
        ovs_remote: &str,
        sb_status: &str,
        sb_remote: Option<&str>,
        sb_error: Option<&str>,
    ) -> String {
        let mut text = String::new();
        let config = self.config.as_ref();
        let name = config.and_then(|config| config.system_id.as_deref()).unwrap_or("(none)");
        let _ = writeln!(text, "Chassis: {name}");
        let ovs_status = if self.ovs_line.synchronized { "connected" } else { "not connected" };
        let _ = writeln!(text, "Open_vSwitch: {ovs_status} ({ovs_remote})");
        let _ = writeln!(
            text,
            "Southbound: {sb_status}{}",
            sb_remote.map(|remote| format!(" ({remote})")).unwrap_or_default()
        );
        if let Some(error) = sb_error {
            let _ = writeln!(text, "Southbound error: {error}");
        }
        let (nb, ours) = (
            self.sb.global.as_ref().map_or(0, |row| row.nb_cfg),
            self.sb.our_private(name).map_or(0, |row| row.nb_cfg),
        );
        let _ = writeln!(text, "nb_cfg: {ours} of {nb}");
        let installed = self.states.states.values().filter(|state| state.phase.name() == "installed").count();
        let _ = writeln!(text, "Ports: {installed} of {} installed", self.states.states.len());
        let _ = writeln!(text, "Local datapaths: {}", self.world.local().len());
        let (flows, matches, actions) = self.world.compiler().sizes();
        let _ = writeln!(text, "Logical flows: {flows} ({matches} distinct matches, {actions} distinct action lists)");
        let resolved = self.mesh.peers.iter().filter(|peer| peer.hop.is_some() || peer.ofport.is_some()).count();
        let _ = writeln!(text, "Peers: {resolved} of {} resolved", self.mesh.peers.len());
        let backend = match self.settings.backend {
            Backend::Ebpf => "ebpf",
            Backend::OpenFlow => "openflow",
            Backend::None => "none",
        };
        let _ = writeln!(text, "Backend: {backend}");
        let vswitchd = match (self.vswitchd, self.settings.backend) {
            (Some(pid), _) => format!("pid {pid}"),
            (None, Backend::OpenFlow) => "no pid file".to_owned(),
            (None, _) => "not running, served from here".to_owned(),
        };
        let _ = writeln!(text, "ovs-vswitchd: {vswitchd}");
        let _ = writeln!(text, "Problems: {}", self.problems.values().map(Vec::len).sum::<usize>());
        text
    }

    /// Whether everything that should be is in force.
    pub fn is_ready(&self) -> bool {
        self.dataplane.as_ref().is_some_and(|dataplane| dataplane.is_active()) && self.commit_error.is_none()
    }

    /// Our name, if the Southbound database has no Chassis of that name.
    pub fn unregistered(&self) -> Option<&str> {
        let name = self.config.as_ref()?.system_id.as_deref()?;
        self.sb.our_chassis(name).is_none().then_some(name)
    }

    /// What keeps everything from being in force, for people.
    pub fn unsettled(&self) -> String {
        let waiting: Vec<String> = self
            .states
            .states
            .iter()
            .filter(|(_, state)| matches!(state.phase, Phase::WaitingData | Phase::NoChassis))
            .map(|(interface, state)| format!("{interface} is {}", state.phase.name()))
            .collect();
        let conditions = if self.watch.is_complete() { "answered" } else { "not answered" };
        let error = self.commit_error.as_deref().or(self.open_error.as_deref()).unwrap_or("no error");
        format!("conditions: {conditions}; dataplane: {error}; waiting: {}", waiting.join(", "))
    }

    /// Flows and groups as the dataplane holds them, where it holds such.
    pub fn flows_text(&self) -> Option<String> {
        self.dataplane.as_ref().and_then(|dataplane| dataplane.flows_text())
    }

    /// `debug/dataplane`.
    pub fn dataplane_text(&mut self) -> String {
        let mut text = match &mut self.dataplane {
            Some(dataplane) => dataplane.describe(),
            None => format!("not open: {}\n", self.open_error.as_deref().unwrap_or("no system-id")),
        };
        for peer in &self.mesh.peers {
            let hop = match (peer.hop, peer.ofport) {
                (Some(hop), _) => {
                    format!("ifindex {} via {} mtu {}", hop.ifindex, crate::fdb::format_mac(hop.destination), hop.mtu)
                }
                (None, Some(port)) => format!("port {port}"),
                (None, None) => "unresolved".to_owned(),
            };
            let kind = if peer.vxlan { "vxlan" } else { "geneve" };
            let _ =
                writeln!(text, "peer {} {} {kind} {} -> {} {hop}", peer.index, peer.chassis, peer.local, peer.remote);
        }
        text
    }

    /// `debug/dump-dataplane`: what the dataplane has in force, in words that do not depend on how it came to be.
    ///
    /// # Errors
    /// What the dataplane says, or that there is none.
    pub fn content_text(&mut self) -> Result<String, String> {
        let Some(dataplane) = &mut self.dataplane else {
            return Err(self.open_error.clone().unwrap_or_else(|| "no system-id".to_owned()));
        };
        let compiler = self.world.compiler();
        let name = |flow| {
            compiler
                .flow(oxbow_pipeline::ir::LflowId(flow))
                .map_or_else(|| "no flow".to_owned(), |row| row.uuid.to_string())
        };
        let lines = dataplane.content(&name).map_err(|error| error.to_string())?;
        Ok(lines.into_iter().map(|line| line + "\n").collect())
    }

    /// `drops`: packets by the reason why they were dropped, then the logical flows that dropped some.
    ///
    /// # Errors
    /// What the dataplane says, or that there is none.
    pub fn drops_text(&mut self) -> Result<String, String> {
        let Some(dataplane) = &mut self.dataplane else {
            return Err(self.open_error.clone().unwrap_or_else(|| "no system-id".to_owned()));
        };
        let mut text = String::new();
        for (reason, packets) in dataplane.drops().map_err(|error| error.to_string())? {
            let _ = writeln!(text, "{packets} packets: {reason}");
        }
        let flows = self.world.compiler().flows();
        let mut dropping: Vec<_> = flows.filter(|(_, row)| row.actions.trim() == "drop;").collect();
        dropping.sort_unstable_by_key(|(_, row)| (row.pipeline.as_str(), row.stage, row.uuid));
        for (id, row) in dropping {
            let packets = dataplane.flow_packets(id.0).map_err(|error| error.to_string())?;
            if packets != 0 {
                let _ = writeln!(
                    text,
                    "{packets} packets: logical flow {} ({} table {} {}, priority {}, match \"{}\", actions \"{}\")",
                    row.uuid,
                    row.pipeline.as_str(),
                    row.stage,
                    row.stage_name,
                    row.priority,
                    row.matches,
                    row.actions
                );
            }
        }
        Ok(text)
    }

    /// `lflow-cache/show-stats`.
    pub fn cache_text(&self) -> String {
        let (flows, matches, actions) = self.world.compiler().sizes();
        format!("Enabled: true\ncache-expr      : {matches}\ncache-actions   : {actions}\nflows           : {flows}\n")
    }

    /// `debug/pause` and `debug/resume`.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// `debug/status`.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// `debug/delay-nb-cfg-report`.
    pub fn delay_report(&mut self, seconds: u64) {
        self.generations.delay_s = seconds;
    }

    /// A descriptor that is readable when the dataplane has events.
    pub fn event_descriptor(&self) -> Option<OwnedFd> {
        self.dataplane.as_ref().and_then(|dataplane| dataplane.event_descriptor())
    }

    /// How long the dataplane's events are let gather.
    pub fn event_pause(&self) -> std::time::Duration {
        self.dataplane.as_ref().map_or(std::time::Duration::ZERO, |dataplane| dataplane.event_pause())
    }

    /// How often the dataplane was opened: the descriptor of its events changes with it.
    pub fn dataplane_serial(&self) -> u64 {
        self.dataplane_serial
    }
}
