//! Microflows: a packet described by a match expression that leaves no choice, as ovn-trace(8) takes it.
//!
//! `inport == "sw0p1" && eth.src == 00:00:00:00:00:01 && ip4 && ip.ttl == 64` describes a packet: the fields it constrains have
//! these values, all others are 0. It must come to one conjunction of equalities: `ip` alone is ambiguous (IPv4 or IPv6),
//! `ip && ip4.src == 10.0.0.1` is not.

use crate::annotated::Annotated;
use crate::clause_algebra;
use crate::context::{MatchContext, PortGroups};
use crate::error::{Error, Span};
use crate::evaluate::FieldValues;
use crate::field::Field;
use crate::normal::{Clause, Normalized, PortDim};
use crate::template;

/// The fields of a described packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Microflow {
    /// Value and mask of the bits that were given, in ascending order of fields.
    integers: Vec<(Field, crate::Masked)>,
    ports: Vec<(Field, Box<str>)>,
}

impl Microflow {
    /// The integer fields that were given, with the bits that were: the others are 0.
    pub fn integers(&self) -> impl Iterator<Item = (Field, crate::Masked)> + '_ {
        self.integers.iter().copied()
    }

    /// The string fields that were given.
    pub fn ports(&self) -> impl Iterator<Item = (Field, &str)> {
        self.ports.iter().map(|(field, name)| (*field, &**name))
    }

    /// The input port, empty when it was not given.
    #[must_use]
    pub fn inport(&self) -> &str {
        self.string(Field::InPort)
    }
}

impl FieldValues for Microflow {
    fn integer(&self, field: Field) -> u128 {
        self.integers.iter().find(|(f, _)| *f == field).map_or(0, |(_, given)| given.value)
    }

    fn string(&self, field: Field) -> &str {
        self.ports.iter().find(|(f, _)| *f == field).map_or("", |(_, name)| name)
    }
}

/// Parses the description of a packet. `is_chassis_resident` counts as true.
///
/// # Errors
/// OVN's message: those of [`crate::parse_match`], "Constraints are contradictory." when nothing can match, and "Constraints are
/// ambiguous: …" with the annotated expression when there is a choice.
pub fn parse_microflow(text: &str, context: &MatchContext<'_>) -> Result<Microflow, Error> {
    let e = crate::parse_match(text, context)?;
    let everything = Span::new(0, template::expand(text, context.templates).len());
    let normal = Normalized::new(&e, None).map_err(|problem| Error::new(everything, problem.to_string()))?;
    let ambiguous = || {
        let annotated = Annotated::new(&e, context.address_sets, context.port_groups);
        let message = format!("Constraints are ambiguous: {annotated}.");
        Error::new(everything, message)
    };
    let contradictory = || Error::new(everything, "Constraints are contradictory.");

    let mut clauses: Vec<Clause> = normal.clauses;
    clauses.retain(|clause| clause.residency.iter().all(|residency| !residency.negated));
    clauses.iter_mut().for_each(|clause| clause.residency.clear());
    let mut clauses = clause_algebra::simplify(clauses);
    let clause = match (clauses.pop(), clauses.is_empty()) {
        (None, _) => return Err(contradictory()),
        (Some(_), false) => return Err(ambiguous()),
        (Some(only), true) => only,
    };
    let mut packet = Microflow::default();
    for dim in &clause.dims {
        match dim.resolve(context.address_sets)[..] {
            [] => return Err(contradictory()),
            [only] => packet.integers.push((dim.field, only)),
            _ => return Err(ambiguous()),
        }
    }
    for dim in &clause.ports {
        match &candidates(dim, context.port_groups)[..] {
            [] => return Err(contradictory()),
            [only] => packet.ports.push((dim.field, only.clone())),
            _ => return Err(ambiguous()),
        }
    }
    Ok(packet)
}

/// The ports that pass every term.
fn candidates(dim: &PortDim, groups: &dyn PortGroups) -> Vec<Box<str>> {
    let mut terms = dim.terms.iter().map(|term| {
        let members = term.groups.iter().flat_map(|group| groups.port_group(group).unwrap_or_default());
        let mut names: Vec<Box<str>> = term.names.iter().chain(members).cloned().collect();
        names.sort_unstable();
        names.dedup();
        names
    });
    let Some(mut passing) = terms.next() else { return Vec::new() };
    for names in terms {
        passing.retain(|name| names.contains(name));
    }
    passing
}
