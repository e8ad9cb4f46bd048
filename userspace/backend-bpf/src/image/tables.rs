//! Tables, tuples and rules: what should be in the tuple-space search, what the kernel holds, and the writes from one to the other.
//!
//! A key of a tuple has a stack of candidates (rules of several priorities may ask for the same key); the best one is what the kernel gets.
//! Every kernel value has two slots ([`oxbow_abi::rule`]): a write keeps the slot that the version in force uses and fills the other.

mod agreement;

use super::allocator::{Exhausted, Indexes, Ranges};
use crate::compile::{Key, Shape};
use agreement::{Agreement, Filter};
use oxbow_abi::rule::{
    Answer, FILTERS, MAX_TUPLES, NEVER, Rule, RuleSlot, TUPLE_OUTSIDE_KEY, TUPLE_SINGLE, TUPLE_WIDE, Table, Tuple,
    TupleRange,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// What a rule puts at each of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Identity of the rule in the pipeline's program.
    pub rule: u32,
    /// Priority.
    pub priority: u16,
    /// What it does.
    pub answer: Answer,
}

impl Placement {
    /// Higher priority first; between equal ones the smaller logical flow, as the reference interpreter chooses.
    fn rank(&self) -> (std::cmp::Reverse<u16>, u32, u32) {
        (std::cmp::Reverse(self.priority), self.answer.lflow, self.rule)
    }
}

#[derive(Debug)]
struct Bucket {
    /// Best first.
    candidates: SmallVec<[Placement; 1]>,
    /// What the kernel holds.
    kernel: Rule,
}

const NOTHING: Rule = Rule { slot: [RuleSlot::EMPTY; 2] };

#[derive(Debug)]
struct TupleState {
    id: u32,
    shape: Shape,
    buckets: FxHashMap<Key, Bucket>,
    priorities: BTreeMap<u16, u32>,
    agreement: Agreement,
    /// Buckets with a candidate.
    live: usize,
}

/// What of a tuple depends on its rules and stands in the tuple array: when it changes, the array is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    max_priority: u16,
    filters: [Filter; FILTERS],
    only: Option<Answer>,
}

impl TupleState {
    fn max_priority(&self) -> u16 {
        self.priorities.last_key_value().map_or(0, |(priority, _)| *priority)
    }

    fn head(&self) -> Head {
        let filters = self.agreement.filters(&self.shape);
        Head { max_priority: self.max_priority(), filters, only: self.only(&filters) }
    }

    /// Whether [`TupleState::only`] may say something else now: there were `live` buckets before, and `best` says whether a best candidate changed.
    fn only_changed(&self, live: usize, best: bool) -> bool {
        (self.live == 1 || live == 1) && (self.live != live || best)
    }

    /// What the only rule does, if there is one and the filters say all of its condition.
    fn only(&self, filters: &[Filter; FILTERS]) -> Option<Answer> {
        if self.live != 1 {
            return None;
        }
        let said = |&(word, mask): &(u8, u32)| filters.iter().find(|f| f.word == word && f.mask == mask);
        let key: Option<Key> = self.shape.0.iter().map(|word| said(word).map(|filter| filter.value)).collect();
        let bucket = self.buckets.get(&key?)?;
        bucket.candidates.first().map(|best| best.answer)
    }

    fn encode(&self) -> Tuple {
        let mut flags = 0;
        if self.shape.is_wide() {
            flags |= TUPLE_WIDE;
        }
        if self.shape.outside_key() {
            flags |= TUPLE_OUTSIDE_KEY;
        }
        let head = self.head();
        if head.only.is_some() {
            flags |= TUPLE_SINGLE;
        }
        let mut tuple = Tuple {
            id: self.id,
            max_priority: head.max_priority,
            words: self.shape.0.len() as u8,
            flags,
            only: head.only.unwrap_or_default(),
            ..Tuple::default()
        };
        for (i, filter) in head.filters.iter().enumerate() {
            tuple.filter_word[i] = filter.word;
            tuple.filter_mask[i] = filter.mask;
            tuple.filter_value[i] = filter.value;
        }
        for (i, &(word, mask)) in self.shape.0.iter().enumerate() {
            tuple.word[i] = word;
            tuple.mask[i] = mask;
        }
        tuple
    }
}

#[derive(Debug, Default)]
struct TableState {
    /// Tuples by shape; the number in [`Tables::tuples`].
    tuples: BTreeMap<Shape, u32>,
    kernel: Table,
}

/// Entries in use, old versions included where they are still held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Keys in `OX_RULES`.
    pub narrow: usize,
    /// Keys in `OX_RULES_WIDE`.
    pub wide: usize,
    /// Elements of `OX_TUPLES`.
    pub tuples: usize,
    /// Elements of `OX_TABLES`.
    pub tables: usize,
}

/// A rule to write.
#[derive(Clone, Debug)]
pub struct RuleWrite {
    /// Number of the tuple: first word of the key.
    pub tuple: u32,
    /// Whether it goes to the wide map.
    pub wide: bool,
    /// The key's words.
    pub key: Key,
    /// The value.
    pub value: Rule,
}

/// What a commit has to write, before the version is raised.
#[derive(Debug, Default)]
pub struct TableWrites {
    /// Keys that only an attempt that failed has put into the kernel: no version uses them, they make room first.
    pub stale: Vec<(u32, bool, Key)>,
    /// Rules.
    pub rules: Vec<RuleWrite>,
    /// Tuples with their index.
    pub tuples: Vec<(u32, Tuple)>,
    /// Tables with their index.
    pub tables: Vec<(u32, Table)>,
}

/// What nobody can be using any more after the grace period that follows a commit.
#[derive(Debug, Default)]
struct Retired {
    /// Keys to remove from the kernel: the tuple's number, wide, key.
    keys: Vec<(u32, bool, Key)>,
    ranges: Vec<(u32, u32)>,
    tuples: Vec<u32>,
    tables: Vec<u32>,
}

impl Retired {
    /// Nothing to do.
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty() && self.tuples.is_empty() && self.tables.is_empty()
    }
}

/// All tables of all datapaths.
#[derive(Debug)]
pub struct Tables {
    table_indexes: Indexes,
    tuple_ids: Indexes,
    ranges: Ranges,
    tables: FxHashMap<u32, TableState>,
    tuples: FxHashMap<u32, TupleState>,
    dirty_keys: BTreeSet<(u32, Key)>,
    dirty_tables: BTreeSet<u32>,
    /// Tables and tuples that lost their last user since the last commit.
    gone_tables: Vec<u32>,
    gone_tuples: Vec<u32>,
    retired: Retired,
    room: u64,
    /// Ranges written by a commit that has not succeeded: taken back when it is tried again.
    tentative: Vec<(u32, u32, u32)>,
}

impl Tables {
    /// For maps of these sizes.
    pub fn new(max_tables: u32, max_tuples: u32) -> Self {
        Self {
            table_indexes: Indexes::new("OX_TABLES", max_tables),
            tuple_ids: Indexes::new("OX_TUPLES", u32::MAX),
            ranges: Ranges::new("OX_TUPLES", max_tuples),
            tables: FxHashMap::default(),
            tuples: FxHashMap::default(),
            dirty_keys: BTreeSet::new(),
            dirty_tables: BTreeSet::new(),
            gone_tables: Vec::new(),
            gone_tuples: Vec::new(),
            retired: Retired::default(),
            room: 0,
            tentative: Vec::new(),
        }
    }

    /// A new table; its index.
    pub fn add_table(&mut self) -> Result<u32, Exhausted> {
        let index = self.table_indexes.take()?;
        let empty = TupleRange { from: NEVER, first: 0, count: 0 };
        self.tables.insert(index, TableState { tuples: BTreeMap::new(), kernel: Table { range: [empty; 2] } });
        self.dirty_tables.insert(index);
        Ok(index)
    }

    /// A table that nothing refers to from the next version on. It must hold no rules.
    pub fn remove_table(&mut self, index: u32) {
        self.gone_tables.push(index);
    }

    /// Puts a rule at a key. Returns the tuple's number, which [`Tables::remove`] wants back.
    pub fn insert(&mut self, table: u32, shape: &Shape, key: Key, placement: Placement) -> Result<u32, Exhausted> {
        let Some(state) = self.tables.get_mut(&table) else { return Err(Exhausted { map: "OX_TABLES", max: table }) };
        let number = match state.tuples.get(shape) {
            Some(number) => *number,
            None => {
                if state.tuples.len() as u32 >= MAX_TUPLES {
                    return Err(Exhausted { map: "tuples of one table", max: MAX_TUPLES });
                }
                let id = self.tuple_ids.take()?;
                state.tuples.insert(shape.clone(), id);
                let tuple = TupleState {
                    id,
                    shape: shape.clone(),
                    buckets: FxHashMap::default(),
                    priorities: BTreeMap::new(),
                    agreement: Agreement::new(shape),
                    live: 0,
                };
                self.tuples.insert(id, tuple);
                self.dirty_tables.insert(table);
                id
            }
        };
        let Some(tuple) = self.tuples.get_mut(&number) else { return Err(Exhausted { map: "OX_TUPLES", max: number }) };
        let before = (tuple.max_priority(), tuple.live);
        *tuple.priorities.entry(placement.priority).or_default() += 1;
        let reworded = tuple.agreement.add(&key);
        let bucket =
            tuple.buckets.entry(key.clone()).or_insert(Bucket { candidates: SmallVec::new(), kernel: NOTHING });
        let at = bucket.candidates.partition_point(|c| c.rank() < placement.rank());
        bucket.candidates.insert(at, placement);
        tuple.live += usize::from(bucket.candidates.len() == 1);
        if reworded || tuple.max_priority() != before.0 || tuple.only_changed(before.1, at == 0) {
            self.dirty_tables.insert(table);
        }
        if at == 0 {
            self.dirty_keys.insert((number, key));
        }
        Ok(number)
    }

    /// Number of the table's tuple of that shape.
    pub fn tuple(&self, table: u32, shape: &Shape) -> Option<u32> {
        self.tables.get(&table).and_then(|state| state.tuples.get(shape)).copied()
    }

    /// Grows when there may be room for another mask where there was none: what was [`Exhausted`] may be tried again.
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Takes a rule away from a key.
    pub fn remove(&mut self, table: u32, number: u32, key: &Key, rule: u32) {
        let Some(tuple) = self.tuples.get_mut(&number) else { return };
        let before = (tuple.max_priority(), tuple.live);
        let Some(bucket) = tuple.buckets.get_mut(key) else { return };
        let Some(at) = bucket.candidates.iter().position(|c| c.rule == rule) else { return };
        let gone = bucket.candidates.remove(at);
        tuple.live -= usize::from(bucket.candidates.is_empty());
        if at == 0 {
            self.dirty_keys.insert((number, key.clone()));
        }
        let buckets = &tuple.buckets;
        let reworded = tuple
            .agreement
            .remove(key, || buckets.iter().flat_map(|(key, bucket)| bucket.candidates.iter().map(move |_| key)));
        if let Some(count) = tuple.priorities.get_mut(&gone.priority) {
            *count -= 1;
            if *count == 0 {
                tuple.priorities.remove(&gone.priority);
            }
        }
        if reworded || tuple.max_priority() != before.0 || tuple.only_changed(before.1, at == 0) {
            self.dirty_tables.insert(table);
        }
        if tuple.priorities.is_empty() {
            if let Some(state) = self.tables.get_mut(&table) {
                state.tuples.remove(&tuple.shape);
            }
            self.room += 1;
            self.gone_tuples.push(number);
            self.dirty_tables.insert(table);
        }
    }

    /// Whether a commit would write anything.
    pub fn is_dirty(&self) -> bool {
        !(self.dirty_keys.is_empty() && self.dirty_tables.is_empty() && self.gone_tables.is_empty())
    }

    /// Whether the next writes would take a slot away that packets of versions from `oldest` on may be using.
    pub fn overtakes(&self, oldest: u32) -> bool {
        let kernel =
            |(number, key): &(u32, Key)| self.tuples.get(number)?.buckets.get(key).map(|bucket| &bucket.kernel);
        self.dirty_keys.iter().filter_map(kernel).any(|rule| is_rule_in_use(rule, oldest))
            || self.dirty_tables.iter().filter_map(|index| self.tables.get(index)).any(|state| {
                let [a, b] = state.kernel.range;
                a.from != NEVER && b.from != NEVER && a.from.max(b.from) > oldest
            })
    }

    /// The writes that make `version` hold what should be. May be called again when the writing failed: nothing is taken as written
    /// before [`Tables::committed`].
    pub fn writes(&mut self, version: u32) -> Result<TableWrites, Exhausted> {
        for (_, first, len) in self.tentative.drain(..) {
            self.ranges.release(first, len);
        }
        let mut writes = TableWrites::default();
        for (number, key) in &self.dirty_keys {
            let Some(tuple) = self.tuples.get(number) else { continue };
            let Some(bucket) = tuple.buckets.get(key) else { continue };
            if bucket.candidates.is_empty() && bucket.kernel == NOTHING {
                writes.stale.push((*number, tuple.shape.is_wide(), key.clone()));
                continue;
            }
            let value = next_value(&bucket.kernel, bucket.candidates.first(), version);
            writes.rules.push(RuleWrite { tuple: *number, wide: tuple.shape.is_wide(), key: key.clone(), value });
        }
        for index in &self.dirty_tables {
            let Some(state) = self.tables.get(index) else { continue };
            let mut tuples: Vec<Tuple> =
                state.tuples.values().filter_map(|number| self.tuples.get(number)).map(TupleState::encode).collect();
            // Falling priority; the fewest words first among equals, so that the cheap and closing ones are met early.
            tuples.sort_by_key(|t| (std::cmp::Reverse(t.max_priority), t.words, t.id));
            let first = if tuples.is_empty() { 0 } else { self.ranges.take(tuples.len() as u32)? };
            if first != 0 {
                self.tentative.push((*index, first, tuples.len() as u32));
            }
            let range = TupleRange { from: version, first, count: tuples.len() as u32 };
            writes.tuples.extend(tuples.into_iter().enumerate().map(|(i, tuple)| (first + i as u32, tuple)));
            writes.tables.push((*index, next_table(&state.kernel, range)));
        }
        Ok(writes)
    }

    /// The writes of the last [`Tables::writes`] are in the kernel and the version is raised.
    pub fn committed(&mut self, writes: &TableWrites) {
        for (number, _, key) in &writes.stale {
            if let Some(tuple) = self.tuples.get_mut(number) {
                tuple.buckets.remove(key);
            }
        }
        for write in &writes.rules {
            let Some(tuple) = self.tuples.get_mut(&write.tuple) else { continue };
            let Some(bucket) = tuple.buckets.get_mut(&write.key) else { continue };
            bucket.kernel = write.value;
            if bucket.candidates.is_empty() {
                self.retired.keys.push((write.tuple, write.wide, write.key.clone()));
            }
        }
        for (index, table) in &writes.tables {
            let Some(state) = self.tables.get_mut(index) else { continue };
            for old in state.kernel.range {
                let kept = table.range.contains(&old);
                if !kept && old.from != NEVER && old.count != 0 {
                    self.retired.ranges.push((old.first, old.count));
                }
            }
            state.kernel = *table;
        }
        self.dirty_keys.clear();
        self.dirty_tables.clear();
        self.tentative.clear();
        self.retired.tuples.append(&mut self.gone_tuples);
        self.retired.tables.append(&mut self.gone_tables);
    }

    /// After a grace period: what the caller must remove from the kernel now, and what is free for use again.
    pub fn settle(&mut self) -> Vec<(u32, bool, Key)> {
        let mut retired = std::mem::take(&mut self.retired);
        // A key that has been asked for again since stays.
        retired.keys.retain(|(number, _, key)| {
            let Some(tuple) = self.tuples.get_mut(number) else { return true };
            let empty = tuple.buckets.get(key).is_some_and(|bucket| bucket.candidates.is_empty());
            if empty && !self.dirty_keys.contains(&(*number, key.clone())) {
                tuple.buckets.remove(key);
                return true;
            }
            false
        });
        for (first, count) in retired.ranges {
            self.ranges.release(first, count);
        }
        for number in retired.tuples {
            if self.tuples.get(&number).is_some_and(|tuple| tuple.buckets.is_empty()) {
                self.tuples.remove(&number);
                self.tuple_ids.release(number);
            } else {
                self.retired.tuples.push(number);
            }
        }
        for index in retired.tables {
            if let Some(state) = self.tables.remove(&index) {
                for range in state.kernel.range {
                    if range.from != NEVER && range.count != 0 {
                        self.ranges.release(range.first, range.count);
                    }
                }
            }
            self.table_indexes.release(index);
        }
        retired.keys
    }

    /// Whether something waits for [`Tables::settle`].
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// What is in use of each map.
    pub fn keys(&self) -> Used {
        let (wide, narrow): (Vec<&TupleState>, Vec<&TupleState>) =
            self.tuples.values().partition(|tuple| tuple.shape.is_wide());
        let keys = |tuples: Vec<&TupleState>| tuples.iter().map(|tuple| tuple.buckets.len()).sum();
        Used {
            narrow: keys(narrow),
            wide: keys(wide),
            tuples: self.ranges.used() as usize,
            tables: self.table_indexes.used() as usize,
        }
    }

    /// Numbers of tables, tuples and keys in use.
    pub fn occupancy(&self) -> (usize, usize, usize) {
        (self.tables.len(), self.tuples.len(), self.tuples.values().map(|tuple| tuple.buckets.len()).sum())
    }
}

/// Whether the slot that [`next_value`] takes away is one that packets of versions from `oldest` on may be using.
fn is_rule_in_use(kernel: &Rule, oldest: u32) -> bool {
    kernel.slot.iter().any(|slot| slot.from != NEVER && slot.until != NEVER && slot.until > oldest)
}

/// The value with `wanted` from `version` on, and what holds now until then.
fn next_value(kernel: &Rule, wanted: Option<&Placement>, version: u32) -> Rule {
    let mut slots = [RuleSlot::EMPTY; 2];
    let mut used = 0;
    if let Some(now) = kernel.slot.iter().find(|slot| slot.from < version && slot.until == NEVER) {
        if let Some(wanted) = wanted
            && same(now, wanted)
        {
            return Rule { slot: [*now, RuleSlot::EMPTY] };
        }
        slots[0] = RuleSlot { until: version, ..*now };
        used = 1;
    }
    if let Some(wanted) = wanted {
        slots[used] =
            RuleSlot { from: version, until: NEVER, priority: u32::from(wanted.priority), answer: wanted.answer };
    }
    Rule { slot: slots }
}

fn same(slot: &RuleSlot, wanted: &Placement) -> bool {
    slot.priority == u32::from(wanted.priority) && slot.answer == wanted.answer
}

/// The table with `range` from its version on beside the range in force. The kernel copies an array element word by word, and packets read
/// meanwhile: what is in force stays in its place, and only the slot that no packet uses changes.
fn next_table(kernel: &Table, range: TupleRange) -> Table {
    let [a, b] = kernel.range;
    let in_force = |slot: &TupleRange| slot.from < range.from;
    let second = in_force(&b) && (!in_force(&a) || b.from > a.from);
    Table { range: if second { [range, b] } else { [a, range] } }
}

#[cfg(test)]
mod tests;
