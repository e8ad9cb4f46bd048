//! A dry run: the same object loaded a second time, over the maps of the policy in force, with caches, counters and rings of its own.
//!
//! `BPF_PROG_TEST_RUN` of the loaded programs would really send copies (`bpf_clone_redirect`), learn addresses and count. The constant
//! `OX_DRY` of this load makes the programs leave that out and tell every step instead. All else is the same code on the same maps.

use super::attach::Role;
use super::instance::{Instance, LoadError};
use super::map::{HashTable, MapFailure};
use super::monitor::Monitor;
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use oxbow_abi::monitor::Seen;
use oxbow_abi::verdict::{Denied, Verdict, VerdictKey};
use std::path::Path;

/// Maps that a dry run has of its own, and their sizes (`None` = as in the object).
const OWN: [(&str, Option<u32>); 10] = [
    ("OX_VERDICTS", Some(64)),
    ("OX_DENIED", Some(64)),
    ("OX_DROPS", None),
    ("OX_LFLOWS", Some(1)),
    ("OX_TOTALS", None),
    ("OX_BUCKETS", Some(64)),
    ("OX_EVENTS", Some(4096)),
    ("OX_MONITOR", Some(1 << 21)),
    ("OX_LISTEN", None),
    ("OX_PACE", None),
];

/// `struct __sk_buff` (linux/bpf.h): its size, and where the interface index is.
const SKB_CONTEXT: usize = 192;
const SKB_IFINDEX: usize = 40;

/// The kernel did not run the program.
#[derive(Debug, thiserror::Error)]
pub enum DryRunError {
    /// A map.
    #[error(transparent)]
    Map(#[from] MapFailure),
    /// The call.
    #[error("BPF_PROG_TEST_RUN: {0}")]
    Run(#[source] ProgramError),
    /// The object has no such program.
    #[error("the eBPF object has no program {0}")]
    Missing(&'static str),
}

/// What the programs would do with a frame.
#[derive(Clone, Debug, Default)]
pub struct DryOutcome {
    /// Every step, in order.
    pub steps: Vec<Seen>,
    /// Steps that found no room.
    pub lost: u64,
    /// The verdict that would be cached, or already is and would be used.
    pub verdict: Option<(VerdictKey, Verdict)>,
    /// The denial that would be cached.
    pub denied: Option<(VerdictKey, Denied)>,
}

/// The second load.
pub struct DryRun {
    ebpf: Ebpf,
    monitor: Monitor,
    verdicts: HashTable<VerdictKey, Verdict>,
    denied: HashTable<VerdictKey, Denied>,
}

impl DryRun {
    /// Loads the object over the maps that are pinned in `directory`.
    pub(super) fn load(object: &[u8], directory: &Path, decap_flags: u32) -> Result<Self, LoadError> {
        let own = directory.join("dry-run");
        // What a process left that died in here.
        super::pins::remove_tree(&own)?;
        std::fs::create_dir_all(&own)
            .map_err(|source| LoadError::Map(MapFailure::Batch { map: "dry-run", count: 0, source }))?;
        let made = Self::load_beside(object, directory, &own, decap_flags);
        // Its own maps live as long as this value; their pins were only the loader's way to tell them from the others.
        super::pins::remove_tree(&own)?;
        made
    }

    fn load_beside(object: &[u8], directory: &Path, own: &Path, decap_flags: u32) -> Result<Self, LoadError> {
        let fdb = directory.parent().map(|layout| layout.join("state").join("OX_FDB"));
        let mut loader = EbpfLoader::new();
        loader
            .default_map_pin_directory(directory)
            .override_global("OX_DECAP_L3", &decap_flags, true)
            .override_global("OX_DRY", &1u32, true);
        if let Some(fdb) = fdb {
            loader.map_pin_path("OX_FDB", fdb);
        }
        for (map, size) in OWN {
            loader.map_pin_path(map, own.join(map));
            if let Some(size) = size {
                loader.map_max_entries(map, size);
            }
        }
        let mut ebpf = loader.load(object).map_err(|error| LoadError::Object(Box::new(error)))?;
        for role in [Role::Vif, Role::Underlay] {
            let program = role.program();
            of(&mut ebpf, role)
                .ok_or(LoadError::Missing { program })?
                .load()
                .map_err(|source| LoadError::Program { program, source: Box::new(source) })?;
        }
        Ok(Self {
            monitor: Monitor::take(&mut ebpf)?,
            verdicts: HashTable::take(&mut ebpf, "OX_VERDICTS")?,
            denied: HashTable::take(&mut ebpf, "OX_DENIED")?,
            ebpf,
        })
    }

    /// Lets a frame arrive at a device: a VIF's, or one of the underlay, then outer headers included.
    ///
    /// # Errors
    /// The kernel does not run it: a frame without an Ethernet header, a device that is gone.
    pub fn run(&mut self, role: Role, ifindex: u32, frame: &[u8]) -> Result<DryOutcome, DryRunError> {
        self.forget()?;
        let lost = self.monitor.lost()?;
        while self.monitor.next().is_some() {}
        let mut context = [0u8; SKB_CONTEXT];
        context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        // Room for outer headers.
        let mut out = vec![0; frame.len() + 256];
        of(&mut self.ebpf, role)
            .ok_or(DryRunError::Missing(role.program()))?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                repeat: 1,
                ..TestRunOptions::default()
            })
            .map_err(DryRunError::Run)?;
        let mut outcome = DryOutcome { lost: self.monitor.lost()?.wrapping_sub(lost), ..DryOutcome::default() };
        while let Some(seen) = self.monitor.next() {
            outcome.steps.push(seen);
        }
        outcome.verdict = self.verdicts.snapshot()?.into_iter().next();
        outcome.denied = self.denied.snapshot()?.into_iter().next();
        Ok(outcome)
    }

    /// Every run is a first packet.
    fn forget(&mut self) -> Result<(), MapFailure> {
        for (key, _) in self.verdicts.snapshot()? {
            self.verdicts.remove(&key)?;
        }
        for (key, _) in self.denied.snapshot()? {
            self.denied.remove(&key)?;
        }
        Ok(())
    }
}

fn of(ebpf: &mut Ebpf, role: Role) -> Option<&mut SchedClassifier> {
    ebpf.program_mut(role.program()).and_then(|program| program.try_into().ok())
}

impl Instance {
    /// A dry run over this instance's maps.
    ///
    /// # Errors
    /// As [`Instance::load`].
    pub fn dry_run(&self) -> Result<DryRun, LoadError> {
        DryRun::load(&self.object, &self.directory, self.decap_flags)
    }
}
