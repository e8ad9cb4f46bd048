//! The node with its programs in the kernel: what survives its end, what it removes, what it learns.

use anyhow::{Result, ensure};
use oxbow_testkit::probe::PingStream;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, VifSpec, probe, wait_until};
use oxbow_tests::layer2;
use oxbow_tests::traffic::spared_pings;
use std::time::Duration;

oxbow_tests::on_every_backend! {
    nothing_is_lost_when_the_node_ends_and_starts_again,
    the_databases_may_go_and_packets_go_on,
    addresses_are_learned_here_and_known_there,
}

/// Echo requests that go on until they are counted.
fn stream(cloud: &Cloud, from: &str, to: &str) -> Result<PingStream> {
    let guest = cloud.vif(from)?.guest();
    probe::ping(guest, to)?;
    PingStream::start(guest, to, &cloud.dir().join(format!("ping-{from}-{to}.log")))
}

fn until_connected(cloud: &Cloud, index: usize) -> Result<()> {
    wait_until("the node is in force again", Duration::from_secs(30), || {
        let status = cloud.hypervisors()[index].appctl("debug/dataplane")?;
        let ports = cloud.hypervisors()[index].appctl("debug/ports")?;
        let done =
            status.contains(", active,") && ports.lines().filter(|line| line.contains(" installed")).count() == 2;
        Ok(Look::when(done, || format!("{status}\n{ports}")))
    })
}

fn nothing_is_lost_when_the_node_ends_and_starts_again(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        let streams = [stream(cloud, "lp11", "10.0.0.12")?, stream(cloud, "lp11", "10.0.0.21")?];
        // As a crash does it.
        let killed = cloud.hypervisor(0).take_controller();
        if let Some(process) = killed {
            process.kill()?;
        }
        probe::ping(cloud.vif("lp11")?.guest(), "10.0.0.21")?;
        cloud.hypervisor(0).start_controller()?;
        until_connected(cloud, 0)?;
        // As an upgrade does it.
        cloud.hypervisor(0).exit_controller(true)?;
        cloud.hypervisor(0).start_controller()?;
        until_connected(cloud, 0)?;
        // As an operator does it.
        cloud.hypervisors()[0].appctl("recompute")?;
        until_connected(cloud, 0)?;
        cloud.sync()?;
        for stream in streams {
            let answered = stream.finish_sparing(spared_pings(cloud))?;
            ensure!(answered > 10, "{answered} answers are too few to say anything");
        }
        let up = cloud.sbctl("--bare --columns=up find Port_Binding logical_port=lp11")?;
        ensure!(up.trim() == "true", "{up}");
        Ok(())
    })
}

fn the_databases_may_go_and_packets_go_on(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(|cloud| {
        layer2::build(cloud)?;
        let stream = stream(cloud, "lp11", "10.0.0.21")?;
        cloud.hypervisors()[0].vsctl("set Open_vSwitch . external_ids:ovn-remote=tcp:172.31.0.1:1")?;
        wait_until("it is noticed", PATIENCE, || {
            let status = cloud.hypervisors()[0].appctl("connection-status")?;
            Ok(Look::when(status == "not connected\n", || status))
        })?;
        layer2::everybody_reaches_everybody(cloud)?;
        let answered = stream.finish_sparing(spared_pings(cloud))?;
        ensure!(answered > 20, "{answered} answers are too few to say anything");
        Ok(())
    })
}

#[test]
fn exit_leaves_nothing_in_the_kernel() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).run(|cloud| {
        layer2::build(cloud)?;
        probe::ping(cloud.vif("lp11")?.guest(), "10.0.0.12")?;
        let pins = |cloud: &Cloud| cloud.hypervisors()[0].ns().run("find", &["/sys/fs/bpf", "-path", "*oxbow*"]);
        ensure!(!pins(cloud)?.trim().is_empty());
        cloud.hypervisor(0).exit_controller(false)?;
        ensure!(pins(cloud)?.trim().is_empty(), "{}", pins(cloud)?);
        ensure!(cloud.hypervisors()[0].ns().ip("link show br-int").is_err());
        probe::no_ping(cloud.vif("lp11")?.guest(), "10.0.0.12")?;
        let chassis = cloud.sbctl("--bare --columns=name list Chassis")?;
        ensure!(chassis.trim() == "hv2", "{chassis}");
        // And all of it comes back.
        cloud.hypervisor(0).start_controller()?;
        cloud.wait_up("lp11")?;
        layer2::everybody_reaches_everybody(cloud)
    })
}

fn addresses_are_learned_here_and_known_there(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(|cloud| {
        cloud.nbctl("ls-add sw0")?;
        for port in ["u1", "u2", "u3"] {
            cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} unknown"))?;
        }
        for (port, hypervisor, last) in [("u1", 0, 1), ("u2", 0, 2), ("u3", 1, 3)] {
            let address = format!("10.0.0.{last}/24");
            cloud.add_vif(hypervisor, VifSpec::new(port, &format!("00:00:00:00:00:0{last}"), &[&address]))?;
        }
        cloud.sync()?;
        probe::ping(cloud.vif("u1")?.guest(), "10.0.0.2")?;
        probe::ping(cloud.vif("u1")?.guest(), "10.0.0.3")?;
        for (port, mac) in [("u1", "00:00:00:00:00:01"), ("u3", "00:00:00:00:00:03")] {
            let key = cloud.sbctl(&format!("--bare --columns=tunnel_key find Port_Binding logical_port={port}"))?;
            wait_until(&format!("an FDB row for {mac}"), PATIENCE, || {
                let row = cloud.sbctl(&format!("--bare --columns=port_key find FDB mac='\"{mac}\"'"))?;
                Ok(Look::when(row.trim() == key.trim() && !row.trim().is_empty(), || {
                    format!("{row:?}, wanted {key:?}")
                }))
            })?;
        }
        // The address moves to another port of the other hypervisor: the row follows.
        let (from, to) = (cloud.vif("u2")?.guest(), cloud.vif("u3")?.guest());
        from.ip("link set eth0 down")?;
        to.ip("link set eth0 down")?;
        to.ip("link set eth0 address 00:00:00:00:00:02")?;
        to.ip("link set eth0 up")?;
        probe::ping(to, "10.0.0.1")?;
        let key = cloud.sbctl("--bare --columns=tunnel_key find Port_Binding logical_port=u3")?;
        wait_until("the row follows", PATIENCE, || {
            let row = cloud.sbctl("--bare --columns=port_key find FDB mac='\"00:00:00:00:00:02\"'")?;
            Ok(Look::when(row.trim() == key.trim(), || format!("{row:?}, wanted {key:?}")))
        })
    })
}
