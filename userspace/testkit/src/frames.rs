//! Whole frames in and out of a device: what a guest's network card does.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

/// Room asked for in the receive buffer, so that a slow reader loses nothing.
const RECEIVE_BUFFER: libc::c_int = 64 << 20;

/// A frame, and where it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Index of the device.
    pub ifindex: u32,
    /// From the Ethernet header on, VLAN tags included.
    pub frame: Vec<u8>,
}

/// A packet socket (packet(7)), sending and receiving frames from the Ethernet header on.
#[derive(Debug)]
pub struct Frames {
    socket: OwnedFd,
}

impl Frames {
    /// Opens the socket in the namespace; it stays usable from any thread.
    pub fn open(ns: &Netns, device: &str) -> Result<Self> {
        ns.enter(|| open(Some(device)))?
            .with_context(|| format!("cannot open a packet socket on {device} of {}", ns.name()))
    }

    /// Opens a socket that hears every device of the namespace; it cannot send.
    pub fn hear_all(ns: &Netns) -> Result<Self> {
        ns.enter(|| open(None))?.with_context(|| format!("cannot open a packet socket in {}", ns.name()))
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer is live and of the length given.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that the device received (not one that this host sent by it), or `None` when there is none within `wait`.
    pub fn receive(&self, wait: Duration) -> io::Result<Option<Received>> {
        let deadline = Instant::now() + wait;
        let mut buffer = vec![0u8; 1 << 16];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one live pollfd.
            let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis().try_into().unwrap_or(i32::MAX)) };
            if ready == 0 {
                return Ok(None);
            }
            match self.read(&mut buffer) {
                Ok((from, tag, len)) if from.sll_pkttype != libc::PACKET_OUTGOING => {
                    let mut frame = buffer[..len].to_vec();
                    // The kernel takes the outer tag out of the frame before anybody sees it.
                    if let Some((tpid, tci)) = tag
                        && frame.len() >= 12
                    {
                        frame.splice(12..12, tpid.to_be_bytes().into_iter().chain(tci.to_be_bytes()));
                    }
                    return Ok(Some(Received { ifindex: from.sll_ifindex.cast_unsigned(), frame }));
                }
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One message: where it came from, the outer VLAN tag (protocol, control information), its length.
    fn read(&self, buffer: &mut [u8]) -> io::Result<(libc::sockaddr_ll, Option<Tag>, usize)> {
        // SAFETY: all zeros is a valid sockaddr_ll, and a valid msghdr.
        let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = [0u64; 16];
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message's buffers are live and of the lengths given.
        let got = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut tag = None;
        // SAFETY: the macros walk the control buffer that the kernel has just filled and whose length it has set; the data of a
        // PACKET_AUXDATA message is a tpacket_auxdata, read without assuming its alignment.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_PACKET && (*header).cmsg_type == libc::PACKET_AUXDATA {
                    let aux: libc::tpacket_auxdata = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        let known = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                        tag = Some((if known { aux.tp_vlan_tpid } else { 0x8100 }, aux.tp_vlan_tci));
                    }
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        Ok((from, tag, got.cast_unsigned()))
    }
}

/// Protocol and control information of a VLAN tag.
type Tag = (u16, u16);

fn open(device: Option<&str>) -> io::Result<Frames> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let room = RECEIVE_BUFFER;
    // SAFETY: the option's value is a live int of the length given.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            size_of_val(&room) as libc::socklen_t,
        )
    };
    let on: libc::c_int = 1;
    // SAFETY: as above.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    let index = device.map(nix::net::if_::if_nametoindex).transpose()?.unwrap_or(0);
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = index as i32;
    // SAFETY: the address is live and of the length given.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Frames { socket }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::veth;

    #[test]
    fn frames_cross_a_veth_pair_unchanged() {
        let ns = Netns::new("frames").unwrap();
        let peer = Netns::new("peer").unwrap();
        veth(&ns, "f0", &peer, "f1").unwrap();
        let (a, b) = (Frames::open(&ns, "f0").unwrap(), Frames::open(&peer, "f1").unwrap());
        let frame: Vec<u8> = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5].into_iter().chain(0..50).collect();
        a.send(&frame).unwrap();
        // Both ends also see what the kernel itself sends when a device comes up.
        let arrived = std::iter::from_fn(|| b.receive(Duration::from_secs(5)).unwrap()).any(|got| got.frame == frame);
        assert!(arrived);
    }
}
