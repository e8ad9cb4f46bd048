//! One load of the programs with its maps.

use super::attach::{AttachError, Attachment, Hook, HookChoice, Links, Role};
use super::counters::Counters;
use super::events::Events;
use super::exact::ExactCaches;
use super::generations::Generations;
use super::grace::GracePeriod;
use super::map::{HashTable, MapFailure, Slots};
use super::monitor::Monitor;
use super::pins::{Pins, PinsError};
use super::sizes::Sizes;
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _};
use oxbow_abi::learning::{FDB_GENERATIONS, Fdb, FdbKey};
use oxbow_abi::op::Block;
use oxbow_abi::rule::{NarrowKey, Rule, Table, Tuple, WideKey};
use oxbow_abi::stats::State;
use oxbow_abi::topology::{Chassis, Chunk, ChunkKey, Datapath, PeerKey, Port, PortKey, Vif, VifKey};
use oxbow_abi::verdict::{Denied, Verdict, VerdictKey};
use oxbow_abi::{LAYOUT, LAYOUT_SYMBOL};
use std::path::{Path, PathBuf};

/// What it takes to load.
#[derive(Clone, Debug)]
pub struct Config {
    /// Mount point of a bpf file system.
    pub bpffs: PathBuf,
    /// The hypervisor's system-id: part of the pin path.
    pub system_id: String,
    /// The object: bytes of the ELF file that `cargo xtask build-ebpf` makes.
    pub object: Vec<u8>,
    /// Map sizes.
    pub sizes: Sizes,
    /// How programs are attached.
    pub hook: HookChoice,
}

/// The programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Pin directory.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// aya or the verifier.
    #[error("cannot load the eBPF object: {0}")]
    Object(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error("the kernel refuses program {program}: {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why, with the verifier's log.
        #[source]
        source: Box<ProgramError>,
    },
    /// The object has no such program.
    #[error("the eBPF object has no program {program}: run `cargo xtask build-ebpf`")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// The object was built for other layouts of maps than this program writes.
    #[error(
        "the eBPF object is of layout {found}, and this program writes layout {LAYOUT}: install the object that belongs to it, or run `cargo xtask build-ebpf`"
    )]
    Layout {
        /// What the object says; "unknown" when it does not say.
        found: String,
    },
    /// A map is missing or of another type.
    #[error(transparent)]
    Map(#[from] MapFailure),
    /// A privilege is missing.
    #[error("loading eBPF programs needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: run as root ({0})")]
    Privilege(#[source] Box<EbpfError>),
    /// A hook was asked for by name that this kernel does not have.
    #[error(
        "this kernel ({release}) has no tcx, which came with Linux 6.6: start with --attach=auto or --attach=clsact"
    )]
    NoTcx {
        /// Release of the kernel.
        release: String,
    },
    /// The kernel does not say how many CPUs it may have.
    #[error("cannot tell how many CPUs there may be: {0}")]
    Cpus(#[source] std::io::Error),
    /// The maps for grace periods could not be made.
    #[error("cannot make the grace period maps: {0}")]
    Grace(#[source] std::io::Error),
}

/// The maps that commits write.
pub struct Maps {
    /// `OX_STATE`
    pub state: Slots<State>,
    /// `OX_TABLES`
    pub tables: Slots<Table>,
    /// `OX_TUPLES`
    pub tuples: Slots<Tuple>,
    /// `OX_RULES`
    pub rules: HashTable<NarrowKey, Rule>,
    /// `OX_RULES_WIDE`
    pub wide_rules: HashTable<WideKey, Rule>,
    /// `OX_BLOCKS`
    pub blocks: Slots<Block>,
    /// `OX_DATAPATHS`
    pub datapaths: HashTable<u32, Datapath>,
    /// `OX_VIFS`
    pub vifs: HashTable<VifKey, Vif>,
    /// `OX_PORTS`
    pub ports: HashTable<PortKey, Port>,
    /// `OX_GROUPS`
    pub groups: HashTable<ChunkKey, Chunk>,
    /// `OX_CHASSIS`
    pub chassis: Slots<Chassis>,
    /// `OX_PEERS`
    pub peers: HashTable<PeerKey, u32>,
    /// `OX_GUARDS`
    pub guards: Slots<u32>,
    /// `OX_FDB`
    pub fdb: HashTable<FdbKey, Fdb>,
    /// `OX_FDB_GENERATIONS`
    pub fdb_generations: Generations,
    /// `OX_VERDICTS`
    pub verdicts: HashTable<VerdictKey, Verdict>,
    /// `OX_EXACT`
    pub exact: ExactCaches,
    /// `OX_DENIED`
    pub denied: HashTable<VerdictKey, Denied>,
}

/// One load of the programs: loaded and pinned, attached where asked, in force for a device once its link points at it.
pub struct Instance {
    ebpf: Ebpf,
    links: Links,
    pins: Pins,
    pub(super) directory: PathBuf,
    /// The object, for dry runs.
    pub(super) object: Vec<u8>,
    /// What it was told of the kernel.
    pub(super) decap_flags: u32,
    active: bool,
    hook: Hook,
    /// New VIFs are served by a filter until they have their link.
    is_hasty: bool,
    why: String,
    /// The maps that commits write.
    pub maps: Maps,
    /// Counters.
    pub counters: Counters,
    /// Grace periods.
    pub grace: GracePeriod,
    events: Option<Events>,
    monitor: Option<Monitor>,
}

impl Instance {
    /// Loads the object beside whatever an earlier daemon left. Nothing changes for a device until [`Instance::activate`].
    pub fn load(config: &Config) -> Result<Self, LoadError> {
        check_layout(&config.object)?;
        let release_text = kernel_release();
        let release = release_numbers(&release_text);
        let (hook, why) = choose_hook(config.hook, &release_text)?;
        let pins = Pins::open(&config.bpffs, &config.system_id)?;
        let directory = pins.new_instance()?;
        let sizes = &config.sizes;
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| LoadError::Cpus(source))?;
        let (exact_sets, exact_all) = super::exact::sets(sizes.exact, cpus);
        let mut loader = EbpfLoader::new();
        // adjust_room's DECAP_L3 flags exist since 6.3; asked for on an older kernel they fail per packet, not at load.
        let decap_flags = u32::from(release >= (6, 3));
        loader
            .default_map_pin_directory(&directory)
            .override_global("OX_DECAP_L3", &decap_flags, true)
            .override_global("OX_EXACT_SETS", &exact_sets, true)
            .map_max_entries("OX_EXACT_TAGS", exact_all)
            .map_max_entries("OX_EXACT", exact_all * oxbow_abi::exact::WAYS)
            .map_pin_path("OX_FDB", pins.state().join("OX_FDB"))
            .map_max_entries("OX_VIFS", sizes.vifs)
            .map_max_entries("OX_DATAPATHS", sizes.datapaths)
            .map_max_entries("OX_RULES", sizes.rules)
            .map_max_entries("OX_RULES_WIDE", sizes.wide_rules)
            .map_max_entries("OX_BLOCKS", sizes.blocks)
            .map_max_entries("OX_TUPLES", sizes.tuples)
            .map_max_entries("OX_TABLES", sizes.tables)
            .map_max_entries("OX_LFLOWS", sizes.lflows)
            .map_max_entries("OX_PORTS", sizes.ports)
            .map_max_entries("OX_GUARDS", sizes.ports)
            .map_max_entries("OX_VERDICTS", sizes.verdicts)
            .map_max_entries("OX_DENIED", sizes.denied)
            .map_max_entries("OX_FDB", sizes.fdb)
            .map_max_entries("OX_FDB_GENERATIONS", FDB_GENERATIONS)
            .map_max_entries("OX_GROUPS", sizes.chunks)
            .map_max_entries("OX_CHASSIS", sizes.chassis)
            .map_max_entries("OX_PEERS", sizes.chassis.saturating_mul(2));
        let loaded = loader.load(&config.object).map_err(|e| {
            if is_privilege(&e) { LoadError::Privilege(Box::new(e)) } else { LoadError::Object(Box::new(e)) }
        });
        let made = loaded.and_then(|ebpf| {
            let mut instance = Self::assemble(ebpf, &pins, &directory, hook, why)?;
            instance.object.clone_from(&config.object);
            // Who names a hook gets nothing else.
            instance.is_hasty = config.hook == HookChoice::Auto;
            instance.decap_flags = decap_flags;
            Ok(instance)
        });
        if made.is_err() {
            // What was pinned so far belongs to nobody.
            super::pins::remove_tree(&directory)?;
        }
        made
    }

    /// Loads the programs of a parsed object and takes its maps over.
    fn assemble(mut ebpf: Ebpf, pins: &Pins, directory: &Path, hook: Hook, why: String) -> Result<Self, LoadError> {
        for role in [Role::Vif, Role::Underlay] {
            let program = role.program();
            classifier(&mut ebpf, role)
                .ok_or(LoadError::Missing { program })?
                .load()
                .map_err(|source| LoadError::Program { program, source: Box::new(source) })?;
        }
        let maps = Maps {
            state: Slots::take(&mut ebpf, "OX_STATE")?,
            tables: Slots::take(&mut ebpf, "OX_TABLES")?,
            tuples: Slots::take(&mut ebpf, "OX_TUPLES")?,
            rules: HashTable::take(&mut ebpf, "OX_RULES")?,
            wide_rules: HashTable::take(&mut ebpf, "OX_RULES_WIDE")?,
            blocks: Slots::take(&mut ebpf, "OX_BLOCKS")?,
            datapaths: HashTable::take(&mut ebpf, "OX_DATAPATHS")?,
            vifs: HashTable::take(&mut ebpf, "OX_VIFS")?,
            ports: HashTable::take(&mut ebpf, "OX_PORTS")?,
            groups: HashTable::take(&mut ebpf, "OX_GROUPS")?,
            chassis: Slots::take(&mut ebpf, "OX_CHASSIS")?,
            peers: HashTable::take(&mut ebpf, "OX_PEERS")?,
            guards: Slots::take(&mut ebpf, "OX_GUARDS")?,
            fdb: HashTable::take(&mut ebpf, "OX_FDB")?,
            fdb_generations: Generations::take(&mut ebpf)?,
            verdicts: HashTable::take(&mut ebpf, "OX_VERDICTS")?,
            exact: ExactCaches::take(&mut ebpf)?,
            denied: HashTable::take(&mut ebpf, "OX_DENIED")?,
        };
        let counters = Counters::take(&mut ebpf)?;
        let events = Some(Events::take(&mut ebpf)?);
        let monitor = Some(Monitor::take(&mut ebpf)?);
        let grace = GracePeriod::new().map_err(LoadError::Grace)?;
        Ok(Self {
            ebpf,
            links: Links::new(pins.clone(), hook),
            pins: pins.clone(),
            directory: directory.to_owned(),
            object: Vec::new(),
            decap_flags: 0,
            active: false,
            hook,
            is_hasty: false,
            why,
            maps,
            counters,
            grace,
            events,
            monitor,
        })
    }

    /// The reader of the event ring; there is one.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// The reader of the ring for listeners; there is one.
    pub fn take_monitor(&mut self) -> Option<Monitor> {
        self.monitor.take()
    }

    /// How programs are attached on this kernel.
    pub const fn hook(&self) -> Hook {
        self.hook
    }

    /// Why it is that hook, in words.
    pub fn hook_reason(&self) -> &str {
        &self.why
    }

    /// Attaches the program for `role`. On a device that an earlier daemon still serves nothing changes until [`Instance::activate`];
    /// any other device drops everything until then (nothing is programmed yet).
    pub fn attach(&mut self, name: &str, ifindex: u32, role: Role) -> Result<(), AttachError> {
        let program = classifier(&mut self.ebpf, role).ok_or(AttachError::Missing { program: role.program() })?;
        self.links.attach(program, name, ifindex, role, self.active)
    }

    /// As [`Instance::attach`] of a VIF, without waiting for a grace period where that can be done: a new device is served by a filter
    /// until [`Instance::make_links`] has given it its link. Only where the hook was left to us.
    pub fn attach_at_once(&mut self, name: &str, ifindex: u32) -> Result<(), AttachError> {
        if !self.is_hasty {
            return self.attach(name, ifindex, Role::Vif);
        }
        let program = Role::Vif.program();
        let program = classifier(&mut self.ebpf, Role::Vif).ok_or(AttachError::Missing { program })?;
        self.links.attach_at_once(program, name, ifindex, self.active)
    }

    /// Goes on with giving links to devices that filters serve, without waiting: some each time. To be called now and then.
    pub fn make_links(&mut self) -> Result<(), AttachError> {
        let program = Role::Vif.program();
        let program = classifier(&mut self.ebpf, Role::Vif).ok_or(AttachError::Missing { program })?;
        self.links.make_links(program)
    }

    /// Detaches; a device that is gone is fine.
    pub fn detach(&mut self, ifindex: u32, role: Role) -> Result<(), AttachError> {
        self.links.detach(ifindex, role)
    }

    /// Devices with our programs.
    pub fn attached(&self) -> impl Iterator<Item = &Attachment> {
        self.links.attached()
    }

    /// Moves every attached device to this instance, one atomic replacement each, detaches what nobody asked for, and retires earlier
    /// instances. To be called once the maps hold a whole policy. Returns the links that were detached.
    pub fn activate(&mut self) -> Result<Vec<String>, AttachError> {
        // Those whose link is yet to be made run this instance's program already.
        let is_changing = |device: &&Attachment| !self.links.provisional.contains(device.ifindex, device.role);
        let devices: Vec<Attachment> = self.links.attached().filter(is_changing).cloned().collect();
        for device in devices {
            let program = classifier(&mut self.ebpf, device.role)
                .ok_or(AttachError::Missing { program: device.role.program() })?;
            self.links.attach(program, &device.name, device.ifindex, device.role, true)?;
        }
        self.active = true;
        let strays = self.links.detach_strays()?;
        self.pins.retire_other_layouts()?;
        self.pins.retire_instances(&self.directory)?;
        Ok(strays)
    }

    /// Puts back what somebody removed by hand from the bpf file system, and attaches again what somebody detached. To be called now and
    /// then; does nothing before [`Instance::activate`]. Returns what had to be put back, in words.
    pub fn mend(&mut self) -> Result<Vec<String>, AttachError> {
        if !self.active {
            return Ok(Vec::new());
        }
        let (missing, detached) = self.links.mend()?;
        // An empty one still tells the next daemon that links are in force. Its maps live in this process and in the programs.
        super::pins::make_directory(&self.directory)?;
        let mut all: Vec<String> = missing.iter().map(|path| format!("pinned {} again", path.display())).collect();
        for device in detached {
            self.attach(&device.name, device.ifindex, device.role)?;
            all.push(format!("attached {} again to {}", device.role.program(), device.name));
        }
        Ok(all)
    }

    /// Whether [`Instance::activate`] has run.
    pub const fn is_active(&self) -> bool {
        self.active
    }

    /// A program, for test runs.
    pub fn program(&mut self, role: Role) -> Option<&mut SchedClassifier> {
        classifier(&mut self.ebpf, role)
    }

    /// Removes every link, program and map of this hypervisor, of other layouts too. Devices pass frames to the host's stack again.
    pub fn remove_everything(mut self) -> Result<(), AttachError> {
        let has_filters = self.links.has_filters()?;
        self.links.detach_all()?;
        if has_filters || self.hook == Hook::Clsact {
            Links::detach_clsact_everywhere()?;
        }
        self.pins.remove_all()?;
        Ok(())
    }
}

/// Compares the layout that the object carries with that of this program. Maps of two layouts may have the same sizes.
fn check_layout(object: &[u8]) -> Result<(), LoadError> {
    match object_layout(object) {
        Some(LAYOUT) => Ok(()),
        found => Err(LoadError::Layout { found: found.map_or_else(|| "unknown".to_owned(), |n| n.to_string()) }),
    }
}

/// The value of the object's symbol [`LAYOUT_SYMBOL`].
fn object_layout(bytes: &[u8]) -> Option<u32> {
    let elf = ElfFile64::<Endianness>::parse(bytes).ok()?;
    let symbol = elf.symbol_by_name(LAYOUT_SYMBOL)?;
    let section = elf.section_by_index(symbol.section_index()?).ok()?;
    let value = section.data_range(symbol.address(), 4).ok()??;
    value.try_into().ok().map(u32::from_le_bytes)
}

fn classifier(ebpf: &mut Ebpf, role: Role) -> Option<&mut SchedClassifier> {
    ebpf.program_mut(role.program()).and_then(|program| program.try_into().ok())
}

fn is_privilege(error: &EbpfError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && io.raw_os_error() == Some(libc::EPERM)
        {
            return true;
        }
        source = e.source();
    }
    false
}

/// Release of the running kernel; empty when it does not say, which selects the oldest behaviour.
fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Major and minor number of a release.
fn release_numbers(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The first release with tcx.
const TCX_SINCE: (u32, u32) = (6, 6);

fn choose_hook(choice: HookChoice, release: &str) -> Result<(Hook, String), LoadError> {
    let has_tcx = release_numbers(release) >= TCX_SINCE;
    match (choice, has_tcx) {
        (HookChoice::Clsact, _) => Ok((Hook::Clsact, "--attach=clsact".to_owned())),
        (HookChoice::Auto, false) => {
            Ok((Hook::Clsact, format!("kernel {release} has no tcx, which came with Linux 6.6")))
        }
        (HookChoice::Auto, true) => Ok((Hook::Tcx, format!("kernel {release} has it"))),
        (HookChoice::Tcx, true) => Ok((Hook::Tcx, "--attach=tcx".to_owned())),
        (HookChoice::Tcx, false) => Err(LoadError::NoTcx { release: release.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_gets_clsact_and_says_why() {
        let (hook, why) = choose_hook(HookChoice::Auto, "6.1.0-32-amd64").unwrap();
        assert_eq!(hook, Hook::Clsact);
        assert!(why.contains("6.1.0-32-amd64") && why.contains("tcx") && why.contains("6.6"), "{why}");
        assert_eq!(choose_hook(HookChoice::Auto, "6.12.1").unwrap().0, Hook::Tcx);
        assert_eq!(choose_hook(HookChoice::Clsact, "6.12.1").unwrap().0, Hook::Clsact);
        // What cannot be told is taken for old.
        assert_eq!(choose_hook(HookChoice::Auto, "").unwrap().0, Hook::Clsact);
    }

    #[test]
    fn tcx_by_name_on_an_old_kernel_is_refused_with_the_way_out() {
        let error = choose_hook(HookChoice::Tcx, "6.1.0").unwrap_err().to_string();
        assert!(error.contains("6.1.0") && error.contains("--attach=clsact"), "{error}");
    }
}
