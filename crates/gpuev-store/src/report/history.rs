//! A report of a history.

use std::ops::ControlFlow;

use gpuev::{Result, decode};

use crate::{History, Query, RecordedSession, Row};

use super::fold::{Options, Reporter};
use super::summary::{Report, Source};

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
        let mut sessions = sessions.peekable();
        let mut reporter = Reporter::new(options);
        let mut current = None;
        self.visit(query, |place, row| {
            if current != Some(place.session) {
                current = Some(place.session);
                while let Some(session) = sessions.next_if(|one| one.id <= place.session) {
                    reporter.begin(self.source(session));
                }
            }
            match row {
                Row::Event(facts) => reporter.push_event(&facts, &decode(facts.raw)),
                Row::Gap(gap) => reporter.push_gap(gap),
            }
            ControlFlow::Continue(())
        })?;
        sessions.for_each(|session| reporter.begin(self.source(session)));
        Ok(reporter.finish())
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
