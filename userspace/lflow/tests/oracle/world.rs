//! The little world of the corpora: the same for ovn-trace (as rows) and for us (as a context).

use super::Southbound;
use oxbow_lflow::context::{DhcpOptions, OptionSpace, OptionType};
use oxbow_lflow::{ActionContext, AddressSet, AddressSets, MatchContext, Nothing, Pipeline, PortGroups, Vocabulary};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Tables in ovn-trace 23.03, in either pipeline.
pub(crate) const N_TABLES: u8 = 29;

/// Address sets by name.
pub(crate) const SETS: [(&str, &[&str]); 5] = [
    ("as4", &["10.0.0.1", "10.0.0.2", "192.168.0.0/24"]),
    ("one4", &["10.0.0.9"]),
    ("as6", &["fd00::1", "fd00::/64"]),
    ("macs", &["00:00:00:00:00:01", "00:00:00:00:00:02"]),
    ("empty", &[]),
];

/// Port groups of the datapath by name.
pub(crate) const GROUPS: [(&str, &[&str]); 2] = [("pg1", &["p1", "p2"]), ("pg0", &[])];

/// DHCPv4 options: name, code, type.
pub(crate) const DHCP: [(&str, u16, &str); 8] = [
    ("offerip", 0, "ipv4"),
    ("netmask", 1, "ipv4"),
    ("router", 3, "ipv4"),
    ("domain_name", 15, "str"),
    ("mtu", 26, "uint16"),
    ("lease_time", 51, "uint32"),
    ("tftp_server", 66, "host_id"),
    ("classless_static_route", 121, "static_routes"),
];

/// DHCPv6 options: name, code, type.
pub(crate) const DHCP6: [(&str, u16, &str); 4] =
    [("server_id", 2, "mac"), ("ia_addr", 5, "ipv6"), ("dns_server", 23, "ipv6"), ("domain_search", 24, "str")];

/// Our side.
pub(crate) struct World {
    sets: HashMap<&'static str, AddressSet>,
    groups: HashMap<&'static str, Vec<Box<str>>>,
}

impl World {
    pub(crate) fn new() -> World {
        let sets = SETS.iter().map(|(name, members)| (*name, AddressSet::parse(members.iter().copied()).0)).collect();
        let groups =
            GROUPS.iter().map(|(name, ports)| (*name, ports.iter().map(|port| Box::from(*port)).collect())).collect();
        World { sets, groups }
    }

    pub(crate) fn match_context(&self) -> MatchContext<'_> {
        MatchContext { symbols: Vocabulary::V23_03.table(), address_sets: self, port_groups: self, templates: &Nothing }
    }

    pub(crate) fn action_context(&self) -> ActionContext<'_> {
        ActionContext {
            symbols: Vocabulary::V23_03.table(),
            templates: &Nothing,
            dhcp_options: self,
            pipeline: Pipeline::Ingress,
            table: 10,
            n_ingress_tables: N_TABLES,
            n_egress_tables: N_TABLES,
        }
    }
}

impl AddressSets for World {
    fn address_set(&self, name: &str) -> Option<&AddressSet> {
        self.sets.get(name)
    }
}

impl PortGroups for World {
    fn port_group(&self, name: &str) -> Option<&[Box<str>]> {
        self.groups.get(name).map(|ports| &ports[..])
    }
}

impl DhcpOptions for World {
    fn option(&self, space: OptionSpace, name: &str) -> Option<OptionType<'_>> {
        let options: &[(&str, u16, &'static str)] = match space {
            OptionSpace::Dhcpv4 => &DHCP,
            OptionSpace::Dhcpv6 => &DHCP6,
        };
        options.iter().find(|(n, _, _)| *n == name).map(|(_, code, kind)| OptionType { code: *code, kind })
    }
}

fn set_of(members: &[&str]) -> Value {
    json!(["set", members])
}

/// ovn-trace's side: writes the world into a database, with one flow for each `(match, actions)`.
pub(crate) fn write<'a>(southbound: &Southbound, flows: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut operations = vec![json!({
        "op": "insert", "table": "Datapath_Binding", "uuid-name": "dp",
        "row": {"tunnel_key": 1, "external_ids": ["map", [["name", "dp"], ["logical-switch", "11111111-2222-3333-4444-555555555555"]]]},
    })];
    for (key, name) in [(1, "p1"), (2, "p2"), (3, "p3")] {
        operations.push(json!({
            "op": "insert", "table": "Port_Binding",
            "row": {"logical_port": name, "tunnel_key": key, "datapath": ["named-uuid", "dp"]},
        }));
    }
    for (name, members) in SETS {
        operations.push(json!({
            "op": "insert", "table": "Address_Set", "row": {"name": name, "addresses": set_of(members)},
        }));
    }
    for (name, ports) in GROUPS {
        operations.push(json!({
            "op": "insert", "table": "Port_Group", "row": {"name": format!("1_{name}"), "ports": set_of(ports)},
        }));
    }
    for (table, options) in [("DHCP_Options", &DHCP[..]), ("DHCPv6_Options", &DHCP6[..])] {
        for (name, code, kind) in options {
            operations.push(json!({
                "op": "insert", "table": table, "row": {"name": name, "code": code, "type": kind},
            }));
        }
    }
    for (i, (matches, actions)) in flows.into_iter().enumerate() {
        operations.push(json!({
            "op": "insert", "table": "Logical_Flow",
            "row": {
                "logical_datapath": ["named-uuid", "dp"], "pipeline": "ingress", "table_id": 10, "priority": i % 65536,
                "match": matches, "actions": actions,
            },
        }));
    }
    southbound.transact(operations);
}

/// Tables of one datapath that [`write_tables`] fills.
pub(crate) const TABLES: usize = 28;

/// ovn-trace's side for the meaning of matches: datapaths `dp0`, `dp1`, …, of [`TABLES`] tables each. A packet passes all tables;
/// in each, a flow of priority 2 has the match.
pub(crate) fn write_tables(southbound: &Southbound, matches: &[&str]) {
    let mut operations = Vec::new();
    for (name, members) in SETS {
        operations.push(json!({
            "op": "insert", "table": "Address_Set", "row": {"name": name, "addresses": set_of(members)},
        }));
    }
    for (d, tables) in matches.chunks(TABLES).enumerate() {
        let id = format!("00000000-0000-0000-0000-{d:012}");
        operations.push(json!({
            "op": "insert", "table": "Datapath_Binding", "uuid-name": format!("dp{d}"),
            "row": {"tunnel_key": d + 1, "external_ids": ["map", [["name", format!("dp{d}")], ["logical-switch", id]]]},
        }));
        for (table, text) in tables.iter().enumerate() {
            // ovn-trace leaves out tables that match everything and only go on; this does nothing, but not only that.
            for (priority, text, actions) in [(1, "1", "next;"), (2, *text, "push(reg0); pop(reg0); next;")] {
                operations.push(json!({
                    "op": "insert", "table": "Logical_Flow",
                    "row": {
                        "logical_datapath": ["named-uuid", format!("dp{d}")], "pipeline": "ingress", "table_id": table,
                        "priority": priority, "match": text, "actions": actions,
                    },
                }));
            }
        }
    }
    southbound.transact(operations);
}
