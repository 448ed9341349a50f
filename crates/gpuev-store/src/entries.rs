//! All that histories hold, in the order in which it was written: the one stream that every reader walks.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;

use gpuev::{Item, Result};

use crate::histories::Histories;
use crate::history::{History, NextItems};
use crate::note::{NextNotes, RecordedNote};
use crate::plan::{Plan, Planned, Run};
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

/// The entries of histories that a query wants, read as they are taken. At the end it gives `None`; where more has
/// been recorded since, it goes on when asked again.
#[derive(Debug)]
pub struct Entries<H> {
    histories: H,
    query: Query,
    with_items: bool,
    with_notes: bool,
    /// What is to be read after what is read now; `None` before the first entry is asked for.
    runs: Option<VecDeque<Run>>,
    reading: Option<Reading>,
}

/// A part of a file that is read.
#[derive(Debug)]
struct Reading {
    file: usize,
    items: Option<NextItems>,
    notes: Option<NextNotes>,
    /// The next item: notes that lie before it come first.
    item: Option<(Place, Item)>,
    /// What comes after its session.
    entry: Option<Entry>,
    /// The sessions that have not come.
    sessions: VecDeque<Planned>,
    /// The one that has come last.
    session: Option<Planned>,
}

impl Histories {
    /// Their sessions, and of each the items and the notes that `query` wants.
    #[must_use]
    pub fn entries(&self, query: &Query) -> Entries<&Self> {
        Entries::new(self, query)
    }

    /// As [`entries`](Self::entries), and keeps the histories.
    #[must_use]
    pub fn into_entries(self, query: &Query) -> Entries<Self> {
        Entries::new(self, query)
    }
}

impl<H: Borrow<Histories>> Entries<H> {
    fn new(histories: H, query: &Query) -> Self {
        let (with_items, with_notes) = (true, true);
        Self { histories, query: query.clone(), with_items, with_notes, runs: None, reading: None }
    }

    /// Sessions and items only.
    #[must_use]
    pub fn without_notes(mut self) -> Self {
        self.with_notes = false;
        self
    }

    /// Sessions and notes only.
    #[must_use]
    pub fn only_notes(mut self) -> Self {
        self.with_items = false;
        self
    }

    /// The histories that they are of.
    pub fn histories(&self) -> &Histories {
        self.histories.borrow()
    }

    /// The next entry.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let histories = self.histories.borrow();
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert(Plan::of(&histories.files)?.begun(&self.query).runs.into()),
        };
        loop {
            if let Some(reading) = &mut self.reading {
                let history = &histories.files[reading.file];
                if let Some(entry) = reading.next_entry(history, &self.query)? {
                    return Ok(Some(entry));
                }
            }
            let Some(run) = runs.pop_front() else { return Ok(None) };
            let wanted = (self.with_items, self.with_notes);
            self.reading = Some(Reading::of(run, &self.query, wanted));
        }
    }
}

impl Reading {
    fn of(run: Run, query: &Query, (with_items, with_notes): (bool, bool)) -> Self {
        let query = run.query(query);
        Self {
            file: run.file,
            items: with_items.then(|| NextItems::of(&query)),
            notes: with_notes.then(|| NextNotes::of(&query)),
            item: None,
            entry: None,
            sessions: run.sessions.into(),
            session: None,
        }
    }

    fn next_entry(&mut self, history: &History, query: &Query) -> Result<Option<Entry>> {
        if self.entry.is_none() {
            self.entry = self.next_placed(history)?;
        }
        let session = self.entry.as_ref().and_then(Entry::place).map(|place| place.session);
        if let Some(session) = self.next_session(session, history, query)? {
            return Ok(Some(Entry::Session(session)));
        }
        Ok(self.entry.take().map(|entry| self.placed(entry)))
    }

    fn next_placed(&mut self, history: &History) -> Result<Option<Entry>> {
        if let (None, Some(items)) = (&self.item, &mut self.items) {
            self.item = items.next(history)?;
        }
        let item = self.item.as_ref().map(|(place, _)| place.item);
        if let Some(notes) = &mut self.notes
            && let Some(note) = notes.before(history, item)?
        {
            return Ok(Some(Entry::Note(note)));
        }
        Ok(self.item.take().map(|(place, item)| Entry::Item(place, item)))
    }

    /// The next session that comes before something of session `until` of the file; without that, the next of the
    /// time that is asked for.
    fn next_session(
        &mut self,
        until: Option<i64>,
        history: &History,
        query: &Query,
    ) -> Result<Option<Arc<RecordedSession>>> {
        let last = self.sessions.back().or(self.session.as_ref());
        if let (Some(until), Some(last)) = (until, last)
            && until > last.local
        {
            let last = last.clone();
            self.add_later(&last, history)?;
        }
        while let Some(next) = self.sessions.front() {
            if until.is_some_and(|until| next.local > until) {
                break;
            }
            let is_wanted = next.begins && (until == Some(next.local) || wants(query, next));
            self.session = self.sessions.pop_front();
            if is_wanted {
                return Ok(self.session.as_ref().map(|planned| Arc::clone(&planned.recorded)));
            }
        }
        Ok(None)
    }

    /// Sessions of the file that began after it was looked at.
    fn add_later(&mut self, last: &Planned, history: &History) -> Result<()> {
        let (shift, number) = (last.shift, last.recorded.id - last.local);
        for mut recorded in history.sessions()? {
            if recorded.id > last.local {
                let local = recorded.id;
                recorded.id += number;
                recorded.first_item -= shift;
                recorded.item_base -= shift;
                recorded.parts = vec![(self.file, local)];
                let recorded = Arc::new(recorded);
                self.sessions.push_back(Planned { local, shift, begins: true, recorded });
            }
        }
        Ok(())
    }

    /// With the numbers of all histories in place of the file's.
    fn placed(&self, mut entry: Entry) -> Entry {
        let Some(Planned { recorded, shift, .. }) = &self.session else { return entry };
        let place = |place: &mut Place| {
            place.session = recorded.id;
            place.item -= shift;
        };
        match &mut entry {
            Entry::Session(_) => {}
            Entry::Item(at, _) => place(at),
            Entry::Note(note) => {
                place(&mut note.place);
                note.event = note.event.map(|event| event - shift);
            }
        }
        entry
    }
}

/// Whether a session without items is of the time that is asked for.
fn wants(query: &Query, planned: &Planned) -> bool {
    let recorded = &planned.recorded;
    let (from, to) = query.unix_range_ns();
    let started = recorded.session.started.unix_ns;
    let ended = recorded.last_sign().map_or(started, |at| at.unix_ns);
    let has_rest = query.first_after() < recorded.first_item || recorded.is_live;
    started < to && ended >= from && has_rest
}
