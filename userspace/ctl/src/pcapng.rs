//! Writing pcapng (draft-ietf-opsawg-pcapng, "PCAP Now Generic"): one section, an interface for each source of packets, packets with comments and
//! verdicts.
//!
//! Blocks are written in the machine's byte order, which the section header tells. Only what Oxbow needs: Section Header, Interface Description, Enhanced
//! Packet.

use std::io::{self, Write};

/// Block types.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// "Byte-Order Magic" of a section header.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Option codes: of every block, of sections, of interfaces, of packets.
const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const EPB_VERDICT: u16 = 7;

/// `if_tsresol`: time stamps in units of 10^-9 s.
const NANOSECONDS: u8 = 9;
/// Kind of an `epb_verdict`: "Linux_eBPF_TC", a TC_ACT_* value of 64 bits.
const VERDICT_TC: u8 = 1;

/// Which way a packet went, seen from the interface (`epb_flags`, bits 0 and 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Not said.
    #[default]
    Unknown = 0,
    /// Came in by it.
    Inbound = 1,
    /// Goes out by it.
    Outbound = 2,
}

/// A packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// Number that [`Writer::interface`] gave.
    pub(crate) interface: u32,
    /// Nanoseconds since the epoch.
    pub(crate) at: u64,
    /// Its first bytes, from the Ethernet header on.
    pub(crate) bytes: &'a [u8],
    /// Its whole length.
    pub(crate) len: u32,
    /// Which way it went.
    pub(crate) direction: Direction,
    /// What people read about it.
    pub(crate) comment: &'a str,
    /// What the program returned: TC_ACT_* (linux/pkt_cls.h).
    pub(crate) verdict: u64,
    /// Packets that were lost before this one.
    pub(crate) lost: u64,
}

/// Writes one section.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    out: W,
    interfaces: u32,
    snapshot: u32,
}

impl<W: Write> Writer<W> {
    /// Begins the section. `snapshot`: no more bytes of a packet are written.
    ///
    /// # Errors
    /// Those of the output.
    pub(crate) fn new(mut out: W, application: &str, snapshot: u32) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_ne_bytes());
        // Version 1.0; the length of the section is not known.
        body.extend(1u16.to_ne_bytes());
        body.extend(0u16.to_ne_bytes());
        body.extend(u64::MAX.to_ne_bytes());
        option(&mut body, SHB_OS, b"Linux");
        option(&mut body, SHB_USERAPPL, application.as_bytes());
        option(&mut body, OPT_END, &[]);
        block(&mut out, SECTION_HEADER, &body)?;
        Ok(Self { out, interfaces: 0, snapshot })
    }

    /// Describes an Ethernet interface; packets name it by the number returned.
    ///
    /// # Errors
    /// Those of the output.
    pub(crate) fn interface(&mut self, name: &str, description: &str) -> io::Result<u32> {
        let mut body = Vec::new();
        body.extend(ETHERNET.to_ne_bytes());
        body.extend(0u16.to_ne_bytes());
        body.extend(self.snapshot.to_ne_bytes());
        option(&mut body, IF_NAME, name.as_bytes());
        option(&mut body, IF_DESCRIPTION, description.as_bytes());
        option(&mut body, IF_TSRESOL, &[NANOSECONDS]);
        option(&mut body, OPT_END, &[]);
        block(&mut self.out, INTERFACE_DESCRIPTION, &body)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// Those of the output.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let bytes = &packet.bytes[..packet.bytes.len().min(self.snapshot as usize)];
        let mut body = Vec::new();
        body.extend(packet.interface.to_ne_bytes());
        body.extend(((packet.at >> 32) as u32).to_ne_bytes());
        body.extend((packet.at as u32).to_ne_bytes());
        body.extend((bytes.len() as u32).to_ne_bytes());
        body.extend(packet.len.to_ne_bytes());
        body.extend(bytes);
        pad(&mut body);
        option(&mut body, OPT_COMMENT, packet.comment.as_bytes());
        option(&mut body, EPB_FLAGS, &(packet.direction as u32).to_ne_bytes());
        if packet.lost != 0 {
            option(&mut body, EPB_DROPCOUNT, &packet.lost.to_ne_bytes());
        }
        option(&mut body, EPB_VERDICT, &[&[VERDICT_TC], packet.verdict.to_ne_bytes().as_slice()].concat());
        option(&mut body, OPT_END, &[]);
        block(&mut self.out, ENHANCED_PACKET, &body)
    }

    /// Hands everything on to whoever reads.
    ///
    /// # Errors
    /// Those of the output.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Blocks and options begin at multiples of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // A comment of more than 64 KiB is no comment.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_ne_bytes());
    body.extend((value.len() as u16).to_ne_bytes());
    body.extend(value);
    pad(body);
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = (body.len() + 12) as u32;
    out.write_all(&[&kind.to_ne_bytes(), &length.to_ne_bytes(), body, &length.to_ne_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Type and body of each block.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let length = word(bytes, 4) as usize;
            assert!(length.is_multiple_of(4) && word(bytes, length - 4) as usize == length);
            all.push((word(bytes, 0), bytes[8..length - 4].to_vec()));
            bytes = &bytes[length..];
        }
        all
    }

    /// Code and value of each option from `at` on, the end left out.
    fn options(body: &[u8], mut at: usize) -> Vec<(u16, Vec<u8>)> {
        let half = |at: usize| u16::from_ne_bytes(body[at..at + 2].try_into().unwrap());
        let mut all = Vec::new();
        while half(at) != OPT_END {
            let length = usize::from(half(at + 2));
            all.push((half(at), body[at + 4..at + 4 + length].to_vec()));
            at += 4 + length.next_multiple_of(4);
        }
        assert_eq!((half(at + 2), at + 4), (0, body.len()), "the options end the block");
        all
    }

    #[test]
    fn a_section_reads_as_it_was_written() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "oxbow", 64).unwrap();
        assert_eq!(writer.interface("vm1", "on sw0").unwrap(), 0);
        assert_eq!(writer.interface("vm22", "").unwrap(), 1);
        let at = 1_700_000_000_123_456_789;
        let packet = Packet {
            interface: 1,
            at,
            bytes: &[7; 61],
            len: 1500,
            direction: Direction::Inbound,
            comment: "dropped",
            verdict: 2,
            lost: 3,
        };
        writer.packet(&packet).unwrap();
        writer.packet(&Packet { bytes: &[8; 100], len: 100, lost: 0, ..packet }).unwrap();
        writer.flush().unwrap();
        let all = blocks(&file);
        let kinds: Vec<u32> = all.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            kinds,
            [SECTION_HEADER, INTERFACE_DESCRIPTION, INTERFACE_DESCRIPTION, ENHANCED_PACKET, ENHANCED_PACKET]
        );
        assert_eq!((word(&all[0].1, 0), options(&all[0].1, 16)[1].1.as_slice()), (BYTE_ORDER, b"oxbow".as_slice()));
        assert_eq!((word(&all[2].1, 0), word(&all[2].1, 4)), (u32::from(ETHERNET), 64));
        assert_eq!(
            options(&all[2].1, 8),
            [(IF_NAME, b"vm22".to_vec()), (IF_DESCRIPTION, vec![]), (IF_TSRESOL, vec![9])]
        );
        let first = &all[3].1;
        assert_eq!(u64::from(word(first, 4)) << 32 | u64::from(word(first, 8)), at);
        assert_eq!((word(first, 0), word(first, 12), word(first, 16)), (1, 61, 1500));
        assert_eq!(&first[20..81], [7; 61]);
        let verdict = [&[1], 2u64.to_ne_bytes().as_slice()].concat();
        assert_eq!(
            options(first, 84),
            [
                (OPT_COMMENT, b"dropped".to_vec()),
                (EPB_FLAGS, 1u32.to_ne_bytes().to_vec()),
                (EPB_DROPCOUNT, 3u64.to_ne_bytes().to_vec()),
                (EPB_VERDICT, verdict),
            ]
        );
        // Never more bytes than the interface says.
        assert_eq!((word(&all[4].1, 12), word(&all[4].1, 16)), (64, 100));
    }
}
