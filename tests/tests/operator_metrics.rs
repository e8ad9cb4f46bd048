//! Health and metrics over HTTP, of both daemons, and the pre-flight of a host.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, Northd, VifSpec, artifacts, probe, wait_until};
use oxbow_tests::bridge;
use serde_json::Value;

oxbow_tests::on_every_backend! {
    the_node_says_what_it_does_and_whether_it_is_ready,
}

/// Status line and body.
fn get(socket: &Path, path: &str) -> Result<(String, String)> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: oxbow\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
}

/// The value of a sample.
fn value(metrics: &str, sample: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.with_context(|| format!("{sample} is not in\n{metrics}"))?.parse().with_context(|| sample.to_owned())
}

/// What others' dashboards and ours look for: name, kind, the label that tells samples apart. Those of a node with the eBPF backend and all settings.
const FAMILIES: [(&str, &str, &str); 38] = [
    ("ovn_controller_build_info", "gauge", "version"),
    ("ovn_controller_southbound_database_connected", "gauge", ""),
    ("ovn_controller_integration_bridge_geneve_ports", "gauge", ""),
    ("ovn_controller_integration_bridge_patch_ports", "gauge", ""),
    ("ovn_controller_remote_probe_interval_seconds", "gauge", ""),
    ("ovn_controller_monitor_all", "gauge", ""),
    ("ovn_controller_encap_ip", "gauge", "ipaddress"),
    ("ovn_controller_encap_type", "gauge", "type"),
    ("ovn_controller_sb_connection_method", "gauge", "connection_method"),
    ("ovn_controller_bridge_mappings", "gauge", "mapping"),
    ("ovn_controller_lflow_run", "counter", ""),
    ("ovn_controller_txn_success", "counter", ""),
    ("ovn_controller_txn_error", "counter", ""),
    ("ovn_controller_txn_try_again", "counter", ""),
    ("ovn_controller_flow_generation_total_samples", "counter", ""),
    ("ovn_controller_flow_installation_maximum", "gauge", ""),
    ("ovn_controller_flow_installation_95th_percentile", "gauge", ""),
    ("oxbow_build_info", "gauge", "version"),
    ("oxbow_ready", "gauge", ""),
    ("oxbow_ports", "gauge", "state"),
    ("oxbow_install_latency_seconds", "histogram", ""),
    ("oxbow_peers", "gauge", "state"),
    ("oxbow_problems", "gauge", "topic"),
    ("oxbow_policy_computations_total", "counter", "kind"),
    ("oxbow_policy_version", "gauge", ""),
    ("oxbow_nb_cfg_wanted", "gauge", ""),
    ("oxbow_nb_cfg_reported", "gauge", ""),
    ("oxbow_logical_flows", "gauge", ""),
    ("oxbow_local_datapaths", "gauge", ""),
    ("oxbow_drops_total", "counter", "reason"),
    ("oxbow_drop_bytes_total", "counter", "reason"),
    ("oxbow_packets_total", "counter", "kind"),
    ("oxbow_bytes_total", "counter", "kind"),
    ("oxbow_punts_total", "counter", "kind"),
    ("oxbow_monitor_lost_total", "counter", ""),
    ("oxbow_map_entries", "gauge", "map"),
    ("oxbow_map_capacity", "gauge", "map"),
    ("oxbow_program_run_ns_total", "counter", "program"),
];

/// Those that only a node with the OpenFlow backend has.
const OF_BRIDGES: [(&str, &str, &str); 7] = [
    ("ovn_controller_integration_bridge_openflow_total", "gauge", ""),
    ("oxbow_openflow_groups", "gauge", ""),
    ("oxbow_openflow_connected", "gauge", ""),
    ("oxbow_openflow_bundles_total", "counter", "result"),
    ("oxbow_openflow_changes_total", "counter", "kind"),
    ("oxbow_openflow_last_bundle_changes", "gauge", ""),
    ("oxbow_openflow_last_bundle_seconds", "gauge", ""),
];

/// Each family is there, of its kind, with a sentence that says what it is, and with samples told apart by its label.
fn complete(metrics: &str, families: &[(&str, &str, &str)]) -> Result<()> {
    for &(name, kind, label) in families {
        ensure!(metrics.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind} in\n{metrics}");
        let help = metrics.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        let help = help.with_context(|| format!("{name} has no help"))?;
        ensure!(help.len() > 10 && help.ends_with('.'), "{name}: {help:?} is no sentence");
        let suffix = if kind == "histogram" { "_count" } else { "" };
        let label = if label.is_empty() { String::new() } else { format!("{{{label}=\"") };
        let sample = format!("{name}{suffix}{label}");
        let has_sample = metrics.lines().any(|line| line.starts_with(&sample));
        // Problems and drops there need not be any.
        ensure!(has_sample || name == "oxbow_problems", "{sample}… is not in\n{metrics}");
    }
    let told = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .map(|line| line.split(' ').next().unwrap_or_default());
    for name in told {
        let is_ours = name.starts_with("oxbow_") || name.starts_with("ovn_controller_");
        ensure!(is_ours, "{name} has neither prefix");
    }
    Ok(())
}

/// What a node with the OpenFlow backend says of its bridge is what the bridge holds.
fn of_the_bridge(host: &Hypervisor, socket: &Path) -> Result<()> {
    // Addresses that the bridge has learned have a timeout, and no flow of the policy has.
    let held = || -> Result<(usize, usize)> {
        let flows = bridge::flows(host)?.iter().filter(|flow| !flow.contains("idle_timeout=")).count();
        Ok((flows, bridge::groups(host)?.len()))
    };
    let metrics = wait_until("the bridge holds as much as it is said to", PATIENCE, || {
        let ((flows, groups), (_, metrics)) = (held()?, get(socket, "/metrics")?);
        let said = (
            value(&metrics, "ovn_controller_integration_bridge_openflow_total")?,
            value(&metrics, "oxbow_openflow_groups")?,
        );
        if said == (flows as f64, groups as f64) && flows > 0 && groups > 0 {
            return Ok(Look::Held(metrics));
        }
        Ok(Look::NotYet(format!("{flows} flows and {groups} groups, said: {said:?}")))
    })?;
    complete(&metrics, &OF_BRIDGES)?;
    let written = value(&metrics, "oxbow_openflow_changes_total{kind=\"flow_written\"}")?;
    let deleted = value(&metrics, "oxbow_openflow_changes_total{kind=\"flow_deleted\"}")?;
    let flows = value(&metrics, "ovn_controller_integration_bridge_openflow_total")?;
    ensure!(written >= flows && deleted <= written, "{written} written, {deleted} deleted, {flows} held\n{metrics}");
    ensure!(value(&metrics, "oxbow_openflow_connected")? == 1.0);
    for (result, least) in [("committed", 1.0), ("refused", 0.0), ("failed", 0.0)] {
        let count = value(&metrics, &format!("oxbow_openflow_bundles_total{{result=\"{result}\"}}"))?;
        ensure!(count >= least && (result != "refused" || count == 0.0), "{count} {result} in\n{metrics}");
    }
    ensure!(value(&metrics, "oxbow_openflow_last_bundle_changes")? >= 1.0, "no changes in\n{metrics}");
    ensure!(value(&metrics, "oxbow_openflow_last_bundle_seconds")? > 0.0, "no time in\n{metrics}");
    Ok(())
}

/// Every sample belongs to a family that was declared before it, once.
fn well_formed(metrics: &str) -> Result<()> {
    let mut families: Vec<&str> = Vec::new();
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap_or_default();
            ensure!(!families.contains(&name), "{name} is declared twice in\n{metrics}");
            families.push(name);
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let last = families.last().copied().unwrap_or_default();
            ensure!(name.starts_with(last), "{line} stands under {last}");
            let number = line.rsplit(' ').next().unwrap_or_default();
            ensure!(number.parse::<f64>().is_ok(), "{line}");
        }
    }
    Ok(())
}

fn the_node_says_what_it_does_and_whether_it_is_ready(node: Node) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("metrics.sock");
    let argument = format!("--metrics=unix:{}", socket.display());
    Cloud::builder().node_arguments(&[&argument]).hypervisors(1, node).run(|cloud| {
        cloud.nbctl("ls-add sw0")?;
        for host in 1..=2 {
            let (port, mac) = (format!("vm{host}"), format!("02:00:00:00:00:0{host}"));
            cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} '{mac} 10.0.0.{host}'"))?;
            cloud.add_vif(0, VifSpec::new(&port, &mac, &[&format!("10.0.0.{host}/24")]))?;
        }
        cloud.sync()?;
        probe::ping_count(cloud.vif("vm1")?.guest(), "10.0.0.2", 10)?;
        let settings = "ovn-remote-probe-interval=5000 external_ids:ovn-bridge-mappings=physnet1:br-ex";
        cloud.hypervisors()[0].vsctl(&format!("set Open_vSwitch . external_ids:{settings}"))?;
        // Something is dropped: it would go back where it came from.
        let mut ping = Command::new("ping");
        ping.args(["-n", "-q", "-W", "0.2", "-c", "1", "10.0.0.99"]);
        cloud.vif("vm1")?.guest().output(ping)?;
        wait_until("the settings are in force", PATIENCE, || {
            let (_, metrics) = get(&socket, "/metrics")?;
            // A bridge counts flows, not reasons.
            let counts_drops = node == Node::OpenFlow || metrics.contains("oxbow_drops_total{");
            let told = metrics.contains("{mapping=\"physnet1:br-ex\"} 1") && counts_drops;
            Ok(Look::when(told, || metrics))
        })?;
        ensure!(get(&socket, "/livez")? == ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
        ensure!(get(&socket, "/readyz")? == ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
        ensure!(get(&socket, "/")?.0.contains("404"));
        let (_, metrics) = get(&socket, "/metrics")?;
        well_formed(&metrics)?;
        if node == Node::Oxbow {
            complete(&metrics, &FAMILIES)?;
            ensure!(!metrics.contains("openflow"), "families of a bridge without one in\n{metrics}");
        } else {
            of_the_bridge(cloud.hypervisor(0), &socket)?;
        }
        for (sample, least) in [
            ("oxbow_ready", 1.0),
            ("ovn_controller_southbound_database_connected", 1.0),
            ("ovn_controller_lflow_run", 1.0),
            ("ovn_controller_encap_type{type=\"geneve\"}", 1.0),
            ("ovn_controller_sb_connection_method{connection_method=\"tcp\"}", 1.0),
            ("ovn_controller_flow_installation_total_samples", 1.0),
            ("oxbow_ports{state=\"installed\"}", 2.0),
            ("oxbow_install_latency_seconds_count", 2.0),
            ("oxbow_policy_computations_total{kind=\"incremental\"}", 1.0),
            ("ovn_controller_build_info{version=\"23.03.1\",ovs_lib_version=\"3.1.0\"}", 1.0),
            ("ovn_controller_remote_probe_interval_seconds", 5.0),
        ] {
            let found = value(&metrics, sample)?;
            ensure!(found >= least, "{sample} is {found}, not at least {least}");
        }
        let of_programs = [
            ("oxbow_packets_total{kind=\"vif_tx\"}", 20.0),
            ("oxbow_packets_total{kind=\"cache_hit\"}", 10.0),
            ("oxbow_map_entries{map=\"OX_PORTS\"}", 2.0),
            ("oxbow_map_capacity{map=\"OX_RULES\"}", 1000.0),
            ("oxbow_program_runs_total{program=\"oxbow_vif\"}", 0.0),
            ("oxbow_punts_total{kind=\"next_hop\"}", 0.0),
        ];
        for (sample, least) in of_programs {
            if node == Node::OpenFlow {
                // Nobody counts them: better no sample than zero.
                ensure!(value(&metrics, sample).is_err(), "{sample} without programs in\n{metrics}");
                continue;
            }
            let found = value(&metrics, sample)?;
            ensure!(found >= least, "{sample} is {found}, not at least {least}");
        }
        // The same on the control socket.
        let (_, text) = cloud.hypervisors()[0].oxbow(&["metrics"])?;
        well_formed(&text)?;
        cloud.stop_southbound()?;
        wait_until("/readyz says why not", PATIENCE, || {
            let (status, body) = get(&socket, "/readyz")?;
            let told = status.contains("503") && body.contains("OVN_Southbound is not connected");
            Ok(Look::when(told, || format!("{status} {body}")))
        })?;
        ensure!(get(&socket, "/livez")?.0.contains("200"), "a daemon without a database is alive");
        let (_, metrics) = get(&socket, "/metrics")?;
        ensure!(value(&metrics, "oxbow_ready")? == 0.0);
        ensure!(value(&metrics, "ovn_controller_southbound_database_connected")? == 0.0);
        Ok(())
    })
}

#[test]
fn northd_says_whether_it_is_active() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("metrics.sock");
    Cloud::builder().northd(Northd::Oxbow).run(|cloud| {
        cloud.nbctl("ls-add sw0 -- lsp-add sw0 vm1")?;
        // A second one waits for the lock: standing by is being ready.
        let (nb, sb) = (cloud.central().nb().remote(), cloud.southbound().remote());
        let mut command = Command::new(artifacts::binary("oxbow-northd")?);
        command.args([format!("--ovnnb-db={nb}"), format!("--ovnsb-db={sb}"), "--no-chdir".to_owned()]);
        command.arg(format!("--unixctl={}", dir.path().join("northd.ctl").display()));
        command.arg(format!("--metrics=unix:{}", socket.display()));
        let _northd = cloud.central_ns().spawn("second northd", command, &dir.path().join("northd.log"))?;
        wait_until("the second northd is ready", PATIENCE, || {
            let (status, body) = get(&socket, "/readyz")?;
            Ok(Look::when(status.contains("200"), || format!("{status} {body}")))
        })?;
        let (_, metrics) = get(&socket, "/metrics")?;
        well_formed(&metrics)?;
        ensure!(
            value(&metrics, "ovn_northd_status")? == 0.0 && value(&metrics, "ovn_northd_nb_connection_status")? == 1.0
        );
        cloud.central().take_northd();
        wait_until("it is active when the first one is gone", PATIENCE, || {
            let (_, metrics) = get(&socket, "/metrics")?;
            let active =
                value(&metrics, "ovn_northd_status")? == 1.0 && value(&metrics, "ovn_northd_northd_run")? >= 1.0;
            Ok(Look::when(active, || metrics))
        })?;
        cloud.stop_northbound()?;
        wait_until("/readyz says why not", PATIENCE, || {
            let (status, body) = get(&socket, "/readyz")?;
            let told = status.contains("503") && body.contains("Northbound");
            Ok(Look::when(told, || format!("{status} {body}")))
        })?;
        Ok(())
    })
}

#[test]
fn a_host_is_checked_without_a_daemon() -> Result<()> {
    Cloud::builder().hypervisors(1, Node::Oxbow).run(|cloud| {
        let host = cloud.hypervisor(0);
        let (_, text) = host.oxbow(&["check", "--format", "json"])?;
        let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let line = |report: &Value, check: &str| -> Result<Value> {
            let lines = report["checks"].as_array().context("no checks")?;
            lines.iter().find(|line| line["check"] == check).cloned().with_context(|| format!("no {check} in {report}"))
        };
        for check in ["kernel", "capabilities", "memlock", "eBPF object", "ovs database", "system-id", "ovn-remote", "encap type", "encap ip", "bridge"] {
            ensure!(line(&report, check)?["result"] == "ok", "{check}: {text}");
        }
        // The hypervisor's bpf file system is its mount namespace's own: pins would die with it.
        ensure!(line(&report, "bpffs")?["result"] == "fail" && report["passed"] == false, "{text}");
        host.exit_controller(false)?;
        host.vsctl("--no-wait remove Open_vSwitch . external_ids ovn-encap-ip -- set Open_vSwitch . external_ids:ovn-remote=tcp:127.0.0.1:1")?;
        let (code, text) = host.oxbow(&["check"])?;
        ensure!(code == Some(1) && text.contains("external_ids:ovn-encap-ip=ADDRESS"), "{code:?} {text}");
        ensure!(text.contains("ovn-remote") && text.contains("does a firewall let it through"), "{text}");
        let (code, text) = host.oxbow(&["status"])?;
        ensure!(code == Some(2) && text.contains("is the daemon running"), "{code:?} {text}");
        Ok(())
    })
}
