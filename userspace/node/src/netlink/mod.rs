//! The kernel's devices, addresses, routes and neighbours over rtnetlink (rtnetlink(7), netlink(7)).
//!
//! Requests are synchronous: the kernel answers them before the system call returns. Notifications come over a socket of their own
//! ([`Monitor`]); when it overflows (`ENOBUFS`) everything is dumped anew. A socket belongs to the network namespace of the thread that
//! opened it, for life.

mod address;
mod links;
mod monitor;
mod neighbour;
mod route;
mod transport;

pub use address::Addresses;
pub use links::{create_pair, delete_link, dump_links, move_link, set_alias, set_mac, set_mtu, set_up};
pub use monitor::{Change, Monitor};
pub use neighbour::{NeighbourKey, Neighbours};
pub use route::{Route, route_to};
pub use transport::{NetlinkError, Requester};
