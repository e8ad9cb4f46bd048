//! Writing JSON: strings, atoms and datums in the notation of RFC 7047 section 5.1.

use std::io::Write;

use rustc_hash::FxHashSet;

use crate::{Atom, ColumnShape, Datum, Uuid};

/// The rows that a transaction inserts and the server names: a reference to one of them is written as a named-uuid.
pub(crate) type NamedUuids = FxHashSet<Uuid>;

/// Writes a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => &[],
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain..index]);
        plain = index + 1;
        if escape.is_empty() {
            write_display(out, format_args!("\\u{byte:04x}"));
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

/// Writes what a value displays as, without quotes.
pub(crate) fn write_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to memory cannot fail");
}

/// The name under which a transaction's other operations refer to a row it inserts: a valid `<id>`.
pub(crate) fn write_row_name(out: &mut Vec<u8>, uuid: Uuid) {
    write_display(out, format_args!("\"row{:032x}\"", uuid.as_u128()));
}

fn write_atom(out: &mut Vec<u8>, atom: &Atom, names: &NamedUuids) {
    match atom {
        Atom::Integer(value) => write_display(out, value),
        // JSON has no infinities or NaN; no OVSDB value is one.
        Atom::Real(value) if value.is_finite() => write_display(out, format_args!("{value:?}")),
        Atom::Real(_) => out.push(b'0'),
        Atom::Boolean(value) => write_display(out, value),
        Atom::String(value) => write_string(out, value),
        Atom::Uuid(uuid) if names.contains(uuid) => {
            out.extend_from_slice(b"[\"named-uuid\",");
            write_row_name(out, *uuid);
            out.push(b']');
        }
        Atom::Uuid(uuid) => write_display(out, format_args!("[\"uuid\",\"{uuid}\"]")),
    }
}

/// Writes a value. `shape` tells an empty map from an empty set; `None` is a plain scalar.
pub(crate) fn write_datum(out: &mut Vec<u8>, datum: &Datum, shape: Option<ColumnShape>, names: &NamedUuids) {
    match datum {
        Datum::One(atom) => write_atom(out, atom, names),
        Datum::Map(pairs) => {
            out.extend_from_slice(b"[\"map\",[");
            for (index, (key, value)) in pairs.iter().enumerate() {
                out.extend_from_slice(if index > 0 { b",[" } else { b"[" });
                write_atom(out, key, names);
                out.push(b',');
                write_atom(out, value, names);
                out.push(b']');
            }
            out.extend_from_slice(b"]]");
        }
        Datum::Empty if shape.is_some_and(|shape| shape.value.is_some()) => out.extend_from_slice(b"[\"map\",[]]"),
        Datum::Empty | Datum::Set(_) => {
            out.extend_from_slice(b"[\"set\",[");
            for (index, atom) in datum.atoms().iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_atom(out, atom, names);
            }
            out.extend_from_slice(b"]]");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_string_reads_back(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_finite_real_reads_back(value in prop::num::f64::NORMAL | prop::num::f64::ZERO) {
            let mut out = Vec::new();
            write_atom(&mut out, &Atom::Real(value), &NamedUuids::default());
            prop_assert_eq!(serde_json::from_slice::<f64>(&out).unwrap(), value);
        }
    }
}
