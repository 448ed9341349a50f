//! Ends a command on Ctrl-C, on SIGTERM, or when its time is up.

use std::sync::mpsc;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{Failure, say};
use crate::output::Standard;

/// What may end a command.
pub(crate) struct Ends {
    signals: Signals,
    /// Where what the command says goes, if that is its purpose.
    output: Option<&'static Standard>,
}

/// Why a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The user, the system or the clock wants it.
    Asked,
    /// There is nothing more to do.
    Over,
}

/// Those of `signals` that were not ignored when this program was started: whoever had them ignored (nohup, a shell
/// without job control) wants that for it and what it starts.
pub(crate) fn not_ignored(signals: &[i32]) -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let is_ignored = |signal: &i32| ignored >> (signal - 1) & 1 == 1;
    signals.iter().copied().filter(|signal| !is_ignored(signal)).collect()
}

impl Ends {
    /// Takes the signals over: from here on they wait for [`Ends::call`].
    pub(crate) fn listen() -> Result<Self, Failure> {
        Signals::new(not_ignored(&[SIGINT, SIGTERM, SIGHUP]))
            .map(|signals| Self { signals, output: None })
            .map_err(|error| Failure::Gpu(gpuev::Error::io("listen for signals", error)))
    }

    /// The command is for `output`: it ends when nobody reads it any more, and is not kept from ending by a reader that
    /// takes nothing.
    pub(crate) fn with_output(mut self, output: &'static Standard) -> Self {
        self.output = Some(output);
        self
    }

    /// Calls `end` in a thread of its own once the user, the system or the clock ends the command, nobody reads its
    /// output any more, or `finish` returns. A second Ctrl-C kills gpuev, should ending take long.
    pub(crate) fn call(
        mut self,
        after: Option<Duration>,
        finish: impl FnOnce() + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> Result<(), Failure> {
        let (ended, told) = mpsc::channel::<Why>();
        let finished = ended.clone();
        let output = self.output;
        spawn("gpuev-signals", move || {
            for (before, signal) in self.signals.forever().enumerate() {
                // The command may be ending by itself already: the first signal is content with that.
                if ended.send(Why::Asked).is_err() && before > 0 {
                    let _killed = signal_hook::low_level::emulate_default_handler(signal);
                }
            }
        })?;
        let over = finished.clone();
        spawn("gpuev-finish", move || {
            finish();
            let _ended_otherwise = over.send(Why::Over);
        })?;
        if let Some(output) = output {
            let closed = finished;
            spawn("gpuev-output", move || {
                output.closed();
                let _ended_otherwise = closed.send(Why::Over);
            })?;
        }
        spawn("gpuev-end", move || {
            let why = match after {
                Some(after) => told.recv_timeout(after).unwrap_or(Why::Asked),
                None => told.recv().unwrap_or(Why::Over),
            };
            drop(told);
            end();
            // A reader that pauses, such as less, is waited for, unless the user wants the end now.
            if let (Some(output), Why::Asked) = (output, why) {
                output.stuck();
                say("the output is not taken: it ends without writing the rest");
                std::process::exit(1);
            }
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
