//! What the backend makes of a switch's tables, by the packets of the loaded programs.
#![cfg(feature = "ring0")]
#![expect(clippy::unwrap_used, reason = "a test: a failed step is a failed test")]

mod cloud;

use aya::programs::{TestRun as _, TestRunOptions};
use cloud::{Switch, config, next, outport, small};
use oxbow_abi::stats::total;
use oxbow_backend_bpf::kernel::Role;
use oxbow_backend_bpf::{Backend, Limits};
use oxbow_pipeline::ir::{Act, Changes, Field, Pipeline, Rule};
use oxbow_testkit::netns::Netns;
use std::path::Path;
use std::sync::Arc;

/// `TC_ACT_REDIRECT` and `TC_ACT_SHOT`.
const REDIRECT: u32 = 7;
const SHOT: u32 = 2;

/// A switch with two ports; the rules that `make` gives it are in force.
fn with<T: Send>(make: impl FnOnce(&mut Switch) -> Vec<Arc<Rule>> + Send, run: impl FnOnce(Loaded) -> T + Send) -> T {
    let ns = Netns::with_own_sys("switch").unwrap();
    ns.ip("link add v0 type veth peer name v1").unwrap();
    ns.enter(|| {
        let (mut switch, mut changes) = Switch::new(3);
        changes.rules_added = make(&mut switch);
        let index = nix::net::if_::if_nametoindex("v0").unwrap();
        switch.local_port(1, index, &mut changes);
        switch.local_port(2, index + 1000, &mut changes);
        switch.program.apply(&changes);
        let mut backend = Backend::open(&config(Path::new("/sys/fs/bpf"), small()), Limits::default()).unwrap();
        backend.commit(&switch.program, &changes).unwrap();
        run(Loaded { switch, backend, index })
    })
    .unwrap()
}

struct Loaded {
    switch: Switch,
    backend: Backend,
    index: u32,
}

impl Loaded {
    /// What the program answers to a frame from port 1.
    fn send(&mut self, frame: &[u8]) -> u32 {
        let mut context = [0u8; 192];
        context[40..44].copy_from_slice(&self.index.to_ne_bytes());
        let program = self.backend.instance().program(Role::Vif).unwrap();
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat: 1, ..TestRunOptions::default() };
        program.test_run(options).unwrap().return_value
    }

    fn total(&mut self, index: u32) -> u64 {
        self.backend.instance().counters.total(index).unwrap().packets
    }

    fn commit(&mut self, changes: &Changes) {
        self.switch.program.apply(changes);
        self.backend.commit(&self.switch.program, changes).unwrap();
    }
}

/// Ethernet and an IPv4 datagram, or ARP: 64 bytes, of which the fields that the rules look at are set.
fn frame(eth_type: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(eth_type.to_be_bytes());
    if eth_type == 0x806 {
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    } else {
        frame.extend([0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 0, 30]);
    }
    frame.resize(64, 0);
    frame
}

fn responder(switch: &mut Switch, address: u128) -> Arc<Rule> {
    let arp = [(Field::EthType, 0x806), (Field::ArpOp, 1), (Field::ArpTpa, address)];
    switch.rule(Pipeline::Ingress, 0, 50, &arp, vec![Act::Drop(oxbow_pipeline::ir::Cause::LogicalFlow)])
}

fn forwarding(switch: &mut Switch) -> Vec<Arc<Rule>> {
    vec![
        switch.rule(Pipeline::Ingress, 0, 0, &[], vec![next(Pipeline::Ingress, 1)]),
        switch.rule(Pipeline::Ingress, 1, 0, &[], vec![outport(2), Act::Output]),
        switch.rule(Pipeline::Egress, 0, 0, &[], vec![Act::Output]),
    ]
}

/// A switch's ARP responder looks at fields that are not in the verdict key; what is not ARP never gets that far.
#[test]
fn an_arp_responder_in_the_way_does_not_keep_ip_flows_out_of_the_cache() {
    let rules = |switch: &mut Switch| {
        let mut rules = forwarding(switch);
        rules.extend((1..=9).map(|host| responder(switch, host)));
        rules
    };
    with(rules, |mut loaded| {
        for _ in 0..3 {
            assert_eq!(loaded.send(&frame(0x800)), REDIRECT);
        }
        assert_eq!((loaded.total(total::WALK), loaded.total(total::CACHE_HIT)), (1, 2));
        // ARP itself walks every time.
        assert_eq!((loaded.send(&frame(0x806)), loaded.send(&frame(0x806))), (REDIRECT, REDIRECT));
        assert_eq!((loaded.total(total::WALK), loaded.total(total::CACHE_HIT)), (3, 2));
    });
}

/// The only rule of a mask stands in the tuple array itself. It has to follow that rule, and to make way when a second one comes.
#[test]
fn a_lone_rule_is_followed_wherever_it_stands() {
    let ip = |switch: &mut Switch, eth_type: u128, pass: bool| {
        let acts =
            if pass { vec![outport(2), Act::Output] } else { vec![Act::Drop(oxbow_pipeline::ir::Cause::LogicalFlow)] };
        switch.rule(Pipeline::Ingress, 0, 10, &[(Field::EthType, eth_type)], acts)
    };
    let rules = |switch: &mut Switch| {
        let mut rules = forwarding(switch);
        rules.push(ip(switch, 0x800, false));
        rules
    };
    with(rules, |mut loaded| {
        let ipv4 = frame(0x800);
        assert_eq!(loaded.send(&ipv4), SHOT);
        // Another rule at the same key takes its place.
        let denied = loaded.switch.program.rules(table()).find(|rule| rule.priority == 10).cloned().unwrap();
        let allowed = ip(&mut loaded.switch, 0x800, true);
        let changes =
            Changes { rules_removed: vec![denied], rules_added: vec![Arc::clone(&allowed)], ..Changes::default() };
        loaded.commit(&changes);
        assert_eq!(loaded.send(&ipv4), REDIRECT);
        // A second key of the same mask; then the first one goes.
        let other = ip(&mut loaded.switch, 0x88b5, false);
        loaded.commit(&Changes { rules_added: vec![other], ..Changes::default() });
        assert_eq!((loaded.send(&ipv4), loaded.send(&frame(0x88b5))), (REDIRECT, SHOT));
        loaded.commit(&Changes { rules_removed: vec![allowed], ..Changes::default() });
        assert_eq!((loaded.send(&ipv4), loaded.send(&frame(0x88b5))), (REDIRECT, SHOT), "by the default of the table");
    });
}

/// What CPUs keep of a verdict ends with it, is in its count, and in nobody else's way.
#[test]
fn a_commit_ends_what_cpus_keep_and_their_hits_are_the_verdicts() {
    with(forwarding, |mut loaded| {
        let ipv4 = frame(0x800);
        for _ in 0..40 {
            assert_eq!(loaded.send(&ipv4), REDIRECT);
        }
        let (verdicts, _) = loaded.backend.verdicts().unwrap();
        let [(key, verdict)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
        assert_eq!((verdict.hits, verdict.bytes), (39, 39 * ipv4.len() as u64));
        let kept = &loaded.backend.instance().maps.exact;
        let held: u64 = kept.hits().unwrap().values().map(|count| count.packets).sum();
        assert!(held > 30, "most of them are still with the CPU: {held}");
        assert!(kept.hits().unwrap().keys().all(|(other, created)| (other, *created) == (key, verdict.created)));
        let fill = loaded.backend.fill().unwrap();
        let exact = fill.iter().find(|one| one.map == "OX_EXACT").unwrap();
        let cpus = aya::util::nr_cpus().unwrap() as u64;
        assert!(exact.cache && exact.capacity == 512 * cpus && (1..=cpus).contains(&exact.entries), "{exact:?}");
        // What the backend says of the maps' content does not depend on it.
        let content = loaded.backend.content(&|flow| flow.to_string()).unwrap();
        assert_eq!(loaded.send(&ipv4), REDIRECT);
        assert_eq!(loaded.backend.content(&|flow| flow.to_string()).unwrap(), content);
        // A rule of another Ethernet type concerns the datapath's guard, and this flow with it: it walks once.
        let walks = loaded.total(total::WALK);
        let other = responder(&mut loaded.switch, 9);
        loaded.commit(&Changes { rules_added: vec![other], ..Changes::default() });
        for _ in 0..3 {
            assert_eq!(loaded.send(&ipv4), REDIRECT);
        }
        assert_eq!(loaded.total(total::WALK), walks + 1);
        // And at once when it is to pass no more.
        let acts = vec![Act::Drop(oxbow_pipeline::ir::Cause::LogicalFlow)];
        let denied = loaded.switch.rule(Pipeline::Ingress, 0, 90, &[(Field::EthType, 0x800)], acts);
        loaded.commit(&Changes { rules_added: vec![denied], ..Changes::default() });
        assert_eq!((loaded.send(&ipv4), loaded.send(&ipv4)), (SHOT, SHOT));
    });
}

/// The number of a logical flow that is gone counts for the next one that has it from zero; the others go on.
#[test]
fn a_number_that_another_logical_flow_gets_counts_anew() {
    let rules = |switch: &mut Switch| {
        let mut rules = forwarding(switch);
        rules.push(responder(switch, 0));
        rules
    };
    with(rules, |mut loaded| {
        let arp = frame(0x806);
        assert_eq!((loaded.send(&arp), loaded.send(&arp)), (SHOT, SHOT));
        let gone = loaded.switch.program.rules(table()).find(|rule| rule.priority == 50).cloned().unwrap();
        let stays = loaded.switch.program.rules(table()).find(|rule| rule.priority == 0).cloned().unwrap();
        assert_eq!(loaded.send(&frame(0x88b5)), REDIRECT);
        let counted = |loaded: &mut Loaded| {
            [&gone, &stays].map(|rule| loaded.backend.instance().counters.lflow(rule.lflow.0).unwrap().packets)
        };
        assert_eq!(counted(&mut loaded), [2, 1]);
        loaded.commit(&Changes {
            rules_removed: vec![Arc::clone(&gone)],
            flows_gone: vec![gone.lflow],
            ..Changes::default()
        });
        assert_eq!(counted(&mut loaded), [0, 1]);
        loaded.commit(&Changes { rules_added: vec![Arc::clone(&gone)], ..Changes::default() });
        assert_eq!(loaded.send(&arp), SHOT);
        assert_eq!(counted(&mut loaded), [1, 1]);
    });
}

fn table() -> oxbow_pipeline::ir::TableId {
    oxbow_pipeline::ir::TableId { datapath: cloud::SWITCH, pipeline: Pipeline::Ingress, stage: 0 }
}
