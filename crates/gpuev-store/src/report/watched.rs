//! When somebody watched: a source's time, less what is blind, by GPU.

use gpuev::{Gap, GapCause};

use super::fold::Options;
use super::stretches::Stretches;
use super::summary::Source;

/// When a source was there, as far as it is known while its items come.
#[derive(Debug, Clone, Default)]
pub(super) struct Present {
    from_unix_ns: Option<i64>,
    to_unix_ns: Option<i64>,
    from_boot_ns: Option<u64>,
    to_boot_ns: Option<u64>,
    /// The first time of receipt that an item tells, and the last.
    seen_boot_ns: Option<(u64, u64)>,
    /// What to add to `CLOCK_BOOTTIME` for wall time, by the latest item.
    seen_offset_ns: Option<i128>,
}

/// A stretch of `CLOCK_BOOTTIME`, and how far wall time is from that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    offset_ns: i128,
}

impl Present {
    pub(super) fn of(source: &Source) -> Self {
        let Source { from_unix_ns, to_unix_ns, from_boot_ns, to_boot_ns, .. } = *source;
        Self { from_unix_ns, to_unix_ns, from_boot_ns, to_boot_ns, ..Self::default() }
    }

    /// Something was received at `boot_ns`, which was `unix_ns` for what happened at `at_boot_ns`.
    pub(super) fn see(&mut self, boot_ns: u64, (at_boot_ns, unix_ns): (u64, i64)) {
        let (first, last) = self.seen_boot_ns.unwrap_or((boot_ns, boot_ns));
        self.seen_boot_ns = Some((first.min(boot_ns), last.max(boot_ns)));
        self.seen_offset_ns = Some(i128::from(unix_ns) - i128::from(at_boot_ns));
    }

    /// The source goes on at least until then.
    pub(super) fn goes_on(&mut self, unix_ns: i64) {
        self.to_unix_ns = self.to_unix_ns.max(Some(unix_ns));
    }

    /// When the source began by `CLOCK_BOOTTIME`, as far as it says itself.
    pub(super) fn began_ns(&self) -> Option<u64> {
        self.from_boot_ns.or_else(|| Some(boot_ns(self.from_unix_ns?, self.seen_offset_ns?)))
    }

    /// All of it that is asked for. Of a wall clock that was set meanwhile, the later time counts.
    pub(super) fn asked(&self, options: &Options) -> Option<Stretch> {
        let difference =
            |unix: Option<i64>, boot: Option<u64>| Some(i128::from(unix?) - i128::from(boot?));
        let offset_ns = difference(self.to_unix_ns, self.to_boot_ns)
            .or(self.seen_offset_ns)
            .or_else(|| difference(self.from_unix_ns, self.from_boot_ns))
            .unwrap_or(0);
        let by_wall = |unix_ns: Option<i64>| unix_ns.map(|unix_ns| boot_ns(unix_ns, offset_ns));
        let seen = self.seen_boot_ns;
        let from =
            self.from_boot_ns.or(by_wall(self.from_unix_ns)).or(seen.map(|(first, _)| first));
        let to = self.to_boot_ns.or(by_wall(self.to_unix_ns)).max(seen.map(|(_, last)| last));
        let (mut from_ns, mut to_ns) = (from?, to?);
        if options.from_unix_ns != i64::MIN {
            from_ns = from_ns.max(boot_ns(options.from_unix_ns, offset_ns));
        }
        if options.to_unix_ns != i64::MAX {
            to_ns = to_ns.min(boot_ns(options.to_unix_ns, offset_ns));
        }
        Some(Stretch { from_ns, to_ns: to_ns.max(from_ns), offset_ns })
    }
}

fn boot_ns(unix_ns: i64, offset_ns: i128) -> u64 {
    let boot_ns = (i128::from(unix_ns) - offset_ns).max(0);
    u64::try_from(boot_ns).unwrap_or(u64::MAX)
}

impl Stretch {
    pub(super) fn length_ns(&self) -> u64 {
        self.to_ns - self.from_ns
    }

    /// Wall time of a moment in it.
    pub(super) fn unix_ns(&self, boot_ns: u64) -> i64 {
        let unix_ns = i128::from(boot_ns) + self.offset_ns;
        i64::try_from(unix_ns).unwrap_or(if unix_ns < 0 { i64::MIN } else { i64::MAX })
    }
}

/// One GPU in the present source.
#[derive(Debug, Default)]
pub(super) struct Blindness {
    /// The source watches it.
    pub(super) is_watched: bool,
    pub(super) blind: Stretches,
    /// It was removed then, and nothing was seen of it since.
    gone_since_ns: Option<u64>,
}

impl Blindness {
    /// A source that watches it begins.
    pub(super) fn begin(&mut self, not_kept: &[(u64, u64)]) {
        *self = Self { is_watched: true, ..Self::default() };
        not_kept.iter().for_each(|(from, to)| self.blind.add(*from, *to));
    }

    /// It came only then.
    pub(super) fn came_ns(&mut self, since_ns: u64) {
        self.blind.add(0, since_ns);
    }

    /// An event of it was received.
    #[inline]
    pub(super) fn event(&mut self, received_ns: u64) {
        if let Some(since_ns) = self.gone_since_ns.take() {
            self.blind.add(since_ns, received_ns);
        }
    }

    pub(super) fn gap(&mut self, gap: &Gap) {
        if let Some(since_ns) = self.gone_since_ns.take() {
            self.blind.add(since_ns, gap.to_boot_ns);
        }
        self.blind.add(gap.from_boot_ns, gap.to_boot_ns);
        if gap.cause == GapCause::GpuRemoved {
            self.gone_since_ns = Some(gap.to_boot_ns);
        }
    }

    /// The source ends.
    pub(super) fn end(&mut self) {
        if let Some(since_ns) = self.gone_since_ns.take() {
            self.blind.add(since_ns, u64::MAX);
        }
    }

    /// How long it was watched.
    pub(super) fn watched_ns(&self, asked: Stretch) -> u64 {
        asked.length_ns() - self.blind.within(asked.from_ns, asked.to_ns)
    }
}

/// When at least one of `gpus` was watched; without any, all the time.
pub(super) fn any_watched<'a>(
    gpus: impl Iterator<Item = &'a Blindness> + Clone,
    asked: Stretch,
) -> Vec<(u64, u64)> {
    let Stretch { from_ns, to_ns, .. } = asked;
    let always = gpus.clone().any(|gpu| gpu.blind.within(from_ns, to_ns) == 0);
    if always || gpus.clone().next().is_none() {
        return if from_ns < to_ns { vec![(from_ns, to_ns)] } else { Vec::new() };
    }
    let mut blind = Stretches::default();
    let mut watched = Stretches::default();
    for (from, to) in gpus.flat_map(|gpu| gpu.blind.uncovered(from_ns, to_ns)) {
        watched.add(from, to);
    }
    for (from, to) in watched.uncovered(from_ns, to_ns) {
        blind.add(from, to);
    }
    blind.uncovered(from_ns, to_ns)
}
