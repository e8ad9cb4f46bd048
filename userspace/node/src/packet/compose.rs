//! From a microflow to a frame.

use oxbow_lflow::evaluate::FieldValues as _;
use oxbow_lflow::microflow::Microflow;
use oxbow_pipeline::ir::Field;
use oxbow_pipeline::reference::{Fields, parse};

/// Fields that a frame cannot have the values of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no packet on the wire has {field} == {wanted:#x} together with the rest; it would be {got:#x}")]
pub struct Ambiguity {
    /// The field.
    pub field: &'static str,
    /// What was asked for.
    pub wanted: u128,
    /// What the frame has.
    pub got: u128,
}

/// Bytes behind the last header, so that a frame is as long as a small ping.
const PAYLOAD: usize = 56;

/// Makes a frame whose fields are those given; the others are zero, lengths and checksums right.
///
/// # Errors
/// A field that no such frame has, for instance a port of a packet that is no TCP, UDP or SCTP packet.
pub fn compose(packet: &Microflow) -> Result<Vec<u8>, Ambiguity> {
    let get = |field| packet.integer(field);
    let mut frame = Vec::new();
    put(&mut frame, get(Field::EthDst), 6);
    put(&mut frame, get(Field::EthSrc), 6);
    if get(Field::VlanTci) != 0 {
        put(&mut frame, 0x8100, 2);
        put(&mut frame, get(Field::VlanTci) & 0xefff, 2);
    }
    let eth_type = get(Field::EthType);
    // A packet without a type is an LLC frame: its length stands there.
    put(&mut frame, if eth_type == 0x05ff { PAYLOAD as u128 } else { eth_type }, 2);
    match eth_type {
        0x0800 => ip4(&mut frame, &get),
        0x86dd => ip6(&mut frame, &get),
        0x0806 | 0x8035 => {
            frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
            put(&mut frame, get(Field::ArpOp), 2);
            put(&mut frame, get(Field::ArpSha), 6);
            put(&mut frame, get(Field::ArpSpa), 4);
            put(&mut frame, get(Field::ArpTha), 6);
            put(&mut frame, get(Field::ArpTpa), 4);
        }
        _ => frame.resize(frame.len() + PAYLOAD, 0),
    }
    let (read, _) = parse(&frame).unwrap_or_default();
    verify(packet, &read)?;
    Ok(frame)
}

/// Whether the frame says what was asked for: what the parser of the datapath reads in it decides.
fn verify(packet: &Microflow, read: &Fields) -> Result<(), Ambiguity> {
    for (field, given) in packet.integers() {
        // Registers and the like are not in the packet; a packet that comes from a port has none.
        let got = read.get(field);
        if got & given.mask != given.value & given.mask {
            return Err(Ambiguity { field: field.name(), wanted: given.value, got });
        }
    }
    Ok(())
}

fn put(frame: &mut Vec<u8>, value: u128, bytes: usize) {
    frame.extend_from_slice(&value.to_be_bytes()[16 - bytes..]);
}

fn ip4(frame: &mut Vec<u8>, get: &dyn Fn(Field) -> u128) {
    let transport = transport(get, false);
    let start = frame.len();
    frame.push(0x45);
    put(frame, get(Field::IpDscp) << 2 | get(Field::IpEcn), 1);
    put(frame, (20 + transport.len()) as u128, 2);
    put(frame, 0, 2);
    // Later fragments have an offset, first ones more to follow.
    put(frame, fragment(get, 0x2000, 1), 2);
    put(frame, get(Field::IpTtl), 1);
    put(frame, get(Field::IpProto), 1);
    put(frame, 0, 2);
    put(frame, get(Field::Ip4Src), 4);
    put(frame, get(Field::Ip4Dst), 4);
    let sum = !fold(&frame[start..], 0);
    frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
    let mut pseudo = Vec::new();
    put(&mut pseudo, get(Field::Ip4Src), 4);
    put(&mut pseudo, get(Field::Ip4Dst), 4);
    finish(frame, transport, &pseudo, get);
}

fn ip6(frame: &mut Vec<u8>, get: &dyn Fn(Field) -> u128) {
    let transport = transport(get, true);
    let is_fragment = get(Field::IpFrag) != 0;
    let class = get(Field::IpDscp) << 2 | get(Field::IpEcn);
    put(frame, 6 << 28 | class << 20 | get(Field::Ip6Label), 4);
    put(frame, (transport.len() + if is_fragment { 8 } else { 0 }) as u128, 2);
    put(frame, if is_fragment { 44 } else { get(Field::IpProto) }, 1);
    put(frame, get(Field::IpTtl), 1);
    put(frame, get(Field::Ip6Src), 16);
    put(frame, get(Field::Ip6Dst), 16);
    if is_fragment {
        put(frame, get(Field::IpProto), 1);
        put(frame, 0, 1);
        put(frame, fragment(get, 1, 8), 2);
        put(frame, 0, 4);
    }
    let mut pseudo = Vec::new();
    put(&mut pseudo, get(Field::Ip6Src), 16);
    put(&mut pseudo, get(Field::Ip6Dst), 16);
    finish(frame, transport, &pseudo, get);
}

/// Flags and offset of a fragment: `more` says that more follow, `offset` is one unit of eight bytes.
fn fragment(get: &dyn Fn(Field) -> u128, more: u128, offset: u128) -> u128 {
    match get(Field::IpFrag) {
        0 => 0,
        1 => more,
        _ => more | offset,
    }
}

/// The transport header with payload; checksum zero where it has one.
fn transport(get: &dyn Fn(Field) -> u128, v6: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let later = get(Field::IpFrag) & 2 != 0;
    match get(Field::IpProto) {
        _ if later => {}
        6 => {
            put(&mut bytes, get(Field::TcpSrc), 2);
            put(&mut bytes, get(Field::TcpDst), 2);
            put(&mut bytes, 0, 8);
            put(&mut bytes, 5 << 12 | get(Field::TcpFlags), 2);
            put(&mut bytes, 0xffff, 2);
            put(&mut bytes, 0, 4);
        }
        17 => {
            put(&mut bytes, get(Field::UdpSrc), 2);
            put(&mut bytes, get(Field::UdpDst), 2);
            put(&mut bytes, (8 + PAYLOAD) as u128, 2);
            put(&mut bytes, 0, 2);
        }
        132 => {
            put(&mut bytes, get(Field::SctpSrc), 2);
            put(&mut bytes, get(Field::SctpDst), 2);
            put(&mut bytes, 0, 8);
        }
        1 if !v6 => {
            put(&mut bytes, get(Field::Icmp4Type), 1);
            put(&mut bytes, get(Field::Icmp4Code), 1);
            put(&mut bytes, 0, 6);
        }
        58 if v6 => {
            let kind = get(Field::Icmp6Type);
            put(&mut bytes, kind, 1);
            put(&mut bytes, get(Field::Icmp6Code), 1);
            put(&mut bytes, 0, 6);
            if matches!(kind, 135 | 136) {
                put(&mut bytes, get(Field::NdTarget), 16);
                let (option, address) = if kind == 135 { (1, Field::NdSll) } else { (2, Field::NdTll) };
                if get(address) != 0 {
                    put(&mut bytes, option << 8 | 1, 2);
                    put(&mut bytes, get(address), 6);
                }
                return bytes;
            }
        }
        _ => {}
    }
    bytes.resize(bytes.len() + PAYLOAD, 0);
    bytes
}

/// Appends the transport header with its checksum filled in.
fn finish(frame: &mut Vec<u8>, mut transport: Vec<u8>, pseudo: &[u8], get: &dyn Fn(Field) -> u128) {
    let proto = get(Field::IpProto);
    let at = match (proto, pseudo.len()) {
        _ if get(Field::IpFrag) != 0 => None,
        (6, _) => Some(16),
        (17, _) => Some(6),
        (1, 8) | (58, 32) => Some(2),
        _ => None,
    };
    if let Some(at) = at {
        let mut sum = 0;
        if proto != 1 {
            let mut extra = pseudo.to_vec();
            put(&mut extra, proto, 4);
            put(&mut extra, transport.len() as u128, 4);
            sum = u32::from(fold(&extra, 0));
        }
        let sum = match !fold(&transport, sum) {
            0 if proto == 17 => 0xffff,
            sum => sum,
        };
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    frame.extend_from_slice(&transport);
}

/// The Internet checksum's sum (RFC 1071), not complemented.
pub(super) fn fold(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::super::describe;
    use super::*;
    use oxbow_lflow::context::{MatchContext, Nothing};
    use oxbow_lflow::microflow::parse_microflow;
    use oxbow_lflow::vocabulary::Vocabulary;

    fn frame(text: &str) -> Result<Vec<u8>, Ambiguity> {
        let context = MatchContext {
            symbols: Vocabulary::Accepting.table(),
            address_sets: &Nothing,
            port_groups: &Nothing,
            templates: &Nothing,
        };
        compose(&parse_microflow(text, &context).unwrap())
    }

    #[test]
    fn what_is_described_comes_back_when_the_frame_is_read() {
        let ethernet = "eth.src == 02:00:00:00:00:01 && eth.dst == 02:00:00:00:00:02";
        for rest in [
            "ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && ip.ttl == 64 && icmp4.type == 8 && icmp4.code == 0",
            "ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && ip.ttl == 1 && ip.dscp == 46 && udp.src == 53 && udp.dst == 54",
            "ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && ip.frag == 3 && ip.proto == 17",
            "ip6.src == fd00::1 && ip6.dst == fd00::2 && ip.ttl == 64 && tcp.src == 1 && tcp.dst == 2 && tcp.flags == 0x2",
            "ip6.src == fd00::1 && ip6.dst == ff02::1 && ip.ttl == 255 && icmp6.type == 135 && icmp6.code == 0 && \
             nd.target == fd00::2 && nd.sll == 02:00:00:00:00:01",
            "arp.op == 1 && arp.spa == 10.0.0.1 && arp.tpa == 10.0.0.2 && arp.sha == 02:00:00:00:00:01 && \
             arp.tha == 00:00:00:00:00:00",
            "vlan.tci == 0x1007 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && sctp.src == 7 && sctp.dst == 8",
            "eth.type == 0x88cc",
        ] {
            let text = format!("{ethernet} && {rest}");
            let frame = frame(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let (read, _) = parse(&frame).unwrap();
            let told = describe(&read);
            for term in text.split(" && ") {
                assert!(told.contains(term), "{term} is not in {told}");
            }
        }
    }

    #[test]
    fn checksums_are_right() {
        let frame = frame("ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && ip.ttl == 64 && udp.dst == 9").unwrap();
        assert_eq!(fold(&frame[14..34], 0), 0xffff);
        let mut pseudo = frame[26..34].to_vec();
        pseudo.extend_from_slice(&[0, 17, 0, (frame.len() - 34) as u8]);
        assert_eq!(fold(&frame[34..], u32::from(fold(&pseudo, 0))), 0xffff);
    }

    #[test]
    fn what_no_packet_has_is_refused() {
        let error = frame("ip4.dst == 10.0.0.2 && reg0 == 1").unwrap_err().to_string();
        assert!(error.contains("xxreg0"), "{error}");
    }
}
