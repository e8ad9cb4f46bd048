//! The central part of a cloud: NB, SB and a northd.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::artifacts;
use crate::cluster::Cluster;
use crate::netns::Netns;
use crate::ovsdb::{NB_SCHEMA, OvsdbServer, SB_SCHEMA};
use crate::process::Process;
use crate::wait::{Look, PATIENCE, wait_until};

/// Which northd translates NB into SB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Northd {
    /// Debian's `ovn-northd`.
    Stock,
    /// `oxbow-northd`.
    Oxbow,
    /// None: the test writes SB itself, or starts one later.
    None,
}

/// NB, SB and northd, all in one namespace.
#[derive(Debug)]
pub struct Central {
    dir: PathBuf,
    nb: OvsdbServer,
    sb: Southbound,
    northd: Option<Process>,
}

/// How SB is served.
#[derive(Debug)]
enum Southbound {
    Alone(Box<OvsdbServer>),
    Clustered(Cluster),
}

impl Central {
    /// Starts the databases and the northd. SB also listens at `sb_remote` (e.g. `ptcp:6642:172.31.0.1`).
    pub fn start(ns: &Netns, dir: &Path, sb_remote: &str, northd: Northd) -> Result<Self> {
        let sb = OvsdbServer::builder("sb").schema(SB_SCHEMA).directory(dir).namespace(ns).remote(sb_remote).start()?;
        Self::around(Southbound::Alone(Box::new(sb)), ns, dir, northd)
    }

    /// The same with SB served by a raft cluster that has a member for each of `sb_remotes`.
    pub fn start_clustered(ns: &Netns, dir: &Path, sb_remotes: &[String], northd: Northd) -> Result<Self> {
        let cluster = Cluster::start(ns, dir, "sb", ("OVN_Southbound", SB_SCHEMA), sb_remotes)?;
        Self::around(Southbound::Clustered(cluster), ns, dir, northd)
    }

    fn around(sb: Southbound, ns: &Netns, dir: &Path, northd: Northd) -> Result<Self> {
        let nb = OvsdbServer::builder("nb").schema(NB_SCHEMA).directory(dir).namespace(ns).start()?;
        nb.nbctl("init")?;
        let mut central = Self { dir: dir.to_owned(), nb, sb, northd: None };
        central.sb().sbctl("init")?;
        central.start_northd(ns, northd)?;
        Ok(central)
    }

    /// Starts a northd, and waits until it answers on its control socket.
    ///
    /// # Errors
    ///
    /// When one runs already.
    pub fn start_northd(&mut self, ns: &Netns, northd: Northd) -> Result<()> {
        if self.northd.is_some() {
            bail!("a northd is running already");
        }
        let program = match northd {
            Northd::Stock => artifacts::require_program("ovn-northd")?,
            Northd::Oxbow => artifacts::binary("oxbow-northd")?,
            Northd::None => return Ok(()),
        };
        let mut command = Command::new(program);
        command.arg(format!("--ovnnb-db={}", self.nb.remote())).arg(format!("--ovnsb-db={}", self.sb().remote()));
        command.arg(format!("--unixctl={}", self.control().display())).arg("--no-chdir");
        command.env("OVN_RUNDIR", &self.dir).env("OVN_LOGDIR", &self.dir);
        let mut process = ns.spawn("northd", command, &self.dir.join("northd.log"))?;
        wait_until("northd to answer on its control socket", PATIENCE, || {
            process.check_alive()?;
            let status = self.northd_appctl("status")?;
            Ok(Look::when(status.contains("active"), || format!("{status}\n{}", process.log_tail(2000))))
        })?;
        self.northd = Some(process);
        Ok(())
    }

    /// Takes the northd's process out, e.g. to kill it; another can be started then.
    pub fn take_northd(&mut self) -> Option<Process> {
        self.northd.take()
    }

    /// The northd's process id while one runs.
    pub fn northd_pid(&self) -> Option<u32> {
        self.northd.as_ref().map(Process::pid)
    }

    fn control(&self) -> PathBuf {
        self.dir.join("northd.ctl")
    }

    /// Sends a command to the northd's control socket.
    pub fn northd_appctl(&self, args: &str) -> Result<String> {
        let mut command = Command::new(artifacts::require_program("ovn-appctl")?);
        command.arg("-t").arg(self.control()).args(crate::process::words(args));
        let line = crate::process::line(&command);
        let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
        crate::process::checked(&line, output)
    }

    /// The NB server.
    pub fn nb(&self) -> &OvsdbServer {
        &self.nb
    }

    /// The SB server; of a cluster its first member, whose command line tools reach the others too.
    pub fn sb(&self) -> &OvsdbServer {
        match &self.sb {
            Southbound::Alone(server) => server,
            Southbound::Clustered(cluster) => &cluster.members()[0],
        }
    }

    /// The cluster that serves SB.
    ///
    /// # Errors
    ///
    /// When it is not clustered.
    pub fn sb_cluster(&mut self) -> Result<&mut Cluster> {
        match &mut self.sb {
            Southbound::Alone(_) => bail!("SB is served by one server alone"),
            Southbound::Clustered(cluster) => Ok(cluster),
        }
    }

    /// The NB server, to be stopped and started.
    pub fn nb_mut(&mut self) -> &mut OvsdbServer {
        &mut self.nb
    }

    /// The SB server (of a cluster its first member), to be stopped and started.
    pub fn sb_mut(&mut self) -> &mut OvsdbServer {
        match &mut self.sb {
            Southbound::Alone(server) => server,
            Southbound::Clustered(cluster) => cluster.member(0),
        }
    }

    /// An error with the log's end if a daemon has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.nb.process().check_alive()?;
        self.sb_mut().process().check_alive()?;
        self.northd.as_mut().map_or(Ok(()), Process::check_alive)
    }

    /// NB and SB contents and northd's log, for a failure's message.
    pub fn dump(&self) -> String {
        let mut text = String::from("--- central\n");
        let parts = [
            ("ovn-nbctl show", self.nb.nbctl("show")),
            ("ovn-sbctl show", self.sb().sbctl("show")),
            ("ovn-sbctl list Port_Binding", self.sb().sbctl("list Port_Binding")),
            ("ovn-sbctl list Chassis_Private", self.sb().sbctl("list Chassis_Private")),
            ("ovn-sbctl list FDB", self.sb().sbctl("list FDB")),
            ("ovn-sbctl list SB_Global", self.sb().sbctl("list SB_Global")),
            ("ovn-sbctl lflow-list", self.sb().sbctl("lflow-list")),
        ];
        for (title, part) in parts {
            text.push_str(&format!("$ {title}\n{}\n", part.unwrap_or_else(|error| format!("{error:#}"))));
        }
        if let Southbound::Clustered(cluster) = &self.sb {
            text.push_str(&format!("members of the cluster: {}\n", cluster.roles().join(" ")));
        }
        if let Some(northd) = &self.northd {
            text.push_str(&format!("--- log of northd\n{}\n", northd.log_tail(8000)));
        }
        text
    }
}
