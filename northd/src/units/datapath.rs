//! Datapath_Binding, IP_Multicast and Multicast_Group rows of a logical switch.

use oxbow_incr::Cx;
use oxbow_ovsdb::{MapView, Text, Uuid};
use oxbow_schema::{nb::logical_switch, sb};

use crate::program::{Compiler, Output};
use crate::source::{AllocatedNumber, Allocation, Cell};
use crate::store::{DesiredRow, Key, RowKey, Value};

/// The row of a switch's datapath.
pub(crate) fn datapath_key(switch: Uuid) -> RowKey {
    RowKey::new(sb::datapath_binding::TABLE, Key::Uuid(switch))
}

/// The row of one of a switch's multicast groups.
pub(crate) fn group_key(switch: Uuid, name: &str) -> RowKey {
    RowKey::new(sb::multicast_group::TABLE, Key::Within(switch, name.into()))
}

/// Unit `datapath`.
pub(crate) fn compute(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(name) = cx.read(&Cell(logical_switch::NAME, key)) else { return Output::Empty };
    let Some(config) = cx.read(&Cell(logical_switch::OTHER_CONFIG, key)) else { return Output::Empty };
    let Some(tunnel_key) = cx.read(&AllocatedNumber(Allocation::DatapathKey, key)) else { return Output::Empty };
    let external_ids = cx.read(&Cell(logical_switch::EXTERNAL_IDS, key));
    let second = external_ids.and_then(|ids| ids.get("neutron:network_name")).filter(|n| !n.is_empty());

    let mut ids: Vec<(&str, String)> = vec![("logical-switch", key.to_string()), ("name", name.to_string())];
    if let Some(second) = second {
        ids.push(("name2", second.to_string()));
    }
    if let Some(transit) = config.get("interconn-ts").filter(|t| !t.is_empty()) {
        ids.push(("interconn-ts", transit.to_string()));
    }
    let mut rows = vec![
        DesiredRow { key: datapath_key(key), columns: Vec::new() }
            .set(sb::datapath_binding::TUNNEL_KEY, tunnel_key)
            .set(sb::datapath_binding::EXTERNAL_IDS, ids),
        ip_multicast(key, config),
    ];
    let keys = &compiler.profile.multicast_keys;
    for (name, number) in [
        ("_MC_flood", keys.flood),
        ("_MC_flood_l2", keys.flood_l2),
        ("_MC_unknown", keys.unknown),
        ("_MC_mrouter_flood", keys.mrouter_flood),
        ("_MC_static", keys.static_),
    ] {
        rows.push(
            DesiredRow { key: group_key(key, name), columns: Vec::new() }
                .refs(sb::multicast_group::DATAPATH, vec![datapath_key(key)])
                .set(sb::multicast_group::NAME, name)
                .set(sb::multicast_group::TUNNEL_KEY, number)
                .value(sb::multicast_group::PORTS.any(), Value::Members),
        );
    }
    Output::Rows(rows)
}

/// The options of multicast snooping (ovn-nb(5), Logical_Switch).
fn ip_multicast(switch: Uuid, config: MapView<'_, Text, Text>) -> DesiredRow {
    use sb::ip_multicast as im;
    let number = |key: &str, default: i64| config.get(key).and_then(|v| v.parse().ok()).unwrap_or(default);
    let text = |key: &str| config.get(key).map(Text::as_str).unwrap_or_default().to_owned();
    let idle = number("mcast_idle_timeout", 300).clamp(15, 3600);
    DesiredRow::new(im::TABLE, Key::Uuid(switch))
        .refs(im::DATAPATH, vec![datapath_key(switch)])
        .set(im::ENABLED, Some(config.get_bool("mcast_snoop", false)))
        .set(im::QUERIER, Some(config.get_bool("mcast_querier", true)))
        .set(im::TABLE_SIZE, Some(number("mcast_table_size", 2048)))
        .set(im::IDLE_TIMEOUT, Some(idle))
        .set(im::QUERY_INTERVAL, Some(number("mcast_query_interval", idle / 2).clamp(1, 3600)))
        .set(im::QUERY_MAX_RESP, Some(number("mcast_query_max_response", 1)))
        .set(im::ETH_SRC, text("mcast_eth_src"))
        .set(im::IP4_SRC, text("mcast_ip4_src"))
        .set(im::IP6_SRC, text("mcast_ip6_src"))
}
