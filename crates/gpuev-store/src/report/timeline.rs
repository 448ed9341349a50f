//! How many events when, in a bounded number of buckets whatever the time covered.

use gpuev::EventType;

/// Types of events, unknown ones included.
pub(super) const TYPES: usize = EventType::ALL.len() + 1;

/// At most so many buckets.
const BUCKETS: usize = 240;

/// Nanoseconds of the narrowest bucket.
const NARROWEST_NS: i64 = 1_000_000_000;

/// Counts over time in buckets of one width: a second, doubled as often as it takes for all to have room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    width_ns: i64,
    /// The first and the last bucket by number: `unix_ns / width_ns`.
    range: Option<(i64, i64)>,
    /// By series, then by bucket.
    series: Vec<[u64; BUCKETS]>,
    /// The bucket that was used last: from when to when, and which.
    last: (i64, i64, usize),
}

/// The series of gaps, after those of the types.
pub(super) const GAPS: usize = TYPES;
/// The series of the first GPU.
pub(super) const GPUS: usize = TYPES + 1;

impl Timeline {
    pub(super) fn new() -> Self {
        Self {
            width_ns: NARROWEST_NS,
            range: None,
            series: vec![[0; BUCKETS]; GPUS],
            last: (0, 0, 0),
        }
    }

    /// Makes room for one more GPU.
    pub(super) fn add_series(&mut self) {
        self.series.push([0; BUCKETS]);
    }

    /// The same with the GPUs' series in another order.
    pub(super) fn with_gpus_in(mut self, order: &[usize]) -> Self {
        let gpus = self.series.split_off(GPUS);
        self.series.extend(order.iter().filter_map(|place| gpus.get(*place)));
        self
    }

    /// Counts one at `unix_ns` in each of `series`.
    pub(super) fn count<const N: usize>(&mut self, unix_ns: i64, series: [usize; N]) {
        let bucket = self.bucket(unix_ns);
        for one in series {
            self.series[one][bucket] += 1;
        }
    }

    fn bucket(&mut self, unix_ns: i64) -> usize {
        let (from, to, bucket) = self.last;
        if from <= unix_ns && unix_ns < to {
            return bucket;
        }
        let bucket = self.make_room(unix_ns);
        let from = unix_ns.div_euclid(self.width_ns).saturating_mul(self.width_ns);
        self.last = (from, from.saturating_add(self.width_ns), bucket);
        bucket
    }

    fn make_room(&mut self, unix_ns: i64) -> usize {
        loop {
            let at = unix_ns.div_euclid(self.width_ns);
            let (first, last) = self.range.unwrap_or((at, at));
            let (first_now, last_now) = (first.min(at), last.max(at));
            let place = usize::try_from(last_now - first_now).unwrap_or(usize::MAX);
            if place < BUCKETS {
                let later = usize::try_from(first - first_now).unwrap_or(0);
                if later > 0 {
                    self.series.iter_mut().for_each(|buckets| buckets.rotate_right(later));
                }
                self.range = Some((first_now, last_now));
                return usize::try_from(at - first_now).unwrap_or(0);
            }
            self.double();
        }
    }

    /// Buckets of twice the width.
    fn double(&mut self) {
        let Some((first, last)) = self.range else { return };
        let odd = usize::from(first.rem_euclid(2) == 1);
        for buckets in &mut self.series {
            let mut wide = [0; BUCKETS];
            for (bucket, count) in buckets.iter().enumerate() {
                wide[(bucket + odd) / 2] += count;
            }
            *buckets = wide;
        }
        self.width_ns = self.width_ns.saturating_mul(2);
        self.range = Some((first.div_euclid(2), last.div_euclid(2)));
    }

    /// Nanoseconds that a bucket takes.
    #[must_use]
    pub fn width_ns(&self) -> i64 {
        self.width_ns
    }

    /// The beginning of the first bucket, in nanoseconds since 1970; `None` where there is none.
    #[must_use]
    pub fn from_unix_ns(&self) -> Option<i64> {
        self.range.map(|(first, _)| first.saturating_mul(self.width_ns))
    }

    /// The beginning of the bucket at `place`, in nanoseconds since 1970.
    pub(super) fn bucket_unix_ns(&self, place: usize) -> i64 {
        let after = self.width_ns.saturating_mul(i64::try_from(place).unwrap_or(i64::MAX));
        self.from_unix_ns().unwrap_or(0).saturating_add(after)
    }

    /// Number of buckets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.map_or(0, |(first, last)| usize::try_from(last - first + 1).unwrap_or(0))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
    }

    /// Events of all types by bucket.
    #[must_use]
    pub fn events(&self) -> Vec<u64> {
        let of_bucket = |bucket| self.series[..TYPES].iter().map(|series| series[bucket]).sum();
        (0..self.len()).map(of_bucket).collect()
    }

    /// Events of one type by bucket; `None` for unknown ones.
    #[must_use]
    pub fn of_type(&self, event_type: Option<EventType>) -> &[u64] {
        &self.series[type_index(event_type)][..self.len()]
    }

    /// Gaps by bucket, each at its end.
    #[must_use]
    pub fn gaps(&self) -> &[u64] {
        &self.series[GAPS][..self.len()]
    }

    /// Events of a GPU by bucket: its place in [`Report::gpus`](super::Report::gpus).
    #[must_use]
    pub fn of_gpu(&self, place: usize) -> &[u64] {
        self.series.get(GPUS + place).map_or(&[], |series| &series[..self.len()])
    }
}

/// Which series or count is a type's.
pub(super) fn type_index(event_type: Option<EventType>) -> usize {
    event_type.map_or(TYPES - 1, |known| known as usize - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn of(times: &[i64]) -> Timeline {
        let mut timeline = Timeline::new();
        timeline.add_series();
        times.iter().for_each(|time| timeline.count(*time, [0, GPUS]));
        timeline
    }

    #[test]
    fn nothing_is_lost_when_buckets_widen_to_either_side() {
        let times: Vec<i64> = (0..1000).map(|n| (n * 7919 - 3_000_000) * SECOND).collect();
        let timeline = of(&times);
        assert_eq!(timeline.events().iter().sum::<u64>(), 1000);
        assert_eq!(timeline.events(), timeline.of_gpu(0));
        assert!(timeline.len() <= BUCKETS && timeline.len() > BUCKETS / 4);
        let mut backwards = times;
        backwards.reverse();
        let backwards = of(&backwards);
        assert_eq!(
            (timeline.events(), timeline.from_unix_ns()),
            (backwards.events(), backwards.from_unix_ns())
        );
    }

    #[test]
    fn every_event_is_in_the_bucket_of_its_time() {
        let times: Vec<i64> = (0..500).map(|n| (n * n) * SECOND / 10).collect();
        let timeline = of(&times);
        let (from, width) = (timeline.from_unix_ns().unwrap(), timeline.width_ns());
        for (bucket, count) in timeline.events().into_iter().enumerate() {
            let begin = from + width * i64::try_from(bucket).unwrap();
            let there = times.iter().filter(|time| (begin..begin + width).contains(*time));
            assert_eq!(count, there.count() as u64);
        }
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        let timeline = of(&[i64::MIN, 0, i64::MAX]);
        assert_eq!(timeline.events().iter().sum::<u64>(), 3);
    }
}
