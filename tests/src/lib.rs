//! Tests of the whole: clouds in network namespaces, and of the source tree itself.
//!
//! * `tests/layering.rs`, `tests/tidy.rs`, `tests/host_contract.rs`: the tree keeps its own rules.
//! * `tests/cloud_*.rs`: clouds of stock daemons, of ours, and mixed ones.

pub mod layer2;
pub mod sources;
