//! Conjunction and disjunction of clauses, keeping sets as they are.

use crate::field::Field;
use crate::normal::{Clause, Dim, Masked, PortDim, PortTerm, Term};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Two unions of literals are intersected one by one while that makes at most so many pairs; beyond it they stay two terms.
const MAX_INTERSECTIONS: usize = 64;

/// Literals are compared pairwise in unions up to this size.
const MAX_PAIRWISE: usize = 16;

/// Clauses are checked for covering each other up to this number.
const MAX_COVER_CHECKED: usize = 32;

impl Term {
    /// Sorts and removes what is covered. Returns `None` when the union is every value.
    fn tidy(mut self) -> Option<Term> {
        if self.literals.len() > 1 {
            self.literals.sort_unstable();
            self.literals.dedup();
        }
        if (2..=MAX_PAIRWISE).contains(&self.literals.len()) {
            drop_covered(&mut self.literals);
        }
        if self.sets.len() > 1 {
            self.sets.sort_unstable();
            self.sets.dedup();
        }
        (!self.literals.iter().any(|literal| literal.mask == 0)).then_some(self)
    }

    fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.sets.is_empty()
    }
}

/// Drops literals that another covers. Neighbours are not joined: two exact values are better than one under another mask, both
/// for hash tables and for the reader.
fn drop_covered(literals: &mut SmallVec<[Masked; 1]>) {
    let mut i = 0;
    while i < literals.len() {
        let literal = literals[i];
        if literals.iter().enumerate().any(|(j, other)| j != i && other.contains(&literal)) {
            literals.remove(i);
        } else {
            i += 1;
        }
    }
}

/// What a condition comes to once it is simplified.
pub(crate) enum Simplified<T> {
    True,
    False,
    Condition(T),
}

/// A dimension of one term, simplified.
pub(crate) fn dimension(field: Field, term: Term) -> Simplified<Dim> {
    let negated = term.negated;
    let (constant, opposite) =
        if negated { (Simplified::False, Simplified::True) } else { (Simplified::True, Simplified::False) };
    let Some(mut term) = term.tidy() else { return constant };
    if term.is_empty() {
        return opposite;
    }
    if let (true, [literal], true) = (negated, &mut term.literals[..], term.sets.is_empty())
        && literal.mask.is_power_of_two()
    {
        *literal = Masked::new(!literal.value, literal.mask);
        term.negated = false;
    }
    Simplified::Condition(Dim::of_union(field, term))
}

/// Adds the terms of `more` to `dim`. False when nothing can pass any more.
fn intersect_dims(dim: &mut Dim, more: &Dim) -> bool {
    more.terms.iter().all(|term| add_term(dim, term.clone()))
}

/// Adds a condition to a dimension: drops it if implied, lets it narrow the terms there, or appends it. False on contradiction.
fn add_term(dim: &mut Dim, mut new: Term) -> bool {
    if dim.terms.contains(&new) {
        return true;
    }
    let mut i = 0;
    while i < dim.terms.len() {
        let old = &dim.terms[i];
        match combine(old, &new) {
            Combined::Separate => i += 1,
            Combined::Contradiction => return false,
            Combined::One(term) => {
                // The combination may in turn narrow, or be narrowed by, terms already passed.
                dim.terms.remove(i);
                if dim.terms.contains(&term) {
                    return true;
                }
                new = term;
                i = 0;
            }
        }
    }
    dim.terms.push(new);
    dim.terms.sort_unstable();
    true
}

enum Combined {
    /// Both have to be kept.
    Separate,
    /// Nothing passes both.
    Contradiction,
    /// This one says the same as both.
    One(Term),
}

fn combine(a: &Term, b: &Term) -> Combined {
    match (a.negated, b.negated) {
        (true, true) => {
            // Neither in the one nor in the other; a union that is everything leaves nothing.
            let mut union = a.clone();
            union.literals.extend(b.literals.iter().copied());
            union.sets.extend(b.sets.iter().cloned());
            union.tidy().map_or(Combined::Contradiction, Combined::One)
        }
        (false, false) => intersect_unions(a, b),
        (false, true) => exclude(a, b),
        (true, false) => exclude(b, a),
    }
}

fn intersect_unions(a: &Term, b: &Term) -> Combined {
    let literals_only = a.sets.is_empty() && b.sets.is_empty();
    if !literals_only
        || a.literals.len() > 1 && b.literals.len() > 1 && a.literals.len() * b.literals.len() > MAX_INTERSECTIONS
    {
        return Combined::Separate;
    }
    let pairs = a.literals.iter().flat_map(|x| b.literals.iter().filter_map(|y| x.intersect(y)));
    let both = Term { negated: false, literals: pairs.collect(), sets: Vec::new() };
    match both.tidy() {
        Some(term) if term.is_empty() => Combined::Contradiction,
        Some(term) => Combined::One(term),
        // Only two unions of everything intersect to everything, and those are not kept as terms.
        None => Combined::Separate,
    }
}

/// `union` without `holes`, where that needs no splitting of the union's literals.
fn exclude(union: &Term, holes: &Term) -> Combined {
    if !union.sets.is_empty() || !holes.sets.is_empty() {
        return Combined::Separate;
    }
    let kept: SmallVec<[Masked; 1]> = union
        .literals
        .iter()
        .filter(|literal| !holes.literals.iter().any(|hole| hole.contains(literal)))
        .copied()
        .collect();
    if kept.is_empty() {
        return Combined::Contradiction;
    }
    let cut = |hole: &Masked| kept.iter().any(|literal| literal.intersect(hole).is_some());
    if holes.literals.iter().any(cut) {
        return Combined::Separate;
    }
    Combined::One(Term { negated: false, literals: kept, sets: Vec::new() })
}

/// Adds a condition on a port. False on contradiction.
fn add_port_term(dim: &mut PortDim, new: &PortTerm) -> bool {
    if dim.terms.contains(new) {
        return true;
    }
    if new.groups.is_empty()
        && let Some(old) = dim.terms.iter_mut().find(|old| old.groups.is_empty())
    {
        old.names.retain(|name| new.names.contains(name));
        return !old.names.is_empty();
    }
    dim.terms.push(new.clone());
    dim.terms.sort_unstable();
    true
}

impl Clause {
    /// Adds the conditions of `other`. False when nothing can match any more.
    fn intersect(&mut self, other: &Clause) -> bool {
        for dim in &other.dims {
            match self.dims.binary_search_by_key(&dim.field, |d| d.field) {
                Ok(i) => {
                    if !intersect_dims(&mut self.dims[i], dim) {
                        return false;
                    }
                }
                Err(i) => self.dims.insert(i, dim.clone()),
            }
        }
        for dim in &other.ports {
            match self.ports.binary_search_by_key(&dim.field, |d| d.field) {
                Ok(i) => {
                    if !dim.terms.iter().all(|term| add_port_term(&mut self.ports[i], term)) {
                        return false;
                    }
                }
                Err(i) => self.ports.insert(i, dim.clone()),
            }
        }
        for residency in &other.residency {
            if self.residency.iter().any(|r| r.port == residency.port && r.negated != residency.negated) {
                return false;
            }
            if let Err(i) = self.residency.binary_search(residency) {
                self.residency.insert(i, residency.clone());
            }
        }
        true
    }

    /// Whether whatever matches `other` matches this, as far as equal conditions tell.
    fn covers(&self, other: &Clause) -> bool {
        self.dims.iter().all(|dim| other.dims.contains(dim))
            && self.ports.iter().all(|dim| other.ports.contains(dim))
            && self.residency.iter().all(|r| other.residency.contains(r))
    }
}

/// The conjunction of two disjunctions, or `None` when it would have more than `limit` clauses.
pub(crate) fn and(left: Vec<Clause>, right: &[Clause], limit: usize) -> Option<Vec<Clause>> {
    match right {
        [only] => {
            let mut clauses = left;
            clauses.retain_mut(|clause| clause.intersect(only));
            Some(if clauses.len() > 1 { simplify(clauses) } else { clauses })
        }
        _ if left.len().saturating_mul(right.len()) > limit => None,
        _ => {
            let pairs = left.iter().flat_map(|a| {
                right.iter().filter_map(|b| {
                    let mut both = a.clone();
                    both.intersect(b).then_some(both)
                })
            });
            Some(simplify(pairs.collect()))
        }
    }
}

/// The disjunction of two disjunctions, not yet simplified.
pub(crate) fn or(left: &mut Vec<Clause>, mut right: Vec<Clause>) {
    left.append(&mut right);
}

/// Joins clauses that differ in one dimension only, and drops clauses that others cover.
pub(crate) fn simplify(mut clauses: Vec<Clause>) -> Vec<Clause> {
    if clauses.len() < 2 {
        return clauses;
    }
    if clauses.iter().any(Clause::is_true) {
        return vec![Clause::default()];
    }
    loop {
        let before = clauses.len();
        for &field in Field::ALL {
            if clauses.len() < 2 {
                return clauses;
            }
            if field.is_string() {
                clauses = join_ports(clauses, field);
            } else {
                clauses = join_dims(clauses, field);
            }
        }
        if clauses.len() == before {
            break;
        }
    }
    if clauses.len() <= MAX_COVER_CHECKED {
        let mut i = 0;
        while i < clauses.len() {
            if (0..clauses.len()).any(|j| j != i && clauses[j].covers(&clauses[i])) {
                clauses.remove(i);
            } else {
                i += 1;
            }
        }
    }
    clauses
}

/// Joins clauses that are equal but for a union over `field`.
fn join_dims(clauses: Vec<Clause>, field: Field) -> Vec<Clause> {
    let joinable = |clause: &Clause| clause.dim(field).is_some_and(|dim| dim.as_union().is_some());
    if clauses.iter().filter(|clause| joinable(clause)).count() < 2 {
        return clauses;
    }
    let mut out: Vec<Clause> = Vec::with_capacity(clauses.len());
    // The rest of a clause → its place in `out` and the union over `field`.
    let mut unions: FxHashMap<Clause, (usize, Term)> = FxHashMap::default();
    for mut clause in clauses {
        if !joinable(&clause) {
            out.push(clause);
            continue;
        }
        let at = clause.dims.iter().position(|dim| dim.field == field).unwrap_or_default();
        let mut term = clause.dims.remove(at).terms.remove(0);
        unions
            .entry(clause)
            .and_modify(|(_, union)| {
                union.literals.append(&mut term.literals);
                union.sets.append(&mut term.sets);
            })
            .or_insert_with_key(|clause| {
                out.push(clause.clone());
                (out.len() - 1, term)
            });
    }
    for (_, (place, term)) in unions {
        if let Simplified::Condition(dim) = dimension(field, term) {
            let dims = &mut out[place].dims;
            let at = dims.partition_point(|d| d.field < field);
            dims.insert(at, dim);
        }
    }
    out
}

/// Joins clauses that are equal but for a union over the string field `field`.
fn join_ports(clauses: Vec<Clause>, field: Field) -> Vec<Clause> {
    let joinable = |clause: &Clause| clause.port_dim(field).is_some_and(|dim| dim.terms.len() == 1);
    if clauses.iter().filter(|clause| joinable(clause)).count() < 2 {
        return clauses;
    }
    let mut out: Vec<Clause> = Vec::with_capacity(clauses.len());
    let mut unions: FxHashMap<Clause, (usize, PortTerm)> = FxHashMap::default();
    for mut clause in clauses {
        if !joinable(&clause) {
            out.push(clause);
            continue;
        }
        let at = clause.ports.iter().position(|dim| dim.field == field).unwrap_or_default();
        let mut term = clause.ports.remove(at).terms.remove(0);
        unions
            .entry(clause)
            .and_modify(|(_, union)| {
                union.names.append(&mut term.names);
                union.groups.append(&mut term.groups);
            })
            .or_insert_with_key(|clause| {
                out.push(clause.clone());
                (out.len() - 1, term)
            });
    }
    for (_, (place, term)) in unions {
        let ports = &mut out[place].ports;
        let at = ports.partition_point(|d| d.field < field);
        ports.insert(at, PortDim { field, terms: SmallVec::from_buf([term.tidy()]) });
    }
    out
}

impl PortTerm {
    pub(crate) fn tidy(mut self) -> PortTerm {
        self.names.sort_unstable();
        self.names.dedup();
        self.groups.sort_unstable();
        self.groups.dedup();
        self
    }
}
