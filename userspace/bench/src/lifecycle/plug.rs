//! The life of a VIF, step by step, from plugging to forgotten.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use oxbow_testkit::vif::GUEST_DEVICE;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, wait_until};

use super::echo::{Echo, INTERVAL};
use super::network::{self, Network};
use super::observer::{Door, Fact, Observer};
use super::tunnel::Tunnel;
use super::usage;
use crate::contest::{Contest, Figure};
use crate::report::Bound;
use crate::session::Session;

/// Who competes: name, northd, hypervisors.
const CONTENDERS: [(&str, Northd, Node); 3] =
    [(OXBOW, Northd::Oxbow, Node::Oxbow), (MIXED, Northd::Stock, Node::Oxbow), (STOCK, Northd::Stock, Node::Stock)];
const OXBOW: &str = "Oxbow";
const MIXED: &str = "oxbow-node under ovn-northd";
const STOCK: &str = "stock OVN";

/// The hypervisor where VIFs are plugged, and the one from where they are pinged.
const HERE: usize = 1;
const FAR: usize = 0;
/// The port of the guest that pings.
const PINGER: usize = 0;
/// The port of a guest that is always plugged beside the one that is measured.
const RESIDENT: usize = 1;
/// The first of the ports that are plugged, one a round.
const FIRST: usize = 2;
/// The first of those that are never plugged.
const OTHERS: usize = 1 << 20;
/// How long no echo request may leave for the hypervisor to have forgotten the port.
const QUIET: Duration = Duration::from_millis(100);

/// The contest's name: how many ports the switch has that are bound nowhere, and whether another port of it is plugged on the same
/// hypervisor, so that its flows are here already.
pub(super) fn title(others: usize, is_second: bool) -> String {
    let network = match others {
        0 => "empty network".to_owned(),
        others => format!("{others} ports on the switch"),
    };
    format!("life cycle, {network}, {} VIF of the hypervisor", if is_second { "second" } else { "first" })
}

/// Measures on a switch with so many other ports.
pub(super) fn run(session: &mut Session, others: usize, node_arguments: &[String]) -> Result<()> {
    let usual = 10;
    let cases: Vec<bool> = [false, true].into_iter().filter(|second| session.wants(&title(others, *second))).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let ports = FIRST + cases.len() * session.rounds(usual) as usize;
    let mut sites = CONTENDERS
        .iter()
        .map(|(name, northd, node)| {
            let arguments: Vec<&str> = node_arguments.iter().map(String::as_str).collect();
            let cloud = Cloud::builder().northd(*northd).node_arguments(&arguments).hypervisors(2, *node);
            cloud.start().and_then(|cloud| Site::of(cloud, ports, others)).with_context(|| (*name).to_owned())
        })
        .collect::<Result<Vec<_>>>()?;
    for is_second in cases {
        if is_second {
            for site in &mut sites {
                site.cloud.add_vif(HERE, network::guest(RESIDENT))?;
                site.cloud.sync()?;
                site.is_second = true;
            }
        }
        contest(&title(others, is_second), usual).run(session, |contender| sites[contender].round())?;
    }
    Ok(())
}

fn contest(title: &str, rounds: u32) -> Contest {
    let faster = |name: &str| {
        Figure::new(name, "ms").wanted(OXBOW, STOCK, Bound::Under(1.0)).wanted(MIXED, STOCK, Bound::Under(1.0))
    };
    let cpu = |name: &str| Figure::new(name, "ms").ratio(OXBOW, STOCK).ratio(MIXED, STOCK);
    let mut contest = Contest::new(title, rounds).contenders(CONTENDERS.map(|(name, ..)| name));
    for step in [
        "add-port → ofport",
        "add-port → Port_Binding.chassis",
        "add-port → ovn-installed",
        "add-port → up in NB",
        "add-port → first answered ping",
    ] {
        contest = contest.figure(faster(step));
    }
    contest = contest.figure(cpu("plug: CPU of northd and both hypervisors' daemons"));
    for step in ["del-port → binding released", "del-port → down in NB", "del-port → last packet tunnelled to it"]
    {
        contest = contest.figure(faster(step));
    }
    contest.figure(cpu("unplug: CPU of northd and both hypervisors' daemons"))
}

/// One contender's cloud, with the eyes on it.
struct Site {
    cloud: Cloud,
    observer: Observer,
    // Kept open: what is watched through them is watched as long as they live.
    _doors: Vec<Door>,
    tunnel: Tunnel,
    daemons: Vec<u32>,
    next: usize,
    is_second: bool,
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

impl Site {
    fn of(mut cloud: Cloud, ports: usize, others: usize) -> Result<Self> {
        let observer = Observer::new()?;
        let mut doors = vec![observer.northbound(&cloud.central().nb().remote())?];
        doors.push(observer.southbound(&cloud.southbound().remote())?);
        for (index, hypervisor) in cloud.hypervisors().iter().enumerate() {
            doors.push(observer.switch(index, &hypervisor.ovsdb().remote())?);
        }
        let network = Network::make(cloud.central().nb())?;
        network.add_ports(&doors[0], 0..ports)?;
        network.add_ports(&doors[0], OTHERS..OTHERS + others)?;
        cloud.sync()?;
        cloud.add_vif(FAR, network::guest(PINGER))?;
        cloud.sync()?;
        let tunnel = Tunnel::listen(cloud.central_ns(), "to-hv1")?;
        let mut daemons: Vec<u32> = cloud.hypervisors().iter().flat_map(|hypervisor| hypervisor.daemons()).collect();
        daemons.extend(cloud.central().northd_pid());
        Ok(Self { cloud, observer, _doors: doors, tunnel, daemons, next: FIRST, is_second: false })
    }

    fn round(&mut self) -> Result<Vec<f64>> {
        let number = self.next;
        self.next += 1;
        if !self.is_second && self.cloud.hypervisors()[HERE].node() == Node::Stock {
            // ovn-controller keeps a switch whose last port has left until it computes everything anew: only then is a VIF the first again.
            self.cloud.hypervisors()[HERE].appctl("recompute")?;
            self.cloud.sync()?;
        }
        let (port, pinger) = (network::name(number), network::address(PINGER));
        let vif = self.cloud.create_vif(HERE, network::guest(number))?;
        let device = vif.device().to_owned();
        let neighbour = format!("{} lladdr {}", pinger.ip, network::mac_text(pinger.mac));
        vif.guest().ip(&format!("neigh replace {neighbour} dev {GUEST_DEVICE} nud permanent"))?;
        let guest = self.cloud.vif(&network::name(PINGER))?.guest();
        let echo = Echo::start(guest, pinger, network::address(number))?;
        // What cannot be delivered yet is dropped by then, and how that is done is cached.
        echo.sent_more(50)?;
        let mut values = self.plug(&port, &device, &echo)?;
        values.extend(self.unplug(&port, &device, &echo)?);
        drop(echo);
        self.cloud.remove_vif(&port)?;
        Ok(values)
    }

    /// Runs `act`, a command that waits by itself, while `watch` waits for its effects.
    fn while_doing<T>(act: impl FnOnce() -> Result<()> + Send, watch: impl FnOnce() -> Result<T>) -> Result<T> {
        thread::scope(|scope| {
            let acting = scope.spawn(act);
            let watched = watch();
            acting.join().map_err(|_| anyhow!("a thread panicked"))??;
            watched
        })
    }

    fn plug(&self, port: &str, device: &str, echo: &Echo) -> Result<Vec<f64>> {
        let (observer, mark) = (&self.observer, self.observer.mark());
        let wait = |what: &str, holds: &dyn Fn(&Fact) -> bool| observer.wait(mark, PATIENCE, what, holds);
        let before = usage::cpu(&self.daemons)?;
        let start = Instant::now();
        let mut values = Self::while_doing(
            || self.cloud.plug(port),
            || {
                let numbered = wait(
                    "ofport",
                    &|fact| matches!(fact, Fact::Interface { host: HERE, name, ofport: Some(number), .. } if name == device && *number > 0),
                )?;
                let bound = wait(
                    "Port_Binding.chassis",
                    &|fact| matches!(fact, Fact::Binding { port: bound, chassis: Some(_), .. } if bound == port),
                )?;
                let installed = wait(
                    "ovn-installed",
                    &|fact| matches!(fact, Fact::Interface { host: HERE, name, installed: true, .. } if name == device),
                )?;
                let up = wait("up in NB", &|fact| matches!(fact, Fact::Port { name, up: Some(true) } if name == port))?;
                let answered = echo.answered_after(start, PATIENCE)?;
                Ok([numbered, bound, installed, up, answered].map(|at| milliseconds(start, at)).to_vec())
            },
        )?;
        values.push((usage::cpu(&self.daemons)? - before).as_secs_f64() * 1000.0);
        Ok(values)
    }

    fn unplug(&self, port: &str, device: &str, echo: &Echo) -> Result<Vec<f64>> {
        let (observer, mark) = (&self.observer, self.observer.mark());
        let wait = |what: &str, holds: &dyn Fn(&Fact) -> bool| observer.wait(mark, PATIENCE, what, holds);
        let before = usage::cpu(&self.daemons)?;
        let start = Instant::now();
        let mut values = Self::while_doing(
            || self.cloud.unplug(port),
            || {
                wait(
                    "the interface's end",
                    &|fact| matches!(fact, Fact::InterfaceGone { host: HERE, name } if name == device),
                )?;
                let released = wait(
                    "the binding's end",
                    &|fact| matches!(fact, Fact::Binding { port: bound, chassis: None, .. } if bound == port),
                )?;
                let down = wait(
                    "down in NB",
                    &|fact| matches!(fact, Fact::Port { name, up: Some(false) | None } if name == port),
                )?;
                Ok([released, down].map(|at| milliseconds(start, at)).to_vec())
            },
        )?;
        wait_until("the end of packets tunnelled to a port that is gone", PATIENCE, || {
            echo.sent_more(u64::try_from(QUIET.as_millis() / INTERVAL.as_millis()).unwrap_or(1))?;
            let last = self.tunnel.last().context("nothing was ever tunnelled")?;
            Ok(Look::when(last.elapsed() > QUIET, || format!("{:?} ago", last.elapsed())))
        })?;
        values.push(self.tunnel.last().map_or(0.0, |last| milliseconds(start, last)));
        values.push((usage::cpu(&self.daemons)? - before).as_secs_f64() * 1000.0);
        Ok(values)
    }
}
