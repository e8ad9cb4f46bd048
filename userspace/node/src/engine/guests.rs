//! Guests that say they run here: which devices are listened on, and what was heard.

use super::Engine;
use crate::activation::listen::{Listeners, Wanted};
use crate::backend::Numbering;
use crate::config::Config;
use crate::link::Links;
use crate::view::OvsView;
use crate::vif::Outcome as VifOutcome;
use std::collections::BTreeMap;

impl Engine {
    /// Waits until a guest that is waited for may have spoken; then comes [`Engine::follow_guests`]. Cancel-safe.
    pub fn guest_speaks(&self) -> impl Future<Output = ()> + Send + '_ {
        // Of the engine it holds only these: the loop that waits may go on on another thread.
        let listeners = &self.listeners;
        async move { listeners.ready().await }
    }

    /// Takes over which ports were activated. True when that is something to decide on.
    pub fn follow_guests(&mut self) -> bool {
        let mut is_news = false;
        let Some(config) = self.config.clone() else { return false };
        for (device, vlan) in self.listeners.heard() {
            let of_port = |waiting: &&crate::vif::Awaiting| {
                waiting.vlan == vlan && self.kernel_index(&config, waiting.ifindex) == Some(device)
            };
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
        let is_deaf = |waiting: &crate::vif::Awaiting| {
            let device = self.kernel_index(&config, waiting.ifindex);
            device.is_some_and(|device| self.listeners.state(device).is_none())
        };
        is_news || self.states.awaiting.iter().any(is_deaf)
    }

    /// Interface index of the device behind a number of the dataplane; none for what is no device of the kernel.
    pub(super) fn kernel_index(&self, config: &Config, number: u32) -> Option<u32> {
        kernel_index(&self.ovs, &self.kernel.links, self.settings.backend.numbering(), &config.bridge, number)
    }

    /// Listens where a port waits. True when that changed something.
    pub(super) fn listen(&mut self, config: &Config, out: &VifOutcome) -> bool {
        if self.settings.is_read_only {
            return false;
        }
        let mut wanted: BTreeMap<u32, Wanted> = BTreeMap::new();
        for waiting in &out.awaiting {
            if let Some(device) = self.kernel_index(config, waiting.ifindex) {
                wanted.entry(device).or_default().insert(waiting.vlan, waiting.strategies);
            }
        }
        Listeners::follow(&mut self.listeners, &wanted)
    }
}

/// [`Engine::kernel_index`] of what it looks at.
pub(super) fn kernel_index(
    ovs: &OvsView,
    links: &Links,
    numbering: Numbering,
    bridge: &str,
    number: u32,
) -> Option<u32> {
    if numbering == Numbering::Ifindex {
        return Some(number);
    }
    let interfaces = ovs.vif_interfaces(bridge, links, numbering);
    let interface = interfaces.iter().find(|interface| interface.ifindex == Some(number))?;
    links.named(&interface.row.name).map(|link| link.ifindex)
}
