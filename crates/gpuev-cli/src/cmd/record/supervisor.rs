//! A program that is run and waited for: its signals, its stops, its exit code.
//!
//! The program is in our process group, so that the terminal's own signals (Ctrl-C, Ctrl-Z) reach it without us.
//! What a process sends to us alone is passed on. What was ignored when we began (`nohup`) is ignored by the program
//! too: we touch no signal that is ignored.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpgrp, getpid, kill_process, pidfd_open,
    pidfd_send_signal, waitpid,
};
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGWINCH, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::raw::WithRawSiginfo;

use crate::exit::{Failure, say};
use crate::signals::not_ignored;

/// All that a process may be sent and that would end or stop us: what we do not catch would take the recording
/// from a program that goes on.
const PASSED_ON: [i32; 15] = [
    SIGHUP, SIGINT, SIGQUIT, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2, SIGIO, SIGPROF, SIGVTALRM,
    SIGXCPU, SIGXFSZ, SIGTSTP, SIGCONT, SIGWINCH,
];
/// Linux's real-time signals that the C library leaves to programs; schedulers send those, too.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Takes signals from now on, and passes them to the program once it runs.
pub(super) struct Supervisor {
    target: Arc<Mutex<Target>>,
}

/// Where signals go.
#[derive(Default)]
struct Target {
    program: Option<(Pid, OwnedFd)>,
    /// What came before there was one.
    waiting: Vec<i32>,
    /// Somebody asked that the program stops.
    stopping: bool,
}

/// Why there is no program.
pub(super) struct NotStarted {
    /// 127 where there is no such program, 126 where it may not be run: what shells end with.
    pub(super) code: u8,
    pub(super) failure: gpuev::Error,
}

impl Supervisor {
    pub(super) fn listen() -> Result<Self, Failure> {
        let target = Arc::<Mutex<Target>>::default();
        let caught: Vec<i32> = PASSED_ON.into_iter().chain(REAL_TIME).collect();
        let caught = not_ignored(&caught);
        let mut signals = SignalsInfo::<WithRawSiginfo>::new(caught)
            .map_err(|error| gpuev::Error::io("listen for signals", error))?;
        let passes_to = Arc::clone(&target);
        let pass_on = move || {
            for info in signals.forever() {
                // The kernel's own (the terminal's, a limit's) reach the program by themselves: their code is
                // above 0. A process's is not (sigaction(2)).
                // Nor is that of a file that has become too long, which is about our own files.
                if info.si_code <= 0 && info.si_signo != SIGXFSZ {
                    lock(&passes_to).pass_on(info.si_signo);
                }
            }
        };
        std::thread::Builder::new()
            .name("gpuev-signals".to_owned())
            .spawn(pass_on)
            .map_err(|error| gpuev::Error::io("start a thread", error))?;
        Ok(Self { target })
    }

    /// Runs the program to its end.
    pub(super) fn run(self, words: &[OsString]) -> Result<ExitStatus, NotStarted> {
        let Some((name, arguments)) = words.split_first() else {
            let missing = io::Error::from(io::ErrorKind::NotFound);
            return Err(NotStarted::new(&OsString::new(), missing));
        };
        let started = Command::new(name).args(arguments).spawn();
        let child = started.map_err(|error| NotStarted::new(name, error))?;
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(program) => lock(&self.target).begin(pid, program),
            Err(error) => say(&format!("signals do not reach the program: {error}")),
        }
        Ok(self.wait(pid))
    }

    /// Waits for its end; stops where it is stopped, as the shell that waits for us expects.
    fn wait(&self, pid: Pid) -> ExitStatus {
        loop {
            match waitpid(Some(pid), WaitOptions::UNTRACED) {
                Ok(Some((_, status))) if status.stopped() => self.stop(),
                Ok(Some((_, status))) => {
                    // No other process gets our signals once the number is free.
                    lock(&self.target).program = None;
                    return ExitStatus::from_raw(status.as_raw());
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    say(&format!("cannot wait for the program: {error}"));
                    return ExitStatus::from_raw(1 << 8);
                }
            }
        }
    }

    /// The program is stopped: so are we, where a shell looks on or somebody asked it of us. It goes on with us.
    fn stop(&self) {
        let asked = std::mem::take(&mut lock(&self.target).stopping);
        if asked || is_in_foreground() {
            let _cannot_fail = kill_process(getpid(), Signal::STOP);
            lock(&self.target).send(SIGCONT);
        }
    }
}

impl Target {
    fn begin(&mut self, pid: Pid, program: OwnedFd) {
        self.program = Some((pid, program));
        for signal in std::mem::take(&mut self.waiting) {
            self.send(signal);
        }
    }

    fn pass_on(&mut self, signal: i32) {
        self.stopping |= signal == SIGTSTP;
        if self.program.is_some() {
            self.send(signal);
        } else {
            self.waiting.push(signal);
        }
    }

    fn send(&self, signal: i32) {
        let Some((pid, program)) = &self.program else { return };
        if let Some(named) = Signal::from_named_raw(signal) {
            let _it_has_ended = pidfd_send_signal(program, named);
            return;
        }
        // rustix has no name for a real-time signal, and takes no number. The pid is the program's: it is not
        // given to another one before its end is waited for.
        let kill = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
        if let Err(error) = kill {
            say(&format!("cannot pass on signal {signal}: {error}"));
        }
    }
}

impl NotStarted {
    fn new(name: &OsString, error: io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        let what = format!("start {}", name.to_string_lossy());
        Self { code, failure: gpuev::Error::io(what, error).with_hint("check its name and $PATH") }
    }
}

fn lock(target: &Mutex<Target>) -> std::sync::MutexGuard<'_, Target> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the terminal that controls us has us in the foreground: a shell waits for us then, and looks at stops.
fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| {
        rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())
    })
}
