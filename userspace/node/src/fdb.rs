//! Learned addresses (OVN's FDB): what the kernel saw here goes into the Southbound database, what other chassis wrote comes into the kernel.
//!
//! The kernel's own entry works at once; the row makes it known to the others and lets it outlive this host's reboot. A storm of
//! addresses is slowed down here: the kernel keeps forwarding meanwhile. Removing old rows is northd's business (`fdb_age_threshold`).

use crate::dataplane::FdbAddress;
use crate::rows::{FdbRow, Uuid};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Rows written per second at most, and how many at once.
pub const RATE_PER_SECOND: u64 = 200;
/// Burst of the same.
pub const BURST: u64 = 500;
/// Learned addresses that may wait; more are forgotten (the kernel tells again when they move).
pub const QUEUE: usize = 20_000;
/// A row's `timestamp` is refreshed when it is older than this many milliseconds.
pub const REFRESH_MS: i64 = 60_000;

/// A row to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FdbWrite {
    /// A new row.
    Insert {
        /// Address.
        address: FdbAddress,
        /// Port key.
        port: u32,
        /// Milliseconds since the epoch.
        at_ms: i64,
    },
    /// The address moved, or is used again.
    Update {
        /// Row.
        row: Uuid,
        /// Port key.
        port: u32,
        /// Milliseconds since the epoch.
        at_ms: i64,
    },
    /// A second row for one address.
    Delete {
        /// Row.
        row: Uuid,
    },
}

/// What is on its way between kernel and database.
#[derive(Debug)]
pub struct Fdb {
    waiting: HashMap<FdbAddress, u32>,
    order: VecDeque<FdbAddress>,
    tokens: u64,
    at_ms: u64,
    /// Addresses that were forgotten because too many waited.
    pub forgotten: u64,
}

impl Default for Fdb {
    fn default() -> Self {
        Fdb { waiting: HashMap::new(), order: VecDeque::new(), tokens: BURST, at_ms: 0, forgotten: 0 }
    }
}

impl Fdb {
    /// Notes that the kernel saw an address at a port.
    pub fn learned(&mut self, address: FdbAddress, port: u32) {
        if self.waiting.insert(address, port).is_none() {
            if self.order.len() >= QUEUE {
                self.waiting.remove(&address);
                self.forgotten += 1;
                return;
            }
            self.order.push_back(address);
        }
    }

    /// The rows to write now; `rows` finds what the database has for an address, `None` = rows of its datapath are not sent to this chassis: then
    /// it is forgotten, since it would be inserted beside one that is there and have the whole transaction refused. What is written is forgotten,
    /// too: call it only when the writes will be sent, and [`Fdb::learned`] again for those that failed.
    pub fn writes(
        &mut self,
        rows: &dyn Fn(&FdbAddress) -> Option<Vec<FdbRow>>,
        now_ms: u64,
        wall_ms: i64,
    ) -> Vec<FdbWrite> {
        let gained = now_ms.saturating_sub(self.at_ms) * RATE_PER_SECOND / 1000;
        if gained > 0 {
            self.tokens = (self.tokens + gained).min(BURST);
            self.at_ms = now_ms;
        }
        let mut writes = Vec::new();
        while self.tokens > 0
            && let Some(address) = self.order.pop_front()
        {
            let Some(port) = self.waiting.remove(&address) else { continue };
            let Some(found) = rows(&address) else { continue };
            let mut found = found.into_iter();
            let before = writes.len();
            match found.next() {
                None => writes.push(FdbWrite::Insert { address, port, at_ms: wall_ms }),
                Some(row) => {
                    let is_old = row.timestamp.is_some_and(|at| wall_ms - at > REFRESH_MS);
                    if row.port_key != port || is_old {
                        writes.push(FdbWrite::Update { row: row.uuid, port, at_ms: wall_ms });
                    }
                    writes.extend(found.map(|row| FdbWrite::Delete { row: row.uuid }));
                }
            }
            if writes.len() > before {
                self.tokens -= 1;
            }
        }
        writes
    }

    /// When there will be more to write, monotonic milliseconds.
    pub fn wake_at_ms(&self) -> Option<u64> {
        (!self.order.is_empty()).then_some(self.at_ms + 1000 / RATE_PER_SECOND)
    }
}

/// Parses `xx:xx:xx:xx:xx:xx`.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = parts
            .next()
            .filter(|part| !part.is_empty() && part.len() <= 2)
            .and_then(|part| u8::from_str_radix(part, 16).ok())?;
    }
    parts.next().is_none().then_some(mac)
}

/// Writes `xx:xx:xx:xx:xx:xx`.
pub fn format_mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The kernel's entries that differ from the database's: what to set and what to drop.
pub fn differences(
    have: &BTreeMap<FdbAddress, u32>,
    want: &BTreeMap<FdbAddress, u32>,
) -> (Vec<(FdbAddress, u32)>, Vec<FdbAddress>) {
    let set = want.iter().filter(|(address, port)| have.get(address) != Some(port)).map(|(a, p)| (*a, *p)).collect();
    let drop = have.keys().filter(|address| !want.contains_key(address)).copied().collect();
    (set, drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u64) -> FdbAddress {
        let [.., a, b, c, d, e, f] = number.to_be_bytes();
        FdbAddress { datapath: 1, mac: [a, b, c, d, e, f] }
    }

    #[test]
    fn a_new_address_is_inserted_a_moved_one_updated_a_known_one_left() {
        let mut fdb = Fdb::default();
        let known = FdbRow { uuid: Uuid::from_u128(1), dp_key: 1, port_key: 7, ..Default::default() };
        for port in [7, 8] {
            fdb.learned(address(1), port);
        }
        fdb.learned(address(2), 3);
        fdb.learned(address(3), 7);
        let rows = |at: &FdbAddress| Some(if *at == address(2) { vec![] } else { vec![known.clone()] });
        assert_eq!(
            fdb.writes(&rows, 0, 1000),
            [
                FdbWrite::Update { row: known.uuid, port: 8, at_ms: 1000 },
                FdbWrite::Insert { address: address(2), port: 3, at_ms: 1000 },
            ]
        );
        assert!(fdb.writes(&rows, 0, 1000).is_empty());
    }

    /// The database may have a row that this chassis is not sent, and refuses a second one together with all that is in the transaction.
    #[test]
    fn an_address_of_a_datapath_that_is_not_here_is_forgotten() {
        let mut fdb = Fdb::default();
        fdb.learned(address(1), 7);
        fdb.learned(FdbAddress { datapath: 2, ..address(2) }, 7);
        let writes = fdb.writes(&|at| (at.datapath == 1).then(Vec::new), 0, 1000);
        assert_eq!(writes, [FdbWrite::Insert { address: address(1), port: 7, at_ms: 1000 }]);
        assert!(fdb.writes(&|_| Some(vec![]), 0, 1000).is_empty());
    }

    #[test]
    fn an_old_timestamp_is_refreshed_and_a_second_row_deleted() {
        let mut fdb = Fdb::default();
        let row =
            |number, timestamp| FdbRow { uuid: Uuid::from_u128(number), port_key: 7, timestamp, ..Default::default() };
        fdb.learned(address(1), 7);
        let writes = fdb.writes(&|_| Some(vec![row(1, Some(0)), row(2, Some(0))]), 0, REFRESH_MS + 1);
        assert_eq!(
            writes,
            [
                FdbWrite::Update { row: Uuid::from_u128(1), port: 7, at_ms: REFRESH_MS + 1 },
                FdbWrite::Delete { row: Uuid::from_u128(2) }
            ]
        );
        fdb.learned(address(1), 7);
        assert!(fdb.writes(&|_| Some(vec![row(1, Some(5))]), 0, 10).is_empty());
    }

    #[test]
    fn a_storm_is_written_at_the_rate_and_in_order() {
        let mut fdb = Fdb::default();
        for number in 0..BURST + 100 {
            fdb.learned(address(number), 1);
        }
        assert_eq!(fdb.writes(&|_| Some(vec![]), 0, 0).len() as u64, BURST);
        assert!(fdb.writes(&|_| Some(vec![]), 0, 0).is_empty());
        assert!(fdb.wake_at_ms().is_some());
        let next = fdb.writes(&|_| Some(vec![]), 100, 0);
        assert_eq!(next.len() as u64, RATE_PER_SECOND / 10);
        assert!(matches!(next[0], FdbWrite::Insert { address: first, .. } if first == address(BURST)));
    }

    #[test]
    fn the_queue_has_an_end() {
        let mut fdb = Fdb::default();
        for number in 0..QUEUE as u64 + 5 {
            fdb.learned(address(number), 1);
        }
        assert_eq!((fdb.forgotten, fdb.order.len(), fdb.waiting.len()), (5, QUEUE, QUEUE));
    }

    #[test]
    fn kernel_and_database_are_compared_by_address() {
        let have = BTreeMap::from([(address(1), 1), (address(2), 2), (address(3), 3)]);
        let want = BTreeMap::from([(address(1), 1), (address(2), 9), (address(4), 4)]);
        assert_eq!(differences(&have, &want), (vec![(address(2), 9), (address(4), 4)], vec![address(3)]));
    }

    #[test]
    fn addresses_are_read_and_written() {
        assert_eq!(parse_mac("0a:00:00:00:00:FF").map(format_mac).as_deref(), Some("0a:00:00:00:00:ff"));
        for bad in
            ["", "0a:00:00:00:00", "0a:00:00:00:00:00:00", "0a:00:00:00:00:gg", "0a:00::00:00:00", "000a:0:0:0:0:0"]
        {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
