//! Line formats: the `%` escapes of ovs-appctl(8) `vlog/set PATTERN:`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::clock::{Calendar, local_offset};
use super::level::{Facility, Level};

/// The default of the console: whole seconds.
pub(super) const CONSOLE: &str = "%D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m";
/// The default of the log file (host contract R-60).
pub(super) const FILE: &str = "%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m";
/// The default of syslog (host contract R-62).
pub(super) const SYSLOG: &str = "ovs|%05N|%c%T|%p|%m";
/// What precedes the syslog pattern where no libc adds a header: RFC 3164 section 4.1.
pub(super) const SYSLOG_PREFIX: &str = "<%B> %D{%h %e %T} %E %A:";
/// What `--syslog-target` receives: RFC 5424 section 6, the message marked as UTF-8.
pub(super) const SYSLOG_TARGET: &str = "<%B>1 %D{%Y-%m-%dT%H:%M:%S.###Z} %E %A %P %c - \u{feff}%m";

/// What a message has besides the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) time: SystemTime,
    pub(super) sequence: u64,
    pub(super) module: &'a str,
    /// Name of the thread, empty for the main one and the runtime's workers.
    pub(super) thread: &'a str,
    pub(super) level: Level,
    pub(super) message: &'a str,
}

/// What all messages of a process share.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) program: &'static str,
    pub(super) host: String,
    pub(super) pid: u32,
    pub(super) started: SystemTime,
}

/// Expands `pattern` into one line (without a newline).
pub(super) fn expand(pattern: &str, process: &Process, facility: Facility, record: &Record<'_>) -> String {
    let mut line = String::with_capacity(pattern.len() + record.message.len() + 32);
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        line.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let left = strip(&mut rest, '-');
        let zeros = strip(&mut rest, '0');
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let width: usize = rest[..digits].parse().unwrap_or(0);
        rest = &rest[digits..];
        let Some(escape) = rest.chars().next() else {
            line.push('%');
            break;
        };
        rest = &rest[escape.len_utf8()..];
        let value = field(escape, &mut rest, process, facility, record);
        let missing = width.saturating_sub(value.chars().count());
        let pad = |line: &mut String, with: char| line.extend(std::iter::repeat_n(with, missing));
        if left {
            line.push_str(&value);
            pad(&mut line, ' ');
        } else {
            pad(&mut line, if zeros { '0' } else { ' ' });
            line.push_str(&value);
        }
    }
    line.push_str(rest);
    line
}

fn strip(rest: &mut &str, flag: char) -> bool {
    match rest.strip_prefix(flag) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    }
}

/// The text in braces after `%d` or `%D`, if there is one.
fn template<'a>(rest: &mut &'a str) -> &'a str {
    const ISO_8601: &str = "%Y-%m-%d %H:%M:%S";
    match rest.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
        Some((template, after)) => {
            *rest = after;
            template
        }
        None => ISO_8601,
    }
}

fn field(escape: char, rest: &mut &str, process: &Process, facility: Facility, record: &Record<'_>) -> String {
    let mut value = String::new();
    let result = match escape {
        'A' => write!(value, "{}", process.program),
        'B' => write!(value, "{}", facility.priority(record.level)),
        'c' => write!(value, "{}", record.module),
        'd' => {
            Calendar::new(record.time, local_offset(record.time)).format(template(rest), &mut value);
            Ok(())
        }
        'D' => {
            Calendar::new(record.time, 0).format(template(rest), &mut value);
            Ok(())
        }
        'E' => write!(value, "{}", process.host),
        'm' => write!(value, "{}", record.message),
        'N' => write!(value, "{}", record.sequence),
        'n' => writeln!(value),
        'p' => write!(value, "{}", record.level.name()),
        'P' => write!(value, "{}", process.pid),
        'r' => {
            let elapsed = record.time.duration_since(process.started).unwrap_or(Duration::ZERO);
            write!(value, "{}", elapsed.as_millis())
        }
        't' => write!(value, "{}", if record.thread.is_empty() { "main" } else { record.thread }),
        'T' if record.thread.is_empty() => Ok(()),
        'T' => write!(value, "({})", record.thread),
        other => write!(value, "{other}"),
    };
    // Writing to a String cannot fail.
    debug_assert!(result.is_ok());
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pattern: &str, thread: &str) -> String {
        let process = Process {
            program: "ovn-northd",
            host: "vm".to_owned(),
            pid: 4711,
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_357_490_980),
        };
        let record = Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_357_491_980),
            sequence: 5,
            module: "reconnect",
            thread,
            level: Level::Info,
            message: "unix:/x: connected",
        };
        expand(pattern, &process, Facility::LOCAL0, &record)
    }

    #[test]
    fn the_default_formats() {
        assert_eq!(line(FILE, ""), "2026-11-22T14:24:51.980Z|00005|reconnect|INFO|unix:/x: connected");
        assert_eq!(line(CONSOLE, "walker"), "2026-11-22T14:24:51Z|00005|reconnect(walker)|INFO|unix:/x: connected");
        assert_eq!(
            line(&format!("{SYSLOG_PREFIX} {SYSLOG}"), ""),
            "<133> Nov 22 14:24:51 vm ovn-northd: ovs|00005|reconnect|INFO|unix:/x: connected"
        );
        assert_eq!(
            line(SYSLOG_TARGET, ""),
            "<133>1 2026-11-22T14:24:51.980Z vm ovn-northd 4711 reconnect - \u{feff}unix:/x: connected"
        );
    }

    #[test]
    fn widths_justification_and_oddities() {
        assert_eq!(line("[%5N][%-12c][%p]%{z}x%%%r%t%", ""), "[    5][reconnect   ][INFO]{z}x%1000main%");
        assert_eq!(line("%Q%-05N|%D", ""), "Q5    |2026-11-22 14:24:51");
    }
}
