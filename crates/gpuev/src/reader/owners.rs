//! Whose each message is, and where it ends: what `/proc` has to say about events.

use std::sync::Arc;

use gpuev_kfd::{Fields, Record};

use super::forgery::{Forgery, Verdict};
use super::intake::Front;
use crate::process::{NameCache, NameLookup};
use crate::{Comm, Machine};

/// What is a process called? Asking the system takes long in the eyes of a FIFO: whoever draws decides when.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pid: u32,
    received_boot_ns: u64,
    names: Arc<NameLookup>,
}

impl Question {
    /// Asks the system.
    pub(crate) fn look_up(&self) -> Option<Comm> {
        self.names.look_up(self.pid, self.received_boot_ns)
    }

    /// Whether an answer to the other answers this.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.pid, self.received_boot_ns) == (other.pid, other.received_boot_ns)
    }
}

/// The processes of one GPU's events.
#[derive(Debug)]
pub(super) struct Owners {
    names: NameCache,
    /// The answer to the last question.
    answer: Option<(u32, Option<Comm>)>,
    forgery: Forgery,
}

/// How the next message is to be taken.
pub(super) struct Settled {
    /// Bytes of what follows that belong to it.
    pub(super) more: usize,
    pub(super) doubtful: bool,
    /// Its process's name, where it has none itself.
    pub(super) comm: Comm,
    /// To be asked beside.
    pub(super) renewal: Option<Question>,
}

impl Owners {
    pub(super) fn new(machine: &Machine) -> Self {
        Self { names: NameCache::new(machine), answer: None, forgery: Forgery::default() }
    }

    /// Finds out whose the message in front is, which decodes to `record` as far as newlines tell, and whether what
    /// follows a task name belongs to it. Changes nothing where that has to be asked.
    pub(super) fn settle(
        &mut self,
        record: &Record<'_>,
        front: &Front<'_>,
    ) -> Result<Settled, Question> {
        let length = front.message().len();
        let (comm, renewal) = self.owner(record, front.received.boot_ns)?;
        let answer = self.answer.take();
        let Some(task) = record.task() else {
            return Ok(Settled { more: 0, doubtful: self.forgery.doubts(length), comm, renewal });
        };
        let following = front.following();
        let borne = match answer.filter(|(pid, _)| *pid == task.pid) {
            Some((_, borne)) => borne,
            None if Forgery::may_go_on(task, following) => {
                return Err(self.question(task.pid, front.received.boot_ns));
            }
            None => None,
        };
        let doubtful = self.forgery.doubts(length);
        self.names.forget(task.pid);
        let more = match self.forgery.judge(task, following, borne) {
            Verdict::Genuine => 0,
            Verdict::NameGoesOn(more) => more,
        };
        Ok(Settled { more, doubtful, comm, renewal })
    }

    /// The name that a message does not have itself, and what to ask beside.
    fn owner(
        &mut self,
        record: &Record<'_>,
        received_boot_ns: u64,
    ) -> Result<(Comm, Option<Question>), Question> {
        // A driver's own count of losses is nobody's event.
        let counts_losses = matches!(record.fields, Fields::DroppedEvents { .. });
        let Some(stamp) = record.stamp().filter(|_| !counts_losses) else {
            return Ok((Comm::NONE, None));
        };
        let Some(known) = self.names.known(stamp.pid, received_boot_ns) else {
            return Err(self.question(stamp.pid, received_boot_ns));
        };
        Ok((known.name, known.due.then(|| self.question(stamp.pid, received_boot_ns))))
    }

    fn question(&self, pid: u32, received_boot_ns: u64) -> Question {
        Question { pid, received_boot_ns, names: self.names.lookup() }
    }

    /// Remembers the counters in a message that was taken.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        self.forgery.note(record);
    }

    /// Takes in the answer to a question that could not wait.
    pub(super) fn answer(&mut self, question: &Question, comm: Option<Comm>) {
        let name = comm.unwrap_or(Comm::NONE);
        self.names.learn(question.pid, name, question.received_boot_ns);
        self.answer = Some((question.pid, comm));
    }

    /// Takes in the answer to one that was asked beside.
    pub(super) fn renew(&mut self, question: &Question, comm: Option<Comm>) {
        let name = comm.unwrap_or(Comm::NONE);
        self.names.renew(question.pid, name, question.received_boot_ns);
    }
}
