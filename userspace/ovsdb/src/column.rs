//! Typed columns: how a [`Datum`] reads and is written as the Rust type that its column stands for.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use crate::{Atom, AtomType, ColumnDef, Datum, Multiplicity, TableDef, Text, Uuid};

/// A column whose values are of the Rust type `T`: `i64`, `bool`, `f64`, [`Text`], [`Uuid`], `Option` of one of these,
/// [`Set`] of one of these, or [`Map`] of two of these. Constants of this type are generated into `oxbow-schema`.
pub struct Column<T> {
    any: AnyColumn,
    value: PhantomData<fn() -> T>,
}

/// A column without its Rust type, for code that handles every column alike.
#[derive(Clone, Copy)]
pub struct AnyColumn {
    table: &'static TableDef,
    index: u16,
}

impl<T: ColumnType> Column<T> {
    /// Column number `index` of `table`. That `T` is the Rust type for the definition's shape is checked when the constant is
    /// compiled.
    pub const fn new(table: &'static TableDef, index: u16) -> Self {
        let shape = table.columns[index as usize].shape;
        assert!(shape.key as u8 == T::KEY as u8, "the column's elements have another type");
        assert!(shape.multiplicity as u8 == T::MULTIPLICITY as u8, "the column holds another number of elements");
        let same_value = match (shape.value, T::VALUE) {
            (None, None) => true,
            (Some(defined), Some(stated)) => defined as u8 == stated as u8,
            _ => false,
        };
        assert!(same_value, "the column's map values have another type");
        Column { any: AnyColumn::new(table, index), value: PhantomData }
    }
}

impl<T> Column<T> {
    /// This column without its Rust type.
    pub const fn any(self) -> AnyColumn {
        self.any
    }

    /// The table it belongs to.
    pub const fn table(self) -> &'static TableDef {
        self.any.table
    }

    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        self.any.name()
    }

    /// The datum that stands for `value` in this column.
    pub fn datum(self, value: impl ToDatum<T>) -> Datum {
        value.to_datum()
    }
}

impl<T> Clone for Column<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Column<T> {}

impl<T> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any.fmt(f)
    }
}

impl<T> From<Column<T>> for AnyColumn {
    fn from(column: Column<T>) -> Self {
        column.any
    }
}

impl AnyColumn {
    /// Column number `index` of `table`.
    pub const fn new(table: &'static TableDef, index: u16) -> Self {
        AnyColumn { table, index }
    }

    /// The table it belongs to.
    pub const fn table(self) -> &'static TableDef {
        self.table
    }

    /// Its place in [`TableDef::columns`].
    pub const fn index(self) -> u16 {
        self.index
    }

    /// Its definition.
    pub const fn definition(self) -> &'static ColumnDef {
        &self.table.columns[self.index as usize]
    }

    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        self.definition().name
    }

    /// What a row reads as that does not say: the type's default for a scalar, else no element.
    pub fn default_datum(self) -> Datum {
        let shape = self.definition().shape;
        match shape.multiplicity {
            Multiplicity::One => Datum::One(Atom::default_of(shape.key)),
            Multiplicity::Optional | Multiplicity::Many => Datum::Empty,
        }
    }
}

impl PartialEq for AnyColumn {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.table == other.table
    }
}

impl Eq for AnyColumn {}

impl fmt::Debug for AnyColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table.name, self.name())
    }
}

/// The Rust type of an atom.
pub trait Element: Sized + 'static {
    /// The atom type it stands for.
    const TYPE: AtomType;
    /// How a stored atom is seen: by value, or `&Text`.
    type View<'a>: Copy + fmt::Debug;
    /// What a set is searched for: `str` for text, else the type itself.
    type Query: ?Sized;
    /// The view of an atom; of the type's default when there is none or it has another type.
    fn view_scalar(atom: Option<&Atom>) -> Self::View<'_>;
    /// The view of an atom; of the type's default when the atom has another type.
    fn view_atom(atom: &Atom) -> Self::View<'_> {
        Self::view_scalar(Some(atom))
    }
    /// Compares an atom with what is searched for.
    fn compare(atom: &Atom, query: &Self::Query) -> Ordering;
}

macro_rules! element_by_value {
    ($type:ty, $variant:ident, $default:expr, $compare:expr) => {
        impl Element for $type {
            const TYPE: AtomType = AtomType::$variant;
            type View<'a> = $type;
            type Query = $type;
            fn view_scalar(atom: Option<&Atom>) -> $type {
                if let Some(Atom::$variant(value)) = atom { *value } else { $default }
            }
            fn compare(atom: &Atom, query: &$type) -> Ordering {
                $compare(&Self::view_atom(atom), query)
            }
        }
    };
}

element_by_value!(i64, Integer, 0, Ord::cmp);
element_by_value!(f64, Real, 0.0, f64::total_cmp);
element_by_value!(bool, Boolean, false, Ord::cmp);
element_by_value!(Uuid, Uuid, Uuid::ZERO, Ord::cmp);

impl Element for Text {
    const TYPE: AtomType = AtomType::String;
    type View<'a> = &'a Text;
    type Query = str;
    fn view_scalar(atom: Option<&Atom>) -> &Text {
        if let Some(Atom::String(value)) = atom { value } else { Text::empty() }
    }
    fn compare(atom: &Atom, query: &str) -> Ordering {
        Self::view_atom(atom).as_str().cmp(query)
    }
}

/// Marks a set column in [`Column`]; never a value.
pub struct Set<T>(PhantomData<T>);

/// Marks a map column in [`Column`]; never a value.
pub struct Map<K, V>(PhantomData<(K, V)>);

/// The Rust type of a column: what [`Row::get`](crate::Row::get) gives for it.
pub trait ColumnType: 'static {
    /// How a stored value is seen.
    type View<'a>;
    /// Type of the elements or keys.
    const KEY: AtomType;
    /// Type of a map's values.
    const VALUE: Option<AtomType>;
    /// How many elements.
    const MULTIPLICITY: Multiplicity;
    /// The view of a value. An empty datum in a scalar column (a column the server lacks) reads as the type's default.
    fn view(datum: &Datum) -> Self::View<'_>;
}

macro_rules! scalar_columns {
    ($($type:ty),*) => {$(
        impl ColumnType for $type {
            type View<'a> = <$type as Element>::View<'a>;
            const KEY: AtomType = <$type as Element>::TYPE;
            const VALUE: Option<AtomType> = None;
            const MULTIPLICITY: Multiplicity = Multiplicity::One;
            fn view(datum: &Datum) -> Self::View<'_> {
                <$type as Element>::view_scalar(datum.atoms().first())
            }
        }

        impl ToDatum<$type> for $type {
            fn to_datum(self) -> Datum {
                Datum::One(self.into())
            }
        }
    )*};
}

scalar_columns!(i64, f64, bool, Text, Uuid);

impl<T: Element> ColumnType for Option<T> {
    type View<'a> = Option<T::View<'a>>;
    const KEY: AtomType = T::TYPE;
    const VALUE: Option<AtomType> = None;
    const MULTIPLICITY: Multiplicity = Multiplicity::Optional;
    fn view(datum: &Datum) -> Option<T::View<'_>> {
        datum.atoms().first().map(T::view_atom)
    }
}

impl<T: Element> ColumnType for Set<T> {
    type View<'a> = SetView<'a, T>;
    const KEY: AtomType = T::TYPE;
    const VALUE: Option<AtomType> = None;
    const MULTIPLICITY: Multiplicity = Multiplicity::Many;
    fn view(datum: &Datum) -> SetView<'_, T> {
        SetView { atoms: datum.atoms(), element: PhantomData }
    }
}

impl<K: Element, V: Element> ColumnType for Map<K, V> {
    type View<'a> = MapView<'a, K, V>;
    const KEY: AtomType = K::TYPE;
    const VALUE: Option<AtomType> = Some(V::TYPE);
    const MULTIPLICITY: Multiplicity = Multiplicity::Many;
    fn view(datum: &Datum) -> MapView<'_, K, V> {
        MapView { pairs: datum.pairs(), element: PhantomData }
    }
}

/// A stored set, ascending.
pub struct SetView<'a, T> {
    atoms: &'a [Atom],
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for SetView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SetView<'_, T> {}

impl<'a, T: Element> SetView<'a, T> {
    /// Number of elements.
    pub fn len(self) -> usize {
        self.atoms.len()
    }

    /// True when there is none.
    pub fn is_empty(self) -> bool {
        self.atoms.is_empty()
    }

    /// The elements, ascending.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = T::View<'a>> + ExactSizeIterator + Clone {
        self.atoms.iter().map(T::view_atom)
    }

    /// The smallest element.
    pub fn first(self) -> Option<T::View<'a>> {
        self.atoms.first().map(T::view_atom)
    }

    /// Whether `element` is one of them: `view.contains("text")`, `view.contains(&uuid)`.
    pub fn contains(self, element: &T::Query) -> bool {
        self.atoms.binary_search_by(|atom| T::compare(atom, element)).is_ok()
    }

    /// The stored atoms.
    pub fn atoms(self) -> &'a [Atom] {
        self.atoms
    }
}

impl<T: Element> PartialEq for SetView<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.atoms == other.atoms
    }
}

impl<T: Element> fmt::Debug for SetView<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.atoms).finish()
    }
}

/// A stored map, ascending by key.
pub struct MapView<'a, K, V> {
    pairs: &'a [(Atom, Atom)],
    element: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for MapView<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for MapView<'_, K, V> {}

impl<'a, K: Element, V: Element> MapView<'a, K, V> {
    /// Number of pairs.
    pub fn len(self) -> usize {
        self.pairs.len()
    }

    /// True when there is none.
    pub fn is_empty(self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs, ascending by key.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = (K::View<'a>, V::View<'a>)> + ExactSizeIterator + Clone {
        self.pairs.iter().map(|(key, value)| (K::view_atom(key), V::view_atom(value)))
    }

    /// The value of a key: `view.get("key")`.
    pub fn get(self, key: &K::Query) -> Option<V::View<'a>> {
        let index = self.pairs.binary_search_by(|(candidate, _)| K::compare(candidate, key)).ok()?;
        Some(V::view_atom(&self.pairs[index].1))
    }

    /// Whether there is a pair with this key.
    pub fn contains_key(self, key: &K::Query) -> bool {
        self.get(key).is_some()
    }

    /// The stored pairs.
    pub fn pairs(self) -> &'a [(Atom, Atom)] {
        self.pairs
    }
}

impl<'a, K: Element> MapView<'a, K, Text> {
    /// The value of a key that is `true` or `false`, or `default` for a missing key and any other text: how
    /// OVN reads boolean options.
    pub fn get_bool(self, key: &K::Query, default: bool) -> bool {
        match self.get(key).map(|value| value.as_str()) {
            Some("true") => true,
            Some("false") => false,
            _ => default,
        }
    }
}

impl<K: Element, V: Element> PartialEq for MapView<'_, K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl<K: Element, V: Element> fmt::Debug for MapView<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs.iter().map(|(key, value)| (key, value))).finish()
    }
}

/// A value that can be written to a column of type `T`: the element types themselves (and `&str`, `String`, `&Text` for
/// [`Text`]), `Option` of them, and any iterable of elements or of pairs for [`Set`] and [`Map`].
pub trait ToDatum<T> {
    /// The canonical datum.
    fn to_datum(self) -> Datum;
}

impl ToDatum<Text> for &str {
    fn to_datum(self) -> Datum {
        Datum::One(self.into())
    }
}

impl ToDatum<Text> for &String {
    fn to_datum(self) -> Datum {
        Datum::One(self.as_str().into())
    }
}

impl ToDatum<Text> for String {
    fn to_datum(self) -> Datum {
        Datum::One(self.as_str().into())
    }
}

impl ToDatum<Text> for &Text {
    fn to_datum(self) -> Datum {
        Datum::One(Atom::String(self.clone()))
    }
}

impl ToDatum<Uuid> for &Uuid {
    fn to_datum(self) -> Datum {
        Datum::One(Atom::Uuid(*self))
    }
}

impl ToDatum<i64> for &i64 {
    fn to_datum(self) -> Datum {
        Datum::One(Atom::Integer(*self))
    }
}

impl<T: Element, V: ToDatum<T>> ToDatum<Option<T>> for Option<V> {
    fn to_datum(self) -> Datum {
        self.map_or(Datum::Empty, ToDatum::to_datum)
    }
}

fn single<T, V: ToDatum<T>>(value: V) -> Option<Atom> {
    match value.to_datum() {
        Datum::One(atom) => Some(atom),
        _ => None,
    }
}

impl<T: Element, I> ToDatum<Set<T>> for I
where
    I: IntoIterator,
    I::Item: ToDatum<T>,
{
    fn to_datum(self) -> Datum {
        Datum::set(self.into_iter().filter_map(single::<T, _>).collect())
    }
}

impl<K: Element, V: Element, I, A, B> ToDatum<Map<K, V>> for I
where
    I: IntoIterator<Item = (A, B)>,
    A: ToDatum<K>,
    B: ToDatum<V>,
{
    fn to_datum(self) -> Datum {
        Datum::map(
            self.into_iter().filter_map(|(key, value)| Some((single::<K, _>(key)?, single::<V, _>(value)?))).collect(),
        )
    }
}

/// A datum is taken as it is: the caller answers for its shape.
macro_rules! datum_as_is {
    ($($type:ty),*) => {$(
        impl ToDatum<$type> for Datum {
            fn to_datum(self) -> Datum {
                self
            }
        }
    )*};
}

datum_as_is!(i64, f64, bool, Text, Uuid);
