//! `userspace/node/HOST-CONTRACT.md` says for every requirement of a hypervisor's other software what became of it.
//!
//! A row is `| R-5 | met | `name_of_a_test` | words |`, `| R-6 | later | words |` or `| R-7 | refused | words |`. A met requirement names
//! at least one test in backquotes, and that test must exist.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use oxbow_tests::sources::{no_complaints, sources};

const TABLE: &str = "userspace/node/HOST-CONTRACT.md";

/// The requirements' numbers; what lies between the ranges was never given out.
const NUMBERS: &[RangeInclusive<u32>] = &[1..=12, 20..=24, 30..=41, 45..=52, 53..=58, 60..=63, 70..=76];

#[test]
fn every_requirement_has_its_row_and_every_named_test_exists() {
    let sources = sources().unwrap();
    let table = sources.iter().find(|source| source.path == TABLE).unwrap_or_else(|| panic!("{TABLE} is missing"));
    let tests: BTreeSet<&str> =
        sources.iter().filter(|source| source.is_rust()).flat_map(|s| test_names(&s.text)).collect();
    assert!(
        tests.contains("every_requirement_has_its_row_and_every_named_test_exists"),
        "the search for tests finds none"
    );

    let mut complaints = Vec::new();
    let mut rows: BTreeMap<u32, usize> = BTreeMap::new();
    for (line_number, line) in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(requirement) = cells.get(1).and_then(|cell| cell.trim_matches('*').strip_prefix("R-")) else {
            continue;
        };
        let Ok(number) = requirement.parse::<u32>() else {
            complaints.push(format!("{TABLE}:{line_number}: R-{requirement} is not a number"));
            continue;
        };
        *rows.entry(number).or_default() += 1;
        let rest = cells.get(3..).unwrap_or_default().join("|");
        match cells.get(2).copied() {
            Some("met") => {
                let named: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
                // A test may be written with its path.
                let found = |name: &&str| tests.contains(name.rsplit("::").next().unwrap_or(name));
                if !named.iter().any(found) {
                    complaints.push(format!("{TABLE}:{line_number}: R-{number} is met but names no existing test"));
                }
                for name in named.iter().filter(|name| looks_like_a_test(name) && !found(name)) {
                    complaints.push(format!("{TABLE}:{line_number}: R-{number}: there is no test {name}"));
                }
            }
            Some("later" | "refused") if rest.trim_matches(['|', ' ']).is_empty() => {
                complaints.push(format!("{TABLE}:{line_number}: R-{number} does not say why"));
            }
            Some("later" | "refused") => {}
            other => complaints.push(format!("{TABLE}:{line_number}: R-{number} is {other:?}: met, later or refused?")),
        }
    }
    let numbers: BTreeSet<u32> = NUMBERS.iter().cloned().flatten().collect();
    for number in &numbers {
        match rows.get(number) {
            None => complaints.push(format!("R-{number} has no row")),
            Some(1) => {}
            Some(times) => complaints.push(format!("R-{number} has {times} rows")),
        }
    }
    for number in rows.keys().filter(|number| !numbers.contains(number)) {
        complaints.push(format!("R-{number} is no requirement"));
    }
    no_complaints("every requirement is met by a test, later, or refused", &complaints);
}

/// Names of functions that follow a `#[test]`-like attribute, and of those that [`oxbow_tests::on_every_backend`] makes tests of.
fn test_names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    let mut is_list = false;
    for line in text.lines().map(str::trim) {
        if line.contains("on_every_backend! {") || is_list {
            is_list = line != "}";
            names.extend(line.strip_suffix(','));
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.contains("::test]") || line.contains("::test(");
        } else if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
            if is_test {
                names.extend(rest.split(['(', '<']).next());
            }
            is_test = false;
        }
    }
    names
}

/// Test names are long words in snake case; other things in backquotes (`exit`, `ovn-installed`) are not.
fn looks_like_a_test(name: &str) -> bool {
    name.matches('_').count() >= 3
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
}
