//! The source tree keeps its own house rules.

use std::path::Path;

use oxbow_tests::backends::EBPF_ALONE;
use oxbow_tests::sources::{Source, no_complaints, sources};

/// Longest file: past this, it is two rooms.
const LONGEST: usize = 800;

/// Longer files that may stay so, and why.
const LONG: &[(&str, &str)] = &[];

#[test]
fn files_are_one_room() {
    let sources = sources().unwrap();
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let lines = source.text.lines().count();
        if lines > LONGEST && !LONG.iter().any(|(path, _)| *path == source.path) {
            complaints.push(format!("{}: {lines} lines", source.path));
        }
    }
    for (path, _) in LONG {
        if !sources.iter().any(|source| source.path == *path && source.text.lines().count() > LONGEST) {
            complaints.push(format!("{path} is no longer long: take it off the list"));
        }
    }
    no_complaints("a file past 800 lines is split, or listed in this test with the reason", &complaints);
}

#[test]
fn modules_are_named_for_what_they_do() {
    let empty = ["common", "util", "utils", "types", "misc", "helper", "helpers"];
    let mut complaints = Vec::new();
    for source in sources().unwrap().iter().filter(|source| source.is_rust()) {
        let path = Path::new(&source.path);
        for part in path.iter().chain(path.file_stem()) {
            if empty.iter().any(|name| part == *name) {
                complaints.push(source.path.clone());
            }
        }
        for (number, line) in source.code_lines() {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if words.windows(2).any(|pair| pair[0] == "mod" && empty.contains(&pair[1])) {
                complaints.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    no_complaints("no module is called common, utils, types, misc or helpers", &complaints);
}

/// Pieces of text that must not be committed, each written so that this file does not contain it.
fn lines_containing(needles: &[&str], exempt: impl Fn(&Source) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources().expect("the checkout can be read").iter().filter(|source| !exempt(source)) {
        for (number, line) in source.lines() {
            for needle in needles.iter().filter(|needle| line.contains(**needle)) {
                complaints.push(format!("{}:{number}: {needle}", source.path));
            }
        }
    }
    complaints
}

#[test]
fn text_names_no_machine() {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/mn", "t/")];
    let hosts = [concat!("index.crates", ".io"), concat!("static.crates", ".io"), concat!("deb.debian", ".org")];
    let mirrors = [concat!("replace", "-with"), concat!("arti", "factory"), concat!("CARGO_REGISTR", "IES_")];
    let needles: Vec<&str> = paths.into_iter().chain(hosts).chain(mirrors).collect();
    no_complaints(
        "committed text names no path of a machine and no host of a registry",
        &lines_containing(&needles, |_| false),
    );
}

#[test]
fn nothing_is_left_to_do() {
    let needles = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    no_complaints("what is left to do is an issue, not a comment", &lines_containing(&needles, |_| false));
}

#[test]
fn no_test_is_switched_off() {
    let needles = [concat!("#[ign", "ore")];
    no_complaints("every test runs", &lines_containing(&needles, |source| !source.is_rust()));
}

#[test]
fn silenced_lints_say_why() {
    let mut complaints = Vec::new();
    for source in sources().unwrap().iter().filter(|source| source.is_rust()) {
        for start in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in source.text.match_indices(start) {
                let line_start = source.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                let before = &source.text[line_start..at];
                // Not in a comment, and not in a string such as the ones above.
                if before.contains("//") || before.contains('"') {
                    continue;
                }
                let attribute = source.text[at..].split_once(")]").map_or("", |(attribute, _)| attribute);
                if !attribute.contains("reason = ") {
                    let number = source.text[..at].lines().count() + 1;
                    complaints.push(format!("{}:{number}", source.path));
                }
            }
        }
    }
    no_complaints("every #[allow] and #[expect] has a reason", &complaints);
}

#[test]
fn tests_of_clouds_run_on_every_backend_or_are_listed_with_the_reason() {
    let kinds = ["cloud_", "fault_", "mixed_", "operator_"];
    let (mut complaints, mut found) = (Vec::new(), Vec::new());
    for source in sources().unwrap() {
        let Some(file) = source.path.strip_prefix("tests/tests/") else { continue };
        if !kinds.iter().any(|kind| file.starts_with(kind)) {
            continue;
        }
        for test in source.text.split("\n#[test]\nfn ").skip(1) {
            let name = test.split('(').next().unwrap_or_default();
            let body = test.split("\n}\n").next().unwrap_or_default();
            // Those that name both kinds judge them beside each other.
            if !body.contains("Node::Oxbow") || body.contains("Node::OpenFlow") {
                continue;
            }
            let listed =
                EBPF_ALONE.iter().position(|(of, test, _)| *of == file && test.is_none_or(|test| test == name));
            match listed {
                Some(at) => found.push(at),
                None => complaints.push(format!("{file}: {name}")),
            }
        }
    }
    let idle = EBPF_ALONE.iter().enumerate().filter(|(at, _)| !found.contains(at));
    complaints.extend(idle.map(|(_, (file, test, _))| format!("{file}: {test:?} is listed and is none of these")));
    no_complaints(
        "a test with `oxbow-node` takes its backend by on_every_backend!, or is in tests/src/backends.rs",
        &complaints,
    );
}
