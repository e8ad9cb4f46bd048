//! The OpenFlow backend as a [`Dataplane`]: flows in the integration bridge of an ovs-vswitchd.

mod session;

use super::inspect::Summary;
use super::{Cookies, Dataplane, DataplaneError, Devices, Event, FdbAddress, Peer};
use oxbow_backend_openflow::layout::ADDRESSES;
use oxbow_backend_openflow::{Backend, CommitError, OfPort, OvsOfctl, SwitchError, Tunnel, Wiring};
use oxbow_pipeline::ir::{Changes, ChassisId, EncapKind, LflowId, Program};
use session::Session;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What the bridge has learned is looked at this often at most: each time is a process.
const ADDRESS_PAUSE: Duration = Duration::from_millis(100);

/// How to reach the bridge.
#[derive(Clone, Debug)]
pub struct Location {
    /// `ovs-ofctl`.
    pub program: PathBuf,
    /// Name of the integration bridge.
    pub bridge: String,
    /// Its management connection: `unix:/run/openvswitch/br-int.mgmt`, or what `ovn-bridge-remote` says.
    pub remote: String,
}

/// The backend.
pub struct OpenFlow {
    location: Location,
    backend: Backend,
    session: Option<Session>,
    /// Sessions opened so far.
    sessions: u64,
    /// No bridge is told anything.
    is_dry: bool,
    /// Why there is no session.
    trouble: Option<String>,
    wiring: Wiring,
    peers: Vec<Peer>,
    is_active: bool,
    inherited: Vec<u32>,
    waiting: Vec<Event>,
}

impl OpenFlow {
    /// A backend for that bridge, which need not be there yet. What is in it stays in force until [`Dataplane::activate`].
    pub fn open(location: Location) -> Self {
        let mut dataplane = OpenFlow::new(location);
        // Ports that a former controller's flows serve: they go on until the new policy is whole.
        if dataplane.connect().is_ok() {
            dataplane.inherited = dataplane.served_ports().unwrap_or_default();
        }
        dataplane
    }

    /// One that computes the flows and tells them to nobody but [`Dataplane::flows_text`].
    pub fn without_bridge() -> Self {
        let location = Location { program: PathBuf::new(), bridge: String::new(), remote: String::new() };
        OpenFlow { is_dry: true, ..OpenFlow::new(location) }
    }

    fn new(location: Location) -> Self {
        let ofctl = OvsOfctl::with_program(location.program.clone(), &location.remote);
        OpenFlow {
            location,
            backend: Backend::new(Box::new(ofctl)),
            session: None,
            sessions: 0,
            is_dry: false,
            trouble: None,
            wiring: Wiring::default(),
            peers: Vec::new(),
            is_active: false,
            inherited: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// A session with the bridge, and what its flows rest on.
    fn connect(&mut self) -> Result<(), DataplaneError> {
        if self.session.is_some() || self.is_dry {
            return Ok(());
        }
        match Session::open(&self.location.remote, ADDRESSES) {
            Ok(session) => {
                self.sessions += 1;
                self.session = Some(session);
                self.trouble = None;
                // A bridge that was not there a moment ago has lost what it was given.
                self.backend.distrust();
                Ok(())
            }
            Err(error) => {
                let error = self.unreachable(&error.to_string());
                self.trouble = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn unreachable(&self, reason: &str) -> DataplaneError {
        let Location { bridge, remote, .. } = &self.location;
        DataplaneError::Unreachable(format!(
            "bridge {bridge} cannot be managed at {remote} ({reason}): is ovs-vswitchd running? Start it, or run oxbow-node --backend=ebpf \
             without one"
        ))
    }

    fn ofctl(&self, arguments: &[&str]) -> Result<String, DataplaneError> {
        let mut command = Command::new(&self.location.program);
        command.args(["--timeout=10", "--no-names", arguments[0]]).arg(&self.location.remote).args(&arguments[1..]);
        let output = command.output().map_err(|error| {
            let program = self.location.program.display();
            DataplaneError::Other(format!("cannot run {program} ({error}): install Open vSwitch's tools"))
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(DataplaneError::Other(format!("ovs-ofctl {}: {}", arguments.join(" "), complaint.trim())))
    }

    /// Local ports that flows of the first table name.
    fn served_ports(&self) -> Result<Vec<u32>, DataplaneError> {
        Ok(input_ports(&self.ofctl(&["dump-flows", "table=0"])?))
    }

    /// Takes over what the bridge has learned.
    fn ask_for_addresses(&mut self) {
        if !self.is_active || self.session.is_none() {
            return;
        }
        match self.backend.learned() {
            Ok(all) => self.waiting.extend(all.into_iter().map(|learned| {
                let [_, _, mac @ ..] = learned.mac.0.to_be_bytes();
                let address = FdbAddress { datapath: learned.datapath.0, mac };
                Event::Learned { address, port: learned.port.0 }
            })),
            Err(error) => tracing::warn!(target: "ofctrl", "cannot read what was learned: {error}"),
        }
    }

    /// Puts in force what was followed.
    fn flush(&mut self, program: &Program) -> Result<(), DataplaneError> {
        if self.is_dry {
            return Ok(());
        }
        match self.backend.flush(program) {
            Ok(done) => {
                tracing::debug!(
                    target: "ofctrl",
                    "bundle: {} flows written, {} deleted, {} groups",
                    done.flows_written,
                    done.flows_deleted,
                    done.groups
                );
                Ok(())
            }
            Err(CommitError::Switch(SwitchError::Unreachable { reason, .. })) => {
                self.session = None;
                Err(self.unreachable(&reason))
            }
            Err(error) => Err(DataplaneError::Other(error.to_string())),
        }
    }
}

/// Ports that flows take packets from.
fn input_ports(flows: &str) -> Vec<u32> {
    let number = |line: &str| {
        let rest = line.split_once("in_port=")?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let mut ports: Vec<u32> = flows.lines().filter_map(number).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

impl Devices for OpenFlow {
    fn attach_vif(&mut self, number: u32, name: &str) -> Result<(), DataplaneError> {
        let port = u16::try_from(number).map_err(|_| DataplaneError::Attach {
            device: name.to_owned(),
            reason: format!("{number} is no OpenFlow port"),
        })?;
        self.wiring.devices.insert(number, OfPort(port));
        Ok(())
    }

    fn detach_vif(&mut self, number: u32) {
        self.wiring.devices.remove(&number);
    }

    fn attach_underlay(&mut self, _ifindex: u32, _name: &str) -> Result<(), DataplaneError> {
        Ok(())
    }

    fn detach_underlay(&mut self, _ifindex: u32) {}

    fn taken_over(&self) -> Vec<u32> {
        self.inherited.clone()
    }
}

impl Dataplane for OpenFlow {
    fn set_peers(&mut self, peers: &[Peer]) -> (bool, Option<DataplaneError>) {
        self.peers = peers.to_vec();
        let tunnel = |peer: &Peer| {
            let kind = if peer.vxlan { EncapKind::Vxlan } else { EncapKind::Geneve };
            Some((ChassisId(peer.index), Tunnel { port: OfPort(peer.ofport?), kind }))
        };
        self.wiring.tunnels = peers.iter().filter_map(tunnel).collect();
        (self.backend.set_wiring(self.wiring.clone()), None)
    }

    fn commit(&mut self, program: &Program, changes: &Changes, cookies: Cookies<'_>) -> Result<(), DataplaneError> {
        self.backend.set_wiring(self.wiring.clone());
        // Whatever becomes of the bridge: the difference is told once.
        self.backend.follow(program, changes, cookies);
        self.connect()?;
        if self.is_active { self.flush(program) } else { Ok(()) }
    }

    fn activate(&mut self, program: &Program) -> Result<(), DataplaneError> {
        self.connect()?;
        self.flush(program)?;
        self.is_active = true;
        Ok(())
    }

    fn is_active(&self) -> bool {
        self.is_active
    }

    fn event_descriptor(&self) -> Option<OwnedFd> {
        match self.session.as_ref()?.descriptor() {
            Ok(descriptor) => Some(descriptor),
            Err(error) => {
                tracing::warn!(target: "dataplane", "cannot watch the bridge: {error}");
                None
            }
        }
    }

    fn sessions(&self) -> u64 {
        self.sessions
    }

    fn events(&mut self) -> Vec<Event> {
        match self.session.as_mut().map(Session::follow) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => self.ask_for_addresses(),
            Some(Err(error)) => {
                tracing::warn!(target: "ofctrl", "{}: connection dropped ({error})", self.location.remote);
                self.session = None;
                self.trouble = Some(self.unreachable(&error.to_string()).to_string());
                self.waiting.push(Event::SwitchGone);
            }
        }
        std::mem::take(&mut self.waiting)
    }

    fn event_pause(&self) -> Duration {
        ADDRESS_PAUSE
    }

    fn tidy(&mut self) -> Result<(), DataplaneError> {
        if self.session.is_none() {
            // What is wrong is kept as trouble, and whoever commits is told too.
            let _ = self.connect();
        }
        self.ask_for_addresses();
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    fn problems(&self) -> Vec<(u32, String)> {
        self.backend
            .problems()
            .map(|problem| (problem.lflow.0, format!("{}: {}", problem.what, problem.consequence)))
            .collect()
    }

    fn drops(&mut self) -> Result<Vec<(&'static str, u64)>, DataplaneError> {
        // The switch counts flows, not reasons.
        Ok(Vec::new())
    }

    fn flow_packets(&mut self, flow: u32) -> Result<u64, DataplaneError> {
        self.backend.flow_packets(LflowId(flow)).map_err(|error| DataplaneError::Other(error.to_string()))
    }

    fn flows_text(&self) -> Option<String> {
        Some(self.backend.print())
    }

    fn summary(&self) -> Summary {
        Summary { backend: "openflow", ..Summary::default() }
    }

    fn describe(&mut self) -> String {
        let mut text = format!(
            "OpenFlow, {}, bridge {} at {}, {}\n",
            if self.is_active { "active" } else { "waiting" },
            self.location.bridge,
            self.location.remote,
            if self.session.is_some() { "connected" } else { "not connected" },
        );
        let devices: BTreeMap<_, _> = self.wiring.devices.iter().collect();
        for (number, _) in devices {
            text.push_str(&format!("port {number}\n"));
        }
        for peer in &self.peers {
            let port = peer.ofport.map_or("no port yet".to_owned(), |port| format!("port {port}"));
            text.push_str(&format!("tunnel to {}: {port}\n", peer.chassis));
        }
        text
    }

    fn remove_everything(mut self: Box<Self>) -> Result<(), DataplaneError> {
        if self.session.is_none() && self.connect().is_err() {
            // Flows end with their switch.
            return Ok(());
        }
        self.backend.remove_everything().map_err(|error| DataplaneError::Other(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_off_flows() {
        let flows = " cookie=0x1, table=0, priority=100,in_port=3 actions=a\n cookie=0x1, table=0, priority=100,in_port=12,vlan_tci=0x0 \
                     actions=b\n table=0, priority=0 actions=drop\n in_port=3,ip\n";
        assert_eq!(input_ports(flows), [3, 12]);
    }

    #[test]
    fn a_bridge_that_nobody_manages_is_named_with_what_to_do() {
        let mut dataplane = OpenFlow::open(Location {
            program: "ovs-ofctl".into(),
            bridge: "br-int".into(),
            remote: "unix:/nowhere/br-int.mgmt".into(),
        });
        let error = dataplane.commit(&Program::default(), &Changes::default(), &|_| 0).expect_err("it is not there");
        let text = error.to_string();
        for part in ["br-int", "/nowhere/br-int.mgmt", "ovs-vswitchd", "--backend=ebpf"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
