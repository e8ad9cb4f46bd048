//! Comparing and writing Logical_Flow and Logical_DP_Group.

use oxbow_ovsdb::{Atom, Datum, Uuid};
use oxbow_schema::sb::{logical_dp_group as group, logical_flow as lf};

use super::Pass;
use crate::store::{FlowContent, FlowId};

impl Pass<'_> {
    /// Looks at every marked flow.
    pub(super) fn flow_rows(&mut self) {
        for hash in self.flows.take_dirty() {
            let wanted = self.interner.by_hash(hash).filter(|id| self.flows.datapaths(*id).next().is_some());
            let present = self.observed.flow_rows(hash);
            let Some(id) = wanted else {
                self.doomed.extend(present.into_iter().map(|uuid| (lf::TABLE, uuid)));
                continue;
            };
            for &surplus in present.iter().skip(1) {
                self.doomed.push((lf::TABLE, surplus));
            }
            self.flow(id, present.first().copied());
        }
    }

    fn flow(&mut self, id: FlowId, present: Option<Uuid>) {
        let interner = self.interner;
        let Some(content) = interner.content(id) else { return };
        let place = content.place;
        let current = present.and_then(|uuid| self.source.row(lf::TABLE, uuid)).cloned();
        let mut datapaths = self.flows.datapaths(id);
        let (single, several) = match (datapaths.next(), datapaths.next()) {
            (Some(only), None) => (self.datapath(self.flows.datapath(only)), None),
            _ => {
                drop(datapaths);
                let used = current.as_ref().and_then(|row| row.get(lf::LOGICAL_DP_GROUP));
                (None, self.group(id, used))
            }
        };
        if single.is_none() && several.is_none() {
            // Units of a switch without a tunnel key say nothing: its datapath goes in this very run.
            return;
        }
        let hint = self.flows.hint(id);
        let targets = [
            (lf::LOGICAL_DATAPATH.any(), single.map_or(Datum::Empty, |u| Datum::One(Atom::Uuid(u)))),
            (lf::LOGICAL_DP_GROUP.any(), several.map_or(Datum::Empty, |u| Datum::One(Atom::Uuid(u)))),
            (lf::TAGS.any(), tags(content)),
        ];
        match current {
            None => {
                let mut insert = self
                    .transaction
                    .insert(lf::TABLE)
                    .set(lf::PIPELINE, place.pipeline.name())
                    .set(lf::TABLE_ID, i64::from(place.table))
                    .set(lf::PRIORITY, i64::from(content.priority))
                    .set(lf::MATCH, &*content.matches)
                    .set(lf::ACTIONS, &*content.actions)
                    .set_datum(
                        lf::CONTROLLER_METER.any(),
                        content.meter.as_ref().map_or(Datum::Empty, |m| Datum::One(Atom::String(m.clone()))),
                    )
                    .set_datum(lf::EXTERNAL_IDS.any(), external_ids(content, hint, &source_of(content)));
                for (column, datum) in targets {
                    if !datum.is_empty() {
                        insert = insert.set_datum(column, datum);
                    }
                }
            }
            Some(row) => {
                // Where a flow was written first is worth nothing to anybody else: it stays what it is.
                let source = row.get(lf::EXTERNAL_IDS).get("source").map(ToString::to_string);
                let ids = external_ids(content, hint, &source.unwrap_or_else(|| source_of(content)));
                let changed: Vec<_> = targets
                    .into_iter()
                    .chain([(lf::EXTERNAL_IDS.any(), ids)])
                    .filter(|(column, datum)| *row.datum(*column) != *datum)
                    .collect();
                if !changed.is_empty() {
                    let mut update = self.transaction.update(lf::TABLE, row.uuid());
                    for (column, datum) in changed {
                        update = update.set_datum(column, datum);
                    }
                }
            }
        }
    }

    /// The row of the group of exactly the flow's datapaths: one that exists, one that no other flow wants any more and
    /// that is given this set, or a new one.
    fn group(&mut self, id: FlowId, used: Option<Uuid>) -> Option<Uuid> {
        let sum = self.flows.datapath_sum(id);
        if let Some(&row) = self.groups.get(&sum) {
            return Some(row);
        }
        if let Some(row) = self.observed.group(sum, |g| self.retargeted.contains(&g)) {
            self.groups.insert(sum, row);
            return Some(row);
        }
        let datapaths: Vec<Uuid> =
            self.flows.datapaths(id).filter_map(|d| self.datapath(self.flows.datapath(d))).collect();
        if datapaths.is_empty() {
            return None;
        }
        let abandoned = used.filter(|g| {
            !self.retargeted.contains(g) && self.observed.group_sum(*g).is_some_and(|s| !self.flows.wants_group(s))
        });
        let row = match abandoned.and_then(|g| self.source.row(group::TABLE, g)) {
            Some(row) => {
                let old = row.get(group::DATAPATHS);
                let new: Vec<Uuid> = datapaths.iter().copied().filter(|d| !old.contains(d)).collect();
                let gone: Vec<Uuid> = old.iter().filter(|d| !datapaths.contains(d)).collect();
                let _ = self
                    .transaction
                    .mutate(group::TABLE, row.uuid())
                    .delete(group::DATAPATHS, gone)
                    .insert(group::DATAPATHS, new);
                self.retargeted.insert(row.uuid());
                row.uuid()
            }
            None => self.transaction.insert(group::TABLE).set(group::DATAPATHS, datapaths).uuid(),
        };
        self.groups.insert(sum, row);
        Some(row)
    }
}

fn tags(content: &FlowContent) -> Datum {
    let port = content.in_out_port.as_ref();
    Datum::map(port.map(|p| ("in_out_port".into(), Atom::String(p.clone()))).into_iter().collect())
}

fn source_of(content: &FlowContent) -> String {
    let file = content.source.file();
    format!("{}:{}", file.rsplit('/').next().unwrap_or(file), content.source.line())
}

fn external_ids(content: &FlowContent, hint: u32, source: &str) -> Datum {
    let mut pairs: Vec<(Atom, Atom)> =
        vec![("source".into(), source.into()), ("stage-name".into(), content.stage.name().into())];
    if hint != 0 {
        pairs.push(("stage-hint".into(), format!("{hint:08x}").as_str().into()));
    }
    Datum::map(pairs)
}
