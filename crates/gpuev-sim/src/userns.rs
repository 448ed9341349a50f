//! A user namespace of one's own, for whoever is not root.
//!
//! Entering it is for a process with one thread, such as a freshly forked child, where nothing may
//! be allocated: what it takes is prepared before.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// The own user and group, and nobody else, under the numbers that they have.
pub(crate) struct IdMaps {
    users: CString,
    groups: CString,
}

impl IdMaps {
    pub(crate) fn prepare() -> io::Result<Self> {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        Ok(IdMaps {
            users: CString::new(format!("{user} {user} 1\n"))?,
            groups: CString::new(format!("{group} {group} 1\n"))?,
        })
    }

    /// Makes the ids known in the namespace just entered. Async-signal-safe.
    pub(crate) fn write(&self) -> rustix::io::Result<()> {
        write_file(c"/proc/self/uid_map", self.users.as_bytes())?;
        // Kernels before 3.19 have no such file and need no such promise.
        match write_file(c"/proc/self/setgroups", b"deny") {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        write_file(c"/proc/self/gid_map", self.groups.as_bytes())
    }
}

/// Leaves namespaces for new ones. Async-signal-safe.
///
/// # Errors
/// `EINVAL` in a process with several threads; `EPERM` and `ENOSPC` where it is forbidden.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES), "it would part others from their files");
    // SAFETY: no flag touches the table of descriptors, on which other code may rely.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn write_file(path: &CStr, content: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, content).map(|_| ())
}

/// Switches by which systems forbid user namespaces: file, the value that forbids.
const SWITCHES: [(&str, &str); 3] = [
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
];

/// Why there may be no namespaces here, and how to get them.
pub(crate) fn hint() -> String {
    let forbids = |(path, value): &&(&str, &str)| {
        fs::read_to_string(path).is_ok_and(|text| text.trim() == *value)
    };
    match SWITCHES.iter().find(forbids) {
        Some((path, value)) => {
            format!("{path} is {value}, which forbids user namespaces: run as root, or change it")
        }
        None => "it needs root or a user namespace: run as root; in a container add \
                 --privileged, or --security-opt seccomp=unconfined --security-opt \
                 apparmor=unconfined"
            .to_owned(),
    }
}
