//! A switch as Debian's ovn-northd writes it, compiled and loaded as oxbow-node does it.

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_agree::Southbound;
use oxbow_backend_bpf::kernel::{Config, HookChoice, Sizes};
use oxbow_backend_bpf::{Backend, Limits};
use oxbow_pipeline::compile::{Compiler, Options, Vocabulary};
use oxbow_pipeline::ir::{DatapathKey, Location, LogicalPort};
use oxbow_testkit::{Central, Netns, Northd, artifacts};
use serde_json::json;
use std::path::Path;
use std::process::Command;

use super::frames::{ip4, ip6, mac};

/// Interface index of port 0; the others follow. Only port 0's device exists: BPF_PROG_TEST_RUN wants the one that a frame came by, not the
/// one that it leaves by.
pub(crate) const FIRST_IFINDEX: u32 = 100;
/// Ports per transaction, which is an argument of a command (131,071 bytes at most).
const BATCH: usize = 250;

/// What its ports have, with port security to hold them to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// An address of each family: some 39 rules a port.
    Both,
    /// An IPv4 address alone.
    Ip4,
}

impl Addresses {
    fn of(self, n: u32) -> String {
        match self {
            Addresses::Both => format!("{} {} {}", mac(n), ip4(n), ip6(n)),
            Addresses::Ip4 => format!("{} {}", mac(n), ip4(n)),
        }
    }
}

/// A switch in a namespace of its own, its policy in force.
pub(crate) struct Switch {
    backend: Option<Backend>,
    datapath: DatapathKey,
    /// Its ports: all of them on this hypervisor, with port security.
    pub(crate) ports: u32,
    /// What they have.
    pub(crate) addresses: Addresses,
    /// Logical flows that ovn-northd wrote for it.
    pub(crate) flows: usize,
    hypervisor: Netns,
}

impl Switch {
    /// Has ovn-northd write it, compiles and loads it.
    pub(crate) fn new(ports: u32, addresses: Addresses, verdicts: u32, exact: Option<u32>) -> Result<Switch> {
        let south = southbound(ports, addresses)?;
        let mut compiler = Compiler::new(Options { vocabulary: Vocabulary::V23_03, ..Options::default() });
        south.feed(&mut compiler);
        for (name, row) in &south.ports {
            let n: u32 = name.trim_start_matches('p').parse().with_context(|| format!("port {name}"))?;
            let location = Location::Local { ifindex: FIRST_IFINDEX + n, tag: None };
            compiler.set_port(LogicalPort { location, ..row.port.clone() });
        }
        let changes = compiler.commit();
        let problems = compiler.problems();
        ensure!(problems.is_empty(), "flows that cannot be held: {problems:?}");
        let datapath = *south.datapaths.keys().next().context("no datapath")?;
        let hypervisor = Netns::with_own_sys("bench-walk")?;
        hypervisor.ip(&format!("link add v0 index {FIRST_IFINDEX} type veth peer name g0"))?;
        let mut sizes = Sizes { vifs: 1 << 14, verdicts, ..Sizes::default() };
        sizes.exact = exact.unwrap_or(sizes.exact);
        let config = Config {
            bpffs: Path::new("/sys/fs/bpf").into(),
            system_id: "bench".into(),
            object: std::fs::read(artifacts::require_ebpf_object()?)?,
            sizes,
            hook: HookChoice::Auto,
        };
        let limits = Limits { bum_rate: 0, fdb_rate: 0, ..Limits::default() };
        let backend = hypervisor.enter(|| -> Result<Backend> {
            let mut backend = Backend::open(&config, limits)?;
            backend.commit(compiler.program(), &changes)?;
            Ok(backend)
        })??;
        if let Some((_, problem)) = backend.problems().next() {
            bail!("the backend cannot hold the program: {problem:?}");
        }
        Ok(Switch { backend: Some(backend), datapath, ports, addresses, flows: south.flows.len(), hypervisor })
    }

    /// What is loaded.
    pub(crate) fn backend(&mut self) -> Result<&mut Backend> {
        self.backend.as_mut().context("no backend")
    }

    /// Runs `work` in its namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.hypervisor.enter(work)?
    }

    /// Makes every cached verdict stale, those that are still to come too, or lets them be valid again. A packet then walks and its verdict
    /// replaces the one before: somewhat more than a first packet does, and as often as one likes.
    pub(crate) fn stale(&mut self, stale: bool) -> Result<()> {
        let datapath = self.datapath.0;
        let backend = self.backend()?;
        let version = backend.version();
        let maps = &mut backend.instance().maps;
        let guard = maps.datapaths.get(&datapath)?.context("no datapath")?.guard;
        maps.guards.set(guard, &if stale { version + 1 } else { version })?;
        Ok(backend.next_epoch()?)
    }

    /// Forgets every verdict: each flow's next packet is its first.
    pub(crate) fn forget(&mut self) -> Result<()> {
        let backend = self.backend()?;
        let verdicts = &mut backend.instance().maps.verdicts;
        let known: Vec<_> = verdicts.snapshot()?.into_iter().map(|(key, _)| key).collect();
        verdicts.remove_many(&known)?;
        // What the CPUs keep of them is to be asked for again.
        Ok(backend.next_epoch()?)
    }

    /// The switch in words.
    pub(crate) fn describe(&mut self) -> Result<String> {
        let (flows, ports) = (self.flows, self.ports);
        let (_, _, rules) = self.backend()?.occupancy();
        let of = if self.addresses == Addresses::Ip4 { "IPv4 ports" } else { "ports" };
        Ok(format!("switch of {ports} {of}, {flows} logical flows, {rules} rules"))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.take() {
            // Best effort: the namespace with its devices and pins goes next.
            let _ = self.hypervisor.enter(|| backend.remove_everything());
        }
    }
}

/// What a Southbound database says of such a switch.
fn southbound(ports: u32, addresses: Addresses) -> Result<Southbound> {
    let ns = Netns::new("bench-walk-nb")?;
    let dir = tempfile::TempDir::with_prefix("oxbow-bench-walk-")?;
    let mut central = Central::start(&ns, dir.path(), "punix:unused.sock", Northd::None)?;
    central.nb().nbctl("ls-add sw0")?;
    let all: Vec<u32> = (0..ports).collect();
    for batch in all.chunks(BATCH) {
        transact(&central, batch, addresses)?;
    }
    // Once everything is there: northd would compute it anew after each batch.
    central.start_northd(&ns, Northd::Stock)?;
    central.nb().nbctl("--timeout=300 --wait=sb sync")?;
    Southbound::read(central.sb())
}

/// Adds ports in one transaction: `ovn-nbctl` would look through all ports for each of them.
fn transact(central: &Central, ports: &[u32], addresses: Addresses) -> Result<()> {
    let mut operations = vec![json!("OVN_Northbound")];
    let mut names = Vec::new();
    for &n in ports {
        let (name, addresses) = (format!("p{n}"), addresses.of(n));
        let row = json!({ "name": name, "addresses": addresses, "port_security": addresses });
        operations.push(json!({ "op": "insert", "table": "Logical_Switch_Port", "uuid-name": name, "row": row }));
        names.push(json!(["named-uuid", name]));
    }
    let mutations = json!([["ports", "insert", ["set", names]]]);
    let switch = json!([["name", "==", "sw0"]]);
    operations.push(json!({ "op": "mutate", "table": "Logical_Switch", "where": switch, "mutations": mutations }));
    let transaction = serde_json::Value::from(operations).to_string();
    let mut command = Command::new("ovsdb-client");
    let output = command.args(["transact", &central.nb().remote(), &transaction]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let refused = !output.status.success() || said.contains("\"error\"");
    ensure!(!refused, "ports refused: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
