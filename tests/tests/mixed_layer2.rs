//! Oxbow and stock hypervisors in one cloud, two of each, under either northd: who receives which frame, byte for byte.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, wait_until};
use oxbow_tests::cards::{self, BROADCAST, Card, Sending, mac_text};

oxbow_tests::on_every_backend! {
    under_stock_northd,
    under_our_northd,
}

/// Index of the hypervisor: 0 and 1 are Oxbow's, 2 and 3 stock.
const HYPERVISORS: [usize; 4] = [0, 1, 2, 3];

/// Two cards a hypervisor with known addresses.
fn known(hypervisor: usize, number: usize) -> (String, [u8; 6], String, String) {
    let host = hypervisor * 10 + number + 11;
    let name = format!("vm{}{}", hypervisor + 1, number + 1);
    let mac = [0, 0, 0, 0, hypervisor as u8 + 1, number as u8 + 1];
    (name, mac, format!("10.0.0.{host}"), format!("fd00::{host:x}"))
}

/// Ports with address `unknown`, and the address that nobody but their guest knows: one of each kind of hypervisor.
const UNKNOWN: [(&str, usize, [u8; 6]); 2] = [("any1", 0, [0, 0, 0, 0, 0xa, 1]), ("any3", 2, [0, 0, 0, 0, 0xa, 3])];

/// The cards, those with known addresses first: two for each hypervisor in order, then those of [`UNKNOWN`].
fn build(cloud: &mut Cloud) -> Result<Vec<Card>> {
    cloud.nbctl("ls-add sw0")?;
    for hypervisor in HYPERVISORS {
        for number in 0..2 {
            let (name, mac, ipv4, ipv6) = known(hypervisor, number);
            let mac = mac_text(mac);
            cloud.nbctl(&format!("lsp-add sw0 {name} -- lsp-set-addresses {name} '{mac} {ipv4} {ipv6}'"))?;
        }
    }
    for (name, ..) in UNKNOWN {
        cloud.nbctl(&format!("lsp-add sw0 {name} -- lsp-set-addresses {name} unknown"))?;
    }
    let mut all = Vec::new();
    for hypervisor in HYPERVISORS {
        for number in 0..2 {
            let (name, mac, ..) = known(hypervisor, number);
            all.push(Card::plug(cloud, &name, hypervisor, mac)?);
        }
    }
    for (name, hypervisor, mac) in UNKNOWN {
        all.push(Card::plug(cloud, name, hypervisor, mac)?);
    }
    cloud.sync()?;
    cards::everybody_is_heard(&all.iter().collect::<Vec<_>>())?;
    Ok(all)
}

/// Shortest frame, an odd length, one that fits no power of two, the longest.
const LENGTHS: [usize; 4] = [60, 61, 777, 1514];

/// Numbers frames through the whole story.
struct Story<'a> {
    cards: &'a [&'a Card],
    next: u32,
}

impl Story<'_> {
    fn sending(&mut self, what: &str, from: usize, to: [u8; 6], receivers: BTreeSet<usize>) -> Vec<Sending> {
        let cards = self.cards;
        LENGTHS
            .iter()
            .map(|length| {
                self.next += 1;
                let frame = cards[from].numbered(to, self.next, *length);
                let what = format!("{what} from {} to {}, {length} bytes", cards[from].port, mac_text(to));
                Sending { what, from, frame, to: receivers.clone() }
            })
            .collect()
    }

    fn unknown_ports(&self, but: usize) -> BTreeSet<usize> {
        (self.cards.len() - UNKNOWN.len()..self.cards.len()).filter(|card| *card != but).collect()
    }

    fn others(&self, but: usize) -> BTreeSet<usize> {
        (0..self.cards.len()).filter(|card| *card != but).collect()
    }

    /// Every card to every known one.
    fn unicast(&mut self) -> Result<()> {
        let cards = self.cards;
        let mut all = Vec::new();
        for from in 0..cards.len() {
            for to in (0..cards.len() - UNKNOWN.len()).filter(|to| *to != from) {
                all.extend(self.sending("unicast", from, cards[to].mac, BTreeSet::from([to])));
            }
        }
        cards::exactly(cards, &all)
    }

    fn flood(&mut self) -> Result<()> {
        let cards = self.cards;
        let mut all = Vec::new();
        for from in 0..cards.len() {
            let others = self.others(from);
            all.extend(self.sending("broadcast", from, BROADCAST, others.clone()));
            // mDNS, all nodes, a group of nobody's.
            for group in [[1, 0, 0x5e, 0, 0, 0xfb], [0x33, 0x33, 0, 0, 0, 1], [1, 2, 3, 4, 5, 6]] {
                all.extend(self.sending("multicast", from, group, others.clone()));
            }
        }
        cards::exactly(cards, &all)
    }

    /// To an address that nobody has: to the ports that said they may have any.
    fn unknown_unicast(&mut self) -> Result<()> {
        let cards = self.cards;
        let mut all = Vec::new();
        for from in 0..cards.len() {
            let receivers = self.unknown_ports(from);
            all.extend(self.sending("unknown unicast", from, [0, 0, 0, 0, 0xee, 0xee], receivers));
        }
        cards::exactly(cards, &all)
    }

    /// Once a card behind an unknown port has spoken, its address is known everywhere.
    fn learned(&mut self, cloud: &Cloud) -> Result<()> {
        let cards = self.cards;
        let first = cards.len() - UNKNOWN.len();
        wait_until("the addresses are in the FDB", PATIENCE, || {
            let rows = cloud.sbctl("--bare --columns=mac list FDB")?;
            Ok(Look::when(UNKNOWN.iter().all(|(.., mac)| rows.contains(&mac_text(*mac))), || rows))
        })?;
        cloud.sync()?;
        let mut all = Vec::new();
        for from in 0..cards.len() {
            for to in (first..cards.len()).filter(|to| *to != from) {
                all.extend(self.sending("learned unicast", from, cards[to].mac, BTreeSet::from([to])));
            }
        }
        cards::exactly(cards, &all)
    }
}

fn address(text: &str) -> Result<Vec<u8>> {
    Ok(match text.parse()? {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    })
}

/// RFC 826.
fn arp(ethernet: [[u8; 6]; 2], operation: u8, sender: ([u8; 6], &[u8]), target: ([u8; 6], &[u8])) -> Vec<u8> {
    let mut frame = ethernet.concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, ip) in [sender, target] {
        frame.extend(mac);
        frame.extend(ip);
    }
    frame
}

/// An IPv6 packet with an ICMPv6 message of neighbour discovery (RFC 4861).
fn nd(ethernet: [[u8; 6]; 2], from: &[u8], to: &[u8], head: [u8; 8], target: &[u8], option: (u8, [u8; 6])) -> Vec<u8> {
    let mut message = head.to_vec();
    message.extend(target);
    message.extend([option.0, 1]);
    message.extend(option.1);
    let length = message.len() as u16;
    let words = [from, to, &[0, 0], &length.to_be_bytes(), &[0, 0, 0, 58], &message].concat();
    let mut sum: u32 = words.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut frame = ethernet.concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(message);
    frame
}

/// Every hypervisor answers for guests of its own, of its kind and of the other kind, in the same bytes.
fn responders(cards: &[Card]) -> Result<()> {
    for from in HYPERVISORS {
        let (_, our_mac, our_ipv4, our_ipv6) = known(from, 0);
        let (our_ipv4, our_ipv6) = (address(&our_ipv4)?, address(&our_ipv6)?);
        let asker = &cards[2 * from];
        ensure!(asker.mac == our_mac, "the cards are in another order");
        for to in HYPERVISORS {
            let (_, mac, ipv4, ipv6) = known(to, 1);
            let (ipv4, ipv6) = (address(&ipv4)?, address(&ipv6)?);
            asker.send(&arp([BROADCAST, our_mac], 1, (our_mac, &our_ipv4), ([0; 6], &ipv4)))?;
            asker.receive_exactly(&arp([our_mac, mac], 2, (mac, &ipv4), (our_mac, &our_ipv4)))?;
            // The solicited-node address and the Ethernet address it maps to.
            let group = [&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff], &ipv6[13..]].concat();
            let group_mac = [0x33, 0x33, group[12], group[13], group[14], group[15]];
            asker.send(&nd(
                [group_mac, our_mac],
                &our_ipv6,
                &group,
                [135, 0, 0, 0, 0, 0, 0, 0],
                &ipv6,
                (1, our_mac),
            ))?;
            // Solicited and overriding.
            asker.receive_exactly(&nd(
                [our_mac, mac],
                &ipv6,
                &our_ipv6,
                [136, 0, 0, 0, 0x60, 0, 0, 0],
                &ipv6,
                (2, mac),
            ))?;
        }
    }
    Ok(())
}

fn story(cloud: &mut Cloud) -> Result<()> {
    let all = build(cloud)?;
    let cards: Vec<&Card> = all.iter().collect();
    let mut story = Story { cards: &cards, next: 0 };
    story.unicast()?;
    story.flood()?;
    story.unknown_unicast()?;
    story.learned(cloud)?;
    responders(&all)
}

fn under_stock_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).hypervisors(2, Node::Stock).run(story)
}

fn under_our_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).hypervisors(2, Node::Stock).run(story)
}
