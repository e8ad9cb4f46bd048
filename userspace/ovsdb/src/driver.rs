//! The task that carries out what a session asks for: sockets, timers and commands.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::session::{Action, LockRequest, Session, SessionEvent};
use crate::stream::{self, Stream};
use crate::{Condition, ConnectionStatus, Framer, TableDef, TlsFiles, Transaction, TransactionId};

/// What the client asks of its task.
#[derive(Debug)]
pub(crate) enum Command {
    Transact(TransactionId, Transaction),
    SetConditions(u64, Vec<(&'static TableDef, Condition)>),
    SetRemotes(Vec<String>),
    SetProbeInterval(Duration),
    SetLeaderOnly(bool),
    SetLock(Option<LockRequest>),
    SetTls(TlsFiles),
    ForceReconnect,
    ResetClusterState,
    Resynchronize(String),
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

enum Socket {
    Closed,
    Connecting(Connecting),
    Open(Box<Open>),
}

struct Open {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    framer: Framer,
    unsent: BytesMut,
    unflushed: bool,
}

/// What woke the task.
enum Wake {
    Command(Option<Command>),
    Connected(io::Result<Box<dyn Stream>>),
    Received(io::Result<usize>),
    Sent(io::Result<()>),
    Time,
}

/// The least room to read into.
const READ_ROOM: usize = 64 * 1024;

impl Open {
    fn new(stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Open { reader, writer, framer: Framer::default(), unsent: BytesMut::new(), unflushed: false }
    }

    /// Sends what there is to send and receives, whichever can be done first.
    async fn transfer(&mut self) -> Wake {
        let Open { reader, writer, framer, unsent, unflushed } = self;
        let buffer = framer.buffer();
        if buffer.capacity() - buffer.len() < READ_ROOM / 4 {
            buffer.reserve(READ_ROOM);
        }
        let sends = !unsent.is_empty() || *unflushed;
        let send = async {
            // `unflushed` outlives a cancelled flush, so it is made up for at the next call.
            if unsent.has_remaining() {
                *unflushed = true;
                if writer.write_buf(unsent).await? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            } else {
                writer.flush().await?;
                *unflushed = false;
            }
            Ok(())
        };
        tokio::select! {
            received = reader.read_buf(buffer) => Wake::Received(received),
            sent = send, if sends => Wake::Sent(sent),
        }
    }
}

impl Socket {
    async fn progress(&mut self) -> Wake {
        match self {
            Socket::Closed => std::future::pending().await,
            Socket::Connecting(connecting) => Wake::Connected(connecting.await),
            Socket::Open(open) => open.transfer().await,
        }
    }
}

/// Runs a session until the client is dropped.
pub(crate) async fn run(
    mut session: Session,
    mut tls: TlsFiles,
    mut commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<SessionEvent>,
    status: watch::Sender<ConnectionStatus>,
) {
    let origin = Instant::now();
    let mut socket = Socket::Closed;
    session.tick(Duration::ZERO);
    loop {
        while let Some(action) = session.next_action() {
            match (action, &mut socket) {
                (Action::Connect(remote), socket) => {
                    let tls = tls.clone();
                    *socket = Socket::Connecting(Box::pin(async move { stream::connect(&remote, &tls).await }));
                }
                (Action::Send(bytes), Socket::Open(open)) => open.unsent.extend_from_slice(&bytes),
                // The session sends only between connected() and Close.
                (Action::Send(_), _) => {}
                (Action::Close, socket) => *socket = Socket::Closed,
            }
        }
        publish(&session, &status);
        while let Some(event) = session.next_event() {
            if events.send(event).is_err() {
                return;
            }
        }
        let deadline = session.deadline();
        let time = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(origin + deadline).await,
                None => std::future::pending().await,
            }
        };
        let wake = tokio::select! {
            command = commands.recv() => Wake::Command(command),
            wake = socket.progress() => wake,
            () = time => Wake::Time,
        };
        let now = origin.elapsed();
        match wake {
            Wake::Command(None) => return,
            Wake::Command(Some(Command::SetTls(files))) => tls = files,
            Wake::Command(Some(command)) => obey(&mut session, now, command),
            Wake::Connected(Ok(stream)) => {
                socket = Socket::Open(Box::new(Open::new(stream)));
                session.connected(now);
            }
            Wake::Connected(Err(error)) => {
                socket = Socket::Closed;
                session.connection_lost(now, &error.to_string());
            }
            Wake::Received(Ok(0)) => {
                socket = Socket::Closed;
                session.connection_lost(now, "connection closed by peer");
            }
            Wake::Received(Ok(_)) => receive(&mut session, &mut socket, now),
            Wake::Received(Err(error)) | Wake::Sent(Err(error)) => {
                socket = Socket::Closed;
                session.connection_lost(now, &error.to_string());
            }
            Wake::Sent(Ok(())) => {}
            Wake::Time => session.tick(now),
        }
    }
}

/// Hands the whole messages to the session, until it gives the connection up.
fn receive(session: &mut Session, socket: &mut Socket, now: Duration) {
    session.heard(now);
    let Socket::Open(open) = socket else { return };
    while session.is_connected() {
        match open.framer.next_frame() {
            Ok(None) => return,
            Ok(Some(frame)) => session.received(now, &frame),
            Err(error) => {
                *socket = Socket::Closed;
                session.connection_lost(now, &error.to_string());
                return;
            }
        }
    }
}

fn obey(session: &mut Session, now: Duration, command: Command) {
    match command {
        Command::Transact(id, transaction) => session.transact(id, &transaction),
        Command::SetConditions(number, conditions) => session.set_conditions(number, conditions),
        Command::SetRemotes(remotes) => session.set_remotes(now, remotes),
        Command::SetProbeInterval(interval) => session.set_probe_interval(interval),
        Command::SetLeaderOnly(leader_only) => session.set_leader_only(now, leader_only),
        Command::SetLock(lock) => session.set_lock(lock),
        Command::SetTls(_) => {}
        Command::ForceReconnect => session.force_reconnect(now),
        Command::ResetClusterState => session.reset_cluster_state(),
        Command::Resynchronize(reason) => session.resynchronize(now, &reason),
    }
}

fn publish(session: &Session, status: &watch::Sender<ConnectionStatus>) {
    status.send_if_modified(|current| {
        let same = current.synchronized == session.is_synchronized()
            && current.remote.as_deref() == session.remote()
            && current.last_error.as_deref() == session.last_error();
        if !same {
            *current = ConnectionStatus {
                synchronized: session.is_synchronized(),
                remote: session.remote().map(str::to_owned),
                last_error: session.last_error().map(str::to_owned),
            };
        }
        !same
    });
}
