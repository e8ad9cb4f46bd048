//! How large the maps are made.

/// Entries of the verdict cache unless configured.
pub const VERDICTS_DEFAULT: u32 = 131_072;

/// Most entries of a CPU's exact-match cache unless configured: ten thousand flows with few of them sharing a set.
const EXACT_MOST: usize = 1 << 14;
/// Fewest.
const EXACT_LEAST: usize = 1 << 10;
/// Entries of all CPUs together: 64 MiB.
const EXACT_ALL: usize = 1 << 19;

/// Entries of each CPU's exact-match cache unless configured. Where there are many CPUs each has fewer flows to see.
fn exact_default(cpus: usize) -> u32 {
    (EXACT_ALL / cpus.max(1)).clamp(EXACT_LEAST, EXACT_MOST) as u32
}

/// Sizes of the maps, in entries. Hash maps without preallocation cost memory only for what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Logical ports served here, nested ones too (`OX_VIFS`).
    pub vifs: u32,
    /// Logical datapaths with a port here (`OX_DATAPATHS`).
    pub datapaths: u32,
    /// Rules with keys of up to 7 words (`OX_RULES`).
    pub rules: u32,
    /// Rules with wider keys (`OX_RULES_WIDE`).
    pub wide_rules: u32,
    /// Distinct action lists (`OX_BLOCKS`, 256 bytes each, allocated at start).
    pub blocks: u32,
    /// Tuples over all tables, two versions of each (`OX_TUPLES`, 88 bytes each, allocated at start).
    pub tuples: u32,
    /// Tables over all datapaths (`OX_TABLES`).
    pub tables: u32,
    /// Logical flows that can be counted (`OX_LFLOWS`, 16 bytes per CPU each).
    pub lflows: u32,
    /// Ports and datapaths over all (`OX_PORTS`, `OX_GUARDS`).
    pub ports: u32,
    /// Verdict cache (`OX_VERDICTS`).
    pub verdicts: u32,
    /// Verdicts that each CPU keeps for itself (`OX_EXACT`, 128 bytes each, for every possible CPU, allocated at start); 0 = none.
    pub exact: u32,
    /// Cache of denied flows (`OX_DENIED`).
    pub denied: u32,
    /// MAC table (`OX_FDB`).
    pub fdb: u32,
    /// Chunks of multicast groups (`OX_GROUPS`).
    pub chunks: u32,
    /// Chassis (`OX_CHASSIS`, `OX_PEERS`).
    pub chassis: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            vifs: 8192,
            datapaths: 8192,
            rules: 1 << 20,
            wide_rules: 1 << 18,
            blocks: 1 << 14,
            tuples: 1 << 16,
            tables: 1 << 15,
            lflows: 1 << 17,
            ports: 1 << 18,
            verdicts: VERDICTS_DEFAULT,
            exact: exact_default(aya::util::nr_cpus().unwrap_or(1)),
            denied: 1 << 14,
            fdb: 1 << 17,
            chunks: 1 << 16,
            chassis: 1 << 12,
        }
    }
}

/// A map's size cannot be chosen so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No map of that name has a size to choose.
    #[error("there is no map {name} whose size can be chosen, only {}", MAPS.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// Element 0 of most arrays means "none".
    #[error("map {name} needs 2 entries at least")]
    TooSmall {
        /// The map.
        name: String,
    },
}

/// The maps whose sizes can be chosen. `OX_GUARDS` has the size of `OX_PORTS`, `OX_PEERS` twice that of `OX_CHASSIS`; that of `OX_EXACT` is each CPU's, and
/// may be 0.
pub const MAPS: [&str; 17] = [
    "OX_RULES",
    "OX_RULES_WIDE",
    "OX_BLOCKS",
    "OX_TUPLES",
    "OX_TABLES",
    "OX_LFLOWS",
    "OX_VIFS",
    "OX_PORTS",
    "OX_GUARDS",
    "OX_DATAPATHS",
    "OX_GROUPS",
    "OX_CHASSIS",
    "OX_PEERS",
    "OX_FDB",
    "OX_VERDICTS",
    "OX_EXACT",
    "OX_DENIED",
];

impl Sizes {
    /// Chooses the size of a map by its name.
    ///
    /// # Errors
    /// There is no such map, or the size is too small to work with.
    pub fn choose(&mut self, name: &str, entries: u32) -> Result<(), SizeError> {
        if entries < 2 && name != "OX_EXACT" {
            return Err(SizeError::TooSmall { name: name.to_owned() });
        }
        let size = match name {
            "OX_RULES" => &mut self.rules,
            "OX_RULES_WIDE" => &mut self.wide_rules,
            "OX_BLOCKS" => &mut self.blocks,
            "OX_TUPLES" => &mut self.tuples,
            "OX_TABLES" => &mut self.tables,
            "OX_LFLOWS" => &mut self.lflows,
            "OX_VIFS" => &mut self.vifs,
            "OX_PORTS" | "OX_GUARDS" => &mut self.ports,
            "OX_DATAPATHS" => &mut self.datapaths,
            "OX_GROUPS" => &mut self.chunks,
            "OX_CHASSIS" | "OX_PEERS" => &mut self.chassis,
            "OX_FDB" => &mut self.fdb,
            "OX_VERDICTS" => &mut self.verdicts,
            "OX_EXACT" => &mut self.exact,
            "OX_DENIED" => &mut self.denied,
            _ => return Err(SizeError::Unknown { name: name.to_owned() }),
        };
        *size = entries;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_that_is_named_can_be_sized() {
        for map in MAPS {
            let mut sizes = Sizes::default();
            sizes.choose(map, 3).unwrap();
            assert_ne!(sizes, Sizes::default(), "{map}");
        }
    }

    #[test]
    fn what_cpus_keep_for_themselves_has_a_bound_for_all_of_them() {
        assert_eq!([1, 2, 32, 64, 128, 4096].map(exact_default), [16_384, 16_384, 16_384, 8192, 4096, 1024]);
        let mut sizes = Sizes::default();
        sizes.choose("OX_EXACT", 0).unwrap();
        assert_eq!(sizes.exact, 0);
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let error = Sizes::default().choose("OX_RULE", 10).unwrap_err().to_string();
        assert!(error.contains("no map OX_RULE ") && error.contains("OX_RULES, OX_RULES_WIDE"), "{error}");
        assert!(Sizes::default().choose("OX_RULES", 1).is_err());
    }
}
