//! Evaluation of matches on concrete packets: of the tree, and of the normal form. The two are each other's oracle.

use crate::constant::{Constant, Integer};
use crate::context::{AddressSets, PortGroups};
use crate::expr::{ConstantSet, Expr, FieldRef, RelOp};
use crate::field::{Field, ones};
use crate::normal::{Clause, Dim, Masked, Normalized, PortDim, Term};
use crate::symbol::Symbol;

/// Values of the fields of a packet.
pub trait FieldValues {
    /// The value of an integer field, no wider than the field. A field that the packet does not have may be anything: the
    /// prerequisites see to it that it does not matter.
    fn integer(&self, field: Field) -> u128;

    /// The name in a string field; empty for none.
    fn string(&self, field: Field) -> &str;
}

/// A packet and the world around it.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The packet.
    pub packet: &'a dyn FieldValues,
    /// For `$name`; a set that does not exist is empty.
    pub address_sets: &'a dyn AddressSets,
    /// For `@name`; a group that does not exist is empty.
    pub port_groups: &'a dyn PortGroups,
    /// Whether a logical port is resident on this chassis.
    pub resident: &'a dyn Fn(&str) -> bool,
}

impl Environment<'_> {
    fn in_set(&self, name: &str, bits: u128, width: u8) -> bool {
        self.address_sets
            .address_set(name)
            .is_some_and(|set| set.members.iter().any(|member| Masked::of_constant(member, 0, width).matches(bits)))
    }

    fn in_group(&self, name: &str, port: &str) -> bool {
        self.port_groups.port_group(name).is_some_and(|ports| ports.iter().any(|p| &**p == port))
    }
}

impl Expr {
    /// Whether the packet matches, implied prerequisites included.
    #[must_use]
    pub fn evaluate(&self, environment: &Environment<'_>) -> bool {
        match self {
            Expr::Bool(value) => *value,
            Expr::Cmp { field, op, values, span: _ } => compare(*field, *op, values, environment),
            Expr::Test { field, negated, span: _ } => {
                if field.symbol.expansion().is_some() {
                    return holds(field.symbol, environment) != *negated;
                }
                (bits(*field, environment) != 0) != *negated && prerequisites_hold(field.symbol, environment)
            }
            Expr::Resident { port, negated, span: _ } => (environment.resident)(port) != *negated,
            Expr::And(list) => list.iter().all(|e| e.evaluate(environment)),
            Expr::Or(list) => list.iter().any(|e| e.evaluate(environment)),
        }
    }
}

fn bits(field: FieldRef, environment: &Environment<'_>) -> u128 {
    let Some(base) = field.symbol.field() else { return u128::from(holds(field.symbol, environment)) };
    environment.packet.integer(base) >> field.base_offset() & ones(field.width)
}

/// Whether a predicate, or a one-bit field used as one, is true.
fn holds(symbol: Symbol, environment: &Environment<'_>) -> bool {
    match symbol.expansion() {
        Some(expansion) => expansion.evaluate(environment),
        None => bits(FieldRef::whole(symbol), environment) != 0 && prerequisites_hold(symbol, environment),
    }
}

fn prerequisites_hold(symbol: Symbol, environment: &Environment<'_>) -> bool {
    symbol.prerequisite().is_none_or(|prerequisite| holds(prerequisite, environment))
}

fn compare(field: FieldRef, op: RelOp, values: &ConstantSet, environment: &Environment<'_>) -> bool {
    let symbol = field.symbol;
    if field.is_string() {
        let Some(base) = symbol.field() else { return false };
        let port = environment.packet.string(base);
        let found = values.values.iter().any(|value| match value {
            Constant::String(name) => &**name == port,
            Constant::PortGroup(name) => environment.in_group(name, port),
            Constant::Integer(_) | Constant::AddressSet(_) => false,
        });
        return found == (op == RelOp::Eq);
    }
    let left = bits(field, environment);
    let equal = |n: &Integer| {
        if symbol.field().is_none() {
            // Of a constant compared with a predicate OVN looks at the lowest bit, whatever its mask.
            return left == n.value & 1;
        }
        let mask = if n.masked { n.mask & ones(field.width) } else { ones(field.width) };
        left & mask == n.value & mask
    };
    let holds = match op {
        RelOp::Eq | RelOp::Ne => {
            let found = values.values.iter().any(|value| match value {
                Constant::Integer(n) => equal(n),
                Constant::AddressSet(name) => environment.in_set(name, left, field.width),
                Constant::String(_) | Constant::PortGroup(_) => false,
            });
            found == (op == RelOp::Eq)
        }
        RelOp::Lt | RelOp::Le | RelOp::Gt | RelOp::Ge => values.values.iter().all(|value| match value {
            Constant::Integer(n) => op.holds(left, n.value & ones(field.width)),
            _ => false,
        }),
    };
    holds && prerequisites_hold(symbol, environment)
}

impl Normalized {
    /// Whether the packet matches.
    #[must_use]
    pub fn evaluate(&self, environment: &Environment<'_>) -> bool {
        self.clauses.iter().any(|clause| clause.evaluate(environment))
    }
}

impl Clause {
    /// Whether the packet matches.
    #[must_use]
    pub fn evaluate(&self, environment: &Environment<'_>) -> bool {
        self.dims.iter().all(|dim| dim.evaluate(environment))
            && self.ports.iter().all(|dim| dim.evaluate(environment))
            && self.residency.iter().all(|r| (environment.resident)(&r.port) != r.negated)
    }
}

impl Dim {
    /// Whether the packet's value passes.
    #[must_use]
    pub fn evaluate(&self, environment: &Environment<'_>) -> bool {
        let value = environment.packet.integer(self.field);
        self.terms.iter().all(|term| term.evaluate(value, environment))
    }
}

impl Term {
    fn evaluate(&self, value: u128, environment: &Environment<'_>) -> bool {
        let in_set = |set: &crate::normal::SetRef| {
            environment.in_set(&set.name, value >> set.offset & ones(set.width), set.width)
        };
        let found = self.literals.iter().any(|literal| literal.matches(value)) || self.sets.iter().any(in_set);
        found != self.negated
    }
}

impl PortDim {
    /// Whether the packet's port passes.
    #[must_use]
    pub fn evaluate(&self, environment: &Environment<'_>) -> bool {
        let port = environment.packet.string(self.field);
        self.terms.iter().all(|term| {
            term.names.iter().any(|name| &**name == port)
                || term.groups.iter().any(|name| environment.in_group(name, port))
        })
    }
}
