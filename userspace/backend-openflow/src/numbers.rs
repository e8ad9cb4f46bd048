//! Numbers for conjunctions and for lists of actions that stand in a table of their own.
//!
//! They follow from what a rule says, not from when it came: a process that starts finds in the bridge the numbers that it would give, and
//! changes nothing. Two rules that come to the same number (1 in 2^28 for each pair, and rules that differ in nothing but which sets they name) are
//! told apart by who came first; then a fresh start may exchange the two.

use oxbow_pipeline::ir::RuleId;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::{Hash, Hasher as _};

/// Numbers that one rule may need: the lowest bits count them.
pub(crate) const PER_RULE: usize = 16;
/// Bits of the part that belongs to the rule.
const BITS: u32 = 28;

/// Who has which.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    of: FxHashMap<RuleId, u32>,
    taken: FxHashSet<u32>,
}

impl Numbers {
    /// The first number of a rule, 16 of which are its own; the same as long as it is not [given back](Numbers::release).
    pub(crate) fn first(&mut self, rule: RuleId, content: &impl Hash) -> u32 {
        if let Some(first) = self.of.get(&rule) {
            return *first;
        }
        let mut hasher = FxHasher::default();
        content.hash(&mut hasher);
        // The upper bits of a product are the well mixed ones.
        let mut part = (hasher.finish().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS)) as u32;
        while part == 0 || !self.taken.insert(part) {
            part = (part + 1) & ((1 << BITS) - 1);
        }
        let first = part << (32 - BITS);
        self.of.insert(rule, first);
        first
    }

    /// A rule is gone.
    pub(crate) fn release(&mut self, rule: RuleId) {
        if let Some(first) = self.of.remove(&rule) {
            self.taken.remove(&(first >> (32 - BITS)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_content_and_are_given_back() {
        let mut one = Numbers::default();
        let mut other = Numbers::default();
        let contents = ["a", "b", "c"];
        let forth: Vec<u32> = (0..3).map(|n| one.first(RuleId(n), &contents[n as usize])).collect();
        let back: Vec<u32> = (0..3).rev().map(|n| other.first(RuleId(n + 7), &contents[n as usize])).collect();
        assert_eq!(forth, back.into_iter().rev().collect::<Vec<_>>());
        assert!(forth.iter().all(|first| first & 0xf == 0 && *first != 0), "{forth:x?}");
        // The same content twice is two numbers.
        let twin = one.first(RuleId(9), &"a");
        assert_ne!(twin, forth[0]);
        assert_eq!(one.first(RuleId(9), &"something else"), twin, "kept");
        one.release(RuleId(0));
        assert_eq!(one.first(RuleId(5), &"a"), forth[0]);
    }
}
