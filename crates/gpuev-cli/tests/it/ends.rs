//! How the program ends: signals, outputs that are slow or gone, and limits of arguments.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::keeper::until;
use crate::machine::possible;
use crate::program::{PROGRAM, command, has_thread, run, runtime_dir, wait_for_the_storys_end};

const ENDLESS: &str = "sim:fault-storm,rate=5000";

/// What a shell does for `nohup` and `trap '' SIGNAL`.
fn ignoring(signals: &str, args: &[&str]) -> Command {
    let script = format!("trap '' {signals}; exec \"$0\" \"$@\"");
    let mut command = crate::program::untouched("sh");
    command.args(["-c", &script, PROGRAM]).args(args).stdin(Stdio::null());
    command.env("GPUEV_RUNTIME_DIR", runtime_dir());
    command
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// The signals that a process ignores and those that it handles, as masks.
fn dispositions(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    (mask("SigIgn:"), mask("SigCgt:"))
}

const fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

#[test]
fn signals_that_were_ignored_at_the_start_stay_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let history = folder.path().join("history.db");
    let history = history.to_str().unwrap();
    let source = ["--source", "sim:idle"];
    for args in [vec!["watch"], vec!["record", "-o", history]] {
        for (name, ignored) in [("HUP", Signal::HUP), ("INT", Signal::INT)] {
            let mut child = ignoring(name, &[&args[..], &source].concat()).spawn().unwrap();
            until(|| has_thread(child.id(), "gpuev-end"));
            let (ignores, handles) = dispositions(child.id());
            assert!(ignores & bit(ignored) != 0 && handles & bit(ignored) == 0, "{args:?} {name}");
            assert!(handles & bit(Signal::TERM) != 0);
            signal(&child, ignored);
            signal(&child, Signal::TERM);
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
    }
}

/// The program that it runs inherits what is ignored.
#[test]
fn a_program_that_is_run_ignores_what_its_caller_ignored() {
    let print = ["sh", "-c", "grep SigIgn /proc/$$/status"];
    let mut runs = vec![vec!["yield", "--socket", "/nowhere", "--"]];
    if possible(&gpuev_sim::SimMachine::new().unwrap()) {
        runs.push(vec!["sim", "run", "--"]);
    }
    for run in runs {
        let output = ignoring("HUP INT", &[&run[..], &print].concat()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mask = text.trim().strip_prefix("SigIgn:").unwrap().trim();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        let both = bit(Signal::HUP) | bit(Signal::INT);
        assert_eq!(mask & both, both, "{run:?} {text}");
    }
}

/// A pipe that nobody reads from.
fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe().unwrap()
}

/// Waits until no more goes into a pipe: a writer that is faster than the test looks has filled it.
fn is_full(reader: &OwnedFd) {
    let mut held = 0;
    let mut same = 0;
    until(|| {
        let now = rustix::io::ioctl_fionread(reader).unwrap();
        same = if now == held && now > 0 { same + 1 } else { 0 };
        held = now;
        std::thread::sleep(std::time::Duration::from_millis(10));
        same > 50
    });
}

#[test]
fn an_output_that_nobody_takes_keeps_nobody() {
    for (args, asked) in [(vec!["--for", "10ms"], false), (vec![], true)] {
        let (reader, writer) = pipe();
        let mut watch = command(["watch", "--source", ENDLESS, "--json"].iter().chain(&args));
        let mut child = watch.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        drop(watch);
        if asked {
            until(|| has_thread(child.id(), "gpuev-end"));
            is_full(&reader);
            signal(&child, Signal::TERM);
        }
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = child.wait().unwrap().code();
        // With so little time the pipe may not have been full.
        assert!(code == Some(0) || err.contains("the output is not taken"), "{err}");
        assert!(!asked || code == Some(1), "{err}");
        drop(reader);
    }
}

#[test]
fn an_output_that_is_closed_ends_it_also_when_nothing_happens() {
    let mut watch = command(["watch", "--source", "sim:idle", "--json"]);
    let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // As node and others start programs: with sockets.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut watch = command(["watch", "--source", "sim:idle"]);
    let mut child = watch.stdout(OwnedFd::from(theirs)).spawn().unwrap();
    drop((watch, ours));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_output_that_does_not_block_is_waited_for() {
    let (reader, writer) = pipe();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let source = "sim:fault-storm,rate=20000,count=5000";
    let mut watch = command(["watch", "--json", "--source", source]);
    let mut child = watch.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(watch);
    let (mut reader, mut out) = (BufReader::new(File::from(reader)), String::new());
    reader.read_line(&mut out).unwrap();
    wait_for_the_storys_end(child.id());
    reader.read_to_string(&mut out).unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{err}");
    let events = out.lines().filter(|line| line.contains("\"record\":\"event\"")).count();
    assert!(events == 5000 || out.contains("\"record\":\"gap\""), "{events} events");
}

#[test]
fn limits_are_told_at_the_argument() {
    for (args, why) in [
        (&["watch", "--summary", "0"][..], "too short"),
        (&["watch", "--summary", "1ms"], "too short"),
        (&["watch", "--buffer", "0"], "too small"),
        (&["watch", "--buffer", "1"], "too small"),
        (&["watch", "--count", "0"], "1 or more"),
        (&["watch", "--source", "file:/dev/zero"], "no capture"),
        (&["list", "--source", "file:/dev/zero"], "no capture"),
    ] {
        let ended = run(args);
        assert_eq!(ended.code, Some(2), "{args:?} {ended:?}");
        assert!(ended.err.contains(why), "{args:?} {ended:?}");
    }
}

/// As shells, env and nohup tell it.
#[test]
fn a_program_that_cannot_be_started_is_told_by_the_exit_code() {
    let mut runs = vec![vec!["yield", "--socket", "/nowhere", "--"]];
    if possible(&gpuev_sim::SimMachine::new().unwrap()) {
        runs.push(vec!["sim", "run", "--"]);
    }
    for args in runs {
        for (program, code) in
            [("/nonexistent", 127), ("no-such-program", 127), ("/etc/passwd", 126)]
        {
            let ended = run([&args[..], &[program]].concat());
            assert_eq!(ended.code, Some(code), "{args:?} {program} {ended:?}");
            assert!(ended.err.contains(program), "{ended:?}");
        }
    }
}

/// script(1) gives it a terminal; where it is not installed there is nothing to see.
#[test]
fn colours_follow_the_conventions() {
    let watch = format!("{PROGRAM} watch --source sim:mixed,seed=11 --count 5");
    let coloured = |variables: &[(&str, &str)]| {
        let mut script = crate::program::untouched("script");
        script.args(["-qec", &watch, "/dev/null"]).stdin(Stdio::null());
        script.env("TERM", "xterm").envs(variables.iter().copied());
        let text = String::from_utf8(script.output().ok()?.stdout).unwrap();
        Some(text.contains("\x1b["))
    };
    if coloured(&[]).is_none() {
        return eprintln!("script(1) is missing");
    }
    for (variables, expected) in [
        (&[][..], true),
        (&[("NO_COLOR", "1")], false),
        (&[("NO_COLOR", "")], true),
        (&[("TERM", "dumb")], false),
        (&[("CLICOLOR", "0")], false),
    ] {
        assert_eq!(coloured(variables), Some(expected), "{variables:?}");
    }
    let ended = crate::program::ended(
        command(["watch", "--source", "sim:mixed,seed=11", "--count", "5"])
            .env("CLICOLOR_FORCE", "1"),
    );
    assert!(ended.good().out.contains("\x1b["), "CLICOLOR_FORCE colours a pipe");
}
