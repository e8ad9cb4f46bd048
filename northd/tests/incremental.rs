//! Incremental computation and reconciliation of the whole of northd, on replicas without servers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cloud;

use std::collections::{BTreeMap, BTreeSet};

use cloud::{Cloud, committed, flows};
use oxbow_ovsdb::{Outcome as Ended, RowDraft, Transaction, Uuid};
use oxbow_schema::nb::{acl, logical_switch as ls, logical_switch_port as lsp, port_group};
use oxbow_schema::sb::{self, logical_dp_group, logical_flow, port_binding};
use proptest::prelude::*;

/// Units that a switch port has by itself.
const UNITS_OF_A_PORT: u64 = 6;

#[test]
fn the_work_for_a_port_does_not_depend_on_the_network() {
    let mut work = Vec::new();
    for ports in [3, 60] {
        let mut cloud = Cloud::new();
        for s in 0..4 {
            let switch = cloud.add_switch(&format!("sw{s}"));
            for p in 0..ports {
                cloud.add_port(switch, &format!("p{s}-{p}"), &[&format!("00:00:00:00:{s:02x}:{p:02x} 10.0.{s}.{p}")]);
            }
        }
        cloud.settle();
        let switch = cloud.add_switch("one");
        cloud.settle();
        cloud.northd.reset_stats();
        cloud.add_port(switch, "new", &["00:00:00:00:09:09 10.9.9.9"]);
        let settled = cloud.settle();
        work.push((settled.computed, settled.sb_operations));
    }
    assert_eq!(work[0], work[1], "units computed and rows written, with few ports and with many");
    assert!(work[0].0 <= 2 * UNITS_OF_A_PORT + 2, "its own units, and again when its binding is there: {work:?}");
}

#[test]
fn a_change_that_no_flow_shows_stops_early() {
    let mut cloud = Cloud::new();
    let switch = cloud.add_switch("sw0");
    let port = cloud.add_port(switch, "p", &["00:00:00:00:00:01 10.0.0.1"]);
    cloud.settle();
    cloud.northd.reset_stats();
    cloud.edit(lsp::TABLE, port, |d| d.set(lsp::EXTERNAL_IDS, [("a", "b")]));
    let settled = cloud.settle();
    assert_eq!((settled.computed, settled.sb_operations), (1, 1), "only the binding: {:?}", cloud.northd.stats());
    cloud.edit(ls::TABLE, switch, |d| d.set(ls::OTHER_CONFIG, [("unheard-of", "true")]));
    let settled = cloud.settle();
    assert_eq!(settled.sb_operations, 0, "{settled:?}");
    assert!(settled.computed <= 2, "the switch's configuration and its datapath: {settled:?}");
}

#[test]
fn flows_of_several_switches_share_rows_and_a_group_row_grows() {
    let mut cloud = Cloud::new();
    cloud.add_switch("sw0");
    cloud.add_switch("sw1");
    cloud.settle();
    assert_eq!(cloud.sb.len(logical_dp_group::TABLE), 1);
    let before = cloud.sb.len(logical_flow::TABLE);
    cloud.add_switch("sw2");
    let settled = cloud.settle();
    assert_eq!((cloud.sb.len(logical_dp_group::TABLE), cloud.sb.len(logical_flow::TABLE)), (1, before));
    assert!(settled.sb_operations <= 4, "a datapath, its IP_Multicast, one more member of the group: {settled:?}");
    assert_eq!(flows(&cloud.sb).len(), 3 * before);
}

#[test]
fn what_others_do_to_the_southbound_database_is_undone() {
    let mut cloud = Cloud::new();
    let switch = cloud.add_switch("sw0");
    cloud.add_switch("sw1");
    cloud.add_port(switch, "p", &["00:00:00:00:00:01 10.0.0.1", "unknown"]);
    cloud.settle();
    let before = flows(&cloud.sb);

    let mut vandal = Transaction::new(sb::DATABASE);
    for row in cloud.sb.rows(logical_flow::TABLE).take(5) {
        vandal.delete(logical_flow::TABLE, row.uuid());
    }
    let group = cloud.sb.rows(logical_dp_group::TABLE).next().unwrap().clone();
    let one: Vec<Uuid> = group.get(logical_dp_group::DATAPATHS).iter().take(1).collect();
    let _ = vandal.update(logical_dp_group::TABLE, group.uuid()).set(logical_dp_group::DATAPATHS, one);
    let _ = vandal.insert(logical_flow::TABLE).set(logical_flow::PIPELINE, "ingress").set(logical_flow::MATCH, "bad");
    let _ = vandal.insert(sb::address_set::TABLE).set(sb::address_set::NAME, "stale");
    let binding = cloud.sb.rows(port_binding::TABLE).next().unwrap().uuid();
    let _ = vandal.update(port_binding::TABLE, binding).set(port_binding::MAC, ["nonsense"]);
    cloud.sb_write(&vandal);
    assert_ne!(flows(&cloud.sb), before);

    let computed = cloud.settle().computed;
    assert_eq!(flows(&cloud.sb), before);
    assert_eq!(cloud.sb.len(sb::address_set::TABLE), 1);
    assert!(cloud.sb.row(port_binding::TABLE, binding).unwrap().get(port_binding::MAC).contains("unknown"));
    assert!(computed <= 2, "compared, not computed: {computed}");
}

#[test]
fn a_failed_transaction_is_written_again_and_nothing_is_computed() {
    let mut cloud = Cloud::new();
    cloud.add_switch("sw0");
    let lost = cloud.run();
    assert!(lost.sb.is_some());
    cloud.northd.sb_done(&Ended::Disconnected, 0);
    cloud.northd.nb_done(&Ended::TryAgain);
    let again = cloud.run();
    assert_eq!(again.computed, 0);
    assert_eq!(again.sb.unwrap().len(), lost.sb.unwrap().len(), "the same rows");
}

#[test]
fn the_sequence_number_comes_with_the_flows_and_goes_back_after_them() {
    use oxbow_schema::nb::nb_global as nbg;
    let mut cloud = Cloud::new();
    let global = cloud.nb.rows(nbg::TABLE).next().unwrap().uuid();
    cloud.edit(nbg::TABLE, global, |d| d.set(nbg::NB_CFG, 7));
    cloud.add_switch("sw0");
    let first = cloud.run();
    let text = first.sb.as_ref().unwrap().to_json();
    assert!(text.contains("\"nb_cfg\":7") && text.contains("ls_in_l2_lkup"), "{text}");
    let northbound = first.nb.unwrap().to_json();
    assert!(!northbound.contains("\"sb_cfg\":7"), "not before the flows are there: {northbound}");
    cloud.sb_write(&first.sb.unwrap());
    cloud.northd.sb_done(&committed(), 1_800_000_000_000);
    cloud.northd.nb_done(&Ended::TryAgain);
    cloud.settle();
    let row = cloud.nb.row(nbg::TABLE, global).unwrap();
    assert_eq!((row.get(nbg::SB_CFG), row.get(nbg::HV_CFG)), (7, 7));
    assert_eq!(row.get(nbg::SB_CFG_TIMESTAMP), 1_800_000_000_000);
}

#[test]
fn router_ports_are_reported_once_and_the_rest_works() {
    let mut cloud = Cloud::new();
    let switch = cloud.add_switch("sw0");
    let port = cloud.add_port(switch, "to-router", &["router"]);
    cloud.edit(lsp::TABLE, port, |d| d.set(lsp::TYPE, "router").set(lsp::OPTIONS, [("router-port", "r")]));
    cloud.add_port(switch, "vm", &["00:00:00:00:00:01 10.0.0.1"]);
    let reports = format!("{:?}", cloud.run().reports);
    assert!(reports.contains("to-router"), "{reports}");
    cloud.northd.sb_done(&Ended::TryAgain, 0);
    cloud.northd.nb_done(&Ended::TryAgain);
    assert!(cloud.run().reports.is_empty());
    cloud.northd.sb_done(&Ended::TryAgain, 0);
    cloud.northd.nb_done(&Ended::TryAgain);
    cloud.settle();
    assert!(flows(&cloud.sb).iter().any(|f| f.contains("outport = \"vm\"")));
}

/// Whatever is there and has no effect is named once, listed while it is there, and forgotten when it goes.
#[test]
fn what_is_not_compiled_is_named_and_listed() {
    use oxbow_schema::nb::{acl, load_balancer as lb, logical_router as lr};
    let mut cloud = Cloud::new();
    let switch = cloud.add_switch("sw0");
    let balancer = cloud.put(RowDraft::new(lb::TABLE).set(lb::NAME, "lb0"));
    cloud.edit(ls::TABLE, switch, |d| d.set(ls::LOAD_BALANCER, [balancer]));
    let router = cloud.put(RowDraft::new(lr::TABLE).set(lr::NAME, "lr0"));
    let plain = RowDraft::new(acl::TABLE).set(acl::ACTION, "drop").set(acl::DIRECTION, "to-lport");
    cloud.put(plain);
    let later = RowDraft::new(acl::TABLE).set(acl::ACTION, "pass").set(acl::DIRECTION, "to-lport");
    let later = cloud.put(later.set(acl::MATCH, "ip4.src == 192.0.2.1"));
    cloud.edit(ls::TABLE, switch, |d| d.set(ls::ACLS, [later]));
    let reports = format!("{:?}", cloud.run().reports);
    for named in ["lb0 (switch sw0)", "lr0", "action of ACL"] {
        assert_eq!(reports.matches(named).count(), 1, "{named}: {reports}");
    }
    cloud.northd.sb_done(&Ended::TryAgain, 0);
    cloud.northd.nb_done(&Ended::TryAgain);
    cloud.settle();
    assert_eq!(cloud.northd.not_compiled().len(), 3, "{:?}", cloud.northd.not_compiled());
    // What an action means that is not known is at least not "pass".
    let written = flows(&cloud.sb);
    assert!(written.iter().any(|f| f.ends_with("ip4.src == 192.0.2.1 -> /* drop */")), "{written:#?}");
    cloud.edit(ls::TABLE, switch, |d| d.set(ls::LOAD_BALANCER, Vec::<Uuid>::new()));
    cloud.remove(lb::TABLE, balancer);
    cloud.remove(lr::TABLE, router);
    assert!(cloud.run().reports.is_empty());
    assert_eq!(cloud.northd.not_compiled(), [format!("action of ACL \"{later} (switch sw0)\"")]);
}

/// The text of the flow is ovn-northd's; it comes and goes with the option, the router and its port.
#[test]
fn the_switch_answers_for_the_addresses_of_arp_proxy() {
    use oxbow_schema::nb::{logical_router as lr, logical_router_port as lrp};
    let mut cloud = Cloud::new();
    let switch = cloud.add_switch("sw0");
    let port = cloud.add_port(switch, "sp", &["router"]);
    let options = [("router-port", "lrp0"), ("arp_proxy", "169.254.239.254 169.254.239.2")];
    cloud.edit(lsp::TABLE, port, |d| d.set(lsp::TYPE, "router").set(lsp::OPTIONS, options));
    let found = |cloud: &Cloud| -> Vec<String> {
        flows(&cloud.sb).into_iter().filter(|f| f.contains("169.254.239.254")).collect()
    };
    cloud.settle();
    assert!(found(&cloud).is_empty());
    let peer = RowDraft::new(lrp::TABLE).set(lrp::NAME, "lrp0").set(lrp::MAC, "00:00:00:00:01:01");
    let peer = cloud.put(peer);
    let router = cloud.put(RowDraft::new(lr::TABLE).set(lr::NAME, "lr0").set(lr::PORTS, [peer]));
    cloud.settle();
    let expected = "sw0 ingress/19 50 arp.op == 1 && arp.tpa == {169.254.239.254,169.254.239.2} -> eth.dst = eth.src; \
                    eth.src = 00:00:00:00:01:01; arp.op = 2; /* ARP reply */ arp.tha = arp.sha; \
                    arp.sha = 00:00:00:00:01:01; arp.tpa <-> arp.spa; outport = inport; flags.loopback = 1; output;";
    assert_eq!(found(&cloud), [expected]);
    for off in [true, false] {
        cloud.edit(lr::TABLE, router, |d| d.set(lr::ENABLED, Some(!off)));
        cloud.settle();
        assert_eq!(found(&cloud).is_empty(), off);
    }
    cloud.edit(ls::TABLE, switch, |d| d.set(ls::OTHER_CONFIG, [("vlan-passthru", "true")]));
    cloud.settle();
    assert!(found(&cloud).is_empty());
    assert!(cloud.northd.audit().is_empty());
}

/// A change of the northbound database.
#[derive(Clone, Debug)]
enum Change {
    AddSwitch,
    DeleteSwitch(usize),
    Configure(usize, &'static str, &'static str),
    AddPort(usize, &'static str),
    DeletePort(usize),
    Address(usize, &'static str),
    Enable(usize, bool),
    Type(usize, &'static str),
    Option(usize, &'static str, &'static str),
    Bind(usize, bool),
    /// Deleted and added again under its name.
    Replace(usize),
    /// A nested port of another, with a tag or any; or no nested port.
    Nest(usize, usize, Option<i64>),
    Acl(usize, &'static str),
    /// Into the port group, or out of it.
    Group(usize),
    /// Another northd takes over in the middle.
    Restart,
}

const ADDRESSES: &[&str] = &[
    "unknown",
    "dynamic",
    "00:00:00:00:00:01 10.0.0.1 fd00::1",
    "00:00:00:00:00:02",
    "dynamic 10.0.0.9",
    "0a:00:00:00:00:77 dynamic",
    "garbage",
    "00:00:00:00:00:03 10.0.0.3",
    "router",
];

fn change() -> impl Strategy<Value = Change> {
    let n = 0..64usize;
    let pick = |list: &'static [&'static str]| prop::sample::select(list);
    prop_oneof![
        Just(Change::AddSwitch),
        n.clone().prop_map(Change::DeleteSwitch),
        (
            n.clone(),
            pick(&["subnet", "exclude_ips", "ipv6_prefix", "vlan-passthru", "mcast_snoop", "requested-tnl-key"]),
            pick(&["10.0.0.0/28", "10.0.0.4..10.0.0.6", "fd00::", "true", "7", ""]),
        )
            .prop_map(|(s, k, v)| Change::Configure(s, k, v)),
        (n.clone(), pick(ADDRESSES)).prop_map(|(s, a)| Change::AddPort(s, a)),
        (n.clone(), pick(ADDRESSES)).prop_map(|(s, a)| Change::AddPort(s, a)),
        n.clone().prop_map(Change::DeletePort),
        (n.clone(), pick(ADDRESSES)).prop_map(|(p, a)| Change::Address(p, a)),
        (n.clone(), any::<bool>()).prop_map(|(p, on)| Change::Enable(p, on)),
        (n.clone(), pick(&["", "localnet", "localport", "external", "virtual", "vtep", "router", "nonsense"]))
            .prop_map(|(p, t)| Change::Type(p, t)),
        (
            n.clone(),
            pick(&["requested-tnl-key", "mcast_flood", "virtual-ip", "virtual-parents", "qdisc_queue_id"]),
            pick(&["3", "true", "10.0.0.8", "p1,p2", ""]),
        )
            .prop_map(|(p, k, v)| Change::Option(p, k, v)),
        (n.clone(), any::<bool>()).prop_map(|(p, up)| Change::Bind(p, up)),
        n.clone().prop_map(Change::Replace),
        (n.clone(), n.clone(), prop::option::of(0..3i64)).prop_map(|(p, parent, tag)| Change::Nest(p, parent, tag)),
        (n.clone(), pick(&["ip4.src == $g_ip4", "outport == @g", "tcp", ""])).prop_map(|(s, m)| Change::Acl(s, m)),
        n.prop_map(Change::Group),
        Just(Change::Restart),
    ]
}

struct Walk {
    cloud: Cloud,
    switches: Vec<Uuid>,
    ports: Vec<(Uuid, Uuid)>,
    named: usize,
}

impl Walk {
    fn step(&mut self, change: &Change) {
        let cloud = &mut self.cloud;
        let switch = |n: usize, of: &[Uuid]| (!of.is_empty()).then(|| of[n % of.len()]);
        let port = |n: usize, of: &[(Uuid, Uuid)]| (!of.is_empty()).then(|| n % of.len());
        let set = |map: oxbow_ovsdb::MapView<'_, oxbow_ovsdb::Text, oxbow_ovsdb::Text>, key: &str, value: &str| {
            let mut pairs: Vec<(String, String)> = map.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            pairs.retain(|(k, _)| k != key);
            if !value.is_empty() {
                pairs.push((key.into(), value.into()));
            }
            pairs
        };
        match *change {
            Change::AddSwitch => {
                self.named += 1;
                self.switches.push(cloud.add_switch(&format!("sw{}", self.named)));
            }
            Change::DeleteSwitch(n) => {
                let Some(gone) = switch(n, &self.switches) else { return };
                self.switches.retain(|s| *s != gone);
                cloud.remove(ls::TABLE, gone);
                for (_, port) in self.ports.extract_if(.., |(s, _)| *s == gone) {
                    cloud.remove(lsp::TABLE, port);
                }
            }
            Change::Configure(n, key, value) => {
                let Some(switch) = switch(n, &self.switches) else { return };
                let row = cloud.nb.row(ls::TABLE, switch).cloned().unwrap();
                let pairs = set(row.get(ls::OTHER_CONFIG), key, value);
                cloud.edit(ls::TABLE, switch, |d| d.set(ls::OTHER_CONFIG, pairs));
            }
            Change::AddPort(n, address) => {
                let Some(switch) = switch(n, &self.switches) else { return };
                self.named += 1;
                let port = cloud.add_port(switch, &format!("p{}", self.named), &[address]);
                self.ports.push((switch, port));
            }
            Change::DeletePort(n) => {
                let Some(at) = port(n, &self.ports) else { return };
                let (switch, port) = self.ports.remove(at);
                cloud.delete_port(switch, port);
            }
            Change::Address(n, address) => {
                let Some(at) = port(n, &self.ports) else { return };
                cloud.edit(lsp::TABLE, self.ports[at].1, |d| d.set(lsp::ADDRESSES, [address]));
            }
            Change::Enable(n, on) => {
                let Some(at) = port(n, &self.ports) else { return };
                cloud.edit(lsp::TABLE, self.ports[at].1, |d| d.set(lsp::ENABLED, Some(on)));
            }
            Change::Type(n, kind) => {
                let Some(at) = port(n, &self.ports) else { return };
                cloud.edit(lsp::TABLE, self.ports[at].1, |d| d.set(lsp::TYPE, kind));
            }
            Change::Option(n, key, value) => {
                let Some(at) = port(n, &self.ports) else { return };
                let row = cloud.nb.row(lsp::TABLE, self.ports[at].1).cloned().unwrap();
                let pairs = set(row.get(lsp::OPTIONS), key, value);
                cloud.edit(lsp::TABLE, row.uuid(), |d| d.set(lsp::OPTIONS, pairs));
            }
            Change::Replace(n) => {
                let Some(at) = port(n, &self.ports) else { return };
                let (switch, old) = self.ports[at];
                let row = cloud.nb.row(lsp::TABLE, old).cloned().unwrap();
                cloud.delete_port(switch, old);
                let addresses: Vec<String> = row.get(lsp::ADDRESSES).iter().map(|a| a.as_str().to_owned()).collect();
                let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                self.ports[at].1 = cloud.add_port(switch, row.get(lsp::NAME).as_str(), &addresses);
            }
            Change::Nest(n, parent, tag) => {
                let (Some(at), Some(parent)) = (port(n, &self.ports), port(parent, &self.ports)) else { return };
                let parent = cloud.nb.row(lsp::TABLE, self.ports[parent].1).unwrap().get(lsp::NAME).clone();
                cloud.edit(lsp::TABLE, self.ports[at].1, |d| {
                    d.set(lsp::PARENT_NAME, tag.map(|_| parent)).set(lsp::TAG_REQUEST, tag)
                });
            }
            Change::Acl(n, matches) => {
                let Some(switch) = switch(n, &self.switches) else { return };
                let row = cloud.nb.row(ls::TABLE, switch).cloned().unwrap();
                let mut acls: Vec<Uuid> = row.get(ls::ACLS).iter().collect();
                if matches.is_empty() {
                    for gone in acls.drain(..) {
                        cloud.remove(acl::TABLE, gone);
                    }
                } else {
                    let draft = RowDraft::new(acl::TABLE).set(acl::MATCH, matches).set(acl::DIRECTION, "to-lport");
                    let action = if n % 2 == 0 { "drop" } else { "allow-related" };
                    acls.push(cloud.put(draft.set(acl::ACTION, action).set(acl::PRIORITY, 1000 + n as i64)));
                }
                cloud.edit(ls::TABLE, switch, |d| d.set(ls::ACLS, acls));
            }
            Change::Group(n) => {
                let Some(at) = port(n, &self.ports) else { return };
                let port = self.ports[at].1;
                let known = cloud.nb.rows(port_group::TABLE).next().map(|row| row.uuid());
                let group = match known {
                    Some(group) => group,
                    None => cloud.put(RowDraft::new(port_group::TABLE).set(port_group::NAME, "g")),
                };
                let row = cloud.nb.row(port_group::TABLE, group).cloned().unwrap();
                let mut ports: Vec<Uuid> = row.get(port_group::PORTS).iter().collect();
                match ports.iter().position(|p| *p == port) {
                    Some(at) => drop(ports.remove(at)),
                    None => ports.push(port),
                }
                cloud.edit(port_group::TABLE, group, |d| d.set(port_group::PORTS, ports));
            }
            Change::Restart => *cloud = cloud.restarted(),
            Change::Bind(n, up) => {
                let mut bindings: Vec<Uuid> = cloud.sb.rows(port_binding::TABLE).map(|r| r.uuid()).collect();
                bindings.sort();
                let Some(binding) = switch(n, &bindings) else { return };
                let mut transaction = Transaction::new(sb::DATABASE);
                let chassis = match cloud.sb.rows(sb::chassis::TABLE).next() {
                    Some(row) => row.uuid(),
                    None => transaction.insert(sb::chassis::TABLE).set(sb::chassis::NAME, "ch").uuid(),
                };
                let _ = transaction
                    .update(port_binding::TABLE, binding)
                    .set(port_binding::CHASSIS, up.then_some(chassis))
                    .set(port_binding::UP, Some(up));
                cloud.sb_write(&transaction);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whenever it comes to rest after some changes: no unit differs from what it computes from nothing, a northd that starts on these
    /// databases finds nothing to write, and what needs a key has one while one is left.
    #[test]
    fn random_walks_equal_from_scratch(
        turns in prop::collection::vec(prop::collection::vec(change(), 1..5), 1..12),
        few in any::<bool>(),
    ) {
        let cloud = if few { Cloud::with_few_keys(3, 4) } else { Cloud::new() };
        let mut walk = Walk { cloud, switches: Vec::new(), ports: Vec::new(), named: 0 };
        walk.step(&Change::AddSwitch);
        for changes in &turns {
            changes.iter().for_each(|change| walk.step(change));
            walk.cloud.settle();
            let found = walk.cloud.northd.audit();
            prop_assert!(found.is_empty(), "after {:?}: {:#?}\n{:?}", changes, found, walk.cloud.nb);
            let settled = walk.cloud.restarted().settle();
            prop_assert!(
                settled.sb_operations == 0 && settled.nb_operations == 0,
                "after {:?} a restart writes {:#?}\n{:?}", changes, settled, walk.cloud.nb
            );
            let count = |table| walk.cloud.sb.rows(table).count();
            let (switches, most) = if few { (walk.switches.len().min(3), 4) } else { (walk.switches.len(), usize::MAX) };
            prop_assert_eq!(count(sb::datapath_binding::TABLE), switches);
            let mut ports: BTreeMap<Uuid, usize> = BTreeMap::new();
            walk.ports.iter().for_each(|(switch, _)| *ports.entry(*switch).or_default() += 1);
            let all: usize = ports.values().map(|n| *n.min(&most)).sum();
            if walk.switches.len() == switches {
                prop_assert_eq!(count(port_binding::TABLE), all);
            }
        }
    }
}

/// A northd that starts while NB is ahead of SB gives nothing of what is in use to what is new, whatever the order of identifiers.
#[test]
fn what_is_in_use_stays_so_when_northd_starts_with_news() {
    for _ in 0..8 {
        let mut cloud = Cloud::new();
        let parents: Vec<Uuid> = (0..3).map(|n| cloud.add_switch(&format!("sw{n}"))).collect();
        let ports = |cloud: &mut Cloud, of: &str| -> Vec<Uuid> {
            parents
                .iter()
                .flat_map(|switch| (0..3).map(|n| (*switch, n)).collect::<Vec<_>>())
                .map(|(switch, n)| {
                    let port = cloud.add_port(switch, &format!("{of}{n}-{switch}"), &["unknown"]);
                    let limit = [("qos_max_rate", "1000000")];
                    cloud.edit(lsp::TABLE, port, |d| {
                        d.set(lsp::PARENT_NAME, Some("trunk")).set(lsp::TAG_REQUEST, Some(0)).set(lsp::OPTIONS, limit)
                    });
                    port
                })
                .collect()
        };
        let old = ports(&mut cloud, "old");
        cloud.settle();
        let mut bind = Transaction::new(sb::DATABASE);
        let chassis = bind.insert(sb::chassis::TABLE).set(sb::chassis::NAME, "ch").uuid();
        for row in cloud.sb.rows(port_binding::TABLE) {
            let _ = bind.update(port_binding::TABLE, row.uuid()).set(port_binding::CHASSIS, Some(chassis));
        }
        cloud.sb_write(&bind);
        cloud.settle();
        let said = |cloud: &Cloud| -> BTreeMap<String, (i64, Option<String>, Option<i64>)> {
            let row = |row: &std::sync::Arc<oxbow_ovsdb::Row>| {
                let queue = row.get(port_binding::OPTIONS).get("qdisc_queue_id").map(ToString::to_string);
                (
                    row.get(port_binding::LOGICAL_PORT).to_string(),
                    (row.get(port_binding::TUNNEL_KEY), queue, row.get(port_binding::TAG)),
                )
            };
            cloud.sb.rows(port_binding::TABLE).map(row).collect()
        };
        let before = said(&cloud);
        let datapaths = |cloud: &Cloud| -> BTreeMap<Uuid, i64> {
            cloud
                .sb
                .rows(sb::datapath_binding::TABLE)
                .map(|d| (d.uuid(), d.get(sb::datapath_binding::TUNNEL_KEY)))
                .collect()
        };
        let keys = datapaths(&cloud);
        assert_eq!(before.values().filter(|(_, queue, tag)| queue.is_some() && tag.is_some()).count(), old.len());
        // While no northd runs.
        let mut cloud = cloud.restarted();
        for n in 3..9 {
            cloud.add_switch(&format!("sw{n}"));
        }
        ports(&mut cloud, "new");
        cloud.settle();
        let after = said(&cloud);
        assert_eq!(after.len(), 2 * old.len());
        for (name, numbers) in &before {
            assert_eq!(after.get(name), Some(numbers), "{name}");
        }
        assert!(keys.iter().all(|(datapath, key)| datapaths(&cloud).get(datapath) == Some(key)));
        let tags: BTreeSet<Option<i64>> = after.values().map(|(.., tag)| *tag).collect();
        assert_eq!(tags.len(), after.len(), "each sibling has a tag of its own: {after:?}");
    }
}

#[test]
fn a_port_that_is_replaced_under_its_name_stays_in_its_groups() {
    let mut cloud = Cloud::new();
    let switch = cloud.add_switch("sw0");
    let mut port = cloud.add_port(switch, "p", &["unknown"]);
    cloud.settle();
    // Which of the two rows is told first follows from their identifiers: both orders come.
    for _ in 0..12 {
        cloud.delete_port(switch, port);
        port = cloud.add_port(switch, "p", &["unknown"]);
        cloud.settle();
        let groups: BTreeMap<String, usize> = cloud
            .sb
            .rows(sb::multicast_group::TABLE)
            .map(|g| (g.get(sb::multicast_group::NAME).as_str().to_owned(), g.get(sb::multicast_group::PORTS).len()))
            .collect();
        assert_eq!((groups.get("_MC_flood"), groups.get("_MC_unknown")), (Some(&1), Some(&1)), "{groups:?}");
        let fresh = cloud.restarted().settle();
        assert_eq!(fresh.sb_operations, 0, "{fresh:?}");
    }
}

#[test]
fn a_port_whose_address_is_taken_takes_none_from_others() {
    let mut cloud = Cloud::new();
    let switch = cloud.add_switch("sw0");
    cloud.edit(ls::TABLE, switch, |d| d.set(ls::OTHER_CONFIG, [("subnet", "10.0.0.0/29")]));
    cloud.add_port(switch, "a", &["00:00:00:00:00:0a 192.0.2.1"]);
    let waiting = cloud.add_port(switch, "b", &["00:00:00:00:00:0a dynamic"]);
    cloud.settle();
    for n in 0..8 {
        let mark = n.to_string();
        cloud.edit(lsp::TABLE, waiting, |d| d.set(lsp::EXTERNAL_IDS, [("mark", mark.as_str())]));
        cloud.settle();
    }
    let last = cloud.add_port(switch, "c", &["dynamic"]);
    cloud.settle();
    let row = cloud.nb.row(lsp::TABLE, last).cloned().unwrap();
    let given = row.get(lsp::DYNAMIC_ADDRESSES).map(|text| text.as_str().to_owned());
    assert!(given.as_ref().is_some_and(|text| text.ends_with(" 10.0.0.2")), "{given:?}");
}

#[test]
fn the_flood_group_of_a_large_switch_grows_by_what_is_new() {
    let mut cloud = Cloud::new();
    let switch = cloud.add_switch("sw0");
    let mut ports: Vec<Uuid> = (0..40)
        .map(|p| cloud.add_port(switch, &format!("p{p}"), &[&format!("00:00:00:00:01:{p:02x} 10.0.1.{p}")]))
        .collect();
    cloud.settle();
    ports.push(cloud.add_port(switch, "new", &["00:00:00:00:09:09 10.0.9.9"]));
    let grown = cloud.settle();
    let flood = |cloud: &Cloud| {
        let group = cloud
            .sb
            .rows(sb::multicast_group::TABLE)
            .find(|g| g.get(sb::multicast_group::NAME).as_str() == "_MC_flood");
        group.unwrap().get(sb::multicast_group::PORTS).len()
    };
    assert_eq!(flood(&cloud), 41);
    let text = grown.sb_transactions.concat();
    assert!(
        text.contains("\"insert\",[\"set\"")
            || text.contains("\"insert\",[\"uuid\"")
            || text.contains("\"insert\",[\"named-uuid\""),
        "{text}"
    );
    cloud.edit(ls::TABLE, switch, |d| d.set(ls::PORTS, ports[1..].iter().copied()));
    cloud.remove(lsp::TABLE, ports[0]);
    cloud.settle();
    assert_eq!(flood(&cloud), 40);
    let fresh = cloud.restarted().settle();
    assert_eq!(fresh.sb_operations, 0, "{fresh:?}");
}
