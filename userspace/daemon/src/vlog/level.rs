//! Severities, destinations and facilities, as ovs-appctl(8) "Logging Commands" names them.

/// How severe a message is, or from which severity on a destination takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing is logged (only as a destination's level).
    Off,
    /// A major failure made the process abort.
    Emer,
    /// A high-level operation or a subsystem failed.
    Err,
    /// A low-level operation failed, higher layers may recover.
    Warn,
    /// Worth knowing in retrospect.
    Info,
    /// For those who know the system; not logged by default.
    Dbg,
}

impl Level {
    /// All levels, indexed by their number.
    pub const ALL: [Level; 6] = [Level::Off, Level::Emer, Level::Err, Level::Warn, Level::Info, Level::Dbg];

    /// The word in log lines and in `vlog/list`.
    pub fn name(self) -> &'static str {
        ["OFF", "EMER", "ERR", "WARN", "INFO", "DBG"][self as usize]
    }

    /// Reads a word of a level specification, in any case.
    pub fn parse(word: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(word))
    }

    /// The severity part of a syslog PRI (RFC 5424 section 6.2.1): alert, error, warning, notice, debug.
    pub fn syslog_severity(self) -> u8 {
        match self {
            Level::Off | Level::Emer => 1,
            Level::Err => 3,
            Level::Warn => 4,
            Level::Info => 5,
            Level::Dbg => 7,
        }
    }

    /// The level of a tracing event; `TRACE` has no counterpart and counts as `DBG`.
    pub fn of(level: tracing::Level) -> Level {
        match level {
            tracing::Level::ERROR => Level::Err,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            _ => Level::Dbg,
        }
    }
}

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Destination {
    /// Standard error.
    Console,
    /// The system log, by `--syslog-method`, and the host of `--syslog-target`.
    Syslog,
    /// The file of `--log-file`.
    File,
}

impl Destination {
    /// All destinations in the order of `vlog/list`, indexed by their number.
    pub const ALL: [Destination; 3] = [Destination::Console, Destination::Syslog, Destination::File];

    /// The word in `vlog/list` and, in capitals, in `vlog/list-pattern`.
    pub fn name(self) -> &'static str {
        ["console", "syslog", "file"][self as usize]
    }

    /// Reads a word of a level specification, in any case.
    pub fn parse(word: &str) -> Option<Destination> {
        Destination::ALL.into_iter().find(|destination| destination.name().eq_ignore_ascii_case(word))
    }
}

/// Facility numbers of RFC 5424 section 6.2.1, in order, by the names that `FACILITY:` takes.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "clock", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock2", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// A syslog facility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// The default towards the host's own syslog daemon.
    pub const DAEMON: Facility = Facility(3);
    /// The default of `%B` and of `--syslog-target`.
    pub const LOCAL0: Facility = Facility(16);

    /// Reads a facility's name.
    pub fn parse(name: &str) -> Option<Facility> {
        FACILITIES.iter().position(|known| *known == name).map(|number| Facility(number as u8))
    }

    /// The PRI of a message of `level` (RFC 5424 section 6.2.1).
    pub fn priority(self, level: Level) -> u8 {
        self.0 * 8 + level.syslog_severity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case() {
        assert_eq!(Level::parse("Dbg"), Some(Level::Dbg));
        assert_eq!(Level::parse("debug"), None);
        assert_eq!(Destination::parse("FILE"), Some(Destination::File));
    }

    #[test]
    fn priorities_are_rfc_5424s() {
        // Observed: stock sends INFO to --syslog-target as <133> and WARN as <132>.
        assert_eq!(Facility::LOCAL0.priority(Level::Info), 133);
        assert_eq!(Facility::LOCAL0.priority(Level::Warn), 132);
        assert_eq!(Facility::parse("local7"), Some(Facility(23)));
        assert_eq!(Facility::parse("LOCAL7"), None);
    }
}
