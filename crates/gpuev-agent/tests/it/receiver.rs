//! An HTTP server that does what the test says: takes, fails, refuses, is slow, says nothing, goes away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Where its redirects lead: to itself, so that it sees who follows one.
pub(crate) const ELSEWHERE: &str = "/elsewhere";

/// What it does with requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Does {
    /// Answers with this status; 2xx means that it took the request.
    Answers(u16),
    /// Takes it, and answers after a while.
    Slow(Duration),
    /// Reads it, throws it away and closes the connection without an answer.
    HangsUp,
}

/// A request that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub(crate) struct Receiver {
    pub(crate) port: u16,
    tls: Option<Arc<ServerConfig>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    does: Mutex<Does>,
    taken: Mutex<Vec<Request>>,
    seen: Mutex<usize>,
    stops: AtomicBool,
}

impl Receiver {
    pub(crate) fn new(does: Does) -> Self {
        Self::over(does, None)
    }

    /// One that speaks TLS.
    pub(crate) fn with_tls(does: Does, tls: Arc<ServerConfig>) -> Self {
        Self::over(does, Some(tls))
    }

    fn over(does: Does, tls: Option<Arc<ServerConfig>>) -> Self {
        let state = Arc::new(State {
            does: Mutex::new(does),
            taken: Mutex::default(),
            seen: Mutex::default(),
            stops: AtomicBool::new(false),
        });
        let mut receiver = Self { port: crate::servers::free_port(), tls, state, thread: None };
        receiver.start();
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn does(&self, does: Does) {
        *self.state.does.lock().unwrap() = does;
    }

    pub(crate) fn taken(&self) -> Vec<Request> {
        self.state.taken.lock().unwrap().clone()
    }

    /// Requests so far, whatever became of them.
    pub(crate) fn seen(&self) -> usize {
        *self.state.seen.lock().unwrap()
    }

    /// Starts to listen, again after [`stop`](Self::stop).
    pub(crate) fn start(&mut self) {
        self.state.stops.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        let (state, tls) = (self.state.clone(), self.tls.clone());
        self.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.stops.load(Ordering::SeqCst) {
                    return;
                }
                let _gone = match &tls {
                    None => serve(&state, stream.unwrap()),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls.clone()).unwrap();
                        serve(&state, StreamOwned::new(connection, stream.unwrap()))
                    }
                };
            }
        }));
    }

    /// Nobody listens any more.
    pub(crate) fn stop(&mut self) {
        self.state.stops.store(true, Ordering::SeqCst);
        let _wakes = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

/// One request for each connection.
fn serve(state: &State, mut stream: impl Read + Write) -> std::io::Result<()> {
    let request = read(&mut stream)?;
    *state.seen.lock().unwrap() += 1;
    let does = *state.does.lock().unwrap();
    let status = match does {
        _ if request.path == ELSEWHERE => 200,
        Does::Answers(status) => status,
        Does::Slow(time) => {
            std::thread::sleep(time);
            200
        }
        Does::HangsUp => return Ok(()),
    };
    let more = match status {
        300..400 => format!("Location: {ELSEWHERE}\r\n"),
        429 => "Retry-After: 0\r\n".to_owned(),
        _ => String::new(),
    };
    if (200..300).contains(&status) {
        state.taken.lock().unwrap().push(request);
    }
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\n{more}Content-Length: 2\r\n\r\n{{}}"
    )?;
    stream.flush()
}

fn read(stream: impl Read) -> std::io::Result<Request> {
    let mut lines = BufReader::new(stream);
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((key.to_owned(), value.to_owned()));
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, headers, body: String::new() };
    let length = request.header("content-length").parse().unwrap_or(0);
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    request.body = String::from_utf8(body).unwrap();
    Ok(request)
}
