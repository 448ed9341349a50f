//! `gpuev record -- PROGRAM`: the program runs, whatever becomes of its recording.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Ended, PROGRAM, Running, command, ended, run};

const IDLE: [&str; 3] = ["record", "--source", "sim:idle"];

/// A recorder with these options and this program, its ends piped.
fn start(options: &[&str], program: &[&str]) -> Child {
    let mut recorder = command(options.iter().chain(&["--"]).chain(program));
    recorder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A shell's program that says its pid and runs until its input ends.
const WAITING: [&str; 3] = ["sh", "-c", "echo $$; cat; exit 5"];

/// Reads a line, which is a pid.
fn pid(child: &mut Child) -> Pid {
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    Pid::from_raw(line.trim().parse().unwrap()).unwrap()
}

/// The letter that `/proc` has for what a process does, `T` where it is stopped.
fn state(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[test]
fn a_program_runs_where_it_cannot_be_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("run.db");
    let taken = Running::start([&IDLE[..], &["-o", whole.to_str().unwrap()]].concat());
    while !folder.path().join("run.db.lock").exists() {
        std::thread::yield_now();
    }
    let cases: [(&[&str], &str); 4] = [
        (&["--source", "sim:idle", "-o", "/nowhere/run.db"], "/nowhere/run.db"),
        (&["--source", "sim:idle", "-o", whole.to_str().unwrap()], "another gpuev records to it"),
        (&["--source", "sim:idle", "-o", folder.path().to_str().unwrap()], "it is a folder"),
        (&["--source", "sim,gpus=0", "-o", "/nowhere/run.db"], "no AMD GPU"),
    ];
    for (options, why) in cases {
        let program = ["--", "sh", "-c", "echo ran; exit 5"];
        let ended = run([&["record"], options, &program[..]].concat());
        assert_eq!((ended.code, ended.out.as_str()), (Some(5), "ran\n"), "{ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "it is told once: {ended:?}");
        assert!(ended.err.contains("sh runs unrecorded: ") && ended.err.contains(why), "{ended:?}");
        let strict = run([&["record", "--strict"], options, &program[..]].concat());
        assert_ne!(strict.code, Some(5), "{strict:?}");
        assert!(strict.out.is_empty() && strict.err.contains(why), "{strict:?}");
    }
    drop(taken);
    let strict =
        run([&IDLE[..], &["--strict", "-o", whole.to_str().unwrap(), "--", "true"]].concat());
    assert_eq!(strict.code, Some(0), "{strict:?}");
}

/// The disk is full as far as the recorder can tell: its files may have no more than some blocks.
#[test]
fn a_program_runs_on_where_its_recording_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = crate::program::untouched("sh");
    shell.args(["-c", "ulimit -f 6000; exec \"$@\"", "sh", PROGRAM, "record", "-o"]);
    shell.arg(folder.path().join("run.db"));
    shell.args(["--source", "sim:fault-storm,rate=20000", "--"]).args(WAITING);
    let mut child =
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let program = pid(&mut child);
    let mut told = String::new();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    said.read_line(&mut told).unwrap();
    assert!(told.contains("sh runs on, its recording to") && told.contains("run.db"), "{told}");
    assert_ne!(state(program), 'Z');
    child.stdin.take().unwrap().write_all(b"still here\n").unwrap();
    let ended = end(child);
    assert_eq!((ended.code, ended.out.as_str()), (Some(5), "still here\n"));
    let mut more = String::new();
    said.read_line(&mut more).unwrap();
    assert_eq!(more, "", "it is told once");
}

#[test]
fn a_program_that_cannot_be_started_ends_as_a_shell_ends() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    for (program, code) in [("/nowhere/program", 127), (plain.to_str().unwrap(), 126)] {
        for output in [folder.path().join("run.db"), "/nowhere/run.db".into()] {
            let ended = run([&IDLE[..], &["-o", output.to_str().unwrap(), "--", program]].concat());
            assert_eq!(ended.code, Some(code), "{ended:?}");
            assert!(ended.err.contains(&format!("start {program}")), "{ended:?}");
        }
    }
}

#[test]
fn what_is_sent_to_the_recorder_reaches_its_program() {
    // bash looks at its traps between commands: a read that ends by itself makes that soon.
    let script = "for s in HUP INT QUIT TERM USR1 USR2 ALRM; do trap \"echo $s\" $s; done; echo $$; while read -t 0.1 || [ $? -gt 128 ]; do :; done; exit 5";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.db");
    for options in [file.to_str().unwrap(), "/nowhere/run.db"] {
        let mut child = start(&[&IDLE[..], &["-o", options]].concat(), &["bash", "-c", script]);
        let program = pid(&mut child);
        let recorder = Pid::from_child(&child);
        assert_ne!(program, recorder);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        for signal in [
            Signal::TERM,
            Signal::HUP,
            Signal::INT,
            Signal::QUIT,
            Signal::USR1,
            Signal::USR2,
            Signal::ALARM,
        ] {
            kill_process(recorder, signal).unwrap();
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let name = format!("{signal:?}");
            assert!(name.contains(line.trim().trim_end_matches("RM")), "{name}: {line}");
        }
        drop(child.stdin.take());
        assert_eq!(end(child).code, Some(5));
    }
}

#[test]
fn a_signal_ends_a_program_and_the_recorder_says_so() {
    // The shell alone reads: a program of its own would outlive it and keep its output open.
    let program = ["sh", "-c", "echo $$; read line; exit 5"];
    let mut child = start(&[&IDLE[..], &["-o", "/nowhere/run.db"]].concat(), &program);
    pid(&mut child);
    // The end of its input would end the program, too.
    let input = child.stdin.take();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(end(child).code, Some(128 + 15));
    drop(input);
}

#[test]
fn signals_that_are_ignored_stay_ignored() {
    let script = "trap '' HUP USR1; exec \"$@\"";
    let mut shell = crate::program::untouched("sh");
    shell.args(["-c", script, "sh", PROGRAM]).args(IDLE).args(["-o", "/nowhere/run.db", "--"]);
    let ended = ended(shell.args(["grep", "^SigIgn", "/proc/self/status"]));
    let mask = ended.out.trim().trim_start_matches("SigIgn:").trim();
    let mask = u64::from_str_radix(mask, 16).unwrap();
    let ignored = |signal: u32| mask >> (signal - 1) & 1 == 1;
    assert!(ignored(1) && ignored(10), "{mask:x}");
    for signal in [2, 3, 12, 14, 15, 18, 20] {
        assert!(!ignored(signal), "{signal}: {mask:x}");
    }
}

#[test]
fn a_stop_is_the_programs_and_both_go_on() {
    let mut child = start(&[&IDLE[..], &["-o", "/nowhere/run.db"]].concat(), &WAITING);
    let (program, recorder) = (pid(&mut child), Pid::from_child(&child));
    kill_process(recorder, Signal::TSTP).unwrap();
    while state(program) != 'T' || state(recorder) != 'T' {
        std::thread::yield_now();
    }
    kill_process(recorder, Signal::CONT).unwrap();
    while state(program) == 'T' || state(recorder) == 'T' {
        std::thread::yield_now();
    }
    drop(child.stdin.take());
    assert_eq!(end(child).code, Some(5));
}

/// A program that somebody else stops does not stop the recorder: nobody would wake it.
#[test]
fn a_recorder_does_not_stop_where_no_shell_looks_on() {
    let mut child = start(&[&IDLE[..], &["-o", "/nowhere/run.db"]].concat(), &WAITING);
    let program = pid(&mut child);
    kill_process(program, Signal::STOP).unwrap();
    while state(program) != 'T' {
        std::thread::yield_now();
    }
    kill_process(program, Signal::CONT).unwrap();
    drop(child.stdin.take());
    assert_eq!(end(child).code, Some(5));
}

/// Runs it as a service with this folder.
fn of_service(folder: &Path, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("STATE_DIRECTORY", folder);
    command
}

#[test]
fn recorders_at_the_same_time_have_histories_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = of_service(folder.path(), &[&IDLE[..], &["--"], &WAITING].concat());
    let mut first =
        first.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    pid(&mut first);
    let second = ended(&mut of_service(
        folder.path(),
        &["record", "--source", "sim:mixed,count=20", "--", "true"],
    ));
    assert_eq!(second.code, Some(0), "{second:?}");
    assert!(second.err.contains("/history-"), "{second:?}");
    drop(first.stdin.take());
    let first = end(first);
    assert!(first.code == Some(5) && first.err.contains("/history.db"), "{first:?}");
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(
        names.len() == 2 && names[0].starts_with("history-") && names[1] == "history.db",
        "{names:?}"
    );
    let report = ended(&mut of_service(folder.path(), &["report", "--json"]));
    assert!(report.err.contains("reading ") && report.err.contains("/history"), "{report:?}");
}

#[test]
fn a_home_that_hosts_share_has_a_history_of_each() {
    if rustix::process::geteuid().is_root() {
        // Root's folder is the host's own; the name is tested by the user's.
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut record = command([&IDLE[..], &["--", "true"]].concat());
    record.env("XDG_STATE_HOME", home.path()).env_remove("STATE_DIRECTORY");
    let ended = ended(&mut record);
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let host = host.split('.').next().unwrap().to_owned();
    assert!(ended.err.contains(&format!("gpuev/history-{host}.db")), "{ended:?}");
}
