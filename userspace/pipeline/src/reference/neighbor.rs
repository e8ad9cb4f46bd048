//! The neighbor advertisement that `nd_na { … }` makes of a neighbor solicitation (ovn-sb(5), RFC 4861 sections 4.4 and 7.2.4).

use super::fields::Fields;
use super::frame::{Layout, eth, parse};
use crate::ir::Field;

/// Router, solicited and override flags.
const ROUTER: u32 = 1 << 31;
const SOLICITED: u32 = 1 << 30;
const OVERRIDE: u32 = 1 << 29;
const ALL_NODES: u128 = 0xff02_0000_0000_0000_0000_0000_0000_0001;

/// The frame that answers, read again; `None` when the packet is no neighbor solicitation with a target.
///
/// Preset: `eth.dst` and `eth.src` exchanged, `ip6.dst` from `ip6.src` (all nodes and not "solicited" when that is unspecified), `ip6.src` and
/// `nd.target` from `nd.target`, `nd.tll` from `eth.dst`. A VLAN tag stays. What is not in the packet is taken over from `fields`.
pub(crate) fn advertisement(
    frame: &[u8],
    layout: &Layout,
    fields: &Fields,
    router: bool,
) -> Option<(Vec<u8>, Fields, Layout)> {
    let solicitation = fields.get(Field::EthType) == u128::from(eth::IP6)
        && fields.get(Field::IpProto) == 58
        && fields.get(Field::Icmp6Type) == 135
        && fields.get(Field::Icmp6Code) == 0
        && layout.nd_target.is_some();
    if !solicitation {
        return None;
    }
    let (eth_dst, eth_src) = (mac(fields.get(Field::EthSrc)), mac(fields.get(Field::EthDst)));
    let probe = fields.get(Field::Ip6Src) == 0;
    let source = fields.get(Field::NdTarget);
    let destination = if probe { ALL_NODES } else { fields.get(Field::Ip6Src) };
    let flags = OVERRIDE | if router { ROUTER } else { 0 } | if probe { 0 } else { SOLICITED };

    let mut icmp = vec![136, 0, 0, 0];
    icmp.extend(flags.to_be_bytes());
    icmp.extend(source.to_be_bytes());
    icmp.extend([2, 1]);
    icmp.extend(eth_src);
    let sum = checksum(source, destination, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut out = Vec::with_capacity(90);
    out.extend(eth_dst);
    out.extend(eth_src);
    if let Some(vlan) = layout.vlan {
        out.extend(&frame[vlan..vlan + 4]);
    }
    out.extend(eth::IP6.to_be_bytes());
    out.extend([0x60, 0, 0, 0, 0, icmp.len() as u8, 58, 255]);
    out.extend(source.to_be_bytes());
    out.extend(destination.to_be_bytes());
    out.extend(icmp);
    let (mut new, layout) = parse(&out).ok()?;
    new.take_metadata(fields);
    Some((out, new, layout))
}

fn mac(value: u128) -> [u8; 6] {
    let b = (value as u64).to_be_bytes();
    [b[2], b[3], b[4], b[5], b[6], b[7]]
}

/// ICMPv6 checksum over the pseudo header (RFC 8200 section 8.1) and a message of even length whose checksum field is zero.
fn checksum(source: u128, destination: u128, message: &[u8]) -> u16 {
    let words =
        |bytes: &[u8]| -> u32 { bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum() };
    let mut sum =
        words(&source.to_be_bytes()) + words(&destination.to_be_bytes()) + words(message) + message.len() as u32 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
