//! The client against Debian's ovsdb-server with standalone databases.

mod support;

use oxbow_ovsdb::{Clause, ClientConfig, Condition, Event, LockState, Outcome, Transaction, Uuid, load_database_file};
use oxbow_schema::{nb, sb};
use oxbow_testkit::OvsdbServer;
use support::{Watched, runtime};

fn nb_config(remote: impl Into<String>) -> ClientConfig {
    nb::DATABASE.tables.iter().fold(ClientConfig::new(nb::DATABASE, remote), |config, table| config.monitor(table))
}

#[test]
fn a_replica_follows_what_ovn_nbctl_writes() {
    let server = OvsdbServer::northbound().unwrap();
    server.nbctl("ls-add sw0 -- set Logical_Switch sw0 other_config:subnet=10.0.0.0/24").unwrap();
    runtime().block_on(async {
        let mut client = Watched::start(nb_config(server.remote()));
        client.synchronized().await;
        let switch = client.replica().rows(nb::logical_switch::TABLE).next().unwrap().clone();
        assert_eq!(switch.get(nb::logical_switch::NAME), "sw0");
        assert_eq!(switch.get(nb::logical_switch::OTHER_CONFIG).get("subnet").map(|s| s.as_str()), Some("10.0.0.0/24"));
        assert!(!client.replica().has_column(nb::acl::SAMPLE_NEW), "23.03 has no such column");

        server.nbctl("lsp-add sw0 p1 -- lsp-set-addresses p1 dynamic '0a:00:00:00:00:01 10.0.0.9'").unwrap();
        client
            .until("port p1 with its addresses", |replica| {
                let port = replica.rows(nb::logical_switch_port::TABLE).next()?;
                let addresses = port.get(nb::logical_switch_port::ADDRESSES);
                let switch = replica.row(nb::logical_switch::TABLE, switch.uuid())?;
                (addresses.len() == 2
                    && addresses.contains("dynamic")
                    && switch.get(nb::logical_switch::PORTS).contains(&port.uuid()))
                .then_some(())
            })
            .await;
        server.nbctl("ls-del sw0").unwrap();
        client
            .until("no switch and no port", |replica| {
                let left = replica.len(nb::logical_switch::TABLE) + replica.len(nb::logical_switch_port::TABLE);
                (left == 0).then_some(())
            })
            .await;
        let deleted: Vec<_> = client.changes().iter().filter(|change| change.new.is_none()).cloned().collect();
        let port = deleted.iter().find(|change| change.table == nb::logical_switch_port::TABLE).unwrap();
        assert_eq!(port.old.as_ref().unwrap().get(nb::logical_switch_port::NAME), "p1");
        let switch = deleted.iter().find(|change| change.table == nb::logical_switch::TABLE).unwrap();
        assert!(switch.old.as_ref().unwrap().get(nb::logical_switch::PORTS).contains(&port.uuid));
        assert_eq!(client.status().text(), "connected");
    });
}

#[test]
fn transactions_insert_update_mutate_wait_and_delete() {
    let server = OvsdbServer::northbound().unwrap();
    runtime().block_on(async {
        let mut client = Watched::start(nb_config(server.remote()));
        client.synchronized().await;
        let given = Uuid::random();
        let mut txn = Transaction::new(nb::DATABASE);
        let port = txn.insert(nb::logical_switch_port::TABLE).set(nb::logical_switch_port::NAME, "p1").uuid();
        txn.insert_with_uuid(nb::logical_switch_port::TABLE, given).set(nb::logical_switch_port::NAME, "p\"2\"\n");
        let switch = txn
            .insert(nb::logical_switch::TABLE)
            .set(nb::logical_switch::NAME, "sw0")
            .set(nb::logical_switch::PORTS, [port, given])
            .set(nb::logical_switch::OTHER_CONFIG, [("a", "1"), ("b", "2")])
            .uuid();
        txn.comment("oxbow: a switch with two ports");
        let Outcome::Committed { inserted, .. } = client.commit(txn).await else { panic!("not committed") };
        assert_eq!(inserted.iter().map(|(stand_in, _)| *stand_in).collect::<Vec<_>>(), [port, given, switch]);
        assert_eq!(inserted[1].1, given);
        let switch = inserted[2].1;
        // The update came before the reply.
        let row = client.replica().row(nb::logical_switch::TABLE, switch).unwrap().clone();
        assert!(row.get(nb::logical_switch::PORTS).contains(&inserted[0].1));
        assert_eq!(
            client.replica().row(nb::logical_switch_port::TABLE, given).unwrap().get(nb::logical_switch_port::NAME),
            "p\"2\"\n"
        );

        let mut txn = Transaction::new(nb::DATABASE);
        txn.verify(&row, nb::logical_switch::OTHER_CONFIG);
        txn.mutate(nb::logical_switch::TABLE, switch)
            .set_keys(nb::logical_switch::OTHER_CONFIG, [("b", "3"), ("c", "4")])
            .delete_keys(nb::logical_switch::OTHER_CONFIG, ["a"])
            .delete(nb::logical_switch::PORTS, [given]);
        assert!(client.commit(txn.clone()).await.is_committed());
        let row = client.replica().row(nb::logical_switch::TABLE, switch).unwrap().clone();
        let config: Vec<_> =
            row.get(nb::logical_switch::OTHER_CONFIG).iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(config, ["b=3", "c=4"]);
        assert_eq!(client.replica().len(nb::logical_switch_port::TABLE), 1, "an unreferenced port goes");

        // What is not monitored can be read, of rows that are there.
        let mut reading = Transaction::new(nb::DATABASE);
        reading.select(switch, nb::logical_switch::OTHER_CONFIG.any());
        reading.select(Uuid::random(), nb::logical_switch::NAME.any());
        reading.select(inserted[0].1, nb::logical_switch_port::NAME.any());
        let Outcome::Committed { selected, .. } = client.commit(reading).await else { panic!("not committed") };
        let config = row.datum(nb::logical_switch::OTHER_CONFIG.any()).clone();
        let name = client.replica().row(nb::logical_switch_port::TABLE, inserted[0].1).unwrap().clone();
        let name = name.datum(nb::logical_switch_port::NAME.any()).clone();
        assert_eq!(
            selected.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>(),
            [Some(config), None, Some(name)]
        );
        assert_eq!(selected[0].0, switch);

        // The same again: what it verified is no longer so.
        assert_eq!(client.commit(txn).await, Outcome::TryAgain);
        let mut txn = Transaction::new(nb::DATABASE);
        txn.wait(nb::logical_switch::TABLE).clause(Clause::equal(nb::logical_switch::NAME, "sw0")).absent();
        assert_eq!(client.commit(txn).await, Outcome::TryAgain);
        let mut txn = Transaction::new(nb::DATABASE);
        txn.wait(nb::logical_switch::TABLE).row(switch).present();
        txn.update(nb::logical_switch::TABLE, switch).set(nb::logical_switch::NAME, "renamed");
        txn.abort();
        assert_eq!(client.commit(txn).await, Outcome::Aborted);
        assert_eq!(
            client.replica().row(nb::logical_switch::TABLE, switch).unwrap().get(nb::logical_switch::NAME),
            "sw0"
        );

        let mut txn = Transaction::new(nb::DATABASE);
        txn.comment("one operation before");
        txn.insert(nb::logical_switch_port::TABLE)
            .set(nb::logical_switch_port::NAME, "x")
            .set(nb::logical_switch_port::TAG, Some(70_000));
        let Outcome::Failed(error) = client.commit(txn).await else { panic!("tag 70000 accepted") };
        assert_eq!((error.operation, error.error.as_str()), (Some(1), "constraint violation"), "{error}");
        let mut txn = Transaction::new(nb::DATABASE);
        txn.update(nb::logical_switch::TABLE, switch).set(nb::logical_switch::PORTS, [Uuid::random()]);
        let Outcome::Failed(error) = client.commit(txn).await else { panic!("dangling reference accepted") };
        assert_eq!((error.operation, error.error.as_str()), (None, "referential integrity violation"), "{error}");

        let global = client.replica().rows(nb::nb_global::TABLE).next().unwrap().uuid();
        let mut txn = Transaction::new(nb::DATABASE);
        txn.mutate(nb::nb_global::TABLE, global).add(nb::nb_global::NB_CFG, 5);
        txn.delete(nb::logical_switch::TABLE, switch);
        assert!(client.commit(txn).await.is_committed());
        assert_eq!(client.replica().row(nb::nb_global::TABLE, global).unwrap().get(nb::nb_global::NB_CFG), 5);
        assert_eq!(client.replica().len(nb::logical_switch::TABLE), 0);
    });
}

#[test]
fn a_lock_passes_from_client_to_client_and_guards_transactions() {
    let server = OvsdbServer::southbound().unwrap();
    runtime().block_on(async {
        let config = || ClientConfig {
            lock: Some("ovn_northd".to_owned()),
            ..ClientConfig::new(sb::DATABASE, server.remote()).monitor(sb::sb_global::TABLE)
        };
        let touch = |client: &Watched| {
            let global = client.replica().rows(sb::sb_global::TABLE).next().unwrap().uuid();
            let mut txn = Transaction::new(sb::DATABASE);
            txn.mutate(sb::sb_global::TABLE, global).add(sb::sb_global::NB_CFG, 1);
            txn
        };
        let mut first = Watched::start(config());
        first.event(|event| matches!(event, Event::Lock(LockState::Acquired))).await;
        let mut second = Watched::start(config());
        second.event(|event| matches!(event, Event::Lock(LockState::Contended))).await;
        let txn = touch(&first);
        assert!(first.commit(txn).await.is_committed());
        let txn = touch(&second);
        assert_eq!(second.commit(txn).await, Outcome::NotOwner);
        drop(first);
        second.event(|event| matches!(event, Event::Lock(LockState::Acquired))).await;
        let txn = touch(&second);
        assert!(second.commit(txn).await.is_committed());
        let mut third = Watched::start(ClientConfig { steal_lock: true, ..config() });
        third.event(|event| matches!(event, Event::Lock(LockState::Acquired))).await;
        second.event(|event| matches!(event, Event::Lock(LockState::Lost))).await;
        third.client.set_lock(None);
        third.event(|event| matches!(event, Event::Lock(LockState::Lost))).await;
        let txn = touch(&third);
        assert!(third.commit(txn).await.is_committed(), "no lock configured, none asserted");
    });
}

#[test]
fn conditions_narrow_and_widen_what_the_replica_holds() {
    let server = OvsdbServer::southbound().unwrap();
    server
        .sbctl("chassis-add h1 geneve 192.0.2.1 -- chassis-add h2 geneve 192.0.2.2 -- chassis-add h3 geneve 192.0.2.3")
        .unwrap();
    runtime().block_on(async {
        let name = |name: &str| Clause::equal(sb::chassis::NAME, name);
        let mut config = ClientConfig::new(sb::DATABASE, server.remote()).monitor(sb::chassis::TABLE);
        config.conditions = vec![(sb::chassis::TABLE, Condition::any([name("h1")]))];
        let mut client = Watched::start(config);
        client.synchronized().await;
        let names = |client: &Watched| {
            let mut names: Vec<String> =
                client.replica().rows(sb::chassis::TABLE).map(|row| row.get(sb::chassis::NAME).to_string()).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(names(&client), "h1");
        for (condition, expected) in [
            (Condition::any([name("h1"), name("h3")]), "h1 h3"),
            (Condition::False, ""),
            (Condition::any([name("h2")]), "h2"),
            (Condition::any([name("h2")]), "h2"),
            (Condition::True, "h1 h2 h3"),
        ] {
            let number = client.client.set_conditions([(sb::chassis::TABLE, condition)]);
            client
                .event(|event| matches!(event, Event::ConditionAcknowledged(acknowledged) if *acknowledged >= number))
                .await;
            assert_eq!(names(&client), expected);
        }
    });
}

#[test]
fn a_restarted_server_is_found_again_and_only_real_changes_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let start = || OvsdbServer::builder("nb").directory(directory.path());
    let server = start().schema(oxbow_testkit::ovsdb::NB_SCHEMA).start().unwrap();
    server.nbctl("init -- ls-add sw0 -- ls-add sw1").unwrap();
    let (remote, file) = (server.remote(), server.files()[0].clone());
    runtime().block_on(async {
        let mut client = Watched::start(nb_config(remote));
        client.synchronized().await;
        drop(server);
        client.event(|event| matches!(event, Event::Disconnected { .. })).await;
        assert_eq!(client.replica().len(nb::logical_switch::TABLE), 2, "the last state stays");
        assert_eq!(client.commit(Transaction::new(nb::DATABASE)).await, Outcome::NotConnected);
        assert_eq!(client.status().text(), "not connected");
        client.clear_changes();
        // The socket of the killed server is still there.
        std::fs::remove_file(directory.path().join("nb.sock")).unwrap();
        let server = start().database(file).start().unwrap();
        client.synchronized().await;
        assert_eq!(client.changes(), [], "nothing really changed");
        server.nbctl("ls-del sw1").unwrap();
        client.until("one switch", |replica| (replica.len(nb::logical_switch::TABLE) == 1).then_some(())).await;
    });
}

#[test]
fn remotes_can_be_changed_while_running() {
    let (first, second) = (OvsdbServer::northbound().unwrap(), OvsdbServer::northbound().unwrap());
    second.nbctl("ls-add only-there").unwrap();
    runtime().block_on(async {
        let mut client = Watched::start(nb_config(first.remote()));
        client.synchronized().await;
        client.client.set_remotes(&format!("{},{}", first.remote(), second.remote()));
        client.client.force_reconnect();
        client.synchronized().await;
        client.client.set_remotes(&second.remote());
        client
            .until("the other server's switch", |replica| (replica.len(nb::logical_switch::TABLE) == 1).then_some(()))
            .await;
        assert_eq!(client.status().remote, Some(second.remote()));
    });
}

#[test]
fn an_unreachable_a_malformed_and_a_foreign_remote_are_named_and_skipped() {
    let (server, other) = (OvsdbServer::northbound().unwrap(), OvsdbServer::southbound().unwrap());
    runtime().block_on(async {
        for (wrong, reason) in [
            ("unix:/nonexistent/db.sock".to_owned(), "No such file or directory"),
            ("udp:127.0.0.1:1".to_owned(), "is not a remote of the form"),
            (other.remote(), "server does not have OVN_Northbound database; trying another server"),
            ("ssl:127.0.0.1:1".to_owned(), "ssl remote needs a private key (-p)"),
        ] {
            let mut client = Watched::start(nb_config(wrong.clone()));
            client
                .status_until(&format!("{wrong} refused"), |status| {
                    status.last_error.as_deref().is_some_and(|error| error.contains(reason))
                })
                .await;
            client.client.set_remotes(&format!("{wrong},{}", server.remote()));
            client.synchronized().await;
        }
    });
}

#[test]
fn a_socket_path_beyond_the_limit_of_socket_addresses_works() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(60)).join("e".repeat(60));
    std::fs::create_dir_all(&deep).unwrap();
    let server = OvsdbServer::northbound().unwrap();
    let socket = deep.join("nb.sock");
    assert!(socket.as_os_str().len() > 107);
    server.add_remote(&format!("punix:{}", socket.display())).unwrap();
    runtime().block_on(async {
        let mut client = Watched::start(nb_config(format!("unix:{}", socket.display())));
        client.synchronized().await;
        assert_eq!(client.replica().len(nb::nb_global::TABLE), 1);
    });
}

#[test]
fn a_database_file_reads_as_the_server_that_wrote_it() {
    let server = OvsdbServer::northbound().unwrap();
    server.nbctl("ls-add sw0 -- set Logical_Switch sw0 other_config:a=1 other_config:b=2").unwrap();
    server.nbctl("lsp-add sw0 p1 -- lsp-add sw0 p2 -- lsp-add sw0 p3 -- lsp-set-addresses p1 unknown dynamic").unwrap();
    server
        .nbctl("remove Logical_Switch sw0 other_config a -- set Logical_Switch sw0 other_config:b=7 -- lsp-del p2")
        .unwrap();
    server.nbctl("lsp-set-addresses p1 unknown -- set NB_Global . nb_cfg=3").unwrap();
    runtime().block_on(async {
        let mut client = Watched::start(nb_config(server.remote()));
        client.synchronized().await;
        let from_file = load_database_file(&server.files()[0], nb::DATABASE).unwrap();
        // NB_Global.connections and the like are all monitored, so the two agree in everything.
        assert_eq!(&from_file, client.replica(), "file:\n{from_file:?}\nserver:\n{:?}", client.replica());
        // Once compacted the file has one record.
        server.appctl(&["ovsdb-server/compact"]).unwrap();
        assert_eq!(&load_database_file(&server.files()[0], nb::DATABASE).unwrap(), client.replica());
    });
    let error = load_database_file(&server.files()[0], sb::DATABASE).unwrap_err();
    assert_eq!(error.to_string(), "file holds database OVN_Northbound, not OVN_Southbound");
}

#[test]
fn a_schema_conversion_is_followed_without_losing_or_inventing_anything() {
    let server = OvsdbServer::northbound().unwrap();
    server.nbctl("ls-add sw0 -- lr-add lr0 -- lrp-add lr0 lrp0 0a:00:00:00:00:01 10.0.0.1/24").unwrap();
    let mut schema: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(oxbow_testkit::ovsdb::NB_SCHEMA).unwrap()).unwrap();
    schema["version"] = "7.0.99".into();
    schema["tables"]["NAT"]["columns"]["match"] = serde_json::json!({"type": "string"});
    let directory = tempfile::tempdir().unwrap();
    let newer = directory.path().join("newer.ovsschema");
    std::fs::write(&newer, schema.to_string()).unwrap();
    runtime().block_on(async {
        let mut client = Watched::start(nb_config(server.remote()));
        client.synchronized().await;
        assert!(!client.replica().has_column(nb::nat::MATCH));
        client.clear_changes();
        let output = std::process::Command::new("ovsdb-client")
            .arg("convert")
            .arg(server.remote())
            .arg(&newer)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        client.until_column(nb::nat::MATCH).await;
        assert_eq!(client.changes(), [], "the rows are the same");
        assert_eq!(client.status().text(), "connected");
        server.nbctl("ls-del sw0").unwrap();
        client.until("no switch", |replica| (replica.len(nb::logical_switch::TABLE) == 0).then_some(())).await;
    });
}
