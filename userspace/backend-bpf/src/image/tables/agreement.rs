//! In which bits all keys of a tuple agree: what a packet can be measured against before anything is looked up.
//!
//! A switch's ARP responder is a tuple of ten thousand keys, and all of them say `eth.type == 0x806`: no other packet needs to look there, nor
//! rest its verdict on what it would have looked at. Kept up to date key by key; the result is always that of counting anew.

use crate::compile::{Key, Shape, within_key};
use oxbow_abi::field::ETH_TYPE;
use oxbow_abi::rule::FILTERS;
use smallvec::SmallVec;

/// Distinct values of a word that are told apart. A word with more of them filters nothing.
const VALUES: usize = 4;

/// The values of one word, with the number of rules that have each.
#[derive(Clone, Debug, Default)]
struct Values {
    /// The first few.
    few: SmallVec<[(u32, u32); VALUES]>,
    /// Rules with any other value; none unless `few` is full.
    others: u32,
}

impl Values {
    /// One more rule with a value; whether that changed which values there are.
    fn add(&mut self, value: u32) -> bool {
        if let Some((_, count)) = self.few.iter_mut().find(|(known, _)| *known == value) {
            *count += 1;
            false
        } else if self.few.len() < VALUES {
            self.few.push((value, 1));
            true
        } else {
            self.others += 1;
            self.others == 1
        }
    }

    /// One rule less; whether that changed which values there are.
    fn remove(&mut self, value: u32) -> bool {
        let Some(at) = self.few.iter().position(|(known, _)| *known == value) else {
            self.others = self.others.saturating_sub(1);
            return self.others == 0;
        };
        self.few[at].1 -= 1;
        if self.few[at].1 > 0 {
            return false;
        }
        self.few.swap_remove(at);
        true
    }

    /// The bits in which all values agree, and what they are there.
    fn common(&self, mask: u32) -> (u32, u32) {
        let Some(&(first, _)) = self.few.first() else { return (0, 0) };
        if self.others > 0 {
            return (0, 0);
        }
        let differ = self.few.iter().fold(0, |differ, (value, _)| differ | value ^ first);
        let mask = mask & !differ;
        (mask, first & mask)
    }
}

/// A condition that every rule of a tuple implies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) word: u8,
    pub(super) mask: u32,
    pub(super) value: u32,
}

/// The values of all words of a tuple.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreement {
    words: Vec<Values>,
}

impl Agreement {
    pub(super) fn new(shape: &Shape) -> Self {
        Self { words: vec![Values::default(); shape.0.len()] }
    }

    /// One more rule at a key; whether filters may be others now.
    pub(super) fn add(&mut self, key: &Key) -> bool {
        self.words.iter_mut().zip(key).fold(false, |changed, (values, word)| changed | values.add(*word))
    }

    /// One rule less at a key; whether filters may be others now. `keys` has one key for each rule that is left.
    pub(super) fn remove<'a, I: Iterator<Item = &'a Key>>(&mut self, key: &Key, keys: impl Fn() -> I) -> bool {
        let mut changed = false;
        for (n, (values, word)) in self.words.iter_mut().zip(key).enumerate() {
            if !values.remove(*word) {
                continue;
            }
            changed = true;
            if values.others > 0 {
                // A place among the few is free for one of the others. Usually the first keys show that there are too many still.
                *values = Values::default();
                for key in keys() {
                    values.add(key[n]);
                }
            }
        }
        changed
    }

    /// The filters that let the fewest packets pass: the kind of packet, then whatever is fixed in most bits.
    pub(super) fn filters(&self, shape: &Shape) -> [Filter; FILTERS] {
        let mut found: SmallVec<[Filter; 8]> = shape
            .0
            .iter()
            .zip(&self.words)
            .filter_map(|(&(word, mask), values)| {
                let (mask, value) = values.common(mask & within_key(word));
                (mask != 0).then_some(Filter { word, mask, value })
            })
            .collect();
        let kind = |f: &Filter| f.word == ETH_TYPE && f.mask & 0xffff == 0xffff;
        found.sort_by_key(|f| (!kind(f), std::cmp::Reverse(f.mask.count_ones()), f.word));
        let mut filters = [Filter::default(); FILTERS];
        filters.iter_mut().zip(found).for_each(|(to, from)| *to = from);
        filters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_abi::field::{ARP_OP, IP_DST, IP_META};
    use proptest::prelude::*;

    fn shape(words: &[(u8, u32)]) -> Shape {
        Shape(SmallVec::from_slice(words))
    }

    #[test]
    fn the_kind_of_packet_comes_first_and_bits_outside_the_verdict_key_never() {
        let arp = shape(&[(ETH_TYPE, 0xffff), (IP_META, 0xff00_ff00), (IP_DST, !0), (ARP_OP, 0xffff)]);
        let mut agreement = Agreement::new(&arp);
        for host in 1..=2 {
            agreement.add(&Key::from_slice(&[0x806, 58 << 24 | 255 << 8, 0x0a00_0000 + host, 1]));
        }
        let [kind, second] = agreement.filters(&arp);
        assert_eq!(kind, Filter { word: ETH_TYPE, mask: 0xffff, value: 0x806 });
        assert_eq!(second, Filter { word: IP_DST, mask: !3, value: 0x0a00_0000 });
        for host in 3..=6 {
            agreement.add(&Key::from_slice(&[0x806, 58 << 24 | 255 << 8, host << 29, 1]));
        }
        assert_eq!(agreement.filters(&arp)[1], Filter { word: IP_META, mask: 0xff00_0000, value: 58 << 24 });
    }

    proptest! {
        /// Whatever came and went: the filters are those of what is there.
        #[test]
        fn filters_are_those_of_the_keys_that_are_left(steps in prop::collection::vec((any::<bool>(), 0u32..9, 0u32..9), 0..60)) {
            let shape = shape(&[(ETH_TYPE, 0xf), (IP_DST, 0xff)]);
            let mut agreement = Agreement::new(&shape);
            let mut keys: Vec<Key> = Vec::new();
            for (add, a, b) in steps {
                if add || keys.is_empty() {
                    keys.push(Key::from_slice(&[a, b]));
                    agreement.add(&Key::from_slice(&[a, b]));
                } else {
                    let gone = keys.swap_remove(a as usize % keys.len());
                    agreement.remove(&gone, || keys.iter());
                }
                let mut anew = Agreement::new(&shape);
                for key in &keys {
                    anew.add(key);
                }
                prop_assert_eq!(agreement.filters(&shape), anew.filters(&shape));
            }
        }
    }
}
