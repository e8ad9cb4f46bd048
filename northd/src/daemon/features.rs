//! `debug/chassis-features-list`: what every chassis of this deployment can do, which decides how some flows are written.

use std::fmt::Write as _;

use oxbow_ovsdb::Replica;
use oxbow_schema::sb;

/// The features of OVN 23.03: the name listed, and the key in `Chassis.other_config` (ovn-sb(5)).
const FEATURES: [(&str, &str); 3] = [
    ("ct_no_masked_label", "ct-no-masked-label"),
    ("ct_lb_related", "ovn-ct-lb-related"),
    ("mac_binding_timestamp", "mac-binding-timestamp"),
];

/// The text of the command. A feature is there if no chassis lacks it; chassis of other availability zones
/// (`is-remote`) do not count, since they run flows of another northd.
pub(super) fn list(southbound: &Replica) -> String {
    let mut text = String::new();
    for (name, key) in FEATURES {
        let lacking = southbound.rows(sb::chassis::TABLE).any(|chassis| {
            let config = chassis.get(sb::chassis::OTHER_CONFIG);
            !config.get_bool("is-remote", false) && !config.get_bool(key, false)
        });
        let _ = writeln!(text, "{:<23}{}", format!("{name}:"), !lacking);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_ovsdb::RowDraft;

    #[test]
    fn a_feature_is_there_unless_a_chassis_of_ours_lacks_it() {
        let mut southbound = Replica::new(sb::DATABASE);
        // The texts are stock's answers to the same contents.
        assert_eq!(
            list(&southbound),
            "ct_no_masked_label:    true\nct_lb_related:         true\nmac_binding_timestamp: true\n"
        );
        let chassis = |pairs: Vec<(&'static str, &'static str)>| {
            RowDraft::new(sb::chassis::TABLE).set(sb::chassis::OTHER_CONFIG, pairs)
        };
        southbound.put(chassis(vec![("is-remote", "true")]));
        assert!(!list(&southbound).contains("false"));
        southbound.put(chassis(vec![("ct-no-masked-label", "true")]));
        assert_eq!(
            list(&southbound),
            "ct_no_masked_label:    true\nct_lb_related:         false\nmac_binding_timestamp: false\n"
        );
    }
}
