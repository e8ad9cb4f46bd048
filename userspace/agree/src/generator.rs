//! Packets to throw at a cloud: valid ones that use the cloud's own addresses, mutated ones, hostile ones.

use crate::southbound::Southbound;
use oxbow_testkit::random::Random;

/// How a frame was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As a well-behaved guest would send it (addresses may be anybody's).
    Valid,
    /// Valid, then cut, extended or with bytes changed.
    Mutated,
    /// Anything.
    Hostile,
}

/// A generated frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// How it was made.
    pub kind: Kind,
    /// Its bytes, at least an Ethernet header.
    pub bytes: Vec<u8>,
}

/// Makes frames. The same seed and the same cloud make the same frames.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    macs: Vec<[u8; 6]>,
    ip4: Vec<[u8; 4]>,
    ip6: Vec<[u8; 16]>,
}

/// What one port may use honestly: its element of addresses or port security.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    macs: Vec<[u8; 6]>,
    ip4: Vec<[u8; 4]>,
    ip6: Vec<[u8; 16]>,
}

fn mac(word: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = word.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

fn link_local(mac: [u8; 6]) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

/// Addresses around a subnet: one inside, its last one, and one in the neighboring subnet. `None` without a prefix.
fn edges<const N: usize>(address: [u8; N], prefix: Option<&str>) -> Option<[[u8; N]; 3]> {
    let prefix = prefix?;
    let length = match prefix.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => u32::from(mask).leading_ones() as usize,
        Err(_) => prefix.parse().ok()?,
    };
    let host = |at: usize| at >= length;
    let made = |bit: &dyn Fn(usize, bool) -> bool| {
        let mut made = [0; N];
        for at in 0..N * 8 {
            made[at / 8] |= u8::from(bit(at, address[at / 8] >> (7 - at % 8) & 1 == 1)) << (7 - at % 8);
        }
        made
    };
    let inside = made(&|at, was| if host(at) { at % 3 == 0 } else { was });
    let last = made(&|at, was| host(at) || was);
    let outside = made(&|at, was| if host(at) { false } else { was != (at + 1 == length) });
    Some([inside, last, outside])
}

impl Identity {
    /// The addresses in texts such as Port_Binding.mac and port_security hold; of a subnet also one inside it, its last one and one that is not in it.
    #[must_use]
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Identity {
        let mut identity = Identity::default();
        for word in texts.into_iter().flat_map(|text| text.split([' ', ','])) {
            let (address, prefix) =
                word.split_once('/').map_or((word, None), |(address, prefix)| (address, Some(prefix)));
            if let Some(mac) = mac(address) {
                identity.macs.push(mac);
                identity.ip6.push(link_local(mac));
            } else if let Ok(ip) = address.parse::<std::net::Ipv4Addr>() {
                identity.ip4.push(ip.octets());
                identity.ip4.extend(edges(ip.octets(), prefix).into_iter().flatten());
            } else if let Ok(ip) = address.parse::<std::net::Ipv6Addr>() {
                identity.ip6.push(ip.octets());
                identity.ip6.extend(edges(ip.octets(), prefix).into_iter().flatten());
            }
        }
        identity
    }
}

impl Generator {
    /// For the ports of a cloud.
    #[must_use]
    pub fn new(south: &Southbound, seed: u64) -> Generator {
        let texts = south.ports.values().flat_map(|row| {
            row.addresses.iter().map(String::as_str).chain(row.port.port_security.iter().map(|text| &**text))
        });
        let Identity { mut macs, mut ip4, mut ip6 } = Identity::of(texts);
        macs.extend([[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0; 6], [2, 0, 0, 0, 0xee, 0xee]]);
        macs.extend(south.fdb.iter().map(|(_, mac, _)| {
            let b = mac.0.to_be_bytes();
            [b[2], b[3], b[4], b[5], b[6], b[7]]
        }));
        ip4.extend([[0; 4], [255; 4], [224, 0, 0, 1], [10, 0, 0, 255], [192, 0, 2, 1]]);
        let multicast = |last: [u8; 3]| [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, last[0], last[1], last[2]];
        let solicited: Vec<[u8; 16]> = ip6.iter().map(|ip| multicast([ip[13], ip[14], ip[15]])).collect();
        ip6.extend(solicited);
        let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        ip6.extend([[0; 16], all_nodes, [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xee, 0xee]]);
        Generator { random: Random::new(seed), macs, ip4, ip6 }
    }

    /// The next frame, sent by a port with this identity.
    pub fn frame(&mut self, sender: &Identity) -> Frame {
        match self.random.below(10) {
            0..=5 => Frame { kind: Kind::Valid, bytes: self.valid(sender) },
            6..=8 => {
                let mut bytes = self.valid(sender);
                self.mutate(&mut bytes);
                Frame { kind: Kind::Mutated, bytes }
            }
            _ => Frame { kind: Kind::Hostile, bytes: self.hostile(sender) },
        }
    }

    /// One of the sender's own, mostly; now and then somebody else's.
    fn own<T: Copy>(&mut self, own: &[T], all: fn(&Generator) -> &Vec<T>) -> T {
        if own.is_empty() || self.random.one_in(6) {
            let n = self.random.below(all(self).len());
            all(self)[n]
        } else {
            *self.random.pick(own)
        }
    }

    fn any<T: Copy>(&mut self, all: fn(&Generator) -> &Vec<T>) -> T {
        self.own(&[], all)
    }

    fn word(&mut self) -> [u8; 2] {
        (self.random.number() as u16).to_be_bytes()
    }

    fn byte(&mut self) -> u8 {
        self.random.number() as u8
    }

    fn valid(&mut self, sender: &Identity) -> Vec<u8> {
        let src = self.own(&sender.macs, |g| &g.macs);
        let mut dst = self.any(|g| &g.macs);
        if dst == src && !self.random.one_in(4) {
            dst = self.any(|g| &g.macs);
        }
        let mut frame = [dst, src].concat();
        if self.random.one_in(25) {
            let tci = if self.random.one_in(2) { [0, 5] } else { self.word() };
            frame.extend(if self.random.one_in(4) { [0x88, 0xa8] } else { [0x81, 0x00] });
            frame.extend(tci);
        }
        match self.random.below(12) {
            0..=2 => self.arp(&mut frame, src, sender),
            3..=5 => self.ip4(&mut frame, sender),
            6..=10 => self.ip6(&mut frame, src, sender),
            _ => {
                let eth_type =
                    *self.random.pick(&[[0x88, 0xcc], [0x08, 0x42], [0x05, 0xdc], [0x80, 0x35], [0x81, 0x00]]);
                frame.extend(eth_type);
                let length = self.random.below(64);
                frame.extend((0..length).map(|n| n as u8));
            }
        }
        frame
    }

    fn arp(&mut self, frame: &mut Vec<u8>, src: [u8; 6], sender: &Identity) {
        frame.extend(if self.random.one_in(8) { [0x80, 0x35] } else { [0x08, 0x06] });
        let op = if self.random.one_in(8) { self.word() } else { [0, 1 + u8::from(self.random.one_in(4))] };
        frame.extend([0, 1, 8, 0, 6, 4]);
        frame.extend(op);
        frame.extend(if self.random.one_in(8) { self.any(|g| &g.macs) } else { src });
        let spa = self.own(&sender.ip4, |g| &g.ip4);
        frame.extend(spa);
        frame.extend(if self.random.one_in(3) { self.any(|g| &g.macs) } else { [0; 6] });
        let tpa = self.any(|g| &g.ip4);
        frame.extend(tpa);
    }

    fn ip4(&mut self, frame: &mut Vec<u8>, sender: &Identity) {
        let discover = self.random.one_in(10);
        let src = if discover { [0; 4] } else { self.own(&sender.ip4, |g| &g.ip4) };
        let dst = if discover { [255; 4] } else { self.any(|g| &g.ip4) };
        let (proto, payload) = if discover { (17, self.udp([0, 68], [0, 67])) } else { self.transport(false) };
        frame.extend([0x08, 0x00]);
        let options = if self.random.one_in(10) { self.random.below(10) } else { 0 };
        let start = frame.len();
        let tos = if self.random.one_in(3) { self.byte() } else { 0 };
        frame.extend([0x45 + options as u8, tos]);
        frame.extend(((20 + options * 4 + payload.len()) as u16).to_be_bytes());
        frame.extend(self.word());
        let fragment = match self.random.below(12) {
            0 => [0x20, 0],
            1 => [0x20, 7],
            2 => [0, 7],
            _ => [0x40, 0],
        };
        frame.extend(fragment);
        let ttl = *self.random.pick(&[64, 64, 64, 255, 1, 0]);
        frame.extend([ttl, proto, 0, 0]);
        frame.extend(src);
        frame.extend(dst);
        frame.extend(vec![1; options * 4]);
        let sum = checksum(&frame[start..], 0);
        frame[start + 10..start + 12].copy_from_slice(&sum);
        frame.extend(payload);
    }

    fn udp(&mut self, src: [u8; 2], dst: [u8; 2]) -> Vec<u8> {
        let data = self.random.below(40);
        let mut udp = [src, dst].concat();
        udp.extend(((8 + data) as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.resize(8 + data, 0x55);
        udp
    }

    fn transport(&mut self, v6: bool) -> (u8, Vec<u8>) {
        let (src, dst) = (self.word(), *self.random.pick(&[[0, 53], [0, 80], [1, 187], [0, 67], [2, 35]]));
        match self.random.below(6) {
            0 | 1 => {
                let mut tcp = [src, dst].concat();
                tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, *self.random.pick(&[2, 16, 18, 17, 4])]);
                tcp.extend([0xff, 0xff, 0x12, 0x34, 0, 0]);
                tcp.resize(20 + self.random.below(30), 0x66);
                (6, tcp)
            }
            2 | 3 => (17, self.udp(src, dst)),
            4 => {
                let mut echo = vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1];
                echo.resize(8 + self.random.below(30), 0x77);
                (if v6 { 58 } else { 1 }, echo)
            }
            _ => {
                let mut other = [src, dst].concat();
                other.resize(4 + self.random.below(20), 0x88);
                (*self.random.pick(&[132, 2, 47, 89, 255]), other)
            }
        }
    }

    fn ip6(&mut self, frame: &mut Vec<u8>, mac: [u8; 6], sender: &Identity) {
        let mut src = self.own(&sender.ip6, |g| &g.ip6);
        let dst = self.any(|g| &g.ip6);
        let discovery = self.random.one_in(2);
        let (mut proto, mut payload) = if discovery {
            if self.random.one_in(6) {
                src = [0; 16];
            }
            (58, self.neighbor_discovery(mac, src, dst, sender))
        } else {
            self.transport(true)
        };
        if self.random.one_in(8) {
            let kind = *self.random.pick(&[0, 43, 60, 44, 44, 51]);
            let mut header = vec![proto, 0, 0, 0, 0, 0, 0, 0];
            match kind {
                // First fragment, later fragment, no fragment at all.
                44 => header[2..4].copy_from_slice(self.random.pick(&[&[0, 1], &[1, 1], &[1, 0], &[0, 0]]).as_slice()),
                51 => header = [vec![proto, 1, 0, 0], vec![0; 8]].concat(),
                _ => {}
            }
            header.extend(payload);
            payload = header;
            proto = kind;
        }
        frame.extend([0x86, 0xdd, 0x60]);
        let label = if self.random.one_in(3) { self.word() } else { [0, 0] };
        frame.extend([u8::from(self.random.one_in(4)), label[0], label[1]]);
        frame.extend((payload.len() as u16).to_be_bytes());
        let limit = if discovery && !self.random.one_in(8) { 255 } else { 64 };
        frame.extend([proto, limit]);
        frame.extend(src);
        frame.extend(dst);
        frame.extend(payload);
    }

    fn neighbor_discovery(&mut self, mac: [u8; 6], src: [u8; 16], dst: [u8; 16], sender: &Identity) -> Vec<u8> {
        let kind = *self.random.pick(&[135, 135, 135, 136, 136, 133, 134, 131, 143]);
        let mut icmp = vec![kind, u8::from(self.random.one_in(12)), 0, 0, 0, 0, 0, 0];
        if matches!(kind, 135 | 136) {
            let target = if kind == 136 { self.own(&sender.ip6, |g| &g.ip6) } else { self.any(|g| &g.ip6) };
            icmp.extend(target);
            let address = if self.random.one_in(8) { self.any(|g| &g.macs) } else { mac };
            for _ in 0..self.random.below(3) {
                let option = if self.random.one_in(8) { 5 } else { kind - 134 };
                icmp.extend([option, 1]);
                icmp.extend(address);
            }
        } else {
            icmp.resize(8 + self.random.below(24), 0);
        }
        let pseudo = [&src[..], &dst[..], &(icmp.len() as u32).to_be_bytes(), &[0, 0, 0, 58]].concat();
        let sum = checksum(&icmp, u32::from(!u16::from_be_bytes(checksum(&pseudo, 0))));
        icmp[2..4].copy_from_slice(&sum);
        icmp
    }

    /// Cuts, extends or changes a frame, but leaves an Ethernet header and its source, so that something happens to it.
    fn mutate(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..1 + self.random.below(3) {
            match self.random.below(4) {
                0 => {
                    let length = 14 + self.random.below(frame.len() - 13);
                    frame.truncate(length);
                }
                1 => {
                    let more = 1 + self.random.below(20);
                    frame.extend(vec![0xaa; more]);
                }
                _ => {
                    // Mostly in the headers.
                    let end = frame.len().min(if self.random.one_in(3) { 120 } else { 58 });
                    if end > 12 {
                        let at = 12 + self.random.below(end - 12);
                        let bit = 1 << self.random.below(8);
                        frame[at] = if self.random.one_in(2) { frame[at] ^ bit } else { self.byte() };
                    }
                }
            }
        }
    }

    fn hostile(&mut self, sender: &Identity) -> Vec<u8> {
        let length = 14 + self.random.below(120);
        let mut frame: Vec<u8> = (0..length).map(|_| self.byte()).collect();
        if !self.random.one_in(4) {
            let (src, dst) = (self.own(&sender.macs, |g| &g.macs), self.any(|g| &g.macs));
            frame[..12].copy_from_slice(&[dst, src].concat());
        }
        if !self.random.one_in(4) {
            let eth_type: [u8; 2] = *self.random.pick(&[[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]]);
            frame[12..14].copy_from_slice(&eth_type);
        }
        frame
    }
}

/// The Internet checksum (RFC 1071) of bytes and a sum before them.
fn checksum(bytes: &[u8], before: u32) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = before + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_give_addresses_inside_and_outside() {
        let identity = Identity::of(["00:00:00:00:00:01 10.0.0.0/24, 10.1.2.3/255.255.255.254 10.9.9.9", "0.0.0.0/0"]);
        let expected = [
            [10, 0, 0, 0],
            [10, 0, 0, 0b1001_0010],
            [10, 0, 0, 255],
            [10, 0, 1, 0],
            [10, 1, 2, 3],
            [10, 1, 2, 2],
            [10, 1, 2, 3],
            [10, 1, 2, 0],
            [10, 9, 9, 9],
            [0, 0, 0, 0],
            [0b1001_0010, 0b0100_1001, 0b0010_0100, 0b1001_0010],
            [255; 4],
            [0; 4],
        ];
        assert_eq!(identity.ip4, expected);
    }
}
