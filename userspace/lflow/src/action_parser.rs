//! Recursive descent over the action language: the list, the choice of the action, assignments and nested lists.
//!
//! What an action implies for the match is collected on the way: the prerequisites of every field it names and its own.
//! Of a nested list that works on another packet (`arp { … }`) only the action's own prerequisite counts; those of `clone` and
//! `reject` lists are passed on.

mod assign;
mod conntrack;
mod lookups;
mod options;
mod statements;

use crate::action::{Action, Actions, NatZone, NestKind};
use crate::context::{ActionContext, Pipeline};
use crate::error::Error;
use crate::expr::{Expr, FieldRef};
use crate::expr_parser::parse_field;
use crate::lexer::{Lexer, Token};
use crate::symbol::Writable;
use crate::template;
use crate::vocabulary::Vocabulary;

/// Actions that came after 23.03.
const AFTER_23_03: [&str; 13] = [
    "ct_commit_to_zone",
    "ct_ip6_dst",
    "ct_lb_mark_local",
    "ct_nw_dst",
    "ct_proto",
    "ct_state_save",
    "ct_tp_dst",
    "dhcp_relay_req_chk",
    "dhcp_relay_resp_chk",
    "flood_remote",
    "get_remote_fdb",
    "mac_cache_use",
    "mirror",
];

/// How deep action lists may nest.
const MAX_NESTING: usize = 32;

/// Parses the actions of a flow.
///
/// # Errors
/// OVN's message for the first thing wrong. Spans count in the text after the expansion of templates.
pub fn parse_actions(text: &str, context: &ActionContext<'_>) -> Result<Actions, Error> {
    let text = template::expand(text, context.templates);
    let mut parser =
        ActionParser { lexer: Lexer::new(&text), context, scope: Writable::Yes, depth: 0, prerequisites: None };
    let actions = parser.list(&Token::End)?;
    Ok(Actions { actions, prerequisites: parser.prerequisites })
}

struct ActionParser<'a> {
    lexer: Lexer<'a>,
    context: &'a ActionContext<'a>,
    /// What may be assigned to here.
    scope: Writable,
    /// Open nested lists.
    depth: usize,
    /// What the list so far implies.
    prerequisites: Option<Expr>,
}

impl ActionParser<'_> {
    /// Actions up to and including `end`. `drop;` by itself is the empty list.
    fn list(&mut self, end: &Token<'_>) -> Result<Vec<Action>, Error> {
        if self.lexer.token == Token::Id("drop") && self.lexer.peek() == Token::Semicolon {
            self.lexer.advance();
            self.lexer.advance();
            self.lexer.expect(end)?;
            return Ok(Vec::new());
        }
        let mut actions = Vec::new();
        loop {
            // The end of the text is never passed, so this does not skip it.
            if self.lexer.token == *end {
                if *end != Token::End {
                    self.lexer.advance();
                }
                return Ok(actions);
            }
            actions.push(self.action()?);
        }
    }

    fn action(&mut self) -> Result<Action, Error> {
        let name = match self.lexer.token {
            Token::Template(_) => return Err(self.lexer.error("Unexpanded template.")),
            Token::Id(name) => name,
            _ => return Err(self.lexer.syntax_error("")),
        };
        let action = if matches!(self.lexer.peek(), Token::Assign | Token::Exchange | Token::LSquare) {
            self.assignment()?
        } else {
            match self.statement(name)? {
                Some(action) => action,
                None => return Err(self.lexer.syntax_error("expecting action")),
            }
        };
        self.lexer.expect(&Token::Semicolon)?;
        Ok(action)
    }

    /// An action that starts with its name; `None` when there is none of that name.
    fn statement(&mut self, name: &str) -> Result<Option<Action>, Error> {
        let nested = |kind, prerequisite| (kind, Some(prerequisite));
        let (kind, prerequisite) = match name {
            "clone" => (NestKind::Clone, None),
            "reject" => (NestKind::Reject, None),
            // 23.03 demanded ip4 and ip6 here; later versions answer either family's next hop with either protocol.
            "arp" => nested(NestKind::Arp, self.of_family("ip4")),
            "nd_ns" => nested(NestKind::NdNs, self.of_family("ip6")),
            "nd_na" => nested(NestKind::NdNa, "nd_ns"),
            "nd_na_router" => nested(NestKind::NdNaRouter, "nd_ns"),
            "icmp4" => nested(NestKind::Icmp4, "ip4"),
            "icmp4_error" => nested(NestKind::Icmp4Error, "ip4"),
            "icmp6" => nested(NestKind::Icmp6, "ip6"),
            "icmp6_error" => nested(NestKind::Icmp6Error, "ip6"),
            "tcp_reset" => nested(NestKind::TcpReset, "tcp"),
            "sctp_abort" => nested(NestKind::SctpAbort, "sctp"),
            _ => return self.plain_statement(name),
        };
        self.lexer.advance();
        let scope = if kind == NestKind::Clone { Writable::Yes } else { self.scope };
        let actions = self.nested_list(prerequisite, scope)?;
        Ok(Some(Action::Nested { kind, actions }))
    }

    /// Whether actions are to be taken as 23.03 takes them.
    fn is_23_03(&self) -> bool {
        self.context.symbols.vocabulary() == Vocabulary::V23_03
    }

    /// Whether the vocabulary has the action, if it is one at all.
    fn is_known(&self, name: &str) -> bool {
        !(self.is_23_03() && AFTER_23_03.contains(&name))
    }

    /// The prerequisite of `arp` and `nd_ns` in this vocabulary.
    fn of_family(&self, family: &'static str) -> &'static str {
        if self.is_23_03() { family } else { "ip" }
    }

    /// `{ … }`. With a prerequisite, those of the list itself are forgotten: they are about another packet.
    fn nested_list(&mut self, prerequisite: Option<&str>, scope: Writable) -> Result<Vec<Action>, Error> {
        self.lexer.expect(&Token::LCurly)?;
        if self.depth + 1 == MAX_NESTING {
            return Err(self.lexer.error("maximum depth of nested actions reached"));
        }
        let outer_scope = std::mem::replace(&mut self.scope, scope);
        let outer = self.prerequisites.take();
        self.depth += 1;
        let actions = self.list(&Token::RCurly)?;
        self.depth -= 1;
        self.scope = outer_scope;
        let inner = std::mem::replace(&mut self.prerequisites, outer);
        match prerequisite {
            Some(name) => self.require(name),
            None => {
                if let Some(inner) = inner {
                    self.require_expr(inner);
                }
            }
        }
        Ok(actions)
    }

    /// Adds a predicate to what the actions imply.
    fn require(&mut self, name: &str) {
        if let Some(symbol) = self.context.symbols.get(name) {
            let field = FieldRef::whole(symbol);
            self.require_expr(Expr::Test { field, negated: false, span: self.lexer.span });
        }
    }

    fn require_expr(&mut self, e: Expr) {
        if self.prerequisites.as_ref() == Some(&e) {
            return;
        }
        self.prerequisites = Some(match self.prerequisites.take() {
            Some(Expr::And(list)) if list.contains(&e) => Expr::And(list),
            Some(others) => others.and(e),
            None => e,
        });
    }

    /// A field that is not a predicate, with what it implies.
    fn field(&mut self) -> Result<FieldRef, Error> {
        let field = parse_field(&mut self.lexer, self.context.symbols)?;
        if field.symbol.expansion().is_some() {
            let name = field.symbol.name();
            return Err(self.lexer.error(format!("Predicate symbol {name} used where lvalue required.")));
        }
        if let Some(prerequisite) = field.symbol.prerequisite() {
            self.require(prerequisite.name());
        }
        Ok(field)
    }

    /// A field of the given width (0: a string) that is only read.
    fn field_of_width(&mut self, width: u8) -> Result<FieldRef, Error> {
        let field = self.field()?;
        self.check_field(&field, width, false)?;
        Ok(field)
    }

    /// Checks the width (0: a string) of a field, and that it can be assigned to here if it must.
    fn check_field(&self, field: &FieldRef, width: u8, writable: bool) -> Result<(), Error> {
        let name = field.symbol.name();
        if width != field.width {
            return Err(self.lexer.error(match (width, field.width) {
                (0, _) => format!("Cannot use numeric field {name} where string field is required."),
                (_, 0) => format!("Cannot use string field {name} where numeric field is required."),
                _ => format!(
                    "Cannot use {}-bit field {name}[{}..{}] where {width}-bit field is required.",
                    field.width,
                    field.offset,
                    field.offset + field.width - 1
                ),
            }));
        }
        if writable && field.symbol.writable() != self.scope {
            return Err(self.lexer.error(format!("Field {name} is not modifiable.")));
        }
        Ok(())
    }

    /// A decimal integer of 16 bits.
    fn uint16(&mut self, what: &str) -> Result<u16, Error> {
        match self.lexer.small_integer().and_then(|n| u16::try_from(n).ok()) {
            Some(n) => {
                self.lexer.advance();
                Ok(n)
            }
            None => Err(self.lexer.syntax_error(&format!("expecting {what}"))),
        }
    }

    /// A decimal integer, or what the `;` that should stand here instead makes of it: OVN says nothing of its own.
    fn silent_integer(&mut self) -> Result<u32, Error> {
        match self.lexer.small_integer() {
            Some(n) => {
                self.lexer.advance();
                Ok(n)
            }
            None => Err(self.missing_semicolon()),
        }
    }

    /// What OVN reports where an action gives up without a message: the lack of the `;`. Where a `;` does stand here the action
    /// has no effect in OVN; it is an error to us, in the same words.
    fn missing_semicolon(&self) -> Error {
        self.lexer.syntax_error("expecting `;'")
    }

    /// A string token.
    fn string(&mut self, expectation: &str) -> Result<Box<str>, Error> {
        if !matches!(self.lexer.token, Token::Str(_)) {
            return Err(self.lexer.syntax_error(expectation));
        }
        match self.lexer.take() {
            Token::Str(s) => Ok(s.into()),
            _ => unreachable!("the token was just seen to be a string"),
        }
    }

    fn equals(&mut self) -> Result<(), Error> {
        self.lexer.expect(&Token::Assign)
    }

    /// Number of tables in a pipeline.
    fn n_tables(&self, pipeline: Pipeline) -> u8 {
        match pipeline {
            Pipeline::Ingress => self.context.n_ingress_tables,
            Pipeline::Egress => self.context.n_egress_tables,
        }
    }

    /// Fails when there is no table to continue in.
    fn check_not_last(&self, name: &str) -> Result<(), Error> {
        if self.context.table >= self.n_tables(self.context.pipeline) {
            return Err(self.lexer.error(format!("\"{name}\" action not allowed in last table.")));
        }
        Ok(())
    }

    /// `dnat` or `snat`, in the words of `name`.
    fn nat_zone(&mut self, name: &str) -> Result<NatZone, Error> {
        if self.lexer.matches_id("dnat") {
            Ok(NatZone::Dnat)
        } else if self.lexer.matches_id("snat") {
            Ok(NatZone::Snat)
        } else {
            let message = format!("\"{name}\" action accepts only \"dnat\" or \"snat\" parameter.");
            Err(self.lexer.error(message))
        }
    }

    /// `true` or `false`, quoted or not.
    fn boolean(&mut self) -> Result<bool, Error> {
        for (word, value) in [("true", true), ("false", false)] {
            if self.lexer.matches_string(word) || self.lexer.matches_id(word) {
                return Ok(value);
            }
        }
        Err(self.lexer.syntax_error("expecting true or false"))
    }
}
