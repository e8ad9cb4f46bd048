//! What a frame on the underlay is, by RFC 791, 768, 8200, 8926 and OVN's option: written apart from the programs' parser, to judge it.

use oxbow_abi::reason::Reason;
use oxbow_abi::topology::{GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, GENEVE_PORT};
use oxbow_pipeline::ir::{DatapathKey, PortKey};
use oxbow_pipeline::reference::Arrival;
use std::net::IpAddr;

/// What a frame on the underlay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outer {
    /// Not for the tunnel endpoint: the host's network stack has it.
    Host,
    /// For the tunnel endpoint, which refuses it.
    Refused(Reason),
    /// A tunnelled frame.
    Inner(Arrival, Vec<u8>),
}

/// Options that a Geneve header may carry at most (ebpf/DESIGN.md).
const OPTIONS: usize = 16;

/// A reader that knows where the frame ends.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn half(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }
}

/// Reads a frame from the underlay. `ours`: our tunnel addresses; `peers`: those of the other hypervisors.
///
/// Lengths in the outer headers are not compared with the frame's: what Ethernet's checksum let through ends where it ends.
#[must_use]
pub fn read(frame: &[u8], ours: &[IpAddr], peers: &[IpAddr]) -> Outer {
    let Some((source, destination, geneve)) = udp_to_geneve(&Bytes(frame)) else { return Outer::Host };
    if !ours.contains(&destination) {
        return Outer::Host;
    }
    if !peers.iter().any(|peer| *peer == source && peer.is_ipv4() == destination.is_ipv4()) {
        return Outer::Refused(Reason::UnknownPeer);
    }
    match tunnelled(frame, geneve) {
        Some((arrival, inner)) => Outer::Inner(arrival, inner.to_vec()),
        None => Outer::Refused(Reason::BadTunnelHeader),
    }
}

/// Source, destination and where the Geneve header begins, of a whole datagram to Geneve's port.
fn udp_to_geneve(bytes: &Bytes<'_>) -> Option<(IpAddr, IpAddr, usize)> {
    let (source, destination, udp) = match bytes.half(12)? {
        0x0800 => {
            let first = *bytes.0.get(14)?;
            let header = usize::from(first & 15) * 4;
            let whole = bytes.half(20)? & 0x3fff == 0;
            if first >> 4 != 4 || header < 20 || !whole || *bytes.0.get(23)? != 17 {
                return None;
            }
            let address = |at| Some(IpAddr::from(bytes.word(at)?.to_be_bytes()));
            (address(26)?, address(30)?, 14 + header)
        }
        0x86dd => {
            if *bytes.0.get(20)? != 17 {
                return None;
            }
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(bytes.0.get(at..at + 16)?).ok()?));
            (address(22)?, address(38)?, 54)
        }
        _ => return None,
    };
    (bytes.half(udp + 2)? == GENEVE_PORT).then_some((source, destination, udp + 8))
}

/// The Geneve header at `at`: `None` for one that is not OVN's.
fn tunnelled(frame: &[u8], at: usize) -> Option<(Arrival, &[u8])> {
    let bytes = Bytes(frame);
    let first = bytes.word(at)?;
    let (version, options, control, protocol) =
        (first >> 30, (first >> 24 & 0x3f) as usize * 4, first >> 23 & 1, first & 0xffff);
    if version != 0 || control != 0 || protocol != 0x6558 {
        return None;
    }
    let network = bytes.word(at + 4)? >> 8;
    let end = at + 8 + options;
    let (mut option, mut next, mut seen) = (None, at + 8, 0);
    while next < end {
        seen += 1;
        let (class, kind) = (bytes.half(next)?, *frame.get(next + 2)?);
        let length = usize::from(frame.get(next + 3)? & 0x1f) * 4;
        if class == GENEVE_OVN_CLASS && kind == GENEVE_OVN_TYPE {
            if length != 4 {
                return None;
            }
            option = Some(bytes.word(next + 4)?);
        } else if kind & 0x80 != 0 {
            // Critical, and unknown (RFC 8926, section 3.5).
            return None;
        }
        next += 4 + length;
    }
    let ports = option.filter(|_| next == end && seen <= OPTIONS)?;
    let arrival = Arrival::Tunnel {
        datapath: DatapathKey(network),
        inport: PortKey(ports >> 16 & 0x7fff),
        outport: PortKey(ports & 0xffff),
    };
    Some((arrival, frame.get(end..).unwrap_or_default()))
}
