//! A reader that is being drained, and who gets what it reads.

use std::os::fd::{AsFd, BorrowedFd};

use super::{Subscribers, removed_gap};
use crate::pace::Read;
use crate::reader::{Answer, Drawn, Question};
use crate::{EventMask, EventReader, Result};

/// Events handed out at a time, some tens of microseconds: then files are looked at again.
const MOST_AT_A_TIME: usize = 256;
/// Bytes that wait for a name. More are not worth it: the event goes without.
const MOST_HELD: usize = 1 << 20;

/// A reader, its subscribers, and what it waits for.
pub(super) struct Source {
    reader: EventReader,
    subscribers: Subscribers,
    on_removed: Option<OnRemoved>,
    /// What must be answered before anything more can be handed out.
    asked: Option<Question>,
    /// What is to be asked beside.
    renewals: Vec<Question>,
}

/// Is given the reader once its GPU is gone and everything told.
pub(super) type OnRemoved = Box<dyn FnOnce(EventReader) + Send>;

/// How far handing out has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// All that was read is handed out.
    Done,
    /// There is more.
    More,
    /// This must be answered first.
    Asks {
        question: Question,
        /// It was not asked before.
        anew: bool,
    },
    /// The GPU is gone. What was read before is not yet handed out.
    Ended(Box<Source>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?})", self.reader.gpu())
    }
}

impl Source {
    pub(super) fn new(
        reader: EventReader,
        subscribers: Subscribers,
        on_removed: Option<OnRemoved>,
    ) -> Self {
        Self { reader, subscribers, on_removed, asked: None, renewals: Vec::new() }
    }

    pub(super) fn set_mask(&self, mask: EventMask) -> Result<()> {
        self.reader.set_mask(mask)
    }

    pub(super) fn into_reader(self) -> EventReader {
        self.reader
    }

    pub(super) fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// Reads what the driver holds, all of it unless that is more than waits for a name at most.
    pub(super) fn fill(&mut self) -> Result<Read> {
        let mut read = Read { bytes: 0, fifo: self.reader.fifo_capacity() };
        loop {
            let filled = self.reader.fill();
            if self.reader.held() > MOST_HELD
                && let Some(question) = self.asked.take()
            {
                self.reader.answer(&question, question.unknown());
            }
            read.bytes += filled?;
            if self.took_all() || self.reader.held() > MOST_HELD {
                return Ok(read);
            }
        }
    }

    /// Whether the driver held no more when it was last read.
    pub(super) fn took_all(&self) -> bool {
        self.reader.took_all()
    }

    /// Hands out what was read, as far as it goes.
    pub(super) fn hand_out(&mut self) -> Progress {
        if let Some(question) = self.asked.clone() {
            return Progress::Asks { question, anew: false };
        }
        let mut subscribers = self.subscribers.lock();
        let mut progress = Progress::More;
        for _ in 0..MOST_AT_A_TIME {
            match self.reader.draw() {
                Ok(Some(Drawn::Event { facts, record, renewal })) => {
                    self.renewals.extend(renewal);
                    subscribers.iter().for_each(|one| one.offer_event(&facts, &record));
                }
                Ok(Some(Drawn::Gap(gap))) => subscribers.iter().for_each(|one| one.offer_gap(&gap)),
                Ok(Some(Drawn::Question(question))) => {
                    self.asked = Some(question.clone());
                    progress = Progress::Asks { question, anew: true };
                    break;
                }
                Ok(None) | Err(_) => {
                    progress = Progress::Done;
                    break;
                }
            }
        }
        subscribers.retain(|subscriber| {
            subscriber.wake();
            !subscriber.is_gone()
        });
        progress
    }

    /// What nothing waits for and should be asked soon.
    pub(super) fn take_renewals(&mut self) -> impl Iterator<Item = Question> + '_ {
        self.renewals.drain(..)
    }

    /// Answers `question`; tells whether it is one that was waited for.
    pub(super) fn answer(&mut self, question: &Question, answer: Answer) -> bool {
        let awaited = self.asked.take_if(|asked| asked.is(question)).is_some();
        if awaited {
            self.reader.answer(question, answer);
        } else {
            self.reader.renew(question, answer);
        }
        awaited
    }

    /// Hands everything out, however long names take: nothing more will be read.
    pub(super) fn finish(&mut self) {
        self.reader.end();
        loop {
            match self.hand_out() {
                Progress::Asks { question, .. } => {
                    self.answer(&question, question.look_up());
                }
                Progress::More => {}
                Progress::Done | Progress::Ended(_) => return,
            }
        }
    }

    /// Hands everything out and tells that the GPU is gone.
    pub(super) fn end(mut self) {
        self.finish();
        self.subscribers.tell(&removed_gap(self.reader.gpu()));
        if let Some(on_removed) = self.on_removed.take() {
            on_removed(self.reader);
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

// Queues work only inside of shuttle where it takes the place of `std::sync`.
#[cfg(test)]
#[cfg(not(gpuev_shuttle))]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use gpuev_kfd::KfdVersion;

    use super::*;
    use crate::subscription::Subscriber;
    use crate::{DEFAULT_LIMIT, Filter, Item, Machine, Subscription};

    const VERSION: KfdVersion = KfdVersion { major: 1, minor: 23 };

    fn source() -> (UnixStream, Source, Subscription) {
        let root = tempfile::TempDir::new().unwrap();
        let nodes = root.path().join("sys/class/kfd/kfd/topology/nodes/1");
        std::fs::create_dir_all(&nodes).unwrap();
        std::fs::write(nodes.join("gpu_id"), "100\n").unwrap();
        std::fs::write(nodes.join("properties"), "location_id 768\n").unwrap();
        let machine = Machine::at(root.path());
        let gpu = machine.gpus().unwrap().remove(0);
        let (driver, file) = UnixStream::pair().unwrap();
        file.set_nonblocking(true).unwrap();
        let reader =
            EventReader::from_fd(&machine, &gpu, file.into(), VERSION, EventMask::ALL).unwrap();
        let subscriber = Subscriber::new(Filter::new(), DEFAULT_LIMIT);
        let items = Subscription::new(Arc::clone(&subscriber));
        (driver, Source::new(reader, Subscribers::of(subscriber), None), items)
    }

    #[test]
    fn a_name_that_never_comes_is_given_up_when_too_much_waits() {
        const LINE: &[u8] = b"7 1 -4242 @7fff00000(64) W\n";
        let (mut driver, mut source, mut items) = source();
        let mut written = 0;
        driver.write_all(LINE).unwrap();
        source.fill().unwrap();
        let Progress::Asks { question, anew: true } = source.hand_out() else { panic!() };
        while let Progress::Asks { .. } = source.hand_out() {
            assert!(items.try_next().is_none() && written <= MOST_HELD);
            driver.write_all(&LINE.repeat(300)).unwrap();
            written += 300 * LINE.len();
            source.fill().unwrap();
        }
        assert!(written + LINE.len() > MOST_HELD);
        source.finish();
        let events = std::iter::from_fn(|| items.try_next());
        let nameless =
            events.filter(|item| matches!(item, Item::Event(e) if e.process().is_none()));
        assert_eq!(nameless.count() * LINE.len(), written + LINE.len());
        assert!(
            !source.answer(&question, Answer::Process(Some(crate::Comm::new(b"late")))),
            "nobody waits for it"
        );
    }
}
