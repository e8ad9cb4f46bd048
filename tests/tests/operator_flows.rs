//! Logical flows that are wrong, put into the Southbound database by hand: each is reported by name with what was done about it, and
//! what is not concerned goes on.

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, VifSpec, probe, wait_until};
use oxbow_tests::layer2;

oxbow_tests::on_every_backend! {
    wrong_flows_beside_our_northd_paused,
}

/// A wrong flow, and what is to be said and done about it.
struct Wrong {
    pipeline: &'static str,
    stage: &'static str,
    matches: String,
    actions: &'static str,
    /// Parts of the report beside uuid, stage, match and actions.
    says: Vec<&'static str>,
    /// Whether lp12 still answers lp11 on the switch that has the flow.
    passes: bool,
}

fn wrongs(node: Node) -> Vec<Wrong> {
    let ports: Vec<String> = (1..400).map(|n| (n * 3).to_string()).collect();
    // What a backend has no form for: programs no product of that size, OpenFlow (which has conjunctions) no "any other Ethernet type".
    let (unheld, why) = match node {
        Node::OpenFlow => ("!ip.is_frag".to_owned(), ["without its protocol", "OpenFlow cannot match"]),
        _ => (format!("tcp.src == {{{0}}} && tcp.dst == {{{0}}}", ports.join(", ")), ["keys"; 2]),
    };
    vec![
        Wrong {
            pipeline: "ingress",
            stage: "ls_in_check_port_sec",
            matches: "ip4.sorc == 10.0.0.11".into(),
            actions: "next;",
            says: vec!["ip4.sorc", "flow left out"],
            passes: true,
        },
        Wrong {
            pipeline: "ingress",
            stage: "ls_in_check_port_sec",
            matches: "ip4.src == 10.0.0.256".into(),
            actions: "drop;",
            says: vec!["10.0.0.256", "table closed"],
            passes: false,
        },
        Wrong {
            pipeline: "egress",
            stage: "ls_out_check_port_sec",
            matches: "ip4.src == 10.0.0.11".into(),
            actions: "frobnicate;",
            says: vec!["frobnicate", "matching packets dropped"],
            passes: false,
        },
        Wrong {
            pipeline: "egress",
            stage: "ls_out_check_port_sec",
            matches: "ip4.src == 10.0.0.99".into(),
            actions: "ip.ttl = \"x\"; next;",
            says: vec!["matching packets dropped"],
            passes: true,
        },
        Wrong {
            pipeline: "ingress",
            stage: "ls_in_check_port_sec",
            matches: unheld.clone(),
            actions: "next;",
            says: vec![why[0], "flow left out"],
            passes: true,
        },
        Wrong {
            pipeline: "ingress",
            stage: "ls_in_check_port_sec",
            matches: unheld,
            actions: "drop;",
            says: vec![why[1], "table closed"],
            passes: false,
        },
    ]
}

/// The table number of a stage on a switch, as northd wrote it.
fn table(cloud: &Cloud, stage: &str) -> Result<String> {
    let found = cloud.sbctl(&format!("--bare --columns=table_id find Logical_Flow external_ids:stage-name={stage}"))?;
    found.lines().find(|line| !line.is_empty()).map(str::to_owned).with_context(|| format!("no flow of {stage}"))
}

fn wrong_flows(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    // Another switch, which none of it concerns.
    cloud.nbctl("ls-add sw1")?;
    for (port, host, number) in [("lq1", 0, 1), ("lq2", 1, 2)] {
        let (mac, ip) = (format!("00:00:00:00:09:0{number}"), format!("10.9.0.{number}"));
        cloud.nbctl(&format!("lsp-add sw1 {port} -- lsp-set-addresses {port} '{mac} {ip}'"))?;
        cloud.add_vif(host, VifSpec::new(port, &mac, &[&format!("{ip}/24")]))?;
    }
    cloud.sync()?;
    cloud.central().northd_appctl("pause")?;
    let find = "--bare --columns=_uuid find Datapath_Binding external_ids:name=sw0";
    let datapath = cloud.sbctl(find)?.trim().to_owned();
    for wrong in wrongs(cloud.hypervisors()[0].node()) {
        let Wrong { pipeline, stage, matches, actions, says, passes } = wrong;
        let number = table(cloud, stage)?;
        let quoted = |text: &str| format!("'\"{}\"'", text.replace('"', "\\\""));
        let uuid = cloud.sbctl(&format!(
            "create Logical_Flow logical_datapath={datapath} pipeline={pipeline} table_id={number} priority=3000 \
             match={} actions={} external_ids:stage-name={stage}",
            quoted(&matches),
            quoted(actions)
        ))?;
        let uuid = uuid.trim();
        let excerpt = &matches[..matches.len().min(60)];
        let host = &cloud.hypervisors()[0];
        let line = wait_until(&format!("the report of {excerpt}"), PATIENCE, || {
            let problems = host.appctl("debug/problems")?;
            let line = problems.lines().find(|line| line.contains(uuid)).map(str::to_owned);
            Ok(line.map_or(Look::NotYet(problems), Look::Held))
        })?;
        for part in [stage, &matches, actions, pipeline].into_iter().chain(says.iter().copied()) {
            ensure!(line.contains(part), "{part:?} is missing in {line}");
        }
        let log = host.controller_log();
        ensure!(log.contains(&line["logical flows: ".len()..]), "{line}\nis not in the log:\n{log}");
        let (guest, other) = (cloud.vif("lp11")?.guest(), cloud.vif("lq1")?.guest());
        if passes {
            probe::ping(guest, "10.0.0.12")?;
        } else {
            wait_until(&format!("{excerpt} closes"), PATIENCE, || {
                let answered = probe::ping_count(guest, "10.0.0.12", 2)?;
                Ok(Look::when(answered == 0, || format!("{answered} answered")))
            })?;
        }
        probe::ping(other, "10.9.0.2")?;
        cloud.sbctl(&format!("destroy Logical_Flow {uuid}"))?;
        wait_until(&format!("the end of {excerpt}"), PATIENCE, || {
            let problems = cloud.hypervisors()[0].appctl("debug/problems")?;
            Ok(Look::when(!problems.contains(uuid), || problems))
        })?;
        probe::ping(cloud.vif("lp11")?.guest(), "10.0.0.12")?;
        probe::ping(cloud.vif("lp11")?.guest(), "10.0.0.21")?;
    }
    cloud.central().northd_appctl("resume")?;
    cloud.sync()?;
    layer2::everybody_reaches_everybody(cloud)
}

#[test]
fn wrong_flows_beside_a_paused_stock_northd() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Oxbow).run(wrong_flows)
}

fn wrong_flows_beside_our_northd_paused(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(wrong_flows)
}
