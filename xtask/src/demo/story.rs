//! The life cycle of a VIF, as ovn-architecture(7) tells it, step by step.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::capture::Capture;
use oxbow_testkit::hypervisor::UPLINK;
use oxbow_testkit::wait::{Look, PATIENCE, wait_until};
use oxbow_testkit::{Cloud, Node, VifSpec};
use oxbow_vm_tests::{GuestImage, Machine, MachineSpec, Nic};

use super::guest::Guest;
use super::report::{Evidence, Report};

/// The logical switch.
const SWITCH: &str = "sw0";
/// The VIF whose life is told: port, MAC address, IPv4 address. Its guest runs on the first hypervisor.
const VIF: &str = "vm1";
const MAC: &str = "0a:00:00:00:00:01";
const ADDRESS: &str = "10.0.0.1";
/// Its neighbour on the same hypervisor, and the one on the second.
const NEAR: &str = "vm2";
const FAR: &str = "vm3";
const FAR_MAC: &str = "0a:00:00:00:00:03";
/// An address that port security does not allow the VIF.
const STOLEN: &str = "10.0.0.99";
/// Bytes that go through each TCP connection, and come back.
const TCP_BYTES: usize = 1 << 20;

/// The cloud and the guests in it.
pub(super) struct Story {
    // Virtual machines end before the cloud that their taps are in.
    machines: BTreeMap<String, RefCell<Machine>>,
    image: Option<GuestImage>,
    cloud: Cloud,
}

/// One step: does something, waits for what must follow, and shows it.
type Step = fn(&mut Story, &mut Evidence) -> Result<()>;

const STEPS: [(&str, Step); 15] = [
    ("the CMS makes a VIF: an identifier and an Ethernet address", Story::cms_creates),
    ("the CMS plugin adds a row to Logical_Switch_Port", Story::plugin_adds),
    ("northd writes Logical_Flow rows and a Port_Binding without a chassis", Story::northd_translates),
    ("every hypervisor receives the flows; the VIF exists nowhere yet", Story::hypervisors_receive),
    ("the guest is powered on: its device joins br-int with the identifier", Story::power_on),
    ("its hypervisor claims the port and programs the datapath", Story::claim),
    ("northd carries `up` to the CMS", Story::up),
    ("every other hypervisor learns where it is: packets flow, spoofed ones do not", Story::traffic),
    ("the guest is powered off: its device leaves br-int", Story::power_off),
    ("its hypervisor releases the port", Story::release),
    ("every hypervisor forgets where it was", Story::forgotten),
    ("the CMS gives the VIF up", Story::cms_deletes),
    ("the CMS plugin deletes the row", Story::plugin_deletes),
    ("northd deletes flows and binding", Story::northd_deletes),
    ("every hypervisor follows; nothing is left of it, and its neighbours never noticed", Story::nothing_left),
];

impl Story {
    /// A story that is to happen in `cloud`.
    ///
    /// With an image, its guests are virtual machines that boot it, else namespaces.
    pub(super) fn new(cloud: Cloud, image: Option<GuestImage>) -> Self {
        Self { machines: BTreeMap::new(), image, cloud }
    }

    /// The cloud that it happens in.
    pub(super) fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// Sets the scene: a logical switch, and a neighbour on every hypervisor (on the first, beside the VIF to come).
    pub(super) fn set_scene(&mut self) -> Result<()> {
        self.cloud.nbctl(&format!("ls-add {SWITCH}"))?;
        let hypervisors = self.cloud.hypervisors().len();
        for index in 0..hypervisors {
            let number = index + 2;
            let port = format!("vm{number}");
            let (mac, address) = (format!("0a:00:00:00:00:{number:02x}"), format!("10.0.0.{number}"));
            self.cloud.nbctl(&add_port(&port, &mac, &address))?;
            self.boot(index, &port, &mac, &address)?;
            self.cloud.plug(&port)?;
        }
        for index in 0..hypervisors {
            let port = format!("vm{}", index + 2);
            self.wait_booted(&port)?;
            self.cloud.wait_up(&port)?;
        }
        self.guest(NEAR)?.ping("10.0.0.3").context("the neighbours do not reach each other")?;
        println!("neighbours: vm2 to vm{}, one on each hypervisor, reach each other", hypervisors + 1);
        Ok(())
    }

    /// Tells it.
    pub(super) fn tell(&mut self, report: &mut Report) -> Result<()> {
        STEPS.iter().try_for_each(|(title, step)| report.step(title, |evidence| step(self, evidence)))
    }

    fn cms_creates(&mut self, evidence: &mut Evidence) -> Result<()> {
        evidence.did(&format!("the CMS notes: {VIF}, {MAC}, {ADDRESS}, on switch {SWITCH}. OVN knows nothing of it:"));
        let ports = self.nb(evidence, &format!("lsp-list {SWITCH}"))?;
        ensure!(!ports.contains(VIF), "NB knows {VIF} already");
        Ok(())
    }

    fn plugin_adds(&mut self, evidence: &mut Evidence) -> Result<()> {
        let add = add_port(VIF, MAC, ADDRESS);
        evidence.did(&format!("ovn-nbctl {add}"));
        self.cloud.nbctl(&add)?;
        let row =
            self.nb(evidence, &format!("--columns=name,addresses,port_security,up list Logical_Switch_Port {VIF}"))?;
        ensure!(row.contains(MAC) && row.contains(ADDRESS), "the row is not as it was written: {row}");
        Ok(())
    }

    fn northd_translates(&mut self, evidence: &mut Evidence) -> Result<()> {
        let flows = wait_until("the binding, and flows that name the VIF's address", PATIENCE, || {
            let binding = self.binding("tunnel_key")?;
            let flows = self.flows_of(MAC)?;
            let there = !binding.is_empty() && !flows.is_empty();
            Ok(if there {
                Look::Held(flows)
            } else {
                Look::NotYet(format!("tunnel_key {binding:?}, {} flows", flows.len()))
            })
        })?;
        let binding = self.sb(
            evidence,
            &format!("--columns=logical_port,type,tunnel_key,chassis,up find Port_Binding logical_port={VIF}"),
        )?;
        ensure!(self.binding("chassis")?.is_empty(), "a chassis has claimed it before it existed: {binding}");
        evidence
            .read(&format!("ovn-sbctl lflow-list {SWITCH} | grep {MAC}    ({} flows)", flows.len()), &flows.join("\n"));
        Ok(())
    }

    fn hypervisors_receive(&mut self, evidence: &mut Evidence) -> Result<()> {
        self.everybody_is_current(evidence)?;
        self.nobody_answers(evidence)
    }

    fn power_on(&mut self, evidence: &mut Evidence) -> Result<()> {
        self.boot(0, VIF, MAC, ADDRESS)?;
        self.cloud.plug(VIF)?;
        let device = self.cloud.vif(VIF)?.device().to_owned();
        evidence.did(&format!(
            "ovs-vsctl add-port br-int {device} -- set Interface {device} external_ids:iface-id={VIF} …"
        ));
        let row = self.vs(evidence, &format!("--columns=name,ofport,external_ids list Interface {device}"))?;
        ensure!(row.contains(&format!("iface-id={VIF}")), "no iface-id: {row}");
        Ok(())
    }

    fn claim(&mut self, evidence: &mut Evidence) -> Result<()> {
        let device = self.cloud.vif(VIF)?.device().to_owned();
        let (chassis, name) = wait_until("the claim, and ovn-installed on the interface", PATIENCE, || {
            let chassis = self.binding("chassis")?;
            let external_ids = self.vs_quiet(&format!("get Interface {device} external_ids"))?;
            if chassis.is_empty() || !external_ids.contains("ovn-installed=\"true\"") {
                return Ok(Look::NotYet(format!("chassis {chassis:?}, external_ids {external_ids}")));
            }
            let name = self.cloud.sbctl(&format!("--bare --columns=name list Chassis {chassis}"))?;
            Ok(Look::Held((chassis, name.trim().to_owned())))
        })?;
        self.sb(evidence, &format!("--columns=logical_port,chassis,encap,up find Port_Binding logical_port={VIF}"))?;
        evidence.read(&format!("ovn-sbctl --bare --columns=name list Chassis {chassis}"), &name);
        self.vs(evidence, &format!("get Interface {device} external_ids:ovn-installed external_ids:ovn-installed-ts"))?;
        let host = self.cloud.hypervisor_of(VIF)?.name();
        ensure!(name == host, "claimed by {name}, not by {host}");
        Ok(())
    }

    fn up(&mut self, evidence: &mut Evidence) -> Result<()> {
        self.cloud.wait_up(VIF)?;
        let up = self.sb(evidence, &format!("--bare --columns=up find Port_Binding logical_port={VIF}"))?;
        ensure!(up.trim() == "true", "up in NB, but not in SB: {up:?}");
        self.nb(evidence, &format!("lsp-get-up {VIF}"))?;
        // From here on the CMS lets the guest run.
        self.wait_booted(VIF)
    }

    fn traffic(&mut self, evidence: &mut Evidence) -> Result<()> {
        self.everybody_is_current(evidence)?;
        let capture = Capture::start(self.cloud.hypervisors()[1].ns(), UPLINK, "udp port 6081")?;
        let neighbours: Vec<String> =
            (2..self.cloud.hypervisors().len() + 2).map(|number| format!("vm{number}")).collect();
        for port in &neighbours {
            let where_it_is = self.cloud.hypervisor_of(port)?.name().to_owned();
            let address = self.cloud.vif(port)?.address().to_owned();
            let line = self.guest(VIF)?.ping(&address)?;
            evidence.read(&format!("ping {address}    ({VIF} on hv1 to {port} on {where_it_is})"), &line);
        }
        let text = capture.wait_for(&format!("{ADDRESS} > 10.0.0.3: ICMP echo request"), PATIENCE)?;
        let tunnelled = tunnel_header_of(&text, &format!("{ADDRESS} > 10.0.0.3: ICMP echo request"));
        evidence.read(&format!("tcpdump -i {UPLINK}    (on hv2)"), &tunnelled);
        drop(capture);
        for (client, server) in [(VIF, NEAR), (VIF, FAR), (FAR, VIF)] {
            let address = self.cloud.vif(server)?.address().to_owned();
            self.guest(client)?.tcp(self.guest(server)?, &address, TCP_BYTES)?;
            evidence.did(&format!("TCP {client} to {server}: {TCP_BYTES} bytes there and back, unchanged"));
        }
        self.spoof(evidence)
    }

    /// A guest that uses another's address is not heard, and it can be read which logical flow saw to it.
    fn spoof(&self, evidence: &mut Evidence) -> Result<()> {
        let answered = self.guest(VIF)?.spoof(STOLEN, "10.0.0.3", 3)?;
        evidence.did(&format!("{VIF} pings vm3 as {STOLEN}, which is not its address: {answered} of 3 answered"));
        ensure!(answered == 0, "port security let a spoofed packet through");
        let packet = format!(
            "inport == \"{VIF}\" && eth.src == {MAC} && eth.dst == {FAR_MAC} && ip4.src == {STOLEN} && ip4.dst == 10.0.0.3 \
             && ip.ttl == 64 && icmp4.type == 8"
        );
        let trace = self.cloud.southbound().trace(SWITCH, &packet)?;
        let lines: Vec<&str> = trace.lines().collect();
        let drop = lines.iter().rposition(|line| line.trim() == "drop;").context("ovn-trace does not drop it")?;
        evidence.read(
            &format!("ovn-trace {SWITCH} '… ip4.src == {STOLEN} …'"),
            &lines[drop.saturating_sub(1)..=drop].join("\n"),
        );
        let hypervisor = self.cloud.hypervisor_of(VIF)?;
        if hypervisor.node().is_oxbow() {
            // ovs-vswitchd counts flows, not reasons, and tells what it counted a moment later.
            let has_reasons = hypervisor.node() == Node::Oxbow;
            let lines = wait_until(&format!("a drop that is attributed to {PORT_SECURITY_STAGE}"), PATIENCE, || {
                let drops = hypervisor.appctl(DROPS)?;
                let told = |sign: &str| drops.lines().find(|line| line.contains(sign));
                Ok(match (told(DROP_REASON), told(PORT_SECURITY_STAGE)) {
                    (Some(reason), Some(flow)) => Look::Held(format!("{reason}\n{flow}")),
                    (None, Some(flow)) if !has_reasons => Look::Held(flow.to_owned()),
                    _ => Look::NotYet(drops),
                })
            })?;
            evidence.read(&format!("ovn-appctl -t oxbow-node {DROPS}    (on {})", hypervisor.name()), &lines);
        }
        Ok(())
    }

    fn power_off(&mut self, evidence: &mut Evidence) -> Result<()> {
        let device = self.cloud.vif(VIF)?.device().to_owned();
        if self.machines.remove(VIF).is_some() {
            evidence.did("the virtual machine is destroyed");
        }
        evidence.did(&format!("ovs-vsctl del-port br-int {device}"));
        self.cloud.unplug(VIF)?;
        let ports = self.vs(evidence, "list-ports br-int")?;
        ensure!(!ports.lines().any(|port| port == device), "{device} is still in br-int");
        Ok(())
    }

    fn release(&mut self, evidence: &mut Evidence) -> Result<()> {
        wait_until("the release", PATIENCE, || {
            let (chassis, up) = (self.binding("chassis")?, self.binding("up")?);
            Ok(Look::when(chassis.is_empty() && up == "false", || format!("chassis {chassis:?}, up {up:?}")))
        })?;
        self.sb(evidence, &format!("--columns=logical_port,chassis,up find Port_Binding logical_port={VIF}"))?;
        wait_until("up to be taken back in NB", PATIENCE, || {
            let up = self.cloud.nbctl(&format!("lsp-get-up {VIF}"))?;
            Ok(Look::when(up.trim() == "down", || up))
        })?;
        self.nb(evidence, &format!("lsp-get-up {VIF}"))?;
        Ok(())
    }

    fn forgotten(&mut self, evidence: &mut Evidence) -> Result<()> {
        self.everybody_is_current(evidence)?;
        let capture = Capture::start(self.cloud.hypervisors()[1].ns(), UPLINK, "udp port 6081")?;
        self.nobody_answers(evidence)?;
        // What does cross the wire shows that the capture would have seen the rest.
        let (marker, near) = ("10.0.0.3 > 10.0.0.2: ICMP echo request", self.cloud.vif(NEAR)?.address().to_owned());
        self.guest(FAR)?.ping(&near)?;
        let text = capture.wait_for(marker, PATIENCE)?;
        let lost = text.lines().filter(|line| line.contains(&format!("> {ADDRESS}: ICMP"))).count();
        evidence.read(
            &format!("tcpdump -i {UPLINK} udp port 6081    (on hv2)"),
            &format!("{lost} frames for {ADDRESS}, {} for {near}", text.matches(marker).count()),
        );
        ensure!(lost == 0, "hv2 still sends frames for {VIF} into a tunnel");
        Ok(())
    }

    fn cms_deletes(&mut self, evidence: &mut Evidence) -> Result<()> {
        evidence.did(&format!("the CMS strikes {VIF} from its books. OVN still has it:"));
        let ports = self.nb(evidence, &format!("lsp-list {SWITCH}"))?;
        ensure!(ports.contains(VIF), "NB has lost {VIF}");
        Ok(())
    }

    fn plugin_deletes(&mut self, evidence: &mut Evidence) -> Result<()> {
        evidence.did(&format!("ovn-nbctl lsp-del {VIF}"));
        self.cloud.nbctl(&format!("lsp-del {VIF}"))?;
        let ports = self.nb(evidence, &format!("lsp-list {SWITCH}"))?;
        ensure!(!ports.contains(VIF), "NB still has {VIF}");
        Ok(())
    }

    fn northd_deletes(&mut self, evidence: &mut Evidence) -> Result<()> {
        wait_until("binding and flows to go", PATIENCE, || {
            let (binding, flows) = (self.binding("tunnel_key")?, self.flows_of(MAC)?);
            let gone = binding.is_empty() && flows.is_empty();
            Ok(Look::when(gone, || format!("tunnel_key {binding:?}, flows:\n{}", flows.join("\n"))))
        })?;
        self.sb(evidence, &format!("--columns=logical_port find Port_Binding logical_port={VIF}"))?;
        evidence.read(&format!("ovn-sbctl lflow-list {SWITCH} | grep -c {MAC}"), "0");
        Ok(())
    }

    fn nothing_left(&mut self, evidence: &mut Evidence) -> Result<()> {
        self.everybody_is_current(evidence)?;
        let device = self.cloud.vif(VIF)?.device().to_owned();
        self.cloud.remove_vif(VIF)?;
        for hypervisor in self.cloud.hypervisors() {
            let interfaces = hypervisor.ovsdb().vsctl_no_wait("--columns=name,external_ids list Interface")?;
            ensure!(!interfaces.contains(VIF), "{} still knows {VIF}:\n{interfaces}", hypervisor.name());
        }
        evidence.did(&format!("no hypervisor's Interface table names {VIF}; {device} is gone from hv1"));
        for table in ["Port_Binding", "Logical_Flow", "Multicast_Group", "FDB", "MAC_Binding"] {
            let rows = self.cloud.sbctl(&format!("list {table}"))?;
            ensure!(!rows.contains(VIF) && !rows.contains(MAC), "table {table} still names {VIF}:\n{rows}");
        }
        evidence.did(&format!("no row of SB names {VIF} or {MAC}"));
        let far = self.cloud.vif(FAR)?.address().to_owned();
        let line = self.guest(NEAR)?.ping(&far)?;
        evidence.read(&format!("ping {far}    ({NEAR} on hv1 to {FAR} on hv2)"), &line);
        Ok(())
    }

    /// Makes a guest on a hypervisor, not plugged in yet.
    fn boot(&mut self, hypervisor: usize, port: &str, mac: &str, address: &str) -> Result<()> {
        let spec = VifSpec::new(port, mac, &[&format!("{address}/24")]);
        let Some(image) = &self.image else { return self.cloud.create_vif(hypervisor, spec).map(|_| ()) };
        self.cloud.create_tap(hypervisor, spec)?;
        let (vif, host) = (self.cloud.vif(port)?, self.cloud.hypervisor_of(port)?);
        // ovs-vswitchd's userspace datapath takes only whole packets from a tap.
        let nic = Nic::on_tap(vif.device(), mac, !host.node().has_userspace_datapath());
        let mut machine = MachineSpec::small(port, std::slice::from_ref(&nic));
        machine.addresses = &vif.spec().addresses;
        let machine = Machine::start(host.ns(), image, &machine)?;
        self.machines.insert(port.to_owned(), RefCell::new(machine));
        Ok(())
    }

    /// Waits until a guest that is a virtual machine has booted.
    fn wait_booted(&self, port: &str) -> Result<()> {
        self.machines.get(port).map_or(Ok(()), |machine| machine.borrow_mut().wait_ready())
    }

    fn guest(&self, port: &str) -> Result<Guest<'_>> {
        match self.machines.get(port) {
            Some(machine) => Ok(Guest::Machine(machine)),
            None => Ok(Guest::Namespace(self.cloud.vif(port)?.guest())),
        }
    }

    /// Runs ovn-nbctl and shows what it says.
    fn nb(&self, evidence: &mut Evidence, args: &str) -> Result<String> {
        let answer = self.cloud.nbctl(args)?;
        evidence.read(&format!("ovn-nbctl {args}"), &answer);
        Ok(answer)
    }

    /// Runs ovn-sbctl and shows what it says.
    fn sb(&self, evidence: &mut Evidence, args: &str) -> Result<String> {
        let answer = self.cloud.sbctl(args)?;
        evidence.read(&format!("ovn-sbctl {args}"), &answer);
        Ok(answer)
    }

    /// Runs ovs-vsctl on the VIF's hypervisor and shows what it says.
    fn vs(&self, evidence: &mut Evidence, args: &str) -> Result<String> {
        let answer = self.vs_quiet(args)?;
        evidence.read(&format!("ovs-vsctl {args}"), &answer);
        Ok(answer)
    }

    fn vs_quiet(&self, args: &str) -> Result<String> {
        self.cloud.hypervisors()[0].ovsdb().vsctl_no_wait(args)
    }

    /// A column of the VIF's binding; empty when there is no binding or no value.
    fn binding(&self, column: &str) -> Result<String> {
        let answer = self.cloud.sbctl(&format!("--bare --columns={column} find Port_Binding logical_port={VIF}"))?;
        Ok(answer.trim().to_owned())
    }

    /// The logical flows of the switch that contain a text.
    fn flows_of(&self, needle: &str) -> Result<Vec<String>> {
        let flows = self.cloud.sbctl(&format!("lflow-list {SWITCH}"))?;
        Ok(flows.lines().filter(|line| line.contains(needle)).map(|line| line.trim().to_owned()).collect())
    }

    /// Waits until every hypervisor has put into effect what NB holds now, and shows that they say so.
    fn everybody_is_current(&self, evidence: &mut Evidence) -> Result<()> {
        self.cloud.sync()?;
        evidence.did("ovn-nbctl --wait=hv sync");
        let wanted = self.cloud.nbctl("get NB_Global . nb_cfg")?;
        let answer =
            self.cloud.sbctl("--bare --no-headings --format=csv --columns=name,nb_cfg list Chassis_Private")?;
        let mut chassis: Vec<&str> = answer.lines().filter(|line| !line.is_empty()).collect();
        chassis.sort_unstable();
        evidence.read("ovn-sbctl --columns=name,nb_cfg list Chassis_Private", &chassis.join("   "));
        let current = chassis.iter().filter(|line| line.rsplit(',').next() == Some(wanted.trim())).count();
        let hypervisors = self.cloud.hypervisors().len();
        ensure!(
            current == hypervisors,
            "{current} of {hypervisors} chassis have reached {}: {chassis:?}",
            wanted.trim()
        );
        Ok(())
    }

    /// Shows that the VIF's address does not answer its neighbours.
    fn nobody_answers(&self, evidence: &mut Evidence) -> Result<()> {
        for port in [NEAR, FAR] {
            let answered = self.guest(port)?.ping_count(ADDRESS, 3)?;
            evidence.did(&format!("{port} pings {ADDRESS}: {answered} of 3 answered"));
            ensure!(answered == 0, "{ADDRESS} answers although {VIF} is not there");
        }
        Ok(())
    }
}

/// The command of oxbow-node that lists drops, with the reason and the logical flow of each.
const DROPS: &str = "drops";
/// The reason that it gives when a logical flow says so.
const DROP_REASON: &str = "logical-flow-drop";
/// The logical stage that drops what port security refuses.
const PORT_SECURITY_STAGE: &str = "ls_in_apply_port_sec";

/// The ovn-nbctl command that adds a port with port security.
fn add_port(port: &str, mac: &str, address: &str) -> String {
    format!(
        "lsp-add {SWITCH} {port} -- lsp-set-addresses {port} '{mac} {address}' -- lsp-set-port-security {port} '{mac} {address}'"
    )
}

/// Of a verbose capture, the part of the packet that carries `inner` which describes the tunnel.
fn tunnel_header_of(capture: &str, inner: &str) -> String {
    let lines: Vec<&str> = capture.lines().collect();
    let Some(at) = lines.iter().position(|line| line.contains(inner)) else { return String::new() };
    let geneve = lines[..at].iter().rposition(|line| line.contains("Geneve"));
    let header = geneve.map_or("", |index| lines[index].trim());
    format!("{header}\n{}", lines[at].trim())
}
