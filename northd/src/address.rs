//! Ethernet, IPv4 and IPv6 addresses in the forms that the northbound database holds them (ovn-nb(5), `addresses`).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet address; prints in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads an address at the start of `text` after white space; returns it and what follows. Each octet is one or two
    /// hexadecimal digits.
    #[must_use]
    pub fn parse_prefix(text: &str) -> Option<(Mac, &str)> {
        let mut rest = text.trim_start();
        let mut octets = [0u8; 6];
        for (i, octet) in octets.iter_mut().enumerate() {
            if i > 0 {
                rest = rest.strip_prefix(':')?;
            }
            let digits = rest.bytes().take(2).take_while(u8::is_ascii_hexdigit).count();
            *octet = u8::from_str_radix(rest.get(..digits)?, 16).ok()?;
            rest = &rest[digits..];
        }
        Some((Mac(octets), rest))
    }

    /// Reads an address that is the whole text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Mac> {
        Mac::parse_prefix(text).filter(|(_, rest)| rest.trim().is_empty()).map(|(mac, _)| mac)
    }

    /// The address as a number.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0.iter().fold(0, |n, &octet| n << 8 | u64::from(octet))
    }

    /// The address with the low 48 bits of a number.
    #[must_use]
    pub fn from_u64(number: u64) -> Mac {
        let bytes = number.to_be_bytes();
        Mac([bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }

    /// The IPv6 address with the upper half of `prefix` and this address's modified EUI-64 (RFC 4291, appendix A).
    #[must_use]
    pub fn eui64(self, prefix: Ipv6Addr) -> Ipv6Addr {
        let m = self.0;
        let low = [m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]];
        let mut octets = prefix.octets();
        octets[8..].copy_from_slice(&low);
        Ipv6Addr::from(octets)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

/// An IPv6 address printed as the C library does: like Rust's, but IPv4-compatible addresses end in dotted decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printed6(pub Ipv6Addr);

impl fmt::Display for Printed6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0.segments();
        if s[..6] == [0; 6] && s[6] != 0 {
            let o = self.0.octets();
            return write!(f, "::{}.{}.{}.{}", o[12], o[13], o[14], o[15]);
        }
        fmt::Display::fmt(&self.0, f)
    }
}

/// The solicited-node multicast address of an IPv6 address (RFC 4291, section 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    let s = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(o[13]), s[7])
}

/// An Ethernet address and the IP addresses that go with it: one element of `addresses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortAddresses {
    /// The Ethernet address.
    pub mac: Mac,
    /// IPv4 addresses in the order given.
    pub ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses in the order given.
    pub ipv6: Vec<Ipv6Addr>,
}

impl PortAddresses {
    /// Reads an element of `addresses`: an Ethernet address, then IP addresses with or without a prefix length or mask.
    /// The first word that is no address ends the list, as it does in ovn-northd. None if there is no Ethernet address.
    #[must_use]
    pub fn parse(text: &str) -> Option<PortAddresses> {
        let (mac, rest) = Mac::parse_prefix(text)?;
        let mut addresses = PortAddresses { mac, ipv4: Vec::new(), ipv6: Vec::new() };
        for word in rest.split_ascii_whitespace() {
            if let Some((address, _)) = parse_ipv4_cidr(word) {
                addresses.ipv4.push(address);
            } else if let Some((address, _)) = parse_ipv6_cidr(word) {
                addresses.ipv6.push(address);
            } else {
                break;
            }
        }
        Some(addresses)
    }
}

/// Reads `A`, `A/LEN` or `A/MASK` (a contiguous mask); returns the address as written and the prefix length.
#[must_use]
pub fn parse_ipv4_cidr(text: &str) -> Option<(Ipv4Addr, u8)> {
    let Some((address, mask)) = text.split_once('/') else { return Some((text.parse().ok()?, 32)) };
    let address = address.parse().ok()?;
    if let Ok(length) = mask.parse::<u8>() {
        return (length <= 32).then_some((address, length));
    }
    let mask = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    let length = mask.leading_ones();
    (mask.count_ones() == length).then_some((address, length as u8))
}

/// Reads `A` or `A/LEN`; returns the address as written and the prefix length.
#[must_use]
pub fn parse_ipv6_cidr(text: &str) -> Option<(Ipv6Addr, u8)> {
    let Some((address, length)) = text.split_once('/') else { return Some((text.parse().ok()?, 128)) };
    let length = length.parse::<u8>().ok().filter(|l| *l <= 128)?;
    Some((address.parse().ok()?, length))
}

/// How an element of `addresses` asks for addresses from northd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicRequest {
    /// `MAC dynamic`: the Ethernet address is given.
    pub mac: Option<Mac>,
    /// `dynamic IP`: the IPv4 address is given.
    pub ipv4: Option<Ipv4Addr>,
    /// `dynamic IPV6`: the IPv6 address is given.
    pub ipv6: Option<Ipv6Addr>,
}

impl DynamicRequest {
    /// Reads `dynamic`, `dynamic IP`, `dynamic IPV6`, `dynamic IP IPV6` or `MAC dynamic`; none for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<DynamicRequest> {
        let mut words = text.split_ascii_whitespace();
        let mut request = DynamicRequest { mac: None, ipv4: None, ipv6: None };
        let mut first = words.next()?;
        if let Some(mac) = Mac::parse(first) {
            request.mac = Some(mac);
            first = words.next()?;
        }
        if first != "dynamic" {
            return None;
        }
        if request.mac.is_some() {
            return words.next().is_none().then_some(request);
        }
        for word in words {
            if request.ipv4.is_none()
                && request.ipv6.is_none()
                && let Ok(address) = word.parse()
            {
                request.ipv4 = Some(address);
            } else if request.ipv6.is_none()
                && let Ok(address) = word.parse()
            {
                request.ipv6 = Some(address);
            } else {
                return None;
            }
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_addresses() {
        let parsed = PortAddresses::parse("  AA:bb:0:00:00:08   10.0.0.8/24 fd00::1/64 junk 10.0.0.9").unwrap();
        assert_eq!(parsed.mac.to_string(), "aa:bb:00:00:00:08");
        assert_eq!(parsed.ipv4, [Ipv4Addr::new(10, 0, 0, 8)]);
        assert_eq!(parsed.ipv6, ["fd00::1".parse::<Ipv6Addr>().unwrap()]);
        for bad in ["", "unknown", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:", "router", "dynamic"] {
            assert_eq!(PortAddresses::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn dynamic_requests() {
        assert!(DynamicRequest::parse("dynamic").is_some());
        assert_eq!(DynamicRequest::parse("dynamic 10.0.0.1 fd00::1").unwrap().ipv6, Some("fd00::1".parse().unwrap()));
        assert_eq!(DynamicRequest::parse("0a:00:00:00:00:01 dynamic").unwrap().mac, Mac::parse("0a:00:00:00:00:01"));
        for other in ["unknown", "0a:00:00:00:11:22 dynamic bef0::6", "0a:00:00:00:00:01 10.0.0.1", "dynamic x"] {
            assert_eq!(DynamicRequest::parse(other), None, "{other}");
        }
    }

    #[test]
    fn derived_addresses() {
        let mac = Mac::parse("0a:00:00:a8:01:03").unwrap();
        assert_eq!(mac.eui64("aef0::".parse().unwrap()).to_string(), "aef0::800:ff:fea8:103");
        assert_eq!(solicited_node("aef0::800:ff:fea8:103".parse().unwrap()).to_string(), "ff02::1:ffa8:103");
        assert_eq!(Printed6("::102:304".parse().unwrap()).to_string(), "::1.2.3.4");
        assert_eq!(Mac::from_u64(mac.as_u64()), mac);
    }
}
