//! When to connect where: the remotes in shuffled order, and how long to wait between attempts.

use std::time::Duration;

/// The first wait, and the least that an attempt may take.
pub(super) const MINIMUM_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait.
pub(super) const MAXIMUM_BACKOFF: Duration = Duration::from_secs(8);

/// Chooses remotes and waits.
///
/// One round over all the remotes is free of waits; then the waits are 1, 2, 4, 8, 8 … seconds, until a connection has
/// been useful for at least as long as the wait that led to it. A follower that answers one who needs the leader says that the cluster lives and that
/// an election, which takes a second or two, is the most that can be under way: the waits begin at 1 second again.
#[derive(Debug)]
pub(super) struct Reconnect {
    remotes: Vec<String>,
    next: usize,
    free_tries: usize,
    backoff: Duration,
    random: u64,
}

impl Reconnect {
    /// `seed` decides the order; clients of one cluster need different ones to spread over it.
    pub(super) fn new(remotes: Vec<String>, seed: u64) -> Self {
        let mut reconnect =
            Reconnect { remotes: Vec::new(), next: 0, free_tries: 0, backoff: Duration::ZERO, random: seed | 1 };
        reconnect.set_remotes(remotes);
        reconnect
    }

    pub(super) fn set_remotes(&mut self, mut remotes: Vec<String>) {
        for index in (1..remotes.len()).rev() {
            remotes.swap(index, self.random_below(index + 1));
        }
        self.remotes = remotes;
        self.next = 0;
        self.reset();
    }

    fn random_below(&mut self, limit: usize) -> usize {
        // xorshift64: spreading clients needs no better.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % limit as u64) as usize
    }

    pub(super) fn remotes(&self) -> &[String] {
        &self.remotes
    }

    /// The remote to try; `None` when there is none at all.
    pub(super) fn next_remote(&mut self) -> Option<String> {
        let remote = self.remotes.get(self.next)?.clone();
        self.next = (self.next + 1) % self.remotes.len();
        Some(remote)
    }

    /// Attempts start over without waits.
    pub(super) fn reset(&mut self) {
        self.free_tries = self.remotes.len();
        self.backoff = Duration::ZERO;
    }

    /// How long to wait before the next attempt.
    pub(super) fn next_wait(&mut self) -> Duration {
        if self.free_tries > 0 {
            self.free_tries -= 1;
            return Duration::ZERO;
        }
        self.backoff = (self.backoff * 2).clamp(MINIMUM_BACKOFF, MAXIMUM_BACKOFF);
        self.backoff
    }

    /// A member of the cluster answered, and is not its leader.
    pub(super) fn met_a_follower(&mut self) {
        self.backoff = Duration::ZERO;
    }

    /// How long an attempt may take.
    pub(super) fn attempt_limit(&self) -> Duration {
        self.backoff.max(MINIMUM_BACKOFF)
    }

    /// A connection ended that was synchronised for this long.
    pub(super) fn was_useful(&mut self, time: Duration) {
        if time >= self.backoff.max(MINIMUM_BACKOFF) {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(reconnect: &mut Reconnect, count: usize) -> Vec<u64> {
        (0..count).map(|_| reconnect.next_wait().as_secs()).collect()
    }

    #[test]
    fn one_round_is_free_then_waits_double_to_eight_seconds() {
        let mut reconnect = Reconnect::new(["a", "b", "c"].map(String::from).to_vec(), 7);
        assert_eq!(waits(&mut reconnect, 9), [0, 0, 0, 1, 2, 4, 8, 8, 8]);
        reconnect.was_useful(Duration::from_secs(7));
        assert_eq!(waits(&mut reconnect, 1), [8]);
        reconnect.was_useful(Duration::from_secs(8));
        assert_eq!(waits(&mut reconnect, 4), [0, 0, 0, 1]);
    }

    #[test]
    fn an_election_is_waited_for_a_second_at_a_time() {
        let mut reconnect = Reconnect::new(["a", "b", "c"].map(String::from).to_vec(), 7);
        assert_eq!(waits(&mut reconnect, 6), [0, 0, 0, 1, 2, 4]);
        for _ in 0..3 {
            // Two of three answer that they follow; the third is gone.
            reconnect.met_a_follower();
            assert_eq!(waits(&mut reconnect, 1), [1]);
            reconnect.met_a_follower();
            assert_eq!(waits(&mut reconnect, 2), [1, 2]);
        }
    }

    #[test]
    fn every_remote_gets_its_turn_and_seeds_give_different_orders() {
        let remotes: Vec<String> = (0..6).map(|index| format!("unix:{index}")).collect();
        let mut orders = std::collections::BTreeSet::new();
        for seed in 1..20 {
            let mut reconnect = Reconnect::new(remotes.clone(), seed * 0x9e37_79b9);
            let mut order: Vec<String> = (0..6).filter_map(|_| reconnect.next_remote()).collect();
            orders.insert(order.clone());
            order.sort();
            assert_eq!(order, remotes);
        }
        assert!(orders.len() > 5, "{orders:?}");
        assert_eq!(Reconnect::new(Vec::new(), 1).next_remote(), None);
    }
}
