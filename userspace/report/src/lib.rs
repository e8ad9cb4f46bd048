//! What a hypervisor tells about itself: one type for each report, its JSON, and its text.
//!
//! `oxbow-node` fills these in and answers with their JSON on its control socket (`oxbow/status`, `oxbow/ports`, …); `oxbow` prints that JSON
//! as it is (`--format json`) or reads it back and prints the text; the test kit does the latter when a test fails. So what an operator sees, what
//! a script reads and what a failed test prints are one thing.
//!
//! The JSON is an interface: fields are added, never renamed, and never change their meaning; a reader ignores those it does not know, and a
//! field that an older daemon does not send has its default. Numbers of packets and bytes count from the load of the programs. `null` means "there is
//! none". Every report is `Display`: the text for people, which is no interface.
//!
//! | module | command | report |
//! |---|---|---|
//! | [`status`] | `oxbow/status` | connections, chassis, ports, maps, problems; ready or why not |
//! | [`ports`] | `oxbow/ports` | each VIF and how far it is |
//! | [`flows`] | `oxbow/flows` | logical flows in force, with packets |
//! | [`verdicts`] | `oxbow/verdicts` | the verdict caches |
//! | [`drops`] | `oxbow/drops` | dropped packets by reason and by logical flow |
//! | [`trace`] | `oxbow/trace` | the way of one packet, by the reference and by the loaded programs |
//! | [`events`] | `oxbow/events` | packets as they pass or are dropped |

pub mod drops;
pub mod events;
pub mod flows;
pub mod ports;
pub mod status;
mod table;
pub mod trace;
pub mod verdicts;

pub use table::{Align, Table};

/// Reads a report from the JSON that a daemon answered with.
///
/// # Errors
/// When it is not JSON, or not this report: what, in words.
pub fn read<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("the daemon's answer is not what this version reads: {error}"))
}

/// The JSON of a report, one line. Reports hold nothing that JSON cannot say.
pub fn json<T: serde::Serialize>(report: &T) -> String {
    serde_json::to_string(report).unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string()))
}
