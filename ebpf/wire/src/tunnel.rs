//! Outer headers: Geneve (RFC 8926) with OVN's option read and written, VXLAN (RFC 7348) written.

use oxbow_abi::{
    reason::Reason,
    topology::{
        Address, CHASSIS_DF, CHASSIS_VXLAN, Chassis, GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, GENEVE_PORT, PeerKey,
        VXLAN_PORT,
    },
};

use crate::{
    checksum,
    frame::{Frame, Step, View, be16, be32},
    parse::{ETH_IPV4, ETH_IPV6},
};

/// Bytes of a Geneve header with OVN's option.
pub const GENEVE_LEN: u32 = 16;
/// Bytes of a VXLAN header.
pub const VXLAN_LEN: u32 = 8;
/// Size of the buffer that outer headers are built in: Ethernet, IPv6, UDP, Geneve and its option, inner Ethernet with two tags.
pub const OUTER: usize = 128;
/// That buffer: 16-bit units in network order, so that headers are stored in halves rather than in bytes.
pub type Outer = [u16; OUTER / 2];
/// Options that a Geneve header may carry; more make it a bad one.
pub const OPTIONS: u32 = 16;

/// A [`PeerKey`] as the words it is in memory, see [`crate::key::Words`].
pub type Peer = [u32; 10];

const LOCAL: usize = 0;
const REMOTE: usize = 5;
/// Where the family of an address is, from its beginning.
const FAMILY: usize = 4;

const _: () = {
    assert!(size_of::<PeerKey>() == size_of::<Peer>());
    assert!(core::mem::offset_of!(PeerKey, local) == LOCAL * 4);
    assert!(core::mem::offset_of!(PeerKey, remote) == REMOTE * 4);
    assert!(core::mem::offset_of!(Address, family) == FAMILY * 4);
};

/// Makes a peer key the one that says "this local address is ours".
#[inline(always)]
pub fn anybody(peer: &mut Peer) {
    let mut n = REMOTE;
    while n <= REMOTE + FAMILY {
        peer[n] = 0;
        n += 1;
    }
}

/// Reads the addresses of a whole (unfragmented) UDP datagram to the Geneve port into `peer`: its destination is ours if it is a tunnel frame. The
/// result is where the Geneve header is; `None` = the frame is something else, and the host's.
#[inline(always)]
pub fn path<F: Frame>(frame: &F, peer: &mut Peer) -> Option<u32> {
    let ether = frame.view::<14>(0)?;
    *peer = [0; 10];
    let udp = match ether.half::<12>() {
        ETH_IPV4 => {
            let ip = frame.view::<20>(14)?;
            let header = ip.byte::<0>();
            if header >> 4 != 4 || header & 15 < 5 || ip.byte::<9>() != 17 || ip.half::<6>() & 0x3fff != 0 {
                return None;
            }
            peer[REMOTE] = ip.word::<12>().to_be();
            peer[LOCAL] = ip.word::<16>().to_be();
            peer[LOCAL + FAMILY] = 4;
            peer[REMOTE + FAMILY] = 4;
            14 + (header & 15) * 4
        }
        ETH_IPV6 => {
            let ip = frame.view::<40>(14)?;
            if ip.byte::<6>() != 17 {
                return None;
            }
            peer[REMOTE] = ip.word::<8>().to_be();
            peer[REMOTE + 1] = ip.word::<12>().to_be();
            peer[REMOTE + 2] = ip.word::<16>().to_be();
            peer[REMOTE + 3] = ip.word::<20>().to_be();
            peer[LOCAL] = ip.word::<24>().to_be();
            peer[LOCAL + 1] = ip.word::<28>().to_be();
            peer[LOCAL + 2] = ip.word::<32>().to_be();
            peer[LOCAL + 3] = ip.word::<36>().to_be();
            peer[LOCAL + FAMILY] = 6;
            peer[REMOTE + FAMILY] = 6;
            54
        }
        _ => return None,
    };
    if frame.view::<4>(udp)?.half::<2>() != u32::from(GENEVE_PORT) {
        return None;
    }
    Some(udp + 8)
}

/// What a Geneve header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geneve {
    /// Tunnel key of the datapath.
    pub vni: u32,
    /// OVN's option: inport << 16 | outport.
    pub option: u32,
    /// Where the inner frame begins.
    pub inner: u32,
}

/// Reads the Geneve header at `at`.
///
/// # Errors
/// [`Reason::BadTunnelHeader`]: not version 0, not Ethernet inside, a control packet, no OVN option, an unknown critical option, or short.
#[inline(always)]
pub fn geneve<F: Frame>(frame: &F, at: u32) -> Result<Geneve, Reason> {
    const BAD: Reason = Reason::BadTunnelHeader;
    let head = frame.load::<8>(at).ok_or(BAD)?;
    let options = u32::from(head[0] & 0x3f) * 4;
    // Version 0; the O bit marks packets for the tunnel endpoint itself, of which there are none that we speak; the C bit only announces.
    if head[0] >> 6 != 0 || head[1] & 0x80 != 0 || be16(head[2], head[3]) != 0x6558 {
        return Err(BAD);
    }
    let inner = at + 8 + options;
    let mut walk = Options { at: at + 8, end: inner, option: 0, found: 0, bad: 0 };
    frame.repeat(OPTIONS, &mut walk);
    if walk.bad != 0 || walk.found == 0 || walk.at != inner {
        return Err(BAD);
    }
    Ok(Geneve { vni: be32(0, head[4], head[5], head[6]), option: walk.option, inner })
}

/// The Geneve header at `at`, if it is as OVN's chassis send it: OVN's option alone. Anything else takes [`geneve`].
#[inline(always)]
pub fn plain<F: Frame>(frame: &F, at: u32) -> Option<Geneve> {
    let header = frame.view::<16>(at)?;
    let first = header.word::<0>();
    let ours = header.word::<8>() == (GENEVE_OVN_CLASS as u32) << 16 | (GENEVE_OVN_TYPE as u32) << 8 | 1;
    // Version 0 and two words of options, no control packet, Ethernet inside; the C bit and what is reserved do not matter.
    if first >> 24 != 2 || first & 0x0080_0000 != 0 || first & 0xffff != 0x6558 || !ours {
        return None;
    }
    Some(Geneve { vni: header.word::<4>() >> 8, option: header.word::<12>() & 0x7fff_ffff, inner: at + GENEVE_LEN })
}

/// The way along the options.
#[repr(C)]
struct Options {
    at: u32,
    end: u32,
    option: u32,
    found: u32,
    bad: u32,
}

impl<F: Frame> Step<F> for Options {
    #[inline(always)]
    fn step(&mut self, frame: &F) -> bool {
        if self.at >= self.end {
            return false;
        }
        self.bad = 1;
        let Some([c0, c1, kind, length]) = frame.load::<4>(self.at) else { return false };
        let bytes = 4 + u32::from(length & 0x1f) * 4;
        if be16(c0, c1) == GENEVE_OVN_CLASS as u32 && kind == GENEVE_OVN_TYPE {
            let Some([a, b, c, d]) = frame.load::<4>(self.at + 4) else { return false };
            if bytes != 8 {
                return false;
            }
            self.option = be32(a & 0x7f, b, c, d);
            self.found = 1;
        } else if kind & 0x80 != 0 {
            return false;
        }
        self.bad = 0;
        self.at += bytes;
        true
    }
}

/// What the outer headers of one frame need, beyond its chassis.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// Length of the frame to be carried, Ethernet header included.
    pub len: u32,
    /// Tunnel key of the datapath.
    pub vni: u32,
    /// OVN's option: inport << 16 | outport.
    pub option: u32,
    /// UDP source port: entropy of the flow.
    pub port: u16,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4 identification, for a chassis without Don't Fragment.
    pub id: u16,
}

/// Length of all headers that go in front of a frame to `chassis`: Ethernet, IP, UDP, tunnel.
#[inline(always)]
pub const fn outer_len(chassis: &Chassis) -> u32 {
    let ip = if chassis.remote.family == 6 { 40 } else { 20 };
    let tunnel = if chassis.flags & CHASSIS_VXLAN != 0 { VXLAN_LEN } else { GENEVE_LEN };
    14 + ip + 8 + tunnel
}

/// Writes 16 bits at an even offset in bytes.
#[inline(always)]
pub fn put16(out: &mut Outer, at: usize, value: u32) {
    if let Some(place) = out.get_mut(at / 2) {
        *place = (value as u16).to_be();
    }
}

/// Writes 32 bits at an even offset.
#[inline(always)]
pub fn put32(out: &mut Outer, at: usize, value: u32) {
    put16(out, at, value >> 16);
    put16(out, at + 2, value);
}

/// Writes bytes, an even number of them, at an even offset.
#[inline(always)]
pub fn put_bytes<const N: usize>(out: &mut Outer, at: usize, bytes: &[u8; N]) {
    let mut n = 0;
    while n < N / 2 {
        put16(out, at + n * 2, be16(bytes[n * 2], bytes[n * 2 + 1]));
        n += 1;
    }
}

/// The first four bytes of an address as a number.
#[inline(always)]
fn ipv4(address: &Address) -> u32 {
    let [a, b, c, d, ..] = address.bytes;
    be32(a, b, c, d)
}

/// Writes the outer headers, UDP checksum zero (RFC 6935 allows it for IPv6 tunnels), and returns where they end.
#[inline(always)]
pub fn write(out: &mut Outer, chassis: &Chassis, inner: &Inner) -> u32 {
    let vxlan = chassis.flags & CHASSIS_VXLAN != 0;
    let tunnel_len = if vxlan { VXLAN_LEN } else { GENEVE_LEN };
    let udp_len = 8 + tunnel_len + inner.len;
    let (tos, ttl) = (u32::from(inner.tos), chassis.ttl & 0xff);
    put_bytes(out, 0, &chassis.mac);
    if chassis.remote.family == 6 {
        put16(out, 12, ETH_IPV6);
        put32(out, 14, 6 << 28 | tos << 20);
        put32(out, 18, udp_len << 16 | 17 << 8 | ttl);
        put_bytes(out, 22, &chassis.local.bytes);
        put_bytes(out, 38, &chassis.remote.bytes);
        udp::<54>(out, vxlan, udp_len, inner);
        return 62 + tunnel_len;
    }
    let (from, to) = (ipv4(&chassis.local), ipv4(&chassis.remote));
    let version_tos = 0x4500 | tos;
    let total = (20 + udp_len) & 0xffff;
    let id = u32::from(inner.id);
    let fragment = if chassis.flags & CHASSIS_DF != 0 { 0x4000 } else { 0 };
    let ttl_protocol = ttl << 8 | 17;
    let sum =
        u64::from(version_tos + total + id + fragment + ttl_protocol) + checksum::words(from) + checksum::words(to);
    put16(out, 12, ETH_IPV4);
    put32(out, 14, version_tos << 16 | total);
    put32(out, 18, id << 16 | fragment);
    put32(out, 22, ttl_protocol << 16 | u32::from(!checksum::fold(sum)));
    put32(out, 26, from);
    put32(out, 30, to);
    udp::<34>(out, vxlan, udp_len, inner);
    42 + tunnel_len
}

#[inline(always)]
fn udp<const AT: usize>(out: &mut Outer, vxlan: bool, udp_len: u32, inner: &Inner) {
    put16(out, AT, u32::from(inner.port));
    put16(out, AT + 2, u32::from(if vxlan { VXLAN_PORT } else { GENEVE_PORT }));
    put32(out, AT + 4, udp_len << 16);
    if vxlan {
        put32(out, AT + 8, 0x0800_0000);
        put32(out, AT + 12, inner.vni << 8);
    } else {
        // Two words of options, the C bit because OVN's is critical, Ethernet inside.
        put32(out, AT + 8, 0x0240_6558);
        put32(out, AT + 12, inner.vni << 8);
        put32(out, AT + 16, (GENEVE_OVN_CLASS as u32) << 16 | (GENEVE_OVN_TYPE as u32) << 8 | 1);
        put32(out, AT + 20, inner.option);
    }
}
