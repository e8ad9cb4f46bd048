//! The Open_vSwitch database and what it configures: identity, encapsulation, the way to the Southbound database.

use super::Line;
use crate::client::Client;
use crate::command_line::CheckArguments;
use nix::ifaddrs::getifaddrs;
use oxbow_daemon::Dirs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

/// How long the Southbound server may take to accept.
const PATIENCE: Duration = Duration::from_secs(3);
/// What guests usually have.
const GUEST_MTU: u32 = 1500;
/// Inner Ethernet, Geneve with OVN's option, UDP.
const GENEVE: u32 = 14 + 16 + 8;

/// Looks at the database.
pub(super) fn look(arguments: &CheckArguments, dirs: &Dirs) -> Vec<Line> {
    let remote = dirs.resolve_remotes(&arguments.database.clone().unwrap_or_else(|| dirs.default_ovs_remote()));
    let Some(path) = remote.strip_prefix("unix:") else {
        return vec![Line::warn("ovs database", remote, "only unix: remotes are looked at")];
    };
    match Switch::read(Path::new(path)) {
        Ok(switch) => switch.lines(),
        Err(error) => {
            let advice = "start ovsdb-server (Debian: `systemctl start ovsdb-server`), or name it by --database; run this check as root";
            vec![Line::fail("ovs database", format!("{path}: {error:#}"), advice)]
        }
    }
}

/// The one row of table Open_vSwitch, and what of the bridges matters.
#[derive(Debug, Default)]
struct Switch {
    schema: String,
    ovs_version: String,
    external_ids: BTreeMap<String, String>,
    /// Name and datapath_type.
    bridges: BTreeMap<String, String>,
}

impl Switch {
    fn read(path: &Path) -> anyhow::Result<Switch> {
        let mut client = Client::connect(path)?;
        let schema = client.call("get_schema", json!(["Open_vSwitch"]))?;
        let rows = client.call(
            "transact",
            json!(["Open_vSwitch",
                {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["ovs_version", "external_ids"]},
                {"op": "select", "table": "Bridge", "where": [], "columns": ["name", "datapath_type"]}]),
        )?;
        let row = &rows[0]["rows"][0];
        if row.is_null() {
            anyhow::bail!("table Open_vSwitch is empty: run `ovs-vsctl --no-wait init`");
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ids = row["external_ids"][1].as_array().into_iter().flatten();
        Ok(Switch {
            schema: text(&schema["version"]),
            ovs_version: text(&row["ovs_version"]),
            external_ids: ids.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
            bridges: rows[1]["rows"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|bridge| (text(&bridge["name"]), text(&bridge["datapath_type"])))
                .collect(),
        })
    }

    fn lines(&self) -> Vec<Line> {
        let version = if self.ovs_version.is_empty() { "not set".to_owned() } else { self.ovs_version.clone() };
        let mut lines = vec![Line::ok("ovs database", format!("schema {}, ovs_version {version}", self.schema))];
        lines.push(match self.external_ids.get("system-id") {
            Some(id) => Line::ok("system-id", id),
            None => Line::fail("system-id", "not set", set("system-id=NAME")),
        });
        let remote = self.get("ovn-remote");
        lines.push(match remote {
            Some(remote) => southbound(remote),
            None => Line::fail("ovn-remote", "not set", set("ovn-remote=ssl:SERVER:6642")),
        });
        lines.push(match self.get("ovn-encap-type") {
            Some(kinds) if kinds.split(',').any(|kind| matches!(kind, "geneve" | "vxlan")) => {
                Line::ok("encap type", kinds)
            }
            Some(other) => Line::fail("encap type", other, set("ovn-encap-type=geneve")),
            None => Line::fail("encap type", "not set", set("ovn-encap-type=geneve")),
        });
        match self.get("ovn-encap-ip") {
            Some(list) => lines.extend(list.split(',').map(|ip| encapsulation(ip.trim()))),
            None => lines.push(Line::fail("encap ip", "not set", set("ovn-encap-ip=ADDRESS"))),
        }
        let bridge = self.get("ovn-bridge").unwrap_or("br-int");
        lines.push(match self.bridges.get(bridge).map(String::as_str) {
            Some("netdev") => Line::fail(
                "bridge",
                format!("{bridge} has the userspace datapath (datapath_type=netdev)"),
                "packets would be forwarded twice: `ovs-vsctl set Bridge br-int datapath_type=system`, or --backend=openflow",
            ),
            Some(_) => Line::ok("bridge", format!("{bridge} exists")),
            None => Line::ok("bridge", format!("{bridge} will be made")),
        });
        lines
    }

    /// A key, in the form for this system-id first (ovn-controller(8)).
    fn get(&self, key: &str) -> Option<&str> {
        let own = self.external_ids.get("system-id").and_then(|id| self.external_ids.get(&format!("{key}-{id}")));
        own.or_else(|| self.external_ids.get(key)).map(String::as_str).filter(|value| !value.is_empty())
    }
}

fn set(what: &str) -> String {
    format!("ovs-vsctl --no-wait set Open_vSwitch . external_ids:{what}")
}

/// Whether one of the servers accepts connections.
fn southbound(remotes: &str) -> Line {
    let mut errors = Vec::new();
    for remote in remotes.split(',').map(str::trim) {
        let reached = match remote.split_once(':') {
            Some(("unix", path)) => {
                std::os::unix::net::UnixStream::connect(path).map(|_| ()).map_err(|e| e.to_string())
            }
            Some(("tcp" | "ssl", address)) => connect(address),
            _ => Err("neither unix:, tcp: nor ssl:".to_owned()),
        };
        match reached {
            Ok(()) => return Line::ok("ovn-remote", format!("{remote} accepts connections")),
            Err(error) => errors.push(format!("{remote}: {error}")),
        }
    }
    let advice = "is the Southbound server running and listening there (`ovn-sbctl get-connection`), and does a firewall let it through?";
    Line::fail("ovn-remote", errors.join("; "), advice)
}

fn connect(address: &str) -> Result<(), String> {
    // The port may be left out (ovsdb(7)).
    let has_port =
        address.rsplit_once(':').is_some_and(|(host, port)| port.parse::<u16>().is_ok() && !host.ends_with(':'));
    let address = if has_port { address.to_owned() } else { format!("{address}:6642") };
    let all = address.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut last = "no address".to_owned();
    for one in all {
        match TcpStream::connect_timeout(&one, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Whether an encapsulation address is this host's, and what fits through its device.
fn encapsulation(ip: &str) -> Line {
    let Ok(address) = ip.parse::<IpAddr>() else {
        return Line::fail("encap ip", format!("\"{ip}\" is no address"), set("ovn-encap-ip=ADDRESS"));
    };
    let device = getifaddrs().ok().and_then(|mut all| {
        all.find(|one| {
            let storage = one.address.as_ref();
            let v4 = storage.and_then(|storage| storage.as_sockaddr_in()).map(|a| IpAddr::V4(a.ip()));
            let v6 = storage.and_then(|storage| storage.as_sockaddr_in6()).map(|a| IpAddr::V6(a.ip()));
            v4.or(v6) == Some(address)
        })
        .map(|one| one.interface_name)
    });
    let Some(device) = device else {
        return Line::fail(
            "encap ip",
            format!("{ip} is on no device of this host"),
            format!("`ip address add {ip}/PREFIX dev DEVICE`, or {}", set("ovn-encap-ip=ADDRESS")),
        );
    };
    let mtu = fs::read_to_string(format!("/sys/class/net/{device}/mtu")).ok().and_then(|text| text.trim().parse().ok());
    match mtu {
        Some(mtu) => room(ip, &device, mtu, address.is_ipv6()),
        None => Line::warn("encap ip", format!("{ip} on {device}, whose MTU cannot be read"), "look at `ip link`"),
    }
}

fn room(ip: &str, device: &str, mtu: u32, v6: bool) -> Line {
    let outer = GENEVE + if v6 { 40 } else { 20 };
    let found = format!("{ip} on {device}, MTU {mtu}: room for guests' packets of {}", mtu.saturating_sub(outer));
    if mtu >= GUEST_MTU + outer {
        Line::ok("encap ip", found)
    } else {
        let advice = format!(
            "`ip link set {device} mtu {}` or more on the whole underlay, or give guests an MTU of {} (DHCP option, `ip link`)",
            GUEST_MTU + outer,
            mtu.saturating_sub(outer)
        );
        Line::warn("encap ip", found, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    #[test]
    fn what_is_not_configured_is_said_with_its_command() {
        let lines = Switch::default().lines();
        let failed: Vec<&str> = lines.iter().filter(|line| line.result == Mark::Fail).map(|line| line.check).collect();
        assert_eq!(failed, ["system-id", "ovn-remote", "encap type", "encap ip"]);
        for line in lines.iter().filter(|line| line.result == Mark::Fail) {
            assert!(line.advice.as_ref().unwrap().contains("ovs-vsctl --no-wait set"), "{line:?}");
        }
    }

    #[test]
    fn keys_for_this_system_id_win() {
        let external_ids = [("system-id", "hv1"), ("ovn-bridge", "a"), ("ovn-bridge-hv1", "b")];
        let external_ids = external_ids.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let switch =
            Switch { external_ids, bridges: [("b".to_owned(), "netdev".to_owned())].into(), ..Default::default() };
        let line = switch.lines().into_iter().find(|line| line.check == "bridge").unwrap();
        assert!(line.result == Mark::Fail && line.found.starts_with("b has"), "{line:?}");
    }

    #[test]
    fn a_small_underlay_says_what_is_left() {
        let line = room("192.0.2.1", "eth0", 1500, false);
        assert!(line.result == Mark::Warn && line.found.ends_with("packets of 1442"), "{line:?}");
        assert!(line.advice.unwrap().contains("mtu 1558"));
        assert_eq!(room("192.0.2.1", "eth0", 1558, false).result, Mark::Ok);
        assert_eq!(room("2001:db8::1", "eth0", 1558, true).result, Mark::Warn);
        // Loopback is always there.
        assert_eq!(encapsulation("127.0.0.1").result, Mark::Ok);
        assert_eq!(encapsulation("192.0.2.254").result, Mark::Fail);
    }

    #[test]
    fn servers_that_do_not_answer_are_named() {
        let line = southbound("unix:/nowhere/sb.sock,foo:1");
        assert!(line.result == Mark::Fail && line.found.contains("/nowhere/sb.sock") && line.found.contains("foo:1"));
    }
}
