//! Runs the built program.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_gpuev");

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a server of this machine answers, without its head; nothing where it does not.
pub(crate) fn body(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    // Of version 1.0 an answer comes in one piece, and then the connection ends.
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Its lines of JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.out.lines().map(parse).collect()
    }

    /// It ended well; gives what it wrote.
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

pub(crate) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The program with these arguments, not started; it reads nothing.
pub(crate) fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = untouched(PROGRAM);
    command.args(args).stdin(Stdio::null());
    command.env("GPUEV_RUNTIME_DIR", runtime_dir());
    command
}

/// `program` in an environment that this machine's settings do not reach: colours, widths, zones, languages, folders
/// and gpuev's own variables. Whoever tests one of them sets it.
pub(crate) fn untouched(program: impl AsRef<OsStr>) -> Command {
    const OURS: [&str; 12] = [
        "CI",
        "CLICOLOR",
        "CLICOLOR_FORCE",
        "COLUMNS",
        "HOME",
        "LANG",
        "LINES",
        "NOTIFY_SOCKET",
        "NO_COLOR",
        "STATE_DIRECTORY",
        "TZ",
        "VIRTUAL_ENV",
    ];
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if OURS.contains(&&*text) || ["GPUEV_", "LC_", "XDG_"].iter().any(|of| text.starts_with(of))
        {
            command.env_remove(&name);
        }
    }
    command.env("TZ", "UTC");
    command
}

/// Where the programs of this test find one another, and no others.
pub(crate) fn runtime_dir() -> PathBuf {
    std::env::temp_dir().join(format!("gpuev-test-{}", std::process::id()))
}

/// Runs it to its end.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    ended(&mut command(args))
}

/// Runs a command to its end.
pub(crate) fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The program while it runs, its output read line by line. It is killed with the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut child =
            command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "the output has ended");
        line
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Reads what still comes and waits for the end.
    pub(crate) fn rest(mut self) -> Ended {
        let mut out = String::new();
        self.lines.read_to_string(&mut out).unwrap();
        self.end(out)
    }

    /// Closes its output without reading on, and waits for the end.
    pub(crate) fn hang_up(mut self) -> Ended {
        drop(std::mem::replace(&mut self.lines, BufReader::new(nothing())));
        self.end(String::new())
    }

    fn end(&mut self, out: String) -> Ended {
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Ended { code: self.child.wait().unwrap().code(), out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An output that has ended.
fn nothing() -> ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    child.wait().unwrap();
    child.stdout.take().unwrap()
}

/// Waits until all has happened that was to happen on the simulated machine of a program that has begun to write.
pub(crate) fn wait_for_the_storys_end(child: u32) {
    // A thread has the program's name until it gives itself its own, and a list of threads that end may leave one out.
    let is_over = || {
        let names = threads(child);
        let finish = names.iter().any(|name| name == "gpuev-finish");
        !finish && names.iter().filter(|name| *name == "gpuev").count() == 1
    };
    while !(is_over() && is_over()) {
        std::thread::yield_now();
    }
}

/// Whether a thread of the program has this name.
pub(crate) fn has_thread(child: u32, name: &str) -> bool {
    threads(child).iter().any(|thread| thread == name)
}

fn threads(child: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{child}/task")).unwrap();
    let names = tasks.flatten().flat_map(|task| std::fs::read_to_string(task.path().join("comm")));
    names.map(|name| name.trim().to_owned()).collect()
}
