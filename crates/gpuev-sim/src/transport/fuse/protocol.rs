//! The part of the FUSE protocol that event files need (`include/uapi/linux/fuse.h`).

/// Version that is spoken: 7.31 has all that is used here.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;

/// `enum fuse_opcode`.
pub(super) mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const POLL: u32 = 40;
    pub(crate) const BATCH_FORGET: u32 = 42;
}

/// The node of the root directory.
pub(super) const ROOT: u64 = 1;
/// Bytes of a buffer that takes any request: headers and the longest write.
pub(super) const REQUEST_BYTES: usize = 16 * 1024;
/// Longest write that is passed on in one request. A mask has 8 bytes.
const MAX_WRITE: u32 = 4096;

const REQUEST_HEAD: usize = 40;
const ANSWER_HEAD: usize = 16;

/// `FOPEN_DIRECT_IO`, `_NONSEEKABLE`, `_STREAM`, `_NOFLUSH`: no page cache, no position, and no
/// request that a close would have to wait for.
const OPEN_FLAGS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 5;

/// `FUSE_POLL_SCHEDULE_NOTIFY`.
const POLL_NOTIFY: u32 = 1;
/// `FUSE_NOTIFY_POLL`.
const NOTIFY_POLL: i32 = 1;

/// A request as the kernel writes it.
pub(super) struct Request<'a>(&'a [u8]);

impl<'a> Request<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= REQUEST_HEAD).then_some(Request(bytes))
    }

    pub(super) fn opcode(&self) -> u32 {
        u32_at(self.0, 4)
    }

    pub(super) fn unique(&self) -> u64 {
        u64_at(self.0, 8)
    }

    pub(super) fn node(&self) -> u64 {
        u64_at(self.0, 16)
    }

    fn body(&self) -> &'a [u8] {
        &self.0[REQUEST_HEAD..]
    }

    /// The name that is looked up.
    pub(super) fn name(&self) -> &'a [u8] {
        self.body().split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The file handle, first in all requests on open files.
    pub(super) fn handle(&self) -> u64 {
        u64_at(self.body(), 0)
    }

    /// How much is to be read.
    pub(super) fn read_size(&self) -> usize {
        u32_at(self.body(), 16) as usize
    }

    /// What is written.
    pub(super) fn written(&self) -> &'a [u8] {
        self.body().get(40..).unwrap_or_default()
    }

    /// Under which handle a poller wants to be woken.
    pub(super) fn poll_handle(&self) -> Option<u64> {
        let body = self.body();
        (u32_at(body, 16) & POLL_NOTIFY != 0).then(|| u64_at(body, 8))
    }
}

/// An answer, or a message that nobody asked for.
pub(super) struct Answer(Vec<u8>);

impl Answer {
    fn with(unique: u64, error: i32, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(ANSWER_HEAD + body.len());
        let len = u32::try_from(ANSWER_HEAD + body.len()).unwrap_or(0);
        bytes.extend_from_slice(&len.to_ne_bytes());
        bytes.extend_from_slice(&error.to_ne_bytes());
        bytes.extend_from_slice(&unique.to_ne_bytes());
        bytes.extend_from_slice(body);
        Answer(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn ok(unique: u64, body: &[u8]) -> Self {
        Answer::with(unique, 0, body)
    }

    pub(super) fn fail(unique: u64, errno: i32) -> Self {
        Answer::with(unique, -errno, &[])
    }

    /// Wakes those who poll under this handle.
    pub(super) fn wake(poll_handle: u64) -> Self {
        Answer::with(0, NOTIFY_POLL, &poll_handle.to_ne_bytes())
    }
}

/// `struct fuse_init_out`.
pub(super) fn init() -> [u8; 64] {
    let mut body = [0; 64];
    put(&mut body, 0, MAJOR);
    put(&mut body, 4, MINOR);
    put(&mut body, 20, MAX_WRITE);
    put(&mut body, 24, 1u32);
    body
}

/// `struct fuse_open_out`.
pub(super) fn opened(handle: u64) -> [u8; 16] {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&handle.to_ne_bytes());
    put(&mut body, 8, OPEN_FLAGS);
    body
}

/// `struct fuse_write_out`.
pub(super) fn wrote(bytes: u32) -> [u8; 8] {
    let mut body = [0; 8];
    put(&mut body, 0, bytes);
    body
}

/// `struct fuse_poll_out`.
pub(super) fn polled(events: u32) -> [u8; 8] {
    wrote(events)
}

/// `struct fuse_entry_out`, to be forgotten at once.
pub(super) fn entry(node: u64) -> [u8; 128] {
    let mut body = [0; 128];
    body[..8].copy_from_slice(&node.to_ne_bytes());
    body[40..].copy_from_slice(&attributes(node));
    body
}

/// `struct fuse_attr_out`, to be forgotten at once.
pub(super) fn attributes_answer(node: u64) -> [u8; 104] {
    let mut body = [0; 104];
    body[16..].copy_from_slice(&attributes(node));
    body
}

/// `struct fuse_attr`: a directory, or a file for its owner.
fn attributes(node: u64) -> [u8; 88] {
    let mut body = [0; 88];
    let (mode, links): (u32, u32) = if node == ROOT { (0o40_755, 2) } else { (0o100_600, 1) };
    body[..8].copy_from_slice(&node.to_ne_bytes());
    put(&mut body, 60, mode);
    put(&mut body, 64, links);
    put(&mut body, 68, rustix::process::geteuid().as_raw());
    put(&mut body, 72, rustix::process::getegid().as_raw());
    put(&mut body, 80, 4096u32);
    body
}

const NAME: &str = "kfd_smi_ev.";

/// Name of an event file in the root directory.
pub(super) fn file_name(number: u64) -> String {
    format!("{NAME}{number}")
}

/// The number in such a name.
pub(super) fn file_number(name: &[u8]) -> Option<u64> {
    std::str::from_utf8(name).ok()?.strip_prefix(NAME)?.parse().ok()
}

/// Node of an event file: those below are the root's.
pub(super) fn node_of(number: u64) -> u64 {
    number + ROOT + 1
}

/// The event file behind a node.
pub(super) fn number_of(node: u64) -> Option<u64> {
    node.checked_sub(ROOT + 1)
}

fn put(body: &mut [u8], at: usize, value: u32) {
    body[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
}
