//! The daemon shell that `oxbow-northd` and `oxbow-node` share: everything that software around OVN expects of an OVN
//! daemon as a *process*, and nothing about networks.
//!
//! A daemon's `main` is five steps, in this order because the first three must happen while the process still has one
//! thread:
//!
//! 1. [`Identity::from_argv0`] decides under whose names the process runs (`ovn-northd` through a link, or its own).
//! 2. [`options::parse`] reads the command line; a wrong one ends the process with a message and status 1.
//! 3. [`Daemon::start`] forks (`--detach`, `--monitor`), changes user, installs logging, takes the pidfile and binds the
//!    control socket.
//! 4. Inside the tokio runtime, [`Daemon::serve`] answers the built-in appctl commands and hands the daemon's own ones to
//!    its event loop as typed [`unixctl::Request`]s; [`Daemon::ready`] lets the parent of `--detach` and systemd go on.
//! 5. The loop ends on [`Daemon::terminated`] or on `exit`; [`Daemon::finish`] removes the pidfile and the socket.
//!
//! Formats, file names and messages are those of ovn-northd(8), ovn-controller(8) and ovs-appctl(8).

pub mod coverage;
pub mod dirs;
pub mod engine_stats;
pub mod exposition;
pub mod http;
pub mod identity;
pub mod lifecycle;
pub mod memory;
pub mod options;
pub mod pidfile;
mod process;
pub mod stopwatch;
pub mod unixctl;
pub mod vlog;

pub use dirs::Dirs;
pub use identity::{Identity, Role};
pub use lifecycle::{Daemon, StartError, Termination};
