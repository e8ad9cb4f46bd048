//! The unit engine: incremental computation in which there is only "compute this unit".
//!
//! A [`Program`] is a set of *units*, each a pair of a kind and a key, with one pure function
//! [`Program::compute`]. Everything a unit learns it learns through its [`Cx`]: facts of the input
//! ([`Cx::read`], misses included) and the outputs of other units ([`Cx::unit`]). The engine records
//! those reads and derives from them, and from nothing else, which units have to run again:
//!
//! ```text
//!   touch(fact, aspects) ──▶ readers of the fact are dirty ─┐
//!   activate(unit)       ──▶ the unit is dirty             ─┤
//!                                                           ▼
//!   run(): for each stratum, lowest first: run its dirty units in key order
//!            output equal to the last one  ──▶ the wave stops here
//!            output differs                ──▶ readers of the unit are dirty; reported in the Wave
//!          units that nobody holds any more leave with an empty output
//! ```
//!
//! Kinds live in fixed strata and a unit reads only units of lower strata, so there are no cycles and
//! every unit runs at most once in a wave. The crate knows no clock, no database and no threads; what
//! a fact is, and how a source answers, is the program's business.
//!
//! Invariants, each with a test: a wave runs exactly the units that read something that changed; the
//! state after any sequence of changes equals the state computed from nothing ([`Engine::audit`]); and
//! the order of the reported changes depends on strata and keys alone.

mod audit;
mod cx;
mod engine;
mod graph;
mod program;
mod stats;

pub use audit::Discrepancy;
pub use cx::Cx;
pub use engine::{Change, Engine, Wave};
pub use program::{Aspects, Kind, Program, Query};
pub use stats::{KindStats, Stats};
