//! Pinned tcx links by their descriptors: what aya's link types, which hide theirs, do not offer.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Whether a link still has its device: the kernel keeps a link that was detached or whose device has gone, with interface index 0.
pub(super) fn has_device(link: BorrowedFd<'_>) -> io::Result<bool> {
    let mut info = TcxLinkInfo::default();
    let attr = InfoAttr {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<TcxLinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: attribute and answer are live and of the sizes given; the kernel writes no more than `info_len` bytes of the answer.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<InfoAttr>()) };
    if result == 0 { Ok(info.ifindex != 0) } else { Err(io::Error::last_os_error()) }
}

/// `BPF_OBJ_PIN`.
pub(super) fn pin_link(link: BorrowedFd<'_>, pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attr = ObjectAttr { pathname: path.as_ptr() as u64, bpf_fd: link.as_raw_fd() as u32, file_flags: 0 };
    // SAFETY: attribute and path are live; the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const attr, size_of::<ObjectAttr>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// [`detach_now`], for a link whose device may have gone, and with it the attachment.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    match detach_now(link) {
        Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        result => result,
    }
}

/// `BPF_LINK_CREATE` of a tcx link at the ingress of a device, before all others there. The program sees the packets of the device from
/// some moment of the call on; the call returns a grace period later, and holds the lock of all devices (rtnl) until then.
pub(super) fn create_link(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreateAttr {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: BPF_TCX_INGRESS,
        flags: BPF_F_BEFORE,
        ..LinkCreateAttr::default()
    };
    // SAFETY: the attribute is a live structure of the size given, which the kernel only reads.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attr, size_of::<LinkCreateAttr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The part of `union bpf_attr` that BPF_LINK_CREATE needs for tcx (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    /// Of whom it stands before: nobody means everybody.
    relative: u32,
    /// What follows is aligned to 8 bytes.
    pad: u32,
    expected_revision: u64,
}

const BPF_TCX_INGRESS: u32 = 46;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` that BPF_OBJ_GET_INFO_BY_FD needs (linux/bpf.h).
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` of a tcx link (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct TcxLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    /// The union that follows is aligned to 8 bytes.
    pad: u32,
    ifindex: u32,
    attach_type: u32,
}

/// The part of `union bpf_attr` that BPF_OBJ_PIN and BPF_OBJ_GET need (linux/bpf.h).
#[repr(C)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `BPF_OBJ_GET`: aya's link types do not give their descriptor away.
pub(super) fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
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
