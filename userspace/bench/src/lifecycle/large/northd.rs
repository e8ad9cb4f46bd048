//! The northds: from the start to everything compiled, and one change, each with databases of its own and the same contents.

use std::time::Instant;

use anyhow::{Context as _, Result};
use oxbow_testkit::{Cloud, Northd};

use super::super::network::Network;
use super::super::observer::{Door, Observer};
use super::super::usage;
use super::{CHANGES, Changer, PATIENCE, READDRESSED, Size, compiled, cpu_milliseconds, milliseconds};
use crate::contest::{Contest, Figure};
use crate::report::Bound;
use crate::session::Session;

const CONTENDERS: [(&str, Northd); 2] = [("oxbow-northd", Northd::Oxbow), ("ovn-northd", Northd::Stock)];

/// The contest's name.
pub(in super::super) fn title(size: Size) -> String {
    format!("northd, {} ports on one switch", size.ports)
}

/// Measures.
pub(in super::super) fn run(session: &mut Session, size: Size) -> Result<()> {
    let usual = 5;
    let mut sites = CONTENDERS
        .iter()
        .map(|(name, northd)| Site::start(*northd, size).with_context(|| (*name).to_owned()))
        .collect::<Result<Vec<_>>>()?;
    let [ours, stock] = CONTENDERS.map(|(name, _)| name);
    let faster = |name: &str, unit: &str| Figure::new(name, unit).wanted(ours, stock, Bound::Under(1.0));
    let mut contest = Contest::new(&title(size), usual).contenders([ours, stock]);
    contest = contest.figure(faster("start → everything compiled (SB filled already)", "ms"));
    contest = contest.figure(faster("start → everything compiled, CPU", "ms"));
    for change in CHANGES {
        contest = contest.figure(faster(&format!("{change}: NB → SB"), "ms"));
        contest = contest.figure(faster(&format!("{change}: CPU"), "ms"));
    }
    contest = contest.figure(faster("resident memory", "MiB"));
    contest.run(session, |contender| sites[contender].round())
}

struct Site {
    cloud: Cloud,
    kind: Northd,
    observer: Observer,
    nb: Door,
    _sb: Door,
    changer: Changer,
}

impl Site {
    fn start(kind: Northd, size: Size) -> Result<Self> {
        let mut cloud = Cloud::builder().northd(kind).start()?;
        let observer = Observer::new()?;
        let nb = observer.northbound(&cloud.central().nb().remote())?;
        let sb = observer.southbound(&cloud.southbound().remote())?;
        let network = Network::make(cloud.central().nb())?;
        network.add_ports(&nb, 0..size.ports)?;
        let readdressed = Network::port(cloud.central().nb(), READDRESSED)?;
        let mut changer = Changer { network, readdressed, made: 0, ports: size.ports };
        let mark = observer.mark();
        // The first ACL makes a switch another one: from then on ACLs are one more.
        let (number, _) = changer.commit(&nb, 3)?;
        compiled(&observer, mark, number)?;
        Ok(Self { cloud, kind, observer, nb, _sb: sb, changer })
    }

    fn pid(&mut self) -> Result<u32> {
        self.cloud.central().northd_pid().context("no northd is running")
    }

    fn round(&mut self) -> Result<Vec<f64>> {
        let former = self.cloud.central().take_northd().context("no northd is running")?;
        former.terminate(PATIENCE)?;
        let mark = self.observer.mark();
        let (number, _) = self.changer.commit(&self.nb, 0)?;
        let start = Instant::now();
        self.cloud.start_northd(self.kind)?;
        let at = compiled(&self.observer, mark, number)?;
        let pid = [self.pid()?];
        let mut values = vec![milliseconds(start, at), cpu_milliseconds(&pid)?];
        for kind in 0..CHANGES.len() {
            let (mark, before) = (self.observer.mark(), cpu_milliseconds(&pid)?);
            let (number, start) = self.changer.commit(&self.nb, kind)?;
            let at = compiled(&self.observer, mark, number)?;
            values.push(milliseconds(start, at));
            values.push(cpu_milliseconds(&pid)? - before);
        }
        values.push(usage::resident(&pid)?);
        Ok(values)
    }
}
