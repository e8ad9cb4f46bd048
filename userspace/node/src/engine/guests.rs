//! Guests that say they run here: which devices are listened on, and what was heard.

use super::Engine;
use crate::activation::listen::{Listeners, Wanted};
use crate::vif::Outcome as VifOutcome;
use std::collections::BTreeMap;

impl Engine {
    /// Waits until a guest that is waited for may have spoken; then comes [`Engine::follow_guests`]. Cancel-safe.
    pub async fn guest_speaks(&self) {
        self.listeners.ready().await;
    }

    /// Takes over which ports were activated. True when that is something to decide on.
    pub fn follow_guests(&mut self) -> bool {
        let mut is_news = false;
        for (ifindex, vlan) in self.listeners.heard() {
            let of_port = |waiting: &&crate::vif::Awaiting| (waiting.ifindex, waiting.vlan) == (ifindex, vlan);
            if let Some(waiting) = self.states.awaiting.iter().find(of_port) {
                tracing::info!(
                    target: "binding",
                    "lport {} is active on this additional chassis: its guest has sent what activation-strategy {} waits for",
                    waiting.port, waiting.strategies
                );
                self.vifs.activate(&waiting.port);
                is_news = true;
            }
        }
        // A socket that failed is opened again by the next step.
        is_news || self.states.awaiting.iter().any(|waiting| self.listeners.state(waiting.ifindex).is_none())
    }

    /// Listens where a port waits. True when that changed something.
    pub(super) fn listen(&mut self, out: &VifOutcome) -> bool {
        let mut wanted: BTreeMap<u32, Wanted> = BTreeMap::new();
        for waiting in &out.awaiting {
            wanted.entry(waiting.ifindex).or_default().insert(waiting.vlan, waiting.strategies);
        }
        Listeners::follow(&mut self.listeners, &wanted)
    }
}
