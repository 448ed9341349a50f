//! Which boot of a machine something is of: the one answer for reports, replays, exports and rules.

use std::collections::HashMap;

/// Numbers boots as their sessions come. Sessions are of one boot where both say the same boot id; what does not
/// say it is of a boot of its own. In another boot times of `CLOCK_BOOTTIME` do not compare, and the same pid is
/// another process.
#[derive(Debug, Default)]
pub(crate) struct Boots {
    numbers: HashMap<String, u32>,
    next: u32,
}

impl Boots {
    /// The number of the boot with this id, counted from 0.
    pub(crate) fn number(&mut self, boot_id: Option<&str>) -> u32 {
        let next = self.next;
        let number = match boot_id.filter(|id| !id.is_empty()) {
            Some(id) => *self.numbers.entry(id.to_owned()).or_insert(next),
            None => next,
        };
        if number == next {
            self.next = next.saturating_add(1);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::Boots;

    #[test]
    fn boots_are_one_where_both_say_so() {
        let mut boots = Boots::default();
        let ids = [Some("a"), Some("a"), Some("b"), Some("a"), None, None, Some(""), Some("c")];
        assert_eq!(ids.map(|id| boots.number(id)), [0, 0, 1, 0, 2, 3, 4, 5]);
    }
}
