//! The compiler for the eBPF object: any that can build `core` for `bpfel-unknown-none`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// Oldest compiler that the eBPF workspace builds with (its `rust-version`).
const OLDEST: (u32, u32) = (1, 95);

/// A Rust compiler with the source of `core` beside it.
#[derive(Debug, Clone)]
pub(crate) struct EbpfToolchain {
    /// The compiler's executable.
    pub(crate) rustc: PathBuf,
    /// The cargo to drive it with.
    pub(crate) cargo: PathBuf,
    /// First line of `rustc -vV`.
    pub(crate) version: String,
    /// Major version of the LLVM whose bitcode it writes: bpf-linker must be built for the same.
    pub(crate) llvm_major: u32,
}

impl EbpfToolchain {
    /// The first usable toolchain: rustup's nightly with the component rust-src, then Debian's rustc-web with rust-web-src.
    ///
    /// `None` when there is neither; an error when one is there but does not answer.
    pub(crate) fn find() -> Result<Option<Self>> {
        if let Some(sysroot) = rustup_nightly_sysroot() {
            let nightly = Self::at(&sysroot, sysroot.join("bin/rustc"), Some(sysroot.join("bin/cargo")))?;
            if nightly.is_some() {
                return Ok(nightly);
            }
        }
        let debian = Path::new("/usr/bin/rustc");
        if debian.exists() { Self::at(Path::new("/usr"), debian.to_owned(), None) } else { Ok(None) }
    }

    /// The toolchain under `sysroot`, or `None` when it is too old or lacks the source of `core`.
    fn at(sysroot: &Path, rustc: PathBuf, cargo: Option<PathBuf>) -> Result<Option<Self>> {
        if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists() {
            return Ok(None);
        }
        let text = process::output(process::outside_cargo(&rustc).arg("-vV"))?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:").with_context(|| format!("no release in `{} -vV`", rustc.display()))?;
        let llvm = field("LLVM version:").with_context(|| format!("no LLVM version in `{} -vV`", rustc.display()))?;
        let numbers: Vec<u32> = release.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
        if numbers.len() < 2 || (numbers[0], numbers[1]) < OLDEST {
            return Ok(None);
        }
        let llvm_major = llvm.split('.').next().and_then(|major| major.parse().ok());
        let llvm_major = llvm_major.with_context(|| format!("LLVM version {llvm:?} of {}", rustc.display()))?;
        let cargo = cargo.filter(|cargo| cargo.exists()).unwrap_or_else(process::cargo_path);
        let version = text.lines().next().unwrap_or_default().to_owned();
        Ok(Some(Self { rustc, cargo, version, llvm_major }))
    }

    /// What to say when [`EbpfToolchain::find`] finds nothing.
    pub(crate) fn none_found() -> anyhow::Error {
        anyhow::anyhow!(
            "no compiler for the eBPF object: it needs Rust {}.{} or newer with the source of `core`.\n\
             Install one of\n  \
             Debian's:  apt-get install rustc-web rust-web-src   (as root)\n  \
             rustup's:  rustup toolchain install nightly --component rust-src",
            OLDEST.0,
            OLDEST.1
        )
    }

    /// A cargo command that uses this toolchain, with unstable options allowed (`-Z build-std`).
    pub(crate) fn cargo_command(&self) -> Command {
        let mut command = process::outside_cargo(&self.cargo);
        command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
        command
    }
}

impl fmt::Display for EbpfToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eBPF compiler: {} ({}), LLVM {}", self.version, self.rustc.display(), self.llvm_major)
    }
}

/// The directory of rustup's nightly toolchain. Asked of rustup without letting it install anything.
fn rustup_nightly_sysroot() -> Option<PathBuf> {
    let rustup = process::find_program("rustup")?;
    let mut command = process::outside_cargo(rustup);
    command.args(["run", "nightly", "rustc", "--print", "sysroot"]).env("RUSTUP_AUTO_INSTALL", "0");
    // No rustup, no nightly, or a broken one: all mean that this toolchain is not to be had, and the next is tried.
    process::output(&mut command).ok().map(|text| PathBuf::from(text.trim()))
}
