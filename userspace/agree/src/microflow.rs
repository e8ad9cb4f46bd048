//! A packet as ovn-trace wants it told: the expression that its fields satisfy.

use oxbow_pipeline::ir::Field;
use oxbow_pipeline::reference::Fields;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The text of a microflow (ovn-trace(8)) for a packet from a port. Fields without their prerequisites are not told: no flow can look at them.
#[must_use]
pub fn text(inport: &str, fields: &Fields) -> String {
    // Strings are written as in JSON (ovn-sb(5)).
    let mut text = format!("inport == {}", serde_json::Value::from(inport));
    let mut say = |what: &str, value: String| {
        let _ = write!(text, " && {what} == {value}");
    };
    let number = |field| fields.get(field);
    let mac = |field| format!("{}", oxbow_pipeline::ir::Mac(number(field) as u64));
    let v4 = |field| Ipv4Addr::from(number(field) as u32).to_string();
    let v6 = |field| Ipv6Addr::from(number(field)).to_string();
    say("eth.src", mac(Field::EthSrc));
    say("eth.dst", mac(Field::EthDst));
    say("vlan.tci", format!("{:#x}", number(Field::VlanTci)));
    let eth_type = number(Field::EthType);
    say("eth.type", format!("{eth_type:#x}"));
    let arp = match eth_type {
        0x0806 => Some("arp"),
        0x8035 => Some("rarp"),
        _ => None,
    };
    if let Some(arp) = arp {
        say(&format!("{arp}.op"), number(Field::ArpOp).to_string());
        say(&format!("{arp}.spa"), v4(Field::ArpSpa));
        say(&format!("{arp}.tpa"), v4(Field::ArpTpa));
        say(&format!("{arp}.sha"), mac(Field::ArpSha));
        say(&format!("{arp}.tha"), mac(Field::ArpTha));
    }
    if matches!(eth_type, 0x0800 | 0x86dd) {
        for (name, field) in [
            ("ip.proto", Field::IpProto),
            ("ip.ttl", Field::IpTtl),
            ("ip.dscp", Field::IpDscp),
            ("ip.ecn", Field::IpEcn),
            ("ip.frag", Field::IpFrag),
        ] {
            say(name, number(field).to_string());
        }
        if eth_type == 0x0800 {
            say("ip4.src", v4(Field::Ip4Src));
            say("ip4.dst", v4(Field::Ip4Dst));
        } else {
            say("ip6.src", v6(Field::Ip6Src));
            say("ip6.dst", v6(Field::Ip6Dst));
            say("ip6.label", number(Field::Ip6Label).to_string());
        }
        let transport: &[(&str, Field)] = match (number(Field::IpProto), eth_type) {
            (6, _) => &[("tcp.src", Field::TcpSrc), ("tcp.dst", Field::TcpDst), ("tcp.flags", Field::TcpFlags)],
            (17, _) => &[("udp.src", Field::UdpSrc), ("udp.dst", Field::UdpDst)],
            (132, _) => &[("sctp.src", Field::SctpSrc), ("sctp.dst", Field::SctpDst)],
            (1, 0x0800) => &[("icmp4.type", Field::Icmp4Type), ("icmp4.code", Field::Icmp4Code)],
            (58, 0x86dd) => &[("icmp6.type", Field::Icmp6Type), ("icmp6.code", Field::Icmp6Code)],
            _ => &[],
        };
        for (name, field) in transport {
            say(name, number(*field).to_string());
        }
        let nd = number(Field::IpProto) == 58
            && eth_type == 0x86dd
            && number(Field::Icmp6Code) == 0
            && number(Field::IpTtl) == 255;
        if nd && matches!(number(Field::Icmp6Type), 135 | 136) {
            say("nd.target", v6(Field::NdTarget));
            if number(Field::Icmp6Type) == 135 {
                say("nd.sll", mac(Field::NdSll));
            } else {
                say("nd.tll", mac(Field::NdTll));
            }
        }
    }
    text
}
