//! Runs of the loaded VIF program, and that they were what they were taken for.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Barrier;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use oxbow_abi::stats::total;
use oxbow_backend_bpf::kernel::Role;

use super::bpf::{self, Cursor, Driver, Target};
use super::switch::{FIRST_IFINDEX, Switch};

/// A measurement is the middle one of so many runs of the system call: others work on the machine too.
const SLICES: usize = 5;

/// What a program is to be found doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Nothing: the empty program.
    Nothing,
    /// Every packet is answered from the verdict cache.
    Cached,
    /// Every packet walks.
    Walked,
    /// Whatever it is.
    Any,
}

/// Counters of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) cached: u64,
    pub(crate) walked: u64,
    pub(crate) denied: u64,
}

impl std::ops::Sub for Paths {
    type Output = Paths;

    fn sub(self, before: Paths) -> Paths {
        Paths {
            cached: self.cached - before.cached,
            walked: self.walked - before.walked,
            denied: self.denied - before.denied,
        }
    }
}

/// Frames of the driver's table, in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    /// First frame.
    pub(crate) first: u32,
    /// How many.
    pub(crate) count: u32,
    /// Each turn has flows of its own.
    pub(crate) fresh: bool,
}

/// What one CPU does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Its frames.
    pub(crate) turns: Turns,
    /// What is behind the driver.
    pub(crate) target: Target,
    /// Packets in each of the runs of which the middle one counts.
    pub(crate) repeat: u32,
}

impl Work {
    /// Packets in all.
    pub(crate) fn packets(&self) -> u64 {
        u64::from(self.repeat) * SLICES as u64
    }
}

/// The programs on a switch, with frames for them.
pub(crate) struct Rig {
    pub(crate) switch: Switch,
    driver: Driver,
    empty: OwnedFd,
    vif: OwnedFd,
    cpus: Vec<usize>,
    /// Turns that never were yet: upper half of the salt.
    unused: u32,
}

impl Rig {
    /// With room for so many frames.
    pub(crate) fn new(mut switch: Switch, frames: usize) -> Result<Rig> {
        let program = switch.backend()?.instance().program(Role::Vif).context("no program")?;
        let vif = program.fd()?.as_fd().try_clone_to_owned()?;
        let (driver, empty) = (Driver::new(frames)?, bpf::empty()?);
        driver.aim(Target::Empty, empty.as_fd())?;
        driver.aim(Target::Vif, vif.as_fd())?;
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
        Ok(Rig { switch, driver, empty, vif, cpus, unused: 1 })
    }

    /// CPUs that may be used.
    pub(crate) fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Puts a frame into the table.
    pub(crate) fn frame(&self, index: u32, frame: &[u8]) -> Result<()> {
        self.driver.frame(index, frame)
    }

    /// What was counted so far.
    pub(crate) fn paths(&mut self) -> Result<Paths> {
        let counters = &self.switch.backend()?.instance().counters;
        let packets = |index| counters.total(index).map(|count| count.packets);
        Ok(Paths {
            cached: packets(total::CACHE_HIT)?,
            walked: packets(total::WALK)?,
            denied: packets(total::DENIED_HIT)?,
        })
    }

    /// Runs and checks by the counters that every packet took the path.
    fn checked(&mut self, path: Path, packets: u64, run: impl FnOnce(&mut Self) -> Result<f64>) -> Result<f64> {
        let before = self.paths()?;
        let ns = run(self)?;
        let after = self.paths()? - before;
        let none = Paths { cached: 0, walked: 0, denied: 0 };
        let wanted = match path {
            Path::Nothing => none,
            Path::Cached => Paths { cached: packets, ..none },
            Path::Walked => Paths { walked: packets, ..none },
            Path::Any => after,
        };
        let drops = self.switch.backend()?.instance().counters.drops()?;
        ensure!(after == wanted, "{packets} packets were to be {path:?}, but were {after:?}; drops so far: {drops:?}");
        Ok(ns)
    }

    /// Nanoseconds of one frame that came by port 0, without the driver.
    pub(crate) fn one(&mut self, frame: &[u8], path: Path, repeat: u32) -> Result<f64> {
        self.checked(path, u64::from(repeat) * SLICES as u64, |rig| {
            let program = if path == Path::Nothing { &rig.empty } else { &rig.vif };
            let cpu = rig.cpu(0)?;
            rig.switch.enter(|| {
                pin(cpu)?;
                middle(SLICES, || bpf::run(program.as_fd(), FIRST_IFINDEX, frame, repeat))
            })
        })
    }

    /// Nanoseconds of frames from the table; the table's own cost is in it.
    pub(crate) fn table(&mut self, turns: Turns, path: Path, repeat: u32) -> Result<f64> {
        self.checked(path, u64::from(repeat) * SLICES as u64, |rig| {
            let target = if path == Path::Nothing { Target::Empty } else { Target::Vif };
            Ok(rig.at_once(&[Work { turns, target, repeat }])?[0])
        })
    }

    /// Nanoseconds of the first packet of each flow in the table, none of which has a verdict.
    pub(crate) fn first(&mut self, turns: Turns) -> Result<f64> {
        let work = Work { turns, target: Target::Vif, repeat: turns.count };
        self.checked(Path::Walked, work.packets(), |rig| {
            let mut all = Vec::with_capacity(SLICES);
            for _ in 0..SLICES {
                rig.switch.forget()?;
                all.push(rig.runs(&[work], 1)?[0]);
            }
            Ok(median(all))
        })
    }

    /// The same on several CPUs at once, each with work of its own: nanoseconds of each.
    pub(crate) fn at_once(&mut self, work: &[Work]) -> Result<Vec<f64>> {
        self.runs(work, SLICES)
    }

    fn runs(&mut self, work: &[Work], slices: usize) -> Result<Vec<f64>> {
        let mut each = Vec::new();
        for (n, Work { turns, target, repeat }) in work.iter().enumerate() {
            let cpu = self.cpu(n)?;
            let salt = if turns.fresh { self.unused << 16 } else { 0 };
            if turns.fresh {
                // 16 bits of destination port in all.
                self.unused = (self.unused + repeat * slices as u32 / turns.count + 1) % (1 << 16);
            }
            let (first, count, step) = (turns.first, turns.count, if turns.fresh { 1 << 16 } else { 0 });
            self.driver.cursor(cpu, Cursor { first, count, next: 0, step, salt, target: *target as u32 })?;
            each.push((cpu, *repeat));
        }
        let (driver, start) = (&self.driver, &Barrier::new(each.len()));
        let one = |(cpu, repeat): (usize, u32)| {
            move || -> Result<f64> {
                pin(cpu)?;
                start.wait();
                middle(slices, || driver.run(FIRST_IFINDEX, &[0; bpf::HEAD], repeat))
            }
        };
        self.switch.enter(move || {
            std::thread::scope(|scope| {
                let threads: Vec<_> = each.into_iter().map(|work| scope.spawn(one(work))).collect();
                let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
                joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            })
        })
    }

    /// The last CPU first: on small machines interrupts and everything else tend to sit on CPU 0.
    fn cpu(&self, n: usize) -> Result<usize> {
        self.cpus.iter().rev().nth(n).copied().context("not that many CPUs")
    }
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

fn middle(slices: usize, mut run: impl FnMut() -> Result<bpf::Ran>) -> Result<f64> {
    let mut all = Vec::with_capacity(slices);
    for _ in 0..slices {
        all.push(f64::from(run()?.ns));
    }
    Ok(median(all))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
