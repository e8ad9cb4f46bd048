//! Access control lists of switches and port groups, shared ones too.
//!
//! Left out is what northd/DESIGN.md names as not compiled: `options:log-related`, fair meters (and tiers, which the schema of 23.03 lacks).
//! No two lists have the same priority and match: which of two gives an equal flow its stage hint is chance.

use std::fmt::Write as _;

use super::super::generator::Random;
use super::{Model, addressing};

/// Who has a list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Switch(String),
    Group(String),
}

/// A list that somebody has: the number in its `external_ids:n`, by which a script finds it.
#[derive(Clone, Debug)]
pub(super) struct Acl {
    number: usize,
    holders: Vec<Holder>,
}

const ACTIONS: [&str; 5] = ["allow", "allow-related", "allow-stateless", "drop", "reject"];
const SEVERITIES: [&str; 5] = ["alert", "warning", "notice", "info", "debug"];

/// Forgets a switch or group that is gone, and the lists that nobody has any more.
pub(super) fn forget(model: &mut Model, name: &str) {
    for acl in &mut model.acls {
        acl.holders.retain(|holder| match holder {
            Holder::Switch(holder) | Holder::Group(holder) => holder != name,
        });
    }
    model.acls.retain(|acl| !acl.holders.is_empty());
}

/// One change of lists, or `None` if the kind that was drawn is not possible now.
pub(super) fn change(random: &mut Random, model: &mut Model, fresh: usize) -> Option<String> {
    match random.below(10) {
        0..5 => create(random, model, fresh),
        5..8 => set(random, model, fresh),
        8 => share(random, model),
        _ => remove(random, model),
    }
}

fn holder(random: &mut Random, model: &Model) -> Option<Holder> {
    if random.chance(40) && !model.groups.is_empty() {
        random.pick(&model.groups).cloned().map(Holder::Group)
    } else {
        random.pick(&model.switches).cloned().map(Holder::Switch)
    }
}

fn column(holder: &Holder, verb: &str, row: &str) -> String {
    match holder {
        Holder::Switch(name) => format!("{verb} Logical_Switch {name} acls {row}"),
        Holder::Group(name) => format!("{verb} Port_Group {name} acls {row}"),
    }
}

/// A shell expression for the uuid of a list.
fn found(number: usize) -> String {
    format!("$(ovn-nbctl --bare --columns=_uuid find ACL external_ids:n={number})")
}

fn create(random: &mut Random, model: &mut Model, fresh: usize) -> Option<String> {
    let holder = holder(random, model)?;
    let (priority, matches) = place(random, model, &holder, fresh);
    let mut row = format!(
        "direction={} priority={priority} 'match=\"{matches}\"' action={} external_ids:n={fresh}",
        random.one_of(&["from-lport", "to-lport"]),
        random.one_of(&ACTIONS)
    );
    for property in 0..PROPERTIES {
        if random.chance(30) {
            let _ = write!(row, " {}", self::property(random, model, fresh, property));
        }
    }
    let command = format!("ovn-nbctl -- --id=@a create ACL {row} -- {} >/dev/null", column(&holder, "add", "@a"));
    model.acls.push(Acl { number: fresh, holders: vec![holder] });
    Some(command)
}

/// How many kinds [`property`] knows.
const PROPERTIES: usize = 6;

/// What a list may have besides.
fn property(random: &mut Random, model: &Model, fresh: usize, kind: usize) -> String {
    match kind {
        0 => format!("log={}", random.one_of(&["true", "true", "false"])),
        1 => format!("severity={}", random.one_of(&SEVERITIES)),
        2 => format!("name={}{fresh}", random.one_of(&["acl", "a-b.c_"])),
        3 => {
            let known = if random.chance(80) { random.pick(&model.meters) } else { None };
            format!("meter={}", known.map_or("no-such-meter", String::as_str))
        }
        4 => format!("label={}", [0, 1, 77, u32::MAX][random.below(4)]),
        _ => format!("options:apply-after-lb={}", random.one_of(&["true", "true", "false"])),
    }
}

/// A priority and a match that no other list has together.
fn place(random: &mut Random, model: &Model, holder: &Holder, fresh: usize) -> (usize, String) {
    let matches = matches(random, model, holder);
    match random.below(8) {
        // The ends of the range (ovn-nb(5), ACL priority) belong to many; their matches differ.
        0 => (0, format!("{matches} && tcp.dst == {fresh}")),
        1 => (32767, format!("{matches} && tcp.dst == {fresh}")),
        2 => (fresh, matches),
        3 => (32766 - fresh, matches),
        _ => (1000 + fresh, matches),
    }
}

/// A conjunction. What ovn-controller would make of it does not matter, but it is valid.
fn matches(random: &mut Random, model: &Model, holder: &Holder) -> String {
    let mut terms = Vec::new();
    let side = random.one_of(&["inport", "outport"]);
    match holder {
        Holder::Group(name) if random.chance(70) => terms.push(format!("{side} == @{name}")),
        _ => {
            if random.chance(50)
                && let Some(port) = random.pick(&model.ports)
            {
                terms.push(format!("{side} == \\\"{}\\\"", port.name));
            } else if random.chance(30)
                && let Some(group) = random.pick(&model.groups)
            {
                terms.push(format!("{side} == @{group}"));
            }
        }
    }
    let end = random.one_of(&["src", "dst"]);
    match random.below(6) {
        0 => {
            if let Some(set) = random.pick(&model.sets) {
                terms.push(format!("ip4.{end} == ${set}"));
            }
        }
        1 => {
            if let Some(group) = random.pick(&model.groups) {
                let version = random.one_of(&["4", "6"]);
                terms.push(format!("ip{version}.{end} == ${group}_ip{version}"));
            }
        }
        2 => {
            let net = random.below(addressing::NETS);
            terms.push(format!("ip4.{end} == {{{}/28, 192.0.2.0/24}}", addressing::ipv4(random, net)));
        }
        _ => {}
    }
    let last = random.one_of(&[
        "ip",
        "ip4",
        "ip6",
        "tcp.dst == 80",
        "tcp.dst >= 1024 && tcp.flags == 2",
        "(tcp || udp)",
        "(ip4 || ip6) && !icmp4",
        "udp.src != 53",
        "sctp",
        "icmp4.type == 8",
        "icmp6",
        "arp.op == 1",
        "eth.type == 0x88cc",
        "1",
    ]);
    terms.push(last.to_owned());
    terms.join(" && ")
}

fn set(random: &mut Random, model: &mut Model, fresh: usize) -> Option<String> {
    let acl = random.pick(&model.acls)?.clone();
    let value = match random.below(5) {
        0 | 1 => format!("action={}", random.one_of(&ACTIONS)),
        2 => {
            let holder = acl.holders.first()?;
            let (priority, matches) = place(random, model, holder, fresh);
            format!("priority={priority} 'match=\"{matches}\"'")
        }
        3 => {
            let empty = random.one_of(&["name", "meter", "severity", "options"]);
            return Some(format!("ovn-nbctl clear ACL {} {empty}", found(acl.number)));
        }
        _ => {
            let kind = random.below(PROPERTIES);
            property(random, model, fresh, kind)
        }
    };
    Some(format!("ovn-nbctl set ACL {} {value}", found(acl.number)))
}

fn share(random: &mut Random, model: &mut Model) -> Option<String> {
    let at = random.below(model.acls.len().max(1));
    let holder = holder(random, model)?;
    let acl = model.acls.get_mut(at)?;
    if acl.holders.contains(&holder) {
        return None;
    }
    let command = format!("ovn-nbctl {}", column(&holder, "add", &found(acl.number)));
    acl.holders.push(holder);
    Some(command)
}

fn remove(random: &mut Random, model: &mut Model) -> Option<String> {
    let at = random.below(model.acls.len().max(1));
    let acl = model.acls.get_mut(at)?;
    let holder = acl.holders.pop()?;
    let command = format!("ovn-nbctl {}", column(&holder, "remove", &found(acl.number)));
    if acl.holders.is_empty() {
        model.acls.swap_remove(at);
    }
    Some(command)
}
