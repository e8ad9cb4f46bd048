//! Guests: what is behind a logical switch port.

use std::net::IpAddr;

use anyhow::Result;

use crate::link;
use crate::netns::Netns;

/// What a guest looks like.
#[derive(Debug, Clone)]
pub struct VifSpec {
    /// The logical switch port, which becomes the interface's `iface-id`.
    pub port: String,
    /// The guest's MAC address.
    pub mac: String,
    /// The guest's addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// Where it sends what is not on its links.
    pub gateway: Option<IpAddr>,
}

impl VifSpec {
    /// A guest behind logical port `port` with this MAC address and these addresses (`10.0.0.1/24`).
    pub fn new(port: &str, mac: &str, addresses: &[&str]) -> Self {
        Self {
            port: port.to_owned(),
            mac: mac.to_owned(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            gateway: None,
        }
    }

    /// With a default route.
    pub fn gateway(mut self, gateway: IpAddr) -> Self {
        self.gateway = Some(gateway);
        self
    }
}

/// A guest: a namespace whose `eth0` is the other end of a veth device on its hypervisor, or whoever opens a tap there.
#[derive(Debug)]
pub struct Vif {
    spec: VifSpec,
    device: String,
    guest: Option<Netns>,
}

/// The guest's only device.
pub const GUEST_DEVICE: &str = "eth0";

impl Vif {
    /// Makes the guest and its device on the hypervisor, which is not plugged into anything yet.
    pub fn create(hypervisor: &Netns, device: &str, spec: VifSpec) -> Result<Self> {
        let guest = Netns::new(&spec.port)?;
        let vif = Self { spec, device: device.to_owned(), guest: Some(guest) };
        vif.connect(hypervisor)?;
        Ok(vif)
    }

    /// Makes the device of a guest whose device was deleted anew: the same name, another interface index.
    pub fn connect(&self, hypervisor: &Netns) -> Result<()> {
        let guest = self.guest();
        link::veth(hypervisor, &self.device, guest, GUEST_DEVICE)?;
        guest.ip(&format!("link set {GUEST_DEVICE} address {}", self.spec.mac))?;
        for address in &self.spec.addresses {
            link::address(guest, GUEST_DEVICE, address)?;
        }
        if let Some(gateway) = self.spec.gateway {
            guest.ip(&format!("route add default via {gateway}"))?;
        }
        Ok(())
    }

    /// Makes a tap on the hypervisor, for a virtual machine to open.
    pub fn create_tap(hypervisor: &Netns, device: &str, spec: VifSpec) -> Result<Self> {
        link::tap(hypervisor, device)?;
        Ok(Self { spec, device: device.to_owned(), guest: None })
    }

    /// The guest's namespace.
    ///
    /// # Panics
    ///
    /// When it has none because it was made by [`Vif::create_tap`].
    pub fn guest(&self) -> &Netns {
        self.namespace().expect("a guest behind a tap has no namespace")
    }

    /// The guest's namespace if it is one.
    pub fn namespace(&self) -> Option<&Netns> {
        self.guest.as_ref()
    }

    /// What it was asked to look like.
    pub fn spec(&self) -> &VifSpec {
        &self.spec
    }

    /// The logical switch port.
    pub fn port(&self) -> &str {
        &self.spec.port
    }

    /// The device on the hypervisor.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The guest's first IPv4 (or else first) address without the prefix length.
    pub fn address(&self) -> &str {
        let addresses = &self.spec.addresses;
        let address = addresses.iter().find(|address| address.contains('.')).or(addresses.first());
        address.map_or("", |address| address.split('/').next().unwrap_or_default())
    }
}
