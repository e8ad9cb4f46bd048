//! The normal form means what the expression means: all small trees on all packets of small universes, and random ones.

use oxbow_lflow::context::{AddressSet, AddressSets, PortGroups};
use oxbow_lflow::evaluate::{Environment, FieldValues};
use oxbow_lflow::{Expr, Field, MatchContext, Normalized, Nothing, Vocabulary, parse_match};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::LazyLock;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

struct World {
    sets: HashMap<&'static str, AddressSet>,
    groups: HashMap<&'static str, Vec<Box<str>>>,
}

impl World {
    fn new() -> World {
        let set = |members: &[&'static str]| AddressSet::parse(members.iter().copied()).0;
        World {
            sets: HashMap::from([
                ("empty", set(&[])),
                ("low", set(&["1", "2"])),
                ("masked", set(&["0x2/0x2"])),
                ("as4", set(&["10.0.0.1", "10.0.1.0/24"])),
                ("other4", set(&["10.0.0.1", "10.0.0.2"])),
                ("as6", set(&["fd00::1", "fd01::/64"])),
            ]),
            groups: HashMap::from([("pg", vec!["a".into()]), ("none", vec![])]),
        }
    }

    fn context(&self) -> MatchContext<'_> {
        MatchContext {
            symbols: Vocabulary::Accepting.table(),
            address_sets: self,
            port_groups: self,
            templates: &Nothing,
        }
    }

    fn parse(&self, text: &str) -> Expr {
        parse_match(text, &self.context()).unwrap_or_else(|e| panic!("{}", e.with_caret(text)))
    }
}

impl AddressSets for World {
    fn address_set(&self, name: &str) -> Option<&AddressSet> {
        self.sets.get(name)
    }
}

impl PortGroups for World {
    fn port_group(&self, name: &str) -> Option<&[Box<str>]> {
        self.groups.get(name).map(|ports| &ports[..])
    }
}

#[derive(Clone, Debug, Default)]
struct Packet {
    integers: Vec<(Field, u128)>,
    inport: &'static str,
    resident: bool,
}

impl FieldValues for Packet {
    fn integer(&self, field: Field) -> u128 {
        self.integers.iter().find(|(f, _)| *f == field).map_or(0, |(_, value)| *value)
    }

    fn string(&self, field: Field) -> &str {
        if field == Field::InPort { self.inport } else { "" }
    }
}

/// All combinations of the values.
fn universe(dimensions: &[(Field, &[u128])]) -> Vec<Packet> {
    let mut packets = vec![Packet::default()];
    for (field, values) in dimensions {
        let with = |packet: &Packet, value: u128| {
            let mut packet = packet.clone();
            packet.integers.push((*field, value));
            packet
        };
        packets = packets.iter().flat_map(|packet| values.iter().map(|value| with(packet, *value))).collect();
    }
    packets
}

fn agree(world: &World, e: &Expr, packets: &[Packet]) -> Result<(), String> {
    let normal = Normalized::new(e, None).map_err(|problem| format!("{e}: {problem}"))?;
    well_formed(&normal).map_err(|problem| format!("{e}: {problem}: {normal:?}"))?;
    for packet in packets {
        let environment =
            Environment { packet, address_sets: world, port_groups: world, resident: &|_| packet.resident };
        let (tree, clauses) = (e.evaluate(&environment), normal.evaluate(&environment));
        if tree != clauses {
            return Err(format!("{e}\nis {tree} on {packet:?}, but its normal form\n{normal}\nis {clauses}"));
        }
        for dim in normal.clauses.iter().flat_map(|clause| &clause.dims) {
            let value = packet.integer(dim.field);
            let resolved = dim.resolve(world).iter().any(|alternative| alternative.matches(value));
            if resolved != dim.evaluate(&environment) {
                return Err(format!("{e}: {dim} on {value:#x}: resolves to {:?}", dim.resolve(world)));
            }
        }
    }
    Ok(())
}

/// What the documentation of the normal form promises of its shape.
fn well_formed(normal: &Normalized) -> Result<(), &'static str> {
    for clause in &normal.clauses {
        if !clause.dims.is_sorted_by(|a, b| a.field < b.field) || !clause.ports.is_sorted_by(|a, b| a.field < b.field) {
            return Err("fields are not ascending and unique");
        }
        for dim in &clause.dims {
            if dim.terms.is_empty() || dim.field.is_string() {
                return Err("a dimension without terms, or of a string");
            }
            for term in &dim.terms {
                if term.literals.is_empty() && term.sets.is_empty() {
                    return Err("an empty term");
                }
                if term.literals.iter().any(|l| l.mask == 0 || l.value & !l.mask != 0) {
                    return Err("a literal that is everything or has bits outside its mask");
                }
                if term.literals.iter().any(|l| l.mask & !dim.field.full_mask() != 0) {
                    return Err("a literal wider than its field");
                }
            }
        }
        if clause.is_true() && normal.clauses.len() > 1 {
            return Err("a constantly true clause beside others");
        }
    }
    Ok(())
}

/// Every tree of up to three of the atoms and their negations, under `&&` and `||` in both nestings.
fn all_small_trees(world: &World, atoms: &[&str], packets: &[Packet]) -> usize {
    let mut leaves = Vec::new();
    for atom in atoms {
        leaves.push(world.parse(atom));
        // What may not be negated (nominal fields) does not parse.
        if let Ok(negated) = parse_match(&format!("!({atom})"), &world.context()) {
            leaves.push(negated);
        }
    }
    let mut n = 0;
    let mut check = |e: &Expr| {
        n += 1;
        agree(world, e, packets).unwrap_or_else(|problem| panic!("{problem}"));
    };
    for (i, a) in leaves.iter().enumerate() {
        check(a);
        for (j, b) in leaves.iter().enumerate() {
            let both = a.clone().and(b.clone());
            let either = a.clone().or(b.clone());
            check(&both);
            check(&either);
            // Both operators are symmetric: one order of the outer pair is enough.
            for c in leaves.iter().skip(i.min(j)) {
                check(&both.clone().or(c.clone()));
                check(&either.clone().and(c.clone()));
                if i <= j {
                    check(&both.clone().and(c.clone()));
                    check(&either.clone().or(c.clone()));
                }
            }
        }
    }
    n
}

#[test]
fn small_trees_over_packet_fields() {
    let world = &*WORLD;
    let packets = universe(&[
        (Field::EthType, &[0x800, 0x86dd, 0x806]),
        (Field::IpFrag, &[0, 1, 2, 3]),
        (Field::IpProto, &[6, 17]),
        (Field::TcpDst, &[79, 80, 81]),
    ]);
    let atoms =
        ["ip4", "tcp", "ip.frag[0]", "ip.first_frag", "tcp.dst == {80, 81}", "tcp.dst > 79", "ip.frag == {1, 2}"];
    let n = all_small_trees(world, &atoms, &packets);
    assert!(n > 4_000, "only {n} trees");
}

#[test]
fn small_trees_over_metadata() {
    let world = &*WORLD;
    let mut packets = universe(&[(Field::XxReg0, &[0, 1, 2, 3]), (Field::CtState, &[0, 1, 0x20, 0x21])]);
    let mut variants = Vec::new();
    for packet in packets.drain(..) {
        for inport in ["a", "b"] {
            for resident in [false, true] {
                variants.push(Packet { inport, resident, ..packet.clone() });
            }
        }
    }
    let atoms = [
        "reg3 == $low",
        "xxreg0[0..1] == $masked",
        "reg3[0]",
        "ct.new",
        "inport == @pg",
        "is_chassis_resident(\"x\")",
        "1",
    ];
    let n = all_small_trees(world, &atoms, &variants);
    assert!(n > 4_000, "only {n} trees");
}

#[test]
fn small_trees_over_one_field() {
    let world = &*WORLD;
    let packets = universe(&[(Field::XxReg0, &[0, 1, 2, 3, 4, 5, 6, 7])]);
    let atoms = [
        "reg3[0..2] < 5",
        "reg3 == {1, 3, 6}",
        "reg3[1..2] != 2",
        "reg3 == 0x5/0x5",
        "reg3 != $low",
        "reg3[0..1] == $empty",
    ];
    let n = all_small_trees(world, &atoms, &packets);
    assert!(n > 3_000, "only {n} trees");
}

#[test]
fn predicates_are_negated_with_their_prerequisites() {
    let world = &*WORLD;
    let arp = Packet { integers: vec![(Field::EthType, 0x806)], ..Packet::default() };
    let environment = Environment { packet: &arp, address_sets: world, port_groups: world, resident: &|_| false };
    // Not IP at all, so not a first fragment.
    assert!(Normalized::new(&world.parse("!ip.first_frag"), None).unwrap().evaluate(&environment));
    // Not TCP at all, and "another port" is a question about TCP.
    assert!(!Normalized::new(&world.parse("!(tcp.dst == 80)"), None).unwrap().evaluate(&environment));
}

#[test]
fn a_set_times_a_set_stays_two_dimensions() {
    let world = &*WORLD;
    let literals = |n: u32| (0..n).map(|i| format!("10.0.{}.{}", i / 256, i % 256)).collect::<Vec<_>>().join(", ");
    let text =
        format!("ip4.src == {{{}}} && ip4.dst == {{{}}} && tcp.dst == {{1, 2, 3}}", literals(500), literals(400));
    let normal = Normalized::new(&world.parse(&text), None).unwrap();
    let [clause] = &normal.clauses[..] else { panic!("{} clauses", normal.clauses.len()) };
    let literals = |field| clause.dim(field).and_then(|dim| dim.as_union()).expect("a union").0.len();
    assert_eq!((literals(Field::Ip4Src), literals(Field::Ip4Dst), literals(Field::TcpDst)), (500, 400, 3));

    let normal = Normalized::new(&world.parse("ip4.src == $as4 && ip4.dst == $other4 && tcp"), None).unwrap();
    assert_eq!(normal.to_string(), "eth.type == 0x800 && ip.proto == 0x6 && ip4.src == $as4 && ip4.dst == $other4");
}

#[test]
fn too_many_clauses_are_an_error() {
    let world = &*WORLD;
    let pairs = (0..13).map(|i| format!("(reg0[{i}] || reg4[{i}])")).collect::<Vec<_>>().join(" && ");
    let problem = Normalized::new(&world.parse(&pairs), None).unwrap_err();
    assert_eq!(problem, oxbow_lflow::NormalizeError::TooManyClauses);
}

/// Examples of the shapes that the documentation describes.
#[test]
fn normal_forms_by_example() {
    let world = &*WORLD;
    for (text, expected) in [
        ("1", "1"),
        ("0", "0"),
        ("ip4 && ip6", "0"),
        ("ip", "eth.type == {0x800, 0x86dd}"),
        ("ip || arp", "eth.type == {0x800, 0x806, 0x86dd}"),
        ("tcp.dst == {80, 443}", "eth.type == {0x800, 0x86dd} && ip.proto == 0x6 && tcp.dst == {0x50, 0x1bb}"),
        (
            "tcp.dst == 80 || tcp.dst == 443",
            "eth.type == {0x800, 0x86dd} && ip.proto == 0x6 && tcp.dst == {0x50, 0x1bb}",
        ),
        ("ip4 && tcp.dst != 80", "eth.type == 0x800 && ip.proto == 0x6 && tcp.dst != 0x50"),
        ("ct.new && !ct.est", "ct_state == 0x21/0x23"),
        ("!ct.trk || ct.est", "ct_state == {0x0/0x20, 0x22/0x22}"),
        ("reg0[0..3] == 5", "xxreg0 == 0x5000000000000000000000000/0xf000000000000000000000000"),
        ("ip4.src == $as4 && ip4.src == $other4", "eth.type == 0x800 && ip4.src == $as4 && ip4.src == $other4"),
        ("ip4.src == {$as4, 10.9.9.9}", "eth.type == 0x800 && ip4.src == {0xa090909, $as4}"),
        ("ip4.src != $empty", "1"),
        ("reg0 == $as4", "xxreg0[96..127] == $as4"),
        ("inport == \"a\" && inport == \"b\"", "0"),
        ("inport == {\"a\", @pg}", "inport == {\"a\", @pg}"),
        ("is_chassis_resident(\"x\") && !is_chassis_resident(\"x\")", "0"),
        ("is_chassis_resident(\"x\") && ip4", "is_chassis_resident(\"x\") && eth.type == 0x800"),
        ("rarp.spa == 10.0.0.1", "eth.type == 0x8035 && arp.spa == 0xa000001"),
    ] {
        let normal = Normalized::new(&world.parse(text), None).unwrap();
        assert_eq!(normal.to_string(), expected, "normal form of {text}");
    }
}

/// A comparison of any symbol, valid or not.
fn comparison() -> impl Strategy<Value = String> {
    let names: Vec<&str> = Vocabulary::Accepting.table().iter().map(|symbol| symbol.name()).collect();
    let operator = prop::sample::select(vec!["==", "==", "==", "!=", "!=", "<", "<=", ">", ">="]);
    let constant = prop_oneof![
        (0u32..20).prop_map(|n| n.to_string()),
        (0u32..256, 0u32..256).prop_map(|(value, mask)| format!("{:#x}/{mask:#x}", value & mask)),
        Just("$low".to_string()),
        Just("$as4".to_string()),
        Just("$as6".to_string()),
        Just("10.0.1.5".to_string()),
        Just("10.0.0.0/15".to_string()),
        Just("fd01::5".to_string()),
        Just("00:00:00:00:00:01".to_string()),
        Just("\"a\"".to_string()),
        Just("@pg".to_string()),
    ];
    let constants = prop_oneof![
        4 => constant.clone(),
        1 => prop::collection::vec(constant, 1..4).prop_map(|list| format!("{{{}}}", list.join(", "))),
    ];
    let bits = prop_oneof![3 => Just(String::new()), 1 => (0u8..6, 0u8..4).prop_map(|(low, n)| format!("[{low}..{}]", low + n))];
    (prop::sample::select(names), bits, operator, constants, 0u8..4).prop_map(|(name, bits, op, constant, form)| {
        match form {
            0 => format!("{name}{bits}"),
            1 => format!("!{name}{bits}"),
            _ => format!("{name}{bits} {op} {constant}"),
        }
    })
}

/// A tree of comparisons; most parse.
fn tree() -> impl Strategy<Value = String> {
    comparison().prop_filter("parses", |text| parse_match(text, &WORLD.context()).is_ok()).prop_recursive(
        4,
        12,
        3,
        |inner| {
            (prop::collection::vec(inner, 2..4), any::<bool>(), 0u8..8).prop_map(|(list, and, bang)| {
                let chain =
                    list.iter().map(|e| format!("({e})")).collect::<Vec<_>>().join(if and { " && " } else { " || " });
                if bang == 0 { format!("!({chain})") } else { chain }
            })
        },
    )
}

/// Values that the comparisons above are likely to tell apart.
fn packet() -> impl Strategy<Value = Packet> {
    let value = prop_oneof![
        (0u128..20),
        (0u128..256),
        prop::sample::select(vec![
            0x800,
            0x86dd,
            0x806,
            0x8035,
            6,
            17,
            58,
            132,
            255,
            0x21,
            0x0a00_0105,
            0x0a00_0001,
            (0xfd01 << 112) + 5
        ]),
        any::<u128>(),
    ];
    (prop::collection::vec(value, Field::ALL.len()), any::<bool>(), any::<bool>()).prop_map(
        |(values, port, resident)| {
            let integers =
                Field::ALL.iter().zip(values).map(|(field, value)| (*field, value & field.full_mask())).collect();
            Packet { integers, inport: if port { "a" } else { "b" }, resident }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_mean_the_same(text in tree(), packets in prop::collection::vec(packet(), 24)) {
        let world = &*WORLD;
        // A negated chain with something nominal in it does not parse.
        if let Ok(e) = parse_match(&text, &world.context()) {
            match agree(world, &e, &packets) {
                Ok(()) => {}
                Err(problem) if problem.ends_with("cannot be matched") => {}
                Err(problem) => return Err(TestCaseError::fail(problem)),
            }
        }
    }

    #[test]
    fn printing_and_parsing_is_the_identity(text in tree()) {
        let world = &*WORLD;
        if let Ok(e) = parse_match(&text, &world.context()) {
            let printed = e.to_string();
            let again = parse_match(&printed, &world.context());
            prop_assert_eq!(again.as_ref(), Ok(&e), "{} printed as {}", text, printed);
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        let world = &*WORLD;
        if let Err(e) = parse_match(&text, &world.context()) {
            prop_assert!(!e.message.is_empty());
            prop_assert!(e.with_caret(&text).starts_with(&e.message));
        }
    }

    #[test]
    fn any_tokens_are_parsed_or_refused(
        tokens in prop::collection::vec(
            prop::sample::select(vec![
                "(", ")", "{", "}", "[", "]", "==", "!=", "<", ">=", "&&", "||", "!", ",", "..", "1", "0x", "0xff/3", "\"a",
                "\"a\"", "$low", "$", "@pg", "^t", "ip4", "tcp.dst", "inport", "10.0.0.1/8", "fd00::/200", "//", "/*", "\u{e9}", "\u{0}",
            ]),
            0..20,
        )
    ) {
        let world = &*WORLD;
        let text = tokens.concat();
        if let Ok(e) = parse_match(&text, &world.context()) {
            prop_assert_eq!(parse_match(&e.to_string(), &world.context()), Ok(e));
        }
    }
}
