//! A webhook's receiver that can be killed: a process of its own, which writes down what it takes before it
//! answers.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::program::free_port;

const PORT: &str = "GPUEV_TEST_RECEIVER_PORT";
const FILE: &str = "GPUEV_TEST_RECEIVER_FILE";

/// What was taken: the message's `Idempotency-Key`, and the record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Taken {
    pub(super) key: String,
    pub(super) record: Value,
}

impl Taken {
    pub(super) fn text(&self, field: &str) -> &str {
        self.record[field].as_str().unwrap_or_default()
    }

    /// Whether it says that the alert about process `pid` is in `state`.
    pub(super) fn tells(&self, pid: u32, state: &str) -> bool {
        self.record["labels"]["pid"].as_str() == Some(&pid.to_string())
            && self.text("state") == state
    }
}

/// The receiver as its users see it. It is killed with the test.
pub(super) struct Receiver {
    /// With its output, at whose end it would end.
    child: Option<(Child, BufReader<ChildStdout>)>,
    port: u16,
    file: PathBuf,
}

impl Receiver {
    /// Starts one that writes down what it takes in `folder`.
    pub(super) fn start(folder: &Path) -> Self {
        let port = free_port();
        let mut receiver = Self { child: None, port, file: folder.join("taken") };
        receiver.comes_back();
        receiver
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/alerts", self.port)
    }

    /// Returns when it listens.
    pub(super) fn comes_back(&mut self) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["chaos::receiver::a_receiver_of_its_own", "--exact", "--nocapture"])
            .env(PORT, self.port.to_string())
            .env(FILE, &self.file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        assert!(output.by_ref().lines().any(|line| line.unwrap() == "it listens"), "it has ended");
        self.child = Some((child, output));
    }

    pub(super) fn is_killed(&mut self) {
        let (mut child, _output) = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// All that was ever taken, in order.
    pub(super) fn taken(&self) -> Vec<Taken> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let taken = |line: &str| {
            let (key, record) = line.split_once('\t').unwrap();
            Taken { key: key.to_owned(), record: serde_json::from_str(record).unwrap() }
        };
        whole.map(taken).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.is_killed();
        }
    }
}

/// Takes messages until it is killed. Does nothing where it is not asked to.
#[test]
fn a_receiver_of_its_own() {
    let Ok(port) = std::env::var(PORT) else { return };
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    println!("\nit listens");
    for stream in listener.incoming() {
        // Who hangs up in the middle was killed.
        let _hung_up = take(stream.unwrap());
    }
}

fn take(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let (mut key, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            break;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => value.clone_into(&mut key),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let file = std::env::var(FILE).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    // In one write: a kill leaves all of it or nothing.
    file.write_all(format!("{key}\t{body}\n").as_bytes())?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}
