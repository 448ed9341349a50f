//! Losses that the driver does not report, inferred from how full its FIFO was.
//!
//! The driver drops a message that does not fit whole, and says nothing. A message takes at most
//! [`LONGEST_MESSAGE`] bytes and only reading frees space; so where a read that takes all finds no more than
//! `capacity - LONGEST_MESSAGE` bytes, nothing was dropped since the read before, and where it finds more,
//! something may have been.

use gpuev_kfd::KfdVersion;
use gpuev_kfd::framing::LONGEST_MESSAGE;

use crate::Machine;
use crate::machine::files;

/// The capacity of event FIFOs before Linux 6.13.
const SMALL_FIFO: usize = 1024;
/// The capacity of event FIFOs since Linux 6.13, the largest that is known.
const LARGE_FIFO: usize = 8192;
/// The kernel that enlarged them.
const FIRST_WITH_LARGE_FIFO: (u32, u32) = (6, 13);

/// The smallest capacity that the event FIFOs of this machine's driver may have.
///
/// The kernel's own driver is as old as the kernel or, in a distribution's kernel, newer, and the version of its
/// interface grew after its FIFO. AMD's own driver, which alone has a version in sysfs, numbers its interface by
/// itself: nothing says how large its FIFO is until a read proves it.
pub(crate) fn smallest_fifo(machine: &Machine, version: KfdVersion) -> usize {
    if files::non_empty(&machine.path("sys/module/amdgpu/version")).is_some() {
        return SMALL_FIFO;
    }
    let release = machine.kernel_release().unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let kernel = numbers.next().zip(numbers.next());
    match kernel {
        Some(kernel) if kernel >= FIRST_WITH_LARGE_FIFO => LARGE_FIFO,
        _ => version.smallest_fifo(),
    }
}

/// Watches the fill of one event file's FIFO.
#[derive(Debug)]
pub(crate) struct FifoWatch {
    capacity: usize,
    /// Bytes read since the FIFO was last known to be empty.
    read: usize,
    /// Bytes of whole messages handed out of those.
    handed_out: usize,
    /// Told of the read that messages are taken from now.
    reported: bool,
}

impl FifoWatch {
    /// That of a FIFO that holds `capacity` bytes at least.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, read: 0, handed_out: 0, reported: false }
    }

    /// The FIFO's size in bytes, as far as known.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes up to which the FIFO has dropped nothing.
    fn threshold(&self) -> usize {
        self.capacity.saturating_sub(LONGEST_MESSAGE)
    }

    /// Whether something may have been dropped before a read that took `count` bytes.
    pub(crate) fn is_suspicious(&self, count: usize) -> bool {
        count > self.threshold()
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
        self.reported = false;
        if largest > self.capacity {
            // The read proves it. A larger one than any known FIFO gives proves nothing about what else fits.
            self.capacity = LARGE_FIFO.max(self.capacity);
        }
    }

    /// A message of `length` bytes was handed out. Tells, once for each read, when the message is the first behind
    /// which one may be missing.
    pub(crate) fn may_miss_next(&mut self, length: usize) -> bool {
        self.handed_out += length;
        let threshold = self.threshold();
        let filled = self.read > threshold && self.handed_out > threshold;
        let missing = filled && !self.reported;
        self.reported |= missing;
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(gaps(&mut FifoWatch::new(LARGE_FIFO), &[8089]), [0; 0]);
        assert_eq!(gaps(&mut FifoWatch::new(LARGE_FIFO), &[8089, 1, 50]), [1]);
        assert_eq!(gaps(&mut FifoWatch::new(SMALL_FIFO), &[60; 16]), [15]);
    }

    #[test]
    fn a_larger_read_proves_a_larger_fifo() {
        let mut watch = FifoWatch::new(SMALL_FIFO);
        assert_eq!(gaps(&mut watch, &[60; 20]), [0; 0]);
        assert_eq!(gaps(&mut watch, &[60; 16]), [0; 0]);
        assert_eq!(gaps(&mut watch, &[60; 136]), [134]);
    }

    #[test]
    fn a_read_larger_than_every_known_fifo_raises_nothing() {
        for start in [SMALL_FIFO, LARGE_FIFO] {
            let mut watch = FifoWatch::new(start);
            assert_eq!(gaps(&mut watch, &[100; 200]), [80]);
            assert_eq!(gaps(&mut watch, &[100; 82]), [80]);
        }
    }

    #[test]
    fn a_read_that_goes_on_may_miss_again() {
        let mut watch = FifoWatch::new(SMALL_FIFO);
        assert_eq!(gaps(&mut watch, &[100; 10]), [9]);
        watch.read(200, 200);
        assert!(watch.may_miss_next(100), "between the two reads");
        assert!(!watch.may_miss_next(100));
    }
}
