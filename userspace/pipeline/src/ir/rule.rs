//! Rules and what they match.

use super::{Act, DatapathKey, Field, LflowId, Masked, Pipeline, RuleId, SetId};
use std::sync::Arc;

/// A table of a logical datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// The datapath.
    pub datapath: DatapathKey,
    /// Its pipeline.
    pub pipeline: Pipeline,
    /// Logical_Flow.table_id.
    pub stage: u8,
}

/// The values that satisfy a condition on a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Alternatives {
    /// One of these; sorted, without duplicates, none covered by another. Never empty: such a rule is not made.
    List(Arc<[Masked]>),
    /// One of the members of a set, which may be empty and may change while the rule stays ([`super::Program::set`]).
    Set(SetId),
}

/// A condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dim {
    /// The field. Values and masks are in its own width ([`super::width`]).
    pub field: Field,
    /// What it may be.
    pub alternatives: Alternatives,
}

/// A rule: one clause of a logical flow's match on one datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its identity in its program.
    pub id: RuleId,
    /// The logical flow it came from.
    pub lflow: LflowId,
    /// Where it stands.
    pub table: TableId,
    /// Logical_Flow.priority. Between equal ones that match the same packet the choice is undefined (ovn-sb(5)); the reference
    /// takes the one of the smaller [`LflowId`].
    pub priority: u16,
    /// Conjunction, at most one for each field, in ascending order of fields; empty matches every packet.
    pub dims: Arc<[Dim]>,
    /// What to do.
    pub acts: Arc<[Act]>,
}

/// A port security sub-table of a datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sub {
    /// What a port sends: addresses.
    In,
    /// What a port sends: contents of ARP and neighbor discovery.
    InNd,
    /// What a port is sent.
    Out,
}

/// What a sub-table says. A packet that no rule of the sub-table matches passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubResult {
    /// It may pass.
    Pass,
    /// It violates the port's security.
    Fail,
    /// Ask the other sub-table; only from [`Sub::In`] to [`Sub::InNd`].
    Goto(Sub),
}

/// A rule of a sub-table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubRule {
    /// Its identity, of the same numbers as [`Rule::id`].
    pub id: RuleId,
    /// The datapath.
    pub datapath: DatapathKey,
    /// The sub-table.
    pub sub: Sub,
    /// Higher wins.
    pub priority: u16,
    /// As [`Rule::dims`]; the port is always among them.
    pub dims: Arc<[Dim]>,
    /// The answer.
    pub result: SubResult,
}
