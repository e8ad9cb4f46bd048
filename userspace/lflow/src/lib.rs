//! OVN's logical-flow language: matches and actions of the SB table Logical_Flow, OVN 23.03 to 26.03.
//!
//! The way of a match: text → [`Expr`] ([`parse_match`]) → [`Normalized`], a disjunction of clauses of independent dimensions.
//! The way of actions: text → [`Actions`] ([`parse_actions`]), whose implied prerequisites are and-ed to the match.
//! Errors carry OVN's own texts and a position.
//!
//! The specification is ovn-sb(5), Logical_Flow. This crate knows no clock, no sockets and no packets.

pub mod action;
mod action_names;
mod action_parser;
mod action_printer;
pub mod annotated;
mod clause_algebra;
pub mod constant;
pub mod context;
mod error;
pub mod evaluate;
pub mod expr;
mod expr_parser;
pub mod field;
mod lexer;
mod masked;
pub mod microflow;
pub mod nd_ra_options;
pub mod normal;
mod normal_printer;
mod normalize;
mod number;
mod quoted;
pub mod symbol;
mod template;
pub mod vocabulary;

pub use action::{Action, Actions};
pub use action_parser::parse_actions;
pub use context::{ActionContext, AddressSet, AddressSets, MatchContext, Nothing, Pipeline, PortGroups, Templates};
pub use error::{Error, Span};
pub use expr::{Expr, FieldRef};
pub use expr_parser::parse_match;
pub use field::{Field, Level};
pub use normal::{Clause, Dim, Masked, Normalized};
pub use normalize::{MAX_CLAUSES, NormalizeError};
pub use symbol::{Symbol, SymbolTable};
pub use vocabulary::Vocabulary;
