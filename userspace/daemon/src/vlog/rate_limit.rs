//! Limits on messages that an attacker or a broken peer could repeat at will.

use std::time::Instant;

/// A token bucket in front of one log statement: `per_minute` messages a minute, after a burst of as many.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_minute: u32,
    tokens: f64,
    filled: Instant,
    dropped: u32,
    first_dropped: Instant,
    last_dropped: Instant,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Log it, after this note about what was left out since the last one.
    PassAfter(String),
    Drop,
}

impl RateLimit {
    pub(super) fn new(per_minute: u32, now: Instant) -> RateLimit {
        RateLimit {
            per_minute,
            tokens: f64::from(per_minute),
            filled: now,
            dropped: 0,
            first_dropped: now,
            last_dropped: now,
        }
    }

    pub(super) fn judge(&mut self, now: Instant) -> Verdict {
        let rate = f64::from(self.per_minute);
        let refill = now.saturating_duration_since(self.filled).as_secs_f64() * rate / 60.0;
        self.tokens = (self.tokens + refill).min(rate);
        self.filled = now;
        if self.tokens < 1.0 {
            if self.dropped == 0 {
                self.first_dropped = now;
            }
            self.last_dropped = now;
            self.dropped += 1;
            return Verdict::Drop;
        }
        self.tokens -= 1.0;
        if self.dropped == 0 {
            return Verdict::Pass;
        }
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let note = format!(
            "Dropped {} log messages in last {} seconds (most recently, {} seconds ago) due to excessive rate",
            self.dropped,
            seconds(self.first_dropped),
            seconds(self.last_dropped)
        );
        self.dropped = 0;
        Verdict::PassAfter(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_the_rest_is_counted() {
        let start = Instant::now();
        let mut limit = RateLimit::new(5, start);
        for _ in 0..5 {
            assert_eq!(limit.judge(start), Verdict::Pass);
        }
        for second in 0..7 {
            assert_eq!(limit.judge(start + Duration::from_secs(second)), Verdict::Drop);
        }
        let note = "Dropped 7 log messages in last 13 seconds (most recently, 7 seconds ago) due to excessive rate";
        assert_eq!(limit.judge(start + Duration::from_secs(13)), Verdict::PassAfter(note.to_owned()));
        assert_eq!(limit.judge(start + Duration::from_secs(13)), Verdict::Drop);
        assert!(matches!(limit.judge(start + Duration::from_secs(100)), Verdict::PassAfter(_)));
    }
}
