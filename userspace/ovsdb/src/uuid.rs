//! Row identifiers.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::str::FromStr;

/// An RFC 4122 identifier of a row.
///
/// Kept as two 64-bit halves (most significant first), not as a `u128`, so that an [`Atom`](crate::Atom) aligns to 8
/// bytes and stays at 24. Ordering is that of the 128-bit number, which is also the order of the hyphenated text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Uuid {
    high: u64,
    low: u64,
}

impl Uuid {
    /// The all-zero UUID: the default of a scalar uuid column, and "no transaction" for monitor_cond_since.
    pub const ZERO: Uuid = Uuid { high: 0, low: 0 };

    /// The UUID whose big-endian 128-bit value is `value`.
    pub const fn from_u128(value: u128) -> Self {
        Uuid { high: (value >> 64) as u64, low: value as u64 }
    }

    /// The big-endian 128-bit value.
    pub const fn as_u128(self) -> u128 {
        ((self.high as u128) << 64) | self.low as u128
    }

    /// True for the all-zero UUID.
    pub const fn is_zero(self) -> bool {
        self.high == 0 && self.low == 0
    }

    /// A fresh random (version 4) UUID.
    ///
    /// The standard library's hasher keys are the entropy: the operating system seeds them per thread and every
    /// `RandomState` has keys of its own, which is all that uniqueness needs. They are not meant to be secret.
    pub fn random() -> Self {
        let word = |salt: u64| {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u64(salt);
            hasher.finish()
        };
        Uuid { high: (word(1) & !0xf000) | 0x4000, low: (word(2) & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000 }
    }

    /// Parses the hyphenated form from bytes; `None` unless it is exactly 36 bytes of that form.
    pub(crate) fn from_hyphenated(text: &[u8]) -> Option<Self> {
        let text: &[u8; 36] = text.try_into().ok()?;
        let mut value = 0u128;
        for (index, &byte) in text.iter().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                b'A'..=b'F' => byte - b'A' + 10,
                _ => return None,
            };
            value = (value << 4) | u128::from(digit);
        }
        Some(Self::from_u128(value))
    }
}

impl Hash for Uuid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The halves of a random UUID are as good as hashed already; both go in because given UUIDs may share one.
        state.write_u64(self.high);
        state.write_u64(self.low);
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            self.high >> 32,
            (self.high >> 16) & 0xffff,
            self.high & 0xffff,
            self.low >> 48,
            self.low & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a valid UUID")]
pub struct ParseUuidError(String);

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        Self::from_hyphenated(text.as_bytes()).ok_or_else(|| ParseUuidError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips_and_sorts_as_the_number(a: u128, b: u128) {
            let (left, right) = (Uuid::from_u128(a), Uuid::from_u128(b));
            prop_assert_eq!(left.to_string().parse::<Uuid>().unwrap(), left);
            prop_assert_eq!(left.as_u128(), a);
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(left.cmp(&right), left.to_string().cmp(&right.to_string()));
        }

        #[test]
        fn any_other_text_is_refused(text in "[0-9a-f-]{0,40}") {
            let parsed = text.parse::<Uuid>();
            prop_assert_eq!(parsed.is_ok(), parsed.map(|uuid| uuid.to_string() == text).unwrap_or(false));
        }
    }

    #[test]
    fn random_uuids_differ_and_are_version_4() {
        let many: std::collections::HashSet<Uuid> = (0..10_000).map(|_| Uuid::random()).collect();
        assert_eq!(many.len(), 10_000);
        for uuid in many {
            let text = uuid.to_string();
            assert_eq!(&text[14..15], "4", "{text}");
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
    }
}
