//! `cargo xtask test`: everything that must hold, in phases.

mod runner;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Need};
use crate::{build_ebpf, process};
use runner::Counts;

/// Runs all tests; what CI calls.
///
/// Phases, in order: setup, build, ebpf (the object), ring0 (unit and property tests, and the eBPF programs run on packets in the
/// kernel), doc (examples in the documentation), ring1 (whole clouds in network namespaces, and the source tree's own rules), parity
/// (our northd against ovn-northd), agree (the datapath against ovn-trace) and hostile (damaged packets through the programs), all in
/// their short forms, and vm (the verifiers of Linux 6.1 and, if it can be had, a newer kernel take the programs). A failing test phase does
/// not keep the next from running. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only these phases, after setup, build and ebpf; may be given several times.
    #[arg(long, value_name = "PHASE", value_parser = ["ring0", "doc", "ring1", "parity", "agree", "hostile", "vm"])]
    only: Vec<String>,
    /// Only tests whose name contains this: of ring0, doc and ring1; the other phases are one test each and run unless --only leaves them out.
    #[arg(value_name = "NAME")]
    filter: Option<String>,
}

/// A phase that judges. Those before it (setup, build, ebpf) only prepare.
struct Phase {
    name: &'static str,
    what: &'static str,
    run: fn(&Context) -> Result<Counts>,
}

/// What phases need to know.
struct Context {
    /// This program, for the phases that are commands of their own.
    xtask: PathBuf,
    filter: Option<String>,
}

const PHASES: &[Phase] = &[
    Phase { name: "ring0", what: "units, properties, programs on packets", run: ring0 },
    Phase { name: "doc", what: "examples in the documentation", run: doc },
    Phase { name: "ring1", what: "clouds in namespaces, the tree's own rules", run: ring1 },
    Phase { name: "parity", what: "oxbow-northd against ovn-northd", run: parity },
    Phase { name: "agree", what: "the datapath against ovn-trace", run: agree },
    Phase { name: "hostile", what: "hostile packets through the programs", run: hostile },
    Phase { name: "vm", what: "the programs on Linux 6.1 and a newer kernel", run: vm },
];

/// How short the short form of `agree` is.
const AGREE: &[&str] = &["agree", "--hypervisors", "2", "--packets", "2000", "--seed", "1"];
/// How short the short form of the hostile packets is.
const HOSTILE: &[&str] = &["agree", "--hostile", "150000", "--topologies", "6", "--hypervisors", "3", "--seed", "1"];

/// What of `vm` is quick: the gate.
const VM: &[&str] = &["vm", "--ring", "load", "--kernel", "6.1", "--also", "new"];

/// How a phase ended.
struct Ended {
    name: &'static str,
    took: Duration,
    outcome: Result<Counts>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:>7.1} s  ", self.name, self.took.as_secs_f32())?;
        match &self.outcome {
            Ok(counts) if counts.summaries.is_empty() => write!(f, "ok"),
            Ok(counts) => write!(f, "{}", counts.summaries.join("; ")),
            Err(error) => write!(f, "FAILED: {}", format!("{error:#}").lines().next().unwrap_or_default()),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the tests make network namespaces and load eBPF programs: run as root");
    }
    // Asked for now: building may replace this program's file.
    let xtask = std::env::current_exe().context("cannot find this program's file")?;
    let context = Context { xtask, filter: args.filter.clone() };
    let start = Instant::now();
    let mut ended = Vec::new();
    prepare(&mut ended)?;
    let chosen = PHASES.iter().filter(|phase| args.only.is_empty() || args.only.iter().any(|name| name == phase.name));
    for phase in chosen {
        println!("\n=== {}: {}", phase.name, phase.what);
        let (took, outcome) = timed(|| (phase.run)(&context));
        if let Err(error) = &outcome {
            println!("=== {} failed: {error:#}", phase.name);
        }
        ended.push(Ended { name: phase.name, took, outcome });
    }
    conclude(&ended, start.elapsed())?;
    match &context.filter {
        Some(filter) if !ran_a_test(&ended) => {
            bail!("no test's name contains `{filter}`: give a part of a test's name")
        }
        _ => Ok(()),
    }
}

/// Whether one of the phases that take a name ran a test; also when none of them was to run.
fn ran_a_test(ended: &[Ended]) -> bool {
    let mut counts = ended
        .iter()
        .filter(|phase| NAMED.contains(&phase.name))
        .map(|phase| phase.outcome.as_ref().map_or(1, |counts| counts.passed + counts.failed))
        .peekable();
    counts.peek().is_none() || counts.any(|count| count > 0)
}

/// The phases of which a name chooses tests; the others are one test each.
const NAMED: [&str; 3] = ["ring0", "doc", "ring1"];

/// Something that prepares.
type Step = fn() -> Result<()>;

/// Installs and builds; an error here ends everything, because nothing can be judged.
fn prepare(ended: &mut Vec<Ended>) -> Result<()> {
    let steps: [(&'static str, Step); 3] = [
        ("setup", || setup::ensure(&[Need::Ebpf, Need::Ovn, Need::Network, Need::Vm])),
        ("build", build),
        ("ebpf", || {
            build_ebpf::build(&build_ebpf::Args { quiet: true, ..Default::default() })?;
            build_ebpf::build_upgrades(true)
        }),
    ];
    for (name, step) in steps {
        println!("\n=== {name}");
        let (took, outcome) = timed(step);
        outcome.with_context(|| format!("{name} failed, and nothing can be tested"))?;
        ended.push(Ended { name, took, outcome: Ok(Counts::default()) });
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// Prints what became of every phase, and last a line with the sums in the form of Rust's own test runner.
fn conclude(ended: &[Ended], took: Duration) -> Result<()> {
    println!("\n=== phases");
    for phase in ended {
        println!("{phase}");
    }
    let failed: Vec<&str> = ended.iter().filter(|phase| phase.failed()).map(|phase| phase.name).collect();
    let sum =
        |count: fn(&Counts) -> u64| -> u64 { ended.iter().map(|phase| phase.outcome.as_ref().map_or(0, count)).sum() };
    let (passed, tests_failed) = (sum(|counts| counts.passed), sum(|counts| counts.failed));
    // A phase that failed without counting failed tests counts as one.
    let uncounted = ended.iter().filter(|phase| phase.outcome.is_err()).count() as u64;
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {passed} passed; {} failed; 0 ignored; finished in {:.2}s",
        tests_failed + uncounted,
        took.as_secs_f32()
    );
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

impl Ended {
    fn failed(&self) -> bool {
        self.outcome.as_ref().map_or(true, |counts| counts.failed > 0)
    }
}

/// Builds the daemons and tools that the tests start, and the tests.
fn build() -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--locked", "--workspace", "--all-targets", "--features", &kernel_test_features()?]);
    process::run(&mut command)
}

/// The features that switch on tests which need root and the eBPF object, of every crate that has some: `PACKAGE/ring0,…`.
pub(crate) fn kernel_test_features() -> Result<String> {
    let text = process::output(cargo().args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let having = packages.iter().filter(|package| package["features"].get(KERNEL_TESTS).is_some());
    let names = having.filter_map(|package| package["name"].as_str()).map(|name| format!("{name}/{KERNEL_TESTS}"));
    Ok(names.collect::<Vec<_>>().join(","))
}

/// The name of such a feature.
const KERNEL_TESTS: &str = "ring0";

fn cargo() -> Command {
    let mut command = process::cargo();
    // An error's message is worth more than where it was made.
    command.current_dir(crate::workspace::root()).env("RUST_LIB_BACKTRACE", "0");
    command
}

fn ring0(context: &Context) -> Result<Counts> {
    let features = kernel_test_features()?;
    runner::tests(&["--workspace", "--exclude", "oxbow-tests", "--features", &features], context.filter.as_deref())
}

fn ring1(context: &Context) -> Result<Counts> {
    runner::tests(&["--package", "oxbow-tests"], context.filter.as_deref())
}

fn doc(context: &Context) -> Result<Counts> {
    let mut command = cargo();
    command.args(["test", "--locked", "--workspace", "--doc"]).args(&context.filter);
    runner::cargo_test(command)
}

fn parity(context: &Context) -> Result<Counts> {
    runner::verdict(Command::new(&context.xtask).arg("parity"), "parity:")
}

fn agree(context: &Context) -> Result<Counts> {
    runner::verdict(Command::new(&context.xtask).args(AGREE), "agree:")
}

fn hostile(context: &Context) -> Result<Counts> {
    runner::verdict(Command::new(&context.xtask).args(HOSTILE), "hostile:")
}

fn vm(context: &Context) -> Result<Counts> {
    runner::verdict(Command::new(&context.xtask).args(VM), "vm:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_chooses_no_test_is_noticed() {
        let ended = |name, passed| Ended {
            name,
            took: Duration::ZERO,
            outcome: Ok(Counts { passed, failed: 0, summaries: Vec::new() }),
        };
        assert!(!ran_a_test(&[ended("build", 0), ended("ring0", 0), ended("ring1", 0), ended("parity", 1)]));
        assert!(ran_a_test(&[ended("ring0", 0), ended("ring1", 2)]));
        assert!(ran_a_test(&[ended("build", 0), ended("parity", 1)]), "no phase takes a name");
    }
}
