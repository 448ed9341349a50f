//! Ends a command on Ctrl-C, on SIGTERM, or when its time is up.

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Failure;

/// What may end a command.
pub(crate) struct Ends {
    signals: Signals,
    /// A program whose end is waited for.
    program: Option<OwnedFd>,
}

impl Ends {
    /// Takes the signals over: from here on they wait for [`Ends::call`].
    pub(crate) fn listen() -> Result<Self, Failure> {
        Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map(|signals| Self { signals, program: None })
            .map_err(|error| Failure::Gpu(gpuev::Error::io("listen for signals", error)))
    }

    /// Lets this child decide what the first signal means: it is passed on, and the command ends with the child.
    /// Ctrl-C reaches the child by itself, both being in the terminal's group.
    pub(crate) fn passing_on_to(mut self, child: u32) -> Result<Self, Failure> {
        let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
        let opened = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())).transpose();
        self.program =
            opened.map_err(|error| gpuev::Error::io("watch the program", error.into()))?;
        Ok(self)
    }

    /// Calls `end` in a thread of its own once the user, the system or the clock ends the command, or `finish`
    /// returns. A second Ctrl-C kills the program, should ending take long.
    pub(crate) fn call(
        mut self,
        after: Option<Duration>,
        finish: impl FnOnce() + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> Result<(), Failure> {
        let (ended, told) = mpsc::channel::<()>();
        let finished = ended.clone();
        spawn("gpuev-signals", move || {
            let mut signals = self.signals.forever();
            if let Some(program) = self.program
                && let Some(first) = signals.next()
                && first != SIGINT
                && let Some(signal) = Signal::from_named_raw(first)
            {
                let _it_has_ended = pidfd_send_signal(program, signal);
            }
            for (before, signal) in signals.enumerate() {
                // The command may be ending by itself already: the first signal is content with that.
                if ended.send(()).is_err() && before > 0 {
                    let _killed = signal_hook::low_level::emulate_default_handler(signal);
                }
            }
        })?;
        spawn("gpuev-finish", move || {
            finish();
            let _ended_otherwise = finished.send(());
        })?;
        spawn("gpuev-end", move || {
            match after {
                Some(after) => drop(told.recv_timeout(after)),
                None => drop(told.recv()),
            }
            drop(told);
            end();
        })
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|error| Failure::Gpu(gpuev::Error::io("start a thread", error)))
}
