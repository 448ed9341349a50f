//! Notes on their way to the recorder: what it writes beside the items of its subscription.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use gpuev::{Error, Item, Result, Subscription};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::note::{Note, NotedEvent};
use crate::writer::Writer;

/// Notes that may wait for the disk.
const WAITING: usize = 1024;

/// Takes notes for a recorder. Never waits.
#[derive(Debug)]
pub struct Notebook {
    notes: SyncSender<Note>,
    bell: Arc<OwnedFd>,
}

impl Notebook {
    /// Hands `note` over. False where it is lost: too many wait for the disk, or the recorder has ended.
    pub fn add(&self, note: Note) -> bool {
        let taken = self.notes.try_send(note).is_ok();
        if taken {
            // Fails only where the bell rings already.
            let _rings = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        }
        taken
    }
}

/// The recorder's side.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    from: Option<(Receiver<Note>, Arc<OwnedFd>)>,
    waiting: VecDeque<Note>,
}

/// # Errors
/// Where no descriptor is left.
pub(super) fn new() -> Result<(Notebook, Inbox)> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| Error::io("create an eventfd", error.into()))?;
    let bell = Arc::new(bell);
    let (notes, received) = sync_channel(WAITING);
    let notebook = Notebook { notes, bell: Arc::clone(&bell) };
    Ok((notebook, Inbox { from: Some((received, bell)), waiting: VecDeque::new() }))
}

impl Inbox {
    /// Waits for an item or a note, at most so long. `None`: a note is there, the items have ended, or nothing came.
    pub(super) fn wait(
        &mut self,
        items: &mut Subscription,
        most: Duration,
    ) -> Result<Option<Item>> {
        let Some((_, bell)) = &self.from else { return Ok(items.wait(Some(most))) };
        let due = Instant::now() + most;
        loop {
            if let Some(item) = items.try_next() {
                return Ok(Some(item));
            }
            let arrival = items.ready_fd()?;
            let mut either = [
                PollFd::from_borrowed_fd(arrival, PollFlags::IN),
                PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN),
            ];
            let left = Timespec::try_from(due.saturating_duration_since(Instant::now())).ok();
            match poll(&mut either, left.as_ref()) {
                Ok(0) => return Ok(items.try_next()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("wait for events to record", error.into())),
            }
            let rings = either[1].revents().contains(PollFlags::IN);
            if rings {
                let _silent = rustix::io::read(bell, &mut [0_u8; 8]);
            }
            if rings || items.is_finished() {
                return Ok(items.try_next());
            }
        }
    }

    /// Writes what was noted. `received_boot_ns` is when the last item was received that was written: a note
    /// waits for an event that may be still to come. One that is lost has a gap that comes in its place.
    pub(super) fn write_until(&mut self, received_boot_ns: u64, writer: &mut Writer) -> Result<()> {
        let Some((from, _)) = &self.from else { return Ok(()) };
        self.waiting.extend(from.try_iter());
        while let Some(note) = self.waiting.pop_front() {
            let passed = |event: NotedEvent| event.received_boot_ns < received_boot_ns;
            let event = writer.event_of(&note)?;
            if event.is_none() && !note.event.is_none_or(passed) {
                self.waiting.push_front(note);
                break;
            }
            writer.append_note_of(&note, event)?;
        }
        Ok(())
    }

    /// The items have ended: writes all that is noted until the notebook is dropped.
    pub(super) fn write_rest(self, writer: &mut Writer) -> Result<()> {
        let received = self.from.into_iter().flat_map(|(from, _)| from);
        self.waiting.into_iter().chain(received).try_for_each(|note| writer.append_note(&note))
    }
}
