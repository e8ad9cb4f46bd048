//! Ternary algebra, incremental sets, templates, microflows, positions of errors, and hostile action texts.

use oxbow_lflow::constant::Integer;
use oxbow_lflow::context::port_group_sb_name;
use oxbow_lflow::evaluate::FieldValues;
use oxbow_lflow::expr::RelOp;
use oxbow_lflow::microflow::parse_microflow;
use oxbow_lflow::{
    Action, ActionContext, AddressSet, AddressSets, Expr, Field, Masked, MatchContext, Normalized, Nothing, Pipeline,
    Templates, Vocabulary, parse_actions, parse_match,
};
use proptest::prelude::*;
use std::collections::HashMap;

fn context() -> MatchContext<'static> {
    let symbols = Vocabulary::Accepting.table();
    MatchContext { symbols, address_sets: &Nothing, port_groups: &Nothing, templates: &Nothing }
}

fn action_context() -> ActionContext<'static> {
    ActionContext {
        symbols: Vocabulary::Accepting.table(),
        templates: &Nothing,
        dhcp_options: &Nothing,
        pipeline: Pipeline::Egress,
        table: 5,
        n_ingress_tables: 34,
        n_egress_tables: 20,
    }
}

struct Sets(HashMap<&'static str, AddressSet>);

impl AddressSets for Sets {
    fn address_set(&self, name: &str) -> Option<&AddressSet> {
        self.0.get(name)
    }
}

#[test]
fn adding_a_member_adds_one_alternative() {
    let mut sets = Sets(HashMap::from([("s", AddressSet::parse(["10.0.0.1", "10.1.0.0/16"]).0)]));
    let text = "ip4.src == {$s, 10.0.0.7} && ip4.dst == $s && reg0 == $s";
    let e = parse_match(text, &MatchContext { address_sets: &sets, ..context() }).unwrap();
    let normal = Normalized::new(&e, None).unwrap();
    let before: Vec<Vec<Masked>> = normal.clauses[0].dims.iter().map(|dim| dim.resolve(&sets)).collect();
    let member = Integer::parse("10.9.9.9").unwrap();
    sets.0.get_mut("s").unwrap().insert(member);
    for (dim, before) in normal.clauses[0].dims.iter().zip(before) {
        let mut after = dim.resolve(&sets);
        after.retain(|alternative| !before.contains(alternative));
        let (_, references) = dim.as_union().expect("a union");
        let expected: Vec<Masked> = references.iter().map(|set| set.alternative(&member)).collect();
        assert_eq!(after, expected, "{dim}");
    }
    assert!(sets.0.get_mut("s").unwrap().remove(&member));
}

#[test]
fn the_width_of_a_set_is_that_of_its_widest_member() {
    let (mut set, skipped) = AddressSet::parse(["10.0.0.1", "fd00::1", "not an address", "0x"]);
    assert_eq!((set.max_width, skipped), (128, vec!["not an address", "0x"]));
    assert!(set.remove(&Integer::parse("fd00::1").unwrap()));
    assert_eq!(set.max_width, 32);
    assert!(!set.remove(&Integer::parse("fd00::1").unwrap()));
    assert_eq!(port_group_sb_name(7, "pg"), "7_pg");
}

struct Variables;

impl Templates for Variables {
    fn template(&self, name: &str) -> Option<&str> {
        match name {
            "vip" => Some("10.0.0.1"),
            "cond" => Some("tcp.dst == {80, 443}"),
            _ => None,
        }
    }
}

#[test]
fn templates_are_expanded_before_parsing() {
    let context = MatchContext { templates: &Variables, ..context() };
    let e = parse_match("ip4.dst == ^vip && ^cond && inport == \"^vip\"", &context).unwrap();
    assert_eq!(e.to_string(), "ip4.dst == 10.0.0.1 && tcp.dst == {80, 443} && inport == \"^vip\"");
    assert_eq!(parse_match("ip4.dst == ^other", &context).unwrap_err().message, "Unexpanded template.");
    let actions = ActionContext { templates: &Variables, ..action_context() };
    assert_eq!(
        parse_actions("ct_lb_mark(backends=^vip:80);", &actions).unwrap().to_string(),
        "ct_lb_mark(backends=10.0.0.1:80);"
    );
}

#[test]
fn microflows_give_values_to_fields() {
    let text = "inport == \"p1\" && eth.src == 00:00:00:00:00:01 && ip4 && ip4.src == 10.0.0.1 && tcp.dst == 80 && reg9[3] && !ct.new";
    let packet = parse_microflow(text, &context()).unwrap();
    assert_eq!(packet.inport(), "p1");
    for (field, value) in [
        (Field::EthSrc, 1),
        (Field::EthType, 0x800),
        (Field::IpProto, 6),
        (Field::Ip4Src, 0x0a00_0001),
        (Field::TcpDst, 80),
        (Field::XReg4, 8),
        (Field::CtState, 0x20),
        (Field::Ip4Dst, 0),
    ] {
        assert_eq!(packet.integer(field), value, "{field}");
    }
    let given: Vec<Field> = packet.integers().map(|(field, _)| field).collect();
    assert!(given.is_sorted() && !given.contains(&Field::Ip4Dst));
}

#[test]
fn errors_point_at_the_token() {
    let text = "ip4 && tcp.dst == && x";
    let e = parse_match(text, &context()).unwrap_err();
    assert_eq!(e.message, "Syntax error at `&&' expecting constant.");
    assert_eq!((e.span.start, e.span.end), (18, 20));
    assert_eq!(
        e.with_caret(text),
        "Syntax error at `&&' expecting constant.\n  ip4 && tcp.dst == && x\n                    ^^"
    );
    let e = parse_match("ip4 &&", &context()).unwrap_err();
    assert_eq!(
        (e.message.as_str(), e.span.start, e.span.end),
        ("Syntax error at end of input expecting constant.", 6, 6)
    );
    let e = parse_actions("next; foo;", &action_context()).unwrap_err();
    assert_eq!((e.message.as_str(), e.span.start), ("Syntax error at `foo' expecting action.", 6));
}

#[test]
fn the_span_of_a_comparison_is_its_text() {
    let text = "ip4 && 1 <= tcp.dst && ip4.src == {10.0.0.1, 10.0.0.2}";
    let Ok(Expr::And(list)) = parse_match(text, &context()) else { panic!("{text} is a conjunction") };
    let spans: Vec<&str> = list
        .iter()
        .map(|e| match e {
            Expr::Cmp { span, .. } | Expr::Test { span, .. } => &text[span.start as usize..span.end as usize],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(spans, ["ip4", "1 <= tcp.dst", "ip4.src == {10.0.0.1, 10.0.0.2}"]);
}

#[test]
fn next_is_limited_by_the_pipeline_it_goes_to() {
    let message = |text| parse_actions(text, &action_context()).map_err(|e| e.message);
    assert!(message("next(19);").is_ok());
    assert_eq!(message("next(20);").unwrap_err(), "\"next\" action cannot advance beyond table 19.");
    assert!(message("next(pipeline=ingress, table=33);").is_ok());
    assert_eq!(
        message("next(pipeline=ingress, table=34);").unwrap_err(),
        "\"next\" action cannot advance beyond table 33."
    );
    let nowhere = ActionContext { n_egress_tables: 0, ..action_context() };
    assert_eq!(parse_actions("next;", &nowhere).unwrap_err().message, "\"next\" action not allowed here.");
}

#[test]
fn prerequisites_of_actions_narrow_the_match() {
    let e = parse_match("ip4.src == 10.0.0.1", &context()).unwrap();
    let actions = parse_actions("tcp.dst = 80; ip.ttl--; arp { udp.dst = 1; }; output;", &action_context()).unwrap();
    let normal = Normalized::new(&e, actions.prerequisites.as_ref()).unwrap();
    assert_eq!(normal.to_string(), "eth.type == 0x800 && ip.proto == 0x6 && ip4.src == 0xa000001");
    let contradictory = parse_actions("ip4.src = ip6.src[0..31];", &action_context()).unwrap();
    let always = parse_match("1", &context()).unwrap();
    assert!(Normalized::new(&always, contradictory.prerequisites.as_ref()).unwrap().is_false());
}

#[test]
fn vocabularies_differ_where_versions_do() {
    let normal = |vocabulary: Vocabulary, text: &str| {
        let context = MatchContext { symbols: vocabulary.table(), ..context() };
        parse_match(text, &context).map(|e| Normalized::new(&e, None).unwrap().to_string()).map_err(|e| e.message)
    };
    assert_eq!(normal(Vocabulary::V23_03, "igmp").unwrap(), "eth.type == 0x800 && ip.proto == 0x2");
    assert!(normal(Vocabulary::Accepting, "igmp").unwrap().contains("eth.dst"));
    assert_eq!(
        normal(Vocabulary::V23_03, "flags.tunnel_rx").unwrap_err(),
        "Syntax error at `flags.tunnel_rx' expecting field name."
    );
    assert!(normal(Vocabulary::V26_03, "ct_label.blocked").is_err());
    assert!(normal(Vocabulary::Accepting, "ct_label.blocked && ct_label.nf").is_ok());
    assert_eq!(
        normal(Vocabulary::AcceptingAclCt, "tcp.dst == 80").unwrap(),
        "ct_state == 0x20/0x30 && ct_proto == 0x6 && ct_tp_dst == 0x50"
    );
}

fn masked() -> impl Strategy<Value = Masked> {
    (0u128..256, 0u128..256).prop_map(|(value, mask)| Masked::new(value, mask))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ternary_algebra_is_set_algebra(a in masked(), b in masked()) {
        let (both, rest) = (a.intersect(&b), a.subtract(&b));
        for value in 0..256 {
            let (in_a, in_b) = (a.matches(value), b.matches(value));
            prop_assert_eq!(both.is_some_and(|both| both.matches(value)), in_a && in_b);
            // Exactly one, since they are disjoint.
            prop_assert_eq!(rest.iter().filter(|part| part.matches(value)).count(), usize::from(in_a && !in_b));
            prop_assert!(!a.contains(&b) || !in_b || in_a);
        }
        prop_assert_eq!(a.contains(&b), (0..256).all(|value| !b.matches(value) || a.matches(value)));
    }

    #[test]
    fn ranges_are_what_they_say(bound in 0u128..300, offset in 0u8..5) {
        for op in [RelOp::Eq, RelOp::Ne, RelOp::Lt, RelOp::Le, RelOp::Gt, RelOp::Ge] {
            let parts = Masked::range(op, bound, offset, 8);
            for bits in 0u128..256 {
                let matching = parts.iter().filter(|part| part.matches(bits << offset)).count();
                prop_assert_eq!(matching, usize::from(op.holds(bits, bound & 0xff)), "{} {:?} {}", bits, op, bound);
            }
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused_as_actions(text in any::<String>()) {
        if let Err(e) = parse_actions(&text, &action_context()) {
            prop_assert!(e.with_caret(&text).starts_with(&e.message));
        }
    }

    #[test]
    fn any_tokens_are_parsed_or_refused_as_actions(
        tokens in prop::collection::vec(
            prop_oneof![
                1 => prop::sample::select(Action::NAMES.to_vec()),
                2 => prop::sample::select(vec![
                    ";", "(", ")", "{", "}", "[", "]", "=", ",", "-", ":", "..", "0", "1", "70000", "\"a\"", "reg0", "eth.src", "inport",
                    "ct_mark", "10.0.0.1", "fd00::1", "backends", "verdict", "\u{e9}",
                ]),
            ],
            0..16,
        )
    ) {
        let text = tokens.join(" ");
        if let Ok(actions) = parse_actions(&text, &action_context()) {
            let again = parse_actions(&actions.to_string(), &action_context());
            prop_assert_eq!(again.map(|again| again.actions), Ok(actions.actions));
        }
    }
}
