//! All that a history holds, in the order in which it was written: the one stream that every reader walks.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;

use gpuev::{Item, Result};

use crate::history::{History, Items};
use crate::note::{NextNotes, RecordedNote};
use crate::query::Query;
use crate::recorded::RecordedSession;
use crate::row::Place;

/// What a history holds.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // it is handed on at once
pub enum Entry {
    /// What follows is of this session, up to the next. Also one without any items.
    Session(Arc<RecordedSession>),
    /// An event or a gap, and where it lies.
    Item(Place, Item),
    /// What was noted beside.
    Note(RecordedNote),
}

impl Entry {
    /// Where an item or a note lies.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Session(_) => None,
            Self::Item(place, _) => Some(*place),
            Self::Note(note) => Some(note.place),
        }
    }
}

/// The entries of a history that a query wants, read as they are taken. At the end it gives `None`; where more has
/// been recorded since, it goes on when asked again.
#[derive(Debug)]
pub struct Entries<H> {
    items: Items<H>,
    notes: Option<NextNotes>,
    sessions: Option<Sessions>,
    query: Query,
    /// The next item: notes that lie before it come first.
    item: Option<(Place, Item)>,
    /// What comes after its session.
    entry: Option<Entry>,
}

/// The sessions that have not come.
#[derive(Debug)]
struct Sessions {
    next: VecDeque<Arc<RecordedSession>>,
    /// The last that has come, or was passed over.
    last: i64,
}

impl History {
    /// Its sessions, and of each the items and the notes that `query` wants.
    #[must_use]
    pub fn entries(&self, query: &Query) -> Entries<&Self> {
        Entries::new(self, query)
    }

    /// As [`entries`](Self::entries), and keeps the history.
    #[must_use]
    pub fn into_entries(self, query: &Query) -> Entries<Self> {
        Entries::new(self, query)
    }
}

impl<H: Borrow<History>> Entries<H> {
    fn new(history: H, query: &Query) -> Self {
        Self {
            items: Items::new(history, query),
            notes: Some(NextNotes::of(query)),
            sessions: None,
            query: query.clone(),
            item: None,
            entry: None,
        }
    }

    /// Sessions and items only.
    #[must_use]
    pub fn without_notes(mut self) -> Self {
        self.notes = None;
        self
    }

    /// The history that they are of.
    pub fn history(&self) -> &History {
        self.items.history()
    }

    /// The next entry.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.entry.is_none() {
            self.entry = self.next_placed()?;
        }
        let session = self.entry.as_ref().and_then(Entry::place).map(|place| place.session);
        if let Some(session) = self.next_session(session)? {
            return Ok(Some(Entry::Session(session)));
        }
        Ok(self.entry.take())
    }

    fn next_placed(&mut self) -> Result<Option<Entry>> {
        if self.item.is_none() {
            self.item = self.items.next_placed()?;
        }
        let item = self.item.as_ref().map(|(place, _)| place.item);
        if let Some(notes) = &mut self.notes
            && let Some(note) = notes.before(self.items.history(), item)?
        {
            return Ok(Some(Entry::Note(note)));
        }
        Ok(self.item.take().map(|(place, item)| Entry::Item(place, item)))
    }

    /// The next session that comes before something of session `until`; without that, the next of the time that is
    /// asked for.
    fn next_session(&mut self, until: Option<i64>) -> Result<Option<Arc<RecordedSession>>> {
        let sessions = match &mut self.sessions {
            Some(sessions)
                if until.is_none_or(|until| until <= sessions.last || sessions.has(until)) =>
            {
                sessions
            }
            // One that began after the others were read.
            known => {
                let last = known.as_ref().map(|sessions| sessions.last);
                let all = self.items.history().sessions()?;
                known.insert(Sessions::after(all, last, &self.query))
            }
        };
        Ok(sessions.take(until, &self.query))
    }
}

impl Sessions {
    /// Of `all`, those after `last`; at first, those that may have items after the one that the query asks for.
    fn after(all: Vec<RecordedSession>, last: Option<i64>, query: &Query) -> Self {
        let after = query.first_after();
        let read = all.partition_point(|one| one.first_item <= after);
        let last = last.unwrap_or_else(|| match read {
            0 => 0,
            // The session of the item asked for comes again, for what follows of it.
            read => all[read - 1].id - 1,
        });
        let next = all.into_iter().filter(|one| one.id > last).map(Arc::new).collect();
        Self { next, last }
    }

    fn has(&self, id: i64) -> bool {
        self.next.back().is_some_and(|last| last.id >= id)
    }

    fn take(&mut self, until: Option<i64>, query: &Query) -> Option<Arc<RecordedSession>> {
        while let Some(next) = self.next.front() {
            if until.is_some_and(|until| next.id > until) {
                return None;
            }
            let is_wanted = until == Some(next.id) || wants(query, next);
            self.last = next.id;
            let next = self.next.pop_front();
            if is_wanted {
                return next;
            }
        }
        None
    }
}

/// Whether a session without items is of the time that is asked for.
fn wants(query: &Query, recorded: &RecordedSession) -> bool {
    let (from, to) = query.unix_range_ns();
    let started = recorded.session.started.unix_ns;
    let ended = recorded.last_sign().map_or(started, |at| at.unix_ns);
    let has_rest = query.first_after() < recorded.first_item || recorded.is_live;
    started < to && ended >= from && has_rest
}
