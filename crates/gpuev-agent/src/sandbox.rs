//! Giving up what is not needed, for good.
//!
//! An agent reads lines that any user of the machine can shape, talks to the network and runs for years. Once
//! it has started, a [`Plan`] takes from it what it does not need: capabilities, other people's files
//! (Landlock), system calls (seccomp). What it still has is what the plan names.

mod capabilities;
mod files;
mod plan;
mod syscalls;

use std::fmt;
use std::path::PathBuf;

use gpuev::Result;

pub use capabilities::keep_only_sys_admin;

/// What a process needs from now on.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    execute: Vec<PathBuf>,
    bind: Vec<u16>,
}

/// What the kernel was able to take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// Files that the plan does not name, by Landlock (Linux 5.13, where it is switched on).
    pub files: bool,
    /// TCP ports to listen at that the plan does not name, by Landlock (Linux 6.7).
    pub ports: bool,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sandbox: no capabilities, system calls filtered")?;
        f.write_str(if self.files {
            ", files by Landlock"
        } else {
            "; this kernel has no Landlock"
        })?;
        f.write_str(if self.ports { ", ports too" } else { "" })
    }
}

impl Plan {
    /// Nothing but computing, and the sockets that the process has.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What any program of this kind reads: the GPUs and processes, names and certificates, libraries.
    #[must_use]
    pub fn with_system_files(mut self) -> Self {
        const READ: [&str; 9] = [
            "/dev/urandom",
            "/etc",
            "/lib",
            "/lib64",
            "/proc",
            "/run/resolvconf",
            "/run/systemd",
            "/sys",
            "/usr",
        ];
        self.read.extend(READ.map(PathBuf::from));
        self.write("/dev/null")
    }

    /// May read `path`, a file or all below a folder. One that does not exist yet cannot be named.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// May read and write `path`, a file or all below a folder.
    #[must_use]
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.push(path.into());
        self
    }

    /// May execute `path`, a program or all below a folder. Without one, nothing can be executed at all.
    #[must_use]
    pub fn execute(mut self, path: impl Into<PathBuf>) -> Self {
        self.execute.push(path.into());
        self
    }

    /// May listen at this TCP port.
    #[must_use]
    pub fn bind(mut self, port: u16) -> Self {
        self.bind.push(port);
        self
    }

    /// Gives up all else, for this thread and all that it starts; for system calls, all threads of the
    /// process. Call it before there are others.
    ///
    /// # Errors
    /// Where the kernel refuses what every kernel since Linux 4.x can; Landlock it may lack.
    pub fn enter(&self) -> Result<Taken> {
        capabilities::keep_none()?;
        let taken = files::restrict(self)?;
        syscalls::restrict(!self.execute.is_empty())?;
        Ok(taken)
    }
}
