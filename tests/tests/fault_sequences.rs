//! Random sequences of what happens to VIFs (plugged, unplugged, renamed, deleted, moved, migrated, nested, their switch changed, the node killed or
//! told to restart) end in exactly the state that a node computes that starts from nothing: the maps' content, the claims, the interfaces.
//!
//! Long form: `OXBOW_SEQUENCES=1000 OXBOW_SEED=7 cargo test -p oxbow-tests --test fault_sequences -- --nocapture`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_testkit::random::Random;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, wait_until};
use oxbow_tests::bridge;

oxbow_tests::on_every_backend! {
    random_sequences_end_where_a_fresh_start_ends,
}

/// Devices on each hypervisor, logical ports, hypervisors.
const DEVICES: usize = 5;
const PORTS: usize = 7;
const HYPERVISORS: usize = 2;
/// Every so many sequences the node itself starts anew instead of computing anew.
const RESTART: u32 = 5;

fn number(name: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(otherwise),
    }
}

/// What has been done so far, as far as it decides what may be done next.
struct World<'a> {
    cloud: &'a mut Cloud,
    random: Random,
    /// Logical port that each device claims: (hypervisor, device) → port.
    claims: BTreeMap<(usize, usize), usize>,
    /// Ports that may be on both hypervisors.
    migrating: BTreeSet<usize>,
    /// What was done, for a failure.
    story: String,
}

impl World<'_> {
    fn nb(&mut self, command: &str) -> Result<()> {
        let _ = writeln!(self.story, "  ovn-nbctl {command}");
        self.cloud.nbctl(command).map(|_| ())
    }

    fn ovs(&mut self, hypervisor: usize, command: &str) -> Result<()> {
        let _ = writeln!(self.story, "  hv{}: ovs-vsctl {command}", hypervisor + 1);
        self.cloud.hypervisors()[hypervisor].ovsdb().vsctl_no_wait(command).map(|_| ())
    }

    /// A device may be there or not: for that `ip` may refuse.
    fn ip(&mut self, hypervisor: usize, command: &str) -> Result<()> {
        let said = self.cloud.hypervisors()[hypervisor].ns().ip(command).map_err(|error| format!("{error:#}"));
        let refused = said.is_err();
        let _ = writeln!(self.story, "  hv{}: ip {command}{}", hypervisor + 1, if refused { " (refused)" } else { "" });
        match said {
            Err(why) if !why.contains("File exists") && !why.contains("Cannot find device") => bail!("{why}"),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn device(&mut self) -> (usize, usize) {
        (self.random.below(HYPERVISORS), self.random.below(DEVICES))
    }

    /// A port that no other device claims, or none but one of the other hypervisor while it migrates: devices that fight for a port go on for ever,
    /// and which of two on one hypervisor came last is not written down anywhere.
    fn free_port(&mut self, hypervisor: usize, device: usize) -> Result<usize> {
        // Not the nested one: it is where its parent is, and a device of its own elsewhere would fight for it.
        let port = self.random.below(PORTS - 1);
        let migrates = self.migrating.contains(&port);
        let rival = |((there, other), claimed): &(&(usize, usize), &usize)| {
            **claimed == port && (*there, *other) != (hypervisor, device) && !(migrates && *there != hypervisor)
        };
        let rivals: Vec<(usize, usize)> = self.claims.iter().filter(rival).map(|(at, _)| *at).collect();
        for (there, device) in rivals {
            self.unplug(there, device)?;
        }
        Ok(port)
    }

    fn unplug(&mut self, hypervisor: usize, device: usize) -> Result<()> {
        self.claims.remove(&(hypervisor, device));
        self.ovs(hypervisor, &format!("--if-exists del-port br-int d{device}"))
    }

    /// A port that was allowed on both hypervisors is so no more: one of the two goes.
    fn end_migration(&mut self, port: usize) -> Result<()> {
        if self.migrating.remove(&port) {
            let holders: Vec<(usize, usize)> =
                self.claims.iter().filter(|(_, claimed)| **claimed == port).map(|(at, _)| *at).collect();
            for (there, device) in holders.into_iter().skip(1) {
                self.unplug(there, device)?;
            }
        }
        Ok(())
    }

    fn delete_port(&mut self, port: usize) -> Result<()> {
        self.end_migration(port)?;
        self.nb(&format!("--if-exists lsp-del lp{port}"))
    }

    /// Where a port may be.
    fn request(&mut self, port: usize) -> Result<()> {
        // One that there is not cannot be told, and would be allowed nowhere in particular when it comes.
        self.add_port(port)?;
        let hosts = *self.random.pick(&["hv1", "hv2", "hv1,hv2", ""]);
        if hosts.contains(',') {
            self.migrating.insert(port);
        } else {
            self.end_migration(port)?;
        }
        if hosts.is_empty() {
            return self.nb(&format!("remove Logical_Switch_Port lp{port} options requested-chassis"));
        }
        self.nb(&format!("set Logical_Switch_Port lp{port} options:requested-chassis={hosts}"))
    }

    fn plug(&mut self, hypervisor: usize, device: usize) -> Result<()> {
        let port = self.free_port(hypervisor, device)?;
        self.claims.insert((hypervisor, device), port);
        self.ovs(
            hypervisor,
            &format!("--may-exist add-port br-int d{device} -- set Interface d{device} external_ids:iface-id=lp{port}"),
        )
    }

    /// One thing that happens.
    fn step(&mut self) -> Result<()> {
        let (hypervisor, device) = self.device();
        let port = self.random.below(PORTS);
        match self.random.below(20) {
            0..=4 => {
                self.ip(hypervisor, &format!("link add d{device} type veth peer name g{device}"))?;
                // A guest that says nothing by itself: what would be learned of it depends on the moment.
                self.ip(hypervisor, &format!("link set g{device} addrgenmode none"))?;
                self.ip(hypervisor, &format!("link set g{device} up"))?;
                self.ip(hypervisor, &format!("link set d{device} up"))?;
                self.plug(hypervisor, device)
            }
            5 => self.plug(hypervisor, device),
            6 | 7 => self.unplug(hypervisor, device),
            8 => self.ip(hypervisor, &format!("link del d{device}")),
            9 => {
                // Away and back, or for good: the interface names a device that is not there.
                self.ip(hypervisor, &format!("link set d{device} down"))?;
                self.ip(hypervisor, &format!("link set d{device} name e{device}"))?;
                if self.random.one_in(2) {
                    self.ip(hypervisor, &format!("link set e{device} name d{device}"))?;
                    self.ip(hypervisor, &format!("link set d{device} up"))
                } else {
                    self.ip(hypervisor, &format!("link del e{device}"))
                }
            }
            10 => {
                if self.claims.contains_key(&(hypervisor, device)) {
                    let port = self.free_port(hypervisor, device)?;
                    self.claims.insert((hypervisor, device), port);
                    self.ovs(hypervisor, &format!("set Interface d{device} external_ids:iface-id=lp{port}"))?;
                }
                Ok(())
            }
            11 => {
                if self.claims.remove(&(hypervisor, device)).is_some() {
                    self.ovs(hypervisor, &format!("remove Interface d{device} external_ids iface-id"))?;
                }
                Ok(())
            }
            12 => self.delete_port(port),
            13 => self.add_port(port),
            14 => {
                let host = 10 * (port + 1) + self.random.below(9);
                self.delete_port(port)?;
                self.add_port(port)?;
                self.nb(&format!("lsp-set-addresses lp{port} '00:00:00:00:02:{port:02x} 10.0.0.{host}'"))
            }
            15 => self.request(port),
            16 => {
                let priority = 1000 + self.random.below(3);
                let other = self.random.below(PORTS);
                if self.random.one_in(2) {
                    self.nb(&format!("acl-del sw0 to-lport {priority} 'outport == \"lp{port}\" && ip4'"))
                } else {
                    self.nb(&format!(
                        "--may-exist acl-add sw0 to-lport {priority} 'outport == \"lp{port}\" && ip4' drop"
                    ))?;
                    self.nb(&format!("--may-exist acl-add sw0 from-lport {priority} 'ip4.src == $set && inport == \"lp{other}\"' drop"))
                }
            }
            17 => {
                let host = self.random.below(6);
                let verb = if self.random.one_in(2) { "add" } else { "remove" };
                self.nb(&format!("{verb} Address_Set set addresses 10.0.1.{host}"))
            }
            18 => {
                let host = self.cloud.hypervisor(hypervisor);
                if self.random.one_in(2) {
                    host.kill_controller()?;
                } else {
                    host.exit_controller(true)?;
                }
                host.start_controller()?;
                let _ = writeln!(self.story, "  hv{}: the node ends and starts again", hypervisor + 1);
                Ok(())
            }
            _ => {
                let security = match self.random.below(3) {
                    0 => return self.nb(&format!("--if-exists clear Logical_Switch_Port lp{port} port_security")),
                    1 => format!("00:00:00:00:00:{port:02x}"),
                    _ => format!("00:00:00:00:00:{port:02x} 10.0.0.{port} fd00::{port}"),
                };
                self.nb(&format!("--if-exists set Logical_Switch_Port lp{port} 'port_security=\"{security}\"'"))
            }
        }
    }

    fn add_port(&mut self, port: usize) -> Result<()> {
        // One in seven is nested in the first port.
        let parent = if port == PORTS - 1 { "lp0 42" } else { "" };
        let addresses =
            if port == 1 { "unknown".to_owned() } else { format!("'00:00:00:00:00:{port:02x} 10.0.0.{port}'") };
        self.nb(&format!(
            "--may-exist lsp-add sw{} lp{port} {parent} -- lsp-set-addresses lp{port} {addresses}",
            port % 2
        ))
    }
}

/// Everything that a hypervisor's state consists of, in lines.
fn state(cloud: &Cloud, hypervisor: usize) -> Result<Vec<String>> {
    let host = &cloud.hypervisors()[hypervisor];
    let mut lines: Vec<String> = host.appctl("debug/dump-dataplane")?.lines().map(str::to_owned).collect();
    ensure!(!lines.is_empty(), "the dataplane of {} holds nothing", host.name());
    if host.node() == Node::OpenFlow {
        // What ovs-vswitchd really holds.
        lines
            .extend(bridge::flows(host)?.into_iter().chain(bridge::groups(host)?).map(|line| format!("bridge {line}")));
    }
    let bindings =
        cloud.sbctl("--format=csv --columns=logical_port,chassis,additional_chassis,up list Port_Binding")?;
    lines.extend(bindings.lines().map(|line| format!("binding {line}")));
    let interfaces =
        host.ovsdb().vsctl_no_wait("--format=csv --columns=name,external_ids,error,ofport list Interface")?;
    // When a port was installed differs, that it was does not.
    let without_time = |line: &str| -> String {
        line.split(", ").filter(|word| !word.contains("ovn-installed-ts")).collect::<Vec<_>>().join(", ")
    };
    lines.extend(interfaces.lines().map(|line| format!("interface {}", without_time(line))));
    lines.extend(host.appctl("debug/ports")?.lines().map(|line| format!("port {line}")));
    lines.sort();
    Ok(lines)
}

/// The state once nothing moves any more: everything in NB has arrived, and three looks in a row saw the same.
fn settled(cloud: &Cloud, hypervisor: usize) -> Result<Vec<String>> {
    cloud.sync()?;
    let (mut before, mut same) = (Vec::new(), 0);
    wait_until("the node's state rests", PATIENCE, || {
        let active = cloud.hypervisors()[hypervisor].appctl("debug/dataplane")?;
        ensure!(active.contains(", active,"), "{active}");
        let now = state(cloud, hypervisor)?;
        same = if now == before { same + 1 } else { 0 };
        before.clone_from(&now);
        Ok(if same >= 4 { Look::Held(now) } else { Look::NotYet("it still changes".to_owned()) })
    })
}

fn difference(followed: &[String], fresh: &[String]) -> String {
    let only = |a: &[String], b: &[String], sign: &str| -> String {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    format!("{}{}", only(followed, fresh, "followed:"), only(fresh, followed, "fresh:   "))
}

fn sequences(cloud: &mut Cloud, count: u64, seed: u64) -> Result<()> {
    cloud.nbctl("ls-add sw0 -- ls-add sw1 -- create Address_Set name=set")?;
    let mut world = World {
        cloud,
        random: Random::new(seed),
        claims: BTreeMap::new(),
        migrating: BTreeSet::new(),
        story: String::new(),
    };
    for port in 0..PORTS {
        world.add_port(port)?;
    }
    let mut bound = 0;
    for n in 0..count {
        world.story = format!("sequence {n} of seed {seed}\n");
        for _ in 0..2 + world.random.below(8) {
            world.step()?;
        }
        let hypervisor = world.random.below(HYPERVISORS);
        let restart = world.random.one_in(RESTART as usize);
        let story = std::mem::take(&mut world.story);
        let followed = settled(world.cloud, hypervisor).context(story.clone())?;
        let contradiction: Vec<_> = followed.iter().filter(|line| line.starts_with('!')).collect();
        ensure!(contradiction.is_empty(), "{story}the maps contradict themselves: {contradiction:#?}");
        if restart {
            let host = world.cloud.hypervisor(hypervisor);
            host.exit_controller(true)?;
            host.start_controller()?;
        } else {
            world.cloud.hypervisors()[hypervisor].appctl("recompute")?;
        }
        let fresh = settled(world.cloud, hypervisor).context(story.clone())?;
        let is_up = |line: &&String| line.starts_with("binding ") && line.ends_with(",true");
        bound += fresh.iter().filter(is_up).count();
        if followed != fresh {
            bail!(
                "{story}hv{}, which has followed all this, and {} differ:\n{}",
                hypervisor + 1,
                if restart { "a node that starts" } else { "a computation from nothing" },
                difference(&followed, &fresh)
            );
        }
    }
    // Nothing is proved by devices that never come.
    ensure!(bound as u64 >= count, "only {bound} ports were up after all of {count} sequences");
    Ok(())
}

fn random_sequences_end_where_a_fresh_start_ends(node: Node) -> Result<()> {
    let (count, seed) = (number("OXBOW_SEQUENCES", 8)?, number("OXBOW_SEED", 1)?);
    Cloud::builder().northd(Northd::Oxbow).hypervisors(HYPERVISORS, node).run(|cloud| sequences(cloud, count, seed))
}
