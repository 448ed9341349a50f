//! What a monitor watches, and what of it a look at the machine changes.

use std::collections::HashMap;

use crate::drain::{Closed, Drained, Left, removed_gap};
use crate::event::{Gap, GapCause};
use crate::keeper::Keeper;
use crate::time::Anchor;
use crate::{Bdf, Error, ErrorKind, EventReader, Gpu, GpuId, Scope, UniqueId};

/// A place for a GPU, over changes of its partitions and of KFD's numbers.
pub(super) type Key = (Bdf, u32);

pub(super) fn key(gpu: GpuId) -> Key {
    (gpu.bdf, gpu.partition)
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) watched: HashMap<Key, Watched>,
    /// How many GPUs are closed and still have something to hand out: nobody opens any meanwhile.
    pub(super) leaving: usize,
    /// GPUs that were read before and are not now.
    away: HashMap<Key, Away>,
    pub(super) failures: Vec<(Gpu, Error)>,
    pub(super) released: bool,
    /// How often all was let go.
    pub(super) releases: u64,
    /// What the last look at the machine left out.
    pub(super) left_out: Vec<String>,
    /// Whose events the files show that were opened last.
    pub(super) scope: Option<Scope>,
    /// KFD's count of topology changes at the last look.
    pub(super) generation: u64,
}

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) gpu: Gpu,
    pub(super) drained: Drained,
    /// The process that opened its file, if it was another.
    pub(super) keeper: Option<Keeper>,
}

/// A GPU whose file is closed and that may have more to hand out.
#[must_use]
pub(super) struct Leaving {
    pub(super) key: Key,
    pub(super) closed: Closed,
    /// Dropped without the lock: a keeper is told to end with its last file.
    _watched: Option<Watched>,
}

/// What is kept of a GPU that is not read now.
#[derive(Debug)]
pub(super) struct Away {
    id: GpuId,
    next_seq: u64,
    since_boot_ns: u64,
    cause: GapCause,
    /// Why it cannot be opened, as subscribers know.
    told: Option<GapCause>,
}

/// What a look at the machine changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// No longer there, or not what it was.
    pub(super) gone: Vec<Key>,
    /// Not yet read, in order.
    pub(super) new: Vec<(Key, Gpu)>,
}

impl State {
    /// What is to be done so that exactly `wanted` is read. Whatever is what it was is left alone.
    pub(super) fn changes(&self, wanted: &HashMap<Key, Gpu>) -> Changes {
        let is_kept = |key: &Key| {
            let watched = self.watched.get(key).map(|watched| watched.gpu.id);
            watched.zip(wanted.get(key)).is_some_and(|(was, gpu)| {
                was.kfd_id == gpu.id.kfd_id && is_same_card(was.unique_id, gpu.id.unique_id)
            })
        };
        let gone = self.watched.keys().copied().filter(|key| !is_kept(key)).collect();
        let mut new: Vec<_> = wanted
            .iter()
            .filter(|(key, _)| !is_kept(key))
            .map(|(key, gpu)| (*key, gpu.clone()))
            .collect();
        new.sort_by_key(|(key, _)| *key);
        Changes { gone, new }
    }

    /// Whether `changes` are none, but for GPUs that could not be opened at the last look either.
    pub(super) fn knows(&self, changes: &Changes) -> bool {
        let failed_before =
            |place: &Key| self.failures.iter().any(|(gpu, _)| key(gpu.id) == *place);
        changes.gone.is_empty() && changes.new.iter().all(|(key, _)| failed_before(key))
    }

    /// Closes the GPUs' event files, what the driver holds read first, but for GPUs whose end the draining thread is
    /// telling. Each is to be finished without the lock, then given to [`left`](Self::left).
    pub(super) fn close(&mut self, keys: &[Key]) -> Vec<Leaving> {
        let close = |key: &Key| Some((*key, self.watched.get(key)?.drained.close()?));
        let closed: Vec<_> = keys.iter().filter_map(close).collect();
        self.leaving += closed.len();
        let take_out = |(key, closed)| Leaving { key, closed, _watched: self.watched.remove(&key) };
        closed.into_iter().map(take_out).collect()
    }

    /// All that was read of a GPU that was closed is handed out.
    pub(super) fn left(&mut self, key: Key, left: Left, cause: GapCause) {
        self.leaving -= 1;
        self.leave(key, left, cause);
    }

    /// GPUs and partitions that left while all was let go, when nobody saw it: a gap of each, once.
    pub(super) fn left_unseen(&mut self, wanted: &HashMap<Key, Gpu>) -> Vec<Gap> {
        let yielded = self.away.iter_mut().filter(|(_, away)| away.cause == GapCause::Yielded);
        yielded
            .filter(|(key, _)| !wanted.contains_key(key))
            .map(|(_, away)| {
                away.cause = GapCause::Reopened;
                removed_gap(away.id, away.since_boot_ns)
            })
            .collect()
    }

    /// The GPU is not read any more.
    pub(super) fn leave(&mut self, key: Key, left: Left, cause: GapCause) {
        let Left { gpu: id, next_seq, since_boot_ns } = left;
        self.away.insert(key, Away { id, next_seq, since_boot_ns, cause, told: None });
    }

    /// `gpu` cannot be opened. Nobody sees what happens on it from now on, unless nobody has for longer. Gives what
    /// subscribers do not know yet.
    pub(super) fn fail(&mut self, gpu: Gpu, error: Error) -> Option<Gap> {
        let now = Anchor::now();
        if self.away(&gpu).is_none() {
            let (since_boot_ns, cause) = (now.boot_ns, GapCause::Reopened);
            let away = Away { id: gpu.id, next_seq: 0, since_boot_ns, cause, told: None };
            self.away.insert(key(gpu.id), away);
        }
        let cause = match error.kind() {
            ErrorKind::Locked => GapCause::Locked,
            ErrorKind::AppearedLater => GapCause::AppearedLater,
            _ => GapCause::OpenFailed,
        };
        let id = gpu.id;
        let told = self.away.get_mut(&key(id)).map(|away| away.told.replace(cause));
        self.failures.push((gpu, error));
        (told != Some(Some(cause))).then_some(Gap {
            gpu: id,
            cause,
            count: None,
            from_boot_ns: now.boot_ns,
            to_boot_ns: now.boot_ns,
            unix_ns: now.unix_ns,
        })
    }

    /// Whether a failure may pass without anything being announced.
    pub(super) fn may_pass(&self) -> bool {
        let passing = [ErrorKind::Locked, ErrorKind::Io, ErrorKind::OutOfResources];
        !self.released && self.failures.iter().any(|(_, error)| passing.contains(&error.kind()))
    }

    /// The processes that opened what is watched.
    pub(super) fn keepers(&self) -> Vec<Keeper> {
        let mut keepers: Vec<Keeper> = Vec::new();
        for keeper in self.watched.values().filter_map(|watched| watched.keeper.as_ref()) {
            if !keepers.iter().any(|known| known.is(keeper)) {
                keepers.push(keeper.clone());
            }
        }
        keepers
    }

    /// The GPUs whose files `keeper` opened.
    pub(super) fn those_of(&self, keeper: &Keeper) -> Vec<Key> {
        let is_its = |watched: &Watched| watched.keeper.as_ref().is_some_and(|one| one.is(keeper));
        let its = self.watched.iter().filter(|(_, watched)| is_its(watched));
        its.map(|(key, _)| *key).collect()
    }

    /// What is kept of `gpu` from when it was read before. Another card in its place is another GPU.
    pub(super) fn away(&self, gpu: &Gpu) -> Option<&Away> {
        let away = self.away.get(&key(gpu.id))?;
        is_same_card(away.id.unique_id, gpu.id.unique_id).then_some(away)
    }

    /// `gpu` is read by `reader`; gives the gap since it was last.
    pub(super) fn comes_back(&mut self, gpu: &Gpu, reader: &mut EventReader) -> Option<Gap> {
        self.away(gpu)?;
        let away = self.away.remove(&key(gpu.id))?;
        reader.continue_from(away.next_seq);
        Some(away.gap(gpu.id))
    }

    /// A GPU keeps its index; a new one gets that of its place, or the next that was never used.
    pub(super) fn index_of(&self, gpu: &Gpu) -> u32 {
        if let Some(away) = self.away(gpu) {
            return away.id.index;
        }
        let place = gpu.id.index;
        let used = || {
            let watched = self.watched.values().map(|watched| watched.gpu.id.index);
            watched.chain(self.away.values().map(|away| away.id.index))
        };
        if used().any(|index| index == place) {
            used().max().map_or(0, |highest| highest + 1)
        } else {
            place
        }
    }
}

/// Whether two GPUs in one place can be the same: a number that cannot be read contradicts nothing.
pub(super) fn is_same_card(one: Option<UniqueId>, other: Option<UniqueId>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

impl Away {
    /// That nothing was read in the meantime.
    fn gap(&self, gpu: GpuId) -> Gap {
        let now = Anchor::now();
        Gap {
            gpu,
            cause: self.cause,
            count: None,
            from_boot_ns: self.since_boot_ns.min(now.boot_ns),
            to_boot_ns: now.boot_ns,
            unix_ns: now.unix_ns,
        }
    }
}
