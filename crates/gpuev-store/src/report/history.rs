//! A report of a history.
//!
//! This thread reads, and each half of a report has a thread of its own: they look at the same batches.

use std::iter::Peekable;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use gpuev::{Error, ErrorKind, EventFacts, Gap, Record, Result};

use crate::bulk::{Bulk, BulkItem, Damaged};
use crate::{History, Query, RecordedSession};

use super::costs::Costs;
use super::counts::Counts;
use super::fold::Options;
use super::summary::{Report, Source};

/// Batches that wait for a half: some 2 MB.
const WAITING: usize = 4;

/// A half of a report.
trait Half: Send {
    fn begin(&mut self, source: Source);
    fn event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>);
    fn gap(&mut self, gap: &Gap);
}

impl Half for Counts {
    fn begin(&mut self, source: Source) {
        self.begin(source);
    }

    fn event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        self.event(facts, record);
    }

    fn gap(&mut self, gap: &Gap) {
        self.gap(gap);
    }
}

impl Half for Costs {
    fn begin(&mut self, source: Source) {
        self.begin(source.boot_id.as_deref());
    }

    fn event(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) {
        self.event(facts, record);
    }

    fn gap(&mut self, gap: &Gap) {
        self.gap(gap);
    }
}

/// What a half makes of what it is given.
struct Fold<'q, H> {
    half: H,
    query: &'q Query,
    /// Those that have not begun.
    sessions: Peekable<std::vec::IntoIter<(i64, Source)>>,
    current: Option<i64>,
}

impl<H: Half> Fold<'_, H> {
    fn take(&mut self, bulk: &Bulk) -> std::result::Result<(), Damaged> {
        let Self { half, query, sessions, current } = self;
        bulk.visit(query, |session, item| {
            if *current != Some(session) {
                *current = Some(session);
                while let Some((_, source)) = sessions.next_if(|(id, _)| *id <= session) {
                    half.begin(source);
                }
            }
            match item {
                BulkItem::Event(facts, record) => half.event(&facts, &record),
                BulkItem::Gap(gap) => half.gap(gap),
            }
        })
    }

    fn finish(mut self) -> H {
        self.sessions.for_each(|(_, source)| self.half.begin(source));
        self.half
    }
}

type Folding<'scope, H> = ScopedJoinHandle<'scope, std::result::Result<H, Damaged>>;

/// Lets `half` take what is sent. It ends with the last batch, or where one is damaged.
fn spawn<'scope, H: Half + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut fold: Fold<'scope, H>,
) -> Result<(SyncSender<Arc<Bulk>>, Folding<'scope, H>)> {
    let (sender, receiver): (_, Receiver<Arc<Bulk>>) = sync_channel(WAITING);
    let work = move || {
        receiver.iter().try_for_each(|bulk| fold.take(&bulk))?;
        Ok(fold.finish())
    };
    let thread = std::thread::Builder::new()
        .name("gpuev-report".to_owned())
        .spawn_scoped(scope, work)
        .map_err(|error| Error::io("start a thread for the report", error))?;
    Ok((sender, thread))
}

impl History {
    /// What the items that `query` wants came to. The time watched is that of the recorders' sessions, as far
    /// as the query asks for it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn report(&self, query: &Query, mut options: Options) -> Result<Report> {
        let (from, to) = query.unix_range_ns();
        (options.from_unix_ns, options.to_unix_ns) = (from, to);
        let sessions = self.sessions()?.into_iter().filter(|recorded| {
            let ended = recorded.session.ended.map_or(i64::MAX, |ended| ended.unix_ns);
            ended >= from && recorded.session.started.unix_ns < to
        });
        let sessions: Vec<_> =
            sessions.map(|recorded| (recorded.id, self.source(recorded))).collect();
        let sessions = sessions.into_iter().peekable();
        std::thread::scope(|scope| {
            let (half, current) = (Counts::new(options), None);
            let fold = Fold { half, query, sessions: sessions.clone(), current };
            let (to_counts, counts) = spawn(scope, fold)?;
            let fold = Fold { half: Costs::new(options), query, sessions, current };
            let (to_costs, costs) = spawn(scope, fold)?;
            self.batches(query, |bulk| {
                let bulk = Arc::new(bulk);
                let sent = to_counts.send(Arc::clone(&bulk)).and_then(|()| to_costs.send(bulk));
                // Who has ended says why.
                if sent.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            drop((to_counts, to_costs));
            Ok(self.join(counts)?.into_report(self.join(costs)?))
        })
    }

    fn join<H>(&self, folding: Folding<'_, H>) -> Result<H> {
        let panicked = |_| Error::new(ErrorKind::Stopped, "a thread of the report panicked");
        folding.join().map_err(panicked)?.map_err(|Damaged| self.damaged())
    }

    fn source(&self, recorded: RecordedSession) -> Source {
        let session = recorded.session;
        Source {
            name: self.path().display().to_string(),
            host: session.host,
            kernel: session.kernel,
            boot_id: session.boot_id,
            scope: session.scope,
            from_unix_ns: Some(session.started.unix_ns),
            to_unix_ns: session.ended.map(|ended| ended.unix_ns),
        }
    }
}
