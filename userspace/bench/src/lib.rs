//! What `cargo xtask bench` measures: Oxbow against the best there is for the same job, in the same run.
//!
//! | room | what |
//! |---|---|
//! | [`session`] | options every benchmark has, the report under construction |
//! | [`contest`] | named contenders measured in interleaved rounds |
//! | [`value`], [`spread`], [`report`], [`markdown`], [`machine`] | values, medians and ratios; rows; how they are printed; on what they were measured |
//! | [`datapath`] | packets and TCP through hypervisors: bare `bpf_redirect`, Linux bridge, OVS |
//! | [`lifecycle`] | from `ovs-vsctl add-port` to the first answered ping: stock OVN |
//! | [`ovsdb`] | an initial dump: plain serde |
//! | [`walk`] | a packet in BPF_PROG_TEST_RUN: the empty program |
//!
//! A benchmark is a function of a [`Session`]: for each question it builds a [`Contest`], which calls a closure once for each contender in each
//! round and turns what it returned into a [`report::Row`]. Machines are noisy and shared: absolute figures are printed, but what counts is
//! the ratio between two contenders of the same round, its median over the rounds and its spread.

pub mod contest;
pub mod datapath;
pub mod lifecycle;
pub mod machine;
pub mod markdown;
pub mod ovsdb;
pub mod report;
pub mod session;
pub mod spread;
pub mod value;
pub mod walk;

pub use contest::{Contest, Figure};
pub use report::Bound;
pub use session::{Options, Session};
