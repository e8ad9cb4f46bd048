//! A batch of hostile frames through the programs, each judged; then the programs' drop counters against the reference's reasons.

use super::{Tally, index};
use crate::kernel::{Kernel, Out};
use crate::test_run::{Came, TestRuns, Wanted, hex, is_tagged};
use anyhow::Result;
use oxbow_abi::reason::Reason;
use oxbow_backend_bpf::Backend;
use oxbow_backend_bpf::kernel::Role;
use oxbow_pipeline::ir::Program;
use oxbow_pipeline::reference::{self, Arrival, Outcome};
use oxbow_testkit::frames::Frames;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Where a frame arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// On the device of a VIF.
    Vif(u32),
    /// On the underlay.
    Underlay,
}

/// How frames are given to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Over real devices.
    Devices,
    /// By BPF_PROG_TEST_RUN, with all caches. The device of the last output is not seen.
    TestRuns,
    /// By BPF_PROG_TEST_RUN, while the programs say where each copy leaves.
    ToldTestRuns,
}

/// Who says what must become of a frame.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// It is the host's.
    Host,
    /// It is dropped for this reason before anything logical happens.
    Refused(Reason),
    /// The reference, on this frame.
    Reference(Arrival),
    /// The reference, on the frame that was inside.
    Inner(Arrival, Vec<u8>),
}

/// A frame.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) hypervisor: usize,
    pub(super) at: Where,
    pub(super) expected: Expected,
    pub(super) frame: Vec<u8>,
}

/// What must become of a frame.
struct Fate {
    host: bool,
    outputs: Vec<Out>,
    drops: Vec<&'static str>,
    learned: bool,
    outcome: Option<Outcome>,
}

/// The programs' name of a reason of the reference.
fn name(reason: reference::Reason) -> &'static str {
    use reference::Reason as R;
    match reason {
        R::LogicalFlow => Reason::LogicalFlow,
        R::NoMatch => Reason::NoMatch,
        R::ActionsEnd => Reason::ActionsEnd,
        R::PipelineEnd => Reason::PipelineEnd,
        R::UnsupportedAction | R::Punted => Reason::UnsupportedAction,
        R::TableClosed => Reason::TableClosed,
        R::NotProgrammed => Reason::NotProgrammed,
        R::NoDatapath => Reason::NoDatapath,
        R::NoOutport => Reason::NoOutport,
        R::PortUnknown => Reason::PortUnknown,
        R::PortNotBound => Reason::PortNotBound,
        R::PortNotServed => Reason::PortNotServed,
        R::Loopback => Reason::Loopback,
        R::LocalOnly => Reason::LocalOnly,
        R::GroupEmpty => Reason::GroupEmpty,
        R::Truncated => Reason::Truncated,
        R::WalkLimit => Reason::WalkLimit,
        R::TtlExceeded => Reason::TtlExceeded,
        R::NotNeighborSolicit => Reason::NotNeighborSolicit,
    }
    .text()
}

impl Fate {
    fn of(program: &Program, case: &Case) -> Fate {
        let nothing = Fate { host: false, outputs: Vec::new(), drops: Vec::new(), learned: false, outcome: None };
        let (arrival, frame) = match &case.expected {
            Expected::Host => return Fate { host: true, ..nothing },
            Expected::Refused(reason) => return Fate { drops: vec![reason.text()], ..nothing },
            Expected::Reference(arrival) => (*arrival, &case.frame),
            Expected::Inner(arrival, inner) => (*arrival, inner),
        };
        let outcome = reference::run(program, arrival, frame);
        let mut outputs: Vec<Out> = outcome.outputs.iter().map(Out::from).collect();
        outputs.sort();
        let mut drops: Vec<&'static str> = outcome.drops.iter().map(|drop| name(drop.reason)).collect();
        // The programs can put two tags into a tunnel (ebpf/DESIGN.md, Tunnels); a frame with more of them is refused there, by name.
        outputs.retain(|out| {
            let tunnelled = matches!(out, Out::Tunnel(_, _, _, _, frame) if tags(frame) > 2);
            drops.extend(tunnelled.then_some(Reason::Rewrite.text()));
            !tunnelled
        });
        Fate { host: false, outputs, drops, learned: !outcome.learned.is_empty(), outcome: Some(outcome) }
    }
}

/// VLAN tags at the beginning of a frame.
fn tags(frame: &[u8]) -> usize {
    frame[12..].chunks(4).take_while(|tag| matches!(tag, [0x81, 0x00, _, _] | [0x88, 0xa8, _, _])).count()
}

/// Counts by reason.
type Reasons = BTreeMap<&'static str, u64>;

fn counted(backend: &mut Backend) -> Result<Reasons> {
    let drops = backend.instance().counters.drops()?;
    Ok(drops.into_iter().map(|drop| (drop.reason.text(), drop.count.packets)).collect())
}

fn since(before: &Reasons, after: &Reasons) -> Reasons {
    let more = |(reason, n): (&&'static str, &u64)| (*reason, n - before.get(reason).copied().unwrap_or(0));
    after.iter().map(more).filter(|(_, n)| *n != 0).collect()
}

/// Runs the cases and says what is wrong, a text each.
pub(super) fn batch(
    kernel: &mut Kernel,
    program: &Program,
    cases: &[Case],
    how: How,
    tally: &mut Tally,
) -> Result<Vec<String>> {
    let fates: Vec<Fate> = cases.iter().map(|case| Fate::of(program, case)).collect();
    let before = counted(kernel.backend()?)?;
    let mut judged = vec![true; cases.len()];
    let mut wrong = Vec::new();
    ran(kernel, how, cases, &fates, &mut judged, tally, &mut wrong)?;
    let after = counted(kernel.backend()?)?;
    let mut expected = Reasons::new();
    let ran = cases.iter().zip(&fates).zip(&judged).filter(|(_, judged)| **judged).map(|(both, _)| both);
    for (case, fate) in ran {
        fate.drops.iter().for_each(|reason| *expected.entry(reason).or_default() += 1);
        tally.delivered += u64::from(!fate.outputs.is_empty());
        tally.from_tunnels += u64::from(case.at == Where::Underlay && !fate.outputs.is_empty());
        tally.host += u64::from(fate.host);
    }
    let found = since(&before, &after);
    if found != expected && wrong.is_empty() {
        wrong.push(culprit(kernel, cases, &fates, how, &expected, &found)?);
    }
    for (reason, n) in found {
        *tally.drops.entry(reason).or_default() += n;
    }
    Ok(wrong)
}

/// Runs the cases: which were judged, and what is wrong.
fn ran(
    kernel: &mut Kernel,
    how: How,
    cases: &[Case],
    fates: &[Fate],
    judged: &mut [bool],
    tally: &mut Tally,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let listen = match how {
        How::Devices => return over_devices(kernel, cases, fates, judged, tally, wrong),
        How::TestRuns => false,
        How::ToldTestRuns => true,
    };
    kernel
        .inside(|backend, runs, ears| test_runs((backend, runs, ears), listen, cases, fates, judged, tally, wrong))?;
    // What is refused goes over devices; shorter frames than these leave none.
    for (n, case) in cases.iter().enumerate() {
        if !judged[n] && case.frame.len() >= SHORTEST {
            judged[n] = true;
            over_devices(kernel, &cases[n..=n], &fates[n..=n], &mut judged[n..=n], tally, wrong)?;
        }
    }
    Ok(())
}

/// By BPF_PROG_TEST_RUN, in the hypervisor's namespace. `listen`: the programs say by which device or to which chassis each copy leaves.
fn test_runs(
    (backend, runs, ears): (&mut Backend, &mut TestRuns, &Frames),
    listen: bool,
    cases: &[Case],
    fates: &[Fate],
    judged: &mut [bool],
    tally: &mut Tally,
    wrong: &mut Vec<String>,
) -> Result<()> {
    runs.listen(backend, listen)?;
    for ((case, fate), judged) in cases.iter().zip(fates).zip(judged) {
        let role = if case.at == Where::Underlay { Role::Underlay } else { Role::Vif };
        let wanted = Wanted { host: fate.host, outputs: &fate.outputs };
        let before = counted(backend)?;
        match runs.run((backend, ears), (role, index(case.at)), &case.frame, wanted, Duration::ZERO)? {
            Came::Refused => {
                *judged = false;
                tally.refused += 1;
            }
            Came::Right => {
                tally.test_runs += 1;
                tally.told += u64::from(listen && !fate.outputs.is_empty());
            }
            Came::Wrong(text) => {
                tally.test_runs += 1;
                let drops = since(&before, &counted(backend)?);
                wrong.push(format!("{}{text}drops {drops:?}\n", describe(case, fate)));
            }
        }
        if fate.learned {
            backend.age_fdb(0)?;
        }
    }
    runs.listen(backend, false)
}

/// An Ethernet header: what a device sends at least.
const SHORTEST: usize = 14;

/// Each frame that does not come out costs the time it is waited for.
const ENOUGH: usize = 3;

/// Over real devices, until enough is wrong.
fn over_devices(
    kernel: &mut Kernel,
    cases: &[Case],
    fates: &[Fate],
    judged: &mut [bool],
    tally: &mut Tally,
    wrong: &mut Vec<String>,
) -> Result<()> {
    for ((case, fate), judged) in cases.iter().zip(fates).zip(judged) {
        if wrong.len() >= ENOUGH {
            *judged = false;
            continue;
        }
        let found = throw(kernel, case, fate.outputs.len())?;
        tally.wire += 1;
        let same = found.len() == fate.outputs.len()
            && found.iter().zip(&fate.outputs).all(|(found, wanted)| found.same_but_padding(wanted));
        if !same {
            let mut text = describe(case, fate);
            let before = counted(kernel.backend()?)?;
            let again = throw(kernel, case, fate.outputs.len())?;
            let drops = since(&before, &counted(kernel.backend()?)?);
            let _ = writeln!(text, "over devices came out {found:02x?}, and again {again:02x?} with drops {drops:?}");
            wrong.push(text);
        }
        if fate.learned {
            kernel.forget()?;
        }
    }
    Ok(())
}

/// Lets a frame arrive over a real device.
fn throw(kernel: &mut Kernel, case: &Case, expected: usize) -> Result<Vec<Out>> {
    match case.at {
        Where::Vif(ifindex) => kernel.run(Arrival::Device { ifindex }, &case.frame, expected),
        Where::Underlay => kernel.run_outer(&case.frame, expected),
    }
}

/// The counters differ from the reference's reasons: the first frame alone that shows it.
fn culprit(
    kernel: &mut Kernel,
    cases: &[Case],
    fates: &[Fate],
    how: How,
    expected: &Reasons,
    found: &Reasons,
) -> Result<String> {
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for (case, fate) in cases.iter().zip(fates) {
        let before = counted(kernel.backend()?)?;
        let one = (std::slice::from_ref(case), std::slice::from_ref(fate));
        let mut judged = [true];
        ran(kernel, how, one.0, one.1, &mut judged, &mut tally, &mut wrong)?;
        let after = counted(kernel.backend()?)?;
        let mut wanted = Reasons::new();
        if judged[0] {
            fate.drops.iter().for_each(|reason| *wanted.entry(reason).or_default() += 1);
        }
        let counted = since(&before, &after);
        if counted != wanted {
            return Ok(format!("{}counted {counted:?}\n", describe(case, fate)));
        }
    }
    Ok(format!("a batch counted {found:?} where the reference has {expected:?}; no frame of it shows it alone\n"))
}

fn describe(case: &Case, fate: &Fate) -> String {
    let mut text = format!("{:?}, frame {}\n", case.at, hex(&case.frame));
    if is_tagged(&case.frame) {
        text.push_str("(tagged)\n");
    }
    match (&case.expected, &fate.outcome) {
        (Expected::Inner(arrival, inner), Some(outcome)) => {
            let _ = writeln!(text, "inside: {arrival:?} {}\nthe reference says: {outcome:#?}", hex(inner));
        }
        (_, Some(outcome)) => {
            let _ = writeln!(text, "the reference says: {outcome:#?}");
        }
        (expected, None) => {
            let _ = writeln!(text, "expected: {expected:?}");
        }
    }
    let _ = writeln!(text, "so these drops: {:?}", fate.drops);
    text
}
