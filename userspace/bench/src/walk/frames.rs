//! Addresses of the switch's ports, and frames between them.

use super::bpf::HEAD;

/// The low three bytes of what is numbered by port.
fn bytes(n: u32) -> [u8; 3] {
    let [_, b, c, d] = n.to_be_bytes();
    [b, c, d]
}

/// Ethernet address of a port.
pub(crate) fn mac(n: u32) -> String {
    let [b, c, d] = bytes(n);
    format!("0a:00:00:{b:02x}:{c:02x}:{d:02x}")
}

/// IPv4 address of a port.
pub(crate) fn ip4(n: u32) -> String {
    let [b, c, d] = bytes(n + 1);
    format!("10.{b}.{c}.{d}")
}

/// IPv6 address of a port.
pub(crate) fn ip6(n: u32) -> String {
    format!("fd00::{:x}", n + 1)
}

fn ethernet(from: u32, to: u32, eth_type: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    for n in [to, from] {
        frame.extend([0x0a, 0, 0]);
        frame.extend(bytes(n));
    }
    frame.extend(eth_type.to_be_bytes());
    frame
}

/// A UDP datagram over IPv4 from port `from` to port `to`, which says that it comes from the address of port `claimed`.
pub(crate) fn claimed4(from: u32, claimed: u32, to: u32, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = ethernet(from, to, 0x0800);
    frame.extend([0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    for n in [claimed, to] {
        frame.push(10);
        frame.extend(bytes(n + 1));
    }
    let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    udp(&mut frame, ports);
    frame.resize(HEAD, 0);
    frame
}

/// A UDP datagram over IPv4 from a port to another.
pub(crate) fn udp4(from: u32, to: u32, ports: (u16, u16)) -> Vec<u8> {
    claimed4(from, from, to, ports)
}

/// A UDP datagram over IPv6 from a port to another.
pub(crate) fn udp6(from: u32, to: u32, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = ethernet(from, to, 0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, 30, 17, 64]);
    for n in [from, to] {
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend((n + 1).to_be_bytes());
    }
    udp(&mut frame, ports);
    frame.resize(14 + 40 + 30, 0);
    frame
}

/// UDP without a checksum and with 22 bytes of data.
fn udp(frame: &mut Vec<u8>, (source, destination): (u16, u16)) {
    frame.extend(source.to_be_bytes());
    frame.extend(destination.to_be_bytes());
    frame.extend([0, 30, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_and_of_the_ports() {
        let frame = udp4(0, 0x0102, (1, 2));
        assert_eq!(frame.len(), HEAD);
        let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(frame[3..6], [0, 1, 2], "{} is to be {:02x?}", mac(0x0102), &frame[..6]);
        assert_eq!((frame[26..30].to_vec(), ip4(0)), (vec![10, 0, 0, 1], "10.0.0.1".to_owned()));
        assert_eq!((udp6(0, 1, (1, 2))[22 + 31], ip6(1)), (2, "fd00::2".to_owned()));
    }
}
