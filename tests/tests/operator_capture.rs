//! `oxbow capture`: what it writes is what tcpdump reads, with what became of each packet; and `--match`, which it shares with `oxbow monitor`.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use anyhow::{Context as _, Result, ensure};
use oxbow_report::events::Event;
use oxbow_testkit::artifacts::require_program;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, VifSpec, probe, wait_until};

/// Two guests on hv1, one on hv2; an ACL forbids TCP to port 23.
fn build(cloud: &mut Cloud) -> Result<()> {
    cloud.nbctl("ls-add sw0 -- acl-add sw0 from-lport 1001 'tcp.dst == 23' drop")?;
    for (port, hypervisor, host) in [("vm1", 0, 1), ("vm2", 0, 2), ("vm3", 1, 3)] {
        let mac = format!("02:00:00:00:00:0{host}");
        cloud.nbctl(&format!("lsp-add sw0 {port} -- lsp-set-addresses {port} '{mac} 10.0.0.{host}'"))?;
        cloud.create_vif(hypervisor, VifSpec::new(port, &mac, &[&format!("10.0.0.{host}/24")]))?;
        // Guests that say nothing by themselves.
        cloud.vif(port)?.guest().run("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"])?;
        cloud.plug(port)?;
        cloud.wait_up(port)?;
    }
    cloud.sync()?;
    // Neighbours are known afterwards.
    for to in ["10.0.0.2", "10.0.0.3"] {
        probe::ping(cloud.vif("vm1")?.guest(), to)?;
    }
    Ok(())
}

/// Runs `oxbow` while `act` sends packets, and returns its exit status and what it said.
fn during(host: &Hypervisor, arguments: &[&str], act: impl Fn() -> Result<()>) -> Result<(Option<i32>, String)> {
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = sender.send(host.oxbow(arguments));
        });
        wait_until(&format!("oxbow {arguments:?} has enough"), PATIENCE, || {
            act()?;
            match receiver.try_recv() {
                Ok(said) => Ok(Look::Held(said?)),
                Err(_) => Ok(Look::NotYet("it waits".to_owned())),
            }
        })
    })
}

/// The packets of a file as tcpdump prints them, one a line.
fn tcpdump(file: &Path) -> Result<Vec<String>> {
    let output = Command::new(require_program("tcpdump")?).args(["-tner"]).arg(file).output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaints.contains("EN10MB"), "tcpdump says {complaints}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn tcpdump_reads_what_was_captured() -> Result<()> {
    Cloud::builder().hypervisors(2, Node::Oxbow).run(|cloud| {
        build(cloud)?;
        let dir = tempfile::tempdir()?;
        let (vm1, host) = (cloud.vif("vm1")?.guest(), &cloud.hypervisors()[0]);
        let ping = |to: &'static str| move || probe::ping(vm1, to).map(|_| ());
        // Of a port: requests and answers, as they leave.
        let file = dir.path().join("vm1.pcapng");
        let name = file.display().to_string();
        let (status, text) = during(
            host,
            &["capture", "-w", &name, "--port", "vm1", "--match", "icmp4", "-n", "6", "--seconds", "30"],
            ping("10.0.0.3"),
        )?;
        ensure!(status == Some(0) && text.contains("6 packets, 0 lost"), "{status:?} {text}");
        let lines = tcpdump(&file)?;
        ensure!(lines.len() == 6, "{lines:#?}");
        let request = "02:00:00:00:00:01 > 02:00:00:00:00:03, ethertype IPv4 (0x0800), length 98: 10.0.0.1 > 10.0.0.3: ICMP echo request";
        let reply = "02:00:00:00:00:03 > 02:00:00:00:00:01, ethertype IPv4 (0x0800), length 98: 10.0.0.3 > 10.0.0.1: ICMP echo reply";
        for line in &lines {
            ensure!(line.contains(request) || line.contains(reply), "{lines:#?}");
        }
        ensure!([request, reply].iter().all(|text| lines.iter().any(|line| line.contains(text))), "{lines:#?}");
        let bytes = std::fs::read(&file)?;
        for text in ["oxbow ", "logical port of sw0", "sw0 vm1 -> vm3 chassis hv2", "sw0 vm3 (tunnel) -> vm1 dev"] {
            ensure!(contains(&bytes, text), "{text:?} is not in {}", String::from_utf8_lossy(&bytes));
        }
        // Into a pipe, only what is dropped for a reason; the frame is whole up to 128 bytes, the comment names flow and reason.
        let forbidden = || {
            let mut command = Command::new("timeout");
            command.args(["0.2", "bash", "-c", "exec 3<>/dev/tcp/10.0.0.2/23"]);
            vm1.output(command).map(|_| ())
        };
        let file = dir.path().join("drops.pcapng");
        let script = format!("exec \"$0\" \"$@\" > {}", file.display());
        let oxbow = oxbow_testkit::artifacts::binary("oxbow")?;
        let socket = host.control("node");
        let mut command = Command::new("bash");
        command.args(["-c", &script]).arg(oxbow).arg("--target").arg(socket);
        command.args(["capture", "-w", "-", "--reason", "logical-flow-drop", "-n", "2", "--format", "json"]);
        let mut running = host.ns().spawn("oxbow-capture", command, &dir.path().join("said"))?;
        wait_until("two dropped packets are captured", PATIENCE, || {
            forbidden()?;
            Ok(Look::when(running.ended()?.is_some(), || running.log_tail(2000)))
        })?;
        let said = running.log_tail(2000);
        ensure!(said.contains("{\"file\":\"-\",\"packets\":2,\"lost\":0}"), "{said}");
        let lines = tcpdump(&file)?;
        ensure!(lines.len() == 2 && lines.iter().all(|line| line.contains("> 10.0.0.2.23: Flags [S]")), "{lines:#?}");
        let bytes = std::fs::read(&file)?;
        ensure!(contains(&bytes, "sw0 vm1 reason logical-flow-drop flow ls_in_acl/2001"), "{}", String::from_utf8_lossy(&bytes));
        // Nothing came: the file is a capture all the same.
        let file = dir.path().join("nothing.pcapng");
        let name = file.display().to_string();
        let (status, text) = host.oxbow(&["capture", "-w", &name, "--match", "sctp", "--seconds", "0.3"])?;
        ensure!(status == Some(0) && text.contains("0 packets") && tcpdump(&file)?.is_empty(), "{status:?} {text}");
        Ok(())
    })
}

#[test]
fn only_packets_that_an_expression_holds_for_are_shown() -> Result<()> {
    Cloud::builder().hypervisors(2, Node::Oxbow).run(|cloud| {
        build(cloud)?;
        let (vm1, host) = (cloud.vif("vm1")?.guest(), &cloud.hypervisors()[0]);
        let both = || probe::ping(vm1, "10.0.0.2").and_then(|_| probe::ping(vm1, "10.0.0.3")).map(|_| ());
        let wanted = "inport == \"vm1\" && ip4.dst == 10.0.0.3 && icmp4.type == 8";
        let (status, text) = during(host, &["monitor", "--match", wanted, "-n", "2", "--format", "json"], both)?;
        ensure!(status == Some(0), "{status:?} {text}");
        for line in text.lines() {
            let event: Event = serde_json::from_str(line).with_context(|| text.clone())?;
            ensure!(event.inport == "vm1" && event.microflow.contains("ip4.dst == 10.0.0.3"), "{text}");
            ensure!(event.frame.is_none(), "bytes come only when they are asked for: {text}");
        }
        let wrong: [(&[&str], &str); 4] = [
            (&["monitor", "--match", "ip4.dst = 10.0.0.3"], "ip4.dst = 10.0.0.3"),
            (&["monitor", "--port", "vm9"], "ports here: vm1, vm2"),
            (&["monitor", "--reason", "bad-luck"], "reasons: logical-flow-drop"),
            (&["capture", "-w", "/nowhere/x.pcapng"], "cannot write /nowhere/x.pcapng"),
        ];
        for (arguments, says) in wrong {
            let told = host.oxbow(arguments)?;
            ensure!(told.0 == Some(2) && told.1.contains(says), "{arguments:?}: {told:?}");
        }
        Ok(())
    })
}
