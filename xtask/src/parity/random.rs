//! Random sequences of valid changes to logical switches.

mod acl;
mod addressing;
mod chassis;

use std::fmt::Write as _;

use super::generator::Random;
use addressing::{addresses, ipv4, ipv6, mac, net};

/// Changes in one sequence; longer runs consist of several, each on fresh databases.
pub(super) const SEQUENCE: usize = 25;
#[derive(Clone, Debug)]
struct Port {
    name: String,
    switch: String,
    /// Can be the parent of nested ports: an ordinary VIF.
    vif: bool,
    /// Has an address from its switch's pool, or waits for one.
    dynamic: bool,
}

/// What the sequence has built so far.
#[derive(Default)]
struct Model {
    switches: Vec<String>,
    ports: Vec<Port>,
    groups: Vec<String>,
    sets: Vec<String>,
    meters: Vec<String>,
    chassis: Vec<String>,
    acls: Vec<acl::Acl>,
    named: usize,
}

/// A sequence of changes: shell commands, one change an element.
pub(super) fn sequence(seed: u64, length: usize) -> Vec<String> {
    let mut random = Random(seed);
    let mut model = Model::default();
    let mut steps = Vec::with_capacity(length);
    while steps.len() < length {
        if let Some(step) = change(&mut random, &mut model) {
            steps.push(step);
        }
    }
    steps
}

/// The changes as one script that stops for a comparison after each.
pub(super) fn script(steps: &[String]) -> String {
    steps.iter().fold(String::new(), |mut text, step| {
        let _ = writeln!(text, "{step}\n# step");
        text
    })
}

fn security(random: &mut Random, net: usize) -> String {
    match random.below(5) {
        0 => mac(random),
        1 => format!("{} {}", mac(random), ipv4(random, net)),
        2 => format!("{} {}/24 {}", mac(random), ipv4(random, net), ipv6(random, net)),
        3 => format!("{} {}", mac(random), ipv6(random, net)),
        _ => format!("{} {} {}", mac(random), ipv4(random, net), ipv4(random, net)),
    }
}

fn quoted(items: &[String]) -> String {
    items.iter().map(|item| format!(" \"{item}\"")).collect()
}

/// One change, or `None` if the kind that was drawn is not possible now.
fn change(random: &mut Random, model: &mut Model) -> Option<String> {
    model.named += 1;
    let fresh = model.named;
    match random.below(170) {
        100..110 => service(random, model, fresh),
        110..115 => global_options(random),
        115..120 => Some(several(random, model, fresh)),
        120..155 => acl::change(random, model, fresh),
        155..162 => addressing::change_pool(random, model),
        162..165 => addressing::fixed_from_pool(random, model),
        165..170 => chassis::change(random, model, fresh),
        0..8 if model.switches.len() < 4 => {
            let name = format!("sw{fresh}");
            let config = if random.chance(60) { addressing::pool(random, &name) } else { String::new() };
            model.switches.push(name.clone());
            Some(match config.as_str() {
                "" => format!("ovn-nbctl ls-add {name}"),
                config => format!("ovn-nbctl ls-add {name} -- set Logical_Switch {name}{config}"),
            })
        }
        8..11 if model.switches.len() > 1 => {
            let name = model.switches.swap_remove(random.below(model.switches.len()));
            model.ports.retain(|port| port.switch != name);
            acl::forget(model, &name);
            Some(format!("ovn-nbctl --if-exists ls-del {name}"))
        }
        11..35 => add_port(random, model, fresh),
        35..41 => {
            let at = random.below(model.ports.len().max(1));
            let port = (at < model.ports.len()).then(|| model.ports.swap_remove(at))?;
            Some(format!("ovn-nbctl --if-exists lsp-del {}", port.name))
        }
        41..51 => {
            let at = random.below(model.ports.len().max(1));
            let port = model.ports.get_mut(at)?;
            let count = random.below(3);
            let addresses = addresses(random, &port.switch, count, fresh);
            port.dynamic = addresses.dynamic;
            Some(format!("ovn-nbctl lsp-set-addresses {}{}", port.name, quoted(&addresses.elements)))
        }
        51..59 => {
            let port = random.pick(&model.ports)?.clone();
            let count = random.below(3);
            let addresses: Vec<String> = (0..count).map(|_| security(random, net(&port.switch))).collect();
            Some(format!("ovn-nbctl lsp-set-port-security {}{}", port.name, quoted(&addresses)))
        }
        59..64 => {
            let port = random.pick(&model.ports)?.name.clone();
            let state = random.one_of(&["disabled", "enabled"]);
            Some(format!("ovn-nbctl lsp-set-enabled {port} {state}"))
        }
        64..72 => switch_config(random, model),
        72..79 => port_options(random, model),
        79..85 => port_group(random, model, fresh),
        85..91 => address_set(random, model, fresh),
        _ => chassis::change(random, model, fresh),
    }
}

fn add_port(random: &mut Random, model: &mut Model, fresh: usize) -> Option<String> {
    let switch = random.pick(&model.switches)?.clone();
    let name = format!("lp{fresh}");
    let net = net(&switch);
    let (mut vif, mut dynamic) = (true, false);
    let command = match random.below(12) {
        0 => {
            vif = false;
            let tag =
                if random.chance(50) { format!(" -- set Logical_Switch_Port {name} tag=7") } else { String::new() };
            format!(
                "ovn-nbctl lsp-add {switch} {name} -- lsp-set-type {name} localnet -- lsp-set-addresses {name} unknown \
                 -- lsp-set-options {name} network_name=physnet{}{tag}",
                random.below(2)
            )
        }
        1 => {
            vif = false;
            format!(
                "ovn-nbctl lsp-add {switch} {name} -- lsp-set-type {name} localport -- lsp-set-addresses {name} \"{} {}\"",
                mac(random),
                ipv4(random, net)
            )
        }
        2 => {
            vif = false;
            let chassis = random.pick(&model.chassis).map_or("nowhere", String::as_str);
            format!(
                "ovn-nbctl lsp-add {switch} {name} -- lsp-set-type {name} l2gateway -- lsp-set-addresses {name} unknown \
                 -- lsp-set-options {name} network_name=physnet0 l2gateway-chassis={chassis}"
            )
        }
        3 => {
            let parents: Vec<&Port> = model.ports.iter().filter(|port| port.vif && port.switch == switch).collect();
            let parent = random.pick(&parents)?.name.clone();
            let tag = random.below(50);
            vif = false;
            format!(
                "ovn-nbctl lsp-add {switch} {name} {parent} {tag} -- lsp-set-addresses {name} \"{} {}\"",
                mac(random),
                ipv4(random, net)
            )
        }
        _ => {
            let first = addresses(random, &switch, 1, fresh);
            dynamic = first.dynamic;
            let secured = if random.chance(40) {
                format!(" -- lsp-set-port-security {name} \"{}\"", security(random, net))
            } else {
                String::new()
            };
            format!("ovn-nbctl lsp-add {switch} {name} -- lsp-set-addresses {name}{}{secured}", quoted(&first.elements))
        }
    };
    model.ports.push(Port { name, switch, vif, dynamic });
    Some(command)
}

fn switch_config(random: &mut Random, model: &Model) -> Option<String> {
    let switch = random.pick(&model.switches)?;
    let set = |pair: &str| format!("ovn-nbctl set Logical_Switch {switch} other_config:{pair}");
    Some(match random.below(8) {
        0 => set(&format!("mcast_snoop={}", random.one_of(&["true", "false"]))),
        1 => set(&format!("mcast_flood_unregistered={}", random.one_of(&["true", "false"]))),
        2 => set(&format!("mcast_querier=false mcast_table_size={}", 10 + random.below(90)))
            .replace(" mcast_table_size", " other_config:mcast_table_size"),
        3 => set(&format!("fdb_age_threshold={}", 100 * random.below(4))),
        4 => set(&format!("broadcast-arps-to-all-routers={}", random.one_of(&["true", "false"]))),
        5 => set(&format!("vlan-passthru={}", random.one_of(&["true", "false"]))),
        6 => {
            let key = random.one_of(&["mcast_snoop", "fdb_age_threshold", "vlan-passthru"]);
            format!("ovn-nbctl remove Logical_Switch {switch} other_config {key}")
        }
        _ => format!("ovn-nbctl set Logical_Switch {switch} external_ids:note={}", random.below(9)),
    })
}

fn port_options(random: &mut Random, model: &Model) -> Option<String> {
    let port = &random.pick(&model.ports)?.name;
    let set = |pair: &str| format!("ovn-nbctl set Logical_Switch_Port {port} {pair}");
    Some(match random.below(11) {
        0 | 9 | 10 => set(&format!("'options:requested-chassis=\"{}\"'", chassis::requested(random, model))),
        6 => set(&format!("options:arp_proxy=10.9.{}.0/24", random.below(3))),
        7 => set(&format!("options:disable_arp_nd_rsp={}", random.one_of(&["true", "false"]))),
        8 => format!("ovn-nbctl clear Logical_Switch_Port {port} options"),
        1 => set(&format!("options:qos_max_rate={}", 1000 * random.below(9))),
        2 => set("options:nat-addresses=router"),
        3 => format!("ovn-nbctl remove Logical_Switch_Port {port} options requested-chassis"),
        4 => set(&format!("external_ids:note={}", random.below(9))),
        _ => set(&format!("options:mcast_flood={}", random.one_of(&["true", "false"]))),
    })
}

fn port_group(random: &mut Random, model: &mut Model, fresh: usize) -> Option<String> {
    let members = |random: &mut Random, model: &Model| -> String {
        let chosen: Vec<&str> =
            model.ports.iter().filter(|_| random.chance(40)).map(|port| port.name.as_str()).collect();
        chosen.join(" ")
    };
    match random.below(4) {
        0 if model.groups.len() < 4 => {
            let name = format!("pg{fresh}");
            model.groups.push(name.clone());
            Some(format!("ovn-nbctl pg-add {name} {}", members(random, model)))
        }
        1 if !model.groups.is_empty() => {
            let name = model.groups.swap_remove(random.below(model.groups.len()));
            acl::forget(model, &name);
            Some(format!("ovn-nbctl pg-del {name}"))
        }
        _ => {
            let name = random.pick(&model.groups)?.clone();
            let ports = members(random, model);
            Some(match ports.as_str() {
                "" => format!("ovn-nbctl clear Port_Group {name} ports"),
                ports => format!("ovn-nbctl pg-set-ports {name} {ports}"),
            })
        }
    }
}

fn address_set(random: &mut Random, model: &mut Model, fresh: usize) -> Option<String> {
    let element =
        |random: &mut Random| if random.chance(70) { ipv4(random, 0) } else { format!("\\\"{}\\\"", ipv6(random, 0)) };
    match random.below(5) {
        0 if model.sets.len() < 4 => {
            let name = format!("as{fresh}");
            model.sets.push(name.clone());
            Some(format!(
                "ovn-nbctl create Address_Set name={name} addresses=\"{},{}\" >/dev/null",
                element(random),
                element(random)
            ))
        }
        1 if !model.sets.is_empty() => {
            let name = model.sets.swap_remove(random.below(model.sets.len()));
            Some(format!("ovn-nbctl --if-exists destroy Address_Set {name}"))
        }
        2 => {
            let name = random.pick(&model.sets)?.clone();
            Some(format!("ovn-nbctl clear Address_Set {name} addresses"))
        }
        _ => {
            let name = random.pick(&model.sets)?.clone();
            Some(format!("ovn-nbctl add Address_Set {name} addresses \"{}\"", element(random)))
        }
    }
}

/// DHCP, DNS, QoS and meters: rows that are copied and flows that they add.
fn service(random: &mut Random, model: &mut Model, fresh: usize) -> Option<String> {
    match random.below(6) {
        0 => {
            let switch = random.pick(&model.switches)?;
            let (host, address) = (random.below(9), ipv4(random, 0));
            Some(format!(
                "ovn-nbctl -- --id=@d create DNS 'records={{\"vm{host}.example.org\"=\"{address}\"}}' \
                 -- add Logical_Switch {switch} dns_records @d >/dev/null"
            ))
        }
        1 => {
            let port = &random.pick(&model.ports)?.name;
            let net = random.below(3);
            Some(format!(
                "ovn-nbctl -- --id=@d create DHCP_Options cidr=10.0.{net}.0/24 \
                 'options=\"server_id\"=\"10.0.{net}.1\" \"server_mac\"=\"00:00:00:00:00:fe\" \"lease_time\"=\"{}\"' \
                 -- set Logical_Switch_Port {port} dhcpv4_options=@d >/dev/null",
                60 * random.below(9)
            ))
        }
        2 => {
            let port = &random.pick(&model.ports)?.name;
            Some(format!("ovn-nbctl clear Logical_Switch_Port {port} dhcpv4_options"))
        }
        3 => {
            let switch = random.pick(&model.switches)?;
            let direction = random.one_of(&["from-lport", "to-lport"]);
            let priority = 1000 + fresh;
            Some(match random.below(3) {
                0 => format!("ovn-nbctl qos-add {switch} {direction} {priority} ip4 dscp={}", random.below(64)),
                1 => format!("ovn-nbctl qos-add {switch} {direction} {priority} tcp rate={}", 100 + random.below(900)),
                _ => format!("ovn-nbctl qos-del {switch} {direction}"),
            })
        }
        4 if model.meters.len() < 3 => {
            let name = format!("meter{fresh}");
            model.meters.push(name.clone());
            let unit = random.one_of(&["kbps", "pktps"]);
            Some(format!("ovn-nbctl meter-add {name} drop {} {unit}", 1 + random.below(500)))
        }
        _ => {
            let at = random.below(model.meters.len().max(1));
            let name = (at < model.meters.len()).then(|| model.meters.swap_remove(at))?;
            Some(format!("ovn-nbctl meter-del {name}"))
        }
    }
}

/// Options of the deployment as a whole.
fn global_options(random: &mut Random) -> Option<String> {
    let set = |pair: &str| format!("ovn-nbctl set NB_Global . {pair}");
    Some(match random.below(6) {
        0 => set(&format!("options:ignore_lsp_down={}", random.one_of(&["true", "false"]))),
        1 => set(&format!("options:use_ct_inv_match={}", random.one_of(&["true", "false"]))),
        2 => set(&format!("options:default_acl_drop={}", random.one_of(&["true", "false"]))),
        3 => set(&format!("options:note={}", random.below(9))),
        4 => set(&format!("ipsec={}", random.one_of(&["true", "false"]))),
        _ => "ovn-nbctl remove NB_Global . options ignore_lsp_down use_ct_inv_match default_acl_drop note".to_owned(),
    })
}

/// Several changes that northd sees at once.
fn several(random: &mut Random, model: &mut Model, fresh: usize) -> String {
    let switch = format!("sw{fresh}");
    let ports: Vec<String> = (0..2 + random.below(4)).map(|n| format!("lp{fresh}x{n}")).collect();
    let mut command = format!("ovn-nbctl ls-add {switch}");
    for (n, port) in ports.iter().enumerate() {
        // Each has addresses of its own, and none is dynamic: stock hands those out in hash order.
        let address = format!(
            "52:54:00:{:02x}:{:02x}:{n:02x} 10.{}.{}.{n}",
            random.below(256),
            fresh % 256,
            random.below(200),
            fresh % 250
        );
        let _ = write!(command, " -- lsp-add {switch} {port} -- lsp-set-addresses {port} \"{address}\"");
        model.ports.push(Port { name: port.clone(), switch: switch.clone(), vif: true, dynamic: false });
    }
    model.switches.push(switch);
    if random.chance(50) {
        let _ = write!(command, " -- pg-add pgx{fresh} {}", ports.join(" "));
        model.groups.push(format!("pgx{fresh}"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        assert_eq!(sequence(7, 40), sequence(7, 40));
        assert_ne!(sequence(7, 40), sequence(8, 40));
    }
}
