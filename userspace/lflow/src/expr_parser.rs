//! Recursive descent over the match language.
//!
//! Grammar (ovn-sb(5), Logical_Flow:match):
//!
//! ```text
//! expr    = not { "&&" not } | not { "||" not }        both kinds together need parentheses
//! not     = [ "!" ] primary                            "!" only before an atom
//! primary = "(" expr ")" | "0" | "1" | function | field
//!         | field relop set | set relop field [ relop set ]
//! set     = constant | "{" constant { [","] constant } [","] "}"
//! ```

use crate::constant::{Constant, Format, Integer};
use crate::context::{AddressSets, MatchContext, Nothing, PortGroups};
use crate::error::{Error, Span};
use crate::expr::{ConstantSet, Expr, FieldRef, RelOp};
use crate::field::Level;
use crate::lexer::{Lexer, Token};
use crate::symbol::{Symbol, SymbolTable};
use crate::template;
use smallvec::SmallVec;

/// How deep parentheses may nest.
const MAX_PARENTHESES: usize = 100;

/// Parses a match.
///
/// Templates are expanded first. Address sets and port groups must exist, and an address set's members must fit the field they
/// are compared with, but they stay references in the tree; see [`crate::normal`].
///
/// # Errors
/// OVN's message for the first thing wrong. Spans count in the text after the expansion of templates.
pub fn parse_match(text: &str, context: &MatchContext<'_>) -> Result<Expr, Error> {
    let text = template::expand(text, context.templates);
    let mut parser = MatchParser::new(&text, context.symbols, context.address_sets, context.port_groups);
    let e = parser.expression()?;
    parser.lexer.expect_end()?;
    Ok(e)
}

/// Parses the expansion of a predicate, whose symbols must be in `symbols` already.
pub(crate) fn parse_expansion(text: &str, symbols: &SymbolTable) -> Result<Expr, Error> {
    let mut parser = MatchParser::new(text, symbols, &Nothing, &Nothing);
    let e = parser.expression()?;
    parser.lexer.expect_end()?;
    Ok(e)
}

/// Parses a field: a symbol with an optional range of bits.
pub(crate) fn parse_field(lexer: &mut Lexer<'_>, symbols: &SymbolTable) -> Result<FieldRef, Error> {
    let symbol = match lexer.token {
        Token::Id(name) => symbols.get(name),
        _ => None,
    };
    let Some(symbol) = symbol else {
        return Err(lexer.syntax_error("expecting field name"));
    };
    lexer.advance();
    if !lexer.matches(&Token::LSquare) {
        return Ok(FieldRef::whole(symbol));
    }
    if symbol.width() == 0 {
        return Err(lexer.error(format!("Cannot select subfield of string field {}.", symbol.name())));
    }
    let low = lexer.expect_small_integer()?;
    let high = if lexer.matches(&Token::Ellipsis) { lexer.expect_small_integer()? } else { low };
    lexer.expect(&Token::RSquare)?;
    let width = u32::from(symbol.width());
    if low > high {
        return Err(lexer.error(format!("Invalid bit range {low} to {high}.")));
    }
    if high >= width {
        let name = symbol.name();
        return Err(lexer.error(format!("Cannot select bits {low} to {high} of {width}-bit field {name}.")));
    }
    if symbol.level() == Level::Nominal && (low != 0 || high != width - 1) {
        return Err(lexer.error(format!("Cannot select subfield of nominal field {}.", symbol.name())));
    }
    // Both are below the width, which is at most 128.
    Ok(FieldRef { symbol, offset: low as u8, width: (high - low + 1) as u8 })
}

/// The two types of values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Integer,
    String,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Type::Integer => "integer",
            Type::String => "string",
        }
    }
}

/// A parsed set with what type checks ask of it, the members of address sets and port groups counted in.
pub(crate) struct ParsedSet {
    pub(crate) set: ConstantSet,
    kind: Type,
    /// Number of values, members included.
    n_values: usize,
    /// Whether the first value is an integer with a mask.
    masked: bool,
}

pub(crate) struct MatchParser<'a> {
    pub(crate) lexer: Lexer<'a>,
    symbols: &'a SymbolTable,
    address_sets: &'a dyn AddressSets,
    port_groups: &'a dyn PortGroups,
    /// Open parentheses.
    depth: usize,
    /// Whether an odd number of `!` encloses the current place.
    negated: bool,
}

impl<'a> MatchParser<'a> {
    fn new(
        text: &'a str,
        symbols: &'a SymbolTable,
        address_sets: &'a dyn AddressSets,
        port_groups: &'a dyn PortGroups,
    ) -> Self {
        MatchParser { lexer: Lexer::new(text), symbols, address_sets, port_groups, depth: 0, negated: false }
    }

    fn expression(&mut self) -> Result<Expr, Error> {
        let first = self.unary()?;
        let conjunction = match self.lexer.token {
            Token::And => true,
            Token::Or => false,
            _ => return Ok(first),
        };
        let operator = if conjunction { Token::And } else { Token::Or };
        let mut list = Vec::with_capacity(4);
        let mut push = |e| match e {
            Expr::And(mut inner) if conjunction => list.append(&mut inner),
            Expr::Or(mut inner) if !conjunction => list.append(&mut inner),
            e => list.push(e),
        };
        push(first);
        while self.lexer.matches(&operator) {
            push(self.unary()?);
        }
        if matches!(self.lexer.token, Token::And | Token::Or) {
            return Err(self.lexer.error("&& and || must be parenthesized when used together."));
        }
        Ok(if conjunction { Expr::And(list) } else { Expr::Or(list) })
    }

    fn unary(&mut self) -> Result<Expr, Error> {
        if !self.lexer.matches(&Token::Not) {
            return Ok(self.primary()?.0);
        }
        self.negated = !self.negated;
        let (e, atomic) = self.primary()?;
        self.negated = !self.negated;
        if !atomic {
            return Err(self.lexer.error("Missing parentheses around operand of !."));
        }
        Ok(e.negate())
    }

    /// Returns whether `!` may stand before it, too.
    fn primary(&mut self) -> Result<(Expr, bool), Error> {
        if self.lexer.matches(&Token::LParen) {
            if self.depth >= MAX_PARENTHESES {
                return Err(self.lexer.error("Parentheses nested too deeply."));
            }
            self.depth += 1;
            let e = self.expression()?;
            self.depth -= 1;
            self.lexer.expect(&Token::RParen)?;
            return Ok((e, true));
        }
        match self.lexer.token {
            Token::Template(_) => Err(self.lexer.error("Unexpanded template.")),
            Token::Id(name) if self.lexer.peek_is_paren() => {
                if name != "is_chassis_resident" {
                    return Err(self.lexer.error("parsing function name"));
                }
                Ok((self.chassis_resident()?, true))
            }
            Token::Id(_) => self.field_first(),
            _ => self.constant_first(),
        }
    }

    fn chassis_resident(&mut self) -> Result<Expr, Error> {
        let start = self.lexer.span;
        self.lexer.advance();
        self.lexer.advance();
        if !matches!(self.lexer.token, Token::Str(_)) {
            return Err(self.lexer.syntax_error("expecting string"));
        }
        let Token::Str(port) = self.lexer.take() else { unreachable!("the token was just seen to be a string") };
        let span = start.to(self.lexer.span);
        self.lexer.expect(&Token::RParen)?;
        Ok(Expr::Resident { port: port.into(), negated: false, span })
    }

    fn relop(&self) -> Option<RelOp> {
        Some(match self.lexer.token {
            Token::Eq => RelOp::Eq,
            Token::Ne => RelOp::Ne,
            Token::Lt => RelOp::Lt,
            Token::Le => RelOp::Le,
            Token::Gt => RelOp::Gt,
            Token::Ge => RelOp::Ge,
            _ => return None,
        })
    }

    fn expect_relop(&mut self) -> Result<RelOp, Error> {
        let Some(op) = self.relop() else {
            return Err(self.lexer.syntax_error("expecting relational operator"));
        };
        self.lexer.advance();
        Ok(op)
    }

    /// A field by itself, or `field relop set`.
    fn field_first(&mut self) -> Result<(Expr, bool), Error> {
        let mut span = self.lexer.span;
        let name_end = self.lexer.span;
        let field = parse_field(&mut self.lexer, self.symbols)?;
        let Some(op) = self.relop() else {
            if field.width == 0 || self.lexer.token == Token::Assign {
                return Err(self.lexer.syntax_error("expecting relational operator"));
            }
            if field.width > 1 && !self.negated {
                return Err(self
                    .lexer
                    .error("Explicit `!= 0' is required for inequality test of multibit field against 0."));
            }
            self.check_positive(field.symbol, RelOp::Ne, std::iter::once(false))?;
            return Ok((Expr::Test { field, negated: false, span: name_end }, true));
        };
        self.lexer.advance();
        let set = self.constant_set(&mut span)?;
        Ok((self.comparison(field, op, set, span)?, false))
    }

    /// `0`, `1`, `set relop field` or `set relop field relop set`.
    fn constant_first(&mut self) -> Result<(Expr, bool), Error> {
        let mut span = self.lexer.span;
        let left = self.constant_set(&mut span)?;
        if self.relop().is_none()
            && let (false, [Constant::Integer(n)]) = (left.set.braces, &left.set.values[..])
            && let Integer { value: value @ 0..=1, masked: false, format: Format::Decimal, .. } = *n
        {
            return Ok((Expr::Bool(value == 1), true));
        }
        let left_op = self.expect_relop()?;
        span = span.to(self.lexer.span);
        let field = parse_field(&mut self.lexer, self.symbols)?;
        let Some(right_op) = self.relop() else {
            return Ok((self.comparison(field, left_op.swapped(), left, span)?, false));
        };
        self.lexer.advance();
        let right = self.constant_set(&mut span)?;
        let ascending = |op| matches!(op, RelOp::Lt | RelOp::Le);
        let descending = |op| matches!(op, RelOp::Gt | RelOp::Ge);
        if !(ascending(left_op) && ascending(right_op) || descending(left_op) && descending(right_op)) {
            return Err(self.lexer.error(
                "Range expressions must have the form `x < field < y' or `x > field > y', with each `<' optionally \
                 replaced by `<=' or `>' by `>=').",
            ));
        }
        let left = self.comparison(field, left_op.swapped(), left, span)?;
        let right = self.comparison(field, right_op, right, span)?;
        Ok((left.and(right), false))
    }

    fn constant_set(&mut self, span: &mut Span) -> Result<ParsedSet, Error> {
        let mut set = ParsedSet { set: ConstantSet::default(), kind: Type::Integer, n_values: 0, masked: false };
        set.set.braces = self.lexer.matches(&Token::LCurly);
        if !set.set.braces {
            *span = span.to(self.lexer.span);
            self.constant(&mut set)?;
            return Ok(set);
        }
        loop {
            self.constant(&mut set)?;
            self.lexer.matches(&Token::Comma);
            *span = span.to(self.lexer.span);
            if self.lexer.matches(&Token::RCurly) {
                return Ok(set);
            }
        }
    }

    fn constant(&mut self, into: &mut ParsedSet) -> Result<(), Error> {
        let (kind, n_values, masked) = match &self.lexer.token {
            Token::Template(_) => return Err(self.lexer.error("Unexpanded template.")),
            Token::Str(_) => (Type::String, 1, false),
            Token::Integer(n) => (Type::Integer, 1, n.masked),
            Token::AddressSet(name) => match self.address_sets.address_set(name) {
                Some(set) => (Type::Integer, set.members.len(), false),
                None => return Err(self.lexer.syntax_error("expecting address set name")),
            },
            Token::PortGroup(name) => match self.port_groups.port_group(name) {
                Some(ports) => (Type::String, ports.len(), false),
                None => return Err(self.lexer.syntax_error("expecting port group name")),
            },
            _ => return Err(self.lexer.syntax_error("expecting constant")),
        };
        if into.n_values == 0 {
            into.kind = kind;
            into.masked = masked;
        } else if into.kind != kind {
            return Err(self.lexer.syntax_error(&format!("expecting {}", into.kind.as_str())));
        }
        into.n_values += n_values;
        let value = match self.lexer.take() {
            Token::Str(s) => Constant::String(s.into()),
            Token::Integer(n) => Constant::Integer(n),
            Token::AddressSet(name) => Constant::AddressSet(name.into()),
            Token::PortGroup(name) => Constant::PortGroup(name.into()),
            _ => unreachable!("only these were let through above"),
        };
        into.set.values.push(value);
        Ok(())
    }

    /// Checks the types and levels of a comparison and builds it.
    fn comparison(&mut self, field: FieldRef, op: RelOp, set: ParsedSet, span: Span) -> Result<Expr, Error> {
        self.check_type(field.symbol, &set)?;
        if !matches!(op, RelOp::Eq | RelOp::Ne) {
            self.check_ordering(field.symbol, &set)?;
        }
        if field.symbol.level() == Level::Nominal {
            if field.symbol.field().is_none() {
                let odd = set.set.values.iter().filter_map(|v| match v {
                    Constant::Integer(n) => Some(n.value & 1 == 1),
                    _ => None,
                });
                self.check_positive(field.symbol, op, odd)?;
            } else if op != if self.negated { RelOp::Ne } else { RelOp::Eq } {
                return Err(self.lexer.error(format!(
                    "Nominal field {} may only be tested for equality (taking enclosing `!' operators into account).",
                    field.symbol.name()
                )));
            }
        }
        if set.n_values == 0 && op == RelOp::Ne {
            // OVN: constantly true, without the prerequisites that any member would bring.
            return Ok(Expr::Bool(true));
        }
        let ordering = !matches!(op, RelOp::Eq | RelOp::Ne);
        if ordering || field.symbol.field().is_none() {
            return Ok(self.with_members(field, op, set.set, span));
        }
        Ok(Expr::Cmp { field, op, values: set.set, span })
    }

    /// A comparison in which address sets are replaced by their members as they are now. `<` and the like hold against a set when
    /// they hold against every member.
    fn with_members(&self, field: FieldRef, op: RelOp, set: ConstantSet, span: Span) -> Expr {
        let mut values: SmallVec<[Constant; 1]> = SmallVec::new();
        for value in set.values {
            match &value {
                Constant::AddressSet(name) => {
                    let members = self.address_sets.address_set(name).map_or(&[][..], |set| &set.members);
                    values.extend(members.iter().copied().map(Constant::Integer));
                }
                _ => values.push(value),
            }
        }
        if matches!(op, RelOp::Eq | RelOp::Ne) {
            return match values.is_empty() {
                true => Expr::Bool(op == RelOp::Ne),
                false => Expr::Cmp { field, op, values: ConstantSet { braces: set.braces, values }, span },
            };
        }
        let mut each = values.into_iter().map(|value| Expr::Cmp { field, op, values: ConstantSet::one(value), span });
        match each.next() {
            Some(first) => each.fold(first, Expr::and),
            None => Expr::Bool(true),
        }
    }

    fn check_type(&self, symbol: Symbol, set: &ParsedSet) -> Result<(), Error> {
        let name = symbol.name();
        let wanted = if symbol.width() == 0 { Type::String } else { Type::Integer };
        if set.kind != wanted {
            let field = if wanted == Type::Integer { "Integer" } else { "String" };
            let constant = set.kind.as_str();
            return Err(self.lexer.error(format!("{field} field {name} is not compatible with {constant} constant.")));
        }
        if wanted == Type::String {
            return Ok(());
        }
        let too_wide = |n: &Integer| n.width() > u16::from(symbol.width());
        let offender = set.set.values.iter().find_map(|value| match value {
            Constant::Integer(n) => too_wide(n).then_some(*n),
            Constant::AddressSet(set) => self.address_sets.address_set(set).and_then(|set| {
                // The width is kept with the set so that this does not walk it.
                if set.max_width <= u16::from(symbol.width()) {
                    None
                } else {
                    set.members.iter().copied().find(too_wide)
                }
            }),
            Constant::String(_) | Constant::PortGroup(_) => None,
        });
        match offender {
            None => Ok(()),
            Some(n) => Err(self.lexer.error(format!(
                "{}-bit constant is not compatible with {}-bit field {name}.",
                n.width(),
                symbol.width()
            ))),
        }
    }

    fn check_ordering(&self, symbol: Symbol, set: &ParsedSet) -> Result<(), Error> {
        if set.set.braces {
            return Err(self.lexer.error("Only == and != operators may be used with value sets."));
        }
        if symbol.level() != Level::Ordinal {
            let level = symbol.level().as_str();
            let name = symbol.name();
            return Err(self.lexer.error(format!("Only == and != operators may be used with {level} field {name}.")));
        }
        if set.n_values == 0 {
            return Err(self
                .lexer
                .error("Only == and != operators may be used to compare a field against an empty value set."));
        }
        // OVN looks at that member of a set only which sorts first; there is no meaning to be had from the others.
        let any_masked =
            |name| self.address_sets.address_set(name).is_some_and(|set| set.members.iter().any(|n| n.masked));
        if set.masked || set.set.values.iter().any(|v| matches!(v, Constant::AddressSet(name) if any_masked(name))) {
            return Err(self.lexer.error(
                "Only == and != operators may be used with masked constants.  Consider using subfields instead (e.g. \
                 eth.src[0..15] > 0x1111 in place of eth.src > 00:00:00:00:11:11/00:00:00:00:ff:ff).",
            ));
        }
        Ok(())
    }

    /// A nominal predicate must be tested for being true, counting the `!` around.
    fn check_positive(&self, symbol: Symbol, op: RelOp, odd: impl IntoIterator<Item = bool>) -> Result<(), Error> {
        if symbol.level() != Level::Nominal || symbol.field().is_some() {
            return Ok(());
        }
        for odd in odd {
            if !(odd ^ (op == RelOp::Ne) ^ self.negated) {
                let name = symbol.name();
                return Err(self.lexer.error(format!(
                    "Nominal predicate {name} may only be tested positively, e.g. `{name}' or `{name} == 1' but not \
                     `!{name}' or `{name} == 0'."
                )));
            }
        }
        Ok(())
    }
}
