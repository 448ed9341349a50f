//! How long the draining thread lets events gather before it reads again.
//!
//! Below some 20,000 events a second it does not: it reads when the driver wakes it. Above, a wake-up for each
//! event would cost more than all else, and the subscriber, who is woken as often, would keep the thread from
//! the processor while the FIFO fills. So it sleeps for a moment, at most as long as a quarter of the FIFO
//! takes to fill; the small FIFOs of kernels before 6.13 are too small for any pause.

use std::time::{Duration, Instant};

/// The longest pause: what an event may come later than it could, in a storm.
const LONGEST: Duration = Duration::from_micros(200);
/// A pause that gathers fewer bytes is not worth it: four short lines.
const WORTH_IT: u64 = 256;
/// The rate is taken over at least this long.
const WINDOW: Duration = Duration::from_millis(1);

/// What one reader gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// How many bytes.
    pub(crate) bytes: usize,
    /// How many the driver's FIFO holds; `None` once the reader has none.
    pub(crate) fifo: Option<usize>,
}

/// The rate at which the driver writes, over all readers.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    bytes: u64,
    /// The smallest FIFO of those that gave anything since.
    fifo: u64,
    bytes_per_second: u64,
    /// The smallest FIFO of those that the rate is of.
    smallest_fifo: u64,
}

impl Default for Pace {
    fn default() -> Self {
        let (since, fifo) = (Instant::now(), u64::MAX);
        Self { since, bytes: 0, fifo, bytes_per_second: 0, smallest_fifo: fifo }
    }
}

impl Pace {
    /// Takes in what one reader gave.
    pub(crate) fn read(&mut self, read: Read) {
        self.bytes += read.bytes as u64;
        if let Some(fifo) = read.fifo.filter(|_| read.bytes > 0) {
            self.fifo = self.fifo.min(fifo as u64);
        }
    }

    /// A storm begins and ends at any moment, so that a schedule does not depend on the clock.
    #[cfg(gpuev_shuttle)]
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        use shuttle::rand::Rng;
        shuttle::rand::thread_rng().gen_bool(0.2).then_some(LONGEST)
    }

    /// How long to sleep now, if at all.
    #[cfg(not(gpuev_shuttle))]
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        let elapsed = self.since.elapsed();
        if elapsed >= WINDOW {
            let per_second = u128::from(self.bytes) * 1_000_000_000 / elapsed.as_nanos();
            self.bytes_per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
            self.smallest_fifo = std::mem::replace(&mut self.fifo, u64::MAX);
            self.bytes = 0;
            self.since = Instant::now();
        }
        pause_at(self.bytes_per_second, self.smallest_fifo)
    }
}

fn pause_at(bytes_per_second: u64, fifo: u64) -> Option<Duration> {
    let gathered_in = |pause: Duration| {
        let bytes = u128::from(bytes_per_second) * pause.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    let most = gathered_in(LONGEST).min(fifo / 4);
    if most <= WORTH_IT {
        return None;
    }
    Some(Duration::from_nanos(most.saturating_mul(1_000_000_000) / bytes_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_stream_is_read_at_once() {
        assert_eq!(pause_at(0, 8192), None);
        assert_eq!(pause_at(1_000_000, 8192), None, "some 15,000 events a second");
    }

    #[test]
    fn a_storm_gathers_for_a_moment() {
        assert_eq!(pause_at(4_000_000, 8192), Some(LONGEST));
    }

    #[test]
    fn no_more_than_a_quarter_of_the_fifo_gathers() {
        let pause = pause_at(65_000_000, 8192).expect("a storm should pause");
        assert_eq!(pause, Duration::from_nanos(2048 * 1_000_000_000 / 65_000_000));
    }

    #[test]
    fn a_small_fifo_bears_no_pause() {
        assert_eq!(pause_at(u64::MAX, 1024), None);
    }
}
