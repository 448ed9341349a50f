//! Whose each message is, and where it ends: what `/proc` has to say about events.

use std::sync::Arc;

use gpuev_kfd::codec::Task;
use gpuev_kfd::{EventType, Fields, Record};

use super::forgery::{Forgery, Verdict};
use super::intake::Front;
use crate::process::{NameCache, NameLookup, ThreadOwner, Threads};
use crate::{Comm, Machine};

/// Who bears a number in an event? Asking the system takes long in the eyes of a FIFO: whoever draws decides when.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    number: Number,
    received_boot_ns: u64,
    names: Arc<NameLookup>,
}

/// Whose number a line has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Process(u32),
    Thread(u32),
}

/// What the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The process's name, where it is certain.
    Process(Option<Comm>),
    /// The thread's process.
    Thread(ThreadOwner),
}

impl Question {
    /// Asks the system.
    pub(crate) fn look_up(&self) -> Answer {
        match self.number {
            Number::Process(pid) => Answer::Process(self.names.look_up(pid, self.received_boot_ns)),
            Number::Thread(tid) => Answer::Thread(self.names.look_up_thread(tid)),
        }
    }

    /// The answer of a system that knows nothing.
    pub(crate) fn unknown(&self) -> Answer {
        match self.number {
            Number::Process(_) => Answer::Process(None),
            Number::Thread(_) => Answer::Thread(ThreadOwner::default()),
        }
    }

    /// Whether an answer to the other answers this.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.number, self.received_boot_ns) == (other.number, other.received_boot_ns)
    }
}

/// The processes of one GPU's events.
#[derive(Debug)]
pub(super) struct Owners {
    names: NameCache,
    threads: Threads,
    /// What the system said last of a thread.
    answer: Option<(u32, ThreadOwner)>,
    forgery: Forgery,
}

/// How the next message is to be taken.
pub(super) struct Settled {
    /// Bytes of what follows that belong to it.
    pub(super) more: usize,
    pub(super) doubtful: bool,
    /// Its process, where the line names a thread.
    pub(super) pid: Option<u32>,
    /// Its process's name.
    pub(super) comm: Comm,
    /// To be asked beside.
    pub(super) renewal: Option<Question>,
}

impl Owners {
    pub(super) fn new(machine: &Machine) -> Self {
        Self {
            names: NameCache::new(machine),
            threads: Threads::default(),
            answer: None,
            forgery: Forgery::default(),
        }
    }

    /// Finds out whose the message in front is, which decodes to `record` as far as newlines tell, and whether what
    /// follows a task name belongs to it. Changes nothing where that has to be asked.
    pub(super) fn settle(
        &mut self,
        record: &Record<'_>,
        front: &Front<'_>,
    ) -> Result<Settled, Question> {
        if let Some(task) = record.task() {
            return self.settle_task(task, record.event_type(), front);
        }
        let (comm, renewal) = self.owner(record, front.received.boot_ns)?;
        let doubtful = self.forgery.doubts(front.message().len());
        Ok(Settled { more: 0, doubtful, pid: None, comm, renewal })
    }

    fn settle_task(
        &mut self,
        task: Task<'_>,
        event_type: Option<EventType>,
        front: &Front<'_>,
    ) -> Result<Settled, Question> {
        let (following, now_ns) = (front.following(), front.received.boot_ns);
        let (owner, borne) = self.thread(task, event_type, following, now_ns)?;
        let doubtful = self.forgery.doubts(front.message().len());
        if event_type == Some(EventType::ProcessEnd) {
            self.threads.forget(task.pid, owner.pid);
        }
        self.names.forget(task.pid);
        if let Some(pid) = owner.pid {
            self.names.forget(pid);
        }
        let more = match self.forgery.judge(task, following, borne) {
            Verdict::Genuine => 0,
            Verdict::NameGoesOn(more) => more,
        };
        Ok(Settled { more, doubtful, pid: owner.pid, comm: owner.process, renewal: None })
    }

    /// Whose thread `task` is, and what it is called now, as far as that was asked.
    fn thread(
        &mut self,
        task: Task<'_>,
        event_type: Option<EventType>,
        following: &[u8],
        now_ns: u64,
    ) -> Result<(ThreadOwner, Option<Comm>), Question> {
        if let Some((_, found)) = self.answer.take().filter(|(tid, _)| *tid == task.pid) {
            if event_type == Some(EventType::ProcessStart) {
                self.threads.forget(task.pid, found.pid);
            }
            return Ok((self.threads.learn(task.pid, found, now_ns), found.thread));
        }
        let begins = event_type == Some(EventType::ProcessStart);
        match self.threads.known(task.pid, now_ns) {
            Some(owner) if !begins && !Forgery::may_go_on(task, following) => Ok((owner, None)),
            _ => Err(self.question(Number::Thread(task.pid), now_ns)),
        }
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
        let question =
            |owners: &Self| owners.question(Number::Process(stamp.pid), received_boot_ns);
        let Some(known) = self.names.known(stamp.pid, received_boot_ns) else {
            return Err(question(self));
        };
        Ok((known.name, known.due.then(|| question(self))))
    }

    fn question(&self, number: Number, received_boot_ns: u64) -> Question {
        Question { number, received_boot_ns, names: self.names.lookup() }
    }

    /// Remembers the counters in a message that was taken.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        self.forgery.note(record);
    }

    /// Takes in the answer to a question that could not wait.
    pub(super) fn answer(&mut self, question: &Question, answer: Answer) {
        match (question.number, answer) {
            (Number::Process(pid), Answer::Process(comm)) => {
                self.names.learn(pid, comm.unwrap_or(Comm::NONE), question.received_boot_ns);
            }
            (Number::Thread(tid), Answer::Thread(owner)) => self.answer = Some((tid, owner)),
            _ => {}
        }
    }

    /// Takes in the answer to one that was asked beside.
    pub(super) fn renew(&mut self, question: &Question, answer: Answer) {
        if let (Number::Process(pid), Answer::Process(comm)) = (question.number, answer) {
            self.names.renew(pid, comm.unwrap_or(Comm::NONE), question.received_boot_ns);
        }
    }
}
