//! Which logical datapaths matter on this chassis, hence which rows to ask the Southbound server for.
//!
//! A datapath is local when a VIF (or gateway port) of it is here, or when patch ports lead to it from a local one. The server is asked
//! for the rows of local datapaths only, unless `ovn-monitor-all` is set; until it has answered for a datapath, nothing of it counts as
//! complete.

use crate::rows::Uuid;
use std::collections::{BTreeMap, BTreeSet};

/// How to get from one datapath to the next.
pub trait Patches {
    /// Datapaths at the other end of the patch ports of this one, as far as they are known.
    fn neighbours(&self, datapath: Uuid) -> Vec<Uuid>;
}

/// How far the walk goes: as in ovn-controller, enough for every real topology, bounded against a broken one.
pub const MAX_DEPTH: usize = 100;

/// The local datapaths: `roots` and what patch ports lead to.
pub fn local_datapaths(roots: &BTreeSet<Uuid>, patches: &dyn Patches) -> BTreeSet<Uuid> {
    let mut all = roots.clone();
    let mut front: Vec<Uuid> = roots.iter().copied().collect();
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for datapath in front {
            for neighbour in patches.neighbours(datapath) {
                if all.insert(neighbour) {
                    next.push(neighbour);
                }
            }
        }
        if next.is_empty() {
            break;
        }
        front = next;
    }
    all
}

/// What the Southbound server is to send, beyond the tables that everybody gets whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Everything.
    pub everything: bool,
    /// Our chassis name.
    pub system_id: Option<String>,
    /// Our Chassis row.
    pub chassis: Option<Uuid>,
    /// Names that interfaces here claim to be.
    pub iface_ids: BTreeSet<String>,
    /// Local datapaths and their tunnel keys.
    pub datapaths: BTreeMap<Uuid, u32>,
}

/// What has been asked for and what has been answered.
#[derive(Debug, Default)]
pub struct Watch {
    asked: Interest,
    /// Request in which a datapath was first asked for.
    since: BTreeMap<Uuid, u64>,
    last_request: u64,
    answered: u64,
    any: bool,
}

impl Watch {
    /// True when `interest` differs from what was asked for last: the caller sends it and calls [`Watch::sent`].
    pub fn differs(&self, interest: &Interest) -> bool {
        !self.any || self.asked != *interest
    }

    /// Notes that `interest` was sent as request number `request`.
    pub fn sent(&mut self, interest: Interest, request: u64) {
        self.since.retain(|datapath, _| interest.datapaths.contains_key(datapath));
        for datapath in interest.datapaths.keys() {
            self.since.entry(*datapath).or_insert(request);
        }
        if interest.everything && !self.asked.everything {
            self.since.values_mut().for_each(|since| *since = (*since).max(request));
        }
        self.any = true;
        self.asked = interest;
        self.last_request = request;
    }

    /// Notes that the server has answered up to request number `request`.
    pub fn acknowledged(&mut self, request: u64) {
        self.answered = self.answered.max(request);
    }

    /// Whether every row of this datapath has been received.
    pub fn has_data(&self, datapath: Uuid) -> bool {
        self.since.get(&datapath).is_some_and(|since| *since <= self.answered)
    }

    /// Whether the ports of this Chassis row are among what was asked for last.
    pub fn covers_chassis(&self, chassis: Uuid) -> bool {
        self.any && (self.asked.everything || self.asked.chassis == Some(chassis))
    }

    /// Whether nothing that was asked for is outstanding.
    pub fn is_complete(&self) -> bool {
        self.any && self.answered >= self.last_request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Edges(Vec<(u128, u128)>);

    impl Patches for Edges {
        fn neighbours(&self, datapath: Uuid) -> Vec<Uuid> {
            let from = |a: u128, b: u128| (Uuid::from_u128(a) == datapath).then(|| Uuid::from_u128(b));
            self.0.iter().flat_map(|&(a, b)| [from(a, b), from(b, a)]).flatten().collect()
        }
    }

    fn set(numbers: &[u128]) -> BTreeSet<Uuid> {
        numbers.iter().map(|&number| Uuid::from_u128(number)).collect()
    }

    #[test]
    fn patches_lead_on_even_in_circles() {
        let edges = Edges(vec![(1, 2), (2, 3), (3, 1), (4, 5)]);
        assert_eq!(local_datapaths(&set(&[1]), &edges), set(&[1, 2, 3]));
        assert_eq!(local_datapaths(&set(&[5]), &edges), set(&[4, 5]));
        assert_eq!(local_datapaths(&set(&[]), &edges), set(&[]));
    }

    #[test]
    fn a_datapath_has_data_once_the_request_with_it_is_answered() {
        let mut watch = Watch::default();
        let one = Interest { datapaths: [(Uuid::from_u128(1), 1)].into(), ..Default::default() };
        let two =
            Interest { datapaths: [(Uuid::from_u128(1), 1), (Uuid::from_u128(2), 2)].into(), ..Default::default() };
        assert!(watch.differs(&one) && !watch.is_complete());
        watch.sent(one.clone(), 1);
        assert!(!watch.differs(&one) && !watch.has_data(Uuid::from_u128(1)));
        watch.acknowledged(1);
        assert!(watch.has_data(Uuid::from_u128(1)) && watch.is_complete());
        watch.sent(two, 2);
        assert!(watch.has_data(Uuid::from_u128(1)), "what is known stays known");
        assert!(!watch.has_data(Uuid::from_u128(2)) && !watch.is_complete());
        watch.acknowledged(2);
        assert!(watch.has_data(Uuid::from_u128(2)));
        // Given up and asked for again: its rows were dropped meanwhile.
        watch.sent(one, 3);
        watch.sent(Interest { datapaths: [(Uuid::from_u128(2), 2)].into(), ..Default::default() }, 4);
        watch.acknowledged(3);
        assert!(!watch.has_data(Uuid::from_u128(2)));
    }
}
