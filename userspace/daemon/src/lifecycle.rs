//! A daemon's life from `main` to its end.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::options::DaemonOptions;
use crate::pidfile::{Pidfile, PidfileError, owner};
use crate::process::{self, StartupPipe};
use crate::unixctl::{self, Builtins, Commands, ControlSocket, Request, SocketError};
use crate::vlog::{Destination, Level, Vlog, VlogLayer};
use crate::{Dirs, Identity, Role, coverage, http};

/// Why a daemon could not start. The text is for the console, after the program's name.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pidfile is held or cannot be written.
    #[error(transparent)]
    Pidfile(#[from] PidfileError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A `-v` argument is wrong.
    #[error("processing \"{spec}\": {reason}")]
    Verbose {
        /// The argument.
        spec: String,
        /// What is wrong with it.
        reason: crate::vlog::SpecError,
    },
    /// Another option's argument is wrong.
    #[error("{0}")]
    Option(String),
    /// The other controller of this hypervisor, ours or the distribution's, is running.
    #[error(
        "{name} is already running as pid {pid} (it holds {}): two controllers must not share an integration bridge",
        pidfile.display()
    )]
    OtherController {
        /// Its program name.
        name: &'static str,
        /// Its pid.
        pid: i32,
        /// The pidfile it holds.
        pidfile: PathBuf,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}

/// Why a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// It was asked to, by the appctl command `exit`.
    Exit,
    /// A signal, by its number.
    Signal(i32),
}

/// The process-wide things of a running daemon. Dropping it removes the control socket and the pidfile.
#[derive(Debug)]
pub struct Daemon {
    /// The names the process goes by.
    pub identity: Identity,
    /// The standard directories.
    pub dirs: Dirs,
    /// The logging configuration.
    pub vlog: Vlog,
    ctl: Option<Arc<ControlSocket>>,
    pidfile: Option<Pidfile>,
    startup: StartupPipe,
    chdir: bool,
    detached: bool,
    signals: Vec<(i32, Signal)>,
    metrics: Option<http::Address>,
    /// How often systemd wants to hear of us (half of WatchdogSec), and when next.
    watchdog: Option<(Duration, tokio::time::Instant)>,
}

impl Daemon {
    /// Carries out the daemon options: user, logging, background, monitor, pidfile, control socket, in this order. To be
    /// called once, before any thread is started.
    ///
    /// With `--detach` the caller's process ends in here; what returns is the child, and its parent waits for
    /// [`Daemon::ready`]. `modules` are the log modules of the daemon, `foreign_modules` those that only stock has.
    ///
    /// # Errors
    /// [`StartError`], to be printed and answered with exit status 1 (see [`Daemon::start_or_exit`]).
    pub fn start(
        identity: Identity,
        dirs: Dirs,
        options: &DaemonOptions,
        modules: &[&str],
        foreign_modules: &[&str],
    ) -> Result<Daemon, StartError> {
        let pidfile_path = options.pidfile_path(&identity, &dirs);
        if let Some(user) = &options.user {
            if identity.role == Role::Controller {
                return Err(StartError::Option("--user: the controller needs root to load eBPF programs".to_owned()));
            }
            process::become_user(user).map_err(StartError::Option)?;
        }

        let vlog = Vlog::new(identity.program);
        vlog.register_modules(&["coverage", "daemon_unix", "fatal_signal", "unixctl", "vlog"]);
        vlog.register_modules(modules);
        vlog.accept_modules(foreign_modules);
        options.logging.apply(&vlog, &identity, &dirs)?;

        let mut startup = StartupPipe::default();
        if options.detach {
            startup = process::detach(identity.program).map_err(failed("could not fork"))?;
        }
        if options.monitor {
            startup = process::monitor(identity.program, &vlog, startup, options.detach)
                .map_err(failed("could not start the monitor"))?;
        }
        install_logging(&vlog)?;
        name_process(&identity);

        if identity.role == Role::Controller {
            refuse_other_controller(&identity, &dirs)?;
        }
        let pidfile = match &pidfile_path {
            Some(path) => Some(Pidfile::acquire(path, options.overwrite_pidfile)?),
            None => None,
        };
        let ctl = match options.ctl_path(&identity, &dirs) {
            Some(path) => Some(Arc::new(ControlSocket::bind(&path)?)),
            None => None,
        };
        Ok(Daemon {
            identity,
            dirs,
            vlog,
            ctl,
            pidfile,
            startup,
            chdir: options.detach && !options.no_chdir,
            detached: options.detach,
            signals: Vec::new(),
            metrics: options.metrics.clone(),
            watchdog: None,
        })
    }

    /// [`Daemon::start`], ending the process with status 1 and a message on standard error if it fails.
    pub fn start_or_exit(
        identity: Identity,
        dirs: Dirs,
        options: &DaemonOptions,
        modules: &[&str],
        foreign_modules: &[&str],
    ) -> Daemon {
        match Daemon::start(identity.clone(), dirs, options, modules, foreign_modules) {
            Ok(daemon) => daemon,
            Err(error) => {
                let _ = writeln!(io::stderr(), "{}: {error}", identity.program);
                std::process::exit(1);
            }
        }
    }

    /// Starts to answer on the control socket, to watch for signals and to sample the coverage counters. To be called
    /// once, inside the runtime. The daemon's own commands arrive on the returned channel.
    ///
    /// # Errors
    /// The system's, if the socket or a signal handler cannot be registered with the runtime.
    pub fn serve<C: Send + 'static>(&mut self, commands: Commands<C>) -> io::Result<mpsc::Receiver<Request<C>>> {
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::alarm()] {
            self.signals.push((kind.as_raw_value(), signal(kind)?));
        }
        let (sender, requests) = mpsc::channel(16);
        if let Some(ctl) = &self.ctl {
            let builtins = Builtins { identity: self.identity.clone(), vlog: self.vlog.clone() };
            let served = unixctl::serve(ctl.clone(), Arc::new(commands), builtins, sender);
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!(target: "unixctl", "control socket failed ({error})");
                }
            });
        }
        tokio::spawn(async {
            let mut ticks = tokio::time::interval(coverage::SAMPLE_INTERVAL);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                coverage::sample();
            }
        });
        Ok(requests)
    }

    /// Listens for `/metrics`, `/livez` and `/readyz` where `--metrics` says. Without it the channel stays silent. To be called once, inside the runtime.
    ///
    /// # Errors
    /// The system's, if the address cannot be bound.
    pub async fn serve_metrics(&mut self) -> io::Result<mpsc::Receiver<http::Probe>> {
        match &self.metrics {
            Some(address) => http::serve(address).await,
            None => Ok(mpsc::channel(1).1),
        }
    }

    /// Tells whoever waits that the daemon is up: the parent of `--detach`, the monitor, and systemd. With `--detach`
    /// the process lets go of the terminal and of its working directory here.
    ///
    /// # Errors
    /// The system's, if `/dev/null` or `/` cannot be had.
    pub fn ready(&mut self) -> io::Result<()> {
        if self.chdir {
            std::env::set_current_dir("/")?;
        }
        // Until here the console could still tell the one who started us what is wrong.
        if self.detached {
            process::close_standard_fds()?;
            self.vlog.set_level(None, Some(Destination::Console), Level::Off);
        }
        self.startup.signal();
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(target: "daemon_unix", "could not notify systemd ({error})");
        }
        self.watchdog = sd_notify::watchdog_enabled().map(|limit| (limit / 2, tokio::time::Instant::now()));
        Ok(())
    }

    /// Waits for a signal that ends the daemon (SIGTERM, SIGINT, SIGHUP, SIGALRM), and says so in the log. Cancel-safe.
    /// Before [`Daemon::serve`] it never completes.
    ///
    /// While it is waited for, systemd's watchdog (sd_watchdog_enabled(3)) is told that the event loop runs: one that hangs does not come here.
    /// (An event loop waits in `select!` and calls this anew each time; the time of the next heartbeat is kept between the calls.)
    pub async fn terminated(&mut self) -> Termination {
        let signal = loop {
            let due = self.watchdog.map(|(_, due)| due);
            let signals = &mut self.signals;
            let signal = std::future::poll_fn(|context| {
                for (number, signal) in &mut *signals {
                    if signal.poll_recv(context).is_ready() {
                        return std::task::Poll::Ready(*number);
                    }
                }
                std::task::Poll::Pending
            });
            let heartbeat = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                signal = signal => break signal,
                () = heartbeat => {}
            }
            if let Some((interval, due)) = &mut self.watchdog {
                *due = tokio::time::Instant::now() + *interval;
                if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
                    tracing::warn!(target: "daemon_unix", rate_limit = 5, "could not notify systemd ({error})");
                }
            }
        };
        tracing::warn!(target: "fatal_signal", "terminating with signal {signal} ({})", process::signal_name(signal));
        Termination::Signal(signal)
    }

    /// Where the control socket is, if there is one.
    pub fn ctl_path(&self) -> Option<&std::path::Path> {
        self.ctl.as_deref().map(ControlSocket::path)
    }

    /// Ends the daemon: removes its files and returns the status to end with; after a signal the process dies of that
    /// signal, so that whoever waits for it sees the truth. Call it after the runtime has been shut down.
    pub fn finish(self, why: Termination) -> ExitCode {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        drop(self);
        if let Termination::Signal(number) = why
            && let Ok(signal) = nix::sys::signal::Signal::try_from(number)
        {
            // SAFETY: restores the default action, which runs no code of ours.
            let restored = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
            if restored.is_ok() {
                let _ = nix::sys::signal::raise(signal);
            }
        }
        ExitCode::SUCCESS
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The accept task may still hold the socket, so its file is removed by name; dropping the pidfile removes it.
        if let Some(ctl) = self.ctl.take() {
            ctl.unlink();
        }
        self.pidfile = None;
    }
}

/// Makes the log the process's tracing subscriber, and a panic an entry in it that ends the process: a control plane
/// that lost one of its tasks must be restarted (by `--monitor` or systemd), not limp on.
fn install_logging(vlog: &Vlog) -> Result<(), StartError> {
    let subscriber = tracing_subscriber::registry().with(VlogLayer::new(vlog.clone()));
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| StartError::Option(format!("logging is set up already: {error}")))?;
    let vlog = vlog.clone();
    std::panic::set_hook(Box::new(move |panic| {
        vlog.emit("daemon", Level::Emer, &panic.to_string().replace('\n', " "));
        std::process::abort();
    }));
    Ok(())
}

/// `ovn-ctl` compares `/proc/PID/comm`, cut to 15 characters, with the daemon's name (host contract R-3); `exec` sets it
/// from the file's name, which may be another.
fn name_process(identity: &Identity) {
    if let Ok(name) = std::ffi::CString::new(identity.program)
        && let Err(error) = nix::sys::prctl::set_name(&name)
    {
        tracing::warn!(target: "daemon_unix", "could not set the process name ({error})");
    }
}

/// Host contract R-12.
fn refuse_other_controller(identity: &Identity, dirs: &Dirs) -> Result<(), StartError> {
    let other = if identity.is_stock() { identity.role.own_name() } else { identity.role.stock_name() };
    let pidfile = dirs.ovn_run.join(format!("{other}.pid"));
    match owner(&pidfile)? {
        Some(pid) => Err(StartError::OtherController { name: other, pid, pidfile }),
        None => Ok(()),
    }
}
