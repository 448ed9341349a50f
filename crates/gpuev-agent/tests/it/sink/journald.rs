//! The journal: its protocol on a socket of the test's, and its own programs reading what it would hold.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use gpuev_agent::sink::{Notice, Settings, Sinks};
use gpuev_agent::{AlertState, What};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::fixture::{Told, alert, change, context, event, fault, signal_of, until};
use crate::servers::has;

/// One entry as it came, whether as a datagram or as a file.
fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(&mut bytes)];
    let got = recvmsg(socket, slices, &mut control, RecvFlags::empty()).unwrap();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut files) = message {
            let mut file = File::from(files.next().unwrap());
            let mut entry = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut entry).unwrap();
            assert!(file.write(b"x").is_err(), "it is sealed");
            return entry;
        }
    }
    bytes.truncate(got.bytes);
    bytes
}

fn fields(entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = entry;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap());
        let value = &rest[end + 9..end + 9 + usize::try_from(length).unwrap()];
        assert_eq!(rest[end + 9 + value.len()], b'\n');
        fields.insert(name, String::from_utf8(value.to_vec()).unwrap());
        rest = &rest[end + 10 + value.len()..];
    }
    fields
}

fn settings(folder: &std::path::Path) -> Settings {
    let toml = format!(
        "[journald.main]\nsocket = \"{}/socket\"\nqueue.retry_first = \"1ms\"\nqueue.retry_most = \"5ms\"\n",
        folder.display()
    );
    toml::from_str(&toml).unwrap()
}

#[test]
fn records_are_fields_with_an_id_for_each_kind() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
    let context = context(folder.path(), &Told::default());
    let sinks = Sinks::start(&settings(folder.path()), context).unwrap();
    sinks.signal(&fault(1));
    let first = fields(&receive(&socket));
    assert_eq!(first["MESSAGE"], "memory fault by pid 4242 (python3)");
    assert_eq!((&*first["PRIORITY"], &*first["SYSLOG_IDENTIFIER"]), ("2", "gpuev"));
    assert_eq!((&*first["GPUEV_TYPE"], &*first["GPUEV_GPU"]), ("VMFAULT", "0000:03:00.0"));
    assert_eq!((&*first["GPUEV_PID"], &*first["GPUEV_PROCESS"]), ("4242", "python3"));
    assert!(first["GPUEV_JSON"].contains(&format!("\"id\":\"{}\"", first["GPUEV_ID"])));
    sinks.change(&change("a1", AlertState::Firing));
    let second = fields(&receive(&socket));
    assert_eq!((&*second["GPUEV_STATE"], &*second["GPUEV_RULE"]), ("firing", "vmfault"));
    assert!(second["MESSAGE"].starts_with("firing vmfault: memory fault"), "{second:?}");
    sinks.signal(&fault(2));
    let third = fields(&receive(&socket));
    assert_eq!(first["MESSAGE_ID"], third["MESSAGE_ID"]);
    assert_ne!(first["MESSAGE_ID"], second["MESSAGE_ID"]);
    // What is no warning is not for the journal.
    sinks.signal(&signal_of(What::Event(event(3, b"12 1092:python3"))));
    sinks.change(&change("a1", AlertState::Resolved));
    assert_eq!(fields(&receive(&socket))["GPUEV_STATE"], "resolved");
}

#[test]
fn what_is_too_large_for_the_socket_goes_as_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
    let context = context(folder.path(), &Told::default());
    let sinks = Sinks::start(&settings(folder.path()), context).unwrap();
    let mut large = alert("a1", AlertState::Firing);
    large.summary = "x".repeat(2 << 20);
    sinks.change(&gpuev_agent::AlertChange { alert: large.into(), notify: true, kept: true });
    assert!(fields(&receive(&socket))["MESSAGE"].len() > 2 << 20);
}

#[test]
fn a_journal_that_is_restarted_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let told = Told::default();
    let sinks = Sinks::start(&settings(folder.path()), context(folder.path(), &told)).unwrap();
    sinks.signal(&fault(1));
    until("it is told", || told.count(|n| matches!(n, Notice::Failing { .. })) > 0);
    for seq in [1, 2] {
        let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
        if seq == 2 {
            sinks.signal(&fault(2));
        }
        assert!(fields(&receive(&socket))["GPUEV_JSON"].contains(&format!("\"seq\":{seq},")));
        fs::remove_file(folder.path().join("socket")).unwrap();
    }
}

/// The journal's own tools take the entries and find them by their fields.
#[test]
fn journalctl_finds_them() {
    const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
    if !has(REMOTE) || !has("journalctl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
    let context = context(folder.path(), &Told::default());
    let sinks = Sinks::start(&settings(folder.path()), context).unwrap();
    let journal = folder.path().join("all.journal");
    let mut remote = Command::new(REMOTE)
        .args([format!("--output={}", journal.display()), "-".to_owned()])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = remote.stdin.take().unwrap();
    sinks.signal(&fault(1));
    sinks.change(&change("a1", AlertState::Firing));
    for at in 0..2 {
        // What the journal itself adds to an entry that comes on its socket.
        write!(stdin, "__REALTIME_TIMESTAMP=179534790100000{at}\n__MONOTONIC_TIMESTAMP={at}\n")
            .unwrap();
        writeln!(stdin, "_BOOT_ID=0123456789abcdef0123456789abcdef").unwrap();
        stdin.write_all(&receive(&socket)).unwrap();
        stdin.write_all(b"\n").unwrap();
    }
    drop(stdin);
    assert!(remote.wait().unwrap().success());
    let output = Command::new("journalctl")
        .arg(format!("--file={}", journal.display()))
        .args(["--output=json", "GPUEV_RULE=vmfault", "GPUEV_STATE=firing"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 1, "{text}");
    assert_eq!(found[0]["PRIORITY"], "2");
    assert!(found[0]["MESSAGE"].as_str().unwrap().contains("\nof python3"), "{text}");
}
