//! A session with a bridge's management socket, held open so that the end of its ovs-vswitchd is noticed at once (the flows end with it), and
//! that it is noticed when the bridge learns an address.
//!
//! Only what that takes is spoken (OpenFlow 1.5.1): the hello, answers to echo requests, and a monitor of one table, of whose
//! updates nothing but their arrival is of interest. Everything else goes through `ovs-ofctl`.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The version that is offered: 1.5. The bridge may choose a lower one.
const VERSION: u8 = 6;
const HELLO: u8 = 0;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const MULTIPART_REQUEST: u8 = 18;
const MULTIPART_REPLY: u8 = 19;
/// Multipart type of flow monitors (OFPMP_FLOW_MONITOR).
const FLOW_MONITOR: u16 = 16;
/// Flags of a flow monitor: tell of flows added, removed and changed.
const MONITOR_CHANGES: u16 = 1 << 1 | 1 << 2 | 1 << 3;
/// Any port, any group: OFPP_ANY and OFPG_ANY.
const ANY: u32 = 0xffff_ffff;
/// Version, type, length of the message, transaction id.
const HEADER: usize = 8;
/// How long a connection to another host may take.
const PATIENCE: Duration = Duration::from_secs(3);

trait Stream: Read + Write + AsFd + Send {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// The session.
pub(super) struct Session {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// Table whose changes are to be told.
    table: u8,
}

/// What came of messages.
#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    answers: Vec<u8>,
    /// The table has changed.
    changed: bool,
}

impl Session {
    /// Connects to `unix:PATH` or `tcp:ADDRESS:PORT`, and asks to be told of changes in a table.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::InvalidInput`] for any other kind of remote.
    pub(super) fn open(remote: &str, table: u8) -> io::Result<Self> {
        let mut stream: Box<dyn Stream> = if let Some(path) = remote.strip_prefix("unix:") {
            let stream = UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            Box::new(stream)
        } else if let Some(address) = remote.strip_prefix("tcp:") {
            let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, "it is not ADDRESS:PORT");
            let stream = TcpStream::connect_timeout(&address.parse().map_err(invalid)?, PATIENCE)?;
            stream.set_nonblocking(true)?;
            Box::new(stream)
        } else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither unix:PATH nor tcp:ADDRESS:PORT"));
        };
        stream.write_all(&message(VERSION, HELLO, [0; 4], &[]))?;
        Ok(Session { stream, received: Vec::new(), table })
    }

    /// A descriptor that is readable when there is something for [`Session::follow`].
    ///
    /// # Errors
    /// The system's.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }

    /// Reads what waits, and answers what wants an answer. True when the table may have changed.
    ///
    /// # Errors
    /// Why the session has ended.
    pub(super) fn follow(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        let mut changed = false;
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the switch closed the connection")),
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            let taken = self.take_messages()?;
            changed |= taken.changed;
            if !taken.answers.is_empty() {
                // A few bytes on an idle connection: where there is no room for them nobody reads at the other end.
                self.stream.write_all(&taken.answers)?;
            }
        }
    }

    /// Takes whole messages off what was received; the answers to them.
    fn take_messages(&mut self) -> io::Result<Taken> {
        let mut taken = Taken::default();
        let mut at = 0;
        while let Some(header) = self.received.get(at..at + HEADER) {
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if length < HEADER {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is shorter than its header"));
            }
            let Some(whole) = self.received.get(at..at + length) else { break };
            let (version, kind, body) = (whole[0], whole[1], &whole[HEADER..]);
            match kind {
                ECHO_REQUEST => {
                    let transaction = [whole[4], whole[5], whole[6], whole[7]];
                    taken.answers.extend(message(version, ECHO_REPLY, transaction, body));
                }
                // Now the version is agreed on. An older bridge is asked for nothing: its addresses are looked at by the clock.
                HELLO if version >= VERSION => taken.answers.extend(monitor(self.table)),
                MULTIPART_REPLY => taken.changed |= body.starts_with(&FLOW_MONITOR.to_be_bytes()),
                _ => {}
            }
            at += length;
        }
        self.received.drain(..at);
        Ok(taken)
    }
}

/// The request to be told of changes in a table (OpenFlow 1.5.1): ofp_multipart_request, ofp_flow_monitor_request, an empty ofp_match.
fn monitor(table: u8) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(FLOW_MONITOR.to_be_bytes());
    body.extend([0; 6]);
    body.extend(1u32.to_be_bytes());
    body.extend(ANY.to_be_bytes());
    body.extend(ANY.to_be_bytes());
    body.extend(MONITOR_CHANGES.to_be_bytes());
    body.extend([table, 0]);
    body.extend([0, 1, 0, 4, 0, 0, 0, 0]);
    message(VERSION, MULTIPART_REQUEST, [0, 0, 0, 1], &body)
}

fn message(version: u8, kind: u8, transaction: [u8; 4], body: &[u8]) -> Vec<u8> {
    // A body comes from a message of the same length.
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut message = vec![version, kind, length[0], length[1]];
    message.extend(transaction);
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn pair() -> (Session, UnixStream) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("br.mgmt");
        let listener = UnixListener::bind(&path).expect("a socket");
        let session = Session::open(&format!("unix:{}", path.display()), 7).expect("a session");
        (session, listener.accept().expect("a connection").0)
    }

    #[test]
    fn an_echo_is_answered_however_it_is_cut_and_other_messages_are_passed_over() {
        let (mut session, mut switch) = pair();
        let mut hello = [0; 8];
        switch.read_exact(&mut hello).expect("a hello");
        assert_eq!(hello, [6, HELLO, 0, 8, 0, 0, 0, 0]);
        let mut bytes = message(4, 10, [0, 0, 0, 1], &[7; 90]);
        bytes.extend(message(4, ECHO_REQUEST, [1, 2, 3, 4], b"alive?"));
        for part in bytes.chunks(13) {
            switch.write_all(part).expect("room");
            session.follow().expect("alive");
        }
        let mut reply = [0; 14];
        switch.read_exact(&mut reply).expect("a reply");
        assert_eq!(reply[..8], [4, ECHO_REPLY, 0, 14, 1, 2, 3, 4]);
        assert_eq!(&reply[8..], b"alive?");
    }

    #[test]
    fn a_switch_of_the_same_version_is_asked_for_changes_and_their_arrival_is_told() {
        let (mut session, mut switch) = pair();
        switch.read_exact(&mut [0; 8]).expect("a hello");
        switch.write_all(&message(4, HELLO, [0; 4], &[])).expect("room");
        assert!(!session.follow().expect("alive"), "an older one is asked for nothing");
        switch.write_all(&message(6, HELLO, [0; 4], &[])).expect("room");
        session.follow().expect("alive");
        let mut request = [0; 40];
        switch.read_exact(&mut request).expect("a request");
        assert_eq!((request[1], request[3], &request[8..10], request[30]), (MULTIPART_REQUEST, 40, &[0, 16][..], 7));
        switch.write_all(&message(6, MULTIPART_REPLY, [0, 0, 0, 1], &[0, 13, 0, 0, 0, 0, 0, 0])).expect("room");
        assert!(!session.follow().expect("alive"), "another multipart message");
        switch.write_all(&message(6, MULTIPART_REPLY, [0, 0, 0, 1], &[0, 16, 0, 0, 0, 0, 0, 0])).expect("room");
        assert!(session.follow().expect("alive"));
    }

    #[test]
    fn the_switch_s_end_ends_the_session() {
        let (mut session, switch) = pair();
        session.follow().expect("alive");
        drop(switch);
        assert!(session.follow().is_err());
        let (mut session, mut switch) = pair();
        switch.write_all(&[4, 0, 0, 3, 0, 0, 0, 0]).expect("room");
        assert_eq!(session.follow().expect_err("too short").kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            Session::open("ssl:192.0.2.1:6653", 7).err().map(|error| error.kind()),
            Some(io::ErrorKind::InvalidInput)
        );
    }
}
