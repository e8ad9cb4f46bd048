//! Interned immutable strings.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, HashTable};

/// A handle on an immutable string of which the process keeps one copy.
///
/// Cloning copies a pointer and counts a reference; equality compares pointers first. The copy is freed when the last
/// handle goes away: a replica's strings come and go with its rows. Hashes as the `str` it holds, so maps keyed by
/// `Text` can be searched with a `&str`.
#[derive(Clone)]
pub struct Text(Arc<str>);

struct Entry {
    hash: u64,
    text: Arc<str>,
}

/// One part of the interner. `sweep_at` is the size at which entries that only the table holds are looked for.
struct Shard {
    table: HashTable<Entry>,
    sweep_at: usize,
}

struct Interner {
    hasher: DefaultHashBuilder,
    shards: Box<[Mutex<Shard>]>,
}

const SHARDS: usize = 64;
const SWEEP_MINIMUM: usize = 1024;

static INTERNER: LazyLock<Interner> = LazyLock::new(|| Interner {
    hasher: DefaultHashBuilder::default(),
    shards: (0..SHARDS).map(|_| Mutex::new(Shard { table: HashTable::new(), sweep_at: SWEEP_MINIMUM })).collect(),
});

static EMPTY: LazyLock<Text> = LazyLock::new(|| Text::new(""));

impl Interner {
    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table takes its bits from both ends of the hash; the shard takes some of the middle. A panic while the
        // lock is held can only be an allocation failure between two whole states of the table.
        self.shards[(hash >> 32) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Text {
    /// The handle of `text`, shared with every other handle of an equal string.
    pub fn new(text: &str) -> Self {
        let interner = &*INTERNER;
        let hash = interner.hasher.hash_one(text);
        let mut shard = interner.shard(hash);
        if let Some(entry) = shard.table.find(hash, |entry| entry.hash == hash && *entry.text == *text) {
            return Text(entry.text.clone());
        }
        if shard.table.len() >= shard.sweep_at {
            // Two threads that drop the last two handles at once may each see the other's and leave the entry behind.
            shard.table.retain(|entry| Arc::strong_count(&entry.text) > 1);
            shard.sweep_at = (shard.table.len() * 2).max(SWEEP_MINIMUM);
        }
        let text: Arc<str> = Arc::from(text);
        shard.table.insert_unique(hash, Entry { hash, text: text.clone() }, |entry| entry.hash);
        Text(text)
    }

    /// The empty string.
    pub fn empty() -> &'static Text {
        &EMPTY
    }

    /// The string itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many distinct strings the process holds at the moment (for memory reports and tests).
    pub fn interned_count() -> usize {
        INTERNER.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).table.len()).sum()
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // Two: this handle and the table's.
        if Arc::strong_count(&self.0) > 2 {
            return;
        }
        let interner = &*INTERNER;
        let hash = interner.hasher.hash_one(&*self.0);
        let mut shard = interner.shard(hash);
        // New handles are made from the table's under this lock or from a handle; so if there are still only two, no
        // one else can get at the string.
        if Arc::strong_count(&self.0) > 2 {
            return;
        }
        if let Ok(entry) = shard.table.find_entry(hash, |entry| Arc::ptr_eq(&entry.text, &self.0)) {
            entry.remove();
        }
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        // The content matters only for an entry that a sweep removed while a handle was being made from another.
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        str::hash(&self.0, state);
    }
}

impl Default for Text {
    fn default() -> Self {
        EMPTY.clone()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::new(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text::new(&text)
    }
}

impl From<&Text> for Text {
    fn from(text: &Text) -> Self {
        text.clone()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashMap};

    /// Whether the interner has an entry for `text` without making one.
    fn is_interned(text: &str) -> bool {
        let hash = INTERNER.hasher.hash_one(text);
        INTERNER.shard(hash).table.find(hash, |entry| *entry.text == *text).is_some()
    }

    #[test]
    fn equal_strings_share_one_copy_which_goes_with_the_last_handle() {
        let first = Text::new("text-test-shared");
        let second = Text::new("text-test-shared");
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert_eq!(first, "text-test-shared");
        drop(first);
        assert!(is_interned("text-test-shared"));
        drop(second);
        assert!(!is_interned("text-test-shared"));
    }

    #[test]
    fn maps_and_sets_of_text_are_searched_by_str() {
        let map = HashMap::from([(Text::new("a"), 1), (Text::new("b"), 2)]);
        assert_eq!(map.get("b"), Some(&2));
        let set: BTreeSet<Text> = ["b", "a", "ab"].into_iter().map(Text::new).collect();
        assert_eq!(set.iter().map(|text| text.as_str()).collect::<Vec<_>>(), ["a", "ab", "b"]);
    }

    #[test]
    fn threads_that_make_and_drop_the_same_strings_leave_none_behind() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..5_000 {
                        let text = Text::new(&format!("text-test-race-{}", round % 7));
                        assert!(text.starts_with("text-test-race-"));
                        let _copy = text.clone();
                    }
                });
            }
        });
        for round in 0..7 {
            // An entry left behind by a race is taken over and removed by the next handle.
            drop(Text::new(&format!("text-test-race-{round}")));
            assert!(!is_interned(&format!("text-test-race-{round}")));
        }
    }
}
