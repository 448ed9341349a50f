//! How many events when, in a bounded number of buckets whatever the time covered.

use gpuev::EventType;

/// Types of events, unknown ones included.
pub(super) const TYPES: usize = EventType::ALL.len() + 1;

/// At most so many buckets are shown.
const BUCKETS: usize = 240;
/// At most so many are counted in: of these, one, two, three or five make one that is shown.
const FINE: usize = 2 * BUCKETS;

/// Seconds of the buckets that are counted in. Each is a multiple of the one before.
const FINE_S: [i64; 16] = [
    1,
    5,
    10,
    30,
    60,
    300,
    600,
    1_800,
    3_600,
    10_800,
    21_600,
    43_200,
    86_400,
    5 * 86_400,
    10 * 86_400,
    50 * 86_400,
];

/// Seconds of the buckets that are shown: what people count in.
const SHOWN_S: [i64; 22] = [
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1_800,
    3_600,
    7_200,
    10_800,
    21_600,
    43_200,
    86_400,
    2 * 86_400,
    5 * 86_400,
    10 * 86_400,
    50 * 86_400,
];

const SECOND_NS: i64 = 1_000_000_000;

/// Counts over time in buckets of one width: 1, 2, 5, 10, 15 or 30 seconds or minutes, or the next round number
/// with which all have room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    width_ns: i64,
    /// The first and the last bucket by number: `unix_ns / width_ns`.
    range: Option<(i64, i64)>,
    /// By series, then by bucket.
    series: Vec<[u64; FINE]>,
    /// The bucket that was used last: from when to when, and which.
    last: (i64, i64, usize),
}

/// The series of gaps, after those of the types.
pub(super) const GAPS: usize = TYPES;
/// The series of nanoseconds in which somebody watched.
pub(super) const WATCHED: usize = TYPES + 1;
/// The series of the first GPU.
pub(super) const GPUS: usize = TYPES + 2;

impl Timeline {
    pub(super) fn new() -> Self {
        Self { width_ns: SECOND_NS, range: None, series: vec![[0; FINE]; GPUS], last: (0, 0, 0) }
    }

    /// Makes room for one more GPU.
    pub(super) fn add_series(&mut self) {
        self.series.push([0; FINE]);
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

    /// Counts one in each bucket between the two, the last one included.
    pub(super) fn count_through(&mut self, from: i64, to: i64, series: usize) {
        let (from, to) = (from.min(to), to);
        self.bucket(to);
        let first = self.bucket(from);
        // The first may have made them wider.
        let last = self.bucket(to);
        self.series[series][first..=last.max(first)].iter_mut().for_each(|count| *count += 1);
    }

    /// Somebody watched between the two.
    pub(super) fn watch(&mut self, from: i64, to: i64) {
        if from >= to {
            return;
        }
        self.bucket(to.saturating_sub(1));
        let first = self.bucket(from);
        let last = self.bucket(to.saturating_sub(1));
        for place in first..=last.max(first) {
            let begin = self.bucket_unix_ns(place);
            let end = begin.saturating_add(self.width_ns).min(to);
            let length = u64::try_from(end.saturating_sub(begin.max(from))).unwrap_or(0);
            let watched = &mut self.series[WATCHED][place];
            *watched = watched.saturating_add(length);
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
            let place = usize::try_from(last_now.saturating_sub(first_now)).unwrap_or(usize::MAX);
            if place < FINE {
                let later = usize::try_from(first - first_now).unwrap_or(0);
                if later > 0 {
                    self.series.iter_mut().for_each(|buckets| buckets.rotate_right(later));
                }
                self.range = Some((first_now, last_now));
                return usize::try_from(at - first_now).unwrap_or(0);
            }
            self.widen();
        }
    }

    /// Buckets of the next width.
    fn widen(&mut self) {
        let wider = FINE_S.into_iter().map(|s| s * SECOND_NS).find(|ns| *ns > self.width_ns);
        self.merge(wider.map_or(2, |wider| wider / self.width_ns));
        self.last = (0, 0, 0);
    }

    /// Makes one bucket of `each`.
    fn merge(&mut self, each: i64) {
        self.width_ns = self.width_ns.saturating_mul(each);
        let Some((first, last)) = self.range else { return };
        let first_now = first.div_euclid(each);
        for buckets in &mut self.series {
            let mut wide = [0_u64; FINE];
            for (number, count) in (first..=last).zip(buckets.iter()) {
                let place = usize::try_from(number.div_euclid(each) - first_now).unwrap_or(0);
                wide[place] = wide[place].saturating_add(*count);
            }
            *buckets = wide;
        }
        self.range = Some((first_now, last.div_euclid(each)));
    }

    /// As it is shown.
    pub(super) fn shown(self) -> Self {
        self.in_at_most(BUCKETS)
    }

    /// In so few buckets.
    pub(super) fn in_at_most(mut self, most: usize) -> Self {
        while self.len() > most.max(1) {
            let fits = |ns: &i64| *ns > self.width_ns && ns % self.width_ns == 0;
            let wider = SHOWN_S.into_iter().map(|s| s * SECOND_NS).find(fits);
            self.merge(wider.map_or(2, |wider| wider / self.width_ns));
        }
        self
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

    /// Nanoseconds by bucket in which at least one GPU was watched.
    #[must_use]
    pub fn watched_ns(&self) -> &[u64] {
        &self.series[WATCHED][..self.len()]
    }

    /// Gaps by bucket: in each that a gap touches.
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
        timeline.shown()
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
    fn widths_are_what_people_count_in() {
        let widths = [1, 240, 241, 700, 1_100, 3_000, 7_000, 86_400, 30 * 86_400, 400 * 86_400];
        let widths = widths.map(|s| of(&[0, (s - 1) * SECOND]).width_ns() / SECOND);
        assert_eq!(widths, [1, 1, 2, 5, 5, 30, 30, 600, 10_800, 2 * 86_400]);
    }

    #[test]
    fn a_stretch_is_in_each_bucket_that_it_touches() {
        let mut timeline = of(&[0, 100 * SECOND]);
        timeline.count_through(10 * SECOND, 12 * SECOND, GAPS);
        timeline.watch(20 * SECOND + SECOND / 2, 23 * SECOND);
        let gaps: Vec<_> = (0..).zip(timeline.gaps()).filter(|(_, count)| **count > 0).collect();
        assert_eq!(gaps, [(10, &1), (11, &1), (12, &1)]);
        let second = 1_000_000_000;
        assert_eq!(timeline.watched_ns()[19..24], [0, second / 2, second, second, 0]);
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        let timeline = of(&[i64::MIN, 0, i64::MAX]);
        assert_eq!(timeline.events().iter().sum::<u64>(), 3);
    }
}
