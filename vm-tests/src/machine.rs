//! A guest under QEMU.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_testkit::artifacts::require_program;
use oxbow_testkit::process::tail;
use oxbow_testkit::wait::{Look, wait_until};
use oxbow_testkit::{Netns, Process};
use tempfile::TempDir;

use crate::accelerator::Accelerator;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;

/// How long a guest may take to boot. Translated on a busy machine it takes a minute.
const BOOT: Duration = Duration::from_secs(300);

/// How long one command in a guest may take.
const COMMAND: Duration = Duration::from_secs(120);

/// Memory that is enough for a guest that only talks, in MiB.
pub const SMALL: u32 = 256;

/// The port at which every guest echoes what TCP brings.
pub const ECHO_PORT: u16 = 7000;

/// What all guests boot: a kernel and an initramfs.
#[derive(Debug)]
pub struct GuestImage {
    kernel: Kernel,
    accelerator: Accelerator,
    initramfs: PathBuf,
    _dir: TempDir,
}

impl GuestImage {
    /// Debian's kernel with what a guest on a tap needs. Fetches what is missing.
    pub fn build() -> Result<Self> {
        Self::with(&[], &[])
    }

    /// As [`GuestImage::build`], with more modules, and with more files: name in the guest, file here. All are executable.
    pub fn with(modules: &[&str], files: &[(&str, &Path)]) -> Result<Self> {
        let kernel = Kernel::debian()?;
        let accelerator = Accelerator::find(&kernel)?;
        let dir = TempDir::with_prefix("oxbow-guest-").context("cannot make a temporary directory")?;
        let initramfs = dir.path().join("initramfs");
        let busybox = fs::read(require_program("busybox")?).context("cannot read busybox")?;
        let mut archive = Initramfs::new(Vec::new());
        for name in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
            archive.directory(name)?;
        }
        archive.character_device("dev/console", 5, 1)?;
        archive.file("bin/busybox", 0o755, &busybox)?;
        archive.file("init", 0o755, include_bytes!("init.sh"))?;
        // Numbered, because /init inserts them in the order of their names.
        let modules = [&["virtio_pci", "virtio_net"], modules].concat();
        for (number, module) in kernel.modules(&modules)?.iter().enumerate() {
            let contents = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
            archive.file(&format!("modules/{number:02}.ko"), 0o644, &contents)?;
        }
        for (name, file) in files {
            let contents = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            archive.file(name, 0o755, &contents)?;
        }
        fs::write(&initramfs, archive.finish()?).with_context(|| format!("cannot write {}", initramfs.display()))?;
        Ok(Self { kernel, accelerator, initramfs, _dir: dir })
    }

    /// The kernel that the guests run.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// What runs them.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }
}

/// What tells one guest from another.
#[derive(Debug, Clone)]
pub struct MachineSpec<'a> {
    /// Its name in messages.
    pub name: &'a str,
    /// The tap that it opens; without one its device leads nowhere.
    pub tap: Option<&'a str>,
    /// The MAC address of its device.
    pub mac: &'a str,
    /// Its addresses with prefix lengths.
    pub addresses: &'a [String],
    /// Its memory, in MiB.
    pub memory: u32,
    /// Whether its device may leave checksums and segmentation to the host, as virtio-net usually does.
    pub offload: bool,
}

/// A running guest; killed when dropped.
#[derive(Debug)]
pub struct Machine {
    name: String,
    qemu: Process,
    console: PathBuf,
    control: Option<UnixStream>,
    /// What came through the control port and was not taken yet.
    received: Vec<u8>,
    commands: u32,
    dir: TempDir,
}

impl Machine {
    /// Starts a guest in the namespace that has its tap. [`Machine::wait_ready`] waits until it has booted.
    pub fn start(ns: &Netns, image: &GuestImage, spec: &MachineSpec<'_>) -> Result<Self> {
        let dir = TempDir::with_prefix("oxbow-vm-").context("cannot make a temporary directory")?;
        let (console, control) = (dir.path().join("console"), dir.path().join("control"));
        let mut command = Command::new(require_program("qemu-system-x86_64")?);
        command.args(image.accelerator.arguments());
        command.args([
            "-m",
            &spec.memory.to_string(),
            "-smp",
            "1",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command.arg("-kernel").arg(&image.kernel.image).arg("-initrd").arg(&image.initramfs);
        let mut line = String::from("console=ttyS0 panic=-1 mitigations=off");
        for address in spec.addresses {
            line.push_str(&format!(" oxbow.address={address}"));
        }
        command.arg("-append").arg(line);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-chardev").arg(format!("socket,id=control,path={},server=on,wait=off", control.display()));
        command.args(["-serial", "chardev:control"]);
        command.arg("-netdev").arg(match spec.tap {
            Some(tap) => format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off"),
            None => "hubport,id=net,hubid=0".to_owned(),
        });
        let offload = if spec.offload { "" } else { ",csum=off,gso=off,guest_csum=off" };
        // Without an option ROM: the guest does not boot from the network.
        command.arg("-device").arg(format!("virtio-net-pci,netdev=net,mac={},romfile={offload}", spec.mac));
        let qemu = ns.spawn(&format!("qemu of {}", spec.name), command, &dir.path().join("qemu.log"))?;
        let name = spec.name.to_owned();
        let mut machine = Self { name, qemu, console, control: None, received: Vec::new(), commands: 0, dir };
        wait_until(&format!("the control port of {}", spec.name), COMMAND, || {
            machine.qemu.check_alive()?;
            machine.control = Some(UnixStream::connect(&control)?);
            Ok(Look::Held(()))
        })?;
        Ok(machine)
    }

    /// Waits until the guest takes commands.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.receive_until("ready\n", BOOT).with_context(|| format!("{} does not boot", self.name)).map(|_| ())
    }

    /// Runs a shell command in the guest and returns what it printed and its exit status.
    pub fn run(&mut self, command: &str) -> Result<(String, u32)> {
        ensure!(!command.contains('\n'), "a guest takes commands of one line");
        self.commands += 1;
        let number = self.commands;
        let control = self.control.as_mut().context("the guest has no control port")?;
        control.write_all(format!("{number} {command}\n").as_bytes()).context("cannot write to the control port")?;
        let context = format!("`{command}` in {}", self.name);
        let output = self.receive_until(&format!("\n={number} "), COMMAND).context(context)?;
        let status = self.receive_until("\n", COMMAND)?;
        let status = status.trim().parse().with_context(|| format!("{status:?} is no exit status"))?;
        Ok((output, status))
    }

    /// [`Machine::run`]; an exit status other than 0 is an error.
    pub fn check(&mut self, command: &str) -> Result<String> {
        let (output, status) = self.run(command)?;
        if status != 0 {
            bail!("`{command}` in {} ended with status {status}:\n{output}", self.name);
        }
        Ok(output)
    }

    /// The end of what the guest's kernel and `/init` printed.
    pub fn console(&self) -> String {
        tail(&self.console, 8000)
    }

    /// Takes what comes through the control port until `sign`, and returns what came before it.
    fn receive_until(&mut self, sign: &str, deadline: Duration) -> Result<String> {
        let Self { name, qemu, control, received, console, dir, .. } = self;
        let control = control.as_mut().context("the guest has no control port")?;
        control.set_nonblocking(true)?;
        let answer = wait_until(&format!("{sign:?} from {name}"), deadline, || {
            let mut buffer = [0; 4096];
            loop {
                match control.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => received.extend_from_slice(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => bail!(error),
                }
            }
            if let Some(at) = received.windows(sign.len()).position(|window| window == sign.as_bytes()) {
                let before = String::from_utf8_lossy(&received[..at]).into_owned();
                received.drain(..at + sign.len());
                return Ok(Look::Held(before));
            }
            qemu.check_alive()?;
            let seen = String::from_utf8_lossy(received);
            let log = tail(&dir.path().join("qemu.log"), 2000);
            Ok(Look::NotYet(format!("control port: {seen}\nqemu: {log}\nconsole:\n{}", tail(console, 3000))))
        });
        control.set_nonblocking(false)?;
        answer
    }
}
