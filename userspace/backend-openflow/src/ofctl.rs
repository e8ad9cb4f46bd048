//! Debian's `ovs-ofctl` as the process that speaks OpenFlow 1.5 with the bridge.

use crate::layout::{ADDRESSES, LEARNED_COOKIE, OPTION};
use crate::running::Running;
use crate::switch::{Difference, Learned, Switch, SwitchError};
use oxbow_pipeline::ir::{DatapathKey, Mac, PortKey};
use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How long one command may take, in seconds: a bundle of 100,000 flows needs a few.
const PATIENCE: &str = "--timeout=120";

/// The lines that a command is given, by a name that all commands take for that of a file (`-` is one to `bundle` only), and that is there where nobody
/// has put `/dev/stdin`, which the kernel does not.
const INPUT: &str = "/proc/self/fd/0";

/// A bridge by way of `ovs-ofctl`.
#[derive(Debug)]
pub struct OvsOfctl {
    program: PathBuf,
    bridge: String,
    running: Running,
}

/// What a command came to.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl OvsOfctl {
    /// `bridge` is a connection method or the name of a bridge (ovs-ofctl(8)): `br-int`, `unix:/run/openvswitch/br-int.mgmt`.
    #[must_use]
    pub fn new(bridge: &str) -> Self {
        Self::with_program(PathBuf::from("ovs-ofctl"), bridge)
    }

    /// With another `ovs-ofctl`.
    #[must_use]
    pub fn with_program(program: PathBuf, bridge: &str) -> Self {
        OvsOfctl { program, bridge: bridge.to_owned(), running: Running::default() }
    }

    /// What ends a command that is running, from another thread.
    #[must_use]
    pub fn running(&self) -> Running {
        self.running.clone()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Warnings are read from standard error; the system log is the daemon's own business.
        command.args(["-O", "OpenFlow15", "-vsyslog:off", "-vconsole:info"]);
        command
    }

    fn run_error(&self, error: &std::io::Error) -> SwitchError {
        SwitchError::Run { program: self.program.display().to_string(), reason: error.to_string() }
    }

    fn run(&self, arguments: &[&str], input: Stdio) -> Result<Ran, SwitchError> {
        let mut command = self.command();
        command.arg(PATIENCE).args(arguments).stdin(input);
        let output = self.running.output(&mut command).map_err(|error| self.run_error(&error))?;
        Ok(Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Lines as [`INPUT`]: a file without a name, which nobody has to remove after a process that was killed.
    fn input(&self, lines: &[String]) -> Result<Stdio, SwitchError> {
        let write = || {
            let mut file = tempfile::tempfile()?;
            let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
            for line in lines {
                text.push_str(line);
                text.push('\n');
            }
            file.write_all(text.as_bytes())?;
            file.rewind()?;
            Ok(file.into())
        };
        write().map_err(|error| self.run_error(&error))
    }

    fn failed(&self, what: String) -> SwitchError {
        SwitchError::Failed { bridge: self.bridge.clone(), what }
    }

    /// What is wrong, when a command has failed.
    fn check(&self, ran: &Ran, lines: &[String]) -> Result<(), SwitchError> {
        if let Some(text) = ran.stderr.lines().find(|line| line.contains("normalization changed")) {
            // A match that lacks a prerequisite is widened, not refused. Lowering never writes one.
            return Err(self.failed(format!("a match was widened: {text}: {}", ran.stderr)));
        }
        if ran.code == Some(0) {
            return Ok(());
        }
        let reason = first_lines(&ran.stderr);
        let refused = line_of_parser(&ran.stderr).or_else(|| line_of_switch(&ran.stderr, lines.len()));
        if let Some(at) = refused
            && let Some(line) = lines.get(at)
        {
            return Err(SwitchError::Refused { bridge: self.bridge.clone(), at, line: line.clone(), reason });
        }
        let gone = [
            "is not a bridge or a socket",
            "connecting to",
            "failed to connect",
            "Connection refused",
            "connection dropped",
            "Broken pipe",
            "End of file",
        ];
        if gone.iter().any(|words| ran.stderr.contains(words)) {
            return Err(SwitchError::Unreachable { bridge: self.bridge.clone(), reason });
        }
        Err(self.failed(if reason.is_empty() { "ovs-ofctl failed".to_owned() } else { reason }))
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, SwitchError> {
        let ran = self.run(arguments, Stdio::null())?;
        self.check(&ran, &[])?;
        Ok(ran.stdout)
    }
}

impl Switch for OvsOfctl {
    fn prepare(&mut self) -> Result<(), SwitchError> {
        let map = self.ask(&["dump-tlv-map", &self.bridge])?;
        let (class, kind, length) = OPTION;
        let mut mapped = false;
        for line in map.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [its_class, its_kind, its_length, field] = words[..] else { continue };
            let ours = number(its_class) == Some(class.into())
                && number(its_kind) == Some(kind.into())
                && its_length.parse() == Ok(length);
            if (field == "tun_metadata0") != ours && (field == "tun_metadata0" || ours) {
                return Err(self.failed(format!(
                    "{field} stands for option class {its_class} type {its_kind} length {its_length}"
                )));
            }
            mapped |= ours;
        }
        if !mapped {
            let option = format!("{{class={class:#x},type={kind:#x},len={length}}}->tun_metadata0");
            self.ask(&["add-tlv-map", &self.bridge, &option])?;
        }
        // By default a first fragment has no transport ports for Open vSwitch, and a flow that allows or denies them does not see it.
        self.ask(&["set-frags", &self.bridge, "nx-match"])?;
        Ok(())
    }

    fn bundle(&mut self, lines: &[String]) -> Result<(), SwitchError> {
        if lines.is_empty() {
            return Ok(());
        }
        let ran = self.run(&["bundle", &self.bridge, INPUT], self.input(lines)?)?;
        self.check(&ran, lines)
    }

    fn compare(&mut self, flows: &[String]) -> Result<Vec<Difference>, SwitchError> {
        let mut ran = self.run(&["diff-flows", &self.bridge, INPUT], self.input(flows)?)?;
        if ran.code == Some(2) {
            ran.code = Some(0);
        }
        self.check(&ran, flows)?;
        ran.stdout
            .lines()
            .map(|line| difference(line).ok_or_else(|| self.failed(format!("diff-flows says \"{line}\""))))
            .collect()
    }

    fn groups(&mut self) -> Result<BTreeMap<u32, String>, SwitchError> {
        let text = self.ask(&["dump-groups", &self.bridge])?;
        let mut groups = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("group_id=")) {
            let (id, rest) = line.split_once(',').unwrap_or((line, ""));
            let id = id.parse().map_err(|_| self.failed(format!("dump-groups says \"{line}\"")))?;
            groups.insert(id, rest.to_owned());
        }
        Ok(groups)
    }

    fn learned(&mut self) -> Result<Vec<Learned>, SwitchError> {
        let filter = format!("cookie={LEARNED_COOKIE:#x}/-1,table={ADDRESSES}");
        let text = self.ask(&["--no-stats", "dump-flows", &self.bridge, &filter])?;
        let flows = text.lines().filter(|line| line.contains("cookie="));
        flows.map(|line| learned(line).ok_or_else(|| self.failed(format!("dump-flows says \"{line}\"")))).collect()
    }

    fn counters(&mut self) -> Result<BTreeMap<u64, u64>, SwitchError> {
        let text = self.ask(&["--no-names", "dump-flows", &self.bridge])?;
        let mut counters = BTreeMap::new();
        for (cookie, packets) in text.lines().filter_map(counted) {
            *counters.entry(cookie).or_default() += packets;
        }
        Ok(counters)
    }

    fn input_ports(&mut self, table: u8) -> Result<Vec<u32>, SwitchError> {
        let text = self.ask(&["--no-names", "--no-stats", "dump-flows", &self.bridge, &format!("table={table}")])?;
        let mut ports: Vec<u32> = text.lines().filter_map(input_port).collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(ports)
    }
}

/// A few lines of an error text, in one.
fn first_lines(text: &str) -> String {
    text.lines().take(3).map(str::trim).collect::<Vec<_>>().join("; ")
}

/// `INPUT:LINE: …`, from 0.
fn line_of_parser(stderr: &str) -> Option<usize> {
    let rest = stderr.split_once(INPUT)?.1.strip_prefix(':')?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}

/// The line whose message was refused. Messages of a bundle are numbered one after the other: one for opening it, one for each line, one for closing it and one
/// for the commit, whose refusal is told too.
fn line_of_switch(stderr: &str, lines: usize) -> Option<usize> {
    let xid = |line: &str| u64::from_str_radix(line.split_once("(xid=0x")?.1.split(')').next()?, 16).ok();
    let mut errors = stderr.lines().filter(|line| line.starts_with("Error OFP"));
    let first = errors.next().filter(|line| !line.contains("OFPT_BUNDLE_CONTROL"))?;
    let commit = errors.find(|line| line.contains("OFPT_BUNDLE_CONTROL"))?;
    let at = xid(first)?.checked_sub(xid(commit)?.checked_sub(lines as u64 + 2)?)?;
    usize::try_from(at).ok().filter(|at| *at < lines)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `-table=10 priority=9,ip,… cookie=0x1 idle_timeout=3 actions=…`.
fn difference(line: &str) -> Option<Difference> {
    let missing = match line.chars().next()? {
        '+' => true,
        '-' => false,
        _ => return None,
    };
    let (left, actions) = line[1..].split_once("actions=")?;
    let mut cookie = 0;
    let mut key = Vec::new();
    for word in left.split_whitespace() {
        if let Some(value) = word.strip_prefix("cookie=") {
            cookie = number(value)?;
        } else if !["idle_timeout=", "hard_timeout=", "importance=", "send_flow_rem"]
            .iter()
            .any(|other| word.starts_with(other))
        {
            key.push(word.trim_end_matches(','));
        }
    }
    Some(Difference { missing, key: key.join(","), cookie, actions: actions.to_owned() })
}

/// ` cookie=…, table=113, idle_timeout=300, priority=200,metadata=0x1,dl_dst=00:00:00:00:00:01 actions=set_field:0x1/0xffff->reg15`.
fn learned(line: &str) -> Option<Learned> {
    let (left, actions) = line.split_once(" actions=")?;
    let value = |name: &str| left.split([',', ' ']).find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let datapath = DatapathKey(u32::try_from(number(value("metadata")?)?).ok()?);
    let mut mac = 0;
    for byte in value("dl_dst")?.split(':') {
        mac = mac << 8 | u64::from_str_radix(byte, 16).ok()?;
    }
    let port = actions.strip_prefix("set_field:").or_else(|| actions.strip_prefix("load:"))?;
    let port = PortKey(u32::try_from(number(port.split(['/', '-']).next()?)?).ok()?);
    Some(Learned { datapath, mac: Mac(mac), port })
}

/// ` cookie=0x1, duration=…, table=9, n_packets=5, …`: cookie and packets.
fn counted(line: &str) -> Option<(u64, u64)> {
    let value = |name: &str| line.trim().split(", ").find_map(|word| word.strip_prefix(name));
    Some((number(value("cookie=")?)?, value("n_packets=")?.parse().ok()?))
}

/// The port that a flow takes packets from.
fn input_port(line: &str) -> Option<u32> {
    line.split_once("in_port=")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_counters_are_read_off_flows() {
        let flows = [
            " cookie=0x1, table=0, priority=100,in_port=3 actions=a",
            " cookie=0x1, duration=9.8s, table=0, n_packets=12, n_bytes=7, priority=100,in_port=12,vlan_tci=0x0 actions=b",
            " table=0, priority=0 actions=drop",
        ];
        assert_eq!(flows.map(input_port), [Some(3), Some(12), None]);
        assert_eq!(flows.map(counted), [None, Some((1, 12)), None]);
    }

    #[test]
    fn a_refusal_is_traced_to_its_line() {
        let stderr = "Error OFPBAC_BAD_OUT_GROUP for: OFPT_FLOW_MOD (OF1.5) (xid=0x7): ADD table:3 actions=group:77\n\
                      Error OFPBFC_MSG_FAILED for: OFPT_BUNDLE_CONTROL (OF1.5) (xid=0xa):\n bundle_id=0 type=COMMIT_REQUEST\n";
        assert_eq!(line_of_switch(stderr, 2), Some(1));
        let stderr = "Error OFPGMFC_GROUP_EXISTS for: OFPT_GROUP_MOD (OF1.5) (xid=0x6):\n\
                      Error OFPBFC_MSG_FAILED for: OFPT_BUNDLE_CONTROL (OF1.5) (xid=0x13):\n";
        assert_eq!(line_of_switch(stderr, 11), Some(0));
        assert_eq!(line_of_parser("ovs-ofctl: /proc/self/fd/0:3: must specify an action"), Some(2));
    }

    #[test]
    fn differences_are_read() {
        let read = difference(
            "-table=113 priority=200,metadata=0x1,dl_dst=00:00:00:00:00:01 cookie=0x99 idle_timeout=300 actions=drop",
        );
        let key = "table=113,priority=200,metadata=0x1,dl_dst=00:00:00:00:00:01".to_owned();
        assert_eq!(read, Some(Difference { missing: false, key, cookie: 0x99, actions: "drop".to_owned() }));
        let read = difference("+table=3  actions=resubmit(,4)");
        let expected =
            Difference { missing: true, key: "table=3".to_owned(), cookie: 0, actions: "resubmit(,4)".to_owned() };
        assert_eq!(read, Some(expected));
        assert_eq!(difference("nonsense"), None);
    }

    #[test]
    fn learned_addresses_are_read() {
        let line = " cookie=0x99, table=113, idle_timeout=300, priority=200,metadata=0x1,dl_dst=00:00:00:00:0a:01 \
                    actions=set_field:0x7/0xffff->reg15";
        let expected = Learned { datapath: DatapathKey(1), mac: Mac(0xa01), port: PortKey(7) };
        assert_eq!(learned(line), Some(expected));
    }
}
