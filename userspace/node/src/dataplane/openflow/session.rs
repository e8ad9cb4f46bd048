//! A session with a bridge's management socket, held open so that the end of its ovs-vswitchd is noticed at once: the flows end with it.
//!
//! Only what keeps an OpenFlow session alive is spoken (OpenFlow 1.5.1, 7.1 and 7.5.1): the hello, and answers to echo requests. Everything
//! else goes through `ovs-ofctl`.

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
}

impl Session {
    /// Connects to `unix:PATH` or `tcp:ADDRESS:PORT`.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::InvalidInput`] for any other kind of remote.
    pub(super) fn open(remote: &str) -> io::Result<Self> {
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
        Ok(Session { stream, received: Vec::new() })
    }

    /// A descriptor that is readable when there is something for [`Session::follow`].
    ///
    /// # Errors
    /// The system's.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }

    /// Reads what waits, and answers what wants an answer.
    ///
    /// # Errors
    /// Why the session has ended.
    pub(super) fn follow(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the switch closed the connection")),
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            let answers = self.take_messages()?;
            if !answers.is_empty() {
                // A few bytes on an idle connection: where there is no room for them nobody reads at the other end.
                self.stream.write_all(&answers)?;
            }
        }
    }

    /// Takes whole messages off what was received; the answers to them.
    fn take_messages(&mut self) -> io::Result<Vec<u8>> {
        let mut answers = Vec::new();
        let mut at = 0;
        while let Some(header) = self.received.get(at..at + HEADER) {
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if length < HEADER {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is shorter than its header"));
            }
            let Some(whole) = self.received.get(at..at + length) else { break };
            if whole[1] == ECHO_REQUEST {
                answers.extend(message(
                    whole[0],
                    ECHO_REPLY,
                    [whole[4], whole[5], whole[6], whole[7]],
                    &whole[HEADER..],
                ));
            }
            at += length;
        }
        self.received.drain(..at);
        Ok(answers)
    }
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
        let session = Session::open(&format!("unix:{}", path.display())).expect("a session");
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
    fn the_switch_s_end_ends_the_session() {
        let (mut session, switch) = pair();
        session.follow().expect("alive");
        drop(switch);
        assert!(session.follow().is_err());
        let (mut session, mut switch) = pair();
        switch.write_all(&[4, 0, 0, 3, 0, 0, 0, 0]).expect("room");
        assert_eq!(session.follow().expect_err("too short").kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            Session::open("ssl:192.0.2.1:6653").err().map(|error| error.kind()),
            Some(io::ErrorKind::InvalidInput)
        );
    }
}
