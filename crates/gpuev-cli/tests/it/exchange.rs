//! `gpuev export` and `gpuev import`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::history::record;
use crate::program::{Ended, Running, command, ended, parse, run};

/// Lines of a driver: an unknown event, a gap, a name that is not UTF-8, one that is no line at all.
const ODD: &[u8] =
    b"7 1000 -4242 @7fff00000(1b11) W\n8 2000 -4242 @7fff00000(1b11) M\nff of a later kernel\n\
    e 6000 -4242 5\n1 1092:\xff\xfe\n";

/// A folder with histories in it, which is the programs' own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With `run.db`, some thousand events of two GPUs.
    fn with_run() -> Self {
        let place = Self::new();
        record(&place.path("run.db"), "sim:mixed,gpus=2,count=3000,rate=100000,seed=7");
        place
    }

    /// With `odd.db`, made of [`ODD`].
    fn with_odd() -> Self {
        let place = Self::new();
        fs::write(place.path("odd.txt"), ODD).unwrap();
        let imported =
            place.run(&["import", "odd.txt", "-o", "odd.db", "--format", "driver"]).good();
        assert_eq!(imported.err, "gpuev: 5 events (2 of unknown kinds) and 1 gaps in odd.db\n");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Ended {
        ended(command(args).current_dir(&self.0))
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The names in it, sorted.
    fn names(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let names = fs::read_dir(&self.0).unwrap().map(name);
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn records<'r>(all: &'r [Value], kind: &'r str) -> impl Iterator<Item = &'r Value> {
    all.iter().filter(move |record| record["record"] == kind)
}

#[test]
fn what_was_exported_is_imported_to_the_same() {
    let place = Place::with_run();
    let exported = place.run(&["export", "run.db"]).good();
    assert_eq!(exported.err, "", "nothing is said beside the output");
    let all = exported.json();
    // Where the machine is busy some are lost, and a gap tells it.
    assert!(records(&all, "event").count() > 1_000, "{}", all.len());
    assert_eq!(records(&all, "session").count(), 1);
    let replayed = place.run(&["replay", "run.db", "--json"]).good();
    let facts = place.run(&["export", "run.db", "--no-spans"]).good().out;
    // A replay shows what `watch` showed; only the history knows the number of an item in its session.
    let mut next = 0;
    let mut unnumbered = |line: &str| {
        next += 1;
        line.replace(&format!(",\"item\":{next}}}"), "}") + "\n"
    };
    let facts: String = facts.lines().skip(1).map(&mut unnumbered).collect();
    assert_eq!(facts, replayed.out);

    let mut import = command(["import", "-", "-o", "copy.db"]);
    import.current_dir(&place.0).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut import = import.spawn().unwrap();
    import.stdin.take().unwrap().write_all(exported.out.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
    assert_eq!(place.run(&["export", "copy.db"]).good().out, exported.out);

    fs::write(place.path("run.ndjson"), &exported.out).unwrap();
    let again = place.run(&["import", "run.ndjson", "-o", "copy.db"]);
    assert_eq!(again.code, Some(2));
    assert!(again.err.contains("copy.db is there already: --force"), "{again:?}");
    place.run(&["import", "run.ndjson", "-o", "copy.db", "--force"]).good();
    assert_eq!(place.run(&["export", "copy.db"]).good().out, exported.out);
    assert_eq!(place.names(), ["copy.db", "run.db", "run.ndjson"]);
}

#[test]
fn the_name_of_the_output_says_the_format() {
    let place = Place::with_run();
    for name in ["run.ndjson", "run.JSONL", "run.csv", "run.trace.json", "run.trace"] {
        let told = place.run(&["export", "run.db", "-o", name]).good();
        assert_eq!(told.out, "");
        assert!(told.err.contains(" events, ") && told.err.contains(name), "{told:?}");
    }
    let ndjson = place.read("run.ndjson");
    assert_eq!(place.read("run.JSONL"), ndjson);
    assert_eq!(
        place.run(&["export", "run.db", "--format", "NDJSON", "-o", "-"]).good().out,
        ndjson
    );
    let csv = place.read("run.csv");
    assert!(csv.starts_with("record,session,time,type,"));
    // The header takes the place of the session.
    assert_eq!(csv.matches("\r\n").count(), ndjson.lines().count());
    let trace: Vec<Value> = serde_json::from_str(&place.read("run.trace.json")).unwrap();
    assert!(trace.iter().filter(|event| event["ph"] == "X").count() > 100);
    assert_eq!(place.read("run.trace"), place.read("run.trace.json"));
    for name in ["run.json", "run", "run.txt"] {
        let told = place.run(&["export", "run.db", "-o", name]);
        assert_eq!(told.code, Some(2), "{name}");
        assert!(told.err.contains("which format?") && told.err.contains("ndjson"), "{told:?}");
    }
    assert_eq!(place.names().len(), 6, "nothing else was written");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_format_that_is_not_built_in_names_its_feature() {
    let place = Place::with_run();
    let refused = place.run(&["export", "run.db", "-o", "run.parquet"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--features parquet"), "{refused:?}");
    assert!(!place.0.path().join("run.parquet").exists());
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_for_files_and_pipes() {
    let place = Place::with_run();
    let pipe = command(["export", "run.db", "--format", "parquet"]).current_dir(&place.0).output();
    let pipe = pipe.unwrap();
    assert!(pipe.status.success());
    place.run(&["export", "run.db", "-o", "run.parquet"]).good();
    let file = place.bytes("run.parquet");
    assert_eq!(pipe.stdout, file);
    assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1"));
    // script(1) gives it a terminal; where it is not installed there is nothing to see.
    let export = format!("{} export run.db --format parquet", crate::program::PROGRAM);
    let mut script = crate::program::untouched("script");
    script.args(["-qec", &export, "/dev/null"]).current_dir(&place.0).stdin(Stdio::null());
    let Ok(told) = script.output() else { return eprintln!("script(1) is missing") };
    let told = (told.status.code(), String::from_utf8_lossy(&told.stdout).into_owned());
    assert!(told.0 == Some(2) && told.1.contains("not for a terminal"), "{told:?}");
}

#[test]
fn only_what_is_wanted_is_exported() {
    let place = Place::with_run();
    let wanted = |args: &[&str]| place.run(&[&["export", "run.db"], args].concat()).good().json();
    let all = wanted(&[]);
    let second = wanted(&["--gpu", "1"]);
    let of_second = |record: &Value| record["record"] != "session" && record["gpu"]["index"] == 1;
    assert!(second[1..].iter().all(of_second));
    assert_eq!(second.len() - 1, all.iter().filter(|record| of_second(record)).count());
    // The spans are those of all events.
    let ends = wanted(&["--type", "PAGE_FAULT_END"]);
    let faults = |all: &[Value]| {
        records(all, "span")
            .filter(|span| span["type"] == "PAGE_FAULT")
            .cloned()
            .collect::<Vec<_>>()
    };
    assert!(records(&ends, "event").all(|event| event["type"] == "PAGE_FAULT_END"));
    assert!(!faults(&all).is_empty() && faults(&ends) == faults(&all));
    assert_eq!(wanted(&["--to", "2000-01-01"]).len(), 0);
    assert_eq!(wanted(&["--from", "1h ago"]), all);
    let no_gpu = place.run(&["export", "run.db", "--gpu", "7"]);
    assert_eq!(no_gpu.code, Some(2), "{no_gpu:?}");
    let no_moment = place.run(&["export", "run.db", "--from", "soon"]);
    assert!(no_moment.code == Some(2) && no_moment.err.contains("10m ago"), "{no_moment:?}");
}

#[test]
fn a_reader_that_leaves_and_a_disk_that_is_full() {
    let place = Place::with_run();
    let file = place.path("run.db");
    for format in ["ndjson", "csv", "trace"] {
        let mut running = Running::start(["export", file.to_str().unwrap(), "--format", format]);
        running.line();
        let ended = running.hang_up().good();
        assert_eq!(ended.err, "", "{format}");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut export = command(["export", file.to_str().unwrap(), "--format", format]);
        let told = ended_on(export.stdout(full));
        assert_eq!(told.code, Some(1), "{format}");
        assert!(told.err.contains("cannot write the output"), "{told:?}");
        let told = place.run(&["export", "run.db", "--format", format, "-o", "/dev/full"]);
        assert_eq!(told.code, Some(1), "{told:?}");
    }
    assert!(Path::new("/dev/full").exists(), "a device is written to, not replaced");
}

/// As [`ended`], where the output goes elsewhere.
fn ended_on(command: &mut std::process::Command) -> Ended {
    let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::new(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn an_output_is_whole_or_not_there() {
    let place = Place::with_run();
    fs::write(place.path("there.csv"), "mine").unwrap();
    let told = place.run(&["export", "run.db", "-o", "there.csv"]);
    assert_eq!(told.code, Some(2));
    assert!(told.err.contains("there.csv is there already: --force"), "{told:?}");
    let told = place.run(&["export", "run.db", "--format", "csv", "-o", "."]);
    assert!(told.code == Some(2) && told.err.contains("is a folder"), "{told:?}");
    let told = place.run(&["export", "run.db", "-o", "none/run.csv"]);
    assert!(told.code == Some(1) && told.err.contains("none/run.csv"), "{told:?}");

    // The pages in the middle are gone: reading fails when much is written already.
    let mut damaged = place.bytes("run.db");
    let (from, to) = (damaged.len() / 2, damaged.len() * 3 / 4);
    damaged[from..to].fill(0xff);
    fs::write(place.path("damaged.db"), &damaged).unwrap();
    let told = place.run(&["export", "damaged.db", "-o", "there.csv", "--force"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.err.contains("damaged.db") && told.err.contains(".recover"), "{told:?}");
    assert_eq!(place.read("there.csv"), "mine", "what was there stays until the new one is whole");
    assert_eq!(place.names(), ["damaged.db", "run.db", "there.csv"]);

    place.run(&["export", "run.db", "-o", "there.csv", "--force"]).good();
    assert!(place.read("there.csv").starts_with("record,"));
}

#[test]
fn what_is_misspelt_offers_the_nearest() {
    for (args, offered) in [
        (["export", "run.db", "--format", "cvs"], "csv"),
        (["export", "run.db", "--format", "ndjsn"], "ndjson"),
        (["export", "run.db", "--type", "VMFALT"], "VMFAULT"),
        (["export", "run.db", "--formt", "csv"], "--format"),
        (["import", "x", "-o=y", "--format=svm-profil"], "svm-profile"),
        (["import", "x", "-o=y", "--gpus=1"], "PCI address"),
        (["import", "x", "-o=y", "--booted=soon"], "10m ago"),
    ] {
        let ended = run(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.err.contains(offered), "{args:?}: {}", ended.err);
    }
    let ended = run(["export", "/nowhere/run.db"]);
    assert!(ended.code == Some(1) && ended.err.contains("/nowhere/run.db"), "{ended:?}");
}

#[test]
fn a_history_of_nothing_is_exported() {
    let place = Place::new();
    place.run(&["record", "--source", "sim:idle", "-o", "run.db", "--", "true"]).good();
    let exported = |format: &str| {
        let wanted = ["export", "run.db", "--format", format, "--to", "2000-01-01"];
        place.run(&wanted).good().out
    };
    assert_eq!(exported("ndjson"), "");
    assert_eq!(exported("csv").lines().count(), 1);
    assert_eq!(exported("trace"), "[]\n");
    fs::write(place.path("empty.ndjson"), "").unwrap();
    let nothing = place.run(&["import", "empty.ndjson", "-o", "empty.db"]);
    assert!(nothing.code == Some(1) && nothing.err.contains("is empty"), "{nothing:?}");
    assert!(!place.path("empty.db").exists());
}

#[test]
fn gaps_unknown_events_and_odd_bytes_are_in_every_format() {
    let place = Place::with_odd();
    let all = place.run(&["export", "odd.db"]).good().json();
    let gap = records(&all, "gap").next().unwrap();
    assert_eq!((&gap["count"], &gap["cause"]), (&Value::Null, &"driver_fifo_full".into()));
    let unknown = records(&all, "event").find(|event| event["type"] == "UNKNOWN").unwrap();
    assert_eq!(
        (&unknown["data"]["id"], &unknown["raw"]),
        (&255.into(), &"ff of a later kernel".into())
    );
    let fault = records(&all, "event").find(|event| event["type"] == "VMFAULT").unwrap();
    assert_eq!(
        (&fault["thread"], &fault["raw"]),
        (&"\\xff\\xfe".into(), &"1 1092:\\xff\\xfe".into())
    );
    let span = records(&all, "span").next().unwrap();
    assert_eq!((&span["outcome"], &span["duration_ns"]), (&"migrated".into(), &1000.into()));
    let csv = place.run(&["export", "odd.db", "--format", "csv"]).good().out;
    for part in [",1 1092:\\xff\\xfe,", ",ff of a later kernel,", "driver_fifo_full"] {
        assert!(csv.contains(part), "{part:?}: {csv}");
    }
    let trace = place.run(&["export", "odd.db", "--format", "trace"]).good().out;
    let trace: Vec<Value> = serde_json::from_str(&trace).unwrap();
    for name in ["driver_fifo_full", "UNKNOWN", "VMFAULT", "page fault: write"] {
        assert!(trace.iter().any(|event| event["name"] == name), "{name}: {trace:?}");
    }
}

#[test]
fn a_line_that_cannot_be_read_is_told() {
    let place = Place::with_odd();
    let mut text = place.run(&["export", "odd.db"]).good().out;
    text.insert_str(text.find("{\"v\":1,\"record\":\"event\"").unwrap(), "no json\n");
    fs::write(place.path("bad.ndjson"), &text).unwrap();
    let told = place.run(&["import", "bad.ndjson", "-o", "bad.db", "--format", "ndjson"]);
    assert_eq!(told.code, Some(1));
    assert!(
        told.err.contains("line 2 of bad.ndjson: ") && told.err.contains("--lenient"),
        "{told:?}"
    );
    assert!(!place.path("bad.db").exists());
    let told = place.run(&["import", "bad.ndjson", "-o", "bad.db", "--lenient"]).good();
    assert!(told.err.contains("5 events (2 of unknown kinds) and 1 gaps in bad.db"), "{told:?}");
    assert!(told.err.contains("1 lines left out, the first: line 2 of bad.ndjson: "), "{told:?}");
    let told = place.run(&["import", "odd.db", "-o", "odd2.db"]);
    assert!(told.code == Some(2) && told.err.contains("a history already"), "{told:?}");
    let told = place.run(&["import", "none.txt", "-o", "none.db"]);
    assert!(told.code == Some(1) && told.err.contains("none.txt"), "{told:?}");
    assert_eq!(place.names(), ["bad.db", "bad.ndjson", "odd.db", "odd.txt"]);
}

/// Logs that hold no event, and files that are no text.
#[test]
fn an_import_of_nothing_fails_and_says_what_the_file_seems_to_be() {
    let place = Place::new();
    let dmesg = "[12345.678901] amdgpu 0000:03:00.0: amdgpu: GPU reset begin!\n";
    for (content, seems) in [
        (dmesg.as_bytes(), "kernel log"),
        (b"2026-11-22T11:45:01Z 3 GPUs found, starting 2 workers\n", "none of the 1 lines"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "zcat FILE | gpuev import -"),
        (b"PK\x03\x04", "zip"),
        (
            b"{'processor_handle': c_void_p(1), 'event': 'MIGRATE_START', 'message': 'ns: 1'}\n",
            "none of",
        ),
    ] {
        fs::write(place.path("some.log"), content).unwrap();
        let told = place.run(&["import", "some.log", "-o", "some.db", "--lenient"]);
        assert!(matches!(told.code, Some(1 | 2)) && told.err.contains(seems), "{told:?}");
        let strict = place.run(&["import", "some.log", "-o", "some.db"]);
        assert!(matches!(strict.code, Some(1 | 2)), "{strict:?}");
        assert_eq!(place.names(), ["some.log"]);
    }
}

#[test]
fn without_an_output_an_import_is_a_new_history_that_is_read_next() {
    let place = Place::new();
    fs::write(place.path("kfd.log"), "7 1000 -4242 @7fff00000(1b11) W\n").unwrap();
    let run = |args: &[&str]| {
        let mut command = command(args);
        command.env("STATE_DIRECTORY", place.path("state"));
        ended(command.current_dir(&place.0)).good()
    };
    for times in 1..=2 {
        let told = run(&["import", "kfd.log"]);
        assert!(
            told.err.contains("1 events and 0 gaps in ") && told.err.contains("/import-"),
            "{told:?}"
        );
        assert_eq!(fs::read_dir(place.path("state")).unwrap().count(), times);
    }
    let read = run(&["replay", "--json"]);
    assert!(read.err.contains("reading ") && read.json().len() == 1, "{read:?}");
}

#[test]
fn profiles_and_logs_are_imported_with_what_is_known_besides() {
    let place = Place::new();
    let profile = "ROCr HMM event: 5000000000 QUEUE_RESTORE GPU1(0x55d0c9)\n";
    fs::write(place.path("svm.txt"), profile).unwrap();
    let args =
        ["import", "svm.txt", "-o", "svm.db", "--pid", "4242", "--booted=2026-11-22T00:00:00Z"];
    place.run(&[&args[..], &["--gpus", "0000:03:00.0,0000:83:00.0"]].concat()).good();
    let exported = place.run(&["export", "svm.db", "--no-spans"]).good().out;
    let restore = parse(exported.lines().nth(1).unwrap());
    assert_eq!(restore["gpu"]["bdf"], "0000:83:00.0");
    assert_eq!((&restore["pid"], &restore["type"]), (&4242.into(), &"QUEUE_RESTORE".into()));
    assert_eq!(restore["time"], "2026-11-22T00:00:05.000000000Z");

    let log = "2001-01-01 02:00:00 +0100 0000:83:00.0 3 1 RAS error\n2001-01-01T01:00:09Z 0000:83:00.0 4 1 \n";
    fs::write(place.path("kfd.log"), log).unwrap();
    place.run(&["import", "kfd.log", "-o", "log.db"]).good();
    let all = place.run(&["export", "log.db"]).good().json();
    let reset = records(&all, "span").next().unwrap();
    assert_eq!(
        (&reset["type"], &reset["duration_ns"]),
        (&"RESET".into(), &9_000_000_000_u64.into())
    );
    assert_eq!(reset["time"], "2001-01-01T01:00:00.000000000Z");
}
