//! Rows that stand for tunnels.
//!
//! On the integration bridge a port per peer, named and noted as ovn-controller does (`ovn-<chassis>-<n>`,
//! Port.external_ids:ovn-chassis-id). An eBPF dataplane encapsulates by itself and the rows are for users and their software; with the
//! OpenFlow backend the switch makes tunnels of them, and flows send to their numbers.

use crate::dataplane::Peer;
use crate::rows::{Interface, Port, Uuid};
use std::collections::{BTreeMap, BTreeSet};

/// Key of Port.external_ids that marks a tunnel port, and whose value tells where it leads.
pub const CHASSIS_KEY: &str = "ovn-chassis-id";

/// A tunnel port as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPort {
    /// Name of port and interface.
    pub name: String,
    /// Value of [`CHASSIS_KEY`]: `<chassis>@<remote address>`.
    pub id: String,
    /// `geneve` or `vxlan`.
    pub kind: &'static str,
    /// Interface.options.
    pub options: BTreeMap<String, String>,
}

/// What to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelPortWrites {
    /// Ports to add.
    pub add: Vec<TunnelPort>,
    /// Ports to remove.
    pub remove: BTreeSet<Uuid>,
    /// Interfaces whose options change.
    pub options: Vec<(Uuid, BTreeMap<String, String>)>,
}

impl TunnelPortWrites {
    /// True when nothing is to be written.
    pub fn is_empty(&self) -> bool {
        *self == TunnelPortWrites::default()
    }
}

/// Compares the peers with the ports of the integration bridge. `ports` are that bridge's; others' ports are never touched.
pub fn plan(peers: &[Peer], ports: &[&Port], interfaces: &BTreeMap<Uuid, Interface>) -> TunnelPortWrites {
    let mut writes = TunnelPortWrites::default();
    let mut names: BTreeSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let existing: BTreeMap<&str, &&Port> =
        ports.iter().filter_map(|port| Some((port.external_ids.get(CHASSIS_KEY)?.as_str(), port))).collect();
    let mut wanted = BTreeSet::new();
    let mut made: Vec<TunnelPort> = Vec::new();
    for peer in peers {
        let id = identity(peer);
        let options = options(peer);
        let kind = kind(peer);
        let present = existing.get(id.as_str()).and_then(|port| {
            let interface = port.interfaces.iter().find_map(|uuid| interfaces.get(uuid))?;
            // Another kind is another port.
            (interface.kind == kind).then_some(interface)
        });
        match present {
            Some(interface) => {
                if interface.options != options {
                    writes.options.push((interface.uuid, options));
                }
                wanted.insert(id);
            }
            None => made.push(TunnelPort { name: String::new(), id, kind, options }),
        }
    }
    for port in ports {
        if port.external_ids.get(CHASSIS_KEY).is_some_and(|id| !wanted.contains(id)) {
            writes.remove.insert(port.uuid);
            names.remove(port.name.as_str());
        }
    }
    let mut taken: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    for mut port in made {
        let short: String = port.id.chars().take_while(|c| *c != '@').take(6).collect();
        // One of 65,536 is free: there are fewer chassis.
        if let Some(name) =
            (0..=u16::MAX).map(|number| format!("ovn-{short}-{number:x}")).find(|name| !taken.contains(name))
        {
            taken.insert(name.clone());
            port.name = name;
            writes.add.push(port);
        }
    }
    writes
}

/// Fills in the OpenFlow ports of the tunnels to peers, as far as the switch has made them. `ports` are the integration bridge's.
pub fn number(peers: &mut [Peer], ports: &[&Port], interfaces: &BTreeMap<Uuid, Interface>) {
    let existing: BTreeMap<&str, &Interface> = ports
        .iter()
        .filter_map(|port| {
            let id = port.external_ids.get(CHASSIS_KEY)?;
            Some((id.as_str(), port.interfaces.iter().find_map(|uuid| interfaces.get(uuid))?))
        })
        .collect();
    for peer in peers {
        let interface = existing.get(identity(peer).as_str());
        let interface = interface.filter(|interface| interface.kind == kind(peer));
        let number = interface.and_then(|interface| interface.ofport);
        peer.ofport = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    }
}

/// Value of [`CHASSIS_KEY`] on the tunnel port of a peer.
pub fn identity(peer: &Peer) -> String {
    format!("{}@{}", peer.chassis, peer.remote)
}

fn kind(peer: &Peer) -> &'static str {
    if peer.vxlan { "vxlan" } else { "geneve" }
}

fn options(peer: &Peer) -> BTreeMap<String, String> {
    let mut options = BTreeMap::from([
        ("remote_ip".to_owned(), peer.remote.to_string()),
        ("key".to_owned(), "flow".to_owned()),
        ("csum".to_owned(), peer.csum.to_string()),
    ]);
    if peer.tos_inherit {
        options.insert("tos".to_owned(), "inherit".to_owned());
    } else if peer.tos != 0 {
        options.insert("tos".to_owned(), peer.tos.to_string());
    }
    options.extend(peer.options.clone());
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn peer(chassis: &str, last: u8) -> Peer {
        Peer {
            index: u32::from(last),
            chassis: chassis.into(),
            local: IpAddr::from([192, 0, 2, 1]),
            remote: IpAddr::from([192, 0, 2, last]),
            vxlan: false,
            csum: true,
            tos_inherit: false,
            tos: 0,
            df: true,
            hop: None,
            ofport: None,
            options: BTreeMap::new(),
        }
    }

    /// The rows that writes lead to.
    fn rows(add: &[TunnelPort]) -> (Vec<Port>, BTreeMap<Uuid, Interface>) {
        let mut ports = Vec::new();
        let mut interfaces = BTreeMap::new();
        for (number, port) in add.iter().enumerate() {
            let (p, i) = (Uuid::from_u128(100 + number as u128), Uuid::from_u128(200 + number as u128));
            ports.push(Port {
                uuid: p,
                name: port.name.clone(),
                interfaces: [i].into(),
                external_ids: BTreeMap::from([(CHASSIS_KEY.to_owned(), port.id.clone())]),
            });
            let row =
                Interface { uuid: i, kind: port.kind.into(), options: port.options.clone(), ..Default::default() };
            interfaces.insert(i, row);
        }
        (ports, interfaces)
    }

    #[test]
    fn a_port_per_peer_is_named_and_noted_as_ovn_controller_does() {
        let peers = [peer("chassis-1", 2), peer("chassis-2", 3)];
        let writes = plan(&peers, &[], &BTreeMap::new());
        let names: Vec<(&str, &str)> = writes.add.iter().map(|port| (port.name.as_str(), port.id.as_str())).collect();
        assert_eq!(names, [("ovn-chassi-0", "chassis-1@192.0.2.2"), ("ovn-chassi-1", "chassis-2@192.0.2.3")]);
        assert_eq!(writes.add[0].options["key"], "flow");
        let (ports, interfaces) = rows(&writes.add);
        assert!(plan(&peers, &ports.iter().collect::<Vec<_>>(), &interfaces).is_empty());
    }

    #[test]
    fn numbers_are_those_of_the_peer_s_own_port() {
        let mut peers = [peer("chassis-1", 2), peer("chassis-2", 3)];
        let (ports, mut interfaces) = rows(&plan(&peers, &[], &BTreeMap::new()).add);
        let ports: Vec<&Port> = ports.iter().collect();
        number(&mut peers, &ports, &interfaces);
        assert_eq!(peers.each_ref().map(|peer| peer.ofport), [None, None], "not before the switch has made them");
        for (row, ofport) in interfaces.values_mut().zip([-1, 7]) {
            row.ofport = Some(ofport);
        }
        number(&mut peers, &ports, &interfaces);
        assert_eq!(peers.each_ref().map(|peer| peer.ofport), [None, Some(7)], "-1 is the number of what failed");
        peers[1].vxlan = true;
        number(&mut peers, &ports, &interfaces);
        assert_eq!(peers[1].ofport, None, "another kind is another tunnel");
    }

    #[test]
    fn changes_and_departures_are_followed_and_foreign_ports_left() {
        let (mut ports, interfaces) = rows(&plan(&[peer("a", 2), peer("b", 3)], &[], &BTreeMap::new()).add);
        ports.push(Port { uuid: Uuid::from_u128(9), name: "tap0".into(), ..Default::default() });
        let changed = Peer { csum: false, ..peer("a", 2) };
        let writes = plan(&[changed], &ports.iter().collect::<Vec<_>>(), &interfaces);
        assert_eq!(writes.remove, [Uuid::from_u128(101)].into());
        assert_eq!(writes.options.len(), 1);
        assert_eq!(writes.options[0].1["csum"], "false");
        // The same chassis by another kind of encapsulation.
        let writes = plan(&[Peer { vxlan: true, ..peer("a", 2) }], &ports.iter().collect::<Vec<_>>(), &interfaces);
        assert_eq!((writes.remove.len(), writes.add.len(), writes.add[0].name.as_str()), (2, 1, "ovn-a-0"));
    }
}
