//! Tests of the whole: clouds in network namespaces, and of the source tree itself.
//!
//! * `tests/layering.rs`, `tests/tidy.rs`, `tests/host_contract.rs`: the tree keeps its own rules.
//! * `tests/cloud_*.rs`: clouds of stock daemons, of ours, and mixed ones.
//! * `tests/mixed_*.rs`: who receives which frame where Oxbow and stock hypervisors share a cloud.
//! * `tests/fault_*.rs`: things that go wrong under counted traffic.

pub mod backends;
pub mod bridge;
pub mod cards;
pub mod layer2;
pub mod sources;
pub mod traffic;

/// Makes a test for each backend out of every function that is named: it is called with the kind of hypervisor, and the tests are
/// `ebpf::NAME` and `openflow::NAME`.
#[macro_export]
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        mod ebpf {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    super::$name(oxbow_testkit::Node::Oxbow)
                }
            )+
        }
        mod openflow {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    super::$name(oxbow_testkit::Node::OpenFlow)
                }
            )+
        }
    };
}
