//! What the daemon needs of the kernel side. The eBPF backend implements it; tests use [`fake::Fake`].

pub mod ebpf;
pub mod inspect;
pub mod openflow;

use crate::config::Config;
use oxbow_pipeline::ir::{Changes, LflowId, Program};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Tunnel keys of a logical port: datapath (24 bits), port (15 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogicalPort {
    /// Datapath.
    pub datapath: u32,
    /// Port.
    pub port: u32,
}

/// A logical port that is served on a device of this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalVif {
    /// Name of the logical port.
    pub name: String,
    /// Its keys.
    pub at: LogicalPort,
    /// Number that the dataplane knows it by ([`crate::backend::Numbering`]): interface index of the device on the switch's side, or
    /// OpenFlow port.
    pub ifindex: u32,
    /// VLAN tag of a nested port, 0 = the device's own port.
    pub vlan: u16,
    /// The port is a localport: its packets stay on this chassis.
    pub localport: bool,
    /// Conntrack zone.
    pub zone: u16,
}

/// How frames get to another chassis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Number by which ports refer to it: 1‥, stable while the peer is known.
    pub index: u32,
    /// Name of the chassis.
    pub chassis: String,
    /// Our end point.
    pub local: IpAddr,
    /// Theirs.
    pub remote: IpAddr,
    /// VXLAN, else Geneve.
    pub vxlan: bool,
    /// Fill the outer UDP checksum.
    pub csum: bool,
    /// Copy the inner type of service.
    pub tos_inherit: bool,
    /// Outer type of service otherwise.
    pub tos: u8,
    /// Set Don't Fragment on the outer header.
    pub df: bool,
    /// Options of its tunnel port beyond what the fields above say: `dst_port`, `local_ip`, `df_default`.
    pub options: BTreeMap<String, String>,
    /// The link-layer way, once it is known; for a dataplane that makes tunnels itself.
    pub hop: Option<NextHop>,
    /// OpenFlow port of the tunnel, once the switch has made it; for one that uses the switch's tunnels.
    pub ofport: Option<u16>,
}

/// The link-layer way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Device to leave by.
    pub ifindex: u32,
    /// Hardware address of the next hop.
    pub destination: [u8; 6],
    /// Hardware address of the device.
    pub source: [u8; 6],
    /// Largest IP packet the way takes.
    pub mtu: u32,
}

/// An address in the MAC table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbAddress {
    /// Tunnel key of the datapath.
    pub datapath: u32,
    /// The address.
    pub mac: [u8; 6],
}

/// What the kernel side tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address was seen at a port.
    Learned {
        /// Address.
        address: FdbAddress,
        /// Tunnel key of the port.
        port: u32,
    },
    /// A frame for this peer could not leave: its next hop is unknown.
    NextHop {
        /// [`Peer::index`].
        peer: u32,
    },
    /// The switch that held our flows is gone.
    SwitchGone,
    /// What the switch was told has ended, one way or the other, or it can be told something again: the next [`Dataplane::commit`] knows.
    SwitchAnswered,
    /// A frame was dropped (rate-limited sample).
    Dropped {
        /// Name of the reason.
        reason: &'static str,
        /// Datapath key.
        datapath: u32,
        /// Ingress port key.
        port: u32,
        /// Number of the logical flow, 0 = none.
        flow: u32,
    },
}

/// Why the kernel side refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataplaneError {
    /// The device is gone.
    #[error("device {0} is gone")]
    DeviceGone(String),
    /// A program could not be attached.
    #[error("cannot attach to {device}: {reason}")]
    Attach {
        /// Device.
        device: String,
        /// Kernel's or loader's reason.
        reason: String,
    },
    /// A map is full.
    #[error("map {map} is full ({capacity} entries)")]
    MapFull {
        /// Name.
        map: String,
        /// Entries it takes.
        capacity: u32,
    },
    /// The switch does not answer; it may in a moment.
    #[error("{0}")]
    Unreachable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Devices: attaching and detaching the programs, and what they tell.
///
/// Every call is synchronous and has taken effect in the kernel when it returns: that is the acknowledgement which R-31 asks for.
pub trait Devices {
    /// Attaches the VIF program to a device, or takes over the pinned one. Doing it again is no error.
    ///
    /// # Errors
    /// [`DataplaneError::DeviceGone`] when there is no such device any more, [`DataplaneError::Attach`] otherwise.
    fn attach_vif(&mut self, ifindex: u32, name: &str) -> Result<(), DataplaneError>;

    /// Detaches it. A device that is gone is no error.
    fn detach_vif(&mut self, ifindex: u32);

    /// Attaches the tunnel program to an underlay device.
    ///
    /// # Errors
    /// As [`Devices::attach_vif`].
    fn attach_underlay(&mut self, ifindex: u32, name: &str) -> Result<(), DataplaneError>;

    /// Detaches it.
    fn detach_underlay(&mut self, ifindex: u32);

    /// Devices that a former process of ours had attached and that are still attached: their ports kept forwarding meanwhile.
    fn taken_over(&self) -> Vec<u32>;
}

/// The whole kernel side: devices, the program that they run, peers, learned addresses.
pub trait Dataplane: Devices + Send {
    /// Makes the peers exactly these. Returns whether something changed, which the next [`Dataplane::commit`] puts in force, and the first
    /// peer's problem: what can be done for the others is done, and the next call tries again.
    fn set_peers(&mut self, peers: &[Peer]) -> (bool, Option<DataplaneError>);

    /// Puts a difference in force, whole, as one version, or begins to: [`Event::SwitchAnswered`] tells that there is more to know by another call.
    /// After an error the version before is in force, and a later call, also with an empty difference, tries again.
    ///
    /// # Errors
    /// What the maps say, or what the switch said to an earlier call.
    fn commit(
        &mut self,
        program: &Program,
        changes: &Changes,
        cookies: Cookies<'_>,
    ) -> Result<Versions, DataplaneError>;

    /// What the last commit had no room for, although the rest of it is in force: the port that is not served, or none where no port
    /// waits for it; and what is full, in words. Every commit tries again.
    fn shortages(&self) -> Vec<(Option<LogicalPort>, String)> {
        Vec::new()
    }

    /// Lets the attached devices run what was committed, which is this program. Until then devices that a former process served go on with its policy, and others
    /// pass nothing. False when that has begun and [`Event::SwitchAnswered`] tells to ask again.
    ///
    /// # Errors
    /// What attaching says.
    fn activate(&mut self, program: &Program) -> Result<bool, DataplaneError>;

    /// Whether [`Dataplane::activate`] has come to its end.
    fn is_active(&self) -> bool;

    /// A descriptor that is readable when there are events.
    fn event_descriptor(&self) -> Option<OwnedFd>;

    /// How long events are let gather before they are taken.
    fn event_pause(&self) -> Duration {
        Duration::from_millis(5)
    }

    /// Takes the events that wait.
    fn events(&mut self) -> Vec<Event>;

    /// Something to do when nothing else is: give memory of old versions back, forget addresses that nobody uses.
    ///
    /// # Errors
    /// What the maps say.
    fn tidy(&mut self) -> Result<(), DataplaneError>;

    /// What keeps it from working at all, at the moment.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Flows that could not be held as they are: number of the logical flow, what is wrong.
    fn problems(&self) -> Vec<(u32, String)>;

    /// Packets dropped since the programs were loaded: the reason, how many.
    ///
    /// # Errors
    /// What the maps say.
    fn drops(&mut self) -> Result<Vec<(&'static str, u64)>, DataplaneError>;

    /// Packets that walked a logical flow, by its number; those that hit a cached verdict are not in it.
    ///
    /// # Errors
    /// What the maps say.
    fn flow_packets(&mut self, flow: u32) -> Result<u64, DataplaneError>;

    /// At how many chassis a port in live migration gets packets that are for it alone; any number if it says nothing.
    fn most_places(&self) -> Option<usize> {
        None
    }

    /// What it is.
    fn summary(&self) -> inspect::Summary {
        inspect::Summary { backend: "none", ..inspect::Summary::default() }
    }

    /// A look inside, where packets are forwarded by programs of ours.
    fn inspect(&mut self) -> Option<&mut dyn inspect::Inspect> {
        None
    }

    /// What is in force, line by line, in words that do not depend on how it came to be: for comparing. `flow` names a logical flow by its number.
    ///
    /// # Errors
    /// What the maps say.
    fn content(&mut self, _flow: &dyn Fn(u32) -> String) -> Result<Vec<String>, DataplaneError> {
        Ok(self.flows_text().unwrap_or_default().lines().map(str::to_owned).collect())
    }

    /// Flows and groups as OpenFlow, for a dataplane that holds such.
    fn flows_text(&self) -> Option<String> {
        None
    }

    /// What a bridge of Open vSwitch was told, for a dataplane that tells one.
    fn bundles(&self) -> Option<inspect::Bundles> {
        None
    }

    /// How the programs are attached and how full the maps are, for people.
    fn describe(&mut self) -> String;

    /// Removes everything from the kernel.
    ///
    /// # Errors
    /// What could not be removed.
    fn remove_everything(self: Box<Self>) -> Result<(), DataplaneError>;
}

/// Versions of the policy, numbered as they are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The one that holds what a call of [`Dataplane::commit`] said, and all calls before it.
    pub asked: u64,
    /// The newest one in force.
    pub in_force: u64,
}

/// Number that marks what belongs to a logical flow, for dataplanes that show such a number to people: the first 32 bits of the row's
/// `_uuid`, as ovn-controller's cookies have them.
pub type Cookies<'a> = &'a dyn Fn(LflowId) -> u64;

/// Makes the dataplane of a hypervisor, by its system-id and what its configuration says of the integration bridge.
pub type Opener = Box<dyn FnMut(&str, &Config) -> Result<Box<dyn Dataplane>, DataplaneError> + Send>;

pub mod fake {
    //! A dataplane that only remembers: for tests of everything above it.

    use super::{Cookies, Dataplane, DataplaneError, Devices, Event, Peer, Versions};
    use oxbow_pipeline::ir::{Changes, Program};
    use std::collections::{BTreeMap, BTreeSet};

    /// The fake.
    #[derive(Clone, Debug, Default)]
    pub struct Fake {
        /// Attached VIF devices.
        pub vifs: BTreeSet<u32>,
        /// Attached underlay devices.
        pub underlays: BTreeSet<u32>,
        /// Devices whose attachment fails, and the reason given.
        pub refuse: BTreeMap<u32, String>,
        /// Devices found attached at start.
        pub inherited: Vec<u32>,
        /// Peers as last set.
        pub peers: Vec<Peer>,
        /// Commits so far.
        pub commits: u64,
        /// Whether it was activated.
        pub active: bool,
    }

    impl Dataplane for Fake {
        fn set_peers(&mut self, peers: &[Peer]) -> (bool, Option<DataplaneError>) {
            let changed = self.peers != peers;
            self.peers = peers.to_vec();
            (changed, None)
        }

        fn commit(
            &mut self,
            _program: &Program,
            _changes: &Changes,
            _cookies: Cookies<'_>,
        ) -> Result<Versions, DataplaneError> {
            self.commits += 1;
            Ok(Versions::default())
        }

        fn activate(&mut self, _program: &Program) -> Result<bool, DataplaneError> {
            self.active = true;
            Ok(true)
        }

        fn is_active(&self) -> bool {
            self.active
        }

        fn event_descriptor(&self) -> Option<std::os::fd::OwnedFd> {
            None
        }

        fn events(&mut self) -> Vec<Event> {
            Vec::new()
        }

        fn tidy(&mut self) -> Result<(), DataplaneError> {
            Ok(())
        }

        fn problems(&self) -> Vec<(u32, String)> {
            Vec::new()
        }

        fn drops(&mut self) -> Result<Vec<(&'static str, u64)>, DataplaneError> {
            Ok(Vec::new())
        }

        fn flow_packets(&mut self, _flow: u32) -> Result<u64, DataplaneError> {
            Ok(0)
        }

        fn describe(&mut self) -> String {
            format!("no dataplane: {} devices, {} peers, {} commits", self.vifs.len(), self.peers.len(), self.commits)
        }

        fn remove_everything(self: Box<Self>) -> Result<(), DataplaneError> {
            Ok(())
        }
    }

    impl Devices for Fake {
        fn attach_vif(&mut self, ifindex: u32, name: &str) -> Result<(), DataplaneError> {
            if let Some(reason) = self.refuse.get(&ifindex) {
                return Err(DataplaneError::Attach { device: name.to_owned(), reason: reason.clone() });
            }
            self.vifs.insert(ifindex);
            Ok(())
        }

        fn detach_vif(&mut self, ifindex: u32) {
            self.vifs.remove(&ifindex);
        }

        fn attach_underlay(&mut self, ifindex: u32, name: &str) -> Result<(), DataplaneError> {
            if let Some(reason) = self.refuse.get(&ifindex) {
                return Err(DataplaneError::Attach { device: name.to_owned(), reason: reason.clone() });
            }
            self.underlays.insert(ifindex);
            Ok(())
        }

        fn detach_underlay(&mut self, ifindex: u32) {
            self.underlays.remove(&ifindex);
        }

        fn taken_over(&self) -> Vec<u32> {
            self.inherited.clone()
        }
    }
}
