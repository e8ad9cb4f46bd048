//! Where expanded lines are written: the log file and the ways to a syslog daemon.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// The log file of `--log-file`.
#[derive(Debug, Default)]
pub(super) struct LogFile {
    path: Option<PathBuf>,
    file: Option<File>,
}

impl LogFile {
    /// Opens `path` for appending, creating it with mode 0640.
    pub(super) fn open(&mut self, path: PathBuf) -> io::Result<()> {
        self.path = Some(path);
        self.reopen()
    }

    /// Opens the file under its name again: after logrotate has renamed it this begins a new one. If that fails the old
    /// file stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = Some(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?);
        }
        Ok(())
    }

    /// Stops logging to the file until [`LogFile::reopen`].
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Appends a line in one write, so that lines of several processes do not mix. A full disk must not stop a
    /// control plane, and there is nowhere left to report it.
    pub(super) fn write(&mut self, line: &str) {
        if let Some(file) = &mut self.file {
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// How messages reach the host's syslog daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogMethod {
    /// As libc's `syslog()` does: RFC 3164 datagrams to `/dev/log`.
    Libc,
    /// Datagrams to a unix socket.
    Unix(PathBuf),
    /// Datagrams to an address.
    Udp(SocketAddr),
    /// Nowhere.
    Null,
}

impl SyslogMethod {
    /// Reads the argument of `--syslog-method`.
    ///
    /// # Errors
    /// A sentence naming what is wrong with it.
    pub fn parse(text: &str) -> Result<SyslogMethod, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(SyslogMethod::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("udp:") {
            return parse_target(address).map(SyslogMethod::Udp);
        }
        match text {
            "libc" => Ok(SyslogMethod::Libc),
            "null" => Ok(SyslogMethod::Null),
            _ => Err(format!("unsupported syslog method '{text}' (use libc, unix:FILE, udp:IP:PORT or null)")),
        }
    }
}

/// Reads the argument of `--syslog-target`, a numerical address with an optional port (514).
///
/// # Errors
/// A sentence naming what is wrong with it.
pub fn parse_target(text: &str) -> Result<SocketAddr, String> {
    const SYSLOG_PORT: u16 = 514;
    text.parse()
        .or_else(|_| text.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, SYSLOG_PORT)))
        .map_err(|_| format!("{text}: not a numerical IP address and port"))
}

/// An open way to a syslog daemon. Datagrams that nobody takes are dropped, as libc drops them; a socket that was
/// missing at first is tried again with each message.
#[derive(Debug)]
pub(super) struct Syslog {
    pub(super) method: SyslogMethod,
    unix: Option<UnixDatagram>,
    udp: Option<UdpSocket>,
}

impl Syslog {
    pub(super) fn new(method: SyslogMethod) -> Syslog {
        Syslog { method, unix: None, udp: None }
    }

    pub(super) fn send(&mut self, datagram: &[u8]) {
        match &self.method {
            SyslogMethod::Null => {}
            SyslogMethod::Libc => send_unix(&mut self.unix, Path::new("/dev/log"), datagram),
            SyslogMethod::Unix(path) => send_unix(&mut self.unix, path, datagram),
            SyslogMethod::Udp(address) => send_udp(&mut self.udp, *address, datagram),
        }
    }
}

fn send_unix(socket: &mut Option<UnixDatagram>, path: &Path, datagram: &[u8]) {
    for _ in 0..2 {
        if socket.is_none() {
            *socket = UnixDatagram::unbound()
                .and_then(|socket| socket.set_nonblocking(true).and_then(|()| socket.connect(path)).map(|()| socket))
                .ok();
        }
        match socket.as_ref().map(|socket| socket.send(datagram)) {
            // The daemon was restarted: connect to its new socket once.
            Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => *socket = None,
            _ => return,
        }
    }
}

pub(super) fn send_udp(socket: &mut Option<UdpSocket>, address: SocketAddr, datagram: &[u8]) {
    if socket.is_none() {
        let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        *socket = UdpSocket::bind(any).and_then(|socket| socket.set_nonblocking(true).map(|()| socket)).ok();
    }
    if let Some(socket) = socket {
        let _ = socket.send_to(datagram, address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_targets_are_read() {
        assert_eq!(SyslogMethod::parse("unix:/x/y.sock"), Ok(SyslogMethod::Unix("/x/y.sock".into())));
        assert_eq!(SyslogMethod::parse("udp:127.0.0.1:5"), Ok(SyslogMethod::Udp(([127, 0, 0, 1], 5).into())));
        assert_eq!(parse_target("::1"), Ok(SocketAddr::new("::1".parse().unwrap(), 514)));
        assert_eq!(parse_target("[::1]:9"), Ok(SocketAddr::new("::1".parse().unwrap(), 9)));
        assert!(SyslogMethod::parse("tcp:x").unwrap_err().contains("'tcp:x'"));
        assert!(parse_target("localhost:514").unwrap_err().contains("localhost:514"));
    }

    #[test]
    fn a_syslog_daemon_that_restarts_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("syslog.sock");
        let mut syslog = Syslog::new(SyslogMethod::Unix(path.clone()));
        syslog.send(b"nobody listens");
        let mut buffer = [0; 64];
        for round in 0..2 {
            let daemon = UnixDatagram::bind(&path).unwrap();
            syslog.send(format!("round {round}").as_bytes());
            let got = daemon.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..got], format!("round {round}").as_bytes());
            std::fs::remove_file(&path).unwrap();
        }
    }
}
