//! Which device has which address.

use super::transport::{NetlinkError, Requester};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The addresses of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    device: BTreeMap<IpAddr, u32>,
}

impl Addresses {
    /// Reads them all.
    ///
    /// # Errors
    /// The kernel's.
    pub fn dump(requester: &mut Requester) -> Result<Self, NetlinkError> {
        let mut addresses = Addresses::default();
        for answer in requester.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(message) = answer {
                addresses.put(&message, true);
            }
        }
        Ok(addresses)
    }

    /// Follows a notification. True when something changed.
    pub(super) fn put(&mut self, message: &AddressMessage, is_there: bool) -> bool {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        let any = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        });
        let Some(ip) = local.or(any) else { return false };
        let ifindex = message.header.index;
        if is_there {
            self.device.insert(ip, ifindex) != Some(ifindex)
        } else if self.device.get(&ip) == Some(&ifindex) {
            self.device.remove(&ip);
            true
        } else {
            false
        }
    }

    /// The device that has an address.
    pub fn device(&self, ip: IpAddr) -> Option<u32> {
        self.device.get(&ip).copied()
    }
}
