//! Real `ovsdb-server` processes in temporary directories.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::artifacts::require_program;
use crate::netns::Netns;
use crate::process::{self, Process};
use crate::wait::{Look, PATIENCE, wait_until};

/// Debian's OVN_Northbound schema.
pub const NB_SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";
/// Debian's OVN_Southbound schema.
pub const SB_SCHEMA: &str = "/usr/share/ovn/ovn-sb.ovsschema";
/// Debian's Open_vSwitch schema.
pub const VSWITCH_SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How long the databases' command line tools wait for a server before they give up.
const TOOL_TIMEOUT: &str = "--timeout=60";

/// What an [`OvsdbServer`] is to serve and where.
#[derive(Debug)]
pub struct OvsdbServerBuilder<'a> {
    name: String,
    schemas: Vec<PathBuf>,
    databases: Vec<PathBuf>,
    remotes: Vec<String>,
    arguments: Vec<String>,
    namespace: Option<&'a Netns>,
    dir: Option<PathBuf>,
    members: Vec<String>,
}

impl<'a> OvsdbServerBuilder<'a> {
    /// Also serves an empty database with this schema.
    pub fn schema(mut self, schema: impl Into<PathBuf>) -> Self {
        self.schemas.push(schema.into());
        self
    }

    /// Also serves an existing database file, in place.
    pub fn database(mut self, file: impl Into<PathBuf>) -> Self {
        self.databases.push(file.into());
        self
    }

    /// Also listens there, e.g. `ptcp:6642:172.31.0.1` (in the namespace, if one is given).
    pub fn remote(mut self, remote: impl Into<String>) -> Self {
        self.remotes.push(remote.into());
        self
    }

    /// Passes another argument.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Runs it in this namespace.
    pub fn namespace(mut self, namespace: &'a Netns) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Keeps its files in this directory instead of a temporary one of its own.
    pub fn directory(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// It is a member of a raft cluster whose members listen at these remotes: clients are told all of them.
    pub fn members(mut self, remotes: &[String]) -> Self {
        self.members = remotes.to_vec();
        self
    }

    /// Creates the databases, starts the server and waits until it listens.
    pub fn start(self) -> Result<OvsdbServer> {
        let own_dir = match &self.dir {
            Some(_) => None,
            None => Some(TempDir::with_prefix("oxbow-ovsdb-").context("cannot make a temporary directory")?),
        };
        let dir = match (&self.dir, &own_dir) {
            (Some(dir), _) => dir.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => unreachable!("one of the two was made above"),
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut files = self.databases;
        for (index, schema) in self.schemas.iter().enumerate() {
            let file = dir.join(format!("{}-{index}.db", self.name));
            create_database(&file, schema)?;
            files.push(file);
        }
        let socket = dir.join(format!("{}.sock", self.name));
        let control = dir.join(format!("{}.ctl", self.name));
        let mut arguments: Vec<OsString> = files.iter().map(|file| file.clone().into_os_string()).collect();
        arguments.push(format!("--remote=punix:{}", socket.display()).into());
        arguments.extend(self.remotes.iter().map(|remote| format!("--remote={remote}").into()));
        arguments.push(format!("--unixctl={}", control.display()).into());
        arguments.push("--no-chdir".into());
        arguments.extend(self.arguments.into_iter().map(OsString::from));
        let log = dir.join(format!("{}.log", self.name));
        let process = serve(&self.name, &arguments, &log, &socket, self.namespace)?;
        let members = self.members;
        Ok(OvsdbServer { process, arguments, socket, control, files, members, _own_dir: own_dir })
    }
}

/// Starts the server and waits until it listens.
fn serve(name: &str, arguments: &[OsString], log: &Path, socket: &Path, ns: Option<&Netns>) -> Result<Process> {
    let mut command = Command::new(require_program("ovsdb-server")?);
    command.args(arguments);
    let mut process = match ns {
        Some(ns) => ns.spawn(name, command, log)?,
        None => Process::start(name, command, log, process::start_from_host)?,
    };
    wait_until(&format!("{name} to listen"), PATIENCE, || {
        process.check_alive()?;
        Ok(match UnixStream::connect(socket) {
            Ok(_) => Look::Held(()),
            Err(error) => Look::NotYet(format!("{}: {error}\n{}", socket.display(), process.log_tail(1000))),
        })
    })?;
    Ok(process)
}

/// A running `ovsdb-server`, killed when dropped.
#[derive(Debug)]
pub struct OvsdbServer {
    process: Process,
    arguments: Vec<OsString>,
    socket: PathBuf,
    control: PathBuf,
    files: Vec<PathBuf>,
    /// Remotes of the cluster; empty when it is in none.
    members: Vec<String>,
    _own_dir: Option<TempDir>,
}

impl OvsdbServer {
    /// A server to be configured; `name` names its files and appears in messages.
    pub fn builder<'a>(name: &str) -> OvsdbServerBuilder<'a> {
        OvsdbServerBuilder {
            name: name.to_owned(),
            schemas: Vec::new(),
            databases: Vec::new(),
            remotes: Vec::new(),
            arguments: Vec::new(),
            namespace: None,
            dir: None,
            members: Vec::new(),
        }
    }

    /// A server with one empty database of this schema.
    pub fn start(name: &str, schema: &str) -> Result<Self> {
        Self::builder(name).schema(schema).start()
    }

    /// An empty OVN_Northbound with its one NB_Global row.
    pub fn northbound() -> Result<Self> {
        let server = Self::start("nb", NB_SCHEMA)?;
        server.nbctl("init")?;
        Ok(server)
    }

    /// An empty OVN_Southbound with its one SB_Global row.
    pub fn southbound() -> Result<Self> {
        let server = Self::start("sb", SB_SCHEMA)?;
        server.sbctl("init")?;
        Ok(server)
    }

    /// An Open_vSwitch database with its one row, and nobody to act on it.
    pub fn vswitch() -> Result<Self> {
        let server = Self::start("ovs", VSWITCH_SCHEMA)?;
        server.vsctl_no_wait("init")?;
        Ok(server)
    }

    /// The remote to connect to: `unix:PATH`, of a cluster those of all its members.
    pub fn remote(&self) -> String {
        match self.members.is_empty() {
            true => format!("unix:{}", self.socket.display()),
            false => self.members.join(","),
        }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The database files it serves, those given first, then those made from schemas.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills the server as a crash would; its files stay. [`OvsdbServer::start_again`] serves them again.
    pub fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait_end(PATIENCE).map(|_| ())
    }

    /// Starts the server that was stopped, in the namespace that it was in.
    pub fn start_again(&mut self, namespace: Option<&Netns>) -> Result<()> {
        let (name, log) = (self.process.name().to_owned(), self.process.log().to_owned());
        self.process = serve(&name, &self.arguments, &log, &self.socket, namespace)?;
        Ok(())
    }

    /// Sends a command to the server's control socket and returns the answer.
    pub fn appctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(require_program("ovs-appctl")?);
        command.arg("-t").arg(&self.control).args(args);
        tool(command)
    }

    /// Replaces the contents of a database by those of a database file (standalone format).
    ///
    /// # Errors
    ///
    /// When the file cannot be read or does not fit the schema.
    pub fn restore(&self, database: &str, file: &Path) -> Result<()> {
        let snapshot = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let mut command = Command::new(require_program("ovsdb-client")?);
        command.args([TOOL_TIMEOUT, "--force", "restore", &self.remote(), database]).stdin(snapshot);
        let line = process::line(&command);
        process::checked(&line, command.output()?)?;
        Ok(())
    }

    /// Makes it listen at another place while it runs, e.g. `punix:PATH`.
    pub fn add_remote(&self, remote: &str) -> Result<()> {
        self.appctl(&["ovsdb-server/add-remote", remote]).map(|_| ())
    }

    /// `ovn-nbctl` with `args`, split as [`process::words`] does.
    pub fn nbctl(&self, args: &str) -> Result<String> {
        self.ctl("ovn-nbctl", &[], args)
    }

    /// `ovn-sbctl` with `args`, split as [`process::words`] does.
    pub fn sbctl(&self, args: &str) -> Result<String> {
        self.ctl("ovn-sbctl", &[], args)
    }

    /// `ovs-vsctl` with `args`, split as [`process::words`] does. It waits for whoever acts on the database.
    pub fn vsctl(&self, args: &str) -> Result<String> {
        self.ctl("ovs-vsctl", &[], args)
    }

    /// [`OvsdbServer::vsctl`] for a database on which nobody acts.
    pub fn vsctl_no_wait(&self, args: &str) -> Result<String> {
        self.ctl("ovs-vsctl", &["--no-wait"], args)
    }

    /// `ovn-trace` on a Southbound database: the logical flows that a packet meets, `datapath` being where and `flow` what it is.
    pub fn trace(&self, datapath: &str, flow: &str) -> Result<String> {
        let mut command = Command::new(require_program("ovn-trace")?);
        command.arg(format!("--db={}", self.remote())).args([datapath, flow]);
        tool(command)
    }

    fn ctl(&self, program: &str, options: &[&str], args: &str) -> Result<String> {
        let mut command = Command::new(require_program(program)?);
        command.arg(format!("--db={}", self.remote())).arg(TOOL_TIMEOUT).args(options).args(process::words(args));
        // Neither a remote from the caller's environment nor options from there may reach the tool.
        for name in
            ["OVN_NB_DB", "OVN_SB_DB", "OVN_NBCTL_OPTIONS", "OVN_SBCTL_OPTIONS", "OVN_NB_DAEMON", "OVN_SB_DAEMON"]
        {
            command.env_remove(name);
        }
        tool(command)
    }
}

/// Runs a command line tool to its end.
fn tool(mut command: Command) -> Result<String> {
    let line = process::line(&command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    process::checked(&line, output)
}

/// Writes an empty standalone database.
///
/// # Errors
///
/// When the schema cannot be read or the file exists.
pub fn create_database(file: &Path, schema: &Path) -> Result<()> {
    let mut command = Command::new(require_program("ovsdb-tool")?);
    command.arg("create").arg(file).arg(schema);
    tool(command).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn northbound_takes_ovn_nbctl() {
        let nb = OvsdbServer::northbound().unwrap();
        nb.nbctl("ls-add sw0 -- lsp-add sw0 lp1 -- lsp-set-addresses lp1 '00:00:00:00:00:01 10.0.0.1'").unwrap();
        assert!(nb.nbctl("show").unwrap().contains("00:00:00:00:00:01 10.0.0.1"));
        let error = format!("{:#}", nb.nbctl("lsp-add nosuchswitch lp2").unwrap_err());
        assert!(error.contains("nosuchswitch"), "{error}");
    }

    #[test]
    fn one_server_serves_several_schemas_and_its_files_can_be_served_again() {
        let dir = tempfile::tempdir().unwrap();
        let server =
            OvsdbServer::builder("both").schema(NB_SCHEMA).schema(SB_SCHEMA).directory(dir.path()).start().unwrap();
        server.nbctl("init -- ls-add sw0").unwrap();
        let list = server.appctl(&["ovsdb-server/list-dbs"]).unwrap();
        assert!(list.contains("OVN_Northbound") && list.contains("OVN_Southbound"), "{list}");
        let nb = server.files()[0].clone();
        drop(server);
        let again = OvsdbServer::builder("again").database(nb).start().unwrap();
        assert!(again.nbctl("ls-list").unwrap().contains("sw0"));
    }

    #[test]
    fn vswitch_has_its_row() {
        let ovs = OvsdbServer::vswitch().unwrap();
        ovs.vsctl_no_wait("set Open_vSwitch . external_ids:system-id=hv1").unwrap();
        assert!(ovs.vsctl_no_wait("get Open_vSwitch . external_ids:system-id").unwrap().contains("hv1"));
    }
}
