//! Prints how long it takes to parse and to normalise a match, and to parse actions.
//!
//! `cargo run --release -p oxbow-lflow --example parse_speed`

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use oxbow_lflow::{ActionContext, MatchContext, Normalized, Nothing, Pipeline, Vocabulary, parse_actions, parse_match};
use std::hint::black_box;
use std::time::Instant;

/// As northd writes them, in roughly the mix of a switch with port security and ACLs.
const MATCHES: [&str; 10] = [
    "1",
    "inport == \"sw0-port1\"",
    "eth.dst == 0a:58:0a:f4:00:03",
    "vlan.present || eth.src[40]",
    "ip4.dst == 10.244.0.3",
    "arp.tpa == 10.244.0.3 && arp.op == 1 && inport == \"sw0-port1\"",
    "nd_ns && ip6.dst == {fd00::3, ff02::1:ff00:3} && nd.target == fd00::3",
    "!ct.trk || (ct.est && !ct.rpl)",
    "reg0[7] == 1 && (outport == \"sw0-port1\" && ip4 && ip4.src == {10.0.0.0/8, 192.168.0.0/16} && tcp && tcp.dst == {80, 443})",
    "reg0[9] == 1 && (inport == \"sw0-port1\" && (ip4.dst == 10.0.0.5 || ip4.dst == 10.0.0.6) && udp.dst == 53)",
];

const ACTIONS: [&str; 6] = [
    "next;",
    "drop;",
    "outport = \"sw0-port1\"; output;",
    "reg0[15] = check_in_port_sec(); next;",
    "eth.dst = eth.src; eth.src = 0a:58:0a:f4:00:03; arp.op = 2; arp.tha = arp.sha; arp.sha = 0a:58:0a:f4:00:03; \
     arp.tpa = arp.spa; arp.spa = 10.244.0.3; outport = inport; flags.loopback = 1; output;",
    "ct_commit { ct_mark.blocked = 0; ct_label.label = reg3; }; next;",
];

const ROUNDS: u32 = 20_000;

fn time(what: &str, per_round: usize, mut work: impl FnMut()) {
    work();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    let nanoseconds = start.elapsed().as_nanos() / (u128::from(ROUNDS) * per_round as u128);
    println!("{what}: {nanoseconds} ns each");
}

fn main() {
    let matches = MatchContext {
        symbols: Vocabulary::Accepting.table(),
        address_sets: &Nothing,
        port_groups: &Nothing,
        templates: &Nothing,
    };
    let actions = ActionContext {
        symbols: Vocabulary::Accepting.table(),
        templates: &Nothing,
        dhcp_options: &Nothing,
        pipeline: Pipeline::Ingress,
        table: 3,
        n_ingress_tables: 34,
        n_egress_tables: 34,
    };
    let parse = |text: &&str| parse_match(text, &matches).unwrap_or_else(|e| panic!("{}", e.with_caret(text)));
    let trees: Vec<_> = MATCHES.iter().map(parse).collect();
    time("parse a match", MATCHES.len(), || {
        for text in MATCHES {
            let _ = black_box(parse_match(black_box(text), &matches));
        }
    });
    time("normalise a match", trees.len(), || {
        for tree in &trees {
            let _ = black_box(Normalized::new(black_box(tree), None));
        }
    });
    time("parse actions", ACTIONS.len(), || {
        for text in ACTIONS {
            let _ = black_box(parse_actions(black_box(text), &actions));
        }
    });
}
