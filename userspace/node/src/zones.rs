//! Conntrack zone numbers: allotted from `ct-zone-range`, kept in Bridge.external_ids `ct-zone-NAME` over restarts (ovn-controller(8)).

use crate::rows::StringMap;
use std::collections::{BTreeMap, BTreeSet};

/// Prefix of the keys in Bridge.external_ids.
pub const PREFIX: &str = "ct-zone-";

/// The zones in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    by_name: BTreeMap<String, u16>,
}

/// Keys of Bridge.external_ids to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneWrites {
    /// Keys to set.
    pub set: StringMap,
    /// Keys to remove.
    pub remove: BTreeSet<String>,
}

/// The name of a router's zone for one direction of NAT.
pub fn nat_zone(datapath: crate::rows::Uuid, direction: &str) -> String {
    format!("{datapath}_{direction}")
}

impl Zones {
    /// Takes over what a former process noted on the bridge. A number that two names have, or that is out of range, is left to the first.
    pub fn restore(external_ids: &StringMap, range: (u16, u16)) -> Self {
        let mut zones = Zones::default();
        let mut used = BTreeSet::new();
        for (key, value) in external_ids {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            let Ok(zone) = value.parse::<u16>() else { continue };
            if zone >= range.0 && zone <= range.1 && used.insert(zone) {
                zones.by_name.insert(name.to_owned(), zone);
            }
        }
        zones
    }

    /// Gives each of `wanted` a zone. Other names lose theirs, if it is known that nobody needs it (`may_forget`). Returns the names for which none was left.
    pub fn assign(&mut self, wanted: &BTreeSet<String>, range: (u16, u16), may_forget: bool) -> Vec<String> {
        let in_range = |zone: u16| zone >= range.0 && zone <= range.1;
        self.by_name.retain(|name, zone| (!may_forget || wanted.contains(name)) && in_range(*zone));
        let missing: Vec<&String> = wanted.iter().filter(|name| !self.by_name.contains_key(*name)).collect();
        if missing.is_empty() {
            return Vec::new();
        }
        let used: BTreeSet<u16> = self.by_name.values().copied().collect();
        let mut free = (range.0..=range.1).filter(|zone| !used.contains(zone));
        let mut without = Vec::new();
        for name in missing {
            match free.next() {
                Some(zone) => {
                    self.by_name.insert(name.clone(), zone);
                }
                None => without.push(name.clone()),
            }
        }
        without
    }

    /// The zone of a name, 0 = none.
    pub fn get(&self, name: &str) -> u16 {
        self.by_name.get(name).copied().unwrap_or(0)
    }

    /// Every name and its zone.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u16)> {
        self.by_name.iter().map(|(name, zone)| (name.as_str(), *zone))
    }

    /// What to write so that the bridge notes exactly these zones.
    pub fn writes(&self, external_ids: &StringMap) -> ZoneWrites {
        let mut writes = ZoneWrites::default();
        for (name, zone) in &self.by_name {
            let (key, value) = (format!("{PREFIX}{name}"), zone.to_string());
            if external_ids.get(&key) != Some(&value) {
                writes.set.insert(key, value);
            }
        }
        for key in external_ids.keys() {
            if key.strip_prefix(PREFIX).is_some_and(|name| !self.by_name.contains_key(name)) {
                writes.remove.insert(key.clone());
            }
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn zones_survive_a_restart_and_others_move_round_them() {
        let mut zones = Zones::default();
        assert!(zones.assign(&names(&["a", "b"]), (1, 65535), true).is_empty());
        let notes = zones.writes(&StringMap::new()).set;
        assert_eq!(notes.len(), 2);
        let mut again = Zones::restore(&notes, (1, 65535));
        assert_eq!(again, zones);
        assert!(again.writes(&notes) == ZoneWrites::default());
        let b = again.get("b");
        again.assign(&names(&["b", "c"]), (1, 65535), true);
        assert_eq!(again.get("b"), b);
        assert_ne!(again.get("c"), 0);
        assert_ne!(again.get("c"), b);
        assert_eq!(again.writes(&notes).remove, names(&["ct-zone-a"]));
    }

    #[test]
    fn the_range_is_kept_and_its_end_is_told() {
        let mut zones = Zones::default();
        assert_eq!(zones.assign(&names(&["a", "b", "c"]), (10, 11), true), ["c"]);
        assert_eq!((zones.get("a"), zones.get("b"), zones.get("c")), (10, 11, 0));
        // A changed range moves what is outside of it.
        assert!(zones.assign(&names(&["a", "b"]), (11, 20), true).is_empty());
        assert_eq!(zones.get("b"), 11);
        assert!((12..=20).contains(&zones.get("a")));
    }

    #[test]
    fn two_names_never_share_a_zone_even_if_notes_say_so() {
        let notes: StringMap = [("ct-zone-a", "5"), ("ct-zone-b", "5"), ("ct-zone-c", "0"), ("ct-zone-d", "x")]
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        let mut zones = Zones::restore(&notes, (1, 65535));
        zones.assign(&names(&["a", "b", "c", "d"]), (1, 65535), true);
        let numbers: BTreeSet<u16> = zones.iter().map(|(_, zone)| zone).collect();
        assert_eq!((numbers.len(), numbers.contains(&0)), (4, false));
    }
}
