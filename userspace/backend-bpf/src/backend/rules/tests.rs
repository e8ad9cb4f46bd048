//! Rules whose sets change, alone, together and with the rule itself, hold the keys of a rule that is put in from nothing.

use super::*;
use oxbow_pipeline::compile::{Compiler, DatapathInfo, FlowRow};
use oxbow_pipeline::ir::{FlowUuid, Location, LogicalPort, PortKey, PortKind};
use proptest::prelude::*;
use std::collections::BTreeSet;

const DATAPATH: DatapathKey = DatapathKey(1);

struct Bench {
    compiler: Compiler,
    rules: Rules,
    tables: Tables,
    blocks: Blocks,
    guards: Guards,
    stages: StageMaps,
}

impl Bench {
    /// A switch with ports p1 … p4.
    fn new() -> Bench {
        Bench::with_blocks(64)
    }

    fn with_blocks(blocks: u32) -> Bench {
        let mut compiler = Compiler::default();
        compiler.set_datapath(DATAPATH, Some(DatapathInfo { name: "sw".into(), router: false }));
        let mut guards = Guards::new(64);
        guards.index(Scope::Datapath(DATAPATH.0)).expect("room");
        for key in 1..=4 {
            guards.index(Scope::Port(DATAPATH.0, key)).expect("room");
            compiler.set_port(LogicalPort {
                datapath: DATAPATH,
                key: PortKey(key),
                name: format!("p{key}").as_str().into(),
                kind: PortKind::Vif,
                location: Location::Local { ifindex: 100 + key, tag: None },
                additional: Vec::new(),
                port_security: Vec::new(),
            });
        }
        compiler.set_flow(flow(100, Pipeline::Ingress, 0, 0, "1", "outport = \"p1\"; output;"));
        compiler.set_flow(flow(101, Pipeline::Egress, 0, 0, "1", "output;"));
        Bench {
            compiler,
            rules: Rules::new(1024),
            tables: Tables::new(64, 1024),
            blocks: Blocks::new(blocks),
            guards,
            stages: StageMaps::default(),
        }
    }

    fn addresses(&mut self, name: &str, members: impl IntoIterator<Item = u32>) {
        let members: Vec<String> =
            members.into_iter().map(|n| format!("10.0.{}.{}", n / 100, 1 + n % 100 * 2)).collect();
        self.compiler.set_address_set(name, Some(members.iter().map(String::as_str)));
    }

    fn ports(&mut self, members: &BTreeSet<u32>) {
        let members: Vec<String> = members.iter().map(|n| format!("p{n}")).collect();
        self.compiler.set_port_group("1_pg", Some(members.iter().map(String::as_str)));
    }

    fn commit(&mut self) {
        let changes = self.compiler.commit();
        let mut places = Places {
            tables: &mut self.tables,
            blocks: &mut self.blocks,
            guards: &mut self.guards,
            stages: &mut self.stages,
        };
        self.rules.apply(&mut places, self.compiler.program(), &changes);
    }

    /// Blocks of what went are free again, and what was refused is tried again: what `Backend::flush` does.
    fn commit_with_room(&mut self) {
        self.commit();
        self.rules.committed();
        for block in self.rules.settle() {
            self.blocks.release(block);
        }
        let mut places = Places {
            tables: &mut self.tables,
            blocks: &mut self.blocks,
            guards: &mut self.guards,
            stages: &mut self.stages,
        };
        self.rules.retry(&mut places, self.compiler.program());
    }

    /// Every rule holds each key of its conditions once, and no other.
    fn check(&self) -> Result<(), TestCaseError> {
        let program = self.compiler.program();
        for (id, held) in &self.rules.held {
            let lists: Vec<Vec<Masked>> = held.dims.iter().map(|dim| program.alternatives(dim).collect()).collect();
            let columns = held.dims.iter().zip(&lists).map(|(dim, list)| (dim.field, &list[..]));
            let keys = compile::keys(columns).expect("few keys");
            let number = |shape: &Shape| self.tables.tuple(held.table, shape).expect("a tuple of every key");
            let mut wanted: Vec<(u32, Key)> = keys.into_iter().map(|(shape, key)| (number(&shape), key)).collect();
            let mut held = held.entries.clone();
            wanted.sort();
            held.sort();
            prop_assert_eq!(held, wanted, "{:?}", id);
        }
        Ok(())
    }

    fn entries(&self) -> usize {
        self.rules.held.values().map(|held| held.entries.len()).sum()
    }
}

fn flow(uuid: u128, pipeline: Pipeline, stage: u8, priority: u16, matches: &str, actions: &str) -> FlowRow {
    FlowRow {
        uuid: FlowUuid(uuid),
        datapaths: vec![DATAPATH],
        pipeline,
        stage,
        priority,
        matches: matches.into(),
        actions: actions.into(),
        stage_name: "".into(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Addresses(BTreeSet<u32>),
    Ports(BTreeSet<u32>),
    /// Another action for the rule that names both.
    Edit(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let few = || proptest::collection::btree_set(1u32..5, 0..5);
    prop_oneof![
        3 => few().prop_map(Step::Addresses),
        3 => few().prop_map(Step::Ports),
        1 => any::<bool>().prop_map(Step::Edit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_of_sets_lead_where_everything_anew_leads(
        batches in proptest::collection::vec(proptest::collection::vec(step(), 1..4), 1..12),
    ) {
        let mut bench = Bench::new();
        let both = |pass: bool| {
            let actions = if pass { "next;" } else { "drop;" };
            flow(1, Pipeline::Egress, 0, 10, "outport == @pg && ip4.src == $s", actions)
        };
        bench.addresses("s", []);
        bench.ports(&BTreeSet::new());
        bench.compiler.set_flow(both(false));
        bench.compiler.set_flow(flow(2, Pipeline::Egress, 0, 9, "ip4.src == $s && ip4.dst == $s", "drop;"));
        bench.compiler.set_flow(flow(3, Pipeline::Ingress, 0, 8, "inport == @pg && ip4.dst == $s && udp", "drop;"));
        bench.commit();
        let mut members = BTreeSet::new();
        for batch in batches {
            let before = members.clone();
            bench.guards.committed();
            for step in batch {
                match step {
                    Step::Addresses(addresses) => bench.addresses("s", addresses),
                    Step::Ports(ports) => {
                        bench.ports(&ports);
                        members = ports;
                    }
                    Step::Edit(pass) => drop(bench.compiler.set_flow(both(pass))),
                }
            }
            bench.commit();
            bench.check()?;
            // Whoever came or went has no verdict from before.
            let datapath = bench.guards.index(Scope::Datapath(DATAPATH.0)).expect("known");
            for port in before.symmetric_difference(&members) {
                let guard = bench.guards.index(Scope::Port(DATAPATH.0, *port)).expect("known");
                let raised: Vec<u32> = bench.guards.raised().collect();
                prop_assert!(raised.contains(&guard) || raised.contains(&datapath), "p{} in {:?}", port, raised);
            }
        }
    }
}

#[test]
fn a_rule_with_too_many_keys_is_held_again_when_it_has_fewer() {
    let mut bench = Bench::new();
    bench.addresses("a", 0..300);
    bench.addresses("b", 0..300);
    bench.compiler.set_flow(flow(1, Pipeline::Egress, 0, 10, "ip4.src == $a && ip4.dst == $b", "drop;"));
    bench.compiler.set_flow(flow(2, Pipeline::Egress, 0, 9, "ip4.src == $a && ip4.dst == $b && udp", "next;"));
    bench.commit();
    let consequences = |bench: &Bench| -> Vec<Consequence> {
        bench.rules.problems().map(|(_, problem)| problem.consequence).collect()
    };
    let mut found = consequences(&bench);
    found.sort_by_key(|consequence| format!("{consequence:?}"));
    assert_eq!(found, [Consequence::LeftOut, Consequence::TableClosed]);
    bench.addresses("a", 0..10);
    bench.commit();
    assert_eq!(consequences(&bench), [], "{} entries", bench.entries());
    bench.addresses("b", 0..10);
    bench.commit();
    bench.check().expect("all keys");
    // It grows a few members at a time.
    for members in [200, 250, 299] {
        bench.addresses("a", 0..members);
        bench.addresses("b", 0..members);
        bench.commit();
    }
    assert_eq!(consequences(&bench).len(), 2, "{} entries", bench.entries());
}

#[test]
fn a_rule_without_a_place_gets_one_when_another_goes() {
    // Element 0 is nobody's; each of these actions is a block of its own.
    let mut bench = Bench::with_blocks(3);
    let acts = [
        "eth.src = 00:00:00:00:00:01; output;",
        "eth.dst = 00:00:00:00:00:02; output;",
        "ip.ttl = 3; output;",
        "ip.dscp = 4; output;",
    ];
    for (n, actions) in (1u16..).zip(acts) {
        bench.compiler.set_flow(flow(n.into(), Pipeline::Egress, 0, n, &format!("ip4.dst == 10.0.0.{n}"), actions));
    }
    bench.commit_with_room();
    assert_eq!(bench.rules.problems().count(), 2, "there are two blocks");
    bench.compiler.remove_flow(FlowUuid(1));
    bench.compiler.remove_flow(FlowUuid(2));
    bench.commit_with_room();
    assert_eq!(bench.rules.problems().count(), 0);
    bench.check().expect("all keys");
}

/// 256 masks are as many as a table may have. Which rules come too late depends on their order; that they get in when others go must not.
#[test]
fn rules_that_a_table_has_no_masks_for_get_in_when_others_go() {
    let mut bench = Bench::with_blocks(64);
    // A mask each.
    let matches = |n: u16| format!("ip4.dst == 10.0.0.0/{} && ip4.src == 10.0.0.0/{}", 9 + n % 23, 9 + n / 23);
    for n in 0..256 {
        bench.compiler.set_flow(flow(n.into(), Pipeline::Egress, 0, n, &matches(n), "output;"));
    }
    bench.commit_with_room();
    assert_eq!(bench.rules.problems().count(), 0);
    bench.compiler.set_flow(flow(1000, Pipeline::Egress, 0, 1000, &matches(256), "output;"));
    bench.compiler.set_flow(flow(1001, Pipeline::Egress, 0, 1001, &matches(257), "drop;"));
    bench.commit_with_room();
    assert_eq!(bench.rules.problems().count(), 2);
    assert!(!bench.rules.has_refused(&bench.tables), "there is no room yet");
    // One mask for the rule that drops and one for closing the table, which then needs none.
    for (gone, problems) in [(0, 1), (1, 0)] {
        bench.compiler.remove_flow(FlowUuid(gone));
        bench.commit_with_room();
        assert_eq!(bench.rules.problems().count(), problems, "{:?}", bench.rules.problems().collect::<Vec<_>>());
    }
    assert!(bench.rules.unclosed().is_none());
    bench.check().expect("all keys");
}
