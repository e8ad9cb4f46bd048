//! Looking into a dataplane: for reports, metrics, traces and listeners. Nothing here changes what packets meet.

use super::DataplaneError;
use oxbow_abi::monitor::{Listen, Seen};
use oxbow_abi::reason::Reason;
use oxbow_abi::stats::Counter;
use oxbow_abi::verdict::{Denied, Verdict, VerdictKey};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// `ebpf` or `openflow`.
    pub backend: &'static str,
    /// Version of the policy in force, 0 = none.
    pub version: u32,
    /// How programs are attached.
    pub hook: Option<String>,
}

/// What a bridge of Open vSwitch was told since the dataplane was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bundles {
    /// A session with its management connection is open.
    pub is_connected: bool,
    /// Flows of the policy, those that are on their way to the bridge included. What the bridge has learned by itself is not among them.
    pub flows: usize,
    /// Its groups, likewise.
    pub groups: usize,
    /// Bundles that came into force.
    pub committed: u64,
    /// Those of which the bridge refused a line, so that nothing of them did.
    pub refused: u64,
    /// Exchanges that failed otherwise: nobody answered, `ovs-ofctl` could not be run.
    pub failed: u64,
    /// Flows added or replaced by what was committed.
    pub flows_written: u64,
    /// Flows deleted by it.
    pub flows_deleted: u64,
    /// Groups added, replaced or deleted by it.
    pub groups_changed: u64,
    /// Changes of flows and groups in the bundle that was committed last, and how long the bridge took: comparison included where there was one.
    pub last: Option<(usize, Duration)>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries that it takes.
    pub capacity: u64,
    /// A cache: full is no fault.
    pub cache: bool,
}

/// The caches as they are, with what says whether an entry still holds.
#[derive(Clone, Debug, Default)]
pub struct Cached {
    /// Verdicts.
    pub verdicts: Vec<(VerdictKey, Verdict)>,
    /// Denied flows.
    pub denied: Vec<(VerdictKey, Denied)>,
    /// Version in which each guard that they name last changed, by its index.
    pub guards: HashMap<u32, u32>,
    /// Generation of each FDB slot that they name.
    pub generations: HashMap<u32, u32>,
    /// The clock that `created` was read from, now: nanoseconds.
    pub now: u64,
}

/// Packets of the verdict cache's hits, by logical flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributed {
    /// Hits by the number of the logical flow.
    pub flows: HashMap<u32, u64>,
    /// Hits of verdicts that were gone before they were looked at.
    pub unattributed: u64,
}

/// What a dataplane that forwards in the kernel's programs can tell.
pub trait Inspect {
    /// Drops by reason, those that never occurred left out.
    ///
    /// # Errors
    /// What the maps say.
    fn drop_counts(&mut self) -> Result<Vec<(Reason, Counter)>, DataplaneError>;

    /// Everything that `oxbow_abi::stats::total` counts, by its index.
    ///
    /// # Errors
    /// What the maps say.
    fn totals(&mut self) -> Result<Vec<Counter>, DataplaneError>;

    /// How full the maps are.
    ///
    /// # Errors
    /// What the maps say.
    fn fill(&mut self) -> Result<Vec<Fill>, DataplaneError>;

    /// The caches. Entries come and go while they are read.
    ///
    /// # Errors
    /// What the maps say.
    fn cached(&mut self) -> Result<Cached, DataplaneError>;

    /// Looks at the caches and gives what they grew by since the last look to the logical flows of their paths; returns the sums since the
    /// programs were loaded.
    ///
    /// # Errors
    /// What the maps say.
    fn attribute(&mut self) -> Result<Attributed, DataplaneError>;

    /// Lets a frame arrive at a device in a dry run, at a VIF's or, with its outer headers, at one of the underlay: nothing is sent, learned, counted
    /// or cached for the loaded programs.
    ///
    /// # Errors
    /// The programs cannot be loaded a second time, or the kernel does not run them on such a frame.
    fn dry_run(&mut self, role: Role, ifindex: u32, frame: &[u8]) -> Result<DryOutcome, DataplaneError>;

    /// Lets the programs tell listeners: `STATE_TELL_*` flags, and what they want told. 0 = nothing.
    ///
    /// # Errors
    /// What the maps say.
    fn tell(&mut self, flags: u32, listen: &Listen) -> Result<(), DataplaneError>;

    /// Takes what the programs told, at most so many.
    fn told(&mut self, most: usize) -> Vec<Seen>;

    /// Records that could not be told, since the load.
    fn untold(&mut self) -> u64;

    /// A descriptor that is readable when something was told.
    fn told_descriptor(&self) -> Option<OwnedFd>;

    /// Nanoseconds that the programs ran and how often, by program, where the kernel counts that (`sysctl kernel.bpf_stats_enabled`).
    fn run_time(&mut self) -> Vec<(&'static str, u64, u64)>;
}

/// What the programs would do with a frame, and where it arrives.
pub use oxbow_backend_bpf::kernel::{DryOutcome, Role};
