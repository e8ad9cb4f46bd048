//! What Oxbow's tests and its demonstration are made of: network namespaces, real ovsdb-servers, whole clouds.
//!
//! | to get | use |
//! |---|---|
//! | a network namespace, with its own `/sys` and bpffs if asked | [`Netns`] |
//! | a veth pair, a bridge, an address | [`link`] |
//! | an `ovsdb-server` with any schema | [`OvsdbServer`] |
//! | the same as a raft cluster | [`Cluster`](cluster::Cluster) |
//! | a counted stream of packets both ways | [`Stream`] |
//! | NB and SB with a northd, stock or ours | [`Central`] |
//! | NB, SB, northd, hypervisors and guests | [`Cloud`] |
//! | a condition to come true | [`wait_until`] |
//! | an Open vSwitch that forwards between files | [`DummySwitch`] |
//! | the built eBPF object or a built daemon | [`artifacts`] |
//!
//! Everything is made in unnamed namespaces and temporary directories and goes when its owner is dropped. Should the owner be
//! killed instead, the kernel does it: every process started here is killed when the thread that holds its namespace ends
//! (`PR_SET_PDEATHSIG`), and a namespace without processes and file descriptors is gone. So tests run in parallel, and none can leave
//! anything behind but a temporary directory.
//!
//! The crate is synchronous: a test that needs tokio brings its own runtime. Errors are [`anyhow::Error`], because the only thing
//! that is ever done with them is to print them.

pub mod artifacts;
pub mod capture;
pub mod central;
pub mod cloud;
pub mod cluster;
pub mod dummy_switch;
pub mod frames;
pub mod hypervisor;
pub mod link;
pub mod netns;
pub mod ovsdb;
pub mod probe;
pub mod process;
pub mod random;
pub mod stream;
pub mod vif;
pub mod wait;

pub use central::{Central, Northd};
pub use cloud::{Cloud, CloudBuilder};
pub use dummy_switch::{DummyPort, DummySwitch};
pub use hypervisor::{Hypervisor, Node};
pub use netns::Netns;
pub use ovsdb::OvsdbServer;
pub use process::Process;
pub use stream::Stream;
pub use vif::{Vif, VifSpec};
pub use wait::wait_until;
