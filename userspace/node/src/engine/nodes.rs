//! What `inc-engine/show-stats` counts, under the nodes of stock's engine.

use super::Engine;
use oxbow_daemon::engine_stats::{EngineStats, Wanted};
use oxbow_ovsdb::RowChange;
use std::collections::BTreeSet;

/// Those of ovn-controller 23.03.1, in the order in which it lists them.
pub(super) const NODES: [&str; 44] = [
    "SB_sb_global",
    "northd_options",
    "SB_dhcp_options",
    "SB_dhcpv6_options",
    "dhcp_options",
    "SB_address_set",
    "addr_sets",
    "SB_port_group",
    "ofctrl_is_connected",
    "OVS_open_vswitch",
    "OVS_bridge",
    "OVS_qos",
    "SB_chassis",
    "SB_datapath_binding",
    "SB_port_binding",
    "postponed_ports",
    "sb_ro",
    "OVS_port",
    "OVS_interface",
    "ovs_interface_shadow",
    "runtime_data",
    "port_groups",
    "SB_chassis_template_var",
    "template_vars",
    "non_vif_data",
    "SB_multicast_group",
    "OVS_flow_sample_collector_set",
    "SB_mac_binding",
    "SB_static_mac_binding",
    "SB_logical_flow",
    "SB_logical_dp_group",
    "SB_dns",
    "SB_load_balancer",
    "lb_data",
    "SB_fdb",
    "SB_meter",
    "logical_flow_output",
    "ct_zones",
    "if_status_mgr",
    "activated_ports",
    "SB_encap",
    "mff_ovn_geneve",
    "physical_flow_output",
    "flow_output",
];

/// Nodes that follow a table row by row.
const FOLLOWING: [(&str, &str); 6] = [
    ("SB_Global", "northd_options"),
    ("Address_Set", "addr_sets"),
    ("Port_Group", "port_groups"),
    ("Port_Binding", "runtime_data"),
    ("Interface", "ovs_interface_shadow"),
    ("Interface", "runtime_data"),
];

/// Nodes that a difference of policy brings up to date.
const OUTPUTS: [&str; 3] = ["logical_flow_output", "physical_flow_output", "flow_output"];

/// Counts a difference of policy that was put in force.
pub(super) fn count_commit(stats: &mut EngineStats) {
    OUTPUTS.iter().for_each(|node| stats.compute(node));
}

impl Engine {
    /// Counts a batch of changes.
    pub(super) fn count_changes(&mut self, database: &str, changes: &[RowChange]) {
        let tables: BTreeSet<&str> = changes.iter().map(|change| change.table.name).collect();
        let followed = FOLLOWING.iter().filter(|(table, _)| tables.contains(table)).map(|(_, node)| *node);
        followed.collect::<BTreeSet<_>>().into_iter().for_each(|node| self.stats.compute(node));
        self.stats.compute_tables(database, tables);
    }

    /// `inc-engine/show-stats`.
    pub fn stats_text(&self, wanted: &Wanted) -> String {
        self.stats.show(wanted)
    }

    /// `inc-engine/clear-stats`.
    pub fn clear_stats(&mut self) {
        self.stats.clear();
    }
}
