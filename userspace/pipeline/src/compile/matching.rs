//! From clauses of the normal form to conditions of the IR.

use super::sets::{SetKey, key_alternative, port_field};
use crate::ir::{Alternatives, Dim, Field, Masked};
use oxbow_lflow::normal::{Clause, PortDim, PortTerm, Residency, SetRef};
use oxbow_lflow::{AddressSets, Normalized, Nothing};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A clause, prepared once.
#[derive(Debug)]
pub(crate) struct Form {
    clause: Clause,
    /// The conditions, when they are the same on every datapath and chassis.
    shared: Option<Option<Arc<[Dim]>>>,
}

/// What a clause refers to by name.
pub(crate) trait Names {
    /// Key of a port or group on the flow's datapath; `None` when there is none.
    fn key(&mut self, name: &str) -> Option<u32>;
    /// Keys of the ports of a port group on the flow's datapath.
    fn group(&mut self, name: &str) -> Vec<u32>;
    /// The set of a port group's ports on the flow's datapath.
    fn group_set(&mut self, name: &str) -> SetKey;
    /// Whether a port is on this chassis.
    fn resident(&mut self, port: &str) -> bool;
    /// The address sets as they are; the clause is told of later changes of the named ones.
    fn contents(&mut self, names: &[&str]) -> &dyn AddressSets;
    /// Makes a set known and counts its user.
    fn acquire(&mut self, key: &SetKey) -> crate::ir::SetId;
}

/// Prepares the clauses of a match.
pub(crate) fn forms(normalized: Normalized) -> Vec<Form> {
    normalized
        .clauses
        .into_iter()
        .map(|clause| {
            let named = !clause.ports.is_empty()
                || !clause.residency.is_empty()
                || clause.dims.iter().any(|dim| dim.sets().next().is_some());
            if named {
                Form { clause, shared: None }
            } else {
                // The clause itself is not needed any more.
                Form { shared: Some(literal(&clause)), clause: Clause::default() }
            }
        })
        .collect()
}

/// Conditions of a clause that names nothing; `None`: nothing can match.
fn literal(clause: &Clause) -> Option<Arc<[Dim]>> {
    let mut dims = Vec::with_capacity(clause.dims.len());
    for dim in &clause.dims {
        dims.push(list(port_field(dim.field), dim.resolve(&Nothing))?);
    }
    finish(dims)
}

fn list(field: Field, mut alternatives: Vec<Masked>) -> Option<Dim> {
    alternatives.sort_unstable();
    alternatives.dedup();
    (!alternatives.is_empty()).then(|| Dim { field, alternatives: Alternatives::List(alternatives.into()) })
}

/// Sorts; two conditions on one field (a port by name and by number) become one.
fn finish(mut dims: Vec<Dim>) -> Option<Arc<[Dim]>> {
    dims.sort_by_key(|dim| dim.field);
    let mut merged: Vec<Dim> = Vec::with_capacity(dims.len());
    for dim in dims {
        match merged.last_mut() {
            Some(last) if last.field == dim.field => match (&last.alternatives, &dim.alternatives) {
                (Alternatives::List(a), Alternatives::List(b)) => *last = list(dim.field, Masked::intersect_all(a, b))?,
                // Only lists are made where both forms occur.
                _ => return None,
            },
            _ => merged.push(dim),
        }
    }
    Some(merged.into())
}

impl Form {
    /// The conditions as they are now; `None`: nothing can match.
    pub(crate) fn dims(&self, names: &mut dyn Names) -> Option<Arc<[Dim]>> {
        if let Some(shared) = &self.shared {
            return shared.clone();
        }
        let clause = &self.clause;
        // Every name is looked at, so that a change of any is heard of.
        let mut holds = true;
        for Residency { port, negated } in &clause.residency {
            holds &= names.resident(port) != *negated;
        }
        let numeric = |field: Field| clause.dims.iter().any(|dim| port_field(dim.field) == field);
        let mut dims = Vec::new();
        let mut acquired = Vec::new();
        for port in &clause.ports {
            match ports(port, numeric(port.field), names) {
                Some(Wanted::List(dim)) => dims.push(dim),
                Some(Wanted::Set(field, key)) => acquired.push((field, key)),
                None => holds = false,
            }
        }
        for dim in &clause.dims {
            let field = port_field(dim.field);
            match dim.as_union() {
                Some(([], [SetRef { name, offset, width }])) => {
                    let key = SetKey::Addresses { name: Arc::from(&**name), offset: *offset, width: *width };
                    acquired.push((field, key));
                }
                _ => {
                    let sets: Vec<&str> = dim.sets().map(|set| &*set.name).collect();
                    match list(field, dim.resolve(names.contents(&sets))) {
                        Some(dim) => dims.push(dim),
                        None => holds = false,
                    }
                }
            }
        }
        if !holds {
            return None;
        }
        let mut dims = finish(dims)?.to_vec();
        // Last, so that a set is never acquired for nothing.
        for (field, key) in acquired {
            dims.push(Dim { field, alternatives: Alternatives::Set(names.acquire(&key)) });
        }
        dims.sort_by_key(|dim| dim.field);
        Some(dims.into())
    }
}

enum Wanted {
    List(Dim),
    Set(Field, SetKey),
}

/// What a port may be. `numeric`: the clause also looks at the port's number.
fn ports(dim: &PortDim, numeric: bool, names: &mut dyn Names) -> Option<Wanted> {
    if let [PortTerm { names: one, groups }] = &dim.terms[..]
        && let ([], [group]) = (&one[..], &groups[..])
        && !numeric
    {
        return Some(Wanted::Set(dim.field, names.group_set(group)));
    }
    let mut left: Option<BTreeSet<u32>> = None;
    for term in &dim.terms {
        let mut keys: BTreeSet<u32> = term.names.iter().filter_map(|name| names.key(name)).collect();
        for group in &term.groups {
            keys.extend(names.group(group));
        }
        left = Some(match left {
            Some(before) => &before & &keys,
            None => keys,
        });
    }
    let keys = left.unwrap_or_default();
    list(dim.field, keys.into_iter().map(key_alternative).collect()).map(Wanted::List)
}
