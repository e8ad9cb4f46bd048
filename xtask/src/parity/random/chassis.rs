//! Chassis that come and go, ports bound to them, and the ports' wishes.

use super::super::generator::Random;
use super::Model;

/// What new chassis say they can (ovn-sb(5), Chassis other_config); one that says less changes every switch's flows.
const FEATURES: &str = "other_config:port-up-notif=true other_config:ct-no-masked-label=true \
                        other_config:ovn-ct-lb-related=true other_config:mac-binding-timestamp=true";

/// How many there are at most.
const MOST: usize = 3;

/// The name by which `requested-chassis` may call a chassis that is called `name`: its hostname.
fn hostname(name: &str) -> String {
    format!("{name}.example.org")
}

/// One change of chassis or bindings, or `None` if the kind that was drawn is not possible now.
pub(super) fn change(random: &mut Random, model: &mut Model, fresh: usize) -> Option<String> {
    match random.below(8) {
        0 | 1 if model.chassis.len() < MOST => Some(add(random, model, fresh)),
        2 => {
            let at = random.below(model.chassis.len().max(1));
            let name = (at < model.chassis.len()).then(|| model.chassis.swap_remove(at))?;
            Some(format!("ovn-sbctl chassis-del {name}"))
        }
        3 => {
            let name = random.pick(&model.chassis)?;
            Some(match random.below(3) {
                0 => format!("ovn-sbctl set Chassis {name} hostname={}", hostname(name)),
                1 => format!("ovn-sbctl set Chassis {name} {FEATURES}"),
                _ => format!("ovn-sbctl clear Chassis {name} other_config"),
            })
        }
        _ => {
            let port = random.pick(&model.ports)?.name.clone();
            if random.chance(30) {
                return Some(format!("ovn-sbctl --if-exists lsp-unbind {port}"));
            }
            let chassis = random.pick(&model.chassis)?;
            let up = if random.chance(50) { format!(" -- set Port_Binding {port} up=true") } else { String::new() };
            Some(format!("ovn-sbctl lsp-unbind {port} -- lsp-bind {port} {chassis}{up}"))
        }
    }
}

/// A new chassis with an address of its own.
pub(super) fn add(random: &mut Random, model: &mut Model, fresh: usize) -> String {
    let name = format!("ch{fresh}");
    let kind = random.one_of(&["geneve", "geneve", "geneve", "geneve,vxlan"]);
    let mut command = format!("ovn-sbctl chassis-add {name} {kind} 192.0.2.{}", fresh % 250);
    if random.chance(70) {
        command.push_str(&format!(" -- set Chassis {name} hostname={}", hostname(&name)));
    }
    if random.chance(70) {
        command.push_str(&format!(" -- set Chassis {name} {FEATURES}"));
    }
    model.chassis.push(name);
    command
}

/// A value for `options:requested-chassis`: chassis by name or hostname, one or several, some that are not there.
pub(super) fn requested(random: &mut Random, model: &Model) -> String {
    let mut named: Vec<String> = Vec::new();
    for chassis in &model.chassis {
        if random.chance(60) {
            named.push(if random.chance(40) { hostname(chassis) } else { chassis.clone() });
        }
    }
    if named.is_empty() || random.chance(15) {
        named.insert(random.below(named.len() + 1), "nowhere".to_owned());
    }
    if random.chance(50) {
        named.reverse();
    }
    named.join(",")
}
