//! A hypervisor for tests: a namespace, an Open_vSwitch database, the central databases with stock northd, and oxbow-node without a dataplane.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Central, Netns, Northd, OvsdbServer, Process, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The schema of the database that the host's tools write.
const VSWITCH_SCHEMA: &str = oxbow_testkit::ovsdb::VSWITCH_SCHEMA;

/// A host.
pub(crate) struct Host {
    // Fields drop in order: the daemon, its database, the centre, the namespace, the files.
    pub(crate) node: Option<Process>,
    pub(crate) ovs: OvsdbServer,
    pub(crate) central: Central,
    pub(crate) ns: Netns,
    pub(crate) dir: TempDir,
    pub(crate) arguments: Vec<String>,
    pub(crate) program: PathBuf,
}

impl Host {
    /// Databases and configuration; no daemon yet.
    pub(crate) fn new(northd: Northd) -> Result<Self> {
        let dir = TempDir::with_prefix("oxbow-node-")?;
        let ns = Netns::new("hv1")?;
        let extra = format!("punix:{}/sb-extra.sock", dir.path().display());
        let central = Central::start(&ns, dir.path(), &extra, northd)?;
        let ovs = OvsdbServer::builder("db").schema(VSWITCH_SCHEMA).directory(dir.path()).namespace(&ns).start()?;
        ovs.vsctl_no_wait("init")?;
        ovs.vsctl_no_wait(&format!(
            "set Open_vSwitch . external_ids:system-id=hv1 external_ids:hostname=host1 external_ids:ovn-remote=\"{}\" \
             external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=192.0.2.1",
            central.sb().remote()
        ))?;
        Ok(Host {
            node: None,
            ovs,
            central,
            ns,
            dir,
            arguments: vec!["--no-dataplane".into()],
            program: PathBuf::from(env!("CARGO_BIN_EXE_oxbow-node")),
        })
    }

    /// The same with the daemon running and registered.
    pub(crate) fn started(northd: Northd) -> Result<Self> {
        let mut host = Host::new(northd)?;
        host.start()?;
        host.until("the chassis is registered", |host| {
            let names = host.sb("--bare --columns=name list Chassis")?;
            Ok(Look::when(names.trim() == "hv1", || names))
        })?;
        Ok(host)
    }

    /// A host with the daemon; on failure of `story` everything is printed.
    pub(crate) fn run(northd: Northd, story: impl FnOnce(&mut Host) -> Result<()>) -> Result<()> {
        let mut host = Host::started(northd)?;
        host.tell(story)
    }

    /// Runs a story; on failure everything is printed.
    pub(crate) fn tell(&mut self, story: impl FnOnce(&mut Host) -> Result<()>) -> Result<()> {
        let result = story(self);
        if result.is_err() {
            #[expect(clippy::print_stdout, reason = "the state that a failed test's reader looks for")]
            {
                println!("{}", self.dump());
            }
        }
        result
    }

    /// The daemon's command line.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(self.ovs.remote()).arg("--no-chdir").arg("-vconsole:dbg").args(&self.arguments);
        for kind in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.env(format!("OVN_{kind}"), self.dir.path()).env(format!("OVS_{kind}"), self.dir.path());
        }
        command.env_remove("OXBOW_BPF_OBJECT");
        command
    }

    /// Starts the daemon.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = self.command();
        command.arg("--unixctl=node.ctl").arg("--pidfile");
        let node = self.ns.spawn("node", command, &self.path("node.log"))?;
        self.node = Some(node);
        self.until("the daemon answers", |host| host.appctl("version").map(|_| Look::Held(())))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `ovn-appctl` to the daemon.
    pub(crate) fn appctl(&self, args: &str) -> Result<String> {
        appctl(&self.path("node.ctl"), args)
    }

    /// `ovn-sbctl`.
    pub(crate) fn sb(&self, args: &str) -> Result<String> {
        self.central.sb().sbctl(args)
    }

    /// `ovn-nbctl`.
    pub(crate) fn nb(&self, args: &str) -> Result<String> {
        self.central.nb().nbctl(args)
    }

    /// `ovs-vsctl` without `--no-wait`.
    pub(crate) fn vsctl(&self, args: &str) -> Result<String> {
        self.ovs.vsctl(args)
    }

    /// What `ovs-vsctl` complains of: Debian's 3.1 ends with status 0 all the same, later ones with 65.
    pub(crate) fn vsctl_complaint(&self, args: &str) -> Result<String> {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db={}", self.ovs.remote())).args(oxbow_testkit::process::words(args));
        Ok(String::from_utf8_lossy(&command.output()?.stderr).into_owned())
    }

    /// Waits.
    pub(crate) fn until<T>(&self, what: &str, look: impl Fn(&Host) -> Result<Look<T>>) -> Result<T> {
        wait_until(what, PATIENCE, || look(self))
    }

    /// Waits until a command's output, trimmed, is a text.
    pub(crate) fn until_equal(&self, what: &str, expected: &str, ask: impl Fn(&Host) -> Result<String>) -> Result<()> {
        self.until(what, |host| {
            let text = ask(host)?;
            Ok(Look::when(text.trim() == expected, || text))
        })
    }

    /// Ends the daemon by a command and waits for its end.
    pub(crate) fn exit(&mut self, command: &str) -> Result<()> {
        self.appctl(command)?;
        let Some(mut node) = self.node.take() else { bail!("no daemon") };
        let status = node.wait_end(PATIENCE)?;
        if !status.success() {
            bail!("ended with {status}\n{}", node.log_tail(4000));
        }
        Ok(())
    }

    /// Ends it by a signal.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        let Some(mut node) = self.node.take() else { bail!("no daemon") };
        node.signal(signal)?;
        node.wait_end(PATIENCE)?;
        Ok(())
    }

    /// A tap, as qemu's is.
    pub(crate) fn tap(&self, name: &str) -> Result<()> {
        self.ns.ip(&format!("tuntap add {name} mode tap")).map(|_| ())
    }

    /// A logical switch with ports.
    pub(crate) fn switch(&self, name: &str, ports: &[&str]) -> Result<()> {
        self.nb(&format!("ls-add {name}"))?;
        for (number, port) in ports.iter().enumerate() {
            self.nb(&format!(
                "lsp-add {name} {port} -- lsp-set-addresses {port} \"00:00:00:00:00:{:02x} 10.0.0.{}\"",
                number + 1,
                number + 1
            ))?;
        }
        Ok(())
    }

    /// A column of a port's Port_Binding.
    pub(crate) fn binding(&self, port: &str, column: &str) -> Result<String> {
        Ok(self.sb(&format!("--bare --columns={column} find Port_Binding logical_port={port}"))?.trim().to_owned())
    }

    /// A key of an Interface's external_ids.
    pub(crate) fn interface_id(&self, interface: &str, key: &str) -> Result<String> {
        let text = self.ovs.vsctl_no_wait(&format!("--if-exists get Interface {interface} external_ids:{key}"))?;
        Ok(text.trim().trim_matches('"').to_owned())
    }

    /// Waits until a port is up in the Southbound database.
    pub(crate) fn until_up(&self, port: &str) -> Result<()> {
        self.until_equal(&format!("{port} up"), "true", |host| host.binding(port, "up"))
    }

    /// Everything.
    pub(crate) fn dump(&self) -> String {
        let mut text = self.central.dump();
        for (what, output) in [
            ("ovs-vsctl show", self.ovs.vsctl_no_wait("show")),
            ("list Interface", self.ovs.vsctl_no_wait("list Interface")),
            ("list Open_vSwitch", self.ovs.vsctl_no_wait("list Open_vSwitch")),
            ("status", self.appctl("status")),
            ("ports", self.appctl("debug/ports")),
            ("problems", self.appctl("debug/problems")),
        ] {
            text.push_str(&format!("--- {what}\n{}\n", output.unwrap_or_else(|error| format!("{error:#}"))));
        }
        text.push_str(&self.ns.dump());
        if let Some(node) = &self.node {
            text.push_str(&format!("--- log\n{}", node.log_tail(20_000)));
        }
        text
    }
}

/// `ovn-appctl` to a control socket.
pub(crate) fn appctl(target: &Path, args: &str) -> Result<String> {
    let output = Command::new("ovn-appctl")
        .arg("-t")
        .arg(target)
        .args(args.split_whitespace())
        .output()
        .context("ovn-appctl")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
