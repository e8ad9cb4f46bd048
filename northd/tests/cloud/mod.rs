//! Two replicas and a northd between them, without servers: what a transaction says happens at once.

use oxbow_northd::profile::{self, Profile};
use oxbow_northd::{Northd, Outcome};
use oxbow_ovsdb::{Outcome as Ended, Replica, RowChange, RowDraft, Transaction, Uuid};
use oxbow_schema::{nb, sb};

pub(crate) struct Cloud {
    pub(crate) nb: Replica,
    pub(crate) sb: Replica,
    pub(crate) northd: Northd,
    profile: &'static Profile,
    now: i64,
}

/// What settling took.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) computed: u64,
    pub(crate) sb_operations: usize,
    pub(crate) nb_operations: usize,
    pub(crate) sb_transactions: Vec<String>,
}

pub(crate) fn committed() -> Ended {
    Ended::Committed { inserted: Vec::new(), affected: 0, selected: Vec::new() }
}

impl Cloud {
    /// Databases with one row of NB_Global and one of SB_Global.
    pub(crate) fn new() -> Cloud {
        Self::with(&profile::V23_03)
    }

    /// The same where keys run out: there are so many of datapaths, and so many of ports in each.
    pub(crate) fn with_few_keys(datapaths: i64, ports: i64) -> Cloud {
        let profile = Profile { max_datapath_key: datapaths, max_port_key: ports, ..profile::V23_03.clone() };
        Self::with(Box::leak(Box::new(profile)))
    }

    fn with(profile: &'static Profile) -> Cloud {
        let mut cloud = Cloud {
            nb: Replica::new(nb::DATABASE),
            sb: Replica::new(sb::DATABASE),
            northd: Northd::new(profile),
            profile,
            now: 1_700_000_000_000,
        };
        let options = [("mac_prefix", "0a:00:00"), ("svc_monitor_mac", "0a:00:00:00:ff:ff")];
        cloud.put(RowDraft::new(nb::nb_global::TABLE).set(nb::nb_global::OPTIONS, options));
        let change = cloud.sb.put(RowDraft::new(sb::sb_global::TABLE));
        cloud.northd.sb_changed(&change.into_iter().collect::<Vec<_>>());
        cloud.settle();
        cloud
    }

    /// The same databases under a northd that has just started.
    pub(crate) fn restarted(&self) -> Cloud {
        let mut northd = Northd::new(self.profile);
        northd.nb_changed(&Replica::new(nb::DATABASE).changes_to(&self.nb));
        northd.sb_changed(&Replica::new(sb::DATABASE).changes_to(&self.sb));
        Cloud { nb: self.nb.clone(), sb: self.sb.clone(), northd, profile: self.profile, now: self.now + 1000 }
    }

    pub(crate) fn put(&mut self, draft: RowDraft) -> Uuid {
        let uuid = draft.uuid();
        let change = self.nb.put(draft);
        self.northd.nb_changed(&change.into_iter().collect::<Vec<_>>());
        uuid
    }

    pub(crate) fn remove(&mut self, table: &'static oxbow_ovsdb::TableDef, uuid: Uuid) {
        let change = self.nb.remove(table, uuid);
        self.northd.nb_changed(&change.into_iter().collect::<Vec<_>>());
    }

    pub(crate) fn edit(
        &mut self,
        table: &'static oxbow_ovsdb::TableDef,
        uuid: Uuid,
        how: impl FnOnce(RowDraft) -> RowDraft,
    ) {
        if let Some(row) = self.nb.row(table, uuid).cloned() {
            self.put(how(RowDraft::from_row(&row)));
        }
    }

    pub(crate) fn sb_write(&mut self, transaction: &Transaction) {
        let changes = transaction.apply_to(&mut self.sb);
        self.northd.sb_changed(&collected(&mut self.sb, changes));
    }

    pub(crate) fn run(&mut self) -> Outcome {
        self.now += 1;
        self.northd.run(self.now)
    }

    /// Runs until nothing is left to write.
    pub(crate) fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        for _ in 0..20 {
            let outcome = self.run();
            settled.computed += outcome.computed;
            if outcome.sb.is_none() && outcome.nb.is_none() {
                return settled;
            }
            if let Some(transaction) = outcome.sb {
                settled.sb_operations += transaction.len();
                settled.sb_transactions.push(transaction.to_json());
                self.sb_write(&transaction);
                self.northd.sb_done(&committed(), self.now);
            }
            if let Some(transaction) = outcome.nb {
                settled.nb_operations += transaction.len();
                let changes = transaction.apply_to(&mut self.nb);
                self.northd.nb_changed(&changes);
                self.northd.nb_done(&committed());
            }
        }
        panic!("northd does not come to rest: {settled:#?}");
    }

    pub(crate) fn add_switch(&mut self, name: &str) -> Uuid {
        self.put(RowDraft::new(nb::logical_switch::TABLE).set(nb::logical_switch::NAME, name))
    }

    pub(crate) fn add_port(&mut self, switch: Uuid, name: &str, addresses: &[&str]) -> Uuid {
        use nb::logical_switch_port as lsp;
        let draft = RowDraft::new(lsp::TABLE).set(lsp::NAME, name).set(lsp::ADDRESSES, addresses.iter().copied());
        let port = self.put(draft);
        self.attach(switch, port, true);
        port
    }

    pub(crate) fn delete_port(&mut self, switch: Uuid, port: Uuid) {
        self.attach(switch, port, false);
        self.remove(nb::logical_switch_port::TABLE, port);
    }

    fn attach(&mut self, switch: Uuid, port: Uuid, add: bool) {
        use nb::logical_switch as ls;
        let Some(row) = self.nb.row(ls::TABLE, switch).cloned() else { return };
        let mut ports: Vec<Uuid> = row.get(ls::PORTS).iter().filter(|p| *p != port).collect();
        if add {
            ports.push(port);
        }
        self.put(RowDraft::from_row(&row).set(ls::PORTS, ports));
    }
}

/// What the server does by itself: rows of tables that are no roots go when nobody refers to them, and weak references
/// go with their row.
fn collected(sb: &mut Replica, mut changes: Vec<RowChange>) -> Vec<RowChange> {
    use sb::{datapath_binding, logical_dp_group as group, logical_flow as flow};
    let used: std::collections::BTreeSet<Uuid> =
        sb.rows(flow::TABLE).filter_map(|row| row.get(flow::LOGICAL_DP_GROUP)).collect();
    let groups: Vec<_> = sb.rows(group::TABLE).cloned().collect();
    let mut more = Vec::new();
    for row in groups {
        if !used.contains(&row.uuid()) {
            more.extend(sb.remove(group::TABLE, row.uuid()));
            continue;
        }
        let datapaths: Vec<Uuid> = row.get(group::DATAPATHS).iter().collect();
        let alive: Vec<Uuid> =
            datapaths.iter().copied().filter(|d| sb.row(datapath_binding::TABLE, *d).is_some()).collect();
        if alive != datapaths {
            more.extend(sb.put(RowDraft::from_row(&row).set(group::DATAPATHS, alive)));
        }
    }
    changes = RowChange::coalesce(changes, more);
    changes
}

/// The flows of a southbound database as `switch pipeline/table priority match -> actions`, groups expanded, sorted.
pub(crate) fn flows(sb: &Replica) -> Vec<String> {
    use sb::{datapath_binding as dp, logical_dp_group as group, logical_flow as lf};
    let mut found = Vec::new();
    for row in sb.rows(lf::TABLE) {
        let mut datapaths: Vec<Uuid> = row.get(lf::LOGICAL_DATAPATH).into_iter().collect();
        if let Some(group) = row.get(lf::LOGICAL_DP_GROUP).and_then(|g| sb.row(group::TABLE, g)) {
            datapaths.extend(group.get(group::DATAPATHS).iter());
        }
        for datapath in datapaths {
            let name = sb.row(dp::TABLE, datapath).and_then(|d| d.get(dp::EXTERNAL_IDS).get("name").cloned());
            found.push(format!(
                "{} {}/{} {} {} -> {}",
                name.as_deref().unwrap_or("?"),
                row.get(lf::PIPELINE),
                row.get(lf::TABLE_ID),
                row.get(lf::PRIORITY),
                row.get(lf::MATCH),
                row.get(lf::ACTIONS)
            ));
        }
    }
    found.sort();
    found
}
