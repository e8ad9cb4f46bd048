//! The protocol's traps, one test each, and disconnects at every message boundary.

use std::time::Duration;

use serde_json::{Value, json};

use super::fake_server::{I, Kind, REFS, Rig, S, Stored, TABLE};
use super::{LockRequest, SessionConfig};
use crate::{Clause, Condition, Function, Transaction, TransactionId, Uuid};

fn any_of(values: &[i64]) -> Condition {
    Condition::any(values.iter().map(|&value| Clause::equal(I, value)))
}

fn set_condition(rig: &mut Rig, number: u64, condition: Condition) {
    rig.session.set_conditions(number, vec![(&TABLE, condition)]);
    rig.settle();
}

fn insertion(text: &str) -> Transaction {
    let mut txn = Transaction::new(&super::fake_server::DATABASE);
    txn.insert(&TABLE).set(S, text);
    txn
}

fn transact(rig: &mut Rig, id: u64, text: &str) {
    rig.session.transact(TransactionId(id), &insertion(text));
    rig.settle();
}

/// The last transaction id of the last monitor_cond_since.
fn resumed_from(rig: &Rig) -> Uuid {
    let request =
        rig.server.monitor_log.iter().rev().find(|message| message["method"] == "monitor_cond_since").unwrap();
    request["params"][3].as_str().unwrap().parse().unwrap()
}

fn position(rig: &Rig, event: &str) -> usize {
    rig.events.iter().position(|seen| seen.contains(event)).unwrap_or_else(|| panic!("no {event} in {:#?}", rig.events))
}

/// A server with three rows and a client that monitors those with i = 1.
fn started(kind: Kind) -> (Rig, [Uuid; 3]) {
    let mut rig = Rig::new(kind, |config| config.conditions = vec![(&TABLE, any_of(&[1]))]);
    let rows = [1, 2, 3].map(|i| (Uuid::from_u128(i as u128), Some(Stored::new(i, "first"))));
    rig.server.commit(rows.to_vec());
    rig.run();
    let expected = if kind == Kind::Plain { 3 } else { 1 };
    assert_eq!(rig.content().len(), expected, "{rig:#?}");
    (rig, rows.map(|(uuid, _)| uuid))
}

#[test]
fn an_unacknowledged_condition_change_at_disconnect_forgets_the_last_transaction() {
    let (mut rig, rows) = started(Kind::Clustered);
    set_condition(&mut rig, 1, any_of(&[1, 2]));
    assert!(rig.step_to_server());
    // The rows that the change selects are under way when the connection breaks; then one of them changes.
    rig.cut();
    rig.server.commit(vec![(rows[1], Some(Stored::new(2, "second")))]);
    rig.run();
    assert!(resumed_from(&rig).is_zero());
    assert_eq!(rig.content(), rig.server.visible(&json!([["i", "==", 1], ["i", "==", 2]])));
    assert!(rig.events.contains(&"ConditionAcknowledged(1)".to_owned()), "{:#?}", rig.events);
}

#[test]
fn a_condition_change_replaced_before_its_acknowledgement_forgets_the_last_transaction_too() {
    let (mut rig, rows) = started(Kind::Clustered);
    set_condition(&mut rig, 1, any_of(&[2]));
    set_condition(&mut rig, 2, any_of(&[3]));
    assert!(rig.step_to_server());
    rig.cut();
    rig.server.commit(vec![(rows[2], Some(Stored::new(3, "second")))]);
    rig.run();
    assert!(resumed_from(&rig).is_zero());
    assert_eq!(rig.content(), rig.server.visible(&json!([["i", "==", 3]])));
}

#[test]
fn acknowledged_conditions_resume_from_the_last_transaction_and_newer_ones_follow() {
    let (mut rig, rows) = started(Kind::Clustered);
    set_condition(&mut rig, 1, any_of(&[1, 2]));
    rig.run();
    rig.server.commit(vec![(rows[0], Some(Stored::new(1, "seen")))]);
    rig.run();
    rig.cut();
    set_condition(&mut rig, 2, any_of(&[1, 3]));
    rig.server.commit(vec![(rows[0], Some(Stored::new(1, "missed"))), (rows[1], None)]);
    rig.changes.clear();
    rig.server.monitor_log.clear();
    rig.run();
    assert!(!resumed_from(&rig).is_zero());
    let conditions: Vec<&Value> =
        rig.server.monitor_log.iter().map(|message| &message["params"][2]["T"][0]["where"]).collect();
    assert_eq!(conditions, [&json!([["i", "==", 1], ["i", "==", 2]]), &json!([["i", "==", 1], ["i", "==", 3]])]);
    assert_eq!(rig.content(), rig.server.visible(&json!([["i", "==", 1], ["i", "==", 3]])));
    let acknowledged = rig.events.iter().filter(|event| event.starts_with("ConditionAcknowledged"));
    assert_eq!(acknowledged.collect::<Vec<_>>(), ["ConditionAcknowledged(1)", "ConditionAcknowledged(2)"]);
}

#[test]
fn a_condition_that_equals_the_one_in_force_is_still_sent_after_another_in_flight() {
    let (mut rig, _) = started(Kind::Clustered);
    set_condition(&mut rig, 1, any_of(&[2]));
    set_condition(&mut rig, 2, any_of(&[1]));
    rig.run();
    assert_eq!(rig.content(), rig.server.visible(&json!([["i", "==", 1]])));
    assert!(rig.events.contains(&"ConditionAcknowledged(2)".to_owned()), "{:#?}", rig.events);
}

#[test]
fn a_condition_set_while_the_monitor_reply_is_on_its_way_is_not_lost() {
    for kind in [Kind::Clustered, Kind::Standalone, Kind::CondOnly, Kind::Plain] {
        let (mut rig, _) = started(kind);
        rig.cut();
        rig.server.forget_history();
        rig.settle();
        rig.step_time();
        while !rig.to_server.iter().any(|message| message["params"][2].get("T").is_some()) {
            assert!(rig.step_to_server() || rig.step_to_client(), "{rig:#?}");
        }
        set_condition(&mut rig, 1, any_of(&[1, 3]));
        rig.run();
        assert!(rig.events.contains(&"ConditionAcknowledged(1)".to_owned()), "{kind:?} {:#?}", rig.events);
        let expected = if kind == Kind::Plain { json!([true]) } else { json!([["i", "==", 1], ["i", "==", 3]]) };
        assert_eq!(rig.content(), rig.server.visible(&expected), "{kind:?}");
    }
}

#[test]
fn a_condition_is_acknowledged_only_after_its_rows() {
    let (mut rig, _) = started(Kind::Clustered);
    rig.events.clear();
    set_condition(&mut rig, 1, Condition::True);
    assert!(!rig.events.iter().any(|event| event.starts_with("Condition")), "{:?}", rig.events);
    rig.run();
    assert!(position(&rig, "update") < position(&rig, "ConditionAcknowledged(1)"), "{:?}", rig.events);
}

#[test]
fn not_found_rebuilds_and_reports_only_what_really_changed() {
    for kind in [Kind::Clustered, Kind::Standalone, Kind::CondOnly, Kind::Plain] {
        let mut rig = Rig::new(kind, |_| ());
        let uuids: Vec<Uuid> = (1..=4).map(Uuid::from_u128).collect();
        rig.server.commit(uuids[..3].iter().map(|uuid| (*uuid, Some(Stored::new(1, "same")))).collect());
        rig.run();
        rig.changes.clear();
        rig.cut();
        let writes = vec![
            (uuids[0], Some(Stored::new(1, "other"))),
            (uuids[1], None),
            (uuids[3], Some(Stored::new(1, "fresh"))),
        ];
        rig.server.commit(writes);
        rig.server.forget_history();
        rig.run();
        let mut changed: Vec<Uuid> = rig.changes.iter().map(|change| change.uuid).collect();
        changed.sort();
        assert_eq!(changed, [uuids[0], uuids[1], uuids[3]], "{kind:?}");
        let modified = rig.changes.iter().find(|change| change.uuid == uuids[0]).unwrap();
        assert_eq!(modified.changed.indexes().collect::<Vec<_>>(), [2], "only s changed");
        assert_eq!(rig.content(), rig.server.visible(&json!([true])));
    }
}

#[test]
fn deleted_rows_keep_their_references_for_consumers() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    let [target, both, weak] = [1, 2, 3].map(Uuid::from_u128);
    let referring = Stored { refs: vec![target], ..Stored::new(2, "referring") };
    rig.server.commit(vec![
        (target, Some(Stored::new(1, ""))),
        (both, Some(referring.clone())),
        (weak, Some(referring)),
    ]);
    rig.run();
    rig.changes.clear();
    rig.server.commit(vec![(target, None), (both, None)]);
    rig.run();
    let change = |uuid| rig.changes.iter().find(|change| change.uuid == uuid).unwrap();
    assert!(change(both).new.is_none());
    assert!(change(both).old.as_ref().unwrap().get(REFS).contains(&target));
    assert!(change(target).new.is_none());
    // The one that only referred weakly lost its reference by an update of its own.
    assert!(change(weak).old.as_ref().unwrap().get(REFS).contains(&target));
    assert!(change(weak).new.as_ref().unwrap().get(REFS).is_empty());
}

#[test]
fn weak_references_to_rows_that_nobody_reports_are_found_by_their_referrers() {
    let mut rig = Rig::new(Kind::Clustered, |config| config.conditions = vec![(&TABLE, any_of(&[1, 2]))]);
    let [target, referrer] = [1, 2].map(Uuid::from_u128);
    rig.server.commit(vec![
        (target, Some(Stored::new(1, ""))),
        (referrer, Some(Stored { refs: vec![target], ..Stored::new(2, "") })),
    ]);
    rig.run();
    let mut referrers = crate::Referrers::new(REFS, &rig.replica);
    assert_eq!(referrers.of(target).collect::<Vec<_>>(), [referrer]);
    // The target leaves by the condition alone: it still exists, so the referrer's row does not change.
    rig.changes.clear();
    set_condition(&mut rig, 1, any_of(&[2]));
    rig.run();
    assert_eq!(rig.changes.iter().map(|change| change.uuid).collect::<Vec<_>>(), [target]);
    rig.changes.iter().for_each(|change| referrers.apply(change));
    assert!(rig.replica.row(&TABLE, target).is_none());
    assert_eq!(referrers.of(target).collect::<Vec<_>>(), [referrer]);
    // Its deletion empties the reference, which the referrer's row tells.
    rig.changes.clear();
    rig.server.commit(vec![(target, None)]);
    rig.run();
    rig.changes.iter().for_each(|change| referrers.apply(change));
    assert_eq!(referrers.of(target).count(), 0);
}

#[test]
fn a_transactions_update_comes_before_its_outcome() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    rig.run();
    rig.events.clear();
    transact(&mut rig, 7, "mine");
    rig.run();
    assert!(position(&rig, "update") < position(&rig, "TransactionDone { id: TransactionId(7), outcome: Committed"));
}

#[test]
fn transactions_end_with_their_connection_and_are_refused_without_one() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    transact(&mut rig, 1, "too early");
    rig.run();
    transact(&mut rig, 2, "never arrives");
    transact(&mut rig, 3, "never answered");
    rig.to_server.swap(0, 1);
    assert!(rig.step_to_server());
    rig.cut();
    let done: Vec<&String> = rig.events.iter().filter(|event| event.starts_with("TransactionDone")).collect();
    assert_eq!(
        done,
        [
            "TransactionDone { id: TransactionId(1), outcome: NotConnected }",
            "TransactionDone { id: TransactionId(2), outcome: Disconnected }",
            "TransactionDone { id: TransactionId(3), outcome: Disconnected }"
        ]
    );
    rig.run();
    assert_eq!(rig.content().values().map(|row| row.s.as_str()).collect::<Vec<_>>(), ["never answered"]);
}

#[test]
fn silence_is_probed_and_unanswered_probes_end_the_connection() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    rig.run();
    for _ in 0..3 {
        rig.step_time();
        assert_eq!(
            rig.to_server.iter().map(|message| message["method"].as_str().unwrap()).collect::<Vec<_>>(),
            ["echo"]
        );
        rig.run();
        assert!(rig.session.is_synchronized());
    }
    let before = rig.now;
    rig.step_time();
    rig.step_time();
    assert_eq!(rig.now - before, Duration::from_secs(10));
    assert_eq!(rig.session.last_error(), Some("no response to inactivity probe after 5 seconds"));
    rig.run();
    assert!(rig.session.is_synchronized());
    rig.session.set_probe_interval(Duration::ZERO);
    assert_eq!(rig.session.deadline(), None);
}

#[test]
fn a_server_that_is_busy_with_the_initial_data_is_given_a_minute() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    rig.settle();
    rig.step_time();
    while !rig.to_server.iter().any(|message| message["method"] == "monitor_cond_since") {
        assert!(rig.step_to_server() || rig.step_to_client(), "{rig:#?}");
    }
    let asked = rig.now;
    rig.step_time();
    assert_eq!(rig.to_server.back().unwrap()["method"], "echo");
    assert_eq!(rig.session.deadline(), Some(asked + Duration::from_secs(65)));
    rig.run();
    assert!(rig.session.is_synchronized());
    assert_eq!(rig.session.deadline(), Some(rig.now + Duration::from_secs(5)));
}

#[test]
fn the_servers_probes_are_answered_with_their_own_id_and_params() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    rig.run();
    rig.server.to_client.push_back(json!({"id": "echo", "method": "echo", "params": [1, {"a": "}"}]}));
    rig.step_to_client();
    assert_eq!(rig.to_server.pop_front(), Some(json!({"id": "echo", "result": [1, {"a": "}"}], "error": null})));
}

#[test]
fn a_server_that_fell_behind_is_refused_until_the_state_is_reset() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    rig.server.index = 50;
    rig.run();
    rig.cut();
    rig.server.index = 49;
    for _ in 0..6 {
        rig.step_time();
        while rig.step_to_server() || rig.step_to_client() {}
        assert!(!rig.session.is_synchronized());
    }
    assert_eq!(rig.session.last_error(), Some("clustered database server has stale data; trying another server"));
    rig.session.reset_cluster_state();
    rig.run();
    assert!(rig.session.is_synchronized());
}

#[test]
fn a_leader_that_steps_down_is_left_by_those_who_need_one() {
    for leader_only in [true, false] {
        let mut rig = Rig::new(Kind::Clustered, |config| config.leader_only = leader_only);
        rig.run();
        rig.server.leader = false;
        rig.server.announce();
        rig.step_to_client();
        assert_eq!(rig.session.is_synchronized(), !leader_only);
        rig.server.leader = true;
        rig.run();
        assert!(rig.session.is_synchronized());
    }
}

#[test]
fn a_leader_is_looked_for_every_second_while_there_is_none() {
    let mut rig = Rig::new(Kind::Clustered, |config| config.leader_only = true);
    rig.server.leader = false;
    for _ in 0..40 {
        rig.step_time();
        while rig.step_to_server() || rig.step_to_client() {}
    }
    assert!(!rig.session.is_synchronized());
    let before = rig.now;
    rig.server.leader = true;
    rig.step_time();
    while rig.step_to_server() || rig.step_to_client() {}
    assert!(rig.session.is_synchronized());
    assert!(rig.now - before <= Duration::from_secs(1), "{:?}", rig.now - before);
}

#[test]
fn a_canceled_monitor_is_made_anew_with_the_columns_there_are_now() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    rig.server.columns = vec!["i"];
    rig.server.commit(vec![(Uuid::from_u128(1), Some(Stored::new(1, "")))]);
    rig.run();
    assert!(!rig.replica.has_column(REFS) && !rig.replica.has_column(S));
    rig.changes.clear();
    rig.server.columns = vec!["i", "refs", "s"];
    rig.server.cancel_monitor();
    rig.run();
    assert!(rig.replica.has_column(REFS) && rig.replica.has_column(S));
    assert!(resumed_from(&rig).is_zero());
    assert_eq!(rig.changes, []);
    assert_eq!(rig.events.iter().filter(|event| event.starts_with("Synchronized")).count(), 1);
}

#[test]
fn another_schema_after_a_reconnect_is_not_resumed() {
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    rig.server.columns = vec!["i", "s"];
    rig.server
        .commit(vec![(Uuid::from_u128(1), Some(Stored { refs: vec![Uuid::from_u128(1)], ..Stored::new(1, "") }))]);
    rig.run();
    rig.cut();
    rig.server.columns = vec!["i", "refs", "s"];
    rig.run();
    assert!(resumed_from(&rig).is_zero());
    assert_eq!(rig.content(), rig.server.visible(&json!([true])));
}

#[test]
fn a_condition_on_a_column_that_the_server_lacks_selects_everything() {
    let clause = Clause::new(REFS, Function::Includes, [Uuid::ZERO]);
    let mut rig = Rig::new(Kind::Clustered, |config| config.conditions = vec![(&TABLE, Condition::any([clause]))]);
    rig.server.columns = vec!["i", "s"];
    rig.server.commit(vec![(Uuid::from_u128(1), Some(Stored::new(1, "")))]);
    rig.run();
    assert_eq!(rig.content().len(), 1);
}

#[test]
fn a_lock_that_was_given_up_before_the_answer_came_is_not_held() {
    let lock = || Some(LockRequest { name: "l".to_owned(), steal: false });
    let mut rig = Rig::new(Kind::Clustered, |_| ());
    rig.run();
    // Asked for, given up, asked for again, all before the server answers; meanwhile another client has taken it.
    rig.session.set_lock(lock());
    rig.session.set_lock(None);
    rig.session.set_lock(lock());
    rig.settle();
    for owned_elsewhere in [false, false, true] {
        rig.server.lock_owned_elsewhere = owned_elsewhere;
        assert!(rig.step_to_server());
    }
    while rig.step_to_client() {}
    let locks: Vec<&String> = rig.events.iter().filter(|event| event.starts_with("Lock(")).collect();
    assert_eq!(locks, ["Lock(Contended)"]);
}

#[test]
fn locks_are_asked_for_on_every_connection_and_lost_with_it() {
    let lock = |config: &mut SessionConfig| config.lock = Some(LockRequest { name: "l".to_owned(), steal: false });
    let mut rig = Rig::new(Kind::Clustered, lock);
    rig.server.lock_owned_elsewhere = true;
    rig.run();
    rig.server.to_client.push_back(json!({"id": null, "method": "locked", "params": ["l"]}));
    rig.run();
    rig.server.to_client.push_back(json!({"id": null, "method": "stolen", "params": ["l"]}));
    rig.run();
    rig.server.lock_owned_elsewhere = false;
    rig.cut();
    rig.run();
    rig.cut();
    let locks: Vec<&String> = rig.events.iter().filter(|event| event.starts_with("Lock(")).collect();
    assert_eq!(locks, ["Lock(Contended)", "Lock(Acquired)", "Lock(Lost)", "Lock(Acquired)", "Lock(Lost)"]);
}

#[test]
fn nonsense_from_the_server_ends_the_connection_and_nothing_else() {
    let nonsense = [
        json!({}),
        json!({"id": 99, "result": {}, "error": null}),
        json!({"id": null, "method": "update3", "params": ["oxbow-data", "x", {}]}),
        json!({"id": null, "method": "update3", "params": ["oxbow-data"]}),
        json!({"id": null, "method": "update3", "params": ["oxbow-data", Uuid::ZERO.to_string(), {"T": {"x": {}}}]}),
        json!({"id": null, "method": "update2", "params": ["oxbow-data", {"T": {Uuid::ZERO.to_string(): {"insert": {"i": "text"}}}}]}),
        json!({"id": null, "method": "update2", "params": ["oxbow-server", {"Database": {Uuid::ZERO.to_string(): {"delete": null}}}]}),
        json!({"id": null, "method": 7, "params": []}),
        json!({"id": null, "method": "monitor_canceled", "params": []}),
    ];
    for message in nonsense {
        let (mut rig, _) = started(Kind::Clustered);
        rig.server.to_client.push_back(message.clone());
        rig.step_to_client();
        assert!(!rig.session.is_synchronized(), "{message} was taken");
        rig.run();
        assert!(rig.session.is_synchronized(), "after {message}");
        assert_eq!(rig.content().len(), 1);
    }
}

/// A small generator, so that a failing case is named by its numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Runs a random history in which the connection breaks after `cut` messages, and compares what the client ends with.
/// False when the history has fewer messages.
fn history_with_cut(kind: Kind, seed: u64, cut: usize) -> bool {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut rig = Rig::new(kind, |config| config.conditions = vec![(&TABLE, any_of(&[1]))]);
    let mut wanted = json!([["i", "==", 1]]);
    let mut number = 0;
    let mut transactions = 0;
    let mut delivered = 0;
    let mut is_cut = false;
    for _ in 0..90 {
        rig.settle();
        match random.below(10) {
            0 => {
                let writes = (0..1 + random.below(3)).map(|_| {
                    let row = (random.below(4) > 0).then(|| Stored {
                        i: random.below(4) as i64,
                        s: format!("s{}", random.below(3)),
                        refs: (1..=3).filter(|_| random.below(3) == 0).map(Uuid::from_u128).collect(),
                    });
                    (Uuid::from_u128(1 + u128::from(random.below(6))), row)
                });
                let writes = writes.collect();
                rig.server.commit(writes);
            }
            1 => {
                number += 1;
                let values: Vec<i64> = (0..4).filter(|_| random.below(2) == 0).collect();
                wanted = match values.is_empty() {
                    true => json!([false]),
                    false => values.iter().map(|value| json!(["i", "==", value])).collect(),
                };
                set_condition(&mut rig, number, any_of(&values));
            }
            2 if random.below(2) == 0 => {
                transactions += 1;
                transact(&mut rig, transactions, "from the client");
            }
            3..=5 => delivered += usize::from(rig.step_to_server()),
            6..=8 => delivered += usize::from(rig.step_to_client()),
            _ => {
                if !rig.session.is_connected() {
                    rig.step_time();
                }
            }
        }
        if delivered >= cut && !is_cut && rig.session.is_connected() {
            is_cut = true;
            rig.cut();
        }
    }
    rig.run();
    if kind == Kind::Plain {
        wanted = json!([true]);
    }
    assert_eq!(rig.content(), rig.server.visible(&wanted), "{kind:?} seed {seed} cut {cut}\n{rig:#?}");
    let done = rig.events.iter().filter(|event| event.starts_with("TransactionDone")).count();
    assert_eq!(done as u64, transactions, "{kind:?} seed {seed} cut {cut}\n{:#?}", rig.events);
    if number > 0 {
        let last = format!("ConditionAcknowledged({number})");
        assert!(rig.events.contains(&last), "{kind:?} seed {seed} cut {cut}\n{:#?}", rig.events);
    }
    is_cut
}

#[test]
fn a_disconnect_at_any_message_boundary_loses_nothing_and_invents_nothing() {
    let mut histories = 0;
    for kind in [Kind::Clustered, Kind::Standalone, Kind::CondOnly, Kind::Plain] {
        for seed in 1..=16 {
            histories += (0..).take_while(|&cut| history_with_cut(kind, seed, cut)).count();
        }
    }
    assert!(histories > 600, "only {histories} histories had a cut");
}

/// Every file of a corpus, in order.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|file| (file.display().to_string(), std::fs::read(&file).unwrap())).collect()
}

/// What each kind of server says to a client that asks for everything and a lock, and again after the connection broke.
fn conversation(kind: Kind) -> Vec<u8> {
    let mut rig = Rig::new(kind, |config| {
        config.lock = Some(LockRequest { name: "lock".to_owned(), steal: false });
        config.remotes = vec!["hearsay:0".to_owned()];
    });
    let rows = [1, 2, 3].map(|i| (Uuid::from_u128(i as u128), Some(Stored::new(i, "first"))));
    rig.server.commit(rows.to_vec());
    let mut said = Vec::new();
    for text in ["second", "third"] {
        // Whole, then a few bytes at a time.
        said.push(if text == "second" { 0xfe } else { 7 });
        for round in 0..200 {
            rig.settle();
            if let Some(message) = rig.server.to_client.front() {
                said.extend(message.to_string().bytes());
            }
            let idle = !rig.step_to_client() && !rig.step_to_server();
            if idle && rig.is_connected() {
                if round > 100 {
                    break;
                }
                rig.server.commit(vec![
                    (rows[0].0, Some(Stored { refs: vec![rows[1].0], ..Stored::new(round, text) })),
                    (rows[2].0, None),
                ]);
            } else if idle {
                rig.step_time();
            }
        }
        said.push(0xff);
        rig.cut();
    }
    said
}

/// The corpora are the start of fuzzing (`cargo fuzz run session` in this crate's directory); `OXBOW_RECORD=1` writes the conversations anew.
#[test]
fn what_the_corpus_says_is_heard_without_harm() {
    for kind in [Kind::Clustered, Kind::Standalone, Kind::CondOnly, Kind::Plain] {
        let said = conversation(kind);
        if std::env::var_os("OXBOW_RECORD").is_some() {
            let file = format!("{}/fuzz/corpus/session/{kind:?}", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(file, &said).unwrap();
        }
        let heard = super::hearsay::hear(&said);
        assert!(heard.synchronized > 0 && heard.changes > 3, "{kind:?}: {heard:?}\n{}", String::from_utf8_lossy(&said));
    }
    let files = corpus("session");
    assert!(files.len() >= 4, "{files:?}");
    for (_, bytes) in files {
        let _ = super::hearsay::hear(&bytes);
    }
}
