//! The hypervisors: one of ours and one of stock in one cloud, on the same Southbound database, one at a time at work.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use oxbow_ovsdb::{Transaction, Uuid};
use oxbow_schema::sb;
use oxbow_testkit::{Cloud, Node, Northd};

use super::super::network::{self, Network};
use super::super::observer::{Door, Fact, Mark, Observer};
use super::super::usage;
use super::{CHANGES, Changer, PATIENCE, READDRESSED, START_LIMIT, Size, compiled, cpu_milliseconds, milliseconds};
use crate::contest::{Contest, Figure};
use crate::report::Bound;
use crate::session::Session;
use crate::value::Value;

/// Who competes, by the index of the hypervisor.
const CONTENDERS: [&str; 2] = ["oxbow-node", "ovn-controller + ovs-vswitchd"];
/// Ports that one `ovs-vsctl` adds.
const BATCH: usize = 100;

/// What stock has for a switch of this size: all rows come before the first computation, not one after the other behind it, when each change of
/// a Port_Binding makes ovn-controller go through all of the switch's (its node physical_flow_output: minutes for ten thousand of them); and a
/// computation of seconds is not taken for a connection that is dead. (ovn-controller(8): ovn-monitor-all, ovn-remote-probe-interval in ms,
/// ovn-openflow-probe-interval in s.)
const STOCK_SETTINGS: &str = "external_ids:ovn-monitor-all=true external_ids:ovn-remote-probe-interval=600000 external_ids:ovn-openflow-probe-interval=600";

/// What a reader of the rows must know.
const NOTE: &str = "ovn-controller has ovn-monitor-all=true and probe intervals of 600 s, its best configuration here: without the first, it goes through all ports of the switch for each Port_Binding that comes (physical_flow_output) and does not finish its start in 10 minutes. A \">\" is a start that was given up after 600 s.";

/// The contest's name.
pub(in super::super) fn title(size: Size) -> String {
    format!("hypervisor, {} ports on one switch, {} of them here", size.ports, size.local)
}

/// Measures.
pub(in super::super) fn run(session: &mut Session, size: Size, node_arguments: &[String]) -> Result<()> {
    let usual = 2;
    let [ours, stock] = CONTENDERS;
    let faster = |name: &str, unit: &str| Figure::new(name, unit).wanted(ours, stock, Bound::Under(1.0));
    let mut contest = Contest::new(&title(size), usual).contenders(CONTENDERS);
    contest = contest.figure(faster("start → everything installed", "ms").note(NOTE));
    contest = contest.figure(faster("start → everything installed, CPU", "ms"));
    contest = contest.figure(faster("memory: daemons, and maps of eBPF", "MiB"));
    for change in CHANGES {
        contest = contest.figure(faster(&format!("{change}: SB → programmed"), "ms"));
        contest = contest.figure(faster(&format!("{change}: CPU"), "ms"));
    }
    contest = contest.figure(faster("a port plugged: add-port → ovn-installed", "ms"));
    contest = contest.figure(faster("a port plugged: CPU", "ms"));
    contest = contest.figure(faster("a port unplugged: del-port → binding released", "ms"));
    let mut site = Site::start(size, node_arguments)?;
    contest.run(session, |contender| site.round(contender))
}

struct Site {
    cloud: Cloud,
    observer: Observer,
    nb: Door,
    _others: Vec<Door>,
    changer: Changer,
    size: Size,
}

/// Name of the device of a port.
fn device(port: usize) -> String {
    format!("d{port}")
}

impl Site {
    fn start(size: Size, node_arguments: &[String]) -> Result<Self> {
        let arguments: Vec<&str> = node_arguments.iter().map(String::as_str).collect();
        let cloud = Cloud::builder().northd(Northd::Oxbow).node_arguments(&arguments);
        let mut cloud = cloud.hypervisors(1, Node::Oxbow).hypervisors(1, Node::Stock).start()?;
        for hypervisor in cloud.hypervisors().iter().filter(|hypervisor| hypervisor.node() == Node::Stock) {
            hypervisor.ovsdb().vsctl_no_wait(&format!("set Open_vSwitch . {STOCK_SETTINGS}"))?;
        }
        let observer = Observer::new()?;
        let nb = observer.northbound(&cloud.central().nb().remote())?;
        let mut others = vec![observer.southbound(&cloud.southbound().remote())?];
        for (index, hypervisor) in cloud.hypervisors().iter().enumerate() {
            others.push(observer.switch(index, &hypervisor.ovsdb().remote())?);
        }
        let mark = observer.mark();
        let network = Network::make(cloud.central().nb())?;
        network.add_ports(&nb, 0..size.ports)?;
        let readdressed = Network::port(cloud.central().nb(), READDRESSED)?;
        let mut changer = Changer { network, readdressed, made: 0, ports: size.ports };
        let (number, _) = changer.commit(&nb, 3)?;
        compiled(&observer, mark, number)?;
        let mut site = Self { cloud, observer, nb, _others: others, changer, size };
        site.bind_elsewhere()?;
        for host in 0..CONTENDERS.len() {
            let ports: Vec<usize> = site.local(host).collect();
            site.make_devices(host, &ports)?;
            // Each starts anew in every round. One that would compute all of it now is not needed: its ovs-vswitchd is.
            let is_stock = site.cloud.hypervisors()[host].node() == Node::Stock;
            if is_stock {
                site.exit(host)?;
            }
            for batch in ports.chunks(BATCH) {
                site.plug(host, batch)?;
            }
            if !is_stock {
                site.exit(host)?;
            }
        }
        Ok(site)
    }

    /// Ends the controller for good: it takes its rows and what it programmed with it, which takes some their time.
    fn exit(&mut self, host: usize) -> Result<()> {
        let hypervisor = self.cloud.hypervisor(host);
        hypervisor.appctl("exit")?;
        let mut controller = hypervisor.take_controller().context("no controller is running")?;
        let status = controller.wait_end(PATIENCE)?;
        ensure!(status.success(), "the controller ended with {status} after exit");
        Ok(())
    }

    /// The ports that are plugged on a hypervisor for good.
    fn local(&self, host: usize) -> std::ops::Range<usize> {
        host * self.size.local..(host + 1) * self.size.local
    }

    /// Gives every second of the ports that are not plugged here to a chassis that is only a row.
    fn bind_elsewhere(&mut self) -> Result<()> {
        let sb = self.cloud.southbound();
        sb.sbctl("chassis-add elsewhere geneve 172.31.200.1")?;
        let text = sb.sbctl("--bare --columns=_uuid find Chassis name=elsewhere")?;
        let chassis: Uuid = text.trim().parse().with_context(|| format!("{text:?} is no UUID"))?;
        let text = sb.sbctl("--format=csv --no-headings --columns=_uuid,logical_port list Port_Binding")?;
        let mut transaction = Transaction::new(sb::DATABASE);
        for line in text.lines() {
            let (row, port) = line.split_once(',').with_context(|| format!("{line:?} has no comma"))?;
            let number: usize = port.trim_matches('"').trim_start_matches('p').parse()?;
            if number >= CONTENDERS.len() * self.size.local && number.is_multiple_of(2) {
                let row = row.trim_matches('"').parse()?;
                let _ = transaction.update(sb::port_binding::TABLE, row).set(sb::port_binding::CHASSIS, Some(chassis));
            }
        }
        self._others[0].transact(transaction).map(|_| ())
    }

    /// Makes a pair of devices for each port, in one go.
    fn make_devices(&self, host: usize, ports: &[usize]) -> Result<()> {
        let lines: Vec<String> = ports
            .iter()
            .map(|&port| {
                let name = device(port);
                format!("link add {name} type veth peer name g{port}\nlink set {name} up\nlink set g{port} up\n")
            })
            .collect();
        let file = self.cloud.dir().join("devices");
        std::fs::write(&file, lines.concat())?;
        self.cloud.hypervisors()[host].ns().run("ip", &["-batch", &file.display().to_string()]).map(|_| ())
    }

    fn plug(&self, host: usize, ports: &[usize]) -> Result<()> {
        let commands: Vec<String> = ports
            .iter()
            .map(|&port| {
                let (device, port) = (device(port), network::name(port));
                format!("add-port br-int {device} -- set Interface {device} external_ids:iface-id={port}")
            })
            .collect();
        self.cloud.hypervisors()[host].vsctl(&commands.join(" -- ")).map(|_| ())
    }

    /// When the last of the local ports had `ovn-installed` and the hypervisor had reported the sequence number, if that was before the deadline.
    fn started(&self, mark: Mark, host: usize, number: i64, deadline: Instant) -> Result<Option<Instant>> {
        let mut missing: BTreeSet<String> = self.local(host).map(device).collect();
        let mut is_reported = false;
        let chassis = self.cloud.hypervisors()[host].name();
        self.observer.await_until(mark, deadline, "everything installed on the hypervisor", |fact| {
            match fact {
                Fact::Interface { host: of, name, installed: true, .. } if *of == host => drop(missing.remove(name)),
                Fact::Chassis { name, nb_cfg } if name == chassis && *nb_cfg == number => is_reported = true,
                _ => {}
            }
            is_reported && missing.is_empty()
        })
    }

    /// When the hypervisor reported the sequence number.
    fn reported(&self, mark: Mark, host: usize, number: i64) -> Result<Instant> {
        let chassis = self.cloud.hypervisors()[host].name();
        self.observer.wait(
            mark,
            PATIENCE,
            "the hypervisor's nb_cfg",
            |fact| matches!(fact, Fact::Chassis { name, nb_cfg } if name == chassis && *nb_cfg == number),
        )
    }

    fn round(&mut self, host: usize) -> Result<Vec<Value>> {
        // What a former life said must be said again to count.
        let keys = "external_ids ovn-installed -- remove Interface";
        let marks: Vec<String> = self.local(host).map(|port| format!("{} {keys}", device(port))).collect();
        for batch in marks.chunks(BATCH) {
            let words = batch.join(" ");
            let words = words.trim_end_matches(" -- remove Interface");
            self.cloud.hypervisors()[host].ovsdb().vsctl_no_wait(&format!("remove Interface {words}"))?;
        }
        let mark = self.observer.mark();
        let (number, _) = self.changer.commit(&self.nb, 0)?;
        compiled(&self.observer, mark, number)?;
        let before = cpu_milliseconds(&self.cloud.hypervisors()[host].daemons())?;
        let start = Instant::now();
        self.cloud.hypervisor(host).start_controller()?;
        let all = self.started(mark, host, number, start + START_LIMIT)?;
        let daemons = self.cloud.hypervisors()[host].daemons();
        ensure!(!daemons.is_empty(), "no daemon is running");
        let cpu = cpu_milliseconds(&daemons)? - before;
        let mut memory = usage::resident(&daemons)?;
        if self.cloud.hypervisors()[host].node() == Node::Oxbow {
            memory += usage::maps(daemons[0])?;
        }
        let Some(all) = all else {
            // It hears no command while it computes.
            let controller = self.cloud.hypervisor(host).take_controller().context("no controller is running")?;
            controller.kill()?;
            let reached = [START_LIMIT.as_secs_f64() * 1000.0, cpu, memory].map(Value::Beyond);
            let rest = std::iter::repeat_n(Value::Missing, 2 * CHANGES.len() + 3);
            return Ok(reached.into_iter().chain(rest).collect());
        };
        let mut values = vec![milliseconds(start, all), cpu, memory];
        for kind in 0..CHANGES.len() {
            let (mark, before) = (self.observer.mark(), cpu_milliseconds(&daemons)?);
            let (number, _) = self.changer.commit(&self.nb, kind)?;
            let southbound = compiled(&self.observer, mark, number)?;
            values.push(milliseconds(southbound, self.reported(mark, host, number)?));
            values.push(cpu_milliseconds(&daemons)? - before);
        }
        values.extend(self.plug_one(host, &daemons)?);
        self.exit(host)?;
        Ok(values.into_iter().map(Value::Exact).collect())
    }

    fn plug_one(&mut self, host: usize, daemons: &[u32]) -> Result<Vec<f64>> {
        let mark = self.observer.mark();
        let (number, _) = self.changer.commit(&self.nb, 1)?;
        self.reported(mark, host, number)?;
        let port = self.changer.ports - 1;
        let (device, name) = (device(port), network::name(port));
        self.make_devices(host, &[port])?;
        let (mark, before, start) = (self.observer.mark(), cpu_milliseconds(daemons)?, Instant::now());
        self.plug(host, &[port])?;
        let installed = self.observer.wait(
            mark,
            PATIENCE,
            "ovn-installed",
            |fact| matches!(fact, Fact::Interface { name, installed: true, .. } if *name == device),
        )?;
        let cpu = cpu_milliseconds(daemons)? - before;
        let (mark, plugged) = (self.observer.mark(), milliseconds(start, installed));
        let start = Instant::now();
        self.cloud.hypervisors()[host].vsctl(&format!("del-port br-int {device}"))?;
        let released = self.observer.wait(
            mark,
            PATIENCE,
            "the binding's end",
            |fact| matches!(fact, Fact::Binding { port, chassis: None, .. } if *port == name),
        )?;
        Ok(vec![plugged, cpu, milliseconds(start, released)])
    }
}
