//! What a client and its keeper say to each other: one message a packet (`SOCK_SEQPACKET`), numbers little-endian.
//!
//! The client asks once: for the event files of the GPUs with these KFD ids, as many as there are, or for none of
//! them, to be told of the driver. The keeper answers *hello* and then one packet for each GPU, in their order; or
//! *refused*, where it cannot open any. *Ending* may follow at any time.
//!
//! | packet | bytes |
//! |---|---|
//! | question | version u16, what u16 (1 open), at most [`MOST_GPUS`] KFD ids u32 |
//! | answer | version u16, what u16 (1 hello, 2 opened, 3 refused, 4 ending), three u32, text of at most [`MOST_TEXT`] bytes |
//!
//! | answer | the three numbers | text | file |
//! |---|---|---|---|
//! | hello | KFD version's major and minor; bit 0: events of all processes are seen, bit 1: faults of all | why | the keeper's pidfd |
//! | opened | the KFD id, 0, 0 | none | the event file |
//! | refused | the kind of the error, 0, 0 | the error | none |
//! | ending | 0, 0, 0: the driver or the service manager ends the keeper: close the files | none | none |
//!
//! Anything else ends the connection.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::{Error, ErrorKind, KfdVersion, Scope};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// What both sides must agree on.
const VERSION: u16 = 2;

/// Longer texts are cut.
const MOST_TEXT: usize = 1024;

/// More GPUs than any machine has: the largest known has 72 nodes.
pub(super) const MOST_GPUS: usize = 1024;

#[cfg(any(test, feature = "keeper-server"))]
const QUESTION: usize = 4;
const HEADER: usize = 16;

/// What the client asks: a fresh event file of each GPU with one of these KFD ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question(pub(super) Vec<u32>);

/// What the keeper answers; an event file or pidfd goes with it.
#[derive(Debug)]
pub(super) enum Answer {
    /// With it goes the keeper's pidfd.
    Hello(KfdVersion, Scope),
    /// With it goes the event file of the GPU with this KFD id.
    Opened(u32),
    /// Why not.
    Refused(Error),
    /// The keeper must end, and the files that it opened should be closed.
    Ending,
}

/// The file that came with an answer, if one was sent.
pub(super) type Passed = Option<io::Result<OwnedFd>>;

/// What came in one packet.
#[derive(Debug)]
pub(super) enum Received<T> {
    Message(T),
    /// The other side speaks, but not this version.
    OtherVersion(u16),
    /// The other side has hung up.
    End,
}

impl Question {
    #[cfg(any(test, feature = "keeper-server"))]
    fn decode(bytes: &[u8]) -> Option<Self> {
        let ids = bytes.get(QUESTION..)?;
        let is_whole = ids.len() % 4 == 0 && u16_at(bytes, 2)? == 1;
        is_whole.then(|| Self((0..ids.len()).step_by(4).filter_map(|at| u32_at(ids, at)).collect()))
    }

    /// Sends it to a keeper.
    pub(super) fn send(&self, keeper: &impl AsFd) -> io::Result<()> {
        let mut bytes = [VERSION.to_le_bytes(), 1_u16.to_le_bytes()].concat();
        self.0.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
        send(keeper.as_fd(), &[&bytes], None)
    }

    /// The client's question.
    ///
    /// # Errors
    /// `InvalidData` for what is no question; those of the socket.
    #[cfg(any(test, feature = "keeper-server"))]
    pub(super) fn receive(client: &impl AsFd) -> io::Result<Received<Self>> {
        // No room for files: whatever the client sends along, the kernel drops.
        let mut bytes = [0; QUESTION + 4 * MOST_GPUS + 1];
        let (taken, _) = receive(client.as_fd(), &mut bytes, &mut RecvAncillaryBuffer::default())?;
        read(&bytes[..taken], Self::decode)
    }
}

impl Answer {
    /// The header's kind and numbers, and the text.
    #[cfg(any(test, feature = "keeper-server"))]
    fn parts(&self) -> (u16, [u32; 3], String) {
        match self {
            Self::Hello(version, scope) => {
                let bits =
                    u32::from(scope.all_processes) | u32::from(scope.faults_of_all_processes) << 1;
                (1, [version.major, version.minor, bits], scope.reason.clone())
            }
            Self::Opened(kfd_id) => (2, [*kfd_id, 0, 0], String::new()),
            Self::Refused(error) => (3, [number_of(error.kind()), 0, 0], error.to_string()),
            Self::Ending => (4, [0; 3], String::new()),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.get(HEADER..)?).ok()?;
        let [a, b, c] = [u32_at(bytes, 4)?, u32_at(bytes, 8)?, u32_at(bytes, 12)?];
        match (u16_at(bytes, 2)?, b, c) {
            (1, _, 0..=3) => {
                let scope = Scope {
                    all_processes: c & 1 != 0,
                    faults_of_all_processes: c & 2 != 0,
                    reason: text.to_owned(),
                };
                Some(Self::Hello(KfdVersion { major: a, minor: b }, scope))
            }
            (2, 0, 0) if text.is_empty() => Some(Self::Opened(a)),
            (3, 0, 0) => Some(Self::Refused(Error::new(kind_of(a), text))),
            (4, 0, 0) if a == 0 && text.is_empty() => Some(Self::Ending),
            _ => None,
        }
    }

    /// Sends it to the client, with the file that belongs to it.
    #[cfg(any(test, feature = "keeper-server"))]
    pub(super) fn send(&self, client: &impl AsFd, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let (what, numbers, mut text) = self.parts();
        let cut = (0..=MOST_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&VERSION.to_le_bytes());
        header[2..4].copy_from_slice(&what.to_le_bytes());
        for (slot, number) in header[4..].chunks_exact_mut(4).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        send(client.as_fd(), &[&header, text.as_bytes()], file)
    }

    /// The keeper's answer, and the file that came with it; `EMFILE` in its place where this process had no descriptor left
    /// for it.
    ///
    /// # Errors
    /// `InvalidData` for what is no answer; those of the socket.
    pub(super) fn receive(keeper: &impl AsFd) -> io::Result<(Received<Self>, Passed)> {
        let mut bytes = [0; HEADER + MOST_TEXT + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let (taken, flags) = receive(keeper.as_fd(), &mut bytes, &mut ancillary)?;
        let file = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let file = match file {
            None if flags.contains(ReturnFlags::CTRUNC) => {
                Some(Err(rustix::io::Errno::MFILE.into()))
            }
            file => file.map(Ok),
        };
        Ok((read(&bytes[..taken], Self::decode)?, file))
    }
}

/// A packet of the other side: nothing is its end, another version is told apart from nonsense.
fn read<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<T>) -> io::Result<Received<T>> {
    match u16_at(bytes, 0) {
        None if bytes.is_empty() => Ok(Received::End),
        Some(VERSION) => {
            decode(bytes).map(Received::Message).ok_or(io::ErrorKind::InvalidData.into())
        }
        Some(version) => Ok(Received::OtherVersion(version)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn send(socket: BorrowedFd<'_>, parts: &[&[u8]], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let files: Vec<_> = file.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
    }
    // A packet goes whole or not at all.
    let send = || rustix::net::sendmsg(socket, &slices, &mut ancillary, SendFlags::NOSIGNAL);
    rustix::io::retry_on_intr(send)?;
    Ok(())
}

/// How many bytes of `buffer` a packet fills. One that is too long for any message fills it all, and is none.
fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    ancillary: &mut RecvAncillaryBuffer<'_>,
) -> io::Result<(usize, ReturnFlags)> {
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(socket, &mut slices, ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.flags.contains(ReturnFlags::TRUNC) || received.bytes == buffer.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((received.bytes, received.flags))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The kinds that have a number; one that has none goes over as [`ErrorKind::Io`].
const KINDS: [ErrorKind; 10] = [
    ErrorKind::Io,
    ErrorKind::NoGpu,
    ErrorKind::PermissionDenied,
    ErrorKind::NotSupported,
    ErrorKind::GpuRemoved,
    ErrorKind::InvalidInput,
    ErrorKind::Stopped,
    ErrorKind::OutOfResources,
    ErrorKind::Locked,
    ErrorKind::AppearedLater,
];

#[cfg(any(test, feature = "keeper-server"))]
fn number_of(kind: ErrorKind) -> u32 {
    (0..).zip(KINDS).find(|(_, known)| *known == kind).map_or(0, |(number, _)| number)
}

fn kind_of(number: u32) -> ErrorKind {
    usize::try_from(number).ok().and_then(|at| KINDS.get(at).copied()).unwrap_or(ErrorKind::Io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn questions_come_over_whole() {
        let (client, keeper) = pair();
        for ids in [vec![], vec![1], vec![u32::MAX; MOST_GPUS]] {
            Question(ids.clone()).send(&client).unwrap();
            let Received::Message(got) = Question::receive(&keeper).unwrap() else { panic!() };
            assert_eq!(got, Question(ids));
        }
        drop(client);
        assert!(matches!(Question::receive(&keeper).unwrap(), Received::End));
    }

    #[test]
    fn answers_come_over_with_their_file() {
        let (client, keeper) = pair();
        let hello = Answer::Hello(KfdVersion { major: 1, minor: 17 }, Scope::everything("root"));
        hello.send(&keeper, Some(client.as_fd())).unwrap();
        let (Received::Message(Answer::Hello(version, scope)), Some(_)) =
            Answer::receive(&client).unwrap()
        else {
            panic!()
        };
        assert_eq!((version.minor, scope), (17, Scope::everything("root")));
        let error = Error::new(ErrorKind::GpuRemoved, "ä".repeat(MOST_TEXT));
        Answer::Ending.send(&keeper, None).unwrap();
        assert!(matches!(Answer::receive(&client), Ok((Received::Message(Answer::Ending), None))));
        Answer::Refused(error).send(&keeper, None).unwrap();
        let (Received::Message(Answer::Refused(error)), None) = Answer::receive(&client).unwrap()
        else {
            panic!()
        };
        assert_eq!(error.kind(), ErrorKind::GpuRemoved);
        assert_eq!(error.to_string().len(), MOST_TEXT);
    }

    #[test]
    fn nonsense_is_told_from_another_version() {
        let (client, keeper) = pair();
        let question = |bytes: &[u8]| {
            send(client.as_fd(), &[bytes], None).unwrap();
            Question::receive(&keeper)
        };
        for nonsense in [
            &[2][..],
            &[2, 0],
            &[2, 0, 1],
            &[2, 0, 2, 0, 0, 0, 0, 0],
            &[2, 0, 1, 0, 0, 0, 0, 0, 0],
            &[1; 5000],
        ] {
            let error = question(nonsense).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{nonsense:?}");
        }
        assert!(matches!(question(&[1, 0, 9]).unwrap(), Received::OtherVersion(1)));
    }

    #[test]
    fn any_bytes_decode_or_do_not() {
        let mut bytes = vec![0_u8; 40];
        for round in 0..20_000_u32 {
            for (at, byte) in (0..).zip(&mut bytes) {
                *byte = (round.wrapping_mul(2_654_435_761).rotate_left(at) >> 24).to_le_bytes()[0];
            }
            bytes[0] = 2;
            bytes[1] = 0;
            let length = round as usize % 40;
            let _ = read(&bytes[..length], Question::decode);
            let _ = read(&bytes[..length], Answer::decode);
        }
    }
}
