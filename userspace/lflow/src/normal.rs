//! The normal form of a match: a disjunction of clauses, each a conjunction of independent dimensions.
//!
//! `ip4 && ip4.src == $as && tcp.dst == {80, 443}` is one clause of four dimensions: `eth.type` {0x800}, `ip.proto` {6},
//! `ip4.src` {members of $as}, `tcp.dst` {80, 443}. A set times a set is two dimensions and is never multiplied out; a set is
//! kept by name, so that adding an element to it is the addition of one alternative and no recompilation.
//!
//! # Exactness
//! A packet matches a [`Normalized`] exactly when it matches the expression with OVN's implied prerequisites added. A
//! [`Dim`] is a *conjunction* of [`Term`]s over one field. Almost always there is one, positive ([`Dim::as_union`]). There
//! are more when that avoids an expansion: `ip4.src == $a && ip4.src == $b` (two terms), `ip4.src != $a` or
//! `tcp.dst != 80` (a negated term, "not in"), `reg0 == {…} && reg1 == {…}` with long lists (two terms over different bits
//! of [`Field::XxReg0`]). [`Dim::resolve`] turns any of them into plain masked alternatives given the sets' contents.

use crate::field::Field;
use smallvec::SmallVec;
use std::fmt;

/// All values that equal `value` where `mask` has ones. `value & !mask == 0`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Masked {
    /// The bits required.
    pub value: u128,
    /// The bits looked at.
    pub mask: u128,
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

/// A reference to an address set: the value of bits `offset .. offset + width` of the field is a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetRef {
    /// Name as written after `$` (Address_Set.name in the SB database).
    pub name: Box<str>,
    /// Lowest bit of the field that is compared.
    pub offset: u8,
    /// Number of bits compared.
    pub width: u8,
}

/// One condition on a field: the value is in the union of `literals` and `sets`, or is not if `negated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// "Not in": nothing of the union may match. An empty negated term does not occur.
    pub negated: bool,
    /// Sorted, without duplicates and without literals that another one covers.
    pub literals: SmallVec<[Masked; 1]>,
    /// Sorted, without duplicates. Empty sets match nothing.
    pub sets: Vec<SetRef>,
}

/// All that a clause demands of one integer field: every term holds. At least one term; literals-only positive terms are
/// already intersected with each other unless that would multiply them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim {
    /// The field; offsets and masks count in it, whichever symbol was written.
    pub field: Field,
    /// A conjunction.
    pub terms: SmallVec<[Term; 1]>,
}

/// One condition on a string field: the port is one of `names` or belongs to one of `groups`. (String fields are nominal:
/// there is no negation.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortTerm {
    /// Logical port or multicast group names; sorted, unique.
    pub names: SmallVec<[Box<str>; 1]>,
    /// Port group names as written after `@`; sorted, unique. The SB row's name has the datapath's tunnel key in front
    /// ([`crate::context::port_group_sb_name`]).
    pub groups: Vec<Box<str>>,
}

/// All that a clause demands of one string field: every term holds. Two terms occur only where a group is involved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortDim {
    /// [`Field::InPort`], [`Field::OutPort`] or [`Field::RemoteOutPort`].
    pub field: Field,
    /// A conjunction.
    pub terms: SmallVec<[PortTerm; 1]>,
}

/// `is_chassis_resident("port")` or its opposite: a condition on the chassis, not on the packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Residency {
    /// Name of the logical port.
    pub port: Box<str>,
    /// True: the port must not be resident.
    pub negated: bool,
}

/// A conjunction: every dimension and every condition holds. Without any it is constantly true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Clause {
    /// Integer fields in ascending order, each at most once.
    pub dims: Vec<Dim>,
    /// String fields in ascending order, each at most once.
    pub ports: SmallVec<[PortDim; 1]>,
    /// Conditions on the chassis, sorted, unique.
    pub residency: Vec<Residency>,
}

/// A disjunction of clauses; none: constantly false. Clauses may overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Normalized {
    /// The clauses, in no particular order but the same for the same text.
    pub clauses: Vec<Clause>,
}
