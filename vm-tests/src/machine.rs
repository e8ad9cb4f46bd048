//! A guest under QEMU.

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
use crate::image::GuestImage;
use crate::nic::Nic;

/// How long a guest may take to boot: [`Accelerator::deadline`] of it. Translated on a busy machine it takes a minute.
const BOOT: Duration = Duration::from_secs(30);

/// How long one command in a guest may take, unless said: [`Accelerator::deadline`] of it.
const COMMAND: Duration = Duration::from_secs(12);

/// A panic ends QEMU.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 mitigations=off";

/// Memory that is enough for a guest that only talks, in MiB.
pub const SMALL: u32 = 256;

/// The port at which every guest echoes what TCP brings.
pub const ECHO_PORT: u16 = 7000;

/// What tells one guest from another.
#[derive(Debug, Clone)]
pub struct MachineSpec<'a> {
    /// Its name in messages.
    pub name: &'a str,
    /// Its devices: `eth0`, `eth1`, …
    pub nics: &'a [Nic],
    /// The addresses of `eth0`, with prefix lengths.
    pub addresses: &'a [String],
    /// Its memory, in MiB.
    pub memory: u32,
    /// Its processors: [`Accelerator::processors`] of them.
    pub cpus: u32,
    /// A directory that keeps `NAME.console` (what its kernel and `/init` print) and `NAME.qemu`; without one they go with the machine.
    pub logs: Option<&'a Path>,
}

impl<'a> MachineSpec<'a> {
    /// A guest that only talks: little memory, one processor, no addresses, no logs kept.
    pub const fn small(name: &'a str, nics: &'a [Nic]) -> Self {
        Self { name, nics, addresses: &[], memory: SMALL, cpus: 1, logs: None }
    }
}

/// A running guest; killed when dropped.
#[derive(Debug)]
pub struct Machine {
    name: String,
    accelerator: Accelerator,
    qemu: Process,
    console: PathBuf,
    control: Option<UnixStream>,
    /// What came through the control port and was not taken yet.
    received: Vec<u8>,
    commands: u32,
    _dir: TempDir,
}

impl Machine {
    /// Starts a guest in the namespace that has its taps. [`Machine::wait_ready`] waits until it has booted.
    pub fn start(ns: &Netns, image: &GuestImage, spec: &MachineSpec<'_>) -> Result<Self> {
        let dir = TempDir::with_prefix("oxbow-vm-").context("cannot make a temporary directory")?;
        let logs = spec.logs.unwrap_or(dir.path());
        std::fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let console = logs.join(format!("{}.console", spec.name));
        let (control, log) = (dir.path().join("control"), logs.join(format!("{}.qemu", spec.name)));
        let mut command = Command::new(require_program("qemu-system-x86_64")?);
        command.args(image.accelerator().arguments());
        command.args(["-m", &spec.memory.to_string(), "-smp", &image.accelerator().processors(spec.cpus).to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&image.kernel().image).arg("-initrd").arg(image.initramfs());
        let mut line = format!("{COMMAND_LINE}{}", image.accelerator().kernel_arguments());
        for address in spec.addresses {
            line.push_str(&format!(" oxbow.address={address}"));
        }
        command.arg("-append").arg(line);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-chardev").arg(format!("socket,id=control,path={},server=on,wait=off", control.display()));
        // Unlike a 16550 it has flow control: nothing is lost when the guest is slow. It becomes /dev/vport0p1.
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,nr=1,chardev=control"]);
        for (index, nic) in spec.nics.iter().enumerate() {
            command.args(nic.arguments(index));
        }
        let qemu = ns.spawn(&format!("qemu of {}", spec.name), command, &log)?;
        let name = spec.name.to_owned();
        let accelerator = image.accelerator();
        let (control_port, received) = (None, Vec::new());
        let mut machine =
            Self { name, accelerator, qemu, console, control: control_port, received, commands: 0, _dir: dir };
        wait_until(&format!("the control port of {}", spec.name), COMMAND, || {
            machine.qemu.check_alive()?;
            machine.control = Some(UnixStream::connect(&control)?);
            Ok(Look::Held(()))
        })?;
        Ok(machine)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs its instructions.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// Waits until the guest takes commands.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.receive_until("ready\n", BOOT, &mut |_| ())
            .with_context(|| format!("{} does not boot", self.name))
            .map(|_| ())
    }

    /// Runs a shell command in the guest and returns what it printed and its exit status.
    pub fn run(&mut self, command: &str) -> Result<(String, u32)> {
        self.run_within(command, COMMAND, |_| ())
    }

    /// [`Machine::run`] with another deadline, of which [`Accelerator::deadline`] is taken; each line that is printed is shown to `progress` as it comes.
    pub fn run_within(
        &mut self,
        command: &str,
        deadline: Duration,
        mut progress: impl FnMut(&str),
    ) -> Result<(String, u32)> {
        ensure!(!command.contains('\n'), "a guest takes commands of one line");
        self.commands += 1;
        let number = self.commands;
        let control = self.control.as_mut().context("the guest has no control port")?;
        control.write_all(format!("{number} {command}\n").as_bytes()).context("cannot write to the control port")?;
        let context = format!("`{command}` in {}", self.name);
        let output = self.receive_until(&format!("\n={number} "), deadline, &mut progress).context(context)?;
        let status = self.receive_until("\n", COMMAND, &mut |_| ())?;
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
    pub fn console_tail(&self) -> String {
        tail(&self.console, 8000)
    }

    /// Takes what comes through the control port until `sign`, and returns what came before it.
    fn receive_until(&mut self, sign: &str, deadline: Duration, progress: &mut dyn FnMut(&str)) -> Result<String> {
        let Self { name, accelerator, qemu, control, received, console, .. } = self;
        let deadline = accelerator.deadline(deadline);
        let control = control.as_mut().context("the guest has no control port")?;
        control.set_nonblocking(true)?;
        let mut shown = 0;
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
            let found = received.windows(sign.len()).position(|window| window == sign.as_bytes());
            let end = found.unwrap_or(received.len());
            // The sign begins with the end of a line, which may have been shown already.
            while let Some(length) = received.get(shown..end).unwrap_or_default().iter().position(|byte| *byte == b'\n')
            {
                progress(&String::from_utf8_lossy(&received[shown..shown + length]));
                shown += length + 1;
            }
            if let Some(at) = found {
                if shown < at {
                    progress(&String::from_utf8_lossy(&received[shown..at]));
                }
                let before = String::from_utf8_lossy(&received[..at]).into_owned();
                received.drain(..at + sign.len());
                return Ok(Look::Held(Ok(before)));
            }
            let seen = String::from_utf8_lossy(received);
            if let Err(ended) = qemu.check_alive() {
                // Waiting is of no more use.
                let said = format!("control port: {seen}\nconsole:\n{}", tail(console, 3000));
                return Ok(Look::Held(Err(ended.context(said))));
            }
            let log = qemu.log_tail(2000);
            Ok(Look::NotYet(format!("control port: {seen}\nqemu: {log}\nconsole:\n{}", tail(console, 3000))))
        });
        control.set_nonblocking(false)?;
        answer?
    }
}
