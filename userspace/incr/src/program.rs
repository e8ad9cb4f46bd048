//! What a user of the engine provides: kinds, units, facts, queries and the compute function.

use std::fmt::Debug;
use std::hash::Hash;

use crate::Cx;

/// Which parts of a fact are meant, as a bit set the program assigns: for a database row, one bit a
/// column. A reader is made dirty by a change only if the two sets overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aspects(pub u64);

impl Aspects {
    /// Every aspect: what an index key, or a fact without parts, is read with.
    pub const ALL: Self = Self(u64::MAX);
    /// No aspect at all.
    pub const NONE: Self = Self(0);

    /// The set with the single bit `bit` (0..=63). Bits past 63 share the last one: such a read is
    /// invalidated too often, never too rarely.
    #[must_use]
    pub const fn bit(bit: usize) -> Self {
        Self(1 << if bit > 63 { 63 } else { bit })
    }

    /// The union of both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if some aspect is in both sets.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// True if the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One kind of unit: its name in statistics, and its place in the order of computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The name that statistics print.
    pub name: &'static str,
    /// Units of a kind read only units of kinds with a lower stratum.
    pub stratum: u16,
}

/// A computation made of pure units.
pub trait Program: Sized + Debug {
    /// A unit: its kind and its key. `Ord` decides the order inside a stratum.
    type Unit: Clone + Eq + Ord + Hash + Debug;
    /// Something the source can be asked about: a row, or a key of an index.
    type Fact: Clone + Eq + Hash + Debug;
    /// What a unit yields. `Default` is the empty output, that of a unit whose subject does not exist.
    /// Equality decides whether the wave goes on, so it must not depend on order of hashing.
    type Output: PartialEq + Default + Debug;
    /// Where facts are looked up.
    type Source;

    /// Every kind, indexed by what [`Program::kind`] returns.
    const KINDS: &'static [Kind];

    /// The index in [`Program::KINDS`] of the unit's kind.
    fn kind(unit: &Self::Unit) -> usize;

    /// Computes one unit. Must depend on nothing but what it reads through `cx`.
    fn compute(&self, cx: &mut Cx<'_, '_, Self>, unit: &Self::Unit) -> Self::Output;
}

/// A question that a unit may put to the source. The implementations are the only code that sees the
/// source, so they are the place to check that `answer` looks at no more than `fact` and `aspects` say.
pub trait Query<P: Program> {
    /// The answer; may borrow from the source. A miss is an answer like any other.
    type Answer<'s>
    where
        P::Source: 's;

    /// What the answer depends on.
    fn fact(&self) -> P::Fact;

    /// On which parts of it the answer depends.
    fn aspects(&self) -> Aspects {
        Aspects::ALL
    }

    /// Looks the answer up.
    fn answer<'s>(&self, source: &'s P::Source) -> Self::Answer<'s>;
}
