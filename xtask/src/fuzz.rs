//! `cargo xtask fuzz`: the fuzz targets, each for a while.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Need};
use crate::{build_ebpf, process, workspace};

/// A crate's targets.
struct Suite {
    /// Directory of the crate whose `fuzz/` they are in.
    directory: &'static str,
    targets: &'static [&'static str],
}

const SUITES: &[Suite] = &[
    Suite { directory: "userspace/lflow", targets: &["matches", "actions", "microflows"] },
    Suite { directory: "userspace/ovsdb", targets: &["framing", "session"] },
    Suite { directory: "userspace/agree", targets: &["frames", "tunnels", "programs"] },
];

/// Fuzzes parsers, OVSDB framing and session, and the programs' entry, each target for a while, from the corpora in the tree.
///
/// matches, actions, microflows: OVN's languages. framing, session: what an OVSDB server sends. frames, tunnels: the programs' parsers beside the
/// judge's. programs: the loaded programs beside the reference (needs root). Needs cargo-fuzz (`cargo install cargo-fuzz`). What a target
/// finds is in its crate's fuzz/artifacts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these targets; may be given several times.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// For how long each.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let known = || SUITES.iter().flat_map(|suite| suite.targets);
    if let Some(unknown) = args.targets.iter().find(|name| !known().any(|target| target == name)) {
        let all: Vec<&str> = known().copied().collect();
        bail!("there is no fuzz target {unknown}; there are {}", all.join(", "));
    }
    let wanted = |target: &str| args.targets.is_empty() || args.targets.iter().any(|name| name == target);
    if wanted("programs") {
        setup::ensure(&[Need::Ebpf, Need::Ovn, Need::Network])?;
        build_ebpf::build(&build_ebpf::Args { quiet: true, ..Default::default() })?;
    }
    let installed = process::cargo().args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !installed.context("cannot run cargo")?.success() {
        bail!("there is no cargo-fuzz: `cargo install cargo-fuzz`");
    }
    let mut failed = Vec::new();
    for suite in SUITES {
        for target in suite.targets.iter().filter(|target| wanted(target)) {
            println!("\n=== {target} for {} s", args.seconds);
            let status = process::cargo()
                .current_dir(workspace::root().join(suite.directory))
                // The coverage instrumentation is behind an unstable flag of the compiler.
                .env("RUSTC_BOOTSTRAP", "1")
                .args(["fuzz", "run", target, "--", "-print_final_stats=1", "-timeout=20"])
                .arg(format!("-max_total_time={}", args.seconds))
                .status()
                .context("cannot run cargo fuzz")?;
            if !status.success() {
                failed.push(*target);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {} (see above, and fuzz/artifacts)", failed.join(", "));
    }
    Ok(())
}
