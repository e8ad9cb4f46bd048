//! What the rings share: machines with their logs in one place, and what is put into them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use oxbow_testkit::Netns;
use oxbow_vm_tests::{GuestImage, Kernel, Machine, MachineSpec, Nic};

use crate::{build_ebpf, workspace};

/// Where machines run. Everything that costs time is made when it is first asked for.
pub(super) struct Lab {
    filter: Vec<String>,
    logs: PathBuf,
    object: Option<PathBuf>,
}

impl Lab {
    /// With the names that tests must contain one of.
    pub(super) fn new(filter: &[String]) -> Self {
        Self { filter: filter.to_owned(), logs: PathBuf::new(), object: None }
    }

    /// Begins a ring on a kernel: its logs replace those of the last time.
    pub(super) fn begin(&mut self, ring: &str, kernel: &Kernel) -> Result<()> {
        self.logs = workspace::target_dir().join("vm/logs").join(format!("{ring}-{}", kernel.release));
        if self.logs.exists() {
            std::fs::remove_dir_all(&self.logs).with_context(|| format!("cannot remove {}", self.logs.display()))?;
        }
        Ok(())
    }

    /// What the names of tests must contain one of; empty for all.
    pub(super) fn filters(&self) -> Vec<&str> {
        self.filter.iter().map(String::as_str).collect()
    }

    /// Where the logs of this ring's machines are.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// The eBPF object, up to date.
    pub(super) fn object(&mut self) -> Result<PathBuf> {
        if let Some(object) = &self.object {
            return Ok(object.clone());
        }
        let object = build_ebpf::build(&build_ebpf::Args { quiet: true, ..Default::default() })?;
        Ok(self.object.insert(object).clone())
    }

    /// Boots a machine with this much memory (MiB) and so many processors, and waits until it takes commands.
    pub(super) fn boot(
        &self,
        ns: &Netns,
        image: &GuestImage,
        name: &str,
        nics: &[Nic],
        (memory, cpus): (u32, u32),
    ) -> Result<Machine> {
        println!(
            "booting {name}: Linux {} by {}, CPUs: {}, {memory} MiB, initramfs of {} MiB",
            image.kernel().release,
            image.accelerator(),
            image.accelerator().processors(cpus),
            image.size() >> 20
        );
        let mut machine = self.start(ns, image, name, nics, (memory, cpus))?;
        machine.wait_ready()?;
        Ok(machine)
    }

    /// Starts a machine without waiting for it.
    pub(super) fn start(
        &self,
        ns: &Netns,
        image: &GuestImage,
        name: &str,
        nics: &[Nic],
        (memory, cpus): (u32, u32),
    ) -> Result<Machine> {
        Machine::start(
            ns,
            image,
            &MachineSpec { memory, cpus, logs: Some(&self.logs), ..MachineSpec::small(name, nics) },
        )
    }
}
