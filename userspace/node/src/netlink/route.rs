//! The way to an address, as the host itself would take it (RTM_GETROUTE).

use super::transport::{NetlinkError, Requester};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use std::net::IpAddr;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Device to leave by.
    pub ifindex: u32,
    /// Next hop: a gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// MTU of the route, when it has one.
    pub mtu: Option<u32>,
    /// The destination is an address of this host.
    pub is_local: bool,
}

/// Looks the way from `source` to `destination` up.
///
/// # Errors
/// The kernel's: `ENETUNREACH` and `EHOSTUNREACH` when there is none.
pub fn route_to(requester: &mut Requester, source: IpAddr, destination: IpAddr) -> Result<Option<Route>, NetlinkError> {
    let mut message = RouteMessage::default();
    let (family, length) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.header.source_prefix_length = length;
    message.attributes.push(RouteAttribute::Destination(to_attribute(destination)));
    message.attributes.push(RouteAttribute::Source(to_attribute(source)));
    let answers = requester.request(RouteNetlinkMessage::GetRoute(message), 0)?;
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => parse(&route, destination),
        _ => None,
    }))
}

fn parse(message: &RouteMessage, destination: IpAddr) -> Option<Route> {
    let is_local = message.header.kind == RouteType::Local;
    if !is_local && message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route { ifindex: 0, next_hop: destination, mtu: None, is_local };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => route.next_hop = (*ip).into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => route.next_hop = (*ip).into(),
            RouteAttribute::Via(RouteVia::Inet(ip)) => route.next_hop = (*ip).into(),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => route.next_hop = (*ip).into(),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (route.ifindex != 0).then_some(route)
}

fn to_attribute(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}
