//! The `ovs-ofctl` that is running: it can be ended from another thread, and ends with the process that started it.
//!
//! `ovs-ofctl` sends the commit of a bundle when the bridge has answered everything before it, and Open vSwitch forgets a bundle whose connection has ended. So
//! what a process that was killed had not committed is never committed, and whoever comes after it may compare and repair the bridge at once.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The `ovs-ofctl` that is running, for whoever wants it to end: what it has not told the bridge yet is told no more.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    child: Option<Child>,
    is_over: bool,
}

impl Running {
    /// Ends it, and lets no other one start.
    pub fn end(&self) {
        let mut slot = self.slot();
        slot.is_over = true;
        if let Some(child) = &mut slot.child {
            // One that has ended by itself needs no killing; it is waited for by who started it.
            let _ = child.kill();
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Nothing that is done under the lock leaves it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command to its end, or to the end of this thread.
    pub(crate) fn output(&self, command: &mut Command) -> io::Result<Output> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut slot = self.slot();
        if slot.is_over {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "nobody waits for the bridge any more"));
        }
        die_with_thread(command);
        let mut child = command.spawn()?;
        let pipes = (child.stdout.take(), child.stderr.take());
        slot.child = Some(child);
        drop(slot);
        let read = |pipe: Option<Box<dyn Read + Send>>| -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes))?;
            Ok(bytes)
        };
        let (stdout, stderr) = std::thread::scope(|scope| {
            let errors = pipes.1.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
            let errors = scope.spawn(move || read(errors));
            let stdout = read(pipes.0.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
            (stdout, errors.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked"))))
        });
        // Both pipes are closed: it is ending.
        let mut slot = self.slot();
        let status = slot.child.take().map(|mut child| child.wait());
        let status = status.unwrap_or_else(|| Err(io::Error::other("somebody else waited for it")))?;
        Ok(Output { status, stdout: stdout?, stderr: stderr? })
    }
}

/// Has the kernel kill the command when the thread that starts it ends: that one waits for it, so it ends earlier only with its process.
#[expect(unsafe_code, reason = "between fork and exec only the child can ask the kernel for this")]
fn die_with_thread(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: prctl(2) and getppid(2) are all that is called in the child; both are system calls without effect on memory, and neither error allocates.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            // A process that died before this is nobody's signal any more.
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
        });
    }
}
