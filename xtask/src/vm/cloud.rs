//! Rings `cloud` and `ovs`: clouds of two hypervisors, with real databases, inside one machine.

use anyhow::Result;
use oxbow_testkit::Netns;
use oxbow_testkit::ovsdb::{NB_SCHEMA, SB_SCHEMA, VSWITCH_SCHEMA};
use oxbow_vm_tests::{GuestImage, GuestRoot, Kernel, Nic};

use super::executables::{self, Executable, Profile};
use super::lab::Lab;
use super::{ring0, suite};

/// Databases, daemons, and the maps of two hypervisors.
const MEMORY: u32 = 4096;

/// Daemons and packets run at the same time.
const CPUS: u32 = 2;

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

/// Modules of the kernel's Open vSwitch datapath, with the tunnels and the connection tracking that ovs-vswitchd asks it for.
pub(super) const OVS_MODULES: [&str; 5] = ["openvswitch", "geneve", "vport_geneve", "nf_conntrack_netlink", "sch_htb"];

/// Test executables of the package oxbow-tests: which they are and which tests of theirs are run, and modules they need.
struct Tests {
    executables: &'static [(&'static str, &'static [&'static str])],
    modules: &'static [&'static str],
}

/// Clouds on this kernel, attached by what it has; one reaches its neighbour on the wire that runs Debian's daemons.
const CLOUD: Tests = Tests {
    executables: &[
        (
            "cloud_seams",
            &["our_northd_with_our_node", "our_nodes_talk_over_ipv6", "our_node_talks_to_a_stock_controller"],
        ),
        ("cloud_restart", &[]),
    ],
    modules: &[],
};

/// The kernel's Open vSwitch datapath, beside us and against us.
const OVS: Tests = Tests { executables: &[("vm_ovs_kernel", &[])], modules: &OVS_MODULES };

/// How the package is built: once for both rings.
const BUILD: [&str; 6] = ["test", "--no-run", "--package", "oxbow-tests", "--features", "oxbow-tests/ovs-kernel"];

/// Ring `cloud`.
pub(super) fn run(lab: &mut Lab, kernel: &Kernel) -> Result<String> {
    run_tests(lab, kernel, &CLOUD)
}

/// Ring `ovs`: the same with the kernel's Open vSwitch datapath.
pub(super) fn run_with_ovs(lab: &mut Lab, kernel: &Kernel) -> Result<String> {
    run_tests(lab, kernel, &OVS)
}

fn run_tests(lab: &mut Lab, kernel: &Kernel, tests: &Tests) -> Result<String> {
    let mut build = BUILD.to_vec();
    for (name, _) in CLOUD.executables.iter().chain(OVS.executables) {
        build.extend(["--test", name]);
    }
    let built = executables::build(&build, Profile::Release)?.into_iter();
    let wanted = built.filter(|test| tests.executables.iter().any(|(name, _)| *name == test.name));
    let mut root = GuestRoot::new()?;
    stock(&mut root)?;
    let all: Vec<Executable> = daemons()?.into_iter().chain(wanted).collect();
    suite::install(&mut root, lab, &all)?;
    let image = GuestImage::with(kernel, &[&ring0::MODULES, tests.modules].concat(), root)?;
    let ns = Netns::new("vm")?;
    let mut machine = lab.boot(&ns, &image, "cloud", &[Nic::unplugged("0a:00:00:00:00:01")], (MEMORY, CPUS))?;
    let mut passed = 0;
    for (name, tests) in tests.executables {
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
        .map(|name| Ok(Executable { name: name.to_owned(), path: executables::binary(name, name, Profile::Release)? }))
        .collect()
}
