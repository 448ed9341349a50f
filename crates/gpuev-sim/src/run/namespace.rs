//! The child's way from fork to exec: own namespaces, own `/sys` and `/dev`, the filter.
//!
//! Runs in a forked child of a threaded process, so everything here is a bare system call:
//! nothing is allocated, no lock is taken, what is needed was prepared by [`Entry::prepare`].

use std::ffi::CStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

use super::filter;
use super::layout::{Layout, Step};
use crate::userns::{IdMaps, unshare};

/// Where the child was when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Stage {
    Entered,
    Orphaned,
    Unshare,
    Identity,
    Private,
    Sys,
    Dev,
    Directory,
    Filter,
}

impl Stage {
    const ALL: [Stage; 9] = [
        Stage::Entered,
        Stage::Orphaned,
        Stage::Unshare,
        Stage::Identity,
        Stage::Private,
        Stage::Sys,
        Stage::Dev,
        Stage::Directory,
        Stage::Filter,
    ];
}

/// What the child tells the supervisor before it becomes the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) stage: Stage,
    pub(super) errno: i32,
    /// The step of the layout that failed; one beyond its end, or 0, is the directory itself.
    pub(super) step: u32,
    /// The device number of the program's `/dev`.
    pub(super) dev: u64,
}

impl Report {
    pub(super) const BYTES: usize = 20;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&(self.stage as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.step.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.dev.to_ne_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Report {
            stage: *Stage::ALL.get(word(0)? as usize)?,
            errno: word(4)?.cast_signed(),
            step: word(8)?,
            dev: u64::from_ne_bytes(bytes[12..].try_into().ok()?),
        })
    }
}

/// A stage that failed.
#[derive(Clone, Copy)]
struct Failure {
    stage: Stage,
    errno: i32,
    step: u32,
}

fn at<T>(stage: Stage, done: rustix::io::Result<T>) -> Result<T, Failure> {
    done.map_err(|errno| Failure { stage, errno: errno.raw_os_error(), step: 0 })
}

/// All that the child needs, made before the fork.
pub(super) struct Entry {
    layout: std::sync::Arc<Layout>,
    parent: Pid,
    ids: IdMaps,
    user_namespace: bool,
    report: OwnedFd,
}

impl Entry {
    /// `report` is a socket whose other end the supervisor reads.
    pub(super) fn prepare(
        layout: std::sync::Arc<Layout>,
        user_namespace: bool,
        report: OwnedFd,
    ) -> io::Result<Self> {
        Ok(Entry {
            layout,
            parent: rustix::process::getpid(),
            ids: IdMaps::prepare()?,
            user_namespace,
            report,
        })
    }

    /// Puts the calling process on the machine.
    ///
    /// # Errors
    /// The errno of what failed; what it was has gone to the supervisor.
    pub(super) fn enter(&self) -> io::Result<()> {
        let outcome = self.build().and_then(|dev| {
            let listener = filter::install().map_err(|error| Failure {
                stage: Stage::Filter,
                errno: error.raw_os_error().unwrap_or(libc::EIO),
                step: 0,
            })?;
            Ok((dev, listener))
        });
        match outcome {
            Ok((dev, listener)) => {
                let report = Report { stage: Stage::Entered, errno: 0, step: 0, dev };
                self.tell(report, Some(listener.as_fd()))?;
                Ok(())
            }
            Err(Failure { stage, errno, step }) => {
                let _ = self.tell(Report { stage, errno, step, dev: 0 }, None);
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    fn build(&self) -> Result<u64, Failure> {
        self.unshare()?;
        // After unshare, because a change of credentials would undo it.
        at(Stage::Orphaned, rustix::process::set_parent_process_death_signal(Some(Signal::KILL)))?;
        if rustix::process::getppid() != Some(self.parent) {
            return at(Stage::Orphaned, Err(Errno::SRCH));
        }
        at(Stage::Private, make_private())?;
        let back = at(Stage::Directory, open_directory(c"."))?;
        replace(c"/sys", Stage::Sys, &self.layout.sys)?;
        // Nothing can be made in a real /sys either.
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        at(Stage::Sys, rustix::mount::mount_remount(c"/sys", flags | MountFlags::NOEXEC, c""))?;
        replace(c"/dev", Stage::Dev, &self.layout.dev)?;
        let dev = at(Stage::Dev, rustix::fs::stat(c"/dev"))?.st_dev;
        at(Stage::Directory, rustix::process::fchdir(back))?;
        Ok(dev)
    }

    fn unshare(&self) -> Result<(), Failure> {
        if !self.user_namespace {
            match unshare(UnshareFlags::NEWNS) {
                Err(Errno::PERM) => {}
                done => return at(Stage::Unshare, done),
            }
        }
        at(Stage::Unshare, unshare(UnshareFlags::NEWNS | UnshareFlags::NEWUSER))?;
        at(Stage::Identity, self.ids.write())
    }

    fn tell(&self, report: Report, listener: Option<BorrowedFd<'_>>) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let listeners = [listener.unwrap_or(self.report.as_fd())];
        if listener.is_some() {
            ancillary.push(SendAncillaryMessage::ScmRights(&listeners));
        }
        let bytes = report.to_bytes();
        let flags = SendFlags::NOSIGNAL;
        rustix::net::sendmsg(&self.report, &[IoSlice::new(&bytes)], &mut ancillary, flags)?;
        Ok(())
    }
}

fn make_private() -> rustix::io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)
}

fn open_directory(path: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Lays a new file system over `directory`, seen from within the old one: relative paths still
/// lead into what is being covered.
fn replace(directory: &CStr, stage: Stage, steps: &[Step]) -> Result<(), Failure> {
    at(stage, rustix::process::chdir(directory))?;
    let flags = MountFlags::NOSUID;
    at(stage, rustix::mount::mount(c"tmpfs", directory, c"tmpfs", flags, c"mode=755"))?;
    for (index, step) in (1u32..).zip(steps) {
        take(step).map_err(|errno| Failure { stage, errno: errno.raw_os_error(), step: index })?;
    }
    Ok(())
}

fn take(step: &Step) -> rustix::io::Result<()> {
    match step {
        Step::Directory(at) => rustix::fs::mkdir(at, Mode::from_raw_mode(0o755)),
        Step::Symlink { to, at } => rustix::fs::symlink(to, at),
        Step::Node { at, mode } => make_node(at, Mode::from_raw_mode(*mode)),
        Step::Bind { from, at, directory } => {
            if *directory {
                rustix::fs::mkdir(at, Mode::from_raw_mode(0o755))?;
            } else {
                make_file(at)?;
            }
            match rustix::mount::mount_bind_recursive(from, at) {
                // It went away since the list was made.
                Err(Errno::NOENT) => Ok(()),
                done => done,
            }
        }
    }
}

fn make_file(at: &CStr) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(at, flags, Mode::from_raw_mode(0o644)).map(|_| ())
}

/// A character device that takes and gives nothing, where nodes may be made; else a plain file.
fn make_node(at: &CStr, mode: Mode) -> rustix::io::Result<()> {
    let null = rustix::fs::makedev(1, 3);
    let kind = rustix::fs::FileType::CharacterDevice;
    if rustix::fs::mknodat(rustix::fs::CWD, at, kind, mode, null).is_err() {
        make_file(at)?;
    }
    rustix::fs::chmod(at, mode)
}
