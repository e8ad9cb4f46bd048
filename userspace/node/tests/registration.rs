//! Chassis, Encap, Chassis_Private and what changes them at run time.

mod host;

use anyhow::{Result, ensure};
use host::Host;
use oxbow_testkit::wait::Look;
use oxbow_testkit::{Northd, OvsdbServer};

#[test]
fn the_chassis_is_registered_as_configured() -> Result<()> {
    Host::run(Northd::None, |host| {
        host.until_equal("hostname", "host1", |host| host.sb("--bare --columns=hostname list Chassis"))?;
        let encap = host.sb("--bare --columns=chassis_name,type,ip,options list Encap")?;
        ensure!(encap.split_whitespace().collect::<Vec<_>>() == ["hv1", "geneve", "192.0.2.1", "csum=true"], "{encap}");
        host.until_equal("private", "hv1", |host| host.sb("--bare --columns=name list Chassis_Private"))?;
        let chassis = host.sb("--bare --columns=_uuid list Chassis")?;
        ensure!(host.sb("--bare --columns=chassis list Chassis_Private")? == chassis);
        host.until("other_config", |host| {
            let config = host.sb("--bare --columns=other_config list Chassis")?;
            let all = [
                "datapath-type=system",
                "iface-types=\"internal,patch,system,tap\"",
                "port-up-notif=true",
                "is-interconn=false",
            ];
            Ok(Look::when(all.iter().all(|part| config.replace('"', "").contains(&part.replace('"', ""))), || config))
        })?;
        ensure!(
            !host.sb("--bare --columns=other_config list Chassis")?.contains("ct-"),
            "features that are not honoured"
        );
        Ok(())
    })
}

#[test]
fn configuration_changes_apply_at_run_time() -> Result<()> {
    Host::run(Northd::None, |host| {
        // Somebody else's note on our Encap survives a change of ours.
        host.sb("set Encap . options:dst_port=6082")?;
        host.vsctl(
            "set Open_vSwitch . external_ids:ovn-encap-csum=false external_ids:ovn-cms-options=enable-chassis-as-gw",
        )?;
        host.until("csum and options", |host| {
            let encap = host.sb("--bare --columns=options list Encap")?;
            let config = host.sb("--bare --columns=other_config list Chassis")?;
            let good = encap.contains("csum=false")
                && encap.contains("dst_port=6082")
                && config.contains("ovn-cms-options=enable-chassis-as-gw");
            Ok(Look::when(good, || format!("{encap}\n{config}")))
        })?;
        host.vsctl("set Open_vSwitch . external_ids:ovn-encap-ip=192.0.2.7 external_ids:ovn-transport-zones=a,b")?;
        host.until_equal("address", "192.0.2.7", |host| host.sb("--bare --columns=ip list Encap"))?;
        host.until_equal("zones", "a b", |host| host.sb("--bare --columns=transport_zones list Chassis"))?;
        // A key of this chassis wins over the plain one.
        host.vsctl("set Open_vSwitch . external_ids:ovn-encap-ip-hv1=192.0.2.8")?;
        host.until_equal("address", "192.0.2.8", |host| host.sb("--bare --columns=ip list Encap"))?;
        // A new name moves everything.
        host.vsctl(
            "remove Open_vSwitch . external_ids ovn-encap-ip-hv1 -- set Open_vSwitch . external_ids:system-id=hv9",
        )?;
        host.until_equal("name", "hv9", |host| host.sb("--bare --columns=name list Chassis"))?;
        host.until_equal("private", "hv9", |host| host.sb("--bare --columns=name list Chassis_Private"))
    })
}

#[test]
fn a_changed_remote_is_followed() -> Result<()> {
    Host::run(Northd::None, |host| {
        let other = OvsdbServer::southbound()?;
        host.vsctl(&format!("set Open_vSwitch . external_ids:ovn-remote=\"{}\"", other.remote()))?;
        host.until_equal("registered there", "hv1", |_| other.sbctl("--bare --columns=name list Chassis"))?;
        ensure!(host.appctl("connection-status")? == "connected\n");
        // Nowhere: nothing of it is written any more, and it is found again.
        host.vsctl("remove Open_vSwitch . external_ids ovn-remote")?;
        host.until_equal("left", "not connected", |host| host.appctl("connection-status"))?;
        other.sbctl("chassis-del hv1")?;
        host.vsctl("add-br br-beside")?;
        ensure!(other.sbctl("--bare --columns=name list Chassis")?.trim().is_empty());
        host.vsctl(&format!("set Open_vSwitch . external_ids:ovn-remote=\"{}\"", other.remote()))?;
        host.until_equal("registered again", "hv1", |_| other.sbctl("--bare --columns=name list Chassis"))
    })
}

#[test]
fn a_stale_chassis_with_our_address_is_replaced_and_a_live_one_is_reported() -> Result<()> {
    let mut host = Host::new(Northd::None)?;
    host.sb("chassis-add dead geneve 192.0.2.1")?;
    host.start()?;
    host.tell(|host| {
        host.until_equal("taken over", "hv1", |host| host.sb("--bare --columns=name list Chassis"))?;
        // It was not dead: it takes its address back.
        host.sb("chassis-del hv1 -- chassis-add dead geneve 192.0.2.1")?;
        host.until("reported", |host| {
            let problems = host.appctl("debug/problems")?;
            Ok(Look::when(problems.contains("two hosts are configured with one address"), || problems))
        })?;
        ensure!(host.sb("--bare --columns=name list Chassis")?.trim() == "dead");
        // Configured with another address we are back.
        host.vsctl("set Open_vSwitch . external_ids:ovn-encap-ip=192.0.2.2")?;
        host.until("registered beside it", |host| {
            let names = host.sb("--bare --columns=name list Chassis")?;
            Ok(Look::when(names.contains("hv1") && names.contains("dead"), || names))
        })
    })
}

#[test]
fn wait_hv_returns_and_the_generation_is_stamped() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0"])?;
        host.nb("--timeout=30 --wait=hv sync")?;
        let private = host.sb("--bare --columns=nb_cfg,nb_cfg_timestamp list Chassis_Private")?;
        let numbers: Vec<i64> = private.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(numbers[0] >= 1 && numbers[1] > 1_600_000_000_000, "{private}");
        host.until_equal("on the bridge", &format!("\"{}\"", numbers[0]), |host| {
            host.vsctl("get Bridge br-int external_ids:ovn-nb-cfg")
        })?;
        // Others' notes stay.
        host.sb("set Chassis_Private . external_ids:neutron=agent")?;
        host.nb("--timeout=30 --wait=hv sync")?;
        ensure!(host.sb("--bare --columns=external_ids list Chassis_Private")?.trim() == "neutron=agent");
        // Switched off, only the bridge is told.
        host.nb("set NB_Global . options:enable_chassis_nb_cfg_update=false")?;
        host.nb("--wait=sb sync")?;
        let before = host.sb("--bare --columns=nb_cfg list Chassis_Private")?;
        host.nb("--wait=sb sync")?;
        let now = host.sb("--bare --columns=nb_cfg list SB_Global")?;
        host.until_equal("on the bridge", &format!("\"{}\"", now.trim()), |host| {
            host.vsctl("get Bridge br-int external_ids:ovn-nb-cfg")
        })?;
        // What is written to Southbound after that comes after what was written with it: its own host name is put back.
        let hostname = host.sb("--bare --columns=hostname list Chassis")?;
        host.sb("set Chassis hv1 hostname=another")?;
        host.until_equal("the host name is put back", hostname.trim(), |host| {
            host.sb("--bare --columns=hostname list Chassis")
        })?;
        ensure!(host.sb("--bare --columns=nb_cfg list Chassis_Private")? == before);
        Ok(())
    })
}

#[test]
fn another_version_of_northd_stops_processing_when_told_to_match() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0", "lp1"])?;
        for (tap, port) in [("tap0", "lp0"), ("tap1", "lp1")] {
            host.tap(tap)?;
            host.vsctl(&format!("add-port br-int {tap}"))?;
            let _ = port;
        }
        // The same version is a match.
        host.vsctl("set Open_vSwitch . external_ids:ovn-match-northd-version=true")?;
        host.vsctl("set Interface tap0 external_ids:iface-id=lp0")?;
        host.until_up("lp0")?;
        drop(host.central.take_northd());
        host.sb("set SB_Global . options:northd_internal_version=1.2.3")?;
        host.until("told", |host| {
            let problems = host.appctl("debug/problems")?;
            Ok(Look::when(problems.contains("mismatch with northd version - 1.2.3"), || problems))
        })?;
        host.vsctl("set Interface tap1 external_ids:iface-id=lp1")?;
        // Configuration is read in spite of the mismatch, and by one session with the interfaces: who sees this has seen that.
        host.vsctl("set Open_vSwitch . external_ids:ovn-encap-tos=marker")?;
        host.until("what was set after the interface's name is seen", |host| {
            let problems = host.appctl("debug/problems")?;
            Ok(Look::when(problems.contains("ovn-encap-tos"), || problems))
        })?;
        // The step that saw it has decided: a claim would be in its log, before any transaction.
        let log = std::fs::read_to_string(host.path("node.log"))?;
        ensure!(log.contains("Claiming lport lp0") && !log.contains("Claiming lport lp1"), "processed:\n{log}");
        ensure!(host.binding("lp1", "chassis")?.is_empty(), "processed in spite of the mismatch");
        host.vsctl("set Open_vSwitch . external_ids:ovn-match-northd-version=false")?;
        host.until("claimed", |host| {
            let chassis = host.binding("lp1", "chassis")?;
            Ok(Look::when(!chassis.is_empty(), || chassis))
        })
    })
}

#[test]
fn only_local_datapaths_are_received() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0"])?;
        host.switch("sw1", &["far1"])?;
        host.tap("tap0")?;
        host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        host.until_up("lp0")?;
        host.nb("--wait=hv sync")?;
        let local = host.appctl("debug/dump-local-datapaths")?;
        ensure!(local.contains("sw0") && !local.contains("sw1"), "{local}");
        let flows = |host: &Host| -> Result<usize> {
            let status = host.appctl("status")?;
            let line =
                status.lines().find_map(|line| line.strip_prefix("Logical flows: ")).unwrap_or_default().to_owned();
            Ok(line.split(' ').next().unwrap_or_default().parse()?)
        };
        let some = flows(host)?;
        let cells = |host: &Host| host.appctl("memory/show");
        let few = cells(host)?;
        host.vsctl("set Open_vSwitch . external_ids:ovn-monitor-all=true")?;
        host.until("more is received", |host| {
            let many = cells(host)?;
            Ok(Look::when(many != few, || many))
        })?;
        ensure!(flows(host)? >= some);
        host.nb("--timeout=30 --wait=hv sync")?;
        Ok(())
    })
}
