//! Why a program could not be put on the machine, and what to do about it.

use std::fmt;
use std::io;

use super::layout::{Layout, Step};
use super::namespace::{Report, Stage};
use crate::userns;

/// A program could not be put on the simulated machine, or could not be waited for.
#[derive(Debug)]
pub struct Error {
    what: String,
    source: io::Error,
    hint: Option<String>,
    /// Whether it was the program that could not be executed.
    exec: bool,
}

impl Error {
    pub(super) fn new(what: impl Into<String>, source: io::Error) -> Self {
        Error { what: what.into(), source, hint: None, exec: false }
    }

    /// The program itself could not be started, though the machine stood.
    pub(super) fn exec(program: &str, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => Some("check its name and your PATH"),
            io::ErrorKind::PermissionDenied => Some("is it executable?"),
            _ => None,
        };
        Error { what: format!("exec {program}"), source, hint: hint.map(str::to_owned), exec: true }
    }

    pub(super) fn from_report(report: &Report, layout: &Layout) -> Self {
        let source = io::Error::from_raw_os_error(report.errno);
        let (what, hint) = match report.stage {
            Stage::Unshare => {
                ("unshare(CLONE_NEWUSER | CLONE_NEWNS)".to_owned(), Some(userns::hint()))
            }
            Stage::Identity => {
                ("write /proc/self/uid_map and gid_map".to_owned(), Some(userns::hint()))
            }
            Stage::Private => ("mount --make-rprivate /".to_owned(), Some(mounts())),
            Stage::Sys => (place("/sys", report.step, &layout.sys), Some(mounts())),
            Stage::Dev => (place("/dev", report.step, &layout.dev), Some(mounts())),
            Stage::Filter => (
                "seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)".to_owned(),
                Some(filters(report.errno)),
            ),
            Stage::Directory => ("return to the working directory".to_owned(), None),
            Stage::Orphaned | Stage::Entered => ("start the program".to_owned(), None),
        };
        Error { what, source, hint, exec: false }
    }

    /// The exit code by which shells tell that a program could not be executed, if that is what
    /// failed: 127 where there is none, else 126.
    #[must_use]
    pub fn exec_code(&self) -> Option<u8> {
        self.exec.then_some(if self.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
    }

    /// What the operating system said.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run the program on a simulated machine: {}: {}", self.what, self.source)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(error.kind(), error)
    }
}

fn place(directory: &str, step: u32, steps: &[Step]) -> String {
    match (step as usize).checked_sub(1).and_then(|index| steps.get(index)) {
        Some(step) => format!("mount {}", step.at().to_string_lossy()),
        None => format!("mount tmpfs on {directory}"),
    }
}

fn mounts() -> String {
    "a security module or an old kernel forbids mounting here: run as root; in a container add \
     --privileged, or --security-opt apparmor=unconfined"
        .to_owned()
}

fn filters(errno: i32) -> String {
    match errno {
        libc::EBUSY => "another supervisor watches this process already: do not start one \
                        simulated machine inside another"
            .to_owned(),
        _ => "it needs Linux 5.9 with CONFIG_SECCOMP_FILTER, and seccomp(2) allowed".to_owned(),
    }
}
