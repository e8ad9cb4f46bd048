//! Ports that move between Oxbow and stock hypervisors under traffic, ports that go, daemons of either kind that are killed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, VifSpec, wait_until};
use oxbow_tests::cards::{self, BROADCAST, Card, Sending, mac_text};
use oxbow_tests::layer2::Guest;
use oxbow_tests::traffic::{Traffic, until_in_force};

oxbow_tests::on_every_backend! {
    a_port_moves_under_stock_northd,
    a_port_moves_under_our_northd,
    a_port_that_goes_is_forgotten_under_our_northd,
    daemons_of_either_kind_are_killed_and_come_back,
}

/// Guests that stay where they are: one on each hypervisor, of which 0 and 1 are Oxbow's and 2 and 3 stock.
const STAYING: [Guest; 4] = [
    Guest { port: "still1", hypervisor: 0, mac: "00:00:00:00:01:01", ipv4: "10.0.0.1", ipv6: "fd00::1" },
    Guest { port: "still2", hypervisor: 1, mac: "00:00:00:00:02:01", ipv4: "10.0.0.2", ipv6: "fd00::2" },
    Guest { port: "still3", hypervisor: 2, mac: "00:00:00:00:03:01", ipv4: "10.0.0.3", ipv6: "fd00::3" },
    Guest { port: "still4", hypervisor: 3, mac: "00:00:00:00:04:01", ipv4: "10.0.0.4", ipv6: "fd00::4" },
];

const MOVER: [u8; 6] = [0, 0, 0, 0, 9, 9];

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    bytes.try_into().ok().with_context(|| format!("{text} is no MAC address"))
}

/// The switch, the guests that stay, and their cards.
fn build(cloud: &mut Cloud) -> Result<Vec<Card>> {
    cloud.nbctl("ls-add sw0")?;
    for Guest { port, mac, ipv4, ipv6, .. } in STAYING {
        cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} '{mac} {ipv4} {ipv6}'"))?;
    }
    for Guest { port, hypervisor, mac, ipv4, ipv6 } in STAYING {
        cloud.add_vif(hypervisor, VifSpec::new(port, mac, &[&format!("{ipv4}/24"), &format!("{ipv6}/64")]))?;
    }
    cloud.sync()?;
    let all = STAYING.map(|guest| Card::of(cloud, guest.port, guest.hypervisor, mac(guest.mac)?));
    let all: Vec<Card> = all.into_iter().collect::<Result<_>>()?;
    cards::everybody_is_heard(&all.iter().collect::<Vec<_>>())?;
    Ok(all)
}

/// A device for the moving port on a hypervisor, plugged in or not.
fn place(cloud: &mut Cloud, hypervisor: usize, is_plugged: bool) -> Result<Card> {
    let name = format!("mover-hv{}", hypervisor + 1);
    cloud.create_vif(hypervisor, VifSpec::new(&name, &mac_text(MOVER), &[]))?;
    if is_plugged {
        plug(cloud, hypervisor)?;
    }
    Card::of(cloud, &name, hypervisor, MOVER)
}

fn plug(cloud: &Cloud, hypervisor: usize) -> Result<()> {
    let device = cloud.vif(&format!("mover-hv{}", hypervisor + 1))?.device();
    let command = format!("add-port br-int {device} -- set Interface {device} external_ids:iface-id=mover");
    cloud.hypervisors()[hypervisor].vsctl(&command).map(|_| ())
}

fn unplug(cloud: &Cloud, hypervisor: usize) -> Result<()> {
    cloud.unplug(&format!("mover-hv{}", hypervisor + 1))
}

/// Waits until SB says that the moving port is there and works, or (`None`) is nowhere, and every hypervisor knows.
fn until_at(cloud: &Cloud, hypervisor: Option<usize>) -> Result<()> {
    wait_until(&format!("the port is at hypervisor {hypervisor:?}"), PATIENCE, || {
        let row = cloud.sbctl("--bare --columns=chassis,up find Port_Binding logical_port=mover")?;
        let mut words = row.split_whitespace();
        let found = match hypervisor {
            None => !row.contains('-'),
            Some(index) => {
                let name = format!("hv{}", index + 1);
                let chassis = cloud.sbctl(&format!("--bare --columns=_uuid find Chassis name={name}"))?;
                words.next() == Some(chassis.trim()) && words.next() == Some("true")
            }
        };
        Ok(Look::when(found, || row.clone()))
    })?;
    cloud.sync()
}

/// Numbers frames.
#[derive(Default)]
struct Numbers(u32);

impl Numbers {
    fn sending(&mut self, cards: &[&Card], from: usize, to: [u8; 6], receivers: &[usize]) -> Sending {
        self.0 += 1;
        let frame = cards[from].numbered(to, self.0, 60 + self.0 as usize % 1400);
        let what = format!("number {} from {} to {}", self.0, cards[from].port, mac_text(to));
        Sending { what, from, frame, to: receivers.iter().copied().collect() }
    }
}

/// The port is where `active` is: everybody reaches it there and nowhere else, it reaches everybody, and floods include it once.
fn works_at(staying: &[Card], places: &[Card], active: usize, numbers: &mut Numbers) -> Result<()> {
    let active = places.iter().find(|place| place.hypervisor == active).context("no such place")?;
    for place in places {
        // What was sent while it moved has been judged.
        place.numbers(Duration::ZERO)?;
    }
    let cards: Vec<&Card> = staying.iter().chain([active]).collect();
    let mover = staying.len();
    let mut sendings = Vec::new();
    for (index, card) in staying.iter().enumerate() {
        sendings.push(numbers.sending(&cards, index, MOVER, &[mover]));
        sendings.push(numbers.sending(&cards, mover, card.mac, &[index]));
        let others: Vec<usize> = (0..cards.len()).filter(|other| *other != index).collect();
        sendings.push(numbers.sending(&cards, index, BROADCAST, &others));
    }
    sendings.push(numbers.sending(&cards, mover, BROADCAST, &(0..mover).collect::<Vec<_>>()));
    cards::exactly(&cards, &sendings)?;
    for place in places.iter().filter(|place| place.hypervisor != active.hypervisor) {
        let heard = place.numbers(Duration::ZERO)?;
        ensure!(heard.is_empty(), "{} is left, and hears {heard:?}", place.port);
    }
    Ok(())
}

/// Has the staying guests send to the moving port until it is where it should be. No frame may arrive twice, or anywhere but where the
/// port was or goes.
fn moves(
    cloud: &Cloud,
    staying: &[Card],
    places: &[Card],
    (from, to): (usize, usize),
    numbers: &mut Numbers,
    trigger: impl FnOnce() -> Result<()>,
) -> Result<()> {
    for place in places {
        place.numbers(Duration::ZERO)?;
    }
    let first = numbers.0 + 1;
    trigger()?;
    let chassis = cloud.sbctl(&format!("--bare --columns=_uuid find Chassis name=hv{}", to + 1))?;
    wait_until(&format!("the port is at hypervisor {to}"), PATIENCE, || {
        for card in staying {
            numbers.0 += 1;
            card.send(&card.numbered(MOVER, numbers.0, 64))?;
        }
        let row = cloud.sbctl("--bare --columns=chassis,up find Port_Binding logical_port=mover")?;
        let mut words = row.split_whitespace();
        let arrived = words.next() == Some(chassis.trim()) && words.next() == Some("true");
        Ok(Look::when(arrived, || row.clone()))
    })?;
    cloud.sync()?;
    // What is sent now arrives, so what was sent before has arrived or was lost on the way.
    let arrived = places.iter().find(|place| place.hypervisor == to).context("no such place")?;
    let mut seen = BTreeSet::new();
    for card in staying {
        numbers.0 += 1;
        let frame = card.numbered(MOVER, numbers.0, 64);
        let last = numbers.0;
        wait_until(&format!("{} reaches the port", card.port), PATIENCE, || {
            card.send(&frame)?;
            let mut there = false;
            for number in arrived.numbers(Duration::from_millis(200))? {
                there |= number == last;
                ensure!(seen.insert(number) || number == last, "frame {number} came twice");
            }
            Ok(Look::when(there, || "not yet".to_owned()))
        })?;
    }
    for place in places.iter().filter(|place| place.hypervisor != to) {
        let heard = place.numbers(Duration::ZERO)?;
        let twice: Vec<&u32> = heard.iter().filter(|number| !seen.insert(**number)).collect();
        ensure!(twice.is_empty(), "{} heard what another place heard too: {twice:?}", place.port);
        ensure!(place.hypervisor == from || heard.is_empty(), "{} hears {heard:?}", place.port);
    }
    ensure!(seen.iter().all(|number| *number >= first), "frames of a former move");
    Ok(())
}

/// From Oxbow to stock and back, to the others of either kind, by `requested-chassis` as Neutron does it and by plugging.
fn a_port_moves(cloud: &mut Cloud) -> Result<()> {
    let staying = build(cloud)?;
    let address = mac_text(MOVER);
    cloud.nbctl(&format!("lsp-add sw0 mover -- lsp-set-addresses mover {address}"))?;
    cloud.nbctl("lsp-set-options mover requested-chassis=hv1")?;
    let places: Vec<Card> = (0..4).map(|hypervisor| place(cloud, hypervisor, true)).collect::<Result<_>>()?;
    until_at(cloud, Some(0))?;
    let traffic = Traffic::between(cloud, &[(STAYING[0], STAYING[1]), (STAYING[0], STAYING[2])])?;
    let mut numbers = Numbers::default();
    works_at(&staying, &places, 0, &mut numbers)?;
    for (from, to) in [(0, 2), (2, 1), (1, 3), (3, 2), (2, 0)] {
        traffic.mark(&format!("from hv{} to hv{}", from + 1, to + 1));
        let request = || cloud.nbctl(&format!("lsp-set-options mover requested-chassis=hv{}", to + 1)).map(|_| ());
        moves(cloud, &staying, &places, (from, to), &mut numbers, request)?;
        works_at(&staying, &places, to, &mut numbers)?;
    }
    traffic.nothing_was_lost_but_by_adding_ports(cloud)?;
    // Nobody asks for a chassis: whoever has it plugged in has it. (A userspace datapath that gets or loses a port may lose packets of its
    // others, so only ours are counted.)
    let traffic = Traffic::between(cloud, &[(STAYING[0], STAYING[1])])?;
    for hypervisor in 1..4 {
        unplug(cloud, hypervisor)?;
    }
    cloud.nbctl("--wait=hv lsp-set-options mover")?;
    for (from, to) in [(0, 2), (2, 1)] {
        traffic.mark(&format!("unplugged at hv{}, plugged at hv{}", from + 1, to + 1));
        let replug = || unplug(cloud, from).and_then(|()| plug(cloud, to));
        moves(cloud, &staying, &places, (from, to), &mut numbers, replug)?;
        works_at(&staying, &places, to, &mut numbers)?;
    }
    traffic.nothing_was_lost_but_by_adding_ports(cloud)
}

fn a_port_moves_under_stock_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).hypervisors(2, Node::Stock).run(a_port_moves)
}

fn a_port_moves_under_our_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).hypervisors(2, Node::Stock).run(a_port_moves)
}

/// Unplugged: no hypervisor delivers to it, its address is nobody's. Deleted: its address is unknown like any other.
fn a_port_goes(cloud: &mut Cloud) -> Result<()> {
    let staying = build(cloud)?;
    let address = mac_text(MOVER);
    let mut numbers = Numbers::default();
    for hypervisor in [0, 2] {
        // Somebody takes what has an unknown address, on the other kind of hypervisor.
        let any = [0, 0, 0, 0, 0xa, hypervisor as u8];
        cloud.nbctl("lsp-add sw0 any -- lsp-set-addresses any unknown")?;
        cloud.nbctl(&format!("lsp-add sw0 mover -- lsp-set-addresses mover {address}"))?;
        let mover = place(cloud, hypervisor, true)?;
        let any = Card::plug(cloud, "any", (hypervisor + 2) % 4, any)?;
        until_at(cloud, Some(hypervisor))?;
        let first: Vec<&Card> = staying.iter().chain([&any, &mover]).collect();
        cards::everybody_is_heard(&first)?;
        let to_mover = |numbers: &mut Numbers, receivers: &[usize], cards: &[&Card]| {
            let all: Vec<Sending> =
                (0..staying.len()).map(|from| numbers.sending(cards, from, MOVER, receivers)).collect();
            cards::exactly(cards, &all)
        };
        to_mover(&mut numbers, &[staying.len() + 1], &first)?;
        wait_until("the address behind the unknown port is learned", PATIENCE, || {
            let rows = cloud.sbctl("--bare --columns=mac list FDB")?;
            Ok(Look::when(rows.contains(&mac_text(any.mac)), || rows))
        })?;

        unplug(cloud, hypervisor)?;
        until_at(cloud, None)?;
        mover.numbers(Duration::ZERO)?;
        let cards: Vec<&Card> = staying.iter().chain([&any]).collect();
        to_mover(&mut numbers, &[], &cards)?;
        ensure!(mover.numbers(Duration::ZERO)?.is_empty(), "an unplugged port hears something");

        cloud.nbctl("--wait=hv lsp-del mover")?;
        to_mover(&mut numbers, &[staying.len()], &cards)?;
        cloud.remove_vif(&format!("mover-hv{}", hypervisor + 1))?;

        // Gone with its learned address.
        cloud.unplug("any")?;
        cloud.nbctl("--wait=hv lsp-del any")?;
        wait_until("the learned address is forgotten", PATIENCE, || {
            let rows = cloud.sbctl("--bare --columns=mac list FDB")?;
            Ok(Look::when(!rows.contains(&mac_text(any.mac)), || rows))
        })?;
        cloud.sync()?;
        let cards: Vec<&Card> = staying.iter().collect();
        let all: Vec<Sending> = (0..cards.len()).map(|from| numbers.sending(&cards, from, any.mac, &[])).collect();
        cards::exactly(&cards, &all)?;
        cloud.remove_vif("any")?;
    }
    Ok(())
}

#[test]
fn a_port_that_goes_is_forgotten_under_stock_northd() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).hypervisors(2, Node::Stock).run(a_port_goes)
}

fn a_port_that_goes_is_forgotten_under_our_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).hypervisors(2, Node::Stock).run(a_port_goes)
}

/// Every pair, and floods.
fn everybody(staying: &[Card], numbers: &mut Numbers) -> Result<()> {
    let cards: Vec<&Card> = staying.iter().collect();
    let mut all = Vec::new();
    for from in 0..cards.len() {
        let others: Vec<usize> = (0..cards.len()).filter(|other| *other != from).collect();
        all.push(numbers.sending(&cards, from, BROADCAST, &others));
        all.extend(others.iter().map(|to| numbers.sending(&cards, from, cards[*to].mac, &[*to])).collect::<Vec<_>>());
    }
    cards::exactly(&cards, &all)
}

fn daemons_of_either_kind_are_killed_and_come_back(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).hypervisors(2, Node::Stock).run(|cloud| {
        let staying = build(cloud)?;
        let mut numbers = Numbers::default();
        // Ours: nothing is lost, also towards the other kind.
        let traffic = Traffic::between(cloud, &[(STAYING[0], STAYING[1]), (STAYING[0], STAYING[2])])?;
        for hypervisor in 0..2 {
            let host = cloud.hypervisor(hypervisor);
            traffic.mark(&format!("{} is killed", host.name()));
            host.kill_controller()?;
            traffic.goes_on()?;
            host.start_controller()?;
            until_in_force(host)?;
            traffic.goes_on()?;
        }
        traffic.nothing_was_lost_by(cloud)?;
        everybody(&staying, &mut numbers)?;
        // Theirs: between ours nothing is lost. (An ovn-controller that starts installs its own flows anew.)
        let traffic = Traffic::between(cloud, &[(STAYING[0], STAYING[1])])?;
        for hypervisor in 2..4 {
            let host = cloud.hypervisor(hypervisor);
            traffic.mark(&format!("the ovn-controller of {} is killed", host.name()));
            host.kill_controller()?;
            traffic.goes_on()?;
            host.start_controller()?;
            cloud.sync()?;
            cards::everybody_is_heard(&staying.iter().collect::<Vec<_>>())?;
            everybody(&staying, &mut numbers)?;
        }
        traffic.nothing_was_lost_by(cloud)
    })
}
