//! Guests as network cards: whole frames in, whole frames out, and exactly who receives them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_testkit::frames::Frames;
use oxbow_testkit::vif::GUEST_DEVICE;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, VifSpec, wait_until};

/// An EtherType for experiments (IEEE 802): nothing else is counted.
pub const MARKED: [u8; 2] = [0x88, 0xb5];

/// To everybody.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// What the byte after the EtherType says.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// To be received by those it is for.
    Counted = b'c',
    /// Sent until everybody is reached, and not counted.
    Warming = b'w',
    /// The sender has sent everything.
    Closing = b'e',
}

/// A MAC address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A guest's network card.
#[derive(Debug)]
pub struct Card {
    /// Its logical port.
    pub port: String,
    /// Index of the hypervisor.
    pub hypervisor: usize,
    /// Its MAC address.
    pub mac: [u8; 6],
    frames: Frames,
}

impl Card {
    /// The card of a guest that exists already.
    pub fn of(cloud: &Cloud, port: &str, hypervisor: usize, mac: [u8; 6]) -> Result<Self> {
        let frames = Frames::open(cloud.vif(port)?.guest(), GUEST_DEVICE)?;
        Ok(Self { port: port.to_owned(), hypervisor, mac, frames })
    }

    /// Plugs a guest without addresses of its own into a hypervisor; its logical port must exist.
    pub fn plug(cloud: &mut Cloud, port: &str, hypervisor: usize, mac: [u8; 6]) -> Result<Self> {
        cloud.add_vif(hypervisor, VifSpec::new(port, &mac_text(mac), &[]))?;
        Self::of(cloud, port, hypervisor, mac)
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.frames.send(frame).with_context(|| format!("{} sends a frame of {} bytes", self.port, frame.len()))
    }

    /// Waits for a frame that is exactly this one, whatever else comes before.
    pub fn receive_exactly(&self, frame: &[u8]) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        while let Some(got) = self.frames.receive(until.saturating_duration_since(Instant::now()))? {
            if got.frame == frame {
                return Ok(());
            }
            others.push(got.frame);
        }
        bail!("{} waits for\n{frame:02x?}\nand received\n{others:02x?}", self.port)
    }

    /// The numbers of counted frames (see [`numbered`]) that have come, each with the moment it was looked at.
    pub fn numbers(&self, wait: Duration) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        let mut wait = wait;
        while let Some(got) = self.frames.receive(wait)? {
            if let Some((Kind::Counted, number)) = parse(&got.frame) {
                all.push(number);
            }
            wait = Duration::ZERO;
        }
        Ok(all)
    }

    fn marked(&self, to: [u8; 6], kind: Kind, number: u32, length: usize) -> Vec<u8> {
        let mut frame = [to, self.mac].concat();
        frame.extend(MARKED);
        frame.push(kind as u8);
        frame.extend(number.to_be_bytes());
        // Bytes that follow from the number, so that no two frames are alike.
        let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while frame.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            frame.push(state as u8);
        }
        frame
    }

    /// A counted frame of `length` bytes with this number.
    pub fn numbered(&self, to: [u8; 6], number: u32, length: usize) -> Vec<u8> {
        self.marked(to, Kind::Counted, number, length)
    }
}

fn parse(frame: &[u8]) -> Option<(Kind, u32)> {
    if frame.get(12..14)? != MARKED {
        return None;
    }
    let kind = [Kind::Counted, Kind::Warming, Kind::Closing].into_iter().find(|kind| *kind as u8 == frame[14])?;
    Some((kind, u32::from_be_bytes(frame.get(15..19)?.try_into().ok()?)))
}

/// A frame, who sends it, and who must receive it, once each, unchanged. Indexes into the cards.
#[derive(Debug, Clone)]
pub struct Sending {
    /// What it is, for messages.
    pub what: String,
    /// Who sends.
    pub from: usize,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// Who receives it.
    pub to: BTreeSet<usize>,
}

/// Broadcasts from every card until every other has heard it: neighbours of tunnels are known afterwards, and tables are warm.
pub fn everybody_is_heard(cards: &[&Card]) -> Result<()> {
    for (index, card) in cards.iter().enumerate() {
        let frame = card.marked(BROADCAST, Kind::Warming, index as u32, 60);
        let mut missing: BTreeSet<usize> = (0..cards.len()).filter(|other| *other != index).collect();
        wait_until(&format!("everybody hears {}", card.port), PATIENCE, || {
            card.send(&frame)?;
            let mut heard = BTreeSet::new();
            for other in &missing {
                while let Some(got) = cards[*other].frames.receive(Duration::from_millis(20))? {
                    if got.frame == frame {
                        heard.insert(*other);
                        break;
                    }
                }
            }
            missing.retain(|other| !heard.contains(other));
            let names = |set: &BTreeSet<usize>| set.iter().map(|other| cards[*other].port.clone()).collect::<Vec<_>>();
            Ok(Look::when(missing.is_empty(), || format!("not heard by {:?}", names(&missing))))
        })?;
    }
    Ok(())
}

/// Counted frames that a card has received, each with how often.
type Got = BTreeMap<Vec<u8>, usize>;

/// Takes what comes to a card until `done`; false when nothing comes any more. Numbers below `first` are late copies of what was sent before.
fn take(card: &Card, got: &mut Got, first: u32, mut done: impl FnMut(&Got, Option<&[u8]>) -> bool) -> Result<bool> {
    let mut closing = None;
    while !done(got, closing.as_deref()) {
        let Some(received) = card.frames.receive(PATIENCE)? else { return Ok(false) };
        closing = None;
        match parse(&received.frame) {
            Some((Kind::Counted, number)) if number < first => {}
            Some((Kind::Counted, _)) => *got.entry(received.frame).or_default() += 1,
            Some((Kind::Closing, _)) => closing = Some(received.frame),
            Some((Kind::Warming, _)) | None => {}
        }
    }
    Ok(true)
}

/// Sends all of these, and checks that every card receives exactly what is for it: nothing less, nothing more, no byte changed.
///
/// Numbers rise from call to call. When everybody has what is theirs, each sender broadcasts once more: what it sent before and somebody was not to have comes before
/// that. (Not earlier: a userspace datapath sorts the frames of a burst by flow.)
pub fn exactly(cards: &[&Card], sendings: &[Sending]) -> Result<()> {
    for sending in sendings {
        cards[sending.from].send(&sending.frame).with_context(|| sending.what.clone())?;
    }
    let first =
        sendings.iter().filter_map(|sending| parse(&sending.frame)).map(|(_, number)| number).min().unwrap_or(0);
    let mut all: Vec<Got> = Vec::new();
    for (index, card) in cards.iter().enumerate() {
        let mut got = Got::new();
        let expected: Vec<&Sending> = sendings.iter().filter(|sending| sending.to.contains(&index)).collect();
        let has_all = |got: &Got| expected.iter().all(|sending| got.contains_key(&sending.frame));
        // What is still missing when nothing comes any more is named below.
        take(card, &mut got, first, |got, _| has_all(got))?;
        all.push(got);
    }
    // A round of its own for each call: a closing frame of the last one is not taken for this one's.
    let round = first;
    let senders: BTreeSet<usize> = sendings.iter().map(|sending| sending.from).collect();
    let closing: BTreeMap<usize, Vec<u8>> =
        senders.iter().map(|index| (*index, cards[*index].marked(BROADCAST, Kind::Closing, round, 60))).collect();
    for (index, frame) in &closing {
        cards[*index].send(frame)?;
    }
    let mut wrong = Vec::new();
    for ((index, card), mut got) in cards.iter().enumerate().zip(all) {
        let mut open: BTreeSet<usize> = senders.iter().copied().filter(|sender| *sender != index).collect();
        let ended = take(card, &mut got, first, |_, frame| {
            open.retain(|sender| frame.is_none_or(|frame| closing[sender] != frame));
            open.is_empty()
        })?;
        if !ended {
            wrong.push(format!("{} does not hear the end of all", card.port));
        }
        for sending in sendings.iter().filter(|sending| sending.to.contains(&index)) {
            match got.remove(&sending.frame) {
                Some(1) => {}
                Some(times) => wrong.push(format!("{} received {times} times: {}", card.port, sending.what)),
                None => wrong.push(format!("{} did not receive: {}", card.port, sending.what)),
            }
        }
        for (frame, times) in got {
            let what = sendings.iter().find(|sending| sending.frame == frame).map(|sending| sending.what.as_str());
            let head = &frame[..frame.len().min(32)];
            wrong.push(format!(
                "{} received {times} times, and it is not for it or was changed: {} {head:02x?}… ({} bytes)",
                card.port,
                what.unwrap_or("a frame that nobody sent"),
                frame.len()
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
