//! The flows of the OpenFlow backend beside those of Debian's ovn-controller: the same Southbound database, the same frames, into two Open vSwitches
//! of each hypervisor.

use anyhow::{Context as _, Result};
use oxbow_agree::bridge::Bridge;
use oxbow_agree::generator::Identity;
use oxbow_agree::{Cloud, Generator, Random, Southbound};
use oxbow_pipeline::ir::{Field, Location};
use oxbow_pipeline::reference::{Arrival, Destination, Reason, parse, run};
use oxbow_testkit::{Central, Netns, Northd};
use std::collections::BTreeMap;

const HYPERVISORS: usize = 2;

/// Switches without what either side leaves to its controller: no port has unknown addresses, so nothing is learned.
const CONTENTS: &[&str] = &[
    "ls-add sw0",
    "lsp-add sw0 a",
    "lsp-set-addresses a '00:00:00:00:00:01 10.0.0.1 fd00::1'",
    "lsp-add sw0 b",
    "lsp-set-addresses b '00:00:00:00:00:02 10.0.0.2 fd00::2'",
    "lsp-set-port-security b '00:00:00:00:00:02 10.0.0.2 fd00::2'",
    "lsp-add sw0 c",
    "lsp-set-addresses c '00:00:00:00:00:03 10.0.0.3'",
    "lsp-add sw0 d",
    "lsp-set-addresses d '00:00:00:00:00:04'",
    "lsp-add sw0 n a 11",
    "lsp-set-addresses n '00:00:00:00:00:05 10.0.0.5'",
    "lsp-add sw0 l",
    "lsp-set-type l localport",
    "lsp-set-addresses l '00:00:00:00:00:06 10.0.0.6'",
    "create Address_Set name=hosts addresses='\"10.0.0.1\",\"10.0.0.2\",\"10.0.0.4/31\"'",
    "pg-add pg0 a c d",
    "acl-add pg0 from-lport 1002 'inport == @pg0 && ip4.src == $hosts && ip4.dst == $hosts && udp' drop",
    "acl-add pg0 to-lport 1001 'outport == @pg0 && tcp.dst == {80, 443, 1000}' drop",
    "acl-add sw0 to-lport 900 'ip4.dst != 10.0.0.3 && ip.ttl == 1' drop",
];

#[test]
fn the_same_frames_come_out_of_stock_flows() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("namespaces need root");
    }
    let ns = Netns::new("stock-flows")?;
    let dir = tempfile::tempdir()?;
    let central = Central::start(&ns, dir.path(), "punix:unused.sock", Northd::Stock)?;
    central.nb().nbctl(&format!("--wait=sb {}", CONTENTS.join(" -- ")))?;
    let placed = Cloud::new(&Southbound::read(central.sb())?, HYPERVISORS);
    let mut stock = Vec::new();
    for n in 0..HYPERVISORS {
        let state = placed.hypervisor(n).context("no such hypervisor")?;
        stock.push(Bridge::stock(n, HYPERVISORS, state, &central.sb().remote())?);
    }
    central.nb().nbctl("--wait=hv --timeout=60 sync")?;
    let south = Southbound::read(central.sb())?;
    let cloud = Cloud::new(&south, HYPERVISORS);
    let mut ours = Vec::new();
    for (n, stock) in stock.iter_mut().enumerate() {
        let state = cloud.hypervisor(n).context("no such hypervisor")?;
        ours.push(Bridge::new(n, HYPERVISORS, state)?);
        stock.settle()?;
    }
    let senders: Vec<_> = south.ports.values().filter(|row| row.port.kind.is_served()).cloned().collect();
    let mut generator = Generator::new(&south, 11);
    let mut random = Random::new(12);
    let (mut judged, mut delivered) = (0, 0);
    let mut abstained: BTreeMap<&str, usize> = BTreeMap::new();
    let mut disagreements = Vec::new();
    for _ in 0..400 {
        let sender = random.pick(&senders).clone();
        let texts = sender.port.port_security.iter().map(|text| &**text);
        let identity = Identity::of(texts.chain(sender.addresses.iter().map(String::as_str)));
        let frame = generator.frame(&identity).bytes;
        let here = cloud.place(&sender.port.name).unwrap_or_else(|| random.below(HYPERVISORS));
        let program = cloud.hypervisor(here).context("no such hypervisor")?.compiler.program();
        let port = program.port(sender.port.datapath, sender.port.key).context("no such port")?;
        let Location::Local { ifindex, tag } = port.location else { continue };
        let mut sent = frame.clone();
        if let Some(tag) = tag {
            sent.splice(12..12, [0x81, 0x00].into_iter().chain(tag.to_be_bytes()));
        }
        let mut open = vec![(here, Arrival::Device { ifindex }, sent)];
        while let Some((here, arrival, frame)) = open.pop() {
            let program = cloud.hypervisor(here).context("no such hypervisor")?.compiler.program();
            let outcome = run(program, arrival, &frame);
            for output in &outcome.outputs {
                if let Destination::Tunnel { chassis, datapath, inport, outport } = output.destination {
                    let arrival = Arrival::Tunnel { datapath, inport, outport };
                    open.push((chassis.0 as usize - 1, arrival, output.frame.clone()));
                }
            }
            if let Some(why) = differs_on_purpose(&frame, tag.is_some(), !port.port_security.is_empty()) {
                *abstained.entry(why).or_default() += 1;
                continue;
            }
            if outcome.drops.iter().any(|drop| drop.reason == Reason::Punted) {
                continue;
            }
            let (theirs, own) = (stock[here].run(arrival, &frame)?, ours[here].run(arrival, &frame)?);
            judged += 1;
            delivered += usize::from(!own.is_empty());
            if theirs != own {
                let frame: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
                disagreements.push(format!(
                    "hypervisor {here}, {arrival:?}, {frame}\nstock {theirs:02x?}\nours  {own:02x?}\n{}\n{}",
                    stock[here].trace(arrival, &unhex(&frame))?.1,
                    ours[here].trace(arrival, &unhex(&frame))?.1
                ));
            }
        }
    }
    println!("{judged} frames, {delivered} of them came out somewhere; not judged: {abstained:#?}");
    assert!(judged > 200 && delivered > 50, "{judged} judged, {delivered} delivered: {abstained:#?}");
    assert!(
        disagreements.is_empty(),
        "{} disagreements:\n{}",
        disagreements.len(),
        disagreements[..disagreements.len().min(2)].join("\n\n")
    );
    Ok(())
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).filter_map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()).collect()
}

/// Where ovn-controller 23.03 does something else by what is written in the design, or does it in its own process.
fn differs_on_purpose(frame: &[u8], nested: bool, secured: bool) -> Option<&'static str> {
    let (fields, layout) = parse(frame).ok()?;
    let get = |field| fields.get(field);
    if get(Field::EthType) == 0x86dd && get(Field::IpProto) == 58 && matches!(get(Field::Icmp6Type), 135 | 136) {
        return Some(
            "neighbor discovery: ovn-controller answers by itself, and secures it otherwise than ovn-nb(5) says",
        );
    }
    if get(Field::IpFrag) == 1 {
        return Some("ovn-controller leaves first fragments without transport ports");
    }
    if nested && layout.vlan.is_some() && matches!(get(Field::EthType), 0x8100 | 0x88a8) {
        return Some("a tag below a nested port's: ours drop what they cannot look at");
    }
    let ip = matches!(get(Field::EthType), 0x0800 | 0x86dd | 0x0806);
    if secured && !ip {
        return Some(
            "ovn-controller drops other protocols of a port with IP addresses, ovn-nb(5) does not restrict them",
        );
    }
    None
}
