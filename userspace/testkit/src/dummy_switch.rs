//! An ovs-vswitchd whose devices are files: frames go in by its control socket and come out in capture files, bytes and tunnels as on a wire, without
//! root and without the kernel.
//!
//! This is Open vSwitch's own way of testing itself (`--enable-dummy`). The bridge `br-int` is the one to program; `br-phys` has the underlay address,
//! an uplink, and forwards as an Ethernet switch does.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::artifacts::require_program;
use crate::ovsdb::{OvsdbServer, VSWITCH_SCHEMA};
use crate::process::{self, Process};
use crate::wait::{Look, PATIENCE, wait_until};

/// The bridge's uplink.
pub const UPLINK: &str = "uplink";
/// Header of a capture file, and of a record in it (pcap-savefile(5)).
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// A running switch.
#[derive(Debug)]
pub struct DummySwitch {
    controller: Option<Process>,
    vswitchd: Option<Process>,
    ovsdb: OvsdbServer,
    /// Bytes of each port's capture that were read.
    read: BTreeMap<String, usize>,
    dir: TempDir,
}

/// A port of `br-int`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DummyPort {
    /// Its name, at most 15 characters.
    pub name: String,
    /// Its OpenFlow number.
    pub number: u16,
    /// A Geneve tunnel to this address, else a device.
    pub remote: Option<Ipv4Addr>,
}

impl DummySwitch {
    /// Starts one with this underlay address (a /24). Open vSwitch also looks at the routes of the host, so it must be none that the host has or
    /// reaches more closely: 203.0.113.0/24 and 198.51.100.0/24 are for such uses (RFC 5737).
    ///
    /// # Errors
    ///
    /// When a program is missing or does not start.
    pub fn start(underlay: Ipv4Addr) -> Result<Self> {
        let dir = TempDir::with_prefix("oxbow-switch-").context("cannot make a temporary directory")?;
        let ovsdb = OvsdbServer::builder("db").schema(VSWITCH_SCHEMA).directory(dir.path()).start()?;
        ovsdb.vsctl_no_wait("init")?;
        let mut switch = Self { controller: None, vswitchd: None, ovsdb, read: BTreeMap::new(), dir };
        switch.start_vswitchd()?;
        let capture = switch.capture(UPLINK).display().to_string();
        switch.vsctl(&format!(
            "add-br br-int -- set Bridge br-int datapath_type=dummy fail_mode=secure \
             -- add-br br-phys -- set Bridge br-phys datapath_type=dummy fail_mode=standalone other_config:hwaddr=02:00:00:00:00:01 \
             -- add-port br-phys {UPLINK} -- set Interface {UPLINK} type=dummy options:tx_pcap={capture}"
        ))?;
        switch.control("netdev-dummy/ip4addr", &["br-phys", &format!("{underlay}/24")])?;
        let subnet = Ipv4Addr::from(u32::from(underlay) & 0xffff_ff00);
        switch.control("ovs/route/add", &[&format!("{subnet}/24"), "br-phys"])?;
        Ok(switch)
    }

    /// Starts `ovs-vswitchd`; after [`DummySwitch::kill_vswitchd`] again, with empty tables.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_vswitchd(&mut self) -> Result<()> {
        let mut command = Command::new(require_program("ovs-vswitchd")?);
        command.env("OVS_RUNDIR", self.dir.path()).env("OVS_LOGDIR", self.dir.path());
        command.arg(self.ovsdb.remote()).args(["--enable-dummy", "--disable-system", "--no-chdir", "-vconsole:warn"]);
        command.arg(format!("--unixctl={}", self.socket().display()));
        let log = self.dir.path().join("vswitchd.log");
        let mut process = Process::start("ovs-vswitchd", command, &log, process::start_from_host)?;
        let socket = self.socket();
        wait_until("ovs-vswitchd to listen", PATIENCE, || {
            process.check_alive()?;
            Ok(match UnixStream::connect(&socket) {
                Ok(_) => Look::Held(()),
                Err(error) => Look::NotYet(format!("{}: {error}", socket.display())),
            })
        })?;
        self.vswitchd = Some(process);
        Ok(())
    }

    /// Kills `ovs-vswitchd`, and with it all that the bridges hold.
    ///
    /// # Errors
    ///
    /// When it cannot be killed.
    pub fn kill_vswitchd(&mut self) -> Result<()> {
        match self.vswitchd.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Sends a signal to `ovs-vswitchd`: one that is stopped accepts connections and never answers.
    ///
    /// # Errors
    ///
    /// When none runs.
    pub fn signal_vswitchd(&self, signal: Signal) -> Result<()> {
        self.vswitchd.as_ref().context("no ovs-vswitchd runs")?.signal(signal)
    }

    /// Adds ports to `br-int`.
    ///
    /// # Errors
    ///
    /// When a number is not granted.
    pub fn add_ports(&mut self, ports: &[DummyPort]) -> Result<()> {
        let mut commands = Vec::new();
        for DummyPort { name, number, remote } in ports {
            let capture = self.capture(name).display().to_string();
            let kind = match remote {
                Some(remote) => format!("type=geneve options:remote_ip={remote} options:key=flow"),
                None => format!("type=dummy options:tx_pcap={capture}"),
            };
            commands.push(format!("add-port br-int {name} -- set Interface {name} {kind} ofport_request={number}"));
        }
        for some in commands.chunks(100) {
            self.vsctl(&some.join(" -- "))?;
        }
        for DummyPort { name, number, remote } in ports {
            let given = self.vsctl(&format!("get Interface {name} ofport"))?;
            ensure!(given.trim() == number.to_string(), "port {name} has the number {given}, not {number}");
            if let Some(remote) = remote {
                self.add_neighbor(*remote)?;
            }
        }
        Ok(())
    }

    /// Starts Debian's `ovn-controller` as the chassis `name`, which programs `br-int` from now on.
    ///
    /// # Errors
    ///
    /// When it is missing or does not start.
    pub fn start_controller(&mut self, name: &str, underlay: Ipv4Addr, sb_remote: &str) -> Result<()> {
        self.vsctl(&format!(
            "set Open_vSwitch . external_ids:system-id={name} external_ids:hostname={name} external_ids:ovn-remote={sb_remote} \
             external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip={underlay} external_ids:ovn-bridge-datapath-type=dummy"
        ))?;
        let mut command = Command::new(require_program("ovn-controller")?);
        for variable in
            ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVN_RUNDIR", "OVN_LOGDIR", "OVN_DBDIR", "OVN_SYSCONFDIR"]
        {
            command.env(variable, self.dir.path());
        }
        command.arg(self.ovsdb.remote()).args(["--no-chdir", "-vconsole:info"]);
        let log = self.dir.path().join("ovn-controller.log");
        self.controller = Some(Process::start("ovn-controller", command, &log, process::start_from_host)?);
        Ok(())
    }

    /// Tells the switch the link-layer address of another one on the underlay.
    ///
    /// # Errors
    ///
    /// When it does not take it.
    pub fn add_neighbor(&self, remote: Ipv4Addr) -> Result<()> {
        let mac = format!("02:00:00:00:01:{:02x}", remote.octets()[3]);
        self.control("tnl/neigh/set", &["br-phys", &remote.to_string(), &mac])?;
        Ok(())
    }

    /// How `ovs-ofctl` reaches `br-int`.
    pub fn bridge(&self) -> String {
        format!("unix:{}", self.dir.path().join("br-int.mgmt").display())
    }

    /// The switch's database.
    pub fn ovsdb(&self) -> &OvsdbServer {
        &self.ovsdb
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `ovs-vsctl`, waiting until `ovs-vswitchd` has done it.
    ///
    /// # Errors
    ///
    /// What it says.
    pub fn vsctl(&self, arguments: &str) -> Result<String> {
        self.ovsdb.vsctl(arguments)
    }

    /// A command of `ovs-vswitchd` (`ovs-appctl`).
    ///
    /// # Errors
    ///
    /// What it answers.
    pub fn control(&self, method: &str, arguments: &[&str]) -> Result<String> {
        let socket = self.socket();
        let mut stream =
            UnixStream::connect(&socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        let request = serde_json::json!({ "id": 0, "method": method, "params": arguments });
        stream.write_all(request.to_string().as_bytes())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = Vec::new();
        let mut buffer = [0; 65536];
        loop {
            let n = stream.read(&mut buffer).with_context(|| format!("no answer to {method}"))?;
            ensure!(n > 0, "ovs-vswitchd hangs up on {method}");
            answer.extend_from_slice(&buffer[..n]);
            let Ok(reply) = serde_json::from_slice::<serde_json::Value>(&answer) else { continue };
            if let Some(error) = reply["error"].as_str() {
                bail!("{method} {}: {error}", arguments.join(" "));
            }
            return Ok(reply["result"].as_str().unwrap_or_default().to_owned());
        }
    }

    /// A frame arrives at a port. When the call returns it has been forwarded.
    ///
    /// # Errors
    ///
    /// When there is no such port.
    pub fn receive(&self, port: &str, frame: &[u8]) -> Result<()> {
        let text: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        self.control("netdev-dummy/receive", &[port, &text])?;
        // Each turn of its loop answers commands first and forwards afterwards: the second answer comes after a whole turn.
        self.control("version", &[])?;
        self.control("version", &[])?;
        Ok(())
    }

    /// Frames that a port has sent since the last call.
    ///
    /// # Errors
    ///
    /// When its capture cannot be read.
    pub fn sent(&mut self, port: &str) -> Result<Vec<Vec<u8>>> {
        let path = self.capture(port);
        let mut file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let from = self.read.get(port).copied().unwrap_or(FILE_HEADER);
        let mut bytes = Vec::new();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(from as u64))?;
        file.read_to_end(&mut bytes)?;
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + RECORD_HEADER) {
            let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
            let Some(frame) = bytes.get(at + RECORD_HEADER..at + RECORD_HEADER + length) else { break };
            frames.push(frame.to_vec());
            at += RECORD_HEADER + length;
        }
        self.read.insert(port.to_owned(), from + at);
        Ok(frames)
    }

    /// Follows a frame through the tables without sending it (`ofproto/trace`): the text, which ends in "Datapath actions: …".
    ///
    /// # Errors
    ///
    /// When the flow cannot be read.
    pub fn trace(&self, flow: &str, frame: &[u8]) -> Result<String> {
        let text: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        self.control("ofproto/trace", &["br-int", flow, &text])
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("vswitchd.ctl")
    }

    fn capture(&self, port: &str) -> PathBuf {
        self.dir.path().join(format!("{port}.pcap"))
    }
}
