//! Ports, groups and addresses: the flows between the wires and the pipelines.

use crate::desired::FlowKey;
use crate::layout::{
    ADDRESSES, DELIVERY, FLAG_LOOPBACK, FLAG_TUNNEL_RX, FROM_TUNNEL, INGRESS, INPUT, LEARNED_COOKIE, LEARNED_PRIORITY,
    LOCAL_OUTPUT, LOOPBACK, REMOTE_OUTPUT, RESULT, SAME_PORT, SCRATCH, stage,
};
use crate::wiring::{OfPort, Tunnel, Wiring};
use oxbow_pipeline::ir::{
    ChassisId, DatapathKey, EncapKind, GroupKey, Location, LogicalPort, Mac, Pipeline, PortKey, PortKind, Program,
};
use std::collections::{BTreeMap, BTreeSet};

/// A flow: key and actions.
pub(crate) type Flow = (FlowKey, String);

/// Bit of a port key on VXLAN's wire that says "group" (ovn-architecture(7): 2048 to 4095).
const VXLAN_GROUP: u32 = 0x800;

/// Members of a group stand in chunks by their upper bits, so that one more or less rewrites one chunk.
const CHUNK_BITS: u32 = 6;

/// What every bridge has.
pub(crate) fn fixed() -> Vec<Flow> {
    let tunnelled = 1u32 << FROM_TUNNEL;
    let mut flows = vec![
        (
            FlowKey::new(REMOTE_OUTPUT, 200, &format!("{SCRATCH}={tunnelled:#x}/{tunnelled:#x}")),
            format!("resubmit(,{LOCAL_OUTPUT})"),
        ),
        (FlowKey::new(REMOTE_OUTPUT, 0, ""), format!("resubmit(,{LOCAL_OUTPUT})")),
    ];
    for (priority, matches, actions) in crate::action::advertisement::flows() {
        flows.push((FlowKey::new(crate::layout::ADVERTISE, priority, &matches), actions));
    }
    flows
}

/// From a tunnel port into the output decision for this chassis (ovn-architecture(7): "the packet … enters the physical pipeline in table 0,
/// which sets the logical datapath field, inport and outport … and resubmits to" local output).
pub(crate) fn from_tunnel(tunnel: Tunnel) -> Vec<Flow> {
    let Tunnel { port: OfPort(port), kind } = tunnel;
    let (received, tunnelled) = (1u32 << FLAG_TUNNEL_RX, 1u32 << FROM_TUNNEL);
    let rest = format!(
        "set_field:{received:#x}/{received:#x}->reg10,set_field:{tunnelled:#x}/{tunnelled:#x}->{SCRATCH},resubmit(,{LOCAL_OUTPUT})"
    );
    match kind {
        EncapKind::Geneve => vec![(
            FlowKey::new(INPUT, 100, &format!("in_port={port}")),
            format!(
                "move:tun_id[0..23]->metadata[0..23],move:tun_metadata0[16..30]->reg14[0..14],\
                 move:tun_metadata0[0..15]->reg15[0..15],{rest}"
            ),
        )],
        EncapKind::Vxlan => vec![
            (
                FlowKey::new(INPUT, 100, &format!("in_port={port}")),
                format!("move:tun_id[0..11]->metadata[0..11],move:tun_id[12..23]->reg15[0..11],{rest}"),
            ),
            (
                FlowKey::new(INPUT, 110, &format!("in_port={port},tun_id=0x800000/0x800000")),
                format!(
                    "move:tun_id[0..11]->metadata[0..11],move:tun_id[12..22]->reg15[0..10],\
                     set_field:0x8000/0x8000->reg15,{rest}"
                ),
            ),
        ],
    }
}

/// Keys into a tunnel, and out. Uses the notation in which dumps show it, so that groups can be compared as texts.
fn into_tunnel(tunnel: Tunnel, datapath: DatapathKey, outport: u32) -> String {
    let Tunnel { port: OfPort(port), kind } = tunnel;
    let datapath = datapath.0;
    match kind {
        EncapKind::Geneve => format!(
            "set_field:{datapath:#x}->tun_id,set_field:{outport:#x}->tun_metadata0,\
             move:NXM_NX_REG14[0..14]->NXM_NX_TUN_METADATA0[16..30],output:{port}"
        ),
        EncapKind::Vxlan => {
            let key =
                if outport >= PortKey::GROUP_MIN { VXLAN_GROUP | outport & (VXLAN_GROUP - 1) } else { outport & 0xfff };
            format!("set_field:{:#x}->tun_id,output:{port}", datapath & 0xfff | key << 12)
        }
    }
}

/// All flows of a port. `asked`: some rule asks for the port of an address.
pub(crate) fn port(program: &Program, wiring: &Wiring, at: (DatapathKey, PortKey), asked: bool) -> Vec<Flow> {
    let Some(port) = program.port(at.0, at.1) else { return Vec::new() };
    if !port.kind.is_served() {
        return Vec::new();
    }
    let mut flows = Vec::new();
    let (datapath, key) = (port.datapath.0, port.key.0);
    let here = format!("metadata={datapath:#x},reg15={key:#x}");
    let place = match port.location {
        Location::Local { ifindex, tag } => wiring.devices.get(&ifindex).map(|device| (*device, tag)),
        Location::Remote { .. } | Location::Unbound => None,
    };
    if let Some((OfPort(device), tag)) = place {
        flows.push(input(program, port, device, tag));
        if let Some(tag) = tag {
            // Taking one tag off does not make Open vSwitch look at the next (vlan-limit 1), so what flows say about tags would not hold for it.
            for inner in [0x8100, 0x88a8] {
                let matches = format!("in_port={device},eth_type={inner:#06x},vlan_tci={:#x}/0x1fff", 0x1000 | tag);
                flows.push((FlowKey::new(INPUT, 160, &matches), "drop".to_owned()));
            }
        }
        flows.push((FlowKey::new(LOCAL_OUTPUT, 100, &here), format!("resubmit(,{LOOPBACK})")));
        let loopback = 1u32 << FLAG_LOOPBACK;
        flows.push((
            FlowKey::new(
                LOOPBACK,
                100,
                &format!("metadata={datapath:#x},reg10=0x0/{loopback:#x},reg14={key:#x},reg15={key:#x}"),
            ),
            "drop".to_owned(),
        ));
        // Open vSwitch does not send to the port a packet came from, which is where a nested port's neighbour or parent is.
        let out = match tag {
            None => format!("output:{device}"),
            Some(tag) => format!("push_vlan:0x8100,set_field:{}->vlan_vid,output:{device}", 0x1000 | tag),
        };
        flows.push((
            FlowKey::new(DELIVERY, 100, &here),
            format!(
                "push:in_port[],set_field:ANY->in_port,{out},{}pop:in_port[]",
                if tag.is_some() { "pop_vlan," } else { "" }
            ),
        ));
    }
    let chassis = elsewhere(port);
    let copies: Vec<String> = chassis
        .iter()
        .filter_map(|chassis| wiring.tunnels.get(chassis))
        .map(|tunnel| into_tunnel(*tunnel, port.datapath, key))
        .collect();
    if !copies.is_empty() {
        // Local ones that migrate are on both: the copy here comes last, its pipeline may change the packet.
        let then = if place.is_some() { format!(",resubmit(,{LOCAL_OUTPUT})") } else { String::new() };
        flows.push((FlowKey::new(REMOTE_OUTPUT, 100, &here), format!("{}{then}", copies.join(","))));
    }
    if port.kind == PortKind::Localport {
        // What it sends stays.
        flows.push((
            FlowKey::new(REMOTE_OUTPUT, 150, &format!("metadata={datapath:#x},reg14={key:#x}")),
            format!("resubmit(,{LOCAL_OUTPUT})"),
        ));
    }
    if asked {
        let bit = 1u32 << RESULT;
        flows.push((
            FlowKey::new(SAME_PORT, 100, &format!("reg14={key:#x},reg15={key:#x}")),
            format!("set_field:{bit:#x}/{bit:#x}->{SCRATCH}"),
        ));
    }
    flows
}

/// From a device into the ingress pipeline.
fn input(program: &Program, port: &LogicalPort, device: u16, tag: Option<u16>) -> Flow {
    let (datapath, key) = (port.datapath.0, port.key.0);
    let entry = program.datapath(port.datapath).and_then(|found| found.stages.entry(Pipeline::Ingress, 0));
    let into = match entry {
        Some(entry) => format!("resubmit(,{})", stage(Pipeline::Ingress, entry)),
        None => "drop".to_owned(),
    };
    debug_assert!(entry.is_none_or(|entry| stage(Pipeline::Ingress, entry) >= INGRESS));
    let set = format!("set_field:{datapath:#x}->metadata,set_field:{key:#x}->reg14");
    match tag {
        None if entry.is_none() => (FlowKey::new(INPUT, 100, &format!("in_port={device}")), into),
        None => (FlowKey::new(INPUT, 100, &format!("in_port={device}")), format!("{set},{into}")),
        Some(tag) => (
            FlowKey::new(INPUT, 150, &format!("in_port={device},vlan_tci={:#x}/0x1fff", 0x1000 | tag)),
            if entry.is_none() { into } else { format!("{set},pop_vlan,{into}") },
        ),
    }
}

/// From the loopback check into a datapath's egress pipeline: what does not cross from ingress to egress is cleared (ovn-architecture(7)).
pub(crate) fn into_egress(program: &Program, datapath: DatapathKey) -> Option<Flow> {
    let entry = program.datapath(datapath)?.stages.entry(Pipeline::Egress, 0)?;
    Some((
        FlowKey::new(LOOPBACK, 0, &format!("metadata={:#x}", datapath.0)),
        format!(
            "set_field:0x0->xxreg0,set_field:0x0->xxreg1,set_field:0x0->xreg4,ct_clear,resubmit(,{})",
            stage(Pipeline::Egress, entry)
        ),
    ))
}

fn elsewhere(port: &LogicalPort) -> BTreeSet<ChassisId> {
    let mut chassis: BTreeSet<ChassisId> = port.additional.iter().copied().collect();
    if let Location::Remote { chassis: main } = port.location {
        chassis.insert(main);
    }
    chassis
}

/// Which part of a multicast group a group of the switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Ports of this chassis.
    Local,
    /// Localports of this chassis: not for packets from tunnels, whose sender's chassis has given them to its own.
    Localports,
    /// Other chassis.
    Remote,
}

/// A multicast group: its chunks with their buckets.
pub(crate) fn chunks(program: &Program, wiring: &Wiring, at: (DatapathKey, GroupKey)) -> BTreeMap<(Part, u32), String> {
    let mut chunks: BTreeMap<(Part, u32), String> = BTreeMap::new();
    let Some(group) = program.group(at.0, at.1) else { return chunks };
    let mut add = |part: Part, number: u32, actions: &str| {
        let text = chunks.entry((part, number >> CHUNK_BITS)).or_insert_with(|| "type=all".to_owned());
        text.push_str(&format!(",bucket=bucket_id:{number},actions={actions}"));
    };
    let mut chassis = BTreeSet::new();
    for key in &group.members {
        let Some(port) = program.port(at.0, *key).filter(|port| port.kind.is_served()) else { continue };
        chassis.extend(elsewhere(port));
        let Location::Local { ifindex, .. } = port.location else { continue };
        if wiring.devices.contains_key(&ifindex) {
            let part = if port.kind == PortKind::Localport { Part::Localports } else { Part::Local };
            add(part, key.0, &format!("set_field:{:#x}->reg15,resubmit(,{LOOPBACK})", key.0));
        }
    }
    for chassis in chassis {
        if let Some(tunnel) = wiring.tunnels.get(&chassis) {
            add(Part::Remote, chassis.0, &into_tunnel(*tunnel, at.0, at.1.0));
        }
    }
    chunks
}

/// The flows that lead into a group's chunks, by their numbers.
pub(crate) fn group(at: (DatapathKey, GroupKey), chunks: &BTreeMap<(Part, u32), u32>) -> Vec<Flow> {
    let list = |wanted: &[Part]| {
        let ids = chunks.iter().filter(|((part, _), _)| wanted.contains(part));
        ids.map(|(_, id)| format!("group:{id}")).collect::<Vec<_>>().join(",")
    };
    let here = format!("metadata={:#x},reg15={:#x}", at.0.0, at.1.0);
    let mut flows = Vec::new();
    let remote = list(&[Part::Remote]);
    if !remote.is_empty() {
        flows.push((FlowKey::new(REMOTE_OUTPUT, 100, &here), format!("{remote},resubmit(,{LOCAL_OUTPUT})")));
    }
    let (local, all) = (list(&[Part::Local]), list(&[Part::Local, Part::Localports]));
    if !all.is_empty() {
        flows.push((FlowKey::new(LOCAL_OUTPUT, 100, &here), all.clone()));
    }
    if local != all {
        let bit = 1u32 << FROM_TUNNEL;
        let here = format!("{here},{SCRATCH}={bit:#x}/{bit:#x}");
        flows.push((FlowKey::new(LOCAL_OUTPUT, 110, &here), if local.is_empty() { "drop".to_owned() } else { local }));
    }
    flows
}

/// A confirmed address.
pub(crate) fn address(datapath: DatapathKey, mac: Mac, port: PortKey) -> Flow {
    (
        FlowKey::new(ADDRESSES, 100, &format!("metadata={:#x},eth_dst={mac}", datapath.0)),
        format!("set_field:{:#x}->reg15", port.0),
    )
}

/// The line that forgets an address which the switch has learned.
pub(crate) fn forget(datapath: DatapathKey, mac: Mac) -> String {
    let key = FlowKey::new(ADDRESSES, LEARNED_PRIORITY, &format!("metadata={:#x},eth_dst={mac}", datapath.0));
    format!("flow delete_strict {}", key.text())
}

/// The line that forgets what the switch has learned about a datapath.
pub(crate) fn forget_all(datapath: DatapathKey) -> String {
    format!("flow delete cookie={LEARNED_COOKIE:#x}/-1,table={ADDRESSES},metadata={:#x}", datapath.0)
}
