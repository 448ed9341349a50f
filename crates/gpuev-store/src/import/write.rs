//! A history of what a text holds.

use std::io::BufRead;
use std::path::Path;

use gpuev::time::Anchor;
use gpuev::{Item, Result};

use super::boots::Boots;
use super::{Entry, Importer};
use crate::session::Session;
use crate::writer::Writer;

/// How much was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Imported {
    /// Sessions begun in the history: those that the text tells of, else one for each boot of the machine.
    pub sessions: u64,
    /// Events.
    pub events: u64,
    /// Gaps.
    pub gaps: u64,
    /// The text itself tells of sessions.
    pub told_sessions: bool,
}

impl Imported {
    /// Neither an event nor a gap, nor a session that says of itself that there were none.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.events == 0 && self.gaps == 0 && !self.told_sessions
    }
}

/// Writes all that `importer` reads to the history at `path`, which is made where there is none. What is in it
/// stays, so that what is imported twice is there twice.
///
/// # Errors
/// Where the text or the history fails. What was read before a broken line is then in the history.
pub fn import_history<R: BufRead>(importer: &mut Importer<R>, path: &Path) -> Result<Imported> {
    let mut imported = Imported::default();
    let mut history: Option<Open> = None;
    let mut boots = Some(Boots::default());
    let mut boot = 0;
    // The next item is of another session than the one before.
    let mut is_over = true;
    while let Some(entry) = importer.next_entry()? {
        match entry {
            Entry::Session(session) => {
                // The text itself says where they begin.
                boots = None;
                is_over = false;
                imported.sessions += 1;
                imported.told_sessions = true;
                history = Some(Open::begin(history.take(), path, &session)?);
            }
            Entry::Item(item) => {
                is_over |= boots.as_mut().is_some_and(|boots| boots.has_begun(anchor_of(&item)));
                is_over |= boot != importer.boot();
                boot = importer.boot();
                let mut open = match history.take() {
                    Some(open) if !is_over => open,
                    before => {
                        is_over = false;
                        imported.sessions += 1;
                        let session = importer.session_from(anchor_of(&item));
                        Open::begin(before, path, &session)?
                    }
                };
                open.writer.append_numbered(&item, importer.item_number())?;
                history = Some(open);
                match item {
                    Item::Event(_) => imported.events += 1,
                    Item::Gap(_) => imported.gaps += 1,
                }
            }
        }
    }
    let open = match history {
        Some(open) => open,
        // A history of nothing is one too.
        None => {
            imported.sessions += 1;
            Open::begin(None, path, &Session::unknown(Anchor::now()))?
        }
    };
    open.close()?;
    Ok(imported)
}

/// A session that is written.
struct Open {
    writer: Writer,
    ended: Option<Anchor>,
}

impl Open {
    /// Begins a session, after the one before where there is one.
    fn begin(before: Option<Self>, path: &Path, session: &Session) -> Result<Self> {
        let writer = match before {
            Some(Self { mut writer, ended }) => {
                writer.next_session_after(ended, session)?;
                writer
            }
            None => Writer::import(path, session)?,
        };
        Ok(Self { writer, ended: session.ended })
    }

    fn close(mut self) -> Result<()> {
        self.writer.close_at(self.ended)
    }
}

/// When a session began of which only the first item is known.
fn anchor_of(item: &Item) -> Anchor {
    match item {
        Item::Event(event) => Anchor { boot_ns: event.time.boot_ns, unix_ns: event.time.unix_ns },
        Item::Gap(gap) => Anchor { boot_ns: gap.to_boot_ns, unix_ns: gap.unix_ns },
    }
}
