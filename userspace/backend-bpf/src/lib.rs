//! The eBPF backend: turns the pipeline's rules into map contents (compile, image), and keeps the kernel's maps, programs and links
//! equal to them (kernel).
//!
//! Invariants: nothing here decides what a packet may do (that is the pipeline's); a commit is one version, whole or not at all; what an
//! earlier daemon left keeps forwarding until the new policy is complete.

pub mod backend;
pub mod compile;
pub mod image;
pub mod kernel;
mod plain;

pub use backend::{Backend, CommitError, Committed, Limits, MOST_PLACES, Shortage};
pub use plain::Plain;
