//! The backend: follows the pipeline's program with the kernel's maps, one version per commit.
//!
//! Order of a commit, and why:
//!
//! 1. blocks, tuples, rules, tables, stage maps, group chunks for version `v + 1` (packets of `v` do not look at them);
//! 2. VIFs and ports that are gone are removed (fail closed);
//! 3. `version = v + 1`: new packets use the new policy, whole;
//! 4. VIFs and ports that are new or changed are written (never before the rules that guard them are in force), and the version is raised once
//!    more: a packet of `v + 1` may have met an old one;
//! 5. guards are raised to the version in force, then their epoch: cached verdicts that rest on what changed die; then the MAC table follows, whose
//!    entries have generations of their own;
//! 6. after a grace period what only `v` used is removed and its indexes are free again.
//!
//! Until step 3 a failure changes nothing: the next commit starts over from the same desired state.
//!
//! Every value has room for two versions, and a commit writes over the older one. It waits for the grace period of those before it only where
//! packets may still be using what it would write over ([`Backend::overtakes`]), or where there is no room before what they retired is
//! removed; else the grace periods of several commits run at the same time.

pub mod content;
mod groups;
pub mod inspect;
mod ports;
mod reaches;
mod rules;
mod stages;

pub use ports::MOST_PLACES;

use crate::image::{Blocks, Exhausted, Guards, Scope, Tables};
use crate::kernel::{Config, Instance, LoadError, MapFailure};
use groups::Groups;
use oxbow_abi::learning::{FDB_CONFIRMED, Fdb, FdbKey};
use oxbow_abi::rule::{NarrowKey, Rule, WideKey};
use oxbow_abi::stats::State;
use oxbow_abi::topology::Chassis;
use oxbow_pipeline::ir::{Changes, ChassisId, DatapathKey, Mac, PortKey, Problem, Program, RuleId};
use ports::Ports;
use reaches::Reaches;
use rules::Rules;
use rustc_hash::FxHashMap;
use stages::StageMaps;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use zerocopy::FromZeros;

/// A commit did not take place; the version in force is the one before, and the next commit tries again.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A map is full or refuses.
    #[error(transparent)]
    Map(#[from] MapFailure),
    /// An array map has no room.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A dropping rule has no place, and its table cannot be closed either.
    #[error("a dropping rule cannot be held, so the policy before stays in force: {0}")]
    Unclosed(String),
    /// Waiting for a grace period failed.
    #[error("waiting for packets of the old version to finish: {0}")]
    Grace(#[source] std::io::Error),
}

/// Something that a commit had no room for, although the rest of it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The port that is not served; none = learned addresses, which are flooded to instead.
    pub port: Option<(DatapathKey, PortKey)>,
    /// What, and which map is full.
    pub text: String,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The version now in force.
    pub version: u32,
    /// Rule keys written.
    pub keys: usize,
    /// Map writes of every other kind.
    pub others: usize,
    /// How long it waited for packets of the version before the last.
    pub waited: Duration,
}

/// Knobs of the programs, see [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Copies that one packet may become.
    pub fan_out: u32,
    /// Broadcast, unknown and multicast packets per second and port; 0 = no limit.
    pub bum_rate: u32,
    /// Burst of the same.
    pub bum_burst: u32,
    /// Addresses learned per second and port; 0 = no limit.
    pub fdb_rate: u32,
    /// Whether drops are told as events.
    pub drop_events: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fan_out: 4096, bum_rate: 10_000, bum_burst: 20_000, fdb_rate: 1_000, drop_events: false }
    }
}

/// Commits whose grace periods may run at the same time: what they have retired takes room.
const MAX_GRACES: usize = 16;

/// The eBPF backend of one hypervisor.
pub struct Backend {
    instance: Instance,
    version: u32,
    /// Generation of the VIF map: [`State::vifs`].
    vifs: u32,
    /// Epoch of the guards: [`State::epoch`].
    epoch: u32,
    limits: Limits,
    tables: Tables,
    blocks: Blocks,
    guards: Guards,
    rules: Rules,
    stages: StageMaps,
    ports: Ports,
    groups: Groups,
    dirty_fdb: Vec<(DatapathKey, Mac)>,
    /// Ports of the addresses that the database has confirmed, as they were written.
    fdb_rows: FxHashMap<FdbKey, u32>,
    /// Numbers of logical flows that are gone and whose counters are still as they left them.
    flows_gone: Vec<u32>,
    shortages: Vec<Shortage>,
    reaches: Reaches,
    raised_chassis: Vec<ChassisId>,
    /// Nothing that a commit has retired waits to be removed.
    settled: bool,
    /// Grace periods that are not known to be over: their numbers, and the versions in force when they began.
    graces: VecDeque<(u64, u32)>,
    /// No packet uses a version before this any more.
    oldest: u32,
    /// `STATE_TELL_*` flags: what somebody listens to.
    told: u32,
}

impl Backend {
    /// Loads a new instance of the programs, beside whatever an earlier daemon left in force; see [`Backend::activate`].
    pub fn open(config: &Config, limits: Limits) -> Result<Self, LoadError> {
        let instance = Instance::load(config)?;
        let sizes = &config.sizes;
        let lflows = instance.counters.lflow_capacity();
        Ok(Self {
            version: 0,
            vifs: 0,
            epoch: 1,
            limits,
            tables: Tables::new(sizes.tables, sizes.tuples),
            blocks: Blocks::new(sizes.blocks),
            guards: Guards::new(sizes.ports),
            rules: Rules::new(lflows),
            stages: StageMaps::default(),
            ports: Ports::default(),
            groups: Groups::default(),
            dirty_fdb: Vec::new(),
            fdb_rows: FxHashMap::default(),
            flows_gone: Vec::new(),
            shortages: Vec::new(),
            reaches: Reaches::default(),
            raised_chassis: Vec::new(),
            settled: true,
            graces: VecDeque::new(),
            oldest: 0,
            told: 0,
            instance,
        })
    }

    /// The loaded programs: attaching, counters, events.
    pub fn instance(&mut self) -> &mut Instance {
        &mut self.instance
    }

    /// The version in force; 0 = none yet, everything is dropped.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Rules that could not be held as they are.
    pub fn problems(&self) -> impl Iterator<Item = (RuleId, &Problem)> {
        self.rules.problems()
    }

    /// Tables, tuples and rule keys in use.
    pub fn occupancy(&self) -> (usize, usize, usize) {
        self.tables.occupancy()
    }

    /// Takes a difference over into the desired state and puts all that is outstanding in force.
    ///
    /// # Errors
    /// The version before stays in force; a later call, also with an empty difference, tries again.
    pub fn commit(&mut self, program: &Program, changes: &Changes) -> Result<Committed, CommitError> {
        self.absorb(program, changes);
        self.flush(program)
    }

    fn absorb(&mut self, program: &Program, changes: &Changes) {
        let mut places = rules::Places {
            tables: &mut self.tables,
            blocks: &mut self.blocks,
            guards: &mut self.guards,
            stages: &mut self.stages,
        };
        self.rules.apply(&mut places, program, changes);
        for &datapath in &changes.datapaths {
            self.stages.mark(datapath);
            self.guards.raise(Scope::Datapath(datapath.0));
        }
        for &(datapath, port) in &changes.ports {
            self.ports.mark(datapath, port);
        }
        for &(datapath, group) in &changes.groups {
            self.groups.mark(datapath, group);
        }
        self.dirty_fdb.extend_from_slice(&changes.fdb);
        self.flows_gone.extend(changes.flows_gone.iter().map(|flow| flow.0));
    }

    fn flush(&mut self, program: &Program) -> Result<Committed, CommitError> {
        if self.rules.has_refused(&self.tables) {
            // What was retired may have made room.
            self.settle()?;
            let mut places = rules::Places {
                tables: &mut self.tables,
                blocks: &mut self.blocks,
                guards: &mut self.guards,
                stages: &mut self.stages,
            };
            self.rules.retry(&mut places, program);
        }
        if let Some(what) = self.rules.unclosed() {
            return Err(CommitError::Unclosed(what.to_owned()));
        }
        self.look_back();
        let start = Instant::now();
        // What is over costs nothing to clear away.
        if self.graces.is_empty() || self.graces.len() >= MAX_GRACES || self.overtakes() {
            self.settle()?;
        }
        let mut waited = start.elapsed();
        let mut result = self.put_in_force(program);
        if let Err(CommitError::Exhausted(_) | CommitError::Map(MapFailure::Full { .. })) = result
            && !self.settled
        {
            let start = Instant::now();
            self.settle()?;
            waited += start.elapsed();
            result = self.put_in_force(program);
        }
        let done = result?;
        // Before the next commit, in which other flows may have the numbers.
        let countable = self.instance.counters.lflow_capacity();
        while let Some(number) = self.flows_gone.pop() {
            if number < countable {
                self.instance.counters.restart_lflow(number)?;
            }
        }
        Ok(Committed { waited, ..done })
    }

    /// Learns which grace periods are over, without waiting for one.
    fn look_back(&mut self) {
        let over = self.instance.grace.over();
        while let Some((_, version)) = self.graces.pop_front_if(|(number, _)| *number <= over) {
            self.oldest = version;
        }
    }

    /// Whether the next commit would write over something that a packet may be using.
    fn overtakes(&self) -> bool {
        self.tables.overtakes(self.oldest) || self.stages.overtakes(self.oldest) || self.groups.overtakes(self.oldest)
    }

    /// The commit itself: writes, version, guards.
    fn put_in_force(&mut self, program: &Program) -> Result<Committed, CommitError> {
        let version = self.version + 1;
        let mut done = Committed { version, ..Committed::default() };
        // 1. What only packets of the new version look at.
        let stage_writes = self.stages.writes(program, version, &mut self.tables, &mut self.guards)?;
        let table_writes = self.tables.writes(version)?;
        let group_writes = self.groups.writes(program, version);
        let mut port_writes = self.ports.writes(program, &mut self.guards);
        for (index, block) in self.blocks.fresh() {
            self.instance.maps.blocks.set(*index, block)?;
        }
        done.others +=
            self.blocks.fresh().len() + table_writes.tuples.len() + table_writes.tables.len() + stage_writes.len();
        self.remove_rules(&table_writes.stale)?;
        self.write_rules(&table_writes.rules)?;
        done.keys = table_writes.rules.len();
        for (index, tuple) in &table_writes.tuples {
            self.instance.maps.tuples.set(*index, tuple)?;
        }
        for (index, table) in &table_writes.tables {
            self.instance.maps.tables.set(*index, table)?;
        }
        // What goes makes room for what comes.
        for write in stage_writes.iter().filter(|write| write.stale) {
            self.instance.maps.datapaths.remove(&write.datapath)?;
        }
        for write in stage_writes.iter().filter(|write| !write.stale) {
            self.instance.maps.datapaths.insert(&write.datapath, &write.value)?;
        }
        for key in &group_writes.stale {
            self.instance.maps.groups.remove(key)?;
        }
        for (key, chunk) in &group_writes.chunks {
            self.instance.maps.groups.insert(key, chunk)?;
        }
        done.others += group_writes.chunks.len() + port_writes.len();
        // 2. What is gone passes nothing any more.
        for key in &port_writes.vifs_removed {
            self.instance.maps.vifs.remove(key)?;
        }
        for key in &port_writes.ports_removed {
            self.instance.maps.ports.remove(key)?;
        }
        if !port_writes.vifs_removed.is_empty() {
            self.vifs += 1;
        }
        // 3. The new policy is in force.
        let state = State {
            version,
            flags: self.told | if self.limits.drop_events { oxbow_abi::stats::STATE_DROP_EVENTS } else { 0 },
            fan_out_budget: self.limits.fan_out,
            bum_rate: self.limits.bum_rate,
            bum_burst: self.limits.bum_burst,
            fdb_rate: self.limits.fdb_rate,
            vifs: self.vifs,
            epoch: self.epoch,
        };
        self.instance.maps.state.set(0, &state)?;
        self.version = version;
        self.settled = false;
        // Who reads the version from here on reads the new one.
        self.graces.push_back((self.instance.grace.begin(), version));
        self.blocks.written();
        self.tables.committed(&table_writes);
        self.stages.committed(stage_writes);
        self.groups.committed(group_writes);
        self.rules.committed();
        // 4. New and changed ports. The policy is in force whatever happens here; what has no room stays marked and is tried again.
        let topology = !(port_writes.ports.is_empty() && port_writes.vifs.is_empty());
        if topology {
            let maps = &mut self.instance.maps;
            port_writes.insert(|key, port| maps.ports.insert(key, port), |key, vif| maps.vifs.insert(key, vif));
            // A packet that read the version above may have met an old entry. What it caches must be older than the guards: they get a
            // version of their own, as does the generation by which the programs keep VIFs.
            self.version += 1;
            self.vifs += 1;
            done.version = self.version;
            self.instance.maps.state.set(0, &State { version: self.version, vifs: self.vifs, ..state })?;
        }
        let refused = port_writes.refused.iter().map(|(datapath, key, why)| {
            let name = program.port(*datapath, *key).map_or("", |port| &port.name);
            Shortage { port: Some((*datapath, *key)), text: format!("port {name}: {why}") }
        });
        self.shortages = refused.collect();
        self.ports.committed(port_writes, &mut self.guards);
        // 5. Guards. Nothing that had no room keeps a verdict of the old policy alive.
        for id in self.raised_chassis.drain(..) {
            self.guards.raise(Scope::Chassis(id.0));
        }
        let raised: Vec<u32> = self.guards.raised().collect();
        if !raised.is_empty() {
            self.instance.maps.guards.set_many(&raised, &vec![self.version; raised.len()])?;
            self.next_epoch()?;
        }
        self.guards.committed();
        let unheld = self.write_fdb(program)?;
        self.shortages.extend(unheld.map(|text| Shortage { port: None, text }));
        Ok(done)
    }

    /// Guards were raised: what CPUs keep of the verdicts is to be compared with them again.
    ///
    /// # Errors
    /// The map cannot be written; CPUs go on with what they keep.
    pub fn next_epoch(&mut self) -> Result<(), MapFailure> {
        let mut state = self.instance.maps.state.get(0)?;
        self.epoch = self.epoch.wrapping_add(1);
        state.epoch = self.epoch;
        self.instance.maps.state.set(0, &state)
    }

    /// What the last commit had no room for, although the rest of it is in force. Every commit tries again.
    pub fn shortages(&self) -> &[Shortage] {
        &self.shortages
    }

    fn write_rules(&mut self, writes: &[crate::image::RuleWrite]) -> Result<(), MapFailure> {
        let mut narrow: (Vec<NarrowKey>, Vec<Rule>) = Default::default();
        let mut wide: (Vec<WideKey>, Vec<Rule>) = Default::default();
        for write in writes {
            if write.wide {
                wide.0.push(wide_key(write.tuple, &write.key));
                wide.1.push(write.value);
            } else {
                narrow.0.push(narrow_key(write.tuple, &write.key));
                narrow.1.push(write.value);
            }
        }
        self.instance.maps.rules.insert_many(&narrow.0, &narrow.1)?;
        self.instance.maps.wide_rules.insert_many(&wide.0, &wide.1)
    }

    fn remove_rules(&mut self, keys: &[(u32, bool, crate::compile::Key)]) -> Result<(), MapFailure> {
        let (mut narrow, mut wide) = (Vec::new(), Vec::new());
        for (tuple, is_wide, key) in keys {
            if *is_wide {
                wide.push(wide_key(*tuple, key));
            } else {
                narrow.push(narrow_key(*tuple, key));
            }
        }
        self.instance.maps.rules.remove_many(&narrow)?;
        self.instance.maps.wide_rules.remove_many(&wide)
    }

    /// Waits until no packet can be using what commits have replaced, and removes it. A later commit does it when nobody has before. The
    /// time runs since the commit: soon after it there is nothing left to wait for.
    pub fn settle(&mut self) -> Result<(), CommitError> {
        if self.settled {
            return Ok(());
        }
        self.instance.grace.finish().map_err(|error| {
            // Nobody knows what has ended: the next one does.
            self.graces.push_back((self.instance.grace.begin(), self.version));
            CommitError::Grace(error)
        })?;
        if let Some((_, version)) = self.graces.drain(..).next_back() {
            self.oldest = version;
        }
        let keys = self.tables.settle();
        self.remove_rules(&keys)?;
        for block in self.rules.settle() {
            self.blocks.release(block);
        }
        for datapath in self.stages.settle() {
            self.instance.maps.datapaths.remove(&datapath)?;
            self.guards.forget(Scope::Datapath(datapath));
        }
        for key in self.groups.settle() {
            self.instance.maps.groups.remove(&key)?;
        }
        self.settled = true;
        Ok(())
    }

    /// Puts the FDB rows of the Southbound database into the MAC table. Returns what has no room: it is flooded to, and tried again. The
    /// kernel's own hints make way first, so that a guest that sends from ever new addresses cannot crowd out what is known.
    fn write_fdb(&mut self, program: &Program) -> Result<Option<String>, MapFailure> {
        let abi = |datapath: DatapathKey, mac: Mac| FdbKey {
            datapath: datapath.0,
            mac_hi: (mac.0 >> 32) as u32,
            mac_lo: mac.0 as u32,
        };
        // What goes makes room for what comes.
        self.dirty_fdb.sort_by_key(|(datapath, mac)| program.fdb(*datapath, *mac).is_none());
        let mut has_made_room = false;
        while let Some(&(datapath, mac)) = self.dirty_fdb.last() {
            let key = abi(datapath, mac);
            let before = self.instance.maps.fdb.get(&key)?;
            match program.fdb(datapath, mac) {
                Some(port) => {
                    let seen = before.map_or_else(monotonic_nanoseconds, |entry| entry.seen);
                    match self.instance.maps.fdb.insert(&key, &Fdb { port: port.0, flags: FDB_CONFIRMED, seen }) {
                        Ok(()) => {}
                        Err(MapFailure::Full { .. }) if !has_made_room => {
                            has_made_room = true;
                            self.age_fdb(0)?;
                            continue;
                        }
                        Err(full @ MapFailure::Full { .. }) => {
                            return Ok(Some(format!("{} learned addresses: {full}", self.dirty_fdb.len())));
                        }
                        Err(error) => return Err(error),
                    }
                    self.fdb_rows.insert(key, port.0);
                }
                None => {
                    self.instance.maps.fdb.remove(&key)?;
                    self.fdb_rows.remove(&key);
                }
            }
            // Also when the port is as before: the programs may have learned another one meanwhile.
            self.instance.maps.fdb_generations.raise(&key);
            self.dirty_fdb.pop();
        }
        Ok(None)
    }

    /// Addresses that the kernel learned by itself at ports that are here, and that the database has not confirmed: what was learned while no
    /// daemon listened is among them, and nobody tells of it again.
    pub fn hints(&self) -> Result<Vec<(FdbKey, u32)>, MapFailure> {
        let all = self.instance.maps.fdb.entries();
        all.filter_map(|entry| match entry {
            Ok((key, value)) if value.flags & FDB_CONFIRMED == 0 && self.ports.is_local(key.datapath, value.port) => {
                Some(Ok((key, value.port)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect()
    }

    /// Removes addresses that the kernel learned by itself, that the database never confirmed and that have not been seen for
    /// `older_than` nanoseconds; where the database has another port for one, that is put back. Returns how many.
    ///
    /// # Errors
    /// The map refuses.
    pub fn age_fdb(&mut self, older_than: u64) -> Result<usize, MapFailure> {
        let now = monotonic_nanoseconds();
        let stale =
            self.addresses(|_, value| value.flags & FDB_CONFIRMED == 0 && now.saturating_sub(value.seen) > older_than)?;
        for key in &stale {
            match self.fdb_rows.get(key) {
                Some(&port) => {
                    self.instance.maps.fdb.insert(key, &Fdb { port, flags: FDB_CONFIRMED, seen: now })?;
                }
                None => {
                    self.instance.maps.fdb.remove(key)?;
                }
            }
            self.instance.maps.fdb_generations.raise(key);
        }
        Ok(stale.len())
    }

    /// Forgets addresses whose rows went while no daemon listened: the table is older than this process. For once, when all devices have
    /// gone over to this instance.
    ///
    /// # Errors
    /// The map refuses.
    pub fn forget_unconfirmed(&mut self) -> Result<(), MapFailure> {
        let rows = &self.fdb_rows;
        let gone = self.addresses(|key, value| value.flags & FDB_CONFIRMED != 0 && !rows.contains_key(key))?;
        for key in &gone {
            self.instance.maps.fdb.remove(key)?;
        }
        // The table is shared with the programs that went, its generations are not: what moved while both ran was noted there.
        self.instance.maps.fdb_generations.raise_all();
        Ok(())
    }

    fn addresses(&self, wanted: impl Fn(&FdbKey, &Fdb) -> bool) -> Result<Vec<FdbKey>, MapFailure> {
        let all = self.instance.maps.fdb.entries();
        all.filter_map(|entry| match entry {
            Ok((key, value)) => wanted(&key, &value).then_some(Ok(key)),
            Err(error) => Some(Err(error)),
        })
        .collect()
    }

    /// How to reach another chassis, as the host's routes and neighbours have it; `None` forgets it. The element is written in place: while
    /// it changes a packet may be sent with one half of the old addresses, as on any network whose next hop moves.
    ///
    /// # Errors
    /// The id is beyond the map, or the map refuses.
    pub fn set_chassis(&mut self, id: ChassisId, reach: Option<&Chassis>) -> Result<(), CommitError> {
        let old = self.reaches.get(id);
        let new = match reach {
            Some(new) => Some(Chassis { guard: self.guards.index(Scope::Chassis(id.0))?, ..*new }),
            None => None,
        };
        if old.is_some() && old == new && !self.reaches.is_unplaced() {
            return Ok(());
        }
        self.instance.maps.chassis.set(id.0, &new.unwrap_or_default())?;
        self.raised_chassis.push(id);
        let mut failed = None;
        for (key, value) in self.reaches.set(id, new) {
            let placed = match value {
                Some(value) => self.instance.maps.peers.insert(&key, &value),
                None => self.instance.maps.peers.remove(&key).map(|_| ()),
            };
            if let Err(error) = placed {
                // The next call places it, for whichever chassis that is.
                self.reaches.unplaced(key);
                failed = failed.or(Some(error));
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// Moves every attached device to this instance, once its policy is complete: the devices that an earlier daemon served change over
    /// in one atomic replacement each. Returns the links of devices that nobody wants any more; they are detached.
    pub fn activate(&mut self) -> Result<Vec<String>, crate::kernel::AttachError> {
        self.instance.activate()
    }

    /// Removes everything of this hypervisor from the kernel.
    pub fn remove_everything(self) -> Result<(), crate::kernel::AttachError> {
        self.instance.remove_everything()
    }
}

fn narrow_key(tuple: u32, words: &[u32]) -> NarrowKey {
    let mut key = NarrowKey { tuple, ..NarrowKey::default() };
    key.word[..words.len()].copy_from_slice(words);
    key
}

fn wide_key(tuple: u32, words: &[u32]) -> WideKey {
    let mut key = WideKey { tuple, ..WideKey::new_zeroed() };
    key.word[..words.len()].copy_from_slice(words);
    key
}

/// The clock that the programs stamp entries with.
fn monotonic_nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}
