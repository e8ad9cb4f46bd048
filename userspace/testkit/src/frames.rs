//! Whole frames in and out of a device: what a guest's network card does.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

/// Room asked for in the receive buffer, so that a slow reader loses nothing.
const RECEIVE_BUFFER: libc::c_int = 64 << 20;

/// A packet socket (packet(7)) on one device, sending and receiving frames from the Ethernet header on.
#[derive(Debug)]
pub struct Frames {
    socket: OwnedFd,
}

impl Frames {
    /// Opens the socket in the namespace; it stays usable from any thread.
    pub fn open(ns: &Netns, device: &str) -> Result<Self> {
        ns.enter(|| open(device))?.with_context(|| format!("cannot open a packet socket on {device} of {}", ns.name()))
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer is live and of the length given.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that the device received (not one that this host sent by it), or `None` when there is none within `wait`.
    pub fn receive(&self, wait: Duration) -> io::Result<Option<Vec<u8>>> {
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
            // SAFETY: all zeros is a valid sockaddr_ll.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: buffer and address are live and of the lengths given.
            let got = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            if got < 0 {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => continue,
                    _ => return Err(error),
                }
            }
            if from.sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            buffer.truncate(got as usize);
            return Ok(Some(buffer));
        }
    }
}

fn open(device: &str) -> io::Result<Frames> {
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
    let index = nix::net::if_::if_nametoindex(device)?;
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
        let arrived = std::iter::from_fn(|| b.receive(Duration::from_secs(5)).unwrap()).any(|got| got == frame);
        assert!(arrived);
    }
}
