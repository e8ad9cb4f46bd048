//! The life of every VIF (ovn-architecture(7), Life Cycle of a VIF): who claims what, in what order it becomes ready, when it is let go.
//!
//! Level-triggered: [`Vifs::pass`] looks at everything that can be observed (interfaces, port bindings, what the dataplane has
//! acknowledged) and says what to write and what to serve. Whoever calls it writes, waits for the databases' own updates, and
//! calls again; a lost or refused write is simply seen as not done. What must be remembered between passes is small: which claim an
//! interface belongs to and when it was made ([`Tracked`]).

mod pass;
#[cfg(test)]
mod tests;

use crate::activation::Strategies;
use crate::claim::{Refusal, Role};
use crate::dataplane::LocalVif;
use crate::rows::{Interface, PortBinding, StringMap, Uuid};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A port that two chassis take from each other is claimed again only this long after our last claim.
pub const CLAIM_INTERVAL_MS: u64 = 2000;

/// How far a VIF has come. The order is that of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No Port_Binding has this name (yet, or none that we may see).
    NoPort,
    /// It is not ours to bind.
    Refused(Refusal),
    /// The interface has no usable device: the text is its error.
    NoDevice(String),
    /// Another, newer interface has the same iface-id.
    Superseded(String),
    /// This chassis is not registered yet.
    NoChassis,
    /// Another chassis has it and we claimed it a moment ago; until when to wait.
    Postponed(u64),
    /// The claim is not in the Southbound database yet.
    Claimed,
    /// The Southbound server has not sent its datapath's rows yet.
    WaitingData,
    /// The dataplane has not acknowledged it yet.
    Programming,
    /// The dataplane refused it.
    Failed(String),
    /// A stale `ovn-installed` or `up` of an earlier life has to go first.
    RemovingStale,
    /// `up` and `ovn-installed` are being written.
    MarkingUp,
    /// Done, but for what its guest has to send before packets pass: the port's second place in a live migration.
    WaitsForActivation(Strategies),
    /// Done.
    Installed,
}

impl Phase {
    /// Short name for listings.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::NoPort => "no-port-binding",
            Phase::Refused(_) => "refused",
            Phase::NoDevice(_) => "no-device",
            Phase::Superseded(_) => "superseded",
            Phase::NoChassis => "no-chassis",
            Phase::Postponed(_) => "postponed",
            Phase::Claimed => "claimed",
            Phase::WaitingData => "waiting-data",
            Phase::Programming => "programming",
            Phase::Failed(_) => "failed",
            Phase::RemovingStale => "removing-stale",
            Phase::MarkingUp => "marking-up",
            Phase::WaitsForActivation(_) => "waits-for-activation",
            Phase::Installed => "installed",
        }
    }

    /// Why it is where it is, for people; nothing for the phases that pass by themselves.
    pub fn reason(&self) -> Option<String> {
        match self {
            Phase::NoPort => Some("no such logical port".into()),
            Phase::Refused(refusal) => Some(refusal.to_string()),
            Phase::NoDevice(text) | Phase::Failed(text) => Some(text.clone()),
            Phase::Superseded(other) => Some(format!("interface {other} is newer and has the same iface-id")),
            Phase::NoChassis => Some("this chassis is not registered in the Southbound database".into()),
            Phase::Postponed(_) => Some("another chassis has just claimed it".into()),
            Phase::WaitsForActivation(strategies) => Some(format!("waits for activation ({strategies})")),
            _ => None,
        }
    }

    /// True while this VIF will be installed without anybody's help: `nb_cfg` must wait for it.
    pub fn is_under_way(&self) -> bool {
        matches!(
            self,
            Phase::Claimed | Phase::WaitingData | Phase::Programming | Phase::RemovingStale | Phase::MarkingUp
        )
    }
}

/// An interface of the integration bridge, as [`Vifs::pass`] needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VifInterface {
    /// The row.
    pub row: Interface,
    /// The device on the switch's side, when there is one.
    pub ifindex: Option<u32>,
    /// Order in which the interfaces appeared.
    pub age: u64,
}

/// What the dataplane says of a port that it was asked to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// Attached, and everything it needs is in the policy version in force.
    Yes,
    /// Refused: why.
    No(String),
}

/// The Southbound ports that a pass reads.
pub trait Ports {
    /// The port with this name.
    fn by_name(&self, name: &str) -> Option<&PortBinding>;
    /// Ports nested in the port with this name.
    fn children(&self, parent: &str) -> Vec<&PortBinding>;
    /// Ports whose chassis or additional_chassis holds this row.
    fn bound_to(&self, chassis: Uuid) -> Vec<&PortBinding>;
    /// Ports that a chassis serves without an interface, because an option or group names it (`l2gateway`, `l3gateway`, …).
    fn gateways(&self) -> Vec<&PortBinding>;
    /// Tunnel key of a datapath, when its row is here.
    fn datapath_key(&self, datapath: Uuid) -> Option<u32>;
}

/// Everything that a pass looks at.
pub struct Inputs<'a> {
    /// Chassis name and host name.
    pub me: crate::claim::Me<'a>,
    /// Our Chassis row, once it is in the database.
    pub chassis: Option<Uuid>,
    /// Our Encap rows by address.
    pub encaps: &'a BTreeMap<String, Uuid>,
    /// Interfaces of the integration bridge.
    pub interfaces: &'a [VifInterface],
    /// Southbound ports.
    pub ports: &'a dyn Ports,
    /// Whether the Southbound server has answered for everything that was asked for, ports by the names of these interfaces included.
    pub has_ports: bool,
    /// Whether the Southbound server has answered for everything that belongs to this datapath.
    pub has_data: &'a dyn Fn(Uuid) -> bool,
    /// What the dataplane has acknowledged: equal VIF, so a changed one counts as not served yet.
    pub served: &'a dyn Fn(&LocalVif) -> Option<Served>,
    /// Whether a device passes nothing and is listened on; `None` = not yet.
    pub held: &'a dyn Fn(u32) -> Option<Served>,
    /// Zone of a port.
    pub zone: &'a dyn Fn(&str) -> u16,
    /// Devices whose programs a former process left attached.
    pub taken_over: &'a BTreeSet<u32>,
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// Milliseconds since the epoch.
    pub wall_ms: u64,
}

/// New values of the Port_Binding columns that we write; `None` = leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortWrite {
    /// Row.
    pub port: Uuid,
    /// What the row's `chassis` must still be for the write to make sense.
    pub expected_chassis: Option<Uuid>,
    /// `chassis`.
    pub chassis: Option<Option<Uuid>>,
    /// `additional_chassis`, whole.
    pub additional_chassis: Option<BTreeSet<Uuid>>,
    /// `encap`.
    pub encap: Option<Option<Uuid>>,
    /// `additional_encap`, whole.
    pub additional_encap: Option<BTreeSet<Uuid>>,
    /// `options`, whole: the role that this chassis has may not change single keys. The row's options must still be the former ones.
    pub options: Option<OptionsWrite>,
    /// `up`.
    pub up: Option<bool>,
    /// `virtual_parent`: cleared.
    pub clear_virtual_parent: bool,
}

impl PortWrite {
    fn for_port(port: &PortBinding) -> Self {
        PortWrite { port: port.uuid, expected_chassis: port.chassis, ..Default::default() }
    }

    /// True when nothing is to be written.
    pub fn is_empty(&self) -> bool {
        *self == PortWrite { port: self.port, expected_chassis: self.expected_chassis, ..Default::default() }
    }
}

/// New value of Port_Binding.options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionsWrite {
    /// What it must still be: northd writes the same column.
    pub expected: StringMap,
    /// What it becomes.
    pub options: StringMap,
}

/// A port that waits for a frame of its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaiting {
    /// Name of the port.
    pub port: String,
    /// Device where the frame will come from.
    pub ifindex: u32,
    /// VLAN tag of a nested port, 0 = the device's own port.
    pub vlan: u16,
    /// Which frames are waited for.
    pub strategies: Strategies,
}

/// Keys of Interface.external_ids that we write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceWrite {
    /// Row.
    pub interface: Uuid,
    /// Keys to set.
    pub set: BTreeMap<String, String>,
    /// Keys to remove.
    pub remove: BTreeSet<String>,
}

impl InterfaceWrite {
    /// Takes back all that we may have written.
    pub fn forget(row: &Interface) -> Self {
        let ours = ["ovn-installed", "ovn-installed-ts", REASON_KEY];
        let remove = ours.into_iter().filter(|key| row.external_ids.contains_key(*key)).map(str::to_owned).collect();
        InterfaceWrite { interface: row.uuid, set: BTreeMap::new(), remove }
    }
}

/// Key of Interface.external_ids that tells why a VIF is not installed.
pub const REASON_KEY: &str = "oxbow-reason";

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A warning, else information.
    pub warning: bool,
    /// Text.
    pub text: String,
}

/// What a pass wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Southbound writes.
    pub ports: Vec<PortWrite>,
    /// Open_vSwitch writes.
    pub interfaces: Vec<InterfaceWrite>,
    /// What the dataplane must serve: exactly this.
    pub serve: Vec<LocalVif>,
    /// What waits for a frame of its guest and is not served until then.
    pub awaiting: Vec<Awaiting>,
    /// What is wrong with ports, for people.
    pub problems: Vec<String>,
    /// Datapaths that have a VIF here.
    pub datapaths: BTreeSet<Uuid>,
    /// State of every interface with an iface-id, by interface name.
    pub states: BTreeMap<String, VifState>,
    /// Log lines.
    pub notes: Vec<Note>,
    /// When to look again although nothing changes, monotonic milliseconds.
    pub wake_at_ms: Option<u64>,
}

impl Outcome {
    /// True while a VIF whose device exists is on its way to being installed.
    pub fn is_any_under_way(&self) -> bool {
        self.states.values().any(|state| state.phase.is_under_way())
    }
}

/// State of one interface, for people and for [`Outcome::is_any_under_way`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VifState {
    /// Logical port that the interface claims to be.
    pub iface_id: String,
    /// How far it is.
    pub phase: Phase,
    /// Device.
    pub ifindex: Option<u32>,
}

/// What is remembered of a claim between passes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tracked {
    interface: Uuid,
    role: Role,
    /// A former life's `up` and `ovn-installed` are still to be removed.
    stale: bool,
    /// The claim was seen in the database.
    confirmed: bool,
    /// It was installed at least once.
    installed: bool,
}

/// The VIFs of this chassis.
#[derive(Debug, Default)]
pub struct Vifs {
    tracked: HashMap<String, Tracked>,
    /// Ports whose guests have said that they run here.
    activated: HashSet<String>,
    /// Ports that waited for that at the last pass.
    waiting: HashSet<String>,
    /// Nested ports that are served.
    nested: HashSet<String>,
    /// When we last wrote a claim, by port.
    claimed_at: HashMap<String, u64>,
    /// Refusals and the like that were logged, so that each is logged once.
    told: HashMap<String, String>,
}
