//! Many flows: as many as the cache holds, more, ones that never come again, denied ones; beside each other, and on several CPUs.

use anyhow::Result;

use super::bpf::Target;
use super::frames::claimed4;
use super::packets::fill;
use super::rig::{Path, Rig, Turns, Work};
use crate::contest::{Contest, Figure};
use crate::session::Session;

/// Frames of a flood that never repeats: each turn of them has ports of its own.
const FLOOD: u32 = 10_000;

/// Frames that the table must hold.
pub(super) fn frames(flows: u32, verdicts: u32) -> usize {
    flows.max(verdicts * 2).max(FLOOD) as usize
}

/// Everything of this file.
pub(super) fn run(session: &mut Session, rig: &mut Rig, many: u32, verdicts: u32) -> Result<()> {
    fill(rig, frames(many, verdicts) as u32)?;
    let usual = if session.quick() { 2_000 } else { 100_000 };
    load(session, rig, many, verdicts, usual)?;
    beside(session, rig, many / 10, usual)?;
    beside(session, rig, many, usual)?;
    scaling(session, rig, many / 10, usual)?;
    denied(session, rig, many, usual)
}

/// What the packets of a measurement came to: nanoseconds, packets per second of one CPU, percent that were not walked.
fn measured(rig: &mut Rig, work: Work) -> Result<Vec<f64>> {
    let before = rig.paths()?;
    let ns = rig.at_once(&[work])?[0];
    let after = rig.paths()? - before;
    let answered = (after.cached + after.denied) as f64 / work.packets() as f64;
    Ok(vec![ns, 1e9 / ns, 100.0 * answered])
}

fn vif(turns: Turns, repeat: u32) -> Work {
    Work { turns, target: Target::Vif, repeat }
}

/// One CPU: from flows that all fit into the cache to flows none of which comes again.
fn load(session: &mut Session, rig: &mut Rig, many: u32, verdicts: u32, usual: u32) -> Result<()> {
    let all = |count| Turns { first: 0, count, fresh: false };
    let fits = format!("{many} flows in turn");
    let churn = format!("{} flows in turn", verdicts * 2);
    let flood = "flows that never repeat";
    let cost = Figure::new("cost", "ns").ratio(&fits, "empty program").ratio(&churn, &fits).ratio(flood, &fits);
    Contest::new(&format!("verdict cache of {verdicts}"), 5)
        .contenders(["empty program", &fits, &churn, flood])
        .figure(cost.note("The flows' frames come from a table; what that costs is in all four."))
        .figure(Figure::new("rate of one CPU", "packets/s"))
        .figure(Figure::new("answered from the cache", "%"))
        .run(session, |contender| match contender {
            0 => measured(rig, Work { target: Target::Empty, ..vif(all(many), usual) }),
            1 => {
                rig.table(all(many), Path::Any, many)?;
                measured(rig, vif(all(many), usual.max(many)))
            }
            // Two caches' worth in turn: when a flow comes again, as many others as the cache holds have come since.
            2 => measured(rig, vif(all(verdicts * 2), usual.max(verdicts * 2))),
            _ => measured(rig, vif(Turns { first: 0, count: FLOOD, fresh: true }, usual)),
        })
}

/// Established flows on one CPU while another one sends flows that never repeat through the same cache.
fn beside(session: &mut Session, rig: &mut Rig, flows: u32, usual: u32) -> Result<()> {
    let name = format!("{flows} established flows beside a flood of never-repeating ones");
    if rig.cpus() < 2 {
        session.say(&format!("{name}: needs two CPUs"));
        return Ok(());
    }
    let established = Turns { first: 0, count: flows, fresh: false };
    let flood = Turns { first: 0, count: FLOOD, fresh: true };
    Contest::new(&name, 5)
        .contenders(["alone", "beside the flood"])
        .figure(Figure::new("cost", "ns").ratio("beside the flood", "alone"))
        .figure(Figure::new("answered from the cache", "%").ratio("beside the flood", "alone"))
        .run(session, |contender| {
            rig.table(established, Path::Any, flows)?;
            let mine = vif(established, usual.max(flows));
            let work = if contender == 0 { vec![mine] } else { vec![mine, vif(flood, usual)] };
            let before = rig.paths()?;
            let ns = rig.at_once(&work)?[0];
            // Nothing of the flood hits.
            let hits = (rig.paths()? - before).cached as f64;
            Ok(vec![ns, 100.0 * hits / mine.packets() as f64])
        })
}

/// One CPU and all of them, with flows of their own.
fn scaling(session: &mut Session, rig: &mut Rig, flows: u32, usual: u32) -> Result<()> {
    let cpus = rig.cpus();
    let all = format!("{cpus} CPUs");
    for (name, fresh) in [("cached", false), ("flows that never repeat", true)] {
        let each = if fresh { FLOOD } else { flows };
        let turns = |cpu: usize| Turns { first: if fresh { 0 } else { cpu as u32 * flows }, count: each, fresh };
        Contest::new(&format!("{name}, {each} flows a CPU"), 5)
            .contenders(["1 CPU", &all])
            .figure(Figure::new("rate in all", "packets/s").ratio(&all, "1 CPU"))
            .run(session, |contender| {
                let busy = if contender == 0 { 1 } else { cpus };
                let work: Vec<Work> = (0..busy).map(|cpu| vif(turns(cpu), usual)).collect();
                if !fresh {
                    rig.at_once(&work)?;
                }
                Ok(vec![rig.at_once(&work)?.into_iter().map(|ns| 1e9 / ns).sum::<f64>()])
            })?;
    }
    Ok(())
}

/// Flows that port security drops: as many as their cache holds, and more.
fn denied(session: &mut Session, rig: &mut Rig, many: u32, usual: u32) -> Result<()> {
    for n in 0..many {
        // From the address of another port.
        rig.frame(n, &claimed4(0, 1, 1, (n as u16, 5000 + (n >> 16) as u16)))?;
    }
    let few = 1000.min(many);
    let (names, turns) = (
        [format!("{few} flows"), format!("{many} flows")],
        [few, many].map(|count| Turns { first: 0, count, fresh: false }),
    );
    Contest::new("denied flows, in turn", 5)
        .contenders(["empty program", &names[0], &names[1]])
        .figure(Figure::new("cost", "ns").ratio(&names[0], "empty program").ratio(&names[1], &names[0]))
        .figure(Figure::new("rate of one CPU", "packets/s"))
        .figure(Figure::new("answered from the cache", "%"))
        .run(session, |contender| match contender {
            0 => measured(rig, Work { target: Target::Empty, ..vif(turns[0], usual) }),
            _ => {
                let turns = turns[contender - 1];
                rig.table(turns, Path::Any, turns.count)?;
                measured(rig, vif(turns, usual.max(turns.count)))
            }
        })
}
