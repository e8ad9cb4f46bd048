//! Which tests of clouds know one backend only, and why: all others run on both.

/// A test that is not run with `--backend=openflow`: its file below `tests/tests`, its function (none = the whole file), and the reason.
pub type Alone = (&'static str, Option<&'static str>, &'static str);

/// Tests whose subject eBPF alone has. Whatever is not listed runs by [`on_every_backend`](crate::on_every_backend), or names its own
/// hypervisors of both kinds.
pub const EBPF_ALONE: &[Alone] = &[
    ("cloud_node.rs", Some("exit_leaves_nothing_in_the_kernel"), "pins; cloud_openflow.rs has the bridge's own"),
    (
        "cloud_restart.rs",
        Some("exit_removes_the_chassis_and_what_it_attached"),
        "pins; cloud_openflow.rs has the bridge's own",
    ),
    (
        "fault_databases.rs",
        Some("southbound_is_away_under_stock_northd"),
        "the northd is the subject; the backends differ under ours",
    ),
    (
        "fault_databases.rs",
        Some("the_southbound_leader_moves_under_stock_northd"),
        "the northd is the subject; the backends differ under ours",
    ),
    ("fault_devices.rs", Some("the_same_without_tcx"), "the hook of programs"),
    ("fault_devices.rs", Some("pins_are_removed_by_hand"), "pins"),
    ("fault_devices.rs", Some("marks_of_filters_are_removed_by_hand"), "the hook of programs"),
    ("fault_kill.rs", Some("nor_does_one_on_a_kernel_without_tcx"), "the hook of programs"),
    ("fault_maps.rs", None, "maps have sizes; what a bridge holds is bounded by memory"),
    (
        "fault_upgrade.rs",
        None,
        "objects and layouts of maps; another oxbow-node over the same bridge is operator_restart.rs",
    ),
    (
        "mixed_moves.rs",
        Some("a_port_that_goes_is_forgotten_under_stock_northd"),
        "the northd is the subject; the backends differ under ours",
    ),
    (
        "operator_flows.rs",
        Some("wrong_flows_beside_a_paused_stock_northd"),
        "the northd is the subject; the backends differ under ours",
    ),
    ("operator_kernel.rs", None, "kernels without tcx, full maps"),
    (
        "operator_metrics.rs",
        Some("a_host_is_checked_without_a_daemon"),
        "what is checked is whether the kernel takes programs",
    ),
    ("operator_oxbow.rs", Some("trace_names_every_fate_and_the_loaded_programs_agree"), "loaded programs"),
    (
        "operator_oxbow.rs",
        Some("real_packets_are_heard_counted_and_found_in_the_cache"),
        "records of packets and the cache are the programs'",
    ),
    ("operator_restart.rs", Some("the_same_on_a_kernel_without_tcx"), "the hook of programs"),
    ("operator_restart.rs", Some("exit_removes_every_trace"), "pins and links; cloud_openflow.rs has the bridge's own"),
    ("operator_restart.rs", Some("exit_removes_every_filter_of_clsact"), "the hook of programs"),
    ("operator_start.rs", Some("a_missing_privilege_is_named_and_nothing_is_left"), "OpenFlow needs no privilege"),
    (
        "operator_start.rs",
        Some("detaching_without_a_privilege_tells_the_person_who_typed"),
        "OpenFlow needs no privilege",
    ),
    (
        "operator_start.rs",
        Some("a_detached_node_finds_an_object_that_was_named_from_where_it_was_started"),
        "the object",
    ),
    ("operator_start.rs", Some("a_missing_or_foreign_object_and_a_missing_bpffs_are_named"), "the object and its pins"),
    (
        "fault_databases.rs",
        Some("the_open_vswitch_databases_are_away"),
        "an ovs-vswitchd without its database forwards nothing by the userspace datapath; fault_bridge.rs has what the node does then",
    ),
    (
        "fault_databases.rs",
        Some("all_of_them_are_away_and_a_node_starts_meanwhile"),
        "an ovs-vswitchd without its database forwards nothing by the userspace datapath; fault_bridge.rs has what the node does then",
    ),
    (
        "operator_databases.rs",
        Some("without_the_open_vswitch_database_vifs_go_on"),
        "an ovs-vswitchd without its database forwards nothing by the userspace datapath; fault_bridge.rs has what the node does then",
    ),
    (
        "operator_databases.rs",
        Some("a_node_that_starts_without_the_open_vswitch_database_waits_for_it"),
        "an ovs-vswitchd without its database forwards nothing by the userspace datapath; fault_bridge.rs has what the node does then",
    ),
    (
        "fault_devices.rs",
        Some("a_device_goes_in_every_state_of_its_vif"),
        "a userspace datapath keeps a device that is gone, and says nothing; fault_bridge.rs has ports that go",
    ),
    (
        "fault_devices.rs",
        Some("an_uplink_goes_and_comes_back"),
        "the uplink is a port of another bridge of ovs-vswitchd's",
    ),
    ("operator_capture.rs", None, "records of packets are the programs'; a bridge has `ovs-tcpdump`"),
    ("operator_trace.rs", None, "dry runs of the loaded programs; a bridge has `ofproto/trace`"),
];
