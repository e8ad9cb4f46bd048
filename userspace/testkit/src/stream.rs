//! A counted stream of datagrams in both directions: exactly which were lost, came twice, came late.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::wait::{Look, PATIENCE, wait_until};

/// Bytes of a datagram: a sequence number, its direction, and a pattern that follows from both.
const DATAGRAM: usize = 64;

/// Room in the receivers' sockets: a reader that does not run for seconds loses nothing.
const RECEIVE_BUFFER: libc::c_int = 64 << 20;

/// Datagrams sent at once by a sender that was kept from running: far fewer than a device's backlog holds.
const BURST: u64 = 32;

/// How long a sender sleeps between looks at the clock.
const NAP: Duration = Duration::from_micros(500);

/// How long after the senders have ended the last datagrams may take before they are lost.
const GRACE: Duration = Duration::from_secs(3);

/// What happened to the datagrams of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Direction {
    /// From whom to whom.
    pub what: String,
    /// Datagrams sent.
    pub sent: u64,
    /// Different ones received.
    pub received: u64,
    /// Those that never came: first and last sequence number of each gap, and when those were sent, in milliseconds from the start.
    pub lost: Vec<Gap>,
    /// Received a second time or more often.
    pub duplicated: u64,
    /// Received after one with a higher number.
    pub reordered: u64,
    /// Received with other contents than were sent.
    pub damaged: u64,
}

/// Datagrams in a row that never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// When the first was sent, milliseconds from the start.
    pub from_ms: u32,
    /// When the last was sent, milliseconds from the start.
    pub until_ms: u32,
}

impl Direction {
    /// How many were lost.
    pub fn lost(&self) -> u64 {
        self.lost.iter().map(|gap| gap.last - gap.first + 1).sum()
    }

    /// Whether each came exactly once and as it was sent. Order is not judged: packets of two CPUs may overtake each other.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.duplicated == 0 && self.damaged == 0
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, sent, duplicated, reordered, damaged, .. } = self;
        let lost = self.lost();
        write!(
            f,
            "{what}: {sent} sent, {lost} lost, {duplicated} duplicated, {reordered} reordered, {damaged} damaged"
        )?;
        for gap in self.lost.iter().take(20) {
            write!(f, "\n  lost {}..={} (sent {}..{} ms)", gap.first, gap.last, gap.from_ms, gap.until_ms)?;
        }
        Ok(())
    }
}

/// What happened to a whole stream.
#[derive(Debug, Clone)]
pub struct Report {
    /// Both directions.
    pub directions: [Direction; 2],
    /// What was done meanwhile, and when, in milliseconds from the start.
    pub marks: Vec<(u32, String)>,
}

impl Report {
    /// An error with everything in it unless every datagram came exactly once.
    pub fn whole(self) -> Result<Self> {
        ensure!(self.directions.iter().all(Direction::is_whole), "{self}");
        Ok(self)
    }

    /// Datagrams sent in both directions.
    pub fn sent(&self) -> u64 {
        self.directions.iter().map(|direction| direction.sent).sum()
    }

    /// Datagrams lost in both directions.
    pub fn lost(&self) -> u64 {
        self.directions.iter().map(Direction::lost).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [forth, back] = &self.directions;
        write!(f, "{forth}\n{back}")?;
        for (at, what) in &self.marks {
            write!(f, "\n  at {at} ms: {what}")?;
        }
        Ok(())
    }
}

/// One direction while it runs.
#[derive(Debug)]
struct Running {
    what: String,
    received: Arc<AtomicU64>,
    sender: thread::JoinHandle<Result<Vec<u32>>>,
    receiver: thread::JoinHandle<Result<Heard>>,
}

/// What a receiver heard.
#[derive(Debug, Default)]
struct Heard {
    /// By sequence number.
    came: Vec<bool>,
    duplicated: u64,
    reordered: u64,
    damaged: u64,
}

/// Datagrams with sequence numbers, at a steady rate in both directions between two guests, until [`Stream::finish`].
///
/// Each sender stays on one CPU, so that the kernel has no reason to reorder. A sender that could not run sends what is due
/// afterwards, in small bursts: the number sent follows the clock.
#[derive(Debug)]
pub struct Stream {
    origin: Instant,
    stop_sending: Arc<AtomicBool>,
    stop_receiving: Arc<AtomicBool>,
    directions: Vec<Running>,
    marks: Mutex<Vec<(u32, String)>>,
}

impl Stream {
    /// Starts `rate` datagrams a second in each direction between two guests at these addresses, and waits until some have arrived
    /// in both. Only what is sent after both sides have been heard once is counted: learning the other's hardware address is not part of it.
    ///
    /// # Errors
    ///
    /// When an address is not the guest's, or nothing arrives.
    pub fn start(a: (&Netns, IpAddr), b: (&Netns, IpAddr), rate: u32) -> Result<Self> {
        ensure!(rate > 0, "a stream of nothing");
        let socket = |(ns, address): (&Netns, IpAddr)| -> Result<UdpSocket> {
            let socket = ns.enter(|| UdpSocket::bind((address, 0)))?;
            let socket = socket.with_context(|| format!("cannot bind {address} in {}", ns.name()))?;
            enlarge(&socket)?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(socket)
        };
        let (sa, sb) = (socket(a)?, socket(b)?);
        let (to_a, to_b) = (sa.local_addr()?, sb.local_addr()?);
        greet(&sa, to_b, &sb, to_a)?;
        let mut stream = Self {
            origin: Instant::now(),
            stop_sending: Arc::default(),
            stop_receiving: Arc::default(),
            directions: Vec::new(),
            marks: Mutex::default(),
        };
        let cpus = cpus()?;
        let names = (a.0.name(), b.0.name());
        for (index, (from, to, target, names)) in
            [(&sa, &sb, to_b, names), (&sb, &sa, to_a, (names.1, names.0))].into_iter().enumerate()
        {
            let cpu = cpus[index % cpus.len()];
            stream.run(format!("{} → {}", names.0, names.1), index as u8, from, to, target, rate, cpu)?;
        }
        stream.wait_for(u64::from(rate) / 20 + 1)?;
        Ok(stream)
    }

    #[expect(clippy::too_many_arguments, reason = "the two ends of one direction, used once above")]
    fn run(
        &mut self,
        what: String,
        direction: u8,
        from: &UdpSocket,
        to: &UdpSocket,
        target: SocketAddr,
        rate: u32,
        cpu: usize,
    ) -> Result<()> {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let received = Arc::<AtomicU64>::default();
        let (stop_sending, stop_receiving) = (self.stop_sending.clone(), self.stop_receiving.clone());
        let (origin, count) = (self.origin, received.clone());
        let sender = thread::Builder::new()
            .name(format!("send {what}"))
            .spawn(move || send(&from, target, direction, rate, cpu, origin, &stop_sending))?;
        let receiver = thread::Builder::new()
            .name(format!("hear {what}"))
            .spawn(move || hear(&to, direction, &count, &stop_receiving))?;
        self.directions.push(Running { what, received, sender, receiver });
        Ok(())
    }

    /// Notes what is being done now, for the report.
    pub fn mark(&self, what: impl Into<String>) {
        let at = self.origin.elapsed().as_millis() as u32;
        // A poisoned list is still a list.
        self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, what.into()));
    }

    /// Waits until `count` more have arrived in each direction.
    pub fn wait_for(&self, count: u64) -> Result<()> {
        let now = || self.directions.iter().map(|running| running.received.load(Ordering::Relaxed));
        let before: Vec<u64> = now().collect();
        wait_until(&format!("{count} more datagrams {}", self.directions[0].what), PATIENCE, || {
            let more: Vec<u64> = now().zip(&before).map(|(now, before)| now - before).collect();
            Ok(Look::when(more.iter().all(|more| *more >= count), || format!("since then: {more:?}")))
        })
    }

    /// Waits until what arrives has gone on for so long, in both directions.
    pub fn go_on_for(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.wait_for(1)?;
        }
        Ok(())
    }

    /// Ends it and tells what became of every datagram.
    ///
    /// # Errors
    ///
    /// When a socket failed. Losses are no error: see [`Report::whole`].
    pub fn finish(mut self) -> Result<Report> {
        self.stop_sending.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        let mut receivers = Vec::new();
        for running in self.directions.drain(..) {
            sent.push(running.sender.join().map_err(|_| anyhow!("a sender panicked"))??);
            receivers.push((running.what, running.received, running.receiver));
        }
        let deadline = Instant::now() + GRACE;
        let all_here =
            || receivers.iter().zip(&sent).all(|((_, n, _), sent)| n.load(Ordering::Relaxed) >= sent.len() as u64);
        while !all_here() && Instant::now() < deadline {
            thread::sleep(NAP);
        }
        self.stop_receiving.store(true, Ordering::Relaxed);
        let mut directions = Vec::new();
        for ((what, _, receiver), sent) in receivers.into_iter().zip(sent) {
            let heard = receiver.join().map_err(|_| anyhow!("a receiver panicked"))??;
            directions.push(judge(what, &sent, &heard)?);
        }
        let directions = directions.try_into().map_err(|_| anyhow!("a stream has two directions"))?;
        let marks = std::mem::take(&mut *self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(Report { directions, marks })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop_sending.store(true, Ordering::Relaxed);
        self.stop_receiving.store(true, Ordering::Relaxed);
    }
}

/// The CPUs that this process may use.
fn cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    ensure!(!cpus.is_empty(), "this process may use no CPU");
    Ok(cpus)
}

/// Asks for a large receive buffer; the limit of the system does not hold for root.
fn enlarge(socket: &UdpSocket) -> Result<()> {
    let size = RECEIVE_BUFFER;
    // SAFETY: the value is a live integer of the size given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).context("SO_RCVBUFFORCE") }
}

/// Lets the two sides know each other's hardware address, and empties the sockets again.
fn greet(a: &UdpSocket, to_b: SocketAddr, b: &UdpSocket, to_a: SocketAddr) -> Result<()> {
    let mut buffer = [0; DATAGRAM];
    wait_until(&format!("a first datagram between {to_a} and {to_b}"), PATIENCE, || {
        a.send_to(b"hello", to_b)?;
        let (length, from) = b.recv_from(&mut buffer)?;
        ensure!(&buffer[..length] == b"hello" && from == to_a, "{length} bytes from {from}");
        b.send_to(b"hello", to_a)?;
        a.recv_from(&mut buffer)?;
        Ok(Look::Held(()))
    })?;
    for socket in [a, b] {
        while socket.recv_from(&mut buffer).is_ok() {}
    }
    Ok(())
}

/// The datagram of that number: number, direction, and bytes that follow from them.
fn datagram(direction: u8, number: u64) -> [u8; DATAGRAM] {
    let mut bytes = [0; DATAGRAM];
    let (head, rest) = bytes.split_at_mut(9);
    head[..8].copy_from_slice(&number.to_be_bytes());
    head[8] = direction;
    for (index, byte) in rest.iter_mut().enumerate() {
        *byte = (number as u8).wrapping_mul(31) ^ (index as u8).wrapping_mul(7) ^ direction;
    }
    bytes
}

/// Sends until told to stop; returns when each was sent, in milliseconds from the origin.
fn send(
    socket: &UdpSocket,
    target: SocketAddr,
    direction: u8,
    rate: u32,
    cpu: usize,
    origin: Instant,
    stop: &AtomicBool,
) -> Result<Vec<u32>> {
    let mut one = CpuSet::new();
    one.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("sched_setaffinity")?;
    let start = Instant::now();
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_micros() * u128::from(rate) / 1_000_000) as u64;
        let now = origin.elapsed().as_millis() as u32;
        for _ in 0..due.saturating_sub(sent.len() as u64).min(BURST) {
            let bytes = datagram(direction, sent.len() as u64);
            let length =
                socket.send_to(&bytes, target).with_context(|| format!("datagram {} to {target}", sent.len()))?;
            ensure!(length == DATAGRAM, "{length} bytes of a datagram were sent");
            sent.push(now);
        }
        thread::sleep(NAP);
    }
    Ok(sent)
}

fn hear(socket: &UdpSocket, direction: u8, received: &AtomicU64, stop: &AtomicBool) -> Result<Heard> {
    let mut heard = Heard::default();
    let mut buffer = [0; 2 * DATAGRAM];
    let mut highest = None;
    while !stop.load(Ordering::Relaxed) {
        let length = match socket.recv_from(&mut buffer) {
            Ok((length, _)) => length,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(error) => bail!(anyhow::Error::from(error).context("the receiver's socket")),
        };
        if &buffer[..length] == b"hello" {
            // A greeting that was answered by an earlier one.
            continue;
        }
        let number = buffer[..8].try_into().map(u64::from_be_bytes).unwrap_or(u64::MAX);
        // A damaged number must not make the list of those that came grow without bound.
        if length != DATAGRAM
            || number > heard.came.len() as u64 + (1 << 24)
            || buffer[..length] != datagram(direction, number)
        {
            heard.damaged += 1;
            continue;
        }
        let index = usize::try_from(number)?;
        if heard.came.len() <= index {
            heard.came.resize(index + 1, false);
        }
        if std::mem::replace(&mut heard.came[index], true) {
            heard.duplicated += 1;
            continue;
        }
        if highest.is_some_and(|highest| number < highest) {
            heard.reordered += 1;
        }
        highest = highest.max(Some(number));
        received.fetch_add(1, Ordering::Relaxed);
    }
    Ok(heard)
}

/// Compares what was sent with what came.
fn judge(what: String, sent: &[u32], heard: &Heard) -> Result<Direction> {
    ensure!(heard.came.len() <= sent.len(), "{what}: number {} came, which nobody sent", heard.came.len() - 1);
    let mut direction = Direction {
        what,
        sent: sent.len() as u64,
        duplicated: heard.duplicated,
        reordered: heard.reordered,
        damaged: heard.damaged,
        ..Direction::default()
    };
    for (number, at) in sent.iter().enumerate() {
        if heard.came.get(number).copied().unwrap_or(false) {
            direction.received += 1;
            continue;
        }
        let number = number as u64;
        match direction.lost.last_mut() {
            Some(gap) if gap.last + 1 == number => (gap.last, gap.until_ms) = (number, *at),
            _ => direction.lost.push(Gap { first: number, last: number, from_ms: *at, until_ms: *at }),
        }
    }
    Ok(direction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link;

    #[test]
    fn gaps_duplicates_and_the_rest_are_told_apart() {
        let heard = Heard { came: vec![true, false, false, true, false, true], duplicated: 1, ..Heard::default() };
        let direction = judge("a → b".into(), &[0, 1, 2, 3, 4, 5, 6], &heard).unwrap();
        assert_eq!((direction.sent, direction.received, direction.lost()), (7, 3, 4));
        let gaps: Vec<_> = direction.lost.iter().map(|gap| (gap.first, gap.last, gap.from_ms, gap.until_ms)).collect();
        assert_eq!(gaps, [(1, 2, 1, 2), (4, 4, 4, 4), (6, 6, 6, 6)]);
        assert!(!direction.is_whole());
        assert!(direction.to_string().contains("lost 1..=2 (sent 1..2 ms)"), "{direction}");
        assert!(judge("a → b".into(), &[0], &heard).is_err(), "more came than were sent");
    }

    #[test]
    fn a_stream_counts_what_a_cut_cost_and_nothing_else() {
        let (a, b) = (Netns::new("a").unwrap(), Netns::new("b").unwrap());
        link::veth(&a, "eth0", &b, "eth0").unwrap();
        let addresses: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        for (ns, address) in [(&a, addresses[0]), (&b, addresses[1])] {
            link::address(ns, "eth0", &format!("{address}/24")).unwrap();
        }
        let start = || Stream::start((&a, addresses[0]), (&b, addresses[1]), 1000).unwrap();
        let whole = start();
        whole.wait_for(300).unwrap();
        let report = whole.finish().unwrap().whole().unwrap();
        assert!(report.sent() >= 600, "{report}");
        assert_eq!(report.directions[0].reordered + report.directions[1].reordered, 0, "{report}");
        // b hears nothing for a while, because frames are for an address that it no longer has; a goes on hearing.
        a.ip("neigh replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent").unwrap();
        b.ip("link set eth0 address 02:00:00:00:00:02").unwrap();
        let cut = start();
        cut.mark("cut");
        b.ip("link set eth0 address 02:00:00:00:00:03").unwrap();
        let before = cut.directions[1].received.load(Ordering::Relaxed);
        wait_until("a goes on hearing", PATIENCE, || {
            let heard = cut.directions[1].received.load(Ordering::Relaxed);
            Ok(Look::when(heard > before + 100, || heard.to_string()))
        })
        .unwrap();
        b.ip("link set eth0 address 02:00:00:00:00:02").unwrap();
        cut.wait_for(100).unwrap();
        let report = cut.finish().unwrap();
        assert!(report.directions[1].is_whole(), "{report}");
        assert!(report.directions[0].lost() >= 50 && report.directions[0].lost.len() == 1, "{report}");
        assert!(report.clone().whole().unwrap_err().to_string().contains("cut"), "{report}");
    }
}
