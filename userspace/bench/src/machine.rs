//! What the figures were measured on.

use std::fmt;

use serde::Serialize;

/// The machine and the build, as far as they matter to a reader of figures.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model name of the first CPU, from /proc/cpuinfo.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Load average of the last minute when the benchmark began.
    pub load: f64,
    /// `release` or `debug`: how this program was built.
    pub build: &'static str,
}

impl Machine {
    /// This machine, now. What cannot be read is `unknown` or 0.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let kernel = read("/proc/sys/kernel/osrelease");
        let load = read("/proc/loadavg");
        Self {
            cpu: model.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: if kernel.is_empty() { "unknown".to_owned() } else { kernel.trim().to_owned() },
            load: load.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, load, build } = self;
        write!(f, "{cpu}, {cores} cores, Linux {kernel}, load average {load:.2}, {build} build")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_a_cpu() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.kernel.contains('.'), "{machine}");
    }
}
