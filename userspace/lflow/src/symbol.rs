//! Symbols: the names a flow may use, each a view of a [`Field`] or an expression with a name.
//!
//! The names themselves are data ([`crate::vocabulary`]); this file gives them their meaning: resolves every subfield to bits
//! of a [`Field`], parses the predicates' expansions, and finds a symbol by name.

use crate::expr::Expr;
use crate::field::{Field, Level};
use crate::normal::Clause;
use crate::vocabulary::{Definition, Entry, Vocabulary};
use rustc_hash::FxHashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

/// Where a symbol may be assigned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writable {
    /// Nowhere.
    No,
    /// In any action list but that of `ct_commit`.
    Yes,
    /// In `ct_commit { … }` only.
    InCtCommit,
}

/// What stands behind a name.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Bits of a field.
    Bits { field: Field, offset: u8 },
    /// An expression.
    Predicate(Expr),
}

/// The definition behind a [`Symbol`].
#[derive(Debug)]
pub(crate) struct SymbolDef {
    name: &'static str,
    kind: Kind,
    width: u8,
    level: Level,
    prerequisite: Option<Symbol>,
    writable: Writable,
    /// The clauses of a predicate: `[negated, positive]`.
    normal: [OnceLock<Vec<Clause>>; 2],
}

/// A symbol of some [`SymbolTable`]. Cheap to copy; equality is identity, so symbols of two tables differ even where they
/// have the same name (their definitions may differ: `igmp` does).
#[derive(Clone, Copy)]
pub struct Symbol(&'static SymbolDef);

impl Symbol {
    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Width in bits; 1 for a predicate, 0 for a string.
    #[must_use]
    pub fn width(self) -> u8 {
        self.0.width
    }

    /// What may be asked of it.
    #[must_use]
    pub fn level(self) -> Level {
        self.0.level
    }

    /// The field it shows, or `None` for a predicate.
    #[must_use]
    pub fn field(self) -> Option<Field> {
        match self.0.kind {
            Kind::Bits { field, .. } => Some(field),
            Kind::Predicate(_) => None,
        }
    }

    /// Lowest bit of the field that it shows; 0 for a predicate.
    #[must_use]
    pub fn offset(self) -> u8 {
        match self.0.kind {
            Kind::Bits { offset, .. } => offset,
            Kind::Predicate(_) => 0,
        }
    }

    /// The expression a predicate stands for, prerequisites not yet added.
    #[must_use]
    pub fn expansion(self) -> Option<&'static Expr> {
        match &self.0.kind {
            Kind::Bits { .. } => None,
            Kind::Predicate(e) => Some(e),
        }
    }

    /// The clauses of a predicate (or of its negation), computed from the expansion at the first call and kept.
    pub(crate) fn normal_form<E>(
        self,
        positive: bool,
        compute: impl FnOnce(&Expr) -> Result<Vec<Clause>, E>,
    ) -> Result<&'static [Clause], E> {
        let cell = &self.0.normal[usize::from(positive)];
        if let Some(clauses) = cell.get() {
            return Ok(clauses);
        }
        let clauses = match &self.0.kind {
            Kind::Predicate(expansion) => compute(expansion)?,
            Kind::Bits { .. } => Vec::new(),
        };
        Ok(cell.get_or_init(|| clauses))
    }

    /// The predicate (or `ct.trk`) that any use of the symbol implies.
    #[must_use]
    pub fn prerequisite(self) -> Option<Symbol> {
        self.0.prerequisite
    }

    /// Where it may be assigned to.
    #[must_use]
    pub fn writable(self) -> Writable {
        self.0.writable
    }
}

impl PartialEq for Symbol {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Symbol {}

impl Hash for Symbol {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self.0).hash(state);
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

/// All symbols of a vocabulary. Built once per process and vocabulary: [`Vocabulary::table`].
#[derive(Debug)]
pub struct SymbolTable {
    vocabulary: Vocabulary,
    by_name: FxHashMap<&'static str, Symbol>,
    in_order: Vec<Symbol>,
}

impl SymbolTable {
    /// Which vocabulary it holds.
    #[must_use]
    pub fn vocabulary(&self) -> Vocabulary {
        self.vocabulary
    }

    /// The symbol called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Symbol> {
        self.by_name.get(name).copied()
    }

    /// Every symbol, in order of definition: what a definition mentions stands before it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Symbol> + '_ {
        self.in_order.iter().copied()
    }

    /// Builds the table. Everything is leaked: there are a few hundred small definitions, made at most once per vocabulary.
    ///
    /// # Panics
    /// When the vocabulary's data contradict themselves, which its tests exclude.
    pub(crate) fn build(vocabulary: Vocabulary, entries: &[Entry]) -> SymbolTable {
        let mut table = SymbolTable { vocabulary, by_name: FxHashMap::default(), in_order: Vec::new() };
        for entry in entries {
            let def = table.define(entry);
            let symbol = Symbol(Box::leak(Box::new(def)));
            let previous = table.by_name.insert(entry.name, symbol);
            assert!(previous.is_none(), "symbol {} is defined twice in {vocabulary:?}", entry.name);
            table.in_order.push(symbol);
        }
        table
    }

    fn known(&self, name: &str) -> Symbol {
        match self.get(name) {
            Some(symbol) => symbol,
            None => panic!("the vocabulary refers to `{name}` before defining it"),
        }
    }

    fn define(&self, entry: &Entry) -> SymbolDef {
        let prerequisite = (!entry.prerequisite.is_empty()).then(|| self.known(entry.prerequisite));
        let name = entry.name;
        match entry.definition {
            Definition::Field(field) => {
                let writable = match field {
                    Field::CtMark | Field::CtLabel => Writable::InCtCommit,
                    _ if field.is_writable() => Writable::Yes,
                    _ => Writable::No,
                };
                let kind = Kind::Bits { field, offset: 0 };
                SymbolDef {
                    name,
                    kind,
                    width: field.width(),
                    level: field.level(),
                    prerequisite,
                    writable,
                    normal: Default::default(),
                }
            }
            Definition::Bits { of, low, high } => {
                let parent = self.known(of);
                let field = match parent.field() {
                    Some(field) if parent.level() == Level::Ordinal && high < parent.width() && low <= high => field,
                    _ => panic!("{name} cannot be bits {low} to {high} of {of}"),
                };
                SymbolDef {
                    name,
                    kind: Kind::Bits { field, offset: parent.offset() + low },
                    width: high - low + 1,
                    level: Level::Ordinal,
                    prerequisite,
                    writable: parent.writable(),
                    normal: Default::default(),
                }
            }
            Definition::Predicate(text) => {
                let expansion = match crate::expr_parser::parse_expansion(text, self) {
                    Ok(expansion) => expansion,
                    Err(e) => panic!("expansion of {name}: {e}"),
                };
                let level = predicate_level(&expansion);
                let kind = Kind::Predicate(expansion);
                SymbolDef {
                    name,
                    kind,
                    width: 1,
                    level,
                    prerequisite,
                    writable: Writable::No,
                    normal: Default::default(),
                }
            }
        }
    }
}

/// A predicate is nominal when it mentions anything nominal, and Boolean otherwise.
fn predicate_level(e: &Expr) -> Level {
    let of_symbol = |s: Symbol| if s.level() == Level::Nominal { Level::Nominal } else { Level::Boolean };
    match e {
        Expr::Bool(_) | Expr::Resident { .. } => Level::Boolean,
        Expr::Cmp { field, .. } | Expr::Test { field, .. } => of_symbol(field.symbol),
        Expr::And(list) | Expr::Or(list) => list.iter().map(predicate_level).min().unwrap_or(Level::Boolean),
    }
}
