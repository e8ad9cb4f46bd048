//! Traffic that must not notice: a thousand counted packets a second each way, inside a hypervisor and across.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::stream::Report;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Stream, wait_until};

use crate::layer2::{GUESTS, Guest};

/// Packets a second in each direction of each stream.
pub const RATE: u32 = 1000;

/// How long a fault lasts: `OXBOW_FAULT_SECONDS` in the long form of the tests, else what the test says.
///
/// # Errors
///
/// When the variable is no number.
pub fn fault_time(short: Duration) -> Result<Duration> {
    match std::env::var("OXBOW_FAULT_SECONDS") {
        Ok(text) => {
            let seconds =
                text.parse().with_context(|| format!("OXBOW_FAULT_SECONDS={text}: not a number of seconds"))?;
            Ok(Duration::from_secs_f64(seconds))
        }
        Err(_) => Ok(short),
    }
}

/// How many single echo requests of a [`PingStream`](oxbow_testkit::probe::PingStream) may be lost that no program decided about: the userspace datapath
/// of an ovs-vswitchd on a busy machine loses one now and then, and counts it nowhere (one in six runs of all tests). Where none forwards: none.
pub fn spared_pings(cloud: &Cloud) -> usize {
    if cloud.hypervisors().iter().any(|host| host.node().has_userspace_datapath()) { 2 } else { 0 }
}

/// Streams that go on while something happens.
#[derive(Debug)]
pub struct Traffic {
    streams: Vec<Between>,
    start: Instant,
}

/// A stream, and what its ends are.
#[derive(Debug)]
struct Between {
    stream: Stream,
    /// Frames that sockets of the userspace datapaths of its hypervisors, by their indexes, had no room for before it began.
    overflown: BTreeMap<usize, u64>,
}

impl Traffic {
    /// Between the first two guests of [`layer2`](crate::layer2) (one hypervisor) and between the first and the third (two of them).
    pub fn near_and_far(cloud: &Cloud) -> Result<Self> {
        Self::between(cloud, &[(GUESTS[0], GUESTS[1]), (GUESTS[0], GUESTS[2])])
    }

    /// Between these pairs of guests, over IPv4.
    pub fn between(cloud: &Cloud, pairs: &[(Guest, Guest)]) -> Result<Self> {
        let end = |guest: &Guest| -> Result<_> {
            let address: IpAddr = guest.ipv4.parse()?;
            Ok((cloud.vif(guest.port)?.guest(), address))
        };
        let between = |(a, b): &(Guest, Guest)| -> Result<_> {
            let overflown = [a.hypervisor, b.hypervisor]
                .into_iter()
                .filter(|index| cloud.hypervisors()[*index].node().has_userspace_datapath())
                .map(|index| Ok((index, overflown(&cloud.hypervisors()[index])?)))
                .collect::<Result<_>>()?;
            Ok(Between { stream: Stream::start(end(a)?, end(b)?, RATE)?, overflown })
        };
        let streams = pairs.iter().map(between).collect::<Result<_>>()?;
        Ok(Self { streams, start: Instant::now() })
    }

    /// Notes what is being done, for the report.
    pub fn mark(&self, what: &str) {
        for between in &self.streams {
            between.stream.mark(what);
        }
    }

    /// Waits until a hundred more have come in every direction.
    pub fn goes_on(&self) -> Result<()> {
        self.streams.iter().try_for_each(|between| between.stream.wait_for(100))
    }

    /// Goes on for so long.
    pub fn goes_on_for(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.streams.iter().try_for_each(|between| between.stream.wait_for(1))?;
        }
        Ok(())
    }

    /// Ends it: every packet must have come exactly once, but for those that no program decided about: an ovs-vswitchd whose thread does not get a CPU lets its
    /// packet sockets overflow, and the kernel counts what it drops there. Prints the figures.
    pub fn nothing_was_lost_by(self, cloud: &Cloud) -> Result<()> {
        self.lost_at_most(|between| between.excused(cloud))
    }

    /// [`Self::nothing_was_lost_by`] while ports were added and removed: an ovs-vswitchd loses some milliseconds of what its userspace datapath carries
    /// each time (3 to 21 frames of a direction were seen), and counts them nowhere. Where neither end of a stream has such a datapath nothing more is excused.
    pub fn nothing_was_lost_but_by_adding_ports(self, cloud: &Cloud) -> Result<()> {
        const PAUSE: u64 = 50;
        self.lost_at_most(|between| {
            let pauses = if between.overflown.is_empty() { 0 } else { PAUSE * 2 };
            Ok(pauses + between.excused(cloud)?)
        })
    }

    /// Ends it: every packet must have come exactly once. Prints the figures.
    pub fn nothing_was_lost(self) -> Result<()> {
        self.lost_at_most(|_| Ok(0))
    }

    fn lost_at_most(self, excused: impl Fn(&Between) -> Result<u64>) -> Result<()> {
        let took = self.start.elapsed();
        let excused: Vec<u64> = self.streams.iter().map(excused).collect::<Result<_>>()?;
        let reports: Vec<Report> =
            self.streams.into_iter().map(|between| between.stream.finish()).collect::<Result<_>>()?;
        let text: Vec<String> = reports.iter().map(ToString::to_string).collect();
        let text = text.join("\n");
        #[expect(clippy::print_stdout, reason = "the figures are what a long form is run for")]
        {
            println!("{:.1} s of traffic, of which {excused:?} may be lost:\n{text}", took.as_secs_f32());
        }
        // The rate is what was asked for, or the test says nothing about it. A busy machine may be late, not absent.
        let least = took.as_secs_f64() * f64::from(RATE) * 0.5;
        for direction in reports.iter().flat_map(|report| &report.directions) {
            ensure!(direction.sent as f64 > least, "{} sent in {took:?} are too few\n{text}", direction.sent);
            ensure!(direction.duplicated + direction.damaged == 0, "duplicated or damaged\n{text}");
        }
        for (report, excused) in reports.iter().zip(excused) {
            ensure!(report.lost() <= excused, "{excused} of {} lost are excused\n{report}\nof\n{text}", report.lost());
        }
        Ok(())
    }
}

impl Between {
    /// Frames that userspace datapaths of its ends did not get. After a pause the frames come in one burst, and queues behind the socket overflow as well,
    /// which nobody counts by packet: as many again at most were seen, and where no socket overflowed none.
    fn excused(&self, cloud: &Cloud) -> Result<u64> {
        let mut sum = 0;
        for (index, before) in &self.overflown {
            sum += overflown(&cloud.hypervisors()[*index])?.saturating_sub(*before);
        }
        Ok(2 * sum)
    }
}

/// Frames that the kernel had no room for in packet sockets of this hypervisor's userspace datapath.
fn overflown(host: &Hypervisor) -> Result<u64> {
    let text = host.ns().run("ss", &["--packet", "--memory", "--no-header"])?;
    // skmem:(r0,rb212992,…,d7): the last one counts drops (ss(8)).
    let drops = text.split("skmem:(").skip(1).filter_map(|memory| memory.split(')').next()?.rsplit(",d").next());
    Ok(drops.filter_map(|number| number.parse::<u64>().ok()).sum())
}

/// Waits until a hypervisor's `oxbow-node` has taken over: its own policy is in force.
pub fn until_in_force(hypervisor: &Hypervisor) -> Result<()> {
    wait_until(&format!("the dataplane of {} in force", hypervisor.name()), PATIENCE, || {
        let text = hypervisor.appctl("debug/dataplane")?;
        Ok(Look::when(text.contains(", active,"), || text))
    })
}
