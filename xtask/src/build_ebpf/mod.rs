//! `cargo xtask build-ebpf`: the eBPF programs, as one object for all kernels.

mod object_report;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Mode};
use crate::{process, workspace};
use object_report::ObjectReport;

/// Builds the eBPF programs into one object for all kernels.
///
/// The programs live in ebpf/datapath, a workspace of its own because they are built for another target by another compiler:
/// rustup's nightly with rust-src, or Debian's rustc-web. The object appears as target/bpf/oxbow-datapath.o; it is replaced
/// only when its bytes changed. The build fails when the object can reach a panic, since the verifier would refuse it later
/// and say less. Instruction counts of every function are printed, written to target/bpf/ and compared with
/// ebpf/datapath/instructions.txt.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Build the flavour with log messages (aya-log) instead: target/bpf/oxbow-datapath-debug.o.
    #[arg(long)]
    pub(crate) debug_log: bool,
    /// Build what tests of upgrades install instead: an object of the same layout in other instructions (target/upgrades/other-build/), and
    /// one of another layout with the oxbow-node that belongs to it (target/upgrades/swapped-layout/).
    #[arg(long, conflicts_with = "debug_log")]
    pub(crate) upgrades: bool,
    /// Write the instruction counts to ebpf/datapath/instructions.txt.
    #[arg(long, conflicts_with_all = ["debug_log", "upgrades"])]
    pub(crate) record: bool,
    /// Say nothing when the object is up to date.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What bpf-linker and the compiler need to be told.
///
/// * `--btf` and debuginfo: maps and programs carry types, and a verifier log carries source lines.
/// * `target-cpu=v3`: atomics that return a value; 32-bit jumps. Loads on 6.1.
/// * `--disable-expand-memcpy-in-order`: struct copies stay inline instead of becoming calls of a byte loop.
const FLAGS: &[&str] =
    &["debuginfo=2", "link-arg=--btf", "target-cpu=v3", "link-arg=--disable-expand-memcpy-in-order", "panic=abort"];

const TARGET: &str = "bpfel-unknown-none";
const BINARY: &str = "oxbow-datapath";

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.upgrades { build_upgrades(args.quiet) } else { build(args).map(|_| ()) }
}

/// A variety of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    /// What ships.
    Shipped,
    /// With log messages.
    DebugLog,
    /// In other instructions.
    OtherBuild,
    /// With other map layouts.
    SwappedLayout,
}

impl Flavour {
    /// The feature of oxbow-datapath that makes it.
    const fn feature(self) -> Option<&'static str> {
        match self {
            Self::Shipped => None,
            Self::DebugLog => Some("debug-log"),
            Self::OtherBuild => Some("other-build"),
            Self::SwappedLayout => Some(SWAPPED_LAYOUT),
        }
    }

    fn object(self) -> PathBuf {
        match self {
            Self::Shipped => workspace::ebpf_object_path(false),
            Self::DebugLog => workspace::ebpf_object_path(true),
            Self::OtherBuild => workspace::upgrades_dir().join("other-build/oxbow-datapath.o"),
            Self::SwappedLayout => workspace::upgrades_dir().join("swapped-layout/oxbow-datapath.o"),
        }
    }
}

/// Builds what is out of date and returns the object's path.
pub(crate) fn build(args: &Args) -> Result<PathBuf> {
    build_flavour(if args.debug_log { Flavour::DebugLog } else { Flavour::Shipped }, args)
}

/// Builds what tests of upgrades install.
pub(crate) fn build_upgrades(quiet: bool) -> Result<()> {
    let args = Args { quiet, ..Args::default() };
    for flavour in [Flavour::OtherBuild, Flavour::SwappedLayout] {
        build_flavour(flavour, &args)?;
    }
    build_swapped_node(quiet)
}

fn build_flavour(flavour: Flavour, args: &Args) -> Result<PathBuf> {
    let (toolchain, linker) = setup::ensure_ebpf(Mode::Install)?;
    let source = workspace::root().join("ebpf/datapath");
    let target = workspace::target_dir().join(if flavour == Flavour::DebugLog { "ebpf-debug" } else { "ebpf" });
    if !args.quiet {
        println!("{toolchain}\n{linker}");
    }
    let linker = linker.path.to_str().with_context(|| format!("{} is not UTF-8", linker.path.display()))?;
    let flags: Vec<String> =
        std::iter::once(format!("-Clinker={linker}")).chain(FLAGS.iter().map(|flag| format!("-C{flag}"))).collect();
    let mut command = toolchain.cargo_command();
    command.current_dir(&source).args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", TARGET]);
    command.arg("--target-dir").arg(&target).args(["--bin", BINARY]);
    if args.quiet {
        command.arg("--quiet");
    }
    if let Some(feature) = flavour.feature() {
        command.args(["--features", feature]);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    process::run(&mut command).context("the eBPF programs do not build")?;

    let built = target.join(TARGET).join("release").join(BINARY);
    let bytes = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let report = ObjectReport::read(&bytes).with_context(|| format!("in {}", built.display()))?;
    if !report.panics.is_empty() {
        bail!(
            "the eBPF object can panic, and the verifier would refuse it. Symbols left in it:\n  {}\n\
             Look for unwrap(), indexing by a value that is not proven in range, division: use get(), a mask, checked_div()",
            report.panics.join("\n  ")
        );
    }
    let object = flavour.object();
    let changed = write_if_changed(&object, &bytes)?;
    let table = report.to_string();
    let shown = workspace::shown(&object);
    write_if_changed(&object.with_extension("instructions.txt"), table.as_bytes())?;
    if !args.quiet || changed {
        println!("{shown}: {} bytes, {}", bytes.len(), if changed { "new" } else { "unchanged" });
    }
    if !args.quiet {
        print!("{table}");
    }
    if flavour == Flavour::Shipped {
        compare_or_record(&source.join("instructions.txt"), &table, args)?;
    }
    Ok(object)
}

/// The feature of oxbow-abi, oxbow-datapath and oxbow-node that makes another layout of them.
const SWAPPED_LAYOUT: &str = "swapped-layout";

/// Builds the `oxbow-node` of the other layout, with the dependencies that the usual one has, and puts it beside its object.
fn build_swapped_node(quiet: bool) -> Result<()> {
    let mut command = process::cargo();
    command.current_dir(workspace::root()).args([
        "build",
        "--locked",
        "--package",
        "oxbow-node",
        "--bin",
        "oxbow-node",
    ]);
    // Cargo leaves the executable where the usual one goes; what it compiled stays apart, so nothing is compiled again to have that back.
    command.args(["--features", SWAPPED_LAYOUT]);
    if quiet {
        command.arg("--quiet");
    }
    let built = workspace::target_dir().join("debug/oxbow-node");
    let usual = std::fs::read(&built).ok();
    process::run(&mut command).context("oxbow-node of the other layout does not build")?;
    let bytes = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let path = workspace::upgrades_dir().join("swapped-layout/oxbow-node");
    write_if_changed(&path, &bytes)?;
    make_executable(&path)?;
    if let Some(usual) = usual {
        write_if_changed(&built, &usual)?;
        make_executable(&built)?;
    }
    Ok(())
}

fn make_executable(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// Compares the counts with the committed ones, or writes them there.
///
/// A difference is reported, not an error: another compiler version counts differently.
fn compare_or_record(recorded: &Path, table: &str, args: &Args) -> Result<()> {
    if args.record {
        write_if_changed(recorded, table.as_bytes())?;
        println!("{}: written", workspace::shown(recorded));
        return Ok(());
    }
    let old = std::fs::read_to_string(recorded).unwrap_or_default();
    if old != table && !args.quiet {
        println!("instruction counts differ from {} (`--record` updates it)", workspace::shown(recorded));
    }
    Ok(())
}

/// Writes `bytes` to `path` unless it holds them already; a reader sees the old file or the new one.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let parent = path.parent().with_context(|| format!("{} has no directory", path.display()))?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let new = path.with_extension(format!("new{}", std::process::id()));
    std::fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("cannot rename to {}", path.display()))?;
    Ok(true)
}
