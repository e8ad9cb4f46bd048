//! The northbound-to-southbound compiler of Oxbow, as a library: it turns the content of OVN_Northbound into that of
//! OVN_Southbound and knows no socket, no clock and no command line.
//!
//! ```text
//!  NB rows ──▶ Source ──▶ units (oxbow-incr) ──▶ Store: desired SB content ──▶ reconciler ──▶ SB transaction
//!  SB rows ──▶   │           ▲                                                    ▲
//!                └▶ alloc ───┘ keys, addresses, tags                              └── SB rows as they are
//! ```
//!
//! [`Northd`] is the whole of it for a binary: feed it row changes, call [`Northd::run`], send the transactions, tell it how
//! they ended. `northd/DESIGN.md` explains the parts.

pub mod address;
pub mod alloc;
mod config_sequence;
mod emit;
mod garbage;
mod northd;
mod not_compiled;
pub mod profile;
mod program;
mod source;
mod store;
mod units;

pub use northd::{Northd, Outcome, Report};
pub use profile::Profile;
