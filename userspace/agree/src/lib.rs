//! The independent judge: the same packets through Debian's `ovn-trace` and through Oxbow, for the same Southbound database.
//!
//! ```text
//! NB script ─ ovn-nbctl, ovn-northd ─▶ SB ─┬─▶ ovn-trace (Trace)                 ┐
//!                                         └─▶ Southbound ─▶ Cloud of N programs ├─▶ compare ─▶ Disagreement
//! seed ─▶ Generator ─▶ frames ────────────────────────────────────────────────────┘
//! ```
//!
//! The [`Cloud`] runs the reference interpreter of each hypervisor and carries what they tunnel to each other; whoever also runs the loaded
//! programs compares them hypervisor by hypervisor with [`Cloud::hypervisor`]'s program and `oxbow_pipeline::reference::run`.

pub mod cloud;
pub mod compare;
pub mod generator;
pub mod microflow;
pub mod random;
pub mod southbound;
pub mod topology;
pub mod trace;

pub use cloud::{Cloud, Delivery};
pub use compare::{Disagreement, Verdict, judge};
pub use generator::Generator;
pub use random::Random;
pub use southbound::Southbound;
pub use trace::{Trace, Traced};
