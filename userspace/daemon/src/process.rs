//! Forking into the background and watching over the daemon: ovn-northd(8) `--detach` and `--monitor`.
//!
//! All of it happens while the process has one thread: a forked child has only the thread that called fork, so locks
//! held by others would never be released in it.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::exit;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe, setsid};

use crate::vlog::{Level, Vlog};

/// The write end of the pipe on which a waiting parent hears that the daemon is up. Dropping it unsignalled tells the
/// parent that the daemon failed to start.
#[derive(Debug, Default)]
pub(crate) struct StartupPipe(Option<OwnedFd>);

impl StartupPipe {
    /// Lets the parent, if one is waiting, go on.
    pub(crate) fn signal(&mut self) {
        if let Some(fd) = self.0.take()
            && let Err(error) = std::fs::File::from(fd).write_all(&[0])
        {
            tracing::warn!(target: "daemon_unix", "could not signal startup to the parent ({error})");
        }
    }
}

/// What a parent learned from its child.
enum Startup {
    Up,
    /// Ended before it was up; this is the status to end with.
    Failed(i32),
}

fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Forks. In the child the result is the pipe to signal on; in the parent the child and what became of its start.
fn fork_and_wait(program: &str) -> io::Result<Result<StartupPipe, (Pid, Startup)>> {
    if thread_count()? != 1 {
        return Err(io::Error::other("cannot fork a process that has threads already"));
    }
    let (read, write) = pipe()?;
    // SAFETY: the process has a single thread (checked above), so the child inherits no lock held by another thread and
    // may go on as an ordinary process.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(read);
            Ok(Ok(StartupPipe(Some(write))))
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut byte = [0];
            if std::fs::File::from(read).read(&mut byte)? == 1 {
                return Ok(Err((child, Startup::Up)));
            }
            let status = match waitpid(child, None)? {
                // It has printed why.
                WaitStatus::Exited(_, status) if status != 0 => status,
                other => {
                    let _ = writeln!(
                        io::stderr(),
                        "{program}: fork child died before signaling startup ({})",
                        describe(&other)
                    );
                    1
                }
            };
            Ok(Err((child, Startup::Failed(status))))
        }
    }
}

/// Goes into the background. Returns in the child; the parent waits for [`StartupPipe::signal`] and ends.
pub(crate) fn detach(program: &str) -> io::Result<StartupPipe> {
    match fork_and_wait(program)? {
        Ok(pipe) => {
            setsid()?;
            Ok(pipe)
        }
        Err((_, Startup::Up)) => exit(0),
        Err((_, Startup::Failed(status))) => exit(status),
    }
}

/// Splits off a process that watches over this one and starts it again when a programming error kills it. Returns in the
/// watched process, of each new attempt; the watching one ends with the status of the last.
///
/// `startup` belongs to whoever waits for the first attempt; `detached` says that nobody will read the console.
pub(crate) fn monitor(program: &str, vlog: &Vlog, mut startup: StartupPipe, detached: bool) -> io::Result<StartupPipe> {
    const RESTART_INTERVAL: Duration = Duration::from_secs(10);
    let mut first = true;
    loop {
        let started = Instant::now();
        let child = match fork_and_wait(program)? {
            Ok(pipe) => return Ok(pipe),
            Err((_, Startup::Failed(status))) => exit(status),
            Err((child, Startup::Up)) => child,
        };
        if first {
            first = false;
            startup.signal();
            if detached {
                close_standard_fds()?;
            }
            let _ = nix::sys::prctl::set_name(c"monitor");
        }
        let status = loop {
            match waitpid(child, None) {
                Err(nix::errno::Errno::EINTR) => {}
                other => break other?,
            }
        };
        let died = format!("pid {child} died, {}", describe(&status));
        if !should_restart(&status) {
            vlog.emit("daemon_unix", Level::Info, &format!("{died}, exiting"));
            exit(match status {
                WaitStatus::Exited(_, status) => status,
                _ => 0,
            });
        }
        let wait = RESTART_INTERVAL.saturating_sub(started.elapsed());
        if wait.is_zero() {
            vlog.emit("daemon_unix", Level::Err, &format!("{died}, restarting"));
        } else {
            let text = format!("{died}, waiting until {} seconds since last restart", RESTART_INTERVAL.as_secs());
            vlog.emit("daemon_unix", Level::Err, &text);
            std::thread::sleep(wait);
        }
    }
}

/// The signals that a programming error raises, as ovn-northd(8) lists them under `--monitor`.
fn should_restart(status: &WaitStatus) -> bool {
    use Signal::{SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGPIPE, SIGSEGV, SIGXCPU, SIGXFSZ};
    matches!(
        status,
        WaitStatus::Signaled(
            _,
            SIGABRT | SIGALRM | SIGBUS | SIGFPE | SIGILL | SIGPIPE | SIGSEGV | SIGXCPU | SIGXFSZ,
            _
        )
    )
}

fn describe(status: &WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, status) => format!("exit status {status}"),
        WaitStatus::Signaled(_, signal, dumped) => {
            format!("killed ({}){}", signal_name(*signal as i32), if *dumped { ", core dumped" } else { "" })
        }
        other => format!("{other:?}"),
    }
}

/// What strsignal(3) calls the signals that end daemons.
pub(crate) fn signal_name(signal: i32) -> &'static str {
    match Signal::try_from(signal) {
        Ok(Signal::SIGTERM) => "Terminated",
        Ok(Signal::SIGINT) => "Interrupt",
        Ok(Signal::SIGHUP) => "Hangup",
        Ok(Signal::SIGSEGV) => "Segmentation fault",
        Ok(Signal::SIGABRT) => "Aborted",
        Ok(Signal::SIGBUS) => "Bus error",
        Ok(Signal::SIGKILL) => "Killed",
        Ok(other) => other.as_str(),
        Err(_) => "unknown signal",
    }
}

/// Points standard input, output and error at `/dev/null`, so that a terminal or a pipe is not held open.
pub(crate) fn close_standard_fds() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(null.as_fd())?;
    dup2_stdout(null.as_fd())?;
    dup2_stderr(null.as_fd())?;
    Ok(())
}

/// Becomes `USER[:GROUP]`, or `:GROUP`, as `--user` says.
pub(crate) fn become_user(spec: &str) -> Result<(), String> {
    use nix::unistd::{Gid, Group, User, getgid, getuid, initgroups, setgid, setgroups, setuid};
    if !getuid().is_root() {
        return Err("only root can use --user option".to_owned());
    }
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let user = match user {
        "" => None,
        name => Some(
            User::from_name(name)
                .map_err(|error| format!("user {name}: {error}"))?
                .ok_or_else(|| format!("user {name} not found, aborting"))?,
        ),
    };
    let gid: Gid = match group {
        None | Some("") => user.as_ref().map_or_else(getgid, |user| user.gid),
        Some(name) => {
            Group::from_name(name)
                .map_err(|error| format!("group {name}: {error}"))?
                .ok_or_else(|| format!("group {name} not found, aborting"))?
                .gid
        }
    };
    let change = || -> Result<(), String> {
        match &user {
            Some(user) => {
                let name = std::ffi::CString::new(user.name.as_str()).map_err(|error| error.to_string())?;
                initgroups(&name, gid).map_err(|error| error.to_string())?;
            }
            None => setgroups(&[gid]).map_err(|error| error.to_string())?,
        }
        setgid(gid).map_err(|error| error.to_string())?;
        if let Some(user) = &user {
            setuid(user.uid).map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    change().map_err(|error| format!("failed to become {spec}: {error}"))
}
