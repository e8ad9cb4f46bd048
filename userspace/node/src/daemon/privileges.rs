//! What the process may do, and what it would have to.

/// Capabilities that the daemon needs and does not have, a sentence each (capabilities(7)).
pub(super) fn missing_capabilities() -> Vec<String> {
    const NEEDED: [(u32, &str, &str); 3] = [
        (12, "CAP_NET_ADMIN", "devices and neighbours"),
        (38, "CAP_PERFMON", "eBPF programs that use pointers"),
        (39, "CAP_BPF", "eBPF programs and maps"),
    ];
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Vec::new() };
    missing_of(&status, &NEEDED)
}

fn missing_of(status: &str, needed: &[(u32, &str, &str)]) -> Vec<String> {
    const SYS_ADMIN: u64 = 1 << 21;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else { return Vec::new() };
    needed
        .iter()
        // CAP_SYS_ADMIN stands in for the two that were split off it.
        .filter(|(bit, ..)| effective & (1 << bit) == 0 && !(*bit >= 38 && effective & SYS_ADMIN != 0))
        .map(|(_, name, what)| format!("missing privilege {name}, needed for {what}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_is_named() {
        let needed = [(12, "CAP_NET_ADMIN", "devices"), (39, "CAP_BPF", "programs")];
        assert_eq!(missing_of("Name:\tx\nCapEff:\t000001ffffffffff\n", &needed), Vec::<String>::new());
        let none = missing_of("CapEff:\t0000000000000000\n", &needed);
        assert_eq!(none.len(), 2);
        assert!(none[0].contains("CAP_NET_ADMIN") && none[1].contains("CAP_BPF"), "{none:?}");
        // CAP_SYS_ADMIN has what CAP_BPF was split off from, not CAP_NET_ADMIN.
        assert_eq!(missing_of("CapEff:\t0000000000200000\n", &needed).len(), 1);
    }
}
