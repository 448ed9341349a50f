//! A FUSE file system that is mounted nowhere, by whoever may.
//!
//! With the right to mount it is made at once; else by a forked child in namespaces of its own,
//! which hands over the descriptors and ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::path::DecInt;
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::userns::{self, IdMaps};

/// What could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Step {
    Device,
    Context,
    Create,
    Mount,
    Child,
    Unshare,
    Identity,
}

impl Step {
    const ALL: [Step; 7] = [
        Step::Device,
        Step::Context,
        Step::Create,
        Step::Mount,
        Step::Child,
        Step::Unshare,
        Step::Identity,
    ];

    const fn call(self) -> &'static str {
        match self {
            Step::Device => "open /dev/fuse",
            Step::Context => "fsopen fuse",
            Step::Create => "fsconfig fuse",
            Step::Mount => "fsmount fuse",
            Step::Child => "start a child",
            Step::Unshare => "unshare(CLONE_NEWUSER | CLONE_NEWNS)",
            Step::Identity => "write /proc/self/uid_map and gid_map",
        }
    }
}

/// Why there is no FUSE here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    step: Step,
    errno: Errno,
}

impl Failure {
    pub(super) const BYTES: usize = 8;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&(self.step as u32).to_ne_bytes());
        bytes[4..].copy_from_slice(&self.errno.raw_os_error().to_ne_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, errno @ ..] = bytes;
        let step = u32::from_ne_bytes([a, b, c, d]) as usize;
        let step = Step::ALL.get(step).copied().unwrap_or(Step::Child);
        Failure { step, errno: Errno::from_raw_os_error(i32::from_ne_bytes(errno)) }
    }

    fn hint(self) -> String {
        match (self.step, self.errno) {
            (Step::Device, Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
                "load the module (modprobe fuse); in a container add --device /dev/fuse".to_owned()
            }
            (Step::Device, _) => {
                "give this user access to /dev/fuse, or run as root; in a container add --device \
                 /dev/fuse"
                    .to_owned()
            }
            (Step::Unshare | Step::Identity, _) => userns::hint(),
            (_, Errno::NOSYS | Errno::INVAL) => "it needs Linux 5.9 or later".to_owned(),
            _ => userns::hint(),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let source = io::Error::from(failure.errno);
        let (call, hint) = (failure.step.call(), failure.hint());
        let what = format!("exact event files need FUSE: {call}: {source}; {hint}");
        io::Error::new(source.kind(), what)
    }
}

fn at<T>(step: Step, done: rustix::io::Result<T>) -> Result<T, Failure> {
    done.map_err(|errno| Failure { step, errno })
}

/// The open `/dev/fuse`, and the root of the file system that is served through it.
pub(super) fn mount() -> Result<(OwnedFd, OwnedFd), Failure> {
    match mount_here(true) {
        Err(Failure { step: Step::Context | Step::Create | Step::Mount, errno: Errno::PERM }) => {
            mount_in_child()
        }
        done => done,
    }
}

/// Async-signal-safe. With `everybody` the files are not for this user alone; in a user namespace
/// that would lock out all who are outside of it.
fn mount_here(everybody: bool) -> Result<(OwnedFd, OwnedFd), Failure> {
    let user = DecInt::new(rustix::process::geteuid().as_raw());
    let group = DecInt::new(rustix::process::getegid().as_raw());
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fuse = at(Step::Device, rustix::fs::open(c"/dev/fuse", flags, Mode::empty()))?;
    let context = rustix::mount::fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC);
    let context = at(Step::Context, context)?;
    let number = DecInt::from_fd(&fuse);
    for (key, value) in [
        (c"fd", number.as_c_str()),
        (c"rootmode", c"40000"),
        (c"user_id", user.as_c_str()),
        (c"group_id", group.as_c_str()),
    ] {
        let set = rustix::mount::fsconfig_set_string(context.as_fd(), key, value);
        at(Step::Create, set)?;
    }
    if everybody {
        at(Step::Create, rustix::mount::fsconfig_set_flag(context.as_fd(), c"allow_other"))?;
    }
    at(Step::Create, rustix::mount::fsconfig_create(context.as_fd()))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = at(Step::Mount, rustix::mount::fsmount(context.as_fd(), flags, attributes))?;
    Ok((fuse, mount))
}

fn mount_in_child() -> Result<(OwnedFd, OwnedFd), Failure> {
    let failed = |errno| Failure { step: Step::Child, errno };
    let ids = IdMaps::prepare().map_err(|_| failed(Errno::INVAL))?;
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    let (ours, childs) = at(Step::Child, pair)?;
    // SAFETY: the child makes system calls on what it has at hand, allocates nothing, takes no
    // lock, and ends without running anything of ours.
    let child = unsafe { libc::fork() };
    if child == 0 {
        tell(&childs, &mount_in_namespaces(&ids));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    let child = Pid::from_raw(child).ok_or_else(|| {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
        failed(Errno::from_raw_os_error(errno))
    })?;
    drop(childs);
    let outcome = hear(&ours);
    // Somebody else in this process may have waited for it.
    let _ =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
    outcome
}

/// Async-signal-safe.
fn mount_in_namespaces(ids: &IdMaps) -> Result<(OwnedFd, OwnedFd), Failure> {
    at(Step::Unshare, userns::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS))?;
    at(Step::Identity, ids.write())?;
    mount_here(false)
}

/// Async-signal-safe.
fn tell(socket: &OwnedFd, outcome: &Result<(OwnedFd, OwnedFd), Failure>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = outcome.as_ref().map(|(fuse, mount)| [fuse.as_fd(), mount.as_fd()]);
    if let Ok(files) = &files {
        ancillary.push(SendAncillaryMessage::ScmRights(files));
    }
    let report = files.err().map_or([0; Failure::BYTES], |failure| failure.to_bytes());
    let flags = SendFlags::NOSIGNAL;
    // A parent that is gone needs no answer.
    let _ = rustix::net::sendmsg(socket, &[IoSlice::new(&report)], &mut ancillary, flags);
}

fn hear(socket: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Failure> {
    let mut report = [0; Failure::BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut report)];
        rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    });
    if at(Step::Child, received)?.bytes != Failure::BYTES {
        return Err(Failure { step: Step::Child, errno: Errno::CHILD });
    }
    let mut files = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect(),
        _ => Vec::new(),
    });
    match (files.next(), files.next()) {
        (Some(fuse), Some(mount)) => Ok((fuse, mount)),
        _ => Err(Failure::from_bytes(report)),
    }
}
