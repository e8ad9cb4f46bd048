//! Live migration: a port on two chassis, whose second place waits for its guest (ovn-nb(5), `options:activation-strategy`).

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::frames::Frames;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, VifSpec, wait_until};
use std::time::Duration;

oxbow_tests::on_every_backend! {
    a_migrated_port_comes_to_life_by_its_guest_s_frame,
    the_same_under_our_northd,
    a_port_at_more_places_than_can_be_served_is_named,
}

/// MAC addresses of the port that migrates, of a guest on hv1, of one on hv2.
const MOVER: [u8; 6] = [0, 0, 0, 0, 3, 1];
const HERE: [u8; 6] = [0, 0, 0, 0, 1, 1];
const THERE: [u8; 6] = [0, 0, 0, 0, 2, 1];

/// An EtherType for experiments (IEEE 802), so that nothing else is counted.
const MARKED: [u8; 2] = [0x88, 0xb5];

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Marks frames that count for nothing.
const WARM: u8 = 0;

/// A guest's network card.
struct Card {
    name: &'static str,
    mac: [u8; 6],
    frames: Frames,
}

impl Card {
    fn send(&self, to: [u8; 6], marker: u8) -> Result<()> {
        let mut frame = [to, self.mac].concat();
        frame.extend(MARKED);
        frame.resize(60, marker);
        self.frames.send(&frame).with_context(|| format!("{} sends {marker}", self.name))
    }

    /// As qemu does when the guest begins to run.
    fn announce(&self) -> Result<()> {
        let mut frame = [[0xff; 6], self.mac].concat();
        frame.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        frame.extend(self.mac);
        frame.extend([0; 4]);
        frame.extend(self.mac);
        frame.resize(60, 0);
        self.frames.send(&frame).with_context(|| format!("{} announces itself", self.name))
    }

    fn marker(&self, wait: Duration) -> Result<Option<Option<u8>>> {
        let received = self.frames.receive(wait)?;
        Ok(received.map(|got| (got.frame.get(12..14) == Some(&MARKED)).then(|| got.frame[14]).filter(|it| *it != WARM)))
    }

    /// Everything received until this marker has come.
    fn until(&self, last: u8) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while all.last() != Some(&last) {
            let next = self.marker(PATIENCE)?;
            all.extend(next.with_context(|| format!("{} waits for {last} and has {all:?}", self.name))?);
        }
        Ok(all)
    }

    /// Everything that has come so far.
    fn so_far(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(marker) = self.marker(Duration::ZERO)? {
            all.extend(marker);
        }
        Ok(all)
    }
}

fn card(cloud: &Cloud, name: &'static str, mac: [u8; 6]) -> Result<Card> {
    Ok(Card { name, mac, frames: Frames::open(cloud.vif(name)?.guest(), "eth0")? })
}

fn until_port_says(cloud: &Cloud, hypervisor: usize, what: &str) -> Result<()> {
    wait_until(&format!("hv{} says {what}", hypervisor + 1), PATIENCE, || {
        let ports = cloud.hypervisors()[hypervisor].appctl("debug/ports")?;
        let line = ports.lines().find(|line| line.split(' ').nth(1) == Some("mover")).unwrap_or_default();
        Ok(Look::when(line.contains(what), || ports.clone()))
    })
}

/// Waits until a frame comes from one card to another: Open vSwitch's userspace datapath drops what it has no neighbour on the underlay for yet, and asks.
fn until_frames_come(from: &Card, to: &Card) -> Result<()> {
    wait_until(&format!("a frame from {} at {}", from.name, to.name), PATIENCE, || {
        from.send(to.mac, WARM)?;
        Ok(Look::when(to.frames.receive(Duration::from_millis(100))?.is_some(), || "none".to_owned()))
    })?;
    to.so_far().map(drop)
}

fn binding(cloud: &Cloud, column: &str) -> Result<String> {
    Ok(cloud.sbctl(&format!("--bare --columns={column} find Port_Binding logical_port=mover"))?.trim().to_owned())
}

fn a_guest_migrates(cloud: &mut Cloud) -> Result<()> {
    cloud.nbctl("ls-add sw0")?;
    for (port, mac) in [("mover", MOVER), ("here", HERE), ("there", THERE)] {
        cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} {}", text(mac)))?;
    }
    cloud.nbctl("lsp-set-options mover requested-chassis=hv1,hv2 activation-strategy=rarp")?;
    cloud.add_vif(0, VifSpec::new("here", &text(HERE), &[]))?;
    cloud.add_vif(1, VifSpec::new("there", &text(THERE), &[]))?;
    cloud.add_vif(0, VifSpec::new("mover", &text(MOVER), &[]))?;
    // The same port on the destination, as libvirt plugs it in before memory is copied.
    let device = cloud.create_vif(1, VifSpec::new("mover-hv2", &text(MOVER), &[]))?.device().to_owned();
    cloud.hypervisors()[1]
        .vsctl(&format!("add-port br-int {device} -- set Interface {device} external_ids:iface-id=mover"))?;
    until_port_says(cloud, 1, "waits for activation (rarp)")?;
    let installed = cloud.hypervisors()[1].vsctl(&format!("get Interface {device} external_ids:ovn-installed"))?;
    ensure!(installed.trim().trim_matches('"') == "true", "{installed}: the destination is ready for the guest");
    cloud.sync()?;
    let (here, there) = (card(cloud, "here", HERE)?, card(cloud, "there", THERE)?);
    let (old, new) = (card(cloud, "mover", MOVER)?, card(cloud, "mover-hv2", MOVER)?);

    until_frames_come(&here, &there)?;
    until_frames_come(&there, &here)?;

    // The source alone receives. What follows on the same way to hv2 says that a copy would have come.
    here.send(MOVER, 1)?;
    here.send(THERE, 2)?;
    ensure!((old.until(1)?, there.until(2)?) == (vec![1], vec![2]));
    there.send(MOVER, 3)?;
    ensure!(old.until(3)? == [3], "also from the destination's own chassis");
    // What the destination sends goes nowhere.
    new.send(HERE, 4)?;
    there.send(HERE, 5)?;
    ensure!(here.until(5)? == [5]);
    ensure!(new.so_far()?.is_empty(), "blocked");
    let options = binding(cloud, "options")?;
    ensure!(!options.contains("additional-chassis-activated"), "{options}");

    // The guest runs at its destination.
    new.announce()?;
    wait_until("hv2 is listed as active", PATIENCE, || {
        let options = binding(cloud, "options")?;
        Ok(Look::when(options.contains("additional-chassis-activated=hv2"), || options.clone()))
    })?;
    until_port_says(cloud, 1, " installed")?;
    let options = binding(cloud, "options")?;
    ensure!(options.contains("requested-chassis=hv1,hv2"), "other options are kept: {options}");
    for (from, marker) in [(&here, 6), (&there, 7)] {
        from.send(MOVER, marker)?;
        ensure!((old.until(marker)?, new.until(marker)?) == (vec![marker], vec![marker]), "both, once each");
    }
    new.send(HERE, 8)?;
    ensure!(here.until(8)? == [8]);

    // The migration ends.
    cloud.nbctl("--wait=sb lsp-set-options mover requested-chassis=hv2")?;
    let hv2 = cloud.sbctl("--bare --columns=_uuid find Chassis name=hv2")?;
    wait_until("the port is hv2's alone", PATIENCE, || {
        let (chassis, additional) = (binding(cloud, "chassis")?, binding(cloud, "additional_chassis")?);
        let (up, options) = (binding(cloud, "up")?, binding(cloud, "options")?);
        let alone = chassis == hv2.trim() && additional.is_empty() && up == "true";
        let done = alone && !options.contains("additional-chassis-activated");
        Ok(Look::when(done, || format!("{chassis} {additional} {up} {options}")))
    })?;
    until_port_says(cloud, 1, " installed")?;
    cloud.sync()?;
    for (from, marker) in [(&here, 9), (&there, 10)] {
        from.send(MOVER, marker)?;
        ensure!(new.until(marker)? == [marker]);
    }
    ensure!(old.so_far()?.is_empty(), "the source is left");
    Ok(())
}

fn a_migrated_port_comes_to_life_by_its_guest_s_frame(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(a_guest_migrates)
}

fn the_same_under_our_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(a_guest_migrates)
}

/// The programs copy what is for a port in migration to two chassis; who asks for three is told, where Open vSwitch's flows reach all of them.
fn a_port_at_more_places_than_can_be_served_is_named(node: Node) -> Result<()> {
    let reported = "logical port mover is bound to 3 chassis at once: packets to it reach 2 of them";
    Cloud::builder().northd(Northd::Oxbow).hypervisors(3, node).run(|cloud| {
        cloud.nbctl("ls-add sw0 -- lsp-add sw0 mover -- lsp-set-options mover requested-chassis=hv1,hv2")?;
        let until = |cloud: &Cloud, chassis: usize, named: bool| {
            wait_until(&format!("bound to {chassis} chassis, named: {named}"), PATIENCE, || {
                let all = format!("{} {}", binding(cloud, "chassis")?, binding(cloud, "additional_chassis")?);
                let problems = cloud.hypervisors().iter().map(|host| host.appctl("debug/problems"));
                let problems = problems.collect::<Result<Vec<String>>>()?;
                let as_said = problems.iter().all(|text| text.contains(reported) == named);
                let bound = all.split_whitespace().count() == chassis;
                Ok(Look::when(bound && as_said, || format!("bound to {all}; {problems:?}")))
            })
        };
        for hypervisor in 0..3 {
            let vif = VifSpec::new(&format!("mover-hv{}", hypervisor + 1), &text(MOVER), &[]);
            let device = cloud.create_vif(hypervisor, vif)?.device().to_owned();
            cloud.hypervisors()[hypervisor]
                .vsctl(&format!("add-port br-int {device} -- set Interface {device} external_ids:iface-id=mover"))?;
        }
        until(cloud, 2, false)?;
        cloud.nbctl("lsp-set-options mover requested-chassis=hv1,hv2,hv3")?;
        until(cloud, 3, node != Node::OpenFlow)?;
        cloud.nbctl("lsp-set-options mover requested-chassis=hv3")?;
        until(cloud, 1, false)
    })
}
