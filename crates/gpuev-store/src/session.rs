//! Where and when something was recorded.

use gpuev::time::Anchor;
use gpuev::{Filter, Gpu, GpuId, Machine, Scope};

use crate::uid::Uid;

/// What is noted of the machine each time that a recorder runs. Times of `CLOCK_BOOTTIME` can be compared
/// within one `boot_id` only.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// What tells it from every other session, wherever its items are copied to: with an item's number in it
    /// ([`RecordedSession::number_of`](crate::RecordedSession::number_of)) it is a key.
    pub uid: Uid,
    /// Host name.
    pub host: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`: another one each boot.
    pub boot_id: Option<String>,
    /// Kernel release, e.g. `6.12.95`.
    pub kernel: Option<String>,
    /// What wrote it, e.g. `gpuev 0.1.0`.
    pub recorder: String,
    /// Whose events were seen, in one sentence; see [`Scope::reason`].
    pub scope: Option<String>,
    /// What of all that was seen is recorded; the rest is neither there nor a gap.
    pub filter: Filter,
    /// When it began.
    pub started: Anchor,
    /// When it last is known to have recorded; `None` in histories of versions before 4.
    pub alive: Option<Anchor>,
    /// When it ended; `None` while it runs, and where it was killed.
    pub ended: Option<Anchor>,
    /// The GPUs that were there when it began, with the names that people know them by.
    pub gpus: Vec<(GpuId, Option<String>)>,
    /// Those of them that came later, and when by `CLOCK_BOOTTIME`, in nanoseconds.
    pub came_later: Vec<(GpuId, u64)>,
}

impl Session {
    /// On `machine`, from now on.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        Self {
            host: machine.hostname(),
            boot_id: machine.boot_id(),
            kernel: machine.kernel_release(),
            ..Self::unknown(Anchor::now())
        }
    }

    /// Of a machine that nobody knows any more: an import.
    #[must_use]
    pub fn unknown(started: Anchor) -> Self {
        Self {
            uid: Uid::random(),
            host: None,
            boot_id: None,
            kernel: None,
            recorder: concat!("gpuev ", env!("CARGO_PKG_VERSION")).to_owned(),
            scope: None,
            filter: Filter::new(),
            started,
            alive: None,
            ended: None,
            gpus: Vec::new(),
            came_later: Vec::new(),
        }
    }

    /// With the GPUs that are there.
    #[must_use]
    pub fn with_gpus<'a>(mut self, gpus: impl IntoIterator<Item = &'a Gpu>) -> Self {
        let named = |gpu: &Gpu| Some(gpu.name.clone()).filter(|name| !name.is_empty());
        self.gpus.extend(gpus.into_iter().map(|gpu| (gpu.id, named(gpu))));
        self
    }

    /// With what is recorded of it.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// With whose events are seen.
    #[must_use]
    pub fn with_scope(mut self, scope: &Scope) -> Self {
        let seen = if scope.all_processes { "all processes" } else { "own process" };
        self.scope = Some(format!("{seen}: {}", scope.reason));
        self
    }
}
