//! One pass over all VIFs.

mod hold;
mod nested;

use super::{
    CLAIM_INTERVAL_MS, Inputs, InterfaceWrite, Note, Outcome, Phase, PortWrite, REASON_KEY, Served, Tracked,
    VifInterface, VifState, Vifs,
};
use crate::activation;
use crate::claim::{self, Role};
use crate::dataplane::{LocalVif, LogicalPort};
use crate::rows::{PortBinding, Uuid, is_true};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

impl Vifs {
    /// Looks at everything and says what to do next. Calling it again with the same inputs gives the same writes.
    pub fn pass(&mut self, inputs: &Inputs<'_>) -> Outcome {
        let mut pass = Pass {
            vifs: self,
            inputs,
            out: Outcome::default(),
            writes: BTreeMap::new(),
            kept: HashSet::new(),
            places: HashMap::new(),
        };
        let winners = pass.choose_interfaces();
        for (iface_id, interface) in &winners {
            pass.interface(iface_id, interface);
        }
        pass.gateways();
        pass.release_the_rest();
        let Pass { mut out, writes, kept, .. } = pass;
        self.tracked.retain(|name, _| kept.contains(name));
        self.waiting.retain(|name| kept.contains(name));
        self.nested.retain(|name| kept.contains(name));
        self.activated.retain(|name| kept.contains(name));
        self.claimed_at.retain(|_, at| inputs.now_ms.saturating_sub(*at) < CLAIM_INTERVAL_MS);
        self.told.retain(|interface, _| out.states.contains_key(interface));
        out.ports = writes.into_values().filter(|write| !write.is_empty()).collect();
        out.interfaces.retain(|write| !write.set.is_empty() || !write.remove.is_empty());
        out
    }
}

struct Pass<'v, 'i> {
    vifs: &'v mut Vifs,
    inputs: &'v Inputs<'i>,
    out: Outcome,
    writes: BTreeMap<Uuid, PortWrite>,
    /// Ports that stay ours.
    kept: HashSet<String>,
    /// Whose frames come from where: a device and a VLAN tag, 0 = without one.
    places: HashMap<(u32, u16), String>,
}

impl Pass<'_, '_> {
    /// For each iface-id the interface that stands for it: of those with a device the newest.
    fn choose_interfaces(&mut self) -> BTreeMap<String, VifInterface> {
        let mut by_id: HashMap<&str, Vec<&VifInterface>> = HashMap::new();
        for interface in self.inputs.interfaces {
            if let Some(id) = interface.row.iface_id() {
                by_id.entry(id).or_default().push(interface);
            }
        }
        let mut winners = BTreeMap::new();
        for (id, mut group) in by_id {
            group.sort_by_key(|interface| (usable(interface), interface.age, interface.row.ofport, interface.row.uuid));
            let Some(winner) = group.pop() else { continue };
            for loser in group {
                self.settle(loser, id, Phase::Superseded(winner.row.name.clone()));
                self.interface_keys(loser, None);
            }
            winners.insert(id.to_owned(), winner.clone());
        }
        winners
    }

    fn interface(&mut self, id: &str, interface: &VifInterface) {
        let phase = self.advance(id, interface);
        match phase {
            Phase::MarkingUp | Phase::WaitsForActivation(_) | Phase::Installed => {
                self.interface_keys(interface, Some(self.inputs.wall_ms))
            }
            // Our own row is missing for the moment: what is installed stays so.
            Phase::NoChassis => {}
            // Nothing is known yet, or the VIF works by what a former process left in force until we have caught up with it.
            Phase::NoPort if !self.inputs.has_ports => {}
            Phase::WaitingData | Phase::Programming if self.is_inherited(id, interface) => {}
            // What is on its way keeps no `ovn-installed` of a former life; what is refused or lost must not keep it either.
            _ => self.interface_keys(interface, None),
        }
        self.settle(interface, id, phase);
    }

    /// Whether the VIF was installed by a former process, whose programs still serve the device.
    fn is_inherited(&self, id: &str, interface: &VifInterface) -> bool {
        let serves = |ifindex| self.inputs.taken_over.contains(&ifindex);
        interface.ifindex.is_some_and(serves) && self.vifs.tracked.get(id).is_some_and(|tracked| tracked.installed)
    }

    fn advance(&mut self, id: &str, interface: &VifInterface) -> Phase {
        if !usable(interface) {
            let error = interface.row.report.error.clone();
            return Phase::NoDevice(error.unwrap_or_else(|| "the interface has no device yet".into()));
        }
        let Some(ifindex) = interface.ifindex else {
            let name = &interface.row.name;
            return Phase::NoDevice(match interface.row.kind.as_str() {
                // What the host sends there goes from its own stack straight into the switch.
                "internal" => {
                    format!("{name} is an internal port of ovs-vswitchd, which programs cannot be attached to")
                }
                _ => format!("no device {name} in this network namespace"),
            });
        };
        let Some(port) = self.inputs.ports.by_name(id) else { return Phase::NoPort };
        if let Err(refusal) = claim::check_interface(port, &interface.row) {
            return Phase::Refused(refusal);
        }
        let role = match claim::role(port, self.inputs.me) {
            Ok(role) => role,
            Err(refusal) => return Phase::Refused(refusal),
        };
        self.out.datapaths.insert(port.datapath);
        let localport = port.kind == "localport";
        if localport {
            return self.serve_localport(port, interface, ifindex);
        }
        let Some(chassis) = self.inputs.chassis else {
            if self.vifs.tracked.get(id).is_some_and(|tracked| tracked.installed) {
                self.kept.insert(id.to_owned());
                if !self.vifs.waiting.contains(id) {
                    self.program(port, ifindex, 0, true);
                    self.keep_children(id, ifindex);
                }
            }
            return Phase::NoChassis;
        };
        self.kept.insert(id.to_owned());
        self.track(id, port, interface, role, chassis, ifindex);
        if let Some(until) = self.claim(id, port, &interface.row.external_ids, role, chassis) {
            return Phase::Postponed(until);
        }
        let Some(tracked) = self.vifs.tracked.get(id).cloned() else { return Phase::Claimed };
        if tracked.stale && port.up == Some(true) && role == Role::Main {
            self.write(port).up = Some(false);
        }
        if !tracked.confirmed && !tracked.installed {
            return Phase::Claimed;
        }
        let awaits = self.awaits(port, role, chassis);
        let phase = match awaits {
            Some(strategies) => self.hold(port, ifindex, 0, strategies, tracked.confirmed),
            None => self.program(port, ifindex, 0, tracked.confirmed),
        };
        if awaits.is_some() {
            self.vifs.waiting.insert(id.to_owned());
        } else {
            self.vifs.waiting.remove(id);
        }
        let children = self.children(id, port, ifindex, role, chassis);
        let phase = match phase {
            Some(phase) => phase,
            None if tracked.stale => {
                let still_up = role == Role::Main && port.up == Some(true);
                if still_up || interface.row.external_ids.contains_key("ovn-installed") {
                    // `interface` drops the key because this phase is before MarkingUp.
                    return Phase::RemovingStale;
                }
                self.set_tracked(id, |tracked| tracked.stale = false);
                self.mark_up(id, port, interface, role)
            }
            None => self.mark_up(id, port, interface, role),
        };
        if phase == Phase::Installed {
            self.raise_children(&children);
        }
        match awaits {
            Some(strategies) if phase == Phase::Installed => Phase::WaitsForActivation(strategies),
            _ => phase,
        }
    }

    fn mark_up(&mut self, id: &str, port: &PortBinding, interface: &VifInterface, role: Role) -> Phase {
        // A database without the column, or a northd that never set it, has no use for it.
        if role == Role::Main && port.up == Some(false) {
            self.note(false, format!("Setting lport {} up in Southbound", port.logical_port));
            self.write(port).up = Some(true);
            return Phase::MarkingUp;
        }
        if !is_true(interface.row.external_ids.get("ovn-installed")) {
            // `interface` writes the key.
            return Phase::MarkingUp;
        }
        self.set_tracked(id, |tracked| tracked.installed = true);
        Phase::Installed
    }

    /// A localport is everywhere: nobody's chassis column names it.
    fn serve_localport(&mut self, port: &PortBinding, interface: &VifInterface, ifindex: u32) -> Phase {
        if port.chassis.is_some() && port.chassis == self.inputs.chassis {
            self.release(port);
        }
        match self.program(port, ifindex, 0, true) {
            Some(phase) => phase,
            None if is_true(interface.row.external_ids.get("ovn-installed")) => Phase::Installed,
            None => Phase::MarkingUp,
        }
    }

    /// Remembers the claim; a new one starts by removing what a former life left.
    fn track(
        &mut self,
        id: &str,
        port: &PortBinding,
        interface: &VifInterface,
        role: Role,
        chassis: Uuid,
        ifindex: u32,
    ) {
        let bound = is_bound(port, role, chassis);
        match self.vifs.tracked.get_mut(id) {
            Some(tracked) if tracked.interface == interface.row.uuid => {
                let taken = role == Role::Main && port.chassis.is_some();
                if tracked.confirmed && !bound && tracked.role == role && taken {
                    // Another chassis has it now: our next claim starts anew.
                    tracked.stale = true;
                    tracked.installed = false;
                }
                tracked.confirmed = bound;
                tracked.role = role;
            }
            _ => {
                let was_installed = bound
                    && port.up != Some(false)
                    && is_true(interface.row.external_ids.get("ovn-installed"))
                    && self.inputs.taken_over.contains(&ifindex);
                let tracked = Tracked {
                    interface: interface.row.uuid,
                    role,
                    stale: !was_installed,
                    confirmed: bound,
                    installed: was_installed,
                };
                self.vifs.tracked.insert(id.to_owned(), tracked);
            }
        }
    }

    /// Writes the claim where it is not in the database yet; `Some` = wait until then.
    fn claim(
        &mut self,
        id: &str,
        port: &PortBinding,
        external_ids: &BTreeMap<String, String>,
        role: Role,
        chassis: Uuid,
    ) -> Option<u64> {
        let encap = self.encap(port, external_ids);
        match role {
            Role::Main => {
                if port.chassis != Some(chassis) {
                    if let Some(other) = port.chassis {
                        if let Some(at) = self.vifs.claimed_at.get(id) {
                            let until = at + CLAIM_INTERVAL_MS;
                            if self.inputs.now_ms < until {
                                self.out.wake_at_ms = Some(self.out.wake_at_ms.map_or(until, |wake| wake.min(until)));
                                return Some(until);
                            }
                        }
                        self.note(
                            false,
                            format!("Changing chassis for lport {} from {other} to {chassis}.", port.logical_port),
                        );
                    } else {
                        self.note(false, format!("Claiming lport {} for this chassis.", port.logical_port));
                    }
                    for address in &port.mac {
                        self.note(false, format!("{}: Claiming {address}", port.logical_port));
                    }
                    self.write(port).chassis = Some(Some(chassis));
                }
                if port.additional_chassis.contains(&chassis) {
                    self.leave_additional(port, chassis);
                }
                if let Some(encap) = encap
                    && port.encap != Some(encap)
                {
                    self.write(port).encap = Some(Some(encap));
                } else if encap.is_none() && port.encap.is_some() && !has_requested_encap(port) {
                    self.write(port).encap = Some(None);
                }
            }
            Role::Additional => {
                if !port.additional_chassis.contains(&chassis) {
                    self.note(false, format!("Claiming lport {} for this additional chassis.", port.logical_port));
                    let mut all = port.additional_chassis.clone();
                    all.insert(chassis);
                    self.write(port).additional_chassis = Some(all);
                }
                if let Some(encap) = encap
                    && !port.additional_encap.contains(&encap)
                {
                    let mut all = self.without_our_encaps(port);
                    all.insert(encap);
                    self.write(port).additional_encap = Some(all);
                }
                if port.chassis == Some(chassis) {
                    // We were the main one before.
                    let write = self.write(port);
                    write.chassis = Some(None);
                    write.encap = Some(None);
                }
            }
        }
        None
    }

    /// Encap row of the address that the interface asks for; northd owns the column where the port asks itself.
    fn encap(&self, port: &PortBinding, external_ids: &BTreeMap<String, String>) -> Option<Uuid> {
        if has_requested_encap(port) {
            return None;
        }
        external_ids.get("encap-ip").and_then(|ip| self.inputs.encaps.get(ip.trim())).copied()
    }

    /// Asks the dataplane to serve the port. `None` = it does.
    fn program(&mut self, port: &PortBinding, ifindex: u32, vlan: u16, confirmed: bool) -> Option<Phase> {
        if let Err(taken) = self.take_place(port, ifindex, vlan) {
            return Some(Phase::Failed(taken));
        }
        let Some(datapath) = self.inputs.ports.datapath_key(port.datapath) else { return Some(Phase::WaitingData) };
        let vif = LocalVif {
            name: port.logical_port.clone(),
            at: LogicalPort { datapath, port: port.tunnel_key },
            ifindex,
            vlan,
            localport: port.kind == "localport",
            zone: (self.inputs.zone)(&port.logical_port),
        };
        let served = (self.inputs.served)(&vif);
        self.out.serve.push(vif);
        if !confirmed {
            Some(Phase::Claimed)
        } else if !(self.inputs.has_data)(port.datapath) {
            Some(Phase::WaitingData)
        } else {
            match served {
                None => Some(Phase::Programming),
                Some(Served::No(reason)) => Some(Phase::Failed(reason)),
                Some(Served::Yes) => None,
            }
        }
    }

    /// Ports without an interface that the configuration places here.
    fn gateways(&mut self) {
        let Some(chassis) = self.inputs.chassis else { return };
        let ports: Vec<PortBinding> = self.inputs.ports.gateways().into_iter().cloned().collect();
        for port in ports {
            if !claim::is_gateway_here(&port, self.inputs.me) {
                continue;
            }
            self.kept.insert(port.logical_port.clone());
            self.out.datapaths.insert(port.datapath);
            if self.claim(&port.logical_port, &port, &BTreeMap::new(), Role::Main, chassis).is_none()
                && port.up == Some(false)
            {
                self.note(false, format!("Setting lport {} up in Southbound", port.logical_port));
                self.write(&port).up = Some(true);
            }
        }
    }

    /// Everything that names us and is not kept is let go.
    fn release_the_rest(&mut self) {
        let Some(chassis) = self.inputs.chassis else { return };
        let bound: Vec<PortBinding> = self.inputs.ports.bound_to(chassis).into_iter().cloned().collect();
        for port in bound {
            let kept = self.kept.contains(&port.logical_port)
                || port.virtual_parent.as_ref().is_some_and(|parent| self.kept.contains(parent));
            if !kept {
                self.release(&port);
            }
        }
    }

    fn release(&mut self, port: &PortBinding) {
        let Some(chassis) = self.inputs.chassis else { return };
        if port.chassis == Some(chassis) {
            self.note(false, format!("Releasing lport {} from this chassis (sb_readonly=0)", port.logical_port));
            let keep_encap = has_requested_encap(port);
            let write = self.write(port);
            write.chassis = Some(None);
            if port.encap.is_some() && !keep_encap {
                write.encap = Some(None);
            }
            write.clear_virtual_parent = port.virtual_parent.is_some();
            if port.up == Some(true) {
                write.up = Some(false);
                self.note(false, format!("Setting lport {} down in Southbound", port.logical_port));
            }
        }
        if port.additional_chassis.contains(&chassis) {
            self.note(
                false,
                format!("Releasing lport {} from this additional chassis (sb_readonly=0)", port.logical_port),
            );
            self.leave_additional(port, chassis);
        }
    }

    fn leave_additional(&mut self, port: &PortBinding, chassis: Uuid) {
        let mut others = port.additional_chassis.clone();
        others.remove(&chassis);
        let encaps = self.without_our_encaps(port);
        let me = self.inputs.me.system_id;
        let options = activation::is_activated(&port.options, me).then(|| hold::options(port, me, false));
        let write = self.write(port);
        write.options = options;
        write.additional_chassis = Some(others);
        if encaps != port.additional_encap {
            write.additional_encap = Some(encaps);
        }
    }

    fn without_our_encaps(&self, port: &PortBinding) -> BTreeSet<Uuid> {
        let ours: BTreeSet<Uuid> = self.inputs.encaps.values().copied().collect();
        port.additional_encap.difference(&ours).copied().collect()
    }

    /// `ovn-installed` present with a time, or absent.
    fn interface_keys(&mut self, interface: &VifInterface, installed_at_ms: Option<u64>) {
        let ids = &interface.row.external_ids;
        let mut write = InterfaceWrite { interface: interface.row.uuid, ..Default::default() };
        match installed_at_ms {
            Some(at) => {
                if !is_true(ids.get("ovn-installed")) {
                    let id = interface.row.iface_id().unwrap_or_default().to_owned();
                    self.note(false, format!("Setting lport {id} ovn-installed in OVS"));
                    write.set.insert("ovn-installed".into(), "true".into());
                    write.set.insert("ovn-installed-ts".into(), at.to_string());
                }
            }
            None => {
                for key in ["ovn-installed", "ovn-installed-ts"] {
                    if ids.contains_key(key) {
                        write.remove.insert(key.into());
                    }
                }
                if ids.contains_key("ovn-installed") {
                    let id = interface.row.iface_id().unwrap_or_default().to_owned();
                    self.note(false, format!("Removing lport {id} ovn-installed in OVS"));
                }
            }
        }
        self.out.interfaces.push(write);
    }

    /// Records where an interface stands and tells people once when it stands still.
    fn settle(&mut self, interface: &VifInterface, id: &str, phase: Phase) {
        let name = interface.row.name.clone();
        // No port binding yet and no device yet are the ordinary beginning of a plug; they are listed, not written back.
        let lasting = match &phase {
            Phase::Refused(_) | Phase::Failed(_) | Phase::Superseded(_) => phase.reason(),
            _ => None,
        };
        let has = interface.row.external_ids.get(REASON_KEY);
        let mut write = InterfaceWrite { interface: interface.row.uuid, ..Default::default() };
        match &lasting {
            Some(reason) if has != Some(reason) => {
                write.set.insert(REASON_KEY.into(), reason.clone());
            }
            None if has.is_some() => {
                write.remove.insert(REASON_KEY.into());
            }
            _ => {}
        }
        self.out.interfaces.push(write);
        match &lasting {
            Some(reason) => {
                let text = match &phase {
                    Phase::Refused(claim::Refusal::RequestedElsewhere(requested)) => {
                        format!(
                            "Not claiming lport {id}, chassis {} requested-chassis {requested}",
                            self.inputs.me.system_id
                        )
                    }
                    _ => format!("lport {id} on interface {name} is not installed: {reason}"),
                };
                if self.vifs.told.insert(name.clone(), text.clone()).as_ref() != Some(&text) {
                    let warning = !matches!(&phase, Phase::Refused(_));
                    self.note(warning, text);
                }
            }
            None => {
                self.vifs.told.remove(&name);
            }
        }
        self.out.states.insert(name, VifState { iface_id: id.to_owned(), phase, ifindex: interface.ifindex });
    }

    fn set_tracked(&mut self, id: &str, change: impl FnOnce(&mut Tracked)) {
        if let Some(tracked) = self.vifs.tracked.get_mut(id) {
            change(tracked);
        }
    }

    fn write(&mut self, port: &PortBinding) -> &mut PortWrite {
        self.writes.entry(port.uuid).or_insert_with(|| PortWrite::for_port(port))
    }

    fn note(&mut self, warning: bool, text: String) {
        self.out.notes.push(Note { warning, text });
    }
}

fn usable(interface: &VifInterface) -> bool {
    interface.row.ofport.is_some_and(|ofport| ofport > 0)
}

fn is_bound(port: &PortBinding, role: Role, chassis: Uuid) -> bool {
    match role {
        Role::Main => port.chassis == Some(chassis),
        Role::Additional => port.additional_chassis.contains(&chassis),
    }
}

fn has_requested_encap(port: &PortBinding) -> bool {
    port.options.get("requested-encap-ip").is_some_and(|ip| !ip.is_empty())
}

impl Vifs {
    /// Remembers that the claims of an outcome were sent, for the postponing of flapping ports.
    pub fn claims_sent(&mut self, outcome: &Outcome, names: &dyn Fn(Uuid) -> Option<String>, now_ms: u64) {
        for write in &outcome.ports {
            if matches!(write.chassis, Some(Some(_)))
                && let Some(name) = names(write.port)
            {
                self.claimed_at.insert(name, now_ms);
            }
        }
    }
}
