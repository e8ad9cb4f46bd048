//! The OpenFlow backend beside an ovs-vswitchd: what it leaves in its bridge and its database, and what comes and goes beside it.

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE, wait_until};
use oxbow_testkit::{Cloud, Hypervisor, Node, Northd, artifacts, probe};
use oxbow_tests::bridge::{flows, ofctl};
use oxbow_tests::layer2;
use std::process::Command;

fn until_it_says(host: &Hypervisor, command: &str, what: &str) -> Result<()> {
    wait_until(&format!("`{command}` of {} to say {what:?}", host.name()), PATIENCE, || {
        let text = host.appctl(command)?;
        Ok(Look::when(text.contains(what), || text))
    })
}

/// `oxbow-node export` on a hypervisor.
fn export(host: &Hypervisor) -> Result<String> {
    let mut command = Command::new(artifacts::binary("oxbow-node")?);
    command.args(["export", &host.ovsdb().remote()]);
    let output = host.ns().output(command)?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(output.stderr.is_empty(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn flows_come_back_with_ovs_vswitchd() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::OpenFlow).run(|cloud| {
        layer2::build(cloud)?;
        let before = flows(&cloud.hypervisors()[0])?.len();
        ensure!(before > 20, "{before} flows");
        cloud.hypervisor(0).take_vswitchd().context("none runs")?.kill()?;
        until_it_says(&cloud.hypervisors()[0], "debug/dataplane", "not connected")?;
        until_it_says(&cloud.hypervisors()[0], "debug/problems", "is ovs-vswitchd running?")?;
        // What changes meanwhile is part of what comes back.
        cloud.nbctl("lsp-add sw0 more -- lsp-set-addresses more '00:00:00:00:09:09 10.0.0.99'")?;
        cloud.hypervisor(0).start_vswitchd()?;
        cloud.sync()?;
        until_it_says(&cloud.hypervisors()[0], "debug/dataplane", "active")?;
        let text = flows(&cloud.hypervisors()[0])?;
        ensure!(text.len() >= before && text.iter().any(|flow| flow.contains("00:00:00:00:09:09")), "{text:#?}");
        layer2::everybody_reaches_everybody(cloud)?;
        let problems = cloud.hypervisors()[0].appctl("debug/problems")?;
        ensure!(!problems.contains("ovs-vswitchd"), "{problems}");
        Ok(())
    })
}

#[test]
fn exit_leaves_neither_flows_nor_tunnels() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::OpenFlow).run(|cloud| {
        layer2::build(cloud)?;
        ensure!(cloud.hypervisors()[0].vsctl("list-ports br-int")?.contains("ovn-hv2-0"));
        cloud.hypervisor(0).exit_controller(false)?;
        let host = &cloud.hypervisors()[0];
        ensure!(flows(host)?.is_empty(), "{:#?}", flows(host)?);
        let groups = ofctl(host, "dump-groups", &[])?;
        ensure!(!groups.contains("group_id"), "{groups}");
        let ports = host.vsctl("list-ports br-int")?;
        ensure!(!ports.contains("ovn-") && ports.contains("vif"), "{ports}");
        let ids = host.vsctl("get Bridge br-int external_ids")?;
        ensure!(ids.trim() == "{}", "{ids}");
        let chassis = cloud.sbctl("--bare --columns=name list Chassis")?;
        ensure!(chassis.trim() == "hv2", "{chassis}");
        let up = cloud.sbctl("--bare --columns=up find Port_Binding logical_port=lp11")?;
        ensure!(up.trim() == "false", "{up}");
        probe::no_ping(cloud.vif("lp11")?.guest(), "10.0.0.12")?;
        // And all of it comes back.
        cloud.hypervisor(0).start_controller()?;
        cloud.wait_up("lp11")?;
        cloud.sync()?;
        layer2::everybody_reaches_everybody(cloud)
    })
}

#[test]
fn export_prints_what_is_in_the_bridge_and_changes_nothing() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::OpenFlow).run(|cloud| {
        layer2::build(cloud)?;
        // The node that serves the bridge ends, so that nobody but the export could write.
        cloud.hypervisor(0).exit_controller(true)?;
        let contents = |cloud: &Cloud| -> Result<String> {
            let mut text = String::new();
            for (remote, database) in [
                (cloud.southbound().remote(), "OVN_Southbound"),
                (cloud.hypervisors()[0].ovsdb().remote(), "Open_vSwitch"),
            ] {
                let mut command = Command::new("ovsdb-client");
                command.args(["dump", &remote, database]);
                let output = cloud.hypervisors()[0].ns().output(command)?;
                ensure!(output.status.success(), "{output:?}");
                // ovs-vswitchd goes on counting, and the other chassis may.
                let lines = String::from_utf8(output.stdout)?;
                text.extend(lines.lines().filter(|line| !line.contains("rx_bytes")).map(|line| format!("{line}\n")));
            }
            Ok(text)
        };
        let before = contents(cloud)?;
        let host = &cloud.hypervisors()[0];
        let printed = export(host)?;
        ensure!(contents(cloud)? == before, "a database changed");
        let again = export(host)?;
        let other: Vec<&str> = again.lines().filter(|line| !printed.lines().any(|before| before == *line)).collect();
        ensure!(printed == again, "twice the same databases, twice the same text, but for {other:#?}");
        // ovs-ofctl itself compares them, in the notation of `add-flows`.
        let file = host.dir().join("exported.txt");
        let as_flows: Vec<&str> = printed
            .lines()
            .filter_map(|line| line.strip_prefix("flow "))
            .map(|line| line.strip_prefix("add ").unwrap_or(line))
            .collect();
        ensure!(as_flows.len() == flows(host)?.len(), "{} printed\n{printed}", as_flows.len());
        std::fs::write(&file, as_flows.join("\n") + "\n")?;
        let mut command = Command::new("ovs-ofctl");
        let bridge = format!("unix:{}", host.dir().join("br-int.mgmt").display());
        command.args(["-OOpenFlow15", "--no-names", "diff-flows", &bridge, &file.display().to_string()]);
        let output = host.ns().output(command)?;
        // 2 = they differ.
        ensure!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
        let difference = String::from_utf8(output.stdout)?;
        // Numbers of conjunctions and lists as well.
        ensure!(difference.is_empty(), "{difference}");
        Ok(())
    })
}

#[test]
fn ebpf_refuses_a_userspace_datapath_by_name() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::OpenFlow).run(|cloud| {
        layer2::build(cloud)?;
        let before = flows(&cloud.hypervisors()[0])?;
        cloud.hypervisor(0).exit_controller(true)?;
        cloud.hypervisor(0).set_node_arguments(&["--backend=ebpf"]);
        cloud.hypervisor(0).start_controller()?;
        let host = &cloud.hypervisors()[0];
        until_it_says(host, "debug/problems", "datapath_type netdev")?;
        let problems = host.appctl("debug/problems")?;
        ensure!(problems.contains("run oxbow-node --backend=openflow"), "{problems}");
        ensure!(flows(host)? == before, "it leaves the bridge alone");
        until_it_says(host, "debug/ports", "--backend=openflow")?;
        let filters = host.ns().run("tc", &["filter", "show", "dev", "vif1", "ingress"])?;
        ensure!(filters.trim().is_empty(), "{filters}");
        // By tcx, which tc does not show.
        let links = host.ns().run("find", &["/sys/fs/bpf", "-path", "*oxbow*/links/*"])?;
        ensure!(links.trim().is_empty(), "{links}");
        Ok(())
    })
}

#[test]
fn a_bridge_that_nobody_manages_is_told_with_what_to_do() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(1, Node::OpenFlow).run(|cloud| {
        cloud.hypervisor(0).exit_controller(true)?;
        cloud.hypervisor(0).take_vswitchd().context("none runs")?.kill()?;
        cloud.hypervisor(0).start_controller()?;
        let host = &cloud.hypervisors()[0];
        until_it_says(host, "debug/problems", "br-int.mgmt")?;
        let problems = host.appctl("debug/problems")?;
        ensure!(problems.contains("ovs-vswitchd running?") && problems.contains("--backend=ebpf"), "{problems}");
        cloud.hypervisor(0).start_vswitchd()?;
        until_it_says(&cloud.hypervisors()[0], "debug/dataplane", "OpenFlow, active")?;
        until_it_says(&cloud.hypervisors()[0], "status", "Problems: 0")
    })
}

#[test]
fn tunnels_and_keys_are_those_that_ovn_controller_writes() -> Result<()> {
    let builder = Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::OpenFlow).hypervisors(1, Node::Stock);
    builder.run(|cloud| {
        cloud.sync()?;
        let ours = tunnels(&cloud.hypervisors()[0])?;
        let stock = tunnels(&cloud.hypervisors()[2])?;
        ensure!(ours.len() == 2 && stock.len() == 2, "{ours:#?}\n{stock:#?}");
        // Both have one to hv2: the rows are the same but for their numbers.
        let to_hv2 = |all: &[String]| all.iter().find(|row| row.contains("hv2@")).cloned();
        let (plain, stock) = (to_hv2(&ours).context("ours")?, to_hv2(&stock).context("stock's")?);
        ensure!(plain == stock, "{plain}\n{stock}");
        // And so are they when an administrator asks for more.
        let encap = cloud.sbctl("--bare --columns=_uuid find Encap chassis_name=hv2")?;
        cloud.sbctl(&format!("set Encap {} options:dst_port=6082", encap.trim()))?;
        for index in [0, 2] {
            let set = "external_ids:ovn-set-local-ip=true external_ids:ovn-encap-df_default=false external_ids:ovn-encap-tos=inherit";
            cloud.hypervisors()[index].vsctl(&format!("set Open_vSwitch . {set}"))?;
        }
        wait_until("both to follow", PATIENCE, || {
            let pair = [0, 2].map(|index| tunnels(&cloud.hypervisors()[index]).map(|all| to_hv2(&all)));
            let [ours, stock] = pair.map(|row| row.map(Option::unwrap_or_default));
            let (ours, stock) = (ours?, stock?);
            let local = |host: &Hypervisor| format!("local_ip=\"{}\"", host.site().address);
            // Each names its own address.
            let common = |row: &str, host: usize| row.replace(&local(&cloud.hypervisors()[host]), "local_ip=");
            let is_done = ["6082", "df_default=\"false\"", "tos=inherit", "local_ip"].iter().all(|part| stock.contains(part));
            let equal = common(&ours, 0) == common(&stock, 2);
            Ok(Look::when(is_done && equal, || format!("{ours}\n{stock}")))
        })?;
        let bridge = |host: &Hypervisor| host.vsctl("--columns=fail_mode,datapath_type list Bridge br-int");
        ensure!(bridge(&cloud.hypervisors()[0])? == bridge(&cloud.hypervisors()[2])?);
        let in_band = cloud.hypervisors()[0].vsctl("get Bridge br-int other_config:disable-in-band")?;
        ensure!(in_band.trim() == "\"true\"", "{in_band}");
        let keys = |host: &Hypervisor| -> Result<Vec<String>> {
            let ids = host.vsctl("get Bridge br-int external_ids")?;
            let mut keys: Vec<String> = ids
                .trim()
                .trim_matches(['{', '}'])
                .split(", ")
                .filter_map(|pair| pair.split_once('=').map(|(key, _)| key.trim_matches('"').to_owned()))
                .filter(|key| !key.starts_with("ct-zone-"))
                .collect();
            keys.sort();
            Ok(keys)
        };
        let (ours, stock) = (keys(&cloud.hypervisors()[0])?, keys(&cloud.hypervisors()[2])?);
        ensure!(ours == stock, "{ours:?} {stock:?}");
        Ok(())
    })
}

/// What a hypervisor's tunnel ports say: note, kind, options.
fn tunnels(host: &Hypervisor) -> Result<Vec<String>> {
    let ports = host.vsctl("list-ports br-int")?;
    let mut all = Vec::new();
    for port in ports.lines().filter(|port| port.starts_with("ovn-")) {
        let note = host.vsctl(&format!("get Port {port} external_ids"))?;
        let interface = host.vsctl(&format!("get Interface {port} type options external_ids"))?;
        let number: i64 = host.vsctl(&format!("get Interface {port} ofport"))?.trim().parse()?;
        ensure!(number > 0, "{port} has no number");
        all.push(format!("{} {}", note.trim(), interface.replace('\n', " ")));
    }
    Ok(all)
}
