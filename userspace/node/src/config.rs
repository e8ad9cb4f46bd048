//! What the host asks of the controller: Open_vSwitch.external_ids (ovn-controller(8), CONFIGURATION).
//!
//! Every key may also be given as `KEY-<system-id>`, which wins. Nothing is refused: an unknown key is somebody else's, and a value that makes
//! no sense is reported in [`Config::problems`] and reads as the default. Everything is read again on every change.

use crate::rows::{OpenVSwitch, StringMap};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The keys that ovn-controller(8) documents, from 23.03 to 26.03; all may carry a chassis suffix.
pub const KEYS: &[&str] = &[
    "system-id",
    "hostname",
    "ovn-bridge",
    "ovn-bridge-datapath-type",
    "ovn-remote",
    "ovn-monitor-all",
    "ovn-remote-probe-interval",
    "ovn-encap-type",
    "ovn-encap-ip",
    "ovn-encap-ip-default",
    "ovn-encap-df_default",
    "ovn-encap-csum",
    "ovn-encap-tos",
    "ovn-enable-flow-based-tunnels",
    "ovn-bridge-mappings",
    "ovn-cms-options",
    "ovn-transport-zones",
    "ovn-chassis-mac-mappings",
    "ovn-is-interconn",
    "ovn-match-northd-version",
    "ovn-enable-lflow-cache",
    "ovn-limit-lflow-cache",
    "ovn-memlimit-lflow-cache-kb",
    "ovn-trim-limit-lflow-cache",
    "ovn-trim-wmark-perc-lflow-cache",
    "ovn-trim-timeout-ms",
    "garp-max-timeout-sec",
    "arp-nd-max-timeout-sec",
    "ovn-bridge-remote",
    "ovn-bridge-remote-probe-interval",
    "ovn-ofctrl-wait-before-clear",
    "ovn-set-local-ip",
    "dynamic-routing-port-mapping",
    "ct-zone-range",
    "ovn-cleanup-on-exit",
    "ovn-evpn-vxlan-ports",
    "ovn-evpn-local-ip",
];

/// Kinds of encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EncapKind {
    /// Geneve with OVN's option (RFC 8926).
    Geneve,
    /// VXLAN (RFC 7348): no room for the ingress port.
    Vxlan,
    /// Stateless transport tunnelling: published when asked for, never carried.
    Stt,
}

impl EncapKind {
    /// The name in databases.
    pub fn name(self) -> &'static str {
        match self {
            EncapKind::Geneve => "geneve",
            EncapKind::Vxlan => "vxlan",
            EncapKind::Stt => "stt",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "geneve" => EncapKind::Geneve,
            "vxlan" => EncapKind::Vxlan,
            "stt" => EncapKind::Stt,
            _ => return None,
        })
    }

    /// Which of two common kinds a tunnel uses: stock prefers Geneve, then STT, then VXLAN.
    pub fn preference(self) -> u8 {
        match self {
            EncapKind::Geneve => 2,
            EncapKind::Stt => 1,
            EncapKind::Vxlan => 0,
        }
    }
}

/// Where this chassis' name came from, the strongest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Option `-n`.
    pub option: Option<String>,
    /// First line of `<sysconfdir>/system-id-override`.
    pub file: Option<String>,
}

impl Identity {
    /// The chassis name, if any source has one.
    pub fn system_id(&self, external_ids: &StringMap) -> Option<String> {
        [self.option.as_deref(), self.file.as_deref(), external_ids.get("system-id").map(String::as_str)]
            .into_iter()
            .flatten()
            .map(str::trim)
            .find(|name| !name.is_empty())
            .map(str::to_owned)
    }
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Chassis name; without one nothing is registered.
    pub system_id: Option<String>,
    /// `hostname`, else the host's own name.
    pub hostname: String,
    /// Integration bridge.
    pub bridge: String,
    /// `ovn-bridge-datapath-type`, written only when the bridge is made by us.
    pub bridge_datapath_type: Option<String>,
    /// `ovn-bridge-remote`: how to manage the bridge, when not by the socket that ovs-vswitchd makes for it.
    pub bridge_remote: Option<String>,
    /// Southbound remotes as given, a comma list.
    pub remote: Option<String>,
    /// Watch every datapath.
    pub monitor_all: bool,
    /// Milliseconds between probes of an idle Southbound session, 0 = never; none = the client's default.
    pub probe_interval_ms: Option<u64>,
    /// Encapsulations offered, in the order given.
    pub encap_kinds: Vec<EncapKind>,
    /// Tunnel end points, in the order given.
    pub encap_ips: Vec<IpAddr>,
    /// The one to use by default, when given.
    pub encap_ip_default: Option<IpAddr>,
    /// `options:csum` of the Encap rows. Stock's default is true.
    pub encap_csum: bool,
    /// `ovn-encap-tos`: `inherit` or a number.
    pub encap_tos: Tos,
    /// Set Don't Fragment on outer headers (`ovn-encap-df_default`); default true.
    pub encap_df: bool,
    /// `df_default` of tunnel ports, when `ovn-encap-df_default` was given.
    pub tunnel_df: Option<bool>,
    /// `ovn-set-local-ip`: tunnel ports name our address too.
    pub set_local_ip: bool,
    /// Transport zones.
    pub transport_zones: BTreeSet<String>,
    /// `ovn-is-interconn`.
    pub is_interconn: bool,
    /// `ovn-match-northd-version`.
    pub match_northd_version: bool,
    /// First and last conntrack zone that may be used.
    pub zone_range: (u16, u16),
    /// `ovn-cleanup-on-exit`: false keeps the Chassis row on `exit`.
    pub cleanup_on_exit: bool,
    /// Physical networks and the bridges that lead to them.
    pub bridge_mappings: BTreeMap<String, String>,
    /// Keys that go to Chassis.other_config as they are (those that were given).
    pub published: StringMap,
    /// What could not be understood, one sentence each.
    pub problems: Vec<String>,
}

/// Outer type of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tos {
    /// This value.
    Value(u8),
    /// The inner packet's.
    Inherit,
    /// 0.
    #[default]
    Zero,
}

/// Keys published in Chassis.other_config under their own name with their default (observed on ovn-controller 23.03).
const PUBLISHED: &[(&str, &str)] = &[
    ("ovn-bridge-mappings", ""),
    ("ovn-cms-options", ""),
    ("ovn-chassis-mac-mappings", ""),
    ("ovn-limit-lflow-cache", ""),
    ("ovn-memlimit-lflow-cache-kb", ""),
    ("ovn-trim-limit-lflow-cache", ""),
    ("ovn-trim-wmark-perc-lflow-cache", ""),
    ("ovn-trim-timeout-ms", ""),
];

/// Value of `key`: the chassis' own form first.
pub fn lookup<'a>(external_ids: &'a StringMap, system_id: Option<&str>, key: &str) -> Option<&'a String> {
    system_id.and_then(|id| external_ids.get(&format!("{key}-{id}"))).or_else(|| external_ids.get(key))
}

impl Config {
    /// Reads the configuration. `host` is the host's own name.
    pub fn read(row: &OpenVSwitch, identity: &Identity, host: &str) -> Self {
        let ids = &row.external_ids;
        let system_id = identity.system_id(ids);
        let mut problems = Vec::new();
        let get = |key: &str| {
            lookup(ids, system_id.as_deref(), key).map(|value| value.trim()).filter(|value| !value.is_empty())
        };
        let flag = |key: &str, default: bool| match get(key) {
            Some(text) if text.eq_ignore_ascii_case("true") => true,
            Some(text) if text.eq_ignore_ascii_case("false") => false,
            _ => default,
        };

        let mut encap_kinds = Vec::new();
        for name in list(get("ovn-encap-type")) {
            match EncapKind::from_name(name) {
                Some(EncapKind::Stt) => {
                    problems.push("ovn-encap-type stt is not carried by oxbow-node; use geneve or vxlan".to_owned())
                }
                Some(kind) if !encap_kinds.contains(&kind) => encap_kinds.push(kind),
                Some(_) => {}
                None => problems.push(format!("Unknown tunnel type: {name}")),
            }
        }
        let mut encap_ips = Vec::new();
        for text in list(get("ovn-encap-ip")) {
            match text.parse::<IpAddr>() {
                Ok(ip) if !encap_ips.contains(&ip) => encap_ips.push(ip),
                Ok(_) => {}
                Err(_) => problems.push(format!("ovn-encap-ip \"{text}\" is not an IP address")),
            }
        }
        let encap_ip_default = get("ovn-encap-ip-default").and_then(|text| match text.parse::<IpAddr>() {
            Ok(ip) if encap_ips.contains(&ip) => Some(ip),
            _ => {
                problems.push(format!("ovn-encap-ip-default \"{text}\" is not one of ovn-encap-ip"));
                None
            }
        });
        let encap_tos = match get("ovn-encap-tos") {
            None | Some("none") => Tos::Zero,
            Some("inherit") => Tos::Inherit,
            Some(text) => match parse_tos(text) {
                Some(value) => Tos::Value(value),
                None => {
                    problems.push(format!("ovn-encap-tos \"{text}\" is neither \"inherit\" nor a number up to 255"));
                    Tos::Zero
                }
            },
        };
        let zone_range = match get("ct-zone-range") {
            None => FULL_ZONE_RANGE,
            Some(text) => parse_zone_range(text).unwrap_or_else(|| {
                problems.push(format!("ct-zone-range \"{text}\" is not MIN-MAX within 1-65535"));
                FULL_ZONE_RANGE
            }),
        };
        let mut bridge_mappings = BTreeMap::new();
        for mapping in list(get("ovn-bridge-mappings")) {
            match mapping.split_once(':') {
                Some((network, bridge)) if !network.is_empty() && !bridge.is_empty() => {
                    bridge_mappings.insert(network.to_owned(), bridge.to_owned());
                }
                _ => problems.push(format!("Invalid ovn-bridge-mappings configuration: \"{mapping}\"")),
            }
        }

        let mut published: StringMap = PUBLISHED
            .iter()
            .map(|(key, default)| ((*key).to_owned(), get(key).unwrap_or(default).to_owned()))
            .collect();
        let monitor_all = flag("ovn-monitor-all", false);
        let is_interconn = flag("ovn-is-interconn", false);
        published.insert("ovn-monitor-all".into(), monitor_all.to_string());
        published.insert("is-interconn".into(), is_interconn.to_string());
        published.insert("ovn-enable-lflow-cache".into(), flag("ovn-enable-lflow-cache", true).to_string());

        Config {
            hostname: get("hostname").unwrap_or(host).to_owned(),
            bridge: get("ovn-bridge").unwrap_or("br-int").to_owned(),
            bridge_datapath_type: get("ovn-bridge-datapath-type").map(str::to_owned),
            bridge_remote: get("ovn-bridge-remote").map(str::to_owned),
            remote: get("ovn-remote").map(str::to_owned),
            monitor_all,
            probe_interval_ms: get("ovn-remote-probe-interval").and_then(|text| text.parse().ok()),
            encap_kinds,
            encap_ips,
            encap_ip_default,
            encap_csum: flag("ovn-encap-csum", true),
            encap_tos,
            encap_df: flag("ovn-encap-df_default", true),
            tunnel_df: get("ovn-encap-df_default").is_some().then(|| flag("ovn-encap-df_default", true)),
            set_local_ip: flag("ovn-set-local-ip", false),
            transport_zones: list(get("ovn-transport-zones")).map(str::to_owned).collect(),
            is_interconn,
            match_northd_version: flag("ovn-match-northd-version", false),
            zone_range,
            cleanup_on_exit: flag("ovn-cleanup-on-exit", true),
            bridge_mappings,
            published,
            problems,
            system_id,
        }
    }

    /// The address that tunnels use unless a port says otherwise.
    pub fn default_encap_ip(&self) -> Option<IpAddr> {
        self.encap_ip_default.or_else(|| self.encap_ips.first().copied())
    }

    /// True when a chassis can be registered: it has a name, an encapsulation and an address.
    pub fn can_register(&self) -> bool {
        self.system_id.is_some() && !self.encap_kinds.is_empty() && !self.encap_ips.is_empty()
    }
}

/// Zones that conntrack has, 0 being the host's own.
pub const FULL_ZONE_RANGE: (u16, u16) = (1, 65535);

fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or("").split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn parse_tos(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn parse_zone_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-')?;
    let (low, high) = (low.trim().parse::<u16>().ok()?, high.trim().parse::<u16>().ok()?);
    (low >= 1 && low <= high).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Config {
        let row = OpenVSwitch {
            external_ids: pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Default::default()
        };
        Config::read(&row, &Identity::default(), "host.example")
    }

    #[test]
    fn the_option_beats_the_file_beats_the_database() {
        let ids: StringMap = [("system-id".to_owned(), "db".to_owned())].into();
        let mut identity = Identity { option: Some("opt".into()), file: Some("file\n".into()) };
        assert_eq!(identity.system_id(&ids).as_deref(), Some("opt"));
        identity.option = None;
        assert_eq!(identity.system_id(&ids).as_deref(), Some("file"));
        identity.file = Some(" \n".into());
        assert_eq!(identity.system_id(&ids).as_deref(), Some("db"));
        assert_eq!(Identity::default().system_id(&StringMap::new()), None);
    }

    #[test]
    fn every_key_has_a_form_of_this_chassis_that_wins() {
        for key in KEYS.iter().filter(|key| **key != "system-id") {
            let plain = ((*key).to_owned(), "plain".to_owned());
            let ours = (format!("{key}-hv1"), "ours".to_owned());
            let theirs = (format!("{key}-hv2"), "theirs".to_owned());
            let ids: StringMap = [plain, ours, theirs].into();
            assert_eq!(lookup(&ids, Some("hv1"), key).map(String::as_str), Some("ours"), "{key}");
            assert_eq!(lookup(&ids, Some("hv3"), key).map(String::as_str), Some("plain"), "{key}");
        }
        let config = read(&[("system-id", "hv1"), ("ovn-remote", "tcp:a:1"), ("ovn-remote-hv1", "tcp:b:1")]);
        assert_eq!(config.remote.as_deref(), Some("tcp:b:1"));
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let config = read(&[]);
        assert_eq!((config.bridge.as_str(), config.hostname.as_str()), ("br-int", "host.example"));
        assert!(!config.monitor_all && config.encap_csum && config.cleanup_on_exit && !config.can_register());
        assert_eq!(config.zone_range, (1, 65535));
        assert!(config.problems.is_empty());
    }

    #[test]
    fn a_bad_value_is_named_and_the_rest_goes_on() {
        let config = read(&[
            ("system-id", "hv1"),
            ("ovn-encap-type", "geneve,gre"),
            ("ovn-encap-ip", "192.0.2.1,nonsense,2001:db8::1"),
            ("ct-zone-range", "9-3"),
            ("ovn-bridge-mappings", "physnet1:br-ex,broken"),
            ("ovn-openflow-probe-interval", "60"),
        ]);
        assert_eq!(config.encap_kinds, [EncapKind::Geneve]);
        assert_eq!(config.encap_ips.len(), 2);
        assert!(config.can_register());
        assert_eq!(config.zone_range, FULL_ZONE_RANGE);
        assert_eq!(config.bridge_mappings["physnet1"], "br-ex");
        for word in ["gre", "nonsense", "9-3", "broken"] {
            assert!(config.problems.iter().any(|problem| problem.contains(word)), "{word}: {:?}", config.problems);
        }
        assert_eq!(config.problems.len(), 4, "an unknown key is nobody's problem: {:?}", config.problems);
    }

    #[test]
    fn several_addresses_have_one_default() {
        let two = [("ovn-encap-ip", "192.0.2.1,192.0.2.2"), ("ovn-encap-ip-default", "192.0.2.2")];
        assert_eq!(read(&two).default_encap_ip(), "192.0.2.2".parse().ok());
        assert_eq!(read(&two[..1]).default_encap_ip(), "192.0.2.1".parse().ok());
    }
}
