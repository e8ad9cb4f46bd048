//! Where things are in the checkout.

use std::path::{Path, PathBuf};

/// The directory that holds the root `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    // xtask/ is a direct child of the root, and xtask is always run from the checkout it was built in.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ has a parent directory")
}

/// Cargo's target directory.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The eBPF object that `build-ebpf` leaves: the shipped flavour, or the one with aya-log messages.
///
/// `userspace/testkit` knows the same path; the two must stay equal.
pub(crate) fn ebpf_object_path(debug_log: bool) -> PathBuf {
    let name = if debug_log { "oxbow-datapath-debug.o" } else { "oxbow-datapath.o" };
    target_dir().join("bpf").join(name)
}

/// Where `build-ebpf --upgrades` leaves what tests of upgrades install.
///
/// `userspace/testkit` knows the same path; the two must stay equal.
pub(crate) fn upgrades_dir() -> PathBuf {
    target_dir().join("upgrades")
}

/// A path as it should be printed: relative to the checkout where possible.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
