//! Maps that are full: what is programmed goes on, what there is no room for is refused by name, and is taken up when there is room.

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, Northd, VifSpec, probe, wait_until};
use oxbow_tests::cards::{BROADCAST, Card};
use oxbow_tests::layer2;
use oxbow_tests::traffic::{Traffic, until_in_force};

/// Entries that a map of a hypervisor holds now.
fn used(host: &Hypervisor, map: &str) -> Result<u64> {
    let report: serde_json::Value = serde_json::from_str(&host.appctl("oxbow/status")?)?;
    let maps = report["maps"].as_array().context("no maps in the report")?;
    let fill = maps.iter().find(|fill| fill["map"] == map).with_context(|| format!("no {map} in the report"))?;
    fill["entries"].as_u64().context("no number of entries")
}

/// Starts the first hypervisor's node again with this size of a map; the policy in force stays until the new one is whole.
fn restart_with(cloud: &mut Cloud, map: &str, size: u64) -> Result<()> {
    let host = cloud.hypervisor(0);
    host.exit_controller(true)?;
    host.set_node_arguments(&[&format!("--map-size={map}={size}")]);
    host.start_controller()
}

fn full(map: &str) -> String {
    format!("map {map} is full")
}

fn until_problems(host: &Hypervisor, what: &str, is_there: bool) -> Result<()> {
    wait_until(&format!("{what:?} in the problems of {}: {is_there}", host.name()), PATIENCE, || {
        let problems = host.appctl("debug/problems")?;
        Ok(Look::when(problems.contains(what) == is_there, || problems))
    })
}

/// An ACL between guests whose packets are cached is carried out although something else has no room.
fn policy_is_followed(cloud: &Cloud) -> Result<()> {
    let ping = || probe::ping_count(cloud.vif("lp21")?.guest(), "10.0.0.12", 1);
    probe::ping(cloud.vif("lp21")?.guest(), "10.0.0.12")?;
    let cut = "outport == \"lp12\" && ip4.src == 10.0.0.21";
    cloud.nbctl(&format!("acl-add sw0 to-lport 2000 '{cut}' drop"))?;
    wait_until("lp21 is cut off from lp12", PATIENCE, || {
        let answered = ping()?;
        Ok(Look::when(answered == 0, || format!("{answered} answered")))
    })?;
    cloud.nbctl(&format!("acl-del sw0 to-lport 2000 '{cut}'"))?;
    probe::ping(cloud.vif("lp21")?.guest(), "10.0.0.12").map(|_| ())
}

/// The guests that come and go: numbers above those of [`layer2`].
fn extra(number: u8) -> (String, String, String) {
    (format!("lp1{number}"), format!("00:00:00:00:01:{number:02x}"), format!("10.0.0.1{number}"))
}

fn add_port(cloud: &Cloud, number: u8) -> Result<()> {
    let (port, mac, ip) = extra(number);
    cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} '{mac} {ip}'")).map(|_| ())
}

fn add_guest(cloud: &mut Cloud, number: u8) -> Result<()> {
    let (port, mac, ip) = extra(number);
    cloud.create_vif(0, VifSpec::new(&port, &mac, &[&format!("{ip}/24")]))?;
    cloud.plug(&port)
}

fn remove_guest(cloud: &mut Cloud, number: u8) -> Result<()> {
    let (port, ..) = extra(number);
    cloud.unplug(&port)?;
    cloud.remove_vif(&port)?;
    cloud.nbctl(&format!("--if-exists lsp-del {port}")).map(|_| ())
}

/// A map that counts ports: one guest too many is refused, and comes up when another one leaves.
fn ports(cloud: &mut Cloud, map: &str) -> Result<()> {
    add_port(cloud, 3)?;
    add_guest(cloud, 3)?;
    cloud.wait_up("lp13")?;
    cloud.sync()?;
    // Element 0 of an array is nobody's. (OX_PORTS has the size of OX_GUARDS, which ports share with switches and chassis.)
    let size = used(&cloud.hypervisors()[0], map)? + u64::from(map == "OX_GUARDS");
    restart_with(cloud, map, size)?;
    until_in_force(&cloud.hypervisors()[0])?;
    let traffic = Traffic::near_and_far(cloud)?;
    add_port(cloud, 4)?;
    add_guest(cloud, 4)?;
    let host = &cloud.hypervisors()[0];
    wait_until("lp14 is refused by name", PATIENCE, || {
        let ports = host.appctl("debug/ports")?;
        let line = ports.lines().find(|line| line.contains(" lp14 failed")).unwrap_or_default();
        Ok(Look::when(line.contains(&full(map)), || ports.clone()))
    })?;
    until_problems(host, &format!("port lp14: {}", full(map)), true)?;
    ensure!(cloud.nbctl("lsp-get-up lp14")?.trim() == "down");
    policy_is_followed(cloud)?;
    // What leaves makes room.
    remove_guest(cloud, 3)?;
    cloud.wait_up("lp14")?;
    probe::ping(cloud.vif("lp14")?.guest(), "10.0.0.21")?;
    until_problems(&cloud.hypervisors()[0], &full(map), false)?;
    remove_guest(cloud, 4)?;
    traffic.goes_on()?;
    traffic.nothing_was_lost()
}

/// Too much policy: the one before stays in force, and the new one comes when it fits.
fn policy(cloud: &mut Cloud, map: &str, room: u64, fill: &dyn Fn(&Cloud) -> Result<()>) -> Result<()> {
    let size = used(&cloud.hypervisors()[0], map)? + room;
    restart_with(cloud, map, size)?;
    until_in_force(&cloud.hypervisors()[0])?;
    let traffic = Traffic::near_and_far(cloud)?;
    fill(cloud)?;
    until_problems(&cloud.hypervisors()[0], &full(map), true)?;
    traffic.goes_on()?;
    cloud.nbctl("acl-del sw0 -- --if-exists destroy Address_Set many")?;
    until_problems(&cloud.hypervisors()[0], &full(map), false)?;
    cloud.sync()?;
    policy_is_followed(cloud)?;
    traffic.nothing_was_lost()
}

fn many_rules(cloud: &Cloud) -> Result<()> {
    // Addresses without neighbours, so that no prefix covers two.
    let members: Vec<String> = (0..2000u32).map(|n| format!("10.1.{}.{}", n / 100, 1 + n % 100 * 2)).collect();
    cloud.nbctl(&format!("create Address_Set name=many addresses={}", members.join(",")))?;
    cloud.nbctl("acl-add sw0 to-lport 1001 'ip4.src == $many' drop").map(|_| ())
}

fn many_wide_rules(cloud: &Cloud) -> Result<()> {
    let members: Vec<String> = (0..1000u32).map(|n| format!("\"fd01::{:x}\"", 2 * n + 1)).collect();
    cloud.nbctl(&format!("create Address_Set name=many addresses='{}'", members.join(",")))?;
    cloud.nbctl("acl-add sw0 to-lport 1001 'ip6.src == $many && ip6.dst == fd02::1' drop").map(|_| ())
}

/// Every combination of prefix lengths is a mask of its own. (One table holds 256 at most.)
fn many_masks(cloud: &Cloud) -> Result<()> {
    for source in 9..21 {
        let any: Vec<String> = (9..21)
            .map(|to| format!("(ip4.src == 11.0.0.0/{source} && ip4.dst == 12.0.0.0/{to} && tcp.dst == {to})"))
            .collect();
        cloud.nbctl(&format!("acl-add sw0 to-lport {} '{}' drop", 1001 + source, any.join(" || ")))?;
    }
    Ok(())
}

#[test]
fn maps_of_ports_are_full() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        for map in ["OX_VIFS", "OX_GUARDS"] {
            ports(cloud, map).with_context(|| format!("with {map}"))?;
        }
        layer2::everybody_reaches_everybody(cloud)
    })
}

#[test]
fn maps_of_policy_are_full() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        policy(cloud, "OX_RULES", 200, &many_rules).context("with OX_RULES")?;
        policy(cloud, "OX_RULES_WIDE", 100, &many_wide_rules).context("with OX_RULES_WIDE")?;
        policy(cloud, "OX_TUPLES", 40, &many_masks).context("with OX_TUPLES")?;
        layer2::everybody_reaches_everybody(cloud)
    })
}

/// Switches and groups that there is no room for.
#[test]
fn maps_of_switches_and_groups_are_full() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        for map in ["OX_DATAPATHS", "OX_GROUPS"] {
            let size = used(&cloud.hypervisors()[0], map)?.max(2);
            restart_with(cloud, map, size)?;
            until_in_force(&cloud.hypervisors()[0])?;
            let traffic = Traffic::near_and_far(cloud)?;
            for switch in 1..4 {
                let (port, mac) = (format!("other{switch}"), format!("00:00:00:00:07:{switch:02x}"));
                cloud.nbctl(&format!(
                    "ls-add sw{switch} -- lsp-add sw{switch} {port} -- lsp-set-addresses {port} {mac}"
                ))?;
                cloud.create_vif(0, VifSpec::new(&port, &mac, &[]))?;
                cloud.plug(&port)?;
            }
            until_problems(&cloud.hypervisors()[0], &full(map), true)?;
            traffic.goes_on()?;
            for switch in 1..4 {
                let port = format!("other{switch}");
                cloud.unplug(&port)?;
                cloud.remove_vif(&port)?;
                cloud.nbctl(&format!("ls-del sw{switch}"))?;
            }
            until_problems(&cloud.hypervisors()[0], &full(map), false)?;
            cloud.sync()?;
            policy_is_followed(cloud)?;
            traffic.nothing_was_lost()?;
        }
        layer2::everybody_reaches_everybody(cloud)
    })
}

/// A guest that sends from ever new addresses fills the MAC table: no port is kept from coming up, no policy from being followed.
#[test]
fn the_table_of_learned_addresses_is_full() -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, Node::Oxbow).node_arguments(&["--map-size=OX_FDB=64"]).run(
        |cloud| {
            layer2::build(cloud)?;
            cloud.nbctl("lsp-add sw0 any -- lsp-set-addresses any unknown")?;
            let any = Card::plug(cloud, "any", 0, [0, 0, 0, 0, 0xa, 1])?;
            let traffic = Traffic::near_and_far(cloud)?;
            for number in 0..400u32 {
                let [_, _, high, low] = number.to_be_bytes();
                let frame = [&BROADCAST[..], &[2, 0, 0, 0, high, low], &[0x88, 0xb5], &[0; 46]].concat();
                any.send(&frame)?;
            }
            until_problems(&cloud.hypervisors()[0], "learned addresses: map OX_FDB is full (64 entries)", true)?;
            policy_is_followed(cloud)?;
            add_port(cloud, 3)?;
            add_guest(cloud, 3)?;
            cloud.wait_up("lp13")?;
            probe::ping(cloud.vif("lp13")?.guest(), "10.0.0.21")?;
            // The port goes, and all it has taught.
            cloud.unplug("any")?;
            cloud.nbctl("lsp-del any")?;
            until_problems(&cloud.hypervisors()[0], "OX_FDB", false)?;
            traffic.nothing_was_lost()?;
            layer2::everybody_reaches_everybody(cloud)
        },
    )
}

/// A node that starts with maps that are too small for what is in force: that stays in force, and the reason is named.
#[test]
fn a_restart_with_too_small_a_map_leaves_the_policy_before_in_force() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        let traffic = Traffic::near_and_far(cloud)?;
        for map in ["OX_RULES", "OX_TUPLES", "OX_TABLES", "OX_BLOCKS", "OX_GUARDS"] {
            traffic.mark(map);
            restart_with(cloud, map, 2)?;
            until_problems(&cloud.hypervisors()[0], &full(map), true).with_context(|| format!("with {map}"))?;
            let text = cloud.hypervisors()[0].appctl("debug/dataplane")?;
            ensure!(!text.contains(", active,"), "{map}: {text}");
            traffic.goes_on()?;
        }
        // The caches are nothing but fast: any size does.
        for map in ["OX_VERDICTS", "OX_EXACT", "OX_DENIED"] {
            traffic.mark(map);
            restart_with(cloud, map, 2)?;
            until_in_force(&cloud.hypervisors()[0])?;
            traffic.goes_on()?;
        }
        cloud.sync()?;
        policy_is_followed(cloud)?;
        traffic.nothing_was_lost()?;
        layer2::everybody_reaches_everybody(cloud)
    })
}
