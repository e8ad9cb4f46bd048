//! The client against three of Debian's ovsdb-servers in a raft cluster.

mod support;

use std::path::Path;
use std::process::Command;

use oxbow_ovsdb::{ClientConfig, Event, LockState, Outcome, Transaction};
use oxbow_schema::sb;
use oxbow_testkit::OvsdbServer;
use oxbow_testkit::ovsdb::SB_SCHEMA;
use oxbow_testkit::wait::{Look, PATIENCE, wait_until};
use support::{Watched, runtime};

fn ovsdb_tool(args: &[&str]) {
    let output = Command::new("ovsdb-tool").args(args).output().expect("ovsdb-tool of openvswitch-common");
    assert!(output.status.success(), "ovsdb-tool {args:?}: {output:?}");
}

/// Starts member `index`, whose database file exists already or is made to found or join the cluster.
fn member(directory: &Path, index: usize) -> OvsdbServer {
    let file = directory.join(format!("s{index}.db"));
    let address = |index: usize| format!("unix:{}", directory.join(format!("s{index}.raft")).display());
    let path = file.to_str().expect("a UTF-8 path");
    if !file.exists() {
        if index == 0 {
            ovsdb_tool(&["create-cluster", path, SB_SCHEMA, &address(0)]);
        } else {
            ovsdb_tool(&["join-cluster", path, "OVN_Southbound", &address(index), &address(0)]);
        }
    }
    OvsdbServer::builder(&format!("s{index}")).directory(directory).database(file).start().expect("a cluster member")
}

fn role(server: &OvsdbServer) -> String {
    let status = server.appctl(&["cluster/status", "OVN_Southbound"]).expect("the cluster's status");
    let line = status.lines().find(|line| line.starts_with("Role:")).unwrap_or("Role: none");
    line.trim_start_matches("Role: ").to_owned()
}

fn add_chassis(client: &Watched, name: &str) -> Transaction {
    let mut txn = Transaction::new(client.replica().database());
    let encap = txn
        .insert(sb::encap::TABLE)
        .set(sb::encap::TYPE, "geneve")
        .set(sb::encap::IP, format!("{name}.example.org"))
        .set(sb::encap::CHASSIS_NAME, name)
        .uuid();
    txn.insert(sb::chassis::TABLE).set(sb::chassis::NAME, name).set(sb::chassis::ENCAPS, [encap]);
    txn
}

#[test]
fn clients_follow_the_leader_through_its_death_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut servers: Vec<Option<OvsdbServer>> = (0..3).map(|index| Some(member(directory.path(), index))).collect();
    wait_until("one leader and two followers", PATIENCE, || {
        let mut roles: Vec<String> = servers.iter().flatten().map(role).collect();
        roles.sort();
        Ok(Look::when(roles == ["follower", "follower", "leader"], || roles.join(" ")))
    })
    .unwrap();
    let remotes: Vec<String> = servers.iter().flatten().map(OvsdbServer::remote).collect();
    let config = |leader_only| ClientConfig {
        leader_only,
        ..ClientConfig::new(sb::DATABASE, remotes.join(",")).monitor(sb::chassis::TABLE).monitor(sb::encap::TABLE)
    };
    runtime().block_on(async {
        let mut writer = Watched::start(ClientConfig { lock: Some("ovn_northd".to_owned()), ..config(true) });
        writer.event(|event| matches!(event, Event::Lock(LockState::Acquired))).await;
        let leader = remotes.iter().position(|remote| Some(remote) == writer.status().remote.as_ref()).unwrap();
        assert_eq!(role(servers[leader].as_ref().unwrap()), "leader");
        // A follower is good enough for whoever does not ask for the leader.
        let follower = (leader + 1) % 3;
        let mut reader = Watched::start(ClientConfig { remotes: remotes[follower].clone(), ..config(false) });
        reader.synchronized().await;
        let txn = add_chassis(&writer, "h1");
        let outcome = writer.commit(txn).await;
        assert!(outcome.is_committed(), "{outcome:?}");
        reader
            .until("chassis h1 at the follower", |replica| (replica.len(sb::chassis::TABLE) == 1).then_some(()))
            .await;

        writer.clear_changes();
        drop(servers[leader].take());
        writer.event(|event| matches!(event, Event::Lock(LockState::Lost))).await;
        writer.event(|event| matches!(event, Event::Disconnected { .. })).await;
        writer.event(|event| matches!(event, Event::Lock(LockState::Acquired))).await;
        let successor = remotes.iter().position(|remote| Some(remote) == writer.status().remote.as_ref()).unwrap();
        assert_ne!(successor, leader);
        assert_eq!(role(servers[successor].as_ref().unwrap()), "leader");
        assert_eq!(writer.changes(), [], "resynchronisation reports what changed, and nothing did");

        let mut outcome = Outcome::NotConnected;
        for _ in 0..20 {
            // The new leader may still be finding out that it is one.
            let txn = add_chassis(&writer, "h2");
            outcome = writer.commit(txn).await;
            if outcome.is_committed() {
                break;
            }
        }
        assert!(outcome.is_committed(), "{outcome:?}");
        reader.until("chassis h2 at the reader", |replica| (replica.len(sb::chassis::TABLE) == 2).then_some(())).await;
        let mut other = Watched::start(config(true));
        other.synchronized().await;
        assert_eq!(other.replica(), writer.replica());
    });
}
