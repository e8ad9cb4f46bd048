//! Running test executables, which were built here, in a machine.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_vm_tests::{GuestRoot, Machine};

use super::executables::Executable;
use super::lab::Lab;

/// How long one executable may take on a processor itself.
const DEADLINE: Duration = Duration::from_secs(3 * 60);

/// Variables for what runs in a machine: where [`install`] put things, and how many times longer than on this machine a test waits for what
/// it wants to see.
pub(super) fn environment(machine: &Machine) -> String {
    format!(
        "OXBOW_BPF_OBJECT=/oxbow/datapath.o OXBOW_BIN_DIR=/oxbow OXBOW_PATIENCE={} RUST_BACKTRACE=1 RUST_LIB_BACKTRACE=0",
        machine.accelerator().slowness()
    )
}

/// Puts executables and the eBPF object where [`run`] finds them.
pub(super) fn install(root: &mut GuestRoot, lab: &mut Lab, executables: &[Executable]) -> Result<()> {
    root.copy_as(&lab.object()?, "oxbow/datapath.o")?;
    for Executable { name, path } in executables {
        root.built(path, &format!("oxbow/{name}"))?;
    }
    Ok(())
}

/// Runs the tests of an executable whose names contain one of `filters` (none: all), shows each as it ends, and returns how many passed.
///
/// Tests that only measure (`costs::…`) are left out: a translated processor's nanoseconds say nothing.
pub(super) fn run(lab: &Lab, machine: &mut Machine, name: &str, filters: &[&str]) -> Result<u32> {
    println!("{name} {}", filters.join(" "));
    let command =
        format!("{} /oxbow/{name} --test-threads 1 --skip costs:: {}", environment(machine), filters.join(" "));
    let told = machine.run_within(&command, DEADLINE, |line| {
        if line.starts_with("test ") {
            println!("  {line}");
        }
    });
    let (text, status) = told.with_context(|| format!("{name} does not end"))?;
    let log = lab.logs().join(format!("{name}.txt"));
    fs::write(&log, &text).with_context(|| format!("cannot write {}", log.display()))?;
    if status != 0 {
        let from = text.len().saturating_sub(20_000);
        let end = text.get(text.ceil_char_boundary(from)..).unwrap_or_default();
        bail!("{name} failed with status {status} (all it printed is in {}):\n{end}", crate::workspace::shown(&log));
    }
    passed(&text).with_context(|| format!("{name} printed no result:\n{text}"))
}

/// The summary of what passed.
///
/// # Errors
///
/// When nothing was run.
pub(super) fn summary(passed: u32, lab: &Lab) -> Result<String> {
    ensure!(passed > 0, "no test is named like {}", lab.filters().join(" "));
    Ok(format!("{passed} tests"))
}

/// N in the line `test result: ok. N passed; …`.
fn passed(text: &str) -> Option<u32> {
    let result = text.lines().find_map(|line| line.strip_prefix("test result: ok. "))?;
    result.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_test_executable_is_read() {
        assert_eq!(passed("test a ... ok\n\ntest result: ok. 7 passed; 0 failed; 0 ignored\n"), Some(7));
        assert_eq!(passed("test result: FAILED. 7 passed; 1 failed\n"), None);
    }
}
