//! What a packet costs, cached and not.

use anyhow::Result;

use super::frames::{udp4, udp6};
use super::rig::{Path, Rig, Turns};
use super::switch::Addresses;
use crate::contest::{Contest, Figure};
use crate::report::Bound;
use crate::session::Session;

/// What is wanted: a cached packet against the empty program, a first one against a cached one.
const CACHED: Bound = Bound::AtMost(4.0);
const FIRST: Bound = Bound::AtMost(20.0);

const EMPTY: &str = "empty program";
const CACHED_NAME: &str = "cached";
const FIRST_NAME: &str = "first packet";
const STALE_NAME: &str = "stale verdict replaced";

/// Packets of one flow of either family, and of many flows.
pub(super) fn run(session: &mut Session, rig: &mut Rig, switch: &str, flows: u32) -> Result<()> {
    one_flow(session, rig, &format!("IPv4, 1 flow, {switch}"), &udp4(0, 1, (1000, 53)))?;
    if rig.switch.addresses == Addresses::Both {
        one_flow(session, rig, &format!("IPv6, 1 flow, {switch}"), &udp6(0, 1, (1000, 53)))?;
    }
    many_flows(session, rig, switch, flows)
}

fn runs(session: &Session, usual: u32) -> u32 {
    if session.quick() { usual / 100 } else { usual }
}

fn figure() -> Figure {
    Figure::new("", "ns").wanted(CACHED_NAME, EMPTY, CACHED).wanted(FIRST_NAME, CACHED_NAME, FIRST)
}

fn one_flow(session: &mut Session, rig: &mut Rig, name: &str, frame: &[u8]) -> Result<()> {
    let (fast, slow) = (runs(session, 100_000), runs(session, 10_000));
    // A flow has one first packet, and so many are needed: their verdict is stale instead, which costs more.
    let contest = Contest::new(name, 9).contenders([EMPTY, CACHED_NAME, FIRST_NAME]).figure(figure());
    contest.run(session, |contender| {
        Ok(vec![match contender {
            0 => rig.one(frame, Path::Nothing, fast)?,
            1 => {
                // The verdict of now, whoever ran before.
                rig.one(frame, Path::Any, 1)?;
                rig.one(frame, Path::Cached, fast)?
            }
            _ => {
                rig.switch.stale(true)?;
                let ns = rig.one(frame, Path::Walked, slow)?;
                rig.switch.stale(false)?;
                ns
            }
        }])
    })
}

fn many_flows(session: &mut Session, rig: &mut Rig, switch: &str, flows: u32) -> Result<()> {
    fill(rig, flows)?;
    let turns = Turns { first: 0, count: flows, fresh: false };
    let fast = runs(session, 100_000).max(flows);
    let contest = Contest::new(&format!("IPv4, {flows} flows, {switch}"), 9);
    let contest = contest.contenders([EMPTY, CACHED_NAME, FIRST_NAME, STALE_NAME]);
    contest.figure(figure().ratio(STALE_NAME, FIRST_NAME)).run(session, |contender| {
        Ok(vec![match contender {
            0 => rig.table(turns, Path::Nothing, fast)?,
            1 => {
                rig.table(turns, Path::Any, flows)?;
                rig.table(turns, Path::Cached, fast)?
            }
            2 => rig.first(turns)?,
            _ => {
                // Those that are to be stale.
                rig.table(turns, Path::Any, flows)?;
                rig.switch.stale(true)?;
                let ns = rig.table(turns, Path::Walked, flows)?;
                rig.switch.stale(false)?;
                ns
            }
        }])
    })
}

/// Fills the table with flows from port 0 to all others: neighbours in the table go to ports far apart.
pub(super) fn fill(rig: &Rig, flows: u32) -> Result<()> {
    let others = rig.switch.ports - 1;
    for n in 0..flows {
        let to = 1 + (u64::from(n) * 7919 % u64::from(others)) as u32;
        rig.frame(n, &udp4(0, to, (n as u16, 5000 + (n >> 16) as u16)))?;
    }
    Ok(())
}
