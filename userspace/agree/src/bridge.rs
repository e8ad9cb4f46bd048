//! A hypervisor whose Open vSwitch forwards real frames between dummy devices, by the flows of the OpenFlow backend or of Debian's ovn-controller.
//!
//! Frames are judged as they leave: bytes at a device, and on the uplink the Geneve frame with its keys. `ofproto/trace` of the same packet
//! has to send to the same ports and tunnels.

use crate::cloud::Hypervisor;
use crate::kernel::{OUTER, Out, decapsulate};
use anyhow::{Context as _, Result, bail, ensure};
use oxbow_abi::topology::{GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, GENEVE_PORT};
use oxbow_backend_openflow::{Backend, OfPort, OvsOfctl, Tunnel, Wiring};
use oxbow_pipeline::ir::{ChassisId, EncapKind, LflowId, Location};
use oxbow_pipeline::reference::Arrival;
use oxbow_testkit::dummy_switch::UPLINK;
use oxbow_testkit::{DummyPort, DummySwitch};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Tunnel ports are numbered from here by chassis.
const TUNNELS: u16 = 60_000;

/// The bridge of one hypervisor.
pub struct Bridge {
    here: usize,
    backend: Option<Backend>,
    switch: DummySwitch,
    /// Number of the tunnel port from the hypervisor that frames are said to come from.
    tunnel: u16,
    /// Interface index → name of the device.
    devices: BTreeMap<u32, String>,
    /// Number in the datapath → what is there.
    datapath_ports: BTreeMap<u32, u32>,
}

/// Where copies go, without their bytes: device, or chassis with network identifier, logical input and output port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Out of a device.
    Device(u32),
    /// To a chassis.
    Tunnel(u32, u32, u32, u32),
}

impl From<&Out> for Way {
    fn from(out: &Out) -> Self {
        match out {
            Out::Device(ifindex, _) => Way::Device(*ifindex),
            Out::Tunnel(chassis, datapath, inport, outport, _) => Way::Tunnel(*chassis, *datapath, *inport, *outport),
        }
    }
}

/// Underlay address of a hypervisor. Not the kernel judge's: Open vSwitch looks at the host's routes too.
fn ip4(hypervisor: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, hypervisor as u8 + 1)
}

impl Bridge {
    /// Starts the switch, makes a device for every local port and commits the hypervisor's program.
    ///
    /// # Errors
    /// When a program is missing, or the backend cannot hold the program as it is.
    pub fn new(here: usize, cloud: usize, state: &Hypervisor) -> Result<Bridge> {
        let mut switch = DummySwitch::start(ip4(here))?;
        let program = state.compiler.program();
        let local: BTreeSet<u32> = program
            .ports()
            .filter_map(|port| match port.location {
                Location::Local { ifindex, .. } => Some(ifindex),
                _ => None,
            })
            .collect();
        let mut wiring = Wiring::default();
        let mut ports = Vec::new();
        let mut devices = BTreeMap::new();
        for ifindex in local {
            let number = u16::try_from(ifindex).context("an interface index beyond OpenFlow's numbers")?;
            let name = format!("v{ifindex}");
            ports.push(DummyPort { name: name.clone(), number, remote: None });
            devices.insert(ifindex, name);
            wiring.devices.insert(ifindex, OfPort(number));
        }
        for other in (0..cloud).filter(|other| *other != here) {
            let chassis = other as u32 + 1;
            let number = TUNNELS + chassis as u16;
            ports.push(DummyPort { name: format!("ovn-hv{other}-0"), number, remote: Some(ip4(other)) });
            wiring.tunnels.insert(ChassisId(chassis), Tunnel { port: OfPort(number), kind: EncapKind::Geneve });
        }
        switch.add_ports(&ports)?;
        let mut backend = Backend::new(Box::new(OvsOfctl::new(&switch.bridge())));
        backend.set_wiring(wiring);
        let cookie = |flow: LflowId| state.compiler.flow(flow).map_or(0, |row| (row.uuid.0 >> 96) as u64);
        backend.commit(program, &state.changes, &cookie)?;
        let problems: Vec<_> = backend.problems().collect();
        ensure!(problems.is_empty(), "flows that OpenFlow cannot hold: {problems:#?}");
        let datapath_ports = numbers(&switch.control("dpif/show", &[])?, &devices);
        let tunnel = TUNNELS + u16::from(here == 0) + 1;
        Ok(Bridge { here, backend: Some(backend), switch, tunnel, devices, datapath_ports })
    }

    /// Starts the switch, makes a device for every local port, bound by its name, and starts Debian's ovn-controller. Its flows are there when northd says so
    /// (`ovn-nbctl --wait=hv sync`); then [`Bridge::settle`] is to be called.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn stock(here: usize, cloud: usize, state: &Hypervisor, sb_remote: &str) -> Result<Bridge> {
        let mut switch = DummySwitch::start(ip4(here))?;
        let (mut ports, mut names, mut devices) = (Vec::new(), Vec::new(), BTreeMap::new());
        for port in state.compiler.program().ports() {
            let Location::Local { ifindex, tag: None } = port.location else { continue };
            let number = u16::try_from(ifindex).context("an interface index beyond OpenFlow's numbers")?;
            let name = format!("v{ifindex}");
            names.push(format!("set Interface {name} external_ids:iface-id={}", port.name));
            ports.push(DummyPort { name: name.clone(), number, remote: None });
            devices.insert(ifindex, name);
        }
        switch.add_ports(&ports)?;
        switch.vsctl(&names.join(" -- "))?;
        for other in (0..cloud).filter(|other| *other != here) {
            switch.add_neighbor(ip4(other))?;
        }
        switch.start_controller(&format!("hv{here}"), ip4(here), sb_remote)?;
        Ok(Bridge { here, backend: None, switch, tunnel: 0, devices, datapath_ports: BTreeMap::new() })
    }

    /// The controller has made its tunnels: their numbers are read.
    ///
    /// # Errors
    /// When there is no tunnel.
    pub fn settle(&mut self) -> Result<()> {
        let name = format!("ovn-hv{}-0", self.other());
        let number = self.switch.vsctl(&format!("get Interface {name} ofport"))?;
        self.tunnel = number.trim().parse().with_context(|| format!("{name} has the number {number}"))?;
        self.datapath_ports = numbers(&self.switch.control("dpif/show", &[])?, &self.devices);
        // What was flooded by bridges while they came up.
        self.switch.sent(UPLINK)?;
        for name in self.devices.values() {
            self.switch.sent(name)?;
        }
        Ok(())
    }

    /// Throws a frame, and returns what came out, sorted.
    ///
    /// # Errors
    /// When the switch is gone, or something comes out that should not be there.
    pub fn run(&mut self, arrival: Arrival, frame: &[u8]) -> Result<Vec<Out>> {
        match arrival {
            Arrival::Device { ifindex } => {
                self.switch.receive(self.devices.get(&ifindex).context("no such device")?, frame)?;
            }
            Arrival::Tunnel { datapath, inport, outport } => {
                let keys = (datapath.0, inport.0 << 16 | outport.0);
                self.switch.receive(UPLINK, &self.encapsulate(keys, frame))?;
            }
            Arrival::Port { .. } => bail!("a port is no device"),
        }
        let mut out = Vec::new();
        for (ifindex, name) in &self.devices {
            out.extend(self.switch.sent(name)?.into_iter().map(|frame| Out::Device(*ifindex, frame)));
        }
        for frame in self.switch.sent(UPLINK)? {
            out.push(decapsulate(&frame)?);
        }
        out.sort();
        Ok(out)
    }

    /// Where `ofproto/trace` sends a frame, sorted, and its whole text.
    ///
    /// # Errors
    /// When its text is not understood.
    pub fn trace(&self, arrival: Arrival, frame: &[u8]) -> Result<(Vec<Way>, String)> {
        let flow = match arrival {
            Arrival::Device { ifindex } => format!("in_port={ifindex}"),
            Arrival::Tunnel { datapath, inport, outport } => format!(
                "in_port={},tun_id={:#x},tun_metadata0={:#x},tun_src={},tun_dst={}",
                self.tunnel,
                datapath.0,
                inport.0 << 16 | outport.0,
                ip4(self.other()),
                ip4(self.here)
            ),
            Arrival::Port { .. } => bail!("a port is no device"),
        };
        let text = self.switch.trace(&flow, frame)?;
        let actions = text.rsplit_once("Datapath actions: ").and_then(|(_, rest)| rest.lines().next());
        let mut ways = self.ways(actions.with_context(|| format!("no actions in {text}"))?)?;
        ways.sort();
        Ok((ways, text))
    }

    /// Forgets addresses that were learned: each packet is judged by itself.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn forget(&mut self) -> Result<()> {
        use oxbow_backend_openflow::Switch as _;
        use oxbow_backend_openflow::layout::{ADDRESSES, LEARNED_COOKIE};
        let line = format!("flow delete cookie={LEARNED_COOKIE:#x}/-1,table={ADDRESSES}");
        OvsOfctl::new(&self.switch.bridge()).bundle(&[line])?;
        // What was cached of the old tables must not answer.
        self.switch.control("revalidator/wait", &[])?;
        Ok(())
    }

    /// The backend, for its flows; stock's has none.
    #[must_use]
    pub fn backend(&self) -> Option<&Backend> {
        self.backend.as_ref()
    }

    fn other(&self) -> usize {
        usize::from(self.here == 0)
    }

    fn encapsulate(&self, (datapath, option): (u32, u32), inner: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, self.other() as u8 + 1, 8, 0];
        let udp = OUTER - 34 + inner.len();
        let mut ip = vec![0x45, 0];
        ip.extend(((20 + udp) as u16).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        ip.extend(ip4(self.other()).octets());
        ip.extend(ip4(self.here).octets());
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend(0xc000u16.to_be_bytes());
        frame.extend(GENEVE_PORT.to_be_bytes());
        frame.extend((udp as u16).to_be_bytes());
        frame.extend([0, 0, 2, 0x40, 0x65, 0x58]);
        frame.extend((datapath << 8).to_be_bytes());
        frame.extend(GENEVE_OVN_CLASS.to_be_bytes());
        frame.extend([GENEVE_OVN_TYPE, 1]);
        frame.extend(option.to_be_bytes());
        frame.extend(inner);
        frame
    }

    /// Outputs of a list of datapath actions (ovs-actions(7) calls them "ODP actions"): numbers of ports, and pushed tunnel headers with what follows
    /// them. Parts that are cloned are looked into.
    fn ways(&self, actions: &str) -> Result<Vec<Way>> {
        let mut ways = Vec::new();
        for action in split(actions) {
            if let Some(inner) = action.strip_prefix("clone(").and_then(|rest| rest.strip_suffix(')')) {
                ways.extend(self.ways(inner)?);
            } else if let Some(header) = action.strip_prefix("tnl_push(") {
                ways.push(pushed(header).with_context(|| format!("a tunnel header that is not understood: {action}"))?);
            } else if let Ok(number) = action.parse::<u32>() {
                // The uplink's own output follows the header that tells the way.
                ways.extend(self.datapath_ports.get(&number).map(|ifindex| Way::Device(*ifindex)));
            }
        }
        Ok(ways)
    }
}

/// Parts of a list between commas that are in no parentheses.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '(' | '{' => depth += 1,
            ')' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts
}

/// `…ipv4(src=…,dst=203.0.113.2,…)…geneve(crit,vni=0x1,options({class=0x102,type=0x80,len=4,0x10002}))…`.
fn pushed(header: &str) -> Option<Way> {
    let after = |text: &str| header.split_once(text).map(|(_, rest)| rest.to_owned());
    let number = |text: String| {
        let digits: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
        u32::from_str_radix(&digits, 16).ok()
    };
    let address: Ipv4Addr = after("ipv4(src=")?.split_once("dst=")?.1.split(',').next()?.parse().ok()?;
    let datapath = number(after("vni=0x")?)?;
    let option = number(after("len=4,0x")?)?;
    Some(Way::Tunnel(address.octets()[3].into(), datapath, option >> 16, option & 0xffff))
}

/// Numbers that the datapath gave to devices: `    v101 101/3: (dummy)`.
fn numbers(text: &str, devices: &BTreeMap<u32, String>) -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(both)) = (words.next(), words.next()) else { continue };
        let number = both.trim_end_matches(':').split_once('/').and_then(|(_, number)| number.parse().ok());
        let device = devices.iter().find(|(_, device)| **device == name);
        if let (Some(number), Some((ifindex, _))) = (number, device) {
            found.insert(number, *ifindex);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datapath_actions_are_read() {
        assert_eq!(split("a(1,2),b,c({x,y},z)"), ["a(1,2)", "b", "c({x,y},z)"]);
        let header = "tnl_port(6081),header(size=58,type=5,eth(dst=02:00:00:00:01:02,src=02:00:00:00:00:01,dl_type=0x0800),\
                      ipv4(src=203.0.113.1,dst=203.0.113.2,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=6081,csum=0x0),\
                      geneve(crit,vni=0x5,options({class=0x102,type=0x80,len=4,0x18000}))),out_port(100))";
        assert_eq!(pushed(header), Some(Way::Tunnel(2, 5, 1, 0x8000)));
    }
}
