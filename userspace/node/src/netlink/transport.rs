//! Requests and their answers, with the kernel's own words on errors (NETLINK_EXT_ACK).

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink {what}: {source}")]
    Socket {
        /// During what.
        what: &'static str,
        /// System's error.
        source: std::io::Error,
    },
    /// The kernel refused the request.
    #[error("{}", refused_text(.source, .message.as_deref()))]
    Refused {
        /// Its error number.
        source: std::io::Error,
        /// Its explanation, if any.
        message: Option<String>,
    },
    /// An answer could not be understood.
    #[error("cannot decode a netlink answer: {0}")]
    Decode(String),
}

fn refused_text(source: &std::io::Error, message: Option<&str>) -> String {
    let text = errno_text(source);
    match message {
        Some(message) => format!("{text}: {message}"),
        None => text,
    }
}

/// The system's text for an error without Rust's "(os error N)".
fn errno_text(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

impl NetlinkError {
    /// The error number, when there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Socket { source, .. } | NetlinkError::Refused { source, .. } => source.raw_os_error(),
            NetlinkError::Decode(_) => None,
        }
    }

    /// The bare text of the error number: what `Interface.error` quotes.
    pub fn reason(&self) -> String {
        match self {
            NetlinkError::Socket { source, .. } | NetlinkError::Refused { source, .. } => errno_text(source),
            NetlinkError::Decode(text) => text.clone(),
        }
    }
}

pub(super) fn socket_error(what: &'static str) -> impl FnOnce(std::io::Error) -> NetlinkError {
    move |source| NetlinkError::Socket { what, source }
}

/// A socket for requests.
pub struct Requester {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for Requester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requester").field("sequence", &self.sequence).finish()
    }
}

impl Requester {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(socket_error("socket"))?;
        socket.bind_auto().map_err(socket_error("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(socket_error("connect"))?;
        // Both are conveniences of newer kernels: explanations, and answers that do not echo the request.
        for set in [socket.set_ext_ack(true), socket.set_cap_ack(true)] {
            if let Err(error) = set {
                tracing::debug!(target: "netlink", "extended acknowledgements are not available ({error})");
            }
        }
        Ok(Requester { socket, sequence: 0 })
    }

    /// Sends a request and waits for its acknowledgement; answers that come before it are returned.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's reason.
    pub fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags)
    }

    /// Asks for everything of a kind. An interrupted dump (the table changed meanwhile) is asked for again.
    ///
    /// # Errors
    /// As [`Requester::request`].
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(socket_error("send"))?;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full().map_err(socket_error("receive"))?;
            for answer in split(&bytes) {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer);
                let answer = answer.map_err(|error| NetlinkError::Decode(error.to_string()))?;
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                let flags = answer.header.flags;
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(answers),
                        Some(code) => {
                            return Err(NetlinkError::Refused {
                                source: std::io::Error::from_raw_os_error(code.get().abs()),
                                message: explanation(&error.header, flags),
                            });
                        }
                    },
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    _ => {}
                }
            }
        }
    }
}

/// Cuts a datagram into its messages.
pub(super) fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        if length < 16 || length > bytes.len() {
            return None;
        }
        let (message, rest) = bytes.split_at(length);
        bytes = &rest[(length.next_multiple_of(4) - length).min(rest.len())..];
        Some(message)
    })
}

/// The text of an extended acknowledgement: attribute 1 after the echoed header (and, unless capped, the echoed request).
fn explanation(echo: &[u8], flags: u16) -> Option<String> {
    const CAPPED: u16 = 0x100;
    const ACK_TLVS: u16 = 0x200;
    const MESSAGE: u16 = 1;
    if flags & ACK_TLVS == 0 {
        return None;
    }
    let echoed = u32::from_ne_bytes(echo.get(..4)?.try_into().ok()?) as usize;
    let mut rest = echo.get(if flags & CAPPED != 0 { 16 } else { echoed.next_multiple_of(4) }..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        if kind == MESSAGE {
            let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_cut_at_aligned_lengths_and_never_beyond_the_end() {
        let mut two = Vec::new();
        for length in [17u32, 16] {
            let mut message = length.to_ne_bytes().to_vec();
            message.resize(length as usize, 7);
            message.resize((length as usize).next_multiple_of(4), 0);
            two.extend(message);
        }
        assert_eq!(split(&two).map(<[u8]>::len).collect::<Vec<_>>(), [17, 16]);
        assert_eq!(split(&two[..30]).count(), 1);
        assert_eq!(split(&[0; 16]).count(), 0);
        assert_eq!(split(&[]).count(), 0);
    }

    #[test]
    fn the_explanation_is_found_behind_a_capped_and_a_full_echo() {
        let attribute = |text: &str| {
            let mut bytes = ((text.len() + 5) as u16).to_ne_bytes().to_vec();
            bytes.extend(1u16.to_ne_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let mut echo = 24u32.to_ne_bytes().to_vec();
        echo.resize(16, 0);
        let capped = [echo.clone(), attribute("no such thing")].concat();
        assert_eq!(explanation(&capped, 0x300).as_deref(), Some("no such thing"));
        echo.resize(24, 0);
        let full = [echo, attribute("no such thing")].concat();
        assert_eq!(explanation(&full, 0x200).as_deref(), Some("no such thing"));
        assert_eq!(explanation(&full, 0), None);
        assert_eq!(explanation(&full[..10], 0x200), None);
    }
}
