//! Match expressions as they are written: the abstract syntax tree.
//!
//! Negation is applied while parsing, as OVN does it: `!(a && b)` becomes `!a || !b`, `!(x == 1)` becomes `x != 1`; the
//! tree has no node for it. Chains of the same operator are flat. `1 < x < 5` is the conjunction of `x > 1` and `x < 5`.

use crate::constant::Constant;
use crate::error::Span;
use crate::symbol::Symbol;
use smallvec::SmallVec;
use std::fmt;

/// A relational operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelOp {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl RelOp {
    /// The operator's spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RelOp::Eq => "==",
            RelOp::Ne => "!=",
            RelOp::Lt => "<",
            RelOp::Le => "<=",
            RelOp::Gt => ">",
            RelOp::Ge => ">=",
        }
    }

    /// The operator for which `x op y` is `!(x self y)`.
    #[must_use]
    pub fn negated(self) -> RelOp {
        match self {
            RelOp::Eq => RelOp::Ne,
            RelOp::Ne => RelOp::Eq,
            RelOp::Lt => RelOp::Ge,
            RelOp::Le => RelOp::Gt,
            RelOp::Gt => RelOp::Le,
            RelOp::Ge => RelOp::Lt,
        }
    }

    /// The operator for which `y op x` is `x self y`.
    #[must_use]
    pub fn swapped(self) -> RelOp {
        match self {
            RelOp::Lt => RelOp::Gt,
            RelOp::Le => RelOp::Ge,
            RelOp::Gt => RelOp::Lt,
            RelOp::Ge => RelOp::Le,
            RelOp::Eq | RelOp::Ne => self,
        }
    }

    /// Whether `left self right`.
    #[must_use]
    pub fn holds(self, left: u128, right: u128) -> bool {
        match self {
            RelOp::Eq => left == right,
            RelOp::Ne => left != right,
            RelOp::Lt => left < right,
            RelOp::Le => left <= right,
            RelOp::Gt => left > right,
            RelOp::Ge => left >= right,
        }
    }
}

/// A symbol or a range of its bits: `ip4.src`, `ip4.src[0..7]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldRef {
    /// The symbol as named.
    pub symbol: Symbol,
    /// Lowest bit taken, counted in the symbol (not in its [`crate::Field`]).
    pub offset: u8,
    /// Number of bits taken; 0 for a string.
    pub width: u8,
}

impl FieldRef {
    /// The symbol as a whole.
    #[must_use]
    pub fn whole(symbol: Symbol) -> Self {
        FieldRef { symbol, offset: 0, width: symbol.width() }
    }

    /// Lowest bit taken, counted in the symbol's [`crate::Field`].
    #[must_use]
    pub fn base_offset(&self) -> u8 {
        self.symbol.offset() + self.offset
    }

    /// Whether it holds a port name.
    #[must_use]
    pub fn is_string(&self) -> bool {
        self.symbol.width() == 0
    }
}

impl fmt::Display for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol.name())?;
        if self.offset != 0 || self.width != self.symbol.width() {
            match self.width {
                1 => write!(f, "[{}]", self.offset)?,
                _ => write!(f, "[{}..{}]", self.offset, self.offset + self.width - 1)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One constant, or several in `{ }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConstantSet {
    /// Whether it was written in braces.
    pub braces: bool,
    /// In the order written, at least one.
    pub values: SmallVec<[Constant; 1]>,
}

impl ConstantSet {
    /// A single constant without braces.
    #[must_use]
    pub fn one(value: Constant) -> Self {
        ConstantSet { braces: false, values: SmallVec::from_buf([value]) }
    }
}

impl fmt::Display for ConstantSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let braces = self.braces || self.values.len() != 1;
        if braces {
            f.write_str("{")?;
        }
        for (i, value) in self.values.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            fmt::Display::fmt(value, f)?;
        }
        if braces {
            f.write_str("}")?;
        }
        Ok(())
    }
}

/// A match expression. See the module's text for its shape. Equality ignores spans.
#[derive(Clone, Debug)]
pub enum Expr {
    /// `0` or `1`.
    Bool(bool),
    /// A comparison. `==` holds when some member of `values` compares equal, `!=` when none does; the others take one value.
    Cmp {
        /// Left side, whichever side it was written on.
        field: FieldRef,
        /// The relation.
        op: RelOp,
        /// Right side.
        values: ConstantSet,
        /// From the first token to the last.
        span: Span,
    },
    /// The mention of a field by itself: true when it is not 0, or when it is 0 if `negated`.
    Test {
        /// The field or predicate.
        field: FieldRef,
        /// `!field`
        negated: bool,
        /// The tokens of the field.
        span: Span,
    },
    /// `is_chassis_resident("port")`: whether the logical port is bound on this chassis.
    Resident {
        /// Name of the logical port.
        port: Box<str>,
        /// `!is_chassis_resident(…)`
        negated: bool,
        /// The whole call.
        span: Span,
    },
    /// All of these; at least two, none of them an `And`.
    And(Vec<Expr>),
    /// Any of these; at least two, none of them an `Or`.
    Or(Vec<Expr>),
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Expr::Bool(a), Expr::Bool(b)) => a == b,
            (
                Expr::Cmp { field: a, op: ao, values: av, span: _ },
                Expr::Cmp { field: b, op: bo, values: bv, span: _ },
            ) => a == b && ao == bo && av == bv,
            (Expr::Test { field: a, negated: an, span: _ }, Expr::Test { field: b, negated: bn, span: _ }) => {
                a == b && an == bn
            }
            (Expr::Resident { port: a, negated: an, span: _ }, Expr::Resident { port: b, negated: bn, span: _ }) => {
                a == b && an == bn
            }
            (Expr::And(a), Expr::And(b)) | (Expr::Or(a), Expr::Or(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Expr {}

impl Expr {
    /// The conjunction; flattens. An absent side is neutral.
    #[must_use]
    pub fn and(self, other: Expr) -> Expr {
        Expr::And(chain(self, other, |e| match e {
            Expr::And(list) => Ok(list),
            e => Err(e),
        }))
    }

    /// The disjunction; flattens.
    #[must_use]
    pub fn or(self, other: Expr) -> Expr {
        Expr::Or(chain(self, other, |e| match e {
            Expr::Or(list) => Ok(list),
            e => Err(e),
        }))
    }

    /// The opposite, by de Morgan's laws.
    #[must_use]
    pub fn negate(self) -> Expr {
        match self {
            Expr::Bool(b) => Expr::Bool(!b),
            Expr::Cmp { field, op, values, span } => Expr::Cmp { field, op: op.negated(), values, span },
            Expr::Test { field, negated, span } => Expr::Test { field, negated: !negated, span },
            Expr::Resident { port, negated, span } => Expr::Resident { port, negated: !negated, span },
            Expr::And(list) => Expr::Or(list.into_iter().map(Expr::negate).collect()),
            Expr::Or(list) => Expr::And(list.into_iter().map(Expr::negate).collect()),
        }
    }
}

fn chain(left: Expr, right: Expr, unwrap: fn(Expr) -> Result<Vec<Expr>, Expr>) -> Vec<Expr> {
    let mut list = match unwrap(left) {
        Ok(list) => list,
        Err(left) => {
            let mut list = Vec::with_capacity(4);
            list.push(left);
            list
        }
    };
    match unwrap(right) {
        Ok(mut more) => list.append(&mut more),
        Err(right) => list.push(right),
    }
    list
}

impl fmt::Display for Expr {
    /// Prints text that parses back to an equal tree. `&&` and `||` under each other are always parenthesised, as OVN demands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bang = |negated: &bool| if *negated { "!" } else { "" };
        match self {
            Expr::Bool(b) => f.write_str(if *b { "1" } else { "0" }),
            Expr::Cmp { field, op, values, span: _ } => write!(f, "{field} {} {values}", op.as_str()),
            Expr::Test { field, negated, span: _ } => write!(f, "{}{field}", bang(negated)),
            Expr::Resident { port, negated, span: _ } => {
                write!(f, "{}is_chassis_resident({})", bang(negated), crate::quoted::Quoted(port))
            }
            Expr::And(list) => fmt_chain(list, " && ", f),
            Expr::Or(list) => fmt_chain(list, " || ", f),
        }
    }
}

fn fmt_chain(list: &[Expr], operator: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, e) in list.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        match e {
            Expr::And(_) | Expr::Or(_) => write!(f, "({e})")?,
            _ => write!(f, "{e}")?,
        }
    }
    Ok(())
}
