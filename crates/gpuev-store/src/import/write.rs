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
    while let Some(entry) = importer.next_entry()? {
        match entry {
            Entry::Session(session) => {
                // The text itself says where they begin.
                boots = None;
                close(history.take())?;
                imported.sessions += 1;
                imported.told_sessions = true;
                history = Some(Open::begin(path, &session)?);
            }
            Entry::Item(item) => {
                let another = boots.as_mut().is_some_and(|boots| boots.has_begun(anchor_of(&item)));
                if another || boot != importer.boot() {
                    boot = importer.boot();
                    close(history.take())?;
                }
                let open = match &mut history {
                    Some(open) => open,
                    none => {
                        imported.sessions += 1;
                        none.insert(Open::begin(path, &importer.session_from(anchor_of(&item)))?)
                    }
                };
                open.writer.append_numbered(&item, importer.item_number())?;
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
            Open::begin(path, &Session::unknown(Anchor::now()))?
        }
    };
    open.close()?;
    Ok(imported)
}

fn close(session: Option<Open>) -> Result<()> {
    session.map_or(Ok(()), Open::close)
}

/// A session that is written.
struct Open {
    writer: Writer,
    ended: Option<Anchor>,
}

impl Open {
    fn begin(path: &Path, session: &Session) -> Result<Self> {
        Ok(Self { writer: Writer::import(path, session)?, ended: session.ended })
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
