//! Work that may hang, such as that of a disk: in a thread that nobody has to wait for.

use std::io;
use std::sync::mpsc::{self, Receiver};

/// Starts `work` in a thread of its own. A thread that hangs stays behind, and its result is never received.
///
/// # Errors
/// No thread is left.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Receiver<T>> {
    let (send, result) = mpsc::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _nobody_waits = send.send(work());
    })?;
    Ok(result)
}
