//! The eBPF backend as a [`Dataplane`].

mod look;

use super::inspect::{Inspect, Summary};
use super::{Cookies, Dataplane, DataplaneError, Devices, Event, FdbAddress, LogicalPort, Peer, Versions};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use oxbow_abi::learning::FdbKey;
use oxbow_abi::reason::Reason;
use oxbow_abi::topology::{
    Address, CHASSIS_CSUM, CHASSIS_DF, CHASSIS_RESOLVED, CHASSIS_TOS_INHERIT, CHASSIS_VXLAN, Chassis,
};
use oxbow_backend_bpf::kernel::{
    AttachError, Config, DryRun, Event as KernelEvent, Events, HookChoice, LoadError, Monitor, Pins, Role, Sizes,
    is_private,
};
use oxbow_backend_bpf::{Backend, CommitError, Limits};
use oxbow_pipeline::ir::{Changes, ChassisId, DatapathKey, PortKey, Program};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Hints in the kernel's MAC table that no row confirmed are forgotten after this long without use.
const HINT_AGE_NS: u64 = 300_000_000_000;

/// Where the object and the pins are.
#[derive(Clone, Debug)]
pub struct Location {
    /// ELF object; none = beside the executable, then `/usr/lib/oxbow`.
    pub object: Option<PathBuf>,
    /// Mount point of the bpf file system.
    pub bpffs: PathBuf,
    /// How programs are attached.
    pub hook: HookChoice,
    /// Sizes of the maps.
    pub sizes: Sizes,
}

/// The backend.
pub struct Ebpf {
    backend: Backend,
    events: Option<Events>,
    peers: BTreeMap<u32, Peer>,
    /// Those of which the maps may have a part only.
    unsure_peers: BTreeSet<u32>,
    inherited: Vec<u32>,
    active: bool,
    /// What the programs of a former process learned, and nobody heard.
    unheard: Vec<Event>,
    ledger: look::Ledger,
    monitor: Option<Monitor>,
    /// Loaded when it is first asked for.
    dry_run: Option<DryRun>,
}

impl Ebpf {
    /// Loads the programs beside what a former process left.
    ///
    /// # Errors
    /// What is missing, in words: the object, a privilege, the bpf file system.
    pub fn open(location: &Location, system_id: &str) -> Result<Self, DataplaneError> {
        allow_descriptors();
        let (path, object) = read_object(location.object.as_deref())?;
        // Before our own load makes another instance: does a former process' policy serve these devices?
        let inherited = inherited(&location.bpffs, system_id);
        let config = Config {
            bpffs: location.bpffs.clone(),
            system_id: system_id.to_owned(),
            object,
            sizes: location.sizes.clone(),
            hook: location.hook,
        };
        // Drops are counted by reason and by flow; an event for each would crowd out those of learned addresses.
        let limits = Limits { drop_events: false, ..Limits::default() };
        let mut backend = Backend::open(&config, limits).map_err(|error| load_error(&path, &error))?;
        let instance = backend.instance();
        tracing::info!(
            target: "dataplane",
            "programs of {} are attached by {} ({})",
            path.display(),
            instance.hook(),
            instance.hook_reason()
        );
        let events = backend.instance().take_events();
        let monitor = backend.instance().take_monitor();
        Ok(Ebpf {
            backend,
            events,
            peers: BTreeMap::new(),
            unsure_peers: BTreeSet::new(),
            inherited,
            active: false,
            unheard: Vec::new(),
            ledger: look::Ledger::default(),
            monitor,
            dry_run: None,
        })
    }

    fn attach(&mut self, ifindex: u32, name: &str, role: Role) -> Result<(), DataplaneError> {
        let start = Instant::now();
        let instance = self.backend.instance();
        let result = match role {
            Role::Vif => instance.attach_at_once(name, ifindex),
            // It lets the host's frames go on, which would meet a filter as well.
            Role::Underlay => instance.attach(name, ifindex, role),
        };
        let result = result.map_err(|error| attach_error(name, &error));
        tracing::debug!(target: "dataplane", "attaching to {name} took {:?}", start.elapsed());
        result
    }

    fn detach(&mut self, ifindex: u32, role: Role) {
        if let Err(error) = self.backend.instance().detach(ifindex, role) {
            tracing::warn!(target: "dataplane", "{}", chain(&error));
        }
    }
}

/// Every attached device costs a descriptor: allows as many as may be had.
fn allow_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(target: "dataplane", "cannot raise the limit of open files: {error}");
    }
}

fn read_object(named: Option<&Path>) -> Result<(PathBuf, Vec<u8>), DataplaneError> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(OBJECT)));
    let candidates: Vec<PathBuf> = match named {
        Some(path) => vec![path.to_owned()],
        None => beside.into_iter().chain([Path::new("/usr/lib/oxbow").join(OBJECT)]).collect(),
    };
    for path in &candidates {
        match std::fs::read(path) {
            Ok(bytes) => return Ok((path.clone(), bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(DataplaneError::Other(format!("cannot read the eBPF object {}: {error}", path.display())));
            }
        }
    }
    let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(DataplaneError::Other(format!(
        "there is no eBPF object at {}: run `cargo xtask build-ebpf`",
        places.join(" or ")
    )))
}

/// File name of the object.
const OBJECT: &str = "oxbow-datapath.o";

/// What is wrong with the place of the pins: a bpf file system that only this mount namespace sees takes them along when it ends.
pub fn private_bpffs(bpffs: &Path) -> Option<String> {
    // Not being able to look means not knowing.
    (is_private(bpffs) == Some(true)).then(|| {
        format!(
            "{} is not the host's: it belongs to this mount namespace (as inside `ip netns exec`), and pins die with it; \
             enter namespaces by nsenter --net",
            bpffs.display()
        )
    })
}

fn inherited(bpffs: &Path, system_id: &str) -> Vec<u32> {
    // What keeps the pins from being read keeps the instance from being loaded too: that is reported there.
    Pins::open(bpffs, system_id).and_then(|pins| pins.inherited_vifs()).unwrap_or_default()
}

fn learned(key: &FdbKey, port: u32) -> Event {
    let [h0, h1] = (key.mac_hi as u16).to_be_bytes();
    let [l0, l1, l2, l3] = key.mac_lo.to_be_bytes();
    Event::Learned { address: FdbAddress { datapath: key.datapath, mac: [h0, h1, l0, l1, l2, l3] }, port }
}

/// An error with the errors that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Why the object could not be loaded, with its name where it is to blame.
fn load_error(object: &Path, error: &LoadError) -> DataplaneError {
    let object = object.display();
    DataplaneError::Other(match error {
        LoadError::Object(_) => format!(
            "{object}: {}: if it was built for another version of Oxbow, run `cargo xtask build-ebpf`",
            chain(error)
        ),
        LoadError::Program { .. } | LoadError::Missing { .. } | LoadError::Layout { .. } | LoadError::Map(_) => {
            format!("{object}: {}", chain(error))
        }
        LoadError::Pins(_)
        | LoadError::Privilege(_)
        | LoadError::NoTcx { .. }
        | LoadError::Cpus(_)
        | LoadError::Grace(_) => chain(error),
    })
}

fn attach_error(device: &str, error: &AttachError) -> DataplaneError {
    let reason = chain(error);
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.raw_os_error() == Some(libc::ENODEV)
        {
            return DataplaneError::DeviceGone(device.to_owned());
        }
        source = cause.source();
    }
    DataplaneError::Attach { device: device.to_owned(), reason }
}

fn commit_error(error: &CommitError) -> DataplaneError {
    DataplaneError::Other(chain(error))
}

fn address(ip: IpAddr) -> Address {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            Address { bytes, family: 4 }
        }
        IpAddr::V6(ip) => Address { bytes: ip.octets(), family: 6 },
    }
}

/// The kernel's entry for a peer.
fn encode(peer: &Peer) -> Chassis {
    let mut flags = 0;
    for (set, flag) in [
        (peer.csum, CHASSIS_CSUM),
        (peer.vxlan, CHASSIS_VXLAN),
        (peer.tos_inherit, CHASSIS_TOS_INHERIT),
        (peer.df, CHASSIS_DF),
        (peer.hop.is_some(), CHASSIS_RESOLVED),
    ] {
        flags |= if set { flag } else { 0 };
    }
    let mut chassis = Chassis {
        flags,
        local: address(peer.local),
        remote: address(peer.remote),
        ttl: 64,
        tos: u32::from(peer.tos),
        ..Chassis::default()
    };
    if let Some(hop) = peer.hop {
        chassis.ifindex = hop.ifindex;
        chassis.mtu = hop.mtu;
        chassis.mac[..6].copy_from_slice(&hop.destination);
        chassis.mac[6..].copy_from_slice(&hop.source);
    }
    chassis
}

impl Devices for Ebpf {
    fn attach_vif(&mut self, ifindex: u32, name: &str) -> Result<(), DataplaneError> {
        self.attach(ifindex, name, Role::Vif)
    }

    fn detach_vif(&mut self, ifindex: u32) {
        self.detach(ifindex, Role::Vif);
    }

    fn attach_underlay(&mut self, ifindex: u32, name: &str) -> Result<(), DataplaneError> {
        self.attach(ifindex, name, Role::Underlay)
    }

    fn detach_underlay(&mut self, ifindex: u32) {
        self.detach(ifindex, Role::Underlay);
    }

    fn taken_over(&self) -> Vec<u32> {
        self.inherited.clone()
    }
}

impl Dataplane for Ebpf {
    fn set_peers(&mut self, peers: &[Peer]) -> (bool, Option<DataplaneError>) {
        let wanted: BTreeMap<u32, &Peer> = peers.iter().map(|peer| (peer.index, peer)).collect();
        let mut changed = false;
        let mut failed = None;
        let gone: Vec<u32> = self.peers.keys().filter(|index| !wanted.contains_key(index)).copied().collect();
        for index in gone {
            match self.backend.set_chassis(ChassisId(index), None) {
                Ok(()) => {
                    self.peers.remove(&index);
                    self.unsure_peers.remove(&index);
                    changed = true;
                }
                Err(error) => failed = failed.or(Some(commit_error(&error))),
            }
        }
        // One that has no room must not keep the others from being reached.
        for (index, peer) in wanted {
            if self.peers.get(&index) != Some(peer) || self.unsure_peers.contains(&index) {
                match self.backend.set_chassis(ChassisId(index), Some(&encode(peer))) {
                    Ok(()) => {
                        self.peers.insert(index, peer.clone());
                        self.unsure_peers.remove(&index);
                        changed = true;
                    }
                    Err(error) => {
                        // Some of it may be in the maps: to be tried again, or removed.
                        self.peers.insert(index, peer.clone());
                        self.unsure_peers.insert(index);
                        let error =
                            DataplaneError::Other(format!("chassis {}: {}", peer.chassis, commit_error(&error)));
                        failed = failed.or(Some(error));
                    }
                }
            }
        }
        (changed, failed)
    }

    fn commit(
        &mut self,
        program: &Program,
        changes: &Changes,
        _cookies: Cookies<'_>,
    ) -> Result<Versions, DataplaneError> {
        let start = Instant::now();
        let committed = self.backend.commit(program, changes).map_err(|error| commit_error(&error))?;
        tracing::debug!(target: "dataplane", "{committed:?} in {:?}", start.elapsed());
        // In force when the call returns: one version is as good as another.
        Ok(Versions::default())
    }

    fn shortages(&self) -> Vec<(Option<LogicalPort>, String)> {
        let port = |(datapath, port): (DatapathKey, PortKey)| LogicalPort { datapath: datapath.0, port: port.0 };
        self.backend.shortages().iter().map(|one| (one.port.map(port), one.text.clone())).collect()
    }

    fn activate(&mut self, _program: &Program) -> Result<bool, DataplaneError> {
        let strays = self.backend.activate().map_err(|error| attach_error("a device", &error))?;
        self.active = true;
        self.backend.forget_unconfirmed().map_err(|error| DataplaneError::Other(chain(&error)))?;
        let hints = self.backend.hints().map_err(|error| DataplaneError::Other(chain(&error)))?;
        self.unheard = hints.iter().map(|(key, port)| learned(key, *port)).collect();
        for stray in strays {
            tracing::info!(target: "dataplane", "detached {stray}, which nothing needs any more");
        }
        Ok(true)
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn event_descriptor(&self) -> Option<OwnedFd> {
        let events = self.events.as_ref()?;
        match events.as_fd().try_clone_to_owned() {
            Ok(descriptor) => Some(descriptor),
            Err(error) => {
                tracing::warn!(target: "dataplane", "cannot watch for events: {error}");
                None
            }
        }
    }

    fn events(&mut self) -> Vec<Event> {
        let mut all = std::mem::take(&mut self.unheard);
        let Some(events) = &mut self.events else { return all };
        while let Some(event) = events.next() {
            match event {
                KernelEvent::Fdb(fdb) => all.push(learned(&fdb.key, fdb.port)),
                KernelEvent::NextHop(hop) => all.push(Event::NextHop { peer: hop.chassis }),
                KernelEvent::Drop(drop) => all.push(Event::Dropped {
                    reason: Reason::from_number(drop.reason).map_or("unknown", Reason::text),
                    datapath: drop.datapath,
                    port: drop.inport,
                    flow: drop.lflow,
                }),
                KernelEvent::Unknown(kind) => tracing::warn!(target: "dataplane", "event of unknown kind {kind}"),
            }
        }
        all
    }

    fn tidy(&mut self) -> Result<(), DataplaneError> {
        self.backend.settle().map_err(|error| commit_error(&error))?;
        self.backend.instance().make_links().map_err(|error| attach_error("a device", &error))?;
        let mended = self.backend.instance().mend().map_err(|error| attach_error("a device", &error))?;
        for what in mended {
            tracing::warn!(target: "dataplane", "somebody else removed it: {what}");
        }
        self.backend.age_fdb(HINT_AGE_NS).map(|_| ()).map_err(|error| DataplaneError::Other(chain(&error)))
    }

    fn problems(&self) -> Vec<(u32, String)> {
        self.backend
            .problems()
            .map(|(_, problem)| (problem.lflow.0, format!("{}: {}", problem.what, problem.consequence)))
            .collect()
    }

    fn drops(&mut self) -> Result<Vec<(&'static str, u64)>, DataplaneError> {
        let drops = self.backend.instance().counters.drops();
        let drops = drops.map_err(|error| DataplaneError::Other(chain(&error)))?;
        Ok(drops.into_iter().map(|drop| (drop.reason.text(), drop.count.packets)).collect())
    }

    fn flow_packets(&mut self, flow: u32) -> Result<u64, DataplaneError> {
        let count = self.backend.instance().counters.lflow(flow);
        count.map(|count| count.packets).map_err(|error| DataplaneError::Other(chain(&error)))
    }

    fn most_places(&self) -> Option<usize> {
        Some(oxbow_backend_bpf::MOST_PLACES)
    }

    fn summary(&self) -> Summary {
        let hook = Some(self.backend.hook().to_string());
        Summary { backend: "ebpf", version: self.backend.version(), hook }
    }

    fn inspect(&mut self) -> Option<&mut dyn Inspect> {
        Some(self)
    }

    fn content(&mut self, flow: &dyn Fn(u32) -> String) -> Result<Vec<String>, DataplaneError> {
        // What waits for its grace period is history.
        self.backend.settle().map_err(|error| commit_error(&error))?;
        self.backend.content(flow).map_err(|error| DataplaneError::Other(chain(&error)))
    }

    fn describe(&mut self) -> String {
        let (tables, tuples, rules) = self.backend.occupancy();
        let version = self.backend.version();
        let instance = self.backend.instance();
        let mut text = format!(
            "version {version}, {}, hook {} ({}), {tables} tables, {tuples} tuples, {rules} rule keys\n",
            if instance.is_active() { "active" } else { "waiting" },
            instance.hook(),
            instance.hook_reason()
        );
        for device in instance.attached() {
            text.push_str(&format!("attached {} (ifindex {}) as {:?}\n", device.name, device.ifindex, device.role));
        }
        match instance.counters.drops() {
            Ok(drops) => {
                for drop in drops {
                    text.push_str(&format!("dropped {} {} packets\n", drop.reason.text(), drop.count.packets));
                }
            }
            Err(error) => text.push_str(&format!("drops: {error}\n")),
        }
        text
    }

    fn remove_everything(self: Box<Self>) -> Result<(), DataplaneError> {
        self.backend.remove_everything().map_err(|error| DataplaneError::Other(chain(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::NextHop;

    #[test]
    fn a_peer_without_a_next_hop_is_not_resolved() {
        let mut peer = Peer {
            index: 1,
            chassis: "hv2".into(),
            local: IpAddr::from([192, 0, 2, 1]),
            remote: IpAddr::from([192, 0, 2, 2]),
            vxlan: false,
            csum: true,
            tos_inherit: false,
            tos: 4,
            df: true,
            hop: None,
            ofport: None,
            options: BTreeMap::new(),
        };
        let entry = encode(&peer);
        assert_eq!(entry.flags, CHASSIS_CSUM | CHASSIS_DF);
        assert_eq!((entry.remote.family, &entry.remote.bytes[..4], entry.tos), (4, &[192, 0, 2, 2][..], 4));
        peer.hop = Some(NextHop { ifindex: 3, destination: [1; 6], source: [2; 6], mtu: 1500 });
        let entry = encode(&peer);
        assert_eq!(entry.flags, CHASSIS_CSUM | CHASSIS_DF | CHASSIS_RESOLVED);
        assert_eq!((entry.ifindex, entry.mtu, entry.mac), (3, 1500, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]));
    }

    #[test]
    fn a_missing_object_is_named_with_what_to_do() {
        let error = read_object(Some(Path::new("/nowhere/oxbow.o"))).expect_err("it is not there").to_string();
        assert!(error.contains("/nowhere/oxbow.o") && error.contains("build-ebpf"), "{error}");
    }
}
