//! Native DHCP: the flows of a port with DHCPv4 or DHCPv6 options.

use std::net::{Ipv4Addr, Ipv6Addr};

use oxbow_incr::Cx;
use oxbow_ovsdb::{Text, Uuid};
use oxbow_schema::nb::{dhcp_options, logical_switch_port as lsp};

use crate::address::{Mac, Printed6, parse_ipv4_cidr, parse_ipv6_cidr};
use crate::profile::Stage::*;
use crate::program::{Compiler, Output};
use crate::source::Cell;
use crate::units::acl::read_acls;
use crate::units::flow_list::FlowList;
use crate::units::port::{Port, PortType};
use crate::units::{hint_of, read_port};

/// The options of one DHCP_Options row, as far as flows need them.
struct Options {
    row: Uuid,
    cidr: String,
    options: Vec<(Text, Text)>,
}

impl Options {
    fn read(cx: &mut Cx<'_, '_, Compiler>, row: Uuid) -> Option<Options> {
        let cidr = cx.read(&Cell(dhcp_options::CIDR, row))?.to_string();
        let options = cx.read(&Cell(dhcp_options::OPTIONS, row))?;
        Some(Options { row, cidr, options: options.iter().map(|(k, v)| (k.clone(), v.clone())).collect() })
    }

    fn get(&self, key: &str) -> Option<&Text> {
        self.options.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }
}

/// Unit `dhcp-flows`.
pub(crate) fn compute(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let v4 = cx.read(&Cell(lsp::DHCPV4_OPTIONS, key)).flatten();
    let v6 = cx.read(&Cell(lsp::DHCPV6_OPTIONS, key)).flatten();
    if v4.is_none() && v6.is_none() {
        return Output::Empty;
    }
    let Some(port) = read_port(cx, key) else { return Output::Empty };
    // An external port is served where its localnet port is: with the routers.
    if port.kind == PortType::External {
        return Output::Empty;
    }
    let hostname = cx.read(&Cell(lsp::OPTIONS, key)).and_then(|o| o.get("hostname")).cloned();
    let v4 = v4.and_then(|row| Options::read(cx, row));
    let v6 = v6.and_then(|row| Options::read(cx, row));
    let passed = if read_acls(cx, port.switch).stateful { "ct_commit; next;" } else { "next;" };
    let mut flows = FlowList::new(compiler, port.switch, 0);
    if let Some(options) = &v4 {
        ipv4_flows(compiler, &mut flows, &port, options, hostname.as_deref(), passed);
    }
    if let Some(options) = &v6 {
        ipv6_flows(compiler, &mut flows, &port, options, passed);
    }
    flows.finish()
}

fn ipv4_flows(
    compiler: &Compiler,
    flows: &mut FlowList<'_>,
    port: &Port,
    options: &Options,
    hostname: Option<&str>,
    passed: &str,
) {
    let (Some(server), Some(server_mac), Some(_)) =
        (options.get("server_id"), options.get("server_mac"), options.get("lease_time"))
    else {
        return;
    };
    flows.hint(hint_of(options.row));
    let name = &port.name;
    // Answers may pass whatever the ACLs say, and whatever addresses the port has.
    let answer = format!(
        "outport == {} && eth.src == {server_mac} && ip4.src == {server} && udp && udp.src == 67 && udp.dst == 68",
        port.quoted
    );
    flows.add_for_port(LsOutAcl, 34000, &answer, passed, name);
    if port.kind == PortType::Router {
        return;
    }
    let result = compiler.profile.registers.dhcp_opts_result;
    let Some((network, length)) = parse_ipv4_cidr(&options.cidr) else { return };
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    for addresses in &port.addresses {
        let mac = addresses.mac;
        for &ip in addresses.ipv4.iter().filter(|ip| (u32::from(**ip) ^ u32::from(network)) & mask == 0) {
            if !port.enabled {
                continue;
            }
            let from = format!("inport == {} && eth.src == {mac}", port.quoted);
            let action = put_dhcp_opts(result, options, ip, Ipv4Addr::from(mask), hostname);
            for endpoints in [
                "ip4.src == 0.0.0.0 && ip4.dst == 255.255.255.255".to_owned(),
                format!("ip4.src == {ip} && ip4.dst == {{{server}, 255.255.255.255}}"),
            ] {
                let matches = format!("{from} && {endpoints} && udp.src == 68 && udp.dst == 67");
                flows.add_for_port(LsInDhcpOptions, 100, &matches, &action, name);
            }
            let matches = format!("{from} && ip4 && udp.src == 68 && udp.dst == 67 && {result}");
            let reply = format!(
                "eth.dst = eth.src; eth.src = {server_mac}; ip4.src = {server}; udp.src = 67; udp.dst = 68; \
                 outport = inport; flags.loopback = 1; output;"
            );
            flows.add_for_port(LsInDhcpResponse, 100, &matches, &reply, name);
            break;
        }
    }
}

fn put_dhcp_opts(result: &str, options: &Options, ip: Ipv4Addr, mask: Ipv4Addr, hostname: Option<&str>) -> String {
    let mut pairs: Vec<(String, String)> = options
        .options
        .iter()
        .filter(|(k, _)| *k != "server_mac" && *k != "netmask")
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    let netmask = options.get("netmask").map_or_else(|| mask.to_string(), ToString::to_string);
    pairs.push(("netmask".into(), netmask));
    if let Some(hostname) = hostname {
        pairs.retain(|(k, _)| k != "hostname");
        pairs.push(("hostname".into(), hostname.into()));
    }
    pairs.sort();
    let rest: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k} = {v}")).collect();
    format!("{result} = put_dhcp_opts(offerip = {ip}, {}); next;", rest.join(", "))
}

fn ipv6_flows(compiler: &Compiler, flows: &mut FlowList<'_>, port: &Port, options: &Options, passed: &str) {
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    let Some(server_mac) = options.get("server_id").and_then(|id| Mac::parse(id)) else { return };
    let server = Printed6(server_mac.eui64(LINK_LOCAL));
    let stateless = options.get("dhcpv6_stateless").is_some_and(|v| v == "true");
    flows.hint(hint_of(options.row));
    let name = &port.name;
    let answer = format!(
        "outport == {} && eth.src == {server_mac} && ip6.src == {server} && udp && udp.src == 547 && udp.dst == 546",
        port.quoted
    );
    flows.add_for_port(LsOutAcl, 34000, &answer, passed, name);
    if port.kind == PortType::Router {
        return;
    }
    let result = compiler.profile.registers.dhcp_opts_result;
    let Some((network, length)) = parse_ipv6_cidr(&options.cidr) else { return };
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    for addresses in &port.addresses {
        let mac = addresses.mac;
        for &ip in addresses.ipv6.iter().filter(|ip| (ip.to_bits() ^ network.to_bits()) & mask == 0) {
            if !port.enabled {
                continue;
            }
            let mut args: Vec<String> = Vec::new();
            if !stateless {
                args.push(format!("ia_addr = {}", Printed6(ip)));
            }
            args.extend(
                options.options.iter().filter(|(k, _)| *k != "dhcpv6_stateless").map(|(k, v)| format!("{k} = {v}")),
            );
            let request = format!(
                "inport == {} && eth.src == {mac} && ip6.dst == ff02::1:2 && udp.src == 546 && udp.dst == 547",
                port.quoted
            );
            let action = format!("{result} = put_dhcpv6_opts({}); next;", args.join(", "));
            flows.add_for_port(LsInDhcpOptions, 100, &request, &action, name);
            let reply = format!(
                "eth.dst = eth.src; eth.src = {server_mac}; ip6.dst = ip6.src; ip6.src = {server}; udp.src = 547; \
                 udp.dst = 546; outport = inport; flags.loopback = 1; output;"
            );
            flows.add_for_port(LsInDhcpResponse, 100, &format!("{request} && {result}"), &reply, name);
            break;
        }
    }
}
