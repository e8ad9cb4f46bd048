//! The contenders' networks. Each has the same guests, at the same places, with the same devices.

use std::time::Duration;

use anyhow::{Context as _, Result};
use oxbow_testkit::hypervisor::UNDERLAY_MTU;
use oxbow_testkit::vif::{GUEST_DEVICE, VifSpec};
use oxbow_testkit::wait::{Look, wait_until};
use oxbow_testkit::{Cloud, Netns, Node, link, probe};

use super::bpf::{self, Attached};
use super::guest::{Place, TapGuest, behind_veth, settle};
use super::load::Route;

/// Sender on the first hypervisor.
const SENDER: Place = Place(1);
/// Receiver beside it.
const NEIGHBOUR: Place = Place(2);
/// Receiver behind a veth device of the second hypervisor.
const REMOTE: Place = Place(3);
/// Receiver behind a tap of the second hypervisor.
const REMOTE_TAP: Place = Place(4);
const ALL: [Place; 4] = [SENDER, NEIGHBOUR, REMOTE, REMOTE_TAP];

/// The device between two hypervisors, on both.
const TUNNEL_DEVICE: &str = "eth1";

/// Guests' stacks cut datagrams up themselves (see [`super::load::flood`]).
fn no_udp_segmentation(ns: &Netns) -> Result<()> {
    ns.run("ethtool", &["-K", GUEST_DEVICE, "tx-udp-segmentation", "off"]).map(|_| ())
}

/// How frames travel between hypervisors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Underlay {
    /// Super-packets stay whole, as between virtual machines on one host.
    Gso,
    /// Frames of the MTU: the sender's device does not segment, and the receiver's does not join.
    Mtu,
    /// Frames of the MTU, and the receiving device joins what it can (GRO), as a network card's driver does.
    MtuGro,
}

impl Underlay {
    /// Sets both ends of a veth pair up so.
    fn apply(self, a: &Netns, b: &Netns, device: &str) -> Result<()> {
        let gso = if self == Self::Gso { "on" } else { "off" };
        let gro = if self == Self::MtuGro { "on" } else { "off" };
        for ns in [a, b] {
            let mut arguments = vec!["-K", device];
            for feature in ["tso", "tx-udp-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"] {
                arguments.extend([feature, gso]);
            }
            arguments.extend(["gro", gro]);
            ns.run("ethtool", &arguments)?;
        }
        Ok(())
    }

    /// For the rows.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Gso => "GSO underlay",
            Self::Mtu => "underlay of MTU-sized frames",
            Self::MtuGro => "underlay of MTU-sized frames with GRO",
        }
    }
}

/// A cloud of Oxbow's or of stock hypervisors.
#[derive(Debug)]
pub(super) struct OvnRig {
    tap: Option<TapGuest>,
    cloud: Cloud,
}

impl OvnRig {
    /// One hypervisor with two guests, or two with four.
    ///
    /// # Errors
    ///
    /// When the cloud does not come up.
    pub(super) fn start(node: Node, hypervisors: usize) -> Result<Self> {
        let cloud = Cloud::builder().hypervisors(hypervisors, node).start()?;
        cloud.nbctl("ls-add sw0")?;
        for place in ALL {
            let (port, mac, address) = (place.port(), place.mac(), place.address());
            cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} '{mac} {address}'"))?;
        }
        let mut rig = Self { tap: None, cloud };
        if hypervisors > 1 {
            rig.tunnel_device()?;
        }
        let guests = if hypervisors > 1 {
            &[(SENDER, 0), (NEIGHBOUR, 0), (REMOTE, 1)][..]
        } else {
            &[(SENDER, 0), (NEIGHBOUR, 0)]
        };
        for &(place, hypervisor) in guests {
            let spec = VifSpec::new(&place.port(), &place.mac(), &[&format!("{}/24", place.address())]);
            rig.cloud.add_vif(hypervisor, spec)?;
            no_udp_segmentation(rig.cloud.vif(&place.port())?.guest())?;
            settle(rig.cloud.vif(&place.port())?.guest(), place, &ALL)?;
        }
        if hypervisors > 1 {
            rig.tap_guest()?;
        }
        rig.cloud.sync()?;
        for (place, _) in &guests[1..] {
            probe::ping(rig.guest(SENDER)?, &place.address().to_string())?;
        }
        if let Some(tap) = &rig.tap {
            probe::ping(tap.ns(), &SENDER.address().to_string())?;
        }
        Ok(rig)
    }

    /// Tunnels get a veth pair of their own between the two hypervisors: SB's traffic and the bridge it crosses are not measured.
    fn tunnel_device(&self) -> Result<()> {
        let [a, b] = self.cloud.hypervisors() else { anyhow::bail!("two hypervisors are wanted") };
        link::veth(a.ns(), TUNNEL_DEVICE, b.ns(), TUNNEL_DEVICE)?;
        for (hypervisor, host) in [(a, 1), (b, 2)] {
            hypervisor.ns().ip(&format!("link set {TUNNEL_DEVICE} mtu {UNDERLAY_MTU}"))?;
            link::address(hypervisor.ns(), TUNNEL_DEVICE, &format!("172.30.0.{host}/24"))?;
            hypervisor.vsctl(&format!("set Open_vSwitch . external_ids:ovn-encap-ip=172.30.0.{host}"))?;
            let name = hypervisor.name();
            wait_until(&format!("{name}'s new encap address in SB"), Duration::from_secs(30), || {
                let encaps = self.cloud.sbctl(&format!("--bare --columns=ip find Encap chassis_name={name}"))?;
                Ok(Look::when(encaps.trim() == format!("172.30.0.{host}"), || encaps))
            })?;
        }
        Ok(())
    }

    fn tap_guest(&mut self) -> Result<()> {
        let place = REMOTE_TAP;
        let spec = VifSpec::new(&place.port(), &place.mac(), &[]);
        let device = self.cloud.create_tap(1, spec)?.device().to_owned();
        let tap = TapGuest::open(self.cloud.hypervisors()[1].ns(), &device, place)?;
        self.cloud.plug(&place.port())?;
        self.cloud.wait_up(&place.port())?;
        settle(tap.ns(), place, &ALL)?;
        self.tap = Some(tap);
        Ok(())
    }

    fn guest(&self, place: Place) -> Result<&Netns> {
        Ok(self.cloud.vif(&place.port())?.guest())
    }

    /// From guest to guest on one hypervisor.
    ///
    /// # Errors
    ///
    /// Never in a rig that started.
    pub(super) fn local(&self) -> Result<Route<'_>> {
        Ok(Route { from: self.guest(SENDER)?, to: self.guest(NEIGHBOUR)?, address: NEIGHBOUR.address() })
    }

    /// To the other hypervisor, towards a veth device or a tap.
    ///
    /// # Errors
    ///
    /// In a rig of one hypervisor.
    pub(super) fn remote(&self, tap: bool) -> Result<Route<'_>> {
        let from = self.guest(SENDER)?;
        match &self.tap {
            Some(guest) if tap => Ok(Route { from, to: guest.ns(), address: REMOTE_TAP.address() }),
            _ => Ok(Route { from, to: self.guest(REMOTE)?, address: REMOTE.address() }),
        }
    }

    /// Changes the underlay.
    ///
    /// # Errors
    ///
    /// When `ethtool` fails.
    pub(super) fn underlay(&self, underlay: Underlay) -> Result<()> {
        let [a, b] = self.cloud.hypervisors() else { anyhow::bail!("two hypervisors are wanted") };
        underlay.apply(a.ns(), b.ns(), TUNNEL_DEVICE)
    }
}

/// A program of `bpf`, from device to device.
type Attach = fn(&Netns, &str, &str) -> Result<Attached>;

/// Two guests and whatever joins them, without OVN.
#[derive(Debug)]
pub(super) struct PlainRig {
    // Dropped in order: programs, guests, then the namespaces that their devices' other ends are in.
    _programs: Vec<Attached>,
    from: Netns,
    to: Receiver,
    address: Place,
    hosts: Vec<Netns>,
}

#[derive(Debug)]
enum Receiver {
    Veth(Netns),
    Tap(TapGuest),
}

impl Receiver {
    fn ns(&self) -> &Netns {
        match self {
            Self::Veth(ns) => ns,
            Self::Tap(guest) => guest.ns(),
        }
    }
}

impl PlainRig {
    /// Two guests on one host, joined by two programs of one `bpf_redirect` each.
    ///
    /// # Errors
    ///
    /// When devices or programs cannot be made.
    pub(super) fn redirect() -> Result<Self> {
        let host = Netns::new("bare")?;
        let (from, to) = (behind_veth(&host, "vif1", SENDER)?, behind_veth(&host, "vif2", NEIGHBOUR)?);
        let programs = vec![bpf::redirect(&host, "vif1", "vif2")?, bpf::redirect(&host, "vif2", "vif1")?];
        Self::finish(programs, from, Receiver::Veth(to), NEIGHBOUR, vec![host])
    }

    /// Two guests on one host, joined by the kernel's bridge.
    ///
    /// # Errors
    ///
    /// When devices cannot be made.
    pub(super) fn bridge() -> Result<Self> {
        let host = Netns::new("bridge")?;
        let (from, to) = (behind_veth(&host, "vif1", SENDER)?, behind_veth(&host, "vif2", NEIGHBOUR)?);
        link::bridge(&host, "br0")?;
        // Where br_netfilter is loaded, a bridge hands every packet to iptables unless told not to: that is another job.
        host.enter(|| -> Result<()> {
            for family in ["arp", "ip", "ip6"] {
                let file = format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables");
                match std::fs::write(&file, "0") {
                    // Not there where br_netfilter is not.
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error)
                            .with_context(|| format!("cannot write {file}, and the bridge would do more than bridge"));
                    }
                    _ => {}
                }
            }
            Ok(())
        })??;
        for device in ["vif1", "vif2"] {
            host.ip(&format!("link set {device} master br0"))?;
        }
        Self::finish(Vec::new(), from, Receiver::Veth(to), NEIGHBOUR, vec![host])
    }

    /// Guests on two hosts: each host has one program from its guest to the underlay and one back, without a tunnel, or with one that is always the same.
    ///
    /// # Errors
    ///
    /// When devices or programs cannot be made.
    pub(super) fn redirect_between_hosts(tap: bool, tunnel: bool) -> Result<Self> {
        let (a, b) = (Netns::new("bare 1")?, Netns::new("bare 2")?);
        link::veth(&a, TUNNEL_DEVICE, &b, TUNNEL_DEVICE)?;
        for ns in [&a, &b] {
            ns.ip(&format!("link set {TUNNEL_DEVICE} mtu {UNDERLAY_MTU}"))?;
        }
        let from = behind_veth(&a, "vif1", SENDER)?;
        let (place, to) = if tap {
            link::tap(&b, "vif2")?;
            (REMOTE_TAP, Receiver::Tap(TapGuest::open(&b, "vif2", REMOTE_TAP)?))
        } else {
            (REMOTE, Receiver::Veth(behind_veth(&b, "vif2", REMOTE)?))
        };
        let (there, here) = if tunnel {
            (bpf::encapsulate as Attach, bpf::strip as Attach)
        } else {
            (bpf::redirect as Attach, bpf::redirect as Attach)
        };
        let programs = vec![
            there(&a, "vif1", TUNNEL_DEVICE)?,
            here(&a, TUNNEL_DEVICE, "vif1")?,
            there(&b, "vif2", TUNNEL_DEVICE)?,
            here(&b, TUNNEL_DEVICE, "vif2")?,
        ];
        Self::finish(programs, from, to, place, vec![a, b])
    }

    fn finish(programs: Vec<Attached>, from: Netns, to: Receiver, address: Place, hosts: Vec<Netns>) -> Result<Self> {
        settle(&from, SENDER, &ALL)?;
        settle(to.ns(), address, &ALL)?;
        no_udp_segmentation(&from)?;
        probe::ping(&from, &address.address().to_string())?;
        Ok(Self { _programs: programs, from, to, address, hosts })
    }

    /// From guest to guest.
    pub(super) fn route(&self) -> Route<'_> {
        Route { from: &self.from, to: self.to.ns(), address: self.address.address() }
    }

    /// Changes the underlay between two hosts.
    ///
    /// # Errors
    ///
    /// When there are not two, or `ethtool` fails.
    pub(super) fn underlay(&self, underlay: Underlay) -> Result<()> {
        let [a, b] = &self.hosts[..] else { anyhow::bail!("two hosts are wanted") };
        underlay.apply(a, b, TUNNEL_DEVICE)
    }
}
