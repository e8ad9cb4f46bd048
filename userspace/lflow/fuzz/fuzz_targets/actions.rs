//! Any text: refused, or printed as something that parses to the same actions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oxbow_lflow::{ActionContext, Nothing, Pipeline, Vocabulary, parse_actions};

fuzz_target!(|text: &str| {
    for vocabulary in Vocabulary::ALL {
        let context = ActionContext {
            symbols: vocabulary.table(),
            templates: &Nothing,
            dhcp_options: &Nothing,
            pipeline: Pipeline::Ingress,
            table: 3,
            n_ingress_tables: 34,
            n_egress_tables: 34,
        };
        if let Ok(actions) = parse_actions(text, &context) {
            let again = parse_actions(&actions.to_string(), &context);
            assert_eq!(again.map(|again| again.actions), Ok(actions.actions));
        }
    }
});
