//! Where everything of one hypervisor is pinned: `<bpffs>/oxbow/<system-id>/<layout>/`.
//!
//! ```text
//! links/<ifindex>-vif, links/<ifindex>-underlay   tcx links: what keeps forwarding when the daemon is gone
//! filters/<ifindex>-vif, …                        empty directories: a clsact filter of ours is on that device
//! state/OX_FDB                                    state that outlives an instance
//! instance-<n>/OX_…                               the maps of one load of the programs
//! ```
//!
//! A daemon that starts loads a new instance beside the old one, fills it, moves every link to it in one atomic replacement per device,
//! and only then removes the old one. So a crash in the middle of a commit leaves nothing to repair: the half-written maps belong to an
//! instance that is about to be replaced whole.
//!
//! `<layout>` is [`oxbow_abi::LAYOUT`] of the daemon that pinned it. Layouts share no map, so an upgrade (or a downgrade) to another one
//! begins with state of its own, which the Southbound database fills. They do share the names above: whatever the layout, links and
//! marks of a device are where the next daemon looks for them, and a link moves to the other layout's directory when it is taken over.

use nix::sys::statfs::{FsType, statfs};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The pin directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The mount point is not a bpffs.
    #[error(
        "{path} is not a bpf file system: run `mount -t bpf bpf {path}` or name another one (--bpffs); inside `ip netns exec` /sys is mounted anew and has none: enter by `nsenter --net=` instead"
    )]
    NotBpffs {
        /// The path.
        path: PathBuf,
    },
    /// The mount point is not there.
    #[error("there is no {path}, where the bpf file system should be mounted: name another mount point (--bpffs)")]
    Absent {
        /// The path.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
}

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11_u32 as _);

/// The pin directory of one hypervisor and layout.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    system: PathBuf,
    layout: PathBuf,
}

impl Pins {
    /// Names the directory; makes it when missing. `bpffs` must be a mounted bpf file system.
    pub fn open(bpffs: &Path, system_id: &str) -> Result<Self, PinsError> {
        let kind = statfs(bpffs).map_err(|e| match e {
            nix::errno::Errno::ENOENT => PinsError::Absent { path: bpffs.into() },
            e => PinsError::File { what: "cannot look at", path: bpffs.into(), source: e.into() },
        })?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(PinsError::NotBpffs { path: bpffs.into() });
        }
        let root = bpffs.join("oxbow");
        let system = root.join(escape(system_id));
        let layout = system.join(oxbow_abi::LAYOUT.to_string());
        let pins = Self { root, system, layout };
        pins.make_directories()?;
        Ok(pins)
    }

    /// Makes the directories that are missing.
    pub fn make_directories(&self) -> Result<(), PinsError> {
        [self.links(), self.filters(), self.state()].iter().try_for_each(|dir| make_directory(dir))
    }

    /// Directory of the links.
    pub fn links(&self) -> PathBuf {
        self.layout.join("links")
    }

    /// Directory of the marks of devices with a filter, on kernels without tcx.
    pub fn filters(&self) -> PathBuf {
        self.layout.join("filters")
    }

    /// Interface indexes of the VIFs that a daemon before this one attached, whose policy is still in force: none without an instance.
    /// That daemon may have been of another layout.
    pub fn inherited_vifs(&self) -> Result<Vec<u32>, PinsError> {
        let mut all = Vec::new();
        for layout in self.layouts()? {
            if layout.instances()?.is_empty() {
                continue;
            }
            for directory in [layout.links(), layout.filters()] {
                let names = list(&directory)?;
                all.extend(names.iter().filter_map(|(name, _)| name.strip_suffix("-vif")?.parse::<u32>().ok()));
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Directory of the state that outlives an instance.
    pub fn state(&self) -> PathBuf {
        self.layout.join("state")
    }

    /// Directory of everything of this layout.
    pub fn layout(&self) -> &Path {
        &self.layout
    }

    /// Makes the directory of a new instance.
    pub fn new_instance(&self) -> Result<PathBuf, PinsError> {
        let next = self.instances()?.iter().map(|(n, _)| n + 1).max().unwrap_or(1);
        let dir = self.layout.join(format!("instance-{next}"));
        fs::create_dir(&dir).map_err(|source| PinsError::File { what: "cannot make", path: dir.clone(), source })?;
        Ok(dir)
    }

    /// Numbers and directories of the instances there are.
    pub fn instances(&self) -> Result<Vec<(u32, PathBuf)>, PinsError> {
        let mut found = Vec::new();
        for (name, path) in list(&self.layout)? {
            if let Some(n) = name.strip_prefix("instance-").and_then(|n| n.parse().ok()) {
                found.push((n, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes every instance but the one in `keep`.
    pub fn retire_instances(&self, keep: &Path) -> Result<(), PinsError> {
        for (_, path) in self.instances()? {
            if path != keep {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// Every layout that something of this hypervisor is pinned under, this one first (an upgrade takes the others' devices over and then
    /// removes them).
    pub fn layouts(&self) -> Result<Vec<Self>, PinsError> {
        let others = list(&self.system)?.into_iter().map(|(_, path)| path).filter(|path| *path != self.layout);
        let others = others.map(|layout| Self { layout, ..self.clone() });
        Ok(std::iter::once(self.clone()).chain(others).collect())
    }

    /// Removes everything of other layouts.
    pub fn retire_other_layouts(&self) -> Result<(), PinsError> {
        self.layouts()?.iter().skip(1).try_for_each(|other| remove_tree(&other.layout))
    }

    /// Removes everything of this hypervisor, other layouts included; links that go detach their programs.
    pub fn remove_all(&self) -> Result<(), PinsError> {
        remove_tree(&self.system)?;
        // Another hypervisor of this host may still use the directory above: not being able to remove it is the normal case then.
        match fs::remove_dir(&self.root) {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY) | Some(libc::EEXIST) | Some(libc::ENOENT)) => {
                Ok(())
            }
            Err(source) => Err(PinsError::File { what: "cannot remove", path: self.root.clone(), source }),
        }
    }
}

/// Whether the bpf file system is another one than the host's at the same place: then it belongs to this mount namespace, and its pins
/// die with it. The host is what process 1 sees or, where that may not be looked at, what our parent sees. `None` = neither can be told.
pub fn is_private(bpffs: &Path) -> Option<bool> {
    let here = fs::metadata(bpffs).ok()?;
    let below_root = bpffs.strip_prefix("/").ok()?;
    let others = [1, std::os::unix::process::parent_id()].map(|pid| PathBuf::from(format!("/proc/{pid}/root")));
    let root = others.iter().find(|root| fs::metadata(root).is_ok())?;
    // Nothing mounted there, or another file system of any kind: not ours.
    let host = fs::metadata(root.join(below_root)).ok();
    Some(host.is_none_or(|host| host.dev() != here.dev()))
}

/// Makes a directory and those above it, unless they are there.
pub(super) fn make_directory(dir: &Path) -> Result<(), PinsError> {
    fs::create_dir_all(dir).map_err(|source| PinsError::File { what: "cannot make", path: dir.into(), source })
}

/// Entries of a directory; a missing one has none.
pub(super) fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>, PinsError> {
    let error = |source| PinsError::File { what: "cannot list", path: dir.into(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(error(e)),
    };
    entries
        .map(|entry| entry.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).map_err(error))
        .collect()
}

/// Removes a directory and all in it.
pub(super) fn remove_tree(path: &Path) -> Result<(), PinsError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(PinsError::File { what: "cannot remove", path: path.into(), source }),
    }
}

/// A system-id as a file name: bpffs refuses dots, and a system-id is often a host's full name.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_and_slashes_become_file_names() {
        assert_eq!(escape("hv-1_a"), "hv-1_a");
        assert_eq!(escape("node1.example.org"), "node1%2Eexample%2Eorg");
        assert_eq!(escape("../x"), "%2E%2E%2Fx");
    }

    #[test]
    fn a_directory_that_is_no_bpffs_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = Pins::open(dir.path(), "hv1").unwrap_err().to_string();
        assert!(
            error.contains("is not a bpf file system") && error.contains(&dir.path().display().to_string()),
            "{error}"
        );
    }
}
