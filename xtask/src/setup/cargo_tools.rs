//! bpf-linker: cargo's linker for eBPF, built against the LLVM of the compiler in use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

use crate::{process, workspace};

/// The version that is known to work with the pinned aya crates.
pub(crate) const BPF_LINKER_VERSION: &str = "0.13";

/// An installed bpf-linker.
#[derive(Debug, Clone)]
pub(crate) struct BpfLinker {
    /// Its executable.
    pub(crate) path: PathBuf,
    version: String,
}

impl BpfLinker {
    /// A bpf-linker of the right version for LLVM `llvm_major`: the checkout's own, or the one in `PATH`.
    pub(crate) fn find(llvm_major: u32) -> Result<Option<Self>> {
        let candidates = [Some(own_root().join("bin/bpf-linker")), process::find_program("bpf-linker")];
        for path in candidates.into_iter().flatten().filter(|path| path.exists()) {
            let version = process::output(process::outside_cargo(&path).arg("--version"))?.trim().to_owned();
            let number = version.rsplit(' ').next().unwrap_or_default();
            let fits = number == BPF_LINKER_VERSION || number.starts_with(&format!("{BPF_LINKER_VERSION}."));
            if fits && llvm_of(&path)?.is_none_or(|major| major == llvm_major) {
                return Ok(Some(Self { path, version }));
            }
        }
        Ok(None)
    }

    /// Builds bpf-linker from crates.io against Debian's LLVM `llvm_major`.
    ///
    /// It goes to cargo's usual place, or below the target directory when another bpf-linker is already installed there.
    pub(crate) fn install(llvm_major: u32) -> Result<Self> {
        let prefix = format!("/usr/lib/llvm-{llvm_major}");
        anyhow::ensure!(
            Path::new(&prefix).join("bin/llvm-config").exists(),
            "{prefix}/bin/llvm-config is missing: apt-get install llvm-{llvm_major}-dev (as root)"
        );
        println!(
            "installing bpf-linker {BPF_LINKER_VERSION} from crates.io for LLVM {llvm_major} \
             (links the eBPF object; builds in about a minute)"
        );
        let mut command: Command = process::outside_cargo(process::cargo_path());
        command.args(["install", "--locked", "bpf-linker", "--version", &format!("^{BPF_LINKER_VERSION}")]);
        command.args(["--no-default-features", "--features", &format!("llvm-{llvm_major}")]);
        command.env("LLVM_PREFIX", &prefix).env(format!("LLVM_SYS_{llvm_major}1_PREFIX"), &prefix);
        if process::find_program("bpf-linker").is_some() {
            command.arg("--force").arg("--root").arg(own_root());
        }
        // Run outside the checkout so that its .cargo/config.toml and lock file play no part.
        process::run(command.current_dir("/"))?;
        Self::find(llvm_major)?.context(
            "bpf-linker was installed but is not found: is cargo's bin directory (usually ~/.cargo/bin) in PATH?",
        )
    }
}

impl fmt::Display for BpfLinker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eBPF linker: {} ({})", self.version, self.path.display())
    }
}

/// Where this checkout keeps a tool that must not replace the user's own.
fn own_root() -> PathBuf {
    workspace::target_dir().join("tools")
}

/// The LLVM major version that a bpf-linker is linked with, read from its dynamic section; `None` when LLVM is linked in.
fn llvm_of(path: &Path) -> Result<Option<u32>> {
    let data = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf = ElfFile64::<object::Endianness>::parse(&*data)
        .with_context(|| format!("{} is not a 64-bit ELF file", path.display()))?;
    let Some(names) = elf.section_by_name(".dynstr") else { return Ok(None) };
    let names = names.data().with_context(|| format!(".dynstr of {}", path.display()))?;
    // "libLLVM.so.22.1" in newer releases, "libLLVM-19.so.1" in older ones.
    Ok(names.split(|byte| *byte == 0).find_map(|name| {
        let name = std::str::from_utf8(name).ok()?;
        let rest = name.strip_prefix("libLLVM.so.").or_else(|| name.strip_prefix("libLLVM-"))?;
        rest.split('.').next()?.parse().ok()
    }))
}
