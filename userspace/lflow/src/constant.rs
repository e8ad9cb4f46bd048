//! Constants of the language and their formats.

use crate::quoted::Quoted;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// How an integer was written, and so how it is printed and how wide it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `123`
    Decimal,
    /// `0x7b`
    Hexadecimal,
    /// `10.0.0.1`
    Ipv4,
    /// `2001:db8::1`
    Ipv6,
    /// `0a:00:00:00:00:01`
    Ethernet,
}

/// An integer with an optional mask.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Integer {
    /// The value; where the mask has a 0 bit so has the value.
    pub value: u128,
    /// The mask as written; 0 when `masked` is false.
    pub mask: u128,
    /// Whether a mask was given.
    pub masked: bool,
    /// How it was written.
    pub format: Format,
    /// For a hexadecimal constant, or mask, of more than 128 bits (the language lets them be read, no field takes them): its
    /// width. `value` and `mask` then have the low 128 bits. 0 otherwise.
    pub excess_width: u16,
}

impl Integer {
    /// An unmasked integer.
    #[must_use]
    pub fn new(value: u128, format: Format) -> Self {
        Integer { value, mask: 0, masked: false, format, excess_width: 0 }
    }

    /// An integer under a mask; bits of `value` outside it are cleared.
    #[must_use]
    pub fn with_mask(value: u128, mask: u128, format: Format) -> Self {
        Integer { value: value & mask, mask, masked: true, format, excess_width: 0 }
    }

    /// Reads a constant as it stands in an address set: the first token of the text, with its mask.
    #[must_use]
    pub fn parse(text: &str) -> Option<Integer> {
        match crate::lexer::Lexer::new(text).token {
            crate::lexer::Token::Integer(n) => Some(n),
            _ => None,
        }
    }

    /// The width OVN checks against a field's: that of the address family, or the bits up to the highest one set; with a mask,
    /// the mask's bits up to its highest one, in any format.
    #[must_use]
    pub fn width(&self) -> u16 {
        let significant = |n: u128| (128 - n.leading_zeros()) as u16;
        match self.format {
            _ if self.excess_width != 0 => self.excess_width,
            _ if self.masked => significant(self.mask),
            Format::Ipv4 => 32,
            Format::Ipv6 => 128,
            Format::Ethernet => 48,
            Format::Decimal | Format::Hexadecimal => significant(self.value),
        }
    }

    /// The format, or hexadecimal where value or mask do not fit it.
    fn printable_format(&self) -> Format {
        let bits = match self.format {
            Format::Decimal => 64,
            Format::Hexadecimal | Format::Ipv6 => 128,
            Format::Ipv4 => 32,
            Format::Ethernet => 48,
        };
        let limit = crate::field::ones(bits);
        if self.value <= limit && (!self.masked || self.mask <= limit) { self.format } else { Format::Hexadecimal }
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.printable_format();
        fmt_value(self.value, format, f)?;
        if self.masked {
            f.write_str("/")?;
            match (format, prefix_length(self.mask, format)) {
                (Format::Ipv4 | Format::Ipv6, Some(length)) => write!(f, "{length}")?,
                _ => fmt_value(self.mask, format, f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The length of the prefix that `mask` is, if it is one.
fn prefix_length(mask: u128, format: Format) -> Option<u32> {
    let width = if format == Format::Ipv4 { 32 } else { 128 };
    let ones = mask.count_ones();
    (ones == 0 || mask.trailing_zeros() + ones == width).then_some(ones)
}

fn fmt_value(value: u128, format: Format, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match format {
        Format::Decimal => write!(f, "{value}"),
        Format::Hexadecimal => write!(f, "{value:#x}"),
        Format::Ipv4 => write!(f, "{}", Ipv4Addr::from(value as u32)),
        Format::Ipv6 => write!(f, "{}", Ipv6Addr::from(value)),
        Format::Ethernet => {
            let b = (value as u64).to_be_bytes();
            write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[2], b[3], b[4], b[5], b[6], b[7])
        }
    }
}

/// Something to compare with or to assign.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Constant {
    /// A number or an address.
    Integer(Integer),
    /// A string, unescaped.
    String(Box<str>),
    /// `$name`: all members of an address set.
    AddressSet(Box<str>),
    /// `@name`: all ports of a port group, on the flow's datapath.
    PortGroup(Box<str>),
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Constant::Integer(n) => fmt::Display::fmt(n, f),
            Constant::String(s) => fmt::Display::fmt(&Quoted(s), f),
            Constant::AddressSet(name) => write!(f, "${name}"),
            Constant::PortGroup(name) => write!(f, "@{name}"),
        }
    }
}

impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
