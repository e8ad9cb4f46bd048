//! What cannot be done as it is written, and what is done instead: of the compiler and of every backend, in the same words.

use super::{DatapathKey, LflowId};

/// What becomes of a flow or rule that cannot be executed as written (design invariant: fail closed, and loudly).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consequence {
    /// It is left out: it could only have let packets pass.
    LeftOut,
    /// It drops or rejects, and which packets is not known: everything in its table is dropped, on its datapaths.
    TableClosed,
    /// Its actions cannot be executed: packets that match it are dropped.
    MatchDropped,
    /// A side effect is left out, the packet goes on.
    SideEffectIgnored,
    /// It is a dropping rule and not even its table can be closed: no version with it comes into force.
    CommitRefused,
}

impl std::fmt::Display for Consequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LeftOut => "flow left out",
            Self::TableClosed => "table closed",
            Self::MatchDropped => "matching packets dropped",
            Self::SideEffectIgnored => "side effect ignored",
            Self::CommitRefused => "policy before stays in force",
        })
    }
}

/// A rule that a backend cannot hold as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its logical flow; 0 for a rule of port security.
    pub lflow: LflowId,
    /// Its datapath.
    pub datapath: DatapathKey,
    /// What is wrong.
    pub what: String,
    /// What was done about it.
    pub consequence: Consequence,
}
