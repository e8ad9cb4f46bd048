//! The dependency law: who may know whom.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use oxbow_tests::sources::{cargo_metadata, no_complaints, sources};
use serde_json::Value;

/// A crate and the crates of ours that it may depend on. A new crate is entered here first: that is the moment to think about where it
/// belongs.
const LAW: &[(&str, &[&str])] = &[
    ("oxbow-abi", &[]),
    ("oxbow-wire", &["oxbow-abi"]),
    ("oxbow-datapath", &["oxbow-abi", "oxbow-wire"]),
    ("oxbow-ovsdb", &[]),
    ("oxbow-schema", &["oxbow-ovsdb"]),
    ("oxbow-lflow", &[]),
    ("oxbow-pipeline", &["oxbow-lflow"]),
    ("oxbow-incr", &[]),
    ("oxbow-daemon", &[]),
    ("oxbow-report", &[]),
    ("oxbow-backend-bpf", &["oxbow-abi", "oxbow-pipeline", "oxbow-lflow"]),
    ("oxbow-backend-openflow", &["oxbow-pipeline", "oxbow-lflow"]),
    (
        "oxbow-node",
        &[
            "oxbow-abi",
            "oxbow-ovsdb",
            "oxbow-schema",
            "oxbow-lflow",
            "oxbow-pipeline",
            "oxbow-incr",
            "oxbow-backend-bpf",
            "oxbow-backend-openflow",
            "oxbow-daemon",
            "oxbow-report",
        ],
    ),
    ("oxbow-northd", &["oxbow-ovsdb", "oxbow-schema", "oxbow-incr", "oxbow-daemon"]),
    ("oxbow-ctl", &["oxbow-daemon", "oxbow-report"]),
    ("oxbow-testkit", &["oxbow-report"]),
    (
        "oxbow-agree",
        &["oxbow-abi", "oxbow-wire", "oxbow-backend-bpf", "oxbow-backend-openflow", "oxbow-pipeline", "oxbow-testkit"],
    ),
    (
        "oxbow-bench",
        &[
            "oxbow-abi",
            "oxbow-wire",
            "oxbow-ovsdb",
            "oxbow-schema",
            "oxbow-lflow",
            "oxbow-pipeline",
            "oxbow-backend-bpf",
            "oxbow-testkit",
            "oxbow-agree",
        ],
    ),
    ("oxbow-vm-tests", &["oxbow-testkit"]),
    ("oxbow-vm-probe", &["oxbow-backend-bpf"]),
    ("oxbow-tests", JUDGES),
    ("xtask", JUDGES),
];

/// What the tests of the whole and the tools may use: everything but the daemons, which they only run.
const JUDGES: &[&str] = &[
    "oxbow-abi",
    "oxbow-report",
    "oxbow-wire",
    "oxbow-ovsdb",
    "oxbow-schema",
    "oxbow-lflow",
    "oxbow-pipeline",
    "oxbow-backend-bpf",
    "oxbow-backend-openflow",
    "oxbow-testkit",
    "oxbow-agree",
    "oxbow-vm-tests",
];

/// Nothing depends on these, not even for tests: they are run, not linked.
const ENDS: &[&str] = &["oxbow-node", "oxbow-northd", "oxbow-ctl"];

/// Crates that compute and do nothing else.
const PURE: &[&str] = &["oxbow-abi", "oxbow-wire", "oxbow-lflow", "oxbow-pipeline", "oxbow-incr"];

/// The members of both workspaces with their dependencies: (name, kind), the kind being "dev", "build" or "" for ordinary ones.
fn dependencies() -> Result<BTreeMap<String, Vec<(String, String)>>> {
    let mut crates = BTreeMap::new();
    for manifest in ["Cargo.toml", "ebpf/datapath/Cargo.toml"] {
        let metadata = cargo_metadata(manifest, &["--no-deps"])?;
        for package in list(&metadata["packages"]) {
            let dependencies = list(&package["dependencies"]).iter().map(|dependency| {
                (text(&dependency["name"]).to_owned(), dependency["kind"].as_str().unwrap_or_default().to_owned())
            });
            crates.insert(text(&package["name"]).to_owned(), dependencies.collect());
        }
    }
    Ok(crates)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("cargo metadata has a list here")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo metadata has a string here")
}

#[test]
fn crates_depend_only_on_what_the_law_allows() {
    let crates = dependencies().unwrap();
    let law: BTreeMap<&str, &[&str]> = LAW.iter().copied().collect();
    let mut complaints = Vec::new();
    for (name, dependencies) in &crates {
        let Some(allowed) = law.get(name.as_str()) else {
            complaints.push(format!("{name} is not in the law"));
            continue;
        };
        for (dependency, kind) in dependencies.iter().filter(|(dependency, _)| crates.contains_key(dependency)) {
            // Tests may use more than what they test, but never the daemons.
            let fine = if kind == "dev" {
                !ENDS.contains(&dependency.as_str())
            } else {
                allowed.contains(&dependency.as_str())
            };
            if !fine {
                complaints.push(format!("{name} depends on {dependency} {kind}"));
            }
        }
    }
    no_complaints("crates depend only on what the law in this file allows", &complaints);
}

#[test]
fn pure_crates_reach_no_runtime_and_no_kernel() {
    let metadata = cargo_metadata("Cargo.toml", &[]).unwrap();
    let names: BTreeMap<&str, &str> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    let graph: BTreeMap<&str, Vec<&str>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let ordinary = list(&node["deps"])
                .iter()
                .filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].as_str().is_none()));
            (text(&node["id"]), ordinary.map(|dep| text(&dep["pkg"])).collect())
        })
        .collect();
    let mut complaints = Vec::new();
    for (start, name) in names.iter().filter(|(_, name)| PURE.contains(name)) {
        let mut reached = BTreeSet::new();
        let mut open = vec![*start];
        while let Some(id) = open.pop() {
            if reached.insert(id) {
                open.extend(&graph[id]);
            }
        }
        for reached in reached.iter().map(|id| names[id]) {
            if ["tokio", "aya", "aya-obj", "nix", "netlink-sys"].contains(&reached) {
                complaints.push(format!("{name} reaches {reached}"));
            }
        }
    }
    no_complaints("lflow, pipeline, incr, wire and abi know no tokio and no aya", &complaints);
}

#[test]
fn pure_crates_know_no_clock() {
    let mut complaints = Vec::new();
    let rooms =
        ["ebpf/abi/src/", "ebpf/wire/src/", "userspace/lflow/src/", "userspace/pipeline/src/", "userspace/incr/src/"];
    for source in sources().unwrap().iter().filter(|source| source.is_rust()) {
        if !rooms.iter().any(|room| source.path.starts_with(room)) {
            continue;
        }
        for (number, line) in source.code_lines() {
            for clock in ["Instant", "SystemTime", "std::time", "UNIX_EPOCH"] {
                if line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').any(|word| word.contains(clock)) {
                    complaints.push(format!("{}:{number}: {clock}", source.path));
                }
            }
        }
    }
    no_complaints("lflow, pipeline, incr, wire and abi are told the time", &complaints);
}

#[test]
fn no_dependency_needs_a_newer_compiler() {
    let metadata = cargo_metadata("Cargo.toml", &[]).unwrap();
    let ours = (1, 95);
    let mut complaints = Vec::new();
    for package in list(&metadata["packages"]) {
        let Some(needed) = package["rust_version"].as_str() else { continue };
        let mut numbers = needed.split('.').map(|part| part.parse::<u32>().expect("a number"));
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) > ours {
            complaints.push(format!("{} {} needs {needed}", text(&package["name"]), text(&package["version"])));
        }
    }
    no_complaints("Rust 1.95 builds everything in Cargo.lock", &complaints);
}
