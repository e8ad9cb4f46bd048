//! A hypervisor whose loaded programs forward real frames, beside the reference interpreter on the same program.
//!
//! Every VIF is a veth whose other end is in a namespace of guests; the underlay is one too, so that tunnelled frames are caught and thrown
//! as they are on the wire. Each frame is sent three times: the first is walked, the second may be answered from the verdict cache, the third from what
//! the CPU keeps of that.

use crate::cloud::Hypervisor;
use crate::test_run::{Came, TestRuns, Wanted, is_tagged};
use anyhow::{Context as _, Result, bail, ensure};
use oxbow_abi::topology::{
    Address, CHASSIS_DF, CHASSIS_RESOLVED, Chassis, GENEVE_OVN_CLASS, GENEVE_OVN_TYPE, GENEVE_PORT,
};
use oxbow_backend_bpf::kernel::{Config, HookChoice, Role, Sizes};
use oxbow_backend_bpf::{Backend, Limits};
use oxbow_pipeline::ir::{ChassisId, DatapathKey, Location, PortKey};
use oxbow_pipeline::reference::{Arrival, Destination, Output};
use oxbow_testkit::frames::{Frames, Received};
use oxbow_testkit::{Netns, artifacts};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// How long frames that must come are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one more than must come is waited for. It is in the same run of the kernel's receive loop as the others.
const GRACE: Duration = Duration::from_millis(0);
/// Index and name of the underlay device.
pub(crate) const UNDERLAY: u32 = 50;
/// `struct __sk_buff` (linux/bpf.h): its size, and where the interface index is.
pub(crate) const SKB_CONTEXT: usize = 192;
pub(crate) const SKB_IFINDEX: usize = 40;
/// Answers of a classifier (linux/pkt_cls.h).
pub(crate) const TC_ACT_SHOT: u32 = 2;
pub(crate) const TC_ACT_REDIRECT: u32 = 7;
pub(crate) const TC_ACT_UNSPEC: u32 = u32::MAX;
/// Ethernet's shortest frame, without its checksum.
const MINIMUM: usize = 60;
/// A VLAN tag.
const TAG: usize = 4;
/// Ethernet, IPv4, UDP, Geneve and OVN's option.
pub(crate) const OUTER: usize = 14 + 20 + 8 + 8 + 8;

/// What came out, without the logical names of devices: (device or tunnel, frame).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Out {
    /// Out of a device.
    Device(u32, Vec<u8>),
    /// To another chassis: which, network identifier, logical input port, logical output port or group, inner frame.
    Tunnel(u32, u32, u32, u32, Vec<u8>),
}

impl Out {
    /// The frame.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        match self {
            Out::Device(_, frame) | Out::Tunnel(_, _, _, _, frame) => frame,
        }
    }

    /// Whether it is the same but for zeros up to Ethernet's minimum length, which the kernel appends to tiny frames when it takes outer
    /// headers off.
    #[must_use]
    pub fn same_but_padding(&self, expected: &Out) -> bool {
        let padded = |long: &[u8], short: &[u8]| {
            long == short
                || (MINIMUM..=MINIMUM + TAG).contains(&long.len())
                    && long.starts_with(short)
                    && long[short.len()..].iter().all(|byte| *byte == 0)
        };
        match (self, expected) {
            (Out::Device(a, long), Out::Device(b, short)) => a == b && padded(long, short),
            (Out::Tunnel(a, b, c, d, long), Out::Tunnel(e, f, g, h, short)) => {
                (a, b, c, d) == (e, f, g, h) && padded(long, short)
            }
            _ => false,
        }
    }
}

impl From<&Output> for Out {
    fn from(output: &Output) -> Self {
        match output.destination {
            Destination::Device { ifindex, .. } => Out::Device(ifindex, output.frame.clone()),
            Destination::Tunnel { chassis, datapath, inport, outport } => {
                Out::Tunnel(chassis.0, datapath.0, inport.0, outport.0, output.frame.clone())
            }
        }
    }
}

/// The programs of one hypervisor, loaded.
pub struct Kernel {
    here: usize,
    backend: Option<Backend>,
    test_runs: TestRuns,
    senders: BTreeMap<u32, Frames>,
    underlay: Frames,
    ears: Frames,
    // Below what lives in them.
    hypervisor: Netns,
    _guests: Netns,
}

impl Kernel {
    /// Loads the programs, makes a device for every local port, and commits the hypervisor's program.
    ///
    /// # Errors
    /// Without root, without the object, or when the backend cannot hold the program as it is.
    pub fn new(here: usize, cloud: usize, state: &Hypervisor) -> Result<Kernel> {
        let hypervisor = Netns::with_own_sys(&format!("agree-hv{here}"))?;
        let guests = Netns::new(&format!("agree-guests{here}"))?;
        for ns in [&hypervisor, &guests] {
            // Nobody but us may send.
            ns.run("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])?;
        }
        let program = state.compiler.program();
        let mut devices: BTreeSet<u32> = program
            .ports()
            .filter_map(|port| match port.location {
                Location::Local { ifindex, .. } => Some(ifindex),
                _ => None,
            })
            .collect();
        devices.insert(UNDERLAY);
        let mut batch = String::new();
        for index in &devices {
            batch.push_str(&format!("link add v{index} index {index} mtu 9000 type veth peer name g{index} index {index} mtu 9000 netns {}\n", guests.path().display()));
            batch.push_str(&format!("link set v{index} up\n"));
        }
        many(&hypervisor, &batch)?;
        many(&guests, &devices.iter().map(|index| format!("link set g{index} up\n")).collect::<String>())?;
        let object = std::fs::read(artifacts::require_ebpf_object()?)?;
        let config = Config {
            bpffs: Path::new("/sys/fs/bpf").into(),
            system_id: format!("hv{here}"),
            object,
            sizes: sizes(),
            hook: HookChoice::Auto,
        };
        // Limits are for the wild: here every frame counts.
        let limits = Limits { bum_rate: 0, fdb_rate: 0, ..Limits::default() };
        let (backend, test_runs) = hypervisor.enter(|| -> Result<(Backend, TestRuns)> {
            let mut backend = Backend::open(&config, limits)?;
            for index in &devices {
                let role = if *index == UNDERLAY { Role::Underlay } else { Role::Vif };
                backend.instance().attach(&format!("v{index}"), *index, role)?;
            }
            for other in (0..cloud).filter(|other| *other != here) {
                let reach = Chassis {
                    flags: CHASSIS_RESOLVED | CHASSIS_DF,
                    ifindex: UNDERLAY,
                    local: address(here),
                    remote: address(other),
                    mac: [2, 0, 0, 0, 0xff, other as u8, 2, 0, 0, 0, 0xff, here as u8],
                    mtu: 9000,
                    ttl: 64,
                    ..Chassis::default()
                };
                backend.set_chassis(ChassisId(other as u32 + 1), Some(&reach))?;
            }
            backend.commit(program, &state.changes)?;
            backend.activate()?;
            let test_runs = TestRuns::new(&mut backend)?;
            Ok((backend, test_runs))
        })??;
        if let Some((_, problem)) = backend.problems().next() {
            bail!("the backend cannot hold the program of hypervisor {here}: {problem:?}");
        }
        let mut senders = BTreeMap::new();
        for index in devices {
            senders.insert(index, Frames::open(&guests, &format!("g{index}"))?);
        }
        let underlay = senders.remove(&UNDERLAY).context("no underlay device")?;
        let ears = Frames::hear_all(&guests)?;
        Ok(Kernel { here, backend: Some(backend), test_runs, senders, underlay, ears, hypervisor, _guests: guests })
    }

    /// Whether the host's kernel throws the frame away before any program sees it, or cannot take its tags off: one that ends in a VLAN tag.
    #[must_use]
    pub fn never_arrives(frame: &[u8]) -> bool {
        let tagged = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
        tagged(12) && (frame.len() < 14 + TAG + 2 || tagged(12 + TAG) && frame.len() < 14 + 2 * TAG + 2)
    }

    /// Lets a frame arrive and returns what comes out, sorted. `expected`: how many frames to wait for.
    ///
    /// # Errors
    /// When a device refuses the frame, or something comes out that no program of ours makes.
    pub fn run(&mut self, arrival: Arrival, frame: &[u8], expected: usize) -> Result<Vec<Out>> {
        if let Some(late) = self.ears.receive(Duration::ZERO)? {
            bail!("a frame came out of device {} after it was waited for: {:02x?}", late.ifindex, late.frame);
        }
        match arrival {
            Arrival::Device { ifindex } => {
                self.senders.get(&ifindex).with_context(|| format!("no device {ifindex}"))?.send(frame)?;
            }
            Arrival::Tunnel { datapath, inport, outport } => {
                self.underlay.send(&self.encapsulate(datapath, inport, outport, frame))?;
            }
            Arrival::Port { .. } => bail!("a port is no device"),
        }
        self.hear(expected)
    }

    /// What comes out, sorted.
    fn hear(&self, expected: usize) -> Result<Vec<Out>> {
        let mut found = Vec::new();
        while let Some(received) = self.ears.receive(if found.len() < expected { PATIENCE } else { GRACE })? {
            found.push(heard(received)?);
        }
        found.sort();
        Ok(found)
    }

    /// The same by BPF_PROG_TEST_RUN: copies really leave, the last output is the program's answer and its buffer; by which device or to which
    /// chassis each leaves the programs say. `None`: not judged this way, because the frame or what comes out has a VLAN tag, which the kernel keeps
    /// beside the buffer, or because the kernel refuses to run a program on such a frame, as it must.
    ///
    /// # Errors
    /// When the call fails, or something comes out that no program of ours makes.
    pub fn test_run(&mut self, ifindex: u32, frame: &[u8], expected: &[Out]) -> Result<Option<Result<(), String>>> {
        if is_tagged(frame) || expected.iter().any(|out| is_tagged(out.frame())) {
            return Ok(None);
        }
        let wanted = Wanted { host: false, outputs: expected };
        let came = self.inside(|backend, test_runs, ears| {
            test_runs.listen(backend, true)?;
            let came = test_runs.run((backend, ears), (Role::Vif, ifindex), frame, wanted, PATIENCE)?;
            test_runs.listen(backend, false)?;
            Ok(came)
        })?;
        Ok(match came {
            Came::Right => Some(Ok(())),
            Came::Refused => None,
            Came::Wrong(text) => Some(Err(format!("{text}expected {expected:02x?}"))),
        })
    }

    /// The loaded programs and their maps, for what needs no namespace.
    pub(crate) fn backend(&mut self) -> Result<&mut Backend> {
        self.backend.as_mut().context("no backend")
    }

    /// Runs `work` in the hypervisor's namespace, with its backend, test runs and the ears of all guests and of the underlay.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and what `work` returns.
    pub(crate) fn inside<T: Send>(
        &mut self,
        work: impl FnOnce(&mut Backend, &mut TestRuns, &Frames) -> Result<T> + Send,
    ) -> Result<T> {
        let Kernel { backend, test_runs, ears, hypervisor, .. } = self;
        let backend = backend.as_mut().context("no backend")?;
        hypervisor.enter(|| work(backend, test_runs, ears))?
    }

    /// Throws a frame at the underlay device as it is and returns what comes out, sorted. `expected`: how many frames to wait for.
    ///
    /// # Errors
    /// As [`Kernel::run`].
    pub(crate) fn run_outer(&mut self, frame: &[u8], expected: usize) -> Result<Vec<Out>> {
        self.underlay.send(frame)?;
        self.hear(expected)
    }

    /// Forgets addresses that the programs learned: each packet is judged by itself.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn forget(&mut self) -> Result<()> {
        if let Some(backend) = &mut self.backend {
            backend.age_fdb(0)?;
        }
        Ok(())
    }

    /// Drops and totals, for a disagreement's details.
    pub fn counters(&mut self) -> String {
        match &mut self.backend {
            Some(backend) => format!("{:?}", backend.instance().counters.drops()),
            None => String::new(),
        }
    }

    /// Packets answered from the verdict cache, and packets walked, so far.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn cached_and_walked(&mut self) -> Result<(u64, u64)> {
        use oxbow_abi::stats::total::{CACHE_HIT, DENIED_HIT, WALK};
        let counters = &self.backend.as_mut().context("no backend")?.instance().counters;
        let packets = |index| counters.total(index).map(|count| count.packets);
        Ok((packets(CACHE_HIT)? + packets(DENIED_HIT)?, packets(WALK)?))
    }

    fn encapsulate(&self, datapath: DatapathKey, inport: PortKey, outport: PortKey, inner: &[u8]) -> Vec<u8> {
        let other = if self.here == 0 { 1 } else { 0 };
        let mut frame = vec![2, 0, 0, 0, 0xff, self.here as u8, 2, 0, 0, 0, 0xff, other as u8, 8, 0];
        let udp = 8 + 8 + 8 + inner.len();
        let mut ip = vec![0x45, 0];
        ip.extend(((20 + udp) as u16).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        ip.extend(ip4(other).octets());
        ip.extend(ip4(self.here).octets());
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend(0xc000u16.to_be_bytes());
        frame.extend(GENEVE_PORT.to_be_bytes());
        frame.extend((udp as u16).to_be_bytes());
        frame.extend([0, 0, 2, 0x40, 0x65, 0x58]);
        frame.extend((datapath.0 << 8).to_be_bytes());
        frame.extend(GENEVE_OVN_CLASS.to_be_bytes());
        frame.extend([GENEVE_OVN_TYPE, 1]);
        frame.extend((inport.0 << 16 | outport.0).to_be_bytes());
        frame.extend(inner);
        frame
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.take() {
            // Best effort: the namespaces with all devices and pins go next.
            let _ = self.hypervisor.enter(|| backend.remove_everything());
        }
    }
}

/// Runs `ip` once for many commands.
fn many(ns: &Netns, batch: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), batch)?;
    ns.run("ip", &["-batch", &file.path().display().to_string()])?;
    Ok(())
}

/// A frame that the ears heard, without its outer headers.
pub(crate) fn heard(received: Received) -> Result<Out> {
    if received.ifindex == UNDERLAY {
        decapsulate(&received.frame)
    } else {
        Ok(Out::Device(received.ifindex, received.frame))
    }
}

/// Tunnel address of a hypervisor.
pub(crate) fn ip4(hypervisor: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, hypervisor as u8 + 1)
}

fn address(hypervisor: usize) -> Address {
    let mut address = Address { family: 4, ..Address::default() };
    address.bytes[..4].copy_from_slice(&ip4(hypervisor).octets());
    address
}

/// A frame on the underlay without its outer headers, which must be Geneve with OVN's option alone and lengths that fit.
pub(crate) fn decapsulate(frame: &[u8]) -> Result<Out> {
    ensure!(frame.len() >= OUTER, "a frame of {} bytes on the underlay: {frame:02x?}", frame.len());
    let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let half = |at: usize| word(at - 2) & 0xffff;
    let good = half(12) == 0x0800
        && frame[14] == 0x45
        && frame[23] == 17
        && half(36) == u32::from(GENEVE_PORT)
        && word(42) == 0x0240_6558
        && half(50) == u32::from(GENEVE_OVN_CLASS)
        && half(52) == u32::from(GENEVE_OVN_TYPE) << 8 | 1;
    ensure!(good, "no Geneve frame with OVN's option on the underlay: {frame:02x?}");
    ensure!(
        half(16) as usize == frame.len() - 14 && half(38) as usize == frame.len() - 34,
        "wrong outer lengths: {frame:02x?}"
    );
    let chassis = u32::from(frame[33]) - 1;
    let option = word(54);
    Ok(Out::Tunnel(chassis + 1, word(46) >> 8, option >> 16, option & 0xffff, frame[OUTER..].to_vec()))
}

/// Enough for a hypervisor of a test, small enough for several at once.
fn sizes() -> Sizes {
    Sizes {
        vifs: 1 << 10,
        datapaths: 1 << 10,
        rules: 1 << 16,
        wide_rules: 1 << 14,
        blocks: 1 << 12,
        tuples: 1 << 14,
        tables: 1 << 12,
        lflows: 1 << 14,
        ports: 1 << 13,
        verdicts: 1 << 14,
        exact: 1 << 10,
        denied: 1 << 12,
        fdb: 1 << 12,
        chunks: 1 << 10,
        chassis: 64,
    }
}
