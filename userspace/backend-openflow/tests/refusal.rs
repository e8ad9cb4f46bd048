//! A switch that refuses: the flow is traced to its rule, closed by name, and the rest comes into force.

use oxbow_backend_openflow::switch::Difference;
use oxbow_backend_openflow::{Backend, Follower, Learned, Switch, SwitchError, Wiring};
use oxbow_pipeline::compile::{Compiler, DatapathInfo, FlowRow};
use oxbow_pipeline::ir::{Consequence, DatapathKey, FlowUuid, LflowId, Pipeline};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Takes every line but those that hold one of these words; remembers what it took.
#[derive(Clone, Default)]
struct Picky {
    refuses: Vec<&'static str>,
    taken: Arc<Mutex<Vec<String>>>,
    /// What `compare` reads without looking: everything is missing.
    is_away: Arc<Mutex<bool>>,
}

impl Picky {
    fn refusal(&self, lines: &[String]) -> Result<(), SwitchError> {
        let refused = lines.iter().position(|line| self.refuses.iter().any(|word| line.contains(word)));
        match refused {
            None => Ok(()),
            Some(at) => Err(SwitchError::Refused {
                bridge: "br-int".to_owned(),
                at,
                line: lines[at].clone(),
                reason: "OFPBAC_BAD_ARGUMENT".to_owned(),
            }),
        }
    }

    fn away(&self) -> Result<(), SwitchError> {
        if *self.is_away.lock().expect("one thread") {
            return Err(SwitchError::Unreachable { bridge: "br-int".to_owned(), reason: "gone".to_owned() });
        }
        Ok(())
    }
}

impl Switch for Picky {
    fn prepare(&mut self) -> Result<(), SwitchError> {
        self.away()
    }

    fn bundle(&mut self, lines: &[String]) -> Result<(), SwitchError> {
        self.away()?;
        self.refusal(lines)?;
        self.taken.lock().expect("one thread").extend_from_slice(lines);
        Ok(())
    }

    fn compare(&mut self, flows: &[String]) -> Result<Vec<Difference>, SwitchError> {
        self.away()?;
        let parts = |flow: &String| {
            let (left, actions) = flow.split_once(",actions=")?;
            let (cookie, key) = left.strip_prefix("cookie=0x")?.split_once(',')?;
            let cookie = u64::from_str_radix(cookie, 16).ok()?;
            Some(Difference { missing: true, key: key.to_owned(), cookie, actions: actions.to_owned() })
        };
        Ok(flows.iter().filter_map(parts).collect())
    }

    fn groups(&mut self) -> Result<BTreeMap<u32, String>, SwitchError> {
        self.away()?;
        Ok(BTreeMap::new())
    }

    fn learned(&mut self) -> Result<Vec<Learned>, SwitchError> {
        Ok(Vec::new())
    }

    fn counters(&mut self) -> Result<BTreeMap<u64, u64>, SwitchError> {
        Ok(BTreeMap::new())
    }

    fn input_ports(&mut self, _table: u8) -> Result<Vec<u32>, SwitchError> {
        Ok(Vec::new())
    }
}

fn compiler(flows: &[(u16, &str, &str)]) -> Compiler {
    let mut compiler = Compiler::default();
    let at = DatapathKey(1);
    compiler.set_datapath(at, Some(DatapathInfo { name: "sw".into(), router: false }));
    for (n, (priority, matches, actions)) in flows.iter().enumerate() {
        compiler.set_flow(FlowRow {
            uuid: FlowUuid(n as u128 + 1),
            datapaths: vec![at],
            pipeline: Pipeline::Ingress,
            stage: 0,
            priority: *priority,
            matches: (*matches).into(),
            actions: (*actions).into(),
            stage_name: "".into(),
        });
    }
    compiler
}

fn cookie(flow: LflowId) -> u64 {
    flow.0.into()
}

fn consequences(backend: &Backend) -> Vec<Consequence> {
    backend.problems().map(|problem| problem.consequence).collect()
}

#[test]
fn refused_actions_drop_their_match_and_the_rest_comes_into_force() {
    // At start, by comparison; and later, by differences.
    for later in [false, true] {
        let switch = Picky { refuses: vec!["set_field:7->nw_ttl"], ..Picky::default() };
        let taken = Arc::clone(&switch.taken);
        let mut backend = Backend::new(Box::new(switch));
        backend.set_wiring(Wiring::default());
        let mut first = compiler(&[]);
        if later {
            let changes = first.commit();
            backend.commit(first.program(), &changes, &cookie).expect("nothing to refuse");
            taken.lock().expect("one thread").clear();
        }
        let mut second = compiler(&[(10, "ip4", "ip.ttl = 7; outport = \"a\"; output;"), (5, "1", "drop;")]);
        let changes = second.commit();
        backend.commit(second.program(), &changes, &cookie).expect("closed and taken");
        assert_eq!(consequences(&backend), [Consequence::MatchDropped], "later: {later}");
        let problem = backend.problems().next().expect("one").clone();
        assert!(problem.what.contains("OFPBAC_BAD_ARGUMENT"), "{problem:?}");
        let taken = taken.lock().expect("one thread").join("\n");
        assert!(taken.contains("priority=10,metadata=0x1,ip,actions=drop"), "{taken}");
        assert!(taken.contains("priority=5,metadata=0x1,actions=drop"), "{taken}");
    }
}

#[test]
fn what_was_refused_of_a_rule_that_is_another_by_now_is_not_charged_to_it() {
    let mut switch = Picky { refuses: vec!["set_field:7->nw_ttl"], ..Picky::default() };
    let taken = Arc::clone(&switch.taken);
    let mut follower = Follower::new();
    follower.set_wiring(Wiring::default());
    let mut compiler = compiler(&[(10, "ip4", "ip.ttl = 7; outport = \"a\"; output;")]);
    let changes = compiler.commit();
    follower.follow(compiler.program(), &changes, &cookie);
    // Three times, which is more than a rule is forgiven.
    for ttl in [8, 7, 9, 7, 6] {
        let exchange = follower.begin().unwrap_or_else(|| panic!("something to tell before {ttl}"));
        let outcome = exchange.execute(&mut switch);
        let refused = outcome.is_err();
        // While the switch is asked the logical flow changes.
        compiler.set_flow(FlowRow {
            uuid: FlowUuid(1),
            datapaths: vec![DatapathKey(1)],
            pipeline: Pipeline::Ingress,
            stage: 0,
            priority: 10,
            matches: "ip4".into(),
            actions: format!("ip.ttl = {ttl}; outport = \"a\"; output;").into(),
            stage_name: "".into(),
        });
        let changes = compiler.commit();
        follower.follow(compiler.program(), &changes, &cookie);
        assert_eq!(follower.end(compiler.program(), outcome).expect("tried again").is_none(), refused, "ttl {ttl}");
    }
    let outcome = follower.begin().expect("the last change").execute(&mut switch);
    follower.end(compiler.program(), outcome).expect("in force");
    assert_eq!(follower.problems().count(), 0);
    let taken = taken.lock().expect("one thread").join("\n");
    assert!(taken.contains("set_field:6->nw_ttl"), "{taken}");
}

#[test]
fn a_refused_match_of_a_dropping_rule_closes_its_table() {
    let switch = Picky { refuses: vec!["ip_src=10.0.0.7"], ..Picky::default() };
    let taken = Arc::clone(&switch.taken);
    let mut backend = Backend::new(Box::new(switch));
    let mut network = compiler(&[
        (10, "ip4.src == 10.0.0.7", "drop;"),
        (65535, "ip4.src == 10.0.0.8", "outport = \"a\"; output;"),
        (5, "ip4.src == 10.0.0.9", "outport = \"a\"; output;"),
    ]);
    let changes = network.commit();
    backend.commit(network.program(), &changes, &cookie).expect("closed and taken");
    assert_eq!(consequences(&backend), [Consequence::TableClosed]);
    let print = backend.print();
    assert!(print.contains("priority=65535,metadata=0x1,actions=drop"), "{print}");
    assert!(!print.contains("10.0.0.8"), "what has the closing rule's priority must not stand beside it\n{print}");
    assert!(!taken.lock().expect("one thread").is_empty());
    // And with the rule goes what closed.
    network.remove_flow(FlowUuid(1));
    let changes = network.commit();
    backend.commit(network.program(), &changes, &cookie).expect("taken");
    assert_eq!(consequences(&backend), []);
    let print = backend.print();
    assert!(print.contains("10.0.0.8") && !print.contains("priority=65535,metadata=0x1,actions=drop"), "{print}");
}

#[test]
fn a_switch_that_was_away_gets_everything_when_it_is_back() {
    let switch = Picky::default();
    let (taken, away) = (Arc::clone(&switch.taken), Arc::clone(&switch.is_away));
    let mut backend = Backend::new(Box::new(switch));
    let mut network = compiler(&[(10, "ip4", "outport = \"a\"; output;")]);
    *away.lock().expect("one thread") = true;
    let changes = network.commit();
    backend.commit(network.program(), &changes, &cookie).expect_err("nobody is there");
    assert!(!backend.in_step());
    *away.lock().expect("one thread") = false;
    let nothing = network.commit();
    backend.commit(network.program(), &nothing, &cookie).expect("back");
    assert!(backend.in_step());
    assert!(taken.lock().expect("one thread").iter().any(|line| line.contains("priority=10,metadata=0x1,ip,")));
}
