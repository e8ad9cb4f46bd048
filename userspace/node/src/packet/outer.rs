//! Outer headers: a frame as another chassis sends it to this one (RFC 8926; ovn-architecture(7), "Tunnel Encapsulations").

use oxbow_abi::topology::{GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, GENEVE_PORT};
use std::net::IpAddr;

/// Where a tunnel frame comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Source address.
    pub from: IpAddr,
    /// Destination address, of the same family.
    pub to: IpAddr,
    /// Tunnel key of the logical datapath: the network identifier.
    pub datapath: u32,
    /// Tunnel key of the logical input port.
    pub inport: u32,
    /// Tunnel key of the logical output port or multicast group.
    pub outport: u32,
}

/// Any source port that a flow may hash to.
const SOURCE_PORT: u16 = 49_152;

/// Puts Geneve's headers with OVN's option in front of a frame. Link-layer addresses are zero, the UDP checksum is left out.
pub fn geneve(tunnel: &Tunnel, inner: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let datagram = (8 + 16 + inner.len()) as u16;
    match (tunnel.from, tunnel.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [[0x08, 0x00].as_slice(), &[0x45, 0]].concat();
            header.extend((20 + datagram).to_be_bytes());
            // Don't Fragment, 64 hops, UDP.
            header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = !super::compose::fold(&header[2..], 0);
            header[12..14].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
        (from, to) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(datagram.to_be_bytes());
            frame.extend([17, 64]);
            for address in [from, to] {
                match address {
                    IpAddr::V6(address) => frame.extend(address.octets()),
                    IpAddr::V4(address) => frame.extend(address.to_ipv6_mapped().octets()),
                }
            }
        }
    }
    frame.extend(SOURCE_PORT.to_be_bytes());
    frame.extend(GENEVE_PORT.to_be_bytes());
    frame.extend(datagram.to_be_bytes());
    frame.extend([0, 0]);
    // Two words of options, one of them critical; Ethernet inside.
    frame.extend([2, 0x40, 0x65, 0x58]);
    frame.extend((tunnel.datapath << 8).to_be_bytes());
    frame.extend(GENEVE_OVN_CLASS.to_be_bytes());
    frame.extend([GENEVE_OVN_TYPE, 1]);
    frame.extend((tunnel.inport << 16 | tunnel.outport).to_be_bytes());
    frame.extend(inner);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read by the parser that the programs use.
    #[test]
    fn what_is_made_is_what_the_programs_read() {
        for (from, to) in [("192.0.2.2", "192.0.2.1"), ("fd00::2", "fd00::1")] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let frame = geneve(&Tunnel { from, to, datapath: 7, inport: 3, outport: 0x8001 }, &[0xee; 60]);
            let mut peer = [0; 10];
            let bytes = frame.as_slice();
            let at = oxbow_wire::tunnel::path(&bytes, &mut peer).unwrap();
            let read = oxbow_wire::tunnel::plain(&bytes, at).unwrap();
            assert_eq!((read.vni, read.option, read.inner as usize), (7, 3 << 16 | 0x8001, frame.len() - 60));
            assert_eq!(oxbow_wire::tunnel::geneve(&bytes, at).unwrap(), read);
            let family = if from.is_ipv4() { 4 } else { 6 };
            assert_eq!((peer[4], peer[9]), (family, family));
            if from.is_ipv4() {
                assert_eq!(super::super::compose::fold(&frame[14..34], 0), 0xffff);
            }
        }
    }
}
