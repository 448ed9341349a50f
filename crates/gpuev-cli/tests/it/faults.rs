//! Bad input and faults, as a user meets them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gpuev_sim::SimMachine;
use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::machine::{end, end_on, possible, run_on, start_on, thermal};
use crate::program::{Ended, PROGRAM, Running, ended, parse, run};

/// `bytes` as a recording.
fn recording(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn watch_recording(bytes: &[u8], args: &[&str]) -> Ended {
    let file = recording(bytes);
    let source = format!("file:{}", file.path().display());
    run(["watch", "--source", &source].iter().chain(args)).good()
}

#[test]
fn a_recording_may_end_within_a_line() {
    let shown = |bytes| watch_recording(bytes, &["--json"]).json();
    let whole = shown(b"2 1:1\n7 1 -4242 @7fff00000(64) W");
    assert_eq!((whole.len(), &whole[1]["type"]), (2, &"PAGE_FAULT_START".into()));
    let torn = shown(b"2 1:1\n7 1 -4242 @7ff");
    assert_eq!((torn.len(), &torn[1]["type"]), (2, &"UNKNOWN".into()));
    assert_eq!(torn[1]["raw"], "7 1 -4242 @7ff");
}

#[test]
fn no_gpu_has_an_exit_code_of_its_own() {
    for command in ["list", "watch", "doctor"] {
        let ended = run([command, "--source", "sim,gpus=0"]);
        assert_eq!(ended.code, Some(3), "{command}: {ended:?}");
    }
    if !Path::new("/dev/kfd").exists() && !Path::new("/sys/class/kfd").exists() {
        for command in ["list", "watch", "doctor"] {
            let ended = run([command]);
            assert_eq!(ended.code, Some(3), "{command}: {ended:?}");
            let told = ended.err + &ended.out;
            assert!(told.contains("AMD GPU") || told.contains("amdgpu"), "{command}: {told}");
        }
    }
}

#[test]
fn what_is_misspelt_is_a_usage_error_that_offers_the_nearest() {
    for (args, offered) in [
        (["watch", "--type", "vmfalt"], "VMFAULT"),
        (["watch", "--type", "QUEUE_EVICTIONS"], "QUEUE_EVICTION"),
        (["watch", "--severity", "warn"], "warning"),
        (["watch", "--source", "sim:termal"], "thermal"),
        (["watch", "--source", "hots"], "host"),
        (["watch", "--source", "sim,kernel=6.2"], "6.1"),
        (["list", "--source", "sim,gpu=3"], "gpus"),
        (["watch", "--for", "3 fortnights"], "10s"),
    ] {
        let ended = run(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.err.contains(offered), "{args:?}: {}", ended.err);
        assert_eq!(ended.out, "", "{args:?}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_told_with_those_that_are() {
    for selector in ["7", "0000:99:00.0", "no such thing"] {
        let ended = run(["watch", "--source", "sim,gpus=2", "--gpu", selector]);
        assert_eq!(ended.code, Some(2), "{selector}: {ended:?}");
        assert!(ended.err.contains("0000:04:00.0"), "{}", ended.err);
    }
}

#[test]
fn a_recording_that_is_not_there_is_named() {
    let ended = run(["watch", "--source", "file:/no/such/recording.bin"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("/no/such/recording.bin: No such file"), "{}", ended.err);
}

/// A mebibyte that looks random and is the same each time (xorshift).
fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..131_072).flat_map(|_| next()).collect()
}

#[test]
fn a_mebibyte_of_noise_is_shown_and_does_no_harm() {
    let ended = watch_recording(&noise(), &["--json"]);
    let shown = ended.json().iter().filter(|item| item["type"] == "UNKNOWN").count();
    assert!(shown > 1000, "{shown} lines; {}", ended.err);
    let ended = watch_recording(&noise(), &[]);
    assert!(!ended.out.chars().any(|c| c.is_control() && c != '\n'), "control characters");
}

#[test]
fn a_line_without_end_is_shown_in_pieces() {
    let ended = watch_recording(&[b'7'; 5000], &["--json"]);
    let raw = |item: &serde_json::Value| item["raw"].as_str().map_or(0, str::len);
    let shown = ended.json().iter().map(raw).sum::<usize>();
    assert_eq!(shown, 5000);
}

#[test]
fn names_do_not_reach_the_terminal_raw() {
    let line = "1 1234:\x1b]0;x\x07\r\u{9b}2J 😀\n".as_bytes();
    for args in [&[] as &[&str], &["--json"]] {
        let ended = watch_recording(line, args);
        let bad = ended.out.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{}", ended.out.escape_debug());
        assert!(ended.out.contains('😀'), "what may be shown is shown: {}", ended.out);
    }
    let ended = watch_recording(b"1 1234:\xff\xfe:a b\n", &["--json"]);
    assert_eq!(ended.json()[0]["thread"], r"\xff\xfe:a b");
}

#[test]
fn what_a_name_may_have_forged_is_marked_in_every_output() {
    let sim = SimMachine::new().unwrap();
    if !possible(&sim) {
        return;
    }
    // A process may have called itself "a\n3 1 HWS", or a reset may have followed the fault of one called "a".
    let told = |args: &[&str]| {
        let watching = start_on(&sim, &[&["watch", "--count", "2"], args].concat());
        sim.emit_raw(0, 1, None, b"1 1234:a\n3 1 HWS\n");
        end(watching).good()
    };
    let json = told(&["--json"]).json();
    let doubtful: Vec<_> = json.iter().map(|event| event["doubtful"].as_bool()).collect();
    assert_eq!(doubtful, [None, Some(true)]);
    let text = told(&[]).out;
    let marked: Vec<_> = text.lines().map(|line| line.contains("doubtful")).collect();
    assert_eq!(marked, [false, true], "{text}");
}

#[test]
fn few_file_descriptors_are_told_and_do_no_harm() {
    let watch = format!("ulimit -n 48; exec {PROGRAM} watch --source sim,gpus=64 --for 50ms");
    let ended = ended(crate::program::untouched("sh").args(["-c", &watch]));
    assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
    assert!(ended.err.contains("Too many open files"), "{}", ended.err);
}

#[test]
fn too_few_file_descriptors_on_a_driver_are_told_with_what_to_do() {
    let sim = SimMachine::builder().gpus(16).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let mut command = crate::program::untouched("sh");
    command.args(["-c", &format!("ulimit -n 16; exec {PROGRAM} watch --for 50ms")]);
    let ended = end_on(&sim, command);
    assert_eq!(ended.code, Some(0), "some GPUs are watched: {ended:?}");
    assert!(ended.err.contains("is left out"), "{}", ended.err);
    assert!(ended.err.contains("Too many open files"), "{}", ended.err);
}

#[test]
fn who_may_not_open_the_device_is_told_how_he_may() {
    let sim = SimMachine::new().unwrap();
    if !rustix::process::getuid().is_root() || !possible(&sim) {
        return eprintln!("passed over: it takes root to become nobody");
    }
    let mode = fs::Permissions::from_mode(0o060);
    fs::set_permissions(sim.root().join("dev/kfd"), mode).unwrap();
    // Where nobody may go to the build's folder, a copy serves.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("gpuev");
    fs::copy(PROGRAM, &copy).unwrap();
    for what in ["watch", "doctor"] {
        let mut command = crate::program::untouched("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&copy)
            .arg(what);
        let ended = end_on(&sim, command);
        assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
        let told = ended.err + &ended.out;
        assert!(told.contains("/dev/kfd: Permission denied"), "{what}: {told}");
        assert!(told.contains("udev rule") && !told.contains("usermod"), "{what}: {told}");
    }
}

#[test]
fn a_gpu_that_is_removed_is_a_gap_and_the_others_go_on() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let mut watching = start_on(&sim, &["watch", "--json", "--count", "2"]);
    let mut lines = BufReader::new(watching.child().stdout.take().unwrap()).lines();
    let mut next = || parse(&lines.next().unwrap().unwrap());
    sim.emit(0, &thermal(1));
    sim.remove_gpu(0).unwrap();
    // Each GPU's file is read when it fills: only what was seen before the other is told is in order.
    let told = [next(), next()];
    // A look at the topology while it changes may miss the other GPU and open it again: that is a gap, too.
    let other = loop {
        sim.emit(1, &thermal(2));
        let item = next();
        if item["cause"] != "reopened" {
            break item;
        }
    };
    assert_eq!(told[0]["record"], "event", "{told:?}");
    assert_eq!((&told[1]["cause"], &told[1]["gpu"]["index"]), (&"gpu_removed".into(), &0.into()));
    assert_eq!((&other["record"], &other["gpu"]["index"]), (&"event".into(), &1.into()));
    end(watching).good();
}

/// The state that `/proc/<pid>/stat` tells: `S` sleeping, `T` stopped, ...
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}

#[test]
fn system_calls_that_are_interrupted_go_on() {
    // Stopping and continuing ends a wait in epoll with EINTR, without any handler (signal(7)).
    let mut running = Running::start(["watch", "--json", "--source", "sim:fault-storm,rate=200"]);
    for _ in 0..3 {
        parse(&running.line());
        running.signal(Signal::STOP);
        while state(running.child.id()) != 'T' {
            std::thread::yield_now();
        }
        running.signal(Signal::CONT);
        parse(&running.line());
    }
    running.signal(Signal::TERM);
    running.rest().good();
}

#[test]
fn a_machine_with_a_driver_is_watched_through_its_ioctls() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    if !possible(&sim) {
        return;
    }
    let watching = start_on(&sim, &["watch", "--json", "--count", "2"]);
    sim.emit(0, &thermal(1));
    sim.emit(1, &thermal(1));
    let ended = end(watching).good();
    let gpus: Vec<_> = ended.json().iter().map(|event| event["gpu"]["bdf"].to_string()).collect();
    assert_eq!(gpus.len(), 2);
    assert!(gpus.iter().all(|bdf| bdf.contains("0000:0")), "{gpus:?}");
    let listed = run_on(&sim, ["list"]).good();
    assert_eq!(listed.out.lines().count(), 3, "{}", listed.out);
}
