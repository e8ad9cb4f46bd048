//! The Southbound database's part of a step: registration, VIFs, what to watch, zones, learned addresses, the generation.

use super::{Engine, LIST_MS, Orders};
use crate::backend::{Backend, Beside};
use crate::claim::Me;
use crate::conditions::conditions;
use crate::config::Config;
use crate::dataplane::{FdbAddress, LocalVif};
use crate::generation::{Due, Progress};
use crate::locality::{Interest, local_datapaths};
use crate::registration::{self, Host};
use crate::rows::{Chassis, Uuid};
use crate::vif::InterfaceWrite;
use crate::vif::{Inputs, Outcome as VifOutcome, Ports, Served, VifInterface};
use crate::writes;
use crate::zones::{Zones, nat_zone};
use oxbow_ovsdb::Transaction;
use oxbow_schema::sb;
use std::collections::BTreeSet;

impl Engine {
    pub(super) fn serve_southbound(
        &mut self,
        local: &mut Transaction,
        south: &mut Transaction,
        orders: &mut Orders,
        now_ms: u64,
        wall_ms: u64,
    ) {
        let Some(config) = self.config.clone() else { return };
        self.register(&config, south, now_ms);
        let Some(system_id) = config.system_id.clone() else { return };
        if let Some(bridge) = self.ovs.bridge(&config.bridge).filter(|_| !self.zones_restored) {
            self.zones = Zones::restore(&bridge.external_ids, config.zone_range);
            self.zones_restored = true;
        }
        let ours = self.sb.our_chassis(&system_id).cloned();
        self.update_mesh(&config, now_ms);
        if self.is_silent {
            // Which ports a former process's flows serve is not known: nothing is decided about them.
            return;
        }
        let mut out = self.pass(&config, ours.as_ref(), now_ms, wall_ms);
        if !out.ports.is_empty() && self.sb_line.can_write(now_ms)
            || self.watch.differs(&self.interest(&config, &out, ours.as_ref()))
        {
            // Claims, releases and questions are on their way while the kernel is busy with what comes next.
            self.hand_out(&config, &out, ours.as_ref(), local, south, orders, now_ms, wall_ms);
            if !south.is_empty() || orders.conditions.is_some() {
                self.installs.look(&out.states, now_ms);
                self.states = out;
                self.cut_here(orders);
                return;
            }
        }
        // Zones, commit and activation, and one to find nothing new.
        for _ in 0..4 {
            if !self.program(&config, &out, ours.as_ref(), now_ms) {
                break;
            }
            out = self.pass(&config, ours.as_ref(), now_ms, wall_ms);
        }
        self.hand_out(&config, &out, ours.as_ref(), local, south, orders, now_ms, wall_ms);
        self.report_generation(&config, &out, ours.is_some(), local, south, orders, now_ms, wall_ms);
        self.installs.look(&out.states, now_ms);
        self.states = out;
        if south.is_empty() && self.awaits_stage_names() && self.watch.is_complete() && self.sb_line.can_write(now_ms) {
            self.world.ask_stage_names(&self.sb, south);
        }
        if self.world_changed && now_ms >= self.list_at_ms && !self.awaits_stage_names() {
            self.world_changed = false;
            self.list_at_ms = now_ms + LIST_MS;
            self.list_problems();
        }
    }

    /// Says and writes what a pass decided.
    #[expect(clippy::too_many_arguments, reason = "two transactions and two clocks")]
    fn hand_out(
        &mut self,
        config: &Config,
        out: &VifOutcome,
        ours: Option<&Chassis>,
        local: &mut Transaction,
        south: &mut Transaction,
        orders: &mut Orders,
        now_ms: u64,
        wall_ms: u64,
    ) {
        for note in &out.notes {
            // A pass that cannot write decides the same again; it is told when it is written.
            if note.warning {
                tracing::warn!(target: "binding", "{}", note.text);
            }
        }
        self.tell("activation strategies", out.problems.clone());
        orders.wake_at_ms = out.wake_at_ms;
        self.watch_more(config, out, ours, orders);
        if self.ovs_line.can_write(now_ms) {
            writes::interfaces(local, &out.interfaces);
            self.forget_interfaces(config, local);
            self.write_zones(config, local);
            self.write_tunnel_ports(config, local);
        }
        if self.sb_line.can_write(now_ms) {
            for note in out.notes.iter().filter(|note| !note.warning) {
                tracing::info!(target: "binding", "{}", note.text);
            }
            writes::ports(south, &out.ports);
            let sb = &self.sb;
            self.vifs.claims_sent(out, &|uuid| sb.ports.get(&uuid).map(|port| port.logical_port.clone()), now_ms);
            self.write_fdb(south, now_ms, wall_ms);
        }
    }

    fn register(&mut self, config: &Config, south: &mut Transaction, now_ms: u64) {
        if let (Some(former), Some(name)) = (self.registered_as.clone(), &config.system_id)
            && former != *name
            && self.sb_line.can_write(now_ms)
        {
            for row in self.sb.chassis.values().filter(|row| row.name == former) {
                south.delete(sb::chassis::TABLE, row.uuid);
            }
            for row in self.sb.private.values().filter(|row| row.name == former) {
                south.delete(sb::chassis_private::TABLE, row.uuid);
            }
        }
        let bridge = self.ovs.bridge(&config.bridge);
        let host = Host {
            datapath_type: bridge.map(|bridge| bridge.datapath_type.clone()).unwrap_or_default(),
            iface_types: self.ovs.switch.as_ref().map(|row| row.iface_types.clone()).unwrap_or_default(),
        };
        let rows: Vec<Chassis> = self
            .sb
            .chassis
            .values()
            // A row of our own former name is gone with this very transaction.
            .filter(|row| {
                self.registered_as
                    .as_deref()
                    .is_none_or(|former| former != row.name || config.system_id.as_deref() == Some(former))
            })
            .cloned()
            .collect();
        let private = config.system_id.as_deref().and_then(|name| self.sb.our_private(name));
        let Some(plan) = registration::plan(config, &host, &rows, &self.sb.encaps, private, self.takeovers.done())
        else {
            let missing = match &config.system_id {
                None => "external_ids:system-id is not set: this chassis cannot be registered",
                Some(_) => "Need to specify an encap type and ip",
            };
            self.tell("registration", vec![missing.to_owned()]);
            return;
        };
        self.tell("registration", plan.notes.clone());
        // Our private row is watched only once the server knows our name.
        let is_blind = plan.insert_private && !self.watch.is_complete();
        if plan.is_done() || is_blind || !self.sb_line.can_write(now_ms) {
            return;
        }
        let can_write = plan.chassis.is_some() || plan.encaps.is_some();
        if let Some(name) = config.system_id.as_deref().filter(|_| can_write) {
            let stale = plan.delete.iter().filter_map(|stale| self.sb.chassis.get(stale));
            self.takeovers.begin(stale.map(|row| row.name.clone()));
            writes::registration(south, name, &plan);
            self.registered_as = Some(name.to_owned());
        }
    }

    fn pass(&mut self, config: &Config, ours: Option<&Chassis>, now_ms: u64, wall_ms: u64) -> VifOutcome {
        let interfaces = self.vif_interfaces(config);
        let encaps = ours.map(|row| self.sb.encaps_of(row)).unwrap_or_default();
        let (watch, zones) = (&self.watch, &self.zones);
        let (committed, attached, shortages) = (&self.committed, &self.attached, &self.shortages);
        let is_active = self.dataplane.as_ref().is_some_and(|dataplane| dataplane.is_active());
        let no_dataplane = self.dataplane.is_none().then(|| match &self.open_error {
            Some(error) => error.clone(),
            None => "the dataplane is not open yet".to_owned(),
        });
        let served = |vif: &LocalVif| -> Option<Served> {
            if let Some(reason) = &no_dataplane {
                return Some(Served::No(reason.clone()));
            }
            if let Some((_, reason)) = shortages.iter().find(|(port, _)| *port == Some(vif.at)) {
                return Some(Served::No(reason.clone()));
            }
            match attached.get(&vif.ifindex)? {
                Err(reason) => Some(Served::No(reason.clone())),
                Ok(()) if committed.contains(vif) => is_active.then_some(Served::Yes),
                Ok(()) => self.commit_error.clone().map(Served::No),
            }
        };
        let listeners = &self.listeners;
        let (ovs, links, numbering) = (&self.ovs, &self.kernel.links, self.settings.backend.numbering());
        let device = |number| super::guests::kernel_index(ovs, links, numbering, &config.bridge, number);
        let held = |ifindex: u32| -> Option<Served> {
            if let Some(reason) = &no_dataplane {
                return Some(Served::No(reason.clone()));
            }
            let Some(device) = device(ifindex) else {
                return Some(Served::No(
                    "it has no device to hear its guest on, which activation-strategy waits for".into(),
                ));
            };
            match (attached.get(&ifindex)?, listeners.state(device)?) {
                (Err(reason), _) => Some(Served::No(reason.clone())),
                (Ok(()), Err(reason)) => Some(Served::No(reason.to_owned())),
                (Ok(()), Ok(())) => is_active.then_some(Served::Yes),
            }
        };
        self.vifs.pass(&Inputs {
            me: Me { system_id: config.system_id.as_deref().unwrap_or_default(), hostname: &config.hostname },
            chassis: ours.map(|row| row.uuid),
            encaps: &encaps,
            interfaces: &interfaces,
            ports: &self.sb,
            has_ports: watch.is_complete(),
            has_data: &|datapath| watch.has_data(datapath),
            served: &served,
            held: &held,
            zone: &|name| zones.get(name),
            taken_over: &self.taken_over,
            now_ms,
            wall_ms,
        })
    }

    /// The interfaces of the integration bridge that name a logical port, with the numbers that the dataplane knows them by.
    pub(super) fn vif_interfaces(&self, config: &Config) -> Vec<VifInterface> {
        let numbering = self.settings.backend.numbering();
        let mut interfaces = self.ovs.vif_interfaces(&config.bridge, &self.kernel.links, numbering);
        for interface in &mut interfaces {
            interface.row.ofport = interface.row.ofport.or_else(|| self.numbered.get(&interface.row.uuid).copied());
        }
        interfaces
    }

    pub(super) fn local_datapaths(&self, out: &VifOutcome) -> BTreeSet<Uuid> {
        let mut roots = out.datapaths.clone();
        if self.config.as_ref().is_some_and(|config| config.monitor_all) {
            // Everything is watched, but what has no port here is not compiled.
            roots.retain(|datapath| self.sb.datapaths.contains_key(datapath));
        }
        local_datapaths(&roots, &self.sb)
    }

    fn interest(&self, config: &Config, out: &VifOutcome, ours: Option<&Chassis>) -> Interest {
        let datapaths = self.local_datapaths(out);
        Interest {
            everything: config.monitor_all,
            system_id: config.system_id.clone(),
            chassis: ours.map(|row| row.uuid),
            iface_ids: self
                .vif_interfaces(config)
                .iter()
                .filter_map(|interface| interface.row.iface_id().map(str::to_owned))
                .collect(),
            datapaths: datapaths.iter().filter_map(|uuid| Some((*uuid, self.sb.datapath_key(*uuid)?))).collect(),
        }
    }

    fn watch_more(&mut self, config: &Config, out: &VifOutcome, ours: Option<&Chassis>, orders: &mut Orders) {
        let interest = self.interest(config, out, ours);
        if self.watch.differs(&interest) {
            orders.conditions = Some(conditions(&interest));
            self.pending_interest = Some(interest);
        }
    }

    /// An interface of ours that names no logical port any more says nothing of one: whoever gives it a name later waits for what we say then.
    fn forget_interfaces(&self, config: &Config, local: &mut Transaction) {
        for row in self.ovs.interfaces_of(&config.bridge).filter(|row| row.iface_id().is_none()) {
            writes::interfaces(local, &[InterfaceWrite::forget(row)]);
        }
    }

    /// What a former process noted is not forgotten before it is known that nobody needs it.
    pub(super) fn may_forget_zones(&self) -> bool {
        self.watch.is_complete() && self.sb_line.synchronized
    }

    fn write_zones(&mut self, config: &Config, local: &mut Transaction) {
        let Some(bridge) = self.ovs.bridge(&config.bridge) else { return };
        if !self.may_forget_zones() {
            return;
        }
        let writes = self.zones.writes(&bridge.external_ids);
        writes::zones(local, bridge.uuid, &writes);
    }

    fn write_tunnel_ports(&self, config: &Config, local: &mut Transaction) {
        // With eBPF the programs are the tunnel; an ovs-vswitchd would make devices of the rows.
        let is_wanted = self.settings.backend == Backend::OpenFlow || self.beside == Beside::Alone;
        let wanted: &[_] = if is_wanted { &self.mesh.peers } else { &[] };
        if let Some(bridge) = self.ovs.bridge(&config.bridge).filter(|_| self.sb_line.synchronized) {
            let ports: Vec<_> = bridge.ports.iter().filter_map(|uuid| self.ovs.ports.get(uuid)).collect();
            writes::tunnel_ports(local, bridge, &crate::tunnel_ports::plan(wanted, &ports, &self.ovs.interfaces));
        }
    }

    /// Whether the switch has yet to make a tunnel that flows send to. One that failed is not waited for.
    fn tunnels_are_coming(&self, config: &Config) -> bool {
        if self.settings.backend != Backend::OpenFlow {
            return false;
        }
        let Some(bridge) = self.ovs.bridge(&config.bridge) else { return true };
        let failed = |peer: &crate::dataplane::Peer| {
            let id = crate::tunnel_ports::identity(peer);
            let ports = bridge.ports.iter().filter_map(|uuid| self.ovs.ports.get(uuid));
            let mut ours = ports.filter(|port| port.external_ids.get(crate::tunnel_ports::CHASSIS_KEY) == Some(&id));
            ours.any(|port| {
                let mut interfaces = port.interfaces.iter().filter_map(|uuid| self.ovs.interfaces.get(uuid));
                interfaces.any(|interface| interface.ofport == Some(-1))
            })
        };
        self.mesh.peers.iter().any(|peer| peer.ofport.is_none() && !failed(peer))
    }

    /// Names that need a zone: local ports and both directions of every local router.
    pub(super) fn zone_names(&self, out: &VifOutcome, local: &BTreeSet<Uuid>) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = out.serve.iter().map(|vif| vif.name.clone()).collect();
        for datapath in local {
            let is_router = |row: &crate::rows::Datapath| row.external_ids.contains_key("logical-router");
            if self.sb.datapaths.get(datapath).is_some_and(is_router) {
                names.extend(["dnat", "snat"].map(|direction| nat_zone(*datapath, direction)));
            }
        }
        names
    }

    fn write_fdb(&mut self, south: &mut Transaction, now_ms: u64, wall_ms: u64) {
        let sb = &self.sb;
        let wall = i64::try_from(wall_ms).unwrap_or(i64::MAX);
        let here: BTreeSet<u32> = self.world.local().values().map(|key| key.0).collect();
        let rows = |address: &FdbAddress| here.contains(&address.datapath).then(|| sb.fdb_of(address));
        let writes = self.fdb.writes(&rows, now_ms, wall);
        for write in &writes {
            match write {
                crate::fdb::FdbWrite::Insert { address, port, .. } => self.unsaved_fdb.push((*address, *port)),
                crate::fdb::FdbWrite::Update { row, port, .. } => {
                    if let Some(known) = sb.fdb.get(row)
                        && let Some(mac) = crate::fdb::parse_mac(&known.mac)
                    {
                        self.unsaved_fdb.push((FdbAddress { datapath: known.dp_key, mac }, *port));
                    }
                }
                crate::fdb::FdbWrite::Delete { .. } => {}
            }
        }
        writes::fdb(south, &writes, self.fdb_has_timestamp);
    }

    #[expect(clippy::too_many_arguments, reason = "two transactions and two clocks")]
    fn report_generation(
        &mut self,
        config: &Config,
        out: &VifOutcome,
        is_registered: bool,
        local: &mut Transaction,
        south: &mut Transaction,
        orders: &mut Orders,
        now_ms: u64,
        wall_ms: u64,
    ) {
        let (Some(global), Some(bridge)) = (&self.sb.global, self.ovs.bridge(&config.bridge)) else { return };
        let private = config.system_id.as_deref().and_then(|name| self.sb.our_private(name));
        let is_active = self.dataplane.as_ref().is_some_and(|dataplane| dataplane.is_active());
        let progress = Progress {
            is_programmed: self.commit_error.is_none()
                && self.under_way.is_empty()
                && is_active
                && !self.tunnels_are_coming(config),
            has_all_rows: self.watch.is_complete() && orders.conditions.is_none() && self.sb_line.synchronized,
            vif_under_way: out.is_any_under_way(),
            is_registered,
        };
        let noted = bridge.external_ids.get("ovn-nb-cfg").and_then(|text| text.parse().ok());
        match self.generations.due(global, private, noted, progress, now_ms, wall_ms) {
            Due::No => {}
            Due::At(at) => orders.wake_at_ms = Some(orders.wake_at_ms.map_or(at, |wake| wake.min(at))),
            Due::Now(report) => {
                if noted != Some(report.nb_cfg) && self.ovs_line.can_write(now_ms) {
                    writes::bridge_keys(local, bridge.uuid, &writes::bridge_generation(&report), &BTreeSet::new());
                }
                if let Some(row) = private.filter(|row| report.southbound && row.nb_cfg != report.nb_cfg)
                    && self.sb_line.can_write(now_ms)
                {
                    writes::private_generation(south, row.uuid, &report);
                }
            }
        }
    }
}
