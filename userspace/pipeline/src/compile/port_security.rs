//! Port security: the sub-tables that `check_in_port_sec()` and `check_out_port_sec()` consult (ovn-nb(5), Logical_Switch_Port:port_security).
//!
//! The rules have the shape of those that ovn-controller 23.03 puts into its tables 73, 74 and 75, with its priorities, so that both can be
//! compared. They follow the manual where that controller does not; each such place is marked "Manual".

use crate::ir::{Alternatives, Dim, Field, LogicalPort, Mac, Masked, Sub, SubResult};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// An element of Port_Binding.port_security: an Ethernet address, and the IP addresses it goes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The Ethernet address.
    pub mac: Mac,
    /// IPv4 addresses with the length of their prefix.
    pub ip4: Vec<(Ipv4Addr, u8)>,
    /// IPv6 addresses with the length of their prefix.
    pub ip6: Vec<(Ipv6Addr, u8)>,
}

/// An element of port_security that cannot be read. Like ovn-controller the compiler leaves it out; a port without any other element is not secured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid syntax '{0}' in port security")]
pub struct BadElement(pub String);

impl FromStr for Element {
    type Err = BadElement;

    /// Reads `MAC [IP[/PREFIX]]…`, separated by spaces or commas.
    fn from_str(text: &str) -> Result<Self, BadElement> {
        let bad = || BadElement(text.to_owned());
        let mut words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let mac = words.next().and_then(parse_mac).ok_or_else(bad)?;
        let mut element = Element { mac, ip4: Vec::new(), ip6: Vec::new() };
        for word in words {
            let (address, prefix) = match word.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix)),
                None => (word, None),
            };
            let length = |most: u8| match prefix {
                None => Some(most),
                Some(prefix) => prefix.parse().ok().filter(|length| *length <= most),
            };
            if let Ok(address) = address.parse::<Ipv4Addr>() {
                let length = match prefix.and_then(|prefix| prefix.parse::<Ipv4Addr>().ok()) {
                    Some(mask) => cidr_length(mask),
                    None => length(32),
                };
                element.ip4.push((address, length.ok_or_else(bad)?));
            } else if let Ok(address) = address.parse::<Ipv6Addr>() {
                element.ip6.push((address, length(128).ok_or_else(bad)?));
            } else {
                return Err(bad());
            }
        }
        Ok(element)
    }
}

fn cidr_length(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then_some(bits.leading_ones() as u8)
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut bytes = text.split(':');
    let mut mac = 0;
    for _ in 0..6 {
        let byte = bytes.next().filter(|byte| (1..=2).contains(&byte.len()))?;
        mac = mac << 8 | u64::from(u8::from_str_radix(byte, 16).ok()?);
    }
    bytes.next().is_none().then_some(Mac(mac))
}

/// A rule without its place: sub-table, priority, conditions, answer.
pub(crate) type Draft = (Sub, u16, Arc<[Dim]>, SubResult);

/// The rules of a port; none when it is not secured.
pub(crate) fn rules(port: &LogicalPort) -> Vec<Draft> {
    let elements: Vec<Element> = port.port_security.iter().filter_map(|text| text.parse().ok()).collect();
    if elements.is_empty() {
        return Vec::new();
    }
    let mut builder = Builder { key: port.key.0, drafts: Vec::new() };
    builder.defaults();
    for element in &elements {
        builder.sent_ip(element);
        builder.sent_arp(element);
        builder.sent_nd(element);
        builder.received(element);
    }
    builder.drafts
}

const IP4: u128 = 0x0800;
const ARP: u128 = 0x0806;
const IP6: u128 = 0x86dd;

fn exact(field: Field, value: u128) -> Dim {
    let mask = super::reach::ones(crate::ir::width(field));
    any(field, vec![Masked { value, mask }])
}

fn any(field: Field, mut alternatives: Vec<Masked>) -> Dim {
    alternatives.sort_unstable();
    alternatives.dedup();
    Dim { field, alternatives: Alternatives::List(alternatives.into()) }
}

fn prefix(value: u128, length: u8, width: u8) -> Masked {
    let mask = super::reach::ones(width) & !super::reach::ones(width - length);
    Masked { value: value & mask, mask }
}

/// The address itself, or its whole subnet when the host part is zero.
fn host_or_subnet(value: u128, length: u8, width: u8) -> Masked {
    let subnet = prefix(value, length, width);
    if subnet.value == value { subnet } else { Masked { value, mask: super::reach::ones(width) } }
}

fn ip4(element: &Element) -> Vec<Masked> {
    element.ip4.iter().map(|(ip, length)| host_or_subnet(u128::from(u32::from(*ip)), *length, 32)).collect()
}

/// The addresses of an element, and the link-local one of its Ethernet address (RFC 4291 appendix A).
fn ip6(element: &Element) -> Vec<Masked> {
    let Mac(mac) = element.mac;
    let eui64 = (mac >> 24 << 40 | 0xff_fe00_0000 | mac & 0xff_ffff) ^ 1 << 57;
    let link_local = 0xfe80 << 112 | u128::from(eui64);
    let mut all = vec![Masked { value: link_local, mask: u128::MAX }];
    all.extend(element.ip6.iter().map(|(ip, length)| host_or_subnet(u128::from(*ip), *length, 128)));
    all
}

struct Builder {
    key: u32,
    drafts: Vec<Draft>,
}

impl Builder {
    fn rule(&mut self, sub: Sub, priority: u16, dims: impl IntoIterator<Item = Dim>, result: SubResult) {
        let port = if sub == Sub::Out { Field::OutPort } else { Field::InPort };
        let mut dims: Vec<Dim> = dims.into_iter().collect();
        dims.push(exact(port, u128::from(self.key)));
        dims.sort_unstable_by_key(|dim| dim.field);
        self.drafts.push((sub, priority, dims.into(), result));
    }

    fn defaults(&mut self) {
        self.rule(Sub::In, 80, [], SubResult::Fail);
        self.rule(Sub::In, 95, [exact(Field::EthType, ARP)], SubResult::Goto(Sub::InNd));
        self.rule(Sub::InNd, 80, [exact(Field::EthType, ARP)], SubResult::Fail);
        // Manual: "restricts the inner source MAC addresses that the host may send in … Neighbor Discovery packets". 23.03 lets every solicitation pass.
        self.rule(Sub::InNd, 80, neighbor_discovery(135), SubResult::Fail);
        // An advertisement whatever its code, as 23.03 has it.
        let advertisement = neighbor_discovery(136).into_iter().filter(|dim| dim.field != Field::Icmp6Code);
        self.rule(Sub::InNd, 80, advertisement, SubResult::Fail);
        self.rule(Sub::Out, 80, [], SubResult::Fail);
    }

    fn sent_ip(&mut self, element: &Element) {
        let src = || exact(Field::EthSrc, u128::from(element.mac.0));
        if element.ip4.is_empty() && element.ip6.is_empty() {
            self.rule(Sub::In, 90, [src()], SubResult::Goto(Sub::InNd));
            return;
        }
        // Manual: what is neither IP nor ARP is restricted by its Ethernet address only ("RARP is not restricted"). 23.03 drops it.
        self.rule(Sub::In, 85, [src()], SubResult::Pass);
        self.rule(Sub::In, 86, [src(), exact(Field::EthType, IP4)], SubResult::Fail);
        self.rule(Sub::In, 86, [src(), exact(Field::EthType, IP6)], SubResult::Fail);
        if !element.ip4.is_empty() {
            let v4 = || exact(Field::EthType, IP4);
            self.rule(Sub::In, 90, [src(), v4(), any(Field::Ip4Src, ip4(element))], SubResult::Pass);
            let discover = [
                src(),
                v4(),
                exact(Field::Ip4Src, 0),
                exact(Field::Ip4Dst, u128::from(u32::MAX)),
                exact(Field::IpProto, 17),
                exact(Field::UdpSrc, 68),
                exact(Field::UdpDst, 67),
            ];
            self.rule(Sub::In, 90, discover, SubResult::Pass);
        }
        if !element.ip6.is_empty() {
            let v6 = || exact(Field::EthType, IP6);
            self.rule(Sub::In, 90, [src(), v6(), any(Field::Ip6Src, ip6(element))], SubResult::Goto(Sub::InNd));
            // From the unspecified address: multicast listener reports (131, 143) and duplicate address detection (135).
            for (icmp_type, result) in
                [(131, SubResult::Pass), (135, SubResult::Goto(Sub::InNd)), (143, SubResult::Pass)]
            {
                let joining = [
                    src(),
                    v6(),
                    exact(Field::Ip6Src, 0),
                    any(Field::Ip6Dst, vec![prefix(0xff02 << 112, 16, 128)]),
                    exact(Field::IpProto, 58),
                    exact(Field::Icmp6Type, icmp_type),
                    exact(Field::Icmp6Code, 0),
                ];
                self.rule(Sub::In, 90, joining, result);
            }
        }
    }

    fn sent_arp(&mut self, element: &Element) {
        if element.ip4.is_empty() && !element.ip6.is_empty() {
            return;
        }
        let mac = u128::from(element.mac.0);
        let mut dims = vec![exact(Field::EthSrc, mac), exact(Field::EthType, ARP), exact(Field::ArpSha, mac)];
        if !element.ip4.is_empty() {
            dims.push(any(Field::ArpSpa, ip4(element)));
        }
        self.rule(Sub::InNd, 90, dims, SubResult::Pass);
    }

    fn sent_nd(&mut self, element: &Element) {
        if element.ip6.is_empty() && !element.ip4.is_empty() {
            return;
        }
        let mac = u128::from(element.mac.0);
        let own = |field| any(field, [0, mac].map(|value| Masked { value, mask: super::reach::ones(48) }).to_vec());
        // Manual and RFC 4861: the hop limit of neighbor discovery is 255. 23.03 looks for 225.
        let mut solicit = neighbor_discovery(135);
        solicit.extend([exact(Field::EthSrc, mac), own(Field::NdSll)]);
        self.rule(Sub::InNd, 90, solicit, SubResult::Pass);
        let mut advertise = neighbor_discovery(136);
        advertise.extend([exact(Field::EthSrc, mac), own(Field::NdTll)]);
        if !element.ip6.is_empty() {
            advertise.push(any(Field::NdTarget, ip6(element)));
        }
        self.rule(Sub::InNd, 90, advertise, SubResult::Pass);
    }

    fn received(&mut self, element: &Element) {
        let dst = || exact(Field::EthDst, u128::from(element.mac.0));
        self.rule(Sub::Out, 85, [dst()], SubResult::Pass);
        if element.ip4.is_empty() && element.ip6.is_empty() {
            return;
        }
        for (eth_type, field, allowed) in
            [(IP4, Field::Ip4Dst, received_ip4(element)), (IP6, Field::Ip6Dst, received_ip6(element))]
        {
            self.rule(Sub::Out, 90, [dst(), exact(Field::EthType, eth_type)], SubResult::Fail);
            if !allowed.is_empty() {
                self.rule(Sub::Out, 95, [dst(), exact(Field::EthType, eth_type), any(field, allowed)], SubResult::Pass);
            }
        }
    }
}

/// Neighbor discovery of a type: ICMPv6 with code 0 and hop limit 255.
fn neighbor_discovery(icmp_type: u128) -> Vec<Dim> {
    vec![
        exact(Field::EthType, IP6),
        exact(Field::IpProto, 58),
        exact(Field::IpTtl, 255),
        exact(Field::Icmp6Type, icmp_type),
        exact(Field::Icmp6Code, 0),
    ]
}

/// Own addresses, their subnets' broadcast addresses, limited broadcast and multicast; nothing when the element has no IPv4 address.
fn received_ip4(element: &Element) -> Vec<Masked> {
    if element.ip4.is_empty() {
        return Vec::new();
    }
    let mut allowed = ip4(element);
    for (ip, length) in &element.ip4 {
        let host = super::reach::ones(32 - length);
        let address = u128::from(u32::from(*ip));
        if *length < 32 && address & host != 0 {
            allowed.push(Masked { value: address | host, mask: super::reach::ones(32) });
        }
    }
    allowed.push(prefix(0xffff_ffff, 32, 32));
    allowed.push(prefix(0xe000_0000, 4, 32));
    allowed
}

/// Own addresses and multicast; nothing when the element has no IPv6 address.
fn received_ip6(element: &Element) -> Vec<Masked> {
    if element.ip6.is_empty() {
        return Vec::new();
    }
    let mut allowed = ip6(element);
    allowed.push(prefix(0xff00 << 112, 8, 128));
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_as_the_manual_says() {
        let element: Element = "80:fa:5b:06:72:b7 192.168.1.10/24, fd00::/64".parse().unwrap();
        assert_eq!(element.mac, Mac(0x80fa_5b06_72b7));
        assert_eq!(element.ip4, [(Ipv4Addr::new(192, 168, 1, 10), 24)]);
        assert_eq!(element.ip6, [("fd00::".parse().unwrap(), 64)]);
        for bad in [
            "",
            "10.0.0.1",
            "00:00:00:00:00:01 10.0.0.1/33",
            "00:00:00:00:00:01 host",
            "0:0:0:0:0",
            "00:00:00:00:00:00:01",
        ] {
            assert_eq!(bad.parse::<Element>(), Err(BadElement(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn link_local_address_is_made_from_the_mac() {
        let element: Element = "00:00:00:00:01:05 fd00::5".parse().unwrap();
        let expected: Ipv6Addr = "fe80::200:ff:fe00:105".parse().unwrap();
        assert_eq!(ip6(&element)[0].value, u128::from(expected));
    }

    #[test]
    fn a_subnet_is_given_by_a_host_part_of_zero() {
        let of = |text: &str| ip4(&text.parse().unwrap())[0];
        assert_eq!(of("00:00:00:00:00:01 10.0.1.0/24"), Masked { value: 0x0a00_0100, mask: 0xffff_ff00 });
        assert_eq!(of("00:00:00:00:00:01 10.0.1.7/24"), Masked { value: 0x0a00_0107, mask: 0xffff_ffff });
        assert_eq!(of("00:00:00:00:00:01 10.0.1.7"), Masked { value: 0x0a00_0107, mask: 0xffff_ffff });
    }
}
