//! How long VIFs take from their claim until they are installed.

use crate::vif::{Phase, VifState};
use oxbow_daemon::exposition::Histogram;
use std::collections::BTreeMap;

/// Upper bounds in seconds: from a tenth of what is aimed at to where clients give up.
const BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// VIFs on their way, and how long others took.
#[derive(Clone, Debug)]
pub(in super::super) struct Installs {
    since_ms: BTreeMap<String, u64>,
    pub(super) latency: Histogram,
}

impl Default for Installs {
    fn default() -> Self {
        Installs { since_ms: BTreeMap::new(), latency: Histogram::new(BOUNDS) }
    }
}

impl Installs {
    /// Looks at the VIFs after a pass.
    pub(in super::super) fn look(&mut self, states: &BTreeMap<String, VifState>, now_ms: u64) {
        for (interface, state) in states {
            if state.phase.is_under_way() {
                if !self.since_ms.contains_key(interface) {
                    self.since_ms.insert(interface.clone(), now_ms);
                }
            } else if let Some(since) = self.since_ms.remove(interface)
                && matches!(state.phase, Phase::Installed)
            {
                self.latency.observe(now_ms.saturating_sub(since) as f64 / 1000.0);
            }
        }
        if !self.since_ms.is_empty() {
            self.since_ms.retain(|interface, _| states.contains_key(interface));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_from_claim_to_installation_is_observed_once() {
        let mut installs = Installs::default();
        let states = |phase: Phase| {
            BTreeMap::from([("tap0".to_owned(), VifState { iface_id: "vm1".into(), phase, ifindex: Some(3) })])
        };
        installs.look(&states(Phase::NoPort), 0);
        installs.look(&states(Phase::Claimed), 100);
        installs.look(&states(Phase::Programming), 120);
        installs.look(&states(Phase::Installed), 180);
        installs.look(&states(Phase::Installed), 900);
        // One that fails on its way is not installed.
        installs.look(&states(Phase::Claimed), 1000);
        installs.look(&states(Phase::Failed("x".into())), 1100);
        let mut expected = Histogram::new(BOUNDS);
        expected.observe(0.08);
        assert_eq!(installs.latency, expected);
        assert!(installs.since_ms.is_empty());
    }
}
