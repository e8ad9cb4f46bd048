//! A hypervisor: a namespace with an address on the underlay, an Open_vSwitch database and the daemon that serves it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use oxbow_report::{drops::Drops, flows::Flows, ports::Ports, status::Status, verdicts::Verdicts};

use crate::artifacts::{self, NodeBuild};
use crate::link;
use crate::netns::Netns;
use crate::ovsdb::{OvsdbServer, VSWITCH_SCHEMA};
use crate::process::Process;
use crate::wait::{Look, PATIENCE, wait_until};

/// What makes a namespace a chassis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// Debian's `ovn-controller` with `ovs-vswitchd` and its userspace datapath (no kernel module is needed).
    Stock,
    /// `oxbow-node`, without `ovs-vswitchd`.
    Oxbow,
    /// `oxbow-node --backend=openflow` beside Debian's `ovs-vswitchd` and its userspace datapath.
    OpenFlow,
    /// As [`Node::Stock`], with the kernel's datapath: the module openvswitch must be loaded.
    StockKernel,
    /// `oxbow-node` and its eBPF programs beside Debian's `ovs-vswitchd` with the kernel's datapath.
    BesideKernel,
}

impl Node {
    /// Whether Debian's `ovs-vswitchd` runs.
    pub fn has_vswitchd(self) -> bool {
        self != Node::Oxbow
    }

    /// Whether its userspace datapath forwards, so that devices need what that needs of them.
    pub fn has_userspace_datapath(self) -> bool {
        matches!(self, Node::Stock | Node::OpenFlow)
    }

    /// Whether `oxbow-node` is the controller.
    pub fn is_oxbow(self) -> bool {
        matches!(self, Node::Oxbow | Node::OpenFlow | Node::BesideKernel)
    }
}

/// Where a hypervisor finds the rest of the cloud.
#[derive(Debug, Clone)]
pub struct Site {
    /// The remote of SB, as `ovn-remote` takes it.
    pub sb_remote: String,
    /// The hypervisor's underlay address.
    pub address: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// `geneve`, `vxlan` or a comma-separated list, as `ovn-encap-type` takes it.
    pub encap: String,
    /// More arguments for `oxbow-node`.
    pub node_arguments: Vec<String>,
}

/// A running hypervisor.
#[derive(Debug)]
pub struct Hypervisor {
    name: String,
    node: Node,
    // Fields drop in order: the daemons, then their database, then the namespace they live in.
    controller: Option<Process>,
    vswitchd: Option<Process>,
    ovsdb: OvsdbServer,
    ns: Netns,
    site: Site,
    /// Which `oxbow-node` is started the next time; the usual one unless said.
    build: Option<NodeBuild>,
    dir: PathBuf,
}

/// The device that leads to the underlay.
pub const UPLINK: &str = "eth0";

/// Bytes a Geneve frame is longer than what it carries, and room to spare; VIFs have the usual 1500.
pub const UNDERLAY_MTU: u32 = 1600;

impl Hypervisor {
    /// Starts one in `ns`, whose device [`UPLINK`] is up, and waits until it has configured itself from its database.
    ///
    /// `name` becomes the chassis name (`system-id`).
    pub fn start(ns: Netns, name: &str, node: Node, site: Site, dir: &Path) -> Result<Self> {
        let ovsdb = OvsdbServer::builder("db").schema(VSWITCH_SCHEMA).directory(dir).namespace(&ns).start()?;
        ovsdb.vsctl_no_wait("init")?;
        let mut hypervisor = Self {
            name: name.to_owned(),
            node,
            controller: None,
            vswitchd: None,
            ovsdb,
            ns,
            site,
            build: None,
            dir: dir.to_owned(),
        };
        hypervisor.configure()?;
        if node.has_vswitchd() {
            hypervisor.start_vswitchd()?;
        }
        if !node.has_userspace_datapath() {
            hypervisor.address_on(UPLINK)?;
        }
        hypervisor.start_controller()?;
        Ok(hypervisor)
    }

    /// Writes what an administrator writes: who we are, where SB is, how to reach us.
    fn configure(&self) -> Result<()> {
        let Site { sb_remote, address, encap, .. } = &self.site;
        let name = &self.name;
        self.ovsdb.vsctl_no_wait(&format!(
            "set Open_vSwitch . external_ids:system-id={name} external_ids:hostname={name} \
             external_ids:ovn-remote={sb_remote} external_ids:ovn-encap-type={encap} external_ids:ovn-encap-ip='\"{address}\"' \
             external_ids:ovn-encap-csum=false"
        ))?;
        if self.node.has_userspace_datapath() {
            self.ovsdb.vsctl_no_wait("set Open_vSwitch . external_ids:ovn-bridge-datapath-type=netdev")?;
        }
        Ok(())
    }

    fn address_on(&self, device: &str) -> Result<()> {
        link::address(&self.ns, device, &format!("{}/{}", self.site.address, self.site.prefix))
    }

    /// Starts ovs-vswitchd, whose userspace datapath has the underlay in a bridge of its own.
    ///
    /// # Errors
    ///
    /// When one runs already.
    pub fn start_vswitchd(&mut self) -> Result<()> {
        if self.vswitchd.is_some() {
            bail!("{}: ovs-vswitchd is running already", self.name);
        }
        let mut command = self.daemon(artifacts::require_program("ovs-vswitchd")?);
        command.arg(self.ovsdb.remote()).args(["--no-chdir", "--pidfile"]);
        command.arg(format!("--unixctl={}", self.control("vswitchd").display()));
        if !self.node.has_userspace_datapath() {
            self.vswitchd = Some(self.ns.spawn("ovs-vswitchd", command, &self.log("ovs-vswitchd"))?);
            return Ok(());
        }
        // Without it, it would look for the kernel module.
        command.arg("--disable-system");
        self.vswitchd = Some(self.ns.spawn("ovs-vswitchd", command, &self.log("ovs-vswitchd"))?);
        self.make_underlay()
    }

    /// Takes ovs-vswitchd's process out, e.g. to kill it; [`Hypervisor::start_vswitchd`] starts another.
    pub fn take_vswitchd(&mut self) -> Option<Process> {
        self.vswitchd.take()
    }

    /// Moves the uplink into a bridge of its own.
    ///
    /// The userspace tunnels of ovs-vswitchd look routes up in a copy that knows only the addresses of bridges, so the underlay address
    /// must sit on one. The bridge's device outlives an ovs-vswitchd that is killed, and so does its address.
    fn make_underlay(&self) -> Result<()> {
        link::no_offload(&self.ns, UPLINK)?;
        self.vsctl(&format!(
            "--may-exist add-br br-phys -- set Bridge br-phys datapath_type=netdev fail_mode=standalone \
             -- --may-exist add-port br-phys {UPLINK}"
        ))?;
        wait_until("the bridge's device", PATIENCE, || self.ns.ip("link show br-phys").map(Look::Held))?;
        let shown = self.ns.ip("-oneline address show dev br-phys")?;
        if !shown.contains(&self.site.address.to_string()) {
            self.address_on("br-phys")?;
        }
        self.ns.ip(&format!("link set br-phys mtu {UNDERLAY_MTU} up"))?;
        Ok(())
    }

    /// Starts the controller: ovn-controller or oxbow-node.
    ///
    /// # Errors
    ///
    /// When one runs already.
    pub fn start_controller(&mut self) -> Result<()> {
        if self.controller.is_some() {
            bail!("{}: the controller is running already", self.name);
        }
        let command = match self.node {
            Node::Stock | Node::StockKernel => {
                let mut command = self.daemon(artifacts::require_program("ovn-controller")?);
                // 23.03 knows no --unixctl: its control socket is $OVN_RUNDIR/ovn-controller.PID.ctl.
                command.arg(self.ovsdb.remote()).arg("--no-chdir");
                command
            }
            Node::Oxbow | Node::OpenFlow | Node::BesideKernel => self.node_command()?,
        };
        let process = self.ns.spawn(&format!("controller of {}", self.name), command, &self.log("controller"))?;
        self.controller = Some(process);
        // Either makes the integration bridge when it starts.
        wait_until(&format!("br-int on {}", self.name), PATIENCE, || {
            self.check_alive()?;
            let bridges = self.ovsdb.vsctl_no_wait("list-br")?;
            Ok(Look::when(bridges.lines().any(|bridge| bridge == "br-int"), || {
                let log = self.controller.as_ref().map(|process| process.log_tail(3000)).unwrap_or_default();
                format!("bridges: {bridges:?}\n{log}")
            }))
        })
    }

    /// The command line of this hypervisor's `oxbow-node`.
    ///
    /// # Errors
    ///
    /// When it or the eBPF object is not built.
    pub fn node_command(&self) -> Result<Command> {
        let node =
            self.build.as_ref().map_or_else(|| artifacts::binary("oxbow-node"), |build| Ok(build.node.clone()))?;
        let mut command = self.daemon(node);
        command.arg(self.ovsdb.remote()).arg("--no-chdir");
        command.arg(format!("--unixctl={}", self.control("node").display()));
        if self.node == Node::OpenFlow {
            command.arg("--backend=openflow");
        } else {
            let object =
                self.build.as_ref().map_or_else(artifacts::require_ebpf_object, |build| Ok(build.object.clone()))?;
            command.env("OXBOW_BPF_OBJECT", object);
        }
        command.args(&self.site.node_arguments);
        Ok(command)
    }

    /// Changes what `oxbow-node` is given when it is started the next time.
    pub fn set_node_arguments(&mut self, arguments: &[&str]) {
        self.site.node_arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Changes which `oxbow-node`, with which eBPF object, is started the next time.
    pub fn set_node_build(&mut self, build: NodeBuild) {
        self.build = Some(build);
    }

    /// Everything that the controller said so far, in this and former runs.
    pub fn controller_log(&self) -> String {
        crate::process::tail(&self.log("controller"), u64::MAX)
    }

    /// Kills the server of its Open_vSwitch database as a crash would.
    pub fn stop_ovsdb(&mut self) -> Result<()> {
        self.ovsdb.stop()
    }

    /// Starts it again.
    pub fn start_ovsdb(&mut self) -> Result<()> {
        self.ovsdb.start_again(Some(&self.ns))
    }

    /// A command with this hypervisor's directories instead of the system's.
    fn daemon(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        for kind in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.env(format!("OVN_{kind}"), &self.dir).env(format!("OVS_{kind}"), &self.dir);
        }
        command
    }

    /// The control socket of `oxbow-node` ("node").
    pub fn control(&self, daemon: &str) -> PathBuf {
        self.dir.join(format!("{daemon}.ctl"))
    }

    fn log(&self, daemon: &str) -> PathBuf {
        self.dir.join(format!("{daemon}.log"))
    }

    /// The chassis name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What serves it.
    pub fn node(&self) -> Node {
        self.node
    }

    /// Its namespace.
    pub fn ns(&self) -> &Netns {
        &self.ns
    }

    /// Its underlay address and whom it talks to.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The directory with its databases, logs and control sockets.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its Open_vSwitch database.
    pub fn ovsdb(&self) -> &OvsdbServer {
        &self.ovsdb
    }

    /// `ovs-vsctl` on its database, waiting until the change is in effect.
    pub fn vsctl(&self, args: &str) -> Result<String> {
        self.ovsdb.vsctl(args).with_context(|| format!("on {}", self.name))
    }

    /// Sends a command to the controller's control socket.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn appctl(&self, args: &str) -> Result<String> {
        let Some(controller) = &self.controller else { bail!("{}: no controller is running", self.name) };
        let target = match self.node {
            Node::Stock | Node::StockKernel => self.dir.join(format!("ovn-controller.{}.ctl", controller.pid())),
            Node::Oxbow | Node::OpenFlow | Node::BesideKernel => self.control("node"),
        };
        let mut command = Command::new(artifacts::require_program("ovn-appctl")?);
        command.arg("-t").arg(target).args(crate::process::words(args));
        let line = crate::process::line(&command);
        let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
        crate::process::checked(&line, output)
    }

    /// Runs `oxbow` on this hypervisor's `oxbow-node` and returns its exit status and what it printed.
    ///
    /// # Errors
    ///
    /// When it is not built.
    pub fn oxbow(&self, args: &[&str]) -> Result<(Option<i32>, String)> {
        let mut command = self.daemon(artifacts::binary("oxbow")?);
        command.arg("--target").arg(self.control("node")).args(args);
        command.env("OXBOW_BPF_OBJECT", artifacts::ebpf_object_path());
        let output = self.ns.output(command)?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code(), text))
    }

    /// A report of `oxbow-node`, as its type.
    ///
    /// # Errors
    ///
    /// The daemon's own, or an answer that is not this report.
    pub fn report<T: serde::de::DeserializeOwned>(&self, method: &str) -> Result<T> {
        oxbow_report::read(&self.appctl(method)?).map_err(|error| anyhow::anyhow!("{method} on {}: {error}", self.name))
    }

    /// A report as `oxbow` prints it.
    fn printed<T: serde::de::DeserializeOwned + std::fmt::Display>(&self, method: &str) -> Result<String> {
        self.report::<T>(method).map(|report| report.to_string())
    }

    /// Sends a command to ovs-vswitchd's control socket.
    ///
    /// # Errors
    ///
    /// When none runs.
    pub fn vswitchd_appctl(&self, args: &str) -> Result<String> {
        let target = self.control("vswitchd").display().to_string();
        let words = crate::process::words(args);
        let args: Vec<&str> = ["-t", &target].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.ns.run("ovs-appctl", &args)
    }

    /// Takes the controller's process out, e.g. to kill it; [`Hypervisor::start_controller`] starts another.
    pub fn take_controller(&mut self) -> Option<Process> {
        self.controller.take()
    }

    /// Ends the controller by `exit`, so that it removes itself from SB, or by `exit --restart`, so that everything stays.
    pub fn exit_controller(&mut self, restart: bool) -> Result<()> {
        self.appctl(if restart { "exit --restart" } else { "exit" })?;
        let Some(mut process) = self.controller.take() else { bail!("{}: no controller is running", self.name) };
        let status = process.wait_end(PATIENCE)?;
        if !status.success() {
            bail!("controller of {} ended with {status} after exit\n{}", self.name, process.log_tail(4000));
        }
        Ok(())
    }

    /// Kills the controller as a crash would.
    pub fn kill_controller(&mut self) -> Result<()> {
        match self.controller.take() {
            Some(process) => process.kill(),
            None => bail!("{}: no controller is running", self.name),
        }
    }

    /// Sends a signal to the controller.
    pub fn signal_controller(&self, signal: Signal) -> Result<()> {
        match &self.controller {
            Some(process) => process.signal(signal),
            None => bail!("{}: no controller is running", self.name),
        }
    }

    /// Sends a signal to `ovs-vswitchd`.
    ///
    /// # Errors
    ///
    /// When none runs.
    pub fn signal_vswitchd(&self, signal: Signal) -> Result<()> {
        match &self.vswitchd {
            Some(process) => process.signal(signal),
            None => bail!("{}: no ovs-vswitchd is running", self.name),
        }
    }

    /// Process ids of what runs on it beside its database: the controller, and `ovs-vswitchd` where it has one.
    pub fn daemons(&self) -> Vec<u32> {
        [&self.controller, &self.vswitchd].into_iter().flatten().map(Process::pid).collect()
    }

    /// An error with the log's end if a daemon that should run has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.ovsdb.process().check_alive()?;
        for process in [&mut self.vswitchd, &mut self.controller].into_iter().flatten() {
            process.check_alive()?;
        }
        Ok(())
    }

    /// Everything there is to know about it, for a failure's message.
    pub fn dump(&self) -> String {
        let mut text = format!("--- hypervisor {}\n", self.name);
        let mut part = |title: &str, part: Result<String>| {
            text.push_str(&format!("$ {title}\n{}\n", part.unwrap_or_else(|error| format!("{error:#}"))));
        };
        part("ovs-vsctl show", self.ovsdb.vsctl_no_wait("show"));
        part("ovs-vsctl list Interface", self.ovsdb.vsctl_no_wait("list Interface"));
        part("ovs-vsctl list Open_vSwitch", self.ovsdb.vsctl_no_wait("list Open_vSwitch"));
        if self.node.is_oxbow() {
            part("oxbow status", self.printed::<Status>("oxbow/status"));
            part("oxbow ports", self.printed::<Ports>("oxbow/ports"));
            part("oxbow drops", self.printed::<Drops>("oxbow/drops"));
            part("debug/dataplane", self.appctl("debug/dataplane"));
            if self.node == Node::Oxbow {
                part("oxbow flows --hit", self.printed::<Flows>(r#"oxbow/flows '{"hit":true}'"#));
                part("oxbow verdicts", self.printed::<Verdicts>(r#"oxbow/verdicts '{"limit":50}'"#));
            }
        }
        if self.node.has_vswitchd() {
            // One without its database answers nobody.
            let bridge = format!("unix:{}", self.dir.join("br-int.mgmt").display());
            for command in ["dump-flows", "dump-groups", "dump-tlv-map"] {
                part(
                    &format!("ovs-ofctl {command} br-int"),
                    self.ns.run("ovs-ofctl", &["--timeout=5", "-OOpenFlow15", command, &bridge]),
                );
            }
            let control = self.control("vswitchd");
            let control = control.display().to_string();
            for command in ["dpctl/dump-flows", "coverage/show", "ovs/route/show", "tnl/neigh/show"] {
                part(command, self.ns.run("ovs-appctl", &["--timeout=5", "-t", &control, command]));
            }
        } else {
            part("tc filter", self.ns.run("sh", &["-c", TC_FILTERS]));
        }
        text.push_str(&self.ns.dump());
        for process in [&self.controller, &self.vswitchd].into_iter().flatten() {
            text.push_str(&format!("--- log of {}\n{}\n", process.name(), process.log_tail(8000)));
        }
        text
    }
}

/// Lists what is attached to every device through clsact.
const TC_FILTERS: &str = "for d in /sys/class/net/*; do d=${d##*/}; for w in ingress egress; do \
                          tc filter show dev $d $w | sed \"s/^/$d $w: /\"; done; done";
