//! Any text: refused, or printed as something that parses to the same, with a normal form or a reason for having none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oxbow_lflow::{MatchContext, Normalized, Nothing, Vocabulary, parse_match};

fuzz_target!(|text: &str| {
    for vocabulary in Vocabulary::ALL {
        let context = MatchContext {
            symbols: vocabulary.table(),
            address_sets: &Nothing,
            port_groups: &Nothing,
            templates: &Nothing,
        };
        match parse_match(text, &context) {
            Ok(e) => {
                assert_eq!(parse_match(&e.to_string(), &context).as_ref(), Ok(&e));
                if let Ok(normal) = Normalized::new(&e, None) {
                    assert!(!normal.to_string().is_empty());
                }
            }
            Err(problem) => assert!(problem.with_caret(text).starts_with(&problem.message)),
        }
    }
});
