//! The privileged side: opens event files for one client, until it hangs up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::peer::Peer;
use super::protocol::{Answer, Question, Received};
use crate::{Error, ErrorKind, KfdDevice, OpenedFiles, Result};

/// Whom a keeper serves: always root and its own user, and every user that is named.
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

    /// The users that were named.
    pub fn uids(&self) -> impl Iterator<Item = u32> {
        self.uids.iter().copied()
    }

    /// Lets the client at the other end in, or tells it and the caller why not.
    pub(super) fn admit(&self, client: &impl AsFd) -> Result<()> {
        let peer = Peer::of(client).map_err(|error| Error::io("ask who the client is", error))?;
        let own = rustix::process::geteuid().as_raw();
        if peer.uid == 0 || peer.uid == own || self.uids.contains(&peer.uid) {
            return Ok(());
        }
        let refused = || {
            let what = format!("user {} may not have a keeper's event files", peer.uid);
            Error::new(ErrorKind::PermissionDenied, what)
                .with_hint("gpuev keeper --allow-user names who may")
        };
        let _gone_already = Answer::Refused(refused()).send(client, None);
        Err(refused())
    }
}

/// Serves the client at the other end of `client`, a connected `SOCK_SEQPACKET`, with event files of `device`, once:
/// a keeper opens the files of one look at the machine. Returns when the client hangs up, or when `end` is readable or
/// closed: the client is then told to close the files. The process that calls this is a KFD process from then on: it
/// should end.
///
/// # Errors
/// Where the client may not be served, says what no client says, or the socket fails.
pub fn serve(
    client: &impl AsFd,
    device: &KfdDevice,
    allowed: &Allowed,
    end: &impl AsFd,
) -> Result<()> {
    let failed = |error| Error::io("talk to the client", error);
    allowed.admit(client)?;
    let mut served = false;
    while wait(client, end).map_err(failed)? {
        let answered = match Question::receive(client).map_err(failed)? {
            Received::End => return Ok(()),
            Received::OtherVersion(version) => refuse(client, other_version(version)),
            Received::Message(_) if served => refuse(client, served_already()),
            Received::Message(Question(ids)) => {
                served = true;
                answer(client, device.open_ids(&ids), &ids)
            }
        };
        match answered {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            answered => answered.map_err(failed)?,
        }
    }
    let _gone_already = Answer::Ending.send(client, None);
    Ok(())
}

/// Waits until the client says something; `false` when it is time to end.
fn wait(client: &impl AsFd, end: &impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(end, PollFlags::IN), PollFd::new(client, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            polled => {
                polled?;
                break;
            }
        }
    }
    Ok(fds[0].revents().is_empty())
}

fn refuse(client: &impl AsFd, why: Error) -> io::Result<()> {
    Answer::Refused(why).send(client, None)
}

/// Passes what was opened; our own descriptors are closed with it.
fn answer(client: &impl AsFd, opened: Result<OpenedFiles>, ids: &[u32]) -> io::Result<()> {
    let hello = opened.and_then(|opened| {
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty())
            .map_err(|error| Error::io("open the keeper's pidfd", error.into()))?;
        Ok((opened, pidfd))
    });
    let (opened, pidfd) = match hello {
        Ok(hello) => hello,
        Err(error) => return refuse(client, error),
    };
    // The client does not read it in this process.
    let mut scope = opened.scope;
    scope.reason = scope.reason.replacen("this process", "the keeper", 1);
    Answer::Hello(opened.version, scope).send(client, Some(pidfd.as_fd()))?;
    for (id, file) in ids.iter().zip(opened.files) {
        match file {
            Ok(file) => Answer::Opened(*id).send(client, Some(OwnedFd::as_fd(&file)))?,
            Err(error) => refuse(client, error)?,
        }
    }
    Ok(())
}

fn other_version(version: u16) -> Error {
    let what = format!("the client speaks version {version} of the keeper's protocol");
    Error::new(ErrorKind::NotSupported, what).with_hint("restart the agent after an update")
}

fn served_already() -> Error {
    let what = "this keeper has opened its event files";
    Error::new(ErrorKind::InvalidInput, what).with_hint("connect again: each keeper opens once")
}
