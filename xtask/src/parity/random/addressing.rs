//! Addresses of ports, and the pools of switches that some of them come from.
//!
//! A switch has a net of its own, so that its pool and the addresses of its ports have to do with each other. The last octet says who
//! has an address: below [`POOL_END`] northd gives them out, then come those that ports ask northd for, then fixed ones. Fixed ones come out of the
//! pool sometimes. What stock decides by hash order is left out: no two ports ask in one change, none asks for what another has, no pool runs empty.

use super::super::generator::Random;
use super::{Model, Port};

/// How many nets there are.
pub(super) const NETS: usize = 3;
/// Last octets that northd gives out: more than one sequence has ports.
const POOL_END: usize = 60;
/// Last octets that ports ask for.
const ASKED_END: usize = 90;

/// The net of a switch: by the number in its name.
pub(super) fn net(switch: &str) -> usize {
    switch.trim_start_matches("sw").parse::<usize>().unwrap_or_default() % NETS
}

pub(super) fn mac(random: &mut Random) -> String {
    format!("50:54:00:00:{:02x}:{:02x}", random.below(4), random.below(256))
}

/// An address that anybody may have.
pub(super) fn ipv4(random: &mut Random, net: usize) -> String {
    format!("10.0.{net}.{}", ASKED_END + random.below(160))
}

pub(super) fn ipv6(random: &mut Random, net: usize) -> String {
    format!("fd0{net}::{:x}", 1 + random.below(0xffff))
}

/// What a port has for addresses.
pub(super) struct Addresses {
    pub(super) elements: Vec<String>,
    pub(super) dynamic: bool,
}

/// At most `most` elements for a port of `switch`, at most one of them dynamic. `fresh` makes what is asked for unique.
pub(super) fn addresses(random: &mut Random, switch: &str, most: usize, fresh: usize) -> Addresses {
    let net = net(switch);
    let mut found = Addresses { elements: Vec::new(), dynamic: false };
    for _ in 0..most {
        let element = match random.below(10) {
            0 => mac(random),
            1 | 2 => format!("{} {}", mac(random), ipv4(random, net)),
            3 => format!("{} {} {}", mac(random), ipv4(random, net), ipv6(random, net)),
            4 => format!("{} {} {}", mac(random), ipv4(random, net), ipv4(random, net)),
            5 => format!("{} {}", mac(random), ipv6(random, net)),
            6 => "unknown".to_owned(),
            _ if found.dynamic => continue,
            _ => {
                found.dynamic = true;
                dynamic(random, net, fresh)
            }
        };
        found.elements.push(element);
    }
    found
}

fn dynamic(random: &mut Random, net: usize, fresh: usize) -> String {
    let asked = format!("10.0.{net}.{}", POOL_END + fresh % (ASKED_END - POOL_END));
    match random.below(6) {
        0 | 1 => "dynamic".to_owned(),
        2 => format!("{} dynamic", mac(random)),
        3 => format!("dynamic {asked}"),
        4 => format!("dynamic fd0{net}::a{fresh:x}"),
        _ => format!("dynamic {asked} fd0{net}::a{fresh:x}"),
    }
}

/// An address out of the pool for a port, past ovn-nbctl, which refuses what another port has.
pub(super) fn fixed_from_pool(random: &mut Random, model: &mut Model) -> Option<String> {
    let at = random.below(model.ports.len().max(1));
    let port: &mut Port = model.ports.get_mut(at)?;
    port.dynamic = false;
    let address = format!("{} 10.0.{}.{}", mac(random), net(&port.switch), 2 + random.below(12));
    Some(format!("ovn-nbctl set Logical_Switch_Port {} 'addresses=\"{address}\"'", port.name))
}

/// What a new switch is created with, or an old one is given: a pool of its own.
pub(super) fn pool(random: &mut Random, switch: &str) -> String {
    let net = net(switch);
    let mut pairs = String::new();
    if random.chance(80) {
        let length = random.one_of(&["24", "24", "25", "16"]);
        pairs.push_str(&format!(" other_config:subnet=10.0.{net}.0/{length}"));
    }
    if random.chance(40) {
        pairs.push_str(&format!(" {}", exclude(random, net)));
    }
    if random.chance(50) {
        pairs.push_str(&format!(" other_config:ipv6_prefix=fd0{net}::"));
    }
    pairs
}

fn exclude(random: &mut Random, net: usize) -> String {
    let first = 2 + random.below(9);
    let last = first + random.below(5);
    let ips = match random.below(4) {
        0 => format!("10.0.{net}.{first}"),
        1 => format!("10.0.{net}.{first}..10.0.{net}.{last}"),
        2 => format!("10.0.{net}.{first}..10.0.{net}.{last} 10.0.{net}.30"),
        _ => format!("10.0.{net}.1 10.0.{net}.{first} 10.0.{net}.{first}"),
    };
    format!("'other_config:exclude_ips=\"{ips}\"'")
}

/// A change of a switch's pool, or `None` while more than one of its ports would have to move.
pub(super) fn change_pool(random: &mut Random, model: &Model) -> Option<String> {
    let switch = random.pick(&model.switches)?;
    if model.ports.iter().filter(|port| port.dynamic && port.switch == *switch).count() > 1 {
        return None;
    }
    let net = net(switch);
    let set = |pair: &str| format!("ovn-nbctl set Logical_Switch {switch} {pair}");
    Some(match random.below(8) {
        0 => set(&format!("other_config:subnet=10.{}.{net}.0/24", random.below(2))),
        1 | 2 => set(&exclude(random, net)),
        3 => set(&format!("other_config:ipv6_prefix=fd{}{net}::", random.below(2))),
        4 => set(&format!("other_config:mac_only={}", random.one_of(&["true", "false"]))),
        5 => set(&format!("other_config:subnet=10.0.{net}.0/25 {}", exclude(random, net))),
        _ => {
            let key = random.one_of(&["subnet", "exclude_ips", "ipv6_prefix", "mac_only"]);
            format!("ovn-nbctl remove Logical_Switch {switch} other_config {key}")
        }
    })
}
