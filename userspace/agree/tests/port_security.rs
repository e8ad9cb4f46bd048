//! Port security against the OpenFlow tables of a live ovn-controller 23.03: rule for rule, but for the places where the manual says otherwise.

use anyhow::{Context as _, Result, bail};
use oxbow_agree::Southbound;
use oxbow_pipeline::compile::Compiler;
use oxbow_pipeline::ir::{DatapathKey, Field, Location, LogicalPort, Masked, Sub, SubResult};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Cloud, Node, Northd, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A rule with one value per field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plain {
    table: u8,
    priority: u16,
    dims: BTreeMap<Field, (u128, u128)>,
    result: &'static str,
}

/// Port security of ports s1, s2, …
const SECURITY: [&str; 12] = [
    "00:00:00:00:01:01",
    "'00:00:00:00:01:02 10.0.0.2'",
    "'00:00:00:00:01:03 10.0.0.3/24'",
    "'00:00:00:00:01:04 10.0.1.0/24'",
    "'00:00:00:00:01:05 fd00::5'",
    "'00:00:00:00:01:06 fd00::6/64 fd01::/32'",
    "'00:00:00:00:01:07 10.0.0.7 fd00::7'",
    "'00:00:00:00:01:08 10.0.0.8 10.0.2.8/16 fd00::8' 00:00:00:00:02:08",
    "'00:00:00:00:01:09 0.0.0.0/0 ::/0'",
    "'00:00:00:00:01:0a 10.0.0.10/255.255.255.0 10.0.3.0/255.255.255.0 10.0.0.11/32'",
    "'00:00:00:00:01:0b 10.0.0.4/31 10.0.0.7/31 224.0.0.1 239.0.0.0/8'",
    "'00:00:00:00:01:0c fd00::4/126 fd00::c/128 ff02::1 ff02::/16 fe80::/10'",
];

fn number(text: &str) -> Result<u128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return Ok(u128::from_str_radix(hex, 16)?);
    }
    if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
        return Ok(u128::from(u32::from(ip)));
    }
    if text.len() == 17 && text.matches(':').count() == 5 {
        return Ok(u128::from_str_radix(&text.replace(':', ""), 16)?);
    }
    if let Ok(ip) = text.parse::<std::net::Ipv6Addr>() {
        return Ok(u128::from(ip));
    }
    Ok(text.parse()?)
}

fn ones(field: Field) -> u128 {
    let width = oxbow_pipeline::ir::width(field);
    if width == 128 { u128::MAX } else { (1 << width) - 1 }
}

/// Reads a line of `ovs-ofctl dump-flows`; `None` for other datapaths.
fn openflow(line: &str, datapath: DatapathKey) -> Result<Option<Plain>> {
    let at = line.find("table=").context("no table")?;
    let (head, actions) = line[at..].split_once(" actions=").context("no actions")?;
    let mut rule = Plain { table: 0, priority: 0, dims: BTreeMap::new(), result: "" };
    let mut here = false;
    for word in head.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let field = match name {
            "table" => {
                rule.table = value.parse()?;
                continue;
            }
            "priority" => {
                rule.priority = value.parse()?;
                continue;
            }
            "metadata" => {
                here = number(value)? == u128::from(datapath.0);
                continue;
            }
            "n_packets" | "n_bytes" | "idle_age" | "duration" => continue,
            "ip" | "udp" | "arp" | "ipv6" | "icmp6" => {
                let eth_type = match name {
                    "arp" => 0x0806,
                    "ipv6" | "icmp6" => 0x86dd,
                    _ => 0x0800,
                };
                rule.dims.insert(Field::EthType, (eth_type, 0xffff));
                if matches!(name, "udp" | "icmp6") {
                    rule.dims.insert(Field::IpProto, (if name == "udp" { 17 } else { 58 }, 0xff));
                }
                continue;
            }
            "reg14" => Field::InPort,
            "reg15" => Field::OutPort,
            "dl_src" => Field::EthSrc,
            "dl_dst" => Field::EthDst,
            "nw_src" => Field::Ip4Src,
            "nw_dst" => Field::Ip4Dst,
            "ipv6_src" => Field::Ip6Src,
            "ipv6_dst" => Field::Ip6Dst,
            "tp_src" => Field::UdpSrc,
            "tp_dst" => Field::UdpDst,
            "nw_ttl" => Field::IpTtl,
            "icmp_type" => Field::Icmp6Type,
            "icmp_code" => Field::Icmp6Code,
            "arp_spa" => Field::ArpSpa,
            "arp_sha" => Field::ArpSha,
            "nd_target" => Field::NdTarget,
            "nd_sll" => Field::NdSll,
            "nd_tll" => Field::NdTll,
            other => bail!("field {other} in {line}"),
        };
        let (value, length) = value.split_once('/').unwrap_or((value, ""));
        let mask = match length {
            "" => ones(field),
            length => ones(field) & !(ones(field) >> length.parse::<u32>()?),
        };
        rule.dims.insert(field, (number(value)?, mask));
    }
    rule.result = match actions {
        "set_field:0x1000/0x1000->reg10" => "fail",
        "set_field:0/0x1000->reg10" => "pass",
        "resubmit(,74)" => "goto 74",
        other => bail!("actions {other}"),
    };
    Ok(here.then_some(rule))
}

/// Our rules, one for each combination of values.
fn ours(compiler: &Compiler, datapath: DatapathKey) -> BTreeSet<Plain> {
    let program = compiler.program();
    let mut rules = BTreeSet::new();
    for (sub, table) in [(Sub::In, 73), (Sub::InNd, 74), (Sub::Out, 75)] {
        for rule in program.sub_rules(datapath, sub) {
            let result = match rule.result {
                SubResult::Pass => "pass",
                SubResult::Fail => "fail",
                SubResult::Goto(_) => "goto 74",
            };
            let mut combinations = vec![BTreeMap::new()];
            for dim in rule.dims.iter() {
                let alternatives: Vec<Masked> = program.alternatives(dim).collect();
                combinations = combinations
                    .into_iter()
                    .flat_map(|before: BTreeMap<Field, (u128, u128)>| {
                        alternatives.iter().map(move |m| {
                            let mut dims = before.clone();
                            // Any value at all: no condition in OpenFlow.
                            if m.mask != 0 {
                                dims.insert(dim.field, (m.value, m.mask));
                            }
                            dims
                        })
                    })
                    .collect();
            }
            rules.extend(combinations.into_iter().map(|dims| Plain { table, priority: rule.priority, dims, result }));
        }
    }
    rules
}

fn is_nd(rule: &Plain) -> bool {
    rule.table == 74 && rule.dims.contains_key(&Field::Icmp6Type)
}

/// Takes away what the two say differently on purpose (the module `port_security` of the compiler says why at each place).
fn comparable(rules: BTreeSet<Plain>, v4_only: &BTreeSet<u128>) -> BTreeSet<Plain> {
    let mut kept = BTreeSet::new();
    for mut rule in rules {
        let port = rule.dims.get(&Field::InPort).map(|(key, _)| *key);
        // What is neither IP nor ARP: ours only.
        if rule.table == 73 && matches!(rule.priority, 85 | 86) {
            continue;
        }
        if is_nd(&rule) {
            // An element with IPv4 addresses only sends no IPv6 at all: theirs are never reached, ours not made.
            if rule.priority == 90 && port.is_some_and(|port| v4_only.contains(&port)) {
                continue;
            }
            // The hop limit is 255, not 225 or anything; and the sender's address goes with its element.
            rule.dims.remove(&Field::IpTtl);
            rule.dims.remove(&Field::EthSrc);
            if rule.priority == 80 {
                // Solicitations fail unless they are right.
                rule.dims.remove(&Field::Icmp6Code);
                rule.result = "fail";
            }
        }
        kept.insert(rule);
    }
    kept
}

#[test]
fn sub_tables_are_those_of_ovn_controller() {
    Cloud::builder()
        .northd(Northd::Stock)
        .hypervisors(1, Node::Stock)
        .run(|cloud| {
            cloud.nbctl("ls-add ps")?;
            for (n, security) in SECURITY.iter().enumerate() {
                let port = format!("s{}", n + 1);
                cloud.nbctl(&format!(
                    "lsp-add ps {port} -- lsp-set-addresses {port} unknown -- lsp-set-port-security {port} {security}"
                ))?;
                cloud.hypervisors()[0].vsctl(&format!(
                    "add-port br-int d{n} -- set Interface d{n} type=internal external_ids:iface-id={port}"
                ))?;
            }
            for n in 1..=SECURITY.len() {
                cloud.wait_up(&format!("s{n}"))?;
            }
            cloud.sync()?;
            let south = Southbound::read(cloud.southbound())?;
            let mut compiler = Compiler::default();
            south.feed(&mut compiler);
            // Only ports of this chassis are secured here.
            for (n, row) in (1..).zip(south.ports.values()) {
                let location = Location::Local { ifindex: n, tag: None };
                compiler.set_port(LogicalPort { location, ..row.port.clone() });
            }
            compiler.commit();
            let datapath = south.ports.get("s1").context("no port s1")?.port.datapath;
            let v4_only = ["s2", "s3", "s4", "s10", "s11"].iter().filter_map(|name| south.ports.get(*name));
            let v4_only = v4_only.map(|row| u128::from(row.port.key.0)).collect();
            let ours = comparable(ours(&compiler, datapath), &v4_only);
            assert!(ours.len() > 100, "{ours:#?}");
            let socket = format!("unix:{}/br-int.mgmt", cloud.hypervisors()[0].dir().display());
            wait_until("the same rules as ovn-controller's", PATIENCE, || {
                let mut theirs = BTreeSet::new();
                for table in 73..=75 {
                    let mut command = Command::new("ovs-ofctl");
                    command.args(["-O", "OpenFlow15", "dump-flows", &socket, &format!("table={table}")]);
                    let output = command.output()?;
                    for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("actions="))
                    {
                        theirs.extend(openflow(line, datapath)?);
                    }
                }
                let theirs = comparable(theirs, &v4_only);
                let (missing, extra): (Vec<_>, Vec<_>) =
                    (theirs.difference(&ours).collect(), ours.difference(&theirs).collect());
                Ok(Look::when(missing.is_empty() && extra.is_empty(), || {
                    format!("missing in ours: {missing:#x?}\nonly in ours: {extra:#x?}")
                }))
            })
        })
        .unwrap();
}
