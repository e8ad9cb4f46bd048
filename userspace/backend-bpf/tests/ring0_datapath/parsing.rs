//! The parser in the kernel, seen through what a rule can match: the same as on the host, for every packet type cut at every byte.

use oxbow_abi::field::{
    ARP_OP, ETH_DST, ETH_SRC, ETH_TYPE, HW_DST, HW_SRC, IP_DST, IP_META, IP_SRC, IP6_LABEL, L4, ND_TARGET, TCP_FLAGS,
};
use oxbow_abi::op::{self, Op};
use oxbow_abi::stats::total;
use oxbow_wire::parse::{VECTOR, parse};

use crate::packets::{arp, ping4, ping6, solicitation, tagged, tcp4, tcp6, udp4, udp6};
use crate::rig::{REDIRECT, output};
use crate::tunnels::{receiver, tunnelled};

/// Words that are shown, two for each frame: they are moved into the destination address.
const SHOWN: [u8; 14] = [
    ETH_TYPE,
    IP_META,
    IP_SRC,
    IP_SRC + 3,
    IP_DST,
    IP_DST + 3,
    L4,
    TCP_FLAGS,
    ND_TARGET,
    ND_TARGET + 3,
    HW_SRC,
    HW_DST + 1,
    ARP_OP,
    IP6_LABEL,
];

fn frames() -> Vec<Vec<u8>> {
    let mut fragment = udp4(1, 2, b"first");
    fragment[20] = 0x20;
    let mut later = udp4(1, 2, b"later");
    later[21] = 7;
    let mut options = udp4(1, 2, &[0; 16]);
    options[14] = 0x47;
    // Hop-by-hop, then destination options, then UDP.
    let mut extended = udp6(1, 2, b"");
    extended[20] = 0;
    extended.splice(54..54, [60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]);
    extended[19] += 16;
    let mut six = udp6(1, 2, b"fragment");
    six[20] = 44;
    six.splice(54..54, [17, 0, 0, 8, 0, 0, 0, 1]);
    six[19] += 8;
    let mut llc = udp4(1, 2, b"");
    llc.splice(12..14, [0, 36, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]);
    let mut snapless = udp4(1, 2, b"");
    snapless[12..14].copy_from_slice(&[0, 30]);
    vec![
        udp4(0x1234, 0x5678, b"payload"),
        tcp4(1, 2, b""),
        ping4(),
        udp6(1, 2, b""),
        tcp6(1, 2, b""),
        ping6(),
        arp(),
        solicitation(),
        tagged(&udp4(1, 2, b""), 0x2005),
        tagged(&tagged(&tcp6(1, 2, b""), 5), 6),
        fragment,
        later,
        options,
        extended,
        six,
        llc,
        snapless,
    ]
}

/// The frames are inner frames of a tunnel, because BPF_PROG_TEST_RUN itself refuses an IP frame without a whole IP header.
#[test]
fn every_packet_type_cut_at_every_byte_is_parsed_as_on_the_host() {
    for words in SHOWN.chunks(2) {
        let [a, b] = *words else { unreachable!() };
        let (mut rig, underlay) = receiver();
        let mov = |dst, src| Op { code: op::MOVE, dst, src, a: !0, ..Op::default() };
        // The upper half of an address has only 16 bits: both words go where there are 32.
        rig.rule((1, 0), 1, &[], &[mov(ETH_DST + 1, a), mov(ETH_SRC + 1, b), output()], 1);
        rig.guard(1, 9);
        for frame in frames() {
            for len in 14..=frame.len() {
                let cut = &frame[..len];
                let mut vector = [0; VECTOR];
                parse(&cut, 0, 0, &mut vector).unwrap();
                let ran = rig.underlay_run(underlay, &tunnelled(cut));
                assert_eq!(ran.action, REDIRECT, "{cut:02x?} {:?}", rig.all_drops());
                let word = |at: usize| u32::from_be_bytes(ran.data[at..at + 4].try_into().unwrap());
                let shown = [word(2), word(8)];
                assert_eq!(shown, [vector[usize::from(a)], vector[usize::from(b)]], "words {a} and {b} of {cut:02x?}");
            }
        }
        assert_eq!(rig.total(total::CACHE_HIT), 0);
    }
}
