//! In which order the items of several histories are read, and which of them.

use std::collections::HashMap;
use std::sync::Arc;

use gpuev::Result;

use crate::boots::Boots;
use crate::filter_text::FilterText;
use crate::history::History;
use crate::intervals::{Interval, Intervals};
use crate::query::Query;
use crate::recorded::{NotKept, RecordedSession};
use crate::uid::Uid;

/// All that is to be read, in order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) runs: Vec<Run>,
}

/// Items of one file that are read one after another.
#[derive(Debug)]
pub(crate) struct Run {
    /// Which file.
    pub(crate) file: usize,
    /// The items after this number, as the file counts them,
    pub(crate) after: i64,
    /// up to this one.
    pub(crate) until: i64,
    /// The sessions that they are of, oldest first.
    pub(crate) sessions: Vec<Planned>,
}

/// A session of a run.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// Its number in the file.
    pub(crate) local: i64,
    /// What to take from the number of an item in the file.
    pub(crate) shift: i64,
    /// It begins with this run; else it goes on in it.
    pub(crate) begins: bool,
    pub(crate) recorded: Arc<RecordedSession>,
}

/// What a file holds of a session.
#[derive(Debug)]
struct Part {
    file: usize,
    /// The last item of it in the file; none follows the session where that is the largest number.
    until: i64,
    recorded: RecordedSession,
}

impl Plan {
    pub(crate) fn of(files: &[History]) -> Result<Self> {
        let mut plan = Self::default();
        let mut boots = Boots::default();
        let is_one = files.len() == 1;
        for (number, parts) in (1..).zip(in_order(parts_of(files)?)) {
            let (mut recorded, pieces) = match <[Part; 1]>::try_from(parts) {
                Ok([part]) => whole(part, is_one),
                Err(parts) => joined(files, parts)?,
            };
            recorded.boot = boots.number(recorded.session.boot_id.as_deref());
            if !is_one {
                recorded.id = number;
            }
            plan.add(&Arc::new(recorded), pieces);
        }
        Ok(plan)
    }

    /// The sessions, each once.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Arc<RecordedSession>> {
        let planned = self.runs.iter().flat_map(|run| &run.sessions);
        planned.filter(|planned| planned.begins).map(|planned| &planned.recorded)
    }

    /// Without what lies before the item that the query begins after: of one file, whose numbers that knows.
    pub(crate) fn begun(mut self, query: &Query) -> Self {
        let after = query.first_after();
        if let [run] = &mut self.runs[..]
            && after > 0
        {
            let read = run.sessions.partition_point(|one| one.recorded.first_item <= after);
            // The session of that item comes again, for what follows of it.
            run.sessions.drain(..read.saturating_sub(1));
            run.after = run.after.max(after);
        }
        self
    }

    fn add(&mut self, recorded: &Arc<RecordedSession>, pieces: Vec<Piece>) {
        for (place, piece) in pieces.into_iter().enumerate() {
            let Piece { file, local, after, until, shift } = piece;
            let recorded = Arc::clone(recorded);
            let planned = Planned { local, shift, begins: place == 0, recorded };
            match self.runs.last_mut() {
                Some(run) if run.file == file && run.until == after => {
                    run.until = until;
                    run.sessions.push(planned);
                }
                _ => self.runs.push(Run { file, after, until, sessions: vec![planned] }),
            }
        }
    }
}

impl Run {
    /// What a query asks for, of the items of this run.
    pub(crate) fn query(&self, query: &Query) -> Query {
        query.clone().after_item(self.after).until_item(self.until)
    }
}

/// Items of a session that are read from one file.
#[derive(Debug)]
struct Piece {
    file: usize,
    local: i64,
    after: i64,
    until: i64,
    shift: i64,
}

impl Piece {
    /// The items of `part` whose numbers in the session are in `numbers`.
    fn of(part: &Part, numbers: Interval) -> Self {
        let base = part.recorded.item_base;
        Self {
            file: part.file,
            local: part.recorded.id,
            after: base.saturating_add(numbers.first - 1),
            until: base.saturating_add(numbers.last),
            shift: base,
        }
    }
}

/// By file, oldest first.
fn parts_of(files: &[History]) -> Result<Vec<Vec<Part>>> {
    let parts = files.iter().enumerate().map(|(file, history)| {
        let sessions = history.sessions()?;
        let ends = sessions.iter().skip(1).map(|next| next.first_item - 1).chain([i64::MAX]);
        let ends: Vec<i64> = ends.collect();
        let part = |(mut recorded, until): (RecordedSession, i64)| {
            recorded.parts = vec![(file, recorded.id)];
            Part { file, until, recorded }
        };
        Ok(sessions.into_iter().zip(ends).map(part).collect())
    });
    parts.collect()
}

/// The parts of each session, in the order in which the sessions began; of one file, in the order in which it has them,
/// whatever the clock did.
fn in_order(files: Vec<Vec<Part>>) -> Vec<Vec<Part>> {
    let mut places: HashMap<Uid, usize> = HashMap::new();
    let mut ordered: Vec<Vec<Part>> = Vec::new();
    let mut files: Vec<_> = files.into_iter().map(|parts| parts.into_iter().peekable()).collect();
    loop {
        let began = |parts: &mut std::iter::Peekable<std::vec::IntoIter<Part>>| {
            parts.peek().map(|part| part.recorded.session.started.unix_ns)
        };
        let heads = files.iter_mut().enumerate();
        let first = heads.filter_map(|(file, parts)| Some((began(parts)?, file))).min();
        let Some(part) = first.and_then(|(_, file)| files[file].next()) else { return ordered };
        let place = *places.entry(part.recorded.session.uid).or_insert_with(|| {
            ordered.push(Vec::new());
            ordered.len() - 1
        });
        ordered[place].push(part);
    }
}

/// A session that only one file has. Of the only file, items keep their numbers.
fn whole(part: Part, is_only_file: bool) -> (RecordedSession, Vec<Piece>) {
    let Part { file, until, mut recorded } = part;
    let (local, after) = (recorded.id, recorded.first_item - 1);
    let shift = if is_only_file { 0 } else { recorded.item_base };
    recorded.item_base -= shift;
    recorded.first_item -= shift;
    (recorded, vec![Piece { file, local, after, until, shift }])
}

/// One session of what several files hold of it.
fn joined(files: &[History], mut parts: Vec<Part>) -> Result<(RecordedSession, Vec<Piece>)> {
    // What is recorded in full counts before what is not, and more before less.
    let rank = |part: &Part| {
        let kept = kept(part);
        (FilterText::of(&part.recorded.session.filter, []).is_some(), -kept.length(), part.file)
    };
    parts.sort_by_cached_key(rank);
    let (mut taken, mut found) = (Intervals::default(), Vec::new());
    for (place, part) in parts.iter().enumerate() {
        for numbers in kept(part).without(&taken).iter() {
            found.push((numbers, place));
        }
        taken.add_all(&kept(part));
    }
    found.sort_by_key(|(numbers, _)| numbers.first);
    let used: Vec<usize> = found.iter().map(|(_, place)| *place).collect();
    let pieces = found.into_iter().map(|(numbers, place)| Piece::of(&parts[place], numbers));
    let mut pieces: Vec<Piece> = pieces.collect();
    if pieces.is_empty() {
        // A session without items.
        pieces.push(Piece::of(&parts[0], Interval { first: 1, last: 0 }));
    }
    let mut joined = join(&parts, &used);
    joined.not_kept = lacking(files, &parts, &taken)?;
    Ok((joined, pieces))
}

/// The numbers in its session of the items that a part has, or may come to have.
fn kept(part: &Part) -> Intervals {
    let base = part.recorded.item_base;
    let mut kept = Intervals::default();
    let first = part.recorded.first_item.saturating_sub(base).max(1);
    let last = if part.until == i64::MAX && !part.recorded.is_live {
        part.recorded.last_item.map_or(i64::MAX, |last| last.saturating_sub(base))
    } else {
        part.until.saturating_sub(base)
    };
    kept.add(Interval { first, last });
    let not_kept = part.recorded.not_kept.iter().map(|one| (one.first, one.last));
    kept.without(&not_kept.map(|(first, last)| Interval { first, last }).collect())
}

/// What the parts say of their session. `used` are those that items are read from.
fn join(parts: &[Part], used: &[usize]) -> RecordedSession {
    let latest = |part: &&Part| {
        let RecordedSession { is_live, is_closed, .. } = part.recorded;
        (is_live, is_closed, part.recorded.last_sign().map(|at| at.boot_ns))
    };
    let mut joined = parts.iter().max_by_key(latest).unwrap_or(&parts[0]).recorded.clone();
    joined.parts = parts.iter().flat_map(|part| part.recorded.parts.clone()).collect();
    joined.id = parts.iter().map(|part| part.recorded.id).min().unwrap_or(joined.id);
    let gpus = parts.iter().flat_map(|part| &part.recorded.session.gpus);
    for gpu in gpus {
        if !joined.session.gpus.iter().any(|(known, _)| *known == gpu.0) {
            joined.session.gpus.push(gpu.clone());
        }
    }
    let gpus: Vec<_> = joined.session.gpus.iter().map(|(gpu, _)| *gpu).collect();
    let mut filters = used.iter().map(|place| &parts[*place].recorded.session.filter);
    if let Some(first) = filters.next() {
        joined.session.filter = filters.fold(first.clone(), |one, other| {
            let both = FilterText::of_both(&one, other, gpus.clone());
            both.map(|both| both.filter()).unwrap_or_default()
        });
    }
    joined.item_base = 0;
    joined.first_item = 1;
    joined
}

/// Of what one part or another lacks, what all lack.
fn lacking(files: &[History], parts: &[Part], taken: &Intervals) -> Result<Vec<NotKept>> {
    let mut lacking: Vec<NotKept> = Vec::new();
    for one in parts.iter().flat_map(|part| &part.recorded.not_kept) {
        let all: Intervals = [Interval { first: one.first, last: one.last }].into_iter().collect();
        for Interval { first, last } in all.without(taken).iter() {
            let from_boot_ns =
                if first == one.first { one.from_boot_ns } else { before(files, parts, first)? };
            // When a part begins to have items in the middle of another's hole, nobody knows.
            let to_boot_ns = one.to_boot_ns.filter(|_| last == one.last);
            let is_known = |known: &NotKept| known.first <= first && last <= known.last;
            if !lacking.iter().any(is_known) {
                let cause = one.cause.clone();
                lacking.push(NotKept { first, last, cause, from_boot_ns, to_boot_ns });
            }
        }
    }
    Ok(lacking)
}

/// When the item before `number` was received, of the part that has it and no later one.
fn before(files: &[History], parts: &[Part], number: i64) -> Result<Option<u64>> {
    let ends = |part: &&Part| kept(part).iter().any(|kept| kept.last == number - 1);
    let Some(part) = parts.iter().find(ends) else { return Ok(None) };
    let received = files[part.file].received_until(part.recorded.item_base + number - 1)?;
    Ok(received.or(part.recorded.last_sign().map(|at| at.boot_ns)))
}
