//! Geneve and VXLAN, byte by byte, both ways.

use oxbow_abi::field::{self, OUTPORT};
use oxbow_abi::reason::Reason;
use oxbow_abi::stats::{EVENT_NEXT_HOP, total};
use oxbow_abi::topology::{
    Address, CHASSIS_CSUM, CHASSIS_DF, CHASSIS_RESOLVED, CHASSIS_TOS_INHERIT, CHASSIS_VXLAN, Chassis, PeerKey,
};

use crate::forwarding::{pair, pair_with};
use crate::packets::{MAC1, arp, inet_checksum, ping4, ping6, tagged, tcp4, tcp6, udp4, udp6};
use crate::rig::{PASS, REDIRECT, Rig, SHOT, SWITCH, kernel, output, set};

/// Hardware address of the next hop, then ours.
const MACS: [u8; 12] = [2, 0xaa, 0, 0, 0, 2, 2, 0xaa, 0, 0, 0, 1];

pub(crate) fn v4(last: u8) -> Address {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&[192, 0, 2, last]);
    Address { bytes, family: 4 }
}

fn v6(last: u8) -> Address {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    bytes[15] = last;
    Address { bytes, family: 6 }
}

pub(crate) fn chassis(ifindex: u32, local: Address, remote: Address, flags: u32) -> Chassis {
    Chassis {
        flags: flags | CHASSIS_RESOLVED,
        ifindex,
        local,
        remote,
        mac: MACS,
        mtu: 1500,
        ttl: 64,
        tos: 0,
        guard: 40,
    }
}

/// Port 1 is here; port 9 is on chassis 1, whose underlay device is the second result.
pub(crate) fn remote(local: Address, there: Address, flags: u32) -> (Rig, u32, u32) {
    remote_with(local, there, flags, 0)
}

fn remote_with(local: Address, there: Address, flags: u32, decap_l3: u32) -> (Rig, u32, u32) {
    let (mut rig, a, _) = pair_with(&[("OX_DECAP_L3", decap_l3)]);
    let underlay = rig.device("u0", "u1");
    rig.chassis(1, chassis(underlay, local, there, flags));
    rig.remote(9, 1);
    rig.peer(PeerKey { local, remote: there }, 1);
    rig.peer(PeerKey { local, remote: Address::default() }, 0);
    rig.rule((0, 0), 10, &[(field::INPORT, !0, 1)], &[set(OUTPORT, !0, 9), output()], 11);
    rig.rule((1, 0), 10, &[], &[output()], 12);
    (rig, a, underlay)
}

/// The outer headers of `inner`, with the source port, identification and UDP checksum given.
pub(crate) fn geneve(
    c: &Chassis,
    option: u32,
    inner: &[u8],
    port: [u8; 2],
    id: [u8; 2],
    sum: [u8; 2],
    tos: u8,
) -> Vec<u8> {
    let vxlan = c.flags & CHASSIS_VXLAN != 0;
    let tunnel_len = if vxlan { 8 } else { 16 };
    let udp_len = (8 + tunnel_len + inner.len()) as u16;
    let mut out = c.mac.to_vec();
    if c.remote.family == 4 {
        out.extend([8, 0, 0x45, tos]);
        out.extend((20 + udp_len).to_be_bytes());
        out.extend(id);
        out.extend([if c.flags & CHASSIS_DF != 0 { 0x40 } else { 0 }, 0, c.ttl as u8, 17, 0, 0]);
        out.extend(&c.local.bytes[..4]);
        out.extend(&c.remote.bytes[..4]);
        let header = inet_checksum(&[&out[14..34]]);
        out[24..26].copy_from_slice(&header.to_be_bytes());
    } else {
        out.extend([0x86, 0xdd, 0x60 | tos >> 4, tos << 4, 0, 0]);
        out.extend(udp_len.to_be_bytes());
        out.extend([17, c.ttl as u8]);
        out.extend(c.local.bytes);
        out.extend(c.remote.bytes);
    }
    out.extend(port);
    out.extend(if vxlan { 4789u16 } else { 6081 }.to_be_bytes());
    out.extend(udp_len.to_be_bytes());
    out.extend(sum);
    if vxlan {
        out.extend([8, 0, 0, 0, 0, 0, SWITCH as u8, 0]);
    } else {
        out.extend([2, 0x40, 0x65, 0x58, 0, 0, SWITCH as u8, 0, 1, 2, 0x80, 1]);
        out.extend(option.to_be_bytes());
    }
    out.extend(inner);
    out
}

fn frames() -> Vec<Vec<u8>> {
    let plain = vec![
        udp4(1, 2, b"hello"),
        tcp4(1, 2, &[7; 600]),
        ping4(),
        udp6(1, 2, b""),
        tcp6(1, 2, &[9; 33]),
        ping6(),
        arp(),
    ];
    let vlan = tagged(&udp4(1, 2, b"in a VLAN"), 0x2005);
    [plain, vec![vlan]].concat()
}

#[test]
fn frames_to_another_chassis_are_encapsulated_byte_by_byte() {
    for (here, there) in [(v4(1), v4(2)), (v6(1), v6(2))] {
        for flags in [0, CHASSIS_DF, CHASSIS_VXLAN, CHASSIS_CSUM] {
            let (mut rig, a, underlay) = remote(here, there, flags);
            let c = chassis(underlay, here, there, flags);
            let (udp, outer) = if here.family == 4 { (34, 42) } else { (54, 62) };
            for frame in frames() {
                // A walk, then a hit (where the frame is one that is cached).
                for run in 0..2 {
                    let ran = rig.vif_run(a, &frame);
                    assert_eq!(ran.action, REDIRECT, "{:?} {frame:02x?}", rig.all_drops());
                    let part = |at: usize| [ran.data[at], ran.data[at + 1]];
                    let (port, id, sum) = (part(udp), if here.family == 4 { part(18) } else { [0; 2] }, part(udp + 6));
                    let wanted = geneve(&c, 1 << 16 | 9, &frame, port, id, sum, 0);
                    assert_eq!(ran.data, wanted, "run {run}, flags {flags}");
                    assert!(port[0] & 0x80 != 0, "source port {port:?}");
                    assert!(flags & CHASSIS_DF == 0 || id == [0; 2]);
                    if flags & CHASSIS_CSUM == 0 {
                        assert_eq!(sum, [0; 2]);
                    } else {
                        let addresses = if here.family == 4 { &ran.data[26..34] } else { &ran.data[22..54] };
                        let body = &ran.data[udp..];
                        let length = (body.len() as u32).to_be_bytes();
                        let sum = inet_checksum(&[addresses, &length, &[0, 0, 0, 17], body]);
                        assert_eq!(sum, 0, "outer checksum, {outer} {frame:02x?}");
                    }
                }
            }
            assert!(rig.total(total::CACHE_HIT) >= 6, "{}", rig.total(total::CACHE_HIT));
        }
    }
}

#[test]
fn the_source_port_is_the_flows() {
    let (mut rig, a, _) = remote(v4(1), v4(2), 0);
    let port = |rig: &mut Rig, frame: &[u8]| rig.vif_run(a, frame).data[34..36].to_vec();
    let first = port(&mut rig, &udp4(1, 2, b""));
    assert_eq!(first, port(&mut rig, &udp4(1, 2, b"another length")), "walk and hit, long and short");
    let others: std::collections::BTreeSet<Vec<u8>> = (10..60).map(|n| port(&mut rig, &udp4(n, 2, b""))).collect();
    assert!(others.len() > 40, "{} ports for 50 flows", others.len());
}

#[test]
fn tos_is_inherited_or_not() {
    for (flags, wanted) in [(0, 0), (CHASSIS_TOS_INHERIT, 0xb8)] {
        let (mut rig, a, _) = remote(v4(1), v4(2), flags);
        let mut frame = udp4(1, 2, b"");
        frame[15] = 0xb8;
        assert_eq!(rig.vif_run(a, &frame).data[15], wanted);
        let (mut rig, a, _) = remote(v6(1), v6(2), flags);
        let mut frame = udp6(1, 2, b"");
        frame[14..16].copy_from_slice(&[0x6b, 0x80]);
        let data = rig.vif_run(a, &frame).data;
        assert_eq!(data[14] << 4 | data[15] >> 4, wanted);
    }
}

#[test]
fn what_does_not_fit_the_underlay_is_dropped_and_super_packets_are_judged_by_their_segments() {
    let (mut rig, a, _) = remote(v4(1), v4(2), 0);
    // 1500 - 20 - 8 - 16 - 14 - 20 - 8
    assert_eq!(rig.vif_run(a, &udp4(1, 2, &[0; 1414])).action, REDIRECT);
    assert_eq!(rig.vif_run(a, &udp4(1, 2, &[0; 1415])).action, SHOT);
    assert_eq!(rig.all_drops(), [(Reason::TooBig.text(), 1)]);
    // BPF_PROG_TEST_RUN makes super-packets of no protocol, for which the kernel makes no room: what is seen here is the judgement of the length.
    let big = tcp4(1, 2, &[0; 3500]);
    rig.run("oxbow_vif", a, &big, 1, 1380);
    assert_eq!(rig.drops(Reason::TooBig), 1);
    rig.run("oxbow_vif", a, &big, 1, 1460);
    assert_eq!(rig.drops(Reason::TooBig), 2);
}

#[test]
fn an_unresolved_next_hop_is_asked_for_once() {
    let (mut rig, a, underlay) = remote(v4(1), v4(2), 0);
    rig.chassis(1, Chassis { flags: 0, ..chassis(underlay, v4(1), v4(2), 0) });
    for _ in 0..3 {
        assert_eq!(rig.vif_run(a, &udp4(1, 2, b"")).action, SHOT);
    }
    assert_eq!(rig.drops(Reason::NextHopUnresolved), 3);
    let events = rig.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0], [EVENT_NEXT_HOP.to_ne_bytes(), 1u32.to_ne_bytes()].concat());
}

/// What chassis 2 would send us.
fn from_there(local: Address, remote: Address, option: u32, inner: &[u8]) -> Vec<u8> {
    let sender = chassis(0, remote, local, 0);
    geneve(&sender, option, inner, [0x80, 1], [0; 2], [0; 2], 0)
}

/// A chassis that sends what comes by the first device to another, and receives for port 1.
pub(crate) fn sender() -> (Rig, u32, u32) {
    remote(v4(1), v4(2), 0)
}

/// A chassis that receives for port 1; the test adds what its egress pipeline does.
pub(crate) fn receiver() -> (Rig, u32) {
    let (mut rig, ..) = pair();
    let underlay = rig.device("u0", "u1");
    rig.peer(PeerKey { local: v4(1), remote: v4(2) }, 1);
    (rig, underlay)
}

/// A frame as the other chassis sends it to port 1 of [`receiver`].
pub(crate) fn tunnelled(inner: &[u8]) -> Vec<u8> {
    from_there(v4(1), v4(2), 9 << 16 | 1, inner)
}

#[test]
fn tunnel_frames_are_delivered_byte_by_byte() {
    // The backend asks for the flags where they exist, which is since Linux 6.3.
    let with_flags: &[u32] = if kernel() < (6, 3) { &[0] } else { &[0, 1] };
    for &decap_flags in with_flags {
        for (here, there) in [(v4(1), v4(2)), (v6(1), v6(2))] {
            let (mut rig, _, underlay) = remote_with(here, there, 0, decap_flags);
            for frame in frames() {
                for run in 0..2 {
                    let ran = rig.underlay_run(underlay, &from_there(here, there, 9 << 16 | 1, &frame));
                    assert_eq!(ran.action, REDIRECT, "{:?} {frame:02x?}", rig.all_drops());
                    assert_eq!(ran.data[..frame.len()], frame, "run {run}");
                    // Tiny frames are padded to Ethernet's minimum.
                    assert!(
                        ran.data[frame.len()..].iter().all(|&byte| byte == 0) && ran.data.len() <= frame.len().max(60)
                    );
                }
            }
            assert!(rig.total(total::CACHE_HIT) >= 6);
            assert_eq!((rig.lflow(11), rig.total(total::TUNNEL_RX)), (0, 16), "ingress is the sender's business");
        }
    }
}

#[test]
fn what_is_not_ours_goes_to_the_host() {
    let (mut rig, _, underlay) = remote(v4(1), v4(2), 0);
    let ours = from_there(v4(1), v4(2), 9 << 16 | 1, &ping4());
    let mut other_port = ours.clone();
    other_port[37] ^= 1;
    let mut fragment = ours.clone();
    fragment[20] = 0x20;
    let elsewhere = from_there(v4(77), v4(2), 9 << 16 | 1, &ping4());
    for frame in [other_port, fragment, elsewhere, arp(), udp4(1, 2, b""), tcp6(1, 2, b""), ours[..36].to_vec()] {
        let ran = rig.underlay_run(underlay, &frame);
        assert_eq!((ran.action, &ran.data), (PASS, &frame));
    }
    assert_eq!((rig.total(total::UNDERLAY_PASS), rig.all_drops()), (7, vec![]));
}

#[test]
fn strangers_and_broken_headers_are_dropped() {
    let inner = ping4();
    let option = 9 << 16 | 1;
    let good = from_there(v4(1), v4(2), option, &inner);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        frame
    };
    // Option words of OVN behind one unknown option, not critical and critical.
    let with_option = |kind: u8| {
        let mut frame = good.clone();
        frame[42] = 4;
        frame.splice(50..50, [9, 9, kind, 1, 1, 2, 3, 4]);
        frame[17] += 8;
        frame[39] += 8;
        frame
    };
    let cases = [
        (from_there(v4(1), v4(3), option, &inner), Reason::UnknownPeer),
        (changed(42, 0x42), Reason::BadTunnelHeader),
        (changed(42, 0), Reason::BadTunnelHeader),
        (changed(42, 1), Reason::BadTunnelHeader),
        (changed(43, 0xc0), Reason::BadTunnelHeader),
        (changed(44, 0), Reason::BadTunnelHeader),
        (changed(50, 9), Reason::BadTunnelHeader),
        (changed(53, 2), Reason::BadTunnelHeader),
        (with_option(0x81), Reason::BadTunnelHeader),
        (good[..48].to_vec(), Reason::BadTunnelHeader),
        (good[..65].to_vec(), Reason::Truncated),
        (changed(48, 99), Reason::NoDatapath),
    ];
    for (frame, reason) in cases {
        let (mut rig, _, underlay) = remote(v4(1), v4(2), 0);
        let ran = rig.underlay_run(underlay, &frame);
        assert_eq!((ran.action, rig.all_drops()), (SHOT, vec![(reason.text(), 1)]), "{frame:02x?}");
    }
    let (mut rig, _, underlay) = remote(v4(1), v4(2), 0);
    let ran = rig.underlay_run(underlay, &with_option(0x01));
    assert_eq!((ran.action, &ran.data), (REDIRECT, &inner), "{:?}", rig.all_drops());
}

#[test]
fn what_a_tunnel_brought_is_never_tunnelled_again() {
    let (mut rig, _, underlay) = remote(v4(1), v4(2), 0);
    let ran = rig.underlay_run(underlay, &from_there(v4(1), v4(2), 1 << 16 | 9, &udp4(1, 2, b"")));
    assert_eq!((ran.action, rig.all_drops()), (SHOT, vec![(Reason::PortNotBound.text(), 1)]));
    assert_eq!(rig.total(total::TUNNEL_TX), 0);
    // Nor does it go back to the port it came from.
    let ran = rig.underlay_run(underlay, &from_there(v4(1), v4(2), 1 << 16 | 1, &udp4(1, 2, b"")));
    assert_eq!((ran.action, rig.drops(Reason::Loopback)), (SHOT, 1));
}

#[test]
fn changed_fields_go_into_the_inner_frame() {
    let (mut rig, a, _) = pair();
    let underlay = rig.device("u0", "u1");
    rig.chassis(1, chassis(underlay, v4(1), v4(2), 0));
    rig.remote(9, 1);
    let mac = [set(field::ETH_DST, !0, 0x0a0b), set(field::ETH_DST + 1, !0, 0x0c0d_0e0f)];
    rig.rule((0, 0), 10, &[], &[mac[0], mac[1], set(OUTPORT, !0, 9), output()], 1);
    for _ in 0..2 {
        let ran = rig.vif_run(a, &udp4(1, 2, b""));
        assert_eq!(ran.data[58..70], [[0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f], MAC1].concat());
    }
    assert_eq!(rig.total(total::CACHE_HIT), 1);
}
