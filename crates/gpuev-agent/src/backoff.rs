//! How long to wait before trying again: longer each time, and never in step with others.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// Doubles from `first` to `most`. Each delay is drawn from the upper half of its step, so that many agents
/// that lost one server at one moment do not come back at one moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    random: RandomState,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most: most.max(first), failures: 0, random: RandomState::new() }
    }

    /// It worked: the next delay is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after so many `failures` before the one of now, for who keeps count himself.
    pub(crate) fn after(first: Duration, most: Duration, failures: u32) -> Duration {
        Self { failures, ..Self::new(first, most) }.next()
    }

    /// It failed once more: how long to wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let step = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        // `RandomState` has random keys: what it makes of a counter is even enough to spread agents.
        let share = self.random.hash_one(self.failures) % 1000;
        step.mul_f64(0.5 + f64::from(u32::try_from(share).unwrap_or(0)) / 2000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_most_and_begin_anew_after_success() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, most);
        for step in [100, 200, 400, 800, 1600, 2000, 2000] {
            let delay = backoff.next();
            let step = Duration::from_millis(step);
            assert!(delay >= step / 2 && delay <= step, "{delay:?} of {step:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next() <= most);
        }
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
