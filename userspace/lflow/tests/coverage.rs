//! Every symbol and every action has an example with its meaning, and every example is of a symbol or action that exists.
//!
//! `tests/data/symbols.txt`: `name TAB match TAB normal form` in the vocabulary of 26.03 (or, for names it does not have, in
//! the accepting one). `tests/data/actions-by-name.txt`: `name TAB actions TAB as printed TAB prerequisites`.

use oxbow_lflow::context::{DhcpOptions, OptionSpace, OptionType};
use oxbow_lflow::{
    Action, ActionContext, AddressSet, AddressSets, Level, MatchContext, Normalized, Nothing, Pipeline, Vocabulary,
    parse_actions, parse_match,
};
use std::collections::BTreeSet;

const SYMBOLS: &str = include_str!("data/symbols.txt");
const ACTIONS: &str = include_str!("data/actions-by-name.txt");

/// Has every DHCP option, with the type that its name says.
struct AnyOption;

impl DhcpOptions for AnyOption {
    fn option(&self, _space: OptionSpace, name: &str) -> Option<OptionType<'_>> {
        let (code, kind) = match name {
            "offerip" => (0, "ipv4"),
            "domain_name" => (15, "str"),
            "server_id" => (2, "mac"),
            "ia_addr" => (5, "ipv6"),
            _ => return None,
        };
        Some(OptionType { code, kind })
    }
}

struct OneSet(AddressSet);

impl AddressSets for OneSet {
    fn address_set(&self, name: &str) -> Option<&AddressSet> {
        (name == "set").then_some(&self.0)
    }
}

fn match_context<'a>(vocabulary: Vocabulary, sets: &'a OneSet) -> MatchContext<'a> {
    MatchContext { symbols: vocabulary.table(), address_sets: sets, port_groups: &Nothing, templates: &Nothing }
}

fn action_context(vocabulary: Vocabulary) -> ActionContext<'static> {
    ActionContext {
        symbols: vocabulary.table(),
        templates: &Nothing,
        dhcp_options: &AnyOption,
        pipeline: Pipeline::Ingress,
        table: 5,
        n_ingress_tables: 34,
        n_egress_tables: 34,
    }
}

fn columns<const N: usize>(text: &'static str) -> Vec<[&'static str; N]> {
    text.lines()
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            <[&str; N]>::try_from(columns).unwrap_or_else(|columns| panic!("{} columns in {line:?}", columns.len()))
        })
        .collect()
}

fn difference(wanted: &BTreeSet<&str>, found: &BTreeSet<&str>) -> String {
    let without: Vec<_> = wanted.difference(found).collect();
    let unknown: Vec<_> = found.difference(wanted).collect();
    format!("without an example: {without:?}; examples of nothing: {unknown:?}")
}

#[test]
fn every_symbol_has_an_example() {
    let wanted: BTreeSet<&str> =
        Vocabulary::ALL.iter().flat_map(|v| v.table().iter()).map(|symbol| symbol.name()).collect();
    let found: BTreeSet<&str> = columns::<3>(SYMBOLS).iter().map(|[name, ..]| *name).collect();
    assert!(wanted == found, "{}", difference(&wanted, &found));
}

#[test]
fn every_action_has_an_example() {
    let wanted: BTreeSet<&str> = Action::NAMES.iter().copied().collect();
    let found: BTreeSet<&str> = columns::<4>(ACTIONS).iter().map(|[name, ..]| *name).collect();
    assert!(wanted == found, "{}", difference(&wanted, &found));
    assert!(Action::NAMES.is_sorted());
}

/// The vocabulary whose meaning an example gives.
fn vocabulary_of(name: &str) -> Vocabulary {
    let order = [Vocabulary::V26_03, Vocabulary::Accepting, Vocabulary::AcceptingAclCt];
    order.into_iter().find(|v| v.table().get(name).is_some()).unwrap_or_else(|| panic!("no vocabulary has {name}"))
}

#[test]
fn symbols_mean_what_their_examples_say() {
    let sets = OneSet(AddressSet::parse(["10.0.0.1"]).0);
    let mut wrong = String::new();
    for [name, text, expected] in columns::<3>(SYMBOLS) {
        let e = match parse_match(text, &match_context(vocabulary_of(name), &sets)) {
            Ok(e) => e,
            Err(problem) => panic!("{name}: {}", problem.with_caret(text)),
        };
        assert!(text.contains(name), "the example of {name} is about something else: {text}");
        let normal = match Normalized::new(&e, None) {
            Ok(normal) => normal.to_string(),
            Err(problem) => problem.to_string(),
        };
        if normal != expected {
            wrong += &format!("{name}\t{text}\t{normal}\n");
        }
    }
    assert!(wrong.is_empty(), "these mean something else than recorded:\n{wrong}");
}

#[test]
fn actions_are_what_their_examples_say() {
    let mut wrong = String::new();
    for [name, text, printed, prerequisites] in columns::<4>(ACTIONS) {
        let context = action_context(Vocabulary::Accepting);
        let actions = parse_actions(text, &context).unwrap_or_else(|e| panic!("{name}: {}", e.with_caret(text)));
        assert!(actions.actions.iter().any(|action| action.name() == name), "no {name} in {actions:?}");
        let again = parse_actions(&actions.to_string(), &context)
            .unwrap_or_else(|e| panic!("{name}: printed as {}", e.with_caret(&actions.to_string())));
        assert_eq!(again.actions, actions.actions, "{name} printed as {actions}");
        let implied = actions.prerequisites.as_ref().map(ToString::to_string).unwrap_or_default();
        if actions.to_string() != printed || implied != prerequisites {
            wrong += &format!("{name}\t{text}\t{actions}\t{implied}\n");
        }
    }
    assert!(wrong.is_empty(), "these are something else than recorded:\n{wrong}");
}

/// What is accepted of the corpus prints as something that parses to the same.
#[test]
fn accepted_actions_survive_printing() {
    let context = action_context(Vocabulary::Accepting);
    let texts: BTreeSet<&str> =
        include_str!("data/action-messages.txt").lines().filter_map(|l| l.split('\t').next()).collect();
    let mut accepted = 0;
    for text in texts {
        if let Ok(actions) = parse_actions(text, &context) {
            accepted += 1;
            let printed = actions.to_string();
            let again =
                parse_actions(&printed, &context).unwrap_or_else(|e| panic!("{text}: {}", e.with_caret(&printed)));
            assert_eq!(again.actions, actions.actions, "{text} printed as {printed}");
        }
    }
    assert!(accepted > 300, "only {accepted} of the corpus are accepted");
}

#[test]
fn vocabularies_are_consistent() {
    for vocabulary in Vocabulary::ALL {
        let table = vocabulary.table();
        assert_eq!(table.vocabulary(), vocabulary);
        for symbol in table.iter() {
            assert_eq!(table.get(symbol.name()), Some(symbol));
            match symbol.field() {
                Some(field) => assert!(symbol.offset() + symbol.width() <= field.width(), "{symbol:?} exceeds {field}"),
                None => assert!(symbol.expansion().is_some() && symbol.level() != Level::Ordinal, "{symbol:?}"),
            }
        }
    }
    // The accepting vocabulary takes whatever either version takes.
    for version in [Vocabulary::V23_03, Vocabulary::V26_03] {
        for symbol in version.table().iter() {
            assert!(Vocabulary::Accepting.table().get(symbol.name()).is_some(), "{symbol:?} of {version:?}");
        }
    }
}
