//! One cloud under judgement: packets in, disagreements out.

use crate::bridge::{Bridge, Way};
use crate::cloud::Cloud;
use crate::compare::{Verdict, judge};
use crate::generator::{Generator, Identity};
use crate::kernel::{Kernel, Out};
use crate::southbound::{PortRow, Southbound};
use crate::trace::Trace;
use anyhow::{Context as _, Result, bail};
use oxbow_pipeline::ir::{Location, PortKind, Program};
use oxbow_pipeline::reference::{Arrival, Destination, Outcome, run};
use oxbow_testkit::random::Random;
use oxbow_testkit::{Central, Netns, Northd, OvsdbServer};
use std::collections::BTreeMap;
use std::fmt;

/// What came of the packets.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Packets sent.
    pub packets: usize,
    /// Of them, packets that came out somewhere.
    pub delivered: usize,
    /// Packets that ovn-trace could not judge, by reason; the programs are compared with the reference on them all the same.
    pub abstained: BTreeMap<&'static str, usize>,
    /// Frames that the loaded programs were given: each packet three times on every hypervisor it reaches.
    pub frames: usize,
    /// Of them, answered from the verdict cache.
    pub cached: u64,
    /// Runs by BPF_PROG_TEST_RUN.
    pub test_runs: usize,
    /// Frames that the bridges were given: each twice, and once to `ofproto/trace`.
    pub bridged: usize,
    /// Frames on which a bridge was not judged, by reason.
    pub not_bridged: BTreeMap<&'static str, usize>,
    /// Disagreements.
    pub disagreements: usize,
}

/// One packet in this many is also run by BPF_PROG_TEST_RUN.
const SAMPLE: usize = 4;

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.delivered += other.delivered;
        for (why, n) in other.abstained {
            *self.abstained.entry(why).or_default() += n;
        }
        self.frames += other.frames;
        self.cached += other.cached;
        self.test_runs += other.test_runs;
        self.bridged += other.bridged;
        for (why, n) in other.not_bridged {
            *self.not_bridged.entry(why).or_default() += n;
        }
        self.disagreements += other.disagreements;
    }
}

/// The loaded programs, or a bridge, came to something else than the reference.
struct KernelDisagreement<'a> {
    hypervisor: usize,
    arrival: Arrival,
    frame: &'a [u8],
    attempt: usize,
    expected: Vec<Out>,
    actual: Vec<Out>,
    outcome: &'a Outcome,
    counters: String,
}

impl fmt::Display for KernelDisagreement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = ["walk", "second time", "third time"][self.attempt];
        writeln!(f, "hypervisor {}, {:?} ({which}), frame", self.hypervisor, self.arrival)?;
        self.frame.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        writeln!(f, "\nthe reference says: {:#?}", self.outcome)?;
        for (title, list) in [("expected", &self.expected), ("actual", &self.actual)] {
            writeln!(f, "{title}:")?;
            for out in list {
                let (to, frame) = match out {
                    Out::Device(index, frame) => (format!("device {index}"), frame),
                    Out::Tunnel(chassis, vni, inport, outport, frame) => {
                        (format!("chassis {chassis}, datapath {vni}, {inport} -> {outport}"), frame)
                    }
                };
                write!(f, "  {to}: ")?;
                frame.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                writeln!(f)?;
            }
        }
        write!(f, "drop counters: {}", self.counters)
    }
}

/// A cloud with its judges.
pub struct Session {
    pub(crate) south: Southbound,
    trace: Trace,
    pub(crate) cloud: Cloud,
    pub(crate) kernels: Vec<Kernel>,
    bridges: Vec<Bridge>,
    /// One packet in this many goes through the bridges.
    bridge_share: usize,
    // Below what uses them.
    _central: Central,
    _ns: Netns,
    _dir: tempfile::TempDir,
}

impl Session {
    /// Starts Debian's northd on what `fill` puts into the Northbound database, compiles the result for each hypervisor and loads it.
    ///
    /// # Errors
    /// When a program is missing or the contents are refused; when the compiler reports a flow it cannot hold.
    pub fn start(hypervisors: usize, fill: impl FnOnce(&OvsdbServer) -> Result<()>) -> Result<Session> {
        let ns = Netns::new("agree")?;
        let dir = tempfile::TempDir::with_prefix("oxbow-agree-")?;
        let central = Central::start(&ns, dir.path(), "punix:unused.sock", Northd::Stock)?;
        fill(central.nb())?;
        central.nb().nbctl("--wait=sb sync")?;
        let south = Southbound::read(central.sb())?;
        let trace = Trace::start(central.sb())?;
        let cloud = Cloud::new(&south, hypervisors);
        let mut kernels = Vec::new();
        for n in 0..hypervisors {
            let state = cloud.hypervisor(n).context("no such hypervisor")?;
            let problems = state.compiler.problems();
            if !problems.is_empty() {
                bail!(
                    "flows that cannot be held:\n{}",
                    problems.iter().map(|p| format!("  {p}\n")).collect::<String>()
                );
            }
            kernels.push(Kernel::new(n, hypervisors, state)?);
        }
        let (bridges, bridge_share) = (Vec::new(), 1);
        Ok(Session { south, trace, cloud, kernels, bridges, bridge_share, _central: central, _ns: ns, _dir: dir })
    }

    /// Judges the OpenFlow backend as well: one packet in `share` goes through an Open vSwitch of each hypervisor it reaches.
    ///
    /// # Errors
    /// When a switch does not start, or the backend cannot hold a program as it is.
    pub fn with_bridges(mut self, share: usize) -> Result<Session> {
        self.bridge_share = share.max(1);
        for n in 0..self.cloud.len() {
            let state = self.cloud.hypervisor(n).context("no such hypervisor")?;
            self.bridges.push(Bridge::new(n, self.cloud.len(), state)?);
        }
        Ok(self)
    }

    /// Throws packets at every port. The first `show` disagreements are printed by `tell`.
    ///
    /// # Errors
    /// When a judge fails; a disagreement is no error.
    pub fn judge(&mut self, packets: usize, seed: u64, show: usize, mut tell: impl FnMut(&str)) -> Result<Tally> {
        // A nested port without its parent is nowhere.
        let sends = |row: &&PortRow| row.port.kind == PortKind::Localport || self.cloud.place(&row.port.name).is_some();
        let senders: Vec<PortRow> = self.south.ports.values().filter(sends).cloned().collect();
        if senders.is_empty() {
            bail!("no port of this cloud can send");
        }
        let mut generator = Generator::new(&self.south, seed);
        let mut random = Random::new(!seed);
        let mut tally = Tally::default();
        for _ in 0..packets {
            let sender = random.pick(&senders).clone();
            let texts = sender.port.port_security.iter().map(|text| &**text);
            let identity = Identity::of(texts.chain(sender.addresses.iter().map(String::as_str)));
            let frame = generator.frame(&identity).bytes;
            let here = self.cloud.place(&sender.port.name).unwrap_or_else(|| random.below(self.kernels.len()));
            tally.packets += 1;
            let mut disagreements = Vec::new();
            match judge(&self.south, &self.cloud, &mut self.trace, &sender, here, &frame)? {
                Verdict::Agreed(copies) => tally.delivered += usize::from(copies > 0),
                Verdict::Abstained(why) => *tally.abstained.entry(why).or_default() += 1,
                Verdict::Disagreed(found) => {
                    disagreements.push(format!("ovn-trace and the reference disagree: {found}"))
                }
            }
            let program = self.cloud.hypervisor(here).context("no such hypervisor")?.compiler.program();
            let port = program.port(sender.port.datapath, sender.port.key).context("a sender without a port")?;
            if let Location::Local { ifindex, tag } = port.location {
                self.through_kernels(here, ifindex, tag, &frame, &mut tally, &mut disagreements)?;
            }
            for text in disagreements {
                if tally.disagreements < show {
                    tell(&text);
                }
                tally.disagreements += 1;
            }
        }
        for kernel in &mut self.kernels {
            tally.cached += kernel.cached_and_walked()?.0;
        }
        Ok(tally)
    }

    /// The same frame through the programs of every hypervisor it reaches, beside the reference on the same arrival.
    fn through_kernels(
        &mut self,
        here: usize,
        ifindex: u32,
        tag: Option<u16>,
        frame: &[u8],
        tally: &mut Tally,
        disagreements: &mut Vec<String>,
    ) -> Result<()> {
        let mut sent = frame.to_vec();
        if let Some(tag) = tag {
            sent.splice(12..12, [0x81, 0x00].into_iter().chain(tag.to_be_bytes()));
        }
        if Kernel::never_arrives(&sent) {
            return Ok(());
        }
        let mut open = vec![(here, Arrival::Device { ifindex }, sent)];
        while let Some((here, arrival, frame)) = open.pop() {
            let program = self.cloud.hypervisor(here).context("a tunnel to nowhere")?.compiler.program();
            let outcome = run(program, arrival, &frame);
            let mut expected: Vec<Out> = outcome.outputs.iter().map(Out::from).collect();
            expected.sort();
            let kernel = self.kernels.get_mut(here).context("a tunnel to nowhere")?;
            for attempt in 0..3 {
                let actual = kernel.run(arrival, &frame, expected.len())?;
                tally.frames += 1;
                if !outcome.learned.is_empty() {
                    kernel.forget()?;
                }
                let same =
                    actual.len() == expected.len() && actual.iter().zip(&expected).all(|(a, e)| a.same_but_padding(e));
                if !same {
                    let counters = kernel.counters();
                    let expected = expected.clone();
                    let found = KernelDisagreement {
                        hypervisor: here,
                        arrival,
                        frame: &frame,
                        attempt,
                        expected,
                        actual,
                        outcome: &outcome,
                        counters,
                    };
                    disagreements.push(format!("the loaded programs and the reference disagree: {found}"));
                    break;
                }
            }
            // A sample: what the wire has shown is shown by BPF_PROG_TEST_RUN as well.
            if let Arrival::Device { ifindex } = arrival
                && tally.packets.is_multiple_of(SAMPLE)
            {
                let ran = kernel.test_run(ifindex, &frame, &expected)?;
                tally.test_runs += usize::from(ran.is_some());
                if let Some(Err(found)) = ran {
                    disagreements.push(format!(
                        "BPF_PROG_TEST_RUN on hypervisor {here}, device {ifindex}, frame {frame:02x?}: {found}"
                    ));
                }
                if !outcome.learned.is_empty() {
                    kernel.forget()?;
                }
            }
            if let Some(bridge) = self.bridges.get_mut(here)
                && tally.packets.is_multiple_of(self.bridge_share)
            {
                match bridge_abstains(program, arrival, &frame, &outcome) {
                    Some(why) => *tally.not_bridged.entry(why).or_default() += 1,
                    None => through_bridge(bridge, arrival, &frame, &expected, &outcome, tally, disagreements)?,
                }
            }
            for output in &outcome.outputs {
                if let Destination::Tunnel { chassis, datapath, inport, outport } = output.destination {
                    open.push((
                        chassis.0 as usize - 1,
                        Arrival::Tunnel { datapath, inport, outport },
                        output.frame.clone(),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The same frame through a bridge: twice, the second time answered from Open vSwitch's own cache, and followed by `ofproto/trace`.
fn through_bridge(
    bridge: &mut Bridge,
    arrival: Arrival,
    frame: &[u8],
    expected: &[Out],
    outcome: &Outcome,
    tally: &mut Tally,
    disagreements: &mut Vec<String>,
) -> Result<()> {
    let learned = !outcome.learned.is_empty();
    let (ways, text) = bridge.trace(arrival, frame)?;
    let mut wanted: Vec<Way> = expected.iter().map(Way::from).collect();
    wanted.sort();
    if ways != wanted {
        let frame: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        disagreements.push(format!(
            "ofproto/trace and the reference disagree: {arrival:?}, frame {frame}\nexpected {wanted:?}\nactual {ways:?}\n{text}\n{:?}\n{:?}",
            outcome.outputs, outcome.drops
        ));
        return Ok(());
    }
    for attempt in 0..if learned { 1 } else { 2 } {
        let actual = bridge.run(arrival, frame)?;
        tally.bridged += 1;
        let same = actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| a.same_but_padding(e));
        if !same {
            let expected = expected.to_vec();
            let hypervisor = 0;
            let found =
                KernelDisagreement { hypervisor, arrival, frame, attempt, expected, actual, outcome, counters: text };
            disagreements.push(format!("the bridge and the reference disagree: {found}"));
            break;
        }
    }
    if learned {
        bridge.forget()?;
    }
    Ok(())
}

/// What Open vSwitch does otherwise, or cannot do.
fn bridge_abstains(program: &Program, arrival: Arrival, frame: &[u8], outcome: &Outcome) -> Option<&'static str> {
    if !outcome.learned.is_empty() && frame.get(..6) == frame.get(6..12) {
        return Some("Open vSwitch learns for the next packet, not for the one that teaches");
    }
    let half = |at: usize| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let is_tag = |at: usize| matches!(half(at), Some(0x8100 | 0x88a8));
    if let Arrival::Device { ifindex } = arrival
        && is_tag(12)
        && is_tag(16)
    {
        let tag = half(14).map(|tci| tci & 0xfff);
        let nested = |there: &Location| *there == Location::Local { ifindex, tag };
        if program.ports().any(|port| nested(&port.location)) {
            return Some("Open vSwitch does not see a tag below the one of a nested port; the flows drop such frames");
        }
    }
    None
}
