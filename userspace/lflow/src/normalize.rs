//! From the tree to the normal form, adding prerequisites on the way.
//!
//! OVN adds a field's prerequisites where the field is compared, after the text's own negations have been applied: so
//! `!(tcp.dst == 80)` is `tcp.dst != 80 && tcp`, TCP to another port, not "anything but TCP to 80". A predicate however is
//! expanded with its fields' prerequisites first and then negated as a whole: `!ip.first_frag` holds for whatever is not IP.

use crate::clause_algebra::{self as algebra, Simplified};
use crate::constant::Constant;
use crate::expr::{ConstantSet, Expr, FieldRef, RelOp};
use crate::normal::{Clause, Dim, Masked, Normalized, PortDim, PortTerm, Residency, SetRef, Term};
use crate::symbol::Symbol;
use smallvec::SmallVec;

/// A match has at most so many clauses.
pub const MAX_CLAUSES: usize = 4096;

/// Why an expression has no normal form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NormalizeError {
    /// A conjunction of disjunctions over different fields multiplies out to too many clauses.
    #[error("match expands to more than {MAX_CLAUSES} clauses")]
    TooManyClauses,
    /// The field can only be assigned to.
    #[error("field {0} cannot be matched")]
    NotMatchable(&'static str),
}

impl Normalized {
    /// The normal form of `e`, and of the actions' `prerequisites` ([`crate::Actions::prerequisites`]) if there are any.
    ///
    /// # Errors
    /// [`NormalizeError`], which says nothing about the packets: the flow cannot be used.
    pub fn new(e: &Expr, prerequisites: Option<&Expr>) -> Result<Normalized, NormalizeError> {
        let mut clauses = disjunction(e, false)?;
        if let Some(prerequisites) = prerequisites {
            let more = disjunction(prerequisites, false)?;
            clauses = algebra::and(clauses, &more, MAX_CLAUSES).ok_or(NormalizeError::TooManyClauses)?;
        }
        Ok(Normalized { clauses })
    }
}

fn constant(value: bool) -> Vec<Clause> {
    if value { vec![Clause::default()] } else { Vec::new() }
}

/// The clauses of `e`, or of its negation after prerequisites were added (inside a negated predicate).
fn disjunction(e: &Expr, negate: bool) -> Result<Vec<Clause>, NormalizeError> {
    match e {
        Expr::Bool(value) => Ok(constant(*value != negate)),
        Expr::Cmp { field, op, values, span: _ } => comparison(*field, *op, values, negate),
        Expr::Test { field, negated, span: _ } => {
            if field.symbol.expansion().is_some() {
                return predicate(field.symbol, *negated == negate);
            }
            let zero = Masked::of_constant(
                &crate::constant::Integer::new(0, crate::constant::Format::Decimal),
                field.base_offset(),
                field.width,
            );
            let term = Term { negated: *negated == negate, literals: SmallVec::from_buf([zero]), sets: Vec::new() };
            atom(*field, term, negate)
        }
        Expr::Resident { port, negated, span: _ } => {
            let residency = Residency { port: port.clone(), negated: *negated != negate };
            Ok(vec![Clause { residency: vec![residency], ..Clause::default() }])
        }
        Expr::And(list) | Expr::Or(list) => {
            if matches!(e, Expr::And(_)) != negate {
                conjunction(list.iter().map(|e| disjunction(e, negate)))
            } else {
                union(list.iter().map(|e| disjunction(e, negate)))
            }
        }
    }
}

fn conjunction(
    parts: impl IntoIterator<Item = Result<Vec<Clause>, NormalizeError>>,
) -> Result<Vec<Clause>, NormalizeError> {
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return Ok(constant(true)) };
    let mut clauses = first?;
    for part in parts {
        clauses = algebra::and(clauses, &part?, MAX_CLAUSES).ok_or(NormalizeError::TooManyClauses)?;
    }
    Ok(clauses)
}

fn union(parts: impl IntoIterator<Item = Result<Vec<Clause>, NormalizeError>>) -> Result<Vec<Clause>, NormalizeError> {
    let mut clauses = Vec::new();
    for part in parts {
        algebra::or(&mut clauses, part?);
    }
    let clauses = algebra::simplify(clauses);
    if clauses.len() > MAX_CLAUSES { Err(NormalizeError::TooManyClauses) } else { Ok(clauses) }
}

/// The clauses of a predicate or of its negation; worked out once per symbol.
fn predicate(symbol: Symbol, positive: bool) -> Result<Vec<Clause>, NormalizeError> {
    symbol.normal_form(positive, |expansion| disjunction(expansion, !positive)).map(<[Clause]>::to_vec)
}

fn comparison(field: FieldRef, op: RelOp, values: &ConstantSet, negate: bool) -> Result<Vec<Clause>, NormalizeError> {
    if field.symbol.expansion().is_some() {
        // One-bit constants only; `==` is any of them, `!=` all.
        let parts = values.values.iter().map(|value| {
            let odd = matches!(value, Constant::Integer(n) if n.value & 1 == 1);
            predicate(field.symbol, odd != ((op == RelOp::Ne) != negate))
        });
        return if (op == RelOp::Eq) != negate { union(parts) } else { conjunction(parts) };
    }
    if field.is_string() {
        return ports(field, values);
    }
    if field.symbol.field().is_some_and(crate::Field::is_write_only) {
        return Err(NormalizeError::NotMatchable(field.symbol.name()));
    }
    let (offset, width) = (field.base_offset(), field.width);
    match op {
        RelOp::Eq | RelOp::Ne => {
            let mut term = Term { negated: (op == RelOp::Ne) != negate, ..Term::default() };
            for value in &values.values {
                match value {
                    Constant::Integer(n) => term.literals.push(Masked::of_constant(n, offset, width)),
                    Constant::AddressSet(name) => term.sets.push(SetRef { name: name.clone(), offset, width }),
                    Constant::String(_) | Constant::PortGroup(_) => {}
                }
            }
            atom(field, term, negate)
        }
        RelOp::Lt | RelOp::Le | RelOp::Gt | RelOp::Ge => {
            let literals = match &values.values[..] {
                [Constant::Integer(n)] => Masked::range(if negate { op.negated() } else { op }, n.value, offset, width),
                _ => unreachable!("the parser gives an ordering exactly one integer"),
            };
            let relation = dimension_clauses(field, Term { literals: literals.into(), ..Term::default() });
            with_prerequisite(field.symbol, relation, negate)
        }
    }
}

/// A condition on bits of a field, with the field's prerequisite.
fn atom(field: FieldRef, term: Term, negate: bool) -> Result<Vec<Clause>, NormalizeError> {
    with_prerequisite(field.symbol, dimension_clauses(field, term), negate)
}

fn dimension_clauses(field: FieldRef, term: Term) -> Vec<Clause> {
    let Some(base) = field.symbol.field() else { unreachable!("predicates are expanded before they come here") };
    match algebra::dimension(base, term) {
        Simplified::True => constant(true),
        Simplified::False => constant(false),
        Simplified::Condition(dim) => vec![clause_of(dim)],
    }
}

fn clause_of(dim: Dim) -> Clause {
    Clause { dims: vec![dim], ..Clause::default() }
}

/// `relation && prerequisite`, or the negation of that when `relation` is negated already.
fn with_prerequisite(symbol: Symbol, relation: Vec<Clause>, negate: bool) -> Result<Vec<Clause>, NormalizeError> {
    let Some(prerequisite) = symbol.prerequisite() else { return Ok(relation) };
    let mention = Expr::Test { field: FieldRef::whole(prerequisite), negated: false, span: crate::Span::default() };
    let prerequisite = disjunction(&mention, negate);
    if negate { union([Ok(relation), prerequisite]) } else { conjunction([Ok(relation), prerequisite]) }
}

/// Equality with port names; the parser lets nothing else through for strings.
fn ports(field: FieldRef, values: &ConstantSet) -> Result<Vec<Clause>, NormalizeError> {
    let mut term = PortTerm::default();
    for value in &values.values {
        match value {
            Constant::String(name) => term.names.push(name.clone()),
            Constant::PortGroup(name) => term.groups.push(name.clone()),
            Constant::Integer(_) | Constant::AddressSet(_) => {}
        }
    }
    let Some(base) = field.symbol.field() else { unreachable!("predicates are not strings") };
    let dim = PortDim { field: base, terms: SmallVec::from_buf([term.tidy()]) };
    Ok(vec![Clause { ports: SmallVec::from_buf([dim]), ..Clause::default() }])
}
