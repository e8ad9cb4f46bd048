//! Comparing and writing the rows of all tables but Logical_Flow.

use oxbow_ovsdb::{AnyColumn, Atom, Datum, Row, Uuid};
use oxbow_schema::sb;

use super::Pass;
use super::observed::OWNED;
use crate::store::{DesiredRow, RowKey, Value};

/// Sets of so many elements are changed by what differs, smaller ones written whole.
const LARGE_SET: usize = 32;

impl Pass<'_> {
    /// Looks at every marked key.
    pub(super) fn rows(&mut self) {
        let mut keys = self.desired.take_dirty();
        keys.sort_by_key(|key| OWNED.iter().position(|t| *t == key.table));
        let mut doomed = Vec::new();
        for key in &keys {
            match self.desired.row(key).cloned() {
                Some(row) => self.row(key, &row),
                None if key.table == sb::sb_global::TABLE => {}
                None => doomed.extend(self.observed.all(key).into_iter().map(|uuid| (key.table, uuid))),
            }
        }
        for &(rank, uuid) in &self.observed.strays {
            doomed.push((OWNED[rank], uuid));
        }
        self.doomed.append(&mut doomed);
    }

    fn row(&mut self, key: &RowKey, wanted: &DesiredRow) {
        let present = self.observed.all(key);
        for &surplus in present.iter().skip(1) {
            self.doomed.push((key.table, surplus));
        }
        let values: Vec<(AnyColumn, Option<Datum>, bool)> = wanted
            .columns
            .iter()
            .map(|(column, value)| {
                let current = present.first().and_then(|uuid| self.source.row(key.table, *uuid));
                let (datum, initial) = self.datum(key, *column, value, current.map(|r| &**r));
                (*column, datum, initial)
            })
            .collect();
        let Some(&uuid) = present.first() else {
            let mut insert = self.transaction.insert(key.table);
            for (column, datum, _) in values {
                if let Some(datum) = datum {
                    insert = insert.set_datum(column, datum);
                }
            }
            let uuid = insert.uuid();
            self.inserted.insert(key.clone(), uuid);
            return;
        };
        let Some(current) = self.source.row(key.table, uuid) else { return };
        let changed: Vec<_> = values
            .into_iter()
            .filter_map(|(column, datum, initial)| Some((column, datum?)).filter(|_| !initial))
            .filter(|(column, datum)| *current.datum(*column) != *datum)
            .collect();
        // The flood group of a large switch gets one port more: the server and every chassis read one reference, not all of them.
        let (small, whole): (Vec<_>, Vec<_>) = changed
            .into_iter()
            .map(|(column, datum)| {
                let present = current.datum(column);
                let is_large = present.atoms().len().min(datum.atoms().len()) >= LARGE_SET;
                let parts = is_large.then(|| (present.with_deleted(&datum), datum.with_deleted(present)));
                (column, datum, parts.filter(|(gone, new)| gone.len() + new.len() < present.len() / 2))
            })
            .partition(|(.., parts)| parts.is_some());
        if !whole.is_empty() {
            let mut update = self.transaction.update(key.table, uuid);
            for (column, datum, _) in whole {
                update = update.set_datum(column, datum);
            }
        }
        for (column, gone, new) in small.into_iter().filter_map(|(column, _, parts)| parts.map(|(g, n)| (column, g, n)))
        {
            let mut mutate = self.transaction.mutate(key.table, uuid);
            for (elements, add) in [(gone, false), (new, true)].into_iter().filter(|(elements, _)| !elements.is_empty())
            {
                mutate =
                    if add { mutate.insert_datum(column, elements) } else { mutate.delete_datum(column, elements) };
            }
        }
    }

    /// The datum of a wanted value, and whether it is for insertions only.
    fn datum(&self, key: &RowKey, column: AnyColumn, value: &Value, current: Option<&Row>) -> (Option<Datum>, bool) {
        let references = |keys: &mut dyn Iterator<Item = RowKey>| {
            Datum::set(keys.filter_map(|k| self.resolve(&k)).map(Atom::Uuid).collect())
        };
        let datum = match value {
            Value::Datum(datum) => datum.clone(),
            Value::Initial(datum) => {
                let kept = current.is_some_and(|row| !row.datum(column).is_empty());
                return (Some(datum.clone()), kept);
            }
            Value::Refs(keys) => references(&mut keys.iter().cloned()),
            Value::MapRefs(pairs) => Datum::map(
                pairs
                    .iter()
                    .filter_map(|(name, k)| Some((Atom::String(name.clone()), Atom::Uuid(self.resolve(k)?))))
                    .collect(),
            ),
            Value::Members => references(&mut self.desired.members(key).map(crate::units::binding::binding_key)),
            Value::MapKeeping(datum, kept) => {
                let theirs = current.map(|row| row.datum(column).pairs()).unwrap_or_default();
                let is_kept = |k: &Atom| matches!(k, Atom::String(text) if kept.contains(&text.as_str()));
                let mut pairs = datum.pairs().to_vec();
                pairs.extend(theirs.iter().filter(|(k, _)| is_kept(k)).cloned());
                Datum::map(pairs)
            }
        };
        (Some(datum), false)
    }

    /// The row of a wanted datapath.
    pub(super) fn datapath(&self, switch: Uuid) -> Option<Uuid> {
        self.resolve(&crate::units::datapath::datapath_key(switch))
    }
}
