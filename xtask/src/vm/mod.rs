//! `cargo xtask vm`: other kernels, in virtual machines.

mod abreast;
mod bench;
mod cloud;
mod executables;
mod lab;
mod load;
mod report;
mod ring0;
mod suite;
mod wire;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use oxbow_vm_tests::{Choice, Kernel};

use crate::demo;
use crate::setup::{self, Need};
use abreast::Abreast;
use lab::Lab;
use report::{Ended, Report};

/// Runs Oxbow on other kernels than this machine's, in virtual machines.
///
/// A machine boots a kernel out of Debian's archive (fetched by apt-get once, unpacked below target/vm, not installed) and an
/// initramfs made for the purpose: busybox, and the programs of this machine that a ring needs, with their libraries. It runs by KVM if a
/// kernel proves within seconds to boot with it, else by translation, which is ten times slower and more. Each ring is run on each
/// kernel, several kernels at the same time where memory and processors allow; a failing ring does not keep the next from running. What runs
/// in the machines is optimised (but for ring load). Consoles are kept in target/vm/logs. Nothing is loaded into this machine's
/// kernel but network namespaces and (ring guests) Oxbow itself. The last lines are a table of the results and the verdict. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A kernel: 6.1 (Debian 12's own), new (Debian 12's backports, else Debian 13's), another suite's (sid, say), or a FILE: a kernel
    /// package, a directory into which one was unpacked, or an image like /boot/vmlinuz-RELEASE with its modules in ../lib/modules. May be
    /// given several times. Default: 6.1 and new.
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<Choice>,
    /// A kernel to run on as well if it can be had; if not, that is said and is no failure.
    #[arg(long, value_name = "KERNEL")]
    also: Vec<Choice>,
    /// What to run; may be given several times, or as a list with commas. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    ring: Vec<Ring>,
    /// Write what became of each ring to this file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// In rings that run test executables: only tests whose name contains one of these.
    #[arg(value_name = "NAME")]
    filter: Vec<String>,
}

/// What is run in the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ring {
    /// Does the kernel take the programs? Loads, attaches, detaches and removes them, and prints what its verifier counted.
    Load,
    /// The tests that run the programs on packets (BPF_PROG_TEST_RUN), with devices attached and policies swapped.
    Ring0,
    /// A cloud of two hypervisors with real databases in one machine: tests of the package oxbow-tests.
    Cloud,
    /// The same with the kernel's Open vSwitch datapath: oxbow-node beside an ovs-vswitchd that has it, and against it on the wire.
    Ovs,
    /// Two machines as two hypervisors: ping and TCP across Geneve, over virtio-net and e1000e on wires, and over taps with offloads.
    Wire,
    /// Virtual machines as guests: the life of a VIF (`cargo xtask demo`), its guests booting this kernel on taps of hypervisors on this
    /// machine.
    Guests,
    /// `bench datapath` against the kernel's Open vSwitch datapath: ratios under the same emulation.
    Bench,
}

impl Ring {
    fn run(self, lab: &mut Lab, kernel: &Kernel) -> Result<String> {
        match self {
            Self::Load => load::run(lab, kernel),
            Self::Ring0 => ring0::run(lab, kernel),
            Self::Cloud => cloud::run(lab, kernel),
            Self::Ovs => cloud::run_with_ovs(lab, kernel),
            Self::Wire => wire::run(lab, kernel),
            Self::Bench => bench::run(lab, kernel),
            Self::Guests => demo::with_machines(kernel),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the virtual machines run in network namespaces: run as root");
    }
    // Asked for now: building may replace this program's file.
    let program = std::env::current_exe().context("cannot find this program's file")?;
    setup::ensure(&[Need::Ebpf, Need::Vm, Need::Network, Need::Ovn])?;
    let rings = if args.ring.is_empty() { Ring::value_variants() } else { &args.ring };
    let mut report = Report::new();
    let mut kernels = Vec::new();
    for (choice, required) in chosen(args) {
        match Kernel::find(&choice) {
            Ok(kernel) => kernels.push((choice, kernel)),
            Err(error) if required => return Err(error),
            Err(error) => report.left_out(&choice, &error),
        }
    }
    match &kernels[..] {
        [(_, kernel)] => {
            let mut lab = Lab::new(&args.filter);
            for ring in rings {
                report.add([run_ring(*ring, &mut lab, kernel)?]);
            }
        }
        kernels => {
            let rings: Vec<String> = rings.iter().map(|ring| ring.name()).collect();
            report.add(Abreast { program, rings: &rings, filter: &args.filter }.run(kernels)?);
        }
    }
    if let Some(file) = &args.json {
        report.write(file)?;
    }
    report.conclude()
}

fn run_ring(ring: Ring, lab: &mut Lab, kernel: &Kernel) -> Result<Ended> {
    println!("\n=== {} on Linux {}", ring.name(), kernel.release);
    let start = Instant::now();
    lab.begin(&ring.name(), kernel)?;
    let outcome = ring.run(lab, kernel).map_err(|error| format!("{error:#}"));
    let took = start.elapsed();
    match &outcome {
        Ok(found) => {
            println!("=== {} on Linux {} ok after {:.0} s: {found}", ring.name(), kernel.release, took.as_secs_f32())
        }
        Err(error) => {
            println!(
                "=== {} on Linux {} failed after {:.0} s: {error}",
                ring.name(),
                kernel.release,
                took.as_secs_f32()
            );
            println!("logs of the machines: {}", crate::workspace::shown(lab.logs()));
        }
    }
    Ok(Ended { kernel: kernel.release.clone(), ring: ring.name(), took, outcome })
}

/// The kernels to run on, and whether a run without them is a failure.
fn chosen(args: &Args) -> Vec<(Choice, bool)> {
    let both = [Choice::Stable, Choice::Newer];
    let required = if args.kernel.is_empty() { &both[..] } else { &args.kernel };
    let also = args.also.iter().map(|choice| (choice.clone(), false));
    required.iter().map(|choice| (choice.clone(), true)).chain(also).collect()
}
