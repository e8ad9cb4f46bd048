//! Child processes that end with their owner.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{Look, wait_until};

/// The command line of `command` as one would type it.
pub fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| {
        let arg = arg.to_string_lossy();
        if arg.is_empty() || arg.contains(char::is_whitespace) { format!("'{arg}'") } else { arg.into_owned() }
    }));
    words.join(" ")
}

/// Asks the kernel to kill the child when the thread that starts it ends, and keeps the terminal's Ctrl-C from it.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid and _exit.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the call above; then nobody would ever kill us.
            if u32::try_from(libc::getppid()).ok() != Some(parent) {
                libc::_exit(127);
            }
            Ok(())
        });
    }
}

/// Turns a finished command's output into its standard output, or an error with everything it said.
///
/// # Errors
///
/// When the exit status is not 0.
pub fn checked(line: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("`{line}` failed: {}\n{}", output.status, format!("{}\n{}", out.trim(), err.trim()).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running daemon whose output goes to a log file, killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    line: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Prepares `command` to run as `name` with both output streams appended to `log`; `start` starts it.
    ///
    /// `start` is called with the command so that the caller chooses the thread (see [`crate::Netns::spawn`]).
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        start: impl FnOnce(Command) -> Result<Child>,
    ) -> Result<Self> {
        let open = || File::options().create(true).append(true).open(log);
        let stdout = open().with_context(|| format!("cannot open {}", log.display()))?;
        let stderr = open().with_context(|| format!("cannot open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let line = line(&command);
        let child = start(command).with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self { name: name.to_owned(), line, child, log: log.to_owned() })
    }

    /// The name it was given, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that its standard output and standard error go to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last `bytes` bytes of the log.
    pub fn log_tail(&self, bytes: u64) -> String {
        tail(&self.log, bytes)
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// An error with the end of the log if the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended: {status}\n`{}`\n{}", self.name, self.line, self.log_tail(4000));
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("a process id beyond i32")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Sends `SIGTERM` and waits for the end.
    ///
    /// # Errors
    ///
    /// When it does not end within `deadline`, or ends with a status other than 0 or by another signal.
    pub fn terminate(mut self, deadline: Duration) -> Result<()> {
        self.check_alive()?;
        self.signal(Signal::SIGTERM)?;
        let status = self.wait_end(deadline)?;
        if !status.success() && status.signal() != Some(libc::SIGTERM) {
            bail!("{} ended with {status} after SIGTERM\n{}", self.name, self.log_tail(4000));
        }
        Ok(())
    }

    /// Waits for the end without asking for it.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_until(&what, deadline, || {
            let ended = self.child.try_wait()?;
            Ok(ended.map_or_else(|| Look::NotYet(tail(&self.log, 2000)), Look::Held))
        })
    }

    /// Kills it at once, as a crash would (`SIGKILL`), and waits for the end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for: there is nothing left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last `bytes` bytes of a file, or the reason why it cannot be read.
pub fn tail(path: &Path, bytes: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_else(|error| format!("({}: {error})", path.display()))
}

/// Starts `command` from a thread that lives as long as this process, for daemons that belong to no namespace of their own.
///
/// The thread matters: "the parent", whose end kills the child, is the thread that forked, and a test's thread may be a short-lived one.
pub(crate) fn start_from_host(mut command: Command) -> Result<Child> {
    type Job = Box<dyn FnOnce() + Send>;
    static HOST: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let host = HOST.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || queue.into_iter().for_each(|job| job()));
        Mutex::new(jobs)
    });
    die_with_parent(&mut command);
    let (answer, started) = mpsc::channel();
    let job = Box::new(move || {
        // The receiver waits just below.
        let _ = answer.send(command.spawn());
    });
    let sent = host.lock().map_err(|_| anyhow!("a thread panicked while starting a process"))?.send(job);
    sent.map_err(|_| anyhow!("the thread that starts processes has ended"))?;
    Ok(started.recv().context("the thread that starts processes has ended")??)
}

/// Splits a command line at spaces, keeping together what stands in single or double quotes. No escapes.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_splits_like_a_shell() {
        assert_eq!(words(" lsp-add  sw0 lp1 "), ["lsp-add", "sw0", "lp1"]);
        assert_eq!(words("set x 'a b' \"c 'd'\" ''"), ["set", "x", "a b", "c 'd'", ""]);
        assert_eq!(words("options:x='a b'"), ["options:x=a b"]);
    }

    #[test]
    fn a_daemon_that_ends_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo cannot open frobnicator >&2; exit 3"]);
        let mut process = Process::start("frob", command, &dir.path().join("frob.log"), start_from_host).unwrap();
        process.wait_end(crate::wait::PATIENCE).unwrap();
        let error = format!("{:#}", process.check_alive().unwrap_err());
        assert!(error.contains("frob ended: exit status: 3") && error.contains("cannot open frobnicator"), "{error}");
    }
}
