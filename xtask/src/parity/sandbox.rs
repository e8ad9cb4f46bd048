//! A pair of databases in a directory of their own, and the northd that translates between them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The longest anything local may take to come up or to follow a change.
const DEADLINE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

const NB_SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";
const SB_SCHEMA: &str = "/usr/share/ovn/ovn-sb.ovsschema";

/// Two databases behind one ovsdb-server, a northd, and the environment that points OVN's tools at them. Dropping it ends
/// the processes and removes the directory.
pub(super) struct Sandbox {
    /// "stock" or "ours", for messages.
    pub(super) side: &'static str,
    dir: tempfile::TempDir,
    children: Vec<(&'static str, Child)>,
}

impl Sandbox {
    /// Creates the databases (the Northbound one with the file contents `nb` if given) and starts the server, not yet the northd.
    pub(super) fn new(side: &'static str, nb: Option<&[u8]>) -> Result<Sandbox> {
        let dir = tempfile::Builder::new().prefix(&format!("oxbow-parity-{side}-")).tempdir()?;
        let mut sandbox = Sandbox { side, dir, children: Vec::new() };
        let (nb_file, sb_file) = (sandbox.path("nb.db"), sandbox.path("sb.db"));
        match nb {
            Some(nb) => std::fs::write(&nb_file, nb)?,
            None => process::run(Command::new("ovsdb-tool").arg("create").arg(&nb_file).arg(NB_SCHEMA))?,
        }
        process::run(Command::new("ovsdb-tool").arg("create").arg(&sb_file).arg(SB_SCHEMA))?;
        let mut server = sandbox.command("ovsdb-server");
        server.arg("--remote=punix:db.sock").args(["--unixctl=ovsdb.ctl", "-vconsole:warn"]).args([&nb_file, &sb_file]);
        sandbox.spawn("ovsdb-server", server)?;
        sandbox.wait_until("ovsdb-server listens", |sandbox| {
            Ok(std::os::unix::net::UnixStream::connect(sandbox.socket()).is_ok())
        })?;
        Ok(sandbox)
    }

    /// Starts the northd `program`.
    pub(super) fn start_northd(&mut self, program: &Path) -> Result<()> {
        let mut northd = self.command(program);
        northd.args(["--unixctl=northd.ctl", "-vconsole:info"]);
        self.spawn("northd", northd)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the server of both databases listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.path("db.sock")
    }

    /// A command that runs in the sandbox: its directory, and the environment of OVN's tools.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let remote = format!("unix:{}", self.socket().display());
        command.current_dir(self.dir.path()).env("OVN_NB_DB", &remote).env("OVN_SB_DB", &remote);
        for name in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.env(format!("OVN_{name}"), self.dir.path()).env(format!("OVS_{name}"), self.dir.path());
        }
        command
    }

    fn spawn(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        let log = File::create(self.path(&format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::line(&command)))?;
        self.children.push((name, child));
        Ok(())
    }

    /// What the processes have said, for a failure's report.
    pub(super) fn logs(&self) -> String {
        self.children
            .iter()
            .map(|(name, _)| {
                let text = std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(20)..].join("\n    ");
                format!("  {} {name}:\n    {tail}\n", self.side)
            })
            .collect()
    }

    /// Fails if one of the processes has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        let logs = self.logs();
        for (name, child) in &mut self.children {
            if let Some(status) = child.try_wait()? {
                bail!("{name} of the {} side ended ({status})\n{logs}", self.side);
            }
        }
        Ok(())
    }

    /// Polls `condition` until it holds.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Sandbox) -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !condition(self)? {
            self.check_alive()?;
            if start.elapsed() > DEADLINE {
                bail!("{}: waited {} s in vain until {what}\n{}", self.side, DEADLINE.as_secs(), self.logs());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Waits until the northd has translated what is in the Northbound database now.
    pub(super) fn synchronize(&mut self) -> Result<()> {
        let mut sync = self.command("ovn-nbctl");
        sync.args([&format!("--timeout={}", DEADLINE.as_secs()), "--wait=sb", "sync"]);
        process::output(&mut sync).with_context(|| {
            format!("the {} northd did not follow the Northbound database\n{}", self.side, self.logs())
        })?;
        self.check_alive()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The northd first, so that it does not complain about a server that went away.
        for (_, child) in self.children.iter_mut().rev() {
            // It may have ended already; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
