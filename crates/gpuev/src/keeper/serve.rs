//! The privileged side: opens event files for one agent, until it hangs up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::{Error, ErrorKind, Gpu, Machine, Result};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::peer::Peer;
use super::protocol::{Answer, Question, Received};

/// Whom a keeper serves: always root and its own user, and whoever is named.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    uids: Vec<u32>,
}

impl Allowed {
    /// These users, too.
    #[must_use]
    pub fn users(uids: impl IntoIterator<Item = u32>) -> Self {
        Self { uids: uids.into_iter().collect() }
    }

    /// Who was named.
    pub fn uids(&self) -> impl Iterator<Item = u32> {
        self.uids.iter().copied()
    }

    /// Lets the agent at the other end in, or tells it and the caller why not.
    pub(super) fn admit(&self, agent: &impl AsFd) -> Result<()> {
        let peer = Peer::of(agent).map_err(|error| Error::io("ask who the agent is", error))?;
        let own = rustix::process::geteuid().as_raw();
        if peer.uid == 0 || peer.uid == own || self.uids.contains(&peer.uid) {
            return Ok(());
        }
        let refused = || {
            let what = format!("user {} may not have a keeper's event files", peer.uid);
            Error::new(ErrorKind::PermissionDenied, what)
                .with_hint("gpuev keeper --allow-user names who may")
        };
        let _gone_already = Answer::Refused(refused()).send(agent, None);
        Err(refused())
    }
}

/// Serves the agent at the other end of `agent`, a connected `SOCK_SEQPACKET`, with event files of `machine`,
/// until it hangs up. The process that calls this is a KFD process from then on: it should end.
///
/// # Errors
/// Where the agent may not be served, says what no agent says, or the socket fails.
pub fn serve(agent: &impl AsFd, machine: &Machine, allowed: &Allowed) -> Result<()> {
    let failed = |error| Error::io("talk to the agent", error);
    allowed.admit(agent)?;
    let mut keeper = Keeper { machine, gpus: Vec::new() };
    loop {
        let (answer, file) = match Question::receive(agent).map_err(failed)? {
            Received::Message(question) => keeper.answer(question),
            Received::OtherVersion(version) => (Answer::Refused(other_version(version)), None),
            Received::End => return Ok(()),
        };
        match answer.send(agent, file.as_ref().map(OwnedFd::as_fd)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            sent => sent.map_err(failed)?,
        }
    }
}

struct Keeper<'a> {
    machine: &'a Machine,
    /// As listed when a GPU was last looked for in vain.
    gpus: Vec<Gpu>,
}

impl Keeper<'_> {
    /// The answer, and the file that goes with it; our own descriptor of it is closed when it is sent.
    fn answer(&mut self, question: Question) -> (Answer, Option<OwnedFd>) {
        let answered = match question {
            Question::Hello => self.hello(),
            Question::Open(kfd_id) => self.open(kfd_id),
        };
        match answered {
            Ok((answer, file)) => (answer, Some(file)),
            Err(error) => (Answer::Refused(error), None),
        }
    }

    fn hello(&self) -> Result<(Answer, OwnedFd)> {
        let source = self.machine.event_source();
        let version = source.version()?;
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty())
            .map_err(|error| Error::io("open the keeper's pidfd", error.into()))?;
        Ok((Answer::Hello(version, source.scope()), pidfd))
    }

    fn open(&mut self, kfd_id: u32) -> Result<(Answer, OwnedFd)> {
        let is_it = |gpu: &&Gpu| gpu.id.kfd_id == kfd_id;
        if !self.gpus.iter().any(|gpu| is_it(&gpu)) {
            self.gpus = self.machine.gpus()?;
        }
        let gpu = self.gpus.iter().find(is_it).ok_or_else(|| {
            let what = format!("the driver has no GPU with the KFD id {kfd_id}");
            Error::new(ErrorKind::GpuRemoved, what).with_hint("list the GPUs again")
        })?;
        let file = self.machine.event_source().open(gpu)?;
        Ok((Answer::Opened(kfd_id), file))
    }
}

fn other_version(version: u16) -> Error {
    let what = format!("the agent speaks version {version} of the keeper's protocol");
    Error::new(ErrorKind::NotSupported, what).with_hint("restart the agent after an update")
}
