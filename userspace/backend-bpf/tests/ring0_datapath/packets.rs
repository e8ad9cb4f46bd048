//! Frames of every kind, made by etherparse, which knows nothing of our parser.

use etherparse::PacketBuilder;

/// Hardware addresses of the two guests of most tests.
pub(crate) const MAC1: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// See [`MAC1`].
pub(crate) const MAC2: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// Addresses of the two guests.
pub(crate) const IP1: [u8; 4] = [10, 0, 0, 1];
/// See [`IP1`].
pub(crate) const IP2: [u8; 4] = [10, 0, 0, 2];
/// IPv6 addresses of the two guests.
pub(crate) const IP61: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// See [`IP61`].
pub(crate) const IP62: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn built<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame).unwrap();
    frame
}

/// UDP over IPv4 from guest 1 to guest 2.
pub(crate) fn udp4(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    built(|f| PacketBuilder::ethernet2(MAC1, MAC2).ipv4(IP1, IP2, 64).udp(from, to).write(f, payload))
}

/// TCP over IPv4.
pub(crate) fn tcp4(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    built(|f| {
        PacketBuilder::ethernet2(MAC1, MAC2).ipv4(IP1, IP2, 64).tcp(from, to, 1000, 2000).ack(7).write(f, payload)
    })
}

/// ICMP echo request over IPv4.
pub(crate) fn ping4() -> Vec<u8> {
    built(|f| PacketBuilder::ethernet2(MAC1, MAC2).ipv4(IP1, IP2, 64).icmpv4_echo_request(1, 1).write(f, b"ping"))
}

/// UDP over IPv6.
pub(crate) fn udp6(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    built(|f| PacketBuilder::ethernet2(MAC1, MAC2).ipv6(IP61, IP62, 64).udp(from, to).write(f, payload))
}

/// TCP over IPv6.
pub(crate) fn tcp6(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    built(|f| PacketBuilder::ethernet2(MAC1, MAC2).ipv6(IP61, IP62, 64).tcp(from, to, 1000, 2000).write(f, payload))
}

/// ICMPv6 echo request.
pub(crate) fn ping6() -> Vec<u8> {
    built(|f| PacketBuilder::ethernet2(MAC1, MAC2).ipv6(IP61, IP62, 64).icmpv6_echo_request(1, 1).write(f, b"ping"))
}

/// ARP request of guest 1 for guest 2.
pub(crate) fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(MAC1);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(MAC1);
    frame.extend(IP1);
    frame.extend([0; 6]);
    frame.extend(IP2);
    frame
}

/// Neighbor solicitation of guest 1 for guest 2, with its source link-layer address.
pub(crate) fn solicitation() -> Vec<u8> {
    let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
    body.extend(IP62);
    body.extend([1, 1]);
    body.extend(MAC1);
    let mut destination = IP62;
    destination[0] = 0xff;
    destination[1] = 0x02;
    destination[11] = 1;
    destination[12] = 0xff;
    icmp6(IP61, destination, &mut body)
}

/// An ICMPv6 message with its checksum.
fn icmp6(source: [u8; 16], destination: [u8; 16], body: &mut [u8]) -> Vec<u8> {
    let checksum = inet_checksum(&[&source, &destination, &(body.len() as u32).to_be_bytes(), &[0, 0, 0, 58], body]);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 2];
    frame.extend(MAC1);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((body.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend(&*body);
    frame
}

/// A frame with an 802.1Q tag put in.
pub(crate) fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend([0x81, 0]);
    out.extend(tci.to_be_bytes());
    out.extend(&frame[12..]);
    out
}

/// The Internet checksum of parts of even length (the last may be odd).
pub(crate) fn inet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Are the checksums of the IPv4 or IPv6 packet behind an untagged Ethernet header right?
#[track_caller]
pub(crate) fn assert_checksums(frame: &[u8]) {
    let (protocol, l4, addresses, end) = match frame[12..14] {
        [8, 0] => {
            let header = usize::from(frame[14] & 15) * 4;
            assert_eq!(inet_checksum(&[&frame[14..14 + header]]), 0, "IPv4 header checksum of {frame:02x?}");
            let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            (frame[23], 14 + header, &frame[26..34], end)
        }
        [0x86, 0xdd] => {
            let end = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
            (frame[20], 54, &frame[22..54], end)
        }
        _ => return,
    };
    let body = &frame[l4..end];
    let pseudo: &[&[u8]] = if protocol == 1 {
        &[body]
    } else {
        &[addresses, &(body.len() as u32).to_be_bytes(), &[0, 0, 0, protocol], body]
    };
    assert_eq!(inet_checksum(pseudo), 0, "transport checksum of {frame:02x?}");
}
