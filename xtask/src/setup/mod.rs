//! `cargo xtask setup`: installs what the other commands need and says why.

mod cargo_tools;
mod debian;
mod toolchain;

use anyhow::Result;

pub(crate) use cargo_tools::BpfLinker;
pub(crate) use toolchain::EbpfToolchain;

/// Installs every Debian package and cargo tool that is missing.
///
/// Idempotent: what is there is left alone, and a second run changes nothing. Packages come from Debian's own archive through
/// apt-get (which needs root), bpf-linker from crates.io through `cargo install`. Services that a package brings are not
/// started. Every other command runs the part of this that it needs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also what `demo --guests=qemu` needs: QEMU and a static busybox.
    #[arg(long)]
    vm: bool,
    /// Say what is missing and exit with status 1 if anything is; install nothing.
    #[arg(long)]
    check: bool,
}

/// A purpose that some command has, and that needs things installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Building the eBPF object: a compiler with the source of `core`, LLVM's development files, bpf-linker.
    Ebpf,
    /// Real databases and the stock daemons: the other half of every test, and the oracles.
    Ovn,
    /// Making namespaces and sending traffic through them.
    Network,
    /// Booting virtual machines.
    Vm,
}

/// Whether to install what is missing or only to report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Install,
    Check,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut needs = vec![Need::Ebpf, Need::Ovn, Need::Network];
    if args.vm {
        needs.push(Need::Vm);
    }
    let mode = if args.check { Mode::Check } else { Mode::Install };
    let mut missing = debian::ensure(&needs, mode)?;
    // The cargo tool is looked for even when packages are missing, so that --check lists everything in one go.
    match ensure_ebpf(mode) {
        Ok((toolchain, linker)) => println!("{toolchain}\n{linker}"),
        Err(error) if mode == Mode::Check => missing.push(format!("{error:#}")),
        Err(error) => return Err(error),
    }
    if missing.is_empty() {
        println!("setup: everything is installed");
        return Ok(());
    }
    for item in &missing {
        println!("missing: {item}");
    }
    anyhow::bail!("setup: {} things are missing; `cargo xtask setup` as root installs them", missing.len())
}

/// Installs what `needs` asks for and is missing; silent when nothing is.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    debian::ensure(needs, Mode::Install)?;
    if needs.contains(&Need::Ebpf) {
        ensure_ebpf(Mode::Install)?;
    }
    Ok(())
}

/// Makes sure that the eBPF object can be built, and says with what.
pub(crate) fn ensure_ebpf(mode: Mode) -> Result<(EbpfToolchain, BpfLinker)> {
    let toolchain = match EbpfToolchain::find()? {
        Some(toolchain) => toolchain,
        None => {
            if mode == Mode::Install {
                debian::ensure(&[Need::Ebpf], mode)?;
            }
            EbpfToolchain::find()?.ok_or_else(EbpfToolchain::none_found)?
        }
    };
    let linker = match BpfLinker::find(toolchain.llvm_major)? {
        Some(linker) => linker,
        None => {
            anyhow::ensure!(
                mode == Mode::Install,
                "bpf-linker {} for LLVM {} (links the eBPF object)",
                cargo_tools::BPF_LINKER_VERSION,
                toolchain.llvm_major
            );
            debian::ensure_packages(&debian::llvm_packages(toolchain.llvm_major), mode)?;
            BpfLinker::install(toolchain.llvm_major)?
        }
    };
    Ok((toolchain, linker))
}
