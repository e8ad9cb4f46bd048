//! Options of `put_nd_ra_opts`: their names, codes and types, and the checks on their values.
//!
//! Unlike DHCP options these are fixed (ovn-sb(5), `put_nd_ra_opts`). The code is that of the neighbour discovery option that
//! carries the value (RFC 4861 section 4.6, RFC 4191, RFC 8106), or one above the options' range for the two that are flags.

use crate::action::OptionValue;
use crate::constant::{Constant, Format};

/// A router advertisement option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdRaOption {
    /// Name in the language.
    pub name: &'static str,
    /// Option number in the advertisement; see the module's text.
    pub code: u16,
    /// Type of the value: `str`, `mac`, `ipv6` or `uint32`.
    pub kind: &'static str,
}

/// `addr_mode`: M and O flags, "slaac", "dhcpv6_stateful" or "dhcpv6_stateless".
pub const ADDR_MODE: u16 = 255;
/// `router_preference`: RFC 4191 section 2.2, "LOW", "MEDIUM" or "HIGH".
pub const ROUTER_PREFERENCE: u16 = 254;
/// `slla`: RFC 4861 section 4.6.1.
pub const SOURCE_LINK_ADDRESS: u16 = 1;
/// `prefix`: RFC 4861 section 4.6.2.
pub const PREFIX_INFORMATION: u16 = 3;
/// `mtu`: RFC 4861 section 4.6.4.
pub const MTU: u16 = 5;
/// `route_info`: RFC 4191 section 2.3.
pub const ROUTE_INFORMATION: u16 = 24;
/// `rdnss`: RFC 8106 section 5.1.
pub const RDNSS: u16 = 25;
/// `dnssl`: RFC 8106 section 5.2.
pub const DNSSL: u16 = 31;

/// All options.
pub const OPTIONS: [NdRaOption; 8] = [
    NdRaOption { name: "addr_mode", code: ADDR_MODE, kind: "str" },
    NdRaOption { name: "router_preference", code: ROUTER_PREFERENCE, kind: "str" },
    NdRaOption { name: "slla", code: SOURCE_LINK_ADDRESS, kind: "mac" },
    NdRaOption { name: "prefix", code: PREFIX_INFORMATION, kind: "ipv6" },
    NdRaOption { name: "mtu", code: MTU, kind: "uint32" },
    NdRaOption { name: "rdnss", code: RDNSS, kind: "ipv6" },
    NdRaOption { name: "dnssl", code: DNSSL, kind: "str" },
    NdRaOption { name: "route_info", code: ROUTE_INFORMATION, kind: "str" },
];

/// The option called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static NdRaOption> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// Checks the value of an option; the error is the option's name.
pub(crate) fn check(option: &OptionValue) -> Result<(), &str> {
    let ok = match (&option.value.values[..], option.code) {
        ([Constant::String(s)], ADDR_MODE) => matches!(&**s, "slaac" | "dhcpv6_stateful" | "dhcpv6_stateless"),
        ([Constant::String(s)], ROUTER_PREFERENCE) => matches!(&**s, "LOW" | "MEDIUM" | "HIGH"),
        ([Constant::String(_)], DNSSL | ROUTE_INFORMATION) => true,
        ([Constant::Integer(n)], SOURCE_LINK_ADDRESS) => n.format == Format::Ethernet,
        ([Constant::Integer(n)], PREFIX_INFORMATION) => n.format == Format::Ipv6 && n.masked,
        ([Constant::Integer(n)], MTU) => n.format == Format::Decimal,
        ([Constant::Integer(n)], RDNSS) => n.format == Format::Ipv6,
        _ => false,
    };
    if ok { Ok(()) } else { Err(&option.name) }
}

/// Whether it is the address mode in which no prefix is needed.
pub(crate) fn is_stateful(option: &OptionValue) -> bool {
    option.code == ADDR_MODE && matches!(&option.value.values[..], [Constant::String(s)] if &**s == "dhcpv6_stateful")
}
