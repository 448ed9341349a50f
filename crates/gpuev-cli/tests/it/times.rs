//! Times as they are shown and read: one rule for all commands.

use std::process::Command;

use crate::history::record;
use crate::program::{Ended, command, ended};

fn at(zone: &str, args: &[&str]) -> Ended {
    let mut command: Command = command(args);
    ended(command.env("TZ", zone))
}

const ONE: [&str; 5] = ["watch", "--source", "sim:reset", "--count", "1"];

#[test]
fn local_times_say_how_far_they_are_from_utc() {
    for (zone, offsets) in [
        ("Asia/Kolkata", &["+05:30"][..]),
        ("America/New_York", &["-05:00", "-04:00"]),
        ("<+0545>-5:45", &["+05:45"]),
        ("UTC", &["Z"]),
        ("", &["Z"]),
    ] {
        let shown = at(zone, &ONE).good();
        assert!(!shown.err.contains("TZ"), "{shown:?}");
        let time = shown.out.split(' ').next().unwrap().to_owned();
        assert!(offsets.iter().any(|offset| time.ends_with(offset)), "{zone}: {time}");
        let utc = at(zone, &[&ONE[..], &["--utc"]].concat()).good();
        assert!(utc.out.split(' ').next().unwrap().ends_with('Z'), "{zone}: {utc:?}");
    }
}

#[test]
fn a_zone_that_is_not_known_is_told() {
    for zone in ["Nowhere/Land", "Europe/Brelin"] {
        let shown = at(zone, &ONE).good();
        assert!(shown.out.split(' ').next().unwrap().ends_with('Z'), "{shown:?}");
        let told = format!("TZ=\"{zone}\" is no time zone");
        assert!(shown.err.contains(&told) && shown.err.contains("UTC"), "{shown:?}");
    }
}

#[test]
fn what_is_copied_from_an_output_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:mixed,count=400,rate=400,seed=7");
    let file = path.to_str().unwrap();
    for zone in ["Asia/Kolkata", "America/New_York", "UTC"] {
        for utc in [&[][..], &["--utc"]] {
            let run = |args: &[&str]| at(zone, &[args, utc].concat()).good().out;
            let all = run(&["replay", file]);
            let lines: Vec<&str> = all.lines().collect();
            let middle = lines[lines.len() / 2].split(' ').next().unwrap();
            // To the microsecond below, as it is shown.
            let from = run(&["replay", file, "--from", middle]);
            let to = run(&["replay", file, "--to", middle]);
            assert_eq!(to + &from, all, "{zone} {utc:?} {middle}");
            let report = run(&["report", file]);
            let words: Vec<&str> = report.split_whitespace().take(7).collect();
            let (began, ended) = (words[2..4].join(" "), words[5..7].join(" "));
            assert!(run(&["replay", file, "--to", &began]).is_empty(), "{zone} {began}: {report}");
            assert_eq!(run(&["replay", file, "--from", &began]), all, "{zone} {utc:?} {began}");
            assert!(!run(&["replay", file, "--from", &ended]).is_empty(), "{zone} {ended}");
            let name = if zone == "UTC" || !utc.is_empty() { "UTC" } else { zone };
            assert!(report.lines().next().unwrap().contains(name), "{report}");
        }
    }
}

#[test]
fn a_page_is_in_the_zone_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:mixed,count=200,rate=5000,seed=7");
    let page = folder.path().join("page.html");
    let page_of = |args: &[&str]| {
        let all = ["report", path.to_str().unwrap(), "--html", page.to_str().unwrap()];
        let mut command = command([&all[..], args].concat());
        ended(command.env("TZ", "Asia/Kolkata")).good();
        std::fs::read_to_string(&page).unwrap()
    };
    let local = page_of(&[]);
    assert!(
        local.contains("Times are +05:30 (Asia/Kolkata).") && !local.contains("UTC"),
        "{local}"
    );
    let utc = page_of(&["--utc"]);
    assert!(utc.contains("Times are UTC.") && !utc.contains("Kolkata"));
}

#[test]
fn a_report_fits_the_terminal_and_says_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:mixed,gpus=8,count=3000,rate=5000,seed=7");
    let file = path.to_str().unwrap();
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
    let of = |columns: &str, args: &[&str]| {
        let mut command = command([&["report", file], args].concat());
        ended(command.env("COLUMNS", columns).env("TZ", "Asia/Kolkata")).good().out
    };
    let narrow = of("", &[]);
    assert!(widest(&narrow) <= 80, "{narrow}");
    assert!(narrow.contains("--wide shows all"), "{narrow}");
    assert_eq!(of("40", &[]), narrow, "no table is narrower");
    let wider = of("132", &[]);
    assert!(widest(&wider) <= 132 && widest(&wider) > 80, "{wider}");
    let wide = of("80", &["--wide"]);
    assert!(widest(&wide) > 132 && !wide.contains("Left out"), "{wide}");
    for heading in ["INTERRUPTS", "KERNEL", "WITHOUT END OR BEGINNING"] {
        assert!(wide.contains(heading), "{heading}: {wide}");
    }
    // What must not be missing, however narrow it is.
    for part in ["MEMORY FAULTS", "RESETS", "P99", "PROCESS"] {
        assert!(narrow.contains(part), "{part}: {narrow}");
    }
}

#[test]
fn a_report_is_of_what_was_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:mixed,gpus=2,count=2000,rate=5000,seed=7");
    let file = path.to_str().unwrap();
    let count = |args: &[&str]| {
        let report = ended(&mut command([&["report", file, "--json"], args].concat())).good();
        report.json()[0]["events"].as_u64().unwrap()
    };
    let replayed = |args: &[&str]| {
        let replay = ended(&mut command([&["replay", file, "--json"], args].concat())).good();
        replay.json().iter().filter(|one| one["record"] == "event").count() as u64
    };
    for args in [
        &["--gpu", "1"][..],
        &["--type", "VMFAULT"],
        &["--severity", "critical"],
        &["--to", "2001-01-01"],
    ] {
        assert_eq!(count(args), replayed(args), "{args:?}");
    }
    assert!(count(&["--gpu", "1"]) < count(&[]));
}

#[test]
fn options_that_mean_nothing_are_refused() {
    for args in [
        &["report", "x.db", "--source", "sim"][..],
        &["export", "x.db", "--source", "sim"],
        &["import", "x", "--source", "sim"],
        &["rules", "show", "--source", "sim"],
        &["replay", "x.db", "--source", "sim"],
        &["--source", "sim", "report", "x.db"],
        &["report", "x.db", "--last", "1h", "--from", "11:45"],
        &["report", "x.db", "--json", "--wide"],
        &["export", "x.db", "--force"],
        &["record", "--strict"],
    ] {
        let ended = ended(&mut command(args));
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
    }
}
