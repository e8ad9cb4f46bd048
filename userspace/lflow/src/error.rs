//! Errors of the match and action languages.

use std::fmt;

/// A half-open range of byte offsets `[start, end)` into the text that was parsed.
///
/// When templates were expanded first, the offsets count in the expanded text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte; equal to `start` for the end of input.
    pub end: u32,
}

impl Span {
    /// A span from `start` up to, not including, `end`.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { start: clamp(start), end: clamp(end) }
    }

    /// The smallest span that covers both.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// Why a text is not a valid match, action list or microflow.
///
/// `message` is OVN's own sentence, byte for byte (ovn-trace(8) and the logs of ovn-controller(8) print it), because people
/// and tests grep for it. `span` is the token at which the parser stood when it gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// OVN's text.
    pub message: String,
    /// Where in the text.
    pub span: Span,
}

impl Error {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Error { message: message.into(), span }
    }

    /// A rendering for people: the message, then the line that holds the error with a caret line under the offending token.
    ///
    /// `text` must be the text that was parsed; a span outside it is clamped to its end.
    #[must_use]
    pub fn with_caret(&self, text: &str) -> String {
        let at = |n: u32| {
            let mut n = (n as usize).min(text.len());
            while !text.is_char_boundary(n) {
                n -= 1;
            }
            n
        };
        let (start, end) = (at(self.span.start), at(self.span.end));
        let line_start = text[..start].rfind('\n').map_or(0, |n| n + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |n| start + n);
        let column = text[line_start..start].chars().count();
        let width = text[start..end.clamp(start, line_end)].chars().count().max(1);
        format!("{}\n  {}\n  {}{}", self.message, &text[line_start..line_end], " ".repeat(column), "^".repeat(width))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
