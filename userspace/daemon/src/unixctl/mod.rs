//! The control socket that `ovn-appctl -t` and `ovs-appctl -t` speak to.
//!
//! The protocol is JSON-RPC 1.0 over a unix stream socket, one request at a time: `method` is the command, `params` its
//! arguments, all strings; the answer's `result` or `error` is a text. Commands about the process itself (logging,
//! counters, version) are answered on the spot. A daemon's own commands are registered in [`Commands`] with a function
//! that turns their arguments into the daemon's command type, and arrive in its event loop as [`Request`]s, which it
//! answers when it sees fit; the client waits meanwhile.

mod registry;
mod server;
mod socket;

pub use registry::Commands;
pub(crate) use server::{Builtins, serve};
pub use socket::{ControlSocket, SocketError};

use tokio::sync::oneshot;

/// The answer to a command: a text, or an error text (which makes appctl exit with status 2).
pub type Answer = Result<String, String>;

/// One command for the daemon's event loop, with the way to answer it.
#[derive(Debug)]
pub struct Request<C> {
    /// What is asked.
    pub command: C,
    /// Where the answer goes.
    pub reply: Reply,
}

/// The way to answer one command. Dropping it without an answer reports an internal error to the client.
#[derive(Debug)]
pub struct Reply {
    answer: oneshot::Sender<Answer>,
    /// Ends when the answer has been written to the client, or cannot be.
    written: oneshot::Receiver<()>,
}

impl Reply {
    /// Answers with `text`, which may be empty.
    pub fn ok(self, text: impl Into<String>) {
        self.send(Ok(text.into()));
    }

    /// Answers with an error.
    pub fn error(self, text: impl Into<String>) {
        self.send(Err(text.into()));
    }

    /// Answers with either. A client that has gone away is not an error.
    pub fn send(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }

    /// Answers, and waits until the client has been sent the answer: for commands like `exit`, after which nobody would
    /// send it any more.
    pub async fn send_and_wait(self, answer: Answer) {
        // The socket takes a short text at once; a client that reads nothing must not keep the daemon alive.
        const LONGEST: std::time::Duration = std::time::Duration::from_secs(1);
        let _ = self.answer.send(answer);
        let _ = tokio::time::timeout(LONGEST, self.written).await;
    }
}
