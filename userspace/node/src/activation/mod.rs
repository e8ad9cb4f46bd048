//! Live migration: a port's second place comes to life by a frame of its guest (ovn-nb(5), `options:activation-strategy`).
//!
//! On a chassis that binds a port as additional chassis the VIF is attached and not programmed until its guest says by one of
//! the frames that the port names that it runs here. Nothing of an attached, unprogrammed device is forwarded and nothing is
//! delivered to it. A packet socket sees such a device's frames before the program drops them ([`listen`]); what it is told
//! goes to [`crate::vif`], which decides.

pub mod listen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

/// Key of Port_Binding.options that names the strategies, as a comma list.
pub const STRATEGY_KEY: &str = "activation-strategy";
/// Key of Port_Binding.options that names the additional chassis where the port is active, as a comma list (ovn-sb(5)).
pub const ACTIVATED_KEY: &str = "additional-chassis-activated";

/// A frame by which a guest tells that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// A reverse ARP (RFC 903), which qemu sends when a migration is over: EtherType 0x8035.
    Rarp,
    /// A gratuitous ARP (RFC 5227 section 3): of Ethernet and IPv4, its sender and target protocol addresses equal and not zero.
    Garp,
    /// An unsolicited neighbor advertisement (RFC 4861 section 7.2.6): ICMPv6 type 136, code 0, hop limit 255, without the
    /// Solicited flag, to whomever.
    Na,
}

impl Strategy {
    const ALL: [Strategy; 3] = [Strategy::Rarp, Strategy::Garp, Strategy::Na];

    fn name(self) -> &'static str {
        match self {
            Strategy::Rarp => "rarp",
            Strategy::Garp => "garp",
            Strategy::Na => "na",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The strategies of a port; empty = it is active wherever it is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strategies(u8);

impl Strategies {
    /// Those that an option's value names, and the words that name none.
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let (mut strategies, mut unknown) = (Strategies::default(), Vec::new());
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match Strategy::ALL.into_iter().find(|strategy| strategy.name() == word) {
                Some(strategy) => strategies.0 |= strategy.bit(),
                None => unknown.push(word),
            }
        }
        (strategies, unknown)
    }

    /// Whether none is named.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is named.
    pub fn contains(self, strategy: Strategy) -> bool {
        self.0 & strategy.bit() != 0
    }

    /// Those of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Strategies(self.0 | other.0)
    }
}

impl fmt::Display for Strategies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            Strategy::ALL.into_iter().filter(|strategy| self.contains(*strategy)).map(Strategy::name).collect();
        f.write_str(&names.join(","))
    }
}

/// VLAN identifier of a frame's outer tag (802.1Q or 802.1ad); `None` without one, with a priority tag, and for truncated ones.
pub fn vlan(frame: &[u8]) -> Option<u16> {
    is_tagged(frame).then(|| word(frame, 14)).flatten().map(|tci| tci & 0xfff).filter(|vid| *vid != 0)
}

/// Whether a frame, from its Ethernet header on and with one VLAN tag at most, is one that `strategies` name.
pub fn activates(strategies: Strategies, frame: &[u8]) -> bool {
    let header = if is_tagged(frame) { 18 } else { 14 };
    let Some(ethertype) = word(frame, header - 2) else { return false };
    let body = &frame[header..];
    match ethertype {
        0x8035 => strategies.contains(Strategy::Rarp),
        0x0806 => strategies.contains(Strategy::Garp) && is_gratuitous(body),
        0x86dd => strategies.contains(Strategy::Na) && is_unsolicited(body),
        _ => false,
    }
}

fn is_tagged(frame: &[u8]) -> bool {
    matches!(word(frame, 12), Some(0x8100 | 0x88a8))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// An ARP packet (RFC 826) that announces an address.
fn is_gratuitous(arp: &[u8]) -> bool {
    // Hardware Ethernet, protocol IPv4, lengths 6 and 4.
    let Some([0, 1, 8, 0, 6, 4, ..]) = arp.get(..28) else { return false };
    let (sender, target) = (&arp[14..18], &arp[24..28]);
    sender == target && sender != [0; 4]
}

/// An IPv6 packet that is an unsolicited neighbor advertisement. One with extension headers is none.
fn is_unsolicited(ip: &[u8]) -> bool {
    const SOLICITED: u8 = 0x40;
    // The advertisement is 24 bytes with its target, before options.
    let Some(packet) = ip.get(..40 + 24) else { return false };
    let (next_header, hop_limit, icmp) = (packet[6], packet[7], &packet[40..]);
    packet[0] >> 4 == 6 && next_header == 58 && hop_limit == 255 && icmp[..2] == [136, 0] && icmp[4] & SOLICITED == 0
}

/// Whether the option [`ACTIVATED_KEY`] names a chassis.
pub fn is_activated(options: &BTreeMap<String, String>, chassis: &str) -> bool {
    activated(options).any(|name| name == chassis)
}

/// The options with a chassis named, or no longer named, in [`ACTIVATED_KEY`]; all others kept.
pub fn with_activated(options: &BTreeMap<String, String>, chassis: &str, is_active: bool) -> BTreeMap<String, String> {
    let others = activated(options).filter(|name| *name != chassis);
    let names: Vec<&str> = others.chain(is_active.then_some(chassis)).collect();
    let mut options = options.clone();
    if names.is_empty() {
        options.remove(ACTIVATED_KEY);
    } else {
        options.insert(ACTIVATED_KEY.to_owned(), names.join(","));
    }
    options
}

fn activated(options: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let list = options.get(ACTIVATED_KEY).map_or("", String::as_str);
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}
