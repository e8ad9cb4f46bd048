//! The programs' parsers beside the judge's own, on any bytes: what fuzzing and the replay of its corpora run.

use crate::hostile::outer::{self, Outer};
use oxbow_abi::reason::Reason;
use oxbow_backend_bpf::compile::location;
use oxbow_pipeline::ir::{DatapathKey, Field, PortKey};
use oxbow_pipeline::reference::{self, Arrival};
use oxbow_wire::parse::{self, VECTOR};
use oxbow_wire::{key, tunnel};
use std::net::IpAddr;

/// Header fields that both parsers give.
const FIELDS: &[Field] = &[
    Field::EthSrc,
    Field::EthDst,
    Field::EthType,
    Field::VlanTci,
    Field::IpProto,
    Field::IpDscp,
    Field::IpEcn,
    Field::IpTtl,
    Field::IpFrag,
    Field::Ip4Src,
    Field::Ip4Dst,
    Field::Ip6Src,
    Field::Ip6Dst,
    Field::Ip6Label,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    Field::TcpSrc,
    Field::TcpDst,
    Field::TcpFlags,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
    Field::SctpDst,
    Field::Icmp4Type,
    Field::Icmp4Code,
    Field::Icmp6Type,
    Field::Icmp6Code,
    Field::NdTarget,
    Field::NdSll,
    Field::NdTll,
];

/// Extension headers and neighbor discovery options beyond which the programs stop looking ([`parse::EXTENSIONS`], [`parse::ND_OPTIONS`]).
const SHORT: usize = 14 + 4 + 40 + 8 * 8;

/// Whether a field is there at all in a packet with these fields: its words in the vector are shared with others.
fn applies(fields: &reference::Fields, field: Field) -> bool {
    let (eth, proto) = (fields.get(Field::EthType), fields.get(Field::IpProto));
    match field {
        Field::Ip4Src | Field::Ip4Dst => eth == 0x0800,
        Field::Ip6Src | Field::Ip6Dst | Field::Ip6Label => eth == 0x86dd,
        Field::ArpOp | Field::ArpSpa | Field::ArpTpa | Field::ArpSha | Field::ArpTha => matches!(eth, 0x0806 | 0x8035),
        Field::TcpSrc | Field::TcpDst | Field::TcpFlags => proto == 6,
        Field::UdpSrc | Field::UdpDst => proto == 17,
        Field::SctpSrc | Field::SctpDst => proto == 132,
        Field::Icmp4Type | Field::Icmp4Code => eth == 0x0800 && proto == 1,
        Field::Icmp6Type | Field::Icmp6Code | Field::NdTarget | Field::NdSll | Field::NdTll => {
            eth == 0x86dd && proto == 58
        }
        Field::IpProto | Field::IpDscp | Field::IpEcn | Field::IpTtl | Field::IpFrag => matches!(eth, 0x0800 | 0x86dd),
        _ => true,
    }
}

/// A field of the vector, put together from its pieces; `None` for one that it does not carry.
fn of_vector(vector: &[u32; VECTOR], field: Field) -> Option<u128> {
    let pieces = location::pieces(field)?;
    Some(pieces.iter().fold(0, |value, piece| {
        let mask = if piece.width == 32 { u32::MAX } else { (1 << piece.width) - 1 };
        let bits = vector[usize::from(piece.word)] >> piece.shift & mask;
        value | u128::from(bits) << piece.offset
    }))
}

/// Compares the parsers of frames.
///
/// # Panics
/// When they differ.
pub fn frame(frame: &[u8]) {
    let mut vector = [0; VECTOR];
    let ours = parse::parse(&frame, 0, 0, &mut vector);
    let Ok((fields, _)) = reference::parse(frame) else {
        assert_eq!(ours.err(), Some(Reason::Truncated));
        return;
    };
    assert!(ours.is_ok(), "{ours:?}");
    let many = frame.len() > SHORT && fields.get(Field::EthType) == 0x86dd;
    for &field in FIELDS.iter().filter(|field| !many && applies(&fields, **field)) {
        let Some(found) = of_vector(&vector, field) else { continue };
        assert_eq!(found, fields.get(field), "{field:?} of {frame:02x?}");
    }
    let (mut quick, mut slow) = ([0; 16], [0; 16]);
    if key::of_frame(&frame, 0, 0, &mut quick).is_some() {
        key::of_vector(&vector, &mut slow);
        assert_eq!(quick, slow, "the keys of {frame:02x?}");
    }
}

/// Compares the parsers of outer headers.
///
/// # Panics
/// When they differ.
pub fn tunnel(frame: &[u8]) {
    let ours = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])];
    let peers = [IpAddr::from([192, 0, 2, 2]), IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2])];
    let expected = outer::read(frame, &ours, &peers);
    let mut peer = [0; 10];
    let found = match tunnel::path(&frame, &mut peer) {
        None => Outer::Host,
        Some(at) => {
            let address = |at: usize| match peer[at + 4] {
                4 => Some(IpAddr::from(peer[at].to_ne_bytes())),
                6 => {
                    let mut bytes = [0; 16];
                    for (word, bytes) in peer[at..at + 4].iter().zip(bytes.chunks_mut(4)) {
                        bytes.copy_from_slice(&word.to_ne_bytes());
                    }
                    Some(IpAddr::from(bytes))
                }
                _ => None,
            };
            let (local, remote) = (address(0), address(5));
            if !local.is_some_and(|local| ours.contains(&local)) {
                Outer::Host
            } else if !remote.is_some_and(|remote| peers.contains(&remote)) {
                Outer::Refused(Reason::UnknownPeer)
            } else {
                let quick = tunnel::plain(&frame, at);
                let slow = tunnel::geneve(&frame, at);
                assert!(quick.is_none() || quick == slow.ok(), "{quick:?} {slow:?} of {frame:02x?}");
                match slow {
                    Err(reason) => Outer::Refused(reason),
                    Ok(geneve) => Outer::Inner(
                        Arrival::Tunnel {
                            datapath: DatapathKey(geneve.vni),
                            inport: PortKey(geneve.option >> 16 & 0x7fff),
                            outport: PortKey(geneve.option & 0xffff),
                        },
                        frame.get(geneve.inner as usize..).unwrap_or_default().to_vec(),
                    ),
                }
            }
        }
    };
    assert_eq!(found, expected, "{frame:02x?}");
}
