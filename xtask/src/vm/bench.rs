//! Ring `bench`: `bench datapath` with the kernel's Open vSwitch datapath as the peer.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::Netns;
use oxbow_vm_tests::{GuestImage, GuestRoot, Kernel, Nic};

use super::cloud::{self, OVS_MODULES};
use super::executables::{self, Executable, Profile};
use super::lab::Lab;
use super::{ring0, suite};

/// Two clouds at a time.
const MEMORY: u32 = 5120;

/// Sender, receiver and datapath share it: a ratio of rates is one of costs.
const CPUS: u32 = 1;

/// How long all of it may take on a processor itself.
const DEADLINE: Duration = Duration::from_secs(5 * 60);

/// Long slices, few rounds: a translated processor shared with others is noisy.
const OPTIONS: &str = "--kernel-ovs --slice 400 --rounds 5";

pub(super) fn run(lab: &mut Lab, kernel: &Kernel) -> Result<String> {
    let bench = Executable {
        name: "oxbow-bench".to_owned(),
        path: executables::binary("oxbow-bench", "oxbow-bench", Profile::Release)?,
    };
    let mut root = GuestRoot::new()?;
    cloud::stock(&mut root)?;
    let all: Vec<Executable> = cloud::daemons()?.into_iter().chain([bench]).collect();
    suite::install(&mut root, lab, &all)?;
    let image = GuestImage::with(kernel, &[&ring0::MODULES[..], &OVS_MODULES].concat(), root)?;
    let ns = Netns::new("vm")?;
    let mut machine = lab.boot(&ns, &image, "bench", &[Nic::unplugged("0a:00:00:00:00:01")], (MEMORY, CPUS))?;
    // Programs of the bench's own are attached by way of a pin where there is no tcx.
    machine.check("mount -t bpf bpf /sys/fs/bpf")?;
    let command =
        format!("{} /oxbow/oxbow-bench datapath {OPTIONS} --json /tmp/report 2>&1", suite::environment(&machine));
    let (text, status) = machine.run_within(&command, DEADLINE, |line| println!("  {line}"))?;
    ensure!(status == 0, "the benchmark failed with status {status}:\n{text}");
    let report = machine.check("cat /tmp/report")?;
    let file = lab.logs().join("bench.json");
    std::fs::write(&file, &report).with_context(|| format!("cannot write {}", file.display()))?;
    summary(&report)
}

/// The medians of the ratios, row by row.
fn summary(report: &str) -> Result<String> {
    let report: serde_json::Value = serde_json::from_str(report.trim()).context("the report is not JSON")?;
    let mut found = Vec::new();
    for row in report["rows"].as_array().context("the report has no rows")? {
        for ratio in row["ratios"].as_array().into_iter().flatten() {
            if let (Some(name), Some(median)) = (row["name"].as_str(), ratio["median"].as_f64()) {
                found.push(format!("{name}: {median:.2}"));
            }
        }
    }
    ensure!(!found.is_empty(), "the report has no ratio");
    Ok(format!("Oxbow ÷ OVS kernel: {}", found.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_read_from_the_report() {
        let report = r#"{"rows":[{"name":"a","ratios":[{"of":"x","to":"y","median":1.234}]}]}"#;
        assert_eq!(summary(report).unwrap(), "Oxbow ÷ OVS kernel: a: 1.23");
        assert!(summary(r#"{"rows":[]}"#).is_err());
    }
}
