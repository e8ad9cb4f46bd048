//! What the server says changed, decoded but not yet applied.

use crate::layout::{DatabaseLayout, LayoutColumn};
use crate::{Datum, Multiplicity, Uuid};

/// The content of one update notification or monitor reply.
#[derive(Debug, Default)]
pub(crate) struct UpdateBatch {
    /// Present when `rows` are all there is: whatever the replica held before is superseded, with these layouts.
    pub(crate) reset: Option<DatabaseLayout>,
    /// The changed rows, each at most once.
    pub(crate) rows: Vec<RowUpdate>,
}

/// What became of a row.
#[derive(Debug)]
pub(crate) struct RowUpdate {
    /// The table's index in the definition.
    pub(crate) table: u16,
    pub(crate) uuid: Uuid,
    pub(crate) kind: UpdateKind,
}

#[derive(Debug)]
pub(crate) enum UpdateKind {
    /// The whole row, a datum per slot: initial, inserted, or the new row of an RFC 7047 update.
    Whole(Box<[Datum]>),
    /// By slot, the differences of a "modify"; columns not listed are unchanged.
    Difference(Vec<(u16, Datum)>),
    /// Gone.
    Delete,
}

impl LayoutColumn {
    /// The value that a "modify" gives for a column that held `current`: the new value itself where there can be at most one
    /// element, else a difference (ovsdb-server(7) section 4.1.14).
    pub(crate) fn apply_difference(&self, current: &Datum, diff: Datum) -> Datum {
        match self.multiplicity {
            Multiplicity::One | Multiplicity::Optional => diff,
            Multiplicity::Many => current.with_difference(&diff),
        }
    }
}
