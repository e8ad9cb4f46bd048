//! Attaching the programs to devices: tcx links where the kernel has them (6.6), clsact filters before.

use super::at_once::Provisional;
use super::link::{detach_link, has_device, open_pin, pin_link};
use super::pins::{Pins, PinsError, list};
use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// What a device is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A tap or veth of a VIF: everything it sends goes through the logical pipeline.
    Vif,
    /// A device of the tunnel underlay: what is not ours goes on to the host.
    Underlay,
}

impl Role {
    /// Name of the program for it.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Vif => "oxbow_vif",
            Self::Underlay => "oxbow_underlay",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Vif => "vif",
            Self::Underlay => "underlay",
        }
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A pinned tcx link.
    Tcx,
    /// A filter of the clsact qdisc, with a fixed priority and handle.
    Clsact,
}

/// Which hook to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// tcx where the kernel has it, else clsact.
    #[default]
    Auto,
    /// tcx, or nothing.
    Tcx,
    /// clsact even where there is tcx.
    Clsact,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// A device with one of our programs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// What it is to us.
    pub role: Role,
    /// How the program is attached.
    pub hook: Hook,
}

/// A program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error("cannot attach {program} to {device}: {source}")]
    Program {
        /// Program.
        program: &'static str,
        /// Device.
        device: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The clsact qdisc could not be made.
    #[error("cannot add the clsact qdisc to {device}: {source}")]
    Clsact {
        /// Device.
        device: String,
        /// Why.
        #[source]
        source: Box<TcError>,
    },
    /// A pinned link could not be opened, pinned or removed.
    #[error("link pin {path}: {reason}")]
    Pin {
        /// Path of the pin.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The pin directory.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The object has no such program.
    #[error("the eBPF object has no program {program}: run `cargo xtask build-ebpf`")]
    Missing {
        /// Program.
        program: &'static str,
    },
}

/// tc priority and handle of our filters: fixed, so that a later daemon replaces instead of stacking.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x0b0e);

/// The links of one hypervisor.
pub(super) struct Links {
    pub(super) pins: Pins,
    pub(super) hook: Hook,
    pub(super) attached: BTreeMap<(u32, Role), Attachment>,
    /// Our own handles of the pinned links: somebody who removes a pin does not detach the program while we live.
    pub(super) held: BTreeMap<(u32, Role), OwnedFd>,
    /// Devices that wait for their link.
    pub(super) provisional: Provisional,
}

impl Links {
    pub(super) fn new(pins: Pins, hook: Hook) -> Self {
        Self { pins, hook, attached: BTreeMap::new(), held: BTreeMap::new(), provisional: Provisional::default() }
    }

    /// Where the link of a device is pinned; other layouts pin theirs under the same name elsewhere.
    pub(super) fn pin(pins: &Pins, ifindex: u32, role: Role) -> PathBuf {
        pins.links().join(format!("{ifindex}-{}", role.suffix()))
    }

    /// What says that a device has a filter.
    fn mark(pins: &Pins, ifindex: u32, role: Role) -> PathBuf {
        pins.filters().join(format!("{ifindex}-{}", role.suffix()))
    }

    pub(super) fn mark_filter(&self, ifindex: u32, role: Role) -> Result<(), AttachError> {
        make_mark(&Self::mark(&self.pins, ifindex, role))
    }

    pub(super) fn unmark_filter(&self, ifindex: u32, role: Role) -> Result<(), AttachError> {
        remove_mark(&Self::mark(&self.pins, ifindex, role))
    }

    /// Whether a daemon before this one, of whatever layout and by whichever hook, attached to the device. The link of a device that is
    /// gone does not count, although its interface index may have been given to another: such a pin is removed.
    pub(super) fn is_served(&self, ifindex: u32, role: Role) -> Result<bool, AttachError> {
        for layout in self.pins.layouts()? {
            let pin = Self::pin(&layout, ifindex, role);
            if Self::mark(&layout, ifindex, role).exists() {
                return Ok(true);
            }
            if pin.exists() {
                if is_attached(&pin)? {
                    return Ok(true);
                }
                remove_pin(&pin)?;
            }
        }
        Ok(false)
    }

    /// The pin of a device's link, moved here when another layout pinned it; `None` when there is none. bpffs renames atomically.
    fn adopt_pin(&self, ifindex: u32, role: Role) -> Result<Option<PathBuf>, AttachError> {
        let own = Self::pin(&self.pins, ifindex, role);
        if own.exists() {
            return Ok(Some(own));
        }
        for layout in self.pins.layouts()?.iter().skip(1) {
            let theirs = Self::pin(layout, ifindex, role);
            match fs::rename(&theirs, &own) {
                Ok(()) => return Ok(Some(own)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(AttachError::Pin { path: theirs, reason: format!("cannot move it: {e}") }),
            }
        }
        Ok(None)
    }

    pub(super) fn attached(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.values()
    }

    /// Attaches, or replaces the program of a link or filter that an earlier daemon left. With `replace == false` a device that one left is
    /// left alone.
    pub(super) fn attach(
        &mut self,
        program: &mut SchedClassifier,
        name: &str,
        ifindex: u32,
        role: Role,
        replace: bool,
    ) -> Result<(), AttachError> {
        let attachment = Attachment { ifindex, name: name.into(), role, hook: self.hook };
        if replace || !self.is_served(ifindex, role)? {
            match self.hook {
                Hook::Tcx => {
                    let replaced = match self.adopt_pin(ifindex, role)? {
                        Some(pin) => self.replace_link(program, &pin, name, role)?,
                        None => false,
                    };
                    let pin = Self::pin(&self.pins, ifindex, role);
                    if !replaced {
                        self.new_link(program, &pin, name, role)?;
                    }
                    let link = open_pin(&pin).map_err(|e| pin_error(&pin, &e))?;
                    self.held.insert((ifindex, role), link);
                }
                Hook::Clsact => {
                    // A filter leaves no pin by which a later daemon could know of it: an empty directory stands for it.
                    attach_clsact(program, name, role)?;
                    make_mark(&Self::mark(&self.pins, ifindex, role))?;
                }
            }
        }
        self.attached.insert((ifindex, role), attachment);
        Ok(())
    }

    /// Puts the program on the pinned link. False when the link's device is gone: the pin is removed then.
    fn replace_link(
        &self,
        program: &mut SchedClassifier,
        pin: &PathBuf,
        name: &str,
        role: Role,
    ) -> Result<bool, AttachError> {
        let broken = |e: &dyn std::fmt::Display| AttachError::Pin { path: pin.clone(), reason: e.to_string() };
        let pinned = PinnedLink::from_pin(pin).map_err(|e| broken(&e))?;
        let link: SchedClassifierLink = FdLink::from(pinned).try_into().map_err(|e: LinkError| broken(&e))?;
        match program.attach_to_link(link) {
            Ok(id) => {
                // The pin holds the link; our own descriptor may go.
                drop(program.take_link(id).map_err(|e| broken(&e))?);
                Ok(true)
            }
            Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOLINK) => {
                fs::remove_file(pin).map_err(|e| broken(&e))?;
                Ok(false)
            }
            Err(source) => {
                Err(AttachError::Program { program: role.program(), device: name.into(), source: Box::new(source) })
            }
        }
    }

    fn new_link(
        &self,
        program: &mut SchedClassifier,
        pin: &PathBuf,
        name: &str,
        role: Role,
    ) -> Result<(), AttachError> {
        let failed =
            |source| AttachError::Program { program: role.program(), device: name.into(), source: Box::new(source) };
        let broken = |e: &dyn std::fmt::Display| AttachError::Pin { path: pin.clone(), reason: e.to_string() };
        // First in the chain: nothing that the host attaches may see, change or pass a frame before the pipeline.
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(name, TcAttachType::Ingress, options).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let link: FdLink = link.try_into().map_err(|e: LinkError| broken(&e))?;
        link.pin(pin).map_err(|e| broken(&e))?;
        Ok(())
    }

    /// Detaches; a device that is gone is fine.
    pub(super) fn detach(&mut self, ifindex: u32, role: Role) -> Result<(), AttachError> {
        // Others may go over to their links meanwhile, and fail: that is told when this one is detached.
        let others = self.forget_provisional(ifindex, role);
        let attachment = self.attached.remove(&(ifindex, role));
        if let Some(link) = self.held.remove(&(ifindex, role)) {
            // Its pin may have been removed by hand.
            detach_link(link.as_fd()).map_err(|e| AttachError::Pin {
                path: Self::pin(&self.pins, ifindex, role),
                reason: format!("cannot detach: {e}"),
            })?;
        }
        let mut is_filtered = attachment.as_ref().is_some_and(|attachment| attachment.hook == Hook::Clsact);
        for layout in self.pins.layouts()? {
            remove_pin(&Self::pin(&layout, ifindex, role))?;
            is_filtered |= Self::mark(&layout, ifindex, role).exists();
        }
        // By the name that it has now.
        if is_filtered && let Some(device) = device_name(ifindex) {
            detach_clsact(&device, role)?;
        }
        // The marks go last: should we die before, the next daemon still finds the filter.
        self.pins.layouts()?.iter().try_for_each(|layout| remove_mark(&Self::mark(layout, ifindex, role)))?;
        others
    }

    /// Pins again what somebody removed from the bpf file system: the links live on, because this process holds them. Returns the pins
    /// and marks that were missing, and the devices whose link somebody detached: those have to be attached anew.
    pub(super) fn mend(&mut self) -> Result<(Vec<PathBuf>, Vec<Attachment>), AttachError> {
        let (mut missing, mut detached) = (Vec::new(), Vec::new());
        for (&(ifindex, role), attachment) in &self.attached {
            let path = match attachment.hook {
                Hook::Clsact => Self::mark(&self.pins, ifindex, role),
                Hook::Tcx => Self::pin(&self.pins, ifindex, role),
            };
            let link = self.held.get(&(ifindex, role));
            if let Some(link) = link
                && !has_device(link.as_fd()).map_err(|e| pin_error(&path, &e))?
            {
                // A device that is gone is found missing elsewhere.
                detached.extend(device_name(ifindex).is_some().then(|| attachment.clone()));
            } else if !path.exists() {
                self.pins.make_directories()?;
                match (attachment.hook, link) {
                    (Hook::Clsact, _) => make_mark(&path)?,
                    (Hook::Tcx, Some(link)) => pin_link(link.as_fd(), &path).map_err(|e| pin_error(&path, &e))?,
                    // Not ours yet.
                    (Hook::Tcx, None) => continue,
                }
                missing.push(path);
            }
        }
        Ok((missing, detached))
    }

    /// Detaches devices that an earlier daemon attached and nobody has asked for since, and what it attached by the other hook or under
    /// another layout to those that somebody has. To be called when every device has its program by this hook.
    pub(super) fn detach_strays(&mut self) -> Result<Vec<String>, AttachError> {
        let mut removed = Vec::new();
        for (index, layout) in self.pins.layouts()?.iter().enumerate() {
            let is_own = index == 0;
            for (name, path) in list(&layout.links())? {
                let wanted = self.wants(&name);
                if !wanted || self.hook != Hook::Tcx || !is_own {
                    remove_pin(&path)?;
                }
                removed.extend((!wanted).then_some(name));
            }
            for (name, path) in list(&layout.filters())? {
                let wanted = self.wants(&name);
                if is_own && parse(&name).is_some_and(|(ifindex, role)| self.provisional.contains(ifindex, role)) {
                    continue;
                }
                // A wanted device has one filter, whoever put it there: it is ours now.
                if (!wanted || self.hook != Hook::Clsact)
                    && let Some((ifindex, role)) = parse(&name)
                    && let Some(device) = device_name(ifindex)
                {
                    detach_clsact(&device, role)?;
                }
                if !wanted || self.hook != Hook::Clsact || !is_own {
                    remove_mark(&path)?;
                }
                removed.extend((!wanted).then_some(name));
            }
        }
        Ok(removed)
    }

    /// Whether a pin or mark of that name is for a device that is attached now.
    fn wants(&self, name: &str) -> bool {
        self.attached.keys().any(|(ifindex, role)| format!("{ifindex}-{}", role.suffix()) == name)
    }

    /// Detaches every pinned link at once.
    pub(super) fn detach_all(&mut self) -> Result<(), AttachError> {
        self.forget_all_provisional()?;
        self.attached.clear();
        for (_, link) in std::mem::take(&mut self.held) {
            detach_link(link.as_fd()).map_err(|e| pin_error(&self.pins.links(), &e))?;
        }
        for layout in self.pins.layouts()? {
            for (_, path) in list(&layout.links())? {
                remove_pin(&path)?;
            }
            for (_, path) in list(&layout.filters())? {
                remove_mark(&path)?;
            }
        }
        Ok(())
    }

    /// Whether a filter of ours may be on some device.
    pub(super) fn has_filters(&self) -> Result<bool, AttachError> {
        for layout in self.pins.layouts()? {
            if !list(&layout.filters())?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes our clsact filters from every device of this network namespace.
    pub(super) fn detach_clsact_everywhere() -> Result<(), AttachError> {
        let devices = nix::net::if_::if_nameindex()
            .map_err(|e| AttachError::Pin { path: "interfaces".into(), reason: e.to_string() })?;
        for device in devices.iter() {
            let name = device.name().to_string_lossy().into_owned();
            for role in [Role::Vif, Role::Underlay] {
                detach_clsact(&name, role)?;
            }
        }
        Ok(())
    }
}

/// The interface index and the role that a pin or mark is named for.
fn parse(name: &str) -> Option<(u32, Role)> {
    let (ifindex, suffix) = name.split_once('-')?;
    let role = [Role::Vif, Role::Underlay].into_iter().find(|role| role.suffix() == suffix)?;
    Some((ifindex.parse().ok()?, role))
}

/// The device of that index, if it still exists.
pub(super) fn device_name(ifindex: u32) -> Option<String> {
    let device = nix::net::if_::if_indextoname(ifindex).ok()?;
    Some(device.to_string_lossy().into_owned())
}

fn make_mark(mark: &Path) -> Result<(), AttachError> {
    match fs::create_dir(mark) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(AttachError::Pin { path: mark.to_owned(), reason: e.to_string() }),
    }
}

fn remove_mark(mark: &Path) -> Result<(), AttachError> {
    match fs::remove_dir(mark) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(AttachError::Pin { path: mark.to_owned(), reason: e.to_string() }),
    }
}

/// Detaches a pinned link and removes the pin. Removing the pin alone would detach too, but only some time later.
fn remove_pin(pin: &PathBuf) -> Result<(), AttachError> {
    let failed = |what: &str, e: &io::Error| AttachError::Pin { path: pin.clone(), reason: format!("{what}: {e}") };
    match open_pin(pin) {
        Ok(link) => detach_link(link.as_fd()).map_err(|e| failed("cannot detach", &e))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("cannot open", &e)),
    }
    match fs::remove_file(pin) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(AttachError::Pin { path: pin.clone(), reason: e.to_string() }),
    }
}

/// A pin could not be used.
pub(super) fn pin_error(pin: &Path, error: &io::Error) -> AttachError {
    AttachError::Pin { path: pin.to_owned(), reason: error.to_string() }
}

/// Whether a pinned link still has its device.
fn is_attached(pin: &Path) -> Result<bool, AttachError> {
    open_pin(pin).and_then(|link| has_device(link.as_fd())).map_err(|e| pin_error(pin, &e))
}

fn attach_clsact(program: &mut SchedClassifier, name: &str, role: Role) -> Result<(), AttachError> {
    match qdisc_add_clsact(name) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(e)) if e.raw_os_error() == Some(libc::EEXIST) => {}
        Err(source) => return Err(AttachError::Clsact { device: name.into(), source: Box::new(source) }),
    }
    attach_filter(program, name, role)
}

/// Puts the program into our filter of a device that has the qdisc for it, or makes the filter.
fn attach_filter(program: &mut SchedClassifier, name: &str, role: Role) -> Result<(), AttachError> {
    let known = SchedClassifierLink::attached(name, TcAttachType::Ingress, PRIORITY, HANDLE, None)
        .map_err(|e| AttachError::Pin { path: name.into(), reason: e.to_string() })?;
    match program.attach_to_link(known) {
        Ok(id) => keep_filter(program, id, name, role),
        Err(_) => new_filter(program, name, role),
    }
}

/// Makes our filter on a device that has the qdisc for it.
pub(super) fn new_filter(program: &mut SchedClassifier, name: &str, role: Role) -> Result<(), AttachError> {
    let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
    let id = program.attach_with_options(name, TcAttachType::Ingress, options).map_err(|source| {
        AttachError::Program { program: role.program(), device: name.into(), source: Box::new(source) }
    })?;
    keep_filter(program, id, name, role)
}

/// Takes a filter away from aya, which would remove it.
fn keep_filter(
    program: &mut SchedClassifier,
    id: SchedClassifierLinkId,
    name: &str,
    role: Role,
) -> Result<(), AttachError> {
    let failed =
        |source| AttachError::Program { program: role.program(), device: name.into(), source: Box::new(source) };
    let link = program.take_link(id).map_err(failed)?;
    #[expect(
        clippy::mem_forget,
        reason = "dropping a netlink link removes the filter, which must outlive the daemon; there is no other way to keep it"
    )]
    std::mem::forget(link);
    Ok(())
}

pub(super) fn detach_clsact(name: &str, role: Role) -> Result<(), AttachError> {
    // No such filter, no clsact qdisc (EINVAL, EOPNOTSUPP) or no such device any more: nothing to detach.
    let absent =
        |errno| matches!(errno, Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::EINVAL | libc::EOPNOTSUPP));
    match qdisc_detach_program(name, TcAttachType::Ingress, role.program()) {
        Ok(()) => Ok(()),
        Err(TcError::IoError(e)) if e.kind() == io::ErrorKind::NotFound || absent(e.raw_os_error()) => Ok(()),
        Err(TcError::NetlinkError(e)) if absent(e.raw_os_error()) => Ok(()),
        Err(source) => Err(AttachError::Clsact { device: name.into(), source: Box::new(source) }),
    }
}
