//! Echo requests as frames of a guest, one a millisecond, and when they are answered.
//!
//! They are sent with the destination's address, so that no ARP with its timers of a second stands between a path that is ready and the first
//! answer.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use oxbow_testkit::frames::Frames;
use oxbow_testkit::{Netns, wait};

/// Time between two requests, and so the resolution of what is measured with them.
pub(super) const INTERVAL: Duration = Duration::from_millis(1);

/// What every request and answer carries: found in a frame, also inside a tunnel's.
pub(super) const COOKIE: &[u8; 16] = b"oxbow life-cycle";

/// Where frames go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    /// Ethernet.
    pub(super) mac: [u8; 6],
    /// IPv4.
    pub(super) ip: Ipv4Addr,
}

/// A stream of echo requests, until it is dropped.
#[derive(Debug)]
pub(super) struct Echo {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    log: Mutex<Log>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    sent: u64,
    answers: Vec<Instant>,
    failed: Option<String>,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Log> {
        // Numbers only: whole at any time.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Echo {
    /// Starts it on the guest's only device.
    pub(super) fn start(guest: &Netns, from: Address, to: Address) -> Result<Self> {
        let frames = Frames::open(guest, oxbow_testkit::vif::GUEST_DEVICE)?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new().name("echo".to_owned()).spawn(move || {
            if let Err(error) = run(&frames, from, to, &shared) {
                shared.lock().failed = Some(format!("{error:#}"));
            }
            shared.more.notify_all();
        })?;
        Ok(Self { state, thread: Some(thread) })
    }

    fn wait<T>(&self, what: &str, patience: Duration, mut look: impl FnMut(&Log) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + patience;
        let mut log = self.state.lock();
        loop {
            if let Some(found) = look(&log) {
                return Ok(found);
            }
            if let Some(error) = &log.failed {
                return Err(anyhow!("echo requests: {error}"));
            }
            if Instant::now() > deadline || wait::interrupted() {
                bail!("{what}: not within {} s; {} sent, {} answered", patience.as_secs(), log.sent, log.answers.len());
            }
            log =
                self.state.more.wait_timeout(log, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// When the first answer after `since` came.
    pub(super) fn answered_after(&self, since: Instant, patience: Duration) -> Result<Instant> {
        self.wait("an answered ping", patience, |log| {
            let later = log.answers.partition_point(|at| *at < since);
            log.answers.get(later).copied()
        })
    }

    /// Waits until so many more requests were sent.
    pub(super) fn sent_more(&self, count: u64) -> Result<()> {
        let goal = self.state.lock().sent + count;
        self.wait("echo requests", wait::PATIENCE, |log| (log.sent >= goal).then_some(()))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics only where a test would have failed already.
            let _ = thread.join();
        }
    }
}

fn run(frames: &Frames, from: Address, to: Address, state: &State) -> Result<()> {
    let mut due = Instant::now();
    let mut sequence = 0u16;
    while !state.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= due {
            frames.send(&request(from, to, sequence)).context("cannot send an echo request")?;
            sequence = sequence.wrapping_add(1);
            // Behind by more than one: those are not made up for.
            due = (due + INTERVAL).max(now);
            state.lock().sent += 1;
            state.more.notify_all();
        }
        let wait = due.saturating_duration_since(Instant::now()).min(INTERVAL);
        while let Some(received) = frames.receive(wait)? {
            if is_answer(&received.frame, to) {
                state.lock().answers.push(Instant::now());
                state.more.notify_all();
            }
            if Instant::now() >= due {
                break;
            }
        }
    }
    Ok(())
}

/// Whether an Ethernet frame is an answer of `from` to one of [`request`].
fn is_answer(frame: &[u8], from: Address) -> bool {
    let header = frame.get(14..34);
    header.is_some_and(|header| header[12..16] == from.ip.octets())
        && frame.get(34) == Some(&0)
        && frame.ends_with(COOKIE)
}

/// An echo request: Ethernet, IPv4 (RFC 791), ICMP (RFC 792), the cookie.
fn request(from: Address, to: Address, sequence: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0];
    ip.extend(from.ip.octets());
    ip.extend(to.ip.octets());
    let mut icmp = vec![8, 0, 0, 0, 0x0b, 0x0c];
    icmp.extend(sequence.to_be_bytes());
    icmp.extend(COOKIE);
    let length = (ip.len() + icmp.len()) as u16;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    [&to.mac[..], &from.mac, &[8, 0], &ip, &icmp].concat()
}

/// The checksum of RFC 1071 over bytes of an even number.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Address = Address { mac: [2, 0, 0, 0, 0, 1], ip: Ipv4Addr::new(10, 0, 0, 1) };
    const THERE: Address = Address { mac: [2, 0, 0, 0, 0, 2], ip: Ipv4Addr::new(10, 0, 0, 2) };

    #[test]
    fn a_kernel_answers_the_requests() {
        let (a, b) = (Netns::new("a").unwrap(), Netns::new("b").unwrap());
        oxbow_testkit::link::veth(&a, "eth0", &b, "eth0").unwrap();
        for (ns, address, peer) in [(&a, HERE, THERE), (&b, THERE, HERE)] {
            let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
            ns.ip(&format!("link set eth0 address {}", mac(address.mac))).unwrap();
            oxbow_testkit::link::address(ns, "eth0", &format!("{}/24", address.ip)).unwrap();
            ns.ip(&format!("neigh replace {} lladdr {} dev eth0 nud permanent", peer.ip, mac(peer.mac))).unwrap();
        }
        let start = Instant::now();
        let echo = Echo::start(&a, HERE, THERE).unwrap();
        let first = echo.answered_after(start, wait::PATIENCE).unwrap();
        echo.sent_more(5).unwrap();
        assert!(first >= start);
    }

    #[test]
    fn checksums_are_those_of_the_rfc() {
        let frame = request(HERE, THERE, 7);
        assert_eq!((checksum(&frame[14..34]), checksum(&frame[34..])), (0, 0));
        assert!(!is_answer(&frame, HERE), "a request is no answer");
    }
}
