//! In which bits all keys of a tuple agree: what a packet can be measured against before anything is looked up.
//!
//! A switch's ARP responder is a tuple of ten thousand keys, and all of them say `eth.type == 0x806`: no other packet needs to look there, nor
//! rest its verdict on what it would have looked at. Kept up to date key by key; the result is always that of counting anew.

use crate::compile::{Key, Shape, within_key};
use oxbow_abi::field::{ETH_TYPE, IP_META, L4};
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

    /// The filters that let the fewest packets pass: what kind of packet it is, whatever else is the same in all rules, what is partly the same.
    pub(super) fn filters(&self, shape: &Shape) -> [Filter; FILTERS] {
        let mut found: SmallVec<[(u8, Filter); 8]> = SmallVec::new();
        for (&(word, mask), values) in shape.0.iter().zip(&self.words) {
            let whole = mask & within_key(word);
            let (mask, value) = values.common(whole);
            if mask != 0 {
                let rank = match word {
                    _ if mask != whole => 4,
                    ETH_TYPE => 0,
                    IP_META => 1,
                    L4 => 2,
                    _ => 3,
                };
                found.push((rank, Filter { word, mask, value }));
            }
        }
        found.sort_by_key(|(rank, f)| (*rank, std::cmp::Reverse(f.mask.count_ones()), f.word));
        let mut filters = [Filter::default(); FILTERS];
        filters.iter_mut().zip(found).for_each(|(to, (_, from))| *to = from);
        filters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_abi::field::{ARP_OP, ETH_SRC, IP_DST};
    use proptest::prelude::*;

    fn shape(words: &[(u8, u32)]) -> Shape {
        Shape(SmallVec::from_slice(words))
    }

    /// The filters of a tuple with these keys, as word, mask and value.
    fn filters(shape: &Shape, keys: &[&[u32]]) -> Vec<(u8, u32, u32)> {
        let mut agreement = Agreement::new(shape);
        for key in keys {
            agreement.add(&Key::from_slice(key));
        }
        agreement.filters(shape).iter().filter(|f| f.mask != 0).map(|f| (f.word, f.mask, f.value)).collect()
    }

    #[test]
    fn an_arp_responder_is_for_arp() {
        let arp = shape(&[(ETH_TYPE, 0xffff), (IP_DST, !0), (ARP_OP, 0xffff)]);
        let keys: [&[u32]; 2] = [&[0x806, 0x0a00_0001, 1], &[0x806, 0x0a00_0002, 1]];
        // The operation is the same as well, but not in the verdict key.
        assert_eq!(filters(&arp, &keys), [(ETH_TYPE, 0xffff, 0x806), (IP_DST, !3, 0x0a00_0000)]);
    }

    #[test]
    fn the_kind_of_packet_comes_before_what_ports_happen_to_have_in_common() {
        let solicitation = shape(&[(ETH_SRC, 0xffff), (ETH_TYPE, 0xffff), (IP_META, 0xff00_ff00), (L4, 0x00ff_00ff)]);
        let key = [0x0a00, 0x86dd, 58 << 24 | 255 << 8, 135 << 16];
        let kind = [(ETH_TYPE, 0xffff, 0x86dd), (IP_META, 0xff00_0000, 58 << 24), (L4, 0x00ff_00ff, 135 << 16)];
        assert_eq!(filters(&solicitation, &[&key]), kind);
    }

    #[test]
    fn what_is_partly_the_same_comes_last_and_too_many_values_filter_nothing() {
        let mac = shape(&[(ETH_SRC, 0xffff), (ETH_SRC + 1, !0), (ETH_TYPE, 0xffff)]);
        let keys: Vec<[u32; 3]> = (0..4).map(|n| [2, 9, 0x800 + n]).collect();
        let keys: Vec<&[u32]> = keys.iter().map(|key| &key[..]).collect();
        assert_eq!(filters(&mac, &keys), [(ETH_SRC + 1, !0, 9), (ETH_SRC, 0xffff, 2), (ETH_TYPE, 0xfffc, 0x800)]);
        let more: Vec<&[u32]> = keys.iter().copied().chain([&[2, 9, 0x86dd][..]]).collect();
        assert_eq!(filters(&mac, &more), [(ETH_SRC + 1, !0, 9), (ETH_SRC, 0xffff, 2)]);
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
