//! What the southbound database holds, under the keys of the store.

use std::collections::BTreeSet;

use oxbow_ovsdb::{Row, RowChange, TableDef, Text, Uuid};
use oxbow_schema::sb;
use rustc_hash::FxHashMap;

use crate::source::Source;
use crate::store::{Desired, FlowInterner, FlowStore, Key, RowKey, datapath_hash, flow_hash};
use crate::units::copied::band_key;
use crate::units::datapath::{datapath_key, group_key};

/// Tables all of whose rows are northd's, referents before those that refer to them.
pub(crate) const OWNED: &[&TableDef] = &[
    sb::sb_global::TABLE,
    sb::dhcp_options::TABLE,
    sb::dhcpv6_options::TABLE,
    sb::rbac_permission::TABLE,
    sb::rbac_role::TABLE,
    sb::datapath_binding::TABLE,
    sb::mirror::TABLE,
    sb::port_binding::TABLE,
    sb::multicast_group::TABLE,
    sb::ip_multicast::TABLE,
    sb::address_set::TABLE,
    sb::port_group::TABLE,
    sb::dns::TABLE,
    sb::meter_band::TABLE,
    sb::meter::TABLE,
];

/// Indexes over the southbound rows.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    rows: FxHashMap<RowKey, BTreeSet<Uuid>>,
    keys: FxHashMap<(u16, Uuid), RowKey>,
    /// Rows of owned tables that have no key: always deleted.
    pub(crate) strays: BTreeSet<(usize, Uuid)>,
    flows: FxHashMap<u128, BTreeSet<Uuid>>,
    flow_of: FxHashMap<Uuid, u128>,
    groups: FxHashMap<u128, BTreeSet<Uuid>>,
    group_sum: FxHashMap<Uuid, u128>,
    switch_of_datapath: FxHashMap<Uuid, Uuid>,
}

impl Observed {
    /// The row under a key; the least if there are several.
    pub(crate) fn row(&self, key: &RowKey) -> Option<Uuid> {
        self.rows.get(key)?.first().copied()
    }

    /// Every row under a key.
    pub(crate) fn all(&self, key: &RowKey) -> Vec<Uuid> {
        self.rows.get(key).map(|r| r.iter().copied().collect()).unwrap_or_default()
    }

    /// Every row of the flow with a hash.
    pub(crate) fn flow_rows(&self, hash: u128) -> Vec<Uuid> {
        self.flows.get(&hash).map(|r| r.iter().copied().collect()).unwrap_or_default()
    }

    /// A datapath group with exactly the set that has this hash.
    pub(crate) fn group(&self, sum: u128, except: impl Fn(Uuid) -> bool) -> Option<Uuid> {
        self.groups.get(&sum)?.iter().copied().find(|g| !except(*g))
    }

    /// The hash of a group's set.
    pub(crate) fn group_sum(&self, group: Uuid) -> Option<u128> {
        self.group_sum.get(&group).copied()
    }

    /// The switch of a southbound datapath.
    pub(crate) fn switch_of_datapath(&self, datapath: Uuid) -> Option<Uuid> {
        self.switch_of_datapath.get(&datapath).copied()
    }

    /// Takes changes in, which the source already knows, and marks what they are about.
    pub(crate) fn apply(
        &mut self,
        changes: &[RowChange],
        source: &Source,
        desired: &mut Desired,
        flows: &mut FlowStore,
        interner: &FlowInterner,
    ) {
        // Rows of other tables are keyed by their datapath's switch, so datapaths come first.
        let mut gone = Vec::new();
        for change in changes.iter().filter(|c| c.table == sb::datapath_binding::TABLE) {
            match &change.new {
                Some(row) => {
                    if let Some(switch) = switch_of(row) {
                        self.switch_of_datapath.insert(change.uuid, switch);
                    }
                }
                None => gone.push(change.uuid),
            }
        }
        for change in changes {
            if change.table == sb::logical_flow::TABLE {
                self.apply_flow(change, flows);
            } else if change.table == sb::logical_dp_group::TABLE {
                self.apply_group(change, flows, interner);
            } else if let Some(rank) = OWNED.iter().position(|t| *t == change.table) {
                self.apply_row(change, rank, source, desired);
            }
        }
        for datapath in gone {
            self.switch_of_datapath.remove(&datapath);
        }
    }

    fn apply_row(&mut self, change: &RowChange, rank: usize, source: &Source, desired: &mut Desired) {
        // A new band is found through its meter, which may have come before it in the same batch.
        if change.table == sb::meter_band::TABLE && change.old.is_none() {
            return;
        }
        let slot = (change.table.index, change.uuid);
        if let Some(key) = self.keys.remove(&slot) {
            if let Some(rows) = self.rows.get_mut(&key) {
                rows.remove(&change.uuid);
                if rows.is_empty() {
                    self.rows.remove(&key);
                }
            }
            desired.mark(key);
        }
        self.strays.remove(&(rank, change.uuid));
        let Some(row) = &change.new else { return };
        if change.table == sb::meter::TABLE {
            self.key_bands(row, source, desired);
        }
        // One that somebody changed is not what a meter wants: a new one takes its place and the server collects it.
        if change.table == sb::meter_band::TABLE {
            return;
        }
        match self.key_of(row) {
            Some(key) => {
                self.rows.entry(key.clone()).or_default().insert(change.uuid);
                self.keys.insert(slot, key.clone());
                desired.mark(key);
            }
            None => {
                self.strays.insert((rank, change.uuid));
            }
        }
    }

    fn key_bands(&mut self, meter: &Row, source: &Source, desired: &mut Desired) {
        use sb::meter_band as band;
        for uuid in meter.get(sb::meter::BANDS).iter() {
            let Some(row) = source.row(band::TABLE, uuid) else { continue };
            let name = meter.get(sb::meter::NAME);
            let key = band_key(name, row.get(band::ACTION), row.get(band::RATE), row.get(band::BURST_SIZE));
            self.rows.entry(key.clone()).or_default().insert(uuid);
            self.keys.insert((band::TABLE.index, uuid), key.clone());
            desired.mark(key);
        }
    }

    fn apply_flow(&mut self, change: &RowChange, flows: &mut FlowStore) {
        if let Some(hash) = self.flow_of.remove(&change.uuid) {
            if let Some(rows) = self.flows.get_mut(&hash) {
                rows.remove(&change.uuid);
                if rows.is_empty() {
                    self.flows.remove(&hash);
                }
            }
            flows.mark(hash);
        }
        let Some(row) = &change.new else { return };
        use sb::logical_flow as lf;
        let hash = flow_hash(
            row.get(lf::PIPELINE),
            row.get(lf::TABLE_ID),
            row.get(lf::PRIORITY),
            row.get(lf::MATCH),
            row.get(lf::ACTIONS),
            row.get(lf::CONTROLLER_METER).map(Text::as_str),
        );
        self.flows.entry(hash).or_default().insert(change.uuid);
        self.flow_of.insert(change.uuid, hash);
        flows.mark(hash);
    }

    fn apply_group(&mut self, change: &RowChange, flows: &mut FlowStore, interner: &FlowInterner) {
        let old = self.group_sum.remove(&change.uuid);
        if let Some(sum) = old
            && let Some(rows) = self.groups.get_mut(&sum)
        {
            rows.remove(&change.uuid);
            if rows.is_empty() {
                self.groups.remove(&sum);
            }
        }
        let Some(row) = &change.new else { return };
        let datapaths = row.get(sb::logical_dp_group::DATAPATHS);
        let sum = datapaths.iter().fold(0u128, |sum, datapath| {
            // A datapath that is nobody's counts as itself, so that no wanted set equals this one.
            sum.wrapping_add(datapath_hash(self.switch_of_datapath(datapath).unwrap_or(datapath)))
        });
        self.groups.entry(sum).or_default().insert(change.uuid);
        self.group_sum.insert(change.uuid, sum);
        if old.is_some_and(|old| old != sum) {
            // Somebody changed a group: whoever uses it may have lost or won datapaths.
            flows.mark_group(interner, old.unwrap_or_default());
            flows.mark_group(interner, sum);
        }
    }

    fn key_of(&self, row: &Row) -> Option<RowKey> {
        let table = row.table();
        let by_name = |name: &Text| Some(RowKey::new(table, Key::Text(name.clone())));
        if table == sb::datapath_binding::TABLE {
            switch_of(row).map(datapath_key)
        } else if table == sb::port_binding::TABLE {
            by_name(row.get(sb::port_binding::LOGICAL_PORT))
        } else if table == sb::multicast_group::TABLE {
            let switch = self.switch_of_datapath(row.get(sb::multicast_group::DATAPATH))?;
            Some(group_key(switch, row.get(sb::multicast_group::NAME)))
        } else if table == sb::ip_multicast::TABLE {
            let switch = self.switch_of_datapath(row.get(sb::ip_multicast::DATAPATH))?;
            Some(RowKey::new(table, Key::Uuid(switch)))
        } else if table == sb::address_set::TABLE {
            by_name(row.get(sb::address_set::NAME))
        } else if table == sb::port_group::TABLE {
            by_name(row.get(sb::port_group::NAME))
        } else if table == sb::mirror::TABLE {
            by_name(row.get(sb::mirror::NAME))
        } else if table == sb::meter::TABLE {
            by_name(row.get(sb::meter::NAME))
        } else if table == sb::rbac_role::TABLE {
            by_name(row.get(sb::rbac_role::NAME))
        } else if table == sb::rbac_permission::TABLE {
            by_name(row.get(sb::rbac_permission::TABLE_COLUMN))
        } else if table == sb::dns::TABLE {
            let id = row.get(sb::dns::EXTERNAL_IDS).get("dns_id")?.parse().ok()?;
            Some(RowKey::new(table, Key::Uuid(id)))
        } else if table == sb::dhcp_options::TABLE {
            let (code, name) = (row.get(sb::dhcp_options::CODE), row.get(sb::dhcp_options::NAME));
            Some(RowKey::new(table, Key::Numbered(code, name.clone())))
        } else if table == sb::dhcpv6_options::TABLE {
            let (code, name) = (row.get(sb::dhcpv6_options::CODE), row.get(sb::dhcpv6_options::NAME));
            Some(RowKey::new(table, Key::Numbered(code, name.clone())))
        } else if table == sb::sb_global::TABLE {
            Some(RowKey::new(table, Key::Single))
        } else {
            None
        }
    }
}

fn switch_of(datapath: &Row) -> Option<Uuid> {
    datapath.get(sb::datapath_binding::EXTERNAL_IDS).get("logical-switch")?.parse().ok()
}
