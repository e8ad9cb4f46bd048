//! The bridge: what the backend asks of it. [`crate::ofctl::OvsOfctl`] is the real one.

use oxbow_pipeline::ir::{DatapathKey, Mac, PortKey};
use std::collections::BTreeMap;

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
        /// Number of the line in the bundle or in the list of flows, from 0.
        at: usize,
        /// The line.
        line: String,
        /// `ovs-ofctl`'s words.
        reason: String,
    },
    /// It failed otherwise, or what `ovs-ofctl` prints is not understood.
    #[error("bridge {bridge}: {what}")]
    Failed {
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

/// A flow that the bridge holds and should not hold, or the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The bridge lacks it, else holds it.
    pub missing: bool,
    /// `table=…,priority=…,MATCH`.
    pub key: String,
    /// Its cookie.
    pub cookie: u64,
    /// Its actions.
    pub actions: String,
}

/// What a bridge does. Calls are synchronous; when one returns without an error its effect is in the tables.
pub trait Switch {
    /// Makes the bridge ready for flows: Geneve's option has its field, and a first fragment its transport ports.
    ///
    /// # Errors
    /// When the bridge does not answer or has the field for something else.
    fn prepare(&mut self) -> Result<(), SwitchError>;

    /// Executes the lines of a bundle, all or none, in order.
    ///
    /// # Errors
    /// [`SwitchError::Refused`] names the line, and nothing took effect; otherwise it is not known whether the bundle did.
    fn bundle(&mut self, lines: &[String]) -> Result<(), SwitchError>;

    /// Compares the bridge's flows with these.
    ///
    /// # Errors
    /// [`SwitchError::Refused`] names a flow that cannot be read.
    fn compare(&mut self, flows: &[String]) -> Result<Vec<Difference>, SwitchError>;

    /// The bridge's groups: number → `type=…,bucket=…`.
    ///
    /// # Errors
    /// When the bridge does not answer.
    fn groups(&mut self) -> Result<BTreeMap<u32, String>, SwitchError>;

    /// Addresses that it has learned.
    ///
    /// # Errors
    /// When the bridge does not answer.
    fn learned(&mut self) -> Result<Vec<Learned>, SwitchError>;

    /// Packets that took flows, by their cookie; flows without one count as cookie 0.
    ///
    /// # Errors
    /// When the bridge does not answer.
    fn counters(&mut self) -> Result<BTreeMap<u64, u64>, SwitchError>;

    /// Ports that flows of a table take packets from.
    ///
    /// # Errors
    /// When the bridge does not answer.
    fn input_ports(&mut self, table: u8) -> Result<Vec<u32>, SwitchError>;
}
