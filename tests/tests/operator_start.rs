//! What the daemons say when they cannot start, and that they leave nothing behind then.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Hypervisor, Node, artifacts, wait_until};

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_wrong_flag_is_named_with_a_hint() -> Result<()> {
    for program in ["oxbow-node", "oxbow-northd"] {
        let dir = tempfile::tempdir()?;
        let cases: [(&[&str], &str); 4] = [
            (&["--no-such-flag"], "unrecognized option '--no-such-flag'"),
            (&["-Z"], "unrecognized option '-Z'"),
            (&["--pidfile=x.pid", "--unixctl"], "--unixctl"),
            (&["--detach", "--log-level=5"], "unrecognized option '--log-level'"),
        ];
        for (arguments, complaint) in cases {
            let output = Command::new(artifacts::binary(program)?)
                .args(arguments)
                .envs(["OVN_RUNDIR", "OVN_LOGDIR", "OVS_RUNDIR"].map(|name| (name, dir.path())))
                .current_dir(dir.path())
                .output()?;
            let text = said(&output);
            ensure!(output.status.code() == Some(1), "{program} {arguments:?}: {:?}\n{text}", output.status);
            ensure!(text.contains(complaint), "{program} {arguments:?}: {complaint} is missing in\n{text}");
            ensure!(text.contains(&format!("Try '{program} --help'")), "{program} {arguments:?}:\n{text}");
            let left: Vec<_> = std::fs::read_dir(dir.path())?.collect::<Result<_, _>>()?;
            ensure!(left.is_empty(), "{program} {arguments:?} left {left:?}");
        }
    }
    Ok(())
}

#[test]
fn xtask_names_a_wrong_flag_and_a_wrong_command() -> Result<()> {
    for (arguments, complaint) in [
        (&["demo", "--no-such-flag"][..], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["agree", "--packets", "many"], "many"),
    ] {
        let output = Command::new(artifacts::binary("xtask")?).args(arguments).output()?;
        let text = said(&output);
        ensure!(!output.status.success(), "{arguments:?}: {:?}\n{text}", output.status);
        ensure!(text.contains(complaint) && text.contains("--help"), "{arguments:?}:\n{text}");
    }
    Ok(())
}

#[test]
fn wrong_values_of_the_node_s_options_are_named() -> Result<()> {
    for (argument, complaints) in [
        ("--map-size=OX_RULEZ=100", ["OX_RULEZ", "OX_RULES"]),
        ("--map-size=OX_RULES=many", ["many", "--map-size"]),
        ("--attach=xdp", ["xdp", "clsact"]),
    ] {
        let output = Command::new(artifacts::binary("oxbow-node")?).arg(argument).output()?;
        let text = said(&output);
        ensure!(output.status.code() == Some(1), "{argument}: {:?}\n{text}", output.status);
        for complaint in complaints {
            ensure!(text.contains(complaint), "{argument}: {complaint} is missing in\n{text}");
        }
    }
    Ok(())
}

/// Runs the node of a hypervisor, which must not be running, to its end.
fn run_node(host: &Hypervisor, change: impl FnOnce(&mut Command)) -> Result<Output> {
    let mut command = host.node_command()?;
    command.arg("--pidfile");
    change(&mut command);
    host.ns().output(command)
}

/// Drops capabilities for good in the process that `command` becomes.
fn without(command: &mut Command, capabilities: &'static [libc::c_ulong]) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for capability in capabilities {
                // A program that root executes has what is in the bounding set and no more (capabilities(7)).
                if libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

const CAP_NET_ADMIN: libc::c_ulong = 12;
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_PERFMON: libc::c_ulong = 38;
const CAP_BPF: libc::c_ulong = 39;

#[test]
fn a_missing_privilege_is_named_and_nothing_is_left() -> Result<()> {
    Cloud::builder().hypervisors(1, Node::Oxbow).run(|cloud| {
        let host = cloud.hypervisor(0);
        host.exit_controller(false)?;
        let before = host.ns().run("find", &["/sys/fs/bpf"])?;
        let files = || -> Result<Vec<_>> {
            Ok(std::fs::read_dir(host.dir())?.map(|file| file.map(|f| f.path())).collect::<Result<_, _>>()?)
        };
        let files_before = files()?;
        let cases: [(&[libc::c_ulong], &[&str]); 3] = [
            (&[CAP_NET_ADMIN], &["CAP_NET_ADMIN"]),
            (&[CAP_SYS_ADMIN, CAP_BPF], &["CAP_BPF"]),
            (&[CAP_SYS_ADMIN, CAP_BPF, CAP_PERFMON], &["CAP_BPF", "CAP_PERFMON"]),
        ];
        for (dropped, named) in cases {
            let output = run_node(host, |command| without(command, dropped))?;
            let text = said(&output);
            ensure!(output.status.code() == Some(1), "{dropped:?}: {:?}\n{text}", output.status);
            for name in named {
                ensure!(text.contains(&format!("missing privilege {name}")), "{name} is missing in\n{text}");
            }
            ensure!(text.contains("run oxbow-node as root"), "{text}");
        }
        ensure!(host.ns().run("find", &["/sys/fs/bpf"])? == before);
        ensure!(files()? == files_before, "{:?} instead of {files_before:?}", files()?);
        // With its privileges it starts.
        host.start_controller()
    })
}

#[test]
fn detaching_without_a_privilege_tells_the_person_who_typed() -> Result<()> {
    Cloud::builder().hypervisors(1, Node::Oxbow).run(|cloud| {
        let host = cloud.hypervisor(0);
        host.exit_controller(false)?;
        let output = run_node(host, |command| {
            command.arg("--detach");
            without(command, &[CAP_NET_ADMIN]);
        })?;
        let text = said(&output);
        ensure!(output.status.code() == Some(1) && text.contains("CAP_NET_ADMIN"), "{:?}\n{text}", output.status);
        ensure!(!host.dir().join("oxbow-node.pid").exists());
        host.start_controller()
    })
}

/// Starts the node with one thing wrong, and waits until it says so in its log and in `debug/problems`.
fn says(cloud: &mut Cloud, arguments: &[&str], parts: &[&str]) -> Result<()> {
    let host = cloud.hypervisor(0);
    host.exit_controller(false)?;
    host.set_node_arguments(arguments);
    host.start_controller()?;
    wait_until(&format!("problems with {parts:?}"), PATIENCE, || {
        let text = host.appctl("debug/problems")?;
        Ok(Look::when(parts.iter().all(|part| text.contains(part)), || text))
    })?;
    let log = host.controller_log();
    ensure!(parts.iter().all(|part| log.contains(part)), "{parts:?} are missing in the log:\n{log}");
    // The rest of its duties is done.
    host.vsctl("--may-exist add-br br-other")?;
    Ok(())
}

#[test]
fn a_detached_node_finds_an_object_that_was_named_from_where_it_was_started() -> Result<()> {
    Cloud::builder().hypervisors(1, Node::Oxbow).run(|cloud| {
        let dir = cloud.dir().to_owned();
        std::fs::copy(artifacts::require_ebpf_object()?, dir.join("here.o"))?;
        let host = cloud.hypervisor(0);
        host.exit_controller(false)?;
        // Without --no-chdir it goes to / when it is up.
        let control = dir.join("detached.ctl");
        let mut command = Command::new(artifacts::binary("oxbow-node")?);
        command.args([host.ovsdb().remote(), "--detach".into(), "--pidfile".into(), "--log-file".into()]);
        command.arg(format!("--unixctl={}", control.display())).args(["--bpf-object", "here.o"]).current_dir(&dir);
        command.envs(["OVN_RUNDIR", "OVN_LOGDIR", "OVS_RUNDIR"].map(|name| (name, &dir)));
        let output = host.ns().output(command)?;
        ensure!(output.status.success(), "{}", said(&output));
        let ask = |command: &str| -> Result<String> {
            let output = Command::new("ovn-appctl").arg("-t").arg(&control).arg(command).output()?;
            Ok(said(&output))
        };
        let result = wait_until("the dataplane in force", PATIENCE, || {
            let text = ask("debug/dataplane")?;
            Ok(Look::when(text.contains(", active,"), || text))
        });
        // It belongs to nobody: it must go whatever was found.
        ask("exit")?;
        wait_until("the end of the detached node", PATIENCE, || {
            Ok(Look::when(!dir.join("oxbow-node.pid").exists(), || "its pidfile is there".to_owned()))
        })?;
        result
    })
}

#[test]
fn a_missing_or_foreign_object_and_a_missing_bpffs_are_named() -> Result<()> {
    Cloud::builder().hypervisors(1, Node::Oxbow).run(|cloud| {
        let dir = cloud.dir().to_owned();
        says(cloud, &["--bpf-object=/nowhere/oxbow.o"], &["/nowhere/oxbow.o", "cargo xtask build-ebpf"])?;
        let garbage = dir.join("garbage.o");
        std::fs::write(&garbage, "not an ELF file")?;
        let garbage = garbage.display().to_string();
        says(cloud, &[&format!("--bpf-object={garbage}")], &[&garbage, "cargo xtask build-ebpf"])?;
        // An object of another version: a map has another name.
        let mut bytes = std::fs::read(artifacts::require_ebpf_object()?)?;
        for at in 0..bytes.len() - 10 {
            if bytes[at..].starts_with(b"OX_GUARDS\0") {
                bytes[at + 8] = b'Z';
            }
        }
        let other = dir.join("other.o");
        std::fs::write(&other, bytes)?;
        let other = other.display().to_string();
        says(cloud, &[&format!("--bpf-object={other}")], &[&other, "OX_GUARDS", "cargo xtask build-ebpf"])?;
        let plain = dir.join("plain");
        std::fs::create_dir(&plain)?;
        let plain = plain.display().to_string();
        says(
            cloud,
            &[&format!("--bpffs={plain}")],
            &[&format!("{plain} is not a bpf file system"), "mount -t bpf bpf"],
        )?;
        says(cloud, &["--bpffs=/nowhere"], &["there is no /nowhere", "--bpffs"])?;
        // All is well again with what belongs there; that it is private is said.
        let host = cloud.hypervisor(0);
        host.exit_controller(false)?;
        host.set_node_arguments(&[]);
        host.start_controller()?;
        wait_until("the dataplane in force", PATIENCE, || {
            let text = host.appctl("debug/dataplane")?;
            Ok(Look::when(text.contains(", active,"), || text))
        })?;
        let problems = host.appctl("debug/problems")?;
        ensure!(!problems.contains("dataplane"), "{problems}");
        wait_until("the warning of a private bpffs", PATIENCE, || {
            let log = host.controller_log();
            Ok(Look::when(log.contains("/sys/fs/bpf is not the host's"), || log))
        })?;
        Ok(())
    })
}
