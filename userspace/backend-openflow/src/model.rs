//! The bridge as it should be: follows the pipeline's program, knows no switch.

use crate::wiring::Wiring;
use oxbow_pipeline::ir::{Changes, DatapathKey, LflowId, Program};

/// A rule that cannot be held as it is.
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

/// What a rule that cannot be held becomes (design invariant: fail closed, and loudly).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Its match drops.
    Drops,
    /// It is left out: it could only have let packets pass.
    LeftOut,
    /// Its whole table drops on this datapath, because it is a dropping rule.
    TableClosed,
}

impl std::fmt::Display for Consequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Drops => "matching packets dropped",
            Self::LeftOut => "flow left out",
            Self::TableClosed => "table closed",
        })
    }
}

/// Cookie of a logical flow's OpenFlow flows. ovn-controller uses the first 32 bits of the Logical_Flow row's `_uuid`, which is what
/// `ovn-sbctl lflow-list` looks for; 0 is everything that belongs to no logical flow.
pub type Cookies<'a> = &'a dyn Fn(LflowId) -> u64;

/// Desired flows and groups.
#[derive(Debug, Default)]
pub struct Model {}

impl Model {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows a difference. `program` is the program after it; `wiring` the numbers now in force. After a restart the first difference
    /// is from nothing.
    pub fn apply(&mut self, program: &Program, changes: &Changes, wiring: &Wiring, cookies: Cookies<'_>) {
        let _ = (program, changes, wiring, cookies);
    }

    /// All flows and groups as lines of an `ovs-ofctl bundle` file, groups first, each kind sorted: by table, falling priority, match. The same program
    /// and world give the same text.
    #[must_use]
    pub fn print(&self) -> String {
        String::new()
    }

    /// What could not be held as it is.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        [].iter()
    }
}
