//! What the client's tests against real servers share.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::time::Duration;

use oxbow_ovsdb::{Client, ClientConfig, ConnectionStatus, Event, Outcome, Replica, RowChange, Transaction};

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A client whose every change is checked and kept: a change's old row has to be the version last seen.
pub(crate) struct Watched {
    pub(crate) client: Client,
    shadow: Replica,
    changes: Vec<RowChange>,
    seen: Vec<String>,
}

impl Watched {
    pub(crate) fn start(config: ClientConfig) -> Self {
        let shadow = Replica::new(config.database);
        Watched { client: Client::start(config), shadow, changes: Vec::new(), seen: Vec::new() }
    }

    pub(crate) fn replica(&self) -> &Replica {
        self.client.replica()
    }

    pub(crate) fn status(&self) -> ConnectionStatus {
        self.client.status()
    }

    pub(crate) fn changes(&self) -> &[RowChange] {
        &self.changes
    }

    pub(crate) fn clear_changes(&mut self) {
        self.changes.clear();
    }

    fn take(&mut self, event: &Event) {
        self.seen.push(format!("{event:?}").chars().take(300).collect());
        let Event::Updates(changes) = event else { return };
        for change in changes {
            let shadow = self.shadow.row(change.table, change.uuid);
            assert_eq!(change.old.is_some(), shadow.is_some(), "{change:?}");
            match &change.new {
                Some(new) => {
                    self.shadow.put(oxbow_ovsdb::RowDraft::from_row(new));
                }
                None => {
                    self.shadow.remove(change.table, change.uuid);
                }
            }
        }
        for table in self.client.replica().database().tables {
            assert_eq!(self.shadow.len(table), self.client.replica().len(table), "{table:?} after {changes:?}");
        }
        self.changes.extend(changes.iter().cloned());
    }

    async fn next(&mut self, awaited: &str) -> Event {
        match tokio::time::timeout(PATIENCE, self.client.next()).await {
            Ok(event) => {
                self.take(&event);
                event
            }
            Err(_) => panic!(
                "waiting for {awaited}: no event for {PATIENCE:?}\nstatus {:?}\nevents so far:\n{}\nreplica:\n{:?}",
                self.client.status(),
                self.seen.join("\n"),
                self.client.replica()
            ),
        }
    }

    /// Waits for an event for which `wanted` holds.
    pub(crate) async fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next("an event").await;
            if wanted(&event) {
                return event;
            }
        }
    }

    pub(crate) async fn synchronized(&mut self) {
        self.event(|event| matches!(event, Event::Connected { .. })).await;
    }

    /// Waits until `condition` gives something of the replica.
    pub(crate) async fn until<T>(&mut self, awaited: &str, condition: impl Fn(&Replica) -> Option<T>) -> T {
        loop {
            if let Some(found) = condition(self.client.replica()) {
                return found;
            }
            self.next(awaited).await;
        }
    }

    /// Waits until the server is known to have a column. Nobody reports that by itself, so events are taken as they come.
    pub(crate) async fn until_column(&mut self, column: impl Into<oxbow_ovsdb::AnyColumn>) {
        let column = column.into();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.client.replica().has_column(column) {
            assert!(tokio::time::Instant::now() < deadline, "no {column:?}: {:?}", self.client.status());
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(20), self.client.next()).await {
                self.take(&event);
            }
        }
    }

    /// Waits until the connection's status is as wanted.
    pub(crate) async fn status_until(&mut self, awaited: &str, wanted: impl Fn(&ConnectionStatus) -> bool) {
        let mut status = self.client.watch_status();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(|status| wanted(status))).await.map(drop);
        assert!(found.is_ok(), "waiting for {awaited}: {:?}", self.client.status());
    }

    /// Runs a transaction to its end.
    pub(crate) async fn commit(&mut self, transaction: Transaction) -> Outcome {
        let id = self.client.transact(transaction);
        loop {
            match self.next("a transaction's outcome").await {
                Event::TransactionDone { id: done, outcome } if done == id => return outcome,
                _ => {}
            }
        }
    }
}

/// The TCP port that a server listens on, which it was left to choose: read from its log, where it says so.
pub(crate) fn listening_port(server: &oxbow_testkit::OvsdbServer) -> u16 {
    let log = server.socket().with_extension("log");
    let log = std::fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    let (_, port) = log.rsplit_once("listening on port ").unwrap_or_else(|| panic!("no port in log:\n{log}"));
    port.split_whitespace()
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("no port in log:\n{log}"))
}
