//! Packets and TCP through hypervisors, against bare `bpf_redirect`, the Linux bridge and OVS's userspace datapath.
//!
//! Everything lives in namespaces: guests behind veth pairs (one behind a tap, with a process of QEMU's kind between), hypervisors with an underlay
//! of veth pairs. Oxbow and OVS are whole clouds with real databases; the bare programs and the bridge join guests of the same kind directly. "Bare Geneve" puts
//! the same outer headers on every frame and takes them off again, without a look at anything: what a tunnel costs when nothing has to be found out.

mod bpf;
mod guest;
mod kernel_ovs;
mod load;
mod rig;

use std::time::Duration;

use anyhow::Result;
use oxbow_testkit::Node;

use self::load::{flood, stream};
use self::rig::{OvnRig, PlainRig, Underlay};
use crate::contest::{Contest, Figure};
use crate::report::Bound;
use crate::session::Session;

/// Packets and TCP through hypervisors, against bare `bpf_redirect`, the Linux bridge and OVS's userspace datapath.
///
/// From VIF to VIF on one hypervisor, and by Geneve between two, over an underlay that carries super-packets and over one that
/// carries frames of the MTU. Needs root.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Milliseconds that a contender is measured for in each round [default: 100, quick: 40].
    #[arg(long, value_name = "MS")]
    slice: Option<u64>,
    /// Against the kernel's Open vSwitch datapath instead: its module must be loaded (`cargo xtask vm --ring bench` does it in a virtual
    /// machine).
    #[arg(long)]
    kernel_ovs: bool,
}

const OXBOW: &str = "Oxbow";
const BARE: &str = "bare bpf_redirect";
const BARE_GENEVE: &str = "bare Geneve";
const BRIDGE: &str = "Linux bridge";
const OVS: &str = "OVS userspace";

/// What issue and design want of Oxbow beside the bare program.
const OF_BARE: Bound = Bound::AtLeast(0.85);

/// What "far ahead" is taken for.
const FAR_AHEAD: Bound = Bound::Over(2.0);

const ROUNDS: u32 = 31;

/// Measures.
///
/// # Errors
///
/// When something cannot be set up or measured.
pub fn run(args: &Args, session: &mut Session) -> Result<()> {
    let slice = args.slice.unwrap_or(if session.quick() { 40 } else { 100 });
    let slice = Duration::from_millis(slice);
    if args.kernel_ovs {
        return kernel_ovs::run(session, slice);
    }
    local(session, slice)?;
    remote(session, slice)
}

fn local(session: &mut Session, slice: Duration) -> Result<()> {
    let udp = [(1, "one CPU sending"), (2, "both CPUs sending")]
        .map(|(flows, what)| (flows, format!("VIF to VIF on one hypervisor, 60-byte UDP, {what}")));
    let tcp = "VIF to VIF on one hypervisor, TCP with GSO";
    if !udp.iter().any(|(_, name)| session.wants(name)) && !session.wants(tcp) {
        return Ok(());
    }
    let (oxbow, ovs) = (OvnRig::start(Node::Oxbow, 1)?, OvnRig::start(Node::Stock, 1)?);
    let (bare, bridge) = (PlainRig::redirect()?, PlainRig::bridge()?);
    let routes = [oxbow.local()?, bare.route(), bridge.route(), ovs.local()?];
    let contenders = [OXBOW, BARE, BRIDGE, OVS];
    for (flows, name) in udp {
        if !session.wants(&name) {
            continue;
        }
        let rate = Figure::new("", "packets/s")
            .wanted(OXBOW, BARE, OF_BARE)
            .wanted(OXBOW, BRIDGE, Bound::Over(1.0))
            .wanted(OXBOW, OVS, FAR_AHEAD);
        let cpu = Figure::new("CPU", "ns/packet").ratio(OXBOW, BARE).ratio(OXBOW, BRIDGE);
        Contest::new(&name, ROUNDS).contenders(contenders).figure(rate).figure(cpu).run(session, |contender| {
            let flood = flood(routes[contender], flows, slice)?;
            // OVS's work is done by a process of its own.
            Ok(vec![flood.rate, if contenders[contender] == OVS { f64::NAN } else { flood.cpu }])
        })?;
    }
    if !session.wants(tcp) {
        return Ok(());
    }
    let rate = Figure::new("", "Gbit/s")
        .wanted(OXBOW, BARE, OF_BARE)
        .wanted(OXBOW, BRIDGE, Bound::Over(1.0))
        .wanted(OXBOW, OVS, FAR_AHEAD);
    let cpu = Figure::new("CPU", "µs/MiB").ratio(OXBOW, BARE).ratio(OXBOW, BRIDGE);
    Contest::new(tcp, ROUNDS).contenders(contenders).figure(rate).figure(cpu).run(session, |contender| {
        let stream = stream(routes[contender], slice)?;
        Ok(vec![stream.rate, if contenders[contender] == OVS { f64::NAN } else { stream.cpu }])
    })
}

fn remote(session: &mut Session, slice: Duration) -> Result<()> {
    let mut cloud = None;
    for tap in [false, true] {
        let towards = if tap { "a tap" } else { "a veth" };
        let between = format!("Geneve between hypervisors towards {towards}");
        let udp = format!("{between}, 60-byte UDP");
        let streams = [Underlay::Gso, Underlay::Mtu, Underlay::MtuGro]
            .map(|underlay| (underlay, format!("{between}, TCP, {}", underlay.text())));
        if !session.wants(&udp) && !streams.iter().any(|(_, name)| session.wants(name)) {
            continue;
        }
        let oxbow: &OvnRig = match &mut cloud {
            Some(oxbow) => oxbow,
            none => none.insert(OvnRig::start(Node::Oxbow, 2)?),
        };
        let bare = PlainRig::redirect_between_hosts(tap, false)?;
        let routes = [oxbow.remote(tap)?, bare.route()];
        let contenders = [OXBOW, BARE];
        if session.wants(&udp) {
            let geneve = PlainRig::redirect_between_hosts(tap, true)?;
            let (routes, contenders) = ([routes[0], routes[1], geneve.route()], [OXBOW, BARE, BARE_GENEVE]);
            let rate =
                Figure::new("", "packets/s").wanted(OXBOW, BARE, OF_BARE).ratio(OXBOW, BARE_GENEVE).note(WHY_PACKETS);
            let cpu = Figure::new("CPU", "ns/packet").ratio(OXBOW, BARE).ratio(OXBOW, BARE_GENEVE);
            Contest::new(&udp, ROUNDS).contenders(contenders).figure(rate).figure(cpu).run(session, |contender| {
                let flood = flood(routes[contender], 1, slice)?;
                Ok(vec![flood.rate, flood.cpu])
            })?;
        }
        for (underlay, name) in streams {
            if !session.wants(&name) {
                continue;
            }
            oxbow.underlay(underlay)?;
            bare.underlay(underlay)?;
            let mut rate = Figure::new("", "Gbit/s").wanted(OXBOW, BARE, OF_BARE);
            rate = match (underlay, tap) {
                (Underlay::Gso, false) => rate,
                (Underlay::Gso, true) => rate.note(WHY_TAP),
                (Underlay::Mtu, _) => rate.note(WHY_PACKETS),
                (Underlay::MtuGro, _) => rate.note(WHY_GRO),
            };
            let cpu = Figure::new("CPU", "µs/MiB").ratio(OXBOW, BARE);
            Contest::new(&name, ROUNDS).contenders(contenders).figure(rate).figure(cpu).run(session, |contender| {
                let stream = stream(routes[contender], slice)?;
                Ok(vec![stream.rate, stream.cpu])
            })?;
        }
    }
    Ok(())
}

// What costs what is in ebpf/DESIGN.md, "Throughput".
const WHY_PACKETS: &str =
    "each packet pays for two look-ups, 58 bytes of headers and, where its sender left no room for them, a new head";
const WHY_TAP: &str =
    "a decapsulated super-packet stays marked as tunnelled, and a tap takes no such: the stack segments it first";
const WHY_GRO: &str =
    "the stack joins the peer's plain frames, but nothing inside Geneve for which it has no tunnel device";
