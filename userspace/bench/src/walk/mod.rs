//! Cached and first packets in BPF_PROG_TEST_RUN, against the empty program.
//!
//! | room | what |
//! |---|---|
//! | `switch` | a switch as ovn-northd writes it, loaded |
//! | `bpf` | programs of a few instructions, and runs of programs |
//! | `frames`, `rig` | frames; runs that are checked to have taken the path they are measured for |
//! | `packets` | a cached and a first packet of 1 and of many flows |
//! | `floods` | many flows: more than the cache holds, never-repeating ones, denied ones; several CPUs |

mod bpf;
mod floods;
mod frames;
mod packets;
mod rig;
mod switch;

use anyhow::Result;

use self::rig::Rig;
use self::switch::{Addresses, Switch};
use crate::session::Session;

/// Cached and first packets in BPF_PROG_TEST_RUN, against the empty program.
///
/// The switches are what Debian's ovn-northd makes of ports with addresses of both families and port security, all of them on this
/// hypervisor, and the large one once more with IPv4 addresses alone; packets go from one port to the others. A first packet walks through the
/// ingress and the egress pipeline, and its verdict is inserted. Of many flows it is one that has no verdict yet; beside it, and for a single flow, one whose
/// verdict is stale, as after a change, and is replaced, which costs more. That every packet took the path it is measured for is checked by the programs'
/// counters. Packets of many flows come from a table by a driver program; the empty program is then run behind the same driver.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ports of the small switch.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=30_000))]
    ports: u32,
    /// Ports of the large switch [default: 10000, quick: 100].
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=30_000))]
    large_ports: Option<u32>,
    /// Flows of "many" [default: 10000, quick: 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    flows: Option<u32>,
    /// Flows of the verdict cache under load [default: 100000, quick: 2000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    many_flows: Option<u32>,
    /// Entries of the verdict cache [default: oxbow-node's, quick: 4096].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1024..))]
    verdicts: Option<u32>,
    /// Entries of each CPU's exact-match cache, 0 = none [default: oxbow-node's].
    #[arg(long)]
    exact: Option<u32>,
    /// Copy the kernel's symbols (with those of the programs) here at the end, to read a profile by.
    #[arg(long, value_name = "FILE", hide = true)]
    symbols: Option<std::path::PathBuf>,
}

/// Measures.
///
/// # Errors
///
/// When something cannot be set up or measured, or packets took another path than the one measured.
pub fn run(args: &Args, session: &mut Session) -> Result<()> {
    let quick = session.quick();
    let pick = |given: Option<u32>, usual: u32, short: u32| given.unwrap_or(if quick { short } else { usual });
    let large = pick(args.large_ports, 10_000, 100);
    let flows = pick(args.flows, 10_000, 1000);
    let many = pick(args.many_flows, 100_000, 2000);
    let verdicts = pick(args.verdicts, oxbow_backend_bpf::kernel::VERDICTS_DEFAULT, 4096);
    let switches = [
        (args.ports, Addresses::Both, "small"),
        (large, Addresses::Both, "large"),
        (large, Addresses::Ip4, "large IPv4"),
    ];
    for (ports, addresses, name) in switches {
        let packets = session.wants(&format!("packets {name}"));
        let floods = name == "small" && session.wants("floods");
        if !packets && !floods {
            continue;
        }
        let switch = Switch::new(ports, addresses, verdicts, args.exact)?;
        let mut rig = Rig::new(switch, floods::frames(flows.max(many), verdicts))?;
        let text = rig.switch.describe()?;
        session.say(&format!("{name}: {text}"));
        if packets {
            packets::run(session, &mut rig, &text, flows)?;
        }
        if floods {
            floods::run(session, &mut rig, many, verdicts)?;
        }
        if let Some(file) = &args.symbols {
            std::fs::copy("/proc/kallsyms", file)?;
        }
    }
    Ok(())
}
