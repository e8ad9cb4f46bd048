//! Asking whether packets get from one namespace to another.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::netns::Netns;
use crate::wait::{Look, PATIENCE, wait_until};

/// How long one echo request may take; the whole of [`ping`] has [`PATIENCE`].
const ONE_ECHO: &str = "1";

/// Sends echo requests until one is answered, and returns the answering line of `ping`.
pub fn ping(from: &Netns, to: &str) -> Result<String> {
    wait_until(&format!("an echo reply from {to} to {}", from.name()), PATIENCE, || {
        let mut command = Command::new("ping");
        command.args(["-n", "-c", "1", "-W", ONE_ECHO, to]);
        let output = from.output(command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer = text.lines().find(|line| line.contains("time=")).map(str::to_owned);
        Ok(answer.map_or_else(|| Look::NotYet(text), Look::Held))
    })
}

/// Sends `count` echo requests 10 ms apart and returns how many were answered.
pub fn ping_count(from: &Netns, to: &str, count: u32) -> Result<u32> {
    let mut command = Command::new("ping");
    command.args(["-n", "-q", "-i", "0.01", "-W", ONE_ECHO, "-c", &count.to_string(), to]);
    let output = from.output(command)?;
    received(&output)
}

/// The number of answers in the summary that `ping` printed: `3 packets transmitted, 3 received, 0% packet loss`.
pub fn received(output: &Output) -> Result<u32> {
    let text = String::from_utf8_lossy(&output.stdout);
    let received = text.lines().find_map(|line| {
        let (before, _) = line.split_once(" received")?;
        // busybox writes "3 packets received".
        before.trim_end_matches(" packets").rsplit(' ').next()?.parse().ok()
    });
    received.with_context(|| format!("ping said:\n{text}{}", String::from_utf8_lossy(&output.stderr)))
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
    let server = listener.local_addr()?;
    let echo = move || -> Result<()> {
        let (mut stream, _) = wait_until("a connection", PATIENCE, || match listener.accept() {
            Ok(accepted) => Ok(Look::Held(accepted)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Look::NotYet("nobody connected".to_owned())),
            Err(error) => bail!(error),
        })?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
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
        let stream = from.enter(|| TcpStream::connect_timeout(&server, PATIENCE))?;
        let stream = stream.with_context(|| format!("cannot connect from {} to {server}", from.name()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
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
    let short = Duration::from_millis(200);
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
