//! What `/sys` and `/dev` of the program are made of.
//!
//! Everything is planned before the fork, because between fork and exec nothing may be
//! allocated: the child only walks through the list of steps.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Directories that belong to the machine as a whole: what the real ones hold is not seen, and
/// what the machine adds later is.
const OWNED: [&str; 5] =
    ["class/kfd", "class/drm", "class/hwmon", "bus/pci/devices", "module/amdgpu"];

/// Device nodes that the machine replaces.
const OWNED_NODES: [&str; 2] = ["kfd", "dri"];

/// One thing to make in the new file system.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An empty directory.
    Directory(CString),
    /// A symbolic link.
    Symlink { to: CString, at: CString },
    /// What lies at `from`, and all mounted below it. A relative path starts at the directory
    /// that is being replaced.
    Bind { from: CString, at: CString, directory: bool },
    /// A device node of the machine.
    Node { at: CString, mode: u32 },
}

impl Step {
    /// Where it appears.
    pub(super) fn at(&self) -> &CString {
        match self {
            Step::Directory(at)
            | Step::Symlink { at, .. }
            | Step::Bind { at, .. }
            | Step::Node { at, .. } => at,
        }
    }
}

/// The program's `/sys` and `/dev`.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) sys: Vec<Step>,
    pub(super) dev: Vec<Step>,
}

impl Layout {
    /// The machine's tree at `root` laid over the real directories.
    ///
    /// # Errors
    /// The tree cannot be read, or a name holds a NUL byte.
    pub(super) fn plan(root: &Path) -> io::Result<Self> {
        let mut sys = Merge { real: Path::new("/sys"), machine: root.join("sys"), steps: vec![] };
        sys.directory(Path::new(""))?;
        let dev = device_steps(Path::new("/dev"), &root.join("dev"))?;
        Ok(Layout { sys: sys.steps, dev })
    }
}

/// Two trees becoming one: what only one of them has is bound or linked as it is, and
/// directories that both have are made anew.
struct Merge<'a> {
    real: &'a Path,
    machine: PathBuf,
    steps: Vec<Step>,
}

impl Merge<'_> {
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        let of_machine = names(&self.machine.join(path))?;
        // A real directory that may not be listed is as good as none.
        let of_host = names(&self.real.join(path)).unwrap_or_default();
        for name in of_machine.union(&of_host) {
            let entry = path.join(name);
            if !of_machine.contains(name) {
                self.keep(&entry)?;
            } else if of_host.contains(name) && self.shared(&entry) {
                self.steps.push(Step::Directory(c_path(&self.real.join(&entry))?));
                self.directory(&entry)?;
            } else {
                let source = self.machine.join(&entry);
                self.steps.extend(place(&source, &source, &self.real.join(&entry))?);
            }
        }
        Ok(())
    }

    /// Whether both trees have a directory here, and neither has it for itself.
    fn shared(&self, entry: &Path) -> bool {
        let is_directory = |base: &Path| {
            fs::symlink_metadata(base.join(entry)).is_ok_and(|metadata| metadata.is_dir())
        };
        !owned(entry) && is_directory(self.real) && is_directory(&self.machine)
    }

    fn keep(&mut self, entry: &Path) -> io::Result<()> {
        if !owned(entry) {
            let at = self.real.join(entry);
            self.steps.extend(place(&at, entry, &at)?);
        }
        Ok(())
    }
}

fn owned(entry: &Path) -> bool {
    OWNED.iter().any(|directory| entry == Path::new(directory))
}

/// The step that shows at `at` what is found at `seen` and can be bound from `from`.
fn place(seen: &Path, from: &Path, at: &Path) -> io::Result<Option<Step>> {
    let Ok(metadata) = fs::symlink_metadata(seen) else { return Ok(None) };
    Ok(Some(if metadata.is_symlink() {
        Step::Symlink { to: c_path(&fs::read_link(seen)?)?, at: c_path(at)? }
    } else {
        Step::Bind { from: c_path(from)?, at: c_path(at)?, directory: metadata.is_dir() }
    }))
}

fn device_steps(real: &Path, machine: &Path) -> io::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for name in names(real)? {
        if name == OsStr::new("ptmx") {
            // The kernel looks for `pts` beside the node that was opened, and a bound file has no
            // place that it could be beside.
            let at = c_path(&real.join(&name))?;
            steps.push(Step::Symlink { to: c_path(Path::new("pts/ptmx"))?, at });
            continue;
        }
        if !OWNED_NODES.iter().any(|owned| name == OsStr::new(owned)) {
            let at = real.join(&name);
            steps.extend(place(&at, Path::new(&name), &at)?);
        }
    }
    for name in OWNED_NODES {
        nodes(&machine.join(name), &real.join(name), &mut steps)?;
    }
    Ok(steps)
}

/// The machine's node, or directory of nodes, at `source`.
fn nodes(source: &Path, at: &Path, steps: &mut Vec<Step>) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(source) else { return Ok(()) };
    if metadata.is_dir() {
        steps.push(Step::Directory(c_path(at)?));
        for name in names(source)? {
            nodes(&source.join(&name), &at.join(&name), steps)?;
        }
    } else if metadata.is_symlink() {
        steps.push(Step::Symlink { to: c_path(&fs::read_link(source)?)?, at: c_path(at)? });
    } else {
        // What is open to its owner is open to the whole machine, which has one user.
        let mode = match metadata.permissions().mode() & 0o777 {
            mode if mode & 0o600 == 0o600 => 0o666,
            mode => mode,
        };
        steps.push(Step::Node { at: c_path(at)?, mode });
    }
    Ok(())
}

fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
