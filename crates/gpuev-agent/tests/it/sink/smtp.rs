//! Mail: a server of the test's, with TLS as it is in the wild.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use gpuev_agent::AlertState;
use gpuev_agent::sink::{Notice, Settings, Sinks};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::fixture::{Told, change, context, counted, until};
use super::tls::certified;
use crate::servers::{free_port, has};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Does {
    Takes,
    /// Says this at the end of a mail.
    Says(&'static str),
    /// Closes the connection instead of an answer to the mail.
    HangsUp,
}

/// Mails that were taken: from, to, and text; and every command that came.
#[derive(Default)]
pub(crate) struct Seen {
    mails: Vec<(String, Vec<String>, String)>,
    commands: Vec<String>,
    connections: usize,
}

pub(crate) struct Mailer {
    pub(crate) port: u16,
    pub(crate) does: Arc<Mutex<Does>>,
    seen: Arc<Mutex<Seen>>,
}

impl Mailer {
    /// With `tls`, it wants STARTTLS first.
    pub(crate) fn new(tls: Option<Arc<ServerConfig>>) -> Self {
        let mailer = Self {
            port: free_port(),
            does: Arc::new(Mutex::new(Does::Takes)),
            seen: Arc::default(),
        };
        let listener = TcpListener::bind(("127.0.0.1", mailer.port)).unwrap();
        let (does, seen) = (mailer.does.clone(), mailer.seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                seen.lock().unwrap().connections += 1;
                let _gone = serve(stream.unwrap(), tls.clone(), &does, &seen);
            }
        });
        mailer
    }

    pub(crate) fn mails(&self) -> Vec<(String, Vec<String>, String)> {
        self.seen.lock().unwrap().mails.clone()
    }

    fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

fn line(stream: &mut impl Read) -> std::io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8(line).unwrap().trim_end().to_owned())
}

fn serve(
    mut stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    does: &Mutex<Does>,
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    stream.write_all(b"220 hello\r\n")?;
    let Some(tls) = tls else { return talk(&mut stream, does, seen) };
    loop {
        let command = line(&mut stream)?;
        seen.lock().unwrap().commands.push(command.clone());
        let answer = match command.as_str() {
            "STARTTLS" => "220 go\r\n",
            hello if hello.starts_with("EHLO") => "250-me\r\n250 STARTTLS\r\n",
            _ => "530 first STARTTLS\r\n",
        };
        stream.write_all(answer.as_bytes())?;
        if command == "STARTTLS" {
            break;
        }
    }
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    talk(&mut stream, does, seen)
}

fn talk(
    stream: &mut (impl Read + Write),
    does: &Mutex<Does>,
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let command = line(stream)?;
        seen.lock().unwrap().commands.push(command.clone());
        let word = command.split([' ', ':']).next().unwrap_or_default().to_owned();
        let answer = match word.as_str() {
            "EHLO" => "250-me\r\n250 AUTH PLAIN",
            "AUTH" => "235 welcome",
            "MAIL" => {
                from = command;
                "250 ok"
            }
            "RCPT" if command.contains("nobody") => "550 no such user",
            "RCPT" => {
                to.push(command);
                "250 ok"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                let mut text = String::new();
                loop {
                    let line = line(stream)?;
                    if line == "." {
                        break;
                    }
                    text.push_str(&line);
                    text.push('\n');
                }
                let does = *does.lock().unwrap();
                match does {
                    Does::Takes => {
                        seen.lock().unwrap().mails.push((from.clone(), to.clone(), text));
                        "250 taken"
                    }
                    Does::Says(answer) => answer,
                    Does::HangsUp => return Ok(()),
                }
            }
            "QUIT" => return stream.write_all(b"221 bye\r\n"),
            _ => "500 what",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes())?;
        stream.flush()?;
    }
}

fn start(folder: &Path, mailer: &Mailer, more: &str, told: &Told) -> Sinks {
    let toml = format!(
        "[smtp.one]\nhost = \"localhost\"\nport = {}\nfrom = \"gpuev@node7.example\"\n\
         queue.retry_first = \"1ms\"\nqueue.retry_most = \"5ms\"\n{more}",
        mailer.port
    );
    let settings: Settings = toml::from_str(&toml).unwrap();
    Sinks::start(&settings, context(folder, told)).unwrap()
}

pub(super) fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let found = mail.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name}: {mail}"))
}

fn decoded(mail: &str) -> String {
    let body = mail.split_once("\n\n").unwrap().1;
    let mut base64 = Command::new("base64")
        .arg("-d")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    base64.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let mut text = String::new();
    BufReader::new(base64.stdout.take().unwrap()).read_to_string(&mut text).unwrap();
    base64.wait().unwrap();
    text
}

#[test]
fn mails_arrive_over_tls_and_only_over_tls() {
    if !has("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mailer = Mailer::new(Some(certified(folder.path(), "cert")));
    fs::write(folder.path().join("password"), "s3cret\n").unwrap();
    let base = folder.path().display();
    let more = format!(
        "to = [\"ops@example.org\", \"nobody@example.org\"]\nca_file = \"{base}/cert\"\nuser = \"gpuev\"\npassword_file = \"{base}/password\"\n"
    );
    let told = Told::default();
    let sinks = start(folder.path(), &mailer, &more, &told);
    sinks.change(&change("a1", AlertState::Firing));
    until("it is told", || sinks.stats()[0].delivered == 1);
    sinks.change(&change("a1", AlertState::Resolved));
    until("all delivered", || sinks.stats()[0].waiting == 0);
    // Who got none is told once and counted each time.
    assert_eq!((sinks.stats()[0].delivered, sinks.stats()[0].missed), (2, 2));
    let notices: Vec<String> = told.all().iter().map(ToString::to_string).collect();
    let says = "nobody@example.org does not get it: RCPT: 550 no such user";
    assert_eq!(notices, [format!("delivers to some only: {says}")]);
    let mails = mailer.mails();
    assert_eq!(mails.len(), 2);
    let (from, to, text) = &mails[0];
    assert_eq!(from, "MAIL FROM:<gpuev@node7.example>");
    assert_eq!(to.as_slice(), ["RCPT TO:<ops@example.org>"]);
    assert_eq!(header(text, "Subject"), "[FIRING] vmfault on node7: memory fault \"a1\"");
    assert_eq!(header(text, "Message-ID"), "<a1.1@node7>");
    assert_eq!(header(text, "References"), header(&mails[1].2, "References"));
    let body = decoded(text);
    assert!(body.contains("What to do: look at the job's log\n"), "{body}");
    assert!(body.contains("gpu: 0000:03:00.0\n") && body.contains("count: 3\n"), "{body}");
    // Nothing but the greeting was said in the clear.
    let commands = mailer.seen.lock().unwrap().commands.clone();
    assert_eq!(commands[..3], ["EHLO node7", "STARTTLS", "EHLO node7"]);
    assert_eq!(commands[3], "AUTH PLAIN AGdwdWV2AHMzY3JldA==");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_not_trusted() {
    if !has("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mailer = Mailer::new(Some(certified(folder.path(), "cert")));
    let told = Told::default();
    let sinks = start(folder.path(), &mailer, "to = [\"ops@example.org\"]\n", &told);
    sinks.change(&change("a1", AlertState::Firing));
    until("it is told", || told.count(|n| matches!(n, Notice::Failing { .. })) > 0);
    assert!(told.all()[0].to_string().contains("certificate"), "{:?}", told.all());
    assert_eq!((mailer.mails().len(), sinks.stats()[0].waiting), (0, 1));
}

#[test]
fn each_mail_is_taken_once_while_the_server_fails_and_what_it_refuses_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let mailer = Mailer::new(None);
    let more = "to = [\"ops@example.org\"]\ntls = \"none\"\n";
    let sinks = start(folder.path(), &mailer, more, &Told::default());
    for (round, does) in
        [Does::Takes, Does::Says("451 later"), Does::HangsUp, Does::Says("552 too large")]
            .into_iter()
            .enumerate()
    {
        *mailer.does.lock().unwrap() = does;
        let before = mailer.connections();
        sinks.change(&change(&format!("a{round}"), AlertState::Firing));
        if matches!(does, Does::Says("552 too large")) {
            until("it is put aside", || sinks.stats()[0].dead_letters == 1);
        } else {
            until("a try", || mailer.connections() > before);
        }
        *mailer.does.lock().unwrap() = Does::Takes;
        until("all settled", || sinks.stats()[0].waiting == 0);
    }
    let ids: Vec<String> =
        mailer.mails().iter().map(|mail| header(&mail.2, "Message-ID").to_owned()).collect();
    assert_eq!(ids, ["<a0.1@node7>", "<a1.1@node7>", "<a2.1@node7>"]);
    assert_eq!(counted(&ids).len(), 3);
}

#[test]
fn settings_that_would_tell_secrets_or_nobody_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (more, says) in [
        ("host = \"mail.example.org\"\ntls = \"none\"\nto = [\"a@b\"]", "this machine's own"),
        ("host = \"localhost\"\nto = []", "`to` is empty"),
        ("host = \"localhost\"\nto = [\"a@b> SIZE=1\"]", "is no mail address"),
        ("host = \"localhost\"\nto = [\"a@b\"]\nuser = \"x\"", "`password_file`"),
    ] {
        let toml = format!("[smtp.one]\nfrom = \"a@b\"\n{more}\n");
        let settings: Settings = toml::from_str(&toml).unwrap();
        let error = settings.check(&context(folder.path(), &Told::default())).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
