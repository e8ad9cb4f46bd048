//! The dataplane's part of a step: opening it, devices, peers, commits, events.

use super::{Engine, LFLOW_RUN, POLICY_COMMIT, RETRY_MS};
use crate::backend::{Backend, Beside, Numbering};
use crate::config::Config;
use crate::dataplane::{DataplaneError, Event, LocalVif, Versions};
use crate::rows::{Chassis, Uuid};
use crate::vif::{Outcome as VifOutcome, Phase, Ports};
use crate::world::World;
use oxbow_daemon::stopwatch;
use oxbow_ovsdb::Replica;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A switch that does not answer is tried again after this long: it may be starting.
const UNREACHABLE_MS: u64 = 200;

impl Engine {
    /// Opens the dataplane once the chassis has a name, again under a new name, and anew when a recomputation was asked for.
    pub(super) fn open_dataplane(&mut self, replica: Option<&Replica>, now_ms: u64) {
        let Some(system_id) = self.config.as_ref().and_then(|config| config.system_id.clone()) else { return };
        if let (Beside::Refused(text), None) = (&self.beside, &self.dataplane) {
            // One that is open already goes on: the switch has no flows, and passes nothing.
            self.open_error = Some(text.clone());
            return;
        }
        let Some(config) = self.config.as_ref() else { return };
        let place = match self.settings.backend {
            Backend::OpenFlow => (system_id.clone(), config.bridge.clone(), config.bridge_remote.clone()),
            // Programs and pins know no bridge.
            Backend::Ebpf | Backend::None => (system_id.clone(), String::new(), None),
        };
        let other_name = self.opened_for.as_ref().is_some_and(|opened| *opened != place);
        if other_name && let Some(dataplane) = self.dataplane.take() {
            if let Err(error) = dataplane.remove_everything() {
                tracing::warn!(target: "dataplane", "cannot remove what was pinned under the former name: {error}");
            }
            self.rebuild = true;
        }
        if self.rebuild {
            // A new instance beside the one in force, which takes over when it is complete: as after a restart.
            self.dataplane = None;
        }
        if self.dataplane.is_some() || now_ms < self.retry_kernel_at_ms && self.open_error.is_some() {
            return;
        }
        match (self.open)(&system_id, config) {
            Ok(dataplane) => {
                self.taken_over.extend(dataplane.taken_over());
                self.dataplane_serial += 1;
                self.dataplane = Some(dataplane);
                self.opened_for = Some(place);
                self.open_error = None;
                self.is_silent = false;
                self.attached.clear();
                self.underlays.clear();
                self.committed.clear();
                self.under_way.clear();
                self.answered = false;
                self.commit_error = None;
                self.shortages.clear();
                self.rebuild = false;
                self.world = match replica {
                    Some(replica) => {
                        let rows = crate::view::sb_tables().into_iter().flat_map(|table| replica.rows(table));
                        World::from_rows(&self.sb, rows)
                    }
                    None => World::default(),
                };
            }
            Err(error) => {
                self.is_silent = matches!(error, DataplaneError::Unreachable(_));
                let pause = if self.is_silent { UNREACHABLE_MS } else { super::TICK_MS };
                self.retry_kernel_at_ms = now_ms + pause;
                self.open_error = Some(error.to_string());
            }
        }
    }

    /// Tells what keeps the dataplane from working at all.
    fn tell_trouble(&mut self) {
        let trouble = self.dataplane.as_ref().and_then(|dataplane| dataplane.trouble());
        let errors = self.open_error.clone().or(trouble).into_iter().collect();
        self.tell("dataplane", errors);
    }

    /// Takes what the dataplane tells: addresses learned, next hops missed, drops sampled. True when a decision may depend on it.
    pub fn follow_events(&mut self) -> bool {
        let Some(dataplane) = &mut self.dataplane else { return false };
        let mut matters = false;
        for event in dataplane.events() {
            match event {
                Event::Learned { address, port } => {
                    self.fdb.learned(address, port);
                    matters = true;
                }
                Event::SwitchGone => {
                    // The commit that is tried again finds the next one, and gives it everything.
                    self.commit_error = Some("the switch is gone".to_owned());
                    self.retry_kernel_at_ms = 0;
                    matters = true;
                }
                Event::SwitchAnswered => {
                    self.answered = true;
                    matters = true;
                }
                Event::NextHop { peer } => {
                    super::NEXT_HOP.hit();
                    tracing::debug!(target: "tunnel", "peer {peer} waits for its next hop");
                    matters = true;
                }
                Event::Dropped { reason, datapath, port, flow } => {
                    tracing::debug!(target: "drops", "{reason} on datapath {datapath} from port {port}, flow {flow}");
                }
            }
        }
        matters
    }

    /// Things to do by the clock.
    pub(super) fn tidy_dataplane(&mut self) {
        if let Some(dataplane) = &mut self.dataplane
            && self.tick
            && let Err(error) = dataplane.tidy()
        {
            tracing::warn!(target: "dataplane", "{error}");
        }
        self.tell_trouble();
    }

    pub(super) fn update_mesh(&mut self, config: &Config, now_ms: u64) {
        let chassis: Vec<Chassis> = self.sb.chassis.values().cloned().collect();
        let mut mesh = self.tunnels.mesh(config, &chassis, &self.sb.encaps, &|_, _| None);
        if self.settings.backend == Backend::OpenFlow {
            // The switch has the tunnels, and finds their ways.
            if let Some(bridge) = self.ovs.bridge(&config.bridge) {
                let ports: Vec<_> = bridge.ports.iter().filter_map(|uuid| self.ovs.ports.get(uuid)).collect();
                crate::tunnel_ports::number(&mut mesh.peers, &ports, &self.ovs.interfaces);
            }
            self.mesh = mesh;
            return;
        }
        let devices = self.kernel.resolve(&mut mesh.peers, &config.encap_ips, now_ms);
        self.mesh = mesh;
        self.attach_underlays(devices);
    }

    fn attach_underlays(&mut self, devices: BTreeSet<u32>) {
        let Some(dataplane) = &mut self.dataplane else { return };
        let mut errors = Vec::new();
        for ifindex in self.underlays.difference(&devices) {
            dataplane.detach_underlay(*ifindex);
        }
        let mut attached: BTreeSet<u32> = self.underlays.intersection(&devices).copied().collect();
        for ifindex in devices.difference(&attached.clone()) {
            let Some(link) = self.kernel.links.get(*ifindex) else { continue };
            match dataplane.attach_underlay(*ifindex, &link.name) {
                Ok(()) => {
                    tracing::info!(target: "tunnel", "tunnels arrive on {}", link.name);
                    attached.insert(*ifindex);
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        self.underlays = attached;
        self.tell("underlay", errors);
    }

    /// Brings the kernel to what was decided. True when something was acknowledged that was not before.
    pub(super) fn program(&mut self, config: &Config, out: &VifOutcome, ours: Option<&Chassis>, now_ms: u64) -> bool {
        let local = self.local_datapaths(out);
        let names = self.zone_names(out, &local);
        let before = self.zones.clone();
        let without = self.zones.assign(&names, config.zone_range, self.may_forget_zones());
        let without =
            without.into_iter().map(|name| format!("no conntrack zone left in ct-zone-range for {name}")).collect();
        self.tell("conntrack zones", without);
        // A VIF with another zone is another VIF: the pass that follows asks for it, and that one is to be committed.
        if before != self.zones {
            return true;
        }
        let mut progress = self.attach_vifs(config);
        progress |= self.listen(config, out);
        if self.dataplane.is_none() {
            return progress;
        }
        let us = ours.map(|row| row.uuid);
        // Before its rows are here there is nothing in a datapath to put in force: that would only be one commit more to wait for.
        let has_come = |uuid: &Uuid| self.watch.has_data(*uuid) || self.world.local().contains_key(uuid);
        let local: BTreeSet<Uuid> = local.into_iter().filter(has_come).collect();
        let keys: BTreeSet<u32> = local.iter().filter_map(|uuid| self.sb.datapath_key(*uuid)).collect();
        let serve: Vec<LocalVif> = out.serve.iter().filter(|vif| keys.contains(&vif.at.datapath)).cloned().collect();
        let changes = stopwatch::time("flow-generation", || self.world.place(&self.sb, &local, &serve, &self.mesh, us));
        self.world_changed |= !changes.is_empty();
        let Some(dataplane) = &mut self.dataplane else { return progress };
        let wanted: HashSet<LocalVif> = serve.into_iter().collect();
        let answered = std::mem::take(&mut self.answered);
        let is_short = self.commit_error.is_some() || !self.shortages.is_empty();
        let retry = is_short && now_ms >= self.retry_kernel_at_ms;
        // A peer that there is no room for is no reason to hold back the policy, and what changed in it must reach the dataplane whatever
        // happens: it is told once.
        let (peer_error, tried) = stopwatch::time("flow-installation", || {
            let (peers, peer_error) = dataplane.set_peers(&self.mesh.peers);
            let asked = self.under_way.back().map_or(&self.committed, |(_, asked)| asked);
            let is_new = self.commit_error.is_none() && *asked != wanted;
            let is_due = peers || retry || answered || is_new || !changes.is_empty();
            let compiler = self.world.compiler();
            let cookies = |id| compiler.flow(id).map_or(0, |row| u64::try_from(row.uuid.0 >> 96).unwrap_or(0));
            (peer_error, is_due.then(|| dataplane.commit(compiler.program(), &changes, &cookies)))
        });
        match tried {
            // Nothing to do, or not before the time to try again.
            None => {}
            Some(Ok(Versions { asked, in_force })) => {
                POLICY_COMMIT.hit();
                if dataplane.is_active() {
                    super::nodes::count_commit(&mut self.stats);
                }
                match self.under_way.back_mut() {
                    Some((version, latest)) if *version == asked => *latest = wanted,
                    _ => self.under_way.push_back((asked, wanted)),
                }
                while self.under_way.front().is_some_and(|(version, _)| *version <= in_force)
                    && let Some((_, served)) = self.under_way.pop_front()
                {
                    progress |= self.committed != served;
                    self.committed = served;
                    // As long as nothing has come into force, what was wrong last is all that is known.
                    self.commit_error = None;
                }
                // What there is no room for waits alone.
                let shortages = dataplane.shortages();
                progress |= self.shortages != shortages;
                self.shortages = shortages;
                if !self.shortages.is_empty() {
                    self.retry_kernel_at_ms = now_ms + RETRY_MS;
                }
            }
            Some(Err(error)) => {
                let pause = if matches!(error, DataplaneError::Unreachable(_)) { UNREACHABLE_MS } else { RETRY_MS };
                self.retry_kernel_at_ms = now_ms + pause;
                let error = Some(error.to_string());
                // Those who wait for the commit are told why they wait.
                progress |= self.commit_error != error;
                self.commit_error = error;
            }
        }
        let errors = peer_error.map(|error| error.to_string()).into_iter().collect();
        self.tell("peers", errors);
        let short = self.shortages.iter().map(|(_, text)| text.clone());
        let errors = self.commit_error.clone().into_iter().chain(short).collect();
        self.tell("commit", errors);
        progress | self.activate(out)
    }

    /// Lets the devices go over to what is committed, once it is whole: what a former process left forwards until then.
    fn activate(&mut self, out: &VifOutcome) -> bool {
        let is_whole = self.commit_error.is_none()
            && !self.shortages.iter().any(|(port, _)| port.is_some())
            && self.sb_line.synchronized
            && self.watch.is_complete()
            && self.pending_interest.is_none()
            && !out.states.values().any(|state| matches!(state.phase, Phase::WaitingData | Phase::NoChassis));
        let Some(dataplane) = &mut self.dataplane else { return false };
        if dataplane.is_active() || !is_whole {
            return false;
        }
        match dataplane.activate(self.world.compiler().program()) {
            Ok(true) => {
                tracing::info!(target: "dataplane", "the dataplane is in force");
                LFLOW_RUN.hit();
                self.stats.full();
                self.tell("activation", Vec::new());
                true
            }
            Ok(false) => false,
            Err(error) => {
                self.tell("activation", vec![error.to_string()]);
                false
            }
        }
    }

    /// Attaches every device of the integration bridge that names a logical port, bound or not: an unbound one passes nothing.
    ///
    /// Attaching takes a grace period. One that is new waits for it after its claim is on its way, not before: until the server has said
    /// whether there is such a port, which takes it no time, only if it is there to answer.
    fn attach_vifs(&mut self, config: &Config) -> bool {
        let is_asking = self.sb_line.synchronized && !self.watch.is_complete();
        let wanted: BTreeMap<u32, (String, bool)> = self
            .vif_interfaces(config)
            .into_iter()
            .filter_map(|interface| {
                let is_known = interface.row.iface_id().is_some_and(|id| Ports::by_name(&self.sb, id).is_some());
                Some((interface.ifindex?, (interface.row.name, is_asking && !is_known)))
            })
            .collect();
        let numbering = self.settings.backend.numbering();
        let Some(dataplane) = &mut self.dataplane else { return false };
        let mut changed = false;
        let gone: Vec<u32> = self.attached.keys().filter(|ifindex| !wanted.contains_key(ifindex)).copied().collect();
        for ifindex in gone {
            dataplane.detach_vif(ifindex);
            self.attached.remove(&ifindex);
            self.taken_over.remove(&ifindex);
        }
        for (ifindex, (name, is_early)) in wanted {
            let is_new = match self.attached.get(&ifindex) {
                None => !is_early,
                // A refusal is tried again by the clock.
                Some(Err(_)) => self.tick,
                Some(Ok(())) => false,
            };
            if is_new {
                // A device may have been renamed since it was plugged in.
                let link = self.kernel.links.get(ifindex).filter(|_| numbering == Numbering::Ifindex);
                let device = link.map_or(name.as_str(), |link| link.name.as_str());
                let result = dataplane.attach_vif(ifindex, device).map_err(|error| error.to_string());
                changed |= self.attached.get(&ifindex) != Some(&result);
                self.attached.insert(ifindex, result);
            }
        }
        changed
    }

    /// Flows that are not executed as written, ports that are not served.
    pub(super) fn list_problems(&mut self) {
        let compiler = self.world.compiler();
        let mut flows: Vec<String> = compiler.problems().iter().map(ToString::to_string).collect();
        if let Some(dataplane) = &self.dataplane {
            for (number, text) in dataplane.problems() {
                let row = compiler.flow(oxbow_pipeline::ir::LflowId(number));
                flows.push(match row {
                    Some(row) => format!(
                        "logical flow {} ({} table {} {}, priority {}, match \"{}\", actions \"{}\"): {text}",
                        row.uuid,
                        row.pipeline.as_str(),
                        row.stage,
                        row.stage_name,
                        row.priority,
                        row.matches,
                        row.actions
                    ),
                    None => text,
                });
            }
        }
        let security = compiler
            .bad_port_security()
            .into_iter()
            .map(|(port, bad)| format!("port security of {}: {bad:?}", port.name))
            .collect();
        let mut ports: Vec<String> = Vec::new();
        let most_places = self.dataplane.as_ref().and_then(|dataplane| dataplane.most_places());
        for datapath in self.world.local().keys() {
            for port in self.sb.ports_of(*datapath) {
                if matches!(port.kind.as_str(), "localnet" | "l2gateway" | "vtep") {
                    ports.push(format!(
                        "logical port {} of type {} is not served: packets to it are dropped",
                        port.logical_port, port.kind
                    ));
                }
                let places = usize::from(port.chassis.is_some()) + port.additional_chassis.len();
                if let Some(most) = most_places.filter(|most| places > *most) {
                    ports.push(format!(
                        "logical port {} is bound to {places} chassis at once: packets to it reach {most} of them until the migration ends",
                        port.logical_port
                    ));
                }
            }
        }
        let tunnels = self.mesh.problems.clone();
        self.tell("logical flows", flows);
        self.tell("port security", security);
        self.tell("ports", ports);
        self.tell("tunnels", tunnels);
    }

    /// A full recomputation: everything anew beside what is in force (`recompute`).
    pub fn recompute(&mut self) {
        self.rebuild = true;
    }
}
