//! Where in a text the machine was booted again.

use gpuev::time::Anchor;

/// Tells boots apart by their own moments: what follows a reboot tells of one that is later than all before it.
///
/// A wall clock that is set forward by more than the machine has been up looks the same; that ends what is open
/// then, and harms nothing else.
#[derive(Debug, Default)]
pub(super) struct Boots {
    latest_unix_ns: Option<i64>,
}

impl Boots {
    /// Whether the machine was booted since what it was asked about before.
    pub(super) fn has_begun(&mut self, at: Anchor) -> bool {
        let begun = self.latest_unix_ns.is_some_and(|latest| at.unix_ns_of(0) > latest);
        let before = self.latest_unix_ns.filter(|_| !begun).unwrap_or(i64::MIN);
        self.latest_unix_ns = Some(at.unix_ns.max(before));
        begun
    }
}
