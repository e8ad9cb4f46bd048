//! Loading, pinning, taking over and removing, with the real programs on real devices.
#![cfg(feature = "ring0")]
#![expect(clippy::unwrap_used, reason = "a test: a failed step is a failed test")]

mod cloud;

use aya::programs::links::LinkOrder;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType};
use cloud::{SWITCH, Switch, config, next, outport, small};
use oxbow_abi::rule::{NarrowKey, Rule, RuleSlot};
use oxbow_abi::stats::total;
use oxbow_backend_bpf::kernel::{Hook, HookChoice, Role, Sizes};
use oxbow_backend_bpf::{Backend, CommitError, Limits};
use oxbow_pipeline::ir::{Act, Changes, Field, Pipeline};
use oxbow_testkit::frames::Frames;
use oxbow_testkit::netns::Netns;
use oxbow_testkit::wait::{Look, PATIENCE, wait_until};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BPFFS: &str = "/sys/fs/bpf";

fn namespace() -> Netns {
    let ns = Netns::with_own_sys("backend").unwrap();
    ns.ip("link add v0 type veth peer name v1").unwrap();
    ns.ip("link set v0 up").unwrap();
    ns.ip("link set v1 up").unwrap();
    ns
}

fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// Whether this kernel has tcx.
fn has_tcx() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 6)
}

/// Ids of the programs on a device by tcx; before Linux 6.6, by filters of clsact, which is what the backend then attaches by.
fn attached(ns: &Netns, name: &str) -> Vec<u32> {
    if !has_tcx() {
        let text = ns.run("tc", &["filter", "show", "dev", name, "ingress"]).unwrap();
        let ids = text.split(" id ").skip(1).map(|rest| rest.split_whitespace().next().unwrap().parse().unwrap());
        return ids.collect();
    }
    let (_, programs) = SchedClassifier::query_tcx(name, TcAttachType::Ingress).unwrap();
    programs.iter().map(|p| p.id()).collect()
}

fn open(sizes: Sizes) -> Backend {
    Backend::open(&config(Path::new(BPFFS), sizes), Limits::default()).unwrap()
}

fn pins() -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![std::path::PathBuf::from(BPFFS)];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_none_or(|extension| extension != "debug") {
                // maps.debug and progs.debug belong to every bpffs.
                found.push(path.strip_prefix(BPFFS).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// One rule that sends everything from port 1 to port 2.
fn one_rule() -> (Switch, Changes) {
    let (mut switch, mut changes) = Switch::new(1);
    changes.rules_added.push(switch.rule(
        Pipeline::Ingress,
        0,
        10,
        &[(Field::InPort, 1)],
        vec![outport(2), Act::Output],
    ));
    changes.rules_added.push(switch.rule(Pipeline::Egress, 0, 0, &[], vec![Act::Output]));
    switch.local_port(1, ifindex("v0"), &mut changes);
    switch.program.apply(&changes);
    (switch, changes)
}

#[test]
fn a_second_daemon_takes_over_in_one_replacement_and_removal_leaves_nothing() {
    let ns = namespace();
    ns.enter(|| {
        let (switch, changes) = one_rule();
        let mut first = open(small());
        assert_eq!(first.instance().hook(), if has_tcx() { Hook::Tcx } else { Hook::Clsact });
        first.instance().attach("v0", ifindex("v0"), Role::Vif).unwrap();
        // One version for the policy, one for the ports.
        assert_eq!(first.commit(&switch.program, &changes).unwrap().version, 2);
        assert_eq!(first.activate().unwrap(), Vec::<String>::new());
        let before = attached(&ns, "v0");
        assert_eq!(before.len(), 1);
        // The daemon dies: its programs stay.
        drop(first);
        assert_eq!(attached(&ns, "v0"), before);

        let mut second = open(small());
        second.instance().attach("v0", ifindex("v0"), Role::Vif).unwrap();
        second.commit(&switch.program, &changes).unwrap();
        assert_eq!(attached(&ns, "v0"), before, "nothing changes before the new policy is complete");
        second.activate().unwrap();
        let after = attached(&ns, "v0");
        assert!(after.len() == 1 && after != before, "replaced, not stacked: {before:?} -> {after:?}");
        let left = pins();
        assert!(left.iter().all(|pin| !pin.contains("instance-1/")), "the first instance is retired: {left:#?}");
        assert!(left.iter().any(|pin| pin.starts_with("oxbow/hv1%2Etest/")), "{left:#?}");

        second.remove_everything().unwrap();
        assert_eq!(attached(&ns, "v0"), Vec::<u32>::new());
        assert_eq!(pins(), Vec::<String>::new());
    })
    .unwrap();
}

#[test]
fn a_device_that_nobody_asks_for_after_a_restart_is_detached() {
    let ns = namespace();
    ns.enter(|| {
        let mut first = open(small());
        first.instance().attach("v0", ifindex("v0"), Role::Vif).unwrap();
        first.instance().attach("v1", ifindex("v1"), Role::Vif).unwrap();
        let (switch, changes) = one_rule();
        first.commit(&switch.program, &changes).unwrap();
        first.activate().unwrap();
        drop(first);
        let mut second = open(small());
        second.instance().attach("v0", ifindex("v0"), Role::Vif).unwrap();
        second.commit(&switch.program, &changes).unwrap();
        assert_eq!(second.activate().unwrap(), [format!("{}-vif", ifindex("v1"))]);
        assert_eq!((attached(&ns, "v0").len(), attached(&ns, "v1").len()), (1, 0));
        second.instance().detach(ifindex("v0"), Role::Vif).unwrap();
        assert_eq!(attached(&ns, "v0").len(), 0);
        second.remove_everything().unwrap();
    })
    .unwrap();
}

#[test]
fn a_device_that_comes_back_under_its_index_is_attached_anew() {
    let ns = namespace();
    ns.enter(|| {
        let mut backend = open(small());
        let index = ifindex("v0");
        backend.instance().attach("v0", index, Role::Vif).unwrap();
        backend.activate().unwrap();
        ns.ip("link del v0").unwrap();
        ns.ip(&format!("link add v0 index {index} type veth peer name v1")).unwrap();
        assert_eq!(attached(&ns, "v0").len(), 0);
        backend.instance().attach("v0", index, Role::Vif).unwrap();
        assert_eq!(attached(&ns, "v0").len(), 1);
        backend.remove_everything().unwrap();
    })
    .unwrap();
}

#[test]
fn without_tcx_the_filters_of_clsact_are_replaced_and_removed() {
    let ns = namespace();
    ns.enter(|| {
        let mut config = config(Path::new(BPFFS), small());
        config.hook = HookChoice::Clsact;
        let filters = || ns.run("tc", &["filter", "show", "dev", "v0", "ingress"]).unwrap();
        for _ in 0..2 {
            let mut backend = Backend::open(&config, Limits::default()).unwrap();
            assert_eq!(backend.instance().hook(), Hook::Clsact);
            backend.instance().attach("v0", ifindex("v0"), Role::Vif).unwrap();
            backend.activate().unwrap();
            drop(backend);
            assert_eq!(filters().matches("handle 0xb0e oxbow_vif").count(), 1, "{}", filters());
        }
        let mut backend = Backend::open(&config, Limits::default()).unwrap();
        backend.instance().attach("v0", ifindex("v0"), Role::Vif).unwrap();
        backend.remove_everything().unwrap();
        assert_eq!(filters().matches("oxbow_vif").count(), 0, "{}", filters());
    })
    .unwrap();
}

#[test]
fn a_new_device_is_served_at_once_and_every_frame_meets_the_program_once_while_it_gets_its_link() {
    if !has_tcx() {
        // There every device is served by a filter for good.
        return;
    }
    let ns = Netns::with_own_sys("backend").unwrap();
    // The kernel's own frames are not counted below.
    ns.run("sysctl", &["-q", "-w", "net.ipv6.conf.default.disable_ipv6=1"]).unwrap();
    ns.ip("link add v0 type veth peer name v1").unwrap();
    ns.ip("link set v0 up").unwrap();
    ns.ip("link set v1 up").unwrap();
    let sender = Frames::open(&ns, "v1").unwrap();
    let frame = [[0xffu8; 6].as_slice(), &[2, 0, 0, 0, 0, 1, 0x08, 0x00], &[0; 46]].concat();
    ns.enter(|| {
        let filters = || {
            ns.run("tc", &["filter", "show", "dev", "v0", "ingress"]).unwrap().matches("handle 0xb0e oxbow_vif").count()
        };
        let (switch, changes) = one_rule();
        let mut backend = open(small());
        backend.commit(&switch.program, &changes).unwrap();
        backend.activate().unwrap();
        let index = ifindex("v0");
        let received = |backend: &mut Backend| backend.instance().counters.total(total::VIF_RX).unwrap().packets;
        for round in 0..4 {
            backend.instance().attach_at_once("v0", index).unwrap();
            assert_eq!((attached(&ns, "v0").len(), filters()), (0, 1), "round {round}: served by a filter");
            let before = received(&mut backend);
            let stop = AtomicBool::new(false);
            let sent = std::thread::scope(|scope| {
                let sending = scope.spawn(|| {
                    let mut sent = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        // A rate, no wait: the other end's queue (net.core.netdev_max_backlog) must not overflow, or what was sent is not what could be met.
                        for _ in 0..16 {
                            sender.send(&frame).unwrap();
                            sent += 1;
                        }
                        std::thread::sleep(Duration::from_micros(300));
                    }
                    sent
                });
                let changed = wait_until("a link instead of the filter", PATIENCE, || {
                    backend.instance().make_links()?;
                    let now = (attached(&ns, "v0").len(), filters());
                    Ok(Look::when(now == (1, 0), || format!("{now:?}")))
                });
                stop.store(true, Ordering::Relaxed);
                let sent = sending.join().unwrap();
                changed.unwrap();
                sent
            });
            wait_until("the last frames", PATIENCE, || {
                let seen = received(&mut backend) - before;
                assert!(seen <= sent, "round {round}: {sent} frames were sent, the program met {seen}");
                Ok(Look::when(seen == sent, || format!("{seen} of {sent}")))
            })
            .unwrap();
            assert!(sent > 0);
            backend.instance().detach(index, Role::Vif).unwrap();
            assert_eq!((attached(&ns, "v0").len(), filters()), (0, 0));
        }
        // A daemon that dies before the link is made leaves the filter, and the next one changes over.
        backend.instance().attach_at_once("v0", index).unwrap();
        drop(backend);
        assert_eq!((attached(&ns, "v0").len(), filters()), (0, 1));
        let mut second = open(small());
        second.instance().attach_at_once("v0", index).unwrap();
        second.commit(&switch.program, &changes).unwrap();
        assert_eq!((attached(&ns, "v0").len(), filters()), (0, 1), "not before the policy is whole");
        second.activate().unwrap();
        assert_eq!((attached(&ns, "v0").len(), filters()), (1, 0));
        // One that goes again while its link is being made gets none.
        second.instance().attach_at_once("v1", ifindex("v1")).unwrap();
        second.instance().make_links().unwrap();
        second.instance().detach(ifindex("v1"), Role::Vif).unwrap();
        assert_eq!(attached(&ns, "v1").len(), 0);
        // Where somebody else's program is on the device already, ours does not stay behind it.
        let mut others = open(small());
        others
            .instance()
            .program(Role::Vif)
            .unwrap()
            .attach_with_options("v1", TcAttachType::Ingress, TcAttachOptions::TcxOrder(LinkOrder::first()))
            .unwrap();
        assert_eq!(attached(&ns, "v1").len(), 1);
        second.instance().attach_at_once("v1", ifindex("v1")).unwrap();
        wait_until("the first place", PATIENCE, || {
            Ok(Look::when(attached(&ns, "v1").len() == 2, || "not yet".to_owned()))
        })
        .unwrap();
        drop(others);
        // The end of everything includes those that still have a filter.
        second.instance().detach(index, Role::Vif).unwrap();
        second.instance().attach_at_once("v0", index).unwrap();
        assert_eq!(filters(), 1);
        second.remove_everything().unwrap();
        assert_eq!((attached(&ns, "v0").len(), filters(), pins()), (0, 0, Vec::new()));
    })
    .unwrap();
}

#[test]
fn a_filter_of_a_former_daemon_stays_until_the_policy_is_whole_and_the_other_hook_takes_over() {
    let ns = namespace();
    ns.enter(|| {
        let filter_id = || {
            let text = ns.run("tc", &["filter", "show", "dev", "v0", "ingress"]).unwrap();
            let id = text.split_once(" id ").map(|(_, rest)| rest.split_whitespace().next().unwrap().to_owned());
            (id, text)
        };
        let start = |hook: HookChoice| {
            let mut config = config(Path::new(BPFFS), small());
            config.hook = hook;
            let mut backend = Backend::open(&config, Limits::default()).unwrap();
            backend.instance().attach("v0", ifindex("v0"), Role::Vif).unwrap();
            backend
        };
        let mut first = start(HookChoice::Clsact);
        first.activate().unwrap();
        drop(first);
        let before = filter_id();
        assert!(before.0.is_some(), "{}", before.1);
        // Attached again, not yet whole: the filter is the old one.
        let mut second = start(HookChoice::Clsact);
        assert_eq!(filter_id().0, before.0);
        second.activate().unwrap();
        assert_ne!(filter_id().0, before.0, "{}", filter_id().1);
        drop(second);
        if !has_tcx() {
            let mut config = config(Path::new(BPFFS), small());
            config.hook = HookChoice::Tcx;
            let error = Backend::open(&config, Limits::default()).err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains("tcx")), "{error:?}");
            start(HookChoice::Auto).remove_everything().unwrap();
            assert_eq!(filter_id().0, None, "{}", filter_id().1);
            return;
        }
        // A later one uses tcx: the filter goes when the link is in force.
        let mut third = start(HookChoice::Tcx);
        assert!(filter_id().0.is_some());
        third.activate().unwrap();
        assert_eq!(filter_id().0, None, "{}", filter_id().1);
        assert_eq!(attached(&ns, "v0").len(), 1);
        drop(third);
        let mut fourth = start(HookChoice::Clsact);
        fourth.activate().unwrap();
        assert_eq!(attached(&ns, "v0").len(), 0);
        assert!(filter_id().0.is_some());
        fourth.remove_everything().unwrap();
        assert_eq!(filter_id().0, None, "{}", filter_id().1);
    })
    .unwrap();
}

#[test]
fn a_full_map_is_named_and_the_version_in_force_stays() {
    let ns = namespace();
    ns.enter(|| {
        let mut backend = open(Sizes { rules: 8, ..small() });
        let (mut switch, changes) = one_rule();
        let before = backend.commit(&switch.program, &changes).unwrap().version;
        let mut many = Changes::default();
        for n in 0..20u128 {
            let rule = switch.rule(Pipeline::Ingress, 0, 20, &[(Field::EthDst, n)], vec![next(Pipeline::Egress, 0)]);
            many.rules_added.push(rule);
        }
        switch.program.apply(&many);
        let error = backend.commit(&switch.program, &many).unwrap_err();
        assert!(matches!(error, CommitError::Map(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "map OX_RULES is full (8 entries): start oxbow-node with a larger --map-size OX_RULES=N"
        );
        assert_eq!(backend.version(), before);
        // Taking the excess away makes the next commit succeed.
        let fewer = Changes { rules_removed: many.rules_added[3..].to_vec(), ..Changes::default() };
        switch.program.apply(&fewer);
        assert_eq!(backend.commit(&switch.program, &fewer).unwrap().version, before + 1);
        backend.settle().unwrap();
        assert_eq!(backend.instance().maps.rules.entries().count(), 5);
        backend.remove_everything().unwrap();
    })
    .unwrap();
}

#[test]
fn many_keys_go_at_once_whichever_of_them_are_there() {
    let ns = namespace();
    ns.enter(|| {
        let mut backend = open(small());
        let rules = &mut backend.instance().maps.rules;
        let key = |tuple| NarrowKey { tuple, ..NarrowKey::default() };
        let keys = [1, 2, 4, 5].map(key);
        rules.insert_many(&keys, &keys.map(|_| Rule { slot: [RuleSlot::EMPTY; 2] })).unwrap();
        rules.remove_many(&[1, 3, 2, 9, 5].map(key)).unwrap();
        let left: Vec<u32> = rules.snapshot().unwrap().into_iter().map(|(key, _)| key.tuple).collect();
        assert_eq!(left, [4]);
        rules.remove_many(&[]).unwrap();
        rules.remove_many(&[7, 8].map(key)).unwrap();
        rules.remove_many(&[4, 6].map(key)).unwrap();
        assert_eq!(rules.count().unwrap(), 0);
        backend.remove_everything().unwrap();
    })
    .unwrap();
}

#[test]
fn rules_that_cannot_be_held_are_reported_and_fail_closed() {
    let ns = namespace();
    ns.enter(|| {
        let mut backend = open(small());
        let (mut switch, mut changes) = one_rule();
        // A field that the kernel does not carry: one rule that lets pass, one that drops.
        let passes = switch.rule(Pipeline::Ingress, 0, 30, &[(Field::CtProto, 6)], vec![next(Pipeline::Egress, 0)]);
        let drops = switch.rule(Pipeline::Egress, 0, 30, &[(Field::CtProto, 6)], vec![]);
        changes.rules_added.extend([passes.clone(), drops.clone()]);
        switch.program.apply(&changes);
        backend.commit(&switch.program, &changes).unwrap();
        let problems: Vec<_> = backend.problems().map(|(id, p)| (id, p.datapath, p.consequence)).collect();
        use oxbow_pipeline::ir::Consequence::{LeftOut, TableClosed};
        assert_eq!(problems, [(passes.id, SWITCH, LeftOut), (drops.id, SWITCH, TableClosed)]);
        let gone = Changes { rules_removed: vec![passes, drops], ..Changes::default() };
        switch.program.apply(&gone);
        backend.commit(&switch.program, &gone).unwrap();
        assert_eq!(backend.problems().count(), 0);
        backend.remove_everything().unwrap();
    })
    .unwrap();
}

#[test]
fn a_dropping_rule_without_any_place_keeps_the_policy_before_in_force() {
    let ns = namespace();
    ns.enter(|| {
        // Room for no list of actions: the first policy's are too short to need any.
        let mut backend = open(Sizes { blocks: 1, ..small() });
        let (mut switch, changes) = one_rule();
        backend.commit(&switch.program, &changes).unwrap();
        let rule = switch.rule(Pipeline::Ingress, 0, 30, &[(Field::EthDst, 5)], vec![]);
        let more = Changes { rules_added: vec![rule.clone()], ..Changes::default() };
        switch.program.apply(&more);
        let error = backend.commit(&switch.program, &more).unwrap_err();
        assert!(matches!(&error, CommitError::Unclosed(what) if what.contains("OX_BLOCKS")), "{error}");
        let consequences: Vec<_> = backend.problems().map(|(id, p)| (id, p.consequence)).collect();
        assert_eq!(consequences, [(rule.id, oxbow_pipeline::ir::Consequence::CommitRefused)]);
        let version = backend.version();
        assert!(backend.commit(&switch.program, &Changes::default()).is_err(), "trying again changes nothing");
        assert_eq!(backend.version(), version);
        let gone = Changes { rules_removed: vec![rule], ..Changes::default() };
        switch.program.apply(&gone);
        assert!(backend.commit(&switch.program, &gone).unwrap().version > version);
        assert_eq!(backend.problems().count(), 0);
        backend.remove_everything().unwrap();
    })
    .unwrap();
}
