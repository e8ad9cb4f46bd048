//! A switch that hangs, one that is not there, one that comes back: nothing here waits for it.

use super::*;
use crate::dataplane::Versions;
use nix::sys::signal::Signal;
use oxbow_pipeline::compile::{Compiler, DatapathInfo, FlowRow};
use oxbow_pipeline::ir::{DatapathKey, FlowUuid, Pipeline};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{DummySwitch, wait_until};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;

fn location(remote: String) -> Location {
    Location { program: "ovs-ofctl".into(), bridge: "br-int".into(), remote }
}

fn flow(compiler: &mut Compiler, number: u128, matches: &str) -> Changes {
    compiler.set_datapath(DatapathKey(1), Some(DatapathInfo { name: "sw".into(), router: false }));
    compiler.set_flow(FlowRow {
        uuid: FlowUuid(number << 96),
        datapaths: vec![DatapathKey(1)],
        pipeline: Pipeline::Ingress,
        stage: 0,
        priority: 10,
        matches: matches.into(),
        actions: "drop;".into(),
        stage_name: "".into(),
    });
    compiler.commit()
}

fn cookie(flow: LflowId) -> u64 {
    u64::from(flow.0) + 7
}

/// Commits until everything that was asked for is in force.
fn until_in_force(dataplane: &mut OpenFlow, program: &Program) {
    wait_until("the bridge holds what it should", PATIENCE, || {
        let Versions { asked, in_force } = dataplane.commit(program, &Changes::default(), &cookie)?;
        let is_active = dataplane.activate(program)?;
        Ok(Look::when(is_active && asked <= in_force, || format!("{asked} asked, {in_force} in force")))
    })
    .expect("in force");
}

#[test]
fn a_bridge_that_nobody_manages_is_named_with_what_to_do() {
    let mut dataplane = Opening::default().open(location("unix:/nowhere/br-int.mgmt".into())).expect("it may come");
    let error = dataplane.commit(&Program::default(), &Changes::default(), &|_| 0).expect_err("it is not there");
    let text = error.to_string();
    for part in ["br-int", "/nowhere/br-int.mgmt", "ovs-vswitchd", "--backend=ebpf"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(dataplane.taken_over().is_empty());
}

#[test]
fn one_that_is_silent_from_the_start_is_told_and_looked_after_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("br-int.mgmt");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut opening = Opening::default();
    let at = location(format!("unix:{}", path.display()));
    for _ in 0..2 {
        // Somebody listens and never says a word.
        let error = opening.open(at.clone()).expect_err("it does not answer");
        assert!(matches!(&error, DataplaneError::Unreachable(text) if text.contains("does not answer")), "{error}");
    }
    // It ends: then there is nobody, and nothing that was served.
    drop(listener);
    wait_until("that nobody is there", PATIENCE, || match opening.open(at.clone()) {
        Ok(dataplane) => Ok(Look::Held(dataplane.taken_over())),
        Err(error) => Ok(Look::NotYet(error.to_string())),
    })
    .expect("it ends");
}

#[test]
fn one_that_hangs_holds_nothing_up_and_is_given_everything_when_it_goes_on() {
    let switch = DummySwitch::start(Ipv4Addr::new(203, 0, 113, 1)).expect("a switch");
    let mut dataplane = Opening::default().open(location(switch.bridge())).expect("it answers");
    let mut compiler = Compiler::default();
    let changes = flow(&mut compiler, 1, "ip4.src == 10.0.0.1");
    dataplane.commit(compiler.program(), &changes, &cookie).expect("followed");
    until_in_force(&mut dataplane, compiler.program());
    assert_eq!(dataplane.flow_packets(1).expect("it is counted"), 0);

    switch.signal_vswitchd(Signal::SIGSTOP).expect("it stops");
    let mut versions = Vec::new();
    for number in 2..5 {
        // Each of them would wait for ovs-ofctl's two minutes if it waited.
        let changes = flow(&mut compiler, number, &format!("ip4.src == 10.0.0.{number}"));
        let Versions { asked, in_force } = dataplane.commit(compiler.program(), &changes, &cookie).expect("begun");
        assert!(asked > in_force, "{asked} {in_force}");
        versions.push(asked);
        dataplane.events();
        dataplane.tidy().expect("nothing waits");
    }
    // The first is on its way, the others go together.
    assert_eq!((versions[1] - versions[0], versions[2] - versions[1]), (1, 0), "{versions:?}");
    dataplane.counters = None;
    let error = dataplane.flow_packets(1).expect_err("nobody counts").to_string();
    assert!(error.contains("does not answer"), "{error}");
    wait_until("its silence is told", PATIENCE, || {
        let trouble = dataplane.trouble();
        Ok(Look::when(trouble.as_ref().is_some_and(|text| text.contains("does not answer")), || format!("{trouble:?}")))
    })
    .expect("told");

    switch.signal_vswitchd(Signal::SIGCONT).expect("it goes on");
    until_in_force(&mut dataplane, compiler.program());
    let flows = switch.control("bridge/dump-flows", &["br-int"]).expect("its flows");
    for number in 1..5 {
        assert!(flows.contains(&format!("nw_src=10.0.0.{number}")), "{number} in {flows}");
    }
    dataplane.hear();
    assert_eq!(dataplane.trouble(), None);
    // The first, the one that was on its way, and the two that went together.
    let told = dataplane.bundles().expect("it has a bridge");
    assert_eq!((told.committed, told.refused, told.failed, told.is_connected), (3, 0, 0, true), "{told:?}");
    assert_eq!((told.flows_deleted, told.flows_written), (0, told.flows as u64), "{told:?}");
    assert!(told.last.is_some_and(|(changes, took)| changes == 2 && took > Duration::ZERO), "{told:?}");
    Box::new(dataplane).remove_everything().expect("it answers");
}

#[test]
fn bundles_are_counted_by_what_became_of_them() {
    let mut dataplane = OpenFlow::without_bridge();
    let bridge = || "br-int".to_owned();
    let refused = || SwitchError::Refused { bridge: bridge(), at: 0, line: "flow add".into(), reason: "no".into() };
    let gone = SwitchError::Unreachable { bridge: bridge(), reason: "gone".into() };
    let done = Committed { flows_written: 3, flows_deleted: 1, groups: 2 };
    let took = Duration::from_millis(5);
    for judged in [Ok(Some(done)), Ok(None), Err(refused()), Err(gone), Ok(Some(Committed::default()))] {
        dataplane.count(&judged, took);
    }
    let told = dataplane.bundles().expect("counted");
    // Where the bridge held everything, nothing was told.
    assert_eq!((told.committed, told.refused, told.failed), (1, 2, 1), "{told:?}");
    assert_eq!((told.flows_written, told.flows_deleted, told.groups_changed), (3, 1, 2), "{told:?}");
    assert_eq!(told.last, Some((6, took)));
}

#[test]
fn one_that_is_started_again_is_given_everything_again() {
    let mut switch = DummySwitch::start(Ipv4Addr::new(203, 0, 113, 1)).expect("a switch");
    let mut dataplane = Opening::default().open(location(switch.bridge())).expect("it answers");
    let mut compiler = Compiler::default();
    let changes = flow(&mut compiler, 1, "ip4.src == 10.0.0.1");
    dataplane.commit(compiler.program(), &changes, &cookie).expect("followed");
    until_in_force(&mut dataplane, compiler.program());
    switch.kill_vswitchd().expect("it ends");
    wait_until("its end is told", PATIENCE, || {
        let events = dataplane.events();
        Ok(Look::when(events.contains(&Event::SwitchGone), || format!("{events:?}")))
    })
    .expect("told");
    let error = dataplane.commit(compiler.program(), &Changes::default(), &cookie).expect_err("nobody is there");
    assert!(matches!(error, DataplaneError::Unreachable(_)), "{error}");
    assert!(!dataplane.bundles().expect("it has a bridge").is_connected);
    switch.start_vswitchd().expect("it comes back");
    until_in_force(&mut dataplane, compiler.program());
    let flows = switch.control("bridge/dump-flows", &["br-int"]).expect("its flows");
    assert!(flows.contains("nw_src=10.0.0.1"), "{flows}");
}
