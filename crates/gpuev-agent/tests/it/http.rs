//! The HTTP API: what it tells, whom it refuses, and that nobody who misbehaves hurts the others.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use gpuev_agent::config::HttpSettings;
use gpuev_agent::http::OPENAPI;
use gpuev_agent::quantity::Size;
use gpuev_agent::{Agent, Config};
use gpuev_sim::{Comm, DriverEvent, Kernel, SimMachine};
use proptest::prelude::*;
use serde_json::Value;

use crate::machine::{PATIENCE, machine_of};

/// An agent of a simulated machine, asked over HTTP.
struct Served {
    sim: SimMachine,
    agent: Agent,
    address: SocketAddr,
    _state: tempfile::TempDir,
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn start(change: impl FnOnce(&mut HttpSettings, &Path)) -> Result<Served, gpuev::Error> {
    let sim = SimMachine::builder().gpus(2).kernel(Kernel::V7_3).build().unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.agent.state_dir = state.path().to_owned();
    config.http.listen = "127.0.0.1:0".to_owned();
    change(&mut config.http, state.path());
    let agent = Agent::start(&machine_of(&sim), &config)?;
    let address = agent.http_address().unwrap();
    Ok(Served { sim, agent, address, _state: state })
}

fn served() -> Served {
    start(|_, _| {}).unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read_answer(stream: impl Read) -> Answer {
    let mut text = Vec::new();
    // Whoever is let go in the middle keeps what he has read.
    let _reset = BufReader::new(stream).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl Served {
    /// Asks as a program does, with more headers.
    fn ask(&self, path: &str, headers: &str) -> Answer {
        self.ask_as("GET", path, &format!("Host: {}\r\n{headers}", self.address))
    }

    fn ask_as(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = connect(self.address);
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        let _refused_already = stream.write_all(request.as_bytes());
        read_answer(stream)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask(path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Asks until the answer is as wanted: the history is a moment behind.
    fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(std::time::Instant::now() < deadline, "{path}: {answer}");
            std::thread::yield_now();
        }
    }

    /// The live stream, its head read.
    fn listen(&self, query: &str, headers: &str) -> Stream {
        let mut stream = connect(self.address);
        let host = self.address;
        let request =
            format!("GET /api/v1/stream{query} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut stream = Stream { lines };
        while !stream.line().starts_with(": gpuev") {}
        stream
    }

    fn start_process(&self, gpu: usize, pid: u32) {
        let comm = Comm::new("train");
        self.sim.emit(gpu, &DriverEvent::ProcessStart { pid: pid.into(), comm });
    }

    fn is_well(&self) {
        assert_eq!(self.get("/api/v1/health")["status"], "ok");
    }
}

/// A live stream that is read.
struct Stream {
    lines: BufReader<TcpStream>,
}

#[derive(Debug)]
struct Told {
    name: String,
    id: String,
    data: Value,
}

impl Stream {
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    fn field(&mut self, name: &str) -> String {
        loop {
            if let Some(value) = self.line().strip_prefix(name) {
                return value.to_owned();
            }
        }
    }

    fn next(&mut self) -> Told {
        let (name, id) = (self.field("event: "), self.field("id: "));
        let data = serde_json::from_str(&self.field("data: ")).unwrap();
        Told { name, id, data }
    }

    fn next_called(&mut self, name: &str) -> Told {
        loop {
            let told = self.next();
            if told.name == name {
                return told;
            }
        }
    }
}

#[test]
fn everything_that_the_document_names_is_there() {
    let served = served();
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    assert_eq!(served.get("/api/v1/openapi.json"), document);
    let paths = document["paths"].as_object().unwrap();
    let json = |path: &str| path.starts_with("/api/") && !path.ends_with("/stream");
    for (path, item) in paths.iter().filter(|(path, _)| json(path)) {
        let answer = served.get(path);
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        for key in schema["required"].as_array().into_iter().flatten() {
            assert!(answer.get(key.as_str().unwrap()).is_some(), "{path} has no {key}: {answer}");
        }
    }
    assert_eq!(served.ask("/api/v1/nothing", "").status, 404);
    assert!(served.ask("/", "").json()["error"].as_str().unwrap().contains("openapi.json"));
}

#[test]
fn what_happened_is_found_by_gpu_type_process_and_place() {
    let served = served();
    (0..30_u32).for_each(|n| served.start_process(usize::from(n % 2 == 1), 1000 + n));
    let comm = Comm::new("train");
    served.sim.emit(0, &DriverEvent::ProcessEnd { pid: 1000.into(), comm });
    let count = |answer: &Value| answer["events"].as_array().unwrap().len();
    let all = served.wait_for("/api/v1/events", |answer| count(answer) == 31);
    let gpu = all["events"][0]["record"]["gpu"]["bdf"].as_str().unwrap().to_owned();
    assert_eq!(count(&served.get(&format!("/api/v1/events?gpu={gpu}"))), 16);
    assert_eq!(count(&served.get("/api/v1/events?type=PROCESS_END,VMFAULT")), 1);
    assert_eq!(count(&served.get("/api/v1/events?pid=1007")), 1);
    assert_eq!(count(&served.get("/api/v1/events?severity=warning")), 0);
    assert_eq!(count(&served.get("/api/v1/events?to=1h%20ago")), 0);
    let (mut after, mut seen) = (0, Vec::new());
    while let Some(part) = Some(served.get(&format!("/api/v1/events?limit=7&after={after}")))
        .filter(|part| count(part) > 0)
    {
        seen.extend(part["events"].as_array().unwrap().clone());
        after = part["next"].as_i64().unwrap();
    }
    assert_eq!(Value::from(seen), all["events"]);
    let spans = served.get("/api/v1/spans?type=PROCESS");
    assert_eq!(spans["spans"][0]["record"]["tid"], 1000);
    for nonsense in ["type=VMFALT", "gpu=7", "severity=bad", "from=soon", "limit=x", "foo=1"] {
        let answer = served.ask(&format!("/api/v1/events?{nonsense}"), "");
        assert_eq!(answer.status, 400, "{nonsense}: {answer:?}");
    }
}

#[test]
fn prometheus_is_answered_in_the_format_that_it_asks_for() {
    let served = served();
    served.start_process(0, 7);
    served.wait_for("/api/v1/health", |health| health["recorded_events"] == 1);
    let text = served.ask("/metrics", "");
    assert!(text.head.contains("text/plain; version=0.0.4"), "{text:?}");
    assert!(text.body.contains("gpuev_events_total{"), "{text:?}");
    let open = served.ask("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(open.head.contains("application/openmetrics-text"), "{open:?}");
    assert!(open.body.trim_end().ends_with("# EOF"), "{open:?}");
}

#[test]
fn gpus_are_told_with_their_health() {
    let served = served();
    let has_health = |answer: &Value| {
        answer["gpus"].as_array().unwrap().iter().all(|gpu| gpu["health"].is_object())
    };
    let gpus = served.wait_for("/api/v1/gpus", has_health);
    assert_eq!(gpus["gpus"].as_array().unwrap().len(), 2);
    assert_eq!(gpus["gpus"][0]["state"], "watched");
    assert_eq!(served.get("/api/v1/alerts")["alerts"], Value::from(Vec::<Value>::new()));
}

#[test]
fn who_comes_back_is_told_what_happened_since_and_nothing_twice() {
    let served = served();
    let mut stream = served.listen("?record=event", "");
    (0..20).for_each(|pid| served.start_process(0, 1000 + pid));
    let told: Vec<_> = (0..10).map(|_| stream.next()).collect();
    let last = told.last().unwrap().id.clone();
    drop(stream);
    let mut stream = served.listen("?record=event", &format!("Last-Event-ID: {last}\r\n"));
    let rest: Vec<_> = (0..10).map(|_| stream.next()).collect();
    let pids: Vec<_> = told.iter().chain(&rest).map(|told| told.data["tid"].clone()).collect();
    assert_eq!(pids, (1000..1020).map(Value::from).collect::<Vec<_>>());
    served.agent.stop().unwrap();
    let mut rest = String::new();
    stream.lines.read_to_string(&mut rest).unwrap();
}

#[test]
fn what_was_missed_is_told() {
    let served = start(|http, _| http.stream_buffer = Size(4096)).unwrap();
    let mut stream = served.listen("?record=event", "");
    served.start_process(0, 1);
    let first = stream.next();
    drop(stream);
    (0..200).for_each(|pid| served.start_process(0, 1000 + pid));
    served.wait_for("/api/v1/health", |health| health["signals"].as_u64().unwrap() >= 201);
    let mut stream = served.listen(&format!("?after={}", first.id), "");
    let missed = stream.next();
    assert_eq!(missed.name, "missed");
    let number = |id: &str| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
    let next = stream.next();
    let count = missed.data["count"].as_u64().unwrap();
    assert_eq!(number(&next.id), number(&first.id) + count + 1);
    let mut stream = served.listen("?after=1f-7", "");
    assert_eq!(stream.next_called("missed").data["count"], Value::Null, "of another run");
    assert_eq!(served.ask("/api/v1/stream?after=nonsense", "").status, 400);
    assert_eq!(served.ask("/api/v1/stream?severity=bad", "").status, 400);
}

#[test]
fn strangers_pages_and_names_are_refused() {
    let served = start(|http, _| {
        http.allowed_hosts = vec!["node7.example".to_owned()];
        http.allowed_origins = vec!["https://page.example".to_owned()];
    })
    .unwrap();
    let port = served.address.port();
    let status = |headers: &str| served.ask_as("GET", "/api/v1/health", headers).status;
    for good in ["localhost", "node7.example", "NODE7.example"] {
        assert_eq!(status(&format!("Host: {good}:{port}\r\n")), 200, "{good}");
    }
    for bad in ["evil.example", "127.0.0.1.evil.example", "localhost.", "", "127.0.0.1:1", "\u{e9}"]
    {
        assert_eq!(status(&format!("Host: {bad}\r\n")), 421, "{bad}");
    }
    assert_eq!(status(&format!("Host: localhost:{port}\r\nHost: evil.example\r\n")), 421);
    assert_ne!(status(""), 200, "no host at all");
    for bad in ["https://evil.example", "null", "http://localhost:1", "file://"] {
        let answer = served.ask("/api/v1/health", &format!("Origin: {bad}\r\n"));
        assert_eq!(answer.status, 403, "{bad}");
        assert!(!answer.head.to_lowercase().contains("access-control-allow-origin"));
    }
    assert_eq!(served.ask("/api/v1/health", "Sec-Fetch-Site: cross-site\r\n").status, 403);
    let page = served.ask("/api/v1/health", "Origin: https://page.example\r\n");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("access-control-allow-origin: https://page.example"), "{page:?}");
    let own = format!("Origin: http://127.0.0.1:{port}\r\n");
    assert_eq!(served.ask("/api/v1/health", &own).status, 200);
}

#[test]
fn beyond_loopback_it_needs_tls_and_a_token() {
    let refused = |change: fn(&mut HttpSettings, &Path)| start(change).err().unwrap().to_string();
    let told = refused(|http, _| http.listen = "0.0.0.0:0".to_owned());
    assert!(told.contains("tls_cert") && told.contains("token_file"), "{told}");
    let told = refused(|http, state| {
        http.listen = "[::]:0".to_owned();
        http.token_file = state.join("token");
        std::fs::write(&http.token_file, "0123456789abcdef0123456789abcdef").unwrap();
    });
    assert!(told.contains("tls_cert"), "{told}");
    let told = refused(|http, state| {
        http.token_file = state.join("token");
        std::fs::write(&http.token_file, "short\n").unwrap();
    });
    assert!(told.contains("guessed"), "{told}");
    let told = refused(|http, _| http.listen = "nowhere".to_owned());
    assert!(told.contains("127.0.0.1:9470"), "{told}");
}

#[test]
fn without_the_token_nothing_is_told() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let served = start(|http, state| {
        http.token_file = state.join("token");
        std::fs::write(&http.token_file, format!("{TOKEN}\n")).unwrap();
    })
    .unwrap();
    let ask = |path: &str, value: &str| served.ask(path, &format!("Authorization: {value}\r\n"));
    for path in ["/api/v1/health", "/api/v1/stream", "/api/v1/nothing"] {
        for wrong in
            ["", "Bearer", "Bearer x", &format!("Basic {TOKEN}"), &format!("Bearer {TOKEN}x")]
        {
            let answer = ask(path, wrong);
            assert_eq!(answer.status, 401, "{path} {wrong}: {answer:?}");
        }
    }
    assert_eq!(served.ask("/api/v1/health", "").status, 401);
    // What probes may know, and by what name they ask, is no secret.
    for probe in ["/livez", "/readyz"] {
        crate::sink::fixture::until(probe, || served.ask(probe, "").body == "ok\n");
    }
    let now = gpuev::time::boot_now_ns();
    assert!(served.agent.shared().is_alive(now + 5_000_000_000));
    assert!(!served.agent.shared().is_alive(now + 60_000_000_000), "a worker that stands still");
    assert_eq!(ask("/api/v1/health", &format!("Bearer {TOKEN}")).json()["status"], "ok");
}

#[test]
fn over_tls_it_answers_the_same() {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    use tokio_rustls::rustls::{
        ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto,
    };

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls");
    let served = start(|http, _| {
        http.tls_cert = folder.join("cert.pem");
        http.tls_key = folder.join("key.pem");
    })
    .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(client, connect(served.address));
    let host = format!("localhost:{}", served.address.port());
    let request =
        format!("GET /api/v1/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(read_answer(stream).json()["status"], "ok");
    let plain = served.ask("/api/v1/health", "");
    assert_eq!(plain.status, 0, "no word without TLS: {plain:?}");
}

#[test]
fn nothing_can_be_changed_and_what_is_too_large_is_refused() {
    let served = served();
    let host = format!("Host: {}\r\n", served.address);
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"] {
        let length = "Content-Length: 1000000000\r\n";
        let answer = served.ask_as(method, "/api/v1/events", &format!("{host}{length}"));
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
    }
    let long = "a".repeat(100_000);
    for (path, headers) in
        [(format!("/{long}"), host.clone()), ("/".to_owned(), format!("{host}X: {long}\r\n"))]
    {
        let answer = served.ask_as("GET", &path, &headers);
        assert!([0, 400, 414, 431].contains(&answer.status), "{}", answer.status);
    }
    served.is_well();
}

#[test]
fn many_who_listen_and_do_not_read_hurt_nobody() {
    let served = start(|http, _| {
        (http.max_clients, http.max_streams) = (40, 30);
        http.stream_buffer = Size(64 << 10);
    })
    .unwrap();
    let silent: Vec<_> = (0..30).map(|_| served.listen("", "")).collect();
    let too_many = served.ask("/api/v1/stream", "");
    assert_eq!(too_many.status, 503, "{too_many:?}");
    (0..5000).for_each(|pid| served.start_process(0, 1000 + pid));
    served.wait_for("/api/v1/health", |health| health["signals"].as_u64().unwrap() >= 1000);
    served.is_well();
    drop(silent);
    let mut again = served.wait_until_listening();
    served.start_process(0, 7);
    while again.next_called("event").data["tid"] != 7 {}
}

impl Served {
    fn wait_until_listening(&self) -> Stream {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.ask("/api/v1/stream?severity=bad", "").status != 400 {
            assert!(std::time::Instant::now() < deadline);
        }
        loop {
            let mut stream = connect(self.address);
            let host = self.address;
            let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: {host}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut lines = BufReader::new(stream);
            let mut first = String::new();
            let _let_go = lines.read_line(&mut first);
            if first.contains("200") {
                return Stream { lines };
            }
            assert!(std::time::Instant::now() < deadline, "{first}");
        }
    }
}

#[test]
fn ten_thousand_clients_are_turned_away_and_the_rest_is_served() {
    let served = start(|http, _| (http.max_clients, http.max_streams) = (32, 16)).unwrap();
    let held: Vec<_> = (0..16).map(|_| served.listen("", "")).collect();
    for _ in 0..10_000 {
        drop(TcpStream::connect(served.address).unwrap());
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    while served.ask("/api/v1/health", "").status != 200 {
        assert!(std::time::Instant::now() < deadline);
    }
    served.start_process(0, 7);
    for mut stream in held {
        assert_eq!(stream.next_called("event").data["tid"], 7);
    }
}

#[test]
fn any_bytes_change_nothing_for_the_others() {
    let served = served();
    let mut stream = served.listen("?record=event", "");
    let pieces = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "(GET|POST|PRI|\\*) /api/v1/[a-z?=&%0-9]{0,20} HTTP/1\\.[01]\r\n(Host: localhost\r\n)?(Transfer-Encoding: chunked\r\n|Content-Length: -?[0-9]{1,20}\r\n){0,2}\r\n[0-9a-f]{0,3}"
            .prop_map(String::into_bytes),
    ];
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() };
    let mut pid = 1;
    proptest::test_runner::TestRunner::new(config)
        .run(&prop::collection::vec(pieces, 1..4), |pieces| {
            let mut attacker = connect(served.address);
            for piece in pieces {
                let _let_go = attacker.write_all(&piece);
            }
            drop(attacker);
            Ok(())
        })
        .unwrap();
    for _ in 0..3 {
        pid += 1;
        served.start_process(0, pid);
        assert_eq!(stream.next().data["tid"], pid);
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    while served.ask("/api/v1/health", "").status != 200 {
        assert!(std::time::Instant::now() < deadline);
    }
}
