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

/// `r1 = skb; r2 = at; r3 = the last `len` bytes of the stack; r4 = len; r5 = 0; call`, for the helpers that copy between frame and stack.
fn copy(helper: i32, at: i32, len: i32) -> [u64; 7] {
    [
        op(0xbf, 1, 6, 0, 0),
        op(0xb7, 2, 0, 0, at),
        op(0xbf, 3, 10, 0, 0),
        op(0x07, 3, 0, 0, -len),
        op(0xb7, 4, 0, 0, len),
        op(0xb7, 5, 0, 0, 0),
        op(0x85, 0, 0, 0, helper),
    ]
}

// Helpers (linux/bpf.h).
const SKB_STORE_BYTES: i32 = 9;
const REDIRECT: i32 = 23;
const SKB_LOAD_BYTES: i32 = 26;
const SKB_ADJUST_ROOM: i32 = 50;

/// `bpf_skb_adjust_room(skb, bytes, BPF_ADJ_ROOM_MAC, flags)`.
fn room(bytes: i32, flags: u64) -> [u64; 6] {
    [
        op(0xbf, 1, 6, 0, 0),
        op(0xb7, 2, 0, 0, bytes),
        op(0xb7, 3, 0, 0, 1),
        op(0x18, 4, 0, 0, (flags as u32).cast_signed()),
        op(0, 0, 0, 0, ((flags >> 32) as u32).cast_signed()),
        op(0x85, 0, 0, 0, SKB_ADJUST_ROOM),
    ]
}

/// A program that calls helpers one after the other, drops the frame when one of them fails (`each` ends in its call), and redirects.
fn steps(before: &[u64], each: &[&[u64]], to: u32) -> Vec<u64> {
    let mut code = before.to_vec();
    let mut checks = Vec::new();
    for step in each {
        code.extend(*step);
        checks.push(code.len());
        code.push(0);
    }
    code.extend([op(0xb7, 1, 0, 0, to.cast_signed()), op(0xb7, 2, 0, 0, 0), op(0x85, 0, 0, 0, REDIRECT)]);
    code.push(op(0x95, 0, 0, 0, 0));
    let drop = code.len();
    code.extend([op(0xb7, 0, 0, 0, 2), op(0x95, 0, 0, 0, 0)]);
    for check in checks {
        // If r0 is not zero: goto drop.
        code[check] = op(0x55, 0, 0, (drop - check - 1) as i16, 0);
    }
    code
}

/// Outer headers: Ethernet, IPv4, UDP, Geneve with OVN's option.
const OUTER: [u8; 58] = {
    let mut header = [0; 58];
    // To and from nobody in particular: the programs look at none of it.
    (header[0], header[6]) = (2, 2);
    header[12] = 0x08;
    // IPv4, 104 bytes (a frame of 60 inside), don't fragment, UDP, 172.30.0.1 to 172.30.0.2.
    (header[14], header[17], header[20], header[22], header[23]) = (0x45, 104, 0x40, 64, 17);
    (header[24], header[25]) = (0xe2, 0x45);
    (header[26], header[27], header[29]) = (172, 30, 1);
    (header[30], header[31], header[33]) = (172, 30, 2);
    // UDP to 6081, no checksum.
    (header[34], header[36], header[37], header[39]) = (0xc0, 0x17, 0xc1, 84);
    // Geneve: two words of options, critical, Ethernet, network 1; OVN's option.
    (header[42], header[43], header[44], header[45], header[48]) = (2, 0x40, 0x65, 0x58, 1);
    (header[50], header[51], header[52], header[53], header[55], header[57]) = (1, 2, 0x80, 1, 1, 2);
    header
};
const OUTER_LEN: i32 = OUTER.len() as i32;
const ETHER_LEN: i32 = 14;

/// As [`redirect`], behind the same outer headers for every frame: what encapsulation costs by itself.
///
/// # Errors
///
/// As [`redirect`].
pub(super) fn encapsulate(ns: &Netns, from: &str, to: &str) -> Result<Attached> {
    let index = ns.enter(|| nix::net::if_::if_nametoindex(to))?.with_context(|| format!("no device {to}"))?;
    // r6 = skb, and the headers on the stack, below the inner Ethernet header; the last two bytes are half a word.
    let mut before = vec![op(0xbf, 6, 1, 0, 0)];
    for (n, word) in OUTER.chunks(4).enumerate() {
        let at = (n * 4) as i16 - (OUTER_LEN + ETHER_LEN) as i16;
        before.push(match *word {
            [a, b, c, d] => op(0x62, 10, 0, at, i32::from_ne_bytes([a, b, c, d])),
            [a, b] => op(0x6a, 10, 0, at, i32::from(u16::from_ne_bytes([a, b]))),
            _ => anyhow::bail!("headers of {OUTER_LEN} bytes"),
        });
    }
    // FIXED_GSO, ENCAP_L3_IPV4, ENCAP_L4_UDP, ENCAP_L2_ETH, ENCAP_L2(14).
    let flags = 1 | 1 << 1 | 1 << 4 | 1 << 6 | (ETHER_LEN as u64) << 56;
    let load_ether = copy(SKB_LOAD_BYTES, 0, ETHER_LEN);
    let (grow, store) = (room(OUTER_LEN, flags), copy(SKB_STORE_BYTES, 0, OUTER_LEN + ETHER_LEN));
    attach(&load(&steps(&before, &[&load_ether, &grow, &store], index))?, ns, from)
}

/// As [`redirect`], without the outer headers that [`encapsulate`] put there.
///
/// # Errors
///
/// As [`redirect`].
pub(super) fn strip(ns: &Netns, from: &str, to: &str) -> Result<Attached> {
    let index = ns.enter(|| nix::net::if_::if_nametoindex(to))?.with_context(|| format!("no device {to}"))?;
    let before = [op(0xbf, 6, 1, 0, 0)];
    let (load_ether, store) = (copy(SKB_LOAD_BYTES, OUTER_LEN, ETHER_LEN), copy(SKB_STORE_BYTES, 0, ETHER_LEN));
    // FIXED_GSO.
    let shrink = room(-OUTER_LEN, 1);
    attach(&load(&steps(&before, &[&load_ether, &shrink, &store], index))?, ns, from)
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
