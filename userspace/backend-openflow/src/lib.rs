#![deny(unsafe_code)]
//! The OpenFlow backend: the pipeline's rules and world as OpenFlow 1.5 flows and groups with Nicira's extensions, kept in an Open vSwitch
//! bridge by atomic bundles that hold nothing but differences.
//!
//! ```text
//!  Program + Changes (pipeline)     Wiring (who numbers the bridge's ports: the node)
//!        │                                │
//!        ▼                                ▼
//!  matching, action: rules → flows   physical: ports, groups, addresses → flows and groups      pure
//!        └───────────────┬────────────────┘
//!                        ▼
//!  desired: what every flow is, by whose wish; what differs from what the switch was given         pure
//!                        ▼
//!  model: follows the program; prints                                                                pure
//!                        ▼
//!  follower: what has to be told, what came of it, refusals                                          pure
//!                        │ exchange
//!                        ▼
//!  switch: bundles through ovs-ofctl, comparison after a restart                                     processes
//! ```
//!
//! Invariants: nothing here decides what a packet may do (that is the pipeline's); a commit is one bundle, whole or not at all; what cannot be
//! expressed is reported by name and closes what it would have guarded.

mod action;
pub mod backend;
mod desired;
pub mod exchange;
pub mod follower;
pub mod layout;
mod matching;
pub mod model;
mod numbers;
pub mod ofctl;
mod oxm;
mod physical;
mod rules;
pub mod running;
pub mod switch;
pub mod wiring;

pub use backend::Backend;
pub use exchange::{Committed, Exchange, Failure};
pub use follower::Follower;
pub use model::{Cookies, Model};
pub use ofctl::OvsOfctl;
pub use running::Running;
pub use switch::{Learned, Switch, SwitchError};
pub use wiring::{OfPort, Tunnel, Wiring};
