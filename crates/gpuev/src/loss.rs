//! Losses that the driver does not report, inferred from how full its FIFO was.
//!
//! The driver drops a message that does not fit whole, and says nothing. A message takes at most
//! [`LONGEST_MESSAGE`] bytes and only reading frees space; so where a read that takes all finds no more than
//! `capacity - LONGEST_MESSAGE` bytes, nothing was dropped since the read before, and where it finds more,
//! something may have been.

use gpuev_kfd::KfdVersion;
use gpuev_kfd::framing::LONGEST_MESSAGE;

/// The capacity of event FIFOs since Linux 6.13.
const LARGE_FIFO: usize = 8192;

/// Watches the fill of one event file's FIFO.
#[derive(Debug)]
pub(crate) struct FifoWatch {
    capacity: usize,
    /// Bytes read since the FIFO was last known to be empty.
    read: usize,
    /// Bytes of whole messages handed out of those.
    handed_out: usize,
    reported: bool,
}

impl FifoWatch {
    pub(crate) fn new(version: KfdVersion) -> Self {
        Self { capacity: version.smallest_fifo(), read: 0, handed_out: 0, reported: false }
    }

    /// The FIFO's size in bytes, as far as known.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The FIFO was empty at this moment.
    pub(crate) fn emptied(&mut self) {
        self.read = 0;
        self.handed_out = 0;
        self.reported = false;
    }

    /// Reads took `count` bytes, the largest of them `largest`.
    pub(crate) fn read(&mut self, count: usize, largest: usize) {
        self.read += count;
        if largest > self.capacity {
            // Linux 6.13 enlarged it without a new version: the read proves it.
            self.capacity = LARGE_FIFO.max(largest);
        }
    }

    /// A message of `length` bytes was handed out. Tells, once until the FIFO is next empty, when the
    /// message is the first behind which one may be missing.
    pub(crate) fn may_miss_next(&mut self, length: usize) -> bool {
        self.handed_out += length;
        let threshold = self.capacity.saturating_sub(LONGEST_MESSAGE);
        let filled = self.read > threshold && self.handed_out > threshold;
        let missing = filled && !self.reported;
        self.reported |= missing;
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: KfdVersion = KfdVersion { major: 1, minor: 23 };
    const OLD: KfdVersion = KfdVersion { major: 1, minor: 17 };

    fn gaps(watch: &mut FifoWatch, lengths: &[usize]) -> Vec<usize> {
        watch.emptied();
        let count = lengths.iter().sum();
        watch.read(count, count);
        lengths
            .iter()
            .enumerate()
            .filter_map(|(at, length)| watch.may_miss_next(*length).then_some(at))
            .collect()
    }

    #[test]
    fn up_to_the_threshold_nothing_is_missing() {
        assert_eq!(gaps(&mut FifoWatch::new(NEW), &[8089]), [0; 0]);
        assert_eq!(gaps(&mut FifoWatch::new(NEW), &[8089, 1, 50]), [1]);
        assert_eq!(gaps(&mut FifoWatch::new(OLD), &[60; 16]), [15]);
    }

    #[test]
    fn a_larger_read_proves_a_larger_fifo() {
        let mut watch = FifoWatch::new(OLD);
        assert_eq!(gaps(&mut watch, &[60; 20]), [0; 0]);
        assert_eq!(gaps(&mut watch, &[60; 16]), [0; 0]);
        assert_eq!(gaps(&mut watch, &[60; 136]), [134]);
    }
}
