//! `oxbow status`: is this hypervisor well, and if not, why.

use crate::Table;
use crate::ports::Port;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One hypervisor on one screen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Whether everything that should be is in force. `/readyz` and the exit status of `oxbow status` say the same.
    pub ready: bool,
    /// Why not, a sentence each.
    pub not_ready: Vec<String>,
    /// The daemon.
    pub daemon: Daemon,
    /// Name of the chassis (system-id).
    pub chassis: Option<String>,
    /// Databases: Open_vSwitch, then OVN_Southbound.
    pub databases: Vec<Database>,
    /// How far behind this chassis is (SB_Global.nb_cfg, Chassis_Private.nb_cfg).
    pub nb_cfg: NbCfg,
    /// What forwards.
    pub dataplane: Dataplane,
    /// VIFs.
    pub ports: Ports,
    /// Local datapaths.
    pub datapaths: u64,
    /// Logical flows known here.
    pub logical_flows: u64,
    /// Other hypervisors.
    pub peers: Vec<Peer>,
    /// How often policy was computed.
    pub computations: Computations,
    /// How full the kernel's maps are.
    pub maps: Vec<MapFill>,
    /// Pid of the ovs-vswitchd beside which it runs.
    pub ovs_vswitchd: Option<i32>,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Daemon {
    /// Version of Oxbow.
    pub version: String,
    /// Its pid.
    pub pid: u32,
    /// Seconds since it was started.
    pub uptime_s: u64,
    /// Following the Southbound database was paused by command.
    pub paused: bool,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Database {
    /// `Open_vSwitch` or `OVN_Southbound`.
    pub name: String,
    /// Where it is, or would be.
    pub remote: Option<String>,
    /// Its replica is complete and kept up to date.
    pub connected: bool,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// Generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NbCfg {
    /// What the Southbound database is at.
    pub wanted: i64,
    /// What this chassis reported.
    pub reported: i64,
}

impl NbCfg {
    /// Generations not reported yet.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.wanted - self.reported
    }
}

/// What forwards packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dataplane {
    /// `ebpf`, `openflow`, or `none` when there is none (yet).
    pub backend: String,
    /// It has a whole policy in force.
    pub active: bool,
    /// Version of the policy in force.
    pub version: u32,
    /// How programs are attached: `tcx` or `clsact`.
    pub hook: Option<String>,
    /// Why it is not open, or why the last commit failed.
    pub error: Option<String>,
}

/// VIFs in numbers, and those that are not installed by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// Interfaces that name a logical port.
    pub total: u64,
    /// Installed.
    pub installed: u64,
    /// On their way, without anybody's help.
    pub under_way: u64,
    /// Those that are not installed, with the reason.
    pub not_installed: Vec<Port>,
}

/// Another hypervisor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its name.
    pub chassis: String,
    /// `geneve` or `vxlan`.
    pub encap: String,
    /// Our address.
    pub local: String,
    /// Its address.
    pub remote: String,
    /// The next hop's hardware address is known.
    pub resolved: bool,
    /// Device to leave by.
    pub device: Option<String>,
    /// Largest IP packet towards it.
    pub mtu: Option<u32>,
}

/// How often policy was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Computations {
    /// Whole, from nothing.
    pub full: u64,
    /// By what changed.
    pub incremental: u64,
}

/// How full a map is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MapFill {
    /// Its name.
    pub map: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries that it takes.
    pub capacity: u64,
    /// A cache: full is no fault.
    pub cache: bool,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// What it is about.
    pub topic: String,
    /// What it is.
    pub text: String,
}

/// Maps that are not caches are shown from this share on.
const NOTEWORTHY_PERCENT: u64 = 70;
/// Lines of a kind on the one screen.
const LINES: usize = 8;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Ready:          {}", if self.ready { "yes" } else { "NO" })?;
        for reason in &self.not_ready {
            writeln!(f, "                {reason}")?;
        }
        let paused = if self.daemon.paused { ", PAUSED" } else { "" };
        let Daemon { version, pid, uptime_s, .. } = &self.daemon;
        writeln!(f, "Daemon:         oxbow-node {version}, pid {pid}, up {}{paused}", duration(*uptime_s))?;
        writeln!(f, "Chassis:        {}", self.chassis.as_deref().unwrap_or("(no system-id)"))?;
        for database in &self.databases {
            let state = if database.connected { "connected" } else { "NOT CONNECTED" };
            let remote = database.remote.as_deref().map(|remote| format!(" ({remote})")).unwrap_or_default();
            writeln!(f, "{:<15} {state}{remote}", format!("{}:", database.name))?;
            if let Some(error) = &database.error {
                writeln!(f, "                {error}")?;
            }
        }
        let lag = match self.nb_cfg.lag() {
            0 => "up to date".to_owned(),
            lag => format!("{lag} behind"),
        };
        writeln!(f, "nb_cfg:         {} of {} ({lag})", self.nb_cfg.reported, self.nb_cfg.wanted)?;
        let plane = &self.dataplane;
        let hook = plane.hook.as_deref().map(|hook| format!(" by {hook}")).unwrap_or_default();
        let state = if plane.active { "in force" } else { "NOT IN FORCE" };
        writeln!(f, "Dataplane:      {}{hook}, policy version {}, {state}", plane.backend, plane.version)?;
        if let Some(error) = &plane.error {
            writeln!(f, "                {error}")?;
        }
        if let Some(pid) = self.ovs_vswitchd {
            writeln!(f, "ovs-vswitchd:   pid {pid}")?;
        }
        let Ports { total, installed, under_way, not_installed } = &self.ports;
        let way = if *under_way == 0 { String::new() } else { format!(", {under_way} under way") };
        writeln!(f, "Ports:          {installed} of {total} installed{way}")?;
        for port in not_installed.iter().take(LINES) {
            let reason = port.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            writeln!(f, "                {} ({}) {}{reason}", port.port, port.interface, port.state)?;
        }
        more(f, not_installed.len(), "oxbow ports")?;
        let Computations { full, incremental } = self.computations;
        writeln!(
            f,
            "Policy:         {} datapaths, {} logical flows; computed {full} times whole, {incremental} times by difference",
            self.datapaths, self.logical_flows
        )?;
        let resolved = self.peers.iter().filter(|peer| peer.resolved).count();
        writeln!(f, "Peers:          {resolved} of {} resolved", self.peers.len())?;
        let lost: Vec<_> = self.peers.iter().filter(|peer| !peer.resolved).collect();
        for peer in lost.iter().take(LINES) {
            writeln!(
                f,
                "                {} ({}): no way to it: `ip route get {}`",
                peer.chassis, peer.remote, peer.remote
            )?;
        }
        more(f, lost.len(), "oxbow status --format json")?;
        if !self.maps.is_empty() {
            let full = |map: &&MapFill| !map.cache && map.entries * 100 >= map.capacity * NOTEWORTHY_PERCENT;
            let noted: Vec<&MapFill> = self.maps.iter().filter(full).collect();
            let fullest = self.maps.iter().filter(|map| !map.cache).max_by_key(|map| percent(map));
            match fullest {
                Some(map) if noted.is_empty() => {
                    writeln!(f, "Maps:           fullest is {} with {}%", map.map, percent(map))?;
                }
                _ => writeln!(f, "Maps:")?,
            }
            for map in noted {
                writeln!(f, "                {} {} of {} ({}%)", map.map, map.entries, map.capacity, percent(map))?;
            }
        }
        writeln!(f, "Problems:       {}", self.problems.len())?;
        for problem in self.problems.iter().take(LINES) {
            writeln!(f, "                {}: {}", problem.topic, problem.text)?;
        }
        more(f, self.problems.len(), "oxbow status --format json")
    }
}

fn percent(map: &MapFill) -> u64 {
    (map.entries * 100).checked_div(map.capacity).unwrap_or(0)
}

fn more(f: &mut fmt::Formatter<'_>, all: usize, how: &str) -> fmt::Result {
    if all > LINES { writeln!(f, "                … and {} more: `{how}`", all - LINES) } else { Ok(()) }
}

/// Seconds for people.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

/// The fill of maps as a table, for `oxbow status --maps` and failed tests.
#[must_use]
pub fn maps_table(maps: &[MapFill]) -> Table {
    let mut table = Table::new(&["MAP", ">ENTRIES", ">CAPACITY", ">FULL", "KIND"]);
    for map in maps {
        let kind = if map.cache { "cache" } else { "state" };
        table.row([
            map.map.clone(),
            map.entries.to_string(),
            map.capacity.to_string(),
            format!("{}%", percent(map)),
            kind.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_at_the_top_and_a_full_map_is_named() {
        let map = |map: &str, entries, cache| MapFill { map: map.into(), entries, capacity: 100, cache };
        let status = Status {
            not_ready: vec!["OVN_Southbound is not connected".into()],
            databases: vec![Database {
                name: "OVN_Southbound".into(),
                error: Some("refused".into()),
                ..Default::default()
            }],
            nb_cfg: NbCfg { wanted: 7, reported: 5 },
            maps: vec![map("OX_RULES", 80, false), map("OX_VERDICTS", 99, true), map("OX_PORTS", 3, false)],
            ..Default::default()
        };
        let text = status.to_string();
        assert!(text.starts_with("Ready:          NO\n                OVN_Southbound is not connected\n"), "{text}");
        assert!(text.contains("5 of 7 (2 behind)"), "{text}");
        assert!(text.contains("OX_RULES 80 of 100 (80%)") && !text.contains("OX_VERDICTS"), "{text}");
        assert_eq!(crate::read::<Status>(&crate::json(&status)), Ok(status));
    }

    #[test]
    fn fields_that_an_older_daemon_does_not_send_have_their_defaults() {
        let status: Status = crate::read("{\"ready\":true,\"future\":1}").unwrap();
        assert!(status.ready && status.maps.is_empty());
    }
}
