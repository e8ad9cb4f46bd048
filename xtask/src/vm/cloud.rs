//! Ring `cloud`: a cloud of two hypervisors, with real databases, inside one machine.

use anyhow::Result;
use oxbow_testkit::Netns;
use oxbow_testkit::ovsdb::{NB_SCHEMA, SB_SCHEMA, VSWITCH_SCHEMA};
use oxbow_vm_tests::{GuestImage, GuestRoot, Kernel, Nic};

use super::executables::{self, Executable};
use super::lab::Lab;
use super::{ring0, suite};

/// Databases, daemons, and the maps of two hypervisors.
const MEMORY: u32 = 4096;

/// The stock half of a cloud, and what its tests look with.
pub(super) const PROGRAMS: [&str; 15] = [
    "ovsdb-server",
    "ovsdb-tool",
    "ovsdb-client",
    "ovs-vsctl",
    "ovs-appctl",
    "ovs-ofctl",
    "ovs-vswitchd",
    "ovn-nbctl",
    "ovn-sbctl",
    "ovn-appctl",
    "ovn-trace",
    "ovn-northd",
    "ovn-controller",
    "tcpdump",
    "iperf3",
];

/// What is run: test executables of the package oxbow-tests, and the tests of them.
const TESTS: [(&str, &[&str]); 2] = [
    ("cloud_seams", &["our_northd_with_our_node", "our_nodes_talk_over_ipv6", "our_node_talks_to_a_stock_controller"]),
    ("cloud_restart", &[]),
];

pub(super) fn run(lab: &mut Lab, kernel: &Kernel) -> Result<String> {
    let tests = executables::build(&["test", "--no-run", "--tests", "--package", "oxbow-tests"])?;
    let tests = tests.into_iter().filter(|test| TESTS.iter().any(|(name, _)| *name == test.name));
    let mut root = GuestRoot::new()?;
    stock(&mut root)?;
    let all: Vec<Executable> = daemons()?.into_iter().chain(tests).collect();
    suite::install(&mut root, lab, &all)?;
    let image = GuestImage::with(kernel, &ring0::MODULES, root)?;
    let ns = Netns::new("vm")?;
    let mut machine = lab.boot(&ns, &image, "cloud", &[Nic::unplugged("0a:00:00:00:00:01")], MEMORY)?;
    let mut passed = 0;
    for (name, tests) in TESTS {
        let filters = lab.filters();
        passed += suite::run(lab, &mut machine, name, if filters.is_empty() { tests } else { &filters })?;
    }
    suite::summary(passed, lab)
}

/// Debian's daemons and tools, and the schemas.
pub(super) fn stock(root: &mut GuestRoot) -> Result<()> {
    for program in ring0::PROGRAMS.iter().chain(&PROGRAMS) {
        root.program(program)?;
    }
    for schema in [NB_SCHEMA, SB_SCHEMA, VSWITCH_SCHEMA] {
        root.copy(schema.as_ref())?;
    }
    Ok(())
}

/// Our daemons.
pub(super) fn daemons() -> Result<Vec<Executable>> {
    ["oxbow-node", "oxbow-northd"]
        .into_iter()
        .map(|name| Ok(Executable { name: name.to_owned(), path: executables::binary(name, name)? }))
        .collect()
}
