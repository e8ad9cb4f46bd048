//! Timings behind `stopwatch/show` and `stopwatch/reset` (host contract R-7).

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Weight of the newest sample in the short-term and long-term exponentially weighted averages.
const SHORT_TERM: f64 = 0.5;
const LONG_TERM: f64 = 0.01;
/// The quantile reported, and the samples needed before the estimate says anything.
const QUANTILE: f64 = 0.95;
const MARKERS: usize = 5;

/// Running estimate of a quantile without keeping the samples: the P² algorithm of Jain and Chlamtac (CACM 28(10),
/// 1985). Five markers hold the minimum, the quantile, the maximum and the points half way; each sample moves the
/// inner markers towards their ideal positions along a parabola through their neighbours.
#[derive(Clone, Debug, Default)]
struct Quantile {
    seen: usize,
    height: [f64; MARKERS],
    position: [f64; MARKERS],
}

impl Quantile {
    fn add(&mut self, sample: f64) {
        if self.seen < MARKERS {
            self.height[self.seen] = sample;
            self.seen += 1;
            if self.seen == MARKERS {
                self.height.sort_by(f64::total_cmp);
                self.position = [1.0, 2.0, 3.0, 4.0, 5.0];
            }
            return;
        }
        self.seen += 1;
        let cell = if sample < self.height[0] {
            self.height[0] = sample;
            0
        } else if sample >= self.height[MARKERS - 1] {
            self.height[MARKERS - 1] = sample;
            MARKERS - 2
        } else {
            (1..MARKERS).find(|&i| sample < self.height[i]).map_or(MARKERS - 2, |i| i - 1)
        };
        for position in &mut self.position[cell + 1..] {
            *position += 1.0;
        }
        let last = (self.seen - 1) as f64;
        let fractions = [0.0, QUANTILE / 2.0, QUANTILE, (1.0 + QUANTILE) / 2.0, 1.0];
        for (i, fraction) in fractions.into_iter().enumerate().take(MARKERS - 1).skip(1) {
            let offset = 1.0 + last * fraction - self.position[i];
            let (below, above) = (self.position[i] - self.position[i - 1], self.position[i + 1] - self.position[i]);
            if (offset >= 1.0 && above > 1.0) || (offset <= -1.0 && below > 1.0) {
                let step = offset.signum();
                let slope_above = (self.height[i + 1] - self.height[i]) / above;
                let slope_below = (self.height[i] - self.height[i - 1]) / below;
                let parabolic = self.height[i]
                    + step / (above + below) * ((below + step) * slope_above + (above - step) * slope_below);
                self.height[i] = if self.height[i - 1] < parabolic && parabolic < self.height[i + 1] {
                    parabolic
                } else if step > 0.0 {
                    self.height[i] + slope_above
                } else {
                    self.height[i] - slope_below
                };
                self.position[i] += step;
            }
        }
    }

    fn estimate(&self) -> f64 {
        if self.seen < MARKERS { 0.0 } else { self.height[2] }
    }
}

#[derive(Clone, Debug, Default)]
struct Statistics {
    samples: u64,
    maximum: u64,
    minimum: u64,
    quantile: Quantile,
    short_term: f64,
    long_term: f64,
}

impl Statistics {
    fn add(&mut self, msec: u64) {
        let sample = msec as f64;
        if self.samples == 0 {
            self.minimum = msec;
            self.short_term = sample;
            self.long_term = sample;
        } else {
            self.short_term += SHORT_TERM * (sample - self.short_term);
            self.long_term += LONG_TERM * (sample - self.long_term);
        }
        self.samples += 1;
        self.minimum = self.minimum.min(msec);
        self.maximum = self.maximum.max(msec);
        self.quantile.add(sample);
    }

    fn show(&self, name: &str, text: &mut String) {
        let _ = write!(
            text,
            "Statistics for '{name}'\n  Total samples: {}\n  Maximum: {} msec\n  Minimum: {} msec\n  \
             95th percentile: {:.6} msec\n  Short term average: {:.6} msec\n  Long term average: {:.6} msec\n",
            self.samples,
            self.maximum,
            self.minimum,
            self.quantile.estimate(),
            self.short_term,
            self.long_term
        );
    }
}

static STOPWATCHES: Mutex<Vec<(&'static str, Statistics)>> = Mutex::new(Vec::new());

fn stopwatches() -> std::sync::MutexGuard<'static, Vec<(&'static str, Statistics)>> {
    STOPWATCHES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes stopwatches known before their first sample, in the order `stopwatch/show` lists them.
pub fn register(names: &[&'static str]) {
    let mut stopwatches = stopwatches();
    for name in names {
        if !stopwatches.iter().any(|(known, _)| known == name) {
            stopwatches.push((name, Statistics::default()));
        }
    }
}

/// Adds a sample, in whole milliseconds as stock counts them, making the stopwatch known on first use.
pub fn record(name: &'static str, took: Duration) {
    let msec = took.as_millis().try_into().unwrap_or(u64::MAX);
    let mut stopwatches = stopwatches();
    match stopwatches.iter_mut().find(|(known, _)| *known == name) {
        Some((_, statistics)) => statistics.add(msec),
        None => {
            let mut statistics = Statistics::default();
            statistics.add(msec);
            stopwatches.push((name, statistics));
        }
    }
}

/// Runs `work` under the stopwatch `name`.
pub fn time<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    record(name, start.elapsed());
    result
}

/// What a stopwatch has seen; times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Samples.
    pub samples: u64,
    /// Longest.
    pub maximum: u64,
    /// Shortest.
    pub minimum: u64,
    /// Estimate of the 95th percentile.
    pub percentile: f64,
    /// Average in which the newest samples weigh most.
    pub short_term: f64,
    /// Average in which they weigh little.
    pub long_term: f64,
}

/// Every stopwatch by name.
pub fn figures() -> Vec<(&'static str, Figures)> {
    let of = |statistics: &Statistics| Figures {
        samples: statistics.samples,
        maximum: statistics.maximum,
        minimum: statistics.minimum,
        percentile: statistics.quantile.estimate(),
        short_term: statistics.short_term,
        long_term: statistics.long_term,
    };
    stopwatches().iter().map(|(name, statistics)| (*name, of(statistics))).collect()
}

/// The text of `stopwatch/show`, of all or of one; `None` if there is no such stopwatch.
pub fn show(name: Option<&str>) -> Option<String> {
    let stopwatches = stopwatches();
    let mut text = String::new();
    for (known, statistics) in stopwatches.iter().filter(|(known, _)| name.is_none_or(|name| name == *known)) {
        statistics.show(known, &mut text);
    }
    (name.is_none() || !text.is_empty()).then_some(text)
}

/// Forgets the samples of all stopwatches or of one; an unknown name changes nothing, as with stock.
pub fn reset(name: Option<&str>) {
    for (_, statistics) in stopwatches().iter_mut().filter(|(known, _)| name.is_none_or(|name| name == *known)) {
        *statistics = Statistics::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_stocks() {
        record("test-text", Duration::from_millis(1));
        record("test-text", Duration::from_micros(900));
        // What stock prints for samples of 1 and 0 milliseconds.
        assert_eq!(
            show(Some("test-text")).unwrap(),
            "Statistics for 'test-text'\n  Total samples: 2\n  Maximum: 1 msec\n  Minimum: 0 msec\n  95th percentile: \
             0.000000 msec\n  Short term average: 0.500000 msec\n  Long term average: 0.990000 msec\n"
        );
        reset(Some("test-text"));
        assert!(show(Some("test-text")).unwrap().contains("Total samples: 0\n"));
        assert_eq!(show(Some("no such")), None);
    }

    #[test]
    fn the_percentile_comes_close_on_a_shuffled_range() {
        let mut quantile = Quantile::default();
        for i in 0..1000u64 {
            quantile.add((i * 373 % 1000) as f64);
        }
        assert!((quantile.estimate() - 950.0).abs() < 15.0, "{}", quantile.estimate());
    }

    #[test]
    fn the_percentile_of_equal_samples_is_that_sample() {
        let mut quantile = Quantile::default();
        for _ in 0..100 {
            quantile.add(7.0);
        }
        assert_eq!(quantile.estimate(), 7.0);
    }
}
