//! What runs the guests' instructions.

use std::fmt;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, anyhow};
use oxbow_testkit::Netns;
use oxbow_testkit::artifacts::require_program;
use oxbow_testkit::wait::{Look, wait_until};
use tempfile::TempDir;

use crate::kernel::Kernel;

/// A QEMU accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// Translation: everywhere, and slow.
    Tcg,
}

/// How long a kernel may take to its first line under KVM. It takes well under one second where KVM works; nested virtualisation
/// that is offered but broken hangs.
const PROOF: Duration = Duration::from_secs(5);

impl Accelerator {
    /// KVM if a kernel proves within seconds to boot with it, else translation.
    ///
    /// That `/dev/kvm` can be opened proves nothing on machines that are virtual themselves.
    ///
    /// It is proved once in the life of the process.
    pub fn find(kernel: &Kernel) -> Result<Self> {
        static FOUND: Mutex<Option<Accelerator>> = Mutex::new(None);
        let mut found = FOUND.lock().map_err(|_| anyhow!("a thread panicked while it looked for an accelerator"))?;
        if let Some(found) = *found {
            return Ok(found);
        }
        Ok(*found.insert(Self::prove(kernel)?))
    }

    fn prove(kernel: &Kernel) -> Result<Self> {
        if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        let dir = TempDir::with_prefix("oxbow-kvm-")?;
        let console = dir.path().join("console");
        let mut command = Command::new(require_program("qemu-system-x86_64")?);
        command.args([
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-m",
            "256",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ]);
        command.arg("-no-reboot").arg("-kernel").arg(&kernel.image);
        command.args(["-append", "console=ttyS0 earlyprintk=serial panic=-1"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        let ns = Netns::new("kvm")?;
        let mut qemu = ns.spawn("qemu", command, &dir.path().join("qemu.log"))?;
        let proof = wait_until("the first line of a kernel under KVM", PROOF, || {
            // QEMU ends at once when the accelerator refuses.
            if qemu.ended()?.is_some() {
                return Ok(Look::Held(false));
            }
            let text = std::fs::read_to_string(&console).unwrap_or_default();
            Ok(if text.contains("Linux version") { Look::Held(true) } else { Look::NotYet(text) })
        });
        Ok(if proof.unwrap_or(false) { Self::Kvm } else { Self::Tcg })
    }

    /// How many times longer than on a processor itself things take at most, on a machine that has other things to do as well.
    pub fn slowness(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 10,
        }
    }

    /// How long something may take in a guest that may take this long on a processor itself.
    pub fn deadline(self, itself: Duration) -> Duration {
        itself.saturating_mul(self.slowness())
    }

    /// How many processors a machine has that would be given `wanted`.
    ///
    /// Translated ones that run at the same time do not see each other's changes to code as processors do: a kernel that patches itself then
    /// meets an `int3` of its own after it has taken it back ("Oops: int3", QEMU 7.2). So there is one.
    pub fn processors(self, wanted: u32) -> u32 {
        match self {
            Self::Kvm => wanted,
            Self::Tcg => 1,
        }
    }

    /// QEMU's arguments for it.
    pub(crate) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Left out of all that it can translate: what it translates to something slower than the other way that kernels have. `rep movsb` is a loop over
            // bytes (erms), each access to user space ends a block and has a TLB of its own (smap), page tables have a fifth level (la57), a
            // register more is switched (pku).
            Self::Tcg => ["-accel", "tcg", "-cpu", "max,erms=off,smap=off,la57=off,pku=off"],
        }
    }

    /// What the kernel's command line says because of it.
    pub(crate) fn kernel_arguments(self) -> &'static str {
        match self {
            Self::Kvm => "",
            // That the interrupts of a timer come in time on a busy machine is not to be checked: kernels give up when they do not ("IO-APIC + timer
            // doesn't work!"), or take a slower clock than the TSC, which is the host's. Pages are not cleared before their first use but
            // where they must be (Debian's kernels do it everywhere).
            Self::Tcg => " no_timer_check tsc=reliable init_on_alloc=0",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}
