//! What guests boot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::accelerator::Accelerator;
use crate::kernel::Kernel;
use crate::root::GuestRoot;

/// Drivers that every guest has: the control port, and QEMU's virtual network card.
const DRIVERS: [&str; 3] = ["virtio_pci", "virtio_console", "virtio_net"];

/// A kernel and an initramfs.
#[derive(Debug)]
pub struct GuestImage {
    kernel: Kernel,
    accelerator: Accelerator,
    initramfs: PathBuf,
    size: usize,
    _dir: TempDir,
}

impl GuestImage {
    /// What a guest on a tap needs: the kernel with its network driver, and busybox.
    pub fn small(kernel: &Kernel) -> Result<Self> {
        Self::with(kernel, &[], GuestRoot::new()?)
    }

    /// The kernel, these modules of its (in this order, after what they depend on), and these files.
    pub fn with(kernel: &Kernel, modules: &[&str], mut root: GuestRoot) -> Result<Self> {
        let accelerator = Accelerator::find(kernel)?;
        root.modules(&kernel.modules(&[&DRIVERS, modules].concat())?);
        let dir = TempDir::with_prefix("oxbow-guest-").context("cannot make a temporary directory")?;
        let initramfs = dir.path().join("initramfs");
        let archive = root.archive()?;
        fs::write(&initramfs, &archive).with_context(|| format!("cannot write {}", initramfs.display()))?;
        Ok(Self { kernel: kernel.clone(), accelerator, initramfs, size: archive.len(), _dir: dir })
    }

    /// The kernel that the guests run.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// What runs them.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// The file of the initramfs.
    pub(crate) fn initramfs(&self) -> &Path {
        &self.initramfs
    }

    /// Bytes of the initramfs, which the guest's memory holds twice while it boots.
    pub fn size(&self) -> usize {
        self.size
    }
}
