//! Sets of numbers of items.

/// The numbers from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// Intervals that do not touch, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Intervals(Vec<Interval>);

impl Intervals {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn add(&mut self, new: Interval) {
        if new.first > new.last {
            return;
        }
        let touches = |one: &Interval| {
            one.first <= new.last.saturating_add(1) && new.first <= one.last.saturating_add(1)
        };
        let mut whole = new;
        self.0.retain(|one| {
            if touches(one) {
                whole.first = whole.first.min(one.first);
                whole.last = whole.last.max(one.last);
            }
            !touches(one)
        });
        let place = self.0.partition_point(|one| one.first < whole.first);
        self.0.insert(place, whole);
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        other.iter().for_each(|one| self.add(one));
    }

    /// What is in this and not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for Interval { first, last } in self.iter() {
            // `None` where nothing can follow.
            let mut next = Some(first);
            for hole in other.iter() {
                let Some(from) = next.filter(|from| hole.last >= *from && hole.first <= last)
                else {
                    continue;
                };
                if hole.first > from {
                    left.push(Interval { first: from, last: hole.first - 1 });
                }
                next = hole.last.checked_add(1);
            }
            left.extend(next.filter(|from| *from <= last).map(|first| Interval { first, last }));
        }
        Self(left)
    }

    /// How many numbers.
    pub(crate) fn length(&self) -> i64 {
        self.iter().fold(0, |sum: i64, one| sum.saturating_add(one.last.saturating_sub(one.first)))
    }
}

impl FromIterator<Interval> for Intervals {
    fn from_iter<I: IntoIterator<Item = Interval>>(all: I) -> Self {
        let mut intervals = Self::default();
        all.into_iter().for_each(|one| intervals.add(one));
        intervals
    }
}

#[cfg(test)]
mod tests {
    use super::{Interval, Intervals};

    fn of(all: &[(i64, i64)]) -> Intervals {
        all.iter().map(|(first, last)| Interval { first: *first, last: *last }).collect()
    }

    #[test]
    fn what_touches_is_one() {
        assert_eq!(of(&[(1, 3), (7, 9), (4, 6)]), of(&[(1, 9)]));
        assert_eq!(of(&[(5, 6), (1, 2), (3, 2)]), of(&[(1, 2), (5, 6)]));
    }

    #[test]
    fn what_the_other_lacks_is_left() {
        let all = of(&[(1, 10), (20, i64::MAX)]);
        assert_eq!(all.without(&of(&[(3, 4), (9, 25)])), of(&[(1, 2), (5, 8), (26, i64::MAX)]));
        assert_eq!(all.without(&of(&[(5, i64::MAX)])), of(&[(1, 4)]));
        assert_eq!(all.without(&of(&[])), all);
    }
}
