//! `cargo xtask parity`: Debian's ovn-northd and ours on the same Northbound contents must write the same.

mod chance;
mod compare;
mod database;
mod generator;
mod history;
mod minimize;
mod naming;
mod random;
mod sandbox;
mod script;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::{process, workspace};
use chance::Chances;
use compare::{Difference, History, Side};
use sandbox::Sandbox;
use script::{Progress, RunningScript};

/// Compares what ovn-northd and oxbow-northd write for the same Northbound contents.
///
/// Each script runs in two sandboxes, one with Debian's ovn-northd and one with ours, both with Debian's ovsdb-server. At
/// every line `# step` and at the end all tables of both databases are compared, datapath groups expanded and uuids
/// replaced by names. The last line is the sum; the exit status is 1 unless nothing differs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shell scripts of ovn-nbctl commands [default: tests/parity/*.sh and the empty database]
    scripts: Vec<PathBuf>,
    /// A Northbound database file to compare on, once, instead of scripts
    #[arg(long, value_name = "FILE.db", conflicts_with = "scripts")]
    nb: Vec<PathBuf>,
    /// With --nb, compare at each state that the file has recorded since it was last compacted, not only the latest
    #[arg(long, requires = "nb")]
    history: bool,
    /// Number of random changes to compare after, in sequences of 25, instead of scripts
    #[arg(long, value_name = "N", conflicts_with_all = ["scripts", "nb"])]
    random: Option<usize>,
    /// Seed of the first random sequence
    #[arg(long, value_name = "S", default_value_t = 1, requires = "random")]
    seed: u64,
    /// How many differences to print
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
    /// The northd to judge [default: oxbow-northd, built first]
    #[arg(long, value_name = "PROGRAM")]
    ours: Option<PathBuf>,
    /// The northd to judge by
    #[arg(long, value_name = "PROGRAM", default_value = "ovn-northd")]
    stock: PathBuf,
}

/// How long a difference may last before it counts: northd may need a second turn for what it wrote itself.
const SETTLE: Duration = Duration::from_secs(3);
const SETTLE_POLL: Duration = Duration::from_millis(50);

/// What one kind of content looks like.
struct Content {
    name: String,
    script: String,
    /// The Northbound database file to start from.
    nb: Option<Vec<u8>>,
    /// Leave the options alone that stock fills in at random.
    as_created: bool,
}

/// The sum over all comparison points.
#[derive(Default)]
struct Total {
    contents: usize,
    flows: usize,
    missing: usize,
    extra: usize,
    other: usize,
}

/// A comparison point at which the sides differ.
struct Failure {
    /// Which comparison point of its content, from 1.
    point: usize,
    difference: Difference,
}

struct Comparison<'a> {
    stock: &'a Path,
    ours: &'a Path,
    chances: Chances,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let ours = match &args.ours {
        // A path with a slash must mean the same in a sandbox; a bare name is looked up in PATH.
        Some(program) if program.components().count() > 1 => std::path::absolute(program)?,
        Some(program) => program.clone(),
        None => build_northd()?,
    };
    let comparison = Comparison { stock: &args.stock, ours: &ours, chances: Chances::load()? };
    let mut total = Total::default();
    // Contents that could not be compared at all.
    let mut broken = 0;
    if let Some(steps) = args.random {
        let mut left = steps;
        let mut seed = args.seed;
        while left > 0 {
            let length = left.min(random::SEQUENCE);
            random_sequence(&comparison, seed, length, args.show, &mut total)?;
            left -= length;
            seed += 1;
        }
    } else {
        for content in contents(args)? {
            let started = Instant::now();
            let before = total.contents;
            let failures = match comparison.run(&content, &mut total) {
                Ok(failures) => failures,
                Err(error) => {
                    println!("{}: FAILED: {error:#}", content.name);
                    broken += 1;
                    continue;
                }
            };
            let points = total.contents - before;
            let verdict = if failures.is_empty() { "equal" } else { "DIFFERENT" };
            println!("{}: {points} comparisons, {verdict} ({} ms)", content.name, started.elapsed().as_millis());
            report(&content.name, &failures, args.show);
        }
    }
    println!(
        "parity: contents {}, flows {}, missing {}, extra {}, other {}",
        total.contents, total.flows, total.missing, total.extra, total.other
    );
    if total.missing + total.extra + total.other + broken > 0 {
        std::process::exit(1);
    }
    Ok(())
}

fn build_northd() -> Result<PathBuf> {
    process::run(process::cargo().current_dir(workspace::root()).args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        "oxbow-northd",
        "--bin",
        "oxbow-northd",
    ]))?;
    Ok(workspace::target_dir().join("debug/oxbow-northd"))
}

fn contents(args: &Args) -> Result<Vec<Content>> {
    let mut contents = Vec::new();
    let at_once = |name: String, nb: Vec<u8>| Content { name, script: String::new(), nb: Some(nb), as_created: false };
    for path in &args.nb {
        let file = std::fs::read(path).with_context(|| path.display().to_string())?;
        let name = path.display().to_string();
        if args.history {
            let states = history::states(&file).with_context(|| name.clone())?;
            contents.extend(
                states.into_iter().enumerate().map(|(n, state)| at_once(format!("{name}, state {n}"), state.to_vec())),
            );
        } else {
            contents.push(at_once(name, file));
        }
    }
    if !args.nb.is_empty() {
        return Ok(contents);
    }
    let mut scripts = args.scripts.clone();
    if scripts.is_empty() {
        contents.push(Content {
            name: "the empty database".to_owned(),
            script: "# step".to_owned(),
            nb: None,
            as_created: true,
        });
        let directory = workspace::root().join("tests/parity");
        for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "sh") {
                scripts.push(path);
            }
        }
        scripts.sort();
    }
    for script in scripts {
        let text = std::fs::read_to_string(&script).with_context(|| script.display().to_string())?;
        contents.push(Content { name: workspace::shown(&script), script: text, nb: None, as_created: false });
    }
    Ok(contents)
}

fn report(name: &str, failures: &[Failure], show: usize) {
    for Failure { point, difference } in failures {
        println!(
            "  {name}, comparison {point}: missing {}, extra {}, other {}",
            difference.missing, difference.extra, difference.other
        );
        for text in difference.report.iter().take(show) {
            print!("    {text}");
        }
        if difference.report.len() > show {
            println!("    ... and {} more", difference.report.len() - show);
        }
    }
}

/// Compares after each change of one random sequence; on failure shows the shortest script found that still fails.
fn random_sequence(
    comparison: &Comparison<'_>,
    seed: u64,
    length: usize,
    show: usize,
    total: &mut Total,
) -> Result<()> {
    let steps = random::sequence(seed, length);
    let name = format!("random sequence of {length} changes, seed {seed}");
    let content =
        |steps: &[String]| Content { name: name.clone(), script: random::script(steps), nb: None, as_created: false };
    let failures = comparison.run(&content(&steps), total).with_context(|| name.clone())?;
    println!("{name}: {}", if failures.is_empty() { "equal after each" } else { "DIFFERENT" });
    let Some(first) = failures.first() else { return Ok(()) };
    report(&name, &failures[..1], show);
    let fails = |steps: &[String]| {
        // A script that cannot run, since what it needs was left out, does not reproduce the failure.
        comparison.run(&content(steps), &mut Total::default()).is_ok_and(|failures| !failures.is_empty())
    };
    let upto = first.point.min(steps.len());
    let minimal = minimize::minimize(&steps[..upto], fails);
    println!("  reproduce with `cargo xtask parity --random {length} --seed {seed}`, or with this script:");
    for line in random::script(&minimal).lines() {
        println!("    {line}");
    }
    Ok(())
}

impl Comparison<'_> {
    /// Runs one content on both sides and compares at each of its points. After the first point that differs the rest
    /// of the content is left out, since it would differ likewise.
    fn run(&self, content: &Content, total: &mut Total) -> Result<Vec<Failure>> {
        let mut sides = [Sandbox::new("stock", content.nb.as_deref())?, Sandbox::new("ours", content.nb.as_deref())?];
        for (side, program) in sides.iter_mut().zip([self.stock, self.ours]) {
            if !content.as_created {
                fix_random_options(side)?;
            }
            side.start_northd(program)?;
        }
        let mut scripts = Vec::new();
        for side in &sides {
            scripts.push(RunningScript::start(side, &content.script)?);
        }
        let mut history = History::default();
        let mut failures = Vec::new();
        let mut point = 0;
        loop {
            let mut progress = Progress::End;
            for script in &mut scripts {
                progress = script.wait()?;
            }
            point += 1;
            if content.as_created && point == 1 {
                // The tools of OVN create the global rows; here it is northd that must.
                sides[0].wait_until("stock has filled in its defaults", |stock| {
                    Ok(!database::read(&stock.socket(), "OVN_Southbound")?.rows("RBAC_Role").is_empty())
                })?;
            } else {
                sides[0].synchronize()?;
            }
            // A northd of ours that cannot follow is a difference like others, to be reproduced and shortened.
            let stuck = if point > 1 || !content.as_created { sides[1].synchronize().err() } else { None };
            let mut difference = self.settled(&mut sides, &mut history)?;
            if let Some(error) = stuck {
                difference.other += 1;
                difference.report.insert(0, format!("{error:#}\n"));
            }
            total.contents += 1;
            total.flows += difference.flows;
            total.missing += difference.missing;
            total.extra += difference.extra;
            total.other += difference.other;
            if !difference.is_none() {
                failures.push(Failure { point, difference });
                return Ok(failures);
            }
            if progress == Progress::End {
                return Ok(failures);
            }
            for script in &mut scripts {
                script.resume()?;
            }
        }
    }

    /// Compares, and again while there are differences, until they last.
    fn settled(&self, sides: &mut [Sandbox; 2], history: &mut History) -> Result<Difference> {
        let started = Instant::now();
        loop {
            let [stock, ours] = &*sides;
            let (stock, ours) = (read(stock)?, read(ours)?);
            let mut tried = history.clone();
            let difference = compare::compare(&stock, &ours, &self.chances, &mut tried);
            if difference.is_none() || started.elapsed() > SETTLE {
                *history = tried;
                return Ok(difference);
            }
            for side in sides.iter_mut() {
                side.check_alive()?;
            }
            std::thread::sleep(SETTLE_POLL);
        }
    }
}

fn read(sandbox: &Sandbox) -> Result<Side> {
    let socket = sandbox.socket();
    Ok(Side { nb: database::read(&socket, "OVN_Northbound")?, sb: database::read(&socket, "OVN_Southbound")? })
}

/// Gives both sides the same values for the options that a northd chooses at random when it finds none, because addresses
/// are derived from them.
fn fix_random_options(sandbox: &Sandbox) -> Result<()> {
    const OPTIONS: [(&str, &str); 2] = [("mac_prefix", "0a:58:a9"), ("svc_monitor_mac", "0a:58:a9:00:00:01")];
    process::output(sandbox.command("ovn-nbctl").arg("init"))?;
    let contents = database::read(&sandbox.socket(), "OVN_Northbound")?;
    let [global] = contents.rows("NB_Global") else { bail!("NB_Global has other than one row") };
    for (key, value) in OPTIONS {
        if database::map_get(global, "options", key).is_none() {
            let setting = format!("options:{key}={}", json!(value));
            process::output(sandbox.command("ovn-nbctl").args(["set", "NB_Global", ".", &setting]))?;
        }
    }
    Ok(())
}
