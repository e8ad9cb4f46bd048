//! Packet sockets (packet(7)) on the devices that wait.
//!
//! A socket bound to all protocols is given a device's frames before its ingress programs are. A classic BPF filter keeps all but
//! the kinds that the strategies name away from this process: a guest that is busy while it waits wakes nobody.

use super::{Strategies, Strategy, activates, vlan};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::task::Poll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes kept of a frame: every kind that is looked for fits.
const SNAP: u32 = 128;
/// Frames read from one socket at once.
const BATCH: usize = 64;

/// What is listened for on a device: strategies by VLAN tag of the port, 0 = the device's own port.
pub type Wanted = BTreeMap<u16, Strategies>;

/// The sockets, by interface index.
#[derive(Debug, Default)]
pub struct Listeners {
    by_device: BTreeMap<u32, Result<Listener, String>>,
}

#[derive(Debug)]
struct Listener {
    socket: AsyncFd<OwnedFd>,
    wanted: Wanted,
}

impl Listeners {
    /// Listens for exactly this, anew on a device that went and came back. True when a socket was opened or closed, or could not be opened for another reason than before.
    /// Inside the runtime.
    pub fn follow(&mut self, wanted: &BTreeMap<u32, Wanted>) -> bool {
        let before = self.by_device.len();
        self.by_device.retain(|ifindex, _| wanted.contains_key(ifindex));
        let mut changed = before != self.by_device.len();
        for (ifindex, wanted) in wanted {
            let old = self.by_device.get(ifindex);
            if matches!(old, Some(Ok(listener)) if listener.wanted == *wanted && is_bound(&listener.socket)) {
                continue;
            }
            let new = Listener::open(*ifindex, wanted)
                .map_err(|error| format!("cannot listen for a frame that activates the port: {error}"));
            changed |= match (old, &new) {
                (Some(Err(old)), Err(new)) => old != new,
                _ => true,
            };
            self.by_device.insert(*ifindex, new);
        }
        changed
    }

    /// Whether a device is listened on; `None` = nobody asked for it.
    pub fn state(&self, ifindex: u32) -> Option<Result<(), &str>> {
        self.by_device.get(&ifindex).map(|listener| listener.as_ref().map(|_| ()).map_err(String::as_str))
    }

    /// Waits until there is something to read; the caller then calls [`Listeners::heard`]. Cancel-safe.
    pub async fn ready(&self) {
        poll_fn(|context| {
            let mut listeners = self.by_device.values().flatten();
            // A readiness that is not cleared here stays until `heard` has read everything.
            match listeners.any(|listener| listener.socket.poll_read_ready(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Interface index and VLAN tag of the ports whose guests have sent a frame that activates them.
    pub fn heard(&mut self) -> Vec<(u32, u16)> {
        let mut heard = Vec::new();
        let mut dead = Vec::new();
        for (ifindex, listener) in &self.by_device {
            let Ok(listener) = listener else { continue };
            match listener.read() {
                Ok(vlans) => heard.extend(vlans.into_iter().map(|vlan| (*ifindex, vlan))),
                Err(error) => {
                    tracing::debug!(target: "binding", "packet socket on device {ifindex}: {error}");
                    dead.push(*ifindex);
                }
            }
        }
        for ifindex in dead {
            // Opened again by the next `follow` if the device is still wanted.
            self.by_device.remove(&ifindex);
        }
        heard
    }
}

impl Listener {
    fn open(ifindex: u32, wanted: &Wanted) -> io::Result<Self> {
        let socket = open(ifindex, &filter(wanted))?;
        // SAFETY: an `OwnedFd` stays open and the same descriptor as long as it lives.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Listener { socket, wanted: wanted.clone() })
    }

    /// The VLAN tags (0 = none) for which an activating frame has come. An error = the socket is of no more use.
    fn read(&self) -> io::Result<Vec<u16>> {
        let mut heard = Vec::new();
        for _ in 0..BATCH {
            match self.socket.try_io(Interest::READABLE, receive) {
                Ok(Some(frame)) => {
                    // A tag that no nested port has is the business of the device's own port.
                    let tag = vlan(&frame).filter(|tag| self.wanted.contains_key(tag)).unwrap_or(0);
                    if self.wanted.get(&tag).is_some_and(|strategies| activates(*strategies, &frame)) {
                        heard.push(tag);
                    }
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // ENETDOWN is told once when the device goes down; the socket hears again when it comes up.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENETDOWN)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(heard)
    }
}

/// The classic BPF program (`linux/filter.h`) that lets a frame in that may be one of these. The kernel has taken the outer tag
/// out of the frame by then.
fn filter(wanted: &Wanted) -> Vec<libc::sock_filter> {
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let step = |code: u32, skip_unless: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: skip_unless, k };
    let load = |code, at| step(code, 0, at);
    let equal = |k, skip_unless| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip_unless, k);
    let end = |length| step(libc::BPF_RET | libc::BPF_K, 0, length);
    let strategies = wanted.values().fold(Strategies::default(), |all, one| all.union(*one));
    let mut program = Vec::new();
    for (strategy, ethertype) in [(Strategy::Rarp, 0x8035), (Strategy::Garp, 0x0806)] {
        if strategies.contains(strategy) {
            program.extend([load(LOAD_HALF, 12), equal(ethertype, 1), end(SNAP)]);
        }
    }
    if strategies.contains(Strategy::Na) {
        // EtherType, next header, ICMPv6 type.
        program.extend([load(LOAD_HALF, 12), equal(0x86dd, 5), load(LOAD_BYTE, 20), equal(58, 3)]);
        program.extend([load(LOAD_BYTE, 54), equal(136, 1), end(SNAP)]);
    }
    program.push(end(0));
    program
}

fn open(ifindex: u32, filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received before the filter is in place and the socket bound.
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    let on: libc::c_int = 1;
    set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)?;
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = ifindex.cast_signed();
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is live and of the length given.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets an option whose value the kernel copies before it returns.
fn set<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is live and of the length given; what a filter program points to is live too, as its owner is borrowed above.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the socket still has its device: the kernel unbinds it when the device goes, even if one with the same index follows.
fn is_bound(socket: &AsyncFd<OwnedFd>) -> bool {
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the buffer is live and of the length given.
    let got = unsafe { libc::getsockname(socket.get_ref().as_raw_fd(), (&raw mut address).cast(), &raw mut size) };
    got == 0 && address.sll_ifindex > 0
}

/// The next frame that the device has received, its outer tag in place; nothing for one that this host has sent.
fn receive(socket: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0u8; SNAP as usize];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // Aligned as a control message is.
    let mut control = [0u64; 16];
    // SAFETY: all zeros is a valid sockaddr_ll, and a valid msghdr.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of_val(&from) as libc::socklen_t;
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message's buffers are live and of the lengths given.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let Ok(length) = usize::try_from(got) else { return Err(io::Error::last_os_error()) };
    if from.sll_pkttype == libc::PACKET_OUTGOING {
        return Ok(None);
    }
    let mut frame = buffer[..length.min(buffer.len())].to_vec();
    // SAFETY: the macros walk the control buffer that the kernel has just filled and whose length it has set; the data of a
    // PACKET_AUXDATA message is a tpacket_auxdata, read without assuming its alignment.
    let tag = unsafe {
        let mut tag = None;
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_PACKET && (*header).cmsg_type == libc::PACKET_AUXDATA {
                let data: libc::tpacket_auxdata = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    let is_known = data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                    tag = Some((if is_known { data.tp_vlan_tpid } else { 0x8100 }, data.tp_vlan_tci));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        tag
    };
    if let Some((protocol, control)) = tag
        && frame.len() >= 12
    {
        frame.splice(12..12, protocol.to_be_bytes().into_iter().chain(control.to_be_bytes()));
    }
    Ok(Some(frame))
}
