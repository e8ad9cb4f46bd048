//! Hostile packets: every header cut at every byte and changed in every byte, nested tags, wrong outer headers and Geneve options.
//!
//! Two things must hold for each: no copy comes out anywhere but where the reference says, byte by byte; and every drop is explained, which is to
//! say that the programs count the reason that the reference gives. The bulk goes through BPF_PROG_TEST_RUN; a part, and everything with VLAN
//! tags (which the kernel keeps beside the buffer), over real devices.

pub mod damage;
pub mod options;
pub mod outer;
mod run;

use crate::generator::{Generator, Identity};
use crate::kernel::{Kernel, UNDERLAY, ip4};
use crate::session::Session;
use crate::test_run::{LONGEST, is_tagged};
use anyhow::{Context as _, Result};
use damage::Damage;
use options::Path;
use outer::Outer;
use oxbow_pipeline::ir::{Location, PortKind};
use oxbow_pipeline::reference::Arrival;
use oxbow_testkit::random::Random;
use run::{Case, Expected, How, Where};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What came of the packets.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Frames run by BPF_PROG_TEST_RUN.
    pub test_runs: u64,
    /// Frames over real devices.
    pub wire: u64,
    /// Of the test runs, those of which a copy came out and the programs said where.
    pub told: u64,
    /// Of all, frames of which a copy came out.
    pub delivered: u64,
    /// Of these, frames that came in by the underlay.
    pub from_tunnels: u64,
    /// Of all, frames that are the host's.
    pub host: u64,
    /// Drops by reason, copies counted singly.
    pub drops: BTreeMap<&'static str, u64>,
    /// Frames that the kernel refuses to run a program on; those with an Ethernet header go over devices instead.
    pub refused: u64,
    /// Wrong deliveries and unexplained drops.
    pub disagreements: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.test_runs += other.test_runs;
        self.wire += other.wire;
        self.told += other.told;
        self.delivered += other.delivered;
        self.from_tunnels += other.from_tunnels;
        self.host += other.host;
        for (reason, n) in other.drops {
            *self.drops.entry(reason).or_default() += n;
        }
        self.refused += other.refused;
        self.disagreements += other.disagreements;
    }
}

/// Frames judged at once: between two looks at the programs' counters.
const BATCH: usize = 512;
/// One batch in this many goes over real devices.
const WIRE: usize = 10;

/// What a batch is made of.
enum Kind {
    /// Frames of a guest without tags.
    Guest,
    /// Frames of a guest with tags.
    Tagged,
    /// Frames on the underlay.
    Underlay,
}

/// Throws `frames` hostile frames at the programs of every hypervisor of a cloud. The first `show` disagreements are printed by `tell`.
///
/// # Errors
/// When a judge fails; a disagreement is no error.
pub fn judge(
    session: &mut Session,
    frames: u64,
    seed: u64,
    show: u64,
    mut tell: impl FnMut(&str),
    mut progress: impl FnMut(&Tally),
) -> Result<Tally> {
    let mut maker = Maker::new(session, seed)?;
    let mut tally = Tally::default();
    let mut round = 0usize;
    while tally.test_runs + tally.wire < frames {
        let here = round % session.kernels.len();
        let kind = match round / session.kernels.len() % 5 {
            0 | 2 => Kind::Guest,
            1 | 3 => Kind::Underlay,
            _ => Kind::Tagged,
        };
        // A hypervisor without guests has its underlay.
        let kind = if maker.senders[here].is_empty() { Kind::Underlay } else { kind };
        let how = match kind {
            Kind::Tagged => How::Devices,
            _ if maker.random.one_in(WIRE) => How::Devices,
            _ if maker.random.one_in(2) => How::TestRuns,
            _ => How::ToldTestRuns,
        };
        round += 1;
        let cases = maker.batch(session, here, &kind)?;
        let program = session.cloud.hypervisor(here).context("no such hypervisor")?.compiler.program();
        let kernel = session.kernels.get_mut(here).context("no such hypervisor")?;
        let found = run::batch(kernel, program, &cases, how, &mut tally)?;
        for text in found {
            if tally.disagreements < show {
                tell(&format!("hypervisor {here}: {text}"));
            }
            tally.disagreements += 1;
        }
        if round.is_multiple_of(200) {
            progress(&tally);
        }
    }
    Ok(tally)
}

/// A cloud whose programs take any frame at any device.
pub struct Entry {
    session: Session,
    maker: Maker,
    tally: Tally,
}

/// Bit of the first byte of an input: the frame arrives on the underlay.
pub const UNDERLAY_PLACE: u8 = 0x80;

impl Entry {
    /// A random cloud of two hypervisors.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub fn start(seed: u64) -> Result<Entry> {
        let lines = crate::topology::random(seed);
        let session = Session::start(2, |nb| nb.nbctl(&lines.lines().collect::<Vec<_>>().join(" -- ")).map(|_| ()))?;
        let maker = Maker::new(&session, seed)?;
        Ok(Entry { session, maker, tally: Tally::default() })
    }

    /// What came of all inputs so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The first byte says where the rest arrives: bit 0 on which hypervisor, [`UNDERLAY_PLACE`] whether on its underlay, the others on which of its
    /// VIFs (on the underlay, if it has none). What is wrong, a text each; frames that need real devices, and longer ones than every kernel takes in
    /// a test run, are not judged.
    ///
    /// # Errors
    /// When a judge fails.
    pub fn judge(&mut self, input: &[u8]) -> Result<Vec<String>> {
        let Some((&place, frame)) = input.split_first() else { return Ok(Vec::new()) };
        if is_tagged(frame) || frame.len() > LONGEST {
            return Ok(Vec::new());
        }
        let here = usize::from(place & 1);
        let senders = &self.maker.senders[here];
        let vif = usize::from((place & !UNDERLAY_PLACE) >> 1).checked_rem(senders.len());
        let case = match vif.filter(|_| place & UNDERLAY_PLACE == 0) {
            Some(at) => {
                let ifindex = senders[at].0;
                Case {
                    hypervisor: here,
                    at: Where::Vif(ifindex),
                    expected: Expected::Reference(Arrival::Device { ifindex }),
                    frame: frame.to_vec(),
                }
            }
            None => {
                let addresses = [ip4(0).into(), ip4(1).into()];
                let expected = match outer::read(frame, &addresses[here..=here], &addresses[1 - here..=1 - here]) {
                    Outer::Host => Expected::Host,
                    Outer::Refused(reason) => Expected::Refused(reason),
                    Outer::Inner(arrival, inner) => Expected::Inner(arrival, inner),
                };
                Case { hypervisor: here, at: Where::Underlay, expected, frame: frame.to_vec() }
            }
        };
        let program = self.session.cloud.hypervisor(here).context("no such hypervisor")?.compiler.program();
        let kernel = self.session.kernels.get_mut(here).context("no such hypervisor")?;
        run::batch(kernel, program, &[case], How::ToldTestRuns, &mut self.tally)
    }
}

/// Makes batches.
struct Maker {
    generator: Generator,
    random: Random,
    /// Per hypervisor: devices of its VIFs with what their ports may use.
    senders: Vec<Vec<(u32, Identity)>>,
    /// Frames with their damage still to be done, per kind.
    open: [Vec<Case>; 3],
}

impl Maker {
    fn new(session: &Session, seed: u64) -> Result<Maker> {
        let mut senders = vec![Vec::new(); session.cloud.len()];
        for (here, list) in senders.iter_mut().enumerate() {
            let program = session.cloud.hypervisor(here).context("no such hypervisor")?.compiler.program();
            for row in session.south.ports.values() {
                let Some(port) = program.port(row.port.datapath, row.port.key) else { continue };
                if let Location::Local { ifindex, tag: None } = port.location
                    && matches!(port.kind, PortKind::Vif | PortKind::Localport)
                {
                    let texts = row.port.port_security.iter().map(|text| &**text);
                    list.push((ifindex, Identity::of(texts.chain(row.addresses.iter().map(String::as_str)))));
                }
            }
        }
        Ok(Maker {
            generator: Generator::new(&session.south, seed),
            random: Random::new(!seed),
            senders,
            open: [const { Vec::new() }; 3],
        })
    }

    /// Frames for a hypervisor.
    fn batch(&mut self, session: &Session, here: usize, kind: &Kind) -> Result<Vec<Case>> {
        let slot = match kind {
            Kind::Guest => 0,
            Kind::Tagged => 1,
            Kind::Underlay => 2,
        };
        while self.open[slot].iter().filter(|case| case.hypervisor == here).count() < BATCH {
            let more = match kind {
                Kind::Guest => self.guest(here, false),
                Kind::Tagged => self.guest(here, true),
                Kind::Underlay => self.underlay(session, here)?,
            };
            self.open[slot].extend(more);
        }
        let (mut mine, others): (Vec<Case>, Vec<Case>) =
            std::mem::take(&mut self.open[slot]).into_iter().partition(|case| case.hypervisor == here);
        let rest = mine.split_off(BATCH.min(mine.len()));
        self.open[slot] = others;
        self.open[slot].extend(rest);
        Ok(mine)
    }

    fn guest(&mut self, here: usize, tagged: bool) -> Vec<Case> {
        let (ifindex, identity) = self.random.pick(&self.senders[here]).clone();
        let frame = self.generator.frame(&identity).bytes;
        let all: Vec<Damage> =
            if tagged { Damage::tagged(&frame).collect() } else { Damage::untagged(&frame, 12).collect() };
        let case = |damage: Damage| Case {
            hypervisor: here,
            at: Where::Vif(ifindex),
            expected: Expected::Reference(Arrival::Device { ifindex }),
            frame: damage.apply(&frame),
        };
        let cases = all.into_iter().map(case);
        // A cut within a tag, or tags that the kernel cannot take off, never reach a program; frames that happen to be tagged go by the other way.
        cases
            .filter(|case| case.frame.len() >= 14 && !Kernel::never_arrives(&case.frame))
            .filter(|case| tagged || !is_tagged(&case.frame))
            .collect()
    }

    fn underlay(&mut self, session: &Session, here: usize) -> Result<Vec<Case>> {
        let cloud = session.cloud.len();
        let from =
            (0..cloud).filter(|other| *other != here).nth(self.random.below(cloud - 1)).context("one hypervisor")?;
        let ports: Vec<_> = session.south.ports.values().collect();
        let (sender, receiver) = (*self.random.pick(&ports), *self.random.pick(&ports));
        let texts = sender.port.port_security.iter().map(|text| &**text);
        let identity = Identity::of(texts.chain(sender.addresses.iter().map(String::as_str)));
        let inner = self.generator.frame(&identity).bytes;
        let groups: Vec<u32> = session.south.groups.iter().map(|group| group.key.0).collect();
        let outport = match self.random.below(4) {
            0 if !groups.is_empty() => *self.random.pick(&groups),
            1 => self.random.number() as u32 & 0xffff,
            _ => receiver.port.key.0,
        };
        let network =
            if self.random.one_in(20) { self.random.number() as u32 & 0xff_ffff } else { receiver.port.datapath.0 };
        let path = Path {
            from: if self.random.one_in(20) { IpAddr::from([198, 51, 100, 7]) } else { ip4(from).into() },
            to: if self.random.one_in(20) { IpAddr::from([198, 51, 100, 8]) } else { ip4(here).into() },
            network,
            ports: sender.port.key.0 << 16 | outport,
        };
        let options = options::options(&mut self.random, path.ports);
        let frame = options::around(path, &options, &inner);
        let ours = [IpAddr::from(ip4(here))];
        let peers: Vec<IpAddr> = (0..cloud).filter(|other| *other != here).map(|other| ip4(other).into()).collect();
        // From the Ethernet type on; what is inside is damaged by the guests.
        let all: Vec<Damage> = Damage::untagged(&frame, 12).collect();
        let case = |damage: Damage| {
            let frame = damage.apply(&frame);
            let expected = match outer::read(&frame, &ours, &peers) {
                Outer::Host => Expected::Host,
                Outer::Refused(reason) => Expected::Refused(reason),
                Outer::Inner(arrival, inner) => Expected::Inner(arrival, inner),
            };
            Case { hypervisor: here, at: Where::Underlay, expected, frame }
        };
        Ok(all.into_iter().map(case).filter(|case| case.frame.len() >= 14 && !is_tagged(&case.frame)).collect())
    }
}

/// Interface index of where a frame arrives.
const fn index(at: Where) -> u32 {
    match at {
        Where::Vif(ifindex) => ifindex,
        Where::Underlay => UNDERLAY,
    }
}
