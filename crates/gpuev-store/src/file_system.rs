//! Whether a file lies on this machine.
//!
//! SQLite's write-ahead log needs memory that all its users share, which only one machine has: on a network file
//! system a history is written with a rollback journal instead, by one process that holds its lock all the time, and
//! can be read once that has ended (sqlite.org/wal.html, sqlite.org/faq.html#q5).

use std::path::Path;

/// What a path lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// This machine's own, or one that is not known as another's.
    Local,
    /// One that several machines share, by its name.
    Network(&'static str),
}

impl FileSystem {
    /// That of `path`, or of the nearest folder above it that is there.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        for there in absolute.ancestors() {
            let Ok(found) = rustix::fs::statfs(there) else { continue };
            // The kernel's number has 32 bits, whatever the type of the field.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            return Self::of_magic(found.f_type as u32, || mounted_type(there));
        }
        Self::Local
    }

    /// By the number in `struct statfs` (statfs(2), `linux/magic.h`); `mounted` gives the name that a FUSE one
    /// was mounted with.
    fn of_magic(magic: u32, mounted: impl FnOnce() -> Option<String>) -> Self {
        const NETWORK: [(u32, &str); 13] = [
            (0x6969, "NFS"),
            (0xff53_4d42, "CIFS"),
            (0xfe53_4d42, "SMB"),
            (0x517b, "SMB"),
            (0x0bd0_0bd0, "Lustre"),
            (0x4750_4653, "GPFS"),
            (0x00c3_6400, "Ceph"),
            (0x5346_414f, "AFS"),
            (0x1983_0326, "BeeGFS"),
            (0x2003_0528, "OrangeFS"),
            (0xaad7_aaea, "PanFS"),
            (0x0116_1970, "GFS2"),
            (0x7461_636f, "OCFS2"),
        ];
        const FUSE: u32 = 0x6573_5546;
        const PLAN_9: u32 = 0x0102_1997;
        if let Some((_, name)) = NETWORK.iter().find(|(number, _)| *number == magic) {
            return Self::Network(name);
        }
        match magic {
            // Also folders of a host in its virtual machine: they have no shared memory either.
            PLAN_9 => Self::Network("9p"),
            FUSE => mounted().map_or(Self::Local, |name| Self::of_fuse(&name)),
            _ => Self::Local,
        }
    }

    fn of_fuse(name: &str) -> Self {
        const NETWORK: [(&str, &str); 9] = [
            ("sshfs", "SSHFS"),
            ("gluster", "GlusterFS"),
            ("ceph", "Ceph"),
            ("s3fs", "s3fs"),
            ("rclone", "rclone"),
            ("juicefs", "JuiceFS"),
            ("moosefs", "MooseFS"),
            ("lizardfs", "LizardFS"),
            ("dfuse", "DAOS"),
        ];
        let found = NETWORK.iter().find(|(part, _)| name.contains(part));
        found.map_or(Self::Local, |(_, name)| Self::Network(name))
    }
}

/// The type of the mount that `path` lies on (proc_pid_mountinfo(5)).
fn mounted_type(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = |line: &str| {
        let (place, rest) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?.to_owned();
        path.starts_with(&point).then(|| (point.len(), rest.split(' ').next().map(str::to_owned)))
    };
    mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length)?.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_machines_share_are_known_by_their_numbers() {
        let of = |magic, name: &str| FileSystem::of_magic(magic, || Some(name.to_owned()));
        assert_eq!(of(0x6969, ""), FileSystem::Network("NFS"));
        assert_eq!(of(0x0bd0_0bd0, ""), FileSystem::Network("Lustre"));
        assert_eq!(of(0x6573_5546, "fuse.sshfs"), FileSystem::Network("SSHFS"));
        for (magic, name) in
            [(0x6573_5546, "fuseblk"), (0xef53, ""), (0x0102_1994, ""), (0x794c_7630, "")]
        {
            assert_eq!(of(magic, name), FileSystem::Local);
        }
    }

    #[test]
    fn what_is_not_there_lies_where_its_folder_does() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("a/b/run.db");
        assert_eq!(FileSystem::of(&none), FileSystem::of(folder.path()));
        assert!(mounted_type(folder.path()).is_some());
    }
}
