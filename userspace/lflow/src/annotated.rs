//! The annotated form: every comparison on a whole field, prerequisites and predicates written out, sets with their members.
//!
//! This is the form OVN shows in "Constraints are ambiguous: …", and its printing follows OVN's.

use crate::constant::{Constant, Integer};
use crate::context::{AddressSets, PortGroups};
use crate::expr::{ConstantSet, Expr, FieldRef, RelOp};
use crate::normal::Masked;
use crate::quoted::Quoted;
use crate::symbol::Symbol;
use std::fmt;

/// An annotated expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotated {
    /// A constant.
    Bool(bool),
    /// A comparison of the masked bits of a field.
    Integer {
        /// A symbol that is a whole field or, for a subfield, the name of the field.
        name: &'static str,
        /// Width of the field in bits.
        width: u8,
        /// The relation; for `<` and the like, among the masked bits as a number.
        op: RelOp,
        /// What is compared with.
        operand: Masked,
    },
    /// Equality of a port name.
    Port {
        /// `inport`, …
        name: &'static str,
        /// `==`, or `!=` where it was parsed under an even number of negations.
        op: RelOp,
        /// The port.
        port: Box<str>,
    },
    /// `is_chassis_resident`.
    Resident {
        /// The port.
        port: Box<str>,
        /// Negated.
        negated: bool,
    },
    /// All of these; flat.
    And(Vec<Annotated>),
    /// Any of these; flat.
    Or(Vec<Annotated>),
}

impl Annotated {
    /// Annotates `e`. Sets and groups that do not exist are empty.
    #[must_use]
    pub fn new(e: &Expr, address_sets: &dyn AddressSets, port_groups: &dyn PortGroups) -> Annotated {
        Annotator { address_sets, port_groups }.annotate(e)
    }

    /// The opposite.
    #[must_use]
    pub fn negate(self) -> Annotated {
        match self {
            Annotated::Bool(value) => Annotated::Bool(!value),
            Annotated::Integer { name, width, op, operand } => {
                Annotated::Integer { name, width, op: op.negated(), operand }
            }
            Annotated::Port { name, op, port } => Annotated::Port { name, op: op.negated(), port },
            Annotated::Resident { port, negated } => Annotated::Resident { port, negated: !negated },
            Annotated::And(list) => Annotated::Or(list.into_iter().map(Annotated::negate).collect()),
            Annotated::Or(list) => Annotated::And(list.into_iter().map(Annotated::negate).collect()),
        }
    }
}

struct Annotator<'a> {
    address_sets: &'a dyn AddressSets,
    port_groups: &'a dyn PortGroups,
}

/// Conjunction or disjunction of the parts, flat; of one part, that part.
fn chain(conjunction: bool, parts: impl IntoIterator<Item = Annotated>) -> Annotated {
    let mut list = Vec::new();
    for part in parts {
        match part {
            Annotated::And(mut inner) if conjunction => list.append(&mut inner),
            Annotated::Or(mut inner) if !conjunction => list.append(&mut inner),
            part => list.push(part),
        }
    }
    match (list.pop(), list.is_empty()) {
        (None, _) => Annotated::Bool(conjunction),
        (Some(only), true) => only,
        (Some(last), false) => {
            list.push(last);
            if conjunction { Annotated::And(list) } else { Annotated::Or(list) }
        }
    }
}

/// The symbol that every comparison of `e` is about, if there is only one.
fn unique_symbol(e: &Expr) -> Option<Symbol> {
    match e {
        Expr::Cmp { field, .. } | Expr::Test { field, .. } => Some(field.symbol),
        Expr::Bool(_) | Expr::Resident { .. } => None,
        Expr::And(list) | Expr::Or(list) => {
            let mut symbols = list.iter().map(unique_symbol);
            let first = symbols.next()??;
            symbols.all(|symbol| symbol == Some(first)).then_some(first)
        }
    }
}

/// Who adds a prerequisite: each comparison, or something above that does it once for all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prerequisites {
    Add,
    AddedAbove,
}

impl Annotator<'_> {
    fn annotate(&self, e: &Expr) -> Annotated {
        self.annotate_within(e, Prerequisites::Add, None)
    }

    /// `chained` is the operator of the chain that `e` is part of: true for `&&`. A set compared in a chain of the same operator
    /// is part of that chain, so its prerequisite goes to each member; elsewhere it stands once behind the set.
    fn annotate_within(&self, e: &Expr, prerequisites: Prerequisites, chained: Option<bool>) -> Annotated {
        match e {
            Expr::Bool(value) => Annotated::Bool(*value),
            Expr::Cmp { field, op, values, span: _ } => {
                if prerequisites == Prerequisites::Add && chained != Some(*op != RelOp::Eq) {
                    let relation = self.compare(*field, *op, values, Prerequisites::AddedAbove);
                    return self.with_prerequisite(relation, field.symbol);
                }
                self.compare(*field, *op, values, prerequisites)
            }
            Expr::Test { field, negated, span: _ } => self.test(*field, *negated, prerequisites),
            Expr::Resident { port, negated, span: _ } => Annotated::Resident { port: port.clone(), negated: *negated },
            Expr::And(list) | Expr::Or(list) => {
                let conjunction = matches!(e, Expr::And(_));
                let parts =
                    |how| chain(conjunction, list.iter().map(|e| self.annotate_within(e, how, Some(conjunction))));
                match unique_symbol(e) {
                    Some(symbol) if prerequisites == Prerequisites::Add => {
                        self.with_prerequisite(parts(Prerequisites::AddedAbove), symbol)
                    }
                    _ => parts(prerequisites),
                }
            }
        }
    }

    fn test(&self, field: FieldRef, negated: bool, prerequisites: Prerequisites) -> Annotated {
        let zero = Integer::new(0, crate::constant::Format::Hexadecimal);
        self.compare_integer(field, if negated { RelOp::Eq } else { RelOp::Ne }, &zero, prerequisites)
    }

    fn compare(&self, field: FieldRef, op: RelOp, values: &ConstantSet, prerequisites: Prerequisites) -> Annotated {
        let integer = |n| self.compare_integer(field, op, n, prerequisites);
        let port = |name: &str| Annotated::Port { name: field.symbol.name(), op, port: name.into() };
        let parts = values.values.iter().flat_map(|value| match value {
            Constant::Integer(n) => vec![integer(n)],
            Constant::AddressSet(name) => {
                let members = self.address_sets.address_set(name).map_or(&[][..], |set| &set.members);
                members.iter().map(integer).collect()
            }
            Constant::String(name) => vec![port(name)],
            Constant::PortGroup(name) => {
                self.port_groups.port_group(name).unwrap_or_default().iter().map(|name| port(name)).collect()
            }
        });
        chain(op != RelOp::Eq, parts)
    }

    fn compare_integer(&self, field: FieldRef, op: RelOp, n: &Integer, prerequisites: Prerequisites) -> Annotated {
        let symbol = field.symbol;
        if let Some(expansion) = symbol.expansion() {
            let expansion = self.annotate(expansion);
            return if (n.value & 1 == 1) != (op == RelOp::Ne) { expansion } else { expansion.negate() };
        }
        let Some(base) = symbol.field() else { unreachable!("a symbol is a predicate or has a field") };
        let whole = symbol.width() == base.width();
        let relation = Annotated::Integer {
            name: if whole { symbol.name() } else { base.name() },
            width: base.width(),
            op,
            operand: Masked::of_constant(n, field.base_offset(), field.width),
        };
        if prerequisites == Prerequisites::Add { self.with_prerequisite(relation, symbol) } else { relation }
    }

    fn with_prerequisite(&self, relation: Annotated, symbol: Symbol) -> Annotated {
        match symbol.prerequisite() {
            None => relation,
            Some(prerequisite) => {
                let prerequisite = self.test(FieldRef::whole(prerequisite), false, Prerequisites::Add);
                chain(true, [relation, prerequisite])
            }
        }
    }
}

/// The lowest one of `mask` and the number of ones, when they are contiguous.
fn contiguous(mask: u128) -> Option<(u32, u32)> {
    let (offset, ones) = (mask.trailing_zeros(), mask.count_ones());
    (mask != 0 && offset + ones + mask.leading_zeros() == u128::BITS).then_some((offset, ones))
}

/// A number in OVN's hexadecimal: `0` without a prefix.
struct Hex(u128);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { write!(f, "{:#x}", self.0) }
    }
}

impl fmt::Display for Annotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Annotated::Bool(value) => f.write_str(if *value { "1" } else { "0" }),
            Annotated::Integer { name, width, op, operand } => fmt_integer(name, *width, *op, operand, f),
            Annotated::Port { name, op, port } => write!(f, "{name} {} {}", op.as_str(), Quoted(port)),
            Annotated::Resident { port, negated } => {
                write!(f, "{}is_chassis_resident({})", if *negated { "!" } else { "" }, Quoted(port))
            }
            Annotated::And(list) => fmt_chain(list, " && ", f),
            Annotated::Or(list) => fmt_chain(list, " || ", f),
        }
    }
}

fn fmt_integer(name: &str, width: u8, op: RelOp, operand: &Masked, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some((offset, ones)) = contiguous(operand.mask) else {
        return write!(f, "{name} {} {}/{}", op.as_str(), Hex(operand.value), Hex(operand.mask));
    };
    let value = operand.value >> offset;
    if ones == 1 && matches!(op, RelOp::Eq | RelOp::Ne) {
        let bang = if (value == 1) == (op == RelOp::Eq) { "" } else { "!" };
        return match width {
            1 => write!(f, "{bang}{name}"),
            _ => write!(f, "{bang}{name}[{offset}]"),
        };
    }
    f.write_str(name)?;
    match ones {
        _ if ones == u32::from(width) => {}
        1 => write!(f, "[{offset}]")?,
        _ => write!(f, "[{offset}..{}]", offset + ones - 1)?,
    }
    write!(f, " {} {}", op.as_str(), Hex(value))
}

fn fmt_chain(list: &[Annotated], operator: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, e) in list.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        match e {
            Annotated::And(_) | Annotated::Or(_) => write!(f, "({e})")?,
            _ => write!(f, "{e}")?,
        }
    }
    Ok(())
}
