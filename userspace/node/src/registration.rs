//! The rows by which this hypervisor is known: Chassis, Encap, Chassis_Private (ovn-sb(5); ).
//!
//! [`plan`] compares what should be with what is and says what to write. Columns are written whole (that is all that the server's role
//! based access control allows), with what others wrote into them kept.

use crate::config::{Config, EncapKind};
use crate::rows::{Chassis, ChassisPrivate, Encap, StringMap, Uuid};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Features that northd asks chassis for and that this daemon honours: a flag is a promise of the datapath.
///
/// `port-up-notif`: `up` is written when a port is installed. `fdb-timestamp`: FDB rows carry the time of their last use, where the
/// schema has the column. Those of connection tracking and NAT follow with connection tracking.
pub const FEATURES: &[&str] = &["port-up-notif", "fdb-timestamp"];

/// What comes from the host's switch database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `Bridge.datapath_type` of the integration bridge; empty reads as `system`.
    pub datapath_type: String,
    /// `Open_vSwitch.iface_types`.
    pub iface_types: BTreeSet<String>,
}

/// An Encap row as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredEncap {
    /// Kind.
    pub kind: EncapKind,
    /// Address.
    pub ip: IpAddr,
    /// Options that are ours to set.
    pub options: StringMap,
}

/// An element of Chassis.encaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncapWrite {
    /// The row is right as it is.
    Keep(Uuid),
    /// The row's options change; those of others are in the new value.
    Options(Uuid, StringMap),
    /// A new row.
    Insert(DesiredEncap),
}

/// What to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Our Chassis row; none = insert one.
    pub chassis: Option<Uuid>,
    /// New `hostname`.
    pub hostname: Option<String>,
    /// New `other_config`, whole.
    pub other_config: Option<StringMap>,
    /// New `transport_zones`, whole.
    pub transport_zones: Option<BTreeSet<String>>,
    /// New `encaps`, whole.
    pub encaps: Option<Vec<EncapWrite>>,
    /// Encap rows whose options change.
    pub encap_options: Vec<(Uuid, StringMap)>,
    /// Chassis rows of dead predecessors with our address, to be deleted.
    pub delete: Vec<Uuid>,
    /// Our Chassis_Private row: insert (true), or point it to our Chassis (row).
    pub insert_private: bool,
    /// Chassis_Private row whose `chassis` is to be set.
    pub point_private: Option<Uuid>,
    /// What people should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// True when everything is as it should be.
    pub fn is_done(&self) -> bool {
        self.chassis.is_some()
            && self.hostname.is_none()
            && self.other_config.is_none()
            && self.transport_zones.is_none()
            && self.encaps.is_none()
            && self.encap_options.is_empty()
            && self.delete.is_empty()
            && !self.insert_private
            && self.point_private.is_none()
    }
}

/// Chassis.other_config as far as it is ours.
pub fn other_config(config: &Config, host: &Host) -> StringMap {
    let mut all = config.published.clone();
    let datapath_type = if host.datapath_type.is_empty() { "system" } else { &host.datapath_type };
    all.insert("datapath-type".into(), datapath_type.to_owned());
    all.insert("iface-types".into(), host.iface_types.iter().cloned().collect::<Vec<_>>().join(","));
    for feature in FEATURES {
        all.insert((*feature).to_owned(), "true".to_owned());
    }
    all
}

/// The Encap rows that should be, Geneve first, addresses in the order given.
pub fn encaps(config: &Config) -> Vec<DesiredEncap> {
    let mut kinds = config.encap_kinds.clone();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.preference()));
    let several = config.encap_ips.len() > 1;
    let default = config.encap_ip_default;
    kinds
        .iter()
        .flat_map(|&kind| config.encap_ips.iter().map(move |&ip| (kind, ip)))
        .map(|(kind, ip)| {
            let mut options = StringMap::from([("csum".to_owned(), config.encap_csum.to_string())]);
            if several && default == Some(ip) {
                options.insert("is_default".into(), "true".into());
            }
            DesiredEncap { kind, ip, options }
        })
        .collect()
}

/// Options that are ours: others' keys in the same column stay.
const OUR_OPTIONS: [&str; 2] = ["csum", "is_default"];

/// Keys of other_config that are ours whether or not they are wanted now.
fn is_ours(key: &str, desired: &StringMap) -> bool {
    desired.contains_key(key)
        || matches!(
            key,
            "mac-binding-timestamp"
                | "ct-no-masked-label"
                | "ovn-ct-lb-related"
                | "ls-dpg-column"
                | "ct-commit-nat-v2"
                | "ct-commit-to-zone"
                | "ovn-sample-with-registers"
                | "ct-next-zone"
                | "ct-label-flush"
                | "ct-state-save"
        )
}

/// Chassis of other names that had one of our addresses and were taken over.
#[derive(Debug, Default)]
pub struct Takeovers {
    done: BTreeSet<String>,
    under_way: BTreeSet<String>,
}

impl Takeovers {
    /// Those that were taken over.
    pub fn done(&self) -> &BTreeSet<String> {
        &self.done
    }

    /// A transaction takes these over.
    pub fn begin(&mut self, names: impl Iterator<Item = String>) {
        self.under_way = names.collect();
    }

    /// A transaction has ended: one that did nothing took over nobody.
    pub fn end(&mut self, is_committed: bool) {
        let ended = std::mem::take(&mut self.under_way);
        if is_committed {
            self.done.extend(ended);
        }
    }
}

/// Compares. `taken_over` names chassis that were already taken over once by this process: a second time means that somebody
/// is alive there, and is refused loudly.
pub fn plan(
    config: &Config,
    host: &Host,
    chassis: &[Chassis],
    encap_rows: &BTreeMap<Uuid, Encap>,
    private: Option<&ChassisPrivate>,
    taken_over: &BTreeSet<String>,
) -> Option<Plan> {
    let name = config.system_id.as_deref()?;
    if !config.can_register() {
        return None;
    }
    let wanted = encaps(config);
    let mut plan = Plan::default();
    let mut blocked = false;
    for other in chassis.iter().filter(|row| row.name != name) {
        let clash = other
            .encaps
            .iter()
            .filter_map(|row| encap_rows.get(row))
            .find(|row| wanted.iter().any(|encap| encap.kind.name() == row.kind && row.ip.parse() == Ok(encap.ip)));
        let Some(clash) = clash else { continue };
        if taken_over.contains(&other.name) {
            plan.notes.push(format!(
                "chassis {} (host {}) claims our encapsulation {} {} again: two hosts are configured with one address",
                other.name, other.hostname, clash.kind, clash.ip
            ));
            blocked = true;
        } else {
            plan.notes.push(format!(
                "taking over encapsulation {} {} from stale chassis {} (host {})",
                clash.kind, clash.ip, other.name, other.hostname
            ));
            plan.delete.push(other.uuid);
        }
    }
    let ours = chassis.iter().find(|row| row.name == name);
    plan.chassis = ours.map(|row| row.uuid);
    let desired = other_config(config, host);
    let mut writes = Vec::new();
    let mut changed = ours.is_none();
    for encap in wanted {
        let row = ours
            .iter()
            .flat_map(|row| row.encaps.iter())
            .filter_map(|uuid| encap_rows.get(uuid))
            .find(|row| row.kind == encap.kind.name() && row.ip.parse() == Ok(encap.ip));
        match row {
            Some(row) => {
                let mut options = row.options.clone();
                options.retain(|key, _| !OUR_OPTIONS.contains(&key.as_str()));
                options.extend(encap.options);
                if options == row.options {
                    writes.push(EncapWrite::Keep(row.uuid));
                } else {
                    plan.encap_options.push((row.uuid, options.clone()));
                    writes.push(EncapWrite::Options(row.uuid, options));
                }
            }
            None => {
                changed = true;
                writes.push(EncapWrite::Insert(encap));
            }
        }
    }
    if let Some(row) = ours {
        changed |= row.encaps.len() != writes.len();
        if row.hostname != config.hostname {
            plan.hostname = Some(config.hostname.clone());
        }
        let mut merged = row.other_config.clone();
        merged.retain(|key, _| !is_ours(key, &desired));
        merged.extend(desired);
        if merged != row.other_config {
            plan.other_config = Some(merged);
        }
        if row.transport_zones != config.transport_zones {
            plan.transport_zones = Some(config.transport_zones.clone());
        }
    } else {
        plan.hostname = Some(config.hostname.clone());
        plan.other_config = Some(desired);
        plan.transport_zones = Some(config.transport_zones.clone());
    }
    if changed {
        plan.encaps = Some(writes);
    }
    match private {
        None => plan.insert_private = true,
        Some(row) if plan.chassis.is_none() || row.chassis != plan.chassis => plan.point_private = Some(row.uuid),
        Some(_) => {}
    }
    if blocked {
        // The unique index on (type, ip) would refuse it; keep what is registered and say why.
        plan.encaps = None;
        if plan.chassis.is_none() {
            return Some(Plan { notes: plan.notes, chassis: None, ..Default::default() });
        }
    }
    Some(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;
    use crate::rows::OpenVSwitch;

    fn config(pairs: &[(&str, &str)]) -> Config {
        let mut ids: StringMap = [("system-id", "hv1"), ("ovn-encap-type", "geneve"), ("ovn-encap-ip", "192.0.2.1")]
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        ids.extend(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Config::read(&OpenVSwitch { external_ids: ids, ..Default::default() }, &Identity::default(), "host1")
    }

    /// The rows that a plan leads to.
    fn registered(config: &Config) -> (Chassis, BTreeMap<Uuid, Encap>, ChassisPrivate) {
        let plan = plan(config, &Host::default(), &[], &BTreeMap::new(), None, &BTreeSet::new()).expect("can register");
        let mut rows = BTreeMap::new();
        for (number, write) in plan.encaps.expect("encaps").into_iter().enumerate() {
            let EncapWrite::Insert(encap) = write else { panic!("{write:?}") };
            let uuid = Uuid::from_u128(100 + number as u128);
            let row = Encap {
                uuid,
                chassis_name: "hv1".into(),
                kind: encap.kind.name().into(),
                ip: encap.ip.to_string(),
                options: encap.options,
            };
            rows.insert(uuid, row);
        }
        let chassis = Chassis {
            uuid: Uuid::from_u128(1),
            name: "hv1".into(),
            hostname: plan.hostname.expect("hostname"),
            encaps: rows.keys().copied().collect(),
            other_config: plan.other_config.expect("other_config"),
            transport_zones: plan.transport_zones.expect("transport zones"),
            ..Default::default()
        };
        let private = ChassisPrivate {
            uuid: Uuid::from_u128(2),
            name: "hv1".into(),
            chassis: Some(chassis.uuid),
            ..Default::default()
        };
        (chassis, rows, private)
    }

    #[test]
    fn nothing_is_registered_without_name_type_and_address() {
        for missing in ["system-id", "ovn-encap-type", "ovn-encap-ip"] {
            let config = config(&[(missing, "")]);
            let plan = plan(&config, &Host::default(), &[], &BTreeMap::new(), None, &BTreeSet::new());
            assert_eq!(plan, None, "{missing}");
        }
    }

    #[test]
    fn what_is_registered_is_left_alone() {
        let config = config(&[("ovn-encap-type", "vxlan,geneve"), ("ovn-transport-zones", "b,a")]);
        let (chassis, encaps, private) = registered(&config);
        assert_eq!(encaps.len(), 2);
        let again =
            plan(&config, &Host::default(), &[chassis], &encaps, Some(&private), &BTreeSet::new()).expect("plan");
        assert!(again.is_done(), "{again:#?}");
    }

    #[test]
    fn other_config_has_what_neutron_reads_and_only_features_that_are_honoured() {
        let host = Host { iface_types: ["internal".to_owned(), "system".to_owned()].into(), ..Default::default() };
        let all = other_config(
            &config(&[("ovn-bridge-mappings", "p:br-ex"), ("ovn-cms-options", "enable-chassis-as-gw")]),
            &host,
        );
        for (key, value) in [
            ("datapath-type", "system"),
            ("iface-types", "internal,system"),
            ("ovn-bridge-mappings", "p:br-ex"),
            ("ovn-cms-options", "enable-chassis-as-gw"),
            ("ovn-monitor-all", "false"),
            ("is-interconn", "false"),
            ("ovn-enable-lflow-cache", "true"),
            ("port-up-notif", "true"),
        ] {
            assert_eq!(all.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(!all.keys().any(|key| key.starts_with("ct-")), "{all:?}");
    }

    #[test]
    fn what_others_wrote_stays() {
        let config = config(&[]);
        let (mut chassis, mut encaps, private) = registered(&config);
        chassis.other_config.insert("somebody".into(), "else".into());
        chassis.other_config.insert("ct-no-masked-label".into(), "true".into());
        for row in encaps.values_mut() {
            row.options.insert("dst_port".into(), "6082".into());
            row.options.insert("csum".into(), "false".into());
        }
        let plan =
            plan(&config, &Host::default(), &[chassis], &encaps, Some(&private), &BTreeSet::new()).expect("plan");
        let other = plan.other_config.expect("a feature of a former controller goes");
        assert_eq!((other.get("somebody").map(String::as_str), other.get("ct-no-masked-label")), (Some("else"), None));
        assert_eq!(plan.encap_options.len(), 1);
        assert_eq!(plan.encap_options[0].1.get("dst_port").map(String::as_str), Some("6082"));
        assert_eq!(plan.encap_options[0].1.get("csum").map(String::as_str), Some("true"));
        assert_eq!(plan.encaps, None);
    }

    #[test]
    fn a_changed_address_replaces_the_encap() {
        let (chassis, encaps, private) = registered(&config(&[]));
        let config = config(&[("ovn-encap-ip", "192.0.2.7")]);
        let plan =
            plan(&config, &Host::default(), &[chassis], &encaps, Some(&private), &BTreeSet::new()).expect("plan");
        assert!(
            matches!(&plan.encaps.as_deref(), Some([EncapWrite::Insert(encap)]) if encap.ip.to_string() == "192.0.2.7"),
            "{plan:?}"
        );
    }

    #[test]
    fn a_stale_chassis_with_our_address_is_taken_over_once() {
        let (mut other, encaps, private) = registered(&config(&[]));
        other.name = "old".into();
        let mut before = BTreeSet::new();
        let config = config(&[]);
        let first =
            plan(&config, &Host::default(), std::slice::from_ref(&other), &encaps, None, &before).expect("plan");
        assert_eq!(first.delete, [other.uuid]);
        assert!(first.encaps.is_some() && first.notes[0].contains("old"));
        before.insert("old".to_owned());
        let again = plan(&config, &Host::default(), &[other], &encaps, Some(&private), &before).expect("plan");
        assert!(again.delete.is_empty() && again.encaps.is_none());
        assert!(again.notes[0].contains("two hosts are configured with one address"), "{:?}", again.notes);
    }

    #[test]
    fn several_addresses_mark_their_default() {
        let rows = encaps(&config(&[("ovn-encap-ip", "192.0.2.1,192.0.2.2"), ("ovn-encap-ip-default", "192.0.2.2")]));
        let marked: Vec<String> =
            rows.iter().filter(|row| row.options.contains_key("is_default")).map(|row| row.ip.to_string()).collect();
        assert_eq!(marked, ["192.0.2.2"]);
    }

    #[test]
    fn chassis_private_follows_a_new_chassis_row() {
        let config = config(&[]);
        let (chassis, encaps, mut private) = registered(&config);
        private.chassis = None;
        let plan =
            plan(&config, &Host::default(), &[chassis], &encaps, Some(&private), &BTreeSet::new()).expect("plan");
        assert_eq!((plan.point_private, plan.insert_private), (Some(private.uuid), false));
    }

    #[test]
    fn a_takeover_counts_when_it_is_committed() {
        let mut takeovers = Takeovers::default();
        takeovers.begin(["old".to_owned()].into_iter());
        takeovers.end(false);
        assert!(takeovers.done().is_empty(), "the connection went: it is to be tried again");
        takeovers.begin(["old".to_owned()].into_iter());
        takeovers.end(true);
        takeovers.end(true);
        assert_eq!(takeovers.done().iter().collect::<Vec<_>>(), ["old"]);
    }
}
