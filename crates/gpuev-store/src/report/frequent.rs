//! The most frequent of any number of keys, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// Counts keys and keeps something for each of the frequent ones.
///
/// Misra and Gries's summary, pruned in batches: at twice its capacity, the weight of the first entry that has
/// no place is taken from all, and those left with nothing go. What is lost for any key is at most
/// [`error`](Self::error), which is at most the total weight divided by the capacity; as long as no more keys
/// than twice the capacity were seen, nothing is lost and everything exact.
#[derive(Debug)]
pub(super) struct Frequent<K, V> {
    entries: HashMap<K, Entry<V>, RandomState>,
    capacity: usize,
    error: u64,
}

#[derive(Debug)]
struct Entry<V> {
    weight: u64,
    value: V,
}

impl<K: Eq + Hash + Copy + Ord, V: Default> Frequent<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::default(), capacity: capacity.max(1), error: 0 }
    }

    /// Counts `key` once more and gives what is kept for it.
    pub(super) fn count(&mut self, key: K) -> &mut V {
        if self.entries.len() >= self.capacity * 2 && !self.entries.contains_key(&key) {
            self.prune();
        }
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { weight: 0, value: V::default() });
        entry.weight += 1;
        &mut entry.value
    }

    /// What is kept for `key`, if it is.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// How much of any one key's weight may be missing.
    pub(super) fn error(&self) -> u64 {
        self.error
    }

    /// All that are kept, by key.
    pub(super) fn into_sorted(self) -> Vec<(K, V)> {
        let entries = self.entries.into_iter();
        let mut sorted: Vec<_> = entries.map(|(key, entry)| (key, entry.value)).collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        sorted
    }

    fn prune(&mut self) {
        let mut weights: Vec<u64> = self.entries.values().map(|entry| entry.weight).collect();
        let (_, cut, _) = weights.select_nth_unstable_by(self.capacity, |a, b| b.cmp(a));
        let cut = *cut;
        self.error += cut;
        self.entries.retain(|_, entry| {
            entry.weight = entry.weight.saturating_sub(cut);
            entry.weight > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Frequent;

    #[test]
    fn up_to_twice_the_capacity_all_is_exact() {
        let mut frequent = Frequent::<u32, u64>::new(4);
        for round in 0..100 {
            *frequent.count(round % 8) += 1;
        }
        assert_eq!(frequent.error(), 0);
        let counts = frequent.into_sorted();
        assert_eq!(counts.len(), 8);
        assert!(counts.iter().all(|(key, count)| *count == if *key < 4 { 13 } else { 12 }));
    }

    #[test]
    fn a_frequent_key_survives_any_number_of_rare_ones_in_bounded_memory() {
        let mut frequent = Frequent::<u32, u64>::new(16);
        for rare in 1..100_000 {
            *frequent.count(rare) += 1;
            if rare % 8 == 0 {
                *frequent.count(0) += 1;
            }
            assert!(frequent.entries.len() <= 32);
        }
        let error = frequent.error();
        assert!(error <= 112_499 / 16, "{error}");
        let told = *frequent.get(&0).expect("an eighth of all should be kept");
        assert!(told <= 12_499 && told + error >= 12_499, "{told} and at most {error} more");
    }
}
