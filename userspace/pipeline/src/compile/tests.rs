//! The compiler against itself: incremental against from scratch, simplified against as lowered, and its treatment of what it cannot take.

use super::{Compiler, DatapathInfo, FlowRow, SetChange};
use crate::ir::{
    Act, Alternatives, Cause, Changes, Chassis, ChassisId, Consequence, DatapathKey, FlowUuid, Group, GroupKey,
    Location, LogicalPort, Masked, Pipeline, PortKey, PortKind, Program, Sub,
};
use crate::reference::{Arrival, Drop, Outcome, Reason, run};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const DP: DatapathKey = DatapathKey(1);

fn row(n: u128, datapaths: &[u32], at: (Pipeline, u8, u16), matches: &str, actions: &str) -> FlowRow {
    FlowRow {
        uuid: FlowUuid(n),
        datapaths: datapaths.iter().copied().map(DatapathKey).collect(),
        pipeline: at.0,
        stage: at.1,
        priority: at.2,
        matches: matches.into(),
        actions: actions.into(),
        stage_name: "".into(),
    }
}

fn ingress(n: u128, stage: u8, priority: u16, matches: &str, actions: &str) -> FlowRow {
    row(n, &[1], (Pipeline::Ingress, stage, priority), matches, actions)
}

fn egress(n: u128, stage: u8, priority: u16, matches: &str, actions: &str) -> FlowRow {
    row(n, &[1], (Pipeline::Egress, stage, priority), matches, actions)
}

fn port(datapath: u32, key: u32, name: &str, location: Location) -> LogicalPort {
    LogicalPort {
        datapath: DatapathKey(datapath),
        key: PortKey(key),
        name: name.into(),
        kind: PortKind::Vif,
        location,
        additional: Vec::new(),
        port_security: Vec::new(),
    }
}

fn local(ifindex: u32) -> Location {
    Location::Local { ifindex, tag: None }
}

/// Two local ports "a" and "b" on datapath 1, and the given flows.
fn switch(flows: Vec<FlowRow>) -> Compiler {
    let mut compiler = Compiler::default();
    compiler.set_datapath(DP, Some(DatapathInfo { name: "sw".into(), router: false }));
    compiler.set_port(port(1, 1, "a", local(101)));
    compiler.set_port(port(1, 2, "b", local(102)));
    for flow in flows {
        compiler.set_flow(flow);
    }
    compiler.commit();
    compiler
}

fn tcp(src: [u8; 4], dst_port: u16) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    frame.extend(src);
    frame.extend([10, 0, 0, 2, 0x30, 0x39]);
    frame.extend(dst_port.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([0x50, 2, 0, 0, 0, 0, 0, 0]);
    frame
}

fn from_a(compiler: &Compiler, frame: &[u8]) -> Outcome {
    run(compiler.program(), Arrival::Port { datapath: DP, port: PortKey(1) }, frame)
}

fn dropped(compiler: &Compiler, frame: &[u8]) -> Vec<Reason> {
    from_a(compiler, frame).drops.iter().map(|Drop { reason, .. }| *reason).collect()
}

/// `next` everywhere but for an output to "b".
fn forwarding(n: u128) -> Vec<FlowRow> {
    vec![
        ingress(n, 0, 0, "1", "next;"),
        ingress(n + 1, 1, 0, "1", "next;"),
        ingress(n + 2, 2, 0, "1", "outport = \"b\"; output;"),
        egress(n + 3, 0, 0, "1", "next;"),
        egress(n + 4, 1, 0, "1", "output;"),
    ]
}

#[test]
fn tables_that_only_pass_on_are_not_walked() {
    let compiler = switch(forwarding(1));
    let outcome = from_a(&compiler, &tcp([10, 0, 0, 1], 80));
    assert_eq!(outcome.outputs.len(), 1, "{outcome:#?}");
    let stages: Vec<(Pipeline, u8)> = outcome.path.iter().map(|step| (step.pipeline, step.stage)).collect();
    assert_eq!(stages, [(Pipeline::Ingress, 2), (Pipeline::Egress, 1)]);
    assert_eq!(compiler.program().tables().count(), 2);
}

#[test]
fn unreachable_conntrack_is_no_problem_until_something_leads_to_it() {
    let mut flows = forwarding(1);
    flows.push(ingress(10, 1, 100, "reg0[0] == 1", "ct_next;"));
    flows.push(egress(11, 0, 100, "reg0[2] == 1", "ct_lb_mark;"));
    let mut compiler = switch(flows);
    assert_eq!(compiler.problems(), []);
    // Dead rules do not reach a backend, and their table is passed by.
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 1], 80)).path.len(), 2);
    compiler.set_flow(ingress(12, 0, 100, "tcp", "reg0[0] = 1; next;"));
    compiler.commit();
    let problems = compiler.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((problems[0].row.uuid, problems[0].consequence), (FlowUuid(10), Consequence::MatchDropped));
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 80)), [Reason::UnsupportedAction]);
    compiler.remove_flow(FlowUuid(12));
    compiler.commit();
    assert_eq!(compiler.problems(), []);
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 1], 80)).outputs.len(), 1);
}

#[test]
fn registers_are_followed_through_copies_and_conditions() {
    let mut flows = forwarding(1);
    flows.push(ingress(10, 0, 10, "tcp.dst == 80", "reg0[0] = 1; next;"));
    flows.push(ingress(11, 1, 10, "reg0[0] == 1", "reg1[7] = reg0[0]; reg2 = 0xff; reg0[9] <-> reg2[3]; next;"));
    flows.push(ingress(12, 2, 10, "reg1[7] == 1 && reg0[9] == 1 && reg2[3] == 0 && reg2[4] == 1", "drop;"));
    // Set nowhere on any path: dead, and no problem.
    flows.push(ingress(13, 2, 20, "reg1[6] == 1", "ct_next;"));
    let compiler = switch(flows);
    assert_eq!(compiler.problems(), []);
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 80)), [Reason::LogicalFlow]);
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 1], 81)).outputs.len(), 1);
    let last = compiler.program().tables().filter(|t| (t.pipeline, t.stage) == (Pipeline::Ingress, 2));
    assert_eq!(last.flat_map(|table| compiler.program().rules(table)).count(), 2);
}

#[test]
fn a_flow_whose_match_does_not_compile_is_left_out_or_closes_its_table() {
    let mut flows = forwarding(1);
    flows.push(ingress(10, 1, 5, "ip4.src == nonsense", "next;"));
    let mut compiler = switch(flows);
    let told = |compiler: &Compiler| -> Vec<(FlowUuid, Consequence)> {
        compiler.problems().iter().map(|problem| (problem.row.uuid, problem.consequence)).collect()
    };
    assert_eq!(told(&compiler), [(FlowUuid(10), Consequence::LeftOut)]);
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 1], 80)).outputs.len(), 1);

    compiler.set_flow(ingress(11, 1, 5, "ip4.src == nonsense", "drop;"));
    // Even against a flow of the highest priority.
    compiler.set_flow(ingress(12, 1, u16::MAX, "1", "next;"));
    compiler.commit();
    assert_eq!(told(&compiler), [(FlowUuid(10), Consequence::LeftOut), (FlowUuid(11), Consequence::TableClosed)]);
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 80)), [Reason::TableClosed]);
    let text = compiler.problems()[1].to_string();
    for part in ["00000000-0000-0000-0000-00000000000b", "nonsense", "table closed"] {
        assert!(text.contains(part), "{text}");
    }

    // A flow that marks packets may decide about dropping them later: leaving it out could let them pass.
    compiler.set_flow(ingress(11, 1, 5, "ip4.src == nonsense", "reg0[5] = 1; next;"));
    compiler.commit();
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 80)), [Reason::TableClosed]);
    compiler.remove_flow(FlowUuid(11));
    compiler.commit();
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 1], 80)).outputs.len(), 1);
}

#[test]
fn an_action_list_that_does_not_compile_drops_its_match() {
    let mut flows = forwarding(1);
    flows.push(ingress(10, 1, 5, "tcp.dst == 22", "no_such_action; next;"));
    let compiler = switch(flows);
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 22)), [Reason::UnsupportedAction]);
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 1], 80)).outputs.len(), 1);
    assert_eq!(compiler.problems().len(), 1);
    let culprit = from_a(&compiler, &tcp([10, 0, 0, 1], 22)).drops[0].lflow;
    assert_eq!(culprit, compiler.lflow(FlowUuid(10)));
}

#[test]
fn a_flow_that_goes_is_named_before_its_number_is_another_ones() {
    let mut compiler = switch(forwarding(1));
    let first = compiler.set_flow(ingress(10, 1, 5, "tcp", "drop;"));
    assert!(compiler.commit().flows_gone.is_empty());
    compiler.remove_flow(FlowUuid(10));
    let other = compiler.set_flow(ingress(11, 1, 5, "udp", "drop;"));
    assert_ne!(first, other, "the rules of the old one are still in force");
    assert_eq!(compiler.commit().flows_gone, [first]);
    assert_eq!(compiler.set_flow(ingress(12, 1, 5, "icmp4", "drop;")), first);
    assert!(compiler.commit().flows_gone.is_empty());
}

#[test]
fn an_address_set_changes_by_elements() {
    let mut flows = forwarding(1);
    flows.push(ingress(10, 1, 5, "ip4.src == $bad && tcp.dst == {22, 80}", "drop;"));
    flows.push(ingress(11, 1, 4, "ip4.src == $bad && ip4.dst == 10.0.0.9", "drop;"));
    let mut compiler = switch(Vec::new());
    compiler.set_address_set("bad", Some(["10.0.0.3", "10.0.0.3/32"]));
    flows.into_iter().for_each(|flow| _ = compiler.set_flow(flow));
    compiler.commit();
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 1], 22)).outputs.len(), 1);
    compiler.change_address_set("bad", SetChange { added: &["10.0.0.1"], removed: &[] });
    let changes = compiler.commit();
    assert_eq!((changes.rules_added.len(), changes.rules_removed.len()), (0, 0), "{changes:?}");
    // One set for both flows, one element.
    let [(_, removed, added)] = &changes.sets[..] else { panic!("{changes:?}") };
    assert_eq!((removed.len(), &added[..]), (0, &[Masked { value: 0x0a00_0001, mask: 0xffff_ffff }][..]));
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 22)), [Reason::LogicalFlow]);
    // The same address given twice goes when both are gone.
    compiler.change_address_set("bad", SetChange { added: &[], removed: &["10.0.0.3"] });
    assert!(compiler.commit().is_empty());
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 3], 22)), [Reason::LogicalFlow]);
    compiler.change_address_set("bad", SetChange { added: &[], removed: &["10.0.0.3/32"] });
    compiler.commit();
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 3], 22)).outputs.len(), 1);
}

#[test]
fn a_flow_waits_for_the_names_it_uses() {
    let mut flows = forwarding(1);
    flows.push(ingress(10, 1, 5, "inport == \"a\" && ip4.src == $later", "drop;"));
    flows.push(ingress(11, 2, 5, "tcp.dst == 23", "outport = \"c\"; output;"));
    flows.push(ingress(12, 2, 5, "tcp.dst == 24 && is_chassis_resident(\"b\")", "drop;"));
    flows.push(ingress(13, 2, 6, "tcp.dst == 25 && inport == @pg", "drop;"));
    let mut compiler = switch(flows);
    // OVN refuses a match that names no set; this one would drop.
    assert_eq!(compiler.problems()[0].consequence, Consequence::TableClosed);
    compiler.set_address_set("later", Some(["10.0.0.7"]));
    compiler.commit();
    assert_eq!(compiler.problems(), []);
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 7], 80)), [Reason::LogicalFlow]);

    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 23)), [Reason::NoOutport]);
    compiler.set_port(port(1, 3, "c", local(103)));
    let changes = compiler.commit();
    assert_eq!(changes.rules_added.len(), 1, "only the flow that names the port: {changes:?}");
    assert_eq!(from_a(&compiler, &tcp([10, 0, 0, 1], 23)).outputs.len(), 1);

    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 24)), [Reason::LogicalFlow]);
    compiler.set_port(port(1, 2, "b", Location::Remote { chassis: ChassisId(9) }));
    let changes = compiler.commit();
    assert_eq!((changes.rules_added.len(), changes.rules_removed.len()), (0, 1), "{changes:?}");

    compiler.set_port_group("1_pg", Some(["a", "elsewhere"]));
    let changes = compiler.commit();
    assert_eq!((changes.rules_added.len(), changes.sets.len()), (0, 1), "{changes:?}");
    assert_eq!(dropped(&compiler, &tcp([10, 0, 0, 1], 25)), [Reason::LogicalFlow]);
}

#[test]
fn one_text_on_many_datapaths_is_parsed_once() {
    let mut compiler = Compiler::default();
    for key in 1..=50 {
        compiler.set_datapath(DatapathKey(key), Some(DatapathInfo::default()));
        for stage in 0..10 {
            let at = (Pipeline::Ingress, stage, 0);
            compiler.set_flow(row(u128::from(key * 100 + u32::from(stage)), &[key], at, "ip4 && tcp", "next;"));
        }
    }
    compiler.commit();
    // `next;` means another table in every stage.
    assert_eq!(compiler.sizes(), (500, 1, 10));
    for key in 1..=50_u32 {
        for stage in 0..10_u32 {
            compiler.remove_flow(FlowUuid(u128::from(key * 100 + stage)));
        }
    }
    compiler.commit();
    assert_eq!(compiler.sizes(), (0, 0, 0));
}

/// A program without numbers that depend on history.
#[derive(Debug, PartialEq)]
struct Canonical {
    tables: BTreeMap<String, Vec<String>>,
    stages: BTreeMap<DatapathKey, String>,
    subs: BTreeSet<String>,
}

fn canonical(program: &Program) -> Canonical {
    let dims = |dims: &[crate::ir::Dim]| {
        dims.iter()
            .map(|dim| {
                let mut list: Vec<Masked> = program.alternatives(dim).collect();
                list.sort_unstable();
                format!("{} {} {list:?}", dim.field, matches!(dim.alternatives, Alternatives::Set(_)))
            })
            .collect::<Vec<_>>()
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for table in program.tables() {
        let mut rules: Vec<String> = program
            .rules(table)
            .map(|rule| format!("{} {:?} {:?}", rule.priority, dims(&rule.dims), rule.acts))
            .collect();
        rules.sort();
        tables.insert(format!("{table:?}"), rules);
    }
    let mut subs = BTreeSet::new();
    let stages = program.datapaths().map(|(key, datapath)| (key, format!("{:?}", datapath.stages))).collect();
    for (key, _) in program.datapaths() {
        for sub in [Sub::In, Sub::InNd, Sub::Out] {
            subs.extend(
                program
                    .sub_rules(key, sub)
                    .map(|r| format!("{key} {sub:?} {} {:?} {:?}", r.priority, dims(&r.dims), r.result)),
            );
        }
    }
    Canonical { tables, stages, subs }
}

/// What a test feeds: the state from which a compiler can be made anew.
#[derive(Clone, Debug, Default)]
struct World {
    datapaths: BTreeSet<u32>,
    flows: BTreeMap<u128, FlowRow>,
    ports: BTreeMap<(u32, u32), LogicalPort>,
    groups: BTreeMap<(u32, u32), Group>,
    sets: BTreeMap<&'static str, BTreeSet<&'static str>>,
    port_groups: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

impl World {
    fn compile(&self) -> Compiler {
        let mut compiler = Compiler::default();
        self.datapaths.iter().for_each(|key| compiler.set_datapath(DatapathKey(*key), Some(DatapathInfo::default())));
        self.flows.values().for_each(|flow| _ = compiler.set_flow(flow.clone()));
        self.ports.values().for_each(|port| compiler.set_port(port.clone()));
        self.groups.values().for_each(|group| compiler.set_group(group.clone()));
        self.sets.iter().for_each(|(name, members)| compiler.set_address_set(name, Some(members.iter().copied())));
        self.port_groups.iter().for_each(|(name, ports)| compiler.set_port_group(name, Some(ports.iter().copied())));
        compiler.commit();
        compiler
    }
}

#[derive(Clone, Debug)]
enum Change {
    Datapath(u32, bool),
    Flow(u128, Option<usize>),
    Port(u32, usize, usize),
    Group(u32, bool),
    Set(usize, usize, bool),
    ForgetSet(usize),
    PortGroup(usize, usize, bool),
}

const PORTS: [&str; 4] = ["a", "b", "c", "d"];
const SETS: [&str; 2] = ["as1", "as2"];
const MEMBERS: [&str; 6] = ["10.0.0.1", "10.0.0.3", "10.0.0.0/30", "fd00::1", "10.0.0.1/32", "nonsense"];
const PORT_GROUPS: [&str; 3] = ["1_pg", "2_pg", "1_other"];
const SECURITY: [&[&str]; 3] = [&[], &["00:00:00:00:00:01 10.0.0.1"], &["00:00:00:00:00:01", "junk"]];

/// Stage, priority, match, actions; the first half for ingress.
const FLOWS: [(u8, u16, &str, &str); 36] = [
    (0, 100, "vlan.present", "drop;"),
    (0, 50, "1", "reg0[15] = check_in_port_sec(); next;"),
    (0, 0, "1", "next;"),
    (1, 50, "reg0[15] == 1", "drop;"),
    (1, 0, "1", "next;"),
    (1, 60, "tcp.dst == {22, 80}", "reg0[0] = 1; next;"),
    (2, 100, "reg0[0] == 1 && reg0[1] == 0", "ct_next;"),
    (2, 90, "reg0[0] == 1", "reg1 = 5; reg0[2] = reg1[0]; next;"),
    (2, 0, "1", "next;"),
    (2, 95, "reg0[0] == 1", "reg0[2] = reg0[0]; next;"),
    (2, 10, "tcp.dst == 80 && ip4.src != $as1", "drop;"),
    (2, 10, "ip4.src == $as1", "drop;"),
    (2, 10, "ip4.src == $as1 && ip4.dst == {$as2, 10.0.0.2}", "drop;"),
    (2, 10, "ip4.src != $as2", "next;"),
    (3, 20, "inport == \"a\" && reg0[2] == 1", "drop;"),
    (3, 20, "inport == @pg", "next(pipeline=ingress, table=5);"),
    (3, 20, "inport == {@pg, \"b\"} && ip4", "reg0[3] = 1; next;"),
    (3, 0, "1", "next;"),
    (4, 30, "is_chassis_resident(\"c\") && ip4.src == $as1", "drop;"),
    (4, 0, "reg0[3] == 0", "next;"),
    (4, 0, "1", "next;"),
    (4, 5, "ip4.src == oops", "drop;"),
    (4, 5, "ip4.src == oops", "next;"),
    (5, 20, "tcp.dst == 80", "outport = \"b\"; output;"),
    (5, 10, "inport == \"a\"", "clone { outport = \"c\"; output; }; outport = inport; flags.loopback = 1; output;"),
    (5, 0, "1", "outport = \"flood\"; output;"),
    (5, 0, "1", "oops;"),
    (0, 0, "1", "next;"),
    (0, 10, "flags.loopback == 1", "next(pipeline=egress, table=2);"),
    (0, 10, "reg0[0] == 1", "drop;"),
    (1, 10, "outport == \"b\" && ip4.src == $as2", "drop;"),
    (1, 0, "1", "reg0[15] = check_out_port_sec(); next;"),
    (1, 0, "outport == @pg", "next;"),
    (2, 10, "reg0[15] == 1", "drop;"),
    (2, 0, "1", "output;"),
    (2, 0, "outport != 0", "output;"),
];
const FIRST_EGRESS: usize = 27;

fn pool(n: u128, choice: usize) -> FlowRow {
    let (stage, priority, matches, actions) = FLOWS[choice % FLOWS.len()];
    let pipeline = if choice % FLOWS.len() < FIRST_EGRESS { Pipeline::Ingress } else { Pipeline::Egress };
    let datapaths: &[u32] = [&[1][..], &[2], &[1, 2], &[1, 2]][choice / FLOWS.len() % 4];
    row(n, datapaths, (pipeline, stage, priority), matches, actions)
}

fn change() -> impl Strategy<Value = Change> {
    let flow = (1..40_u128, prop::option::weighted(0.8, 0..4 * FLOWS.len()));
    prop_oneof![
        1 => (1..=2_u32, prop::bool::weighted(0.8)).prop_map(|(key, known)| Change::Datapath(key, known)),
        12 => flow.prop_map(|(n, choice)| Change::Flow(n, choice)),
        3 => (1..=2_u32, 0..5_usize, 0..9_usize).prop_map(|(key, name, how)| Change::Port(key, name, how)),
        1 => (1..=2_u32, any::<bool>()).prop_map(|(key, there)| Change::Group(key, there)),
        10 => (0..2_usize, 0..6_usize, any::<bool>()).prop_map(|(set, member, there)| Change::Set(set, member, there)),
        1 => (0..2_usize).prop_map(Change::ForgetSet),
        2 => (0..3_usize, 0..4_usize, any::<bool>()).prop_map(|(group, port, there)| Change::PortGroup(group, port, there)),
    ]
}

/// Makes the same change in the world and in a compiler.
fn make(change: &Change, world: &mut World, compiler: &mut Compiler) {
    match *change {
        Change::Datapath(key, known) => {
            if known {
                world.datapaths.insert(key);
            } else {
                world.datapaths.remove(&key);
            }
            compiler.set_datapath(DatapathKey(key), known.then(DatapathInfo::default));
        }
        Change::Flow(n, Some(choice)) => {
            world.flows.insert(n, pool(n, choice));
            compiler.set_flow(pool(n, choice));
        }
        Change::Flow(n, None) => {
            world.flows.remove(&n);
            compiler.remove_flow(FlowUuid(n));
        }
        Change::Port(datapath, name, how) => {
            let Some(text) = PORTS.get(name) else {
                world.ports.remove(&(datapath, 1));
                return compiler.remove_port(DatapathKey(datapath), PortKey(1));
            };
            let location =
                [local(100 + name as u32), Location::Unbound, Location::Remote { chassis: ChassisId(2) }][how % 3];
            let mut port = port(datapath, name as u32 + 1, text, location);
            port.port_security = SECURITY[how / 3].iter().map(|element| Arc::from(*element)).collect();
            world.ports.retain(|_, there| there.name != port.name);
            world.ports.insert((datapath, port.key.0), port.clone());
            compiler.set_port(port);
        }
        Change::Group(datapath, there) => {
            let key = (DatapathKey(datapath), GroupKey(0x8000));
            let members = (1..=4).map(PortKey).collect();
            let group = Group { datapath: key.0, key: key.1, name: "flood".into(), members };
            if there {
                world.groups.insert((datapath, 0x8000), group.clone());
                compiler.set_group(group);
            } else {
                world.groups.remove(&(datapath, 0x8000));
                compiler.remove_group(key.0, key.1);
            }
        }
        Change::Set(set, member, there) => {
            let (name, member) = (SETS[set], MEMBERS[member]);
            let members = world.sets.entry(name).or_default();
            if there && members.insert(member) {
                compiler.change_address_set(name, SetChange { added: &[member], removed: &[] });
            } else if !there && members.remove(member) {
                compiler.change_address_set(name, SetChange { added: &[], removed: &[member] });
            } else {
                compiler.set_address_set(name, Some(members.iter().copied()));
            }
        }
        Change::ForgetSet(set) => {
            world.sets.remove(SETS[set]);
            compiler.set_address_set(SETS[set], None::<[&str; 0]>);
        }
        Change::PortGroup(group, port, there) => {
            let (row, port) = (PORT_GROUPS[group], PORTS[port]);
            let ports = world.port_groups.entry(row).or_default();
            if there {
                ports.insert(port);
            } else {
                ports.remove(port);
            }
            compiler.set_port_group(row, Some(ports.iter().copied()));
        }
    }
}

/// What a backend would hold that only looks at the changes.
fn follow(shadow: &mut Program, program: &Program, changes: &Changes) {
    for rule in &changes.rules_removed {
        assert!(shadow.rules(rule.table).any(|there| there.id == rule.id), "removed without being there: {rule:?}");
    }
    shadow.apply(changes);
    for &key in &changes.datapaths {
        shadow.put_datapath(key, program.datapath(key).cloned());
    }
    for &key in &changes.ports {
        shadow.put_port(key, program.port(key.0, key.1).cloned());
    }
    for &key in &changes.groups {
        shadow.put_group(key, program.group(key.0, key.1).cloned());
    }
    for &id in &changes.chassis {
        shadow.put_chassis(id, program.chassis(id).cloned());
    }
    for &key in &changes.fdb {
        shadow.put_fdb(key, program.fdb(key.0, key.1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn incremental_is_from_scratch_and_simplified_is_as_lowered(
        start in prop::collection::vec(0..4 * FLOWS.len(), 0..30),
        steps in prop::collection::vec(prop::collection::vec(change(), 1..5), 1..12),
    ) {
        let mut world = World::default();
        let mut compiler = Compiler::default();
        let mut shadow = Program::default();
        let mut changes = vec![Change::Datapath(1, true), Change::Datapath(2, true), Change::Group(1, true)];
        changes.extend([Change::Port(1, 0, 3), Change::Port(1, 1, 0), Change::Port(2, 2, 0), Change::Port(2, 3, 6)]);
        changes.extend(start.into_iter().enumerate().map(|(n, choice)| Change::Flow(n as u128 + 1, Some(choice))));
        for changes in std::iter::once(changes).chain(steps) {
            changes.iter().for_each(|change| make(change, &mut world, &mut compiler));
            let told = compiler.commit();
            follow(&mut shadow, compiler.program(), &told);
            prop_assert!(compiler.commit().is_empty(), "a second commit changed something");
            let scratch = world.compile();
            prop_assert_eq!(canonical(compiler.program()), canonical(scratch.program()));
            prop_assert_eq!(canonical(&compiler.raw_program()), canonical(&scratch.raw_program()));
            let program = compiler.program();
            prop_assert_eq!(canonical(&shadow), canonical(program));
            prop_assert_eq!(&shadow.datapaths, &program.datapaths);
            prop_assert_eq!(&shadow.ports, &program.ports);
            prop_assert_eq!(&shadow.groups, &program.groups);
            prop_assert_eq!(&shadow.chassis, &program.chassis);
            prop_assert_eq!(&shadow.fdb, &program.fdb);
            prop_assert_eq!(shadow.sets.len(), program.sets.len());
            let problems = |compiler: &Compiler| -> BTreeSet<String> { compiler.problems().iter().map(|p| p.to_string()).collect() };
            prop_assert_eq!(problems(&compiler), problems(&scratch));

            let raw = compiler.raw_program();
            for port in world.ports.values().filter(|port| matches!(port.location, Location::Local { .. })) {
                for frame in [tcp([10, 0, 0, 1], 80), tcp([10, 0, 0, 3], 22), tcp([10, 0, 0, 2], 1)] {
                    for arrival in [
                        Arrival::Port { datapath: port.datapath, port: port.key },
                        Arrival::Tunnel { datapath: port.datapath, inport: PortKey(4), outport: port.key },
                    ] {
                        let (mut simple, full) = (run(compiler.program(), arrival, &frame), run(&raw, arrival, &frame));
                        let mut walked = full.path.clone();
                        walked.retain(|step| simple.path.contains(step));
                        prop_assert_eq!(&simple.path, &walked, "the simplified walk is a part of the full one");
                        simple.path = full.path.clone();
                        // Where both drop because nothing is there, they may do so in different words.
                        let words = |outcome: &mut Outcome| outcome.drops.iter_mut().for_each(|drop| {
                            if drop.reason == Reason::PipelineEnd {
                                (drop.reason, drop.lflow) = (Reason::NoMatch, None);
                            }
                        });
                        let mut full = full;
                        words(&mut full);
                        words(&mut simple);
                        prop_assert_eq!(simple, full);
                    }
                }
            }
        }
    }
}

#[test]
fn a_closed_table_has_one_rule() {
    let mut flows = forwarding(1);
    flows.push(ingress(10, 1, 5, "ip4.src == nonsense", "drop;"));
    let mut compiler = switch(flows);
    compiler.set_chassis(Chassis { id: ChassisId(2), name: "hv2".into(), encap: None });
    assert_eq!(compiler.commit().chassis, [ChassisId(2)]);
    let table = compiler.program().tables().find(|table| table.pipeline == Pipeline::Ingress).unwrap();
    let rules: Vec<_> = compiler.program().rules(table).map(|rule| rule.acts.to_vec()).collect();
    assert_eq!(rules, [vec![Act::Drop(Cause::TableClosed)]]);
}

/// Another chassis, compiled from the rows of this one, does what a compiler does that was told its own view of the ports.
#[test]
fn another_chassis_is_this_one_with_the_ports_the_other_way_round() {
    use super::THIS_CHASSIS;
    let secured = |mut port: LogicalPort, address: &str| {
        port.port_security = vec![address.into()];
        port
    };
    let chassis = |id| Chassis { id: ChassisId(id), name: format!("hv{id}").as_str().into(), encap: None };
    let remote = |id| Location::Remote { chassis: ChassisId(id) };
    let mut here = Compiler::default();
    here.set_datapath(DP, Some(DatapathInfo { name: "sw".into(), router: false }));
    here.set_datapath(DatapathKey(2), Some(DatapathInfo { name: "other".into(), router: false }));
    here.set_chassis(chassis(2));
    here.set_chassis(chassis(3));
    // Only the other chassis' port has port security, so nothing is left of it in the policy of this one.
    here.set_port(port(1, 1, "a", local(101)));
    here.set_port(secured(port(1, 2, "b", remote(2)), "00:00:00:00:00:02 10.0.0.2"));
    here.set_port(port(1, 3, "c", remote(3)));
    here.set_port(LogicalPort { additional: vec![ChassisId(2)], ..port(1, 4, "moving", remote(3)) });
    here.set_port(port(2, 1, "foreign", local(102)));
    here.set_group(Group {
        datapath: DP,
        key: GroupKey(0x8000),
        name: "all".into(),
        members: (1..5).map(PortKey).collect(),
    });
    here.set_flow(ingress(1, 0, 0, "1", "reg0[15] = check_in_port_sec(); next;"));
    here.set_flow(ingress(2, 1, 50, "reg0[15] == 1", "drop;"));
    here.set_flow(ingress(3, 1, 0, "1", "outport = \"all\"; output;"));
    here.set_flow(egress(4, 0, 0, "1", "output;"));
    here.commit();
    let blueprint = here.blueprint(DP, ChassisId(2), "hv1", &|name| (name == "moving").then_some(7));
    // What it was taken from goes on, and is compiled no longer by the same thread.
    here.remove_port(DP, PortKey(4));
    here.set_flow(ingress(1, 0, 0, "1", "drop;"));
    here.commit();
    let there = std::thread::spawn(|| blueprint.compile()).join().expect("it compiles");
    let outcome = |frame: &[u8]| run(there.program(), Arrival::Port { datapath: DP, port: PortKey(2) }, frame);
    let mut frame = tcp([10, 0, 0, 2], 80);
    frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 2]);
    let sent = outcome(&frame);
    let to: BTreeSet<String> = sent.outputs.iter().map(|output| format!("{:?}", output.destination)).collect();
    let tunnels = |id: ChassisId| {
        let destination = crate::reference::Destination::Tunnel {
            chassis: id,
            datapath: DP,
            inport: PortKey(2),
            outport: PortKey(0x8000),
        };
        format!("{destination:?}")
    };
    assert!(to.contains(&tunnels(THIS_CHASSIS)) && to.contains(&tunnels(ChassisId(3))), "{sent:?}");
    // Its own copy of the port that moves to it, and not the sender's own.
    assert_eq!((to.len(), sent.drops.len(), sent.drops[0].reason), (3, 1, Reason::Loopback), "{sent:?}");
    let moved = there.program().port(DP, PortKey(4)).map(|port| port.location);
    assert!(matches!(moved, Some(Location::Local { tag: Some(7), .. })), "{moved:?}");
    frame[29] = 9;
    assert_eq!(outcome(&frame).drops[0].reason, Reason::LogicalFlow, "port security is that chassis' business");
    assert_eq!(there.program().chassis(THIS_CHASSIS).map(|chassis| &*chassis.name), Some("hv1"));
    assert!(there.program().port(DatapathKey(2), PortKey(1)).is_none(), "one datapath");
}
