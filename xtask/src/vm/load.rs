//! Ring `load`: does the kernel's verifier take the programs?

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::Netns;
use oxbow_vm_tests::{GuestImage, GuestRoot, Kernel, Nic};

use super::executables::{self, Profile};
use super::lab::Lab;

/// The maps at their default sizes take some.
const MEMORY: u32 = 1024;

/// The verifier runs on one.
const CPUS: u32 = 1;

/// What attaching by clsact needs.
const MODULES: [&str; 2] = ["sch_ingress", "cls_bpf"];

pub(super) fn run(lab: &mut Lab, kernel: &Kernel) -> Result<String> {
    let object = lab.object()?;
    let probe = executables::binary("oxbow-vm-probe", "oxbow-vm-probe", Profile::Dev)?;
    let mut root = GuestRoot::new()?;
    root.built(&probe, "probe")?;
    root.copy_as(&object, "object")?;
    let image = GuestImage::with(kernel, &MODULES, root)?;
    let ns = Netns::new("vm")?;
    let mut machine = lab.boot(&ns, &image, "probe", &[Nic::unplugged("0a:00:00:00:00:01")], (MEMORY, CPUS))?;
    let (text, status) = machine.run("/probe /object eth0 2>&1")?;
    print!("{text}");
    ensure!(status == 0, "Linux {} does not take the programs", kernel.release);
    summary(&text).context("the probe did not say what was loaded")
}

/// The counts of the lines `program NAME: verified N instructions, …`.
fn summary(text: &str) -> Option<String> {
    let counts: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("program ")?.split_once(": verified ")?;
            Some(format!("{name} {}", rest.split(' ').next()?))
        })
        .collect();
    (!counts.is_empty()).then(|| format!("verified instructions: {}", counts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_every_program() {
        let text = "loaded\nprogram a: verified 12 instructions, x\nprogram b: verified 3 instructions, y\nremoved\n";
        assert_eq!(summary(text).unwrap(), "verified instructions: a 12, b 3");
        assert_eq!(summary("removed\n"), None);
    }
}
