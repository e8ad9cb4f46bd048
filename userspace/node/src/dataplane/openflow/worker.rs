//! Whoever waits for the bridge, so that nobody else does: a thread that has the switch and carries orders out one after the other, and one that
//! attends the session. An ovs-vswitchd that hangs, or has lost its database (it answers nobody then), holds up these two and nothing else.

use super::Location;
use super::session::Session;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use oxbow_backend_openflow::layout::{ADDRESSES, INPUT};
use oxbow_backend_openflow::{Committed, Exchange, Failure, Learned, OvsOfctl, Running, Switch as _, SwitchError};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// That addresses were learned is told this often at most: whoever hears it asks for all of them.
const ADDRESS_PAUSE: Duration = Duration::from_millis(100);

/// What is to be done.
#[derive(Debug)]
pub(super) enum Order {
    /// Open a session.
    Open,
    /// Say which ports the bridge's flows take packets from.
    Served,
    /// Tell the bridge.
    Exchange(Exchange),
    /// Say which addresses it has learned.
    Learned,
    /// Say how many packets took its flows.
    Counters,
    /// Take every flow and group out.
    Remove,
}

/// What came of it, and what happened by itself.
#[derive(Debug)]
pub(super) enum Answer {
    Opened(io::Result<Attendance>),
    Served(Result<Vec<u32>, SwitchError>),
    /// With the time it took, from the order's turn to the bridge's last word.
    Exchange(Result<Committed, Failure>, Duration),
    Learned(Result<Vec<Learned>, SwitchError>),
    Counters(Result<BTreeMap<u64, u64>, SwitchError>),
    Removed(Result<(), SwitchError>),
    /// The bridge has learned or forgotten an address.
    AddressesChanged,
    /// The session with this number has ended.
    Gone(u64, io::Error),
}

/// A session that is attended to until this is dropped.
#[derive(Debug)]
pub(super) struct Attendance {
    /// Which one.
    pub(super) number: u64,
    stream: OwnedFd,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        // Whoever reads it sees the end. That it has ended already is no harm.
        let _ = shutdown(self.stream.as_raw_fd(), Shutdown::Both);
    }
}

/// Where answers go, with something that wakes whoever waits for them.
#[derive(Debug)]
struct Teller {
    answers: Sender<Answer>,
    wake: UnixStream,
}

impl Teller {
    fn pair(&self) -> io::Result<Teller> {
        Ok(Teller { answers: self.answers.clone(), wake: self.wake.try_clone()? })
    }

    /// False when nobody listens any more.
    fn tell(&self, answer: Answer) -> bool {
        let heard = self.answers.send(answer).is_ok();
        // A full pipe wakes as well.
        let _ = (&self.wake).write(&[0]);
        heard
    }
}

/// The hands.
#[derive(Debug)]
pub(super) struct Worker {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
    wake: UnixStream,
    running: Running,
    /// Orders that have not been answered, and since when nothing was.
    open: usize,
    since: Instant,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start(location: &Location) -> io::Result<Self> {
        let (orders, todo) = channel();
        let (sender, answers) = channel();
        let (wake, other) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        let teller = Teller { answers: sender, wake: other };
        let switch = OvsOfctl::with_program(location.program.clone(), &location.remote);
        let running = switch.running();
        let remote = location.remote.clone();
        thread::Builder::new().name("bridge".to_owned()).spawn(move || serve(&todo, &teller, switch, &remote))?;
        Ok(Worker { orders, answers, wake, running, open: 0, since: Instant::now() })
    }

    /// Gives an order.
    pub(super) fn order(&mut self, order: Order) {
        if self.open == 0 {
            self.since = Instant::now();
        }
        self.open += 1;
        if self.orders.send(order).is_err() {
            tracing::error!(target: "ofctrl", "nobody talks to the bridge any more");
        }
    }

    /// Something that is readable when there are answers.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.wake.as_fd().try_clone_to_owned()
    }

    /// The next answer, if there is one.
    pub(super) fn hear(&mut self) -> Option<Answer> {
        let mut bytes = [0; 64];
        // Before the answers: whatever is told from now on wakes again.
        while (&self.wake).read(&mut bytes).is_ok_and(|length| length == bytes.len()) {}
        let answer = self.answers.try_recv().ok()?;
        Some(self.note(answer))
    }

    /// The next answer, which may take until then.
    pub(super) fn wait(&mut self, until: Instant) -> Option<Answer> {
        match self.answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(answer) => Some(self.note(answer)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    fn note(&mut self, answer: Answer) -> Answer {
        if !matches!(answer, Answer::AddressesChanged | Answer::Gone(..)) {
            self.open = self.open.saturating_sub(1);
            self.since = Instant::now();
        }
        answer
    }

    /// How long nothing of what was ordered has been answered.
    pub(super) fn silence(&self) -> Duration {
        if self.open == 0 { Duration::ZERO } else { self.since.elapsed() }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // What was not told to the bridge yet must not be told later, beside whoever comes after us.
        self.running.end();
    }
}

fn serve(todo: &Receiver<Order>, teller: &Teller, mut switch: OvsOfctl, remote: &str) {
    let mut number = 0;
    while let Ok(order) = todo.recv() {
        let answer = match order {
            Order::Open => {
                number += 1;
                Answer::Opened(attend(number, teller, remote))
            }
            Order::Served => Answer::Served(switch.input_ports(INPUT)),
            Order::Exchange(exchange) => {
                let start = Instant::now();
                Answer::Exchange(exchange.execute(&mut switch), start.elapsed())
            }
            Order::Learned => Answer::Learned(switch.learned()),
            Order::Counters => Answer::Counters(switch.counters()),
            Order::Remove => Answer::Removed(switch.bundle(&["flow delete".to_owned(), "group delete".to_owned()])),
        };
        if !teller.tell(answer) {
            return;
        }
    }
}

/// Opens a session and has a thread attend to it.
fn attend(number: u64, teller: &Teller, remote: &str) -> io::Result<Attendance> {
    let mut session = Session::open(remote, ADDRESSES)?;
    let attendance = Attendance { number, stream: session.descriptor()? };
    let teller = teller.pair()?;
    thread::Builder::new().name("bridge session".to_owned()).spawn(move || {
        let error = follow(&mut session, &teller);
        teller.tell(Answer::Gone(number, error));
    })?;
    Ok(attendance)
}

/// Follows a session to its end: why it ended.
fn follow(session: &mut Session, teller: &Teller) -> io::Error {
    let descriptor = match session.descriptor() {
        Ok(descriptor) => descriptor,
        Err(error) => return error,
    };
    loop {
        match poll(&mut [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return error.into(),
        }
        match session.follow() {
            Ok(false) => {}
            Ok(true) => {
                teller.tell(Answer::AddressesChanged);
                // A rate, no wait: each telling has all addresses read by an `ovs-ofctl`, and what is learned meanwhile is told in one.
                thread::sleep(ADDRESS_PAUSE);
            }
            Err(error) => return error,
        }
    }
}
