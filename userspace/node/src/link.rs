//! Network devices of this network namespace, as the kernel tells of them.

use std::collections::BTreeMap;

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Kind (`veth`, `tun`, `bridge`, …); none for hardware.
    pub kind: Option<String>,
    /// Hardware address, when it is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// MTU.
    pub mtu: u32,
    /// Administratively up.
    pub is_up: bool,
    /// Has carrier.
    pub has_carrier: bool,
    /// How often the carrier changed.
    pub carrier_changes: u32,
    /// Note that somebody left on it (`ip link set … alias`).
    pub alias: Option<String>,
    /// Index of the other end (veth).
    pub peer: Option<u32>,
    /// Counters.
    pub counters: Counters,
}

/// Counters of a device, as `Interface.statistics` names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of ovs-vswitchd.conf.db(5), Interface, Statistics")]
pub struct Counters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub rx_errors: u64,
    pub rx_frame_err: u64,
    pub rx_over_err: u64,
    pub rx_crc_err: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
    pub tx_errors: u64,
    pub collisions: u64,
}

impl Counters {
    /// As a map column.
    pub fn to_map(self) -> BTreeMap<String, i64> {
        [
            ("rx_packets", self.rx_packets),
            ("rx_bytes", self.rx_bytes),
            ("rx_dropped", self.rx_dropped),
            ("rx_errors", self.rx_errors),
            ("rx_frame_err", self.rx_frame_err),
            ("rx_over_err", self.rx_over_err),
            ("rx_crc_err", self.rx_crc_err),
            ("tx_packets", self.tx_packets),
            ("tx_bytes", self.tx_bytes),
            ("tx_dropped", self.tx_dropped),
            ("tx_errors", self.tx_errors),
            ("collisions", self.collisions),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), i64::try_from(value).unwrap_or(i64::MAX)))
        .collect()
    }
}

/// All devices, by index and by name.
#[derive(Clone, Debug, Default)]
pub struct Links {
    by_index: BTreeMap<u32, Link>,
    by_name: BTreeMap<String, u32>,
}

impl Links {
    /// A device that is new or has changed. True when anything but its counters did.
    pub fn put(&mut self, link: Link) -> bool {
        let old = self.by_index.get(&link.ifindex);
        let changed = old.is_none_or(|old| Link { counters: link.counters, ..old.clone() } != link);
        if let Some(old) = old
            && old.name != link.name
        {
            self.by_name.remove(&old.name.clone());
        }
        self.by_name.insert(link.name.clone(), link.ifindex);
        self.by_index.insert(link.ifindex, link);
        changed
    }

    /// A device that is gone. True when it was known.
    pub fn remove(&mut self, ifindex: u32) -> bool {
        match self.by_index.remove(&ifindex) {
            Some(link) => {
                if self.by_name.get(&link.name) == Some(&ifindex) {
                    self.by_name.remove(&link.name);
                }
                true
            }
            None => false,
        }
    }

    /// Replaces everything by a new dump. True when anything but counters changed.
    pub fn replace(&mut self, links: Vec<Link>) -> bool {
        let fresh: std::collections::BTreeSet<u32> = links.iter().map(|link| link.ifindex).collect();
        let gone: Vec<u32> = self.by_index.keys().filter(|ifindex| !fresh.contains(ifindex)).copied().collect();
        let mut changed = !gone.is_empty();
        for ifindex in gone {
            self.remove(ifindex);
        }
        for link in links {
            changed |= self.put(link);
        }
        changed
    }

    /// The device with this index.
    pub fn get(&self, ifindex: u32) -> Option<&Link> {
        self.by_index.get(&ifindex)
    }

    /// The device with this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.by_name.get(name).and_then(|ifindex| self.by_index.get(ifindex))
    }

    /// Every device.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.by_index.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str) -> Link {
        Link { ifindex, name: name.into(), ..Default::default() }
    }

    #[test]
    fn renames_and_replacements_keep_both_indexes_right() {
        let mut links = Links::default();
        assert!(links.put(link(1, "a")));
        assert!(!links.put(link(1, "a")));
        assert!(links.put(link(1, "b")));
        assert!(links.named("a").is_none() && links.named("b").is_some());
        // Another device takes the name before the old one's end is told.
        assert!(links.put(link(2, "b")));
        assert!(links.remove(1));
        assert_eq!(links.named("b").map(|link| link.ifindex), Some(2));
        assert!(links.replace(vec![link(3, "c")]));
        assert_eq!(links.iter().count(), 1);
        assert!(!links.replace(vec![link(3, "c")]));
    }

    #[test]
    fn counters_alone_are_no_change() {
        let mut links = Links::default();
        links.put(link(1, "a"));
        let counted = Link { counters: Counters { rx_packets: 5, ..Default::default() }, ..link(1, "a") };
        assert!(!links.put(counted));
        assert_eq!(links.get(1).map(|link| link.counters.rx_packets), Some(5));
    }
}
