//! The kinds of units, their strata, and what they yield.
//!
//! ```text
//! stratum 0   global ── features ── switch ── port          configuration, parsed once
//! stratum 1   switch-traits  switch-acls                    what the ports of a switch have in common
//! stratum 2   switch-flows  port-flows  dhcp-flows  qos-flows  acl-flows  ──▶ logical flows
//!             datapath  binding  membership  port-group  address-set
//!             dns  meter  mirror  definitions  sb-global    ──▶ southbound rows
//!             port-status  nb-global                        ──▶ northbound columns
//! ```
//!
//! A new kind gets its place here, a file under `units/` and an arm in [`Compiler::compute`].

use std::cell::RefCell;

use oxbow_incr::{Cx, Kind, Program};
use oxbow_ovsdb::{AnyColumn, Datum, TableDef, Text, Uuid};

use crate::profile::Profile;
use crate::source::{Fact, Source};
use crate::store::{DesiredRow, FlowId, FlowInterner, RowKey};
use crate::units;

/// The kind of a unit. The order is that of [`Program::KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum UnitKind {
    Global,
    Features,
    Switch,
    Port,
    SwitchTraits,
    SwitchAcls,
    SwitchFlows,
    PortFlows,
    DhcpFlows,
    QosFlows,
    AclFlows,
    Datapath,
    Binding,
    Membership,
    PortGroup,
    AddressSet,
    Dns,
    Meter,
    Mirror,
    Definitions,
    SbGlobal,
    PortStatus,
    NbGlobal,
}

/// A unit: what to compute, for which northbound row ([`Uuid::ZERO`] for the kinds that exist once).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Unit {
    pub(crate) kind: UnitKind,
    pub(crate) key: Uuid,
}

impl Unit {
    pub(crate) const fn new(kind: UnitKind, key: Uuid) -> Self {
        Self { kind, key }
    }

    pub(crate) const fn single(kind: UnitKind) -> Self {
        Self { kind, key: Uuid::ZERO }
    }
}

/// The flows a unit wants on a datapath, sorted by flow; the number is the stage hint, 0 for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatapathFlows {
    /// The logical switch.
    pub(crate) datapath: Uuid,
    pub(crate) flows: Vec<(FlowId, u32)>,
}

/// A northbound column that northd owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NbColumn {
    pub(crate) table: &'static TableDef,
    pub(crate) row: Uuid,
    pub(crate) column: AnyColumn,
    pub(crate) value: Datum,
}

/// The multicast groups a port is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memberships {
    pub(crate) port: Text,
    pub(crate) groups: Vec<RowKey>,
}

/// What a unit yields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Output {
    /// Nothing: the subject does not exist, or wants nothing.
    #[default]
    Empty,
    Global(units::global::Global),
    Features(units::global::Features),
    Switch(units::switch::Switch),
    Traits(units::switch::Traits),
    SwitchAcls(units::acl::SwitchAcls),
    Port(Box<units::port::Port>),
    Flows(DatapathFlows),
    Rows(Vec<DesiredRow>),
    Memberships(Memberships),
    NbColumns(Vec<NbColumn>),
}

/// The program: profile, and the interner of the flows that units name by number.
#[derive(Debug)]
pub(crate) struct Compiler {
    pub(crate) profile: &'static Profile,
    pub(crate) flows: RefCell<FlowInterner>,
}

const fn kind(name: &'static str, stratum: u16) -> Kind {
    Kind { name, stratum }
}

impl Program for Compiler {
    type Unit = Unit;
    type Fact = Fact;
    type Output = Output;
    type Source = Source;

    const KINDS: &'static [Kind] = &[
        kind("global", 0),
        kind("features", 0),
        kind("switch", 0),
        kind("port", 0),
        kind("switch-traits", 1),
        kind("switch-acls", 1),
        kind("switch-flows", 2),
        kind("port-flows", 2),
        kind("dhcp-flows", 2),
        kind("qos-flows", 2),
        kind("acl-flows", 2),
        kind("datapath", 2),
        kind("binding", 2),
        kind("membership", 2),
        kind("port-group", 2),
        kind("address-set", 2),
        kind("dns", 2),
        kind("meter", 2),
        kind("mirror", 2),
        kind("definitions", 2),
        kind("sb-global", 2),
        kind("port-status", 2),
        kind("nb-global", 2),
    ];

    fn kind(unit: &Unit) -> usize {
        unit.kind as usize
    }

    fn compute(&self, cx: &mut Cx<'_, '_, Self>, unit: &Unit) -> Output {
        let key = unit.key;
        match unit.kind {
            UnitKind::Global => units::global::global(cx),
            UnitKind::Features => units::global::features(cx),
            UnitKind::Switch => units::switch::switch(cx, key),
            UnitKind::Port => units::port::port(cx, key),
            UnitKind::SwitchTraits => units::switch::traits(cx, key),
            UnitKind::SwitchAcls => units::acl::switch_acls(cx, key),
            UnitKind::AclFlows => units::acl::compute(self, cx, key),
            UnitKind::SwitchFlows => units::switch_flows::compute(self, cx, key),
            UnitKind::PortFlows => units::port_flows::compute(self, cx, key),
            UnitKind::DhcpFlows => units::dhcp::compute(self, cx, key),
            UnitKind::QosFlows => units::qos::compute(self, cx, key),
            UnitKind::Datapath => units::datapath::compute(self, cx, key),
            UnitKind::Binding => units::binding::compute(cx, key),
            UnitKind::Membership => units::membership::compute(cx, key),
            UnitKind::PortGroup => units::port_group::compute(cx, key),
            UnitKind::AddressSet => units::copied::address_set(cx, key),
            UnitKind::Dns => units::copied::dns(cx, key),
            UnitKind::Meter => units::copied::meter(cx, key),
            UnitKind::Mirror => units::copied::mirror(cx, key),
            UnitKind::Definitions => units::definitions::compute(self, cx),
            UnitKind::SbGlobal => units::global::sb_global(self, cx),
            UnitKind::PortStatus => units::port_status::compute(cx, key),
            UnitKind::NbGlobal => units::global::nb_global(self, cx, key),
        }
    }
}
