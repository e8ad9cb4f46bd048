//! Attaching the programs to devices: tcx links where the kernel has them (6.6), clsact filters before.

use super::pins::{Pins, PinsError, list};
use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
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
    pins: Pins,
    hook: Hook,
    attached: BTreeMap<(u32, Role), Attachment>,
}

impl Links {
    pub(super) fn new(pins: Pins, hook: Hook) -> Self {
        Self { pins, hook, attached: BTreeMap::new() }
    }

    fn pin(&self, ifindex: u32, role: Role) -> PathBuf {
        self.pins.links().join(format!("{ifindex}-{}", role.suffix()))
    }

    fn mark(&self, ifindex: u32, role: Role) -> PathBuf {
        self.pins.filters().join(format!("{ifindex}-{}", role.suffix()))
    }

    pub(super) fn attached(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.values()
    }

    /// Attaches, or replaces the program of a link that an earlier daemon left. With `replace == false` such a link is left alone
    /// until [`Links::take_over`].
    pub(super) fn attach(
        &mut self,
        program: &mut SchedClassifier,
        name: &str,
        ifindex: u32,
        role: Role,
        replace: bool,
    ) -> Result<(), AttachError> {
        let attachment = Attachment { ifindex, name: name.into(), role, hook: self.hook };
        match self.hook {
            Hook::Tcx => {
                let pin = self.pin(ifindex, role);
                if !(pin.exists() && (!replace || self.replace_link(program, &pin, name, role)?)) {
                    self.new_link(program, &pin, name, role)?;
                }
            }
            Hook::Clsact => {
                // A filter leaves no pin by which a later daemon could know of it: an empty directory stands for it.
                let mark = self.mark(ifindex, role);
                if replace || !mark.exists() {
                    attach_clsact(program, name, role)?;
                    make_mark(&mark)?;
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
        let attachment = self.attached.remove(&(ifindex, role));
        let pin = self.pin(ifindex, role);
        remove_pin(&pin)?;
        if self.hook == Hook::Clsact
            && let Some(attachment) = attachment
        {
            detach_clsact(&attachment.name, role)?;
        }
        remove_mark(&self.mark(ifindex, role))
    }

    /// Detaches devices that an earlier daemon attached and nobody has asked for since, and what it attached by the other hook to those
    /// that somebody has. To be called when every device has its program by this hook.
    pub(super) fn detach_strays(&mut self) -> Result<Vec<String>, AttachError> {
        let mut removed = Vec::new();
        for (name, path) in list(&self.pins.links())? {
            let wanted = self.wants(&name);
            if !wanted || self.hook != Hook::Tcx {
                remove_pin(&path)?;
            }
            removed.extend((!wanted).then_some(name));
        }
        for (name, path) in list(&self.pins.filters())? {
            let wanted = self.wants(&name);
            if !wanted || self.hook != Hook::Clsact {
                if let Some((device, role)) = device_of(&name) {
                    detach_clsact(&device, role)?;
                }
                remove_mark(&path)?;
            }
            removed.extend((!wanted).then_some(name));
        }
        Ok(removed)
    }

    /// Whether a pin or mark of that name is for a device that is attached now.
    fn wants(&self, name: &str) -> bool {
        self.attached.keys().any(|(ifindex, role)| format!("{ifindex}-{}", role.suffix()) == name)
    }

    /// Detaches every pinned link at once.
    pub(super) fn detach_all(&mut self) -> Result<(), AttachError> {
        self.attached.clear();
        for (_, path) in list(&self.pins.links())? {
            remove_pin(&path)?;
        }
        for (_, path) in list(&self.pins.filters())? {
            remove_mark(&path)?;
        }
        Ok(())
    }

    /// Whether a filter of ours may be on some device.
    pub(super) fn has_filters(&self) -> Result<bool, AttachError> {
        Ok(!list(&self.pins.filters())?.is_empty())
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

/// The device, if it still exists, and the role that a pin or mark is named for.
fn device_of(name: &str) -> Option<(String, Role)> {
    let (ifindex, suffix) = name.split_once('-')?;
    let role = [Role::Vif, Role::Underlay].into_iter().find(|role| role.suffix() == suffix)?;
    let device = nix::net::if_::if_indextoname(ifindex.parse().ok()?).ok()?;
    Some((device.to_string_lossy().into_owned(), role))
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
        Ok(link) => match detach_now(link.as_fd()) {
            Ok(()) => {}
            // The device is gone, and with it the attachment.
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => {}
            Err(e) => return Err(failed("cannot detach", &e)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("cannot open", &e)),
    }
    match fs::remove_file(pin) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(AttachError::Pin { path: pin.clone(), reason: e.to_string() }),
    }
}

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` that BPF_OBJ_GET needs (linux/bpf.h).
#[repr(C)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `BPF_OBJ_GET`: aya's link types do not give their descriptor away.
fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attr = ObjectAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: attribute and path are live; the kernel only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<ObjectAttr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `BPF_LINK_DETACH` (linux/bpf.h): the program sees no packet any more when this returns.
fn detach_now(link: BorrowedFd<'_>) -> io::Result<()> {
    // link_detach.link_fd of `union bpf_attr`
    let attr = link.as_raw_fd() as u32;
    // SAFETY: the attribute is a live word of the size given, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw const attr, size_of_val(&attr)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn attach_clsact(program: &mut SchedClassifier, name: &str, role: Role) -> Result<(), AttachError> {
    let failed =
        |source| AttachError::Program { program: role.program(), device: name.into(), source: Box::new(source) };
    match qdisc_add_clsact(name) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(e)) if e.raw_os_error() == Some(libc::EEXIST) => {}
        Err(source) => return Err(AttachError::Clsact { device: name.into(), source: Box::new(source) }),
    }
    let known = SchedClassifierLink::attached(name, TcAttachType::Ingress, PRIORITY, HANDLE, None)
        .map_err(|e| AttachError::Pin { path: name.into(), reason: e.to_string() })?;
    let id = match program.attach_to_link(known) {
        Ok(id) => id,
        Err(_) => {
            let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
            program.attach_with_options(name, TcAttachType::Ingress, options).map_err(failed)?
        }
    };
    let link = program.take_link(id).map_err(failed)?;
    #[expect(
        clippy::mem_forget,
        reason = "dropping a netlink link removes the filter, which must outlive the daemon; there is no other way to keep it"
    )]
    std::mem::forget(link);
    Ok(())
}

fn detach_clsact(name: &str, role: Role) -> Result<(), AttachError> {
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
