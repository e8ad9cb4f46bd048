//! Quoted strings: JSON's syntax (RFC 8259 section 7), with OVS's messages for what is wrong with them.

use std::borrow::Cow;
use std::fmt;

/// Prints a string in quotes, escaped as OVS prints JSON strings.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{c}' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if (c as u32) < 0x20 => write!(f, "\\u{:04x}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        f.write_str("\"")
    }
}

/// Unescapes what stands between the quotes. Borrows when there is nothing to unescape.
///
/// # Errors
/// The message OVS gives for a malformed string.
pub(crate) fn unescape(raw: &str) -> Result<Cow<'_, str>, String> {
    if !raw.bytes().any(|b| b == b'\\' || b < 0x20) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw.chars();
    while let Some(c) = rest.next() {
        if (c as u32) < 0x20 {
            return Err(format!("U+{:04X} must be escaped in quoted string", c as u32));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(escape) = rest.next() else {
            return Err("quoted string may not end with backslash".into());
        };
        out.push(match escape {
            '"' | '\\' | '/' => escape,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (c, after) = unescape_unicode(rest.as_str())?;
                rest = after.chars();
                c
            }
            other => return Err(format!("bad escape \\{other}")),
        });
    }
    Ok(Cow::Owned(out))
}

/// Reads what follows `\u`: four hex digits, and the second half if they are a leading surrogate.
fn unescape_unicode(text: &str) -> Result<(char, &str), String> {
    let (first, rest) = hex4(text)?;
    if first == 0 {
        return Err("null bytes not supported in quoted strings".into());
    }
    if !(0xd800..0xdc00).contains(&first) {
        // A trailing surrogate alone has no character of its own: refuse it as OVS refuses a bad pair.
        return char::from_u32(first).map(|c| (c, rest)).ok_or_else(|| "malformed escaped surrogate pair".into());
    }
    let Some(second) = rest.strip_prefix("\\u") else {
        return Err("malformed escaped surrogate pair".into());
    };
    let (second, rest) = hex4(second)?;
    if !(0xdc00..0xe000).contains(&second) {
        return Err("second half of escaped surrogate pair is not trailing surrogate".into());
    }
    let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    char::from_u32(code).map(|c| (c, rest)).ok_or_else(|| "malformed escaped surrogate pair".into())
}

fn hex4(text: &str) -> Result<(u32, &str), String> {
    let digits = match text.as_bytes().get(..4) {
        Some(digits) => digits,
        None => return Err("quoted string ends within \\u escape".into()),
    };
    let mut value = 0;
    for &b in digits {
        let Some(d) = (b as char).to_digit(16) else {
            return Err("malformed \\u escape".into());
        };
        value = value << 4 | d;
    }
    Ok((value, &text[4..]))
}
