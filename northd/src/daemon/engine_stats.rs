//! `inc-engine/show-stats`: our counters under the node names of stock's engine.
//!
//! Stock's engine has nodes, each recomputed as a whole or brought up to date by a handler. Ours has units; what answers
//! the question behind the command ("was everything computed anew, or only what changed?") is counted here per turn:
//! a full compilation is a *recompute* of every node, a turn that ran units of a node's kinds a *compute* of that node.

use std::fmt::Write as _;

use super::commands::Counter;

/// Stock 23.03.1's nodes in the order it lists them.
const NODES: [&str; 70] = [
    "NB_address_set",
    "NB_port_group",
    "NB_nb_global",
    "NB_copp",
    "NB_logical_switch",
    "NB_logical_switch_port",
    "NB_forwarding_group",
    "NB_load_balancer",
    "NB_load_balancer_group",
    "NB_load_balancer_health_check",
    "NB_acl",
    "NB_logical_router",
    "NB_qos",
    "NB_mirror",
    "NB_meter",
    "NB_meter_band",
    "NB_logical_router_port",
    "NB_logical_router_static_route",
    "NB_logical_router_policy",
    "NB_nat",
    "NB_dhcp_options",
    "NB_connection",
    "NB_dns",
    "NB_ssl",
    "NB_gateway_chassis",
    "NB_ha_chassis_group",
    "NB_ha_chassis",
    "NB_static_mac_binding",
    "NB_chassis_template_var",
    "SB_sb_global",
    "SB_chassis",
    "SB_chassis_private",
    "SB_encap",
    "SB_port_group",
    "SB_logical_DP_group",
    "SB_mirror",
    "SB_meter",
    "SB_meter_band",
    "SB_datapath_binding",
    "SB_port_binding",
    "SB_mac_binding",
    "SB_dhcp_options",
    "SB_dhcpv6_options",
    "SB_connection",
    "SB_ssl",
    "SB_dns",
    "SB_rbac_role",
    "SB_rbac_permission",
    "SB_gateway_chassis",
    "SB_ha_chassis",
    "SB_ha_chassis_group",
    "SB_controller_event",
    "SB_ip_multicast",
    "SB_service_monitor",
    "SB_load_balancer",
    "SB_fdb",
    "SB_static_mac_binding",
    "SB_chassis_template_var",
    "northd",
    "SB_address_set",
    "sync_to_sb_addr_set",
    "sync_to_sb",
    "NB_bfd",
    "SB_bfd",
    "SB_logical_flow",
    "SB_multicast_group",
    "SB_igmp_group",
    "mac_binding_aging_waker",
    "mac_binding_aging",
    "lflow",
];

/// The node that follows all others.
const OUTPUT: &str = "northd_output";

/// Counts of one node since the start or the last `inc-engine/clear-stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    recompute: u64,
    compute: u64,
}

/// The counters of all nodes.
#[derive(Debug, Default)]
pub(super) struct EngineStats {
    nodes: std::collections::BTreeMap<String, Counts>,
}

impl EngineStats {
    /// Counts a compilation of everything.
    pub(super) fn full(&mut self) {
        for node in NODES.into_iter().chain([OUTPUT]) {
            self.nodes.entry(node.to_owned()).or_default().recompute += 1;
        }
    }

    /// Counts an incremental turn for `node` (an unknown name is not counted).
    pub(super) fn compute(&mut self, node: &str) {
        if NODES.contains(&node) || node == OUTPUT {
            self.nodes.entry(node.to_owned()).or_default().compute += 1;
        }
    }

    /// Counts an incremental turn for the input node of a table, which stock calls `NB_` or `SB_` and the table's name
    /// in small letters, but for `Logical_DP_Group`.
    pub(super) fn compute_table(&mut self, database: &str, table: &str) {
        let prefix = if database == "OVN_Northbound" { "NB" } else { "SB" };
        let table = table.to_ascii_lowercase().replace("_dp_group", "_DP_group");
        self.compute(&format!("{prefix}_{table}"));
    }

    /// Sets all counters to zero.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }

    /// The text of the command; an unknown node gives an empty one, as with stock.
    pub(super) fn show(&self, node: Option<&str>, counter: Option<Counter>) -> String {
        let mut text = String::new();
        for name in NODES.into_iter().chain([OUTPUT]).filter(|name| node.is_none_or(|node| node == *name)) {
            let counts = self.nodes.get(name).copied().unwrap_or_default();
            let result = match counter {
                Some(Counter::Recompute) => writeln!(text, "{}", counts.recompute),
                Some(Counter::Compute) => writeln!(text, "{}", counts.compute),
                Some(Counter::Abort) => writeln!(text, "0"),
                None => writeln!(
                    text,
                    "Node: {name}\n- recompute: {:12}\n- compute:   {:12}\n- abort:     {:12}",
                    counts.recompute, counts.compute, 0
                ),
            };
            // Writing to a String cannot fail.
            debug_assert!(result.is_ok());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_stocks() {
        let mut stats = EngineStats::default();
        stats.full();
        stats.compute("lflow");
        stats.compute_table("OVN_Southbound", "Logical_DP_Group");
        stats.compute("no such node");
        assert_eq!(
            stats.show(Some("lflow"), None),
            "Node: lflow\n- recompute:            1\n- compute:              1\n- abort:                0\n"
        );
        assert_eq!(stats.show(Some("SB_logical_DP_group"), Some(Counter::Compute)), "1\n");
        assert_eq!(stats.show(Some("northd"), Some(Counter::Recompute)), "1\n");
        assert_eq!(stats.show(Some("foo"), None), "");
        assert_eq!(stats.show(None, None).lines().count(), 4 * (NODES.len() + 1));
        stats.clear();
        assert_eq!(stats.show(Some("northd"), Some(Counter::Recompute)), "0\n");
    }
}
