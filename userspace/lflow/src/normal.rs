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

use crate::constant::Integer;
use crate::context::AddressSets;
use crate::field::Field;
pub use crate::masked::Masked;
use smallvec::SmallVec;

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

impl Term {
    /// The bits of the field that the literals and sets look at.
    #[must_use]
    pub fn mask(&self) -> u128 {
        let sets = self.sets.iter().map(SetRef::mask);
        self.literals.iter().map(|literal| literal.mask).chain(sets).fold(0, |a, b| a | b)
    }
}

impl SetRef {
    /// The bits of the field that are compared.
    #[must_use]
    pub fn mask(&self) -> u128 {
        crate::field::ones(self.width) << self.offset
    }

    /// What a member of the set demands of the field.
    #[must_use]
    pub fn alternative(&self, member: &Integer) -> Masked {
        Masked::of_constant(member, self.offset, self.width)
    }
}

impl Dim {
    /// A dimension that is one union.
    #[must_use]
    pub fn of_union(field: Field, term: Term) -> Dim {
        Dim { field, terms: SmallVec::from_buf([term]) }
    }

    /// Literals and sets, when the dimension is nothing but their union: the form of almost all of them, and the one in
    /// which adding a member to a set adds exactly [`SetRef::alternative`].
    #[must_use]
    pub fn as_union(&self) -> Option<(&[Masked], &[SetRef])> {
        match &self.terms[..] {
            [Term { negated: false, literals, sets }] => Some((literals, sets)),
            _ => None,
        }
    }

    /// The bits of the field that matter.
    #[must_use]
    pub fn mask(&self) -> u128 {
        self.terms.iter().map(Term::mask).fold(0, |a, b| a | b)
    }

    /// Every address set that matters, with repetitions.
    pub fn sets(&self) -> impl Iterator<Item = &SetRef> {
        self.terms.iter().flat_map(|term| &term.sets)
    }

    /// The dimension as plain alternatives, given what the sets contain now: a value passes exactly when one of them matches.
    /// Empty when nothing can pass. A set that does not exist counts as empty.
    ///
    /// The alternatives of a positive union may overlap; those that come from a negation do not.
    #[must_use]
    pub fn resolve(&self, sets: &dyn AddressSets) -> Vec<Masked> {
        let mut passing = vec![Masked::ANY];
        // Positive terms first: what they leave is small, and "not in" then removes from little.
        for term in self.terms.iter().filter(|term| !term.negated) {
            let union = term.resolve(sets);
            passing = Masked::intersect_all(&passing, &union);
        }
        for term in self.terms.iter().filter(|term| term.negated) {
            for hole in term.resolve(sets) {
                passing = passing.iter().flat_map(|alternative| alternative.subtract(&hole)).collect();
            }
        }
        passing
    }
}

impl Term {
    /// The union as plain alternatives, whether or not the term is negated.
    #[must_use]
    pub fn resolve(&self, sets: &dyn AddressSets) -> Vec<Masked> {
        let mut union = self.literals.to_vec();
        for set in &self.sets {
            let members = sets.address_set(&set.name).map_or(&[][..], |set| &set.members);
            union.extend(members.iter().map(|member| set.alternative(member)));
        }
        union.sort_unstable();
        union.dedup();
        union
    }
}

impl Clause {
    /// Whether it is constantly true.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.dims.is_empty() && self.ports.is_empty() && self.residency.is_empty()
    }

    /// The dimension of an integer field.
    #[must_use]
    pub fn dim(&self, field: Field) -> Option<&Dim> {
        self.dims.iter().find(|dim| dim.field == field)
    }

    /// The dimension of a string field.
    #[must_use]
    pub fn port_dim(&self, field: Field) -> Option<&PortDim> {
        self.ports.iter().find(|dim| dim.field == field)
    }
}

impl Normalized {
    /// Whether every packet on every chassis matches.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.clauses.iter().any(Clause::is_true)
    }

    /// Whether nothing matches.
    #[must_use]
    pub fn is_false(&self) -> bool {
        self.clauses.is_empty()
    }

    /// Names of all address sets referred to, with repetitions.
    pub fn address_sets(&self) -> impl Iterator<Item = &str> {
        self.clauses.iter().flat_map(|c| &c.dims).flat_map(Dim::sets).map(|set| &*set.name)
    }

    /// Names of all port groups referred to, with repetitions.
    pub fn port_groups(&self) -> impl Iterator<Item = &str> {
        self.clauses.iter().flat_map(|c| &c.ports).flat_map(|d| &d.terms).flat_map(|t| &t.groups).map(|name| &**name)
    }
}
