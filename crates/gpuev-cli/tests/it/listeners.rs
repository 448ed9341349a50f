//! Ten thousand who listen to the live stream at once: one more is told that there is no room, the others are
//! told what happens, and the agent does not grow beyond what so many connections are.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::program::{Running, free_port};

/// At most so many listen; fewer where this process may not have so many descriptors.
const MOST: u64 = 10_000;
/// Descriptors for all else, here and in the agent.
const OTHERS: u64 = 500;
/// Kilobytes of the agent for each: a connection, a request's head, a place in the stream.
const EACH_KB: u64 = 64;
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Raises the limit of descriptors to the highest that is allowed; the agent inherits it.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, most).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

/// Asks, and reads the answer up to where it names its status.
fn ask(port: u16, path: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    (stream, String::from_utf8_lossy(&status[9..]).into_owned())
}

fn memory_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Reads on until the stream tells of an event.
fn hears_an_event(stream: &mut TcpStream) {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while !text.contains("\nevent: event\n") {
        let count = stream.read(&mut part).unwrap();
        assert!(count > 0, "the stream has ended: {text}");
        text += &String::from_utf8_lossy(&part[..count]);
    }
}

#[test]
fn ten_thousand_listen_and_one_more_is_turned_away() {
    let listeners = MOST.min(descriptors().saturating_sub(OTHERS));
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = folder.path().join("agent.toml");
    let text = format!(
        "agent.state_dir = {:?}\ncontrol.socket = \"\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n\
         max_streams = {listeners}\nmax_clients = {}\n",
        folder.path().join("state"),
        listeners + 10
    );
    fs::write(&config, text).unwrap();
    // A flood for all of them would measure the machine.
    let args = ["agent", "--config", config.to_str().unwrap(), "--source", "sim:mixed,rate=2"];
    let agent = Running::start(args);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::yield_now();
    }
    let before = memory_kb(agent.child.id());
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..listeners {
        let (stream, status) = ask(port, "/api/v1/stream?record=event");
        assert_eq!(status, "200", "after {}", held.len());
        held.push(stream);
    }
    assert_eq!(ask(port, "/api/v1/stream").1, "503", "one too many");
    assert_eq!(ask(port, "/api/v1/health").1, "200", "others are served");
    let last = held.len() - 1;
    for place in [0, last / 2, last] {
        hears_an_event(&mut held[place]);
    }
    let grown = memory_kb(agent.child.id()).saturating_sub(before);
    eprintln!("{listeners} listeners: {} kB each", grown as f64 / listeners as f64);
    assert!(grown < EACH_KB * listeners, "{grown} kB for {listeners}");
    // Beyond all connections that it may have, whoever comes is told so, and the streams go on.
    let idle: Vec<_> = (0..10).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    assert_eq!(ask(port, "/api/v1/health").1, "503", "no connection is left");
    hears_an_event(&mut held[last]);
    drop(idle);
}
