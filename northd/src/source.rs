//! What units may ask: rows of both databases, indexes over them, and what the allocators hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use oxbow_incr::{Aspects, Engine, Query};
use oxbow_ovsdb::{AnyColumn, Column, ColumnType, Row, RowChange, SetView, TableDef, Text, Uuid};
use oxbow_schema::{nb, sb};
use rustc_hash::FxHashMap;

use crate::alloc::Allocations;
use crate::program::Compiler;

/// A table of either database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TableId(u16);

impl TableId {
    pub(crate) fn of(table: &TableDef) -> TableId {
        let southbound = if table.database == nb::DATABASE.name { 0 } else { 1 << 8 };
        TableId(table.index | southbound)
    }
}

/// A property of a switch's ports that decides about flows of the switch as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PortTrait {
    /// Enabled, and `unknown` is among its addresses.
    Unknown,
    /// VTEP port, enabled or not.
    Vtep,
    /// Port with `mcast_flood=true`.
    Static,
    /// Localnet port.
    Localnet,
}

/// A key of an index. The answer is always a set of row identifiers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IndexKey {
    /// The rows of a table.
    Table(TableId),
    /// The logical switches that hold a port.
    SwitchOfPort(Uuid),
    /// The ports of a switch that have a trait.
    PortTrait(Uuid, PortTrait),
    /// The logical switch port of a name.
    PortByName(Text),
    /// The logical router port of a name.
    RouterPortByName(Text),
    /// The logical routers that hold a port.
    RouterOfPort(Uuid),
    /// The switches that use a DNS row.
    SwitchesOfDns(Uuid),
    /// The switches that hold a QoS row.
    SwitchOfQos(Uuid),
    /// The port groups that hold a port.
    GroupsOfPort(Uuid),
    /// The port groups that hold some port of a switch.
    GroupsOfSwitch(Uuid),
    /// The southbound binding of a port.
    BindingByPort(Text),
    /// The southbound datapath of a switch.
    DatapathOfSwitch(Uuid),
    /// The chassis of a name.
    ChassisByName(Text),
    /// The chassis of a host name.
    ChassisByHostname(Text),
}

/// What an allocator decided, as a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Allocation {
    /// The tunnel key of a switch's datapath.
    DatapathKey,
    /// The tunnel key of a switch port.
    PortKey,
    /// The VLAN tag of a nested port.
    Tag,
    /// The queue of a port with bandwidth limits, on its chassis.
    Queue,
    /// The addresses of a port that asked for dynamic ones.
    Addresses,
    /// Values made up once for the whole deployment.
    Globals,
}

/// Something a unit can have read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    Row(TableId, Uuid),
    Index(IndexKey),
    Allocated(Allocation, Uuid),
}

/// The rows and indexes.
#[derive(Debug, Default)]
pub(crate) struct Source {
    rows: FxHashMap<(TableId, Uuid), Arc<Row>>,
    index: FxHashMap<IndexKey, BTreeSet<Uuid>>,
    /// Per port: its switch and traits as they stand in the index.
    traits: FxHashMap<Uuid, Vec<(Uuid, PortTrait)>>,
    /// Per port: its switch with each of its groups, as counted in `shared`.
    grouped: FxHashMap<Uuid, Vec<(Uuid, Uuid)>>,
    /// How many ports a switch and a group share.
    shared: FxHashMap<(Uuid, Uuid), usize>,
    pub(crate) allocations: Allocations,
}

static NOTHING: BTreeSet<Uuid> = BTreeSet::new();

impl Source {
    pub(crate) fn row(&self, table: &'static TableDef, uuid: Uuid) -> Option<&Arc<Row>> {
        self.rows.get(&(TableId::of(table), uuid))
    }

    pub(crate) fn members(&self, key: &IndexKey) -> &BTreeSet<Uuid> {
        self.index.get(key).unwrap_or(&NOTHING)
    }

    /// The rows of a table, in the order of their identifiers.
    pub(crate) fn table(&self, table: &'static TableDef) -> impl Iterator<Item = &Arc<Row>> {
        self.members(&IndexKey::Table(TableId::of(table))).iter().filter_map(move |u| self.row(table, *u))
    }

    /// Takes a change in and marks what read the row or a key of an index it moved.
    pub(crate) fn apply(&mut self, change: &RowChange, engine: &mut Engine<Compiler>) {
        let table = TableId::of(change.table);
        let aspects = match (&change.old, &change.new) {
            (Some(_), Some(_)) => {
                change.changed.indexes().fold(Aspects::NONE, |a, i| a.with(Aspects::bit(usize::from(i))))
            }
            _ => Aspects::ALL,
        };
        engine.touch(&Fact::Row(table, change.uuid), aspects);
        match &change.new {
            Some(row) => self.rows.insert((table, change.uuid), Arc::clone(row)),
            None => self.rows.remove(&(table, change.uuid)),
        };
        let old = change.old.as_deref().map(index_keys).unwrap_or_default();
        let new = change.new.as_deref().map(index_keys).unwrap_or_default();
        for key in &old {
            if !new.contains(key) {
                self.unindex(key.clone(), change.uuid, engine);
            }
        }
        for key in new {
            if !old.contains(&key) {
                self.index(key, change.uuid, engine);
            }
        }
        if change.table == nb::logical_switch::TABLE {
            self.reindex_set(change, nb::logical_switch::PORTS, IndexKey::SwitchOfPort, engine);
            self.reindex_set(change, nb::logical_switch::DNS_RECORDS, IndexKey::SwitchesOfDns, engine);
            self.reindex_set(change, nb::logical_switch::QOS_RULES, IndexKey::SwitchOfQos, engine);
        } else if change.table == nb::port_group::TABLE {
            self.reindex_set(change, nb::port_group::PORTS, IndexKey::GroupsOfPort, engine);
        } else if change.table == nb::logical_router::TABLE {
            self.reindex_set(change, nb::logical_router::PORTS, IndexKey::RouterOfPort, engine);
        } else if change.table == nb::logical_switch_port::TABLE {
            self.reindex_traits(change.uuid, engine);
        }
    }

    /// Keeps up "which rows name this one in a set column".
    fn reindex_set(
        &mut self,
        change: &RowChange,
        column: Column<oxbow_ovsdb::Set<Uuid>>,
        key: fn(Uuid) -> IndexKey,
        engine: &mut Engine<Compiler>,
    ) {
        let elements = |row: &Option<Arc<Row>>| -> Vec<Uuid> {
            row.as_ref().map(|r| r.get(column).iter().collect()).unwrap_or_default()
        };
        let (old, new) = (elements(&change.old), elements(&change.new));
        if old == new {
            return;
        }
        for (gone, element) in symmetric_difference(&old, &new) {
            if gone {
                self.unindex(key(element), change.uuid, engine);
            } else {
                self.index(key(element), change.uuid, engine);
            }
            if column.any() == nb::logical_switch::PORTS.any() {
                self.reindex_traits(element, engine);
                self.reindex_groups(element, engine);
            } else if column.any() == nb::port_group::PORTS.any() {
                self.reindex_groups(element, engine);
            }
        }
    }

    fn reindex_traits(&mut self, port: Uuid, engine: &mut Engine<Compiler>) {
        let switch = self.members(&IndexKey::SwitchOfPort(port)).first().copied();
        let new = match (switch, self.row(nb::logical_switch_port::TABLE, port)) {
            (Some(switch), Some(row)) => port_traits(row).into_iter().map(|t| (switch, t)).collect(),
            _ => Vec::new(),
        };
        let old = self.traits.get(&port).cloned().unwrap_or_default();
        if old == new {
            return;
        }
        for &(switch, t) in old.iter().filter(|o| !new.contains(o)) {
            self.unindex(IndexKey::PortTrait(switch, t), port, engine);
        }
        for &(switch, t) in new.iter().filter(|n| !old.contains(n)) {
            self.index(IndexKey::PortTrait(switch, t), port, engine);
        }
        if new.is_empty() {
            self.traits.remove(&port);
        } else {
            self.traits.insert(port, new);
        }
    }

    /// Keeps up which groups have ports of which switch.
    fn reindex_groups(&mut self, port: Uuid, engine: &mut Engine<Compiler>) {
        let switch = self.members(&IndexKey::SwitchOfPort(port)).first().copied();
        let groups = self.members(&IndexKey::GroupsOfPort(port)).iter().copied();
        let new: Vec<(Uuid, Uuid)> = switch.map(|s| groups.map(|g| (s, g)).collect()).unwrap_or_default();
        let old = self.grouped.remove(&port).unwrap_or_default();
        for &(switch, group) in new.iter().filter(|n| !old.contains(n)) {
            let count = self.shared.entry((switch, group)).or_default();
            *count += 1;
            if *count == 1 {
                self.index(IndexKey::GroupsOfSwitch(switch), group, engine);
            }
        }
        for &(switch, group) in old.iter().filter(|o| !new.contains(o)) {
            let Some(count) = self.shared.get_mut(&(switch, group)) else { continue };
            *count -= 1;
            if *count == 0 {
                self.shared.remove(&(switch, group));
                self.unindex(IndexKey::GroupsOfSwitch(switch), group, engine);
            }
        }
        if !new.is_empty() {
            self.grouped.insert(port, new);
        }
    }

    fn index(&mut self, key: IndexKey, uuid: Uuid, engine: &mut Engine<Compiler>) {
        engine.touch(&Fact::Index(key.clone()), Aspects::ALL);
        self.index.entry(key).or_default().insert(uuid);
    }

    fn unindex(&mut self, key: IndexKey, uuid: Uuid, engine: &mut Engine<Compiler>) {
        engine.touch(&Fact::Index(key.clone()), Aspects::ALL);
        if let Some(set) = self.index.get_mut(&key) {
            set.remove(&uuid);
            if set.is_empty() {
                self.index.remove(&key);
            }
        }
    }
}

/// The elements in only one of two ascending lists; `true` if it is the first.
pub(crate) fn symmetric_difference(old: &[Uuid], new: &[Uuid]) -> Vec<(bool, Uuid)> {
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        match (old.get(i), new.get(j)) {
            (Some(o), Some(n)) if o == n => {
                i += 1;
                j += 1;
            }
            (Some(o), n) if n.is_none_or(|n| o < n) => {
                found.push((true, *o));
                i += 1;
            }
            (_, Some(n)) => {
                found.push((false, *n));
                j += 1;
            }
            (_, None) => break,
        }
    }
    found
}

fn port_traits(row: &Row) -> Vec<PortTrait> {
    use nb::logical_switch_port as lsp;
    let enabled = row.get(lsp::ENABLED) != Some(false);
    let mut traits = Vec::new();
    if enabled && row.get(lsp::ADDRESSES).contains("unknown") {
        traits.push(PortTrait::Unknown);
    }
    match row.get(lsp::TYPE).as_str() {
        "vtep" => traits.push(PortTrait::Vtep),
        "localnet" => traits.push(PortTrait::Localnet),
        _ => {}
    }
    if row.get(lsp::OPTIONS).get_bool("mcast_flood", false) {
        traits.push(PortTrait::Static);
    }
    traits
}

fn index_keys(row: &Row) -> Vec<IndexKey> {
    let table = row.table();
    let mut keys = Vec::new();
    if is_listed(table) {
        keys.push(IndexKey::Table(TableId::of(table)));
    }
    if table == nb::logical_switch_port::TABLE {
        keys.push(IndexKey::PortByName(row.get(nb::logical_switch_port::NAME).clone()));
    } else if table == nb::logical_router_port::TABLE {
        keys.push(IndexKey::RouterPortByName(row.get(nb::logical_router_port::NAME).clone()));
    } else if table == sb::port_binding::TABLE {
        keys.push(IndexKey::BindingByPort(row.get(sb::port_binding::LOGICAL_PORT).clone()));
    } else if table == sb::datapath_binding::TABLE {
        let switch = row.get(sb::datapath_binding::EXTERNAL_IDS).get("logical-switch").and_then(|u| u.parse().ok());
        keys.extend(switch.map(IndexKey::DatapathOfSwitch));
    } else if table == sb::chassis::TABLE {
        keys.push(IndexKey::ChassisByName(row.get(sb::chassis::NAME).clone()));
        keys.push(IndexKey::ChassisByHostname(row.get(sb::chassis::HOSTNAME).clone()));
    }
    keys
}

/// The tables of which somebody asks for all rows. The others would only grow an index.
fn is_listed(table: &'static TableDef) -> bool {
    [
        nb::nb_global::TABLE,
        nb::logical_switch::TABLE,
        nb::logical_switch_port::TABLE,
        nb::logical_router::TABLE,
        sb::chassis::TABLE,
        sb::chassis_private::TABLE,
        sb::encap::TABLE,
        sb::sb_global::TABLE,
        sb::datapath_binding::TABLE,
        sb::port_binding::TABLE,
    ]
    .contains(&table)
}

/// One column of a row; none if there is no such row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell<T>(pub(crate) Column<T>, pub(crate) Uuid);

impl<T: ColumnType> Query<Compiler> for Cell<T> {
    type Answer<'s> = Option<T::View<'s>>;

    fn fact(&self) -> Fact {
        Fact::Row(TableId::of(self.0.table()), self.1)
    }

    fn aspects(&self) -> Aspects {
        Aspects::bit(usize::from(self.0.any().index()))
    }

    fn answer<'s>(&self, source: &'s Source) -> Self::Answer<'s> {
        source.row(self.0.table(), self.1).map(|row| row.get(self.0))
    }
}

/// A column as it is stored; none if there is no such row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawCell(pub(crate) AnyColumn, pub(crate) Uuid);

impl Query<Compiler> for RawCell {
    type Answer<'s> = Option<&'s oxbow_ovsdb::Datum>;

    fn fact(&self) -> Fact {
        Fact::Row(TableId::of(self.0.table()), self.1)
    }

    fn aspects(&self) -> Aspects {
        Aspects::bit(usize::from(self.0.index()))
    }

    fn answer<'s>(&self, source: &'s Source) -> Self::Answer<'s> {
        source.row(self.0.table(), self.1).map(|row| row.datum(self.0))
    }
}

/// The rows under a key of an index.
#[derive(Clone, Debug)]
pub(crate) struct Members(pub(crate) IndexKey);

impl Query<Compiler> for Members {
    type Answer<'s> = &'s BTreeSet<Uuid>;

    fn fact(&self) -> Fact {
        Fact::Index(self.0.clone())
    }

    fn answer<'s>(&self, source: &'s Source) -> &'s BTreeSet<Uuid> {
        source.members(&self.0)
    }
}

/// A tunnel key or a tag that an allocator assigned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllocatedNumber(pub(crate) Allocation, pub(crate) Uuid);

impl Query<Compiler> for AllocatedNumber {
    type Answer<'s> = Option<i64>;

    fn fact(&self) -> Fact {
        Fact::Allocated(self.0, self.1)
    }

    fn answer(&self, source: &Source) -> Option<i64> {
        source.allocations.number(self.0, self.1)
    }
}

/// The addresses that the address allocator gave to a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllocatedAddresses(pub(crate) Uuid);

impl Query<Compiler> for AllocatedAddresses {
    type Answer<'s> = Option<&'s Text>;

    fn fact(&self) -> Fact {
        Fact::Allocated(Allocation::Addresses, self.0)
    }

    fn answer<'s>(&self, source: &'s Source) -> Option<&'s Text> {
        source.allocations.addresses(self.0)
    }
}

/// The values made up once: `mac_prefix`, `svc_monitor_mac`, `max_tunid`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Globals;

impl Query<Compiler> for Globals {
    type Answer<'s> = &'s crate::alloc::Globals;

    fn fact(&self) -> Fact {
        Fact::Allocated(Allocation::Globals, Uuid::ZERO)
    }

    fn answer<'s>(&self, source: &'s Source) -> Self::Answer<'s> {
        &source.allocations.globals
    }
}

/// The identifiers in a set column of a row.
pub(crate) fn references(set: Option<SetView<'_, Uuid>>) -> Vec<Uuid> {
    set.map(|s| s.iter().collect()).unwrap_or_default()
}
