//! Outer headers: Geneve (RFC 8926) with OVN's option read and written, VXLAN (RFC 7348) written.

use oxbow_abi::{
    reason::Reason,
    topology::{Address, CHASSIS_DF, CHASSIS_VXLAN, Chassis, GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, GENEVE_PORT, VXLAN_PORT},
};

use crate::{
    checksum,
    frame::{Frame, be16, be32},
    parse::{ETH_IPV4, ETH_IPV6},
};

/// Bytes of a Geneve header with OVN's option.
pub const GENEVE_LEN: u32 = 16;
/// Bytes of a VXLAN header.
pub const VXLAN_LEN: u32 = 8;
/// Size of the buffer that outer headers are built in: Ethernet, IPv6, UDP, Geneve and its option, inner Ethernet with two tags.
pub const OUTER: usize = 128;
/// Options that a Geneve header may carry; more make it a bad one.
pub const OPTIONS: u32 = 16;

/// The way a UDP datagram to the Geneve port came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Destination address: ours, if it is a tunnel frame.
    pub local: Address,
    /// Source address.
    pub remote: Address,
    /// Where the Geneve header is.
    pub geneve: u32,
}

/// Addresses of a whole (unfragmented) UDP datagram to the Geneve port; `None` = the frame is something else, and the host's.
#[inline(always)]
pub fn path<F: Frame>(frame: &F) -> Option<Path> {
    let [t0, t1] = frame.load::<2>(12)?;
    let mut local = Address { bytes: [0; 16], family: 0 };
    let mut remote = local;
    let udp = match be16(t0, t1) {
        ETH_IPV4 => {
            let ip = frame.load::<20>(14)?;
            if ip[0] >> 4 != 4 || ip[0] & 15 < 5 || ip[9] != 17 || be16(ip[6], ip[7]) & 0x3fff != 0 {
                return None;
            }
            let [.., s0, s1, s2, s3, d0, d1, d2, d3] = ip;
            [remote.bytes[0], remote.bytes[1], remote.bytes[2], remote.bytes[3]] = [s0, s1, s2, s3];
            [local.bytes[0], local.bytes[1], local.bytes[2], local.bytes[3]] = [d0, d1, d2, d3];
            (local.family, remote.family) = (4, 4);
            14 + u32::from(ip[0] & 15) * 4
        }
        ETH_IPV6 => {
            if frame.load::<1>(20)? != [17] {
                return None;
            }
            remote.bytes = frame.load::<16>(22)?;
            local.bytes = frame.load::<16>(38)?;
            (local.family, remote.family) = (6, 6);
            54
        }
        _ => return None,
    };
    let [p0, p1] = frame.load::<2>(udp + 2)?;
    if be16(p0, p1) != u32::from(GENEVE_PORT) {
        return None;
    }
    Some(Path { local, remote, geneve: udp + 8 })
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
    let mut option = None;
    let mut next = at + 8;
    for _ in 0..OPTIONS {
        if next >= inner {
            break;
        }
        let [c0, c1, kind, length] = frame.load::<4>(next).ok_or(BAD)?;
        let bytes = 4 + u32::from(length & 0x1f) * 4;
        if be16(c0, c1) == GENEVE_OVN_CLASS as u32 && kind == GENEVE_OVN_TYPE {
            if bytes != 8 {
                return Err(BAD);
            }
            let [a, b, c, d] = frame.load::<4>(next + 4).ok_or(BAD)?;
            option = Some(be32(a & 0x7f, b, c, d));
        } else if kind & 0x80 != 0 {
            return Err(BAD);
        }
        next += bytes;
    }
    if next != inner {
        return Err(BAD);
    }
    let option = option.ok_or(BAD)?;
    Ok(Geneve { vni: be32(0, head[4], head[5], head[6]), option, inner })
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

#[inline(always)]
fn put<const N: usize>(out: &mut [u8; OUTER], at: usize, bytes: [u8; N]) {
    if let Some(place) = out.get_mut(at..at + N) {
        place.copy_from_slice(&bytes);
    }
}

/// Writes the outer headers, UDP checksum zero (RFC 6935 allows it for IPv6 tunnels), and returns where they end.
#[inline(always)]
pub fn write(out: &mut [u8; OUTER], chassis: &Chassis, inner: &Inner) -> u32 {
    let vxlan = chassis.flags & CHASSIS_VXLAN != 0;
    let udp_len = 8 + if vxlan { VXLAN_LEN } else { GENEVE_LEN } + inner.len;
    put(out, 0, chassis.mac);
    let ttl = chassis.ttl as u8;
    if chassis.remote.family == 6 {
        put(out, 12, [0x86, 0xdd]);
        put(out, 14, [0x60 | inner.tos >> 4, inner.tos << 4, 0, 0]);
        put(out, 18, (udp_len as u16).to_be_bytes());
        put(out, 20, [17, ttl]);
        put(out, 22, chassis.local.bytes);
        put(out, 38, chassis.remote.bytes);
        udp::<54>(out, vxlan, udp_len, inner);
        54 + 8 + if vxlan { VXLAN_LEN } else { GENEVE_LEN }
    } else {
        put(out, 12, [0x08, 0x00]);
        let [i0, i1] = inner.id.to_be_bytes();
        let [l0, l1] = ((20 + udp_len) as u16).to_be_bytes();
        let [s0, s1, s2, s3, ..] = chassis.local.bytes;
        let [d0, d1, d2, d3, ..] = chassis.remote.bytes;
        let fragment = if chassis.flags & CHASSIS_DF != 0 { 0x40 } else { 0 };
        let mut ip = [0x45, inner.tos, l0, l1, i0, i1, fragment, 0, ttl, 17, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
        [ip[10], ip[11]] = (!checksum::fold(checksum::sum(&ip))).to_be_bytes();
        put(out, 14, ip);
        udp::<34>(out, vxlan, udp_len, inner);
        34 + 8 + if vxlan { VXLAN_LEN } else { GENEVE_LEN }
    }
}

#[inline(always)]
fn udp<const AT: usize>(out: &mut [u8; OUTER], vxlan: bool, udp_len: u32, inner: &Inner) {
    let port = if vxlan { VXLAN_PORT } else { GENEVE_PORT };
    put(out, AT, inner.port.to_be_bytes());
    put(out, AT + 2, port.to_be_bytes());
    put(out, AT + 4, (udp_len as u16).to_be_bytes());
    put(out, AT + 6, [0, 0]);
    let [_, v0, v1, v2] = inner.vni.to_be_bytes();
    if vxlan {
        put(out, AT + 8, [8, 0, 0, 0, v0, v1, v2, 0]);
    } else {
        // Two words of options, the C bit because OVN's is critical, Ethernet inside.
        let [c0, c1] = GENEVE_OVN_CLASS.to_be_bytes();
        let [o0, o1, o2, o3] = inner.option.to_be_bytes();
        put(out, AT + 8, [2, 0x40, 0x65, 0x58, v0, v1, v2, 0, c0, c1, GENEVE_OVN_TYPE, 1, o0, o1, o2, o3]);
    }
}
