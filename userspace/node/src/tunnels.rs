//! Which encapsulation leads to which chassis (ovn-sb(5), Chassis and Encap; ovn-architecture(7), Tunnel Encapsulations).
//!
//! Two chassis talk when they share a transport zone (or have none) and offer a common kind of encapsulation: Geneve before VXLAN. A chassis with
//! several addresses is a peer several times, and the one marked `is_default` (else the first) serves ports that name none.

use crate::config::{Config, EncapKind};
use crate::dataplane::{NextHop, Peer};
use crate::rows::{Chassis, Encap, Uuid, is_not_false, is_true};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Index given to peers: 1‥; 0 means "no chassis" in the kernel.
pub const FIRST_INDEX: u32 = 1;

/// What identifies a peer over time: the remote's Encap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName {
    /// Chassis name.
    pub chassis: String,
    /// Kind.
    pub kind: EncapKind,
    /// Its address.
    pub ip: IpAddr,
}

/// The peers and the numbers they keep.
#[derive(Debug, Default)]
pub struct Tunnels {
    index: BTreeMap<PeerName, u32>,
    free: BTreeSet<u32>,
    next: u32,
}

/// The peers as they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    /// Every peer.
    pub peers: Vec<Peer>,
    /// Peer to use for a port of this chassis that names no encapsulation.
    pub by_chassis: BTreeMap<Uuid, u32>,
    /// Peer to use for a port that names one.
    pub by_encap: BTreeMap<Uuid, u32>,
    /// What people should know.
    pub problems: Vec<String>,
}

impl Tunnels {
    /// Works the mesh out. `hop` tells the link-layer way to an address from one of ours.
    pub fn mesh(
        &mut self,
        config: &Config,
        chassis: &[Chassis],
        encaps: &BTreeMap<Uuid, Encap>,
        hop: &dyn Fn(IpAddr, IpAddr) -> Option<NextHop>,
    ) -> Mesh {
        let mut mesh = Mesh::default();
        let mut wanted: BTreeMap<PeerName, (Uuid, Encap)> = BTreeMap::new();
        let mut owners: BTreeMap<(EncapKind, IpAddr), String> = BTreeMap::new();
        let own: BTreeSet<IpAddr> = config.encap_ips.iter().copied().collect();
        let mut rows: Vec<&Chassis> =
            chassis.iter().filter(|row| Some(row.name.as_str()) != config.system_id.as_deref()).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        for row in rows {
            if !share_zone(&config.transport_zones, &row.transport_zones) {
                continue;
            }
            if is_true(row.other_config.get("is-remote")) && !config.is_interconn {
                continue;
            }
            let theirs: Vec<(EncapKind, IpAddr, &Encap)> = row
                .encaps
                .iter()
                .filter_map(|uuid| encaps.get(uuid))
                .filter_map(|encap| Some((EncapKind::from_name(&encap.kind)?, encap.ip.parse().ok()?, encap)))
                .filter(|(kind, ..)| config.encap_kinds.contains(kind))
                .collect();
            let Some(kind) = theirs.iter().map(|(kind, ..)| *kind).max_by_key(|kind| kind.preference()) else {
                if !row.encaps.is_empty() {
                    mesh.problems.push(format!("chassis {} offers no encapsulation in common with this one", row.name));
                }
                continue;
            };
            let mut usable: Vec<_> = theirs.into_iter().filter(|(offered, ..)| *offered == kind).collect();
            usable.sort_by_key(|(_, ip, encap)| (!is_true(encap.options.get("is_default")), *ip));
            for (position, (kind, ip, encap)) in usable.into_iter().enumerate() {
                if own.contains(&ip) {
                    mesh.problems.push(format!("chassis {} has our own encapsulation address {ip}", row.name));
                    continue;
                }
                if local_for(config, ip).is_none() {
                    mesh.problems.push(format!(
                        "chassis {} is at {ip}, and no ovn-encap-ip of this host has that family",
                        row.name
                    ));
                    continue;
                }
                if let Some(other) = owners.get(&(kind, ip)) {
                    mesh.problems.push(format!(
                        "Chassis {other} and {} has conflicted tunnel configuration: both are at {} {ip}",
                        row.name,
                        kind.name()
                    ));
                    continue;
                }
                owners.insert((kind, ip), row.name.clone());
                let name = PeerName { chassis: row.name.clone(), kind, ip };
                let number = self.number(&name);
                if position == 0 || !mesh.by_chassis.contains_key(&row.uuid) {
                    mesh.by_chassis.insert(row.uuid, number);
                }
                mesh.by_encap.insert(encap.uuid, number);
                wanted.insert(name, (row.uuid, encap.clone()));
            }
        }
        self.index.retain(|name, number| {
            let keep = wanted.contains_key(name);
            if !keep {
                self.free.insert(*number);
            }
            keep
        });
        let (tos_inherit, tos) = match config.encap_tos {
            crate::config::Tos::Inherit => (true, 0),
            crate::config::Tos::Value(tos) => (false, tos),
            crate::config::Tos::Zero => (false, 0),
        };
        for (name, (_, encap)) in wanted {
            let Some(local) = local_for(config, name.ip) else { continue };
            let Some(&index) = self.index.get(&name) else { continue };
            mesh.peers.push(Peer {
                index,
                local,
                remote: name.ip,
                vxlan: name.kind == EncapKind::Vxlan,
                // Both ends have a say: a receiver may ask not to be sent checksums.
                csum: config.encap_csum && is_not_false(encap.options.get("csum")),
                tos_inherit,
                tos,
                df: config.encap_df,
                options: port_options(config, &encap, local),
                hop: hop(local, name.ip),
                ofport: None,
                chassis: name.chassis,
            });
        }
        mesh
    }

    fn number(&mut self, name: &PeerName) -> u32 {
        if let Some(number) = self.index.get(name) {
            return *number;
        }
        let number = self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            FIRST_INDEX + self.next - 1
        });
        self.index.insert(name.clone(), number);
        number
    }
}

/// What a tunnel port says beyond address and checksum.
fn port_options(config: &Config, encap: &Encap, local: IpAddr) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    if let Some(port) = encap.options.get("dst_port") {
        options.insert("dst_port".to_owned(), port.clone());
    }
    if let Some(df) = config.tunnel_df {
        options.insert("df_default".to_owned(), df.to_string());
    }
    if config.set_local_ip {
        options.insert("local_ip".to_owned(), local.to_string());
    }
    options
}

/// Our address of the same family: the default one if it has it.
fn local_for(config: &Config, remote: IpAddr) -> Option<IpAddr> {
    let same = |ip: &IpAddr| ip.is_ipv4() == remote.is_ipv4();
    config.default_encap_ip().filter(same).or_else(|| config.encap_ips.iter().copied().find(same))
}

fn share_zone(ours: &BTreeSet<String>, theirs: &BTreeSet<String>) -> bool {
    (ours.is_empty() && theirs.is_empty()) || ours.intersection(theirs).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;
    use crate::rows::OpenVSwitch;

    fn config(pairs: &[(&str, &str)]) -> Config {
        let mut ids: BTreeMap<String, String> =
            [("system-id", "hv1"), ("ovn-encap-type", "geneve,vxlan"), ("ovn-encap-ip", "192.0.2.1")]
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
        ids.extend(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Config::read(&OpenVSwitch { external_ids: ids, ..Default::default() }, &Identity::default(), "host1")
    }

    struct Cloud {
        chassis: Vec<Chassis>,
        encaps: BTreeMap<Uuid, Encap>,
    }

    impl Cloud {
        fn new(hosts: &[(&str, &[(&str, &str)])]) -> Self {
            let mut cloud = Cloud { chassis: Vec::new(), encaps: BTreeMap::new() };
            for (number, (name, encaps)) in hosts.iter().enumerate() {
                let mut row =
                    Chassis { uuid: Uuid::from_u128(number as u128 + 1), name: (*name).into(), ..Default::default() };
                for (position, (kind, ip)) in encaps.iter().enumerate() {
                    let uuid = Uuid::from_u128(((number as u128 + 1) << 16) + position as u128);
                    row.encaps.insert(uuid);
                    cloud.encaps.insert(
                        uuid,
                        Encap {
                            uuid,
                            chassis_name: (*name).into(),
                            kind: (*kind).into(),
                            ip: (*ip).into(),
                            ..Default::default()
                        },
                    );
                }
                cloud.chassis.push(row);
            }
            cloud
        }

        fn mesh(&self, tunnels: &mut Tunnels, config: &Config) -> Mesh {
            tunnels.mesh(config, &self.chassis, &self.encaps, &|_, _| None)
        }
    }

    #[test]
    fn geneve_comes_before_vxlan_and_needs_both_sides() {
        let cloud = Cloud::new(&[
            ("hv1", &[("geneve", "192.0.2.1")]),
            ("hv2", &[("vxlan", "192.0.2.2"), ("geneve", "192.0.2.2")]),
            ("hv3", &[("vxlan", "192.0.2.3")]),
            ("hv4", &[("stt", "192.0.2.4")]),
        ]);
        let mesh = cloud.mesh(&mut Tunnels::default(), &config(&[]));
        let kinds: Vec<(&str, bool)> = mesh.peers.iter().map(|peer| (peer.chassis.as_str(), peer.vxlan)).collect();
        assert_eq!(kinds, [("hv2", false), ("hv3", true)]);
        assert!(mesh.problems.iter().any(|problem| problem.contains("hv4")));
        let only_geneve = cloud.mesh(&mut Tunnels::default(), &config(&[("ovn-encap-type", "geneve")]));
        assert_eq!(only_geneve.peers.len(), 1);
    }

    #[test]
    fn numbers_stay_while_others_come_and_go() {
        let mut tunnels = Tunnels::default();
        let three = Cloud::new(&[
            ("a", &[("geneve", "192.0.2.2")]),
            ("b", &[("geneve", "192.0.2.3")]),
            ("c", &[("geneve", "192.0.2.4")]),
        ]);
        let before = three.mesh(&mut tunnels, &config(&[]));
        assert_eq!(before.peers.iter().map(|peer| peer.index).collect::<Vec<_>>(), [1, 2, 3]);
        let two = Cloud::new(&[("b", &[("geneve", "192.0.2.3")]), ("c", &[("geneve", "192.0.2.4")])]);
        let after = two.mesh(&mut tunnels, &config(&[]));
        assert_eq!(after.peers.iter().map(|peer| peer.index).collect::<Vec<_>>(), [2, 3]);
        let other = Cloud::new(&[("b", &[("geneve", "192.0.2.3")]), ("d", &[("geneve", "192.0.2.5")])]);
        let after = other.mesh(&mut tunnels, &config(&[]));
        assert_eq!(after.peers.iter().map(|peer| peer.index).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn transport_zones_keep_chassis_apart() {
        let mut cloud = Cloud::new(&[("hv2", &[("geneve", "192.0.2.2")])]);
        let mut count = |zones: &[&str], ours: &str| {
            cloud.chassis[0].transport_zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
            cloud.mesh(&mut Tunnels::default(), &config(&[("ovn-transport-zones", ours)])).peers.len()
        };
        assert_eq!(count(&[], ""), 1);
        assert_eq!(count(&["a"], ""), 0);
        assert_eq!(count(&[], "a"), 0);
        assert_eq!(count(&["a", "b"], "b,c"), 1);
        assert_eq!(count(&["a"], "b"), 0);
    }

    #[test]
    fn one_address_leads_to_one_chassis_and_the_conflict_is_told() {
        let cloud = Cloud::new(&[
            ("hv2", &[("geneve", "192.0.2.2")]),
            ("hv3", &[("geneve", "192.0.2.2")]),
            ("hv4", &[("geneve", "192.0.2.1")]),
        ]);
        let mesh = cloud.mesh(&mut Tunnels::default(), &config(&[]));
        assert_eq!(mesh.peers.len(), 1);
        assert!(mesh.problems.iter().any(|problem| problem.contains("Chassis hv2 and hv3")), "{:?}", mesh.problems);
        assert!(mesh.problems.iter().any(|problem| problem.contains("hv4")), "{:?}", mesh.problems);
    }

    #[test]
    fn the_default_address_of_several_serves_ports_that_name_none() {
        let mut cloud = Cloud::new(&[("hv2", &[("geneve", "192.0.2.2"), ("geneve", "192.0.2.3")])]);
        let second = Uuid::from_u128((1 << 16) + 1);
        if let Some(encap) = cloud.encaps.get_mut(&second) {
            encap.options.insert("is_default".into(), "true".into());
        }
        let mesh = cloud.mesh(&mut Tunnels::default(), &config(&[]));
        let default = mesh.by_chassis[&Uuid::from_u128(1)];
        assert_eq!(
            mesh.peers.iter().find(|peer| peer.index == default).map(|peer| peer.remote.to_string()).as_deref(),
            Some("192.0.2.3")
        );
        assert_eq!(mesh.by_encap.len(), 2);
        assert_eq!(mesh.by_encap[&second], default);
    }

    #[test]
    fn families_do_not_mix() {
        let cloud = Cloud::new(&[("hv2", &[("geneve", "2001:db8::2")])]);
        let mesh = cloud.mesh(&mut Tunnels::default(), &config(&[]));
        assert!(mesh.peers.is_empty() && mesh.problems[0].contains("2001:db8::2"));
        let mesh = cloud.mesh(&mut Tunnels::default(), &config(&[("ovn-encap-ip", "192.0.2.1,2001:db8::1")]));
        assert_eq!(mesh.peers[0].local.to_string(), "2001:db8::1");
    }
}
