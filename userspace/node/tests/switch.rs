//! What ovs-vsctl, libvirt, os-vif and Incus expect of a switch, without ovs-vswitchd (R-23, R-24, R-46, R-47).

mod host;

use anyhow::{Result, ensure};
use host::Host;
use oxbow_testkit::Northd;
use oxbow_testkit::wait::Look;

#[test]
fn the_integration_bridge_is_made_with_its_device() -> Result<()> {
    Host::run(Northd::None, |host| {
        host.until_equal("br-int is there", "br-int", |host| host.ovs.vsctl_no_wait("list-br"))?;
        host.until("the device", |host| host.ns.ip("link show br-int").map(|_| Look::Held(())))?;
        for (column, expected) in
            [("fail_mode", "secure"), ("other_config:disable-in-band", "\"true\""), ("datapath_type", "system")]
        {
            let value = host.vsctl(&format!("get Bridge br-int {column}"))?;
            ensure!(value.trim() == expected, "{column}: {value}");
        }
        host.until("datapath_id", |host| {
            let id = host.vsctl("get Bridge br-int datapath_id")?;
            Ok(Look::when(id.trim().trim_matches('"').len() == 16, || id))
        })?;
        ensure!(host.interface_id("br-int", "nothing")?.is_empty());
        host.until_equal("the local port", "65534", |host| host.vsctl("get Interface br-int ofport"))?;
        // Somebody deletes it: it comes back, as ovn-controller makes it again.
        host.ovs.vsctl_no_wait("del-br br-int")?;
        host.until_equal("br-int is there again", "br-int", |host| host.ovs.vsctl_no_wait("list-br"))
    })
}

#[test]
fn a_client_s_bridge_is_a_device_when_ovs_vsctl_returns() -> Result<()> {
    Host::run(Northd::None, |host| {
        host.vsctl("add-br br-ex")?;
        ensure!(host.ns.ip("link show br-ex").is_ok());
        host.vsctl(
            "add-port br-ex port0 -- set Interface port0 type=internal mac='\"0a:00:00:00:00:01\"' mtu_request=1400",
        )?;
        let shown = host.ns.ip("link show port0")?;
        ensure!(shown.contains("0a:00:00:00:00:01") && shown.contains("mtu 1400"), "{shown}");
        host.vsctl("del-br br-ex")?;
        host.until("both devices go", |host| {
            let links = host.ns.ip("link show")?;
            Ok(Look::when(!links.contains("br-ex") && !links.contains("port0"), || links))
        })
    })
}

#[test]
fn a_missing_device_is_told_to_ovs_vsctl_and_found_when_it_comes() -> Result<()> {
    Host::run(Northd::None, |host| {
        let error = host.vsctl_complaint("--timeout=10 add-port br-int tap0")?;
        ensure!(error.contains("could not open network device tap0 (No such device)"), "{error}");
        ensure!(host.vsctl("get Interface tap0 ofport")?.trim() == "-1");
        host.tap("tap0")?;
        host.until_equal("a number", "1", |host| host.vsctl("get Interface tap0 ofport"))?;
        host.until_equal("no error", "[]", |host| host.vsctl("get Interface tap0 error"))?;
        host.until_equal("down", "down", |host| host.vsctl("get Interface tap0 admin_state"))?;
        host.ns.ip("link set tap0 up")?;
        host.until_equal("up", "up", |host| host.vsctl("get Interface tap0 admin_state"))?;
        for column in ["mtu", "mac_in_use", "ifindex", "link_state", "link_resets"] {
            ensure!(host.vsctl(&format!("get Interface tap0 {column}"))?.trim() != "[]", "{column}");
        }
        ensure!(host.vsctl("get Interface tap0 status:driver_name")?.trim() == "tun");
        host.until("statistics", |host| {
            let text = host.vsctl("--columns=statistics list Interface tap0")?;
            Ok(Look::when(text.contains("rx_bytes") && text.contains("tx_dropped"), || text))
        })?;
        host.ns.ip("link del tap0")?;
        host.until_equal("gone", "-1", |host| host.vsctl("get Interface tap0 ofport"))
    })
}

#[test]
fn port_numbers_stay_and_requests_are_honoured() -> Result<()> {
    Host::run(Northd::None, |host| {
        for tap in ["tap0", "tap1", "tap2"] {
            host.tap(tap)?;
        }
        host.vsctl("add-port br-int tap0")?;
        host.vsctl("add-port br-int tap1 -- set Interface tap1 ofport_request=77")?;
        host.vsctl("add-port br-int tap2")?;
        let numbers = |host: &Host| -> Result<Vec<String>> {
            ["tap0", "tap1", "tap2"]
                .iter()
                .map(|tap| Ok(host.ovs.vsctl_no_wait(&format!("get Interface {tap} ofport"))?.trim().to_owned()))
                .collect()
        };
        ensure!(numbers(host)? == ["1", "77", "2"], "{:?}", numbers(host)?);
        host.exit("exit --restart")?;
        host.start()?;
        host.vsctl("set Bridge br-int other_config:touched=true")?;
        ensure!(numbers(host)? == ["1", "77", "2"], "{:?}", numbers(host)?);
        Ok(())
    })
}

#[test]
fn libvirt_s_os_vif_s_and_incus_plugs_work_without_no_wait() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0", "lp1", "lp2"])?;
        // libvirt: the tap exists, one transaction, --timeout=5.
        host.tap("vnet0")?;
        host.vsctl(
            "--timeout=5 -- --if-exists del-port vnet0 -- add-port br-int vnet0 -- set Interface vnet0 \
             external-ids:attached-mac='\"00:00:00:00:00:01\"' -- set Interface vnet0 external-ids:iface-id='\"lp0\"' -- \
             set Interface vnet0 external-ids:vm-id='\"vm\"' -- set Interface vnet0 external-ids:iface-status=active -- \
             set Port vnet0 other_config:transient=true",
        )?;
        host.until_up("lp0")?;
        let statistics = host.vsctl("--timeout=5 --if-exists get Interface vnet0 statistics:rx_packets")?;
        ensure!(statistics.trim().parse::<i64>().is_ok(), "{statistics}");
        // os-vif: the bridge again with its type, the port before the tap, which ovs-vsctl reports as an error of the port.
        host.vsctl("--timeout=120 -- --may-exist add-br br-int -- set Bridge br-int datapath_type=system")?;
        let early = host.vsctl_complaint(
            "--timeout=120 -- --may-exist add-port br-int tap1 -- set Interface tap1 external_ids:iface-id=lp1 \
             external_ids:iface-status=active external_ids:attached-mac='\"00:00:00:00:00:02\"' external_ids:vm-uuid=vm1",
        )?;
        ensure!(early.contains("could not open network device tap1"), "{early}");
        ensure!(host.binding("lp1", "chassis")?.is_empty(), "claimed without a device");
        host.tap("tap1")?;
        host.until_up("lp1")?;
        // Incus: only iface-id, and the link comes up afterwards.
        host.ns.ip("link add veth0 type veth peer name guest0")?;
        host.vsctl("--may-exist add-port br-int veth0 -- set interface veth0 external_ids:iface-id=lp2")?;
        host.ns.ip("link set veth0 up")?;
        host.until_up("lp2")?;
        // It removes the device itself, then the port.
        host.ns.ip("link del veth0")?;
        host.until_equal("released", "false", |host| host.binding("lp2", "up"))?;
        host.vsctl("--if-exists del-port br-int veth0").map(|_| ())
    })
}

#[test]
fn an_internal_port_is_served_where_the_switch_sees_it() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0"])?;
        host.vsctl("add-port br-int vm0 -- set Interface vm0 type=internal external_ids:iface-id=lp0")?;
        host.until_up("lp0")?;
        let other = oxbow_testkit::Netns::new("guest")?;
        host.ns.ip(&format!("link set vm0 netns {}", other.path().display()))?;
        host.until("it moves", |_| other.ip("link show vm0").map(|_| Look::Held(())))?;
        host.nb("--wait=hv sync")?;
        ensure!(host.binding("lp0", "up")? == "true");
        // The other namespace goes, and the device with it: it is made anew.
        drop(other);
        host.until("made anew", |host| host.ns.ip("link show vm0").map(|_| Look::Held(())))?;
        host.until_up("lp0")
    })
}

#[test]
fn what_we_write_on_the_bridge_is_there_and_others_keys_stay() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0"])?;
        host.tap("tap0")?;
        host.vsctl("set Bridge br-int external_ids:somebody=else -- add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        host.until_up("lp0")?;
        host.nb("--wait=hv sync")?;
        host.until("keys", |host| {
            let keys = host.vsctl("get Bridge br-int external_ids")?;
            let all = ["ct-zone-lp0", "ovn-nb-cfg=", "ovn-nb-cfg-ts", "ovn-startup-ts", "somebody=else"];
            Ok(Look::when(all.iter().all(|key| keys.contains(key)), || keys))
        })?;
        // What configures us is never written by us, and the bridge's type is whatever clients make of it.
        host.vsctl(
            "set Open_vSwitch . external_ids:ovn-bridge-mappings=p:br-p -- set Bridge br-int datapath_type=netdev",
        )?;
        host.until("published", |host| {
            let config = host.sb("--bare --columns=other_config list Chassis")?;
            Ok(Look::when(
                config.contains("ovn-bridge-mappings=p:br-p") && config.contains("datapath-type=netdev"),
                || config,
            ))
        })?;
        ensure!(host.vsctl("get Open_vSwitch . external_ids:ovn-bridge-mappings")?.contains("p:br-p"));
        ensure!(host.vsctl("get Bridge br-int datapath_type")?.trim() == "netdev");
        Ok(())
    })
}

#[test]
fn a_row_stands_for_every_tunnel() -> Result<()> {
    Host::run(Northd::None, |host| {
        host.sb("chassis-add hv2 geneve 192.0.2.2")?;
        host.until("the port", |host| {
            let port = host.ovs.vsctl_no_wait("--bare --columns=external_ids find Port name=ovn-hv2-0")?;
            Ok(Look::when(port.trim() == "ovn-chassis-id=hv2@192.0.2.2", || port))
        })?;
        let interface = host.ovs.vsctl_no_wait("get Interface ovn-hv2-0 type options:remote_ip")?;
        ensure!(interface.split_whitespace().collect::<Vec<_>>() == ["geneve", "\"192.0.2.2\""], "{interface}");
        host.until("a number", |host| {
            let number = host.ovs.vsctl_no_wait("get Interface ovn-hv2-0 ofport")?;
            Ok(Look::when(number.trim().parse::<u16>().is_ok(), || number))
        })?;
        host.sb("chassis-del hv2")?;
        host.until_equal("it goes", "br-int", |host| host.ovs.vsctl_no_wait("--bare --columns=name list Port"))
    })
}
