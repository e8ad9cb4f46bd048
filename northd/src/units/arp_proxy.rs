//! `options:arp_proxy` of a router port (ovn-nb(5)): the switch answers ARP requests for these addresses with the router's
//! Ethernet address. 23.03 knows IPv4 only; IPv6 addresses in the list are read over.

use std::net::Ipv4Addr;

use oxbow_incr::Cx;
use oxbow_ovsdb::Uuid;
use oxbow_schema::nb::{logical_router, logical_router_port as lrp, logical_switch_port as lsp};

use crate::address::{Mac, parse_ipv4_cidr, parse_ipv6_cidr};
use crate::profile::Stage::LsInArpRsp;
use crate::program::{Compiler, Output};
use crate::source::{Cell, IndexKey, Members};
use crate::units::flow_list::FlowList;
use crate::units::hint_of;

/// The flows of the router port `key` of `switch` that come from its option alone.
pub(crate) fn compute(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, key: Uuid, switch: Uuid) -> Output {
    let Some(options) = cx.read(&Cell(lsp::OPTIONS, key)) else { return Output::Empty };
    let (Some(list), Some(peer)) = (options.get("arp_proxy"), options.get("router-port")) else { return Output::Empty };
    let addresses = proxied(list);
    if addresses.is_empty() {
        return Output::Empty;
    }
    let Some(mac) = peer_mac(cx, peer) else { return Output::Empty };
    let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut flows = FlowList::new(compiler, switch, hint_of(key));
    flows.add(
        LsInArpRsp,
        50,
        &format!("arp.op == 1 && arp.tpa == {{{list}}}"),
        &format!(
            "eth.dst = eth.src; eth.src = {mac}; arp.op = 2; /* ARP reply */ arp.tha = arp.sha; arp.sha = {mac}; \
             arp.tpa <-> arp.spa; outport = inport; flags.loopback = 1; output;"
        ),
    );
    flows.finish()
}

/// The Ethernet address of a router port of an enabled router.
fn peer_mac(cx: &mut Cx<'_, '_, Compiler>, name: &str) -> Option<Mac> {
    let port = *cx.read(&Members(IndexKey::RouterPortByName(name.into()))).first()?;
    let router = *cx.read(&Members(IndexKey::RouterOfPort(port))).first()?;
    if cx.read(&Cell(logical_router::ENABLED, router))? == Some(false) {
        return None;
    }
    Mac::parse(cx.read(&Cell(lrp::MAC, port))?)
}

/// The IPv4 addresses of a list. A word that is no address ends it; an address that such a word begins with still counts.
fn proxied(list: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    for word in list.split_ascii_whitespace() {
        if let Some((address, _)) = parse_ipv4_cidr(word) {
            addresses.push(address);
        } else if parse_ipv6_cidr(word).is_none() {
            let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
            // A bad prefix length spoils its address, other rubbish does not.
            if !word[end..].starts_with(['/', ':']) {
                addresses.extend(word[..end].parse::<Ipv4Addr>());
            }
            break;
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::proxied;

    /// Each answer is ovn-northd's.
    #[test]
    fn lists_are_read_as_ovn_northd_reads_them() {
        for (list, expected) in [
            ("169.254.239.254 169.254.239.2", "169.254.239.254,169.254.239.2"),
            ("169.254.239.2/30 10.1.0.0/8", "169.254.239.2,10.1.0.0"),
            ("169.254.1.1 169.254.1.1", "169.254.1.1,169.254.1.1"),
            (" 169.254.3.1", "169.254.3.1"),
            ("169.254.3.1, 169.254.3.2", "169.254.3.1"),
            ("169.254.3.1x 169.254.3.4", "169.254.3.1"),
            ("169.254.1.1 bogus", "169.254.1.1"),
            ("169.254.3.5/24 fe80::1 169.254.3.2", "169.254.3.5,169.254.3.2"),
            ("fd7b:6b4d:7b25:d22f::/64 169.254.1.1", "169.254.1.1"),
            ("fd7b:6b4d:7b25:d22f::1", ""),
            ("bogus 169.254.1.1", ""),
            ("0a:58:a9:fe:01:01 169.254.239.254", ""),
            ("169.254.3.1/33 169.254.3.2", ""),
        ] {
            let found = proxied(list).iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(found, expected, "{list}");
        }
    }
}
