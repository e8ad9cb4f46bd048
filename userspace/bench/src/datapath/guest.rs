//! Guests of all contenders: namespaces with one device, behind a veth pair or behind a tap.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oxbow_testkit::vif::GUEST_DEVICE;
use oxbow_testkit::{Netns, link};

/// A guest's place in its network: host numbers are the same in every contender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(pub(super) u8);

impl Place {
    /// `10.77.0.N`.
    pub(super) fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.0)
    }

    /// The MAC address.
    pub(super) fn mac(self) -> String {
        format!("0a:00:00:77:00:{:02x}", self.0)
    }

    /// The logical port's name.
    pub(super) fn port(self) -> String {
        format!("lp{}", self.0)
    }
}

/// Gives a guest's device its addresses, if they are not there yet, and the others' without asking the network.
///
/// # Errors
///
/// When `ip` fails.
pub(super) fn settle(ns: &Netns, own: Place, others: &[Place]) -> Result<()> {
    ns.ip(&format!("link set {GUEST_DEVICE} address {} up", own.mac()))?;
    ns.ip(&format!("addr replace {}/24 dev {GUEST_DEVICE}", own.address()))?;
    for other in others {
        let (address, mac) = (other.address(), other.mac());
        ns.ip(&format!("neigh replace {address} lladdr {mac} dev {GUEST_DEVICE} nud permanent"))?;
    }
    Ok(())
}

/// Makes a guest behind a veth device of the hypervisor.
///
/// # Errors
///
/// When `ip` fails.
pub(super) fn behind_veth(hypervisor: &Netns, device: &str, place: Place) -> Result<Netns> {
    let ns = Netns::new(&format!("guest {}", place.0))?;
    link::veth(hypervisor, device, &ns, GUEST_DEVICE)?;
    Ok(ns)
}

/// A guest behind a tap of the hypervisor: a process of QEMU's kind moves frames between that tap and the guest's own device, which
/// is a tap too. Both have `IFF_VNET_HDR`, so super-packets and checksums that are not filled in stay what they are.
#[derive(Debug)]
pub(super) struct TapGuest {
    ns: Netns,
    _shuttle: Shuttle,
}

impl TapGuest {
    /// Takes the hypervisor's tap, which exists, and makes the guest.
    ///
    /// # Errors
    ///
    /// When a tap cannot be opened.
    pub(super) fn open(hypervisor: &Netns, device: &str, place: Place) -> Result<Self> {
        let ns = Netns::new(&format!("guest {}", place.0))?;
        let outer = open_tap(hypervisor, device)?;
        let inner = open_tap(&ns, GUEST_DEVICE)?;
        Ok(Self { ns, _shuttle: Shuttle::start(outer, inner)? })
    }

    /// The guest's namespace.
    pub(super) fn ns(&self) -> &Netns {
        &self.ns
    }
}

// linux/if_tun.h
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
/// Checksum, TSO for IPv4 and IPv6, ECN: what virtio-net guests negotiate everywhere.
const TUN_F: libc::c_ulong = 1 | 2 | 4 | 8;

/// Opens a tap in the namespace, making it if it is not there.
fn open_tap(ns: &Netns, name: &str) -> Result<File> {
    let open = || -> Result<File> {
        let file = File::options().read(true).write(true).open("/dev/net/tun").context("cannot open /dev/net/tun")?;
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        // SAFETY: a live ifreq, which the request reads and writes.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("cannot open tap {name}"));
        }
        // SAFETY: the argument is a number.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, TUN_F) } < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("cannot set offloads of tap {name}"));
        }
        // SAFETY: no memory is passed.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error()).context("cannot make a tap non-blocking");
        }
        Ok(file)
    };
    ns.enter(open)?
}

/// Two threads that move frames between two taps.
#[derive(Debug)]
struct Shuttle {
    end: Arc<AtomicBool>,
    /// Closed to wake the threads up.
    wake: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

impl Shuttle {
    fn start(a: File, b: File) -> Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let (woken, wake) = io::pipe().context("cannot make a pipe")?;
        let woken = Arc::new(woken);
        let (a, b) = (Arc::new(OwnedFd::from(a)), Arc::new(OwnedFd::from(b)));
        let mut threads = Vec::new();
        for (from, to) in [(a.clone(), b.clone()), (b, a)] {
            let (end, woken) = (end.clone(), woken.clone());
            threads.push(
                std::thread::Builder::new().name("shuttle".into()).spawn(move || shuttle(&from, &to, &end, &woken))?,
            );
        }
        Ok(Self { end, wake: Some(wake), threads })
    }
}

/// Moves frames one way until the end. What one side cannot take is lost, as in a network card.
fn shuttle(from: &OwnedFd, to: &OwnedFd, end: &AtomicBool, woken: &PipeReader) {
    // Without the right to hurry it is merely slower.
    let _ = super::load::hurry();
    let mut buffer = vec![0u8; 1 << 17];
    while !end.load(Ordering::Relaxed) {
        match nix::unistd::read(from, &mut buffer) {
            Ok(length) => {
                let _lost = nix::unistd::write(to, &buffer[..length]).is_err();
            }
            Err(nix::errno::Errno::EAGAIN) => {
                let mut ready =
                    [PollFd::new(from.as_fd(), PollFlags::POLLIN), PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, PollTimeout::NONE).is_err() {
                    return;
                }
            }
            // The device is down for now, or gone for good: `end` follows.
            Err(_) => {
                let mut ready = [PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, PollTimeout::from(50u8)).is_err() {
                    return;
                }
            }
        }
    }
}

impl Drop for Shuttle {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.wake = None;
        for thread in self.threads.drain(..) {
            // A panic of a shuttle has been printed.
            let _ = thread.join();
        }
    }
}
