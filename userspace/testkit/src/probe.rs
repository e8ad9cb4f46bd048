//! Asking whether packets get from one namespace to another.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use nix::sys::signal::Signal;

use crate::netns::Netns;
use crate::process::Process;
use crate::wait::{Look, PATIENCE, stretched, wait_until};

/// How long one echo request may take, [`stretched`]; the whole of [`ping`] has [`PATIENCE`].
const ONE_ECHO: Duration = Duration::from_secs(1);

/// How long one datagram may take, [`stretched`], before it is sent again.
const ONE_DATAGRAM: Duration = Duration::from_millis(200);

/// How long `ping -W` waits for an answer, in seconds: as long for one that must come as for one that must not.
pub fn echo_wait() -> String {
    stretched(ONE_ECHO).as_secs().to_string()
}

/// Sends echo requests until one is answered, and returns the answering line of `ping`.
pub fn ping(from: &Netns, to: &str) -> Result<String> {
    wait_until(&format!("an echo reply from {to} to {}", from.name()), PATIENCE, || {
        let mut command = Command::new("ping");
        command.args(["-n", "-c", "1", "-W", &echo_wait(), to]);
        let output = from.output(command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer = text.lines().find(|line| line.contains("time=")).map(str::to_owned);
        Ok(answer.map_or_else(|| Look::NotYet(text), Look::Held))
    })
}

/// Sends `count` echo requests 10 ms apart and returns how many were answered.
pub fn ping_count(from: &Netns, to: &str, count: u32) -> Result<u32> {
    let mut command = Command::new("ping");
    command.args(["-n", "-q", "-i", "0.01", "-W", &echo_wait(), "-c", &count.to_string(), to]);
    let output = from.output(command)?;
    received(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The number of answers in the summary that `ping` printed: `3 packets transmitted, 3 received, 0% packet loss`.
///
/// # Errors
///
/// When there is no such summary.
pub fn received(ping_said: &str) -> Result<u32> {
    let received = ping_said.lines().find_map(|line| {
        // iputils writes "3 received", busybox "3 packets received".
        let (before, _) = line.split_once(" received")?;
        before.trim_end_matches(" packets").rsplit(' ').next()?.parse().ok()
    });
    received.with_context(|| format!("ping said:\n{ping_said}"))
}

/// Echo requests every 5 ms until [`PingStream::finish`].
#[derive(Debug)]
pub struct PingStream {
    process: Process,
    what: String,
}

impl PingStream {
    /// Starts it and waits for the first answer. `log` is a new file for what `ping` says.
    pub fn start(from: &Netns, to: &str, log: &Path) -> Result<Self> {
        let mut command = Command::new("ping");
        command.args(["-n", "-i", "0.005", to]);
        let process = from.spawn("ping", command, log)?;
        let stream = Self { process, what: format!("pings from {} to {to}", from.name()) };
        stream.wait_for(1)?;
        Ok(stream)
    }

    /// Waits until `count` more echo requests have been answered.
    pub fn wait_for(&self, count: usize) -> Result<()> {
        let before = self.answered()?.len();
        wait_until(&format!("{count} more answered {}", self.what), PATIENCE, || {
            let answered = self.answered()?.len();
            Ok(Look::when(answered >= before + count, || format!("{} since", answered - before)))
        })
    }

    /// The sequence numbers that were answered so far.
    fn answered(&self) -> Result<BTreeSet<u32>> {
        let text = std::fs::read_to_string(self.process.log())?;
        let numbers = text.lines().filter(|line| line.contains("time="));
        Ok(numbers.filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok()).collect())
    }

    /// Waits for one more answer, ends it and returns how many were answered.
    ///
    /// # Errors
    ///
    /// When none is answered any more, or one before the last answered one was not: names them.
    pub fn finish(self) -> Result<usize> {
        self.finish_sparing(0)
    }

    /// [`PingStream::finish`], but so many may be lost as long as none of them is beside another, which a gap in the policy would show as.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn finish_sparing(mut self, spared: usize) -> Result<usize> {
        self.wait_for(1)?;
        self.process.signal(Signal::SIGINT)?;
        self.process.wait_end(PATIENCE)?;
        let answered = self.answered()?;
        let last = answered.last().copied().unwrap_or(0);
        // The last request may have been on its way when the stream was ended.
        let lost: Vec<u32> = (1..=last).filter(|number| !answered.contains(number)).collect();
        let is_gap = lost.windows(2).any(|pair| pair[1] - pair[0] == 1);
        ensure!(lost.len() <= spared && !is_gap, "{}: {} of {last} were lost: {lost:?}", self.what, lost.len());
        Ok(answered.len())
    }
}

/// An error if any of three echo requests is answered.
pub fn no_ping(from: &Netns, to: &str) -> Result<()> {
    let answered = ping_count(from, to, 3)?;
    ensure!(answered == 0, "{answered} of 3 echo requests from {} to {to} were answered", from.name());
    Ok(())
}

/// Sends `bytes` bytes through a TCP connection to an echo server at `address`, and checks that they come back unchanged.
pub fn tcp(from: &Netns, to: &Netns, address: IpAddr, bytes: usize) -> Result<()> {
    let listener = to.enter(|| TcpListener::bind((address, 0)))?;
    let listener = listener.with_context(|| format!("cannot listen at {address} in {}", to.name()))?;
    listener.set_nonblocking(true)?;
    let patience = stretched(PATIENCE);
    let server = listener.local_addr()?;
    let echo = move || -> Result<()> {
        let (mut stream, _) = wait_until("a connection", PATIENCE, || match listener.accept() {
            Ok(accepted) => Ok(Look::Held(accepted)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Look::NotYet("nobody connected".to_owned())),
            Err(error) => bail!(error),
        })?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = stream.read(&mut buffer).context("the server's read")?;
            if length == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..length]).context("the server's write")?;
        }
    };
    let client = || -> Result<()> {
        let stream = from.enter(|| TcpStream::connect_timeout(&server, patience))?;
        let stream = stream.with_context(|| format!("cannot connect from {} to {server}", from.name()))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let sent: Vec<u8> = (0..bytes).map(|index| (index * 31 % 251) as u8).collect();
        let (mut reader, mut writer) = (stream.try_clone()?, stream);
        let mut received = Vec::with_capacity(bytes);
        thread::scope(|scope| -> Result<()> {
            let sending = scope.spawn(|| -> Result<()> {
                writer.write_all(&sent).context("the client's write")?;
                writer.shutdown(std::net::Shutdown::Write).context("the client's shutdown")
            });
            reader.read_to_end(&mut received).context("the client's read")?;
            sending.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?
        })?;
        ensure!(received == sent, "{} of {bytes} bytes came back, or other ones", received.len());
        Ok(())
    };
    let what = || format!("TCP from {} to {server} in {}", from.name(), to.name());
    thread::scope(|scope| {
        let server = scope.spawn(echo);
        let sent = client();
        let echoed = server.join().map_err(|_| anyhow::anyhow!("the echo server panicked"))?;
        // The client's story says more when both failed.
        sent.and(echoed)
    })
    .with_context(what)
}

/// Sends a datagram of `bytes` bytes to an echo server at `address`, again and again until it comes back unchanged.
pub fn udp(from: &Netns, to: &Netns, address: IpAddr, bytes: usize) -> Result<()> {
    let server = to.enter(|| UdpSocket::bind((address, 0)))?;
    let server = server.with_context(|| format!("cannot bind {address} in {}", to.name()))?;
    let target = server.local_addr()?;
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let client = from.enter(|| UdpSocket::bind(any))?.context("cannot bind the client")?;
    let short = stretched(ONE_DATAGRAM);
    server.set_read_timeout(Some(short))?;
    client.set_read_timeout(Some(short))?;
    let sent: Vec<u8> = (0..bytes).map(|index| (index * 31 % 251) as u8).collect();
    let mut buffer = vec![0; 1 << 16];
    wait_until(&format!("a datagram from {} to {target} and back", from.name()), PATIENCE, || {
        client.send_to(&sent, target).context("the client's send")?;
        let (length, peer) = server.recv_from(&mut buffer).context("the server's receive")?;
        ensure!(buffer[..length] == sent, "the server received other bytes");
        server.send_to(&buffer[..length], peer).context("the server's send")?;
        let (length, _) = client.recv_from(&mut buffer).context("the client's receive")?;
        ensure!(buffer[..length] == sent, "the client received other bytes");
        Ok(Look::Held(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pings_summaries_are_read() {
        assert_eq!(received("3 packets transmitted, 2 received, 33% packet loss, time 400ms\n").unwrap(), 2);
        assert_eq!(received("--- x\n3 packets transmitted, 0 packets received, 100% packet loss\n").unwrap(), 0);
        assert!(received("ping: bad address 'x'").is_err());
    }

    #[test]
    fn traffic_flows_through_a_veth_pair_and_stops_when_it_is_cut() {
        let (a, b) = (Netns::new("a").unwrap(), Netns::new("b").unwrap());
        crate::link::veth(&a, "eth0", &b, "eth0").unwrap();
        for (ns, host) in [(&a, 1), (&b, 2)] {
            crate::link::address(ns, "eth0", &format!("10.0.0.{host}/24")).unwrap();
            crate::link::address(ns, "eth0", &format!("fd00::{host}/64")).unwrap();
        }
        for address in ["10.0.0.2", "fd00::2"] {
            ping(&a, address).unwrap();
            tcp(&a, &b, address.parse().unwrap(), 300_000).unwrap();
            udp(&a, &b, address.parse().unwrap(), 1000).unwrap();
        }
        assert_eq!(ping_count(&a, "10.0.0.2", 3).unwrap(), 3);
        b.ip("link set eth0 down").unwrap();
        no_ping(&a, "10.0.0.2").unwrap();
    }
}
