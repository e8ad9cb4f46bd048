//! Messages and meanings compared with ovn-trace(8) of OVN 23.03.
//!
//! `tests/data/*.txt` hold what ovn-trace said about each text, so that these comparisons need no OVN; the live tests ask the
//! installed ovn-trace again, and about texts generated afresh. After a change of the corpus:
//! `OXBOW_RECORD=1 cargo test -p oxbow-lflow --test ovn_trace` writes the files anew.

mod oracle;

use oracle::corpus;
use oracle::world::{self, World};
use oxbow_lflow::evaluate::Environment;
use oxbow_lflow::microflow::parse_microflow;
use oxbow_lflow::{Expr, MatchContext, Normalized, Nothing, parse_actions, parse_match};
use std::fmt::Write;
use std::path::PathBuf;

/// Stands for "accepted" in the files.
const ACCEPTED: &str = "ok";

fn our_match_message(world: &World, text: &str) -> String {
    parse_match(text, &world.match_context()).map_or_else(|e| e.message, |_| ACCEPTED.to_string())
}

fn our_actions_message(world: &World, text: &str) -> String {
    parse_actions(text, &world.action_context()).map_or_else(|e| e.message, |_| ACCEPTED.to_string())
}

/// ovn-trace looks for a microflow's port groups on no datapath, and so finds none.
fn our_microflow_message(world: &World, text: &str) -> String {
    let context = MatchContext { port_groups: &Nothing, ..world.match_context() };
    parse_microflow(text, &context).map_or_else(|e| e.message, |_| ACCEPTED.to_string())
}

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect()
}

/// Lines `text TAB message`.
fn recorded(name: &str) -> Vec<(String, String)> {
    let path = file(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let pair = |line: &str| line.split_once('\t').map(|(text, message)| (text.to_string(), message.to_string()));
    text.lines().map(|line| pair(line).unwrap_or_else(|| panic!("no tab in {line:?}"))).collect()
}

fn record(name: &str, pairs: &[(String, String)]) {
    if std::env::var_os("OXBOW_RECORD").is_some() {
        let lines: String = pairs.iter().map(|(text, message)| format!("{text}\t{message}\n")).collect();
        std::fs::write(file(name), lines).expect("the file can be written");
    }
}

/// Texts on which we differ on purpose.
///
/// - An undefined template: 23.03 puts the template's name in its place and runs the tokens before and behind it together; later
///   versions refuse the whole text. We leave it in place, and say "Unexpanded template." where something else is expected.
/// - `set_queue(;` and `check_pkt_larger(;`: OVN drops the action and says nothing; to us it is an error.
/// - `<` and the like against an address set with a masked member: OVN refuses it only if that member happens to sort first, and
///   otherwise compares the mask's bits. We refuse it as we refuse the mask itself.
/// - Half a surrogate pair in a string: OVN takes it, but it is no character and a port cannot be called so.
fn differs_on_purpose(text: &str) -> bool {
    let dense: String = text.split_whitespace().collect();
    let ordered = dense.contains("$as") && dense.contains(['<', '>']);
    text.contains('^')
        || ordered
        || dense.contains("set_queue(;")
        || dense.contains("check_pkt_larger(;")
        || text.contains(r"\udc00")
}

fn compare(what: &str, pairs: &[(String, String)], ours: impl Fn(&str) -> String) {
    let mut report = String::new();
    let mut differences = 0;
    for (text, theirs) in pairs {
        let ours = ours(text);
        if ours != *theirs && !differs_on_purpose(text) {
            differences += 1;
            writeln!(report, "{what}: {text}\n  OVN:  {theirs}\n  ours: {ours}").expect("a string can be written to");
        }
    }
    assert!(differences == 0, "{differences} of {} differ:\n{report}", pairs.len());
    assert!(pairs.len() > 50, "only {} texts of {what}: the corpus is gone", pairs.len());
}

#[test]
fn messages_of_matches_are_those_recorded() {
    let world = World::new();
    compare("match", &recorded("match-messages.txt"), |text| our_match_message(&world, text));
}

#[test]
fn messages_of_actions_are_those_recorded() {
    let world = World::new();
    compare("actions", &recorded("action-messages.txt"), |text| our_actions_message(&world, text));
}

#[test]
fn messages_of_microflows_are_those_recorded() {
    let world = World::new();
    compare("microflow", &recorded("microflow-messages.txt"), |text| our_microflow_message(&world, text));
}

/// How many texts the live comparisons generate; `OXBOW_TEXTS` for more.
fn fresh_texts() -> usize {
    number_from("OXBOW_TEXTS", 3000)
}

/// Which ones; `OXBOW_SEED` for others.
fn seed() -> u64 {
    number_from("OXBOW_SEED", 2)
}

fn number_from<T: std::str::FromStr>(variable: &str, default: T) -> T {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}

fn ask(texts: Vec<String>, what: &str) -> Vec<(String, String)> {
    let southbound = oracle::Southbound::new();
    let flows = texts.iter().map(|text| match what {
        "expression" => (text.as_str(), "next;"),
        _ => ("1", text.as_str()),
    });
    world::write(&southbound, flows);
    let refusals = southbound.refusals(what);
    let message = |text: &String| refusals.get(text).cloned().unwrap_or_else(|| ACCEPTED.to_string());
    texts.into_iter().map(|text| (text.clone(), message(&text))).collect()
}

#[test]
fn ovn_trace_says_the_same_of_matches() {
    oracle::require();
    let pairs = ask(corpus::matches(600, 1), "expression");
    record("match-messages.txt", &pairs);
    let world = World::new();
    compare("match", &pairs, |text| our_match_message(&world, text));
    let pairs = ask(corpus::matches(fresh_texts(), seed()), "expression");
    compare("match", &pairs, |text| our_match_message(&world, text));
}

#[test]
fn ovn_trace_says_the_same_of_actions() {
    oracle::require();
    let pairs = ask(corpus::actions(600, 1), "actions");
    record("action-messages.txt", &pairs);
    let world = World::new();
    compare("actions", &pairs, |text| our_actions_message(&world, text));
    let pairs = ask(corpus::actions(fresh_texts(), seed()), "actions");
    compare("actions", &pairs, |text| our_actions_message(&world, text));
}

#[test]
fn ovn_trace_says_the_same_of_microflows() {
    oracle::require();
    let southbound = oracle::Southbound::new();
    world::write(&southbound, []);
    let tracer = southbound.tracer();
    let pairs: Vec<(String, String)> = corpus::microflows()
        .iter()
        .map(|text| {
            let output = tracer.trace("--minimal", "dp", text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let message = match output.strip_prefix("error parsing flow: ") {
                Some(message) => message.trim_end(),
                None => ACCEPTED,
            };
            (text.clone(), message.to_string())
        })
        .collect();
    record("microflow-messages.txt", &pairs);
    let world = World::new();
    compare("microflow", &pairs, |text| our_microflow_message(&world, text));
}

/// The tables of the trace in which the flow of priority 2 was taken.
fn tables_matched(trace: &str) -> Vec<usize> {
    let table = |line: &str| {
        let (number, rest) = line.trim_start().split_once(". ")?;
        let number = number.parse().ok()?;
        Some((number, rest.contains(", priority 2, ")))
    };
    let lines: Vec<(usize, bool)> = trace.lines().filter_map(table).collect();
    // Tables in which the match is `1` and the action `next` are left out; the last, empty one is not.
    assert!(lines.last() == Some(&(world::TABLES, false)), "the packet did not get through:\n{trace}");
    lines.into_iter().filter(|(_, matched)| *matched).map(|(number, _)| number).collect()
}

/// ovn-trace takes the same packets to match as the tree and the normal form do.
#[test]
fn ovn_trace_matches_the_same_packets() {
    oracle::require();
    let world = World::new();
    let context = MatchContext { port_groups: &Nothing, ..world.match_context() };
    let about_ports = |text: &str| ["port", "@", "resident"].iter().any(|word| text.contains(word));
    let texts = corpus::matches(2 * fresh_texts(), seed());
    let mut matches: Vec<(&str, Expr, Normalized)> = Vec::new();
    for text in texts.iter().filter(|text| !about_ports(text)) {
        if let Ok(e) = parse_match(text, &context) {
            let normal = Normalized::new(&e, None).unwrap_or_else(|problem| panic!("{text}: {problem}"));
            matches.push((text, e, normal));
        }
    }
    // Whole datapaths only.
    matches.truncate(matches.len() / world::TABLES * world::TABLES);
    assert!(matches.len() > 400, "only {} matches to compare", matches.len());
    let southbound = oracle::Southbound::new();
    world::write_tables(&southbound, &matches.iter().map(|(text, ..)| *text).collect::<Vec<_>>());
    let tracer = southbound.tracer();
    let packets: Vec<_> = corpus::microflows()
        .into_iter()
        .filter(|text| !about_ports(text))
        // ovn-trace 23.03 takes these two for 0 in a microflow whatever is said.
        .filter(|text| !text.contains("ip.dscp") && !text.contains("ip.ecn"))
        .filter_map(|text| Some((parse_microflow(&text, &context).ok()?, text)))
        .collect();
    let (mut compared, mut report) = (0, String::new());
    for (d, tables) in matches.chunks(world::TABLES).enumerate() {
        for (packet, microflow) in &packets {
            let trace = tracer
                .trace("--detailed", &format!("dp{d}"), microflow)
                .unwrap_or_else(|e| panic!("dp{d} {microflow}: {e}"));
            let theirs = tables_matched(&trace);
            let environment = Environment { packet, address_sets: &world, port_groups: &Nothing, resident: &|_| false };
            for (table, (text, e, normal)) in tables.iter().enumerate() {
                let (tree, clauses) = (e.evaluate(&environment), normal.evaluate(&environment));
                compared += 1;
                if tree != theirs.contains(&table) || tree != clauses {
                    let line = format!(
                        "{text}\n  on {microflow}\n  OVN {}, tree {tree}, normal form {clauses}: {normal}\n",
                        theirs.contains(&table)
                    );
                    report.push_str(&line);
                }
            }
        }
    }
    assert!(report.is_empty(), "of {compared} comparisons these differ:\n{report}");
    assert!(compared > 20_000, "only {compared} comparisons");
}
