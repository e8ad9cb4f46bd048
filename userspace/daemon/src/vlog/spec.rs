//! The argument of `-v`, `--verbose=` and `vlog/set`.

use super::level::{Destination, Facility, Level};

/// One change of the logging configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Sets the level of one module or all, at one destination or all.
    Level {
        /// The module's name, in the case it was given; `None` for every module.
        module: Option<String>,
        /// `None` for every destination.
        destination: Option<Destination>,
        /// The new level.
        level: Level,
    },
    /// Sets the line format of one destination, or of all.
    Pattern {
        /// `None` for every destination.
        destination: Option<Destination>,
        /// The new pattern.
        pattern: String,
    },
    /// Sets the syslog facility.
    Facility(Facility),
}

/// Why a specification was refused; the texts are those of OVS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A word that means nothing here.
    #[error("no destination, level, or module \"{0}\"")]
    UnknownWord(String),
    /// Two words from the category of levels.
    #[error("cannot specify multiple levels")]
    MultipleLevels,
    /// Two words from the category of destinations.
    #[error("cannot specify multiple destinations")]
    MultipleDestinations,
    /// Two words from the category of modules.
    #[error("cannot specify multiple modules")]
    MultipleModules,
    /// `PATTERN:` without a destination.
    #[error("missing destination")]
    MissingDestination,
    /// `PATTERN:` with something else than a destination.
    #[error("unknown destination \"{0}\"")]
    UnknownDestination(String),
    /// `FACILITY:` with something else than a facility.
    #[error("invalid facility")]
    InvalidFacility,
}

/// Reads one specification. `is_module` says whether a word, in lower case, names a module.
///
/// Words are separated by spaces, commas or colons, at most one from each category; without a level the level is `dbg`;
/// `any` says nothing. `PATTERN:DESTINATION:TEXT` and `FACILITY:NAME` are the other two forms.
///
/// # Errors
/// [`SpecError`], naming the word at fault.
pub(super) fn parse(spec: &str, is_module: impl Fn(&str) -> bool) -> Result<Change, SpecError> {
    let (head, rest) = spec.split_once(':').unwrap_or((spec, ""));
    if head.eq_ignore_ascii_case("pattern") {
        let (word, pattern) = rest.split_once(':').unwrap_or((rest, ""));
        if word.is_empty() {
            return Err(SpecError::MissingDestination);
        }
        let destination = if word.eq_ignore_ascii_case("any") {
            None
        } else {
            Some(Destination::parse(word).ok_or_else(|| SpecError::UnknownDestination(word.to_owned()))?)
        };
        return Ok(Change::Pattern { destination, pattern: pattern.to_owned() });
    }
    if head.eq_ignore_ascii_case("facility") {
        return Facility::parse(rest).map(Change::Facility).ok_or(SpecError::InvalidFacility);
    }

    let (mut module, mut destination, mut level) = (None, None, None);
    for word in spec.split([' ', ',', ':']).filter(|word| !word.is_empty() && !word.eq_ignore_ascii_case("any")) {
        if let Some(value) = Destination::parse(word) {
            if destination.replace(value).is_some() {
                return Err(SpecError::MultipleDestinations);
            }
        } else if let Some(value) = Level::parse(word) {
            if level.replace(value).is_some() {
                return Err(SpecError::MultipleLevels);
            }
        } else if is_module(&word.to_ascii_lowercase()) {
            if module.replace(word.to_ascii_lowercase()).is_some() {
                return Err(SpecError::MultipleModules);
            }
        } else {
            return Err(SpecError::UnknownWord(word.to_owned()));
        }
    }
    Ok(Change::Level { module, destination, level: level.unwrap_or(Level::Dbg) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str) -> Result<Change, SpecError> {
        parse(spec, |word| ["jsonrpc", "northd"].contains(&word))
    }

    fn level(module: Option<&str>, destination: Option<Destination>, level: Level) -> Result<Change, SpecError> {
        Ok(Change::Level { module: module.map(str::to_owned), destination, level })
    }

    #[test]
    fn words_come_in_any_order_and_separation() {
        assert_eq!(read("console:off"), level(None, Some(Destination::Console), Level::Off));
        assert_eq!(read("jsonrpc"), level(Some("jsonrpc"), None, Level::Dbg));
        assert_eq!(read("Northd file,INFO"), level(Some("northd"), Some(Destination::File), Level::Info));
        assert_eq!(read("info:any:northd:any"), level(Some("northd"), None, Level::Info));
        assert_eq!(read(""), level(None, None, Level::Dbg));
        assert_eq!(read(","), level(None, None, Level::Dbg));
    }

    #[test]
    fn errors_read_as_stocks() {
        // Each text was observed with ovs-appctl -t ovn-northd vlog/set.
        for (spec, text) in [
            ("foo:bar", "no destination, level, or module \"foo\""),
            ("any:file:zzz", "no destination, level, or module \"zzz\""),
            ("northd:file:console:dbg", "cannot specify multiple destinations"),
            ("northd:dbg:info", "cannot specify multiple levels"),
            ("northd:jsonrpc:dbg", "cannot specify multiple modules"),
            ("northd:info jsonrpc:info", "cannot specify multiple modules"),
            ("PATTERN:bogus:%m", "unknown destination \"bogus\""),
            ("PATTERN", "missing destination"),
            ("FACILITY:any", "invalid facility"),
            ("FACILITY", "invalid facility"),
        ] {
            assert_eq!(read(spec).unwrap_err().to_string(), text, "for {spec:?}");
        }
    }

    #[test]
    fn patterns_keep_their_colons() {
        assert_eq!(
            read("PATTERN:file:%D{%H:%M}|%m"),
            Ok(Change::Pattern { destination: Some(Destination::File), pattern: "%D{%H:%M}|%m".to_owned() })
        );
        assert_eq!(read("PATTERN:any:%m"), Ok(Change::Pattern { destination: None, pattern: "%m".to_owned() }));
        assert_eq!(
            read("PATTERN:file"),
            Ok(Change::Pattern { destination: Some(Destination::File), pattern: String::new() })
        );
    }
}
