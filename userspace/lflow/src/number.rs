//! Integers and addresses as tokens.

use crate::constant::{Format, Integer};
use crate::field::ones;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest text OVN tries as an IP address.
const MAX_ADDRESS_LENGTH: usize = 45;

/// Reads the integer at `start`. Returns it, or what is wrong with it, and one past its last byte.
///
/// Takes letters, digits, colons up to the first dot, and dots that are not doubled: so `1..3` is an integer and an ellipsis,
/// and `1.2.3.4:80` an address, a colon and an integer.
pub(crate) fn scan(text: &str, start: usize) -> (Result<Integer, Box<str>>, usize) {
    let bytes = text.as_bytes();
    let mut end = start;
    let mut dotted = false;
    while let Some(&b) = bytes.get(end) {
        match b {
            b'.' if bytes.get(end + 1) != Some(&b'.') => dotted = true,
            b':' if !dotted => {}
            _ if b.is_ascii_alphanumeric() => {}
            _ => break,
        }
        end += 1;
    }
    (parse(&text[start..end]), end)
}

fn parse(text: &str) -> Result<Integer, Box<str>> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err("Integer constant expected.".into());
    }
    if let Some(mac) = parse_ethernet(bytes) {
        return Ok(Integer::new(u128::from(mac), Format::Ethernet));
    }
    if bytes.iter().all(u8::is_ascii_digit) {
        if bytes[0] == b'0' && bytes.len() > 1 {
            return Err("Decimal constants must not have leading zeros.".into());
        }
        return match text.parse::<u64>() {
            Ok(n) => Ok(Integer::new(u128::from(n), Format::Decimal)),
            Err(_) => Err("Decimal constants must be less than 2**64.".into()),
        };
    }
    if bytes[0] == b'0' && matches!(bytes.get(1), Some(b'x' | b'X')) {
        if bytes.len() == 2 {
            return Err(format!("Hex digits expected following 0{}.", bytes[1] as char).into());
        }
        return parse_hexadecimal(&bytes[2..]);
    }
    if bytes.len() <= MAX_ADDRESS_LENGTH {
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Integer::new(u128::from(ip.to_bits()), Format::Ipv4));
        }
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Integer::new(ip.to_bits(), Format::Ipv6));
        }
    }
    Err("Invalid numeric constant.".into())
}

/// Six pairs of hex digits with colons between.
fn parse_ethernet(bytes: &[u8]) -> Option<u64> {
    if bytes.len() != 17 {
        return None;
    }
    let mut mac = 0;
    for (i, &b) in bytes.iter().enumerate() {
        if i % 3 == 2 {
            if b != b':' {
                return None;
            }
        } else {
            mac = mac << 4 | u64::from((b as char).to_digit(16)?);
        }
    }
    Some(mac)
}

/// The widest constant the language reads, in hex digits; OVN's storage for constants has 1024 bits.
const MAX_HEX_DIGITS: usize = 1024 / 4;

/// Any number of leading zeros is fine. Where both complaints apply, the one met first from the right is made.
fn parse_hexadecimal(digits: &[u8]) -> Result<Integer, Box<str>> {
    let mut n = Integer::new(0, Format::Hexadecimal);
    for (i, &b) in digits.iter().rev().enumerate() {
        let Some(digit) = (b as char).to_digit(16) else {
            return Err("Invalid syntax in hexadecimal constant.".into());
        };
        if digit == 0 {
            continue;
        }
        if i >= MAX_HEX_DIGITS {
            return Err("Hexadecimal constant requires more than 1024 bits.".into());
        }
        if i < 32 {
            n.value |= u128::from(digit) << (4 * i);
        } else {
            // At most 1024.
            n.excess_width = (4 * i) as u16 + (32 - digit.leading_zeros()) as u16;
        }
    }
    Ok(n)
}

/// Puts a mask on a value: the same format on both sides, a prefix length behind an IP address, or hexadecimal behind a 0.
pub(crate) fn with_mask(value: Integer, mask: Integer) -> Result<Integer, Box<str>> {
    let prefix = |width: u8| {
        let length = mask.value as u8;
        ones(width) & !ones(width - length)
    };
    match (value.format, mask.format) {
        (a, b) if a == b => {
            let mut n = Integer::with_mask(value.value, mask.value, a);
            n.excess_width = mask.excess_width;
            Ok(n)
        }
        (Format::Ipv4, Format::Decimal) if mask.value <= 32 => {
            Ok(Integer::with_mask(value.value, prefix(32), Format::Ipv4))
        }
        (Format::Ipv6, Format::Decimal) if mask.value <= 128 => {
            Ok(Integer::with_mask(value.value, prefix(128), Format::Ipv6))
        }
        (Format::Decimal, Format::Hexadecimal) if value.value == 0 => {
            let mut n = Integer::with_mask(0, mask.value, Format::Hexadecimal);
            n.excess_width = mask.excess_width;
            Ok(n)
        }
        _ => Err("Value and mask have incompatible formats.".into()),
    }
}
