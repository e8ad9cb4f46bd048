//! `oxbow trace` is right: for every pair of ports and every kind of packet, what it says is what the wire does, byte for byte, on whichever hypervisor it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_report::drops::Drops;
use oxbow_report::trace::{End, Trace};
use oxbow_testkit::frames::Frames;
use oxbow_testkit::vif::GUEST_DEVICE;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, VifSpec, wait_until};
use oxbow_tests::cards::{BROADCAST, Card, everybody_is_heard, mac_text};

/// Hypervisor, number, and whether its addresses are known (else it is the port of all unknown ones).
const PORTS: [(&str, usize, u8, bool); 5] =
    [("vm1", 0, 1, true), ("vm2", 0, 2, true), ("vm3", 1, 3, true), ("vm4", 1, 4, false), ("vm5", 2, 5, true)];
/// A nested port: its parent's place in [`PORTS`], number, VLAN id.
const NESTED: (&str, usize, u8, u16) = ("kid", 1, 8, 7);
/// A port that is bound nowhere.
const AWAY: u8 = 6;
/// An address that nobody has.
const NOBODY: u8 = 0x77;

fn mac(host: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, host]
}

fn ip4(host: u8) -> [u8; 4] {
    Ipv4Addr::new(10, 0, 0, host).octets()
}

fn ip6(host: u8) -> [u8; 16] {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).octets()
}

/// Port security for known addresses, an ACL against TCP to port 23 at the sender and one against port 24 at the receiver, DHCP for vm1.
fn build(cloud: &mut Cloud) -> Result<Vec<Card>> {
    cloud.nbctl("ls-add sw0")?;
    cloud
        .nbctl("acl-add sw0 from-lport 1001 'tcp.dst == 23' drop -- acl-add sw0 to-lport 1001 'tcp.dst == 24' drop")?;
    let known = |port: &str, host: u8| {
        let addresses =
            format!("'{} {} {}'", mac_text(mac(host)), Ipv4Addr::from(ip4(host)), Ipv6Addr::from(ip6(host)));
        format!(
            "lsp-add sw0 {port} -- lsp-set-addresses {port} {addresses} -- lsp-set-port-security {port} {addresses}"
        )
    };
    for (port, _, host, is_known) in PORTS {
        match is_known {
            true => cloud.nbctl(&known(port, host))?,
            false => cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} unknown"))?,
        };
    }
    cloud.nbctl(&known("away", AWAY))?;
    let (name, parent, host, tag) = NESTED;
    let nested = format!("lsp-add sw0 {name} {} {tag}", PORTS[parent].0);
    cloud.nbctl(&known(name, host).replace(&format!("lsp-add sw0 {name}"), &nested))?;
    let options = cloud.nbctl("create DHCP_Options cidr=10.0.0.0/24 options:server_id=10.0.0.254 options:server_mac=02:00:00:00:00:fe options:lease_time=3600")?;
    cloud.nbctl(&format!("lsp-set-dhcpv4-options vm1 {}", options.trim()))?;
    let mut cards = Vec::new();
    for (port, hypervisor, host, _) in PORTS {
        cloud.create_vif(hypervisor, VifSpec::new(port, &mac_text(mac(host)), &[]))?;
        // Guests that say nothing by themselves.
        cloud.vif(port)?.guest().run("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        cloud.plug(port)?;
        cloud.wait_up(port)?;
        cards.push(Card::of(cloud, port, hypervisor, mac(host))?);
    }
    cloud.wait_up(NESTED.0)?;
    cloud.sync()?;
    everybody_is_heard(&cards.iter().collect::<Vec<_>>())?;
    wait_until("the address of vm4 is in the FDB", PATIENCE, || {
        let rows = cloud.sbctl("--bare --columns=mac list FDB")?;
        Ok(Look::when(rows.contains(&mac_text(mac(4))), || rows))
    })?;
    cloud.sync()?;
    Ok(cards)
}

fn ether(to: [u8; 6], from: u8, kind: u16) -> Vec<u8> {
    [to.as_slice(), &mac(from), &kind.to_be_bytes()].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// RFC 791.
fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut header =
        [&[0x45, 0], length.to_be_bytes().as_slice(), &[0, 0, 0, 0, 64, protocol, 0, 0], &from, &to].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

/// An echo request, RFC 792.
fn echo(number: u16) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0, 0, 1], number.to_be_bytes().as_slice(), &[0x5a; 40]].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// A first segment, RFC 9293, and a datagram, RFC 768; checksums are the receiver's business.
fn tcp(port: u16, number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let ports = [40_000u16.to_be_bytes(), port.to_be_bytes()].concat();
    [ports.as_slice(), &[0, 0, high, low, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]].concat()
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    [&from.to_be_bytes(), &to.to_be_bytes(), &length.to_be_bytes(), [0, 0].as_slice(), payload].concat()
}

/// RFC 826. The number is in the trailer.
fn arp(from: u8, target: u8, number: u16) -> Vec<u8> {
    let mut frame = ether(BROADCAST, from, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    for part in [mac(from).as_slice(), &ip4(from), &[0; 6], &ip4(target)] {
        frame.extend(part);
    }
    frame.extend([0; 16]);
    frame.extend(number.to_be_bytes());
    frame
}

/// A neighbor solicitation, RFC 4861.
fn solicitation(from: u8, target: u8, number: u16) -> Vec<u8> {
    let target = ip6(target);
    let group = [&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff], &target[13..]].concat();
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0], target.as_slice(), &[1, 1], &mac(from)].concat();
    let pseudo = [ip6(from).as_slice(), &group, &[0, 0, 0, message.len() as u8, 0, 0, 0, 58], &message].concat();
    message[2..4].copy_from_slice(&checksum(&pseudo));
    let mut frame = ether([0x33, 0x33, group[12], group[13], group[14], group[15]], from, 0x86dd);
    frame.extend([0x60, 0]);
    // The flow label tells them apart.
    frame.extend(number.to_be_bytes());
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend([ip6(from).as_slice(), &group, &message].concat());
    frame
}

/// On the wire a nested port's tag, and any other's control information, as it is given.
fn pushed(mut frame: Vec<u8>, tci: u16) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0x00].into_iter().chain(tci.to_be_bytes()));
    frame
}

/// A packet of a port. No two frames are alike.
struct Packet {
    what: String,
    /// Who sends it.
    port: &'static str,
    /// On which card, and under which VLAN id if it is a nested port.
    card: usize,
    tag: Option<u16>,
    frame: Vec<u8>,
}

impl Packet {
    /// As it leaves the guest.
    fn sent(&self) -> Vec<u8> {
        match self.tag {
            Some(tag) => pushed(self.frame.clone(), tag),
            None => self.frame.clone(),
        }
    }
}

/// Every kind, from each port, and towards each other port where it has a receiver.
fn packets() -> Vec<Packet> {
    let mut all: Vec<Packet> = Vec::new();
    let mut number = 0u16;
    let plain = PORTS.into_iter().enumerate().map(|(card, (name, _, host, _))| (name, card, host, None));
    let senders: Vec<_> = plain.chain([(NESTED.0, NESTED.1, NESTED.2, Some(NESTED.3))]).collect();
    for (name, card, host, tag) in senders.iter().copied() {
        let mut add = |what: &str, to: &str, make: &dyn Fn(u16) -> Vec<u8>| {
            number += 1;
            all.push(Packet { what: format!("{what}, {name} -> {to}"), port: name, card, tag, frame: make(number) });
        };
        let ip = |to: [u8; 6], target: u8, protocol, payload: &[u8]| {
            [ether(to, host, 0x0800), ipv4(protocol, ip4(host), ip4(target), payload)].concat()
        };
        let others = senders.iter().filter(|port| port.2 != host).map(|port| (port.0, port.2));
        for (to, target) in others.chain([("away", AWAY), (name, host)]) {
            let there = mac(target);
            add("unicast", to, &|n| ip(there, target, 1, &echo(n)));
            add("TCP", to, &|n| ip(there, target, 6, &tcp(80, n)));
            add("TCP that the sender's ACL forbids", to, &|n| ip(there, target, 6, &tcp(23, n)));
            add("TCP that the receiver's ACL forbids", to, &|n| ip(there, target, 6, &tcp(24, n)));
            add("IPv6", to, &|n| {
                let payload = udp(1, 2, &n.to_be_bytes());
                let head = [[0x60, 0, 0, 0].as_slice(), &(payload.len() as u16).to_be_bytes(), &[17, 64]].concat();
                [ether(there, host, 0x86dd), head, ip6(host).to_vec(), ip6(target).to_vec(), payload].concat()
            });
            add("another source address", to, &|n| {
                [ether(there, host, 0x0800), ipv4(1, ip4(99), ip4(target), &echo(n))].concat()
            });
            add("another source MAC", to, &|n| {
                [ether(there, 99, 0x0800), ipv4(1, ip4(host), ip4(target), &echo(n))].concat()
            });
            add("a header length that is none", to, &|n| {
                let mut frame = ip(there, target, 1, &echo(n));
                frame[14] = 0x42;
                frame
            });
            add("longer by its header than it is", to, &|n| {
                let mut frame = ip(there, target, 1, &echo(n));
                frame[16] = 0x05;
                frame
            });
            add("a header that is cut off", to, &|n| {
                [ip(there, target, 1, &echo(n))[..28].to_vec(), n.to_be_bytes().to_vec()].concat()
            });
            add("a VLAN tag", to, &|n| pushed(ip(there, target, 1, &echo(n)), 0x2000 | (100 + n)));
            add("ARP", to, &|n| arp(host, target, n));
            add("neighbor solicitation", to, &|n| solicitation(host, target, n));
        }
        let experimental =
            |to: [u8; 6], n: u16| [ether(to, host, 0x88b6), n.to_be_bytes().to_vec(), vec![0; 44]].concat();
        add("unknown unicast", "nobody", &|n| ip(mac(NOBODY), NOBODY, 1, &echo(n)));
        add("broadcast", "all", &|n| ip(BROADCAST, 255, 1, &echo(n)));
        add("broadcast, TCP that the receiver's ACL forbids", "all", &|n| ip(BROADCAST, 255, 6, &tcp(24, n)));
        add("multicast", "all", &|n| ip([1, 0, 0x5e, 0, 0, 0xfb], 251, 17, &udp(5353, 5353, &n.to_be_bytes())));
        add("no IP at all", "all", &|n| experimental(BROADCAST, n));
        add("reserved by IEEE 802.1D", "all", &|n| experimental([1, 0x80, 0xc2, 0, 0, 0x0e], n));
        add("an LLC frame", "all", &|n| {
            [ether(BROADCAST, host, 40), vec![0x42, 0x42, 3], n.to_be_bytes().to_vec(), vec![0; 35]].concat()
        });
        add("a source address of a group", "all", &|n| {
            let mut frame = experimental(BROADCAST, n);
            frame[6] |= 1;
            frame
        });
        add("ARP", "nobody", &|n| arp(host, NOBODY, n));
        add("neighbor solicitation", "nobody", &|n| solicitation(host, NOBODY, n));
        add("DHCP discovery", "all", &|n| {
            let mut message = vec![0; 240];
            message[..4].copy_from_slice(&[1, 1, 6, 0]);
            message[4..6].copy_from_slice(&n.to_be_bytes());
            message[28..34].copy_from_slice(&mac(host));
            message[236..].copy_from_slice(&[99, 130, 83, 99]);
            message.extend([53, 1, 1, 255]);
            let datagram = udp(68, 67, &message);
            [ether(BROADCAST, host, 0x0800), ipv4(17, [0; 4], [255; 4], &datagram)].concat()
        });
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn trace(host: &Hypervisor, port: &str, frame: &[u8]) -> Result<Trace> {
    let (status, text) = host.oxbow(&["trace", port, &format!("frame:{}", hex(frame)), "--format", "json"])?;
    ensure!(status == Some(0), "{status:?}: {text}");
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// What of the ends every hypervisor must say alike: devices and who says it differ.
fn alike(ends: &[End]) -> Vec<End> {
    let mut all: Vec<End> = ends.to_vec();
    for end in &mut all {
        end.verified = false;
        end.fate.device = None;
    }
    all.sort();
    all
}

/// What is to come to each port: frames, each with how often.
type Deliveries = BTreeMap<String, BTreeMap<Vec<u8>, usize>>;

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2).context("an odd number of digits"));
    pairs.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect()
}

/// Drops by reason, over all hypervisors.
fn drops(cloud: &Cloud) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for host in cloud.hypervisors() {
        let report: Drops = host.report("oxbow/drops")?;
        for reason in report.reasons {
            *all.entry(reason.reason).or_default() += reason.packets;
        }
    }
    Ok(all)
}

/// Takes what comes until `enough`.
fn take(
    frames: &Frames,
    got: &mut BTreeMap<Vec<u8>, usize>,
    mut enough: impl FnMut(&BTreeMap<Vec<u8>, usize>) -> bool,
) -> Result<bool> {
    while !enough(got) {
        match frames.receive(PATIENCE)? {
            Some(received) => *got.entry(received.frame).or_default() += 1,
            None => return Ok(false),
        }
    }
    Ok(true)
}

#[test]
fn what_trace_says_is_what_the_wire_does_for_every_port_and_packet() -> Result<()> {
    Cloud::builder().hypervisors(3, Node::Oxbow).run(|cloud| {
        let cards = build(cloud)?;
        let listeners: Vec<Frames> =
            PORTS.iter().map(|port| Frames::open(cloud.vif(port.0)?.guest(), GUEST_DEVICE)).collect::<Result<_>>()?;
        let packets = packets();
        let mut expected = Deliveries::new();
        let mut expected_drops: BTreeMap<String, u64> = BTreeMap::new();
        let mut kinds: BTreeSet<String> = BTreeSet::new();
        let mut verified = 0;
        for (index, Packet { what, port, card, frame, .. }) in packets.iter().enumerate() {
            let home = PORTS[*card].1;
            let told = trace(&cloud.hypervisors()[home], port, frame).with_context(|| what.clone())?;
            ensure!(told.agrees() && told.chassis == format!("hv{}", home + 1), "{what}:\n{told}");
            let no_test_run =
                told.programs.why_not.as_ref().is_some_and(|why| why.contains("end within their IP header"));
            ensure!(told.programs.ran != (no_test_run && what.contains("cut off")), "{what}:\n{told}");
            ensure!(!told.ends.is_empty(), "{what} comes to nothing:\n{told}");
            // Another hypervisor says the same, and its own programs agree where the packet comes to it.
            let arrives: Vec<usize> = (0..3)
                .filter(|host| told.arrivals.iter().any(|one| one.chassis == format!("hv{}", host + 1)))
                .collect();
            if let Some(elsewhere) =
                arrives.get(index % arrives.len().max(1)).copied().or((index % 4 == 0).then_some((home + 1) % 3))
            {
                let seen = trace(&cloud.hypervisors()[elsewhere], port, frame).with_context(|| what.clone())?;
                let us = format!("hv{}", elsewhere + 1);
                ensure!(!seen.programs.ran && seen.agrees(), "{what}, from {us}:\n{seen}");
                ensure!(alike(&told.ends) == alike(&seen.ends), "{what}: hv{} says\n{told}{us} says\n{seen}", home + 1);
                ensure!(
                    seen.arrivals.iter().all(|arrival| arrival.programs.ran == (arrival.chassis == us)),
                    "{what}:\n{seen}"
                );
                verified += usize::from(seen.arrivals.iter().any(|arrival| arrival.programs.ran));
            }
            for End { fate, .. } in &told.ends {
                kinds.insert(format!("{} {}", fate.fate, fate.reason.clone().unwrap_or_default()));
                match (fate.fate.as_str(), &fate.outport, &fate.frame, &fate.reason) {
                    ("deliver", Some(outport), Some(frame), _) => {
                        let device = if outport == NESTED.0 { PORTS[NESTED.1].0 } else { outport };
                        *expected.entry(device.to_owned()).or_default().entry(bytes(frame)?).or_default() += 1;
                    }
                    ("drop", _, _, Some(reason)) => *expected_drops.entry(reason.clone()).or_default() += 1,
                    _ => bail!("{what} ends as {fate}:\n{told}"),
                }
            }
        }
        // The test sees what it means to see.
        for kind in
            ["deliver ", "drop logical-flow-drop", "drop same-port", "drop port-not-bound", "drop unsupported-action"]
        {
            ensure!(kinds.contains(kind), "no packet ends as \"{kind}\": {kinds:?}");
        }
        ensure!(verified >= packets.len() / 4, "{verified} arrivals of {} packets by the programs", packets.len());

        // Traces have changed nothing, and now they are held to the wire.
        while listeners.iter().any(|frames| frames.receive(Duration::ZERO).is_ok_and(|got| got.is_some())) {}
        let before = drops(cloud)?;
        for packet in &packets {
            cards[packet.card].send(&packet.sent()).with_context(|| packet.what.clone())?;
        }
        let mut wrong = Vec::new();
        let name = |frame: &[u8]| {
            let packet = packets.iter().find(|packet| packet.frame == frame || packet.sent() == frame);
            packet.map_or_else(|| hex(frame), |packet| packet.what.clone())
        };
        let mut all = Vec::new();
        for ((port, ..), frames) in PORTS.iter().zip(&listeners) {
            let wanted = expected.remove(*port).unwrap_or_default();
            let mut got = BTreeMap::new();
            let has_all = |got: &BTreeMap<Vec<u8>, usize>| wanted.iter().all(|(frame, n)| got.get(frame) >= Some(n));
            // What is missing when nothing comes any more is named below.
            take(frames, &mut got, has_all)?;
            all.push((port, wanted, got));
        }
        ensure!(expected.is_empty(), "nobody is there to receive {expected:?}");
        let delta = || -> Result<BTreeMap<String, u64>> {
            let now = drops(cloud)?.into_iter();
            let grown = now.map(|(reason, n)| (reason.clone(), n - before.get(&reason).copied().unwrap_or(0)));
            Ok(grown.filter(|(_, n)| *n != 0).collect())
        };
        // Everything that was sent before these has come to its end when these have come.
        for (index, card) in cards.iter().enumerate() {
            card.send(&card.numbered(BROADCAST, index as u32, 60))?;
        }
        for (index, ((port, wanted, mut got), frames)) in all.into_iter().zip(&listeners).enumerate() {
            let last: Vec<Vec<u8>> = (0..cards.len())
                .filter(|from| *from != index)
                .map(|from| cards[from].numbered(BROADCAST, from as u32, 60))
                .collect();
            let ended = take(frames, &mut got, |got| last.iter().all(|frame| got.contains_key(frame)))?;
            ensure!(ended, "{port} does not hear the end of all");
            // To the nested port they come as well, its parent's own too.
            let ends: Vec<Vec<u8>> =
                (0..cards.len()).map(|from| cards[from].numbered(BROADCAST, from as u32, 60)).collect();
            got.retain(|frame, _| !ends.iter().any(|end| frame == end || *frame == pushed(end.clone(), NESTED.3)));
            for (frame, times) in &wanted {
                let came = got.remove(frame).unwrap_or(0);
                if came != *times {
                    wrong.push(format!("{port} received {came} times instead of {times}: {}", name(frame)));
                }
            }
            wrong.extend(got.iter().map(|(frame, times)| format!("{port} received {times} times: {}", name(frame))));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        // Those last broadcasts are not sent back to where they came from.
        *expected_drops.entry("same-port".to_owned()).or_default() += cards.len() as u64;
        wait_until("as many drops for each reason as trace told", PATIENCE, || {
            let delta = delta()?;
            Ok(Look::when(delta == expected_drops, || format!("{delta:?} instead of {expected_drops:?}")))
        })
    })
}

/// The example of README: the network that it tells of, the command that it shows, and the answer, but for the flows' identifiers.
#[test]
fn what_readme_shows_is_what_is_printed() -> Result<()> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let example =
        readme.split("```").find(|block| block.starts_with("\n# oxbow trace vm1 ")).context("README has no example")?;
    let (command, answer) = example.trim_start().split_once('\n').context("the example is a line")?;
    let packet = command.split('\'').nth(1).context("the example's packet is not quoted")?;
    Cloud::builder().hypervisors(2, Node::Oxbow).run(|cloud| {
        cloud.nbctl("ls-add sw0")?;
        for host in 1..=3 {
            let addresses = format!("'{} 10.0.0.{host}'", mac_text(mac(host)));
            cloud.nbctl(&format!(
                "lsp-add sw0 vm{host} -- lsp-set-addresses vm{host} {addresses} -- lsp-set-port-security vm{host} {addresses}"
            ))?;
        }
        cloud.nbctl("acl-add sw0 to-lport 1001 'outport == \"vm3\" && tcp.dst == 5432' drop")?;
        for (port, hypervisor, host) in [("vm1", 0, 1), ("vm2", 0, 2), ("vm3", 1, 3)] {
            cloud.add_vif(hypervisor, VifSpec::new(port, &mac_text(mac(host)), &[&format!("10.0.0.{host}/24")]))?;
        }
        cloud.sync()?;
        // The way to the other hypervisor is known afterwards.
        oxbow_testkit::probe::ping(cloud.vif("vm1")?.guest(), "10.0.0.3")?;
        let (status, printed) = cloud.hypervisors()[0].oxbow(&["trace", "vm1", packet])?;
        let plain = |text: &str| -> Vec<String> {
            text.trim().lines().map(|line| line.split(", uuid ").next().unwrap_or_default().to_owned()).collect()
        };
        ensure!(status == Some(0) && plain(&printed) == plain(answer), "README shows\n{answer}\nand it is\n{printed}");
        let (_, there) = cloud.hypervisors()[1].oxbow(&["trace", "vm1", packet])?;
        ensure!(there.contains("ls_out_acl/2001 [reference and programs]"), "{there}");
        Ok(())
    })
}
