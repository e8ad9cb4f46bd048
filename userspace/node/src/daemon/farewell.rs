//! `exit` without `--restart`: what is ours is taken back.

use super::Node;
use crate::engine::Leaving;
use oxbow_ovsdb::{Client, Event, Transaction};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest wait for the databases, once for what is to be known and once for what is written.
const FAREWELL: Duration = Duration::from_secs(5);

impl Node {
    /// Takes leave: rows first, while the databases still listen, then the kernel.
    pub(super) async fn farewell(&mut self) {
        if timeout_at(Instant::now() + FAREWELL, self.learn_what_is_ours()).await.is_err() {
            tracing::warn!(target: "main", "not all rows of this chassis are known: those that are not stay as they are");
        }
        let (local, south) = self.engine.cleanup();
        let deadline = Instant::now() + FAREWELL;
        if let Some((sb, transaction)) = self.sb.as_mut().zip(south) {
            write(&mut sb.client, transaction, deadline, "the Southbound database").await;
        }
        if let Some(transaction) = local {
            write(&mut self.ovs, transaction, deadline, "the Open_vSwitch database").await;
        }
        self.engine.leave_kernel();
    }

    /// Reads on until all that is to be taken back is known: a process may be told to leave before it has read what a former one left.
    async fn learn_what_is_ours(&mut self) {
        loop {
            match self.engine.leaving() {
                Leaving::Ready => return,
                Leaving::Ask(conditions) => {
                    if let Some(southbound) = &mut self.sb {
                        let request = southbound.client.set_conditions(conditions);
                        self.engine.conditions_sent(request);
                    }
                }
                Leaving::Wait => {}
            }
            self.follow_remote();
            let sb = self.sb.as_mut();
            tokio::select! {
                event = self.ovs.next() => self.ovs_event(event),
                event = async { match sb { Some(sb) => sb.client.next().await, None => std::future::pending().await } } => self.sb_event(event),
            }
        }
    }
}

/// Sends a last transaction and waits for its end.
async fn write(client: &mut Client, transaction: Transaction, deadline: Instant, database: &str) {
    let id = client.transact(transaction);
    let done = async {
        loop {
            if let Event::TransactionDone { id: done, outcome } = client.next().await
                && done == id
            {
                return outcome;
            }
        }
    };
    match timeout_at(deadline, done).await {
        Ok(outcome) if outcome.is_committed() => {}
        Ok(outcome) => tracing::warn!(target: "main", "could not leave {database}: {outcome:?}"),
        Err(_) => tracing::warn!(target: "main", "{database} does not answer: what is ours in it stays"),
    }
}
