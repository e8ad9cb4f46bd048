//! Debian packages: which are needed for what, which are missing, and apt-get.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::{EbpfToolchain, Mode, Need};
use crate::process;

/// A package and why it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    name: String,
    why: &'static str,
}

fn package(name: impl Into<String>, why: &'static str) -> Package {
    Package { name: name.into(), why }
}

/// What a purpose needs, whether installed or not.
fn packages(need: Need) -> Result<Vec<Package>> {
    Ok(match need {
        Need::Ebpf => match EbpfToolchain::find()? {
            // Only building bpf-linker needs LLVM's development files, and only when it is not there yet.
            Some(toolchain) if super::BpfLinker::find(toolchain.llvm_major)?.is_some() => Vec::new(),
            Some(toolchain) => llvm_packages(toolchain.llvm_major),
            None => vec![
                package("rustc-web", "compiles the eBPF programs (no nightly with rust-src was found)"),
                package("rust-web-src", "the source of `core`, built for the eBPF target"),
            ],
        },
        Need::Ovn => vec![
            package("openvswitch-common", "ovsdb-tool, ovs-appctl, ovs-ofctl"),
            package("openvswitch-switch", "ovsdb-server, ovs-vsctl; ovs-vswitchd for stock hypervisors"),
            package("openvswitch-pki", "certificates for the tests of ssl remotes"),
            package("ovn-common", "ovn-nbctl, ovn-sbctl, ovn-trace, ovn-appctl"),
            package("ovn-central", "the NB and SB schemas; ovn-northd, the oracle of our northd"),
            package("ovn-host", "ovn-controller, the stock peer of our node"),
        ],
        Need::Network => vec![
            package("iproute2", "ip and tc: namespaces, veth pairs, taps"),
            package("ethtool", "checksum offload of stock hypervisors' devices"),
            package("iputils-ping", "ping"),
            package("tcpdump", "captures"),
            package("iperf3", "throughput"),
            package("procps", "sysctl: settings of namespaces"),
        ],
        Need::Vm => vec![
            package("qemu-system-x86", "virtual machines as guests"),
            package("busybox-static", "the guests' user space"),
        ],
    })
}

/// What building bpf-linker against LLVM `major` needs.
pub(crate) fn llvm_packages(major: u32) -> Vec<Package> {
    vec![
        package(format!("llvm-{major}-dev"), "bpf-linker is built against the compiler's LLVM"),
        package(format!("libpolly-{major}-dev"), "LLVM links it"),
        package("zlib1g-dev", "LLVM links it"),
        package("libzstd-dev", "LLVM links it"),
        package("g++", "LLVM is C++"),
    ]
}

/// Installs (or in [`Mode::Check`] lists) what `needs` asks for and is not installed.
pub(crate) fn ensure(needs: &[Need], mode: Mode) -> Result<Vec<String>> {
    let mut wanted = Vec::new();
    for need in needs {
        wanted.extend(packages(*need)?);
    }
    ensure_packages(&wanted, mode)
}

/// As [`ensure`], for packages named one by one. Returns the missing ones, with reasons, in [`Mode::Check`].
pub(crate) fn ensure_packages(wanted: &[Package], mode: Mode) -> Result<Vec<String>> {
    let installed = installed(wanted)?;
    let missing: Vec<&Package> = wanted.iter().filter(|package| !installed.contains(&package.name)).collect();
    let listed = missing.iter().map(|package| format!("{} ({})", package.name, package.why)).collect::<Vec<_>>();
    if mode == Mode::Check || missing.is_empty() {
        return Ok(listed);
    }
    println!("Debian packages to install:");
    for package in &missing {
        println!("  {:<20} {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name.as_str()).collect();
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends {}", names.join(" "));
    let Some(apt) = process::find_program("apt-get") else {
        bail!("apt-get is not here: install the equivalents of {} by hand", names.join(" "));
    };
    if !nix::unistd::geteuid().is_root() {
        bail!("installing packages needs root. Run this command as root, or first\n  sudo sh -c '{by_hand}'");
    }
    let _no_services = ServicesHeld::new()?;
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(&apt);
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        println!("running: {}", process::line(&command));
        process::run(&mut command).with_context(|| format!("apt-get could not install them; by hand:\n  {by_hand}"))
    };
    // The lists do not age within one run.
    static LISTS_ARE_FRESH: AtomicBool = AtomicBool::new(false);
    if !LISTS_ARE_FRESH.load(Ordering::Relaxed) {
        apt(&["update", "-q"])?;
        LISTS_ARE_FRESH.store(true, Ordering::Relaxed);
    }
    apt(&[&["install", "-y", "-q", "--no-install-recommends"][..], &names[..]].concat())?;
    Ok(Vec::new())
}

/// Which of `wanted` dpkg has installed.
fn installed(wanted: &[Package]) -> Result<BTreeSet<String>> {
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let Some(dpkg_query) = process::find_program("dpkg-query") else {
        bail!(
            "this machine has no dpkg: Oxbow's commands install Debian's packages. Elsewhere, install the equivalents of {}",
            wanted.iter().map(|package| package.name.as_str()).collect::<Vec<_>>().join(" ")
        );
    };
    let mut command = Command::new(dpkg_query);
    command.args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"]);
    command.args(wanted.iter().map(|package| &package.name));
    // Status 1 only says that some are unknown to dpkg, which is what is being asked.
    let out = command.output().with_context(|| format!("cannot start `{}`", process::line(&command)))?;
    let text = String::from_utf8_lossy(&out.stdout);
    Ok(text.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect())
}

/// While this lives, packages that bring services do not start them (Debian policy section 9.11: `policy-rc.d`).
struct ServicesHeld {
    /// Whether the file is ours to remove.
    ours: bool,
    /// The interrupt handling to restore.
    interrupt: SigAction,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl ServicesHeld {
    fn new() -> Result<Self> {
        extern "C" fn stay(_signal: libc::c_int) {}
        // Ctrl-C ends apt-get, which is in our process group; this process lives on to remove the file. A handler, not
        // SIG_IGN, because the child would inherit the latter.
        let action = SigAction::new(SigHandler::Handler(stay), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does nothing, which is async-signal-safe.
        let interrupt = unsafe { sigaction(Signal::SIGINT, &action) }.context("cannot handle SIGINT")?;
        let mut held = Self { ours: false, interrupt };
        if !Path::new(POLICY).exists() {
            let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
            let mut file = file.with_context(|| format!("cannot write {POLICY}"))?;
            held.ours = true;
            file.write_all(b"#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        }
        Ok(held)
    }
}

impl Drop for ServicesHeld {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}, which keeps services from starting: {error}");
        }
        // SAFETY: restores the handling that was in place before.
        if let Err(error) = unsafe { sigaction(Signal::SIGINT, &self.interrupt) } {
            eprintln!("cannot restore the handling of SIGINT: {error}");
        }
    }
}
