//! The normal form as text: a match again, over whole fields and with numbers in hexadecimal.

use crate::field::Field;
use crate::normal::{Clause, Dim, Masked, Normalized, PortDim, PortTerm, SetRef, Term};
use crate::quoted::Quoted;
use std::fmt::{self, Display, Formatter};

impl Display for Normalized {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.clauses[..] {
            [] => f.write_str("0"),
            [only] => Display::fmt(only, f),
            clauses => joined(clauses.iter().map(|clause| format!("({clause})")), " || ", f),
        }
    }
}

impl Display for Clause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_true() {
            return f.write_str("1");
        }
        let residency = self.residency.iter().map(|r| {
            let bang = if r.negated { "!" } else { "" };
            format!("{bang}is_chassis_resident({})", Quoted(&r.port))
        });
        let ports = self.ports.iter().map(PortDim::to_string);
        joined(residency.chain(ports).chain(self.dims.iter().map(Dim::to_string)), " && ", f)
    }
}

impl Display for Dim {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        joined(self.terms.iter().map(|term| term.text(self.field)), " && ", f)
    }
}

impl Display for PortDim {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        joined(self.terms.iter().map(|term| format!("{} == {}", self.field, term.text())), " && ", f)
    }
}

fn joined(parts: impl Iterator<Item = String>, separator: &str, f: &mut Formatter<'_>) -> fmt::Result {
    for (i, part) in parts.enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        f.write_str(&part)?;
    }
    Ok(())
}

fn in_braces(mut members: Vec<String>) -> String {
    match (members.pop(), members.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            members.push(last);
            format!("{{{}}}", members.join(", "))
        }
        (None, _) => "{}".to_string(),
    }
}

impl PortTerm {
    fn text(&self) -> String {
        let names = self.names.iter().map(|name| Quoted(name).to_string());
        in_braces(names.chain(self.groups.iter().map(|group| format!("@{group}"))).collect())
    }
}

impl Term {
    fn text(&self, field: Field) -> String {
        let (operator, connective) = if self.negated { ("!=", " && ") } else { ("==", " || ") };
        let full = field.full_mask();
        let literal = |masked: &Masked| match masked.mask == full {
            true => format!("{:#x}", masked.value),
            false => format!("{:#x}/{:#x}", masked.value, masked.mask),
        };
        let whole = |set: &&SetRef| set.offset == 0 && set.width == field.width();
        let mut members: Vec<String> = self.literals.iter().map(literal).collect();
        members.extend(self.sets.iter().filter(whole).map(|set| format!("${}", set.name)));
        let mut parts = Vec::new();
        if !members.is_empty() {
            parts.push(format!("{field} {operator} {}", in_braces(members)));
        }
        parts.extend(
            self.sets
                .iter()
                .filter(|set| !whole(set))
                .map(|set| format!("{field}[{}..{}] {operator} ${}", set.offset, set.offset + set.width - 1, set.name)),
        );
        if parts.len() == 1 || self.negated { parts.join(connective) } else { format!("({})", parts.join(connective)) }
    }
}
