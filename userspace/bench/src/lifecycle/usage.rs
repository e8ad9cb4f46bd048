//! What processes take: CPU time, memory, memory of their eBPF maps.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// CPU time of all threads of these processes so far (proc(5), `schedstat`). Threads that have ended are not in it: the daemons keep theirs.
pub(super) fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut nanoseconds = 0;
    for pid in pids {
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
            // A thread may end between the listing and the look.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let first = text.split_whitespace().next().context("an empty schedstat")?;
            nanoseconds += first.parse::<u64>().with_context(|| format!("schedstat says {text:?}"))?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Resident memory in MiB (proc(5), `VmRSS`).
pub(super) fn resident(pids: &[u32]) -> Result<f64> {
    let mut kib = 0u64;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        kib += line.trim().trim_end_matches(" kB").parse::<u64>().with_context(|| format!("VmRSS: {line}"))?;
    }
    Ok(kib as f64 / 1024.0)
}

/// Memory in MiB of the eBPF maps that a process has open (`memlock` in its fdinfo: what the kernel charges for each), each map once.
pub(super) fn maps(pid: u32) -> Result<f64> {
    let mut bytes = std::collections::BTreeMap::new();
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
        // A descriptor may be closed between the listing and the look.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(size)) = (field("map_id:"), field("memlock:")) {
            bytes.insert(id, size);
        }
    }
    Ok(bytes.values().sum::<u64>() as f64 / f64::from(1 << 20))
}
