//! The flows of a logical switch port.

use std::net::{Ipv4Addr, Ipv6Addr};

use oxbow_incr::Cx;
use oxbow_ovsdb::Uuid;
use oxbow_schema::nb::logical_switch_port as lsp;

use crate::address::{Mac, Printed6, solicited_node};
use crate::profile::Stage::*;
use crate::program::{Compiler, Output};
use crate::source::{AllocatedNumber, Allocation, Cell, IndexKey, Members};
use crate::units::acl::read_acls;
use crate::units::flow_list::FlowList;
use crate::units::port::{Port, PortType};
use crate::units::port_status::is_up;
use crate::units::{arp_proxy, hint_of, read_global, read_port, read_switch};

/// Unit `port-flows`.
pub(crate) fn compute(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(port) = read_port(cx, key) else { return Output::Empty };
    let Some(switch) = read_switch(cx, port.switch) else { return Output::Empty };
    if port.kind == PortType::Router {
        // The other flows of a router port come with the router.
        return if port.unknown || switch.vlan_passthru {
            Output::Empty
        } else {
            arp_proxy::compute(compiler, cx, key, port.switch)
        };
    }
    let global = read_global(cx);
    let options = cx.read(&Cell(lsp::OPTIONS, key));
    let queue = match cx.read(&AllocatedNumber(Allocation::Queue, key)) {
        Some(queue) => Some(queue.to_string()),
        None => options.and_then(|o| o.get("qdisc_queue_id")).map(ToString::to_string),
    };
    let learn = match port.kind {
        PortType::Vif => true,
        PortType::Localnet => options.is_some_and(|o| o.get_bool("localnet_learn_fdb", false)),
        _ => false,
    };
    let responds = !switch.vlan_passthru
        && !port.unknown
        && !matches!(port.kind, PortType::External | PortType::Virtual)
        && (global.ignore_port_down || port.kind == PortType::Localport || is_up(cx, key));
    let parents = if port.kind == PortType::Virtual { virtual_parents(cx, key, port.switch) } else { Vec::new() };

    let stateful = port.kind == PortType::Localnet && read_acls(cx, port.switch).stateful;

    let r = &compiler.profile.registers;
    let name = &port.name;
    let inport = format!("inport == {}", port.quoted);
    let outport = format!("outport == {}", port.quoted);
    let drop = global.drop.as_str();
    let mut flows = FlowList::new(compiler, port.switch, hint_of(key));

    if port.kind != PortType::External {
        if !port.enabled {
            flows.add_for_port(LsInCheckPortSec, 100, &inport, &format!("{} = 1; next;", r.port_sec_drop), name);
        } else if port.kind == PortType::Vtep {
            let actions =
                format!("{} = 1; next(pipeline=ingress, table={});", r.from_ramp, compiler.profile.table(LsInHairpin));
            flows.add_for_port(LsInCheckPortSec, 70, &inport, &actions, name);
        } else if let Some(queue) = &queue {
            let actions = format!("set_queue({queue}); {} = check_in_port_sec(); next;", r.port_sec_drop);
            flows.add_for_port(LsInCheckPortSec, 70, &inport, &actions, name);
            if port.kind == PortType::Localnet {
                let actions = format!("set_queue({queue}); output;");
                flows.add_for_port(LsOutApplyPortSec, 100, &outport, &actions, name);
            }
        }
    }

    if learn && port.unknown && !port.port_security {
        let actions = format!("{} = lookup_fdb(inport, eth.src); next;", r.lookup_fdb);
        flows.add_for_port(LsInLookupFdb, 100, &inport, &actions, name);
        let matches = format!("{inport} && {} == 0", r.lookup_fdb);
        flows.add_for_port(LsInPutFdb, 100, &matches, "put_fdb(inport, eth.src); next;", name);
    }

    if port.kind == PortType::Localnet {
        // A localnet port is no end of a connection: its packets pass untracked.
        flows.add_for_port(LsInPreLb, 110, &format!("ip && {inport}"), "next;", name);
        let passed = if stateful { "next;" } else { "ct_clear; next;" };
        flows.add_for_port(LsOutPreLb, 110, &format!("ip && {outport}"), passed, name);
        if stateful {
            flows.add_for_port(LsInPreAcl, 110, &format!("ip && {inport}"), "next;", name);
            flows.add_for_port(LsOutPreAcl, 110, &format!("ip && {outport}"), passed, name);
        }
        flows.add_for_port(LsInArpRsp, 100, &inport, "next;", name);
    }

    if responds {
        for addresses in &port.addresses {
            for &address in &addresses.ipv4 {
                arp_responder(&mut flows, &port, addresses.mac, address, &inport);
            }
            for &address in &addresses.ipv6 {
                nd_responder(&mut flows, &port, addresses.mac, address, &inport);
            }
        }
    }

    if port.kind != PortType::External {
        for mac in &port.macs {
            let matches = format!("eth.dst == {mac}");
            if port.enabled {
                flows.add(LsInL2Lkup, 50, &matches, &format!("outport = {}; output;", port.quoted));
            } else {
                flows.add(LsInL2Lkup, 50, &matches, drop);
            }
        }
        if !port.enabled {
            flows.add_for_port(LsInL2Unknown, 50, &outport, drop, name);
        }
    }

    for parent in &parents {
        flows.hint(hint_of(parent.row));
        let matches = format!("inport == {} && {}", parent.port.quoted, parent.matches);
        let actions = format!("bind_vport({}, inport); next;", port.quoted);
        flows.add_for_port(LsInArpRsp, 100, &matches, &actions, &parent.port.name);
    }
    flows.finish()
}

fn arp_responder(flows: &mut FlowList<'_>, port: &Port, mac: Mac, address: Ipv4Addr, inport: &str) {
    let matches = format!("arp.tpa == {address} && arp.op == 1");
    let actions = format!(
        "eth.dst = eth.src; eth.src = {mac}; arp.op = 2; /* ARP reply */ arp.tha = arp.sha; arp.sha = {mac}; \
         arp.tpa = arp.spa; arp.spa = {address}; outport = inport; flags.loopback = 1; output;"
    );
    flows.add(LsInArpRsp, 50, &matches, &actions);
    // A port that asks for its own address looks for duplicates and must not be answered.
    flows.add_for_port(LsInArpRsp, 100, &format!("{matches} && {inport}"), "next;", &port.name);
}

fn nd_responder(flows: &mut FlowList<'_>, port: &Port, mac: Mac, address: Ipv6Addr, inport: &str) {
    let (a, sn) = (Printed6(address), solicited_node(address));
    let matches = format!("nd_ns && ip6.dst == {{{a}, {sn}}} && nd.target == {a}");
    let actions = format!(
        "nd_na {{ eth.src = {mac}; ip6.src = {a}; nd.target = {a}; nd.tll = {mac}; outport = inport; \
         flags.loopback = 1; output; }};"
    );
    flows.add(LsInArpRsp, 50, &matches, &actions);
    flows.add_for_port(LsInArpRsp, 100, &format!("{matches} && {inport}"), "next;", &port.name);
}

/// A port that may hold the address of a virtual port.
struct VirtualParent {
    row: Uuid,
    port: Port,
    /// The announcements that move the virtual port to it.
    matches: String,
}

fn virtual_parents(cx: &mut Cx<'_, '_, Compiler>, key: Uuid, switch: Uuid) -> Vec<VirtualParent> {
    let Some(options) = cx.read(&Cell(lsp::OPTIONS, key)) else { return Vec::new() };
    let (Some(ip), Some(parents)) = (options.get("virtual-ip"), options.get("virtual-parents")) else {
        return Vec::new();
    };
    let matches = if ip.parse::<Ipv4Addr>().is_ok() {
        format!("((arp.op == 1 && arp.spa == {ip} && arp.tpa == {ip}) || (arp.op == 2 && arp.spa == {ip}))")
    } else if let Ok(address) = ip.parse::<Ipv6Addr>() {
        let sn = solicited_node(address);
        format!("((nd_ns && ip6.dst == {{{ip}, {sn}}} && nd.target == {ip}) ||(nd_na && nd.target == {ip}))")
    } else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in parents.split(',') {
        let Some(&row) = cx.read(&Members(IndexKey::PortByName(name.into()))).first() else { continue };
        if let Some(port) = read_port(cx, row).filter(|p| p.switch == switch) {
            found.push(VirtualParent { row, port, matches: matches.clone() });
        }
    }
    found
}
