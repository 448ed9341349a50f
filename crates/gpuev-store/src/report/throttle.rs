//! How long GPUs throttled, and why.

use gpuev::names::{throttlers, unnamed_throttlers};

use super::stretches::Stretches;
use super::summary::ThrottleSummary;

/// Throttlers by bit, and one for all that have no name.
const REASONS: usize = 65;
const UNNAMED: usize = 64;

/// What an event stands for: by default the driver tells once in so many nanoseconds.
const STANDS_FOR_NS: u64 = 60_000_000_000;

/// What one GPU's throttling comes to.
#[derive(Debug)]
pub(super) struct Throttling {
    of_any: Covered,
    /// Sorted by bit; most have none or a few.
    reasons: Vec<(usize, Covered)>,
    interrupts: u64,
    last_count: Option<u64>,
}

/// Events and the time that they stand for. Times are of one boot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Covered {
    pub(super) events: u64,
    total_ns: u64,
    /// What the last one stands for, as far as it is in the stream: from when to when.
    from_ns: u64,
    to_ns: u64,
}

impl Covered {
    fn add(&mut self, at_ns: u64, blind: &Stretches) {
        if self.events > 0 {
            self.close(at_ns, blind);
        }
        self.events += 1;
        self.from_ns = at_ns;
        self.to_ns = at_ns.saturating_add(STANDS_FOR_NS);
    }

    /// Nothing is known after `end_ns`, nor while the GPU was not watched.
    fn close(&mut self, end_ns: u64, blind: &Stretches) {
        let to_ns = self.to_ns.min(end_ns);
        let length_ns = to_ns.saturating_sub(self.from_ns) - blind.within(self.from_ns, to_ns);
        self.total_ns = self.total_ns.saturating_add(length_ns);
        self.from_ns = self.to_ns;
    }
}

impl Throttling {
    pub(super) fn new() -> Self {
        Self { of_any: Covered::default(), reasons: Vec::new(), interrupts: 0, last_count: None }
    }

    pub(super) fn add(&mut self, at_ns: u64, (mask, count): (u64, u64), blind: &Stretches) {
        self.of_any.add(at_ns, blind);
        // A lower count is that of a driver that was loaded anew.
        let since = self.last_count.map_or(0, |last| count.checked_sub(last).unwrap_or(count));
        self.interrupts = self.interrupts.saturating_add(since);
        self.last_count = Some(count);
        let unnamed = unnamed_throttlers(mask);
        for bit in (0..64).filter(|bit| (mask & !unnamed) >> bit & 1 == 1) {
            self.reason(bit).add(at_ns, blind);
        }
        if unnamed != 0 || mask == 0 {
            self.reason(UNNAMED).add(at_ns, blind);
        }
    }

    fn reason(&mut self, bit: usize) -> &mut Covered {
        let place = match self.reasons.binary_search_by_key(&bit, |(bit, _)| *bit) {
            Ok(place) => place,
            Err(place) => {
                self.reasons.insert(place, (bit, Covered::default()));
                place
            }
        };
        &mut self.reasons[place].1
    }

    /// The stream of one boot ends at `end_ns`.
    pub(super) fn close(&mut self, end_ns: u64, blind: &Stretches) {
        self.of_any.close(end_ns, blind);
        self.reasons.iter_mut().for_each(|(_, covered)| covered.close(end_ns, blind));
        self.last_count = None;
    }

    pub(super) fn throttled_ns(&self) -> u64 {
        self.of_any.total_ns
    }

    pub(super) fn interrupts(&self) -> u64 {
        self.interrupts
    }
}

/// The reasons of all GPUs, each with the time that it was watched, the longest first.
pub(super) fn by_reason<'a>(
    gpus: impl Iterator<Item = (&'a Throttling, u64)>,
) -> Vec<ThrottleSummary> {
    let mut all: Vec<Option<ThrottleSummary>> = vec![None; REASONS];
    let reasons = gpus.flat_map(|(gpu, watched_ns)| {
        gpu.reasons.iter().map(move |(bit, covered)| (bit, covered, watched_ns))
    });
    for (bit, covered, watched_ns) in reasons {
        let summary = all[*bit].get_or_insert_with(|| ThrottleSummary {
            reason: if *bit < 64 { throttlers(1 << bit).next() } else { None },
            events: 0,
            gpus: 0,
            watched_ns: 0,
            throttled_ns: 0,
        });
        summary.events += covered.events;
        summary.gpus += 1;
        summary.watched_ns = summary.watched_ns.saturating_add(watched_ns);
        summary.throttled_ns = summary.throttled_ns.saturating_add(covered.total_ns);
    }
    let mut reasons: Vec<_> = all.into_iter().flatten().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse((reason.throttled_ns, reason.events)));
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_event_stands_for_a_minute_or_until_the_next_or_until_the_end() {
        let mut throttling = Throttling::new();
        for (at, mask, count) in [(10, 1 << 36, 5), (30, 1, 9), (100, 1 << 36, 2), (500, 1, 3)] {
            throttling.add(at * SECOND, (mask, count), &Stretches::default());
        }
        throttling.close(520 * SECOND, &Stretches::default());
        assert_eq!(throttling.throttled_ns(), (20 + 60 + 60 + 20) * SECOND);
        assert_eq!(
            throttling.interrupts(),
            4 + 2 + 1,
            "the driver was loaded anew before the third"
        );
        let reasons = by_reason([(&throttling, SECOND)].into_iter());
        let hot = reasons.iter().find(|reason| reason.reason == Some("TEMP_HOTSPOT")).unwrap();
        assert_eq!((hot.events, hot.gpus, hot.throttled_ns), (2, 1, 120 * SECOND));
        let power = reasons.iter().find(|reason| reason.reason == Some("PPT0")).unwrap();
        assert_eq!(power.throttled_ns, 80 * SECOND);
    }

    #[test]
    fn throttlers_without_a_name_are_told_together() {
        let mut throttling = Throttling::new();
        let watched = Stretches::default();
        throttling.add(0, (1 << 63 | 1 << 62, 1), &watched);
        throttling.add(SECOND, (0, 2), &watched);
        throttling.close(SECOND, &watched);
        let reasons = by_reason([(&throttling, SECOND)].into_iter());
        assert_eq!(reasons.len(), 1);
        assert_eq!((reasons[0].reason, reasons[0].events), (None, 2));
    }
}
