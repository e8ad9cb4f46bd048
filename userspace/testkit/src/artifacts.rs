//! Where the build leaves what tests load and run.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The checkout's root: the directory of the workspace's `Cargo.toml`.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("userspace/testkit is two levels below the root")
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace_root().join(dir),
        None => workspace_root().join("target"),
    }
}

/// The eBPF object that `cargo xtask build-ebpf` builds, or the one that `OXBOW_BPF_OBJECT` names.
///
/// The file need not exist: [`require_ebpf_object`] is for those who want to read it.
pub fn ebpf_object_path() -> PathBuf {
    match std::env::var_os("OXBOW_BPF_OBJECT") {
        Some(path) => path.into(),
        None => target_dir().join("bpf/oxbow-datapath.o"),
    }
}

/// [`ebpf_object_path`], with an error that says how to build it when it is not there.
pub fn require_ebpf_object() -> Result<PathBuf> {
    let path = ebpf_object_path();
    if !path.exists() {
        bail!("{} does not exist: run `cargo xtask build-ebpf` first", path.display());
    }
    Ok(path)
}

/// The executable of one of Oxbow's daemons or tools, e.g. `oxbow-node`.
///
/// It is looked for in the directory that `OXBOW_BIN_DIR` names, else in the profile directory that the running test or tool was
/// built into. The error says how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("OXBOW_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => profile_dir()?,
    };
    let path = dir.join(name);
    if !path.is_file() {
        bail!("{} does not exist: run `cargo build --bin {name}` first (or set OXBOW_BIN_DIR)", path.display());
    }
    Ok(path)
}

/// An `oxbow-node` and the eBPF object that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeBuild {
    /// The executable.
    pub node: PathBuf,
    /// What it loads.
    pub object: PathBuf,
}

impl NodeBuild {
    /// The one that ships.
    ///
    /// # Errors
    ///
    /// When it is not built; says how.
    pub fn usual() -> Result<Self> {
        Ok(Self { node: binary("oxbow-node")?, object: require_ebpf_object()? })
    }

    /// The same of another map layout: what an upgrade to the next layout, or a downgrade from it, is like.
    ///
    /// # Errors
    ///
    /// When it is not built; says how.
    pub fn swapped_layout() -> Result<Self> {
        let dir = target_dir().join("upgrades/swapped-layout");
        Self { node: dir.join("oxbow-node"), object: dir.join("oxbow-datapath.o") }.require()
    }

    /// The usual one with an object of the same layout in other instructions.
    ///
    /// # Errors
    ///
    /// When it is not built; says how.
    pub fn other_object() -> Result<Self> {
        let object = target_dir().join("upgrades/other-build/oxbow-datapath.o");
        Self { node: binary("oxbow-node")?, object }.require()
    }

    fn require(self) -> Result<Self> {
        for file in [&self.node, &self.object] {
            if !file.is_file() {
                bail!("{} does not exist: run `cargo xtask build-ebpf --upgrades` first", file.display());
            }
        }
        Ok(self)
    }
}

/// `target/debug` or `target/release`, whichever the running executable lies in.
fn profile_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    // target/PROFILE/tool or target/PROFILE/deps/test-HASH
    let dir =
        exe.ancestors().skip(1).find(|dir| dir.file_name().is_some_and(|name| name != "deps" && name != "examples"));
    match dir {
        Some(dir) => Ok(dir.to_owned()),
        None => bail!("{} is in no directory", exe.display()),
    }
}

/// The first of the directories in `PATH`, or of those where Debian puts system programs, that has the program `name`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// [`find_program`], with an error that says how to get it.
pub fn require_program(name: &str) -> Result<PathBuf> {
    match find_program(name) {
        Some(path) => Ok(path),
        None => bail!("{name} is not installed: run `cargo xtask setup` as root"),
    }
}
