//! Ring `ring0`: the programs run on packets, in the machine's kernel.

use anyhow::{Result, ensure};
use oxbow_testkit::Netns;
use oxbow_vm_tests::{GuestImage, GuestRoot, Kernel, Nic};

use super::executables::Profile;
use super::lab::Lab;
use super::{executables, suite};
use crate::test;

/// Maps at their default sizes, several loads of them, and the executables.
const MEMORY: u32 = 3072;

/// What is per CPU is not the only one of its kind.
const CPUS: u32 = 2;

/// Devices that the tests make, and attaching by clsact.
pub(super) const MODULES: [&str; 5] = ["veth", "tun", "bridge", "sch_ingress", "cls_bpf"];

/// Programs that the tests start.
pub(super) const PROGRAMS: [&str; 4] = ["ip", "tc", "ethtool", "ping"];

pub(super) fn run(lab: &mut Lab, kernel: &Kernel) -> Result<String> {
    let features = test::kernel_test_features()?;
    let mut arguments = vec!["test", "--no-run", "--test", "ring0_*", "--features", &features];
    for package in features.split(',').filter_map(|feature| feature.split('/').next()) {
        arguments.extend(["--package", package]);
    }
    let tests = executables::build(&arguments, Profile::Release)?;
    ensure!(!tests.is_empty(), "there is no test executable named ring0_…");
    let mut root = GuestRoot::new()?;
    for program in PROGRAMS {
        root.program(program)?;
    }
    suite::install(&mut root, lab, &tests)?;
    let image = GuestImage::with(kernel, &MODULES, root)?;
    let ns = Netns::new("vm")?;
    let mut machine = lab.boot(&ns, &image, "ring0", &[Nic::unplugged("0a:00:00:00:00:01")], (MEMORY, CPUS))?;
    let filters = lab.filters();
    let mut passed = 0;
    for executable in &tests {
        passed += suite::run(lab, &mut machine, &executable.name, &filters)?;
    }
    suite::summary(passed, lab)
}
