//! The process around the library: command line, control socket, connections, the lock, and the event loop.

mod commands;
mod connections;
mod engine_nodes;
mod event_loop;
mod features;
mod options;

pub(crate) use event_loop::run;
pub(crate) use options::Options;

/// Modules this daemon logs under.
pub(crate) const LOG_MODULES: &[&str] =
    &["northd", "ovn_northd", "ovsdb", "ovsdb_cs", "ovsdb_idl", "reconnect", "jsonrpc", "stream_ssl", "incr", "ipam"];

/// Modules that only stock's northd has; scripts set their levels.
pub(crate) const FOREIGN_LOG_MODULES: &[&str] = &[
    "backtrace",
    "command_line",
    "coverage",
    "daemon",
    "dns_resolve",
    "en_lflow",
    "en_northd",
    "en_sync_to_sb",
    "entropy",
    "expr",
    "hmap",
    "inc_proc_eng",
    "inc_proc_northd",
    "lb",
    "lockfile",
    "mac_binding_aging",
    "memory",
    "memory_trim",
    "ovn_parallel_hmap",
    "ovn_util",
    "ovs_rcu",
    "ovs_replay",
    "ovs_thread",
    "ovsdb_error",
    "poll_loop",
    "process",
    "signals",
    "socket_util",
    "socket_util_unix",
    "stopwatch",
    "stream",
    "stream_fd",
    "stream_replay",
    "stream_tcp",
    "stream_unix",
    "svec",
    "timeval",
    "util",
    "uuid",
];
