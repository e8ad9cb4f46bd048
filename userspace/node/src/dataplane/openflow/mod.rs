//! The OpenFlow backend as a [`Dataplane`]: flows in the integration bridge of an ovs-vswitchd.
//!
//! Nothing here waits for the bridge but what says so: a commit is begun and its end is an event.

mod session;
#[cfg(test)]
mod tests;
mod worker;

use super::inspect::{Bundles, Summary};
use super::{Cookies, Dataplane, DataplaneError, Devices, Event, FdbAddress, Peer, Versions};
use oxbow_backend_openflow::{Committed, Failure, Follower, Learned, OfPort, SwitchError, Tunnel, Wiring};
use oxbow_pipeline::ir::{Changes, ChassisId, EncapKind, LflowId, Program};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use worker::{Answer, Attendance, Order, Worker};

/// How long a question that cannot be put off waits for its answer, once.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a farewell does.
const FAREWELL: Duration = Duration::from_secs(5);
/// A bridge that has not answered for so long is said not to.
const SILENCE: Duration = Duration::from_secs(3);
/// How long counters that were read are good for: one report asks for those of many flows.
const COUNTED: Duration = Duration::from_secs(1);

/// How to reach the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// `ovs-ofctl`.
    pub program: PathBuf,
    /// Name of the integration bridge.
    pub bridge: String,
    /// Its management connection: `unix:/run/openvswitch/br-int.mgmt`, or what `ovn-bridge-remote` says.
    pub remote: String,
}

/// The session with the bridge.
#[derive(Debug)]
enum Link {
    /// There is none.
    Down,
    /// It has been ordered.
    Opening,
    /// It is attended to.
    Up(Attendance),
}

/// Packets by cookie, or why nobody counts.
type Counted = Result<BTreeMap<u64, u64>, String>;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The bridge is told nothing.
    Following,
    /// It is told the first time.
    Activating,
    /// It holds the policy.
    Active,
}

/// The backend.
pub struct OpenFlow {
    location: Location,
    follower: Follower,
    /// None: no bridge is told anything.
    worker: Option<Worker>,
    link: Link,
    /// Why there is no session.
    trouble: Option<String>,
    wiring: Wiring,
    peers: Vec<Peer>,
    phase: Phase,
    /// The version that the next exchange brings, the one that is on its way, the newest in force.
    next: u64,
    told: Option<u64>,
    in_force: u64,
    outcome: Option<(Result<Committed, Failure>, Duration)>,
    bundles: Bundles,
    /// The session is younger than what is on its way.
    is_suspect: bool,
    /// Ports that a former controller's flows serve, once they are known.
    inherited: Option<Vec<u32>>,
    /// Addresses have been asked for; something changed since.
    asking: bool,
    ask_again: bool,
    counters: Option<(Instant, Counted)>,
    removed: Option<Result<(), SwitchError>>,
    waiting: Vec<Event>,
}

impl std::fmt::Debug for OpenFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFlow").field("location", &self.location).field("link", &self.link).finish_non_exhaustive()
    }
}

/// Opens backends. One whose bridge does not answer at once is kept, and looked after the next time.
#[derive(Debug, Default)]
pub struct Opening(Option<OpenFlow>);

impl Opening {
    /// A backend for that bridge, which need not be there yet. What is in it stays in force until [`Dataplane::activate`].
    ///
    /// # Errors
    /// [`DataplaneError::Unreachable`] when somebody is there and does not answer: which ports a former controller's flows serve has to be known,
    /// because those go on until the new policy is whole.
    pub fn open(&mut self, location: Location) -> Result<OpenFlow, DataplaneError> {
        let (mut dataplane, patience) = match self.0.take() {
            // It has had its time.
            Some(dataplane) if dataplane.location == location => (dataplane, Duration::ZERO),
            _ => (OpenFlow::start(location)?, ANSWER),
        };
        dataplane.wait(patience, |dataplane| dataplane.inherited.is_some());
        if dataplane.inherited.is_some() {
            return Ok(dataplane);
        }
        let error = dataplane.silent();
        self.0 = Some(dataplane);
        Err(error)
    }
}

impl OpenFlow {
    fn start(location: Location) -> Result<Self, DataplaneError> {
        let mut worker = Worker::start(&location)
            .map_err(|error| DataplaneError::Other(format!("cannot start what talks to the bridge: {error}")))?;
        worker.order(Order::Open);
        worker.order(Order::Served);
        Ok(OpenFlow { link: Link::Opening, worker: Some(worker), ..OpenFlow::new(location) })
    }

    /// One that computes the flows and tells them to nobody but [`Dataplane::flows_text`].
    pub fn without_bridge() -> Self {
        OpenFlow::new(Location { program: PathBuf::new(), bridge: String::new(), remote: String::new() })
    }

    fn new(location: Location) -> Self {
        OpenFlow {
            location,
            follower: Follower::new(),
            worker: None,
            link: Link::Down,
            trouble: None,
            wiring: Wiring::default(),
            peers: Vec::new(),
            phase: Phase::Following,
            next: 1,
            told: None,
            in_force: 0,
            outcome: None,
            bundles: Bundles::default(),
            is_suspect: false,
            inherited: None,
            asking: false,
            ask_again: false,
            counters: None,
            removed: None,
            waiting: Vec::new(),
        }
    }

    fn unreachable(&self, reason: &str) -> DataplaneError {
        let Location { bridge, remote, .. } = &self.location;
        DataplaneError::Unreachable(format!(
            "bridge {bridge} cannot be managed at {remote} ({reason}): is ovs-vswitchd running? Start it, or run oxbow-node --backend=ebpf \
             without one"
        ))
    }

    /// Somebody is there and says nothing.
    fn silent(&self) -> DataplaneError {
        let Location { bridge, remote, .. } = &self.location;
        DataplaneError::Unreachable(format!(
            "bridge {bridge} does not answer at {remote}: ovs-vswitchd hangs, or has no connection to its database; what it holds stays in force"
        ))
    }

    /// An order, where there is somebody to give it to.
    fn order(&mut self, order: Order) {
        if let Some(worker) = &mut self.worker {
            worker.order(order);
        }
    }

    /// Takes the answers that have come.
    fn hear(&mut self) {
        while let Some(answer) = self.worker.as_mut().and_then(Worker::hear) {
            self.take(answer);
        }
    }

    /// Takes answers until it is so, or that time is over.
    fn wait(&mut self, time: Duration, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + time;
        while !is_so(self) {
            let Some(answer) = self.worker.as_mut().and_then(|worker| worker.wait(until)) else { return };
            self.take(answer);
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Opened(Ok(attendance)) => {
                self.link = Link::Up(attendance);
                self.trouble = None;
                // A bridge that was not there a moment ago has lost what it was given.
                if self.told.is_some() {
                    self.is_suspect = true;
                } else {
                    self.follower.distrust();
                }
                self.waiting.push(Event::SwitchAnswered);
            }
            Answer::Opened(Err(error)) => {
                self.link = Link::Down;
                self.trouble = Some(self.unreachable(&error.to_string()).to_string());
                // Nobody is there, so nobody serves a port.
                self.inherited.get_or_insert_default();
            }
            Answer::Served(ports) => {
                if let Err(error) = &ports {
                    tracing::warn!(target: "ofctrl", "cannot read which ports are served: {error}");
                }
                self.inherited.get_or_insert_with(|| ports.unwrap_or_default());
            }
            Answer::Exchange(outcome, took) => {
                self.outcome = Some((outcome, took));
                self.waiting.push(Event::SwitchAnswered);
            }
            Answer::Learned(learned) => {
                self.asking = false;
                match learned {
                    Ok(all) => self.waiting.extend(all.iter().map(event)),
                    Err(error) => tracing::warn!(target: "ofctrl", "cannot read what was learned: {error}"),
                }
                if std::mem::take(&mut self.ask_again) {
                    self.ask_for_addresses();
                }
            }
            Answer::Counters(counters) => {
                self.counters = Some((Instant::now(), counters.map_err(|error| error.to_string())));
            }
            Answer::Removed(result) => self.removed = Some(result),
            Answer::AddressesChanged => self.ask_for_addresses(),
            Answer::Gone(number, error) => {
                if matches!(&self.link, Link::Up(attendance) if attendance.number == number) {
                    tracing::warn!(target: "ofctrl", "{}: connection dropped ({error})", self.location.remote);
                    self.link = Link::Down;
                    self.trouble = Some(self.unreachable(&error.to_string()).to_string());
                    self.waiting.push(Event::SwitchGone);
                }
            }
        }
    }

    /// That there is a session; else it is ordered.
    fn connected(&mut self) -> Result<(), DataplaneError> {
        if matches!(self.link, Link::Up(_)) || self.worker.is_none() {
            return Ok(());
        }
        if matches!(self.link, Link::Down) {
            self.link = Link::Opening;
            self.order(Order::Open);
        }
        Err(match &self.trouble {
            Some(trouble) => DataplaneError::Unreachable(trouble.clone()),
            None => self.silent(),
        })
    }

    /// Takes over what the bridge has learned.
    fn ask_for_addresses(&mut self) {
        if self.phase != Phase::Active || !matches!(self.link, Link::Up(_)) {
            return;
        }
        if std::mem::replace(&mut self.asking, true) {
            self.ask_again = true;
        } else {
            self.order(Order::Learned);
        }
    }

    /// Judges what came of the exchange that was on its way, if it has ended.
    fn judge(&mut self, program: &Program) -> Result<(), DataplaneError> {
        let Some((outcome, took)) = self.outcome.take() else { return Ok(()) };
        let version = self.told.take();
        let judged = self.follower.end(program, outcome);
        if std::mem::take(&mut self.is_suspect) {
            self.follower.distrust();
        }
        self.count(&judged, took);
        match judged {
            Ok(Some(done)) => {
                self.in_force = self.in_force.max(version.unwrap_or_default());
                tracing::debug!(
                    target: "ofctrl",
                    "bundle: {} flows written, {} deleted, {} groups",
                    done.flows_written,
                    done.flows_deleted,
                    done.groups
                );
                Ok(())
            }
            // A flow was refused and its rule closed: the next one brings that.
            Ok(None) => Ok(()),
            Err(SwitchError::Unreachable { reason, .. }) => {
                self.link = Link::Down;
                Err(self.unreachable(&reason))
            }
            Err(error) => Err(DataplaneError::Other(error.to_string())),
        }
    }

    /// Counts what came of an exchange that took so long.
    fn count(&mut self, judged: &Result<Option<Committed>, SwitchError>, took: Duration) {
        match judged {
            Ok(Some(done)) => {
                let changes = done.flows_written + done.flows_deleted + done.groups;
                if changes > 0 {
                    self.bundles.committed += 1;
                    self.bundles.flows_written += done.flows_written as u64;
                    self.bundles.flows_deleted += done.flows_deleted as u64;
                    self.bundles.groups_changed += done.groups as u64;
                    self.bundles.last = Some((changes, took));
                }
            }
            Ok(None) | Err(SwitchError::Refused { .. }) => self.bundles.refused += 1,
            Err(_) => self.bundles.failed += 1,
        }
    }

    /// Begins to tell the bridge what it does not hold, unless it is being told something already: the version that holds all of it.
    fn advance(&mut self) -> u64 {
        if self.told.is_some() {
            return self.next;
        }
        let version = self.next;
        self.next += 1;
        match self.worker.is_some().then(|| self.follower.begin()).flatten() {
            Some(exchange) => {
                self.told = Some(version);
                self.order(Order::Exchange(exchange));
            }
            None => self.in_force = version,
        }
        version
    }

    /// Packets by cookie. It waits for them, but not for long.
    fn counters(&mut self) -> Result<&BTreeMap<u64, u64>, DataplaneError> {
        let is_fresh = |counters: &Option<(Instant, _)>| matches!(counters, Some((at, _)) if at.elapsed() < COUNTED);
        if !is_fresh(&self.counters) {
            self.counters = None;
            self.order(Order::Counters);
            self.wait(ANSWER, |dataplane| dataplane.counters.is_some());
        }
        let silent = self.silent();
        let (_, counters) = self.counters.get_or_insert_with(|| (Instant::now(), Err(silent.to_string())));
        counters.as_ref().map_err(|error| DataplaneError::Other(error.clone()))
    }
}

fn event(learned: &Learned) -> Event {
    let [_, _, mac @ ..] = learned.mac.0.to_be_bytes();
    Event::Learned { address: FdbAddress { datapath: learned.datapath.0, mac }, port: learned.port.0 }
}

impl Devices for OpenFlow {
    fn attach_vif(&mut self, number: u32, name: &str) -> Result<(), DataplaneError> {
        let port = u16::try_from(number).map_err(|_| DataplaneError::Attach {
            device: name.to_owned(),
            reason: format!("{number} is no OpenFlow port"),
        })?;
        self.wiring.devices.insert(number, OfPort(port));
        Ok(())
    }

    fn detach_vif(&mut self, number: u32) {
        self.wiring.devices.remove(&number);
    }

    fn attach_underlay(&mut self, _ifindex: u32, _name: &str) -> Result<(), DataplaneError> {
        Ok(())
    }

    fn detach_underlay(&mut self, _ifindex: u32) {}

    fn taken_over(&self) -> Vec<u32> {
        self.inherited.clone().unwrap_or_default()
    }
}

impl Dataplane for OpenFlow {
    fn set_peers(&mut self, peers: &[Peer]) -> (bool, Option<DataplaneError>) {
        self.peers = peers.to_vec();
        let tunnel = |peer: &Peer| {
            let kind = if peer.vxlan { EncapKind::Vxlan } else { EncapKind::Geneve };
            Some((ChassisId(peer.index), Tunnel { port: OfPort(peer.ofport?), kind }))
        };
        self.wiring.tunnels = peers.iter().filter_map(tunnel).collect();
        (self.follower.set_wiring(self.wiring.clone()), None)
    }

    fn commit(
        &mut self,
        program: &Program,
        changes: &Changes,
        cookies: Cookies<'_>,
    ) -> Result<Versions, DataplaneError> {
        self.follower.set_wiring(self.wiring.clone());
        // Whatever becomes of the bridge: the difference is told once.
        self.follower.follow(program, changes, cookies);
        self.hear();
        self.judge(program)?;
        self.connected()?;
        let asked = if self.phase == Phase::Following { self.in_force } else { self.advance() };
        Ok(Versions { asked, in_force: self.in_force })
    }

    fn activate(&mut self, program: &Program) -> Result<bool, DataplaneError> {
        self.hear();
        self.judge(program)?;
        self.connected()?;
        if self.phase == Phase::Following {
            self.phase = Phase::Activating;
            self.advance();
        }
        if self.phase == Phase::Activating && self.told.is_none() {
            if self.in_force == 0 {
                // A flow was refused: once more, without it.
                self.advance();
                return Ok(false);
            }
            self.phase = Phase::Active;
        }
        Ok(self.phase == Phase::Active)
    }

    fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    fn event_descriptor(&self) -> Option<OwnedFd> {
        match self.worker.as_ref()?.descriptor() {
            Ok(descriptor) => Some(descriptor),
            Err(error) => {
                tracing::warn!(target: "dataplane", "cannot watch the bridge: {error}");
                None
            }
        }
    }

    fn events(&mut self) -> Vec<Event> {
        self.hear();
        std::mem::take(&mut self.waiting)
    }

    fn tidy(&mut self) -> Result<(), DataplaneError> {
        self.hear();
        // What is wrong is kept as trouble, and whoever commits is told too.
        if self.connected().is_ok() {
            self.ask_for_addresses();
        }
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        let is_silent = self.worker.as_ref().is_some_and(|worker| worker.silence() > SILENCE);
        self.trouble.clone().or_else(|| is_silent.then(|| self.silent().to_string()))
    }

    fn problems(&self) -> Vec<(u32, String)> {
        self.follower
            .problems()
            .map(|problem| (problem.lflow.0, format!("{}: {}", problem.what, problem.consequence)))
            .collect()
    }

    fn drops(&mut self) -> Result<Vec<(&'static str, u64)>, DataplaneError> {
        // The switch counts flows, not reasons.
        Ok(Vec::new())
    }

    fn flow_packets(&mut self, flow: u32) -> Result<u64, DataplaneError> {
        match self.follower.cookie(LflowId(flow)) {
            None | Some(0) => Ok(0),
            Some(cookie) => Ok(self.counters()?.get(&cookie).copied().unwrap_or(0)),
        }
    }

    fn flows_text(&self) -> Option<String> {
        Some(self.follower.print())
    }

    fn bundles(&self) -> Option<Bundles> {
        let (flows, groups) = self.follower.sizes();
        Some(Bundles { flows, groups, is_connected: matches!(self.link, Link::Up(_)), ..self.bundles })
    }

    fn summary(&self) -> Summary {
        Summary { backend: "openflow", ..Summary::default() }
    }

    fn describe(&mut self) -> String {
        let mut text = format!(
            "OpenFlow, {}, bridge {} at {}, {}\n",
            if self.is_active() { "active" } else { "waiting" },
            self.location.bridge,
            self.location.remote,
            if matches!(self.link, Link::Up(_)) { "connected" } else { "not connected" },
        );
        let devices: BTreeMap<_, _> = self.wiring.devices.iter().collect();
        for (number, _) in devices {
            text.push_str(&format!("port {number}\n"));
        }
        for peer in &self.peers {
            let port = peer.ofport.map_or("no port yet".to_owned(), |port| format!("port {port}"));
            text.push_str(&format!("tunnel to {}: {port}\n", peer.chassis));
        }
        text
    }

    fn remove_everything(mut self: Box<Self>) -> Result<(), DataplaneError> {
        self.hear();
        if self.worker.is_none() || matches!(self.link, Link::Down) && self.trouble.is_some() {
            // Flows end with their switch.
            return Ok(());
        }
        self.order(Order::Remove);
        self.wait(FAREWELL, |dataplane| dataplane.removed.is_some());
        match self.removed.take() {
            Some(result) => result.map_err(|error| DataplaneError::Other(error.to_string())),
            None => Err(self.silent()),
        }
    }
}
