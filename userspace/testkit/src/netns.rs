//! Network namespaces without names.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process::{self, Process, die_with_parent};

/// A job for the thread that lives in the namespace.
type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, alive as long as this value (and the processes in it).
///
/// It has no name in `/run/netns`, so nothing collides and nothing is left behind. A thread lives in it: processes are started
/// from that thread and die with it. [`Netns::enter`] runs a closure in it, [`Netns::output`] a command.
///
/// With [`Netns::with_own_sys`] it has a mount namespace too, in which `/sys` shows this namespace's devices and `/sys/fs/bpf` is a bpffs
/// of its own: a machine of its own as far as a hypervisor's daemon can see.
pub struct Netns {
    name: String,
    net: File,
    mnt: Option<File>,
    /// `None` only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netns").field("name", &self.name).field("path", &self.path()).finish()
    }
}

impl Netns {
    /// A new, empty network namespace with its loopback device up. `name` is for messages only.
    ///
    /// # Errors
    ///
    /// Without `CAP_SYS_ADMIN` (in practice: root).
    pub fn new(name: &str) -> Result<Self> {
        Self::make(name, false)
    }

    /// As [`Netns::new`], with its own `/sys` and its own bpffs at `/sys/fs/bpf`.
    pub fn with_own_sys(name: &str) -> Result<Self> {
        Self::make(name, true)
    }

    fn make(name: &str, own_sys: bool) -> Result<Self> {
        let (ready_tx, ready) = mpsc::channel::<Result<(File, Option<File>)>>();
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name(format!("ns {name}")).spawn(move || {
            let made = enter_new(own_sys);
            let fine = made.is_ok();
            // The receiver is gone only if the maker panicked; then there is nobody to serve either.
            if ready_tx.send(made).is_err() || !fine {
                return;
            }
            for job in queue {
                job();
            }
        })?;
        let made = ready.recv().map_err(|_| anyhow!("the thread of namespace {name} ended early"))?;
        let (net, mnt) = made.with_context(|| format!("cannot make the network namespace {name}"))?;
        let netns = Self { name: name.to_owned(), net, mnt, jobs: Some(jobs), thread: Some(thread) };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The name given to it, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path that `ip link … netns PATH` and `nsenter --net=PATH` take while this process lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd()))
    }

    /// How a person enters it while this process lives.
    pub fn entering(&self) -> String {
        let net = self.path();
        match &self.mnt {
            None => format!("nsenter --net={}", net.display()),
            Some(mnt) => {
                format!("nsenter --net={} --mount=/proc/{}/fd/{}", net.display(), std::process::id(), mnt.as_raw_fd())
            }
        }
    }

    /// Runs `work` on a thread that has entered the namespace, and returns what it returns.
    ///
    /// Sockets and file descriptors made there stay usable elsewhere: a socket belongs to the namespace it was made in.
    ///
    /// # Panics
    ///
    /// When `work` panics.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || -> Result<T> {
            if let Some(mnt) = &self.mnt {
                // A thread may change its mount namespace only once its root and working directory are its own.
                unshare(CloneFlags::CLONE_FS).context("cannot unshare the working directory")?;
                setns(mnt, CloneFlags::CLONE_NEWNS).context("cannot enter the mount namespace")?;
            }
            setns(&self.net, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
            Ok(work())
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        match result {
            Ok(result) => result.with_context(|| format!("in namespace {}", self.name)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts `command` in the namespace. It is killed when the namespace is dropped, however this process ends.
    pub(crate) fn start(&self, mut command: Command) -> Result<Child> {
        die_with_parent(&mut command);
        let (answer, started) = mpsc::channel();
        let job = Box::new(move || {
            // The receiver waits just below.
            let _ = answer.send(command.spawn());
        });
        let jobs = self.jobs.as_ref().context("the namespace is being dropped")?;
        jobs.send(job).map_err(|_| anyhow!("the thread of namespace {} has ended", self.name))?;
        Ok(started.recv().map_err(|_| anyhow!("the thread of namespace {} has ended", self.name))??)
    }

    /// Starts a daemon in the namespace, its output appended to `log`.
    pub fn spawn(&self, name: &str, command: Command, log: &Path) -> Result<Process> {
        Process::start(name, command, log, |command| self.start(command))
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs `command` in the namespace to its end and returns what it said and how it ended.
    pub fn output(&self, mut command: Command) -> Result<Output> {
        let line = process::line(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.start(command).with_context(|| format!("cannot start `{line}` in namespace {}", self.name))?;
        child.wait_with_output().with_context(|| format!("cannot wait for `{line}`"))
    }

    /// Runs a program in the namespace; an exit status other than 0 is an error that carries what it said.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(args);
        let line = process::line(&command);
        process::checked(&line, self.output(command)?).with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs `ip` with `args` split at spaces.
    pub fn ip(&self, args: &str) -> Result<String> {
        self.run("ip", &args.split_whitespace().collect::<Vec<_>>())
    }

    /// Devices, addresses, routes, neighbours and their counters, for a failure's message.
    pub fn dump(&self) -> String {
        let mut text = format!("--- namespace {}\n", self.name);
        for args in ["-s -d link show", "addr show", "route show table all", "neigh show"] {
            let part = self.ip(args).unwrap_or_else(|error| format!("{error:#}\n"));
            text.push_str(&format!("$ ip {args}\n{part}"));
        }
        text
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // The thread ends when its queue closes; waiting for it means that what it started is being killed when this returns.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It panics only if a job did, and then the panic has been printed.
            let _ = thread.join();
        }
    }
}

/// Moves the calling thread into new namespaces and returns files that hold them.
fn enter_new(own_sys: bool) -> Result<(File, Option<File>)> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET), which needs root")?;
    let net = File::open("/proc/thread-self/ns/net").context("cannot open the new network namespace")?;
    if !own_sys {
        return Ok((net, None));
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let none: Option<&str> = None;
    // What is mounted upon /sys must not propagate to where this namespace came from. /sys and not /, because / is no mount point
    // in a chroot.
    mount(none, "/sys", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make /sys private")?;
    // sysfs shows the network devices of the namespace it is mounted from.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("cannot mount /sys")?;
    mount(Some("bpffs"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).context("cannot mount /sys/fs/bpf")?;
    let mnt = File::open("/proc/thread-self/ns/mnt").context("cannot open the new mount namespace")?;
    Ok((net, Some(mnt)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn closures_and_commands_see_the_namespace() {
        let ns = Netns::new("a").unwrap();
        ns.ip("link add d0 type veth peer name d1").unwrap();
        assert!(ns.run("ip", &["-br", "link"]).unwrap().contains("d0"));
        let inside = ns.enter(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        assert_ne!(inside, std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    }

    #[test]
    fn a_failing_command_says_what_it_said_and_where() {
        let ns = Netns::new("somewhere").unwrap();
        let error = format!("{:#}", ns.ip("link show nosuchdev").unwrap_err());
        assert!(error.contains("nosuchdev") && error.contains("somewhere"), "{error}");
    }

    #[test]
    fn sockets_stay_in_the_namespace_they_were_made_in() {
        let ns = Netns::new("a").unwrap();
        let listener = ns.enter(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(ns.enter(|| TcpStream::connect(address)).unwrap().is_ok());
    }

    #[test]
    fn own_sys_shows_own_devices_and_an_own_bpffs() {
        let ns = Netns::with_own_sys("hv").unwrap();
        ns.ip("link add oxbowtest0 type veth peer name oxbowtest1").unwrap();
        ns.enter(|| {
            assert!(Path::new("/sys/class/net/oxbowtest0").exists());
            let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
            assert!(mounts.contains("bpffs /sys/fs/bpf bpf"), "{mounts}");
        })
        .unwrap();
        assert!(!Path::new("/sys/class/net/oxbowtest0").exists());
    }

    #[test]
    fn what_runs_in_it_dies_with_it() {
        let ns = Netns::new("a").unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut child = ns.start(command).unwrap();
        drop(ns);
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }
}
