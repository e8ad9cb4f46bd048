//! Devices: reading, making, changing.

use super::transport::{NetlinkError, Requester};
use crate::link::{Counters, Link};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

/// Every device of the namespace.
///
/// # Errors
/// The kernel's.
pub fn dump_links(requester: &mut Requester) -> Result<Vec<Link>, NetlinkError> {
    let answers = requester.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => parse(&message),
            _ => None,
        })
        .collect())
}

/// The device that a message tells of; none for messages of other families (bridge ports) and without a name.
pub(super) fn parse(message: &LinkMessage) -> Option<Link> {
    if u8::from(message.header.interface_family) != 0 {
        return None;
    }
    let mut link = Link {
        ifindex: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        has_carrier: message.header.flags.contains(LinkFlags::LowerUp),
        ..Default::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.clone(),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()).filter(|alias| !alias.is_empty()),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(peer) => link.peer = Some(*peer).filter(|peer| *peer != link.ifindex && *peer != 0),
            LinkAttribute::CarrierChanges(count) => link.carrier_changes = *count,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Stats64(stats) => {
                link.counters = Counters {
                    rx_packets: stats.rx_packets,
                    rx_bytes: stats.rx_bytes,
                    rx_dropped: stats.rx_dropped,
                    rx_errors: stats.rx_errors,
                    rx_frame_err: stats.rx_frame_errors,
                    rx_over_err: stats.rx_over_errors,
                    rx_crc_err: stats.rx_crc_errors,
                    tx_packets: stats.tx_packets,
                    tx_bytes: stats.tx_bytes,
                    tx_dropped: stats.tx_dropped,
                    tx_errors: stats.tx_errors,
                    collisions: stats.collisions,
                };
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// Makes a veth pair: `outer` with `mac` if given, `inner` with `alias`. Both are left down. The kernel tells nobody of a note on a device
/// that is down: whoever follows notifications must dump the devices after this.
///
/// # Errors
/// The kernel's; when the alias cannot be set the pair is removed again.
pub fn create_pair(
    requester: &mut Requester,
    outer: &str,
    inner: &str,
    mac: Option<[u8; 6]>,
    alias: &str,
) -> Result<(), NetlinkError> {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(inner.to_owned()));
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(outer.to_owned()));
    if let Some(mac) = mac {
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    }
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    requester.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
    if let Err(error) = set_alias(requester, inner, alias) {
        // Without the note nobody would ever remove it.
        delete_named(requester, inner)?;
        return Err(error);
    }
    Ok(())
}

fn change(requester: &mut Requester, message: LinkMessage) -> Result<(), NetlinkError> {
    requester.request(RouteNetlinkMessage::SetLink(message), 0).map(|_| ())
}

fn by_index(ifindex: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message
}

/// Leaves a note on a device, by its name.
///
/// # Errors
/// The kernel's.
pub fn set_alias(requester: &mut Requester, name: &str, alias: &str) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    change(requester, message)
}

/// Brings a device up.
///
/// # Errors
/// The kernel's.
pub fn set_up(requester: &mut Requester, ifindex: u32) -> Result<(), NetlinkError> {
    let mut message = by_index(ifindex);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    change(requester, message)
}

/// Sets the MTU.
///
/// # Errors
/// The kernel's.
pub fn set_mtu(requester: &mut Requester, ifindex: u32, mtu: u32) -> Result<(), NetlinkError> {
    let mut message = by_index(ifindex);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    change(requester, message)
}

/// Sets the hardware address.
///
/// # Errors
/// The kernel's.
pub fn set_mac(requester: &mut Requester, ifindex: u32, mac: [u8; 6]) -> Result<(), NetlinkError> {
    let mut message = by_index(ifindex);
    message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    change(requester, message)
}

/// Moves a device into the network namespace that a file descriptor stands for.
///
/// # Errors
/// The kernel's.
pub fn move_link(requester: &mut Requester, ifindex: u32, namespace: std::os::fd::RawFd) -> Result<(), NetlinkError> {
    let mut message = by_index(ifindex);
    message.attributes.push(LinkAttribute::NetNsFd(namespace));
    change(requester, message)
}

/// Removes a device (of a pair: both ends). One that is gone already is no error.
///
/// # Errors
/// The kernel's.
pub fn delete_link(requester: &mut Requester, ifindex: u32) -> Result<(), NetlinkError> {
    match requester.request(RouteNetlinkMessage::DelLink(by_index(ifindex)), 0) {
        Err(error) if error.errno() != Some(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

fn delete_named(requester: &mut Requester, name: &str) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    requester.request(RouteNetlinkMessage::DelLink(message), 0).map(|_| ())
}
