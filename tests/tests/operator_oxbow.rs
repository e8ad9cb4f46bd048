//! `oxbow` explains any packet's fate: what trace, monitor, drops, flows and verdicts say of packets of every fate, in text and in JSON.

use std::process::Command;
use std::sync::mpsc;

use anyhow::{Context as _, Result, ensure};
use oxbow_report::drops::Drops;
use oxbow_report::events::Event;
use oxbow_report::flows::Flows;
use oxbow_report::ports::Ports;
use oxbow_report::status::Status;
use oxbow_report::trace::{Fate, Trace};
use oxbow_report::verdicts::Verdicts;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, VifSpec, probe, wait_until};
use serde::de::DeserializeOwned;

oxbow_tests::on_every_backend! {
    status_says_whether_a_hypervisor_is_ready_and_why_not,
}

/// Two guests on hv1, one on hv2; port security; an ACL that forbids TCP to port 23; a port with unknown addresses; one that is not bound.
fn build(cloud: &mut Cloud) -> Result<()> {
    cloud.nbctl("ls-add sw0")?;
    for (port, host) in [("vm1", 1), ("vm2", 2), ("vm3", 3), ("away", 4)] {
        let addresses = format!("'02:00:00:00:00:0{host} 10.0.0.{host}'");
        cloud.nbctl(&format!(
            "lsp-add sw0 {port} -- lsp-set-addresses {port} {addresses} -- lsp-set-port-security {port} {addresses}"
        ))?;
    }
    cloud.nbctl("acl-add sw0 from-lport 1001 'tcp.dst == 23' drop")?;
    for (port, hypervisor, host) in [("vm1", 0, 1), ("vm2", 0, 2), ("vm3", 1, 3)] {
        let mac = format!("02:00:00:00:00:0{host}");
        cloud.create_vif(hypervisor, VifSpec::new(port, &mac, &[&format!("10.0.0.{host}/24")]))?;
        // Guests that say nothing by themselves.
        cloud.vif(port)?.guest().run("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        cloud.plug(port)?;
        cloud.wait_up(port)?;
    }
    cloud.sync()
}

fn json<T: DeserializeOwned>(host: &Hypervisor, arguments: &[&str]) -> Result<T> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
    let (_, text) = host.oxbow(&arguments)?;
    serde_json::from_str(&text).with_context(|| format!("oxbow {arguments:?} said {text}"))
}

const ETHER: &str = "eth.src == 02:00:00:00:00:01 && eth.dst == 02:00:00:00:00:0";

/// A packet of vm1's, and what must become of it: (name, microflow, fates as `fate/port or reason`, name of a stage that must be on its way).
fn packets() -> Vec<(&'static str, String, Vec<&'static str>, &'static str)> {
    let ip = "ip4.src == 10.0.0.1 && ip.ttl == 64 && icmp4.type == 8 && ip4.dst == 10.0.0.";
    vec![
        ("delivered here", format!("{ETHER}2 && {ip}2"), vec!["deliver/vm2"], "ls_in_l2_lkup"),
        ("tunnelled", format!("{ETHER}3 && {ip}3"), vec!["tunnel/vm3"], "ls_in_l2_lkup"),
        (
            "ARP answered here",
            "eth.src == 02:00:00:00:00:01 && eth.dst == ff:ff:ff:ff:ff:ff && arp.op == 1 && arp.sha == 02:00:00:00:00:01 && \
             arp.spa == 10.0.0.1 && arp.tpa == 10.0.0.2"
                .to_owned(),
            vec!["deliver/vm1"],
            "ls_in_arp_rsp",
        ),
        (
            "flooded",
            format!("eth.src == 02:00:00:00:00:01 && eth.dst == ff:ff:ff:ff:ff:ff && {ip}255"),
            vec!["deliver/vm2", "drop/same-port", "tunnel/_MC_flood"],
            "ls_in_l2_lkup",
        ),
        (
            "dropped by an ACL",
            format!("{ETHER}2 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && ip.ttl == 64 && tcp.dst == 23 && tcp.src == 9"),
            vec!["drop/logical-flow-drop"],
            "ls_in_acl",
        ),
        (
            "dropped by port security",
            "eth.src == 02:00:00:00:00:99 && eth.dst == 02:00:00:00:00:02 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && \
             ip.ttl == 64 && icmp4.type == 8"
                .to_owned(),
            vec!["drop/logical-flow-drop"],
            "ls_in_apply_port_sec",
        ),
        ("to an unknown address", format!("eth.src == 02:00:00:00:00:01 && eth.dst == 02:00:00:00:00:77 && {ip}77"), vec!["drop/logical-flow-drop"], "ls_in_l2_unknown"),
        ("to a port bound nowhere", format!("{ETHER}4 && {ip}4"), vec!["drop/port-not-bound"], "ls_in_l2_lkup"),
    ]
}

fn short(fate: &Fate) -> String {
    let what = if fate.fate == "drop" { &fate.reason } else { &fate.outport };
    format!("{}/{}", fate.fate, what.as_deref().unwrap_or_default())
}

#[test]
fn trace_names_every_fate_and_the_loaded_programs_agree() -> Result<()> {
    Cloud::builder().hypervisors(2, Node::Oxbow).run(|cloud| {
        build(cloud)?;
        // The way to the other hypervisor is known afterwards.
        probe::ping(cloud.vif("vm1")?.guest(), "10.0.0.3")?;
        let host = cloud.hypervisor(0);
        let before: Drops = json(host, &["drops"])?;
        for (name, packet, fates, stage) in packets() {
            let trace: Trace = json(host, &["trace", "vm1", &packet])?;
            let mut found: Vec<String> = trace.fates.iter().map(short).collect();
            found.sort();
            ensure!(found == fates, "{name}: {found:?} instead of {fates:?}\n{trace}");
            ensure!(trace.programs.ran && trace.programs.agree, "{name}:\n{trace}");
            let (status, text) = host.oxbow(&["trace", "vm1", &packet])?;
            ensure!(status == Some(0) && text.contains("Programs: agree"), "{name}: {status:?}\n{text}");
            ensure!(text.contains(stage), "{name}: {stage} is not in\n{text}");
            if let Some(reason) = fates[0].strip_prefix("drop/") {
                ensure!(text.contains(&format!("dropped: {reason}")), "{name}:\n{text}");
            }
        }
        // Nothing was sent, learned or counted for it.
        let after: Drops = json(host, &["drops"])?;
        ensure!(before == after, "{before}\n{after}");
        // The same without describing what the port decides.
        let trace: Trace = json(
            host,
            &[
                "trace",
                "vm1",
                "eth.dst == 02:00:00:00:00:02 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && ip.proto == 1",
            ],
        )?;
        ensure!(short(&trace.fates[0]) == "deliver/vm2", "{trace}");
        let told = host.oxbow(&["trace", "vm1", "ip"])?;
        ensure!(told.0 == Some(2) && told.1.contains("Constraints are ambiguous"), "{told:?}");
        let told = host.oxbow(&["trace", "vm9", "ip4"])?;
        ensure!(told.0 == Some(2) && told.1.contains("vm1, vm2"), "{told:?}");
        for (port, packet, says) in [
            ("away", "ip4", "\"away\" is bound to no chassis"),
            ("vm1", "ip4.dst == 10.0.0.2 && nonsense == 1", "nonsense"),
            ("vm1", "ip4 && arp", "Constraints are contradictory"),
            ("vm1", "ip4.dst == 10.0.0.2 && reg0 == 1", "xxreg0"),
            ("vm1", "inport == \"vm2\" && ip4.dst == 10.0.0.2", "inport == \"vm2\""),
            ("vm1", "frame:0200000g", "'g', character 8"),
        ] {
            let told = host.oxbow(&["trace", port, packet])?;
            ensure!(told.0 == Some(2) && told.1.contains(says), "{port} {packet}: {told:?}");
        }
        // What the other hypervisor does with it, and what this one does with a packet of the other's: said by whom.
        let (_, text) = host.oxbow(&["trace", "vm1", &format!("{ETHER}3 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.3")])?;
        ensure!(text.contains("# hv1 -> hv2 by geneve") && text.contains("hv2: delivered to vm3 [reference alone]"), "{text}");
        let answer = "eth.src == 02:00:00:00:00:03 && eth.dst == 02:00:00:00:00:01 && ip4.src == 10.0.0.3 && ip4.dst == 10.0.0.1";
        let (status, text) = host.oxbow(&["trace", "vm3", answer])?;
        ensure!(status == Some(0) && text.contains("# from vm3 on sw0, at hv2"), "{status:?} {text}");
        ensure!(text.contains("not run: vm3 is on chassis hv2"), "{text}");
        ensure!(text.contains("hv1: delivered to vm1 (") && text.contains("[reference and programs]"), "{text}");
        // Without an address that port security allows it comes from nobody, there as here.
        let spoofed = answer.replace("eth.src == 02:00:00:00:00:03", "eth.src == 02:00:00:00:00:09");
        let trace: Trace = json(host, &["trace", "vm3", &spoofed])?;
        ensure!(trace.arrivals.is_empty() && trace.ends.len() == 1 && !trace.ends[0].verified, "{trace}");
        ensure!(trace.ends[0].at == "hv2" && short(&trace.ends[0].fate) == "drop/logical-flow-drop", "{trace}");
        Ok(())
    })
}

/// Listens while `act` sends packets, until an event is told that `wanted` accepts.
fn hear(
    host: &Hypervisor,
    arguments: &[&str],
    act: impl Fn() -> Result<()>,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Event> {
    let arguments: Vec<&str> =
        ["monitor", "--format", "json", "--seconds", "60", "-n", "1"].iter().chain(arguments).copied().collect();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = sender.send(host.oxbow(&arguments));
        });
        let text = wait_until(&format!("oxbow {arguments:?} says something"), PATIENCE, || {
            act()?;
            match receiver.try_recv() {
                Ok(said) => Ok(Look::Held(said?.1)),
                Err(_) => Ok(Look::NotYet("nothing".to_owned())),
            }
        })?;
        let event: Event = serde_json::from_str(text.trim()).with_context(|| format!("{arguments:?}: {text}"))?;
        ensure!(wanted(&event), "{arguments:?}: {text}");
        Ok(event)
    })
}

fn ping_once(to: &str) -> Command {
    let mut command = Command::new("ping");
    command.args(["-n", "-q", "-W", "0.2", "-c", "1", to]);
    command
}

/// Sends TCP to a port that the ACL forbids; nobody answers.
fn forbidden(cloud: &Cloud) -> Result<()> {
    let mut command = Command::new("timeout");
    command.args(["0.2", "bash", "-c", "exec 3<>/dev/tcp/10.0.0.2/23"]);
    cloud.vif("vm1")?.guest().output(command).map(|_| ())
}

#[test]
fn real_packets_are_heard_counted_and_found_in_the_cache() -> Result<()> {
    Cloud::builder().hypervisors(2, Node::Oxbow).run(|cloud| {
        build(cloud)?;
        let (vm1, host) = (cloud.vif("vm1")?.guest(), &cloud.hypervisors()[0]);
        let ping = |to: &'static str| move || probe::ping(vm1, to).map(|_| ());
        let event = hear(host, &["--verdicts", "--port", "vm1"], ping("10.0.0.2"), |event| event.event == "deliver")?;
        ensure!(event.datapath == "sw0" && event.microflow.contains("10.0.0."), "{event}");
        let of_vm3 = |event: &Event| event.inport == "vm3" || event.outport.as_deref() == Some("vm3");
        hear(host, &["--verdicts", "--port", "vm3"], ping("10.0.0.3"), of_vm3)?;
        // A device whose logical port nobody made.
        cloud.create_vif(0, VifSpec::new("ghost", "02:00:00:00:00:66", &["10.0.0.66/24"]))?;
        cloud.plug("ghost")?;
        let (vm1, host) = (cloud.vif("vm1")?.guest(), &cloud.hypervisors()[0]);
        let ghost = cloud.vif("ghost")?.guest();
        let speak = || ghost.output(ping_once("10.0.0.1")).map(|_| ());
        let event = hear(host, &["--reason", "not-programmed"], speak, |event| event.event == "drop")?;
        ensure!(event.reason.as_deref() == Some("not-programmed") && event.inport.is_empty(), "{event}");
        let (_, text) = host.oxbow(&["drops"])?;
        ensure!(text.contains("not-programmed (the device has no logical port in force"), "{text}");
        let event = hear(
            host,
            &["--drops", "--reason", "logical-flow-drop"],
            || forbidden(cloud),
            |event| event.event == "drop",
        )?;
        ensure!(event.flow.as_deref() == Some("ls_in_acl/2001"), "{event}");
        ensure!(event.microflow.contains("tcp.dst == 23"), "{event}");
        let drops: Drops = json(host, &["drops"])?;
        let acl =
            drops.flows.iter().find(|flow| flow.flow.stage_name == "ls_in_acl").with_context(|| format!("{drops}"))?;
        ensure!(acl.packets >= 1 && acl.flow.actions.contains("drop") && acl.datapaths == ["sw0"], "{drops}");
        let (_, text) = host.oxbow(&["drops"])?;
        ensure!(
            text.contains("logical-flow-drop") && text.contains("ls_in_acl") && text.contains("tcp.dst == 23"),
            "{text}"
        );
        // What the cache forwards is counted for the flows of its path.
        probe::ping_count(vm1, "10.0.0.2", 20)?;
        let flows: Flows = json(host, &["flows", "--datapath", "sw0"])?;
        let to_vm2 = |flow: &&oxbow_report::flows::CountedFlow| {
            flow.flow.actions.contains("outport = \"vm2\"") && flow.flow.stage_name == "ls_in_l2_lkup"
        };
        let flow = flows.flows.iter().find(to_vm2).with_context(|| format!("{flows}"))?;
        ensure!(flow.cached >= 15 && flow.packets == flow.walked + flow.cached, "{flows}");
        let (_, text) = host.oxbow(&["flows", "--port", "vm2", "--hit"])?;
        ensure!(text.contains("outport = \"vm2\"") && text.contains("cached"), "{text}");
        let verdicts: Verdicts = json(host, &["verdicts", "--port", "vm1"])?;
        let found = verdicts
            .verdicts
            .iter()
            .find(|verdict| verdict.key.microflow.contains("ip4.dst == 10.0.0.2 && icmp4.type == 8"));
        let verdict = found.with_context(|| format!("{verdicts}"))?;
        ensure!(verdict.valid && verdict.hits >= 15 && verdict.kind == "deliver", "{verdicts}");
        ensure!(verdict.path.iter().any(|flow| flow.starts_with("ls_in_l2_lkup/")), "{verdicts}");
        // A trace of the same packets shows the verdict that they follow.
        let trace: Trace = json(
            host,
            &[
                "trace",
                "vm1",
                &format!("{ETHER}2 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && ip.ttl == 64 && icmp4.type == 8"),
            ],
        )?;
        ensure!(trace.cached.as_ref().is_some_and(|verdict| verdict.hits >= 15), "{trace}");
        Ok(())
    })
}

fn status_says_whether_a_hypervisor_is_ready_and_why_not(node: Node) -> Result<()> {
    Cloud::builder().hypervisors(1, node).run(|cloud| {
        cloud.nbctl("ls-add sw0 -- lsp-add sw0 vm1 -- lsp-set-addresses vm1 '02:00:00:00:00:01 10.0.0.1'")?;
        cloud.add_vif(0, VifSpec::new("vm1", "02:00:00:00:00:01", &["10.0.0.1/24"]))?;
        cloud.sync()?;
        let host = &cloud.hypervisors()[0];
        let (code, text) = host.oxbow(&["status", "--maps"])?;
        ensure!(
            code == Some(0)
                && text.contains("Ready:          yes")
                && text.contains("OX_RULES") == (node == Node::Oxbow),
            "{code:?} {text}"
        );
        ensure!(text.contains("Ports:          1 of 1 installed"), "{text}");
        let status: Status = json(host, &["status"])?;
        ensure!(status.ready && status.chassis.as_deref() == Some("hv1") && status.nb_cfg.lag() == 0, "{status}");
        let backend = if node == Node::OpenFlow { "openflow" } else { "ebpf" };
        let has_maps = status.maps.iter().any(|map| map.entries > 0);
        ensure!(status.dataplane.backend == backend && has_maps == (node == Node::Oxbow), "{status}");
        let ports: Ports = json(host, &["ports"])?;
        let port = &ports.ports[0];
        ensure!(port.port == "vm1" && port.is_installed() && port.mode.as_deref() == Some(backend), "{ports}");
        ensure!(port.datapath.as_deref() == Some("sw0"), "{ports}");
        // An interface of a port that nobody made.
        host.vsctl("add-port br-int nobody -- set Interface nobody type=internal external_ids:iface-id=ghost")?;
        wait_until("ports names the one that nobody made", PATIENCE, || {
            let (code, text) = host.oxbow(&["ports"])?;
            let told = code == Some(1) && text.contains("ghost") && text.contains("no such logical port");
            Ok(Look::when(told, || format!("{code:?} {text}")))
        })?;
        cloud.stop_southbound()?;
        let host = &cloud.hypervisors()[0];
        wait_until("status says that it is not ready", PATIENCE, || {
            let (code, text) = host.oxbow(&["status"])?;
            let told =
                code == Some(1) && text.contains("OVN_Southbound is not connected") && text.contains("NOT CONNECTED");
            Ok(Look::when(told, || format!("{code:?} {text}")))
        })?;
        cloud.start_southbound()?;
        let host = &cloud.hypervisors()[0];
        wait_until("status says that it is ready", PATIENCE, || {
            let (code, text) = host.oxbow(&["status"])?;
            Ok(Look::when(code == Some(0), || format!("{code:?} {text}")))
        })?;
        Ok(())
    })
}
