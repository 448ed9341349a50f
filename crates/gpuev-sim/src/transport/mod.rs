//! How the bytes of an event file reach the program that opened it.
//!
//! The rules (mask, filter, capacity, whole lines or nothing) are the engine's; a transport
//! knows how much is still unread, and carries bytes.

pub(crate) mod diag;
pub(crate) mod fuse;
pub(crate) mod hangup;
pub(crate) mod socket;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// What a client did to its end since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// The newest mask written.
    pub(crate) mask: Option<u64>,
    /// The last descriptor of the file was closed.
    pub(crate) closed: bool,
    /// Lines that a `read()` put in, which tell of drops; see [`Transport::drop_if_full`].
    pub(crate) drop_reports: u64,
    /// Their bytes.
    pub(crate) drop_report_bytes: u64,
}

/// The driver's end of one event file.
pub(crate) trait Transport: Send {
    /// What the client did since the last call.
    fn control(&mut self) -> Control;

    /// Waits until all that clients have done by now will be seen by [`Transport::control`].
    fn catch_up(&mut self) {}

    /// Bytes pushed and not yet read. `at_most` is what the caller knows: what was unread when
    /// it last asked, and all that it pushed since.
    ///
    /// # Errors
    /// The client's end is gone, or the operating system does not tell.
    fn held(&mut self, at_most: usize) -> io::Result<usize>;

    /// Makes whole lines readable, all at once; the caller has seen to it that they fit.
    ///
    /// # Errors
    /// The client's end is gone, or the operating system refuses; nothing was delivered.
    fn push(&mut self, lines: &[u8]) -> io::Result<()>;

    /// For AMD's own driver, where the transport sees reads: drops a line of so many bytes unless
    /// there is room and no drop is yet to be told of; whether it was dropped. The next `read()`
    /// puts a line with the number of drops in, for the one after it, and wakes nobody.
    ///
    /// `None` where reads are not seen.
    fn drop_if_full(&mut self, _len: usize) -> Option<bool> {
        None
    }

    /// Has the next `read()` fail with this errno, once; what is held stays.
    ///
    /// # Errors
    /// `Unsupported` where reads are not this program's to answer.
    fn fail_next_read(&mut self, _errno: Errno) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The socket whose other end is the client's, if it is one.
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether what was pushed is in part not readable yet, so that [`Transport::control`] has to
    /// be called again in a while.
    fn lags(&self) -> bool {
        false
    }
}
