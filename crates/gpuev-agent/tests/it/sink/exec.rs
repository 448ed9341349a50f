//! Programs that get alerts on their standard input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gpuev_agent::AlertState;
use gpuev_agent::sink::{Notice, Settings, Sinks};

use super::fixture::{Told, change, context, until};

fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn start(folder: &Path, text: &str, more: &str, told: &Told) -> Sinks {
    let script = script(folder, text);
    let toml = format!(
        "[exec.one]\ncommand = [{script:?}, \"an argument; rm -rf x\"]\nfolder = {folder:?}\n\
         queue.retry_first = \"1ms\"\nqueue.retry_most = \"5ms\"\n{more}"
    );
    let settings: Settings = toml::from_str(&toml).unwrap();
    Sinks::start(&settings, context(folder, told)).unwrap()
}

fn failing(told: &Told) -> String {
    until("it is told", || told.count(|n| matches!(n, Notice::SetAside { .. })) > 0);
    told.all()[0].to_string()
}

#[test]
fn it_gets_the_record_and_what_it_is_in_a_clean_environment() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "cat >> got; echo \"$1 $GPUEV_ID $GPUEV_RULE $GPUEV_STATE $GPUEV_HOST $HOME.\" >> said";
    let sinks = start(folder.path(), text, "", &Told::default());
    sinks.change(&change("a1", AlertState::Firing));
    until("it is told", || sinks.stats()[0].delivered == 1);
    sinks.change(&change("a1", AlertState::Resolved));
    until("all delivered", || sinks.stats()[0].waiting == 0);
    let got = fs::read_to_string(folder.path().join("got")).unwrap();
    let states: Vec<_> = got
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].clone())
        .collect();
    assert_eq!(states, ["firing", "resolved"]);
    let said = fs::read_to_string(folder.path().join("said")).unwrap();
    let expected = "an argument; rm -rf x a1.1 vmfault firing node7 .\n";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn one_that_fails_is_tried_again_and_what_it_says_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text = "cat > /dev/null; echo try >> tries; test -e fixed && exit 0\n\
                yes | head -c 100000; echo 'no route to pager' >&2; exit 3";
    let told = Told::default();
    let sinks = start(folder.path(), text, "", &told);
    sinks.change(&change("a1", AlertState::Firing));
    let text = failing(&told);
    assert!(text.contains("ended with 3: no route to pager"), "{text}");
    fs::write(folder.path().join("fixed"), "").unwrap();
    until("all delivered", || sinks.stats()[0].waiting == 0);
    assert!(fs::read_to_string(folder.path().join("tries")).unwrap().lines().count() >= 2);
}

#[test]
fn one_that_does_not_end_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let text = "test -e pid && exit 0; sleep 1000 & echo $! > pid; wait";
    let told = Told::default();
    let sinks = start(folder.path(), text, "timeout = \"300ms\"\n", &told);
    sinks.change(&change("a1", AlertState::Firing));
    let text = failing(&told);
    assert!(text.contains("did not end within 300ms and was killed"), "{text}");
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // Gone, or a zombie that nobody waits for.
    until("its child is gone", || {
        fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "))
    });
    until("all delivered", || sinks.stats()[0].waiting == 0);
}

#[test]
fn a_program_without_a_whole_path_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings: Settings = toml::from_str("[exec.one]\ncommand = [\"sendpage\"]\n").unwrap();
    let error = settings.check(&context(folder.path(), &Told::default())).unwrap_err();
    assert!(error.to_string().contains("whole path"), "{error}");
}
