//! Any text: refused, or a packet.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oxbow_lflow::microflow::parse_microflow;
use oxbow_lflow::{MatchContext, Nothing, Vocabulary};

fuzz_target!(|text: &str| {
    let context = MatchContext {
        symbols: Vocabulary::Accepting.table(),
        address_sets: &Nothing,
        port_groups: &Nothing,
        templates: &Nothing,
    };
    if let Ok(packet) = parse_microflow(text, &context) {
        assert!(packet.integers().all(|(field, given)| given.value & !field.full_mask() == 0));
    }
});
