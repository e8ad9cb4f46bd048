//! The fast key and the parser agree, nothing panics on any bytes, and what etherparse builds is read as it was built.

#![expect(clippy::unwrap_used, reason = "tests: a failed step is a failed test")]

use etherparse::PacketBuilder;
use oxbow_abi::field::{ETH_TYPE, FRAG_ANY, FRAG_LATER, IP_META, IP_SRC, L4};
use oxbow_abi::topology::{Address, Chassis};
use oxbow_wire::frame::Frame as _;
use oxbow_wire::key::{self, Words};
use oxbow_wire::parse::{VECTOR, parse};
use oxbow_wire::tunnel::{self, Inner};
use proptest::prelude::*;

/// Valid frames of many kinds.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    (any::<[u8; 12]>(), any::<[u8; 32]>(), any::<(u16, u16)>(), 0..6u8, any::<bool>(), payload).prop_map(
        |(mac, ip, (from, to), kind, tag, payload)| {
            let (mut s, mut d, mut s6, mut d6) = ([0; 6], [0; 6], [0; 16], [0; 16]);
            s.copy_from_slice(&mac[..6]);
            d.copy_from_slice(&mac[6..]);
            s6.copy_from_slice(&ip[..16]);
            d6.copy_from_slice(&ip[16..]);
            let (s4, d4) = ([ip[0], ip[1], ip[2], ip[3]], [ip[4], ip[5], ip[6], ip[7]]);
            let mut out = Vec::new();
            let ether = PacketBuilder::ethernet2(s, d);
            match kind {
                0 => ether.ipv4(s4, d4, ip[8]).udp(from, to).write(&mut out, &payload).unwrap(),
                1 => ether.ipv4(s4, d4, ip[8]).tcp(from, to, 1, 2).write(&mut out, &payload).unwrap(),
                2 => ether.ipv4(s4, d4, ip[8]).icmpv4_echo_request(from, to).write(&mut out, &payload).unwrap(),
                3 => ether.ipv6(s6, d6, ip[8]).udp(from, to).write(&mut out, &payload).unwrap(),
                4 => ether.ipv6(s6, d6, ip[8]).tcp(from, to, 1, 2).write(&mut out, &payload).unwrap(),
                _ => ether.ipv6(s6, d6, ip[8]).icmpv6_echo_request(from, to).write(&mut out, &payload).unwrap(),
            }
            if tag {
                let [t0, t1] = from.to_be_bytes();
                out.splice(12..12, [0x81, 0, t0, t1]);
            }
            out
        },
    )
}

/// Valid frames with a few bytes changed and cut anywhere.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (
        valid(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(mut frame, changes, end, cut)| {
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if cut {
                frame.truncate(end.index(frame.len()) + 1);
            }
            frame
        })
}

fn agree(frame: &[u8], base: u32) -> Result<bool, TestCaseError> {
    let mut quick: Words = [0; 16];
    let mut vector = [0; VECTOR];
    let parsed = parse(&frame, base, 0, &mut vector);
    let Some(l3) = key::of_frame(&frame, base, 0, &mut quick) else { return Ok(false) };
    let layout = parsed.unwrap();
    let mut slow: Words = [0; 16];
    key::of_vector(&vector, &mut slow);
    prop_assert_eq!(quick, slow);
    prop_assert_eq!(layout.l3, l3);
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_fast_key_is_the_parsers_or_none(frame in mutated()) {
        agree(&frame, 0)?;
        let mut behind = vec![0xa5; 58];
        behind.extend(&frame);
        agree(&behind, 58)?;
    }

    #[test]
    fn every_valid_frame_has_a_fast_key(frame in valid()) {
        // A tag of 0x8100 0x8100… cannot occur: the type behind it is IP.
        prop_assert!(agree(&frame, 0)?);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), base in 0..80u32) {
        let mut vector = [0; VECTOR];
        let _ = parse(&bytes.as_slice(), base, 0, &mut vector);
        let mut peer = [0; 10];
        let _ = tunnel::path(&bytes.as_slice(), &mut peer);
        let _ = tunnel::geneve(&bytes.as_slice(), base);
        prop_assert_eq!(bytes.as_slice().load::<4>(u32::MAX), None);
    }

    #[test]
    fn what_is_written_is_read(inner in valid(), vni in 0..1u32 << 24, option in 0..1u32 << 31, six: bool, port: u16) {
        let address = |last: u8| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&[10, 0, 0, last]);
            Address { bytes, family: if six { 6 } else { 4 } }
        };
        let chassis = Chassis { local: address(1), remote: address(2), ttl: 64, ..Chassis::default() };
        let mut out = [0; 64];
        let spec = Inner { len: inner.len() as u32, vni, option, port, tos: 0x12, id: 7 };
        let end = tunnel::write(&mut out, &chassis, &spec) as usize;
        prop_assert_eq!(end as u32, tunnel::outer_len(&chassis));
        let mut frame: Vec<u8> = out.iter().flat_map(|half| half.to_ne_bytes()).take(end).collect();
        frame.extend(&inner);
        let parsed = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        if let Some(etherparse::NetSlice::Ipv4(ip)) = parsed.net {
            prop_assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        }
        let mut peer = [0; 10];
        let at = tunnel::path(&frame.as_slice(), &mut peer).unwrap();
        let read = tunnel::geneve(&frame.as_slice(), at).unwrap();
        prop_assert_eq!((read.vni, read.option, read.inner as usize), (vni, option, end));
        prop_assert_eq!(tunnel::plain(&frame.as_slice(), at), Some(read));
        let words: Vec<u32> = peer.to_vec();
        prop_assert_eq!((words[4], words[9]), (chassis.remote.family, chassis.local.family));
    }
}

#[test]
fn fragments_keep_what_they_carry() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(5, 6)
        .write(&mut frame, b"x")
        .unwrap();
    let read = |frame: &[u8]| {
        let mut v = [0; VECTOR];
        parse(&frame, 0, 0, &mut v).unwrap();
        (v[usize::from(IP_META)] & 0xff, v[usize::from(L4)], v[usize::from(IP_SRC)])
    };
    frame[20..22].copy_from_slice(&[0x20, 0]);
    assert_eq!(read(&frame), (FRAG_ANY, 5 << 16 | 6, 0x0a00_0001), "the first one has ports");
    frame[20..22].copy_from_slice(&[0x20, 9]);
    assert_eq!(read(&frame), (FRAG_ANY | FRAG_LATER, 0, 0x0a00_0001), "a later one has none");
    frame[20..22].copy_from_slice(&[0x40, 0]);
    assert_eq!(read(&frame).0, 0, "don't fragment is no fragment");
}

#[test]
fn a_wrong_length_leaves_ethernet_alone() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(5, 6)
        .write(&mut frame, b"x")
        .unwrap();
    frame[17] += 1;
    let mut v = [0; VECTOR];
    parse(&frame.as_slice(), 0, 0, &mut v).unwrap();
    assert_eq!((v[usize::from(ETH_TYPE)], v[usize::from(IP_META)], v[usize::from(IP_SRC)]), (0x0800, 0, 0));
}
