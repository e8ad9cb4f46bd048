//! The programs of the peers, by the bare system call: a redirect, and a sink that counts.
//!
//! They are assembled by hand so that nothing a compiler or a library adds is measured with them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use oxbow_testkit::Netns;
use oxbow_testkit::artifacts::require_program;

// bpf(2), and linux/bpf.h for the numbers.
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_SCHED_CLS: u64 = 3;
const MAP_TYPE_PERCPU_ARRAY: u64 = 6;
const TCX_INGRESS: u64 = 46;

/// `bpf(2)` with an attribute block of words.
fn bpf(command: libc::c_long, attr: &mut [u64; 16]) -> io::Result<i64> {
    // SAFETY: the block is larger than what the kernel reads of it (zero beyond what it knows), and every pointer in it outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(fd: i64) -> OwnedFd {
    // SAFETY: a new file descriptor that nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// One instruction: operation, registers, offset, immediate.
const fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    code as u64 | (dst as u64) << 8 | (src as u64) << 12 | (off as u16 as u64) << 16 | (imm as u32 as u64) << 32
}

fn load(code: &[u64]) -> Result<OwnedFd> {
    let licence = c"GPL";
    let mut attr = [0u64; 16];
    attr[0] = PROG_TYPE_SCHED_CLS | (code.len() as u64) << 32;
    attr[1] = code.as_ptr() as u64;
    attr[2] = licence.as_ptr() as u64;
    Ok(descriptor(bpf(PROG_LOAD, &mut attr).context("cannot load a program of the bench's own")?))
}

/// A program attached to a device's ingress until this is dropped: by a link of tcx, or (before Linux 6.6) by a filter of clsact.
#[derive(Debug)]
pub(super) struct Attached {
    _link: Option<OwnedFd>,
    _filter: Option<Filter>,
}

/// The only filter on a device's clsact.
#[derive(Debug)]
struct Filter {
    /// The namespace, as `nsenter --net=` takes it.
    ns: PathBuf,
    device: String,
    /// tc with its directory: busybox's nsenter has a tc of its own, which knows no clsact.
    tc: PathBuf,
}

fn attach(program: &OwnedFd, ns: &Netns, device: &str) -> Result<Attached> {
    let link = ns.enter(|| -> Result<io::Result<i64>> {
        let index = nix::net::if_::if_nametoindex(device).with_context(|| format!("no device {device}"))?;
        let mut attr = [0u64; 16];
        attr[0] = u64::from(program.as_raw_fd().cast_unsigned()) | u64::from(index) << 32;
        attr[1] = TCX_INGRESS;
        Ok(bpf(LINK_CREATE, &mut attr))
    })??;
    match link {
        Ok(link) => Ok(Attached { _link: Some(descriptor(link)), _filter: None }),
        // What a kernel says that does not know the attach type.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok(Attached { _link: None, _filter: Some(filter(program, ns, device)?) })
        }
        Err(error) => Err(error).with_context(|| format!("cannot attach to {device} by tcx")),
    }
}

/// Attaches by clsact: tc takes the program from a pin.
fn filter(program: &OwnedFd, ns: &Netns, device: &str) -> Result<Filter> {
    let tc = require_program("tc")?;
    let pin = format!("/sys/fs/bpf/oxbow-bench-{}-{}", std::process::id(), program.as_raw_fd());
    let path = CString::new(pin.as_str()).context("a path with a NUL")?;
    let mut attr = [0u64; 16];
    attr[0] = path.as_ptr() as u64;
    attr[1] = u64::from(program.as_raw_fd().cast_unsigned());
    bpf(OBJ_PIN, &mut attr).with_context(|| format!("cannot pin a program at {pin} (is it a bpffs?)"))?;
    ns.run("tc", &["qdisc", "add", "dev", device, "clsact"])?;
    let made = Filter { ns: ns.path(), device: device.to_owned(), tc };
    let added = ns.run("tc", &["filter", "add", "dev", device, "ingress", "bpf", "da", "object-pinned", &pin]);
    std::fs::remove_file(&pin).with_context(|| format!("cannot remove {pin}"))?;
    added.map(|_| made)
}

impl Drop for Filter {
    fn drop(&mut self) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.ns.display())).arg(&self.tc);
        command.args(["qdisc", "del", "dev", &self.device, "clsact"]);
        // Fails when the device is gone, and then so is the filter.
        let _ = command.stderr(Stdio::null()).status();
    }
}

/// Sends everything that arrives at device `from` of the namespace out by its device `to`: `return bpf_redirect(to, 0)`, nothing else.
///
/// # Errors
///
/// Without root, or when a device does not exist.
pub(super) fn redirect(ns: &Netns, from: &str, to: &str) -> Result<Attached> {
    let index = ns.enter(|| nix::net::if_::if_nametoindex(to))?.with_context(|| format!("no device {to}"))?;
    // r1 = index; r2 = 0; call bpf_redirect; exit
    let code =
        [op(0xb7, 1, 0, 0, index.cast_signed()), op(0xb7, 2, 0, 0, 0), op(0x85, 0, 0, 0, 23), op(0x95, 0, 0, 0, 0)];
    attach(&load(&code)?, ns, from)
}

/// Counts and drops the IPv4 packets that arrive at a device, before the stack behind it sees them.
#[derive(Debug)]
pub(super) struct Sink {
    map: OwnedFd,
    cpus: usize,
    _attached: Attached,
}

impl Sink {
    /// Attaches it.
    ///
    /// # Errors
    ///
    /// Without root, or when the device does not exist.
    pub(super) fn attach(ns: &Netns, device: &str) -> Result<Self> {
        let mut attr = [0u64; 16];
        // type, key size; value size, entries
        attr[0] = MAP_TYPE_PERCPU_ARRAY | 4 << 32;
        attr[1] = 8 | 1 << 32;
        let map = descriptor(bpf(MAP_CREATE, &mut attr).context("cannot create a map")?);
        let code = [
            op(0x61, 6, 1, 16, 0),                            // r6 = skb->protocol
            op(0x55, 6, 0, 12, i32::from(0x0800u16.to_be())), // if not IPv4: goto pass
            op(0x62, 10, 0, -4, 0),                           // key = 0
            op(0xbf, 2, 10, 0, 0),                            // r2 = &key
            op(0x07, 2, 0, 0, -4),
            op(0x18, 1, 1, 0, map.as_raw_fd()), // r1 = map, two slots
            0,
            op(0x85, 0, 0, 0, 1), // r0 = bpf_map_lookup_elem
            op(0x15, 0, 0, 3, 0), // if null: goto drop
            op(0x79, 1, 0, 0, 0), // ++*r0
            op(0x07, 1, 0, 0, 1),
            op(0x7b, 0, 1, 0, 0),
            op(0xb7, 0, 0, 0, 2), // drop: TC_ACT_SHOT
            op(0x95, 0, 0, 0, 0),
            op(0xb7, 0, 0, 0, -1), // pass: on to the next program
            op(0x95, 0, 0, 0, 0),
        ];
        let attached = attach(&load(&code)?, ns, device)?;
        Ok(Self { map, cpus: possible_cpus()?, _attached: attached })
    }

    /// How many packets it has dropped so far.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub(super) fn count(&self) -> Result<u64> {
        let key = 0u32;
        let mut values = vec![0u64; self.cpus];
        let mut attr = [0u64; 16];
        attr[0] = u64::from(self.map.as_raw_fd().cast_unsigned());
        attr[1] = (&raw const key) as u64;
        attr[2] = values.as_mut_ptr() as u64;
        bpf(MAP_LOOKUP_ELEM, &mut attr).context("cannot read the sink's counter")?;
        Ok(values.iter().sum())
    }
}

/// How many values a per-CPU element has.
fn possible_cpus() -> Result<usize> {
    let path = "/sys/devices/system/cpu/possible";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let last = text.trim().rsplit(['-', ',']).next().unwrap_or_default();
    Ok(last.parse::<usize>().with_context(|| format!("{path} says {text:?}"))? + 1)
}
