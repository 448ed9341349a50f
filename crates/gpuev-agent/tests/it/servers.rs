//! Other people's servers on loopback, for tests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Whether `program` is there. Where all must be (`GPUEV_SIM_REQUIRE_ALL`) a missing one fails.
pub(crate) fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
        || Path::new(program).exists();
    if !found {
        assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "{program} is missing");
        eprintln!("left out: {program} is missing");
    }
    found
}

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The command that starts it, given its folder and port.
type Start = dyn Fn(&Path, u16) -> Command;

/// A server that ends with the test.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    start: Box<Start>,
    ready: &'static str,
}

impl Server {
    fn new(ready: &'static str, start: impl Fn(&Path, u16) -> Command + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = Box::new(start);
        let mut server = Self { child: None, port: free_port(), folder, start, ready };
        server.start();
        server
    }

    pub(crate) fn prometheus(config: &str) -> Self {
        let config = config.to_owned();
        Self::new("/-/ready", move |folder, port| {
            std::fs::write(folder.join("config.yml"), &config).unwrap();
            let mut command = Command::new("prometheus");
            command.arg(format!("--config.file={}", folder.join("config.yml").display()));
            command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command
        })
    }

    pub(crate) fn alertmanager() -> Self {
        Self::new("/-/ready", |folder, port| {
            let config = "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n";
            std::fs::write(folder.join("config.yml"), config).unwrap();
            let mut command = Command::new("prometheus-alertmanager");
            command.arg(format!("--config.file={}", folder.join("config.yml").display()));
            command.arg(format!("--storage.path={}", folder.join("data").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.arg("--cluster.listen-address=");
            command
        })
    }

    /// Starts it, again after [`stop`](Self::stop), and waits until it answers.
    pub(crate) fn start(&mut self) {
        let mut command = (self.start)(self.folder.path(), self.port);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        let began = Instant::now();
        while !matches!(get(self.port, self.ready), Some((200, _))) {
            assert!(began.elapsed() < Duration::from_secs(60), "a server did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }

    /// Stops it in its tracks, or has it go on: whoever connects is kept waiting meanwhile.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// What it answers to GET.
    pub(crate) fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = get(self.port, path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// GET by hand: the tests' HTTP is not the agent's.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
