//! `oxbow-agree`: what `cargo xtask agree` runs.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output is its product")]

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use oxbow_agree::session::{Session, Tally};
use oxbow_agree::{hostile, topology};
use oxbow_testkit::OvsdbServer;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Judges the datapath: ovn-trace, the reference interpreter and the loaded programs must agree about every packet.
///
/// For each cloud Debian's ovn-northd writes the logical flows; Oxbow compiles them for every hypervisor (ports bound in turn) and
/// loads them into the kernel. Valid, mutated and hostile frames are sent from every port: the reference is compared with ovn-trace (same
/// outputs, same fields), the programs with the reference (same outputs, same bytes), by real frames on real devices, each twice: once
/// walked, once with the verdict cache warm; one in four is also run by BPF_PROG_TEST_RUN. Without contents, random layer-2 clouds are made.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask agree", max_term_width = 120)]
struct Args {
    /// A Northbound database file to take the contents from.
    #[arg(long, value_name = "FILE.db", conflicts_with = "scripts")]
    nb: Option<PathBuf>,
    /// A directory of scripts (*.sh, lines of ovn-nbctl commands), a cloud each.
    #[arg(long, value_name = "DIR")]
    scripts: Option<PathBuf>,
    /// How many hypervisors the ports are spread over.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    hypervisors: u8,
    /// How many packets in all, spread evenly over the clouds.
    #[arg(long, default_value_t = 10_000)]
    packets: usize,
    /// How many random clouds.
    #[arg(long, default_value_t = 10)]
    topologies: usize,
    /// Instead: this many hostile frames, spread evenly over the clouds (every header cut and changed at every byte, nested tags, wrong Geneve
    /// options), through the loaded programs beside the reference: no wrong delivery, no unexplained drop.
    #[arg(long, value_name = "FRAMES")]
    hostile: Option<u64>,
    /// Seed of clouds and packets: the same seed, the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One packet in this many also goes through an Open vSwitch with the OpenFlow backend's flows; 0: none does.
    #[arg(long, value_name = "N", default_value_t = 4)]
    openflow: usize,
    /// How many disagreements to print in full.
    #[arg(long, default_value_t = 3)]
    show: usize,
}

/// A cloud to build: its name, and how.
struct Contents {
    name: String,
    lines: Option<String>,
    database: Option<PathBuf>,
    script: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the judge makes network namespaces and loads eBPF programs: run as root");
    }
    let contents = contents(args)?;
    if let Some(frames) = args.hostile {
        return hostile(args, &contents, frames);
    }
    let mut sum = Tally::default();
    let start = Instant::now();
    let share = args.packets.div_ceil(contents.len());
    for (n, cloud) in contents.iter().enumerate() {
        let packets = share.min(args.packets - sum.packets);
        if packets == 0 {
            break;
        }
        let seed = args.seed.wrapping_mul(1_000_003).wrapping_add(n as u64);
        let show = args.show.saturating_sub(sum.disagreements);
        let mut session = Session::start(args.hypervisors.into(), |nb| cloud.fill(nb))
            .with_context(|| format!("cloud {}", cloud.name))?;
        if args.openflow > 0 {
            session = session.with_bridges(args.openflow).with_context(|| format!("cloud {}", cloud.name))?;
        }
        let tally = session
            .judge(packets, seed, show, |text| {
                println!("--- {}{text}", cloud.explain());
            })
            .with_context(|| format!("cloud {}", cloud.name))?;
        let seconds = start.elapsed().as_secs();
        let abstained: usize = tally.abstained.values().sum();
        println!(
            "{seconds:>5} s  {:<24} {:>6} packets, {:>6} delivered, {abstained:>5} not judged by ovn-trace, {:>6} frames through the programs \
             ({} from the cache, {} test runs besides), {:>5} through bridges, {} disagreements",
            cloud.name,
            tally.packets,
            tally.delivered,
            tally.frames,
            tally.cached,
            tally.test_runs,
            tally.bridged,
            tally.disagreements
        );
        sum += tally;
    }
    for (why, n) in &sum.abstained {
        println!("not judged by ovn-trace: {n} packets: {why}");
    }
    for (why, n) in &sum.not_bridged {
        println!("not judged through bridges: {n} frames: {why}");
    }
    println!("agree: topologies {}, packets {}, disagreements {}", contents.len(), sum.packets, sum.disagreements);
    // A packet that nothing was compared on agrees with everything.
    let judged = [
        ("delivered", sum.delivered == 0),
        ("answered from the cache", sum.cached == 0),
        ("in test runs", sum.test_runs == 0),
    ];
    if let Some((what, _)) = judged.iter().find(|(_, none)| sum.packets >= 500 && *none) {
        bail!("of {} packets none was {what}", sum.packets);
    }
    Ok(sum.disagreements == 0)
}

/// Hostile frames.
fn hostile(args: &Args, contents: &[Contents], frames: u64) -> Result<bool> {
    if args.hypervisors < 2 {
        bail!("--hostile needs at least two hypervisors: frames are thrown at the underlay too");
    }
    let mut sum = hostile::Tally::default();
    let start = Instant::now();
    let share = frames.div_ceil(contents.len() as u64);
    for (n, cloud) in contents.iter().enumerate() {
        let seed = args.seed.wrapping_mul(1_000_003).wrapping_add(n as u64);
        let show = (args.show as u64).saturating_sub(sum.disagreements);
        let mut session = Session::start(args.hypervisors.into(), |nb| cloud.fill(nb))
            .with_context(|| format!("cloud {}", cloud.name))?;
        let say = |tally: &hostile::Tally| {
            println!(
                "{:>5} s  {:<24} {:>9} test runs, {:>8} over devices, {:>9} delivered, {:>9} the host's, {} disagreements",
                start.elapsed().as_secs(),
                cloud.name,
                tally.test_runs,
                tally.wire,
                tally.delivered,
                tally.host,
                tally.disagreements
            );
        };
        let tell = |text: &str| println!("--- {}{text}", cloud.explain());
        let tally = hostile::judge(&mut session, share, seed, show, tell, say)
            .with_context(|| format!("cloud {}", cloud.name))?;
        say(&tally);
        sum += tally;
    }
    for (reason, n) in &sum.drops {
        println!("dropped, as the reference says: {n:>9} {reason}");
    }
    println!(
        "frames that the kernel refuses to run a program on, as predicted, and that went over devices: {}",
        sum.refused
    );
    println!(
        "came out of tunnels: {}; test runs whose outputs' devices the programs told: {}",
        sum.from_tunnels, sum.told
    );
    let (runs, wire, wrong) = (sum.test_runs, sum.wire, sum.disagreements);
    println!("hostile: {runs} test runs, {wire} over devices, disagreements {wrong}");
    // Where nearly nothing is run nothing is shown.
    ensure!(
        runs > 5 * sum.refused && sum.delivered > 0,
        "{} frames were refused of {}",
        sum.refused,
        runs + sum.refused
    );
    let shown = [("came out of a tunnel", sum.from_tunnels), ("was told of by the programs as it came out", sum.told)];
    if let Some((what, _)) = shown.iter().find(|(_, n)| frames >= 20_000 && *n == 0) {
        bail!("of {} frames none {what}", runs + wire);
    }
    Ok(wrong == 0)
}

fn contents(args: &Args) -> Result<Vec<Contents>> {
    let empty = |name: String| Contents { name, lines: None, database: None, script: None };
    if let Some(file) = &args.nb {
        let database = Some(file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?);
        return Ok(vec![Contents { database, ..empty(file.display().to_string()) }]);
    }
    if let Some(dir) = &args.scripts {
        let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let mut files: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "sh"));
        files.sort();
        if files.is_empty() {
            bail!("{} has no *.sh", dir.display());
        }
        let name = |file: &Path| file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(files
            .into_iter()
            .map(|file| Contents { script: Some(file.clone()), ..empty(name(&file)) })
            .collect());
    }
    if args.topologies == 0 {
        bail!("--topologies must be at least 1");
    }
    let made = (0..args.topologies).map(|n| {
        let seed = args.seed.wrapping_mul(7919).wrapping_add(n as u64);
        Contents { lines: Some(topology::random(seed)), ..empty(format!("random {n}")) }
    });
    Ok(made.collect())
}

impl Contents {
    /// Puts the contents into a Northbound database.
    fn fill(&self, nb: &OvsdbServer) -> Result<()> {
        if let Some(lines) = &self.lines {
            nb.nbctl(&lines.lines().collect::<Vec<_>>().join(" -- "))?;
        }
        if let Some(script) = &self.script {
            let mut command = std::process::Command::new("sh");
            command.arg("-e").arg(script).env("OVN_NB_DB", nb.remote());
            oxbow_testkit::process::checked(&script.display().to_string(), command.output()?)?;
        }
        if let Some(database) = &self.database {
            nb.restore("OVN_Northbound", database)?;
        }
        Ok(())
    }

    /// How to build the same cloud again.
    fn explain(&self) -> String {
        match &self.lines {
            Some(lines) => format!("{}:\n  {}\n", self.name, lines.replace('\n', "\n  ")),
            None => format!("{}: ", self.name),
        }
    }
}
