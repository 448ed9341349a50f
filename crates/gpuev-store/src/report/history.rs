//! A report of histories.
//!
//! This thread reads batches. Two others look at each: one counts, one pairs and gives what is over to a third,
//! which tells what it cost. That is as much for each as for two processors.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use gpuev::span::Span;
use gpuev::{Error, ErrorKind, EventFacts, Gap, Record, Result};

use crate::bulk::{Bulk, BulkItem, Damaged, damaged};
use crate::histories::Histories;
use crate::lock::beside;
use crate::plan::Plan;
use crate::{Query, RecordedSession};

use super::costs::{Costs, Pairing};
use super::counts::Counts;
use super::fold::{Current, Options};
use super::summary::{Report, Source, SourceEnd};

/// Batches that wait for a part, of at most 0.5 MB as a rule.
const BATCHES: usize = 4;
/// Spans that are handed over together: 100 KB, which memory has at hand.
const SPANS: usize = 512;
/// How often that may wait.
const SPANS_WAITING: usize = 16;

/// A part of a report that looks at events.
trait Part: Send {
    fn begin(&mut self, source: &Source);
    fn event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>);
    /// A process begins or ends with an event that is not wanted.
    fn unwanted(&mut self, facts: &EventFacts<'_>, record: &Record<'_>);
    fn gap(&mut self, gap: &Gap);
}

impl Part for Counts {
    fn begin(&mut self, source: &Source) {
        self.begin(source);
    }

    fn unwanted(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        self.unwanted(facts, record);
    }

    fn event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        self.event(facts, record);
    }

    fn gap(&mut self, gap: &Gap) {
        self.gap(gap);
    }
}

/// Pairs, and hands over.
struct Pairs {
    pairing: Pairing,
    done: Done,
}

/// Spans on their way.
struct Done {
    to: SyncSender<Vec<(u32, Span)>>,
    spans: Vec<(u32, Span)>,
}

impl Done {
    fn put(&mut self, boot: u32, span: Span) {
        self.spans.push((boot, span));
        if self.spans.len() == SPANS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let full = std::mem::replace(&mut self.spans, Vec::with_capacity(SPANS));
        // Who takes them ends last.
        let _taken = self.to.send(full);
    }
}

impl Part for Pairs {
    fn begin(&mut self, source: &Source) {
        let done = &mut self.done;
        self.pairing.begin(source, |boot, span| done.put(boot, span));
    }

    fn unwanted(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        self.pairing.unwanted(facts, record);
    }

    fn event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        let done = &mut self.done;
        self.pairing.event(facts, record, |boot, span| done.put(boot, span));
    }

    fn gap(&mut self, gap: &Gap) {
        let done = &mut self.done;
        self.pairing.gap(gap, |boot, span| done.put(boot, span));
    }
}

impl Drop for Pairs {
    /// The stream is over.
    fn drop(&mut self) {
        let done = &mut self.done;
        self.pairing.finish(|boot, span| done.put(boot, span));
        done.flush();
    }
}

/// What a part makes of batches.
struct Fold<'q, P> {
    part: P,
    query: &'q Query,
    /// The one that began last.
    begun: Option<i64>,
    /// Those that have not begun.
    sessions: &'q [(i64, Source)],
    current: Option<i64>,
}

impl<P: Part> Fold<'_, P> {
    fn take(&mut self, bulk: &Bulk) -> std::result::Result<(), Damaged> {
        let Self { part, query, sessions, current, begun } = self;
        bulk.visit(query, |session, item| {
            if *current != Some(session) {
                *current = Some(session);
                while let Some(((id, source), later)) = sessions.split_first()
                    && *id <= session
                {
                    part.begin(source);
                    (*begun, *sessions) = (Some(*id), later);
                }
            }
            match item {
                BulkItem::Event(facts, record) => part.event(&facts, &record),
                BulkItem::Unwanted(facts, record) if *begun == Some(session) => {
                    part.unwanted(&facts, &record);
                }
                BulkItem::Unwanted(..) => {}
                BulkItem::Gap(gap) => part.gap(gap),
            }
        })
    }

    fn finish(mut self) -> P {
        self.sessions.iter().for_each(|(_, source)| self.part.begin(source));
        self.part
    }
}

type Folding<'scope, P> = ScopedJoinHandle<'scope, std::result::Result<P, Damaged>>;

/// Lets a part take what is sent. It ends with the last batch, or where one is damaged.
fn fold<'scope, P: Part + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    mut fold: Fold<'scope, P>,
) -> Result<(SyncSender<Arc<Bulk>>, Folding<'scope, P>)> {
    let (sender, receiver): (_, Receiver<Arc<Bulk>>) = sync_channel(BATCHES);
    let work = move || {
        receiver.iter().try_for_each(|bulk| fold.take(&bulk))?;
        Ok(fold.finish())
    };
    Ok((sender, spawn(scope, name, work)?))
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
        .map_err(|error| Error::io("start a thread for the report", error))
}

impl Histories {
    /// What the items that `query` wants came to. The time watched is that of the recorders' sessions, as far
    /// as the query asks for it.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn report(&self, query: &Query, mut options: Options) -> Result<Report> {
        let (from, to) = query.unix_range_ns();
        (options.from_unix_ns, options.to_unix_ns) = (from, to);
        let plan = Plan::of(&self.files)?;
        let mut sessions: Vec<(i64, Source)> =
            plan.sessions().map(|recorded| (recorded.id, self.source(recorded))).collect();
        sessions.retain(|(_, source)| {
            source.to_unix_ns.is_none_or(|ended| ended >= from)
                && source.from_unix_ns.is_none_or(|started| started < to)
        });
        let log_missing = self.lack_log(&plan);
        let (sessions, wanted) = (&sessions[..], query.wanted());
        std::thread::scope(|scope| {
            let (part, current) = (Counts::new(options, wanted.clone()), None);
            let counts = Fold { part, query, sessions, current, begun: None };
            let (to_counts, counts) = fold(scope, "gpuev-counts", counts)?;
            let (to, done) = sync_channel(SPANS_WAITING);
            let costs = spawn(scope, "gpuev-costs", move || {
                let mut costs = Costs::new(options);
                let mut current = Current::default();
                for (_, source) in sessions {
                    let boot = current.begin(source.boot_id.as_deref());
                    costs.begin(boot, source.host.as_deref());
                }
                done.iter().flatten().for_each(|(boot, span)| costs.span(boot, &span));
                costs
            })?;
            let done = Done { to, spans: Vec::with_capacity(SPANS) };
            let part = Pairs { pairing: Pairing::new(wanted), done };
            let pairs = Fold { part, query, sessions, current, begun: None };
            let (to_pairs, pairs) = fold(scope, "gpuev-pairs", pairs)?;
            self.batches(&plan.begun(query), query, |bulk| {
                let bulk = Arc::new(bulk);
                let sent = to_counts.send(Arc::clone(&bulk)).and_then(|()| to_pairs.send(bulk));
                // Who has ended says why.
                if sent.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            drop((to_counts, to_pairs));
            let counts = self.whole(join(counts)?)?;
            let pairs = self.whole(join(pairs)?)?;
            let unpaired = pairs.pairing.left_out();
            drop(pairs);
            let mut report = counts.into_report(join(costs)?, unpaired);
            report.log_missing = log_missing;
            let unreadable = self.unreadable().iter();
            report.unreadable = unreadable.map(|(_, error)| error.to_string()).collect();
            Ok(report)
        })
    }

    /// Gives `take` all batches of the plan that may hold what `query` wants, in order.
    fn batches(
        &self,
        plan: &Plan,
        query: &Query,
        mut take: impl FnMut(Bulk) -> ControlFlow<()>,
    ) -> Result<()> {
        for run in &plan.runs {
            let numbered = run.sessions.iter().any(|one| one.local != one.recorded.id);
            let number = |local: i64| {
                let place = run.sessions.binary_search_by_key(&local, |one| one.local);
                place.map_or(local, |place| run.sessions[place].recorded.id)
            };
            let mut ended = false;
            self.files[run.file].batches(&run.query(query), |mut bulk| {
                if numbered {
                    bulk.renumber(number);
                }
                let taken = take(bulk);
                ended = taken.is_break();
                taken
            })?;
            if ended {
                break;
            }
        }
        Ok(())
    }

    fn whole<P>(&self, part: std::result::Result<P, Damaged>) -> Result<P> {
        part.map_err(|Damaged| damaged(&self.name()))
    }

    /// The sessions by number, as a report names where events are from; oldest first.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn sources(&self) -> Result<Vec<(i64, Source)>> {
        let plan = Plan::of(&self.files)?;
        Ok(plan.sessions().map(|recorded| (recorded.id, self.source(recorded))).collect())
    }

    /// Whether the last session of a file was not ended and the file's log is not beside it: what it recorded last
    /// may be in that. Who opens a history without a log makes an empty one.
    fn lack_log(&self, plan: &Plan) -> bool {
        let lacks_log = |recorded: &RecordedSession| {
            let (file, _) = recorded.parts.last()?;
            let log = std::fs::metadata(beside(self.files.get(*file)?.path(), "-wal"));
            let is_open = !recorded.is_live && !recorded.is_closed;
            Some(is_open && log.map_or(0, |log| log.len()) == 0)
        };
        let lasts = plan.runs.iter().filter(|run| run.until == i64::MAX);
        lasts
            .filter_map(|run| run.sessions.last())
            .any(|last| lacks_log(&last.recorded) == Some(true))
    }

    /// A session as a report names where events are from.
    #[must_use]
    pub fn source(&self, recorded: &RecordedSession) -> Source {
        let last = recorded.last_sign();
        let end = match (recorded.is_live, recorded.is_closed, recorded.session.ended) {
            (true, ..) => SourceEnd::Live,
            (_, true, Some(_)) => SourceEnd::Closed,
            (_, false, _) => SourceEnd::Killed,
            _ => SourceEnd::Unknown,
        };
        // What follows the last that is not kept is kept, from its time on.
        let not_kept = recorded
            .not_kept
            .iter()
            .filter_map(|one| Some((one.from_boot_ns.unwrap_or(0), one.to_boot_ns?)));
        let not_kept = not_kept.collect();
        let session = recorded.session.clone();
        Source {
            name: self.name_of(recorded),
            host: session.host,
            kernel: session.kernel,
            boot_id: session.boot_id,
            scope: session.scope,
            filter: session.filter,
            from_unix_ns: Some(session.started.unix_ns),
            to_unix_ns: last.map(|at| at.unix_ns),
            from_boot_ns: Some(session.started.boot_ns),
            to_boot_ns: last.map(|at| at.boot_ns),
            end,
            gpus: session.gpus.into_iter().map(|(gpu, _)| gpu).collect(),
            came_later: session.came_later,
            not_kept,
        }
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| Error::new(ErrorKind::Stopped, "a thread of the report panicked"))
}
