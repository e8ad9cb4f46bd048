//! Whole clouds: central, hypervisors, guests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::central::{Central, Northd};
use crate::hypervisor::{Hypervisor, Node, Site, UNDERLAY_MTU, UPLINK};
use crate::link;
use crate::netns::Netns;
use crate::ovsdb::OvsdbServer;
use crate::vif::{Vif, VifSpec};
use crate::wait::{Look, PATIENCE, wait_until};

/// A cloud to be started.
#[derive(Debug, Clone)]
pub struct CloudBuilder {
    northd: Northd,
    nodes: Vec<Node>,
    ipv6_underlay: bool,
    encap: String,
    node_arguments: Vec<String>,
    sb_members: u16,
}

impl CloudBuilder {
    /// Which northd it has; stock unless said.
    pub fn northd(mut self, northd: Northd) -> Self {
        self.northd = northd;
        self
    }

    /// Adds `count` hypervisors of this kind, named hv1, hv2, … in order of addition.
    pub fn hypervisors(mut self, count: usize, node: Node) -> Self {
        self.nodes.extend(std::iter::repeat_n(node, count));
        self
    }

    /// Uses IPv6 between the hypervisors and to SB.
    pub fn ipv6_underlay(mut self) -> Self {
        self.ipv6_underlay = true;
        self
    }

    /// What `ovn-encap-type` says; `geneve` unless said.
    pub fn encap(mut self, encap: &str) -> Self {
        self.encap = encap.to_owned();
        self
    }

    /// Has SB served by a raft cluster of three; hypervisors and northd are told all members.
    pub fn clustered_southbound(mut self) -> Self {
        self.sb_members = 3;
        self
    }

    /// Gives every `oxbow-node` these arguments too.
    pub fn node_arguments(mut self, arguments: &[&str]) -> Self {
        self.node_arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// Starts it, and waits until every chassis is registered in SB.
    pub fn start(&self) -> Result<Cloud> {
        let dir = TempDir::with_prefix("oxbow-cloud-").context("cannot make a temporary directory")?;
        let ns = Netns::new("central")?;
        link::bridge(&ns, FABRIC)?;
        ns.ip(&format!("link set {FABRIC} mtu {UNDERLAY_MTU}"))?;
        link::address(&ns, FABRIC, &format!("{}/{}", self.address(CENTRAL_HOST), self.prefix()))?;
        let host = self.address(CENTRAL_HOST);
        let host = if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
        let ports = SB_PORT..SB_PORT + self.sb_members;
        let listening: Vec<String> = ports.clone().map(|port| format!("ptcp:{port}:{host}")).collect();
        let remotes: Vec<String> = ports.map(|port| format!("tcp:{host}:{port}")).collect();
        let central = match listening.as_slice() {
            [remote] => Central::start(&ns, dir.path(), remote, self.northd)?,
            several => Central::start_clustered(&ns, dir.path(), several, self.northd)?,
        };
        let mut cloud = Cloud {
            builder: self.clone(),
            sb_remote: remotes.join(","),
            vifs: BTreeMap::new(),
            hypervisors: Vec::new(),
            central,
            ns,
            vifs_made: 0,
            dir,
        };
        for node in &self.nodes {
            cloud.add_hypervisor(*node)?;
        }
        Ok(cloud)
    }

    /// Starts it, runs `story` in it, and prints the state of the whole cloud to standard error if that fails or panics.
    pub fn run(&self, story: impl FnOnce(&mut Cloud) -> Result<()>) -> Result<()> {
        let mut cloud = self.start()?;
        match catch_unwind(AssertUnwindSafe(|| story(&mut cloud))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                cloud.print_dump();
                Err(error)
            }
            Err(panic) => {
                cloud.print_dump();
                resume_unwind(panic)
            }
        }
    }

    fn address(&self, host: u16) -> IpAddr {
        if self.ipv6_underlay {
            IpAddr::from([0xfd31, 0, 0, 0, 0, 0, 0, host])
        } else {
            let [high, low] = host.to_be_bytes();
            IpAddr::from([172, 31, high, low])
        }
    }

    fn prefix(&self) -> u8 {
        if self.ipv6_underlay { 64 } else { 16 }
    }
}

/// The bridge that stands for the network between the machines.
const FABRIC: &str = "fab";
const CENTRAL_HOST: u16 = 1;
/// Host number of the first hypervisor.
const FIRST_HYPERVISOR: u16 = 11;
const SB_PORT: u16 = 6642;

/// A running cloud; dropping it removes all of it.
#[derive(Debug)]
pub struct Cloud {
    builder: CloudBuilder,
    sb_remote: String,
    // Fields drop in order: guests before the hypervisors they hang on, those before the centre, files last.
    vifs: BTreeMap<String, (usize, Vif)>,
    hypervisors: Vec<Hypervisor>,
    central: Central,
    ns: Netns,
    vifs_made: usize,
    dir: TempDir,
}

impl Cloud {
    /// A cloud to be configured: stock northd, no hypervisors, IPv4 underlay, Geneve.
    pub fn builder() -> CloudBuilder {
        CloudBuilder {
            northd: Northd::Stock,
            nodes: Vec::new(),
            ipv6_underlay: false,
            encap: "geneve".to_owned(),
            node_arguments: Vec::new(),
            sb_members: 1,
        }
    }

    /// The databases and northd.
    pub fn central(&mut self) -> &mut Central {
        &mut self.central
    }

    /// Starts a northd of this kind (after [`Central::take_northd`] took the old one out).
    pub fn start_northd(&mut self, northd: Northd) -> Result<()> {
        self.central.start_northd(&self.ns, northd)
    }

    /// Kills the SB server as a crash would.
    pub fn stop_southbound(&mut self) -> Result<()> {
        self.central.sb_mut().stop()
    }

    /// Starts it again.
    pub fn start_southbound(&mut self) -> Result<()> {
        self.central.sb_mut().start_again(Some(&self.ns))
    }

    /// Starts a member of SB's cluster that was stopped.
    pub fn start_southbound_member(&mut self, index: usize) -> Result<()> {
        self.central.sb_cluster()?.member(index).start_again(Some(&self.ns))
    }

    /// Kills the NB server as a crash would.
    pub fn stop_northbound(&mut self) -> Result<()> {
        self.central.nb_mut().stop()
    }

    /// Starts it again.
    pub fn start_northbound(&mut self) -> Result<()> {
        self.central.nb_mut().start_again(Some(&self.ns))
    }

    /// The namespace of the databases and of the fabric between the hypervisors.
    pub fn central_ns(&self) -> &Netns {
        &self.ns
    }

    /// Where its files are: databases and logs of the centre, a directory for each hypervisor.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `ovn-nbctl`.
    pub fn nbctl(&self, args: &str) -> Result<String> {
        self.central.nb().nbctl(args)
    }

    /// `ovn-sbctl`.
    pub fn sbctl(&self, args: &str) -> Result<String> {
        self.central.sb().sbctl(args)
    }

    /// The SB server.
    pub fn southbound(&self) -> &OvsdbServer {
        self.central.sb()
    }

    /// Adds a hypervisor, waits until its chassis is in SB, and returns its index.
    pub fn add_hypervisor(&mut self, node: Node) -> Result<usize> {
        let index = self.hypervisors.len();
        let name = format!("hv{}", index + 1);
        let ns = Netns::with_own_sys(&name)?;
        let port = format!("to-{name}");
        link::veth(&self.ns, &port, &ns, UPLINK)?;
        self.ns.ip(&format!("link set {port} master {FABRIC} mtu {UNDERLAY_MTU}"))?;
        ns.ip(&format!("link set {UPLINK} mtu {UNDERLAY_MTU}"))?;
        if node.has_userspace_datapath() {
            link::no_offload(&self.ns, &port)?;
        }
        let host = FIRST_HYPERVISOR + u16::try_from(index).context("too many hypervisors")?;
        let site = Site {
            sb_remote: self.sb_remote.clone(),
            address: self.builder.address(host),
            prefix: self.builder.prefix(),
            encap: self.builder.encap.clone(),
            node_arguments: self.builder.node_arguments.clone(),
        };
        let hypervisor = Hypervisor::start(ns, &name, node, site, &self.dir.path().join(&name))?;
        self.hypervisors.push(hypervisor);
        let registered = wait_until(&format!("chassis {name} in SB"), PATIENCE, || {
            self.check_alive()?;
            let found = self.sbctl(&format!("--bare --columns=name find Chassis name={name}"))?;
            Ok(Look::when(found.trim() == name, || format!("chassis: {found:?}")))
        });
        if registered.is_err() {
            self.print_dump();
        }
        registered?;
        Ok(index)
    }

    /// The hypervisors.
    pub fn hypervisors(&self) -> &[Hypervisor] {
        &self.hypervisors
    }

    /// One hypervisor, by index from 0.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn hypervisor(&mut self, index: usize) -> &mut Hypervisor {
        &mut self.hypervisors[index]
    }

    /// Makes a guest on a hypervisor without plugging it in.
    ///
    /// # Errors
    ///
    /// When the port has a guest already.
    pub fn create_vif(&mut self, hypervisor: usize, spec: VifSpec) -> Result<&Vif> {
        self.create(hypervisor, spec, Vif::create)
    }

    /// Makes a tap on a hypervisor for a guest that is a virtual machine, without plugging it in.
    ///
    /// # Errors
    ///
    /// When the port has a guest already.
    pub fn create_tap(&mut self, hypervisor: usize, spec: VifSpec) -> Result<&Vif> {
        self.create(hypervisor, spec, Vif::create_tap)
    }

    fn create(
        &mut self,
        hypervisor: usize,
        spec: VifSpec,
        make: fn(&Netns, &str, VifSpec) -> Result<Vif>,
    ) -> Result<&Vif> {
        let port = spec.port.clone();
        if self.vifs.contains_key(&port) {
            bail!("port {port} has a guest already");
        }
        self.vifs_made += 1;
        let host = &self.hypervisors[hypervisor];
        let vif = make(host.ns(), &format!("vif{}", self.vifs_made), spec)?;
        if host.node().has_userspace_datapath()
            && let Some(guest) = vif.namespace()
        {
            link::no_offload(host.ns(), vif.device())?;
            link::no_offload(guest, crate::vif::GUEST_DEVICE)?;
        }
        let (_, vif) = self.vifs.entry(port).or_insert((hypervisor, vif));
        Ok(vif)
    }

    /// Plugs a guest in as libvirt does: the device becomes a port of br-int with the guest's `iface-id`.
    pub fn plug(&self, port: &str) -> Result<()> {
        let (hypervisor, vif) = self.entry(port)?;
        let (device, mac) = (vif.device(), &vif.spec().mac);
        self.hypervisors[*hypervisor].vsctl(&format!(
            "--may-exist add-port br-int {device} -- set Interface {device} external_ids:iface-id={port} \
             external_ids:attached-mac='\"{mac}\"' external_ids:iface-status=active"
        ))?;
        Ok(())
    }

    /// Takes a guest's device out of br-int; guest and device stay.
    pub fn unplug(&self, port: &str) -> Result<()> {
        let (hypervisor, vif) = self.entry(port)?;
        self.hypervisors[*hypervisor].vsctl(&format!("del-port br-int {}", vif.device()))?;
        Ok(())
    }

    /// Makes a guest, plugs it in and waits until its logical port is up.
    ///
    /// The port must exist in NB.
    pub fn add_vif(&mut self, hypervisor: usize, spec: VifSpec) -> Result<&Vif> {
        let port = spec.port.clone();
        self.create_vif(hypervisor, spec)?;
        self.plug(&port)?;
        self.wait_up(&port)?;
        self.vif(&port)
    }

    /// Waits until NB says that a logical switch port is up.
    pub fn wait_up(&self, port: &str) -> Result<()> {
        self.wait_state(port, "up")
    }

    /// Waits until NB says that a logical switch port is down.
    pub fn wait_down(&self, port: &str) -> Result<()> {
        self.wait_state(port, "down")
    }

    fn wait_state(&self, port: &str, state: &str) -> Result<()> {
        wait_until(&format!("logical port {port} {state} in NB"), PATIENCE, || {
            let said = self.nbctl(&format!("lsp-get-up {port}"))?;
            Ok(Look::when(said.trim() == state, || format!("lsp-get-up {port}: {said}")))
        })
    }

    /// Waits until everything that is in NB now has reached every hypervisor (`ovn-nbctl --wait=hv sync`).
    pub fn sync(&self) -> Result<()> {
        self.nbctl("--wait=hv sync").map(|_| ())
    }

    /// The guests, in order of their ports' names.
    pub fn vifs(&self) -> impl Iterator<Item = &Vif> {
        self.vifs.values().map(|(_, vif)| vif)
    }

    /// The hypervisor that a logical port's guest runs on.
    pub fn hypervisor_of(&self, port: &str) -> Result<&Hypervisor> {
        self.entry(port).map(|(hypervisor, _)| &self.hypervisors[*hypervisor])
    }

    /// Removes a guest and its device.
    pub fn remove_vif(&mut self, port: &str) -> Result<()> {
        let (hypervisor, vif) = self.vifs.remove(port).with_context(|| format!("port {port} has no guest"))?;
        self.hypervisors[hypervisor].ns().ip(&format!("link del {}", vif.device()))?;
        Ok(())
    }

    /// The guest of a logical port.
    pub fn vif(&self, port: &str) -> Result<&Vif> {
        self.entry(port).map(|(_, vif)| vif)
    }

    fn entry(&self, port: &str) -> Result<&(usize, Vif)> {
        self.vifs.get(port).with_context(|| format!("port {port} has no guest"))
    }

    /// An error with the log's end if any daemon has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.central.check_alive()?;
        self.hypervisors.iter_mut().try_for_each(Hypervisor::check_alive)
    }

    /// The state of everything.
    pub fn dump(&self) -> String {
        let mut text = self.central.dump();
        text.push_str(&self.ns.dump());
        for hypervisor in &self.hypervisors {
            text.push_str(&hypervisor.dump());
        }
        for (_, vif) in self.vifs.values() {
            text.push_str(&vif.namespace().map(Netns::dump).unwrap_or_default());
        }
        text
    }

    fn print_dump(&self) {
        #[expect(clippy::print_stderr, reason = "a failed test's standard error is where its reader looks")]
        {
            eprintln!("=== the cloud when it failed\n{}=== end of the cloud", self.dump());
        }
    }
}
