//! The JSON of every report is an interface: fields are added, never renamed. `data/` has one of each with every field filled in, as scripts read it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: a failed step is a failed test")]

use oxbow_report::{drops, events, flows, ports, status, trace, verdicts};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Display;

/// What is read from the record and written again is the record: a field that was renamed, lost or turned into another type differs, and so does one
/// that is new and not in the record yet.
fn is_kept<T: DeserializeOwned + Serialize>(record: &str) -> T {
    let report: T = oxbow_report::read(record).unwrap_or_else(|error| panic!("{error}: {record}"));
    let record: Value = serde_json::from_str(record).unwrap();
    let written: Value = serde_json::from_str(&oxbow_report::json(&report)).unwrap();
    assert_eq!(written, record, "fields are added (to the record as well), never renamed");
    report
}

/// The same of a report that people read: the text says something of it.
fn is_shown<T: DeserializeOwned + Serialize + Display>(record: &str, says: &[&str]) {
    let text = is_kept::<T>(record).to_string();
    for part in says {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn every_report_keeps_its_fields() {
    is_shown::<status::Status>(include_str!("data/status.json"), &["hv1", "OX_VIFS is full", "ssl:192.0.2.1:6642"]);
    is_shown::<ports::Ports>(include_str!("data/ports.json"), &["vm1", "tap0", "failed"]);
    is_shown::<flows::Flows>(include_str!("data/flows.json"), &["ls_in_acl", "tcp.dst == 23"]);
    is_shown::<verdicts::Verdicts>(
        include_str!("data/verdicts.json"),
        &["vm1 (by tunnel) -> vm2", "guard 3 is 5, was 4"],
    );
    is_shown::<drops::Drops>(include_str!("data/drops.json"), &["same-port (why)", "ls_in_acl"]);
    let way = ["at hv1", "# hv1 -> hv2 by geneve 192.0.2.1 -> 192.0.2.2", "reg0[1] = 1", "[reference and programs]"];
    is_shown::<trace::Trace>(include_str!("data/trace.json"), &way);
    is_shown::<events::Events>(include_str!("data/events.json"), &["sw0 vm1 (tunnel) -> vm2", "2 events lost"]);
    is_kept::<events::Listen>(include_str!("data/listen.json"));
}

/// A daemon of another version: what it does not send has its default, what this version does not know is ignored.
#[test]
fn other_versions_are_understood() {
    let newer = r#"{"reasons":[{"reason":"same-port","packets":1,"colour":"red"}],"weather":"fine"}"#;
    let drops: drops::Drops = oxbow_report::read(newer).unwrap();
    assert_eq!((drops.reasons[0].packets, drops.reasons[0].bytes, drops.flows.len()), (1, 0, 0));
    let error = oxbow_report::read::<drops::Drops>("[]{").unwrap_err();
    assert!(error.contains("not what this version reads"), "{error}");
}
