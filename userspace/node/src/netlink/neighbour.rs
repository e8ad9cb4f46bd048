//! Neighbours of the underlay: who has which hardware address, and keeping the kernel interested in the ones we send to.
//!
//! Our frames leave by redirect, so the host's stack never sees that a neighbour is in use. The entries we need are therefore
//! marked *managed* (`NTF_EXT_MANAGED`, Linux 5.16): the kernel then resolves and refreshes them by itself.

use super::transport::{NetlinkError, Requester};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A neighbour's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourKey {
    /// Device.
    pub ifindex: u32,
    /// Address.
    pub ip: IpAddr,
}

/// The neighbours whose hardware address can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    known: BTreeMap<NeighbourKey, [u8; 6]>,
}

impl Neighbours {
    /// Reads them all.
    ///
    /// # Errors
    /// The kernel's.
    pub fn dump(requester: &mut Requester) -> Result<Self, NetlinkError> {
        let mut neighbours = Neighbours::default();
        for answer in requester.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))? {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                neighbours.put(&message, true);
            }
        }
        Ok(neighbours)
    }

    /// Follows a notification. True when an address became usable, changed, or stopped being usable.
    pub(super) fn put(&mut self, message: &NeighbourMessage, is_there: bool) -> bool {
        let mut ip = None;
        let mut mac: Option<[u8; 6]> = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(IpAddr::from(*address)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => ip = Some(IpAddr::from(*address)),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
                _ => {}
            }
        }
        let Some(ip) = ip else { return false };
        let key = NeighbourKey { ifindex: message.header.ifindex, ip };
        // Stale, delay and probe still have the last good address, and using it is what brings them back.
        let is_usable = is_there
            && matches!(
                message.header.state,
                NeighbourState::Reachable
                    | NeighbourState::Stale
                    | NeighbourState::Delay
                    | NeighbourState::Probe
                    | NeighbourState::Permanent
                    | NeighbourState::Noarp
            );
        match mac.filter(|_| is_usable) {
            Some(mac) => self.known.insert(key, mac) != Some(mac),
            None => self.known.remove(&key).is_some(),
        }
    }

    /// The hardware address of a neighbour, when it can be used.
    pub fn mac(&self, key: NeighbourKey) -> Option<[u8; 6]> {
        self.known.get(&key).copied()
    }

    /// Asks the kernel to resolve a neighbour and to keep it resolved.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask(requester: &mut Requester, key: NeighbourKey) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = match key.ip {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = key.ifindex;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(match key.ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }));
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        requester.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(|_| ())
    }
}
