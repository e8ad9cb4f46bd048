//! `cargo xtask demo`: a VIF's whole life in an Oxbow cloud.

mod guest;
mod keep;
mod report;
mod story;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use oxbow_testkit::{Cloud, Node, Northd, wait};
use oxbow_vm_tests::{Choice, GuestImage, Kernel};

use crate::setup::{self, Need};
use crate::{build_ebpf, process, workspace};
use report::Report;
use story::Story;

/// Shows the life of a VIF in an Oxbow cloud, in the 15 steps of ovn-architecture(7), and checks every one.
///
/// Builds and installs what is missing; starts Debian's ovsdb-servers, oxbow-northd, and hypervisors with oxbow-node in
/// network namespaces that are joined by veth devices; then drives them with nothing but ovn-nbctl, ovn-sbctl and ovs-vsctl. Each step says
/// what was done, what the stock tools then read back, and how many milliseconds lay between. The last line is the verdict.
/// Whatever happens, Ctrl-C included, nothing is left behind. Needs root.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How many hypervisors the cloud has, at least 2.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=64))]
    hypervisors: u16,
    /// What the guests are: namespaces, or virtual machines (Debian's kernel, a small initramfs) on taps.
    #[arg(long, value_enum, default_value_t = GuestKind::Namespaces)]
    guests: GuestKind,
    /// The kernel of guests that are virtual machines, as `cargo xtask vm --kernel` takes it.
    #[arg(long, value_name = "KERNEL", default_value = "6.1")]
    kernel: Choice,
    /// Leave the cloud running in the background, and print how to enter its machines and how to end it.
    #[arg(long)]
    keep: bool,
    /// On failure, print the state of the whole cloud.
    #[arg(long, short)]
    verbose: bool,
    /// Who forwards: eBPF programs without an ovs-vswitchd, or Debian's ovs-vswitchd by OpenFlow flows.
    #[arg(long, value_enum, default_value_t = Backend::Ebpf)]
    backend: Backend,
    /// Which northd to show: for comparing with the original, and for finding out whether the demonstration itself is at fault.
    #[arg(long, value_enum, default_value_t = Make::Oxbow, hide = true)]
    northd: Make,
    /// Which daemon the hypervisors run.
    #[arg(long, value_enum, default_value_t = Make::Oxbow, hide = true)]
    node: Make,
    /// Set by `--keep` on the process that keeps the cloud.
    #[arg(long, hide = true)]
    keeper: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestKind {
    /// Network namespaces behind veth devices; start at once.
    Namespaces,
    /// QEMU virtual machines behind taps.
    Qemu,
}

/// Who forwards for oxbow-node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// eBPF programs, without an ovs-vswitchd.
    Ebpf,
    /// Debian's ovs-vswitchd (userspace datapath).
    Openflow,
}

/// Whose daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Make {
    Oxbow,
    Stock,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demonstration makes network namespaces and loads eBPF programs: run as root");
    }
    if args.keep && !args.keeper {
        return keep::in_background();
    }
    interrupt_on_signals()?;
    let start = Instant::now();
    prepare(args)?;
    let image = guest_image(args)?;
    println!("ready after {} ms\n", start.elapsed().as_millis());
    show(args, image)
}

/// The demonstration with virtual machines as guests, which boot this kernel: a ring of `cargo xtask vm`.
pub(crate) fn with_machines(kernel: &Kernel) -> Result<String> {
    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }
    let Only { args } = <Only as clap::Parser>::try_parse_from(["demo", "--guests=qemu"])?;
    prepare(&args)?;
    show(&args, Some(GuestImage::small(kernel)?))?;
    Ok("the life cycle of a VIF, guests on taps".to_owned())
}

/// Sets the scene and tells the story.
fn show(args: &Args, image: Option<GuestImage>) -> Result<()> {
    let northd = if args.northd == Make::Stock { Northd::Stock } else { Northd::Oxbow };
    let (node, controller) = match (args.node, args.backend) {
        (Make::Stock, _) => (Node::Stock, "ovn-controller and ovs-vswitchd"),
        (Make::Oxbow, Backend::Ebpf) => (Node::Oxbow, "oxbow-node, no ovs-vswitchd"),
        (Make::Oxbow, Backend::Openflow) => (Node::OpenFlow, "oxbow-node --backend=openflow and ovs-vswitchd"),
    };
    let builder = Cloud::builder().northd(northd).hypervisors(args.hypervisors.into(), node);
    let start = Instant::now();
    let cloud = builder.start().context("the cloud does not start")?;
    println!(
        "cloud: NB and SB (ovsdb-server), {}, {} hypervisors with {controller}: {} ms",
        if args.northd == Make::Stock { "ovn-northd" } else { "oxbow-northd" },
        args.hypervisors,
        start.elapsed().as_millis()
    );
    let mut story = Story::new(cloud, image);
    let start = Instant::now();
    let scene = story.set_scene();
    println!("scene set: {} ms", start.elapsed().as_millis());
    let mut report = Report::new();
    let told = scene.and_then(|()| story.tell(&mut report));
    if told.is_err() && args.verbose && !wait::interrupted() {
        eprintln!("=== the cloud when it failed\n{}=== end of the cloud", story.cloud().dump());
    }
    println!("{}", report.verdict());
    told?;
    if args.keeper {
        keep::hold(story.cloud())?;
    }
    Ok(())
}

/// Installs and builds what is missing.
fn prepare(args: &Args) -> Result<()> {
    let mut needs = vec![Need::Ovn, Need::Network];
    let is_ebpf = args.node == Make::Oxbow && args.backend == Backend::Ebpf;
    if is_ebpf {
        needs.push(Need::Ebpf);
    }
    if args.guests == GuestKind::Qemu {
        needs.push(Need::Vm);
    }
    setup::ensure(&needs)?;
    if is_ebpf {
        build_ebpf::build(&build_ebpf::Args { quiet: true, ..Default::default() })?;
    }
    let mut command = process::cargo();
    command.current_dir(workspace::root()).args(["build", "--locked", "--quiet"]);
    if args.northd == Make::Oxbow {
        command.args(["--package", "oxbow-northd", "--bin", "oxbow-northd"]);
    }
    if args.node == Make::Oxbow {
        command.args(["--package", "oxbow-node", "--bin", "oxbow-node"]);
    }
    if args.northd == Make::Oxbow || args.node == Make::Oxbow {
        println!("building the daemons");
        process::run(&mut command)?;
    }
    Ok(())
}

/// What virtual machines boot, if the guests are such.
fn guest_image(args: &Args) -> Result<Option<GuestImage>> {
    if args.guests == GuestKind::Namespaces {
        return Ok(None);
    }
    println!("preparing virtual machines (Debian's kernel is 70 MB, fetched once)");
    let image = Kernel::find(&args.kernel).and_then(|kernel| GuestImage::small(&kernel));
    let image = image.context("virtual machines cannot be prepared")?;
    println!("guests: Linux {} under QEMU, {}", image.kernel().release, image.accelerator());
    Ok(Some(image))
}

/// Lets Ctrl-C and a polite kill end every wait, so that the demonstration unwinds and everything it made is dropped.
fn interrupt_on_signals() -> Result<()> {
    extern "C" fn interrupt(_signal: libc::c_int) {
        wait::interrupt();
    }
    let action = SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    Ok(())
}
