//! Values: atoms, and the sets and maps of them that columns hold (RFC 7047 section 5.1).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::{Text, Uuid};

/// The type of an atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtomType {
    /// 64-bit signed integer.
    Integer,
    /// IEEE double.
    Real,
    /// true or false.
    Boolean,
    /// UTF-8 string.
    String,
    /// UUID, plain or a reference to a row.
    Uuid,
}

impl AtomType {
    /// The type of the name that database schemas use; `None` for any other text.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "integer" => AtomType::Integer,
            "real" => AtomType::Real,
            "boolean" => AtomType::Boolean,
            "string" => AtomType::String,
            "uuid" => AtomType::Uuid,
            _ => return None,
        })
    }

    /// The name that database schemas use.
    pub fn name(self) -> &'static str {
        match self {
            AtomType::Integer => "integer",
            AtomType::Real => "real",
            AtomType::Boolean => "boolean",
            AtomType::String => "string",
            AtomType::Uuid => "uuid",
        }
    }
}

/// One value. Atoms of one column all have one type; between types the order is that of the variants.
#[derive(Clone)]
pub enum Atom {
    /// An integer.
    Integer(i64),
    /// A real; compared by total order.
    Real(f64),
    /// A boolean.
    Boolean(bool),
    /// A string.
    String(Text),
    /// A UUID.
    Uuid(Uuid),
}

impl Atom {
    /// The type of this atom.
    pub fn atom_type(&self) -> AtomType {
        match self {
            Atom::Integer(_) => AtomType::Integer,
            Atom::Real(_) => AtomType::Real,
            Atom::Boolean(_) => AtomType::Boolean,
            Atom::String(_) => AtomType::String,
            Atom::Uuid(_) => AtomType::Uuid,
        }
    }

    /// The default of a type: zero, false, the empty string or the zero UUID (RFC 7047 section 5.2.1).
    pub fn default_of(atom_type: AtomType) -> Self {
        match atom_type {
            AtomType::Integer => Atom::Integer(0),
            AtomType::Real => Atom::Real(0.0),
            AtomType::Boolean => Atom::Boolean(false),
            AtomType::String => Atom::String(Text::empty().clone()),
            AtomType::Uuid => Atom::Uuid(Uuid::ZERO),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Atom::Integer(_) => 0,
            Atom::Real(_) => 1,
            Atom::Boolean(_) => 2,
            Atom::String(_) => 3,
            Atom::Uuid(_) => 4,
        }
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Atom::Integer(a), Atom::Integer(b)) => a.cmp(b),
            (Atom::Real(a), Atom::Real(b)) => a.total_cmp(b),
            (Atom::Boolean(a), Atom::Boolean(b)) => a.cmp(b),
            (Atom::String(a), Atom::String(b)) => a.cmp(b),
            (Atom::Uuid(a), Atom::Uuid(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Atom::String(a), Atom::String(b)) => a == b,
            _ => self.cmp(other) == Ordering::Equal,
        }
    }
}

impl Eq for Atom {}

impl Hash for Atom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Atom::Integer(value) => value.hash(state),
            Atom::Real(value) => value.to_bits().hash(state),
            Atom::Boolean(value) => value.hash(state),
            Atom::String(value) => value.hash(state),
            Atom::Uuid(value) => value.hash(state),
        }
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Integer(value) => value.fmt(f),
            Atom::Real(value) => value.fmt(f),
            Atom::Boolean(value) => value.fmt(f),
            Atom::String(value) => value.fmt(f),
            Atom::Uuid(value) => value.fmt(f),
        }
    }
}

impl From<i64> for Atom {
    fn from(value: i64) -> Self {
        Atom::Integer(value)
    }
}

impl From<f64> for Atom {
    fn from(value: f64) -> Self {
        Atom::Real(value)
    }
}

impl From<bool> for Atom {
    fn from(value: bool) -> Self {
        Atom::Boolean(value)
    }
}

impl From<&str> for Atom {
    fn from(value: &str) -> Self {
        Atom::String(Text::new(value))
    }
}

impl From<Text> for Atom {
    fn from(value: Text) -> Self {
        Atom::String(value)
    }
}

impl From<Uuid> for Atom {
    fn from(value: Uuid) -> Self {
        Atom::Uuid(value)
    }
}

/// The value of a column in a row.
///
/// The form is canonical, so equality of values is equality of forms: an empty set and an empty map are [`Empty`],
/// a set of one (and so a scalar) is [`One`], larger sets are sorted and without duplicates, maps are sorted by key with each
/// key once. [`Datum::set`] and [`Datum::map`] make that form from anything. Clones share the elements.
///
/// [`Empty`]: Datum::Empty
/// [`One`]: Datum::One
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Datum {
    /// No element; also what a column reads as that the server does not have.
    #[default]
    Empty,
    /// A scalar, or a set of one.
    One(Atom),
    /// A set of two or more, ascending.
    Set(Arc<[Atom]>),
    /// A map of one or more, ascending by key.
    Map(Arc<[(Atom, Atom)]>),
}

impl Datum {
    /// The canonical form of a set: sorts, drops duplicates.
    pub fn set(mut atoms: Vec<Atom>) -> Self {
        if !atoms.is_sorted_by(|a, b| a < b) {
            atoms.sort_unstable();
            atoms.dedup();
        }
        if atoms.len() > 1 {
            return Datum::Set(atoms.into());
        }
        atoms.pop().map_or(Datum::Empty, Datum::One)
    }

    /// The canonical form of a map: sorts by key; of several pairs with one key the last stays.
    pub fn map(mut pairs: Vec<(Atom, Atom)>) -> Self {
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            pairs.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    std::mem::swap(&mut later.1, &mut earlier.1);
                }
                same
            });
        }
        if pairs.is_empty() { Datum::Empty } else { Datum::Map(pairs.into()) }
    }

    /// The elements as a set; none for a map.
    pub fn atoms(&self) -> &[Atom] {
        match self {
            Datum::Empty | Datum::Map(_) => &[],
            Datum::One(atom) => std::slice::from_ref(atom),
            Datum::Set(atoms) => atoms,
        }
    }

    /// The pairs as a map; none for a set.
    pub fn pairs(&self) -> &[(Atom, Atom)] {
        match self {
            Datum::Map(pairs) => pairs,
            _ => &[],
        }
    }

    /// Number of elements or pairs.
    pub fn len(&self) -> usize {
        match self {
            Datum::Empty => 0,
            Datum::One(_) => 1,
            Datum::Set(atoms) => atoms.len(),
            Datum::Map(pairs) => pairs.len(),
        }
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        matches!(self, Datum::Empty)
    }

    /// The symmetric difference of two sets, or the map difference of ovsdb-server(7) section 4.1.14: the pairs of `diff`
    /// whose key is new are added, those equal to a present pair remove it, others replace the value.
    ///
    /// `self` is a present value and `diff` what a "modify" carries for a column with a maximum above one; applying
    /// the difference of `a` and `b` to `a` gives `b`.
    #[must_use]
    pub fn with_difference(&self, diff: &Datum) -> Datum {
        if let (Datum::Map(_), _) | (_, Datum::Map(_)) = (self, diff) {
            return Datum::map(merge(
                self.pairs(),
                diff.pairs(),
                |pair| &pair.0,
                |old, new| (old.1 != new.1).then(|| new.clone()),
            ));
        }
        Datum::set(merge(self.atoms(), diff.atoms(), |atom| atom, |_, _| None))
    }

    /// This set or map with the elements of `other` added; in a map the pairs of `self` win.
    #[must_use]
    pub fn with_inserted(&self, other: &Datum) -> Datum {
        if let (Datum::Map(_), _) | (_, Datum::Map(_)) = (self, other) {
            return Datum::map(merge(self.pairs(), other.pairs(), |pair| &pair.0, |old, _| Some(old.clone())));
        }
        Datum::set(merge(self.atoms(), other.atoms(), |atom| atom, |old, _| Some(old.clone())))
    }

    /// This set or map with elements removed: a map deletes pairs equal to one of a map `other`, or the keys of a set.
    #[must_use]
    pub fn with_deleted(&self, other: &Datum) -> Datum {
        match self {
            Datum::Map(pairs) => {
                let gone = |pair: &(Atom, Atom)| match other {
                    Datum::Map(others) => others.binary_search_by(|candidate| candidate.cmp(pair)).is_ok(),
                    _ => other.atoms().binary_search(&pair.0).is_ok(),
                };
                Datum::map(pairs.iter().filter(|pair| !gone(pair)).cloned().collect())
            }
            _ => Datum::set(
                self.atoms().iter().filter(|atom| other.atoms().binary_search(atom).is_err()).cloned().collect(),
            ),
        }
    }
}

/// Merges two ascending lists with unique keys; `both` decides what becomes of a key that is in both.
fn merge<T: Clone>(left: &[T], right: &[T], key: impl Fn(&T) -> &Atom, both: impl Fn(&T, &T) -> Option<T>) -> Vec<T> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(old), Some(new)) = (left.peek(), right.peek()) {
        match key(old).cmp(key(new)) {
            Ordering::Less => merged.extend(left.next().cloned()),
            Ordering::Greater => merged.extend(right.next().cloned()),
            Ordering::Equal => {
                merged.extend(both(old, new));
                left.next();
                right.next();
            }
        }
    }
    merged.extend(left.cloned());
    merged.extend(right.cloned());
    merged
}

impl From<Atom> for Datum {
    fn from(atom: Atom) -> Self {
        Datum::One(atom)
    }
}

impl fmt::Debug for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Datum::Empty => f.write_str("[]"),
            Datum::One(atom) => atom.fmt(f),
            Datum::Set(atoms) => f.debug_list().entries(atoms.iter()).finish(),
            Datum::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(key, value)| (key, value))).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn set_of(values: &BTreeSet<i64>) -> Datum {
        Datum::set(values.iter().rev().map(|&value| Atom::Integer(value)).collect())
    }

    fn map_of(values: &BTreeMap<i64, i64>) -> Datum {
        Datum::map(values.iter().rev().map(|(&key, &value)| (Atom::Integer(key), Atom::Integer(value))).collect())
    }

    #[test]
    fn an_atom_and_a_datum_are_24_bytes() {
        assert_eq!((size_of::<Atom>(), size_of::<Datum>()), (24, 24));
    }

    proptest! {
        #[test]
        fn set_operations_agree_with_the_standard_sets(a in prop::collection::btree_set(0i64..20, 0..8),
                                                       b in prop::collection::btree_set(0i64..20, 0..8)) {
            let (left, right) = (set_of(&a), set_of(&b));
            prop_assert_eq!(left.with_difference(&right), set_of(&(&a ^ &b)));
            prop_assert_eq!(left.with_inserted(&right), set_of(&(&a | &b)));
            prop_assert_eq!(left.with_deleted(&right), set_of(&(&a - &b)));
        }

        #[test]
        fn map_difference_follows_the_server(a in prop::collection::btree_map(0i64..9, 0i64..3, 0..6),
                                             b in prop::collection::btree_map(0i64..9, 0i64..3, 0..6)) {
            // What ovsdb-server sends to get from a to b: added and changed pairs with the new value, removed with the old.
            let mut diff = BTreeMap::new();
            for (&key, &value) in &b {
                if a.get(&key) != Some(&value) { diff.insert(key, value); }
            }
            for (&key, &value) in &a {
                if !b.contains_key(&key) { diff.insert(key, value); }
            }
            prop_assert_eq!(map_of(&a).with_difference(&map_of(&diff)), map_of(&b));
            let mut inserted = b.clone();
            inserted.extend(&a);
            prop_assert_eq!(map_of(&a).with_inserted(&map_of(&b)), map_of(&inserted));
            let keys: BTreeSet<i64> = b.keys().copied().collect();
            let kept: BTreeMap<i64, i64> = a.iter().filter(|(key, _)| !keys.contains(key)).map(|(&k, &v)| (k, v)).collect();
            prop_assert_eq!(map_of(&a).with_deleted(&set_of(&keys)), map_of(&kept));
            let kept: BTreeMap<i64, i64> = a.iter().filter(|(key, value)| b.get(key) != Some(value)).map(|(&k, &v)| (k, v)).collect();
            prop_assert_eq!(map_of(&a).with_deleted(&map_of(&b)), map_of(&kept));
        }
    }
}
