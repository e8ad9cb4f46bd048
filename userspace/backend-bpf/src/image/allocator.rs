//! Indexes into array maps. What is freed rests until nobody can be using it any more: the owner calls [`Indexes::release`] only after a
//! grace period.

use std::collections::BTreeMap;

/// An array map has no room left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Exhausted {
    /// Name of the map, or of something whose size is not to be chosen.
    pub map: &'static str,
    /// Its size.
    pub max: u32,
}

impl Exhausted {
    fn text(&self) -> String {
        let Self { map, max } = self;
        if crate::kernel::MAPS.contains(map) {
            format!("map {map} is full ({max} entries): start oxbow-node with a larger --map-size {map}=N")
        } else {
            format!("more {map} than the {max} that can be held")
        }
    }
}

/// Single indexes, from 1 (0 always means "none").
#[derive(Debug)]
pub struct Indexes {
    map: &'static str,
    max: u32,
    next: u32,
    free: Vec<u32>,
}

impl Indexes {
    /// For an array map of `max` elements.
    pub fn new(map: &'static str, max: u32) -> Self {
        Self { map, max, next: 1, free: Vec::new() }
    }

    /// An unused index.
    pub fn take(&mut self) -> Result<u32, Exhausted> {
        if let Some(index) = self.free.pop() {
            return Ok(index);
        }
        if self.next >= self.max {
            return Err(Exhausted { map: self.map, max: self.max });
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// Gives an index back.
    pub fn release(&mut self, index: u32) {
        self.free.push(index);
    }

    /// How many are in use.
    pub fn used(&self) -> u32 {
        self.next - 1 - self.free.len() as u32
    }
}

/// Runs of consecutive indexes, in sizes of powers of two.
#[derive(Debug)]
pub struct Ranges {
    map: &'static str,
    max: u32,
    next: u32,
    /// Free runs by their first indexes, with their lengths; none begins where another ends.
    free: BTreeMap<u32, u32>,
}

impl Ranges {
    /// For an array map of `max` elements.
    pub fn new(map: &'static str, max: u32) -> Self {
        Self { map, max, next: 1, free: BTreeMap::new() }
    }

    /// First index of an unused run of at least `len`.
    pub fn take(&mut self, len: u32) -> Result<u32, Exhausted> {
        let size = len.next_power_of_two();
        // The smallest free run that is large enough, so that large ones stay whole.
        let fits = self.free.iter().filter(|(_, have)| **have >= size).min_by_key(|(_, have)| **have);
        if let Some((&first, &have)) = fits {
            self.free.remove(&first);
            if have > size {
                self.free.insert(first + size, have - size);
            }
            return Ok(first);
        }
        match self.next.checked_add(size) {
            Some(end) if end <= self.max => {
                self.next = end;
                Ok(end - size)
            }
            _ => Err(Exhausted { map: self.map, max: self.max }),
        }
    }

    /// Elements in runs that are taken, what they were rounded up by included.
    pub fn used(&self) -> u32 {
        self.next - 1 - self.free.values().sum::<u32>()
    }

    /// Gives a run back that was taken with the same `len`. It is joined with free neighbours: what small runs leave can hold a large one.
    pub fn release(&mut self, first: u32, len: u32) {
        let (mut first, mut size) = (first, len.next_power_of_two());
        if let Some((&before, &have)) = self.free.range(..first).next_back()
            && before + have == first
        {
            self.free.remove(&before);
            (first, size) = (before, have + size);
        }
        if let Some(after) = self.free.remove(&(first + size)) {
            size += after;
        }
        if first + size == self.next {
            self.next = first;
        } else {
            self.free.insert(first, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_start_at_one_are_reused_and_run_out_by_name() {
        let mut indexes = Indexes::new("OX_TABLES", 3);
        assert_eq!((indexes.take(), indexes.take()), (Ok(1), Ok(2)));
        assert_eq!(
            indexes.take().unwrap_err().to_string(),
            "map OX_TABLES is full (3 entries): start oxbow-node with a larger --map-size OX_TABLES=N"
        );
        indexes.release(1);
        assert_eq!((indexes.take(), indexes.used()), (Ok(1), 2));
    }

    #[test]
    fn runs_do_not_overlap_and_larger_ones_are_split_when_needed() {
        let mut ranges = Ranges::new("OX_TUPLES", 33);
        let eight = ranges.take(7).unwrap();
        let twenty_four = ranges.take(16).unwrap();
        let rest = ranges.take(8).unwrap();
        assert_eq!((eight, twenty_four, rest), (1, 9, 25));
        assert!(ranges.take(1).is_err());
        assert_eq!(ranges.used(), 32);
        ranges.release(twenty_four, 16);
        assert_eq!(ranges.used(), 16);
        let mut seen: Vec<u32> = (0..8).map(|_| ranges.take(2).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..8).map(|n| 9 + 2 * n).collect::<Vec<_>>());
        assert!(ranges.take(1).is_err());
    }

    #[test]
    fn small_runs_that_are_given_back_hold_a_large_one() {
        let mut ranges = Ranges::new("OX_TUPLES", 33);
        let mut small: Vec<u32> = (0..16).map(|_| ranges.take(2).unwrap()).collect();
        assert!(ranges.take(1).is_err());
        // In an order in which each is joined to what lies before it, behind it, or both.
        for n in [1, 3, 2, 0, 5, 4, 7, 6] {
            ranges.release(small[n], 2);
        }
        assert_eq!((ranges.used(), ranges.take(16)), (16, Ok(1)));
        ranges.release(1, 16);
        for first in small.drain(8..) {
            ranges.release(first, 2);
        }
        assert_eq!((ranges.used(), ranges.take(32)), (0, Ok(1)));
    }
}
