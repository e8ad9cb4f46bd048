//! A database served by a raft cluster of `ovsdb-server`s.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::artifacts::require_program;
use crate::netns::Netns;
use crate::ovsdb::OvsdbServer;
use crate::process;
use crate::wait::{Look, PATIENCE, wait_until};

/// The cluster's members, running or killed.
#[derive(Debug)]
pub struct Cluster {
    database: String,
    members: Vec<OvsdbServer>,
}

impl Cluster {
    /// Founds a cluster for an empty `database` of this schema with one member for each of `remotes` (where it listens beside its socket in
    /// `dir`, e.g. `ptcp:6642:172.31.0.1`), and waits until it has a leader and nothing but followers.
    pub fn start(
        ns: &Netns,
        dir: &Path,
        name: &str,
        (database, schema): (&str, &str),
        remotes: &[String],
    ) -> Result<Self> {
        let member = |index: usize| format!("{name}{}", index + 1);
        let sockets: Vec<String> = (0..remotes.len())
            .map(|index| format!("unix:{}", dir.join(format!("{}.sock", member(index))).display()))
            .collect();
        let raft = |index: usize| format!("unix:{}", dir.join(format!("{}.raft", member(index))).display());
        let mut cluster = Self { database: database.to_owned(), members: Vec::new() };
        for (index, remote) in remotes.iter().enumerate() {
            let file = dir.join(format!("{}.db", member(index)));
            let mut tool = Command::new(require_program("ovsdb-tool")?);
            match index {
                0 => tool.arg("create-cluster").arg(&file).args([schema, &raft(0)]),
                _ => tool.arg("join-cluster").arg(&file).args([database, &raft(index), &raft(0)]),
            };
            let line = process::line(&tool);
            process::checked(&line, tool.output().with_context(|| format!("cannot start `{line}`"))?)?;
            let server = OvsdbServer::builder(&member(index)).directory(dir).namespace(ns).database(file);
            cluster.members.push(server.remote(remote).members(&sockets).start()?);
            wait_until(&format!("{} to be in the cluster", member(index)), PATIENCE, || {
                let roles = cluster.roles();
                let settled = roles.iter().filter(|role| *role == "leader").count() == 1
                    && roles.iter().all(|role| role == "leader" || role == "follower");
                Ok(Look::when(settled, || roles.join(" ")))
            })?;
        }
        Ok(cluster)
    }

    /// The members; commands to any of them reach the database as long as most live.
    pub fn members(&self) -> &[OvsdbServer] {
        &self.members
    }

    /// One member, to be stopped and started.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn member(&mut self, index: usize) -> &mut OvsdbServer {
        &mut self.members[index]
    }

    /// What each member takes itself for: `leader`, `follower`, `candidate`; `dead` when it does not answer.
    pub fn roles(&self) -> Vec<String> {
        self.members.iter().map(|member| self.role(member).unwrap_or_else(|| "dead".to_owned())).collect()
    }

    fn role(&self, member: &OvsdbServer) -> Option<String> {
        let status = member.appctl(&["cluster/status", &self.database]).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Role: ")).map(str::to_owned)
    }

    /// The member that leads, as soon as one does that is not `other_than`.
    pub fn leader(&self, other_than: Option<usize>) -> Result<usize> {
        wait_until(&format!("a leader other than {other_than:?}"), PATIENCE, || {
            let roles = self.roles();
            let leader = roles.iter().position(|role| role == "leader").filter(|index| Some(*index) != other_than);
            Ok(leader.map_or_else(|| Look::NotYet(roles.join(" ")), Look::Held))
        })
    }

    /// Has the leader hand its office to another, as it does by itself before it writes a snapshot. Returns the new one.
    pub fn move_leader(&self) -> Result<usize> {
        let before = self.leader(None)?;
        self.members[before].appctl(&["cluster/failure-test", "transfer-leadership"])?;
        self.leader(Some(before))
    }
}
