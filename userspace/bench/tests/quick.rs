//! The benchmarks in their quick form: every row is there. What the figures are is nobody's business here.

#![expect(clippy::unwrap_used, reason = "tests: a failed step is a failed test")]

use std::process::Command;

/// Runs a benchmark's quick form and returns its rows as JSON.
fn rows(bench: &str, args: &[&str]) -> Vec<serde_json::Value> {
    let dir = tempfile::tempdir().unwrap();
    let (json, markdown) = (dir.path().join("report.json"), dir.path().join("report.md"));
    let output = Command::new(env!("CARGO_BIN_EXE_oxbow-bench"))
        .args([bench, "--quick", "--json"])
        .arg(&json)
        .arg("--markdown")
        .arg(&markdown)
        .args(args)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}", output.status);
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["bench"], bench);
    let rows = report["rows"].as_array().unwrap().clone();
    let table = std::fs::read_to_string(markdown).unwrap();
    assert_eq!(table.lines().filter(|line| line.contains("cargo xtask bench")).count(), rows.len(), "{table}");
    for row in &rows {
        for contender in row["contenders"].as_array().unwrap() {
            assert!(contender["median"].as_f64().is_some_and(f64::is_finite), "{said}");
        }
    }
    rows
}

#[test]
fn ovsdb_measures_cpu_and_memory_of_both_clients() {
    let rows = rows("ovsdb", &["--ports", "200", "--flows", "1200"]);
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["OVSDB: 200 ports and 1200 flows received, CPU", "OVSDB: 200 ports and 1200 flows received, peak memory"]
    );
}

/// Needs root, the eBPF object and `oxbow-node`: `cargo xtask test` sees to them.
#[cfg(feature = "ring0")]
#[test]
fn datapath_measures_every_road_of_every_contender() {
    let rows = rows("datapath", &["--rounds", "1", "--slice", "20"]);
    // Two floods on one hypervisor, TCP there; a flood and TCP over three underlays towards a veth and a tap; rate and CPU of each.
    assert_eq!(rows.len(), (3 + 2 * 4) * 2, "{rows:#?}");
    for row in rows {
        let name = row["name"].as_str().unwrap();
        let contenders = row["contenders"].as_array().unwrap().len();
        let local = name.starts_with("VIF to VIF");
        let expected = match (local, name.ends_with(", CPU")) {
            (true, true) => 3,
            (true, false) => 4,
            (false, _) => {
                if name.contains("UDP") {
                    3
                } else {
                    2
                }
            }
        };
        assert_eq!(contenders, expected, "{name}");
    }
}

#[test]
fn lifecycle_measures_every_step_of_every_contender() {
    let rows = rows("lifecycle", &["--others", "20", "--ports", "60", "--local", "2"]);
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let cases = [
        "empty network, first",
        "empty network, second",
        "20 ports on the switch, first",
        "20 ports on the switch, second",
    ];
    for case in cases {
        for step in
            ["→ ofport", "→ ovn-installed", "→ up in NB", "→ first answered ping", "→ down in NB", "tunnelled to it"]
        {
            let found = names.iter().filter(|name| name.contains(case) && name.ends_with(step)).count();
            assert_eq!(found, 1, "{case} {step} in {names:#?}");
        }
    }
    for subject in ["northd, 60 ports", "hypervisor, 60 ports"] {
        for change in ["everything compiled", "everything installed", "a port more", "another address", "an ACL more"] {
            let found = names.iter().filter(|name| name.starts_with(subject) && name.contains(change)).count();
            let expected = if change.starts_with("everything") { found.clamp(0, 2) } else { 2 };
            assert_eq!(found, expected, "{subject} {change} in {names:#?}");
        }
    }
    // Three clouds of the life cycle, two northds, two kinds of hypervisors.
    let contenders = |row: &serde_json::Value| row["contenders"].as_array().unwrap().len();
    assert!(
        rows.iter().all(|row| contenders(row) == if row["name"].as_str().unwrap().starts_with("life") { 3 } else { 2 })
    );
}

#[cfg(feature = "ring0")]
#[test]
fn walk_measures_packets_on_every_switch_and_floods_on_one() {
    let rows = rows("walk", &["--large-ports", "40"]);
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let packets = ["IPv4, 1 flow, switch of", "IPv6, 1 flow, switch of", "IPv4, 1000 flows, switch of"];
    let ip4 = ["IPv4, 1 flow, switch of 40 IPv4 ports", "IPv4, 1000 flows, switch of 40 IPv4 ports"];
    let floods = [
        "verdict cache of 4096, cost",
        "verdict cache of 4096, rate of one CPU",
        "verdict cache of 4096, answered from the cache",
        "200 established flows beside a flood of never-repeating ones, cost",
        "200 established flows beside a flood of never-repeating ones, answered from the cache",
        "2000 established flows beside a flood of never-repeating ones, cost",
        "2000 established flows beside a flood of never-repeating ones, answered from the cache",
        "cached, 200 flows a CPU, rate in all",
        "flows that never repeat, 10000 flows a CPU, rate in all",
        "denied flows, in turn, cost",
        "denied flows, in turn, rate of one CPU",
        "denied flows, in turn, answered from the cache",
    ];
    // With one CPU there is no flood beside anything.
    let beside = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
    let floods = floods.iter().filter(|name| beside || !name.contains("beside"));
    let wanted: Vec<&str> = packets.iter().chain(floods).chain(&packets).chain(&ip4).copied().collect();
    assert_eq!(names.len(), wanted.len(), "{names:?}");
    for (name, start) in names.iter().zip(wanted) {
        assert!(name.starts_with(start), "{name} is not {start}");
    }
}
