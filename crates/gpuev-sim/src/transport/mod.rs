//! How the bytes of an event file reach the program that opened it.
//!
//! The rules (mask, filter, capacity, whole lines or nothing) are the engine's; a transport
//! knows how much is still unread, and carries bytes.

pub(crate) mod diag;
pub(crate) mod fuse;
pub(crate) mod socket;

use std::io;

/// What a client did to its end since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// The newest mask written.
    pub(crate) mask: Option<u64>,
    /// The last descriptor of the file was closed.
    pub(crate) closed: bool,
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

    /// Whether what was pushed is in part not readable yet, so that [`Transport::control`] has to
    /// be called again in a while.
    fn lags(&self) -> bool {
        false
    }
}
