#![forbid(unsafe_code)]
//! From rows of OVN's Southbound database to a typed match-action program, and what that program means.
//!
//! ```text
//! Logical_Flow, Port_Binding, Multicast_Group, Address_Set, Port_Group, FDB, Chassis   (fed by the node as plain data)
//!        │  compile::Compiler: parses each distinct text once, resolves names, simplifies per datapath
//!        ▼
//! ir::Program  ── Changes by rule id ──▶  backend-bpf (map images) · backend-openflow
//!        │
//!        ▼
//! reference: executes a packet by linear search; defines what every backend must do
//! ```
//!
//! The crate knows no sockets, no clock and no kernel. Its source of truth is ovn-sb(5) and ovn-architecture(7).

pub mod compile;
pub mod ir;
pub mod reference;
