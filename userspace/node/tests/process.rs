//! The process as other software sees it: names, files, commands, its end.

mod host;

use anyhow::{Context as _, Result, ensure};
use host::Host;
use nix::sys::signal::Signal;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Northd, wait_until};
use std::process::Command;

#[test]
fn started_as_ovn_controller_it_is_found_under_that_name() -> Result<()> {
    let mut host = Host::new(Northd::None)?;
    let link = host.path("ovn-controller");
    std::os::unix::fs::symlink(&host.program, &link)?;
    host.program = link;
    let mut command = host.command();
    command.arg("--pidfile").arg("--log-file");
    host.node = Some(host.ns.spawn("ovn-controller", command, &host.path("node.log"))?);
    let pid = host.node.as_ref().map_or(0, |node| node.pid());
    let socket = host.path(&format!("ovn-controller.{pid}.ctl"));
    let version = wait_until("version", PATIENCE, || host::appctl(&socket, "version").map(Look::Held))?;
    let lines: Vec<&str> = version.lines().collect();
    ensure!(lines[0] == "ovn-controller 23.03.1" && lines[1] == "Open vSwitch Library 3.1.0", "{version}");
    ensure!(std::fs::read_to_string(host.path("ovn-controller.pid"))? == format!("{pid}\n"));
    ensure!(std::fs::read_to_string(format!("/proc/{pid}/comm"))? == "ovn-controller\n");
    // `-t ovn-controller` finds it through the locked pidfile.
    let output = Command::new("ovn-appctl")
        .env("OVN_RUNDIR", host.dir.path())
        .args(["-t", "ovn-controller", "connection-status"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && (text == "connected\n" || text == "not connected\n"), "{output:?}");
    ensure!(host.path("ovn-controller.log").exists());
    // A second one on this host is refused by name.
    let mut second = host.command();
    second.arg("--pidfile").arg("--unixctl=none");
    let output = host.ns.output(second)?;
    ensure!(!output.status.success());
    let own = Command::new(env!("CARGO_BIN_EXE_oxbow-node"))
        .env("OVN_RUNDIR", host.dir.path())
        .arg("--unixctl=none")
        .output()?;
    let text = String::from_utf8_lossy(&own.stderr);
    ensure!(!own.status.success() && text.contains("ovn-controller is already running"), "{text}");
    host.signal(Signal::SIGTERM)?;
    ensure!(!host.path("ovn-controller.pid").exists() && !socket.exists());
    Ok(())
}

#[test]
fn the_command_line_of_ovn_controller_is_accepted() -> Result<()> {
    let mut host = Host::new(Northd::None)?;
    host.arguments.extend(
        [
            "-n",
            "other",
            "--no-self-confinement",
            "--enable-dummy-vif-plug",
            "--overwrite-pidfile",
            "-vconsole:info",
            "--syslog-method=null",
        ]
        .map(str::to_owned),
    );
    host.start()?;
    host.until_equal("-n names the chassis", "other", |host| host.sb("--bare --columns=name list Chassis"))?;
    let wrong = Command::new(&host.program).arg("--no-such-option").output()?;
    ensure!(wrong.status.code() == Some(1));
    let text = String::from_utf8_lossy(&wrong.stderr);
    ensure!(text.contains("unrecognized option '--no-such-option'"), "{text}");
    Ok(())
}

#[test]
fn the_directories_and_the_override_file_come_from_the_environment() -> Result<()> {
    let mut host = Host::new(Northd::None)?;
    std::fs::write(host.path("system-id-override"), "from-file\n")?;
    // The default of the positional argument is db.sock in OVS_RUNDIR.
    let mut command = Command::new(&host.program);
    for kind in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
        command.env(format!("OVN_{kind}"), host.dir.path()).env(format!("OVS_{kind}"), host.dir.path());
    }
    command.args(["--no-dataplane", "--no-chdir", "--unixctl=node.ctl"]);
    host.node = Some(host.ns.spawn("node", command, &host.path("node.log"))?);
    host.until_equal("the file names the chassis", "from-file", |host| host.sb("--bare --columns=name list Chassis"))
}

#[test]
fn exit_removes_what_is_ours_and_restart_keeps_it() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0"])?;
        host.tap("tap0")?;
        host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        host.until_up("lp0")?;
        host.until_equal("installed", "true", |host| host.interface_id("tap0", "ovn-installed"))?;
        let stamp = host.interface_id("tap0", "ovn-installed-ts")?;
        host.exit("exit --restart")?;
        ensure!(host.sb("--bare --columns=name list Chassis")?.trim() == "hv1");
        ensure!(host.binding("lp0", "up")? == "true" && host.interface_id("tap0", "ovn-installed-ts")? == stamp);
        ensure!(host.ns.ip("link show br-int").is_ok());
        host.start()?;
        host.until("connected again", |host| {
            let status = host.appctl("connection-status")?;
            Ok(Look::when(status == "connected\n", || status))
        })?;
        host.exit("exit")?;
        ensure!(host.sb("--bare --columns=name list Chassis")?.trim().is_empty());
        ensure!(host.sb("--bare --columns=name list Chassis_Private")?.trim().is_empty());
        ensure!(host.sb("--bare --columns=ip list Encap")?.trim().is_empty());
        ensure!(host.binding("lp0", "chassis")?.is_empty() && host.binding("lp0", "up")? == "false");
        let keys = host.ovs.vsctl_no_wait("get Bridge br-int external_ids")?;
        ensure!(keys.trim() == "{}", "{keys}");
        ensure!(host.interface_id("tap0", "ovn-installed")?.is_empty());
        ensure!(host.ns.ip("link show br-int").is_err(), "the bridge's device is ours");
        ensure!(host.ns.ip("link show tap0").is_ok(), "the tap is not");
        Ok(())
    })
}

#[test]
fn told_to_exit_before_it_has_read_anything_it_takes_everything_back() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0"])?;
        host.tap("tap0")?;
        host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        host.until_up("lp0")?;
        for round in 0..3 {
            host.exit("exit --restart")?;
            ensure!(host.binding("lp0", "up")? == "true", "round {round}");
            // The control socket answers before any database has.
            host.start()?;
            host.exit("exit")?;
            let log = std::fs::read_to_string(host.path("node.log"))?;
            ensure!(!log.contains("not all rows of this chassis are known"), "round {round}: {log}");
            let (chassis, up) = (host.binding("lp0", "chassis")?, host.binding("lp0", "up")?);
            ensure!(chassis.is_empty() && up == "false", "round {round}: chassis {chassis:?}, up {up:?}");
            ensure!(host.sb("--bare --columns=name list Chassis")?.trim().is_empty(), "round {round}");
            host.start()?;
            host.until_up("lp0")?;
        }
        Ok(())
    })
}

#[test]
fn a_kill_changes_nothing_and_the_next_one_goes_on() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0", "lp1"])?;
        // Plugged in an order that is not that of names: their zones follow from what is noted, not from who comes first.
        for name in ["1", "0"] {
            host.tap(&format!("tap{name}"))?;
            host.vsctl(&format!(
                "add-port br-int tap{name} -- set Interface tap{name} external_ids:iface-id=lp{name}"
            ))?;
            host.until_up(&format!("lp{name}"))?;
        }
        host.nb("--wait=hv sync")?;
        let zone = host.appctl("ct-zone-list")?;
        ensure!(zone.contains("lp1 1\n") && zone.contains("lp0 2\n"), "{zone}");
        let chassis = host.sb("--bare --columns=_uuid list Chassis")?;
        let ofport = host.ovs.vsctl_no_wait("get Interface tap0 ofport")?;
        host.signal(Signal::SIGKILL)?;
        ensure!(host.binding("lp0", "up")? == "true");
        host.start()?;
        host.nb("--wait=hv sync")?;
        host.until_up("lp0")?;
        ensure!(host.appctl("ct-zone-list")? == zone, "{zone}, now {}", host.appctl("ct-zone-list")?);
        ensure!(host.sb("--bare --columns=_uuid list Chassis")? == chassis);
        ensure!(host.ovs.vsctl_no_wait("get Interface tap0 ofport")? == ofport);
        Ok(())
    })
}

#[test]
fn export_says_what_is_missing() -> Result<()> {
    let mut host = Host::new(Northd::Stock)?;
    let export = |host: &Host, arguments: &[&str]| -> Result<std::process::Output> {
        let mut command = Command::new(&host.program);
        command.arg("export").args(arguments);
        host.ns.output(command)
    };
    let complains = |output: &std::process::Output, words: &str| -> Result<()> {
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty() && text.contains(words), "{output:?}");
        Ok(())
    };
    let remote = host.ovs.remote();
    complains(&export(&host, &["unix:/nowhere/db.sock", "--timeout=1"])?, "unix:/nowhere/db.sock cannot be read")?;
    complains(&export(&host, &[&remote])?, "chassis hv1 is not registered in the Southbound database")?;
    complains(&export(&host, &[&remote, "-n", "other"])?, "chassis other is not registered")?;
    // Beside a node it prints what the chassis has been given, and leaves that to the node.
    host.start()?;
    host.switch("sw0", &["lp0"])?;
    host.tap("tap0")?;
    host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
    host.until_up("lp0")?;
    let output = export(&host, &[&remote])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && text.contains("in_port=1"), "{text}");
    ensure!(text.lines().all(|line| line.starts_with("flow add ") || line.starts_with("group add ")), "{text}");
    Ok(())
}

#[test]
fn what_was_computed_is_counted_under_stocks_nodes() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0"])?;
        host.tap("tap0")?;
        host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        host.until_up("lp0")?;
        let counted = |host: &Host, what: &str| -> Result<u64> {
            let text = host.appctl(&format!("inc-engine/show-stats {what}"))?;
            text.trim().parse().with_context(|| format!("{what}: {text:?}"))
        };
        ensure!(counted(host, "logical_flow_output recompute")? == 1, "{}", host.appctl("inc-engine/show-stats")?);
        ensure!(counted(host, "SB_port_binding compute")? > 0 && counted(host, "OVS_interface compute")? > 0);
        host.appctl("inc-engine/clear-stats")?;
        ensure!(counted(host, "logical_flow_output recompute")? == 0);
        host.nb("create Address_Set name=s addresses=10.0.0.1 -- acl-add sw0 to-lport 1001 'ip4.src == $s' drop")?;
        host.until("the difference is counted, and nothing else", |host| {
            let (all, some) = (counted(host, "flow_output recompute")?, counted(host, "flow_output compute")?);
            ensure!(all == 0, "{all} full computations");
            let sets = (counted(host, "addr_sets compute")?, counted(host, "SB_address_set compute")?);
            Ok(Look::when(some > 0 && sets.0 > 0 && sets.1 > 0, || format!("{some}, {sets:?}")))
        })?;
        host.appctl("recompute")?;
        host.until("a full computation is counted", |host| {
            let all = counted(host, "flow_output recompute")?;
            Ok(Look::when(all == 1, || all.to_string()))
        })?;
        let shown = host.appctl("inc-engine/show-stats lflow_output")?;
        ensure!(shown.is_empty(), "no node of that name: {shown}");
        let error = host.appctl("inc-engine/show-stats flow_output foo").expect_err("refused").to_string();
        ensure!(error.contains("Invalid stat type : foo"), "{error}");
        Ok(())
    })
}

#[test]
fn commands_without_a_meaning_here_say_so() -> Result<()> {
    Host::run(Northd::None, |host| {
        for command in ["inject-pkt x", "group-table-list", "debug/dump-mac-bindings"] {
            let error = host.appctl(command).expect_err("refused").to_string();
            ensure!(error.contains("is not supported by oxbow-node"), "{command}: {error}");
        }
        ensure!(host.appctl("debug/status")? == "running\n");
        host.appctl("debug/pause")?;
        ensure!(host.appctl("debug/status")? == "paused\n");
        host.appctl("debug/resume")?;
        let listed = host.appctl("list-commands")?;
        for command in [
            "exit",
            "recompute",
            "ct-zone-list",
            "inc-engine/show-stats",
            "debug/dump-local-bindings",
            "sb-cluster-state-reset",
        ] {
            ensure!(listed.contains(command), "{command} in {listed}");
        }
        Ok(())
    })
}

#[test]
fn an_unreachable_database_is_named() -> Result<()> {
    Host::run(Northd::None, |host| {
        let nowhere = format!("unix:{}/nowhere.sock", host.dir.path().display());
        host.vsctl(&format!("set Open_vSwitch . external_ids:ovn-remote=\"{nowhere}\""))?;
        host.until("the status names it", |host| {
            let status = host.appctl("status")?;
            Ok(Look::when(status.contains("nowhere.sock") && status.contains("not connected"), || status))
        })?;
        ensure!(host.appctl("connection-status")? == "not connected\n");
        // The rest goes on: the switch's duties are done.
        host.vsctl("add-br br-other")?;
        let back = host.central.sb().remote();
        host.vsctl(&format!("set Open_vSwitch . external_ids:ovn-remote=\"{back}\""))?;
        host.until("connected again", |host| {
            let status = host.appctl("connection-status")?;
            Ok(Look::when(status == "connected\n", || status))
        })
    })
}
