//! The host's side of things at run time: devices made and changed as the switch wants, ways to peers.

use crate::dataplane::{NextHop, Peer};
use crate::link::Links;
use crate::netlink::{
    Addresses, Change, Monitor, NeighbourKey, Neighbours, NetlinkError, Requester, Route, create_pair, delete_link,
    dump_links, route_to, set_mac, set_mtu, set_up,
};
use crate::switchd::{ALIAS, DeviceOrder};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// A neighbour that did not answer is asked for again after this long.
const ASK_INTERVAL_MS: u64 = 1000;

/// Devices, addresses, routes and neighbours of this network namespace.
#[derive(Debug)]
pub struct Kernel {
    requester: Requester,
    monitor: Monitor,
    /// Devices.
    pub links: Links,
    addresses: Addresses,
    neighbours: Neighbours,
    routes: HashMap<(IpAddr, IpAddr), Option<Route>>,
    asked: HashMap<NeighbourKey, u64>,
    /// Devices that could not be made or changed, and why.
    pub failed: BTreeMap<String, String>,
}

impl Kernel {
    /// Subscribes and reads everything. Inside the runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> Result<Self, NetlinkError> {
        let monitor = Monitor::open()?;
        let mut kernel = Kernel {
            requester: Requester::open()?,
            monitor,
            links: Links::default(),
            addresses: Addresses::default(),
            neighbours: Neighbours::default(),
            routes: HashMap::new(),
            asked: HashMap::new(),
            failed: BTreeMap::new(),
        };
        kernel.read_all()?;
        Ok(kernel)
    }

    /// Waits for notifications; then comes [`Kernel::follow`]. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn ready(&self) -> Result<(), NetlinkError> {
        self.monitor.ready().await
    }

    /// Reads what waits. True when anything of interest changed.
    ///
    /// # Errors
    /// The system's.
    pub fn follow(&mut self) -> Result<bool, NetlinkError> {
        let change = self.monitor.follow(&mut self.links, &mut self.addresses, &mut self.neighbours)?;
        if change.lost {
            tracing::warn!(target: "netlink", "notifications were lost, reading everything again");
            self.read_all()?;
            return Ok(true);
        }
        if change.links || change.addresses || change.routes {
            self.routes.clear();
        }
        if change.links {
            // What failed may work now: a name is free, a device is back.
            self.failed.clear();
        }
        Ok(change != Change::default())
    }

    fn read_all(&mut self) -> Result<(), NetlinkError> {
        self.read_links()?;
        self.addresses = Addresses::dump(&mut self.requester)?;
        self.neighbours = Neighbours::dump(&mut self.requester)?;
        self.routes.clear();
        Ok(())
    }

    /// Reads the devices again: for counters, and for what the kernel tells nobody of.
    ///
    /// # Errors
    /// The system's.
    pub fn read_links(&mut self) -> Result<bool, NetlinkError> {
        let links = dump_links(&mut self.requester)?;
        Ok(self.links.replace(links))
    }

    /// Carries orders out. What fails is remembered by name in [`Kernel::failed`] until a device changes.
    pub fn carry_out(&mut self, orders: &[DeviceOrder]) {
        for order in orders {
            let kernel = &mut self.requester;
            let (name, result) = match order {
                DeviceOrder::Create { name, inner, mac } => {
                    (name.clone(), create_pair(kernel, name, inner, *mac, ALIAS))
                }
                DeviceOrder::Delete { ifindex, name } => (name.clone(), delete_link(kernel, *ifindex)),
                DeviceOrder::Raise { ifindex } => {
                    (self.links.get(*ifindex).map(|l| l.name.clone()).unwrap_or_default(), set_up(kernel, *ifindex))
                }
                DeviceOrder::Mtu { ifindex, mtu } => (
                    self.links.get(*ifindex).map(|l| l.name.clone()).unwrap_or_default(),
                    set_mtu(kernel, *ifindex, *mtu),
                ),
                DeviceOrder::Mac { ifindex, mac } => (
                    self.links.get(*ifindex).map(|l| l.name.clone()).unwrap_or_default(),
                    set_mac(kernel, *ifindex, *mac),
                ),
            };
            match result {
                Ok(()) => {
                    self.failed.remove(&name);
                    if let DeviceOrder::Create { name, .. } = order {
                        tracing::info!(target: "bridge", "made device {name}");
                    }
                }
                Err(error) => {
                    let reason = error.reason();
                    if self.failed.insert(name.clone(), reason.clone()).as_ref() != Some(&reason) {
                        tracing::warn!(target: "bridge", "device {name}: {error}");
                    }
                }
            }
        }
        if !orders.is_empty()
            && let Err(error) = self.read_links()
        {
            tracing::error!(target: "netlink", "cannot read the devices: {error}");
        }
    }

    /// Finds the link-layer way to every peer, and asks for the neighbours that are not known. Returns the underlay devices.
    pub fn resolve(&mut self, peers: &mut [Peer], own: &[IpAddr], now_ms: u64) -> BTreeSet<u32> {
        let mut devices = BTreeSet::new();
        for ip in own {
            devices.extend(self.addresses.device(*ip));
        }
        let mut used = BTreeSet::new();
        for peer in peers {
            let Some(route) = self.route(peer.local, peer.remote) else { continue };
            if route.is_local {
                continue;
            }
            devices.insert(route.ifindex);
            let key = NeighbourKey { ifindex: route.ifindex, ip: route.next_hop };
            used.insert(key);
            let link = self.links.get(route.ifindex);
            peer.hop = match (self.neighbours.mac(key), link) {
                (Some(destination), Some(link)) => Some(NextHop {
                    ifindex: route.ifindex,
                    destination,
                    source: link.mac.unwrap_or_default(),
                    mtu: route.mtu.unwrap_or(link.mtu).min(link.mtu),
                }),
                _ => None,
            };
            let is_due = self.asked.get(&key).is_none_or(|at| peer.hop.is_none() && now_ms >= at + ASK_INTERVAL_MS);
            if is_due {
                self.asked.insert(key, now_ms);
                if let Err(error) = Neighbours::ask(&mut self.requester, key) {
                    tracing::warn!(target: "tunnel", "cannot resolve next hop {} of chassis {}: {error}", key.ip, peer.chassis);
                }
            }
        }
        self.asked.retain(|key, _| used.contains(key));
        // Packets to an address of the loopback device arrive on the others.
        devices.retain(|ifindex| self.links.get(*ifindex).is_some_and(|link| link.name != "lo"));
        devices
    }

    fn route(&mut self, local: IpAddr, remote: IpAddr) -> Option<Route> {
        if let Some(known) = self.routes.get(&(local, remote)) {
            return *known;
        }
        let route = match route_to(&mut self.requester, local, remote) {
            Ok(route) => route,
            Err(error) => {
                tracing::warn!(target: "tunnel", "no route from {local} to {remote}: {error}");
                None
            }
        };
        self.routes.insert((local, remote), route);
        route
    }

    /// Removes every device that was made for a bridge or an internal port.
    pub fn remove_own_devices(&mut self) {
        let own: Vec<(u32, String)> = self
            .links
            .iter()
            .filter(|link| link.alias.as_deref() == Some(ALIAS))
            .map(|link| (link.ifindex, link.name.clone()))
            .collect();
        for (ifindex, name) in own {
            if let Err(error) = delete_link(&mut self.requester, ifindex) {
                tracing::warn!(target: "bridge", "cannot remove {name}: {error}");
            }
        }
    }
}
