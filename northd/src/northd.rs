//! The whole of northd for a binary.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use oxbow_incr::{Engine, Stats};
use oxbow_ovsdb::{AnyColumn, Datum, Outcome as Ended, RowChange, TableDef, Transaction, Uuid};
use oxbow_schema::{nb, sb};

use crate::alloc::Allocations;
use crate::config_sequence::ConfigSequence;
use crate::emit::{Observed, Pass};
use crate::not_compiled::{self, NotCompiled};
use crate::profile::Profile;
use crate::program::{Compiler, NbColumn, Output, Unit, UnitKind};
use crate::source::Source;
use crate::store::{Desired, FlowInterner, FlowStore};

/// What a run wants done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To be sent to the southbound database, under the lock. Never present while an earlier one is under way.
    pub sb: Option<Transaction>,
    /// To be sent to the northbound database. Never present while an earlier one is under way.
    pub nb: Option<Transaction>,
    /// What the administrator should know.
    pub reports: Vec<Report>,
    /// How many units were computed.
    pub computed: u64,
}

/// Something in the configuration that could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A warning in ovn-northd's words.
    Warning(String),
    /// A part of the network that this version does not compile; the rest works.
    NotCompiled {
        /// What it is, such as `logical router`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Sampling found a unit whose kept output is not what it computes now: a bug.
    Discrepancy(String),
}

/// The northbound-to-southbound compiler.
///
/// Feed it every change of both databases, the initial content first (as insertions), then call [`Northd::run`] after each
/// batch. Send the transactions it returns and report each one's end with [`Northd::sb_done`] or [`Northd::nb_done`], after
/// the changes it caused were fed in; then run again.
#[derive(Debug)]
pub struct Northd {
    compiler: Compiler,
    engine: Engine<Compiler>,
    source: Source,
    desired: Desired,
    flows: FlowStore,
    observed: Observed,
    sequence: ConfigSequence,
    /// Northbound columns that units want, and which of them to look at.
    nb_columns: BTreeMap<(u16, Uuid, u16), (AnyColumn, Datum)>,
    nb_dirty: BTreeSet<(u16, Uuid, u16)>,
    sb_in_flight: bool,
    nb_in_flight: bool,
    not_compiled: NotCompiled,
    garbage: crate::garbage::Garbage,
}

/// The northbound tables that northd compiles whole. Those of which it names what it does not compile are [`not_compiled::TABLES`].
const NB_TABLES: &[&TableDef] = &[
    nb::nb_global::TABLE,
    nb::address_set::TABLE,
    nb::port_group::TABLE,
    nb::dhcp_options::TABLE,
    nb::dns::TABLE,
    nb::meter_band::TABLE,
    nb::mirror::TABLE,
    nb::qos::TABLE,
];

/// The southbound tables that northd reads.
const SB_TABLES: &[&TableDef] = &[
    sb::sb_global::TABLE,
    sb::logical_flow::TABLE,
    sb::logical_dp_group::TABLE,
    sb::datapath_binding::TABLE,
    sb::port_binding::TABLE,
    sb::multicast_group::TABLE,
    sb::ip_multicast::TABLE,
    sb::address_set::TABLE,
    sb::port_group::TABLE,
    sb::dns::TABLE,
    sb::meter::TABLE,
    sb::meter_band::TABLE,
    sb::mirror::TABLE,
    sb::dhcp_options::TABLE,
    sb::dhcpv6_options::TABLE,
    sb::rbac_role::TABLE,
    sb::rbac_permission::TABLE,
    sb::chassis::TABLE,
    sb::chassis_private::TABLE,
    sb::encap::TABLE,
    sb::fdb::TABLE,
    sb::mac_binding::TABLE,
    sb::igmp_group::TABLE,
];

impl Northd {
    /// A compiler that writes what `profile` says and knows no row yet.
    #[must_use]
    pub fn new(profile: &'static Profile) -> Self {
        let mut engine = Engine::new();
        engine.activate(Unit::single(UnitKind::Definitions));
        engine.activate(Unit::single(UnitKind::SbGlobal));
        let mut source = Source::default();
        source.allocations.dirty().globals = true;
        Self {
            compiler: Compiler { profile, flows: RefCell::new(FlowInterner::default()) },
            engine,
            source,
            desired: Desired::default(),
            flows: FlowStore::default(),
            observed: Observed::default(),
            sequence: ConfigSequence::default(),
            nb_columns: BTreeMap::new(),
            nb_dirty: BTreeSet::new(),
            sb_in_flight: false,
            nb_in_flight: false,
            not_compiled: NotCompiled::default(),
            garbage: crate::garbage::Garbage::default(),
        }
    }

    /// The tables of OVN_Northbound to monitor.
    pub fn nb_tables() -> impl Iterator<Item = &'static TableDef> {
        NB_TABLES.iter().chain(not_compiled::TABLES).copied()
    }

    /// The tables of OVN_Southbound to monitor.
    pub fn sb_tables() -> impl Iterator<Item = &'static TableDef> {
        SB_TABLES.iter().copied()
    }

    /// Takes changes of the northbound database in.
    pub fn nb_changed(&mut self, changes: &[RowChange]) {
        for change in changes {
            self.source.apply(change, &mut self.engine);
            self.source.allocations.notice(change);
            self.not_compiled.notice(change);
            for &kind in kinds_of(change.table) {
                let unit = Unit::new(kind, change.uuid);
                if change.new.is_none() {
                    self.engine.retire(&unit);
                } else if change.old.is_none() {
                    self.engine.activate(unit);
                }
            }
            // Somebody else may have written a column that is ours.
            for column in change.changed.indexes() {
                let key = (change.table.index, change.uuid, column);
                if self.nb_columns.contains_key(&key) {
                    self.nb_dirty.insert(key);
                }
            }
            // The key it has until now; where it gets another one, the allocators say so.
            if let Some(key) = self.source.allocations.datapath_key_of(change.uuid) {
                self.garbage.datapath(key);
            }
        }
    }

    /// Takes changes of the southbound database in.
    pub fn sb_changed(&mut self, changes: &[RowChange]) {
        for change in changes {
            self.source.apply(change, &mut self.engine);
            self.source.allocations.notice(change);
            self.garbage.notice(change);
        }
        let interner = self.compiler.flows.borrow();
        self.observed.apply(changes, &self.source, &mut self.desired, &mut self.flows, &interner);
    }

    /// Computes what changed and says what to write. `now_ms` is the time since the epoch in milliseconds.
    pub fn run(&mut self, now_ms: i64) -> Outcome {
        let mut outcome = Outcome { computed: self.compute(), ..Outcome::default() };
        self.report(&mut outcome.reports);
        let nb_cfg = self.sequence.look(&self.source, now_ms);
        if !self.sb_in_flight {
            let transaction = self.reconcile(nb_cfg);
            if transaction.is_empty() {
                if let Some(nb_cfg) = nb_cfg {
                    self.sequence.arrived(nb_cfg, &self.source, now_ms);
                }
            } else {
                self.sb_in_flight = true;
                self.sequence.sent(nb_cfg);
                outcome.sb = Some(transaction);
            }
        }
        if !self.nb_in_flight {
            let transaction = self.northbound();
            if !transaction.is_empty() {
                self.nb_in_flight = true;
                outcome.nb = Some(transaction);
            }
        }
        outcome
    }

    /// The southbound transaction ended. Anything but success marks everything for comparison: what is in the database
    /// decides, not what was meant to be.
    pub fn sb_done(&mut self, ended: &Ended, now_ms: i64) {
        self.sb_in_flight = false;
        self.sequence.ended(ended.is_committed(), &self.source, now_ms);
        if !ended.is_committed() {
            self.desired.mark_all();
            self.flows.mark_all(&self.compiler.flows.borrow());
            self.garbage.everything();
        }
    }

    /// The northbound transaction ended.
    pub fn nb_done(&mut self, ended: &Ended) {
        self.nb_in_flight = false;
        if !ended.is_committed() {
            self.nb_dirty.extend(self.nb_columns.keys().copied());
        }
    }

    /// Computes everything again in the next run. Never needed for correctness.
    pub fn full_recompute(&mut self) {
        self.engine.touch_all();
        self.desired.mark_all();
        self.flows.mark_all(&self.compiler.flows.borrow());
        self.nb_dirty.extend(self.nb_columns.keys().copied());
    }

    /// Whether a run would do something.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.engine.is_dirty() || self.desired.is_dirty() || self.flows.is_dirty() || !self.nb_dirty.is_empty()
    }

    /// What ovn-northd would give an effect and this version does not, a line each.
    #[must_use]
    pub fn not_compiled(&self) -> Vec<String> {
        self.not_compiled.list(&self.source)
    }

    /// Counters of the unit engine.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.engine.stats()
    }

    /// Sets the counters to zero.
    pub fn reset_stats(&mut self) {
        self.engine.reset_stats();
    }

    /// How many logical flows are wanted.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Derives every unit again from nothing and names those that differ from what is kept.
    pub fn audit(&mut self) -> Vec<String> {
        let found = self.engine.audit(&self.compiler, &self.source);
        self.flows.sweep(&mut self.compiler.flows.borrow_mut());
        found.iter().map(|d| format!("{:?}: kept {:?}, computes {:?}", d.unit, d.kept, d.fresh)).collect()
    }

    /// Computes the next `count` units again and reports those that differ: a cheap audit for production.
    pub fn sample(&mut self, count: usize) -> Vec<Report> {
        let found = self.engine.sample(&self.compiler, &self.source, count);
        self.flows.sweep(&mut self.compiler.flows.borrow_mut());
        found.iter().map(|d| Report::Discrepancy(format!("{:?}", d.unit))).collect()
    }

    fn compute(&mut self) -> u64 {
        Allocations::update(&mut self.source, self.compiler.profile, &mut self.engine);
        for key in self.source.allocations.moved.drain(..) {
            match key {
                Some(key) => self.garbage.datapath(key),
                None => self.garbage.everything(),
            }
        }
        let wave = self.engine.run(&self.compiler, &self.source);
        for change in &wave.changes {
            self.absorb(change.unit, &change.old, &change.new);
        }
        self.flows.sweep(&mut self.compiler.flows.borrow_mut());
        wave.run
    }

    fn absorb(&mut self, unit: Unit, old: &Output, new: &Output) {
        if let (Output::Flows(_), _) | (_, Output::Flows(_)) = (old, new) {
            let flows = |output| match output {
                Output::Flows(f) => Some((f.datapath, f.flows)),
                _ => None,
            };
            let (old, new) = (flows(old.clone()), flows(new.clone()));
            let slice = |f: &Option<(Uuid, Vec<(u32, u32)>)>| f.as_ref().map(|(d, v)| (*d, v.clone()));
            let (old, new) = (slice(&old), slice(&new));
            self.flows.replace(
                &self.compiler.flows.borrow(),
                old.as_ref().map(|(d, v)| (*d, v.as_slice())),
                new.as_ref().map(|(d, v)| (*d, v.as_slice())),
            );
        }
        if let (Output::Rows(_), _) | (_, Output::Rows(_)) = (old, new) {
            let rows = |output| match output {
                Output::Rows(rows) => rows,
                _ => Vec::new(),
            };
            self.desired.replace(unit, &rows(old.clone()), &rows(new.clone()));
        }
        if let (Output::Memberships(_), _) | (_, Output::Memberships(_)) = (old, new) {
            let memberships = |output| match output {
                Output::Memberships(m) => Some(m),
                _ => None,
            };
            self.desired.replace_memberships(memberships(old.clone()).as_ref(), memberships(new.clone()).as_ref());
        }
        if let (Output::NbColumns(_), _) | (_, Output::NbColumns(_)) = (old, new) {
            if let Output::NbColumns(columns) = old {
                for c in columns {
                    self.nb_columns.remove(&nb_key(c));
                }
            }
            if let Output::NbColumns(columns) = new {
                for c in columns {
                    self.nb_dirty.insert(nb_key(c));
                    self.nb_columns.insert(nb_key(c), (c.column, c.value.clone()));
                }
            }
        }
    }

    fn reconcile(&mut self, nb_cfg: Option<i64>) -> Transaction {
        let interner = self.compiler.flows.borrow();
        let ports_go = self.desired.gives_up_any(sb::port_binding::TABLE);
        let mut transaction =
            Pass::new(&self.source, &mut self.observed, &mut self.desired, &mut self.flows, &interner).run();
        self.garbage.collect(&self.source, &self.desired, ports_go, &mut transaction);
        if let (Some(nb_cfg), Some(row)) = (nb_cfg, self.source.table(sb::sb_global::TABLE).next())
            && row.get(sb::sb_global::NB_CFG) != nb_cfg
        {
            let _ = transaction.update(sb::sb_global::TABLE, row.uuid()).set(sb::sb_global::NB_CFG, nb_cfg);
        }
        transaction
    }

    fn northbound(&mut self) -> Transaction {
        let mut transaction = Transaction::new(nb::DATABASE);
        let dirty = std::mem::take(&mut self.nb_dirty);
        for key in dirty {
            let Some((column, value)) = self.nb_columns.get(&key) else { continue };
            let Some(row) = self.source.row(column.table(), key.1) else { continue };
            if row.datum(*column) != value {
                if *column == nb::nb_global::OPTIONS.any() {
                    // The column is the administrator's too: what was not seen yet must not be overwritten.
                    transaction.verify(row, nb::nb_global::OPTIONS);
                }
                let _ = transaction.update(column.table(), key.1).set_datum(*column, value.clone());
            }
        }
        let global = self.source.table(nb::nb_global::TABLE).next().map(|row| row.uuid());
        if let Some(global) = global {
            let columns = self.sequence.columns(&self.source);
            if !columns.is_empty() {
                let mut update = transaction.update(nb::nb_global::TABLE, global);
                for (column, value) in columns {
                    update = update.set_datum(column, value);
                }
            }
        }
        transaction
    }

    fn report(&mut self, reports: &mut Vec<Report>) {
        reports.extend(self.source.allocations.refusals.drain(..).map(Report::Warning));
        reports.extend(self.not_compiled.report(&self.source));
    }
}

fn nb_key(column: &NbColumn) -> (u16, Uuid, u16) {
    (column.table.index, column.row, column.column.index())
}

/// The kinds of units that each row of a table has.
fn kinds_of(table: &'static TableDef) -> &'static [UnitKind] {
    use UnitKind as K;
    if table == nb::logical_switch::TABLE {
        &[K::SwitchFlows, K::AclFlows, K::Datapath]
    } else if table == nb::logical_switch_port::TABLE {
        &[K::PortFlows, K::DhcpFlows, K::Binding, K::Membership, K::PortStatus]
    } else if table == nb::nb_global::TABLE {
        &[K::NbGlobal]
    } else if table == nb::address_set::TABLE {
        &[K::AddressSet]
    } else if table == nb::port_group::TABLE {
        &[K::PortGroup]
    } else if table == nb::dns::TABLE {
        &[K::Dns]
    } else if table == nb::meter::TABLE {
        &[K::Meter]
    } else if table == nb::mirror::TABLE {
        &[K::Mirror]
    } else if table == nb::qos::TABLE {
        &[K::QosFlows]
    } else {
        &[]
    }
}
