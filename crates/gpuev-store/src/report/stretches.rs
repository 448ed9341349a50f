//! Stretches of time that are put together: what is covered twice counts once.

/// Stretches that are remembered one by one. The oldest are then only a sum: what comes later is later as a rule.
const REMEMBERED: usize = 4096;

/// Stretches of one clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Stretches {
    /// Sorted, and none touches another.
    apart: Vec<(u64, u64)>,
    /// Those before this are a sum.
    summed_until: u64,
    sum_ns: u64,
}

impl Stretches {
    /// Adds what lies between the two.
    pub(super) fn add(&mut self, from: u64, to: u64) {
        let from = from.max(self.summed_until);
        if from >= to {
            return;
        }
        let first = self.apart.partition_point(|(_, end)| *end < from);
        let last = self.apart.partition_point(|(begin, _)| *begin <= to);
        let touched = self.apart.get(first..last).unwrap_or_default();
        let begin = touched.first().map_or(from, |(begin, _)| from.min(*begin));
        let end = touched.last().map_or(to, |(_, end)| to.max(*end));
        self.apart.splice(first..last.max(first), [(begin, end)]);
        if self.apart.len() > REMEMBERED {
            for (begin, end) in self.apart.drain(..REMEMBERED / 2) {
                self.sum_ns = self.sum_ns.saturating_add(end - begin);
                self.summed_until = end;
            }
        }
    }

    /// How much of what lies between the two is covered.
    pub(super) fn within(&self, from: u64, to: u64) -> u64 {
        let first = self.apart.partition_point(|(_, end)| *end <= from);
        let covered = self.apart.iter().skip(first).take_while(|(begin, _)| *begin < to);
        let covered = covered.map(|(begin, end)| to.min(*end).saturating_sub(from.max(*begin)));
        let summed = if from < self.summed_until { self.sum_ns } else { 0 };
        covered.fold(summed, u64::saturating_add).min(to.saturating_sub(from))
    }

    /// What is not covered of what lies between the two, in order.
    pub(super) fn uncovered(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut rest = Vec::new();
        let mut at = from;
        for &(begin, end) in &self.apart {
            if begin >= to {
                break;
            }
            if begin > at {
                rest.push((at, begin));
            }
            at = at.max(end);
        }
        if at < to {
            rest.push((at, to));
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_covered_is_each_moment_that_a_stretch_holds(
            all in prop::collection::vec((0..100_u64, 0..20_u64), 0..30),
            (from, length) in (0..100_u64, 0..60_u64),
        ) {
            let mut stretches = Stretches::default();
            all.iter().for_each(|(from, length)| stretches.add(*from, from + length));
            let to = from + length;
            let is_covered =
                |at: &u64| all.iter().any(|(from, length)| (*from..from + length).contains(at));
            let covered = (from..to).filter(is_covered).count() as u64;
            prop_assert_eq!(stretches.within(from, to), covered);
            let rest = stretches.uncovered(from, to);
            prop_assert_eq!(rest.iter().map(|(from, to)| to - from).sum::<u64>(), length - covered);
            prop_assert!(rest.iter().all(|(from, to)| (*from..*to).all(|at| !is_covered(&at))));
        }
    }

    #[test]
    fn memory_is_bounded_and_nothing_counts_twice() {
        let mut stretches = Stretches::default();
        for at in 0..20_000 {
            stretches.add(at * 10, at * 10 + 5);
            stretches.add(at * 10, at * 10 + 3);
        }
        assert!(stretches.apart.len() <= REMEMBERED);
        assert_eq!(stretches.within(0, 200_000), 100_000);
    }
}
