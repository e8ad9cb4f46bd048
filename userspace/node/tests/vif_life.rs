//! The life of VIFs against real databases and stock northd.

mod host;

use anyhow::{Result, ensure};
use host::Host;
use oxbow_testkit::Northd;
use oxbow_testkit::wait::Look;

/// A host with a switch `sw0`, its ports, and a tap plugged in for the first of them.
fn with_one_up(ports: &[&str], story: impl FnOnce(&mut Host) -> Result<()>) -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", ports)?;
        host.tap("tap0")?;
        host.vsctl(&format!("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id={}", ports[0]))?;
        host.until_up(ports[0])?;
        host.until_equal("ovn-installed", "true", |host| host.interface_id("tap0", "ovn-installed"))?;
        story(host)
    })
}

fn our_chassis(host: &Host) -> Result<String> {
    Ok(host.sb("--bare --columns=_uuid find Chassis name=hv1")?.trim().to_owned())
}

fn until_released(host: &Host, port: &str) -> Result<()> {
    host.until(&format!("{port} is released"), |host| {
        let (chassis, up) = (host.binding(port, "chassis")?, host.binding(port, "up")?);
        Ok(Look::when(chassis.is_empty() && up == "false", || format!("{chassis} {up}")))
    })
}

#[test]
fn a_vif_is_claimed_marked_up_and_released() -> Result<()> {
    with_one_up(&["lp0", "lp1"], |host| {
        ensure!(host.binding("lp0", "chassis")? == our_chassis(host)?);
        ensure!(host.interface_id("tap0", "ovn-installed-ts")?.parse::<u64>()? > 1_600_000_000_000);
        host.nb("--wait=hv sync")?;
        host.until_equal("NB says up", "up", |host| host.nb("lsp-get-up lp0"))?;
        ensure!(host.appctl("debug/ports")?.contains("tap0 lp0 installed"));
        host.vsctl("del-port br-int tap0")?;
        until_released(host, "lp0")
    })
}

#[test]
fn the_generation_waits_for_vifs_that_exist() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.tap("tap0")?;
        host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        for round in 0..5 {
            host.switch(&format!("sw{round}"), &[])?;
        }
        host.nb("lsp-add sw0 lp0")?;
        // When this returns the port that exists is installed, not merely claimed.
        host.nb("--timeout=30 --wait=hv sync")?;
        ensure!(host.binding("lp0", "up")? == "true" && host.interface_id("tap0", "ovn-installed")? == "true");
        Ok(())
    })
}

#[test]
fn iface_id_changes_and_removals_are_followed() -> Result<()> {
    with_one_up(&["lp0", "lp1"], |host| {
        host.vsctl("set Interface tap0 external_ids:iface-id=lp1")?;
        host.until_up("lp1")?;
        until_released(host, "lp0")?;
        host.vsctl("remove Interface tap0 external_ids iface-id")?;
        until_released(host, "lp1")?;
        // Whoever names a port next must not read what was said of the last one.
        host.until_equal("forgotten", "", |host| host.interface_id("tap0", "ovn-installed"))?;
        ensure!(host.interface_id("tap0", "ovn-installed-ts")?.is_empty());
        Ok(())
    })
}

#[test]
fn devices_may_vanish_come_late_and_go_up_and_down() -> Result<()> {
    with_one_up(&["lp0"], |host| {
        for state in ["up", "down", "up"] {
            host.ns.ip(&format!("link set tap0 {state}"))?;
            host.until_equal("reported", state, |host| host.vsctl("get Interface tap0 admin_state"))?;
            ensure!(host.binding("lp0", "up")? == "true", "link {state}");
        }
        host.ns.ip("link del tap0")?;
        until_released(host, "lp0")?;
        ensure!(host.interface_id("tap0", "ovn-installed")?.is_empty());
        host.tap("tap0")?;
        host.until_up("lp0")
    })
}

#[test]
fn the_newest_of_two_interfaces_with_one_iface_id_wins() -> Result<()> {
    with_one_up(&["lp0"], |host| {
        host.tap("tap1")?;
        host.vsctl("add-port br-int tap1 -- set Interface tap1 external_ids:iface-id=lp0")?;
        host.until_equal("the newer one", "true", |host| host.interface_id("tap1", "ovn-installed"))?;
        host.until_equal("the older one", "", |host| host.interface_id("tap0", "ovn-installed"))?;
        ensure!(host.interface_id("tap0", "oxbow-reason")?.contains("tap1"));
        ensure!(host.appctl("debug/ports")?.contains("tap0 lp0 superseded"));
        host.vsctl("del-port br-int tap1")?;
        host.until_equal("the older one again", "true", |host| host.interface_id("tap0", "ovn-installed"))?;
        host.until_up("lp0")
    })
}

#[test]
fn requested_chassis_and_iface_id_ver_decide() -> Result<()> {
    with_one_up(&["lp0"], |host| {
        host.sb("chassis-add hv2 geneve 192.0.2.2")?;
        host.nb("set Logical_Switch_Port lp0 options:requested-chassis=hv2")?;
        until_released(host, "lp0")?;
        host.until("the reason", |host| {
            let reason = host.interface_id("tap0", "oxbow-reason")?;
            Ok(Look::when(reason == "requested-chassis is hv2", || reason))
        })?;
        // By host name, and first in the list.
        host.nb("set Logical_Switch_Port lp0 options:requested-chassis='\"host1,hv2\"'")?;
        host.until_up("lp0")?;
        host.nb("set Logical_Switch_Port lp0 options:iface-id-ver=7")?;
        until_released(host, "lp0")?;
        host.vsctl("set Interface tap0 external_ids:iface-id-ver=7")?;
        host.until_up("lp0")
    })
}

#[test]
fn live_migration_binds_here_additionally_and_then_alone() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0"])?;
        host.sb("chassis-add hv2 geneve 192.0.2.2")?;
        host.nb("set Logical_Switch_Port lp0 options:requested-chassis='\"hv2,hv1\"'")?;
        host.nb("--wait=sb sync")?;
        host.sb("lsp-bind lp0 hv2 -- set Port_Binding lp0 up=true")?;
        host.tap("tap0")?;
        host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        let us = our_chassis(host)?;
        host.until_equal("additional", &us, |host| host.binding("lp0", "additional_chassis"))?;
        host.until_equal("installed", "true", |host| host.interface_id("tap0", "ovn-installed"))?;
        ensure!(host.binding("lp0", "chassis")? != us && host.binding("lp0", "up")? == "true");
        // The migration ends: the other side lets go, this one is alone.
        host.nb("set Logical_Switch_Port lp0 options:requested-chassis=hv1")?;
        host.until_equal("main", &us, |host| host.binding("lp0", "chassis"))?;
        host.until_equal("no longer additional", "", |host| host.binding("lp0", "additional_chassis"))?;
        host.until_up("lp0")
    })
}

#[test]
fn nested_ports_and_localports_follow_their_rules() -> Result<()> {
    with_one_up(&["lp0"], |host| {
        host.nb("lsp-add sw0 sub0 lp0 42")?;
        host.until_up("sub0")?;
        ensure!(host.binding("sub0", "chassis")? == our_chassis(host)?);
        // A sub-port of a parent that is not here is known all the same, and becomes ours with its parent.
        host.switch("sw1", &["lp1"])?;
        host.nb("lsp-add sw1 sub1 lp1 43")?;
        host.tap("tap1")?;
        host.vsctl("add-port br-int tap1 -- set Interface tap1 external_ids:iface-id=lp1")?;
        host.until_up("sub1")?;
        host.vsctl("del-port br-int tap1")?;
        until_released(host, "sub1")?;
        // The metadata agent's plug: a veth whose other end is in a namespace of its own.
        host.nb("lsp-add sw0 meta -- lsp-set-type meta localport")?;
        host.ns.ip("link add tapmeta type veth peer name tapmeta1")?;
        host.vsctl("--may-exist add-port br-int tapmeta -- set Interface tapmeta external_ids:iface-id=meta")?;
        host.until_equal("served", "true", |host| host.interface_id("tapmeta", "ovn-installed"))?;
        ensure!(host.binding("meta", "chassis")?.is_empty());
        ensure!(host.appctl("debug/dump-local-bindings")?.contains("localport lport : [meta]"));
        Ok(())
    })
}

#[test]
fn gateway_ports_are_bound_and_what_is_not_served_is_reported() -> Result<()> {
    with_one_up(&["lp0"], |host| {
        host.nb(
            "lsp-add sw0 gw -- lsp-set-type gw l2gateway -- lsp-set-options gw l2gateway-chassis=hv1 network_name=p",
        )?;
        host.nb("lsp-add sw0 ln -- lsp-set-type ln localnet -- lsp-set-options ln network_name=p")?;
        host.until("bound", |host| {
            let chassis = host.binding("gw", "chassis")?;
            Ok(Look::when(!chassis.is_empty(), || chassis))
        })?;
        host.until("reported", |host| {
            let problems = host.appctl("debug/problems")?;
            let both = problems.contains("logical port ln of type localnet is not served")
                && problems.contains("logical port gw");
            Ok(Look::when(both, || problems))
        })?;
        ensure!(host.binding("ln", "chassis")?.is_empty());
        host.nb("--timeout=30 --wait=hv sync").map(|_| ())
    })
}

#[test]
fn an_interface_chooses_its_encapsulation_address() -> Result<()> {
    with_one_up(&["lp0"], |host| {
        host.vsctl("set Open_vSwitch . external_ids:ovn-encap-ip='\"192.0.2.1,192.0.2.3\"'")?;
        host.vsctl("set Interface tap0 external_ids:encap-ip=192.0.2.3")?;
        host.until("encap", |host| {
            let encap = host.binding("lp0", "encap")?;
            let row = host.sb("--bare --columns=_uuid find Encap ip=192.0.2.3")?;
            Ok(Look::when(!encap.is_empty() && encap == row.trim(), || format!("{encap} {row}")))
        })?;
        ensure!(host.binding("lp0", "up")? == "true");
        Ok(())
    })
}

#[test]
fn a_malformed_flow_is_reported_by_name_and_the_rest_goes_on() -> Result<()> {
    with_one_up(&["lp0", "lp1"], |host| {
        drop(host.central.take_northd());
        let datapath = host.sb("--bare --columns=_uuid find Datapath_Binding")?;
        host.sb(&format!(
            "create Logical_Flow logical_datapath={} pipeline=ingress table_id=0 priority=9 match='\"nonsense == 7\"' actions='\"next;\"'",
            datapath.trim()
        ))?;
        host.until("reported", |host| {
            let problems = host.appctl("debug/problems")?;
            Ok(Look::when(problems.contains("nonsense"), || problems))
        })?;
        host.tap("tap1")?;
        host.vsctl("add-port br-int tap1 -- set Interface tap1 external_ids:iface-id=lp1")?;
        host.until_up("lp1")
    })
}
