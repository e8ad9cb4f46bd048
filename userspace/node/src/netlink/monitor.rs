//! Notifications.

use super::transport::{NetlinkError, socket_error, split};
use super::{Addresses, Neighbours};
use crate::link::{Link, Links};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use tokio::io::unix::AsyncFd;

/// Multicast groups of rtnetlink (`enum rtnetlink_groups`): link, neighbour, addresses and routes of both families, next hops.
const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 32];

/// Bytes that may wait in the socket before the kernel drops notifications.
const RECEIVE_BUFFER: u32 = 4 << 20;

/// What a batch of notifications changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Devices.
    pub links: bool,
    /// Addresses of this host.
    pub addresses: bool,
    /// Hardware addresses of neighbours.
    pub neighbours: bool,
    /// Routes or next hops.
    pub routes: bool,
    /// Notifications were lost: everything must be read anew.
    pub lost: bool,
}

/// The socket that notifications come from.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Inner>,
}

struct Inner(Socket);

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("rtnetlink")
    }
}

impl AsRawFd for Inner {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Inner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Monitor {
    /// Subscribes, in the network namespace of the calling thread. To be called inside the runtime, and before the first dump, so that
    /// nothing falls between.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(socket_error("socket"))?;
        socket.bind_auto().map_err(socket_error("bind"))?;
        socket.set_non_blocking(true).map_err(socket_error("non-blocking"))?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER).map_err(socket_error("receive buffer"))?;
        for group in GROUPS {
            socket.add_membership(group).map_err(socket_error("multicast group"))?;
        }
        // SAFETY: `Inner` owns its socket, which stays open and the same descriptor as long as it lives.
        let registered = unsafe { AsyncFd::register(Inner(socket)) };
        let socket =
            registered.map_err(|error| socket_error("event loop")(std::io::Error::other(error.to_string())))?;
        Ok(Monitor { socket })
    }

    /// Waits until there is something to read; the caller then calls [`Monitor::follow`]. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn ready(&self) -> Result<(), NetlinkError> {
        let mut guard = self.socket.readable().await.map_err(socket_error("wait"))?;
        // `follow`, which the caller goes on to, reads until the socket would block: whatever comes after that is a new edge.
        guard.clear_ready();
        Ok(())
    }

    /// Reads everything that waits and brings the tables up to date.
    ///
    /// # Errors
    /// The system's, other than an overflow, which is [`Change::lost`].
    pub fn follow(
        &self,
        links: &mut Links,
        addresses: &mut Addresses,
        neighbours: &mut Neighbours,
    ) -> Result<Change, NetlinkError> {
        let mut change = Change::default();
        loop {
            let bytes = match self.socket.get_ref().0.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(change),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    change.lost = true;
                    continue;
                }
                Err(error) => return Err(NetlinkError::Socket { what: "receive", source: error }),
            };
            for message in split(&bytes) {
                // A notification of a kind or attribute that is not understood is somebody else's.
                if let Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
                {
                    apply(&message, links, addresses, neighbours, &mut change);
                }
            }
        }
    }
}

fn apply(
    message: &RouteNetlinkMessage,
    links: &mut Links,
    addresses: &mut Addresses,
    neighbours: &mut Neighbours,
    change: &mut Change,
) {
    match message {
        RouteNetlinkMessage::NewLink(message) => {
            if let Some(link) = super::links::parse(message) {
                change.links |= put_keeping_counters(links, link);
            }
        }
        RouteNetlinkMessage::DelLink(message) if u8::from(message.header.interface_family) == 0 => {
            change.links |= links.remove(message.header.index);
        }
        RouteNetlinkMessage::NewAddress(message) => change.addresses |= addresses.put(message, true),
        RouteNetlinkMessage::DelAddress(message) => change.addresses |= addresses.put(message, false),
        RouteNetlinkMessage::NewNeighbour(message) => change.neighbours |= neighbours.put(message, true),
        RouteNetlinkMessage::DelNeighbour(message) => change.neighbours |= neighbours.put(message, false),
        RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => change.routes = true,
        _ => {}
    }
}

/// A notification may come without counters.
fn put_keeping_counters(links: &mut Links, mut link: Link) -> bool {
    if link.counters == Default::default()
        && let Some(old) = links.get(link.ifindex)
    {
        link.counters = old.counters;
    }
    links.put(link)
}
