//! The independent judge: the same packets through Debian's `ovn-trace` and through Oxbow, for the same Southbound database.
//!
//! ```text
//! NB contents ─ ovn-northd ─▶ SB ─┬─▶ ovn-trace (Trace) ──────────────────────────┐
//!                                └─▶ Southbound ─▶ Cloud of N reference programs ├─▶ compare ─▶ Disagreement
//!                                                      └─▶ N Kernels, loaded ────┤
//! seed ─▶ Generator ─▶ frames ─────────────────────────────────────────────────────┘
//! ```
//!
//! The [`Cloud`] runs the reference interpreter of each hypervisor and carries what they tunnel to each other; a
//! [`kernel::Kernel`] runs the loaded programs of one hypervisor on real devices and is compared with the reference arrival by arrival. A
//! [`session::Session`] is all of it for one cloud.

pub mod bridge;
pub mod cloud;
pub mod compare;
pub mod generator;
pub mod hostile;
pub mod kernel;
pub mod microflow;

pub mod parsers;
pub mod session;
pub mod southbound;
mod test_run;
pub mod topology;
pub mod trace;

pub use cloud::{Cloud, Delivery};
pub use compare::{Disagreement, Verdict, judge};
pub use generator::Generator;
pub use oxbow_testkit::random::Random;
pub use southbound::Southbound;
pub use trace::{Trace, Traced};
