//! Outer headers around a frame: right ones, and Geneve options of every wrong kind.

use oxbow_abi::topology::{GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, GENEVE_PORT};
use oxbow_testkit::random::Random;
use std::net::IpAddr;

/// Where a tunnelled frame comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The sender's tunnel address.
    pub from: IpAddr,
    /// Ours.
    pub to: IpAddr,
    /// Tunnel key of the datapath.
    pub network: u32,
    /// OVN's option: inport << 16 | outport.
    pub ports: u32,
}

fn option(class: u16, kind: u8, words: u8, value: u32) -> Vec<u8> {
    let mut bytes = class.to_be_bytes().to_vec();
    bytes.extend([kind, words]);
    bytes.extend(value.to_be_bytes().repeat(usize::from(words & 0x1f)));
    bytes
}

/// Lists of options: OVN's alone (mostly), beside others, twice, of a wrong length, missing, unknown critical ones, as many as fit.
pub fn options(random: &mut Random, ports: u32) -> Vec<u8> {
    let ours = option(GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, 1, ports);
    let harmless = |n: u8| option(0x0103, 0x10 + n, n, 0xdead_beef);
    let critical = option(0x0103, 0x81, 1, 0);
    match random.below(12) {
        0..=2 => ours,
        3 => [harmless(1), ours].concat(),
        4 => [ours, harmless(3)].concat(),
        5 => [ours, option(GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, 1, random.number() as u32)].concat(),
        6 => [ours, critical].concat(),
        7 => [critical, ours].concat(),
        8 => option(GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, random.below(4) as u8, ports),
        9 => Vec::new(),
        10 => [harmless(0).repeat(random.below(20)), ours].concat(),
        _ => [ours, harmless(random.below(12) as u8)].concat(),
    }
}

/// The frame on the wire. `options` is what stands between the Geneve header and the inner frame, a multiple of four bytes, at most 252.
#[must_use]
pub fn around(path: Path, options: &[u8], inner: &[u8]) -> Vec<u8> {
    let datagram = 8 + 8 + options.len() + inner.len();
    let mut frame = vec![2, 0, 0, 0, 0xff, 0, 2, 0, 0, 0, 0xff, 1];
    match (path.from, path.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend(((20 + datagram) as u16).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
            let sum: u32 = frame[14..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        (from, to) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((datagram as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(octets(from));
            frame.extend(octets(to));
        }
    }
    frame.extend(0xc000u16.to_be_bytes());
    frame.extend(GENEVE_PORT.to_be_bytes());
    frame.extend((datagram as u16).to_be_bytes());
    frame.extend([0, 0, (options.len() / 4) as u8, 0x40, 0x65, 0x58]);
    frame.extend((path.network << 8).to_be_bytes());
    frame.extend(options);
    frame.extend(inner);
    frame
}
