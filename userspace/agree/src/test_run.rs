//! Runs by BPF_PROG_TEST_RUN: which frames the kernel takes, what the program answers, and where the programs say that each copy leaves.
//!
//! A test run does not carry out the answer "redirect", so the device it names is not on any wire and nobody can ask the kernel for it. The programs
//! say it themselves, to whom listens (`STATE_TELL_FORWARDED`): each device of a delivery and each chassis of a tunnel. Listening bypasses what the
//! CPU keeps of verdicts (`exact.rs`), so part of the runs is without it.

use crate::kernel::{
    Out, SKB_CONTEXT, SKB_IFINDEX, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, UNDERLAY, decapsulate, heard,
};
use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, TestRunResult};
use nix::libc::EINVAL;
use oxbow_abi::monitor::{Listen, SEEN_DELIVER, SEEN_TUNNEL, STATE_TELL_FORWARDED, Seen};
use oxbow_backend_bpf::Backend;
use oxbow_backend_bpf::kernel::{Monitor, Role};
use oxbow_testkit::frames::Frames;
use std::time::Duration;

/// An Ethernet header, and the same with a bare IPv4 or IPv6 header.
const ETHERNET: usize = 14;
const ETHERNET_IP4: usize = ETHERNET + 20;
const ETHERNET_IP6: usize = ETHERNET + 40;

/// Frames up to this length fit into the page that the kernel has for a test run (beside headroom and `struct skb_shared_info`), whatever the kernel.
pub(crate) const LONGEST: usize = 3000;

/// Which frames this kernel runs no program on. It always says EINVAL.
///
/// Every kernel: less than an Ethernet header, and what does not fit into its page ([`LONGEST`]). One kernel and not the other: an Ethernet header
/// and nothing else (6.18.44 takes it); an Ethernet type of IPv4 or IPv6 with less than that header behind it (6.18.44 refuses it). All of that is
/// by length and Ethernet type alone, so one frame of each kind says it for all. Any other errno (ENODEV: no such device; ENOSPC: the answer is longer
/// than its room) is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusals {
    empty: bool,
    short_ip4: bool,
    short_ip6: bool,
}

impl Refusals {
    /// Whether the kernel refuses this frame.
    fn refuses(self, frame: &[u8]) -> bool {
        let length = frame.len();
        let short = match frame.get(12..ETHERNET) {
            None => true,
            Some([0x08, 0x00]) => self.short_ip4 && length < ETHERNET_IP4,
            Some([0x86, 0xdd]) => self.short_ip6 && length < ETHERNET_IP6,
            Some(_) => false,
        };
        short || self.empty && length == ETHERNET
    }
}

/// Where a copy leaves, as the programs say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    Device(u32),
    Chassis(u32),
}

impl From<&Out> for Exit {
    fn from(out: &Out) -> Self {
        match out {
            Out::Device(ifindex, _) => Exit::Device(*ifindex),
            Out::Tunnel(chassis, ..) => Exit::Chassis(*chassis),
        }
    }
}

impl Exit {
    fn of(seen: &Seen) -> Option<Exit> {
        match seen.kind & 0xff {
            SEEN_DELIVER => Some(Exit::Device(seen.what)),
            SEEN_TUNNEL => Some(Exit::Chassis(seen.what)),
            _ => None,
        }
    }
}

/// What must become of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// It is the host's.
    pub(crate) host: bool,
    /// What comes out.
    pub(crate) outputs: &'a [Out],
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// As expected.
    Right,
    /// The kernel runs no program on such a frame, as expected.
    Refused,
    /// Something else, in words.
    Wrong(String),
}

/// How the programs of one hypervisor are run.
pub(crate) struct TestRuns {
    refusals: Refusals,
    monitor: Monitor,
    /// Records that were lost before.
    lost: u64,
    listening: bool,
}

impl TestRuns {
    /// Finds out what the kernel refuses.
    ///
    /// # Errors
    /// When it refuses what every kernel takes or for another reason than is known, or somebody else has the monitor. To be called in the
    /// hypervisor's namespace, with the underlay there.
    pub(crate) fn new(backend: &mut Backend) -> Result<TestRuns> {
        let mut monitor = backend.instance().take_monitor().context("somebody else has the monitor")?;
        monitor.set(&Listen { pace: u32::MAX, ..Listen::default() })?;
        // To the underlay's program all of these are the host's: they change nothing.
        let mut refused = |eth_type: [u8; 2], length: usize| -> Result<bool> {
            let mut frame = vec![0; length.max(ETHERNET)];
            frame[12..ETHERNET].copy_from_slice(&eth_type);
            frame.truncate(length);
            match call(backend, Role::Underlay, UNDERLAY, &frame)? {
                Ok(_) => Ok(false),
                Err(errno) if errno == Some(EINVAL) => Ok(true),
                Err(errno) => anyhow::bail!("{}", unexpected(Role::Underlay, UNDERLAY, &frame, errno)),
            }
        };
        let refusals = Refusals {
            empty: refused([0x88, 0xb5], ETHERNET)?,
            short_ip4: refused([0x08, 0x00], ETHERNET_IP4 - 1)?,
            short_ip6: refused([0x86, 0xdd], ETHERNET_IP6 - 1)?,
        };
        ensure!(refused([0x88, 0xb5], ETHERNET - 1)?, "the kernel runs a program on less than an Ethernet header");
        for (eth_type, length) in [([0x08, 0x00], ETHERNET_IP4), ([0x86, 0xdd], ETHERNET_IP6), ([0x88, 0xb5], LONGEST)]
        {
            ensure!(
                !refused(eth_type, length)?,
                "the kernel runs no program on {length} bytes of type {eth_type:02x?}"
            );
        }
        let lost = monitor.lost()?;
        Ok(TestRuns { refusals, monitor, lost, listening: false })
    }

    /// From now on the programs tell where each copy leaves, and that is compared; or no longer.
    ///
    /// # Errors
    /// When the map refuses; when something that was told is lost.
    pub(crate) fn listen(&mut self, backend: &mut Backend, listen: bool) -> Result<()> {
        backend.tell(if listen { STATE_TELL_FORWARDED } else { 0 })?;
        self.listening = listen;
        while self.monitor.next().is_some() {}
        let lost = self.monitor.lost()?;
        ensure!(lost == self.lost, "the programs told {} copies that were lost", lost.wrapping_sub(self.lost));
        Ok(())
    }

    /// Runs a program on a frame. `patience`: how long copies that must leave are waited for.
    ///
    /// # Errors
    /// When something comes out that no program of ours makes, or a socket fails.
    pub(crate) fn run(
        &mut self,
        (backend, ears): (&mut Backend, &Frames),
        (role, ifindex): (Role, u32),
        frame: &[u8],
        wanted: Wanted<'_>,
        patience: Duration,
    ) -> Result<Came> {
        let refused = self.refusals.refuses(frame);
        let (ran, buffer) = match call(backend, role, ifindex, frame)? {
            Err(errno) if refused && errno == Some(EINVAL) => return Ok(Came::Refused),
            Err(errno) => return Ok(Came::Wrong(unexpected(role, ifindex, frame, errno))),
            Ok(_) if refused => {
                let length = frame.len();
                let text = format!("BPF_PROG_TEST_RUN took {length} bytes, of a kind that this kernel refuses\n");
                return Ok(Came::Wrong(text));
            }
            Ok(ran) => ran,
        };
        let must = wanted.outputs.len().saturating_sub(usize::from(ran.return_value == TC_ACT_REDIRECT));
        let mut copies = Vec::new();
        while let Some(received) = ears.receive(if copies.len() < must { patience } else { Duration::ZERO })? {
            copies.push(heard(received)?);
        }
        let mut told: Vec<Exit> =
            std::iter::from_fn(|| self.monitor.next()).filter_map(|seen| Exit::of(&seen)).collect();
        told.sort();
        let mut exits: Vec<Exit> = wanted.outputs.iter().map(Exit::from).collect();
        exits.sort();
        let as_told = !self.listening || told == exits;
        let (strangers, answer) = judge(&ran, &buffer, frame, wanted, &copies);
        if strangers.is_empty() && answer && as_told {
            return Ok(Came::Right);
        }
        let mut text = format!(
            "answer {}, buffer {}, copies {copies:02x?}, strangers {strangers:02x?}\n",
            ran.return_value,
            hex(&buffer)
        );
        if !as_told {
            text.push_str(&format!(
                "the programs say that copies leave by {told:?}, the reference says by {exits:?}\n"
            ));
        }
        Ok(Came::Wrong(text))
    }
}

/// Copies that nobody expects, and whether the answer is the output that is expected and has not left as a copy.
fn judge<'a>(
    ran: &TestRunResult,
    buffer: &[u8],
    frame: &[u8],
    wanted: Wanted<'_>,
    copies: &'a [Out],
) -> (Vec<&'a Out>, bool) {
    let mut left: Vec<&Out> = wanted.outputs.iter().collect();
    let mut strangers = Vec::new();
    for out in copies {
        match left.iter().position(|wanted| out.same_but_padding(wanted)) {
            Some(at) => drop(left.remove(at)),
            None => strangers.push(out),
        }
    }
    let answer = match left.as_slice() {
        [] if wanted.host => ran.return_value == TC_ACT_UNSPEC && buffer == frame,
        [] => ran.return_value == TC_ACT_SHOT,
        [wanted] if ran.return_value == TC_ACT_REDIRECT => match wanted {
            // The tag is beside the buffer.
            _ if is_tagged(wanted.frame()) => true,
            Out::Device(index, _) => Out::Device(*index, buffer.to_vec()).same_but_padding(wanted),
            Out::Tunnel(..) => decapsulate(buffer).is_ok_and(|out| out.same_but_padding(wanted)),
        },
        _ => false,
    };
    (strangers, answer)
}

/// The system call: its result and the buffer afterwards, or its errno.
type Called = Result<(TestRunResult, Vec<u8>), Option<i32>>;

fn call(backend: &mut Backend, role: Role, ifindex: u32, frame: &[u8]) -> Result<Called> {
    let mut context = [0u8; SKB_CONTEXT];
    context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    // Room for outer headers.
    let mut buffer = vec![0; frame.len() + 256];
    let ran = backend.instance().program(role).context("no program")?.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut buffer),
        ctx_in: Some(&context),
        repeat: 1,
        ..TestRunOptions::default()
    });
    Ok(match ran {
        Ok(ran) => {
            buffer.truncate(ran.data_size_out as usize);
            Ok((ran, buffer))
        }
        Err(ProgramError::SyscallError(error)) => Err(error.io_error.raw_os_error()),
        Err(other) => return Err(other).context("BPF_PROG_TEST_RUN"),
    })
}

fn unexpected(role: Role, ifindex: u32, frame: &[u8], errno: Option<i32>) -> String {
    let errno = errno.map_or_else(|| "no errno".to_owned(), |errno| nix::errno::Errno::from_raw(errno).to_string());
    let (program, length) = (role.program(), frame.len());
    format!("BPF_PROG_TEST_RUN of {program}, device {ifindex}, failed ({errno}) on {length} bytes {}\n", hex(frame))
}

/// Whether the kernel keeps a tag of this frame beside its buffer.
pub(crate) fn is_tagged(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_by_length_and_type() {
        let none = Refusals { empty: false, short_ip4: false, short_ip6: false };
        let all = Refusals { empty: true, short_ip4: true, short_ip6: true };
        let frame = |eth_type: [u8; 2], length: usize| {
            let mut frame = vec![0; length.max(14)];
            frame[12..14].copy_from_slice(&eth_type);
            frame.truncate(length);
            frame
        };
        for (eth_type, from) in [([0x08, 0x00], 34), ([0x86, 0xdd], 54), ([0x08, 0x06], 15)] {
            for length in 0..60 {
                let frame = frame(eth_type, length);
                assert_eq!(none.refuses(&frame), length < 14, "{eth_type:02x?} {length}");
                assert_eq!(all.refuses(&frame), length < from, "{eth_type:02x?} {length}");
            }
        }
    }
}
