//! A model of the kernel executes the writes; packets of every version in use must find what that version holds.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// What the kernel would hold, and how a packet of one version reads it.
#[derive(Default)]
struct Kernel {
    rules: HashMap<(u32, Key), Rule>,
    tuples: HashMap<u32, Tuple>,
    tables: HashMap<u32, Table>,
}

impl Kernel {
    fn apply(&mut self, writes: &TableWrites) {
        for (tuple, _, key) in &writes.stale {
            self.rules.remove(&(*tuple, key.clone()));
        }
        for write in &writes.rules {
            self.rules.insert((write.tuple, write.key.clone()), write.value);
        }
        self.tuples.extend(writes.tuples.iter().copied());
        self.tables.extend(writes.tables.iter().copied());
    }

    /// The search as the programs do it: (priority, block) of the best rule for a packet whose word 0 and 1 are given.
    fn look_up(&self, table: u32, words: [u32; 2], version: u32) -> Option<(u32, u32)> {
        let ranges = self.tables.get(&table)?.range;
        let range = ranges.iter().filter(|r| r.from <= version).max_by_key(|r| r.from)?;
        let mut best: Option<(u32, u32)> = None;
        for i in 0..range.count {
            let tuple = self.tuples[&(range.first + i)];
            if best.is_some_and(|(priority, _)| priority >= u32::from(tuple.max_priority)) {
                break;
            }
            let passes = (0..FILTERS)
                .all(|n| words[usize::from(tuple.filter_word[n])] & tuple.filter_mask[n] == tuple.filter_value[n]);
            if !passes {
                continue;
            }
            if tuple.flags & TUPLE_SINGLE != 0 {
                best = Some((u32::from(tuple.max_priority), tuple.only.block));
                continue;
            }
            let key: Key =
                (0..usize::from(tuple.words)).map(|w| words[usize::from(tuple.word[w])] & tuple.mask[w]).collect();
            let Some(rule) = self.rules.get(&(tuple.id, key)) else { continue };
            let Some(slot) = rule.slot.iter().find(|s| s.from <= version && version < s.until) else { continue };
            if best.is_none_or(|(priority, _)| slot.priority > priority) {
                best = Some((slot.priority, slot.answer.block));
            }
        }
        best
    }
}

fn shape(kind: u8) -> Shape {
    Shape(match kind % 4 {
        0 => SmallVec::new(),
        1 => SmallVec::from_slice(&[(0, 0xff)]),
        2 => SmallVec::from_slice(&[(1, 0x0f)]),
        _ => SmallVec::from_slice(&[(0, 0x0f), (1, 0xff)]),
    })
}

fn masked(shape: &Shape, words: [u32; 2]) -> Key {
    shape.0.iter().map(|&(word, mask)| words[usize::from(word)] & mask).collect()
}

#[derive(Clone, Debug)]
struct Want {
    shape: Shape,
    key: Key,
    priority: u16,
    block: u32,
    number: u32,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Random inserts and removals in several commits: after each one packets of the new version see the new rules, packets of the old
    /// version still see the old ones until the grace period, and settling changes nothing for the version in force.
    #[test]
    fn every_version_sees_its_own_rules(steps in prop::collection::vec(prop::collection::vec((0u8..12, 0u8..4, 0u32..6, 0u32..6, 1u16..5), 1..6), 1..12)) {
        let mut tables = Tables::new(16, 1024);
        let table = tables.add_table().unwrap();
        let mut kernel = Kernel::default();
        let mut wanted: HashMap<u32, Want> = HashMap::new();
        let probes: Vec<[u32; 2]> = (0..6).flat_map(|a| (0..6).map(move |b| [a, b])).collect();
        let expect = |wanted: &HashMap<u32, Want>, words: [u32; 2]| {
            wanted
                .iter()
                .filter(|(_, w)| masked(&w.shape, words) == w.key)
                .map(|(rule, w)| (std::cmp::Reverse(w.priority), *rule, w.block))
                .min()
                .map(|(p, _, block)| (u32::from(p.0), block))
        };
        let mut version = 0;
        for (n, step) in steps.iter().enumerate() {
            let before = wanted.clone();
            for &(rule, kind, a, b, priority) in step {
                let rule = u32::from(rule) + 1;
                if let Some(old) = wanted.remove(&rule) {
                    tables.remove(table, old.number, &old.key, rule);
                }
                if kind != 3 || n % 2 == 0 {
                    let shape = shape(kind);
                    let key = masked(&shape, [a, b]);
                    let block = 100 * rule + u32::from(priority);
                    let answer = Answer { block, lflow: rule, ..Answer::default() };
                    let placement = Placement { rule, priority, answer };
                    let number = tables.insert(table, &shape, key.clone(), placement).unwrap();
                    wanted.insert(rule, Want { shape, key, priority, block, number });
                }
            }
            // A failed attempt first: its writes reach the kernel, the version does not.
            kernel.apply(&tables.writes(version + 1).unwrap());
            for &words in &probes {
                let (found, want) = (kernel.look_up(table, words, version), expect(&before, words));
                prop_assert_eq!(found.map(|f| f.0), want.map(|w| w.0).filter(|_| version > 0), "after a failed attempt, words {:?}", words);
            }
            let writes = tables.writes(version + 1).unwrap();
            kernel.apply(&writes);
            version += 1;
            tables.committed(&writes);
            for &words in &probes {
                // Equal priorities under different masks: either rule is right; the reference's choice is only promised within a key.
                let (found, want) = (kernel.look_up(table, words, version), expect(&wanted, words));
                prop_assert_eq!(found.map(|f| f.0), want.map(|w| w.0), "version {} words {:?}", version, words);
                if version > 1 {
                    let (found, want) = (kernel.look_up(table, words, version - 1), expect(&before, words));
                    prop_assert_eq!(found.map(|f| f.0), want.map(|w| w.0), "old version {} words {:?}", version - 1, words);
                }
            }
            for (tuple, _, key) in tables.settle() {
                kernel.rules.remove(&(tuple, key));
            }
            for &words in &probes {
                prop_assert_eq!(kernel.look_up(table, words, version).map(|f| f.0), expect(&wanted, words).map(|w| w.0));
            }
        }
        // Everything removed: nothing is left anywhere.
        for (rule, want) in wanted.drain() {
            tables.remove(table, want.number, &want.key, rule);
        }
        let writes = tables.writes(version + 1).unwrap();
        kernel.apply(&writes);
        tables.committed(&writes);
        for (tuple, _, key) in tables.settle() {
            kernel.rules.remove(&(tuple, key));
        }
        prop_assert!(kernel.rules.is_empty(), "{:?}", kernel.rules);
        prop_assert_eq!(tables.occupancy(), (1, 0, 0));
    }

    /// Commits follow each other faster than grace periods end, and wait only where [`Tables::overtakes`] says so: packets of every version that
    /// may be in use see the rules of that version.
    #[test]
    fn every_version_in_use_sees_its_own_rules(
        steps in prop::collection::vec((0u8..4, prop::collection::vec((0u8..12, 0u8..4, 0u32..6, 0u32..6, 1u16..5), 1..4)), 1..16)
    ) {
        let mut tables = Tables::new(16, 4096);
        let table = tables.add_table().unwrap();
        let mut kernel = Kernel::default();
        let mut wanted: HashMap<u32, Want> = HashMap::new();
        let probes: Vec<[u32; 2]> = (0..6).flat_map(|a| (0..6).map(move |b| [a, b])).collect();
        let expect = |wanted: &HashMap<u32, Want>, words: [u32; 2]| {
            wanted.values().filter(|w| masked(&w.shape, words) == w.key).map(|w| u32::from(w.priority)).max()
        };
        // What each version holds; versions before `oldest` are not in use any more.
        let (mut history, mut oldest) = (vec![wanted.clone()], 0u32);
        for (over, step) in steps {
            for (rule, kind, a, b, priority) in step {
                let rule = u32::from(rule) + 1;
                if let Some(old) = wanted.remove(&rule) {
                    tables.remove(table, old.number, &old.key, rule);
                }
                if kind != 3 || a % 2 == 0 {
                    let shape = shape(kind);
                    let key = masked(&shape, [a, b]);
                    let answer = Answer { block: 1, lflow: rule, ..Answer::default() };
                    let placement = Placement { rule, priority, answer };
                    let number = tables.insert(table, &shape, key.clone(), placement).unwrap();
                    wanted.insert(rule, Want { shape, key, priority, block: 1, number });
                }
            }
            let version = history.len() as u32 - 1;
            oldest = (oldest + u32::from(over == 1)).min(version);
            if over == 0 || tables.overtakes(oldest) {
                oldest = version;
                for (tuple, _, key) in tables.settle() {
                    kernel.rules.remove(&(tuple, key));
                }
            }
            let writes = tables.writes(version + 1).unwrap();
            kernel.apply(&writes);
            tables.committed(&writes);
            history.push(wanted.clone());
            for version in oldest.max(1)..history.len() as u32 {
                for &words in &probes {
                    let found = kernel.look_up(table, words, version).map(|found| found.0);
                    prop_assert_eq!(found, expect(&history[version as usize], words), "version {} of {}, words {:?}", version, history.len() - 1, words);
                }
            }
        }
    }
}
