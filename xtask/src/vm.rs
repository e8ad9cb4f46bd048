//! `cargo xtask vm`: do other kernels take the programs?

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_testkit::Netns;
use oxbow_vm_tests::{GuestImage, Machine, MachineSpec};

use crate::setup::{self, Need};
use crate::{build_ebpf, process, workspace};

/// Loads and attaches the eBPF programs on Debian's kernel (Debian 12: Linux 6.1) in a virtual machine.
///
/// Another kernel's verifier may refuse what this one's takes, and kernels before 6.6 attach by clsact instead of tcx. The machine boots the
/// kernel of the distribution's package, unpacked and not installed, loads the object as the daemon would, attaches both
/// programs to a device and removes them. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// A static executable runs in a guest that has no libraries.
const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run(_args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the virtual machine runs in a network namespace: run as root");
    }
    setup::ensure(&[Need::Ebpf, Need::Vm, Need::Network])?;
    let object = build_ebpf::build(&build_ebpf::Args { quiet: true, ..Default::default() })?;
    let probe = build_probe()?;
    let files = [("probe", probe.as_path()), ("object", object.as_path())];
    let image = GuestImage::with(&["sch_ingress", "cls_bpf"], &files)?;
    println!("Linux {} under QEMU, {}", image.kernel().release, image.accelerator());
    let ns = Netns::new("vm")?;
    let spec = MachineSpec {
        name: "probe",
        tap: None,
        mac: "0a:00:00:00:00:01",
        addresses: &[],
        memory: MEMORY,
        offload: true,
    };
    let mut machine = Machine::start(&ns, &image, &spec)?;
    machine.wait_ready()?;
    let (text, status) = machine.run("/probe /object eth0 2>&1")?;
    print!("{text}");
    ensure!(status == 0, "Linux {} does not take the programs", image.kernel().release);
    println!("vm: Linux {} takes the programs", image.kernel().release);
    Ok(())
}

/// The maps at their default sizes take some.
const MEMORY: u32 = 1024;

/// Builds the program that runs in the guest.
fn build_probe() -> Result<PathBuf> {
    let target = workspace::target_dir().join("vm-probe");
    let mut command = Command::new(process::cargo());
    command.current_dir(workspace::root()).args(["build", "--locked", "--quiet", "--package", "oxbow-vm-probe"]);
    command.args(["--target", TARGET, "--target-dir"]).arg(&target);
    // For the guest only, hence a target directory of its own: other flags would rebuild everything else.
    command.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\u{1f}-Cstrip=symbols");
    process::run(&mut command).context("the guest's program does not build")?;
    Ok(target.join(TARGET).join("debug/oxbow-vm-probe"))
}
