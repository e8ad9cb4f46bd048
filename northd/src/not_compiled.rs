//! Northbound rows that ovn-northd would give an effect and this version does not: each is named once when it comes, and
//! listed as long as it is there.

use std::collections::BTreeMap;

use oxbow_ovsdb::{Row, RowChange, TableDef, Uuid};
use oxbow_schema::nb;

use crate::northd::Report;
use crate::source::Source;

/// The tables of which (some) rows are not compiled.
pub(crate) const TABLES: &[&TableDef] = &[
    nb::logical_switch::TABLE,
    nb::logical_switch_port::TABLE,
    nb::acl::TABLE,
    nb::meter::TABLE,
    nb::logical_router::TABLE,
    nb::logical_router_port::TABLE,
    nb::logical_router_static_route::TABLE,
    nb::logical_router_policy::TABLE,
    nb::nat::TABLE,
    nb::load_balancer::TABLE,
    nb::load_balancer_group::TABLE,
    nb::load_balancer_health_check::TABLE,
    nb::forwarding_group::TABLE,
    nb::ha_chassis_group::TABLE,
    nb::bfd::TABLE,
    nb::copp::TABLE,
    nb::static_mac_binding::TABLE,
    nb::chassis_template_var::TABLE,
];

/// A row, or a property of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    what: &'static str,
    name: String,
}

/// All rows that are there and not compiled.
#[derive(Debug, Default)]
pub(crate) struct NotCompiled {
    entries: BTreeMap<(u16, Uuid), Entry>,
    /// Those that came since the last report.
    fresh: Vec<(u16, Uuid)>,
}

impl NotCompiled {
    pub(crate) fn notice(&mut self, change: &RowChange) {
        if !TABLES.contains(&change.table) {
            return;
        }
        let key = (change.table.index, change.uuid);
        match change.new.as_deref().and_then(describe) {
            Some(entry) if self.entries.get(&key) == Some(&entry) => {}
            Some(entry) => {
                self.entries.insert(key, entry);
                self.fresh.push(key);
            }
            None => {
                self.entries.remove(&key);
            }
        }
    }

    /// What came since the last call and is still there.
    pub(crate) fn report(&mut self, source: &Source) -> Vec<Report> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.sort_unstable();
        fresh.dedup();
        let found = fresh.into_iter().filter_map(|key| Some((key, self.entries.get(&key)?)));
        found.map(|(key, entry)| Report::NotCompiled { what: entry.what, name: named(source, key, entry) }).collect()
    }

    /// Everything, a line each: what, name, and the switch or router that holds it.
    pub(crate) fn list(&self, source: &Source) -> Vec<String> {
        self.entries.iter().map(|(key, entry)| format!("{} \"{}\"", entry.what, named(source, *key, entry))).collect()
    }
}

/// The name of an entry with that of the first switch that holds it.
fn named(source: &Source, (table, row): (u16, Uuid), entry: &Entry) -> String {
    use nb::logical_switch as ls;
    let column = if table == nb::load_balancer::TABLE.index {
        ls::LOAD_BALANCER
    } else if table == nb::load_balancer_group::TABLE.index {
        ls::LOAD_BALANCER_GROUP
    } else if table == nb::forwarding_group::TABLE.index {
        ls::FORWARDING_GROUPS
    } else if table == nb::acl::TABLE.index {
        ls::ACLS
    } else if table == nb::logical_switch_port::TABLE.index {
        ls::PORTS
    } else {
        return entry.name.clone();
    };
    let holder = source.table(ls::TABLE).find(|switch| switch.get(column).iter().any(|held| held == row));
    match holder {
        Some(switch) => format!("{} (switch {})", entry.name, switch.get(ls::NAME)),
        None => entry.name.clone(),
    }
}

/// What of a row is not compiled; none if all of it is.
fn describe(row: &Row) -> Option<Entry> {
    let table = row.table();
    let uuid = row.uuid();
    let entry = |what, name: String| {
        // A name that is empty or not unique would not tell which.
        Some(Entry { what, name: if name.is_empty() { uuid.to_string() } else { name } })
    };
    if table == nb::logical_switch::TABLE {
        use nb::logical_switch as ls;
        // Registered groups: what is not flooded reaches only `mcast_flood` ports.
        let snoops = row.get(ls::OTHER_CONFIG).get_bool("mcast_snoop", false);
        return if snoops { entry("multicast groups learnt on switch", row.get(ls::NAME).to_string()) } else { None };
    }
    if table == nb::logical_switch_port::TABLE {
        use nb::logical_switch_port as lsp;
        return if row.get(lsp::TYPE) == "router" {
            entry("router port", row.get(lsp::NAME).to_string())
        } else {
            None
        };
    }
    if table == nb::acl::TABLE {
        return describe_acl(row).and_then(|what| entry(what, uuid.to_string()));
    }
    if table == nb::meter::TABLE {
        let fair = row.get(nb::meter::FAIR) == Some(true);
        return if fair { entry("fairness of meter", row.get(nb::meter::NAME).to_string()) } else { None };
    }
    if table == nb::logical_router::TABLE {
        entry("logical router", row.get(nb::logical_router::NAME).to_string())
    } else if table == nb::logical_router_port::TABLE {
        entry("logical router port", row.get(nb::logical_router_port::NAME).to_string())
    } else if table == nb::logical_router_static_route::TABLE {
        use nb::logical_router_static_route as route;
        entry("static route", format!("{} via {} {uuid}", row.get(route::IP_PREFIX), row.get(route::NEXTHOP)))
    } else if table == nb::logical_router_policy::TABLE {
        entry("router policy", format!("{} {uuid}", row.get(nb::logical_router_policy::PRIORITY)))
    } else if table == nb::nat::TABLE {
        use nb::nat;
        entry("NAT", format!("{} {} {uuid}", row.get(nat::TYPE), row.get(nat::EXTERNAL_IP)))
    } else if table == nb::load_balancer::TABLE {
        entry("load balancer", row.get(nb::load_balancer::NAME).to_string())
    } else if table == nb::load_balancer_group::TABLE {
        entry("load balancer group", row.get(nb::load_balancer_group::NAME).to_string())
    } else if table == nb::load_balancer_health_check::TABLE {
        entry("load balancer health check", uuid.to_string())
    } else if table == nb::forwarding_group::TABLE {
        entry("forwarding group", row.get(nb::forwarding_group::NAME).to_string())
    } else if table == nb::ha_chassis_group::TABLE {
        entry("HA chassis group", row.get(nb::ha_chassis_group::NAME).to_string())
    } else if table == nb::bfd::TABLE {
        entry("BFD session", format!("{} {uuid}", row.get(nb::bfd::DST_IP)))
    } else if table == nb::copp::TABLE {
        entry("control plane protection", row.get(nb::copp::NAME).to_string())
    } else if table == nb::static_mac_binding::TABLE {
        use nb::static_mac_binding as binding;
        entry("static MAC binding", format!("{} {}", row.get(binding::LOGICAL_PORT), row.get(binding::IP)))
    } else if table == nb::chassis_template_var::TABLE {
        entry("chassis template variables", row.get(nb::chassis_template_var::CHASSIS).to_string())
    } else {
        None
    }
}

/// What of an ACL has another effect than in ovn-northd, or than a later schema means.
fn describe_acl(row: &Row) -> Option<&'static str> {
    use nb::acl;
    let known = ["allow", "allow-related", "allow-stateless", "drop", "reject"];
    if !known.contains(&row.get(acl::ACTION).as_str()) {
        // It drops: fail closed.
        Some("action of ACL")
    } else if row.get(acl::TIER) != 0 {
        Some("tier of ACL")
    } else if row.get(acl::OPTIONS).get_bool("log-related", false) {
        Some("log-related of ACL")
    } else {
        None
    }
}
