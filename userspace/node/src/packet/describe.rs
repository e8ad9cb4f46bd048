//! From fields to a microflow: short enough to read, and what `oxbow trace` and ovn-trace take.

use super::mac_text;
use oxbow_abi::field::{FRAG_ANY, FRAG_LATER};
use oxbow_abi::verdict::VerdictKey;
use oxbow_pipeline::ir::Field;
use oxbow_pipeline::reference::{Fields, parse};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The headers of a packet as a microflow, without its ports. What is zero by default is left out.
pub fn describe(fields: &Fields) -> String {
    let number = |field| fields.get(field);
    let v4 = |field| Ipv4Addr::from(number(field) as u32).to_string();
    let v6 = |field| Ipv6Addr::from(number(field)).to_string();
    let mut terms = Vec::new();
    let mut say = |name: &str, value: String| terms.push(format!("{name} == {value}"));
    say("eth.src", mac_text(number(Field::EthSrc)));
    say("eth.dst", mac_text(number(Field::EthDst)));
    if number(Field::VlanTci) != 0 {
        say("vlan.tci", format!("{:#x}", number(Field::VlanTci)));
    }
    let eth_type = number(Field::EthType);
    match eth_type {
        0x0806 | 0x8035 => {
            let name = if eth_type == 0x0806 { "arp" } else { "rarp" };
            say(&format!("{name}.op"), number(Field::ArpOp).to_string());
            say(&format!("{name}.spa"), v4(Field::ArpSpa));
            say(&format!("{name}.tpa"), v4(Field::ArpTpa));
            say(&format!("{name}.sha"), mac_text(number(Field::ArpSha)));
            say(&format!("{name}.tha"), mac_text(number(Field::ArpTha)));
        }
        0x0800 => {
            say("ip4.src", v4(Field::Ip4Src));
            say("ip4.dst", v4(Field::Ip4Dst));
        }
        0x86dd => {
            say("ip6.src", v6(Field::Ip6Src));
            say("ip6.dst", v6(Field::Ip6Dst));
        }
        other => say("eth.type", format!("{other:#x}")),
    }
    if matches!(eth_type, 0x0800 | 0x86dd) {
        for (name, field) in
            [("ip.ttl", Field::IpTtl), ("ip.dscp", Field::IpDscp), ("ip.ecn", Field::IpEcn), ("ip.frag", Field::IpFrag)]
        {
            if number(field) != 0 {
                say(name, number(field).to_string());
            }
        }
        let later = number(Field::IpFrag) & 2 != 0;
        let transport: &[(&str, Field)] = match (number(Field::IpProto), eth_type) {
            _ if later => &[("ip.proto", Field::IpProto)],
            (6, _) => &[("tcp.src", Field::TcpSrc), ("tcp.dst", Field::TcpDst)],
            (17, _) => &[("udp.src", Field::UdpSrc), ("udp.dst", Field::UdpDst)],
            (132, _) => &[("sctp.src", Field::SctpSrc), ("sctp.dst", Field::SctpDst)],
            (1, 0x0800) => &[("icmp4.type", Field::Icmp4Type), ("icmp4.code", Field::Icmp4Code)],
            (58, 0x86dd) => &[("icmp6.type", Field::Icmp6Type), ("icmp6.code", Field::Icmp6Code)],
            _ => &[("ip.proto", Field::IpProto)],
        };
        for (name, field) in transport {
            say(name, number(*field).to_string());
        }
        if number(Field::IpProto) == 6 && number(Field::TcpFlags) != 0 {
            say("tcp.flags", format!("{:#x}", number(Field::TcpFlags)));
        }
        if number(Field::NdTarget) != 0 {
            say("nd.target", v6(Field::NdTarget));
        }
        for (name, field) in [("nd.sll", Field::NdSll), ("nd.tll", Field::NdTll)] {
            if number(field) != 0 {
                say(name, mac_text(number(field)));
            }
        }
    }
    terms.join(" && ")
}

/// Fields of a frame of which only the first bytes are known.
pub fn fields_of_head(head: &[u8], len: usize) -> Fields {
    // Lengths in the headers are those of the whole frame.
    let mut frame = head.to_vec();
    frame.resize(len.clamp(head.len(), 0x1_0000), 0);
    parse(&frame).map(|(fields, _)| fields).unwrap_or_default()
}

/// Fields that the key of a verdict holds.
pub fn fields_of_key(key: &VerdictKey) -> Fields {
    let mut fields = Fields::default();
    let number = |bytes: &[u8]| bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    let words = |words: &[u32; 4]| words.iter().fold(0u128, |number, word| number << 32 | u128::from(*word));
    fields.set(Field::EthDst, number(&key.mac[..6]));
    fields.set(Field::EthSrc, number(&key.mac[6..]));
    fields.set(Field::VlanTci, u128::from(key.eth_type >> 16));
    let eth_type = key.eth_type & 0xffff;
    fields.set(Field::EthType, u128::from(eth_type));
    let proto = key.ip_meta >> 24;
    match eth_type {
        0x0800 => {
            fields.set(Field::Ip4Src, u128::from(key.src[0]));
            fields.set(Field::Ip4Dst, u128::from(key.dst[0]));
        }
        0x86dd => {
            fields.set(Field::Ip6Src, words(&key.src));
            fields.set(Field::Ip6Dst, words(&key.dst));
        }
        _ => return fields,
    }
    fields.set(Field::IpProto, u128::from(proto));
    fields.set(Field::IpDscp, u128::from(key.ip_meta >> 18 & 0x3f));
    fields.set(Field::IpEcn, u128::from(key.ip_meta >> 16 & 3));
    fields.set(Field::IpFrag, u128::from(key.ip_meta & (FRAG_ANY | FRAG_LATER)));
    let (high, low) = (u128::from(key.l4 >> 16), u128::from(key.l4 & 0xffff));
    let transport = match (proto, eth_type) {
        (6, _) => Some((Field::TcpSrc, Field::TcpDst)),
        (17, _) => Some((Field::UdpSrc, Field::UdpDst)),
        (132, _) => Some((Field::SctpSrc, Field::SctpDst)),
        (1, 0x0800) => Some((Field::Icmp4Type, Field::Icmp4Code)),
        (58, 0x86dd) => Some((Field::Icmp6Type, Field::Icmp6Code)),
        _ => None,
    };
    if let Some((first, second)) = transport {
        fields.set(first, high);
        fields.set(second, low);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_the_packet_it_is_for() {
        let key = VerdictKey {
            mac: [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1],
            eth_type: 0x0800,
            ip_meta: 6 << 24,
            l4: 1000 << 16 | 80,
            src: [0x0a00_0001, 0, 0, 0],
            dst: [0x0a00_0002, 0, 0, 0],
            ..VerdictKey::default()
        };
        assert_eq!(
            describe(&fields_of_key(&key)),
            "eth.src == 02:00:00:00:00:01 && eth.dst == 02:00:00:00:00:02 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && \
             tcp.src == 1000 && tcp.dst == 80"
        );
    }

    #[test]
    fn a_head_that_was_cut_is_read_as_the_whole_frame() {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
        frame.extend_from_slice(&1000u16.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 54, 3, 0xd4, 0, 0]);
        let text = describe(&fields_of_head(&frame, 1014));
        assert!(text.contains("ip4.dst == 10.0.0.2 && ip.ttl == 64 && udp.src == 53 && udp.dst == 54"), "{text}");
    }
}
