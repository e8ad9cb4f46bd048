//! What is sent through: small UDP packets as fast as a CPU makes them, and TCP.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use oxbow_testkit::Netns;
use oxbow_testkit::vif::GUEST_DEVICE;

use super::bpf::Sink;

/// From one guest to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    /// Who sends.
    pub(super) from: &'a Netns,
    /// Who receives.
    pub(super) to: &'a Netns,
    /// The receiver's address.
    pub(super) address: Ipv4Addr,
}

/// What a flood came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flood {
    /// Packets that arrived, per second.
    pub(super) rate: f64,
    /// CPU time of the senders for each packet that arrived, in nanoseconds. Everything on the way that runs in the sender's system call
    /// or in soft interrupts on top of it is in it; other processes and kernel threads are not.
    pub(super) cpu: f64,
}

/// UDP payload of a small packet: the frame has 60 bytes, Ethernet's least without its checksum.
const PAYLOAD: usize = 18;
/// Packets that a system call makes (the kernel's limit for UDP_SEGMENT is 128).
const BURST: usize = 64;

/// Floods for `time` with `flows` flows, each sent by a thread pinned to a CPU of its own.
///
/// A system call gives the kernel a super-packet of [`BURST`] datagrams, which the sending guest's stack cuts up before they reach its device
/// (`tx-udp-segmentation` is off there): sockets all the way, at a small part of their usual price. A program at the receiving guest's device
/// counts and drops.
///
/// # Errors
///
/// When nothing arrives, or sockets and programs cannot be made.
pub(super) fn flood(route: Route<'_>, flows: usize, time: Duration) -> Result<Flood> {
    let sink = Sink::attach(route.to, GUEST_DEVICE)?;
    // The first packet of a flow may be held by neighbour discovery, and takes the slow path everywhere.
    let sockets = (0..flows).map(|_| udp(route)).collect::<Result<Vec<_>>>()?;
    for socket in &sockets {
        burst(socket)?;
    }
    let before = sink.count()?;
    let start = Instant::now();
    let work: Vec<Result<f64>> = thread::scope(|scope| {
        let threads: Vec<_> = sockets
            .iter()
            .enumerate()
            .map(|(cpu, socket)| scope.spawn(move || send(socket, cpu, start + time)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a sender panicked")).collect()
    });
    let took = start.elapsed();
    // What is still under way belongs to it: a datapath in user space has queues.
    let arrived = settled(&sink, before)? - before;
    ensure!(arrived > 0, "no packet arrived from {} at {}", route.from.name(), route.to.name());
    let cpu = work.into_iter().sum::<Result<f64>>()?;
    Ok(Flood { rate: arrived as f64 / took.as_secs_f64(), cpu: cpu * 1e9 / arrived as f64 })
}

fn udp(route: Route<'_>) -> Result<UdpSocket> {
    let socket = route.from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.context("cannot make a socket")?;
    // Port 9: discard.
    socket.connect((route.address, 9)).context("cannot connect")?;
    let set = |level, option, value: libc::c_int| {
        // SAFETY: the option's value is a live int of the length given.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size_of_val(&value) as u32)
        };
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    set(libc::SOL_UDP, libc::UDP_SEGMENT, PAYLOAD as i32).context("cannot set UDP_SEGMENT")?;
    set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 8 << 20).context("cannot set the send buffer")?;
    Ok(socket)
}

/// One super-packet.
fn burst(socket: &UdpSocket) -> Result<()> {
    match socket.send(&[0x5a; PAYLOAD * BURST]) {
        Ok(_) => Ok(()),
        // The guest's queue is full: what a datapath that is slower than the sender looks like.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
        Err(error) => Err(error).context("cannot send"),
    }
}

/// Sends until the end; CPU seconds that took.
fn send(socket: &UdpSocket, cpu: usize, end: Instant) -> Result<f64> {
    pin(cpu)?;
    let before = thread_cpu()?;
    // At least once: on a busy machine the slice may be over before this thread runs.
    loop {
        for _ in 0..4 {
            burst(socket)?;
        }
        if Instant::now() >= end {
            break;
        }
    }
    Ok(thread_cpu()? - before)
}

/// The sink's count once it has grown beyond `before` and grows no longer; what it is when nothing has come for a second.
///
/// # Errors
///
/// When packets still come long after the sender has ended.
fn settled(sink: &Sink, before: u64) -> Result<u64> {
    let mut count = sink.count()?;
    let start = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(10));
        let now = sink.count()?;
        if now == count && (now > before || start.elapsed() > Duration::from_secs(1)) {
            return Ok(now);
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "packets still come 10 s after the last was sent");
        count = now;
    }
}

/// What TCP came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    /// Gigabits of payload per second.
    pub(super) rate: f64,
    /// CPU time of sender and receiver for a mebibyte, in microseconds.
    pub(super) cpu: f64,
}

/// One TCP connection for `time`, after a warm-up of a quarter of that: sender and receiver on CPUs of their own, copying as programs do.
///
/// # Errors
///
/// When there is no connection, or nothing arrives.
pub(super) fn stream(route: Route<'_>, time: Duration) -> Result<Stream> {
    let listener = route.to.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?.context("cannot listen")?;
    let to = SocketAddr::from((route.address, listener.local_addr()?.port()));
    let mut out =
        route.from.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))?.context("cannot connect")?;
    let (mut from, _) = listener.accept().context("no connection came")?;
    out.set_write_timeout(Some(Duration::from_secs(5)))?;
    from.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (end, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<f64> {
            pin(0)?;
            let data = vec![0x5au8; 128 << 10];
            let before = thread_cpu()?;
            while !end.load(Ordering::Relaxed) {
                out.write_all(&data).context("cannot send")?;
            }
            let cpu = thread_cpu()? - before;
            out.shutdown(std::net::Shutdown::Write)?;
            Ok(cpu)
        });
        let receiver = scope.spawn(|| -> Result<(f64, u64)> {
            pin(1)?;
            let mut data = vec![0u8; 128 << 10];
            let before = thread_cpu()?;
            loop {
                match from.read(&mut data).context("cannot receive")? {
                    0 => return Ok((thread_cpu()? - before, arrived.load(Ordering::Relaxed))),
                    length => arrived.fetch_add(length as u64, Ordering::Relaxed),
                };
            }
        });
        thread::sleep(time / 4);
        let (start, before) = (Instant::now(), arrived.load(Ordering::Relaxed));
        thread::sleep(time);
        // A slice may pass by on a busy machine without a byte: it ends when there was one.
        while arrived.load(Ordering::Relaxed) == before && start.elapsed() < time + Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(5));
        }
        let (bytes, took) = (arrived.load(Ordering::Relaxed) - before, start.elapsed());
        end.store(true, Ordering::Relaxed);
        let sent = sender.join().expect("the sender panicked")?;
        let (received, all) = receiver.join().expect("the receiver panicked")?;
        ensure!(bytes > 0, "nothing arrived from {} at {}", route.from.name(), route.to.name());
        Ok(Stream {
            rate: bytes as f64 * 8e-9 / took.as_secs_f64(),
            cpu: (sent + received) * 1e6 / (all as f64 / f64::from(1 << 20)),
        })
    })
}

/// Keeps the calling thread on one CPU (modulo how many there are), and [`hurry`].
fn pin(cpu: usize) -> Result<()> {
    hurry()?;
    let cpus = thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(cpu % cpus)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot pin a thread")
}

/// Puts the calling thread before whatever else wants its CPU: slices are short, and what is measured is not the scheduler.
pub(super) fn hurry() -> Result<()> {
    // SAFETY: no memory is passed; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) } < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot raise a thread's priority");
    }
    Ok(())
}

/// CPU seconds of the calling thread.
fn thread_cpu() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("cannot read the thread's clock")?;
    Ok(Duration::from(time).as_secs_f64())
}
