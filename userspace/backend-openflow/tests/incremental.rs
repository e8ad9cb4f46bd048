//! Following every difference comes to the same bridge as starting from the program as it is.

use oxbow_backend_openflow::{Model, OfPort, Tunnel, Wiring};
use oxbow_pipeline::compile::{Compiler, DatapathInfo, FlowRow};
use oxbow_pipeline::ir::{
    Alternatives, Changes, Chassis, ChassisId, DatapathKey, Dim, EncapKind, FlowUuid, Group, GroupKey, LflowId,
    Location, LogicalPort, Mac, Pipeline, PortKey, PortKind, Program, SetId, Sub,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const DP: DatapathKey = DatapathKey(3);

/// A change of the network.
#[derive(Clone, Debug)]
enum Step {
    Flow(usize, bool),
    Port(u32, u8, bool),
    NoPort(u32),
    Member(u8, bool),
    Device(u32, bool),
    Tunnel(u32, bool),
    Address(u8, Option<u32>),
}

/// Flows that come and go: stage, priority, match, actions.
const FLOWS: &[(u8, u16, &str, &str)] = &[
    (0, 100, "inport == \"p1\"", "next;"),
    (0, 100, "ip4.src == $hosts", "drop;"),
    (0, 90, "ip4.src == $hosts && ip4.dst == $hosts", "next;"),
    (0, 90, "ip4.src == $hosts && tcp.dst == {80, 443}", "reg0[3] = 1; next;"),
    (0, 90, "tcp.dst == {80, 443} && inport == {\"p1\", \"p2\"}", "drop;"),
    (0, 0, "1", "next;"),
    (1, 50, "reg0[3] == 1", "drop;"),
    (1, 40, "1", "reg0[4] = lookup_fdb(inport, eth.src); next;"),
    (2, 50, "reg0[4] == 0", "put_fdb(inport, eth.src); next;"),
    (2, 0, "1", "next;"),
    (3, 50, "nd_ns && nd.target == fd00::1", "nd_na { outport = inport; flags.loopback = 1; output; };"),
    (3, 40, "eth.mcast", "outport = \"_MC_flood\"; output;"),
    (3, 0, "1", "outport = \"p2\"; output;"),
    (4, 0, "1", "reg0[15] = check_in_port_sec(); next;"),
];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..FLOWS.len(), any::<bool>()).prop_map(|(n, there)| Step::Flow(n, there)),
        3 => (1..6u32, 0..4u8, any::<bool>()).prop_map(|(key, at, secured)| Step::Port(key, at, secured)),
        1 => (1..6u32).prop_map(Step::NoPort),
        3 => (0..8u8, any::<bool>()).prop_map(|(n, there)| Step::Member(n, there)),
        1 => (1..6u32, any::<bool>()).prop_map(|(n, there)| Step::Device(n, there)),
        1 => (1..3u32, any::<bool>()).prop_map(|(n, there)| Step::Tunnel(n, there)),
        1 => (0..3u8, proptest::option::of(1..6u32)).prop_map(|(mac, port)| Step::Address(mac, port)),
    ]
}

fn perform(compiler: &mut Compiler, wiring: &mut Wiring, members: &mut BTreeSet<u8>, step: &Step) {
    match step {
        Step::Flow(n, true) => {
            let (stage, priority, matches, actions) = FLOWS[*n];
            compiler.set_flow(row(*n as u128 + 1, Pipeline::Ingress, stage, priority, matches, actions));
        }
        Step::Flow(n, false) => compiler.remove_flow(FlowUuid(*n as u128 + 1)),
        Step::Port(key, at, secured) => {
            let location = match at {
                0 => Location::Local { ifindex: *key, tag: None },
                1 => Location::Local { ifindex: 1, tag: Some(10 + *key as u16) },
                2 => Location::Remote { chassis: ChassisId(1 + key % 2) },
                _ => Location::Unbound,
            };
            let security = format!("00:00:00:00:00:0{key} 10.0.0.{key}");
            compiler.set_port(LogicalPort {
                datapath: DP,
                key: PortKey(*key),
                name: format!("p{key}").into(),
                kind: if *key == 5 { PortKind::Localport } else { PortKind::Vif },
                location,
                additional: if *at == 0 && *secured { vec![ChassisId(2)] } else { Vec::new() },
                port_security: if *secured { vec![Arc::from(security)] } else { Vec::new() },
            });
        }
        Step::NoPort(key) => compiler.remove_port(DP, PortKey(*key)),
        Step::Member(n, there) => {
            if *there {
                members.insert(*n);
            } else {
                members.remove(n);
            }
            let texts: Vec<String> = members.iter().map(|n| format!("10.0.{n}.0/24")).collect();
            compiler.set_address_set("hosts", Some(texts.iter().map(String::as_str)));
        }
        Step::Device(n, true) => {
            wiring.devices.insert(*n, OfPort(*n as u16));
        }
        Step::Device(n, false) => {
            wiring.devices.remove(n);
        }
        Step::Tunnel(n, true) => {
            let kind = if *n == 1 { EncapKind::Geneve } else { EncapKind::Vxlan };
            wiring.tunnels.insert(ChassisId(*n), Tunnel { port: OfPort(100 + *n as u16), kind });
        }
        Step::Tunnel(n, false) => {
            wiring.tunnels.remove(&ChassisId(*n));
        }
        Step::Address(mac, port) => compiler.set_fdb(DP, Mac(u64::from(*mac)), port.map(PortKey)),
    }
}

fn row(n: u128, pipeline: Pipeline, stage: u8, priority: u16, matches: &str, actions: &str) -> FlowRow {
    FlowRow {
        uuid: FlowUuid(n),
        datapaths: vec![DP],
        pipeline,
        stage,
        priority,
        matches: matches.into(),
        actions: actions.into(),
        stage_name: "".into(),
    }
}

fn network() -> Compiler {
    let mut compiler = Compiler::default();
    compiler.set_datapath(DP, Some(DatapathInfo { name: "sw".into(), router: false }));
    for id in 1..3 {
        compiler.set_chassis(Chassis { id: ChassisId(id), name: format!("hv{id}").into(), encap: None });
    }
    compiler.set_address_set("hosts", Some(["10.0.0.0/24"]));
    let members = (1..6).map(PortKey).collect();
    compiler.set_group(Group { datapath: DP, key: GroupKey(0x8000), name: "_MC_flood".into(), members });
    compiler.set_flow(row(1000, Pipeline::Egress, 0, 0, "1", "reg0[1] = check_out_port_sec(); next;"));
    compiler.set_flow(row(1001, Pipeline::Egress, 1, 50, "reg0[1] == 1", "drop;"));
    compiler.set_flow(row(1002, Pipeline::Egress, 1, 0, "1", "output;"));
    compiler
}

/// Everything that a program holds, as a difference from nothing.
fn everything(program: &Program) -> Changes {
    let mut changes = Changes::default();
    let mut sets: BTreeSet<SetId> = BTreeSet::new();
    let mut note = |dims: &[Dim]| {
        sets.extend(dims.iter().filter_map(|dim| match &dim.alternatives {
            Alternatives::Set(set) => Some(*set),
            Alternatives::List(_) => None,
        }));
    };
    for table in program.tables() {
        for rule in program.rules(table) {
            note(&rule.dims);
            changes.rules_added.push(Arc::clone(rule));
        }
    }
    for (datapath, _) in program.datapaths() {
        changes.datapaths.push(datapath);
        for sub in [Sub::In, Sub::InNd, Sub::Out] {
            for rule in program.sub_rules(datapath, sub) {
                note(&rule.dims);
                changes.sub_added.push(Arc::clone(rule));
            }
        }
    }
    for set in sets {
        changes.sets.push((set, Vec::new(), program.set(set).into_iter().flatten().copied().collect()));
    }
    changes.ports = program.ports().map(|port| (port.datapath, port.key)).collect();
    changes.groups = program.groups().map(|group| (group.datapath, group.key)).collect();
    changes.chassis = program.all_chassis().map(|chassis| chassis.id).collect();
    changes.fdb = program.fdb_entries().map(|(datapath, mac, _)| (datapath, mac)).collect();
    changes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn following_differences_is_starting_anew(steps in proptest::collection::vec(step(), 1..40)) {
        let mut compiler = network();
        let (mut wiring, mut members) = (Wiring::default(), BTreeSet::from([0]));
        let mut model = Model::new();
        let cookies = |flow: LflowId| u64::from(flow.0);
        for step in &steps {
            perform(&mut compiler, &mut wiring, &mut members, step);
            let changes = compiler.commit();
            model.apply(compiler.program(), &changes, &wiring, &cookies);
            let mut anew = Model::new();
            anew.apply(compiler.program(), &everything(compiler.program()), &wiring, &cookies);
            prop_assert_eq!(model.print(), anew.print(), "after {:?}", step);
            prop_assert_eq!(model.problems().count(), 0);
        }
    }
}
