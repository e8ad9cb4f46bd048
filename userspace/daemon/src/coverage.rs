//! Event counters behind `coverage/show` and `coverage/read-counter` (host contract R-6).
//!
//! A counter is a `static` in the module that counts; [`register`] makes it known, so that one that never fired is
//! counted among the "events never hit". Rates come from samples taken every five seconds by [`sample`].

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often [`sample`] must be called for the rates to mean what their headings say.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
const SAMPLES_PER_MINUTE: usize = 12;
const MINUTES_PER_HOUR: usize = 60;

/// A count of one kind of event since the start of the process.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    total: AtomicU64,
}

impl Counter {
    /// A counter at zero; `name` is what `coverage/read-counter` takes.
    pub const fn new(name: &'static str) -> Counter {
        Counter { name, total: AtomicU64::new(0) }
    }

    /// Counts one event.
    pub fn hit(&self) {
        self.add(1);
    }

    /// Counts `n` events.
    pub fn add(&self, n: u64) {
        self.total.fetch_add(n, Ordering::Relaxed);
    }

    /// Events since the start of the process.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

struct History {
    counter: &'static Counter,
    last: u64,
    per_sample: [u64; SAMPLES_PER_MINUTE],
    per_minute: [u64; MINUTES_PER_HOUR],
}

struct Registry {
    counters: Vec<History>,
    samples: usize,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { counters: Vec::new(), samples: 0 });

fn registry() -> std::sync::MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes counters known to `coverage/show`; a counter registered twice counts once.
pub fn register(counters: &[&'static Counter]) {
    let mut registry = registry();
    for counter in counters {
        if !registry.counters.iter().any(|known| known.counter.name == counter.name) {
            registry.counters.push(History {
                counter,
                last: counter.total(),
                per_sample: [0; SAMPLES_PER_MINUTE],
                per_minute: [0; MINUTES_PER_HOUR],
            });
        }
    }
}

/// Takes one sample of every counter; to be called each [`SAMPLE_INTERVAL`].
pub fn sample() {
    let mut registry = registry();
    let slot = registry.samples % SAMPLES_PER_MINUTE;
    let minute = registry.samples / SAMPLES_PER_MINUTE % MINUTES_PER_HOUR;
    registry.samples += 1;
    for history in &mut registry.counters {
        let total = history.counter.total();
        let events = total - history.last;
        history.last = total;
        history.per_sample[slot] = events;
        if slot == 0 {
            history.per_minute[minute] = 0;
        }
        history.per_minute[minute] += events;
    }
}

/// The value of a counter, for `coverage/read-counter`.
pub fn read(name: &str) -> Option<u64> {
    registry().counters.iter().find(|history| history.counter.name == name).map(|history| history.counter.total())
}

/// Every counter and its value, by name.
pub fn totals() -> Vec<(&'static str, u64)> {
    let mut all: Vec<_> =
        registry().counters.iter().map(|history| (history.counter.name, history.counter.total())).collect();
    all.sort_unstable();
    all
}

/// The text of `coverage/show`: a heading, a line for each counter that fired, the number of those that never did.
pub fn show() -> String {
    let registry = registry();
    let mut fired: Vec<&History> = registry.counters.iter().filter(|history| history.counter.total() > 0).collect();
    fired.sort_by_key(|history| history.counter.name);
    let latest = (registry.samples + SAMPLES_PER_MINUTE - 1) % SAMPLES_PER_MINUTE;

    let mut hash = DefaultHasher::new();
    for history in &fired {
        hash.write(history.counter.name.as_bytes());
        hash.write_u64(history.counter.total());
    }
    let mut text = format!(
        "Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash={:08x}:\n",
        hash.finish() as u32
    );
    for history in &fired {
        let sampled: u64 = history.per_sample.iter().sum();
        let hour: u64 = history.per_minute.iter().sum();
        let _ = writeln!(
            text,
            "{:<24} {:5.1}/sec {:9.3}/sec {:13.4}/sec   total: {}",
            history.counter.name,
            history.per_sample[latest] as f64 / 5.0,
            sampled as f64 / 60.0,
            hour as f64 / 3600.0,
            history.counter.total()
        );
    }
    let _ = writeln!(text, "{} events never hit", registry.counters.len() - fired.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    static SEEN: Counter = Counter::new("test_seen");
    static UNSEEN: Counter = Counter::new("test_unseen");

    // One test, because the registry is one per process.
    #[test]
    fn shows_rates_totals_and_what_never_fired() {
        register(&[&SEEN, &UNSEEN]);
        register(&[&SEEN]);
        SEEN.add(10);
        sample();
        let shown = show();
        assert!(
            shown.contains("test_seen                  2.0/sec     0.167/sec        0.0028/sec   total: 10\n"),
            "{shown}"
        );
        assert!(shown.starts_with("Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash="));
        assert!(!shown.contains("test_unseen"), "{shown}");
        for _ in 0..SAMPLES_PER_MINUTE {
            sample();
        }
        let shown = show();
        assert!(
            shown.contains("test_seen                  0.0/sec     0.000/sec        0.0028/sec   total: 10\n"),
            "{shown}"
        );
        for _ in 0..SAMPLES_PER_MINUTE * MINUTES_PER_HOUR {
            sample();
        }
        assert!(show().contains("0.0000/sec   total: 10"), "{}", show());
        assert_eq!(read("test_seen"), Some(10));
        assert_eq!(read("test_unseen"), Some(0));
        assert_eq!(read("no_such"), None);
    }
}
