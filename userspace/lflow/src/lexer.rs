//! Tokens. One token of look-ahead beyond the current one, no allocation but for strings with escapes and for errors.

use crate::constant::Integer;
use crate::error::{Error, Span};
use crate::number;
use crate::quoted;
use std::borrow::Cow;

/// A token. Names and strings borrow from the text where they can.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    End,
    Id(&'a str),
    Str(Cow<'a, str>),
    Integer(Integer),
    AddressSet(&'a str),
    PortGroup(&'a str),
    Template(&'a str),
    /// Something that is not a token, with OVN's message about it.
    Invalid(Box<str>),
    LParen,
    RParen,
    LCurly,
    RCurly,
    LSquare,
    RSquare,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Not,
    And,
    Or,
    Ellipsis,
    Comma,
    Semicolon,
    Assign,
    Exchange,
    Decrement,
    Colon,
    Hyphen,
}

impl Token<'_> {
    /// The text of a token that always has the same one, as OVN quotes it in `expecting …`.
    fn spelling(&self) -> &'static str {
        match self {
            Token::LParen => "(",
            Token::RParen => ")",
            Token::LCurly => "{",
            Token::RCurly => "}",
            Token::LSquare => "[",
            Token::RSquare => "]",
            Token::Eq => "==",
            Token::Ne => "!=",
            Token::Lt => "<",
            Token::Le => "<=",
            Token::Gt => ">",
            Token::Ge => ">=",
            Token::Not => "!",
            Token::And => "&&",
            Token::Or => "||",
            Token::Ellipsis => "..",
            Token::Comma => ",",
            Token::Semicolon => ";",
            Token::Assign => "=",
            Token::Exchange => "<->",
            Token::Decrement => "--",
            Token::Colon => ":",
            Token::Hyphen => "-",
            Token::End
            | Token::Id(_)
            | Token::Str(_)
            | Token::Integer(_)
            | Token::AddressSet(_)
            | Token::PortGroup(_)
            | Token::Template(_)
            | Token::Invalid(_) => "",
        }
    }
}

/// Walks over a text. `token` is the current token, `span` its place.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    /// Where the token after the current one is looked for.
    next: usize,
    pub(crate) token: Token<'a>,
    pub(crate) span: Span,
}

impl<'a> Lexer<'a> {
    /// Stands at the first token.
    pub(crate) fn new(text: &'a str) -> Self {
        let mut lexer = Lexer { text, next: 0, token: Token::End, span: Span::default() };
        lexer.advance();
        lexer
    }

    /// Makes the next token the current one.
    pub(crate) fn advance(&mut self) {
        let (token, start, end) = scan(self.text, self.next);
        self.token = token;
        self.span = Span::new(start, end);
        self.next = end;
    }

    /// Makes the next token the current one and returns the one that was.
    pub(crate) fn take(&mut self) -> Token<'a> {
        let (token, start, end) = scan(self.text, self.next);
        self.span = Span::new(start, end);
        self.next = end;
        std::mem::replace(&mut self.token, token)
    }

    /// The token after the current one.
    pub(crate) fn peek(&self) -> Token<'a> {
        scan(self.text, self.next).0
    }

    /// Whether the token after the current one is `(`; cheaper than [`Lexer::peek`].
    pub(crate) fn peek_is_paren(&self) -> bool {
        match self.text.as_bytes().get(self.next) {
            Some(b'(') => true,
            Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b'/') => self.peek() == Token::LParen,
            _ => false,
        }
    }

    /// Skips the current token if it is `wanted`.
    pub(crate) fn matches(&mut self, wanted: &Token<'_>) -> bool {
        let found = self.token == *wanted;
        if found {
            self.advance();
        }
        found
    }

    /// Skips the current token if it is the identifier `id`.
    pub(crate) fn matches_id(&mut self, id: &str) -> bool {
        let found = matches!(self.token, Token::Id(s) if s == id);
        if found {
            self.advance();
        }
        found
    }

    /// Skips the current token if it is the string `text`.
    pub(crate) fn matches_string(&mut self, text: &str) -> bool {
        let found = matches!(&self.token, Token::Str(s) if s == text);
        if found {
            self.advance();
        }
        found
    }

    /// Skips `wanted`, a token with a fixed spelling or the end, or fails.
    pub(crate) fn expect(&mut self, wanted: &Token<'_>) -> Result<(), Error> {
        if *wanted == Token::End {
            self.expect_end()
        } else if self.matches(wanted) {
            Ok(())
        } else {
            Err(self.syntax_error(&format!("expecting `{}'", wanted.spelling())))
        }
    }

    /// Fails unless the text is at its end.
    pub(crate) fn expect_end(&mut self) -> Result<(), Error> {
        if self.token == Token::End { Ok(()) } else { Err(self.syntax_error("expecting end of input")) }
    }

    /// The value of a decimal integer that fits OVN's `int`, without skipping it.
    pub(crate) fn small_integer(&self) -> Option<u32> {
        match &self.token {
            Token::Integer(n) if !n.masked && n.format == crate::constant::Format::Decimal => {
                u32::try_from(n.value).ok().filter(|&n| n <= i32::MAX as u32)
            }
            _ => None,
        }
    }

    /// Skips a decimal integer that fits OVN's `int`, or fails.
    pub(crate) fn expect_small_integer(&mut self) -> Result<u32, Error> {
        match self.small_integer() {
            Some(n) => {
                self.advance();
                Ok(n)
            }
            None => Err(self.syntax_error("expecting small integer")),
        }
    }

    /// An error at the current token. Where that is not even a token, the error is about that instead.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        match &self.token {
            Token::Invalid(problem) => Error::new(self.span, &**problem),
            _ => Error::new(self.span, message),
        }
    }

    /// A syntax error at the current token; `expectation` may be empty.
    pub(crate) fn syntax_error(&self, expectation: &str) -> Error {
        let place = match self.token {
            Token::End => "at end of input".to_string(),
            _ => format!("at `{}'", &self.text[self.span.start as usize..self.span.end as usize]),
        };
        let gap = if expectation.is_empty() { "" } else { " " };
        self.error(format!("Syntax error {place}{gap}{expectation}."))
    }
}

fn is_id_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b'.'
}

fn is_id(b: u8) -> bool {
    is_id_start(b) || b.is_ascii_digit()
}

/// Finds the token at or after `at`: the token, its first byte, and one past its last. Both offsets are at boundaries of
/// characters.
fn scan(text: &str, mut at: usize) -> (Token<'_>, usize, usize) {
    let bytes = text.as_bytes();
    let invalid = |message: &str, start, end| (Token::Invalid(message.into()), start, end);
    loop {
        let start = at;
        let Some(&first) = bytes.get(at) else {
            return (Token::End, start, start);
        };
        let second = bytes.get(at + 1).copied();
        let one = |token| (token, start, start + 1);
        let two = |token| (token, start, start + 2);
        return match first {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                at += 1;
                continue;
            }
            b'/' => match second {
                Some(b'/') => {
                    at = bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n);
                    continue;
                }
                Some(b'*') => {
                    let body = &text[at + 2..];
                    let line = &body[..body.find('\n').unwrap_or(body.len())];
                    match line.find("*/") {
                        Some(n) => {
                            at += 2 + n + 2;
                            continue;
                        }
                        None => invalid("`/*' without matching `*/'.", start, at + 2 + line.len()),
                    }
                }
                _ => invalid("`/' is only valid as part of `//' or `/*'.", start, start + 1),
            },
            b'(' => one(Token::LParen),
            b')' => one(Token::RParen),
            b'{' => one(Token::LCurly),
            b'}' => one(Token::RCurly),
            b'[' => one(Token::LSquare),
            b']' => one(Token::RSquare),
            b',' => one(Token::Comma),
            b';' => one(Token::Semicolon),
            b'=' if second == Some(b'=') => two(Token::Eq),
            b'=' => one(Token::Assign),
            b'!' if second == Some(b'=') => two(Token::Ne),
            b'!' => one(Token::Not),
            b'&' if second == Some(b'&') => two(Token::And),
            b'&' => invalid("`&' is only valid as part of `&&'.", start, start + 1),
            b'|' if second == Some(b'|') => two(Token::Or),
            b'|' => invalid("`|' is only valid as part of `||'.", start, start + 1),
            b'<' if second == Some(b'=') => two(Token::Le),
            b'<' if second == Some(b'-') && bytes.get(at + 2) == Some(&b'>') => (Token::Exchange, start, start + 3),
            b'<' => one(Token::Lt),
            b'>' if second == Some(b'=') => two(Token::Ge),
            b'>' => one(Token::Gt),
            b'.' if second == Some(b'.') => two(Token::Ellipsis),
            b'.' => invalid("`.' is only valid as part of `..' or a number.", start, start + 1),
            b'-' if second == Some(b'-') => two(Token::Decrement),
            b'-' => one(Token::Hyphen),
            b'$' | b'@' | b'^' => {
                if !second.is_some_and(is_id_start) {
                    let message = format!("`{}' must be followed by a valid identifier.", first as char);
                    invalid(&message, start, start + 1)
                } else {
                    let end = end_of_id(bytes, at + 1);
                    let name = &text[at + 1..end];
                    let token = match first {
                        b'$' => Token::AddressSet(name),
                        b'@' => Token::PortGroup(name),
                        _ => Token::Template(name),
                    };
                    (token, start, end)
                }
            }
            b':' if second != Some(b':') => one(Token::Colon),
            b':' | b'0'..=b'9' => scan_integer(text, start),
            b'"' => scan_string(text, start),
            b'a'..=b'f' | b'A'..=b'F' if is_address_start(bytes, at) => scan_integer(text, start),
            _ if is_id_start(first) => {
                let end = end_of_id(bytes, at);
                (Token::Id(&text[start..end]), start, end)
            }
            _ => {
                let end = start + text[start..].chars().next().map_or(1, char::len_utf8);
                let message = if first.is_ascii_graphic() {
                    format!("Invalid character `{}' in input.", first as char)
                } else {
                    // OVN prints the byte as a signed decimal number behind its `0x`.
                    format!("Invalid byte 0x{} in input.", first as i8)
                };
                invalid(&message, start, end)
            }
        };
    }
}

fn end_of_id(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|&b| !is_id(b)).map_or(bytes.len(), |n| from + n)
}

/// Tells `ab:cd:…` and `fe80::1`, which start as identifiers do, from identifiers: hex digits, then a colon.
fn is_address_start(bytes: &[u8], from: usize) -> bool {
    bytes[from..].iter().find(|b| !b.is_ascii_hexdigit()) == Some(&b':')
}

fn scan_integer(text: &str, start: usize) -> (Token<'_>, usize, usize) {
    let (value, end) = number::scan(text, start);
    let value = match value {
        Ok(value) => value,
        Err(message) => return (Token::Invalid(message), start, end),
    };
    if text.as_bytes().get(end) != Some(&b'/') {
        return (Token::Integer(value), start, end);
    }
    let (mask, end) = number::scan(text, end + 1);
    match mask.and_then(|mask| number::with_mask(value, mask)) {
        Ok(value) => (Token::Integer(value), start, end),
        Err(message) => (Token::Invalid(message), start, end),
    }
}

fn scan_string(text: &str, start: usize) -> (Token<'_>, usize, usize) {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            None => return (Token::Invalid("Input ends inside quoted string.".into()), start, text.len()),
            Some(b'"') => break,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
    match quoted::unescape(&text[start + 1..at]) {
        Ok(s) => (Token::Str(s), start, at + 1),
        Err(message) => (Token::Invalid(message.into()), start, at + 1),
    }
}
